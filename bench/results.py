"""The values that a run comes to, and their JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from bench.spread import Spread

__all__ = ["Base", "Machine", "Measure", "Panel", "Results", "Row", "Table", "read", "write"]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is measured.

    :ivar key: its name in the rows.
    :ivar heading: its name for a reader, with the unit.
    :ivar decimals: how many are shown.
    """

    key: str
    heading: str
    decimals: int = 0


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A server to which the others are compared.

    :ivar server: its name.
    :ivar heading: the heading of the ratios.
    :ivar measure: what is compared.
    """

    server: str
    heading: str
    measure: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one server, in one case.

    :ivar server: its name.
    :ivar label: its name for a reader.
    :ivar ours: whether it is ours.
    :ivar case: the case, where a workload has several.
    :ivar runs: by measure, the figures of all runs in order.
    """

    server: str
    label: str
    ours: bool
    case: str = ""
    runs: dict[str, tuple[float, ...]]

    def spread(self, measure: str) -> Spread | None:
        """Median and spread of a measure, if it was measured."""
        runs = self.runs.get(measure)
        return Spread.of(runs) if runs else None


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the plot.

    :ivar measure: what it shows.
    :ivar case: of which case; all of a workload that has only one.
    :ivar title: what stands above it.
    :ivar best: whether the greatest or the least figure is the best.
    :ivar bound: the figure that ours is to reach, where there is one for itself.
    """

    measure: str
    case: str = ""
    title: str
    best: Literal["most", "least"]
    bound: float | None = None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """What one workload came to.

    :ivar name: the workload's name.
    :ivar title: its name for a reader.
    :ivar setting: how it was measured, in sentences.
    :ivar measures: what was measured.
    :ivar bases: what the others are compared to.
    :ivar panels: what the plot shows.
    :ivar rows: the figures.
    """

    name: str
    title: str
    setting: str
    measures: tuple[Measure, ...]
    bases: tuple[Base, ...] = ()
    panels: tuple[Panel, ...]
    rows: tuple[Row, ...]

    def row(self, server: str, case: str = "") -> Row | None:
        """The row of a server in a case, if it was measured."""
        found = (row for row in self.rows if (row.server, row.case) == (server, case))
        return next(found, None)

    def median(self, server: str, measure: str, case: str = "") -> float | None:
        """The median of one figure, if it was measured."""
        row = self.row(server, case)
        spread = row.spread(measure) if row is not None else None
        return spread.median if spread is not None else None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was made on.

    :ivar date: the day.
    :ivar cpu: the CPU's name.
    :ivar cores: how many CPUs may be used.
    :ivar memory_gib: the memory.
    :ivar system: the operating system.
    :ivar python: the version of Python.
    :ivar load_before: how many processes wanted a CPU in the minute before.
    :ivar wrk: the version of wrk; None where the load comes from a client in Python.
    :ivar versions: those of the packages that were measured.
    """

    date: str
    cpu: str
    cores: int
    memory_gib: int
    system: str
    python: str
    load_before: float
    wrk: str | None
    versions: dict[str, str]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    :ivar machine: what it was made on.
    :ivar rounds: how often each server was measured in most workloads.
    :ivar seconds: how long, in those that last as long as they are told.
    :ivar is_quick: whether it was cut short, so that the figures are rough.
    :ivar tables: what the workloads came to.
    :ivar failures: what could not be measured, and why.
    """

    machine: Machine
    rounds: int
    seconds: float
    is_quick: bool
    tables: tuple[Table, ...]
    failures: tuple[str, ...] = ()

    def table(self, name: str) -> Table | None:
        """The table of a workload, if it was measured."""
        return next((table for table in self.tables if table.name == name), None)


def write(results: Results, path: Path) -> None:
    """Keep a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """A run that was kept."""
    return msgspec.json.decode(path.read_bytes(), type=Results)
