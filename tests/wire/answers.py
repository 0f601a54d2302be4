"""Responses as a strict client reads them, so that one too many or too few cannot hide."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import attrs

__all__ = ["Response", "Unfinished", "problem", "responses", "shape"]

_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9]) [ -~]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\x21-\xff](?:[\t -~\x80-\xff]*))?")


class Unfinished(ValueError):
    """The last response is not whole."""


@attrs.frozen
class Response:
    """A final response.

    :ivar interim: the statuses of the responses before it.
    :ivar ends: whether only the end of the connection ends its body.
    """

    version: bytes
    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    interim: tuple[int, ...] = ()
    ends: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of a field."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def last(self) -> bool:
        """Whether it says that the connection ends behind it."""
        return self.ends or b"close" in self.values(b"Connection")


def responses(data: bytes, methods: Sequence[bytes] = ()) -> list[Response]:
    """Read all responses of a connection that is over, or rests.

    :param data: all that the client got.
    :param methods: of the requests; GET where none is given.
    :raises Unfinished: the last one is not whole.
    :raises ValueError: this is not HTTP/1.1.
    """
    found: list[Response] = []
    interim: list[int] = []
    while data:
        version, status, fields, data = _head(data)
        if status < 200:
            interim.append(status)
            continue
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        body, data, ends = _body(method, status, fields, data)
        found.append(Response(version, status, tuple(fields), body, tuple(interim), ends))
        interim.clear()
    if interim not in ([], [100]):  # after a 100 the body is due
        raise ValueError(f"the interim responses {interim}, and no other")
    return found


def _head(data: bytes) -> tuple[bytes, int, list[tuple[bytes, bytes]], bytes]:
    head, end, data = data.partition(b"\r\n\r\n")
    if not end:
        raise Unfinished(f"a head that does not end: {head[:200]!r}")
    first, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ValueError(f"no status line: {first[:200]!r}")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ValueError(f"no field: {line!r}")
        fields.append((field[1], field[2] or b""))
    return status_line[1], int(status_line[2]), fields, data


def _body(
    method: bytes, status: int, fields: list[tuple[bytes, bytes]], data: bytes
) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it ends with the connection."""
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise ValueError(f"more than one length: {fields}")
    if method == b"HEAD" or status in (204, 304):
        return b"", data, False
    if codings:
        if codings != [b"chunked"]:
            raise ValueError(f"an unknown coding: {codings}")
        return (*_chunks(data), False)
    if not lengths:
        return data, b"", True
    length = int(lengths[0])
    if len(data) < length:
        raise Unfinished(f"a body with {len(data)} of {length} bytes")
    return data[:length], data[length:], False


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Unfinished("a chunk size that does not end")
        size = int(line, 16)
        if len(data) < size + 2:
            raise Unfinished("a chunk that does not end")
        if data[size : size + 2] != b"\r\n":
            raise ValueError("a chunk of another size")
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data


def problem(response: Response) -> dict[str, Any]:
    """The members of an error's document.

    :raises AssertionError: it is not one as every error of the wire has to be.
    """
    assert response.values(b"Content-Type") == [b"application/problem+json"]
    members: dict[str, Any] = json.loads(response.body)
    assert members["status"] == response.status
    assert members["title"]
    assert members["detail"]
    assert [members["id"].encode("ascii")] == response.values(b"X-Request-ID")
    return members


#: Fields that differ each time.
_CHANGING = {b"date", b"x-request-id"}


def shape(response: Response) -> Response:
    """A response without what differs each time."""
    fields = tuple(field for field in response.fields if field[0].lower() not in _CHANGING)
    body = response.body
    if body and response.values(b"Content-Type") == [b"application/problem+json"]:
        body = json.dumps({**json.loads(body), "id": None}).encode()
        fields = tuple(field for field in fields if field[0].lower() != b"content-length")
    return attrs.evolve(response, fields=fields, body=body)
