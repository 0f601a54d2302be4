"""What code written for Twisted's own channel finds on ours, beside what its requests call.

Nothing in this package calls it.  Each thing does what ``twisted.web.http.HTTPChannel`` does, but
for what is Twisted's own business; none of it loosens a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from deferpost.wire.deadlines import OwnDeadline
from deferpost.wire.limits import Limits

__all__ = ["FamiliarChannel"]


class FamiliarChannel:
    """The part of a channel that its site, its requests and its resources do not use.

    :ivar timeOut: seconds without a request or a byte of a body, of a channel that no site of ours
        has made; None for what its limits say.
    :ivar callLater: of a reactor, for the same.
    """

    timeOut: float | None = None
    callLater: Callable[..., Any] | None = None

    limits: Limits
    deadlines: Any
    deadline: float | None
    transport: Any
    outgoing: Any
    _request: Any
    _producer: Any

    @property
    def requests(self) -> list[Any]:
        """The request that is under way, if there is one; a copy."""
        return [] if self._request is None else [self._request]

    def checkPersistence(self, request: IRequest, version: bytes) -> bool:
        """Whether a request by itself leaves the connection open.

        :param request: whose response is told, if it is to be the last.
        :param version: of HTTP.
        """
        if version != b"HTTP/1.1":
            return False
        for value in request.requestHeaders.getRawHeaders(b"Connection") or ():
            if b"close" in {option.strip(b" \t").lower() for option in value.split(b",")}:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
                return False
        return True

    def setTimeout(self, seconds: float | None) -> None:
        """Have no deadline, or one from now; as for the next thing that happens, its own begins."""
        self.deadlines.drop(self)
        if seconds is not None:
            self.deadlines.hold(self, self.deadlines.now() + seconds)

    def pauseProducing(self) -> None:
        """The transport has enough, says somebody between it and us."""
        if not self.outgoing.full:
            self.outgoing.pauseProducing()

    def resumeProducing(self) -> None:
        """It wants more."""
        if self.outgoing.full:
            self.outgoing.resumeProducing()

    def stopProducing(self) -> None:
        """It is about to close."""
        if self._producer is not None:
            self._producer.stopProducing()

    def _for_itself(self) -> None:
        """Have what a site of ours gives to its channels."""
        clock = getattr(self.transport, "reactor", None)
        if self.callLater is not None:
            self.deadlines = OwnDeadline(self.callLater)
        elif clock is not None:
            self.deadlines = OwnDeadline(clock.callLater)
        else:  # a transport in memory, of which nobody waits for anything
            self.deadlines = OwnDeadline(Clock().callLater)
        if self.timeOut is not None:
            self.limits = attrs.evolve(
                self.limits, idle_timeout=self.timeOut, body_window=self.timeOut
            )

    def _protocolUpgradeForWebsockets(self, protocol: IProtocol) -> None:
        """Give the transport to another protocol; called by :mod:`twisted.web.websocket`."""
        own_lost = self.connectionLost  # type: ignore[attr-defined]  # the channel has it

        def lost(reason: Failure) -> None:
            protocol.connectionLost(reason)
            own_lost(reason)

        self.deadline = None
        self.outgoing.flush()
        self.outgoing.stop()  # the producer of the transport is for the other to set
        self.__dict__.update(
            dataReceived=protocol.dataReceived,
            connectionLost=lost,
            readConnectionLost=self.transport.loseConnection,
        )
        protocol.makeConnection(self.transport)
