"""An arriving body as a handler in a thread reads it: through memory, without a descriptor.

The reactor puts pieces in, the thread takes them out, and neither copies more than the reader
asked for.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from deferpost.errors import BodyBroken, Canceled
from deferpost.interfaces import IChunkSink
from deferpost.pools.bodyframes import READ_BYTES, break_reason

__all__ = ["UNREAD_BYTES", "UNREAD_PIECES", "ThreadBody"]

#: Bytes that may be unread until the client is held back; at half of them it may go on.
UNREAD_BYTES = 256 * 1024

#: In how many pieces they may be, since the smallest need more memory than they have bytes.
UNREAD_PIECES = 1024


@implementer(IChunkSink)
class ThreadBody(io.RawIOBase):
    """Both ends of the way from the reactor to a thread.

    The sink's methods and :meth:`shut` are for the reactor thread, those of a file for the thread
    that runs the handler and those that it has started.

    :param source: the body (:class:`deferpost.interfaces.IArrivingBody`).
    :param call_in_reactor: has a function called on the reactor thread.
    :param bound: bytes that may be unread until the source is paused.
    """

    def __init__(
        self,
        source: Any,
        call_in_reactor: Callable[[Callable[[], None]], object],
        bound: int = UNREAD_BYTES,
    ) -> None:
        super().__init__()
        self._source = source
        self._call_in_reactor = call_in_reactor
        self._bound = bound
        self._pieces: deque[memoryview] = deque()
        self._unread = 0
        self._held = False  # the source is paused
        self._over = False
        self._broken: str | None = None
        self._shut = False
        self._changed = threading.Condition()

    # The reactor's side.

    def chunk(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.chunk`."""
        with self._changed:
            self._pieces.append(memoryview(data))
            self._unread += len(data)
            hold = not self._held and (
                self._unread > self._bound or len(self._pieces) > UNREAD_PIECES
            )
            self._held = self._held or hold
            self._changed.notify()
        if hold:
            self._source.pause()

    def end(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.end`."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.fail`."""
        with self._changed:
            self._broken = break_reason(error)
            self._pieces.clear()
            self._changed.notify_all()

    def shut(self) -> None:
        """Nobody wants the handler's result: whoever reads, now or later, is told.  Any thread."""
        with self._changed:
            self._shut = True
            self._pieces.clear()
            self._changed.notify_all()

    # The thread's side, which a BufferedReader calls.

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait until there is something, and give as much of it as there is room for.

        :returns: how many bytes; 0 at the end.
        :raises BodyBroken: the rest will not come.
        :raises Canceled: nobody wants the handler's result any more.
        """
        room = memoryview(buffer).cast("B")
        if not room:
            return 0
        with self._changed:
            self._wait()
            taken = 0
            while self._pieces and taken < len(room):
                piece = self._pieces[0]
                size = min(len(piece), len(room) - taken)
                room[taken : taken + size] = piece[:size]
                taken += size
                if size == len(piece):
                    self._pieces.popleft()
                else:
                    self._pieces[0] = piece[size:]
            go_on = self._count(taken)
        if go_on:
            self._call_in_reactor(self._source.resume)
        return taken

    def readall(self) -> bytes:
        """Wait until all is there, and give it.

        :raises BodyBroken: the rest will not come.
        :raises Canceled: nobody wants the handler's result any more.
        """
        whole = io.BytesIO()  # which gives what it has without a second copy of it
        while True:
            with self._changed:
                self._wait()
                if not self._pieces:
                    return whole.getvalue()
                pieces, self._pieces = self._pieces, deque()
                go_on = self._count(self._unread)
            if go_on:
                self._call_in_reactor(self._source.resume)
            whole.writelines(pieces)

    def close(self) -> None:
        """Read no more.  What still comes is dropped."""
        if not self.closed:
            super().close()
            self.shut()
            if not self._source.closed:
                self._call_in_reactor(self._source.close)

    def reader(self, outside: Callable[..., Any] | None = None) -> io.BufferedReader:
        """This as the file that a handler is given.

        :param outside: calls what it is given, for what must not be interrupted; None to call it
            directly.
        """
        raw = self if outside is None else _Outside(self, outside)
        return io.BufferedReader(raw, READ_BYTES)

    def _wait(self) -> None:
        """Wait for a piece or the end; the lock is held."""
        while not (self._pieces or self._over or self._shut or self._broken is not None):
            self._changed.wait()
        if self._shut:
            raise Canceled
        if self._broken is not None:
            raise BodyBroken(self._broken)

    def _count(self, taken: int) -> bool:
        """Count what was taken; the lock is held.

        :returns: whether the source is to go on.
        """
        self._unread -= taken
        go_on = (
            self._held
            and self._unread <= self._bound // 2
            and len(self._pieces) <= UNREAD_PIECES // 2
        )
        self._held = self._held and not go_on
        return go_on


class _Outside(io.RawIOBase):
    """A body whose reads hold locks that the reactor takes, too: they are not interrupted.

    :param body: the body.
    :param outside: calls what it is given.
    """

    def __init__(self, body: ThreadBody, outside: Callable[..., Any]) -> None:
        super().__init__()
        self._body = body
        self._outside = outside

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See :meth:`ThreadBody.readinto`."""
        return self._outside(self._body.readinto, buffer)  # type: ignore[no-any-return]  # as above

    def readall(self) -> bytes:
        """See :meth:`ThreadBody.readall`."""
        return self._outside(self._body.readall)  # type: ignore[no-any-return]  # as above

    def close(self) -> None:
        """See :meth:`ThreadBody.close`."""
        if not self.closed:
            super().close()
            self._outside(self._body.close)
