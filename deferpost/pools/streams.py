"""Carrying chunks from a worker to whoever writes them, with a bound on what is under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from zope.interface import implementer

from deferpost.errors import Canceled
from deferpost.interfaces import IChunkSink, IChunkSource
from deferpost.model import Reason
from deferpost.pools.frames import CHUNK_COST, WINDOW_BYTES

__all__ = ["CREDIT_STEP", "JOIN_BYTES", "ChunkBuffer", "CreditGiver", "ThreadGate"]

#: Bytes of small chunks that are given to a reader as one, where it does not want them apart.
JOIN_BYTES = 64 * 1024

#: Bytes that a reader has taken when a worker process hears of it.
CREDIT_STEP = WINDOW_BYTES // 2


@implementer(IChunkSource)
class ChunkBuffer:
    """The reactor's end of a stream: keeps what the sink cannot take yet.

    It sets no bound itself: it tells the worker's side, which does, through ``taken``.

    :param taken: called with how much the sink has taken: the bytes of chunks, and
        :data:`~deferpost.pools.frames.CHUNK_COST` for each.
    :param abandoned: called with the reason when nobody reads any more.
    """

    def __init__(
        self,
        *,
        taken: Callable[[int], None] | None = None,
        abandoned: Callable[[Reason], None],
    ) -> None:
        self._taken = taken
        self._abandoned = abandoned
        self._chunks: deque[bytes] = deque()
        self._sink: Any = None
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._closed = False
        self._flushing = False
        self._apart = False

    # The worker's side, on the reactor thread.

    def deliver(self, chunk: bytes) -> None:
        """The next chunk has arrived."""
        if self._closed:
            return
        self._chunks.append(chunk)
        self._flush()

    def deliver_all(self, chunks: Iterable[bytes]) -> None:
        """Some more chunks have arrived together."""
        if self._closed:
            return
        self._chunks.extend(chunks)
        self._flush()

    def finish(self, error: Exception | None = None) -> None:
        """No more will come; with an error, because the stream broke off."""
        if self._closed or self._ended:
            return
        self._ended = True
        self._error = error
        if error is not None:
            self._chunks.clear()
            self._paused = False
        self._flush()

    # IChunkSource, for the reader.

    def open(self, sink: Any, apart: bool = False) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.open`."""
        self._sink = sink
        self._apart = apart
        self._flush()

    def pause(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.resume`."""
        if not self._paused:
            return
        self._paused = False
        self._flush()

    def abandon(self, reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.abandon`."""
        if self._closed:
            return
        self._closed = True
        self._chunks.clear()
        if not self._ended:
            self._abandoned(reason)

    def discard(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.discard`."""
        self._sink, self._apart = _Nowhere(), False
        self._flush() if not self._paused else self.resume()

    def _flush(self) -> None:
        if self._sink is None or self._flushing:
            return
        self._flushing = True  # a sink that pauses and resumes does not get here a second time
        try:
            while self._chunks and not self._paused and not self._closed:
                self._sink.chunk(self._next())
            if self._apart and not self._closed:
                self._sink.flush()
        finally:
            self._flushing = False
        if self._ended and not self._chunks and not self._paused and not self._closed:
            self._closed = True
            if self._error is None:
                self._sink.end()
            else:
                self._sink.fail(self._error)

    def _next(self) -> bytes:
        """The next chunk, or as many small ones as are given together."""
        chunks = self._chunks
        chunk, count = chunks.popleft(), 1
        if chunks and not self._apart:
            size, together = len(chunk), [chunk]
            while chunks and (size := size + len(chunks[0])) <= JOIN_BYTES:
                together.append(chunks.popleft())
            count = len(together)
            if count > 1:
                chunk = b"".join(together)
        if self._taken is not None:
            self._taken(len(chunk) + count * CHUNK_COST)
        return chunk


@implementer(IChunkSink)
class _Nowhere:
    """Takes chunks that nobody reads."""

    def chunk(self, data: bytes) -> None:
        """Drop it."""

    def end(self) -> None:
        """Nobody is told."""

    def fail(self, error: Exception) -> None:
        """Nobody is told."""


class CreditGiver:
    """Tells a worker process in steps how much of its stream was taken.

    :param give: called with an amount when it is worth a message.
    """

    __slots__ = ("_give", "_owed")

    def __init__(self, give: Callable[[int], None]) -> None:
        self._give = give
        self._owed = 0

    def taken(self, amount: int) -> None:
        """So much more was taken."""
        self._owed += amount
        if self._owed >= CREDIT_STEP:
            owed, self._owed = self._owed, 0
            self._give(owed)


class ThreadGate:
    """Holds a handler's thread back while too much of its stream is unread."""

    def __init__(self, bound: int = WINDOW_BYTES) -> None:
        self._bound = bound
        self._unread = 0
        self._shut = False
        self._changed = threading.Condition()

    def enter(self, size: int) -> None:
        """Wait until there is room, then count the chunk.  On the worker's thread.

        Whatever its size, a chunk passes as long as there is any room.

        :param size: bytes of the chunk, with what keeping it costs.
        :raises Canceled: nobody reads any more.
        """
        with self._changed:
            while self._unread >= self._bound and not self._shut:
                self._changed.wait()
            if self._shut:
                raise Canceled
            self._unread += size

    def leave(self, size: int) -> None:
        """So much was taken.  On the reactor thread."""
        with self._changed:
            self._unread -= size
            self._changed.notify()

    def shut(self) -> None:
        """Let nothing through any more.  On the reactor thread."""
        with self._changed:
            self._shut = True
            self._changed.notify()
