"""``python -m bench``: requests for each second, server beside server in one run."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

from bench.load import requests_per_second


def _measure(name: str, seconds: float, pin: bool) -> float:
    """Start a server, warm it up, load it, stop it."""
    command = [sys.executable, "-m", "bench.servers", name]
    # Server and its processes on the first CPU but for process pools, whose work is the second's.
    if pin and "process" not in name:
        command = ["taskset", "-c", "0", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            cpu = 1 if pin and "process" not in name else None
            requests_per_second(port, 0.5, cpu)
            return requests_per_second(port, seconds, cpu)
        finally:
            server.terminate()


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each server")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each run")
    parser.add_argument("names", nargs="*", help="servers; all if none is named")
    options = parser.parse_args()
    from bench.servers import SERVERS

    names = options.names or list(SERVERS)
    pin = (os.cpu_count() or 1) > 1 and shutil.which("taskset") is not None
    figures: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            figures[name].append(_measure(name, options.seconds, pin))
    print(
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, load by {'wrk' if shutil.which('wrk') else 'a client in Python'}; "
        f"64 connections, 100-byte bodies, {options.rounds} runs of {options.seconds:g} s, "
        "interleaved"
    )
    base = statistics.median(figures[names[0]])
    print(f"{'server in a stock Site':28}{'median/s':>10}{'min':>9}{'max':>9}{'ratio':>8}")
    for name in names:
        runs = figures[name]
        median = statistics.median(runs)
        print(f"{name:28}{median:10.0f}{min(runs):9.0f}{max(runs):9.0f}{median / base:8.2f}")


if __name__ == "__main__":
    main()
