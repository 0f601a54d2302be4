"""An arriving body on its way to a worker process: the reactor's end of a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from itertools import islice
from typing import Any

from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.interfaces import IChunkSink
from deferpost.pools.bodyframes import PIECE_MOST, WHOLE, break_reason, broken_frame, piece_header

__all__ = ["PIPE_BYTES", "PipeBody"]

#: Bytes that the pipe holds, where the system permits it; else what it holds by default.
PIPE_BYTES = 256 * 1024

#: Buffers that are written at once; every system takes that many.
_BUFFERS_MOST = 16


@implementer(IWriteDescriptor, IChunkSink)
class PipeBody:
    """The way of one body into one worker process.  For the reactor thread.

    :param reactor: the reactor (:class:`IReactorFDSet`, :class:`IReactorTime`).
    :param source: the body (:class:`deferpost.interfaces.IArrivingBody`).
    :raises OSError: the system has no more descriptors.

    :ivar reading_end: the descriptor for the worker, until it was sent.
    """

    def __init__(self, reactor: Any, source: Any) -> None:
        self._reactor = reactor
        self._source = source
        self._rest: deque[bytes | memoryview] = deque()
        self._waiting = False  # for the pipe to take more
        self._ended = False
        self.reading_end, self._descriptor = os.pipe()
        os.set_blocking(self._descriptor, False)
        # It may be refused: there is a bound on all the pipes of a user.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def begin(self) -> None:
        """Take what has come of the body, and what comes."""
        self._source.deliver_to(self)

    def sent(self) -> None:
        """The worker has its end: ours is closed, so that it is noticed when that one is."""
        if self.reading_end != -1:
            os.close(self.reading_end)
            self.reading_end = -1

    def close(self) -> None:
        """Nothing is to be read any more, by this worker or ever."""
        self.sent()
        self._close_writing_end()

    # IChunkSink, for the body.

    def chunk(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.chunk`."""
        for start in range(0, len(data), PIECE_MOST):
            piece = data[start : start + PIECE_MOST]
            self._rest += (piece_header(len(piece)), piece)
        self._write()

    def end(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.end`."""
        self._end(WHOLE)

    def fail(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.fail`."""
        self._end(broken_frame(break_reason(error)))

    # IWriteDescriptor, for the reactor.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "deferpost body"

    def doWrite(self) -> None:
        """The pipe takes more."""
        self._write()

    def connectionLost(self, reason: Failure) -> None:
        """The worker has closed its end, or the reactor gives this up at its own end."""
        self._forsaken()

    # Our own.

    def _end(self, frame: bytes) -> None:
        self._ended = True
        self._rest.append(frame)
        self._write()

    def _write(self) -> None:
        """Write what the pipe takes, and hold the body back until that is all there is."""
        if self._descriptor == -1:
            return
        try:
            while self._rest:
                self._drop(os.writev(self._descriptor, [*islice(self._rest, _BUFFERS_MOST)]))
        except BlockingIOError:
            if not self._waiting:
                self._waiting = True
                self._reactor.addWriter(self)
                self._source.pause()
        except BrokenPipeError:
            self._forsaken()
        else:
            if self._ended:
                self._close_writing_end()
            elif self._waiting:
                self._waiting = False
                self._reactor.removeWriter(self)
                self._source.resume()

    def _drop(self, size: int) -> None:
        """So many bytes were written."""
        while size:
            first = self._rest.popleft()
            if size < len(first):
                self._rest.appendleft(memoryview(first)[size:])
                return
            size -= len(first)

    def _forsaken(self) -> None:
        """Nobody reads: the handler has closed its body, or its worker is gone."""
        self._close_writing_end()
        self._source.close()

    def _close_writing_end(self) -> None:
        if self._descriptor == -1:
            return
        descriptor = self._descriptor
        if self._waiting:
            self._waiting = False
            self._reactor.removeWriter(self)
        self._descriptor = -1
        self._rest.clear()
        # In a turn of its own: an event of this descriptor may still be to come in this turn, and
        # would be taken for one of the next that gets its number.
        self._reactor.callLater(0, os.close, descriptor)
