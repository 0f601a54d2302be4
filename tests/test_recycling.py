"""When a worker has served for long enough."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.recycling import Bounds

MIB = 2**20


@pytest.mark.parametrize(
    ("bounds", "jobs", "age", "memory", "expected"),
    [
        (Bounds(max_jobs=3), 2, 1e9, 10**12, None),
        (Bounds(max_jobs=3), 3, 0.0, 0, "after 3 jobs"),
        (Bounds(max_age=60.0), 10**9, 59.9, 10**12, None),
        (Bounds(max_age=60.0), 0, 60.0, 0, "at the age of 60 s"),
        (Bounds(max_memory=100 * MIB), 10**9, 1e9, 100 * MIB - 1, None),
        (Bounds(max_memory=100 * MIB), 0, 0.0, 100 * MIB, "at 100 MiB of memory"),
        (Bounds(max_memory=1), 0, 0.0, None, None),
        (Bounds(), 10**9, 1e9, 10**12, None),
    ],
)
def test_reached(
    bounds: Bounds, jobs: int, age: float, memory: int | None, expected: str | None
) -> None:
    """A worker is due when it has come to a bound that there is, and the log says to which."""
    assert bounds.reached(jobs, age, memory) == expected


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0.1, 1e6), st.integers(1, 2**40))
def test_drawn(number: int, jobs: int, age: float, memory: int) -> None:
    """The bounds of a worker are within a tenth of the pool's, and the same again."""
    pool = Bounds(max_jobs=jobs, max_age=age, max_memory=memory)
    drawn = pool.drawn(number)
    assert drawn == pool.drawn(number)
    assert max(1, 0.9 * jobs - 1) <= drawn.max_jobs <= 1.1 * jobs + 1
    assert 0.899 * age <= drawn.max_age <= 1.101 * age
    assert 0.9 * memory - 1 <= drawn.max_memory <= 1.1 * memory + 1


def test_workers_do_not_leave_together() -> None:
    """Workers that were started together have bounds that are apart."""
    drawn = sorted(Bounds(max_jobs=1000).drawn(number).max_jobs for number in range(1, 9))
    assert min(b - a for a, b in itertools.pairwise(drawn)) > 5
    assert drawn[-1] - drawn[0] > 100


def test_no_bounds_stay_none() -> None:
    """What is not bounded for the pool is not bounded for a worker."""
    assert not Bounds().drawn(5)
    assert Bounds(max_jobs=1).drawn(5) == Bounds(max_jobs=1)


@pytest.mark.parametrize(("age", "pause"), [(0.0, 10.0), (1.0, 0.1), (60.0, 3.0), (1e6, 10.0)])
def test_look_pause(age: float, pause: float) -> None:
    """Idle workers are looked at often enough for their age, and not more often than that."""
    assert Bounds(max_jobs=1, max_age=age).look_pause == pytest.approx(pause)
