"""What several runs come to: the median and the spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import attrs

__all__ = ["Spread", "percentile"]


@attrs.frozen
class Spread:
    """Figures of several runs.

    :ivar median: the one in the middle.
    :ivar least: the least.
    :ivar most: the greatest.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, runs: Sequence[float]) -> Spread:
        """Of at least one run."""
        return cls(statistics.median(runs), min(runs), max(runs))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many in a hundred do not exceed, between neighbours in proportion.

    :param values: at least one.
    :param percent: from 1 to 99.
    """
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
