"""Large bodies, up and down: how fast, and what they cost in memory."""

from __future__ import annotations

import attrs
import msgspec

from bench.load import client
from bench.plan import Figures, Plan, interleaved
from bench.processes import PeakMemory, until_idle
from bench.programs import Program
from bench.results import Base, Measure, Panel, Row, Table
from bench.running import running
from bench.servers.ours import STREAMS

__all__ = ["measured"]

_MIB = 2**20

#: Bytes that the slow reader of an answer takes in a second.
_RATE = 128 * _MIB


@attrs.frozen
class _Way:
    """A route of a server, as a row of the table."""

    server: str
    row: str
    label: str
    path: str
    is_up: bool


_UP = (
    _Way("ours", "ours", "deferpost, spooled, thread", "/thread/count", True),
    _Way("ours", "ours-process", "deferpost, spooled, process", "/process/count", True),
    _Way("ours", "ours-stream", "deferpost, streamed, thread", "/thread/stream", True),
    _Way("ours", "ours-stream-process", "deferpost, streamed, process", "/process/stream", True),
    _Way("ours-wire-stock", "ours-wire-stock", "deferpost --wire=stock", "/thread/count", True),
    _Way("recipe", "recipe", "twisted.web, deferToThread", "/thread/count", True),
    _Way("aiohttp-uvloop", "aiohttp-uvloop", "aiohttp, uvloop, streamed", "/thread/count", True),
)
_DOWN = (
    _Way("ours", "ours", "deferpost, file, thread", "/thread/file", False),
    _Way("ours", "ours-file-process", "deferpost, file, process", "/process/file", False),
    _Way("ours", "ours-generator", "deferpost, generator, thread", "/thread/generator", False),
    _Way(
        "ours",
        "ours-generator-process",
        "deferpost, generator, process",
        "/process/generator",
        False,
    ),
    _Way("ours", "ours-bytes", "deferpost, bytes, process", "/process/bytes", False),
    _Way("recipe", "recipe", "twisted.web, File", "/thread/file", False),
    _Way(
        "aiohttp-uvloop", "aiohttp-uvloop", "aiohttp, uvloop, FileResponse", "/thread/file", False
    ),
)


def measured(plan: Plan) -> Table:
    """Ours, stock twisted.web's and aiohttp's."""
    size = (128 if plan.is_quick else 1024) * _MIB
    ways: dict[Program, tuple[_Way, Program]] = {}
    for way in (*_UP, *_DOWN):
        if not STREAMS and way.path.endswith("/stream"):
            continue
        for server in plan.among(way.server):
            case = "up" if way.is_up else "down"
            row = attrs.evolve(server, name=f"{case} {way.row}", label=way.label)
            ways[row] = (way, server)

    def measure(row: Program) -> Figures:
        way, server = ways[row]
        return {"up" if way.is_up else "down": _run(plan, way, server, size)}

    rows = interleaved(plan, "large", list(ways), plan.few_rounds(), measure)
    return Table(
        name="large",
        title=f"Bodies of {size // _MIB:,} MiB",
        setting=(
            "Up: to a handler that counts the bytes, as fast as they are taken.  Down: to a reader "
            f"that takes {_RATE // _MIB} MiB in a second.  The growth is that of the peak of "
            "resident memory during the body, of the server's process and of that one of its "
            "workers that grows most; a new server for each body.  A handler that returns bytes "
            "has them in memory itself."
        ),
        measures=(
            Measure(key="rate", heading="MiB/s"),
            Measure(key="main", heading="growth, MiB", decimals=1),
            Measure(key="workers", heading="of a worker, MiB", decimals=1),
        ),
        bases=(Base(server="recipe", heading="MiB/s to twisted.web", measure="rate"),),
        panels=(
            Panel(measure="rate", case="up", title="Up: MiB/s", best="most"),
            Panel(
                measure="main", case="up", title="Up: growth of memory, MiB", best="least", bound=16
            ),
            Panel(
                measure="main",
                case="down",
                title="Down: growth of memory, MiB",
                best="least",
                bound=16,
            ),
        ),
        rows=tuple(_named(row) for row in rows),
    )


def _named(row: Row) -> Row:
    """The row with the server's own name, which was that of the case and the server."""
    return msgspec.structs.replace(row, server=row.server.partition(" ")[2])


def _run(plan: Plan, way: _Way, server: Program, size: int) -> dict[str, float]:
    """One body through a server of its own."""
    with plan.directory() as directory:
        file = directory / "large"
        with file.open("wb") as made:
            made.truncate(size)
        more = {"BENCH_FILE": str(file), "BENCH_SIZE": str(size)}
        every = plan.cores.every
        with running(server, "large", directory, cores=every, processes=1, more=more) as up:
            for pid in (up.pid, *up.family()):
                until_idle(pid)
            main = PeakMemory(up.pid)
            workers = [PeakMemory(pid) for pid in up.family()]
            direction = "up" if way.is_up else "down"
            arguments = [direction, str(up.port), way.path, str(size), str(_RATE)]
            seconds = client("bulk", arguments, every, 300)
            return {
                "rate": size / _MIB / seconds,
                "main": main.growth() / _MIB,
                "workers": max((each.growth() for each in workers), default=0) / _MIB,
            }
