"""Bodies on the reactor's side: keeping one that arrives, writing one that leaves.

Every write is of a bounded piece, and none is made while the transport has enough.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from typing import Any, BinaryIO

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from deferpost.interfaces import IChunkSink
from deferpost.model import Answer

__all__ = ["PIECE_BYTES", "BodyWriter", "SpooledBody", "body_size", "take_body"]

#: Bytes that are read or written at once.
PIECE_BYTES = 64 * 1024


class SpooledBody(io.RawIOBase):
    """A request body as it arrives: in memory while small, then in a file, up to a limit.

    Twisted writes to it while a request comes in.  What is over the limit is dropped, and so is
    all that follows an error of the disk: the request is answered when it is complete, and the
    disk is not filled until then.  For the reactor thread.

    :param memory: bytes that are kept in memory.
    :param limit: bytes that are kept at all.
    :param directory: where the file goes; None for the system's choice.

    :ivar too_large: whether there were more bytes than the limit.
    :ivar failure: the error of the disk, if there was one.
    """

    def __init__(self, memory: int, limit: int, directory: str | None = None) -> None:
        super().__init__()
        self._memory = memory
        self._limit = limit
        self._directory = directory
        self._file: io.BytesIO | io.FileIO | None = io.BytesIO()
        self._in_memory = True
        self._size = 0
        self.too_large = False
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Take what has arrived; this raises nothing that the client or the disk has caused."""
        size = len(data)
        self._size += size
        if self._size > self._limit:
            self.too_large = True
            self._drop()
        elif self._file is not None:
            try:
                if self._in_memory and self._size > self._memory:
                    self._to_disk()
                _write_all(self._file, data)
            except OSError as error:
                self.failure = error.with_traceback(None)  # which holds on to the data
                self._drop()
        return size

    def _to_disk(self) -> None:
        assert isinstance(self._file, io.BytesIO)
        file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 (kept until the body is taken)
        try:
            _write_all(file, self._file.getvalue())
        except OSError:
            file.close()
            raise
        self._file = file
        self._in_memory = False

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def take(self) -> BinaryIO:
        """The body, at its beginning; whoever takes it closes it."""
        file, self._file = self._file or io.BytesIO(), None
        file.seek(0)
        # Handlers read lines, which of a raw file would be a system call for each byte.
        return file if isinstance(file, io.BytesIO) else io.BufferedReader(file)

    def tell(self) -> int:
        """How many bytes have arrived: all that Twisted asks of the position."""
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place of what was kept."""
        return self._file.seek(offset, whence) if self._file is not None else 0

    def read(self, size: int = -1) -> bytes:
        """Read what was kept, as resources that are not ours do."""
        return self._file.read(size) if self._file is not None else b""

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let go of what was not taken."""
        self._drop()
        super().close()


def _write_all(file: Any, data: Any) -> None:
    """Write all of it to a file that may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def body_size(content: Any) -> int:
    """The bytes of a request body that is complete, of whichever kind the site keeps.

    :param content: ``request.content``.
    """
    if isinstance(content, SpooledBody):
        return content.tell()
    if isinstance(content, io.BytesIO):
        return content.getbuffer().nbytes
    return os.fstat(content.fileno()).st_size


def take_body(request: Any) -> BinaryIO:
    """Take the body away from its request, which would close it when the client leaves.

    :param request: the request; an empty body stays with it.
    :returns: the body, at its beginning; whoever takes it closes it.
    """
    content = request.content
    request.content = io.BytesIO()
    if isinstance(content, SpooledBody):
        return content.take()
    content.seek(0)
    return content  # type: ignore[no-any-return]  # a binary file, by IRequest


@implementer(IPushProducer, IChunkSink)
class BodyWriter:
    """Writes the body of an answer to a request, at the pace of the client.

    For the reactor thread.  It calls one of its two functions, once, unless it is stopped.

    :param request: the request, with its status and headers set.
    :param answer: the answer.
    :param done: called when all is written and the request is to be finished.
    :param broken: called with the error when the body broke off in the middle.
    :param apart: whether each chunk of a stream is written by itself, however small; the request
        then has a ``flush``, which is called behind those that came together.
    """

    def __init__(
        self,
        request: Any,
        answer: Answer,
        done: Callable[[], None],
        broken: Callable[[Exception], None],
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._request = request
        self._answer = answer
        self._done = done
        self._broken = broken
        self._paused = False
        self._over = False
        self._working = False
        self._rest: memoryview | None = None
        self._left = answer.length
        body = answer.body
        self._source = body if answer.length is None else None
        self._file = body if answer.length is not None and not isinstance(body, bytes) else None
        if isinstance(body, bytes):
            self._rest = memoryview(body)

    def start(self) -> None:
        """Begin to write."""
        self._request.registerProducer(self, True)
        if self._source is not None:
            self._request.write(b"")  # the headers leave before the first chunk is there
            if self._apart:
                self._source.open(self, apart=True)
            else:
                self._source.open(self)
        else:
            self._work()

    def stop(self, *, finish: bool) -> None:
        """The client has left: let go of the body.

        :param finish: whether the job of a stream goes on to its end all the same.
        """
        if self._over:
            return
        self._over = True
        if self._source is None:
            self._answer.close()
        elif finish:
            self._source.discard()
        else:
            self._source.abandon()
        self._forget()

    # IPushProducer, for the transport.

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._paused = True
        if self._source is not None and not self._over:
            self._source.pause()

    def resumeProducing(self) -> None:
        """The transport has written what it had."""
        self._paused = False
        if self._over:
            return
        if self._rest is not None or self._source is None:
            self._work()
        if self._source is not None and self._rest is None and not (self._paused or self._over):
            self._source.resume()

    def stopProducing(self) -> None:
        """The transport is gone; ``notifyFinish`` tells of it, and :meth:`stop` follows."""
        self._paused = True

    # IChunkSink, for the worker's stream.

    def chunk(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.chunk`."""
        if len(data) <= PIECE_BYTES and self._rest is None:
            self._request.write(data)
        else:
            self._source.pause()  # type: ignore[union-attr]  # chunks come from a source
            self._rest = memoryview(data)
            self._work()

    def flush(self) -> None:
        """The chunks that came together have come; only called where they come apart."""
        self._request.flush()

    def end(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.end`."""
        self._source = None
        if not self._paused:
            self._finish()

    def fail(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.fail`."""
        if not self._over:
            self._over = True
            self._forget()
            self._request.unregisterProducer()
            self._broken(error)

    # Our own.

    def _work(self) -> None:
        """Write piece by piece until the transport has enough or the body is written."""
        if self._working:
            return
        self._working = True
        try:
            while not self._paused and not self._over:
                try:
                    piece = self._piece()
                except (OSError, ValueError) as error:  # ValueError: somebody has closed it
                    self._answer.close()
                    self.fail(error)
                    return
                if piece:
                    self._request.write(piece)
                else:
                    break
        finally:
            self._working = False
        if self._over or self._paused:
            return
        if self._source is None:
            self._finish()
        else:
            self._source.resume()

    def _piece(self) -> bytes:
        if self._rest is not None:
            piece = bytes(self._rest[:PIECE_BYTES])
            self._rest = self._rest[PIECE_BYTES:] if len(self._rest) > PIECE_BYTES else None
            return piece
        if self._file is None or not self._left:
            return b""
        piece = self._file.read(min(PIECE_BYTES, self._left))
        if not piece:
            raise OSError("the file of the reply is shorter than it was")
        self._left -= len(piece)
        return bytes(piece)

    def _finish(self) -> None:
        self._over = True
        if self._file is not None:
            self._file.close()
        self._forget()
        self._request.unregisterProducer()
        self._done()

    def _forget(self) -> None:
        """Keep no bytes: this is in a circle of references, which stays until it is collected."""
        self._rest = None
        self._answer.body = b""
