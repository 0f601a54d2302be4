"""llhttp, by httptools: takes the bytes of messages, gives their parts.

A parser is fed a head, whole or in pieces, then its body, and never a byte of what follows:
:meth:`MessageParser.body` says how many it took.  No leniency is switched on.
"""

from __future__ import annotations

from typing import Any

import httptools

from deferpost.wire.chunks import ChunkCutter
from deferpost.wire.refusals import Refused
from deferpost.wire.rules import transfer_codings

__all__ = ["MessageParser"]

#: The mistakes of which the status is not 400, by llhttp's words.
_STATUSES = {
    "Content-Length overflow": 413,
    "Chunk size overflow": 413,
    "Invalid method encountered": 501,
    "Invalid method for HTTP/x.x request": 501,
}

#: Those that our own rules judge, since the status depends on the codings.
_CODINGS = frozenset(
    {"Request has invalid `Transfer-Encoding`", "Invalid `Transfer-Encoding` header value"}
)


class MessageParser:
    """The parser of one connection.

    :param max_chunk_line: bytes that the line before a chunk may have.
    :param max_trailers: bytes that the fields after the last chunk may have.

    :ivar fields: name and value pairs of the head so far.
    """

    __slots__ = (
        "_cutter",
        "_open",
        "_left",
        "_max_chunk_line",
        "_max_trailers",
        "_parser",
        "_pieces",
        "fields",
        "on_body",
        "on_message_complete",
    )

    def __init__(self, max_chunk_line: int, max_trailers: int) -> None:
        self._max_chunk_line = max_chunk_line
        self._max_trailers = max_trailers
        self._pieces: list[bytes] = []
        self._left = 0
        self._cutter: ChunkCutter | None = None
        self._open: list[None] = []  # empty when the message has ended
        self.on_body = self._pieces.append
        self.on_message_complete = self._open.clear
        self.fields: list[tuple[bytes, bytes]] = []
        self._parser: Any = httptools.HttpRequestParser(self)

    # Called by httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of the trailers."""
        self.fields.append((name, value.rstrip(b" \t")))

    # Called by the channel.

    def head(self, data: bytes) -> None:
        """Take the next bytes of a head, and none of what follows it.

        :raises Refused: they cannot be of one.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = None  # nothing is upgraded here, and it would not take the body
        except httptools.HttpParserError as error:
            raise self._refusal(str(error)) from None

    def expect(self, length: int | None) -> None:
        """The head is complete.

        :param length: of its body, in bytes; None where it is chunked.
        """
        if self._parser is None:  # one that has read no ``Upgrade`` reads the body
            field = b"Transfer-Encoding: chunked"
            if length is not None:
                field = b"Content-Length: %d" % length
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % field)
        self.fields = []
        if length != 0:
            self._open.append(None)
        if length is None:
            self._cutter = ChunkCutter(self._max_chunk_line, self._max_trailers)
        else:
            self._cutter = None
            self._left = length

    @property
    def complete(self) -> bool:
        """Whether the message has ended."""
        return not self._open

    @property
    def announced(self) -> int:
        """Bytes of a chunked body that have come, or that the last line said are to come."""
        return self._cutter.announced if self._cutter is not None else 0

    def whole_body(self, data: bytes) -> None:
        """Take all of a body that is not chunked."""
        self._left = 0
        self._parser.feed_data(data)
        self._pieces.clear()

    def body(self, data: bytes) -> tuple[int, list[bytes]]:
        """Take bytes of the body.

        :param data: what has come; after the end of the body, of the next request.
        :returns: how many were of the body with its framing, and its pieces.
        :raises Refused: they cannot be of one.
        """
        taken = 0
        try:
            if self._cutter is None:
                taken = min(self._left, len(data))
                self._left -= taken
                self._parser.feed_data(data if taken == len(data) else data[:taken])
            else:
                view = memoryview(data)
                while taken < len(data) and not self.complete:
                    end = self._cutter.end(data, taken)
                    piece = view[taken:end]
                    self._parser.feed_data(piece)
                    self._cutter.accepted(piece)
                    taken = end
                if self.complete:
                    self.fields = []  # the trailers, which nobody here trusts
        except httptools.HttpParserError as error:
            raise self._refusal(str(error)) from None
        pieces = self._pieces.copy()
        self._pieces.clear()
        return taken, pieces

    def _refusal(self, mistake: str) -> Refused:
        if mistake in _CODINGS:
            values = [value for name, value in self.fields if name.lower() == b"transfer-encoding"]
            try:
                transfer_codings(values)
            except Refused as refused:
                return refused
        return Refused(_STATUSES.get(mistake, 400), f"This is not HTTP/1.1: {mistake}.")
