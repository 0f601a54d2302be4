"""Figures of what hostile clients do to a daemon: ``python -m tests.integration.hostile_figures``.

For a machine with nothing else to do.  Nothing is judged here; that is for the tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.daemon import Daemon
from tests.integration.hostile import Crowd, request
from tests.integration.load import Latencies, PeakMemory, memory
from tests.integration.test_hostile import AMOUNTS, APP, MANY, leave
from tests.integration.test_wire import APP as LIMITED_APP
from tests.integration.test_wire import EXPECTED, STREAMS, announced

__all__: list[str] = []

MIB = 2**20
GIB = 2**30

HOSTILE = 500
GOOD = 2_000
ROUNDS = 3


@contextmanager
def _served(app: str, *options: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as folder:
        served = Daemon(Path(folder), app, options, listen=MANY)
        try:
            served.wait_listening()
            yield served
        finally:
            served.end()


def _good(served: Daemon) -> Latencies:
    """How long good requests take, one after the other on one connection."""
    seconds = []
    with served.connect() as client:
        for _ in range(GOOD):
            start = time.monotonic()
            client.send(request("/echo", b"x" * 100))
            assert client.response().status == 200
            seconds.append(time.monotonic() - start)
    return Latencies.of(seconds)


def _appears(path: Path, seconds: float = 60.0) -> float:
    """Wait for a file; returns how long that took."""
    start = time.monotonic()
    while not path.exists():
        assert time.monotonic() - start < seconds, f"{path.name} did not appear"
        time.sleep(0.0005)
    return time.monotonic() - start


def crowds() -> None:
    """Good requests with and without hostile clients."""
    print(f"{GOOD} POSTs of 100 bytes, without and with {HOSTILE} hostile clients")
    with _served(APP) as served:
        _good(served)
        for number in range(1, ROUNDS + 1):
            print(f"  round {number}, without: {_good(served)}")
            before = memory(served.pid)
            with Crowd(served.port, HOSTILE) as crowd:
                print(f"  round {number}, they come: {_good(served)}")
                print(f"  round {number}, they stay: {_good(served)}")
                growth = (memory(served.pid) - before) / MIB
                print(f"    memory grew by {growth:.1f} MiB; {crowd.sent_away} were sent away")


def departures() -> None:
    """The time until it is noticed that a client has left."""
    print("from a client's leaving to the handler's end, in milliseconds")
    with _served(APP) as served:
        for how in ("closed", "killed", "reset"):
            times = []
            for size in AMOUNTS.values():
                id = f"{how}{size}"
                leaves = leave(served, how, id, size)
                _appears(served.directory / f"{id}.begun")
                leaves()
                times.append(_appears(served.directory / f"{id}.canceled"))
            shown = ", ".join(
                f"{amount} pipelined {seconds * 1e3:.0f}"
                for amount, seconds in zip(AMOUNTS, times, strict=True)
            )
            print(f"  {how}: {shown}")


def early_refusal() -> None:
    """1 GiB with an expectation, to a route limited to 1 MB."""
    print("1 GiB with Expect: 100-continue to a route limited to 1 MB")
    with _served(LIMITED_APP) as served:
        for _ in range(3):
            with served.connect() as client:
                start = time.monotonic()
                client.send(announced("/small", GIB, EXPECTED))
                status = client.response().status
                seconds = time.monotonic() - start
            print(f"  socket: {status} in {seconds * 1e3:.2f} ms, 0 bytes sent")
        if (curl := shutil.which("curl")) is not None:
            large = served.directory / "large"
            with large.open("wb") as file:
                file.truncate(GIB)
            form = "%{http_code} in %{time_total} s, %{size_upload} bytes sent"
            command = [
                curl,
                "-sS",
                "--noproxy",
                "*",
                "--http1.1",
                "-H",
                EXPECTED,
                "-o",
                "/dev/null",
            ]
            command += ["--expect100-timeout", "60", "-w", form]
            done = subprocess.run(
                [*command, "-X", "POST", "-T", str(large), served.url("/small")],
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"  curl: {done.stdout}")


def streams() -> None:
    """1 GiB to a handler that reads while it arrives."""
    print("1 GiB streamed")
    block = bytes(range(256)) * 4096
    for kind in ("thread", "process"):
        with _served(STREAMS.replace("300MB", "2GB")) as served, served.connect() as client:
            client.send(request(f"/{kind}/digest", b"warm"))
            worker = json.loads(client.response().body)["pid"]
            daemon_peak, worker_peak = PeakMemory(served.pid), PeakMemory(worker)
            start = time.monotonic()
            client.send(announced(f"/{kind}/digest", GIB, "X-Request-ID: big"))
            client.send(block)
            first = _appears(served.directory / "big.first")
            for _ in range(GIB // len(block) - 1):
                client.send(block)
            assert client.response().status == 200
            seconds = time.monotonic() - start
            print(
                f"  {kind}: {GIB / MIB / seconds:.0f} MiB/s; the handler's first byte after "
                f"{first * 1e3:.1f} ms; the daemon grew by {daemon_peak.growth() / MIB:.1f} MiB, "
                f"the worker by {worker_peak.growth() / MIB:.1f} MiB"
            )


def main() -> None:
    """Print all of it."""
    early_refusal()
    departures()
    streams()
    crowds()


if __name__ == "__main__":
    main()
