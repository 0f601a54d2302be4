"""What the program that overloads a daemon makes of what it has seen."""

from __future__ import annotations

import math

import pytest

from bench.control.overload import Answered, Load, drained, percentile, report


def _answers() -> list[Answered]:
    accepted = [Answered(f"{number}", number, number + 3.0, 200) for number in range(4)]
    return [
        *accepted,
        Answered("4", 1.5, 1.5, 503, "pool_full", 3),
        Answered("5", 4.0, 4.25, 503, "pool_full", 5),
        Answered("6", 9.0, 9.0, 503, "pool_full", 1),
    ]


def test_percentiles() -> None:
    """A percentile is a value that was seen."""
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.01, 0.5, 1.0)] == [1.0, 2.0, 3.0]
    assert math.isnan(percentile([], 0.5))


def test_how_long_it_really_took() -> None:
    """A pause is compared with the time until those that were accepted before were done."""
    assert drained(_answers()) == [(3, 2.5), (5, 1.75), (1, 0.0)]


def test_report() -> None:
    """The figures are those of the answers, and what was lost is counted."""
    answers = [
        *_answers(),
        Answered("7", 5.0, 65.0, 0),
        Answered("8", 5.0, 6.0, 200, is_right=False),
    ]
    lines = report(Load(), answers, ["0", "1", "2", "2", "8"], [50.0, 51.0])
    text = "\n".join(lines)
    assert "  503 pool_full: 3 (33.3 %)" in lines
    assert "accepted, seconds: p50 3.000" in text
    assert (
        "unanswered: 1; answered wrongly: 1; accepted but not run exactly once: 2; run twice: 1"
        in (text)
    )
    assert "50.0 at first" in text


def test_capacity() -> None:
    """As much can be done as there are workers, divided by how long a call takes."""
    assert Load(size=4, work=0.1).capacity == pytest.approx(40.0)
