"""How long a client that was turned away is asked to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.admission import RETRY_AFTER_MOST, ServiceTime, retry_after

SECONDS = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("waiting", "size", "mean", "expected"),
    [
        (0, 1, 1.0, 1),
        (9, 1, 2.0, 20),
        (9, 4, 2.0, 5),
        (10, 4, 2.0, 6),  # 5.5, rounded up
        (1000, 10, 0.001, 1),
        (1000, 1, 60.0, RETRY_AFTER_MOST),
        (5, 0, 1.0, 6),  # a pool that is just losing its workers
        (1000, 1, None, 1),
    ],
)
def test_retry_after(waiting: int, size: int, mean: float | None, expected: int) -> None:
    """A client is asked to come back when the queue is likely to have been worked off."""
    assert retry_after(waiting, size, mean) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.none() | SECONDS)
def test_retry_after_is_whole_and_bounded(waiting: int, size: int, mean: float | None) -> None:
    """The pause is always a whole number of seconds, at least one and at most an hour."""
    seconds = retry_after(waiting, size, mean)
    assert type(seconds) is int
    assert 1 <= seconds <= RETRY_AFTER_MOST


@given(st.integers(0, 1000), st.integers(1, 100), SECONDS)
def test_longer_queues_ask_for_longer_pauses(waiting: int, size: int, mean: float) -> None:
    """More that waits never shortens the pause, and more workers never lengthen it."""
    seconds = retry_after(waiting, size, mean)
    assert retry_after(waiting + 1, size, mean) >= seconds
    assert retry_after(waiting, size + 1, mean) <= seconds


def test_no_mean_before_the_first_job() -> None:
    """As long as no job has ended, nobody claims to know how long one takes."""
    assert ServiceTime().mean is None


def test_first_job_is_the_mean() -> None:
    """After one job its time is all that is known."""
    service_time = ServiceTime()
    service_time.add(3.0)
    assert service_time.mean == 3.0


def test_one_slow_job_counts_little() -> None:
    """A single slow job among quick ones moves the mean a little, not to its own time."""
    service_time = ServiceTime()
    for seconds in (1.0, 1.0, 1.0, 101.0):
        service_time.add(seconds)
    assert service_time.mean == pytest.approx(6.0)


def test_mean_follows_a_change() -> None:
    """When jobs have become slower for good, the mean is theirs after a while."""
    service_time = ServiceTime()
    for seconds in [1.0] * 50 + [10.0] * 100:
        service_time.add(seconds)
    assert service_time.mean == pytest.approx(10.0, rel=0.01)


@given(st.lists(SECONDS, min_size=1))
def test_mean_is_among_the_times(times: list[float]) -> None:
    """The mean is never outside the times that went into it."""
    service_time = ServiceTime()
    for seconds in times:
        service_time.add(seconds)
    assert service_time.mean is not None
    assert min(times) - 1e-6 <= service_time.mean <= max(times) + 1e-6
