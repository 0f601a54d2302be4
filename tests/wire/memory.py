"""Connections in memory: a client that sends as it likes, and a channel on a transport of its own.

The transport does what those of Twisted's TCP do, in their order: it gives nothing while it is
paused, ends a connection in a later turn, and tells its producer when the client takes no more.
Time is a clock that stands still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from zope.interface import implementer

from deferpost.wire.limits import Limits
from deferpost.wire.rules import RequestLine
from deferpost.wire.site import DeferPostSite

__all__ = ["Connection", "MemoryTransport", "RecordingSite", "site_of"]

PEER = IPv4Address("TCP", "192.0.2.1", 4711)
HOST = IPv4Address("TCP", "192.0.2.2", 80)

#: Bytes that a transport keeps for a client that takes none, before its producer hears of it.
_KEPT_BYTES = 64 * 1024


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryTransport:
    """The server's end of a connection.

    :param clock: whose turns end connections.

    :ivar protocol: what it talks to.
    :ivar taken: the bytes that the client has taken.
    :ivar taking: whether the client takes what is written.
    :ivar given: bytes that the protocol has been given.
    :ivar over: whether the connection has ended.
    :ivar disconnecting: whether it is going to, when what was written is taken.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.protocol: Any = None
        self.taken = bytearray()
        self.taking = True
        self.over = False
        self.aborted = False
        self.given = 0
        self._untaken = bytearray()
        self._coming: deque[bytes] = deque()
        self._eof = False
        self._reading = True
        self.disconnecting = False
        self._ending_writes = False
        self._writes_ended = False
        self._producer: Any = None
        self._told = False
        self._giving = False

    # For the protocol.

    def write(self, data: bytes) -> None:
        """Write; after its end, in vain."""
        assert type(data) is bytes
        if not (self.over or self._ending_writes or self.aborted):
            self._untaken += data
            if self.taking:
                self.taken += self._untaken
                self._untaken.clear()
            elif len(self._untaken) > _KEPT_BYTES and self._producer is not None:
                self._told = True
                self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """End when what was written is taken."""
        if self.over or self.disconnecting:
            return
        self.disconnecting = True
        if self._writes_ended:
            self._end(ConnectionDone())
        else:
            self._clock.callLater(0, self._flushed)

    def loseWriteConnection(self) -> None:
        """End this side when what was written is taken."""
        if not self._ending_writes:
            self._ending_writes = True
            self._clock.callLater(0, self._flushed)

    def abortConnection(self) -> None:
        """End at once."""
        if not (self.over or self.aborted):
            self.aborted = True
            self._clock.callLater(0, self._end, ConnectionAborted())

    def pauseProducing(self) -> None:
        """Give nothing."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Give again, in a later turn."""
        if not (self.over or self.disconnecting):
            self._reading = True
            self._clock.callLater(0, self._give)

    def stopProducing(self) -> None:
        """End."""
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a producer."""
        assert self._producer is None
        assert streaming
        self._producer = producer
        if self.over or self.disconnecting:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Its end."""
        self._producer = None

    def getPeer(self) -> IPv4Address:
        """The client's address."""
        return PEER

    def getHost(self) -> IPv4Address:
        """The server's."""
        return HOST

    # For the client.

    def bring(self, data: bytes) -> None:
        """Bytes of the client."""
        if data:
            self._coming.append(data)
            self._give()

    def bring_end(self) -> None:
        """The client sends no more."""
        self._eof = True
        self._give()

    def take(self) -> None:
        """The client takes all that was written, and all that is going to be."""
        self.taking = True
        if not self.over:
            self.taken += self._untaken
            self._untaken.clear()
            if self.disconnecting or self._ending_writes:
                self._clock.callLater(0, self._flushed)
            if self._told:
                self._told = False
                if self._producer is not None:
                    self._producer.resumeProducing()

    def reset(self) -> None:
        """The client is gone."""
        self._end(ConnectionLost())

    @property
    def held(self) -> bool:
        """Whether the client is held back."""
        return not self._reading

    @property
    def untaken(self) -> int:
        """Bytes that the client has yet to take."""
        return len(self._untaken)

    @property
    def ended(self) -> bool:
        """Whether the client sees the end of what is written."""
        return self.over or self._writes_ended

    # Inside.

    def _give(self) -> None:
        if self._giving:
            return
        self._giving = True
        try:
            while self._coming and self._gives:
                piece = self._coming.popleft()
                self.given += len(piece)
                self.protocol.dataReceived(piece)
            if self._eof and not self._coming and self._gives:
                self._reading = False
                if IHalfCloseableProtocol.providedBy(self.protocol):
                    self.protocol.readConnectionLost()
                else:
                    self._end(ConnectionDone())
        finally:
            self._giving = False

    @property
    def _gives(self) -> bool:
        return self._reading and not (self.over or self.disconnecting or self.aborted)

    def _flushed(self) -> None:
        if self._untaken or self.over:
            return
        if self.disconnecting:
            self._end(ConnectionDone())
        elif self._ending_writes and not self._writes_ended:
            self._writes_ended = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _end(self, reason: Exception) -> None:
        if not self.over:
            self.over = True
            if self._producer is not None:
                self._producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))


class RecordingSite(DeferPostSite):
    """A site that keeps what it would log.

    :ivar answered: the methods of the requests that were answered.
    :ivar refused: the statuses of what the wire itself refused.
    """

    def __init__(self, resource: IResource, limits: Limits | None) -> None:
        super().__init__(resource, limits=limits, reactor=Clock())
        self.answered: list[bytes] = []
        self.refused: list[int] = []

    def log(self, request: Any) -> None:
        """Called for each response."""
        self.answered.append(request.method)

    def log_refused(
        self, peer: Any, line: RequestLine | None, status: int, detail: str, id: str
    ) -> None:
        """Called for each refusal."""
        self.refused.append(status)


def site_of(resource: IResource, limits: Limits | None = None) -> RecordingSite:
    """A site with a clock of its own.

    :param resource: its root.
    :param limits: its bounds; the default ones, if not given.
    """
    site = RecordingSite(resource, limits)
    site.displayTracebacks = False
    return site


class Connection:
    """One connection to a site, as its client has it.

    :param site: the site; its reactor is a :class:`Clock`.

    :ivar channel: the server's end.
    """

    def __init__(self, site: Any) -> None:
        self.site = site
        self.clock: Clock = site.reactor
        self.transport = MemoryTransport(self.clock)
        self.channel = self.transport.protocol = site.buildProtocol(PEER)
        self.channel.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> None:
        """Send pieces, each of which arrives for itself."""
        for piece in pieces:
            self.transport.bring(piece)
            self.settle()

    def half_close(self) -> None:
        """Send no more."""
        self.transport.bring_end()
        self.settle()

    def leave(self) -> None:
        """Close, without a word."""
        self.transport.reset()
        self.settle()

    def take(self) -> None:
        """Take what was written, after ``transport.taking = False``."""
        self.transport.take()
        self.settle()

    def settle(self) -> None:
        """Let everything happen that is due."""
        clock = self.clock
        while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
            clock.advance(0)

    @property
    def received(self) -> bytes:
        """What the client got."""
        return bytes(self.transport.taken)
