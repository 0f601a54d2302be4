"""``python -m bench``: measure deferpost beside other servers, print the tables, keep the figures.

Every workload prints its table when it is done.  All figures are kept as JSON, which the plots are
drawn from.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.machine import machine, raise_file_limit, usable_cores
from bench.page import page
from bench.plan import NOT_QUICK, Plan
from bench.programs import ROOT, Program, programs
from bench.results import Results, Table, read, write
from bench.running import environment
from bench.tables import as_text, described, machine_line
from bench.targets import as_lines, verdicts
from bench.workloads import WORKLOADS

_PEERS = ROOT / "build" / "bench-peers" / "bin" / "python"
_OUTPUT = ROOT / "build" / "bench"
_DOCS = ROOT / "docs"


def _options(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure deferpost beside other servers."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of one second, 1,000 pending POSTs, bodies of 128 MiB, and without "
        f"{', '.join(sorted(NOT_QUICK))}: under two minutes, and rough",
    )
    parser.add_argument("--rounds", type=int, help="runs of each server; by default 5, quick 1")
    parser.add_argument(
        "--seconds", type=float, help="seconds of each run, where it has a length; by default 3"
    )
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, help="a workload; may be given several times"
    )
    parser.add_argument("--servers", help="names of servers, with commas between them")
    parser.add_argument(
        "--peers", type=Path, default=_PEERS, help="the interpreter that has the other servers"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=_OUTPUT,
        help="where JSON and plots go; build/bench if not given",
    )
    parser.add_argument(
        "--docs", action="store_true", help="write docs/figures.rst and its plots; not of a part"
    )
    parser.add_argument(
        "--from-json", type=Path, help="measure nothing, and show a run that was kept"
    )
    return parser, parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep and draw; returns the exit status."""
    parser, options = _options(arguments)
    if options.docs and (options.only or options.servers):
        parser.error("--docs shows all workloads and servers: leave --only and --servers out")
    peers: Path | None = options.peers if options.peers.exists() else None
    if peers is None:
        print("There are no other servers here: `make bench-peers` installs them.", file=sys.stderr)
        if not options.servers:
            return 1
    if options.from_json is not None:
        results = read(options.from_json)
        _print_head(results)
        for table in results.tables:
            _print_table(table)
    else:
        found = programs(peers)
        chosen = frozenset(options.servers.split(",")) if options.servers else None
        if chosen is not None and not chosen <= found.keys():
            parser.error(f"there are the servers {', '.join(found)}")
        # The servers end with this process, however it is told to end.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        results = _measured(options, peers, found, chosen)
    for line in as_lines(verdicts(results)):
        print(line)
    if peers is not None:
        _draw(results, peers, options)
    if options.docs:
        (_DOCS / "figures.rst").write_text(page(results), encoding="utf-8")
    for failure in results.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if results.failures else 0


def _measured(
    options: argparse.Namespace,
    peers: Path | None,
    found: dict[str, Program],
    chosen: frozenset[str] | None,
) -> Results:
    """Run the workloads that are wanted, and keep what there is after each."""
    is_part = options.only or options.servers
    name = "part.json" if is_part else "quick.json" if options.quick else "results.json"
    failures: list[str] = []
    plan = Plan(
        rounds=options.rounds or (1 if options.quick else 5),
        seconds=options.seconds or (1.0 if options.quick else 3.0),
        is_quick=options.quick,
        programs=found,
        chosen=chosen,
        cores=usable_cores(),
        files=raise_file_limit(),
        say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
        failed=failures.append,
    )
    results = Results(
        machine=machine(peers),
        rounds=plan.rounds,
        seconds=plan.seconds,
        is_quick=plan.is_quick,
        tables=(),
    )
    _print_head(results)
    for workload in options.only or WORKLOADS:
        table = WORKLOADS[workload](plan)
        _print_table(table)
        results = msgspec.structs.replace(
            results, tables=(*results.tables, table), failures=tuple(failures)
        )
        write(results, options.output / name)
    return results


def _print_head(results: Results) -> None:
    print(machine_line(results.machine))
    print(f"{described(results)}\n", flush=True)


def _print_table(table: Table) -> None:
    print(f"{table.title}\n{table.setting}\n\n{as_text(table)}\n", flush=True)


def _draw(results: Results, peers: Path, options: argparse.Namespace) -> None:
    """Draw the plots, with the interpreter that has what draws them."""
    folder = _DOCS / "figures" if options.docs else options.output / "plots"
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        write(results, Path(file.name))
        command = [str(peers), "-m", "bench.peers.plot", file.name, str(folder)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment({}))
    print(f"plots in {folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder}")


if __name__ == "__main__":
    sys.exit(main())
