"""Carrying chunks from a worker to whoever writes them, with a bound on what is under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from deferpost.errors import Canceled
from deferpost.interfaces import IChunkSink, IChunkSource
from deferpost.model import Reason

__all__ = ["WINDOW_BYTES", "ChunkBuffer", "ThreadGate"]

#: Bytes of a stream that may be between a thread's handler and its reader.
WINDOW_BYTES = 256 * 1024


@implementer(IChunkSource)
class ChunkBuffer:
    """The reactor's end of a stream: keeps what the sink cannot take yet.

    It sets no bound itself: it tells the worker's side through ``taken`` and ``held``.

    :param taken: called with the number of bytes that the sink has taken.
    :param held: called with True when the sink takes no more, with False when it does again.
    :param abandoned: called with the reason when nobody reads any more.
    """

    def __init__(
        self,
        *,
        taken: Callable[[int], None] | None = None,
        held: Callable[[bool], None] | None = None,
        abandoned: Callable[[Reason], None],
    ) -> None:
        self._taken = taken
        self._held = held
        self._abandoned = abandoned
        self._chunks: deque[bytes] = deque()
        self._sink: Any = None
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._closed = False
        self._flushing = False

    # The worker's side, on the reactor thread.

    def deliver(self, chunk: bytes) -> None:
        """The next chunk has arrived."""
        if self._closed:
            return
        self._chunks.append(chunk)
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

    def open(self, sink: Any) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.open`."""
        self._sink = sink
        self._flush()

    def pause(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.pause`."""
        if not (self._paused or self._ended or self._closed):
            self._paused = True
            if self._held is not None:
                self._held(True)
        self._paused = True

    def resume(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.resume`."""
        if not self._paused:
            return
        self._paused = False
        self._flush()
        # The sink may have had enough again of what was kept.
        if not self._paused and not self._ended and self._held is not None:
            self._held(False)

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
        self._sink = _Nowhere()
        self._flush() if not self._paused else self.resume()

    def _flush(self) -> None:
        if self._sink is None or self._flushing:
            return
        self._flushing = True  # a sink that pauses and resumes does not get here a second time
        try:
            while self._chunks and not self._paused and not self._closed:
                chunk = self._chunks.popleft()
                if self._taken is not None:
                    self._taken(len(chunk))
                self._sink.chunk(chunk)
        finally:
            self._flushing = False
        if self._ended and not self._chunks and not self._paused and not self._closed:
            self._closed = True
            if self._error is None:
                self._sink.end()
            else:
                self._sink.fail(self._error)


@implementer(IChunkSink)
class _Nowhere:
    """Takes chunks that nobody reads."""

    def chunk(self, data: bytes) -> None:
        """Drop it."""

    def end(self) -> None:
        """Nobody is told."""

    def fail(self, error: Exception) -> None:
        """Nobody is told."""


class ThreadGate:
    """Holds a handler's thread back while too much of its stream is unread."""

    def __init__(self, bound: int = WINDOW_BYTES) -> None:
        self._bound = bound
        self._unread = 0
        self._shut = False
        self._changed = threading.Condition()

    def enter(self, size: int) -> None:
        """Wait until there is room, then count the chunk.  On the worker's thread.

        A chunk larger than the bound passes when nothing else is under way.

        :param size: bytes of the chunk.
        :raises Canceled: nobody reads any more.
        """
        with self._changed:
            while self._unread >= self._bound and not self._shut:
                self._changed.wait()
            if self._shut:
                raise Canceled
            self._unread += size

    def leave(self, size: int) -> None:
        """So many bytes were taken.  On the reactor thread."""
        with self._changed:
            self._unread -= size
            self._changed.notify()

    def shut(self) -> None:
        """Let nothing through any more.  On the reactor thread."""
        with self._changed:
            self._shut = True
            self._changed.notify()
