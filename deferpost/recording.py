"""Recording what a kept job gives: streams as they come, and files that may be read again.

Nothing here decides when a job has ended.  For the reactor thread.
"""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.interfaces import IChunkSink

__all__ = ["StreamRecorder", "Unclosed"]

#: Bytes that may be on their way to the store; the handler waits then.
WINDOW_BYTES = 1024 * 1024


@implementer(IChunkSink)
class StreamRecorder:
    """Writes the stream of a handler into the store, at the pace of the disk.

    :param store: where (:class:`deferpost.interfaces.IJobStore`).
    :param id: whose result it is.
    :param source: the stream (:class:`deferpost.interfaces.IChunkSource`).
    """

    def __init__(self, store: Any, id: str, source: Any) -> None:
        self._store = store
        self._id = id
        self._source = source
        self._under_way = 0
        self._paused = False
        self._ended = False
        self._error: BaseException | None = None
        self._over: Deferred[None] = Deferred()

    def recorded(self) -> Deferred[None]:
        """Begin.

        :returns: a Deferred that fires when all is written.  It fails with the error of the
            stream, or with :class:`~deferpost.errors.StoreFailed`, after which the job of the
            stream is canceled.
        """
        self._source.open(self)
        return self._over

    def chunk(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.chunk`."""
        if self._error is not None:
            return
        self._under_way += len(data)
        if self._under_way >= WINDOW_BYTES and not self._paused:
            self._paused = True
            self._source.pause()
        self._store.write(self._id, data).addCallbacks(
            self._written, self._not_written, callbackArgs=(len(data),)
        )

    def end(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.end`."""
        self._ended = True
        self._fire_if_over()

    def fail(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.fail`."""
        self._ended = True
        if self._error is None:
            self._error = error
        self._fire_if_over()

    def _written(self, _: object, size: int) -> None:
        self._under_way -= size
        if self._paused and self._under_way < WINDOW_BYTES // 2 and not self._ended:
            self._paused = False
            self._source.resume()
        self._fire_if_over()

    def _not_written(self, failure: Failure) -> None:
        if self._error is None:
            self._error = failure.value
            if not self._ended:
                self._ended = True
                self._source.abandon()
        self._under_way = 0
        self._fire_if_over()

    def _fire_if_over(self) -> None:
        over = self._over
        if self._ended and not over.called and (self._error is not None or not self._under_way):
            if self._error is None:
                over.callback(None)
            else:
                over.errback(self._error)


class Unclosed(io.RawIOBase):
    """A file that outlives who reads it: to be read again where that came to nothing.

    :param file: the file, where the reading begins.

    :ivar error: what reading it raised; None while it can be read.
    """

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file
        self.error: Exception | None = None
        try:
            self._start = file.tell()
        except (OSError, ValueError) as error:  # no regular file, or closed: reading says so
            self._start = 0
            self.error = error

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        try:
            if self.error is not None:
                raise self.error
            data: bytes = self._file.read(size)
        except (OSError, ValueError) as error:
            self.error = error
            raise
        return data

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor, at the same place."""
        descriptor: int = self._file.fileno()
        return descriptor

    def tell(self) -> int:
        """Where it stands."""
        place: int = self._file.tell()
        return place

    def close(self) -> None:
        """Whoever made this closes the file."""

    def again(self) -> None:
        """Go back to where the reading began."""
        try:
            self._file.seek(self._start)
        except (OSError, ValueError) as error:
            self.error = error
