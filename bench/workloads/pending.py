"""What a POST that waits for its answer costs in memory, and whether that is given back."""

from __future__ import annotations

from pathlib import Path

from bench.clients.pending import none_answered, pending
from bench.load import BODY, requests_per_second_in_python
from bench.plan import Figures, Plan, interleaved
from bench.processes import memory, until_idle
from bench.programs import Program
from bench.results import Base, Measure, Panel, Table
from bench.running import Running, running

__all__ = ["measured"]

#: Files that a process has open beside its connections.
_OTHER_FILES = 500


def measured(plan: Plan) -> Table:
    """Ours and the others'."""
    count = min(1000 if plan.is_quick else 8000, max(100, plan.files - _OTHER_FILES))

    def measure(server: Program) -> Figures:
        return _memory(plan, server, count)

    servers = plan.among(
        "ours",
        "ours-wire-stock",
        "ours-mounted",
        "recipe",
        "aiohttp",
        "aiohttp-uvloop",
        "starlette",
    )
    return Table(
        name="pending",
        title="Memory of pending POSTs",
        setting=(
            f"{count:,} connections, each with a POST of {len(BODY)} bytes that waits for one of "
            "ten blocked threads: by how much the resident memory of the server's process grows "
            "for each of them; how much of that is still there when all clients have left and the "
            "threads are free; and by how much more it grows when as many come again, which is "
            "nothing where the memory is given back to later requests."
        ),
        measures=(
            Measure(key="each", heading="KiB each", decimals=2),
            Measure(key="kept", heading="kept, KiB", decimals=2),
            Measure(key="again", heading="again, KiB more", decimals=2),
        ),
        bases=(
            Base(server="recipe", heading="to the recipe", measure="each"),
            Base(server="aiohttp-uvloop", heading="to aiohttp, uvloop", measure="each"),
        ),
        panels=(
            Panel(measure="each", title="Memory of a pending POST, KiB", best="least", bound=6),
        ),
        rows=interleaved(plan, "pending", servers, plan.few_rounds(), measure),
    )


def _memory(plan: Plan, server: Program, count: int) -> Figures:
    """Have so many clients come, leave, and come again."""
    with plan.directory() as directory:
        gate = directory / "gate"
        with running(
            server,
            "threads",
            directory,
            cores=plan.cores.every,
            more={"BENCH_GATE": str(gate)},
        ) as up:
            # What is made once: threads, and what the first requests import.
            requests_per_second_in_python(up.port, "/thread/echo", 0.5, plan.cores.every)
            until_idle(up.pid)
            before = memory(up.pid)
            first, left = _held(up, gate, count)
            second, _ = _held(up, gate, count)
    scale = 1 / count / 1024
    return {
        "": {
            "each": (first - before) * scale,
            "kept": (left - before) * scale,
            "again": (second - first) * scale,
        }
    }


def _held(up: Running, gate: Path, count: int) -> tuple[int, int]:
    """Resident memory while so many POSTs are pending, and when their clients have left."""
    gate.unlink(missing_ok=True)
    with pending(up.port, "/thread/hold", count, BODY.encode()) as clients:
        until_idle(up.pid)
        none_answered(clients)
        full = memory(up.pid)
    until_idle(up.pid)
    gate.touch()
    until_idle(up.pid)
    return full, memory(up.pid)
