"""How soon a server answers something small while its workers are busy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from bench.clients.pending import none_answered, pending
from bench.load import client
from bench.plan import Figures, Plan, interleaved
from bench.processes import cpu_seconds, until, until_idle
from bench.programs import Program
from bench.results import Base, Measure, Panel, Table
from bench.running import Running, running
from bench.spread import percentile

__all__ = ["measured"]

_THREADS, _PROCESSES = 4, 2

#: Jobs that wait beside those that run.
_WAITING = 20

#: What keeps the server busy in each case: the route, the jobs, and how many processes compute.
_CASES = {
    "idle": ("", 0, 0),
    "processes computing": ("/process/spin", _PROCESSES + _WAITING, _PROCESSES),
    "threads computing": ("/thread/spin", _THREADS + _WAITING, 1),
}

_PAUSE = 0.003


def measured(plan: Plan) -> Table:
    """Ours and aiohttp's."""

    def measure(server: Program) -> Figures:
        return _latencies(plan, server)

    servers = plan.among("ours", "ours-wire-stock", "aiohttp", "aiohttp-uvloop")
    busy = ("processes computing", "threads computing")
    return Table(
        name="livez",
        title="A small GET while the workers are busy",
        setting=(
            "GET /livez, of the others a route that answers at once, over one connection with "
            f"{_PAUSE * 1e3:g} ms between an answer and the next request; {_samples(plan):,} "
            "requests in each round, fewer where they take long.  "
            f"{_PROCESSES} processes, or {_THREADS} threads that never release the interpreter, "
            f"compute in pure Python, and {_WAITING} more jobs wait.  The server is not held to a "
            "CPU; the client is, and goes before other processes where the system lets it, so "
            "that it hardly waits for a CPU itself."
        ),
        measures=(
            Measure(key="p50", heading="median, ms", decimals=2),
            Measure(key="p99", heading="p99, ms", decimals=2),
            Measure(key="to_idle", heading="p99 to idle", decimals=1),
        ),
        bases=(Base(server="aiohttp-uvloop", heading="p99 to aiohttp, uvloop", measure="p99"),),
        panels=tuple(
            Panel(
                measure="p99",
                case=case,
                title=f"{case}: p99 of a small GET, ms",
                best="least",
            )
            for case in busy
        ),
        rows=interleaved(plan, "livez", servers, plan.few_rounds(), measure),
    )


def _samples(plan: Plan) -> int:
    return 100 if plan.is_quick else 1000


def _latencies(plan: Plan, server: Program) -> Figures:
    """All cases of one server, one after another."""
    found: dict[str, dict[str, float]] = {}
    idle = 0.0
    with plan.directory() as directory:
        gate = directory / "gate"
        with running(
            server,
            "both",
            directory,
            cores=plan.cores.every,
            threads=_THREADS,
            processes=_PROCESSES,
            more={"BENCH_GATE": str(gate)},
        ) as up:
            _ask(plan, up, server.ping, 50)
            for case, (path, jobs, busy) in _CASES.items():
                with _busy(up, gate, path, jobs, busy):
                    times = _ask(plan, up, server.ping, _samples(plan))
                p99 = percentile(times, 99)
                idle = idle or p99
                found[case] = {"p50": percentile(times, 50), "p99": p99, "to_idle": p99 / idle}
    return found


def _ask(plan: Plan, up: Running, path: str, count: int) -> list[float]:
    """Ask so many times; returns how many milliseconds each took."""
    arguments = [str(up.port), path, str(count), str(_PAUSE), "4" if plan.is_quick else "12"]
    return [1e3 * seconds for seconds in client("gets", arguments, plan.cores.client, 120)]


@contextlib.contextmanager
def _busy(up: Running, gate: Path, path: str, jobs: int, busy: int) -> Iterator[None]:
    """Keep a server busy for the length of a block."""
    if not path:
        yield
        return
    gate.unlink(missing_ok=True)
    with pending(up.port, path, jobs, b"") as clients:

        def is_busy() -> bool:
            pids = [up.pid, *up.family()]
            before = [cpu_seconds([pid]) for pid in pids]
            time.sleep(0.3)
            used = [cpu_seconds([pid]) - had for pid, had in zip(pids, before, strict=True)]
            return sum(each >= 0.06 for each in used) >= busy

        until(is_busy, 20, "its workers are busy")
        yield
        none_answered(clients)
        gate.touch()
    until_idle(up.pid)
