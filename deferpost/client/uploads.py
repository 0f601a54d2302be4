"""The body of a request, which can be sent again from its beginning.

For the reactor thread, on which files are read in small pieces.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

__all__ = ["BodySource", "Upload"]

_PIECE_BYTES = 64 * 1024

#: Called with the bytes that have been sent, and how many there are.
Progress = Callable[[int, int], None]


class BodySource:
    """A body, whatever it is kept in.

    :param body: bytes, or a binary file that can be sought; it is sent from where it stands now.
    :param progress: told how far each attempt is.
    :raises TypeError: it is neither.
    :raises ValueError: it is a file that cannot be sought.
    """

    def __init__(self, body: bytes | BinaryIO, progress: Progress | None = None) -> None:
        if isinstance(body, (bytes, bytearray, memoryview)):
            self._file: Any = io.BytesIO(bytes(body))
        elif hasattr(body, "read"):
            self._file = body
        else:
            raise TypeError(f"a body is bytes or a binary file, not {type(body).__name__}")
        if not self._file.seekable():
            raise ValueError("the file cannot be sought, so it could not be sent again: copy it")
        self._start = self._file.tell()
        self.length: int = self._file.seek(0, os.SEEK_END) - self._start
        self._file.seek(self._start)
        self._progress = progress

    def upload(self, reactor: Any) -> Upload:
        """One more attempt, from the beginning.

        :param reactor: :class:`IReactorTime`.
        """
        self._file.seek(self._start)
        return Upload(reactor, self._file, self.length, self._progress)


@implementer(IBodyProducer)
class Upload:
    """One attempt to send a body.  To be made by :meth:`BodySource.upload`.

    :ivar heard: called when some of it was sent; whoever watches the time sets it.
    :ivar all_sent: called when all of it was.
    """

    def __init__(
        self, reactor: Any, file: BinaryIO, length: int, progress: Progress | None
    ) -> None:
        self._reactor = reactor
        self._file = file
        self.length = length
        self._progress = progress
        self.heard: Callable[[], object] = lambda: None
        self.all_sent: Callable[[], object] = lambda: None
        self._sent = 0
        self._consumer: Any = None
        self._done: Deferred[None] | None = None
        self._turn: Any = None
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send it, piece by piece."""
        self._consumer = consumer
        self._done = Deferred(lambda _: self.stopProducing())
        if self._progress is not None:
            self._progress(0, self.length)
        self._soon()
        return self._done

    def pauseProducing(self) -> None:
        """The connection has enough for now."""
        self._paused = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def resumeProducing(self) -> None:
        """The connection takes more."""
        self._paused = False
        self.heard()
        self._soon()

    def stopProducing(self) -> None:
        """Nobody wants the rest."""
        self.pauseProducing()
        self._done = None

    def _soon(self) -> None:
        if self._done is not None and not self._paused and self._turn is None:
            self._turn = self._reactor.callLater(0, self._send)

    def _send(self) -> None:
        self._turn = None
        try:
            piece = self._file.read(min(_PIECE_BYTES, self.length - self._sent))
            if piece:
                self._sent += len(piece)
                self._consumer.write(piece)
                self.heard()
                if self._progress is not None:
                    self._progress(self._sent, self.length)
        except Exception:
            done, self._done = self._done, None
            if done is not None:
                done.errback(Failure())
            return
        if piece and self._sent < self.length:
            self._soon()
        elif self._done is not None:
            done, self._done = self._done, None
            self.all_sent()
            done.callback(None)
