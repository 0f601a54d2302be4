"""A workload's figures as a table, for a terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import Base, Machine, Measure, Results, Row, Table
from bench.spread import Spread

__all__ = ["as_rst", "as_text", "cells", "described", "machine_line"]

_MISSING = "-"


def machine_line(machine: Machine) -> str:
    """The day and the machine, as one line."""
    load = "a client in Python" if machine.wrk is None else f"wrk {machine.wrk}"
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    return (
        f"{machine.date}: {machine.cpu}, {cores}, {machine.memory_gib} GiB, {machine.system}, "
        f"Python {machine.python}, load from {load}; load average {machine.load_before:.2f} "
        "before the run"
    )


def described(results: Results) -> str:
    """How often and how long was measured, as one line."""
    rounds = "1 round" if results.rounds == 1 else f"{results.rounds} rounds"
    quick = "; a quick run, whose figures are rough" if results.is_quick else ""
    return f"{rounds} of {results.seconds:g} s, interleaved{quick}"


def cells(table: Table) -> list[list[str]]:
    """The table as text: the headings, then a line for each row."""
    has_cases = any(row.case for row in table.rows)
    lines = [[*(["case"] if has_cases else []), "server", *_headings(table)]]
    for row in table.rows:
        figures = [cell for measure in table.measures for cell in _figures(table, row, measure)]
        ratios = [_ratio(table, row, base) for base in table.bases]
        lines.append([*([row.case] if has_cases else []), row.label, *figures, *ratios])
    return lines


def as_text(table: Table) -> str:
    """The table for a terminal."""
    return "\n".join(_aligned(cells(table), _words(table)))


def as_rst(table: Table) -> str:
    """The table as reStructuredText."""
    lines = cells(table)
    aligned = _aligned(lines, _words(table))
    rule = "  ".join("=" * width for width in _widths(lines))
    return "\n".join([rule, aligned[0], rule, *aligned[1:], rule])


def _headings(table: Table) -> list[str]:
    spreads = ["least to most"] * _has_spread(table)
    measured = [text for each in table.measures for text in (each.heading, *spreads)]
    return [*measured, *(base.heading for base in table.bases)]


def _has_spread(table: Table) -> bool:
    """Whether anything was measured more than once."""
    return any(len(runs) > 1 for row in table.rows for runs in row.runs.values())


def _figures(table: Table, row: Row, measure: Measure) -> list[str]:
    """Median, and the spread where there is one."""
    spread = row.spread(measure.key)
    has_spread = _has_spread(table)
    if spread is None:
        return [_MISSING, *[_MISSING] * has_spread]
    return [_number(spread.median, measure), *[_range(spread, measure)] * has_spread]


def _range(spread: Spread, measure: Measure) -> str:
    return f"{_number(spread.least, measure)} to {_number(spread.most, measure)}"


def _number(value: float, measure: Measure) -> str:
    # Without the sign that a small negative one keeps.
    return f"{round(value, measure.decimals) + 0.0:,.{measure.decimals}f}"


def _ratio(table: Table, row: Row, base: Base) -> str:
    theirs = table.median(base.server, base.measure, row.case)
    own = row.spread(base.measure)
    return _MISSING if own is None or not theirs else f"{own.median / theirs:.2f}"


def _words(table: Table) -> int:
    """How many columns hold words."""
    return 2 if any(row.case for row in table.rows) else 1


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _aligned(lines: Sequence[Sequence[str]], words: int) -> list[str]:
    """Each line as text: words to the left, figures to the right."""
    widths = _widths(lines)
    return [
        "  ".join(
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
