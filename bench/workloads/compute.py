"""Jobs that compute, on two processes: how much of what two bare processes do gets done."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec

from bench.jobs import burn
from bench.load import CONNECTIONS, requests_per_second, requests_per_second_in_python
from bench.plan import Figures, Plan, interleaved
from bench.programs import ROOT, Program
from bench.results import Base, Measure, Panel, Row, Table
from bench.running import environment, running

__all__ = ["measured", "steps_for"]

_SECONDS_EACH = 0.0035
_WARM_UP = 0.5

#: Seconds in which any server does what its clients of the warm-up have left behind.
_REST = 0.4


def steps_for(seconds: float) -> int:
    """How many steps of the computing job take so long here, with a CPU of its own."""
    steps, least = 20_000, float("inf")
    for _ in range(30):
        began = time.perf_counter()
        burn(steps)
        least = min(least, time.perf_counter() - began)
    return max(1, round(steps * seconds / least))


def _bare(steps: int, seconds: float) -> float:
    """Jobs for each second of two processes that do nothing else."""
    command = [sys.executable, "-m", "bench.clients.bare", str(steps), str(seconds)]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, process_group=0
        )
        for _ in range(2)
    ]
    try:
        found = [json.loads(each.communicate(timeout=seconds + 30)[0]) for each in both]
    finally:
        for each in both:
            each.kill()
            each.wait()
    return float(sum(done / took for done, took in found))


def measured(plan: Plan) -> Table:
    """Ours and aiohttp's, and the ideal."""
    steps = steps_for(_SECONDS_EACH)
    bare = Program("bare", "two bare processes", lambda setting: [])

    def measure(server: Program) -> Figures:
        is_bare = server is bare
        rate = _bare(steps, plan.seconds) if is_bare else _served(plan, server, steps)
        return {"": {"rate": rate}}

    servers = plan.among("ours", "ours-wire-stock", "aiohttp", "aiohttp-uvloop")
    return Table(
        name="compute",
        title="Computing jobs of 3.5 ms",
        setting=(
            f"A loop in pure Python of {steps:,} steps, which take about 3.5 ms here, in one of "
            f"two processes; {CONNECTIONS} connections, nothing is held to a CPU.  The ideal is "
            "what two processes do that run the same loop and nothing else, measured in every "
            "round too; the client takes its part of the CPUs from the servers, and not from these."
        ),
        measures=(
            Measure(key="rate", heading="jobs/s"),
            Measure(key="share", heading="% of the ideal", decimals=1),
        ),
        bases=(Base(server="aiohttp-uvloop", heading="to aiohttp, uvloop", measure="rate"),),
        panels=(
            Panel(
                measure="share",
                title="Computing jobs done, in % of what two bare processes do",
                best="most",
                bound=95,
            ),
        ),
        rows=_with_shares(interleaved(plan, "compute", [bare, *servers], plan.rounds, measure)),
    )


def _with_shares(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows with their share of the ideal, which is the median of the bare processes."""
    ideal = next((row.spread("rate") for row in rows if row.server == "bare"), None)
    if ideal is None:
        return rows
    return tuple(
        msgspec.structs.replace(
            row,
            runs={**row.runs, "share": tuple(100 * run / ideal.median for run in row.runs["rate"])},
        )
        for row in rows
    )


def _served(plan: Plan, server: Program, steps: int) -> float:
    """Jobs for each second of a server."""
    every, body = plan.cores.every, str(steps)
    with plan.directory() as directory, running(server, "processes", directory, cores=every) as up:
        requests_per_second_in_python(up.port, "/process/burn", _WARM_UP, every, body)
        time.sleep(_REST)
        return requests_per_second(up.port, "/process/burn", plan.seconds, every, body)
