"""Requests for each second, of a handler that gives the body back."""

from __future__ import annotations

from bench.load import BODY, CONNECTIONS, requests_per_second, requests_per_second_in_python
from bench.plan import Figures, Plan, interleaved
from bench.programs import Program
from bench.results import Base, Measure, Panel, Table
from bench.running import running

__all__ = ["through_processes", "through_threads"]

_BASES = (
    Base(server="recipe", heading="to the recipe", measure="rate"),
    Base(server="aiohttp-uvloop", heading="to aiohttp, uvloop", measure="rate"),
)
_RATE = Measure(key="rate", heading="requests/s")
_OURS = ("ours", "ours-wire-stock", "ours-mounted")
_WARM_UP = 0.5


def through_threads(plan: Plan) -> Table:
    """With ten threads."""
    where = (
        "the server on one CPU and the client on another"
        if plan.cores.is_split
        else "server and client on the only CPU"
    )
    servers = plan.among(
        *_OURS,
        "recipe",
        "klein",
        "aiohttp",
        "aiohttp-uvloop",
        "starlette",
        "waitress",
        "gunicorn",
        "granian",
        "granian-one",
    )

    def measure(server: Program) -> Figures:
        return _rate(plan, server, "threads", "/thread/echo", is_pinned=True)

    return Table(
        name="thread",
        title="A POST through a thread",
        setting=(
            f"A handler in one of ten threads gives back the {len(BODY)} bytes of the body; "
            f"{CONNECTIONS} connections that are kept alive, {where}, no access log.  "
            "granian is there twice: with one thread it is at its fastest, but runs one handler "
            "at a time."
        ),
        measures=(_RATE,),
        bases=_BASES,
        panels=(Panel(measure="rate", title="POSTs through a thread, each second", best="most"),),
        rows=interleaved(plan, "thread", servers, plan.rounds, measure),
    )


def through_processes(plan: Plan) -> Table:
    """With two processes."""
    servers = plan.among(*_OURS, "aiohttp", "aiohttp-uvloop", "starlette")

    def measure(server: Program) -> Figures:
        return _rate(plan, server, "processes", "/process/echo", is_pinned=False)

    return Table(
        name="process",
        title="A POST through a process",
        setting=(
            f"A handler in one of two processes gives back the {len(BODY)} bytes of the body; "
            f"{CONNECTIONS} connections that are kept alive, nothing is held to a CPU, no access "
            "log.  The others use a ProcessPoolExecutor."
        ),
        measures=(_RATE,),
        bases=_BASES[1:],
        panels=(Panel(measure="rate", title="POSTs through a process, each second", best="most"),),
        rows=interleaved(plan, "process", servers, plan.rounds, measure),
    )


def _rate(plan: Plan, server: Program, app: str, path: str, *, is_pinned: bool) -> Figures:
    """Start a server, warm it up, and measure it."""
    its = plan.cores.server if is_pinned else plan.cores.every
    clients = plan.cores.client if is_pinned else plan.cores.every
    with plan.directory() as directory, running(server, app, directory, cores=its) as server_up:
        requests_per_second_in_python(server_up.port, path, _WARM_UP, clients)
        return {"": {"rate": requests_per_second(server_up.port, path, plan.seconds, clients)}}
