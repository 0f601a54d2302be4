"""What several runs come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.spread import Spread, percentile

FIGURES = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=50)


def test_the_median_is_not_moved_by_one_run_that_was_disturbed() -> None:
    """One slow run is the least, and leaves the median where it was."""
    assert Spread.of([100.0, 3.0, 102.0]) == Spread(median=100.0, least=3.0, most=102.0)


def test_one_run_is_its_own_spread() -> None:
    """A single run is median, least and most."""
    assert Spread.of([7.5]) == Spread(7.5, 7.5, 7.5)


@given(FIGURES)
def test_the_median_lies_within_the_spread(runs: list[float]) -> None:
    """Whatever the figures are, the median is between the least and the most."""
    spread = Spread.of(runs)
    assert spread.least <= spread.median <= spread.most


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (99, 99.0), (1, 1.0)])
def test_percentiles_of_a_hundred_equal_steps(percent: int, value: float) -> None:
    """Of 0 to 100, so many in a hundred are at most that."""
    assert percentile(range(101), percent) == pytest.approx(value)


@given(FIGURES)
def test_a_percentile_is_never_beyond_the_greatest(runs: list[float]) -> None:
    """The p99 of few values is not more than the slowest that was seen."""
    assert percentile(runs, 99) <= max(runs) * (1 + 1e-9)
