"""Stream a gigabyte to a slow reader that leaves in the middle: ``python -m bench.control.stream``.

A real daemon with one worker process and one thread, each of which yields 1 GB from a generator, to
a reader on the loopback that takes 1 MB in a second.  It prints the resident memory of the daemon
and of the worker over time, and, when the reader has left, how long it is until the next job has
run on the one worker that there is.  It ends by itself.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from bench.clients.exchange import Responses, post
from bench.processes import memory, until_idle
from bench.programs import programs
from bench.running import running

__all__ = ["Seen", "main", "paced", "report"]

_MB = 10**6

#: Bytes that the generator yields in all.
_SIZE = 1000 * _MB

#: Bytes that are read at once.
_PIECE = 16 * 1024

#: Seconds that any step may take.
_PATIENCE = 60.0


@attrs.frozen
class Seen:
    """What was seen of one stream.

    :ivar pool: which pool it came from.
    :ivar read: bytes that its reader took.
    :ivar seconds: for how long.
    :ivar memory: seconds since the beginning, and bytes of each process by its name, over time.
    :ivar freed: seconds from the departure of the reader to the answer of the next job.
    :ivar usual: seconds that such a job takes on a worker that is free.
    """

    pool: str
    read: int
    seconds: float
    memory: Sequence[tuple[float, dict[str, int]]]
    freed: float
    usual: float


def paced(
    read: Callable[[int], int], rate: float, seconds: float, now: Callable[[], float]
) -> Iterator[tuple[float, int]]:
    """Read at a pace.

    :param read: reads at most so many bytes, and says how many there were.
    :param rate: bytes in a second.
    :param seconds: for how long.
    :param now: the time, in seconds.
    :returns: the seconds since the beginning and the bytes until then, after each piece, and again
        and again while none is due; the caller waits then.
    :raises RuntimeError: the stream has ended.
    """
    began, total = now(), 0
    while (passed := now() - began) < seconds:
        if total > rate * passed:
            yield passed, total
            continue
        size = read(_PIECE)
        if not size:
            raise RuntimeError(f"the stream has ended after {total} bytes")
        total += size
        yield now() - began, total


def _job(port: int, pool: str) -> float:
    """Seconds that a small job takes, from its connection to its answer."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
        connection.sendall(post(f"/{pool}/count", b"next"))
        status = Responses().read(connection)
    if status != 200:
        raise RuntimeError(f"the next job was answered with {status}")
    return time.perf_counter() - began


def _stream(port: int, pool: str, pids: dict[str, int], rate: float, seconds: float) -> Seen:
    usual = min(_job(port, pool) for _ in range(5))
    for pid in pids.values():
        until_idle(pid)
    sizes = [(0.0, {name: memory(pid) for name, pid in pids.items()})]
    buffer = bytearray(_PIECE)
    with socket.create_connection(("127.0.0.1", port), _PATIENCE) as connection:
        connection.sendall(post(f"/{pool}/generator", b""))
        passed, total = 0.0, 0
        read = lambda most: connection.recv_into(buffer, most)  # noqa: E731 (it is one line)
        for passed, total in paced(read, rate, seconds, time.perf_counter):
            if passed >= len(sizes):
                sizes.append((passed, {name: memory(pid) for name, pid in pids.items()}))
            if total > rate * passed:
                time.sleep(total / rate - passed)
    freed = _job(port, pool)
    return Seen(pool, total, passed, sizes, freed, usual)


def report(seen: Seen) -> list[str]:
    """What was seen, as lines."""
    lines = [
        f"{seen.pool}: {seen.read / _MB:.1f} MB read in {seen.seconds:.1f} s, "
        f"of {_SIZE / _MB:g} MB that its generator yields"
    ]
    for name in seen.memory[0][1]:
        sizes = [each[name] / 2**20 for _, each in seen.memory]
        lines.append(
            f"  memory of the {name}, MiB: {sizes[0]:.1f} before, {sizes[-1]:.1f} at last, "
            f"{max(sizes):.1f} at most; each second: {' '.join(f'{size:.1f}' for size in sizes)}"
        )
    lines.append(
        f"  the reader left: the next job was answered after {seen.freed * 1e3:.1f} ms "
        f"({seen.usual * 1e3:.1f} ms on a free worker)"
    )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to read")
    parser.add_argument("--rate", type=float, default=_MB, help="bytes to read in a second")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        more = {"BENCH_FILE": os.devnull, "BENCH_SIZE": str(_SIZE)}
        with running(
            programs(None)["ours"],
            "large",
            Path(folder),
            cores=os.sched_getaffinity(0),
            threads=1,
            processes=1,
            more=more,
        ) as up:
            for pool in ("process", "thread"):
                pids = {"daemon": up.pid}
                if pool == "process":
                    pids["worker"] = up.family()[0]
                seen = _stream(up.port, pool, pids, options.rate, options.seconds)
                print("\n".join(report(seen)), flush=True)


if __name__ == "__main__":
    main()
