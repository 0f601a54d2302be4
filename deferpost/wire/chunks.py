"""Where the parts of a chunked body end, so that a parser is fed none of the next request.

llhttp judges the bytes, but for extensions without a name or value; this counts them (RFC 9112,
section 7.1).
"""

from __future__ import annotations

import re

from deferpost.wire.refusals import Refused

__all__ = ["ChunkCutter"]

#: The extensions of a chunk whose other characters llhttp has judged (RFC 9112, section 7.1.1).
_EXTENSIONS = re.compile(
    rb"""(?:;[^\s;="]+(?:=(?:[^\s;="]+|"(?:[^"\\]|\\.)*"))?)+\r\n""", re.DOTALL
)


class ChunkCutter:
    """Cuts one chunked body at the ends of its lines and chunks.

    :param max_line: bytes that the line before a chunk may have, with its extensions.
    :param max_trailers: bytes that the fields after the last chunk may have.
    :param max_fields: the number of those.

    :ivar announced: bytes of body that the chunks so far have, or are about to.
    """

    __slots__ = (
        "_left",
        "_line",
        "_max_line",
        "_room_for_fields",
        "_room_for_trailers",
        "_trailing",
        "announced",
    )

    def __init__(self, max_line: int, max_trailers: int, max_fields: int = 100) -> None:
        self._max_line = max_line
        self._room_for_fields = max_fields
        self._room_for_trailers = max_trailers
        self._left = 0
        self._line = b""
        self._trailing = False
        self.announced = 0

    def end(self, data: bytes, start: int) -> int:
        """Where the piece that starts there ends: with a chunk, a line, or the data."""
        if self._left:
            return min(start + self._left, len(data))
        return data.find(b"\n", start) + 1 or len(data)

    def accepted(self, piece: bytes | memoryview) -> None:
        """The parser has accepted the piece.

        :raises Refused: a line is too long, the trailers are, or an extension lacks a part.
        """
        if self._left:
            self._left -= len(piece)
            return
        if self._trailing:
            self._room_for_trailers -= len(piece)
            if self._room_for_trailers < 0:
                raise Refused(431, "The trailers are too long.")
            if piece[-1] == 10:
                if self._room_for_fields < 0:
                    raise Refused(431, "There are too many trailers.")
                self._room_for_fields -= 1
            return
        self._line += piece
        if len(self._line) > self._max_line:
            raise Refused(400, "The line before a chunk is too long.")
        if self._line.endswith(b"\n"):
            digits, semicolon, _ = self._line.partition(b";")
            if semicolon and not _EXTENSIONS.fullmatch(self._line, len(digits)):
                raise Refused(400, "An extension of a chunk lacks its name, or its value.")
            size = int(digits, 16)
            self._line = b""
            self._trailing = size == 0
            self._left = size + 2 if size else 0
            self.announced += size
