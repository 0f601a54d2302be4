"""Whether the client of one connection is still there, while the end of file does not tell.

See :mod:`deferpost.wire.departures` for why that is a question.  This sends ahead what the answer
goes on with, a byte at a time, and watches for the reset that a client which is gone sends back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deferpost.wire.departures import PAUSES, ZEROS
from deferpost.wire.sockets import socket_of

__all__ = ["Presence"]


class Presence:
    """Looks for the client of one connection.  Made when there is reason to.

    :param transport: the connection's transport.
    :param hangups: a :class:`deferpost.wire.departures.HangupWatch`; None where there is none.
    :param ended: called when the client has ended its side, behind what is not read.
    :param reset: called when the connection is reset.

    :ivar sent: bytes that were sent ahead.
    """

    __slots__ = ("_ended", "_hangups", "_reset", "_transport", "_watched", "sent")

    def __init__(
        self,
        transport: Any,
        hangups: Any,
        ended: Callable[[], None],
        reset: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._hangups = hangups
        self._ended = ended
        self._reset = reset
        self._watched: int | None = None
        self.sent = 0

    @property
    def watching(self) -> bool:
        """Whether the system is asked."""
        return self._watched is not None

    def watch(self, *, half: bool) -> None:
        """Be told by the system when the peer hangs up, without reading.

        :param half: whether the end of its side alone counts.
        """
        self.unwatch()
        below = socket_of(self._transport)
        if self._hangups is not None and below is not None:
            self._watched = below.fileno()
            self._hangups.watch(self._watched, self._half if half else self._whole, half=half)

    def unwatch(self) -> None:
        """Ask the system no more."""
        watched, self._watched = self._watched, None
        if watched is not None:
            self._hangups.unwatch(watched)

    def _half(self) -> None:
        self._watched = None
        self._ended()

    def _whole(self) -> None:
        self._watched = None
        self._reset()

    def send_ahead(self, request: Any, version: bytes, outgoing: Any) -> float | None:
        """Send the next byte that the answer goes on with.

        :param request: that is answered.
        :param version: of HTTP, with which a status line begins.
        :param outgoing: where to.
        :returns: seconds until it is worth to send another; None for never.
        """
        if not getattr(request, "startedWriting", False):
            beginning = version + b" "
        elif getattr(request, "chunked", False) and not outgoing.full:
            beginning = ZEROS  # of the size of the next chunk
        else:
            return None
        sent = self.sent
        if sent >= len(beginning):
            return None
        self.sent += 1
        outgoing.write(beginning[sent : sent + 1])
        return PAUSES[sent + 1] if sent + 1 < len(PAUSES) else None
