"""What is tried again, and when."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.client.errors import ClientError, Problem, Unreachable
from deferpost.client.retrying import Retries, Trying, retry_after_of, worth_repeating
from deferpost.model import Headers

WALL = 1_800_000_000.0
LOST = Unreachable("lost", was_sent=True)
REFUSED = Unreachable("refused", was_sent=False)


def busy(status: int = 503, reason: str | None = None, **fields: str) -> Problem:
    """An error with header fields."""
    pairs = tuple((k.replace("_", "-").encode(), v.encode()) for k, v in fields.items())
    return Problem(status, reason=reason, headers=Headers(pairs))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        (formatdate(WALL + 90, usegmt=True), 90.0),
        (formatdate(WALL - 90, usegmt=True), 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9" * 40, None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    """Retry-After is a number of seconds or a date; what is neither is ignored."""
    assert retry_after_of(value, WALL) == expected


@given(st.text(max_size=40))
def test_no_retry_after_breaks_it(value: str) -> None:
    """Whatever a server sends there, it is a pause or nothing."""
    seconds = retry_after_of(value, WALL)
    assert seconds is None or seconds >= 0.0


@pytest.mark.parametrize(
    ("error", "with_key", "without"),
    [
        (REFUSED, True, True),
        (LOST, True, False),
        (Unreachable("certificate", was_sent=False, again=False), False, False),
        (busy(429), True, True),
        (busy(503, "pool_full"), True, True),
        (busy(503, "shutdown"), True, False),
        (busy(503), True, False),  # a handler's own, perhaps
        (busy(502), True, False),  # a proxy's
        (busy(504), True, False),
        (busy(502, "worker_lost"), False, False),  # the result
        (busy(504, "deadline_run"), False, False),
        (busy(503, idempotency_replayed="true"), False, False),
        (busy(500), False, False),
        (busy(404), False, False),
        (ClientError("else"), False, False),
    ],
)
def test_what_is_worth_repeating(error: ClientError, with_key: bool, without: bool) -> None:
    """Without a key nothing is repeated that may have been done."""
    assert worth_repeating(error, harmless=True) is with_key
    assert worth_repeating(error, harmless=False) is without


@given(st.floats(0, 1), st.integers(2, 40))
def test_pauses_grow_to_a_bound(chance: float, attempts: int) -> None:
    """Each pause may be twice the one before, is never none, and has a bound."""
    retries = Retries(attempts=attempts)
    trying = Trying(retries, lambda: chance, patient=False)
    pauses = [trying.pause_after(LOST, 0.0, WALL) for _ in range(attempts - 1)]
    assert all(0.25 <= pause <= retries.longest_pause_seconds for pause in pauses)
    assert pauses == sorted(pauses)
    with pytest.raises(Unreachable):
        trying.pause_after(LOST, 0.0, WALL)


@given(st.floats(0, 1), st.integers(0, 300))
def test_never_sooner_than_asked(chance: float, asked: int) -> None:
    """A server that asks for a pause gets it, and not all clients at the same moment."""
    trying = Trying(Retries(), lambda: chance, patient=False)
    pause = trying.pause_after(busy(retry_after=str(asked)), 0.0, WALL)
    assert asked <= pause <= asked + 10.5


def test_too_long_a_pause_is_told() -> None:
    """A server that asks for hours is not waited for."""
    trying = Trying(Retries(), lambda: 0.5, patient=False)
    with pytest.raises(Problem):
        trying.pause_after(busy(retry_after="301"), 0.0, WALL)


def test_patience_is_a_matter_of_time() -> None:
    """A job that was accepted is looked for as long as the patience lasts."""
    trying = Trying(Retries(patience_seconds=60), lambda: 0.5, patient=True)
    for now in range(100, 160):
        trying.pause_after(LOST, float(now), WALL)
    with pytest.raises(Unreachable):
        trying.pause_after(LOST, 160.0, WALL)


def test_no_attempt_after_the_end() -> None:
    """What would come after the time that was given is not tried."""
    trying = Trying(Retries(), lambda: 1.0, patient=True, until=10.0)
    assert trying.pause_after(LOST, 9.0, WALL) == 0.5
    with pytest.raises(Unreachable):
        trying.pause_after(LOST, 9.5, WALL)
