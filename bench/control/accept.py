"""Jobs that are accepted with all of them on disk: ``python -m bench.control.accept``.

A real daemon with a store, and 64 connections that post 100 bytes with ``Prefer: respond-async``,
by wrk.  The jobs wait for a worker that never is free (what accepting costs), or are run by a
coroutine at once (what the whole of a short job costs); with what was promised synchronized to the
disk, and without.  The daemon is held to one CPU and wrk to another where there are two.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.load import CONNECTIONS, requests_per_second_of_wrk
from bench.pinning import held_to
from bench.running import environment

__all__ = ["main", "rate"]

_PATIENCE = 60.0

_APP = """
import time
from deferpost import App, ThreadPool

app = App()

@app.post("/waits", pool=ThreadPool(size=1))
def waits(call):
    time.sleep(1000)

@app.post("/runs")
async def runs(call):
    return b"done"
"""

_SCRIPT = """
wrk.method = "POST"
wrk.body = string.rep("x", 100)
wrk.headers["Prefer"] = "respond-async"
"""


@contextlib.contextmanager
def _daemon(folder: Path, options: Sequence[str], cores: set[int]) -> Iterator[int]:
    """A daemon with a store of its own; gives its port."""
    log = folder / "log"
    command = [
        *(str(Path(sys.executable).with_name("deferpost")), "--listen=tcp:0:interface=127.0.0.1"),
        *("--access-log=no", "--max-kept=10000000", "--grace=0s", "--store=jobs", *options),
        "accepting:app",
    ]
    with log.open("wb") as output, held_to(cores):
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, env=environment({})
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while "jobs are kept in" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.02)
        found = re.search(r"Site starting on (\d+)$", log.read_text(), re.MULTILINE)
        assert found is not None
        yield int(found[1])
    finally:
        process.kill()
        process.wait(_PATIENCE)


def rate(path: str, options: Sequence[str], seconds: int) -> float:
    """How many 202s there are in a second.

    :param path: where to post: ``/waits`` or ``/runs``.
    :param options: of the daemon.
    :param seconds: for which it is asked.
    """
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        folder = Path(name)
        (folder / "accepting.py").write_text(_APP, encoding="utf-8")
        script = folder / "accept.lua"
        script.write_text(_SCRIPT, encoding="utf-8")
        with _daemon(folder, options, {cores[0]}) as port, held_to({cores[-1]}):
            done = subprocess.run(
                [
                    *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout=20s"),
                    *("-s", str(script), f"http://127.0.0.1:{port}{path}"),
                ],
                capture_output=True,
                text=True,
                check=True,
                timeout=seconds + _PATIENCE,
            )
            return requests_per_second_of_wrk(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of all four, interleaved")
    given = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed: apt-get install wrk")
    cases = {
        "accepted, on disk": ("/waits", ["--store-durable=yes"]),
        "accepted, not synchronized": ("/waits", ["--store-durable=no"]),
        "accepted and run, on disk": ("/runs", ["--store-durable=yes"]),
        "accepted and run, not synchronized": ("/runs", ["--store-durable=no"]),
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(given.rounds):
        for name, (path, options) in cases.items():
            seen[name].append(rate(path, options, given.seconds))
    print(f"{os.cpu_count()} CPUs; 202s a second from {CONNECTIONS} connections")
    for name, rates in seen.items():
        shown = " ".join(f"{each:.0f}" for each in rates)
        print(f"  {name}: {statistics.median(rates):.0f} in the median of {shown}")


if __name__ == "__main__":
    main()
