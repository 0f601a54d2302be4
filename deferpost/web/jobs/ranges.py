"""Which part of a recorded result a request wants, if any (RFC 9110, sections 13 and 14).

Decides only.  A range that is malformed, of another unit or one of several is passed over, as
section 14.2 permits: then the whole is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["Asked", "Part", "own_tag", "part_of", "tag_matches"]

_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*", re.I)
_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LIST = re.compile(rb'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')


class Asked(msgspec.Struct, frozen=True):
    """What a request says of the part that it wants; values of all fields of each name.

    :ivar ranges: of ``Range``.
    :ivar if_range: of ``If-Range``.
    :ivar if_none_match: of ``If-None-Match``.
    """

    ranges: Sequence[bytes] = ()
    if_range: Sequence[bytes] = ()
    if_none_match: Sequence[bytes] = ()


class Part(msgspec.Struct, frozen=True):
    """What of a result is sent.

    :ivar status: 200 for the whole, as recorded; 206, 304 or 416.
    :ivar start: the first byte of the body.
    :ivar length: bytes of the body.
    """

    status: int
    start: int
    length: int


def own_tag(id: str, number: int) -> bytes:
    """The entity tag of a result, which never changes.

    :param id: of its job.
    :param number: of its job, so that one that has a used id again has another tag.
    """
    return b'"%b.%d"' % (id.encode("ascii"), number)


def tag_matches(tag: bytes, values: Iterable[bytes]) -> bool:
    """Whether ``If-None-Match`` names a tag, by the weak comparison (section 8.8.3.2).

    :param values: of all fields of that name.
    """
    opaque = tag.removeprefix(b"W/")
    for value in values:
        if value.strip(b" \t") == b"*":
            return True
        at = 0
        while (found := _LIST.match(value, at)) is not None:
            if found[1].removeprefix(b"W/") == opaque:
                return True
            at = found.end()
    return False


def part_of(asked: Asked, tag: bytes, modified: bytes | None, length: int, *, is_get: bool) -> Part:
    """Decide what is sent of a result whose status is 200.

    :param asked: what the request says.
    :param tag: the entity tag of the result.
    :param modified: its ``Last-Modified``, if it has one.
    :param length: bytes of its body.
    :param is_get: whether the method is GET, the only one that has ranges.
    """
    whole = Part(200, 0, length)
    if asked.if_none_match and tag_matches(tag, asked.if_none_match):
        return Part(304, 0, 0)
    if not is_get or len(asked.ranges) != 1:
        return whole
    if asked.if_range and not _is_same(asked.if_range, tag, modified):
        return whole
    found = _RANGE.fullmatch(asked.ranges[0])
    if found is None:
        return whole
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, length - int(suffix)), length
    else:
        start = int(first)
        end = length if last is None else min(length, int(last) + 1)
        if last is not None and int(last) < start:
            return whole  # malformed (section 14.1.1)
    return Part(206, start, end - start) if start < end else Part(416, 0, 0)


def _is_same(values: Sequence[bytes], tag: bytes, modified: bytes | None) -> bool:
    """Whether ``If-Range`` names what there is, by the strong comparison (section 13.1.5)."""
    if len(values) != 1:
        return False
    value = values[0].strip(b" \t")
    if _TAG.fullmatch(value):
        return value == tag and not tag.startswith(b"W/")
    return modified is not None and value == modified.strip(b" \t")
