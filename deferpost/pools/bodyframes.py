"""How an arriving body travels through a pipe to a worker process, and the reading of it there.

The end of a pipe alone does not tell a body that is whole from one that broke off.  So it goes in
pieces, each after its length (four bytes in network order); a length of 0 says that the body is
whole, and one with the highest bit set that it is broken, with so many bytes of reason behind it.
A pipe that ends before either is a broken body, too.  Both sides import this, and it does not
import Twisted.
"""

from __future__ import annotations

import io
import os
import struct
from typing import Any, NoReturn

from deferpost.errors import BodyBroken, HTTPError

__all__ = [
    "PIECE_MOST",
    "READ_BYTES",
    "WHOLE",
    "PipeReader",
    "break_reason",
    "broken_frame",
    "piece_header",
]

#: Bytes of a piece; what is longer goes as several.
PIECE_MOST = 2**31 - 1

#: Bytes that a handler's file reads ahead.
READ_BYTES = 64 * 1024

#: Bytes of the reason of a broken body.
_REASON_MOST = 500

_BROKEN = 2**31
_LENGTH = struct.Struct("!I")

#: The frame that says that the body is whole.
WHOLE = _LENGTH.pack(0)

#: Makes the bytes that go before a piece, of its length: from 1 to :data:`PIECE_MOST`.
piece_header = _LENGTH.pack


def break_reason(error: Exception) -> str:
    """Why a body broke off, in a sentence for its handler; the status is not for that.

    :param error: what the body broke off with.
    """
    return (isinstance(error, HTTPError) and error.detail) or str(error)


def broken_frame(reason: str) -> bytes:
    """The frame that says that the body is broken, and why."""
    words = reason.encode("utf-8", "replace")[:_REASON_MOST]
    return _LENGTH.pack(_BROKEN | len(words)) + words


class PipeReader(io.RawIOBase):
    """The reading end of the pipe, as a raw file.

    :param descriptor: the descriptor, which this owns; blocking.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._left = 0  # bytes of the piece that are still to be read
        self._header = bytearray(_LENGTH.size)
        self._have = 0  # bytes of the next header that were read
        self._whole = False
        self._broken: str | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait until there is something, and give as much of it as there is room for.

        :returns: how many bytes; 0 at the end.
        :raises BodyBroken: the rest will not come.
        """
        room = memoryview(buffer).cast("B")
        if not room or not self._next():
            return 0
        left = self._left
        if len(room) < left:
            size = os.readv(self._descriptor, [room])
        else:  # the next header along with the rest of the piece, which saves a system call
            size = os.readv(self._descriptor, [room[:left], self._header])
        if not size:
            self._break("the body ended before it was whole")
        self._left = max(0, left - size)
        self._have = max(0, size - left)
        return min(size, left)

    def readall(self) -> bytes:
        """Wait until all is there, and give it.

        :raises BodyBroken: the rest will not come.
        """
        # A BytesIO gives what it has without a second copy of it.
        whole, room = io.BytesIO(), memoryview(bytearray(READ_BYTES))
        while size := self.readinto(room):
            whole.write(room[:size])
        return whole.getvalue()

    def close(self) -> None:
        """Read no more, and close the descriptor."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)

    def _next(self) -> bool:
        """Wait for the next piece, if this one is read.

        :returns: whether there is one.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._broken is not None:
            raise BodyBroken(self._broken)
        if self._left or self._whole:
            return not self._whole
        self._fill(memoryview(self._header)[self._have :])
        self._have = 0
        (length,) = _LENGTH.unpack(self._header)
        if length >= _BROKEN:
            words = bytearray(length - _BROKEN)
            self._fill(memoryview(words))
            self._break(words.decode("utf-8", "replace"))
        self._left = length
        self._whole = length == 0
        return not self._whole

    def _fill(self, room: memoryview) -> None:
        """Wait for so many bytes.

        :raises BodyBroken: they do not come.
        """
        while room:
            size = os.readv(self._descriptor, [room])
            if not size:
                self._break("the body ended before it was whole")
            room = room[size:]

    def _break(self, reason: str) -> NoReturn:
        self._broken = reason
        raise BodyBroken(reason)
