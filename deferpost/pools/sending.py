"""What a worker process sends, in whole frames, by two threads of its own.

The main thread sends what a call gives.  A second one, which is there as soon as it is needed,
sends what should not wait for the handler: the newest progress, and chunks that were gathered.  So
a handler can report or yield a million times at the cost of an assignment or an append, and what
it said last is on its way a moment later even if it says nothing more.  This decides when a frame
is sent and never what a call gives; it knows no reactor.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from deferpost.pools.frames import (
    CHUNK_COST,
    WINDOW_BYTES,
    Chunks,
    FromWorker,
    Moved,
    Streams,
    chunk_prefix,
    encode_frame,
)
from deferpost.progress import Noted, progress_of

__all__ = ["PIECE_BYTES", "PROGRESS_PAUSE", "RunControl", "Sender"]

#: Seconds between two messages about a job's progress.
PROGRESS_PAUSE = 0.05

#: Bytes of a chunk that travel together; a larger chunk travels in pieces.
PIECE_BYTES = 64 * 1024

#: Bytes of a chunk that is not gathered with others.
_LARGE_BYTES = 16 * 1024

#: Seconds for which chunks are gathered at most, as long as they come more often than that.
_GATHER_PAUSE = 0.004


class _Told(Protocol):
    """Knows whether the worker was told to stop."""

    canceled: bool


class RunControl:
    """What connects the handler of one run with its job; see :class:`deferpost.model.Control`.

    Each run has its own: a thread that a handler has left behind says nothing of the next call.

    :param sender: which sends what is noted.
    :param told: knows whether the worker was told to stop.
    """

    __slots__ = ("_sender", "_told", "noted")

    def __init__(self, sender: Sender, told: _Told) -> None:
        self._sender = sender
        self._told = told
        self.noted: Noted | None = None

    @property
    def canceled(self) -> bool:
        """See :attr:`deferpost.model.Control.canceled`."""
        return self._told.canceled

    def report(self, done: Any, total: Any, message: Any) -> None:
        """Keep how far the job is; it is sent within a moment.  On any thread."""
        self.noted = (done, total, message)
        if self._sender.rests:
            self._sender.rouse()


class Sender:
    """The worker's way out.  For the main thread, unless a method says otherwise.

    :param connection: the socket, which blocks.
    :param credit: waits for more credit, and gives its amount; it is called on the main thread.
    :param now: the monotonic clock, in seconds.

    :ivar rests: whether the second thread waits until there is something to send.
    """

    def __init__(
        self,
        connection: socket.socket,
        credit: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._credit = credit
        self._now = now
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._whole = True  # every frame that was begun is complete
        self._roused = threading.Event()
        self._thread: threading.Thread | None = None
        self.rests = True
        self._dozes = True  # it rests, or waits until progress may be sent again
        self._run: RunControl | None = None
        self._said: Noted | None = None
        self._said_at = 0.0
        self._head: Streams | None = None
        self._chunks: list[bytes] = []
        self._cost = 0
        self._sent_at = 0.0
        self._room = 0

    def send(self, message: FromWorker) -> None:
        """Send a message beside those of a run."""
        with self._sending:
            self._put(encode_frame(message))

    # A run.

    def begin(self, told: _Told) -> RunControl:
        """A run begins."""
        self._said = self._head = None
        self._run = run = RunControl(self, told)
        return run

    def stream(self, head: Streams, chunks: Iterable[bytes]) -> None:
        """Send what a run yields, as its reader takes it.

        Chunks that follow each other quickly travel together; they stay apart.

        :param head: what comes before the first.
        :param chunks: what is yielded.
        """
        self._head = head
        self._room = WINDOW_BYTES
        self._sent_at = 0.0
        now, sending, gathered = self._now, self._sending, self._gathered
        for chunk in chunks:
            size = len(chunk)
            if size >= _LARGE_BYTES:
                for start in range(0, size, PIECE_BYTES):
                    self._piece(chunk[start : start + PIECE_BYTES])
                continue
            if self._room <= 0:
                self._await_credit()
            self._room -= size + CHUNK_COST
            with sending:
                self._chunks.append(chunk)
                self._cost += size + CHUNK_COST
                if self._cost >= PIECE_BYTES or now() - self._sent_at >= _GATHER_PAUSE:
                    self._put(self._due_progress() + gathered())
                    continue
            if self._dozes:
                self.rouse()
        with sending:
            if self._head is not None:  # there was no chunk at all
                self._put(encode_frame(head))
                self._head = None

    def _piece(self, piece: bytes) -> None:
        """Send a piece of a large chunk."""
        if self._room <= 0:
            self._await_credit()
        self._room -= len(piece) + CHUNK_COST
        with self._sending:
            self._put_piece(piece)

    def _put_piece(self, piece: bytes) -> None:
        """Send a large piece after what was gathered, without a copy of it; the lock is held."""
        before = self._gathered()
        if self._head is not None:
            before, self._head = encode_frame(self._head), None
        if self._whole:
            self._whole = False
            before += chunk_prefix(len(piece))
            sent = self._connection.sendmsg((before, piece))
            if sent < len(before):
                self._connection.sendall(before[sent:])
                sent = len(before)
            self._connection.sendall(memoryview(piece)[sent - len(before) :])
            self._sent_at = self._now()
            self._whole = True

    def _await_credit(self) -> None:
        """The window is used up: wait until the reader has taken some of it."""
        with self._sending:
            self._put(self._gathered())
        while self._room <= 0:
            self._room += self._credit()

    def end(self, outcome: FromWorker, descriptor: int | None = None) -> None:
        """A run has ended: send what it said last, and its outcome.

        :param outcome: the last message about it.
        :param descriptor: what goes with the message.
        """
        frame = encode_frame(outcome)
        if self._thread is None and descriptor is None and not self._chunks:
            # As mostly: there is nobody to share with, and nothing was said.
            self._run = None
            self._put(frame)
            return
        with self._sending:
            before = self._gathered() + self._progress()
            self._run = None
            if descriptor is None:
                self._put(before + frame if before else frame)
            else:
                self._put(before)
                sent = socket.send_fds(self._connection, [frame], [descriptor])
                self._put(frame[sent:])

    def _gathered(self) -> bytes:
        """The frames of the chunks that were gathered; the lock is held."""
        if not self._chunks:
            return b""
        chunks, self._chunks = self._chunks, []
        self._cost = 0
        self._sent_at = self._now()
        frame = encode_frame(Chunks(chunks))
        if self._head is not None:
            head, self._head = self._head, None
            return encode_frame(head) + frame
        return frame

    def _progress(self) -> bytes:
        """The frame of the newest progress, if it was not sent; the lock is held."""
        run = self._run
        if run is None or run.noted is self._said:
            return b""
        self._said = noted = run.noted
        self._said_at = self._now()
        progress = None if noted is None else progress_of(noted)
        return b"" if progress is None else encode_frame(Moved(progress))

    def _due_progress(self) -> bytes:
        """The frame of the newest progress, if some may be sent again; the lock is held."""
        run = self._run
        if run is None or run.noted is self._said or self._now() - self._said_at < PROGRESS_PAUSE:
            return b""
        return self._progress()

    def _put(self, data: bytes) -> None:
        """Send; the lock is held.

        A SIGTERM can cut it off in the main thread: then nothing more is sent, since the other
        side would not understand it.
        """
        if data and self._whole:
            self._whole = False
            self._connection.sendall(data)
            self._whole = True

    # The second thread.

    def rouse(self) -> None:
        """Have the second thread look at what there is to send.  On any thread."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._look, name="deferpost", daemon=True)
                    self._thread = thread
                    thread.start()
        self._roused.set()

    def _look(self) -> None:
        """Send what was gathered, and the newest progress, for as long as there is any."""
        # Signals are for the main thread, which is interrupted in its waiting by them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self.rests = self._dozes = True  # from here on whoever has something rouses this,
            if not self._has_some():  # and what came before that is seen here
                self._roused.wait()
            self.rests = False
            self._roused.clear()
            pause = self._said_at + PROGRESS_PAUSE - self._now()
            if pause > 0 and not self._chunks:
                self._roused.wait(pause)
                self._roused.clear()
            self._dozes = False
            if self._chunks:
                time.sleep(_GATHER_PAUSE)
            with self._sending, contextlib.suppress(OSError):  # the daemon is gone; so is this soon
                self._put(self._gathered() + self._due_progress())

    def _has_some(self) -> bool:
        run = self._run
        return bool(self._chunks) or (run is not None and run.noted is not self._said)
