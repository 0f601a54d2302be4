"""``python -m bench.figures``: how soon the daemon answers while its workers are busy, and its
memory while it passes large bodies on.

The cases are those of the tests under load, measured longer.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.daemon import Daemon
from tests.integration.load import Latencies, idle
from tests.integration.test_load import (
    BUSY,
    BUSY_CASES,
    BUSY_OPTIONS,
    LARGE,
    LARGE_OPTIONS,
    REPLIES,
    SIZE,
    growth_of_reply,
    growth_of_upload,
    large_digest,
    latency_under_load,
    write_large_file,
)

__all__ = ["latencies", "main", "memory_growth"]

#: What the paths of the large bodies stand for.
_NAMES = {
    "/bytes-process": "reply: bytes of a process",
    "/generator-process": "reply: generator in a process",
    "/file-process": "reply: file of a process",
    "/generator-thread": "reply: generator in a thread",
    "/file-thread": "reply: file of a thread",
    "/bytes-thread": "reply: bytes of a thread, made there",
}


@contextmanager
def _serving(app: str, options: Sequence[str]) -> Iterator[Daemon]:
    """A daemon that serves an app, and is idle."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(Path(directory), app, options)
        try:
            daemon.wait_listening()
            idle(daemon)
            yield daemon
        finally:
            daemon.end()


def latencies(rounds: int, seconds: float) -> dict[str, Latencies]:
    """How long ``/livez`` takes in each case: of each figure, the median of the rounds.

    :param rounds: how often each case is measured, in turn with the others.
    :param seconds: how long it is measured each time.
    """
    found: dict[str, list[Latencies]] = {case: [] for case in BUSY_CASES}
    with _serving(BUSY, BUSY_OPTIONS) as daemon:
        for _ in range(rounds):
            for case, runs in found.items():
                runs.append(latency_under_load(daemon, case, 10_000, seconds))
    return {
        case: Latencies(*(statistics.median(figures) for figures in zip(*runs, strict=True)))
        for case, runs in found.items()
    }


def memory_growth(rounds: int) -> dict[str, int]:
    """By how many bytes the daemon grows at most in each case, a daemon of its own for each run.

    :param rounds: how often each case is measured.
    """
    digest = large_digest()

    def reply(path: str) -> Callable[[Daemon], int]:
        return lambda daemon: growth_of_reply(daemon, path, digest)

    cases: Mapping[str, Callable[[Daemon], int]] = {
        "upload to a process": growth_of_upload,
        **{_NAMES[path]: reply(path) for path in REPLIES},
    }
    found = dict.fromkeys(cases, 0)
    for _ in range(rounds):
        for case, measure in cases.items():
            with _serving(LARGE, LARGE_OPTIONS) as daemon:
                write_large_file(daemon.directory)
                found[case] = max(found[case], measure(daemon))
    return found


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each run")
    options = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, {platform.machine()}; {options.rounds} runs of each case"
    )
    print()
    print("GET /livez, in ms; 4 threads, 2 processes, 20 more jobs waiting for each kind")
    print(f"{'case':38}{'median':>9}{'p99':>9}{'most':>9}")
    for case, found in latencies(options.rounds, options.seconds).items():
        print(f"{case:38}{found.median:9.2f}{found.p99:9.2f}{found.most:9.2f}")
    print()
    print(f"Growth of the daemon's memory, at most, in MiB; bodies of {SIZE / 1e6:.0f} MB")
    for case, growth in memory_growth(options.rounds).items():
        print(f"{case:38}{growth / 2**20:9.1f}")


if __name__ == "__main__":
    main()
