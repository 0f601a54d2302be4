"""What clients ask for in header fields, and what they get of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import HTTPError
from deferpost.web.asked import USUAL, Asked, terms_of, timeout_of, urgency_of


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], None),
        ([b"30"], 30.0),
        ([b"2.5"], 2.5),
        ([b" 500ms "], 0.5),
        ([b"1m30s"], 90.0),
        ([b"30s", b"30"], 30.0),
        ([b"30s, 30000ms"], 30.0),
    ],
)
def test_timeout(values: list[bytes], seconds: float | None) -> None:
    """A timeout is a duration as in the configuration, and may be said more than once."""
    assert timeout_of(values) == seconds


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"soon"],
        [b"0"],
        [b"0s"],
        [b"-1"],
        [b"30s;q=1"],
        [b"1e3"],
        [b"30,"],
        [b"30", b"31"],
        [b"30s, 1m"],
        [b"\xff"],
        [b"9" * 1000],
    ],
)
def test_no_timeout(values: list[bytes]) -> None:
    """What is no duration, none at all, or two different ones is the client's mistake."""
    with pytest.raises(HTTPError) as caught:
        timeout_of(values)
    assert caught.value.status == 400
    assert caught.value.detail.startswith("X-Timeout ")


@given(st.lists(st.binary(max_size=12), max_size=3))
def test_any_timeout(values: list[bytes]) -> None:
    """Whatever is sent is a positive duration, or is refused."""
    try:
        seconds = timeout_of(values)
    except HTTPError:
        return
    assert (seconds is None) == (not values)
    assert seconds is None or seconds > 0


@pytest.mark.parametrize(
    ("values", "urgency"),
    [
        ([], None),
        ([b"u=0"], 0),
        ([b"u=7"], 7),
        ([b"u=5, i"], 5),
        ([b"i, u=1"], 1),
        ([b"i=?0;a=1,\tu=1 "], 1),
        ([b"u=1", b"u=6"], 6),  # the last one counts
        ([b"u=1, u=9"], None),
        ([b"u=2;x=y"], 2),
        ([b'x="a, u=0", u=4'], 4),
        ([b'x=0.5, u=4, y=:YWJj:, z=(1 2;a "b" c);q, d=@123, e=%"f"'], 4),
        # Out of range or of another type: as if it were not there (RFC 9218, section 4).
        ([b"u=8"], None),
        ([b"u=-1"], None),
        ([b"u=-0"], 0),
        ([b"u=01"], 1),
        ([b"u=1.0"], None),
        ([b"u"], None),
        ([b"u=?1"], None),
        ([b'u="1"'], None),
        ([b"u=(1)"], None),
        ([b"i"], None),
        # No dictionary at all.
        ([b"u=1,"], None),
        ([b"u=1 i"], None),
        ([b", u=1"], None),
        ([b"U=1"], None),
        ([b"u = 1"], None),
        ([b"u=1;"], None),
        ([b'u=0, x="open'], None),
        ([b"u=0, \xe4"], None),
        ([b"u=0, x=(1"], None),
        ([b"u=0, x=(12"], None),
    ],
)
def test_urgency(values: list[bytes], urgency: int | None) -> None:
    """The urgency is read as RFC 9218 says; what is malformed is ignored as a whole."""
    assert urgency_of(values) == urgency


@given(st.binary(max_size=60))
def test_any_priority(value: bytes) -> None:
    """Whatever is sent is an urgency from 0 to 7, or nothing."""
    assert urgency_of([value]) in {None, *range(8)}


@pytest.mark.timeout(5)
def test_long_priorities_take_no_long_time() -> None:
    """A field made to keep the parser busy does not."""
    for text in (b"a" * 16_000, b"a=(" + b"1 " * 8_000, b"a;" * 8_000, b"a=b;c=" * 3_000):
        assert urgency_of([text + b"!\x00"]) is None
        assert urgency_of([b"u=1, " + text]) in (None, 1)


@pytest.mark.parametrize(
    ("asked", "most_urgent", "urgency"),
    [(None, 0, 3), (0, 0, 0), (0, 2, 2), (2, 1, 2), (3, 2, 3), (7, 2, 7), (1, 7, 3), (None, 7, 3)],
)
def test_how_urgent_a_client_may_be(asked: int | None, most_urgent: int, urgency: int) -> None:
    """A client gets no more than is configured, and never less than one that asks for nothing."""
    assert terms_of(Asked(None, asked), None, None, most_urgent, 5.0).urgency == urgency


@pytest.mark.parametrize(
    ("asked", "total", "finish_by"),
    [(None, None, None), (2.0, None, 7.0), (2.0, 9.0, 7.0), (9.0, 2.0, 7.0), (None, 2.0, 7.0)],
)
def test_timeouts_are_only_shortened(
    asked: float | None, total: float | None, finish_by: float | None
) -> None:
    """Of what the client asks for and what the server says, the shorter counts."""
    terms = terms_of(Asked(asked), 1.0, total, 0, 5.0)
    assert (terms.created, terms.start_by, terms.finish_by) == (5.0, 6.0, finish_by)


def test_usual_terms() -> None:
    """A call that asks for nothing where nothing is limited has no limits."""
    terms = terms_of(Asked(), None, None, 0, 5.0)
    assert (terms.start_by, terms.finish_by, terms.urgency) == (None, None, USUAL.urgency)
