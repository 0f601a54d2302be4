"""The stream of a handler in a thread: chunks that the thread makes and the reactor hands on.

The thread waits where the reader has enough, by :class:`deferpost.pools.streams.ThreadGate`; the
reactor hears of what has come once, however many chunks that is.  When a stream is canceled is
decided elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from deferpost.model import Reason
from deferpost.pools.frames import CHUNK_COST
from deferpost.pools.streams import ChunkBuffer, ThreadGate

__all__ = ["StreamEnd", "ThreadStream"]


class StreamEnd:
    """A stream has ended.

    :ivar error: why it broke off; None where it is whole.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class ThreadStream:
    """Both ends of a thread's stream.

    :param abandoned: called on the reactor thread when its reader wants no more.

    :ivar buffer: the reactor's end.
    """

    __slots__ = ("_coming", "_gate", "_is_told", "buffer")

    def __init__(self, abandoned: Callable[[Reason], None]) -> None:
        self._gate = ThreadGate()
        self.buffer = ChunkBuffer(taken=self._gate.leave, abandoned=abandoned)
        self._coming: deque[bytes] = deque()
        self._is_told = False  # the reactor has yet to hear of what is coming

    def shut(self) -> None:
        """Let no more through: the thread is told that nobody wants it.  On the reactor thread."""
        self._gate.shut()

    def deliver(self) -> None:
        """Take over what has come.  On the reactor thread."""
        self._is_told = False  # first, so that what comes from here on is told again
        coming = self._coming
        self.buffer.deliver_all([coming.popleft() for _ in range(len(coming))])

    def run(self, chunks: Any, tell: Callable[[], None]) -> None:
        """Take all chunks from the handler, and close it in any case.  On its thread.

        :param chunks: the iterator of them.
        :param tell: has :meth:`deliver` called on the reactor thread.
        :raises BaseException: whatever the handler raised.
        :raises deferpost.errors.Canceled: the stream was shut.
        """
        enter, coming = self._gate.enter, self._coming
        try:
            for chunk in chunks:
                enter(len(chunk) + CHUNK_COST)
                coming.append(chunk)
                if not self._is_told:
                    self._is_told = True
                    tell()
        finally:
            chunks.close()
