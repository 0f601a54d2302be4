"""A request body that is given to its handler while it arrives.

It stands between whoever reads the connection and the pool that runs the handler, keeps what
arrives until somebody takes it, and holds the client back before that is too much.  How a thread
or a process reads it is the pools' business.  For the reactor thread.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from zope.interface import implementer

from deferpost.errors import BodyBroken
from deferpost.interfaces import IArrivingBody

__all__ = ["KEPT_BYTES", "KEPT_PIECES", "ArrivingBody"]

#: Bytes that are kept for a job which waits until its client is held back.
KEPT_BYTES = 256 * 1024

#: In how many pieces, since the smallest need more memory than they have bytes.
KEPT_PIECES = 1024


@implementer(IArrivingBody)
class ArrivingBody:
    """The body of one request, from its first byte to its last.

    Made when the headers are in, given to the dispatcher as the body of the call, and fed as an
    :class:`~deferpost.interfaces.IBodySink`, in whichever order: what comes first is kept.  Its
    pool closes it, in any case.

    :param bound: bytes that are kept, before somebody takes them, until the client is held back.

    :ivar closed: whether nobody reads it any more.
    :ivar error: why it will never be whole; None while it may be.
    """

    __slots__ = (
        "_bound",
        "_delivering",
        "_flow",
        "_held",
        "_kept",
        "_kept_bytes",
        "_over",
        "_paused",
        "_sink",
        "closed",
        "error",
    )

    def __init__(self, bound: int = KEPT_BYTES) -> None:
        self.closed = False
        self.error: Exception | None = None
        self._bound = bound
        self._flow: Any = None
        self._held = False  # what the flow was told last
        self._sink: Any = None  # until it was told the end
        self._paused = False
        self._over = False
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._delivering = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "over" if self._over else "arriving"
        return f"<ArrivingBody {state}, {self._kept_bytes} bytes kept>"

    # IBodySink, for whoever reads the connection.

    def open(self, flow: Any) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.open`."""
        self._flow = flow
        self._balance()

    def receive(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.receive`."""
        if self.closed or self._over or not data:
            return
        self._kept.append(data)
        self._kept_bytes += len(data)
        self._deliver()
        self._balance()

    def complete(self) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.complete`."""
        if not (self.closed or self._over):
            self._over = True
            self._deliver()
            self._balance()

    def broken(self, error: Exception | None = None) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.broken`.

        :param error: why; if not given, because the client left.
        """
        if not (self.closed or self._over):
            self._over = True
            self.error = error or BodyBroken()
            self._drop()
            self._deliver()
            self._balance()

    # IArrivingBody, for the pool.

    def deliver_to(self, sink: Any) -> None:
        """See :meth:`deferpost.interfaces.IArrivingBody.deliver_to`."""
        if not self.closed:
            self._sink = sink
            self._deliver()
            self._balance()

    def pause(self) -> None:
        """See :meth:`deferpost.interfaces.IArrivingBody.pause`."""
        self._paused = True
        self._balance()

    def resume(self) -> None:
        """See :meth:`deferpost.interfaces.IArrivingBody.resume`."""
        self._paused = False
        self._deliver()
        self._balance()

    def close(self) -> None:
        """See :meth:`deferpost.interfaces.IArrivingBody.close`."""
        self.closed = True
        self._sink = None
        self._drop()
        self._balance()

    # Our own.

    def _drop(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    def _deliver(self) -> None:
        """Give the sink what it takes, and the end where that is due."""
        if self._delivering:
            return  # further up the stack, which goes on
        self._delivering = True
        try:
            while self._kept and self._sink is not None and not self._paused:
                data = self._kept.popleft()
                self._kept_bytes -= len(data)
                self._sink.chunk(data)
        finally:
            self._delivering = False
        if self._over and not self._kept and self._sink is not None:
            sink, self._sink = self._sink, None
            if self.error is None:
                sink.end()
            else:
                sink.fail(self.error)

    def _balance(self) -> None:
        """Hold the client back or let it go on, as what is kept demands."""
        if self._flow is None or self._delivering:
            return
        held = not (self.closed or self._over) and (
            self._paused
            if self._sink is not None
            else self._kept_bytes > self._bound or len(self._kept) > KEPT_PIECES
        )
        if held is self._held:
            return
        self._held = held
        if held:
            self._flow.pauseProducing()
        else:
            self._flow.resumeProducing()
