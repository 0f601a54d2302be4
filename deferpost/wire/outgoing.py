"""What leaves a connection: sent at once where the system takes it, else kept by the transport.

A transport of Twisted's sends in the next turn of the reactor, between two changes to its epoll
set, which was 40 % of the time of a short answer.  So bytes go to the socket at once while the
transport holds none; order is kept, since all that is written comes through here.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from deferpost.wire.sockets import connection_below

__all__ = ["DirectOutgoing", "Outgoing", "TransportOutgoing", "outgoing_for"]


def _nothing() -> None:
    """For a connection that is lost."""


class Outgoing:
    """Writes to a transport.  For the reactor thread.

    :param transport: the connection's transport.
    :param filled: called when the client takes no more for now.
    :param drained: called when it has taken all that was written.

    :ivar full: whether the client has yet to take what was written.
    """

    __slots__ = ("_corks", "_drained", "_filled", "_kept", "_transport", "full")

    def __init__(
        self, transport: Any, filled: Callable[[], None], drained: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._filled = filled
        self._drained = drained
        self._corks = 0
        self._kept: list[bytes] = []
        self.full = False

    def cork(self) -> None:
        """Keep what is written until as many :meth:`uncork`, or :meth:`flush`."""
        self._corks += 1

    def uncork(self) -> None:
        """Send what was kept, if this was the last cork."""
        if self._corks > 1:
            self._corks -= 1
        else:
            self.flush()

    def flush(self) -> None:
        """Send what was kept, as one piece, however many corks there were."""
        self._corks = 0
        if self._kept:
            kept, self._kept = self._kept, []
            self._send(kept[0] if len(kept) == 1 else b"".join(kept))

    def write(self, data: bytes) -> None:
        """Send, in order."""
        if self._corks:
            self._kept.append(data)
        elif data:
            self._send(data)

    def start(self) -> None:
        """The transport is connected."""

    def stop(self) -> None:
        """The transport is to close when all is sent."""

    def close(self) -> None:
        """The connection is lost: hold on to nobody, so that the memory is free at once."""
        self._filled = self._drained = _nothing

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def unsent(self) -> object:
        """What the transport and the system still hold; it changes when the client takes more."""
        below = connection_below(self._transport)
        if below is None:
            return None
        held = struct.unpack("i", fcntl.ioctl(below.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        return held, len(below.dataBuffer) - below.offset


@implementer(IPullProducer)
class DirectOutgoing(Outgoing):
    """Writes to the socket of a transport of Twisted's own, without TLS."""

    __slots__ = ("_registering", "_socket_send")

    def __init__(
        self, transport: Any, filled: Callable[[], None], drained: Callable[[], None]
    ) -> None:
        super().__init__(transport, filled, drained)
        self._socket_send = transport.socket.send
        self._registering = False

    def _send(self, data: bytes) -> None:
        if self.full:
            self._transport.write(data)
            return
        try:
            sent = self._socket_send(data)
        except OSError:  # it would block; or it is lost, which the transport will find
            sent = 0
        if sent < len(data):
            self.full = True
            self._transport.write(data[sent:])
            self._registering = True
            self._transport.registerProducer(self, False)  # tells when all of it is taken
            self._registering = False
            self._filled()

    def resumeProducing(self) -> None:
        """The transport holds nothing any more."""
        if not self._registering:  # which calls this at once
            self.full = False
            self._transport.unregisterProducer()
            self._drained()

    def stopProducing(self) -> None:
        """The connection is lost."""


@implementer(IPushProducer)
class TransportOutgoing(Outgoing):
    """Writes to any other transport, by its own rules."""

    __slots__ = ()

    def start(self) -> None:
        """Be told when the transport has enough."""
        if hasattr(self._transport, "registerProducer"):
            self._transport.registerProducer(self, True)

    def stop(self) -> None:
        """Let the transport close; it would wait for its producer's end."""
        if hasattr(self._transport, "unregisterProducer"):
            self._transport.unregisterProducer()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self.full = True
        self._filled()

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self.full = False
        self._drained()

    def stopProducing(self) -> None:
        """The connection is lost."""


def outgoing_for(
    transport: Any, filled: Callable[[], None], drained: Callable[[], None]
) -> Outgoing:
    """The way out that suits a transport; the arguments are those of :class:`Outgoing`."""
    if isinstance(transport, Connection) and not transport.TLS:
        return DirectOutgoing(transport, filled, drained)
    return TransportOutgoing(transport, filled, drained)
