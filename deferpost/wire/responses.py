"""The bytes of a response's head."""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.server import version as server_version

__all__ = ["CLOSE", "CONTINUE", "KEEP", "Stamp", "head_bytes", "status_line", "whole_response"]

#: The interim response that asks for the body (RFC 9110, section 15.2.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Whether the connection ends with a response, where that is to be said.
CLOSE, KEEP = b"Connection: close\r\n", b"Connection: keep-alive\r\n"

_lines: dict[tuple[bytes, int], bytes] = {}


def _phrase(status: int) -> bytes:
    phrase: bytes | None = RESPONSES.get(status)
    if phrase is None:  # Twisted does not know the newer ones
        phrase = b"Unknown Status"
        if status in HTTPStatus._value2member_map_:
            phrase = HTTPStatus(status).phrase.encode("ascii")
    return phrase


def status_line(version: bytes, status: int) -> bytes:
    """The first line of a response, with its CRLF.

    :param version: such as ``HTTP/1.1``.
    :param status: HTTP status.
    """
    line = _lines.get((version, status))
    if line is None:
        line = b"%b %d %b\r\n" % (version, status, _phrase(status))
        _lines[version, status] = line  # of which there are two versions and some hundred statuses
    return line


class Stamp:
    """``Server`` and ``Date`` as bytes; made once for each second (RFC 9110, section 6.6.1)."""

    __slots__ = ("_bytes", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._bytes = b""

    def bytes(self) -> bytes:
        """Both fields at this moment, each with its CRLF."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            date = datetimeToString(now)
            self._bytes = b"Server: %b\r\nDate: %b\r\n" % (server_version, date)
        return self._bytes


def head_bytes(line: bytes, fields: Iterable[tuple[bytes, Iterable[bytes]]]) -> bytes:
    """A head from its first line and its fields, whose values have no line breaks.

    :param line: with its CRLF.
    :param fields: name and values, as ``Headers.getAllRawHeaders`` gives them.
    """
    pieces: list[Any] = [line]
    for name, values in fields:
        for value in values:
            pieces += (name, b": ", value, b"\r\n")
    pieces.append(b"\r\n")
    return b"".join(pieces)


_stamp = Stamp()


def whole_response(
    version: bytes,
    status: int,
    fields: Iterable[tuple[bytes, bytes]],
    connection: bytes,
    body: bytes,
) -> bytes:
    """A response from its first byte to its last, with ``Server``, ``Date`` and ``Content-Length``.

    :param version: of HTTP.
    :param status: HTTP status.
    :param fields: further fields, whose values have no line breaks.
    :param connection: :data:`CLOSE`, :data:`KEEP` or nothing.
    :param body: the body; that of a 204 is nothing (RFC 9110, section 8.6).
    """
    pieces = [status_line(version, status), _stamp.bytes()]
    for name, value in fields:
        pieces += (name, b": ", value, b"\r\n")
    if status == 204:
        pieces += (connection, b"\r\n")
    else:
        pieces += (b"Content-Length: %d\r\n" % len(body), connection, b"\r\n", body)
    return b"".join(pieces)
