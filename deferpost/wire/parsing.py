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

__all__ = ["MessageParser", "Parsers"]

#: Bytes of a body by length above which it does not go through the parser.
_PLAIN = 64 * 1024

#: Parsers that are kept for the next message.
_MOST_FREE = 64

#: The mistakes of which the status is not 400, by llhttp's words.
_STATUSES = {
    "Content-Length overflow": 413,
    "Chunk size overflow": 413,
    "Invalid method encountered": 501,
    "Invalid method for HTTP/x.x request": 501,
    "Expected space after method": 501,  # a known one, and more: the line has been judged already
    "Expected HTTP/2 Connection Preface": 501,
}

#: What llhttp says of a next message where it takes the last one for the end, by rules of its own
#: such as ``Proxy-Connection``; only the channel decides about that.
_ENDED = "Data after `Connection: close`"

#: Those that our own rules judge, since the status depends on the codings.
_CODINGS = frozenset(
    {"Request has invalid `Transfer-Encoding`", "Invalid `Transfer-Encoding` header value"}
)


class Parsers:
    """Parsers that have no message to read: a connection has one for the time of a message only.

    Most connections wait, for their answer or with nothing to ask; a parser is a fifth of what one
    of them takes.

    :param max_chunk_line: see :class:`MessageParser`, as the others.
    """

    def __init__(self, max_chunk_line: int, max_trailers: int, max_fields: int = 100) -> None:
        self._arguments = (max_chunk_line, max_trailers, max_fields)
        self._free: list[MessageParser] = []

    def take(self) -> MessageParser:
        """One to read a message with."""
        return self._free.pop() if self._free else MessageParser(*self._arguments)

    def give_back(self, parser: MessageParser) -> None:
        """Its message is complete, and so is its connection's good behaviour."""
        if len(self._free) < _MOST_FREE:
            self._free.append(parser)
        else:
            parser.close()


class MessageParser:
    """The parser of one connection.

    :param max_chunk_line: bytes that the line before a chunk may have.
    :param max_trailers: bytes that the fields after the last chunk may have.
    :param max_fields: the number of those.

    :ivar fields: name and value pairs of the head so far.
    """

    __slots__ = (
        "_cutter",
        "_left",
        "_max_chunk_line",
        "_max_fields",
        "_max_trailers",
        "_open",
        "_parser",
        "_pieces",
        "_plain",
        "fields",
        "on_body",
        "on_message_complete",
    )

    def __init__(self, max_chunk_line: int, max_trailers: int, max_fields: int = 100) -> None:
        self._max_chunk_line = max_chunk_line
        self._max_fields = max_fields
        self._max_trailers = max_trailers
        self._pieces: list[bytes] = []
        self._left = 0
        self._plain = False  # the bytes of the body need no parser, which would copy them
        self._cutter: ChunkCutter | None = None
        self._open: list[None] = []  # empty when the message has ended
        self.on_body = self._pieces.append
        self.on_message_complete = self._open.clear
        self.fields: list[tuple[bytes, bytes]] = []
        self._parser: Any = httptools.HttpRequestParser(self)

    def close(self) -> None:
        """There is no more: let go of what calls this, so that the memory is free at once."""
        self._parser = None

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
            if str(error) != _ENDED:
                raise self._refusal(str(error)) from None
            self._parser = httptools.HttpRequestParser(self)
            self.head(data)

    def expect(self, length: int | None) -> None:
        """The head is complete.

        :param length: of its body, in bytes; None where it is chunked.
        """
        if self._parser is None:  # one that has read no ``Upgrade`` reads the body
            self.fields = []  # those of the request are somebody else's by now
            field = b"Transfer-Encoding: chunked"
            if length is not None:
                field = b"Content-Length: %d" % length
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % field)
        self.fields = []
        if length != 0:
            self._open.append(None)
        if length is None:
            self._cutter = ChunkCutter(self._max_chunk_line, self._max_trailers, self._max_fields)
        else:
            self._cutter = None
            self._left = length
            self._plain = length > _PLAIN

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
        if self._plain:
            self._open.clear()
            self._parser = httptools.HttpRequestParser(self)
        else:
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
                if self._plain:
                    if not self._left:
                        self._open.clear()
                        self._parser = httptools.HttpRequestParser(self)
                    return taken, [data if taken == len(data) else data[:taken]]
                self._parser.feed_data(data if taken == len(data) else data[:taken])
            else:
                view = memoryview(data)
                while taken < len(data) and not self.complete:
                    end = self._cutter.end(data, taken)
                    piece = view[taken:end]
                    self._parser.feed_data(piece)
                    self._cutter.accepted(piece)
                    taken = end
                if self.complete and self.fields:  # the trailers, which nobody here trusts
                    self.fields = []
                    self._parser = httptools.HttpRequestParser(self)  # nor what it took from them
        except httptools.HttpParserError as error:
            raise self._refusal(str(error)) from None
        pieces = self._pieces.copy()
        self._pieces.clear()
        return taken, pieces

    def _refusal(self, mistake: str) -> Refused:
        values = [value for name, value in self.fields if name.lower() == b"transfer-encoding"]
        if mistake in _CODINGS and values:
            if self._parser.get_http_version() == "1.0":
                return Refused(400, "HTTP/1.0 has no Transfer-Encoding.")
            try:
                transfer_codings(values)
            except Refused as refused:
                return refused
        return Refused(_STATUSES.get(mistake, 400), f"This is not HTTP/1.1: {mistake}.")
