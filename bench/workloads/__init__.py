"""What is measured, by name: each takes the plan of a run and gives a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.plan import Plan
from bench.results import Table
from bench.workloads import compute, echo, large, livez, pending, startup

__all__ = ["WORKLOADS"]

#: In the order in which they are measured.
WORKLOADS: Mapping[str, Callable[[Plan], Table]] = {
    "thread": echo.through_threads,
    "process": echo.through_processes,
    "compute": compute.measured,
    "livez": livez.measured,
    "pending": pending.measured,
    "large": large.measured,
    "startup": startup.measured,
}
