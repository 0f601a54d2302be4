"""Which part of a result a request wants."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.web.jobs.ranges import Asked, Part, own_tag, part_of, tag_matches

TAG = b'"id.7"'
WHOLE = Part(200, 0, 10)
DATE = b"Sun, 09 Sep 2001 01:46:40 GMT"


def part(
    *ranges: bytes,
    if_range: Sequence[bytes] = (),
    none_match: Sequence[bytes] = (),
    tag: bytes = TAG,
    modified: bytes | None = None,
    is_get: bool = True,
    length: int = 10,
) -> Part:
    return part_of(Asked(ranges, if_range, none_match), tag, modified, length, is_get=is_get)


@pytest.mark.parametrize(
    ("value", "start", "length"),
    [
        (b"bytes=0-0", 0, 1),
        (b"bytes=2-4", 2, 3),
        (b"bytes=2-", 2, 8),
        (b"bytes=2-99", 2, 8),
        (b"bytes=-3", 7, 3),
        (b"bytes=-99", 0, 10),
        (b"Bytes= 0-9 ", 0, 10),
    ],
)
def test_ranges(value: bytes, start: int, length: int) -> None:
    """A part is named by its first and last byte, or by its length from the end."""
    assert part(value) == Part(206, start, length)


@pytest.mark.parametrize("value", [b"bytes=10-", b"bytes=10-20", b"bytes=-0"])
def test_none_of_it(value: bytes) -> None:
    """What is not there cannot be sent."""
    assert part(value).status == 416


def test_nothing_has_no_parts() -> None:
    """An empty result has no bytes that could be asked for."""
    assert part(b"bytes=0-", length=0).status == 416
    assert part(b"bytes=-1", length=0).status == 416


@pytest.mark.parametrize(
    "value",
    [
        *(b"bytes=0-1,3-4", b"bytes=4-2", b"bytes=", b"bytes=-", b"lines=0-1", b"bytes=a-b"),
        *(b"0-1", b"bytes=0-1 2", b"bytes=" + b"9" * 30 + b"-", b"bytes=+1-2"),
    ],
)
def test_passed_over(value: bytes) -> None:
    """Where a range is none, or of several parts, the whole is sent."""
    assert part(value) == WHOLE


def test_no_range() -> None:
    """Ranges are for GET, and there is one of them."""
    assert part() == WHOLE
    assert part(b"bytes=0-1", is_get=False) == WHOLE
    assert part(b"bytes=0-1", b"bytes=0-1") == WHOLE


@pytest.mark.parametrize(
    ("value", "tag", "same"),
    [
        (TAG, TAG, True),
        (b" " + TAG, TAG, True),
        (b'"other"', TAG, False),
        (b"W/" + TAG, TAG, False),
        (b"W/" + TAG, b"W/" + TAG, False),
        (DATE, TAG, True),
        (b"Sun, 09 Sep 2001 01:46:41 GMT", TAG, False),
        (b"nonsense", TAG, False),
    ],
)
def test_if_range(value: bytes, tag: bytes, same: bool) -> None:
    """A part is sent only of what the client has the rest of."""
    found = part(b"bytes=0-1", if_range=[value], tag=tag, modified=DATE)
    assert found == (Part(206, 0, 2) if same else WHOLE)


def test_if_range_twice() -> None:
    """One that comes twice is as good as none that matches."""
    assert part(b"bytes=0-1", if_range=[TAG, TAG]) == WHOLE


@pytest.mark.parametrize(
    ("values", "matches"),
    [
        ([TAG], True),
        ([b"W/" + TAG], True),
        ([b"*"], True),
        ([b'"a", "b,c" , ' + TAG], True),
        ([b'"a"', TAG], True),
        ([b'"a"'], False),
        ([b""], False),
        ([b"id.7"], False),
        ([b'"a" ' + TAG], False),
    ],
)
def test_if_none_match(values: list[bytes], matches: bool) -> None:
    """A client that has the result is told so."""
    assert tag_matches(TAG, values) is matches
    assert part(none_match=values).status == (304 if matches else 200)


def test_unchanged_before_range() -> None:
    """Whoever has the whole needs no part."""
    assert part(b"bytes=0-1", none_match=[TAG]).status == 304


def test_own_tag() -> None:
    """Of two jobs that have one id after the other, the results have different tags."""
    assert own_tag("a", 1) != own_tag("a", 2)


@given(st.binary(max_size=40), st.integers(0, 20))
def test_anything(value: bytes, length: int) -> None:
    """Whatever a client asks for, it gets bytes that are there."""
    for asked in (value, b"bytes=" + value):
        found = part(asked, length=length)
        assert found.status in (200, 206, 416)
        assert 0 <= found.start <= found.start + found.length <= length
    tag_matches(TAG, [value, b"," * 10 + value])
