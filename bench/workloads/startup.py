"""How long a server takes from its command to its first answer."""

from __future__ import annotations

from bench.plan import Figures, Plan, interleaved
from bench.programs import Program
from bench.results import Base, Measure, Panel, Table
from bench.running import running

__all__ = ["measured"]


def measured(plan: Plan) -> Table:
    """All of them."""

    def measure(server: Program) -> Figures:
        every = plan.cores.every
        with plan.directory() as folder, running(server, "processes", folder, cores=every) as up:
            return {"": {"seconds": up.seconds}}

    servers = plan.among(
        "ours",
        "ours-wire-stock",
        "recipe",
        "klein",
        "aiohttp",
        "aiohttp-uvloop",
        "starlette",
        "waitress",
        "gunicorn",
        "granian",
    )
    return Table(
        name="startup",
        title="Start-up",
        setting=(
            "From the command to the first answer: of ours, to a /readyz that says that its "
            "worker processes can run jobs; the others start theirs later or have none.  The "
            "files are in the system's memory, from the workloads before."
        ),
        measures=(Measure(key="seconds", heading="seconds", decimals=2),),
        bases=(Base(server="recipe", heading="to the recipe", measure="seconds"),),
        panels=(
            Panel(
                measure="seconds",
                title="From the command to ready, seconds",
                best="least",
                bound=0.7,
            ),
        ),
        rows=interleaved(plan, "startup", servers, plan.rounds, measure),
    )
