"""What a well-formed request says, read without any of the parsers that are tested.

It takes for granted that the request is good: what is bad is read as nonsense.
"""

from __future__ import annotations

import attrs

__all__ = ["Plain", "plain"]


@attrs.frozen
class Plain:
    """A request.

    :ivar target: in origin-form or asterisk-form, as a resource sees it.
    :ivar rest: what follows.
    """

    method: bytes
    target: bytes
    version: bytes
    body: bytes
    rest: bytes


def plain(data: bytes) -> Plain:
    """Read the first request of some bytes."""
    head, data = data.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
    line, *lines = head.split(b"\r\n")
    method, target, version = line.split(b" ")
    fields = {
        name.lower(): value.strip(b" \t")
        for name, _, value in (each.partition(b":") for each in lines)
    }
    if b"transfer-encoding" in fields:
        body, rest = _chunks(data)
    else:
        length = int(fields.get(b"content-length", b"0"))
        body, rest = data[:length], data[length:]
    return Plain(method, _origin(method, target), version, body, rest)


def _origin(method: bytes, target: bytes) -> bytes:
    if target.startswith(b"/") or target == b"*":
        return target
    rest = target.split(b"//", 1)[1]
    start = min((rest.index(sign) for sign in (b"/", b"?") if sign in rest), default=len(rest))
    origin = rest[start:]
    if not origin and method == b"OPTIONS":
        return b"*"
    return origin if origin.startswith(b"/") else b"/" + origin


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, data = data.split(b"\r\n", 1)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        body += data[:size]
        data = data[size + 2 :]
    while True:
        line, data = data.split(b"\r\n", 1)
        if not line:
            return body, data
