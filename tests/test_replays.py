"""Signatures pass once, however many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import HTTPError
from deferpost.replays import UsedSignatures


def reason_of(used: UsedSignatures, value: bytes, created: int, now: float) -> object:
    """Why a signature is refused; None if it passes."""
    try:
        used.use(value, created, now)
    except HTTPError as error:
        return error.extensions["reason"] if error.status == 403 else error.status
    return None


def test_once() -> None:
    """A signature passes once; others of the same second pass too."""
    used = UsedSignatures(300)
    assert reason_of(used, b"a" * 32, 1000, 1000.5) is None
    assert reason_of(used, b"a" * 32, 1000, 1000.6) == "signature_replayed"
    assert reason_of(used, b"b" * 32, 1000, 1000.7) is None
    assert len(used) == 2


def test_forgotten_when_stale() -> None:
    """What is too old to be taken takes no memory, and is not taken when the clock goes back."""
    used = UsedSignatures(300)
    used.use(b"a", 1000, 1000.0)
    used.use(b"b", 1400, 1301.0)
    assert len(used) == 1
    assert reason_of(used, b"a", 1000, 1299.0) == "signature_stale"


def test_a_flood_lets_none_pass_twice() -> None:
    """Where there are too many, old ones are refused as too old rather than taken again."""
    used = UsedSignatures(300, most=10)
    for number in range(100):
        used.use(b"%d" % number, 1000 + number, 1100.0)
        assert len(used) <= 10
    assert reason_of(used, b"0", 1000, 1100.0) == "signature_stale"
    assert reason_of(used, b"99", 1099, 1100.0) == "signature_replayed"
    assert reason_of(used, b"new", 1089, 1100.0) == "signature_stale"
    assert reason_of(used, b"new", 1090, 1100.0) is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(-5, 5), st.floats(0, 3)), max_size=60),
    st.integers(1, 8),
)
def test_never_twice(uses: list[tuple[int, int, float]], most: int) -> None:
    """In whatever order signatures come, none passes twice, and memory keeps its bound."""
    used = UsedSignatures(5, most)
    passed: set[tuple[int, int]] = set()
    now = 100.0
    for number, ahead, later in uses:
        now += later
        created = int(now) + ahead
        if not now - 5 <= created <= now + 5:
            continue
        value = b"%d %d" % (number, created)
        if reason_of(used, value, created, now) is None:
            assert (number, created) not in passed
            passed.add((number, created))
        assert len(used) <= most


def test_the_same_bytes_at_another_time() -> None:
    """A signature is one of its second: two that agree by chance do not disturb each other."""
    used = UsedSignatures(300)
    used.use(b"a", 1000, 1000.0)
    used.use(b"a", 1001, 1001.0)
    with pytest.raises(HTTPError):
        used.use(b"a", 1001, 1001.0)
