"""What a run is to do, and the order in which it does it: round by round, server by server."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from bench.machine import Cores
from bench.programs import Program
from bench.results import Row
from bench.running import ServerFailed

__all__ = ["NOT_QUICK", "Figures", "Plan", "interleaved"]

#: Servers that a quick run leaves out if it is not told to have them: each has a faster sibling.
NOT_QUICK = frozenset({"aiohttp", "klein", "ours-wire-stock"})

#: What one run of one server came to: by case, "" where there is only one, and by measure.
Figures = Mapping[str, Mapping[str, float]]


@attrs.frozen
class Plan:
    """What a run is to do.

    :ivar rounds: how often each server is measured.
    :ivar seconds: how long, where it lasts as long as it is told.
    :ivar is_quick: whether to measure less, so that it is done soon.
    :ivar programs: the servers that there are, by name.
    :ivar chosen: the names of those that are wanted; None for all.
    :ivar cores: the CPUs.
    :ivar files: how many files a process may have open.
    :ivar say: tells a person how far it is.
    :ivar failed: takes what could not be measured, and why.
    """

    rounds: int
    seconds: float
    is_quick: bool
    programs: Mapping[str, Program]
    chosen: frozenset[str] | None
    cores: Cores
    files: int
    say: Callable[[str], None]
    failed: Callable[[str], None]

    def among(self, *names: str) -> list[Program]:
        """Those of these servers that there are and that are wanted, in this order."""
        return [self.programs[name] for name in names if name in self.programs and self._has(name)]

    def _has(self, name: str) -> bool:
        if self.chosen is not None:
            return name in self.chosen
        return not (self.is_quick and name in NOT_QUICK)

    def few_rounds(self) -> int:
        """How often to measure what takes long."""
        return min(self.rounds, 3)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """A folder that is there for the length of a block."""
        with tempfile.TemporaryDirectory(prefix="deferpost-bench-") as name:
            yield Path(name)


def interleaved(
    plan: Plan,
    title: str,
    servers: Sequence[Program],
    rounds: int,
    measure: Callable[[Program], Figures],
) -> tuple[Row, ...]:
    """Measure every server once, then every one again.

    A run that fails is told and left out.

    :param title: the workload's name for a reader.
    :param servers: the servers, in the order of the rows.
    :param rounds: how often.
    :param measure: one run of one server.
    :returns: a row for each case of each server that had a run.
    """
    runs: dict[tuple[str, str], dict[str, list[float]]] = {}
    for number in range(rounds):
        for server in servers:
            plan.say(f"{title}, round {number + 1} of {rounds}: {server.label}")
            try:
                figures = measure(server)
            except (ServerFailed, RuntimeError, OSError, subprocess.SubprocessError) as error:
                plan.failed(f"{title}, {server.label}: {error}")
                continue
            for case, by_measure in figures.items():
                for name, figure in by_measure.items():
                    of_case = runs.setdefault((case, server.name), {})
                    of_case.setdefault(name, []).append(figure)
    cases = list(dict.fromkeys(case for case, _ in runs))
    return tuple(
        Row(
            server=server.name,
            label=server.label,
            ours=server.is_ours,
            case=case,
            runs={name: tuple(each) for name, each in runs[case, server.name].items()},
        )
        for case in cases
        for server in servers
        if (case, server.name) in runs
    )
