"""A handler that leaks, and workers that are replaced: ``python -m bench.control.leak``.

A real daemon with worker processes whose handler keeps 50 MB of each call for ever.  Clients post
to it all the time, each on a connection of its own.  It prints the resident memory of the daemon
and of its workers meanwhile, how each call was answered and how long it took, and how many workers
were replaced.  It ends by itself, and at once if the machine has too little memory for it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from bench.processes import descendants, memory

__all__ = ["Seen", "main", "report"]

_MB = 10**6

#: Seconds that any step may take.
_PATIENCE = 60.0

#: Seconds between two looks at the memory.
_PAUSE = 0.02

_APP = """
import time
from deferpost import App

app = App()
kept = []

@app.post("/leak", pool="process")
def leak(call):
    kept.append(b"x" * {leak})
    time.sleep({seconds})
    return str(len(kept))
"""


@attrs.frozen
class Seen:
    """What was seen.

    :ivar statuses: how many calls were answered with which status; 0 for none.
    :ivar seconds: that each call took.
    :ivar daemon: bytes of the daemon, over time.
    :ivar workers: bytes of all workers together, over time.
    :ivar largest: bytes of the largest worker, over time.
    :ivar processes: how many workers there were, over time.
    :ivar restarts: workers that were replaced.
    """

    statuses: dict[int, int]
    seconds: Sequence[float]
    daemon: Sequence[int]
    workers: Sequence[int]
    largest: Sequence[int]
    processes: Sequence[int]
    restarts: int


@contextlib.contextmanager
def _daemon(folder: Path, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A daemon that serves the app.

    :returns: its pid and its port.
    """
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from deferpost.tap import main; main()"),
                *("--listen=tcp:0:interface=127.0.0.1", "--access-log=no", *options),
                "leaking:app",
            ],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        found = None
        while found is None or _get(int(found[1]), "/readyz")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.02)
            found = re.search(r"Site starting on (\d+)$", log.read_text(), re.MULTILINE)
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _client(port: int, calls: int, seconds: list[float], statuses: list[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    for _ in range(calls):
        began = time.perf_counter()
        try:
            connection.request("POST", "/leak", b"")
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            status = 0
            connection.close()
        seconds.append(time.perf_counter() - began)
        statuses.append(status)
    connection.close()


def _see(pid: int, port: int, clients: int, calls: int) -> Seen:
    seconds: list[float] = []
    statuses: list[int] = []
    threads = [
        threading.Thread(target=_client, args=(port, calls // clients, seconds, statuses))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    daemon, workers, largest, processes = [], [], [], []
    while any(thread.is_alive() for thread in threads):
        sizes = []
        for worker in descendants(pid):
            with contextlib.suppress(OSError, RuntimeError):  # it has just ended
                sizes.append(memory(worker.pid))
        daemon.append(memory(pid))
        workers.append(sum(sizes))
        largest.append(max(sizes, default=0))
        processes.append(len(sizes))
        time.sleep(_PAUSE)
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    pools = json.loads(_get(port, "/readyz")[1])["pools"]
    restarts = sum(pool["restarts"] for pool in pools)
    return Seen(counts, seconds, daemon, workers, largest, processes, restarts)


def report(seen: Seen) -> list[str]:
    """What was seen, as lines."""
    lines = [
        "answers: " + ", ".join(f"{count} of {status}" for status, count in seen.statuses.items())
    ]
    ordered = sorted(seen.seconds)
    lines.append(
        f"time of a call, ms: {statistics.median(ordered) * 1e3:.0f} in the median, "
        f"{ordered[len(ordered) * 99 // 100] * 1e3:.0f} at the 99th percentile, "
        f"{ordered[-1] * 1e3:.0f} at most"
    )
    lines.append(
        f"workers: {seen.restarts} replaced, {max(seen.processes)} at once at most; "
        f"the daemon: {seen.daemon[0] / _MB:.0f} MB at first, {seen.daemon[-1] / _MB:.0f} MB at "
        f"last, {max(seen.daemon) / _MB:.0f} MB at most"
    )
    lines.append(
        f"memory of the workers, MB: {max(seen.largest) / _MB:.0f} the largest, "
        f"{max(seen.workers) / _MB:.0f} all together at most"
    )
    tenths = [seen.workers[len(seen.workers) * n // 10] for n in range(10)]
    lines.append(
        "  all together, at each tenth of the time: "
        + " ".join(f"{size / _MB:.0f}" for size in [*tenths, seen.workers[-1]])
    )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=500, help="how many calls")
    parser.add_argument("--clients", type=int, default=4, help="how many at once")
    parser.add_argument("--leak", type=int, default=50 * _MB, help="bytes that a call leaks")
    parser.add_argument("--seconds", type=float, default=0.02, help="for which a call waits")
    parser.add_argument(
        "options",
        nargs="*",
        default=["--process-size=2", "--process-max-memory=300MB"],
        help="of the daemon",
    )
    given = parser.parse_args(arguments)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 4_000 * _MB:
        raise SystemExit(f"4 GB of free memory are needed; there are {free / _MB:.0f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = _APP.format(leak=given.leak, seconds=given.seconds)
        (folder / "leaking.py").write_text(app, encoding="utf-8")
        with _daemon(folder, given.options) as (pid, port):
            print("\n".join(report(_see(pid, port, given.clients, given.calls))))


if __name__ == "__main__":
    main()
