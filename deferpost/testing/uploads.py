"""A client that sends a body while its handler runs, without a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from deferpost.arriving import ArrivingBody

__all__ = ["Upload"]


@implementer(IPushProducer)
class Upload:
    """Sends a body, and can be held back.  For the reactor thread.

    :param reactor: sends the pieces of :meth:`send_all` (:class:`IReactorTime`).

    :ivar body: what it sends, for a job.
    :ivar sent: how many bytes were sent.
    :ivar paused: whether it is held back.
    :ivar pauses: how often it was.
    """

    def __init__(self, reactor: Any) -> None:
        self.body = ArrivingBody()
        self.sent = 0
        self.paused = False
        self.pauses = 0
        self._reactor = reactor
        self._pieces: Iterator[bytes] | None = None
        self._due = False
        self.body.open(self)

    def send(self, data: bytes) -> None:
        """Send a piece, held back or not."""
        self.sent += len(data)
        self.body.receive(data)

    def send_all(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, one in each turn of the reactor, whenever it is not held back."""
        self._pieces = iter(pieces)
        self._go_on()

    @property
    def is_done(self) -> bool:
        """Whether all pieces of :meth:`send_all` were sent."""
        return self._pieces is None

    def complete(self) -> None:
        """The body is whole."""
        self.body.complete()

    def leave(self) -> None:
        """Leave in the middle."""
        self._pieces = None
        self.body.broken()

    def pauseProducing(self) -> None:
        """It is held back."""
        assert not self.paused, "held back twice"
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        """It may go on."""
        assert self.paused, "let go on twice"
        self.paused = False
        self._go_on()

    def stopProducing(self) -> None:
        """Nobody says so to a client."""

    def _go_on(self) -> None:
        if self._pieces is not None and not self._due and not self.paused:
            self._due = True
            self._reactor.callLater(0, self._send_next)

    def _send_next(self) -> None:
        self._due = False
        if self._pieces is None or self.paused:
            return
        for piece in self._pieces:
            self.send(piece)
            self._go_on()
            return
        self._pieces = None
        self.complete()
