"""When a webhook is tried again, and when no more."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.records import Hook, HookAttempt, HookState
from deferpost.webhooks.schedule import (
    GIVE_UP_SECONDS,
    LONGEST_PAUSE,
    MOST_ATTEMPTS,
    PAUSES,
    hook_after,
    next_attempt,
    retry_after_of,
)

ENDED = 1_000_000.0
HOOK = Hook(url="https://hooks.example.com/", state=HookState.PENDING, due=ENDED)


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 3600), (6, 21600), (7, 86400)],
)
def test_pauses(attempts: int, pause: float) -> None:
    """Each pause is longer than the one before, and chance adds up to a fifth."""
    assert next_attempt(attempts, ENDED, ENDED + 1, 0.0) == ENDED + 1 + pause
    assert next_attempt(attempts, ENDED, ENDED + 1, 0.5) == pytest.approx(ENDED + 1 + 1.1 * pause)
    assert next_attempt(attempts, ENDED, ENDED + 1, 1.0) == pytest.approx(ENDED + 1 + 1.2 * pause)


@pytest.mark.parametrize("attempts", [0, MOST_ATTEMPTS, MOST_ATTEMPTS + 1])
def test_no_more_attempts(attempts: int) -> None:
    """After the last attempt there is none."""
    assert next_attempt(attempts, ENDED, ENDED, 0.0) is None


def test_all_attempts_have_time() -> None:
    """A receiver that asks for nothing is tried as often as may be, whatever chance brings."""
    longest = sum(PAUSES) * 1.2 + MOST_ATTEMPTS * 60
    assert longest < GIVE_UP_SECONDS
    assert list(PAUSES) == sorted(set(PAUSES))


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(None, 30.0), (0.0, 30.0), (29.0, 30.0), (100.0, 100.0), (1e9, LONGEST_PAUSE)],
)
def test_what_receivers_ask_for(retry_after: float | None, pause: float) -> None:
    """A receiver may ask for a longer pause, within bounds, and not for a shorter one."""
    assert next_attempt(2, ENDED, ENDED, 0.0, retry_after) == ENDED + pause


def test_giving_up() -> None:
    """Some days after the job's end it is too late, whatever receivers ask for."""
    last = ENDED + GIVE_UP_SECONDS - 30.0
    assert next_attempt(2, ENDED, last, 0.0) == ENDED + GIVE_UP_SECONDS
    assert next_attempt(2, ENDED, last + 1, 0.0) is None


@given(
    st.floats(0, 1),
    st.lists(st.none() | st.floats(0, 1e9), min_size=20, max_size=20),
    st.sampled_from([None, 301, 400, 404, 429, 500, 503]),
)
def test_it_ends(chance: float, asked: list[float | None], status: int | None) -> None:
    """Whatever a receiver does, its hook ends within the bounds, and each pause is kept."""
    hook, now = HOOK, ENDED
    for retry_after in asked:
        attempt = HookAttempt(at=now, status=status, error=None if status else "refused")
        hook = hook_after(hook, attempt, ENDED, now, chance, retry_after)
        if hook.due is None:
            break
        assert hook.state is HookState.PENDING
        assert hook.due >= now + 5
        now = hook.due
    assert hook.state is HookState.FAILED
    assert len(hook.attempts) <= MOST_ATTEMPTS
    assert now <= ENDED + GIVE_UP_SECONDS
    for attempt, following in itertools.pairwise(hook.attempts):
        assert attempt.at < following.at


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_delivered(status: int) -> None:
    """Any success is one."""
    attempt = HookAttempt(at=ENDED, status=status)
    hook = hook_after(HOOK, attempt, ENDED, ENDED, 0.0)
    assert hook == Hook(url=HOOK.url, state=HookState.DELIVERED, attempts=(attempt,))


def test_gone() -> None:
    """A receiver that says that it is gone is left alone at once."""
    hook = hook_after(HOOK, HookAttempt(at=ENDED, status=410), ENDED, ENDED, 0.0, 5.0)
    assert (hook.state, hook.due) == (HookState.FAILED, None)


@pytest.mark.parametrize("status", [None, 300, 301, 302, 304, 307, 400, 401, 404, 429, 500, 599])
def test_tried_again(status: int | None) -> None:
    """Anything else is tried again, redirects included."""
    hook = hook_after(HOOK, HookAttempt(at=ENDED, status=status), ENDED, ENDED + 2, 0.0)
    assert (hook.state, hook.due) == (HookState.PENDING, ENDED + 7)


NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.mark.parametrize(
    ("status", "values", "seconds"),
    [
        (503, [], None),
        (503, [b"120"], 120.0),
        (429, [b" 0 "], 0.0),
        (503, [b"999999999"], LONGEST_PAUSE),
        (503, [b"9" * 65], None),
        (503, [b"Sun, 06 Nov 1994 08:50:37 GMT"], 60.0),
        (503, [b"Sun, 06 Nov 1994 08:50:37 -0000"], 60.0),
        (503, [b"Sunday, 06-Nov-94 08:50:37 GMT"], 60.0),
        (503, [b"Sun Nov  6 08:50:37 1994"], 60.0),
        (503, [b"Sun, 06 Nov 1994 08:48:37 GMT"], 0.0),
        (503, [b"Sun, 06 Nov 2094 08:48:37 GMT"], LONGEST_PAUSE),
        (503, [b"Sun, 99 Nov 1994 08:48:37 GMT"], None),
        (503, [b"soon"], None),
        (503, [b""], None),
        (503, [b"-5"], None),
        (503, [b"1.5"], None),
        (503, [b"5", b"5"], None),
        (503, [b"\xb2"], None),
        (500, [b"120"], None),
        (200, [b"120"], None),
        (301, [b"120"], None),
    ],
)
def test_retry_after(status: int, values: list[bytes], seconds: float | None) -> None:
    """A pause is a number of seconds or a date; what is neither means nothing."""
    assert retry_after_of(status, values, NOW) == seconds


@given(st.binary(max_size=70) | st.text("0123456789 :,+-SunNovGMT", max_size=40).map(str.encode))
def test_any_retry_after(value: bytes) -> None:
    """Any bytes are a pause within bounds, or none."""
    seconds = retry_after_of(503, [value], NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_PAUSE
