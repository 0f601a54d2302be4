"""How fast jobs are kept, and whether a million of them matter: ``python -m bench.control.store``.

A store in a directory of its own, where the system has its temporary files, or ``--directory``
says.  It prints (1) how many jobs in a second are accepted from clients that each send one after
the other, with every job durable and without waiting for the disk, and (2) how long one takes to be
accepted, read, listed and cleaned away, in an empty store and beside many jobs that have ended.  It
ends by itself, and leaves nothing.
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from deferpost.model import CallHead, State
from deferpost.records import KeyOf, NewJob, Outcome
from deferpost.store.sqlite import SQLiteStore

__all__ = ["Latency", "fill", "main", "report"]

_BODY = b"x" * 1000

_FIELDS = tuple((f"X-Field-{number}".encode(), b"a usual value") for number in range(8))

#: How many jobs one bulk statement makes.
_BULK = 50_000

#: Jobs that have ended, made of their numbers: one of seven is of each of four principals, one of
#: ten has failed.
_ENDED = """
WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)
INSERT INTO jobs (number, id, request_id, route, pool, principal, state, created, started, finished,
    expires, ttl, urgency, retries, attempt, body_bytes, status, result_bytes, scope, key,
    fingerprint, events)
SELECT n, 'bench-' || n, 'request-' || n, '/a', 'thread',
    CASE WHEN n % 7 < 4 THEN 'principal-' || (n % 7) END,
    CASE WHEN n % 10 = 9 THEN 'failed' ELSE 'succeeded' END,
    :now + n / 1e3, :now + n / 1e3, :now + n / 1e3, :now + n / 1e3 + 86400.0, 86400.0, 3, 0, 1,
    1000, 200, 1000, 'scope', 'key-' || n, x'00', 3
FROM numbers
"""

_MORE = (
    "INSERT INTO results SELECT number, x'90', zeroblob(1000) FROM jobs "
    "WHERE number BETWEEN :first AND :last",
    "INSERT INTO events SELECT number, value, 'state', zeroblob(80) "
    "FROM jobs, json_each('[1,2,3]') WHERE number BETWEEN :first AND :last",
)


@attrs.frozen
class Latency:
    """How long one thing took, again and again, each after the other.

    :ivar name: what it was.
    :ivar seconds: how long, each time.
    """

    name: str
    seconds: Sequence[float]

    def __str__(self) -> str:
        times = sorted(self.seconds)
        return (
            f"{self.name}: {statistics.median(times) * 1e3:.2f} ms, "
            f"{times[len(times) * 9 // 10] * 1e3:.2f} ms of one in ten, "
            f"{times[-1] * 1e3:.2f} ms at most"
        )


def _job(store: SQLiteStore, ttl: float = 3600.0) -> NewJob:
    id = store.new_id()
    head = CallHead(id, "/a", "POST", "/a", b"", _FIELDS, ("127.0.0.1", 4711), 30.0)
    return NewJob(
        id=id,
        head=head,
        pool="thread",
        created=time.time(),
        urgency=3,
        retries=0,
        ttl=ttl,
        key=KeyOf("scope", id, bytes(32)),
        body_bytes=len(_BODY),
    )


async def _rate(store: SQLiteStore, clients: int, seconds: float) -> float:
    """Jobs accepted in a second."""
    began = time.perf_counter()
    end = began + seconds
    counts = [0] * clients

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            await store.accept(_job(store), io.BytesIO(_BODY))
            counts[number] += 1

    await gatherResults([Deferred.fromCoroutine(client(number)) for number in range(clients)])
    return sum(counts) / (time.perf_counter() - began)


async def _rates(reactor: Any, folder: Path, clients: int, seconds: float) -> None:
    for durable in (True, False):
        store = SQLiteStore(folder / f"rate-{durable}", reactor, durable=durable)
        await store.open()
        rate = await _rate(store, clients, seconds)
        await store.close()
        how = "durable" if durable else "not waiting for the disk"
        print(f"accepted, {how}: {rate:.0f} jobs/s from {clients} clients", flush=True)


def fill(database: Path, count: int) -> None:
    """Put jobs that have ended into a store that is closed; they expire later than the test ends.

    :param database: its file.
    :param count: how many.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        now = time.time()
        for first in range(1, count + 1, _BULK):
            values = {"first": first, "last": min(first + _BULK - 1, count), "now": now}
            connection.execute("BEGIN")
            for statement in (_ENDED, *_MORE):
                connection.execute(statement, values)
            connection.execute("COMMIT")
    # What is measured after this does not have to wait for what the system has not written yet.
    descriptor = os.open(database, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


async def _timed(name: str, times: int, act: Callable[[int], Awaitable[Any]]) -> Latency:
    seconds = []
    for number in range(times):
        began = time.perf_counter()
        await act(number)
        seconds.append(time.perf_counter() - began)
    return Latency(name, seconds)


async def _latencies(store: SQLiteStore, count: int, times: int) -> list[Latency]:
    outcome = Outcome(state=State.SUCCEEDED, at=time.time() - 10.0, status=200)
    jobs = [_job(store, ttl=1.0) for _ in range(times)]
    ids = [f"bench-{number * 7919 % count + 1}" for number in range(times)] if count else []
    ids = ids or [job.id for job in jobs]
    newest = frozenset[State]()
    failed = frozenset({State.FAILED, State.RUNNING})
    everywhere = count // 2 if count else None
    return [
        await _timed("accept", times, lambda number: store.accept(jobs[number], io.BytesIO(_BODY))),
        await _timed("start", times, lambda number: store.start(jobs[number].id, time.time())),
        await _timed("finish", times, lambda number: store.finish(jobs[number].id, outcome, _BODY)),
        await _timed("get", times, lambda number: store.get(ids[number])),
        await _timed("page, all", times, lambda _: store.page(None, newest, None, 50)),
        await _timed(
            "page, from the middle", times, lambda _: store.page(None, newest, everywhere, 50)
        ),
        await _timed("page, two states", times, lambda _: store.page(None, failed, None, 50)),
        await _timed(
            "page, a principal and two states",
            times,
            lambda _: store.page("principal-1", failed, everywhere, 50),
        ),
        await _timed("next_hook", times, lambda _: store.next_hook()),
        await _timed("clean, 10 jobs", times // 10, lambda _: store.clean(time.time(), 10)),
        await _timed("clean, none", times, lambda _: store.clean(time.time(), 100)),
    ]


def report(count: int, latencies: Sequence[Latency]) -> list[str]:
    """What was seen, as lines."""
    return [f"beside {count} jobs that have ended:", *(f"  {each}" for each in latencies)]


async def _beside(reactor: Any, folder: Path, count: int, times: int) -> None:
    store = SQLiteStore(folder / f"beside-{count}", reactor)
    await store.open()
    if count:
        await store.close()
        began = time.perf_counter()
        fill(folder / f"beside-{count}" / "jobs.sqlite3", count)
        filled = time.perf_counter() - began
        store = SQLiteStore(folder / f"beside-{count}", reactor)
        began = time.perf_counter()
        await store.open()
        opened = time.perf_counter() - began
        size = sum(path.stat().st_size for path in (folder / f"beside-{count}").iterdir())
        print(f"{count} jobs made in {filled:.0f} s, {size / 1e6:.0f} MB, opened in {opened:.3f} s")
    latencies = await _latencies(store, count, times)
    print("\n".join(report(count, latencies)), flush=True)
    await store.close()


async def _run(reactor: Any, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        await _rates(reactor, Path(folder), options.clients, options.seconds)
        for count in (0, options.jobs):
            await _beside(reactor, Path(folder), count, options.times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", help="where the store is made")
    parser.add_argument("--clients", type=int, default=64, help="how many send jobs at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long they do")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many jobs have ended")
    parser.add_argument("--times", type=int, default=200, help="how often each thing is done")
    react(_run, [parser.parse_args(arguments)])


if __name__ == "__main__":
    main()
