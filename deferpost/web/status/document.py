"""The state of the daemon as one document: what the status page shows, and programs read.

Decides what is in it, and when two of them say the same.  It asks nobody and knows no clock: what
it is made of, and the time, are arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from deferpost.model import PoolStatus, WorkerStatus
from deferpost.tally import Counted, FinishedJob, Percentiles

__all__ = [
    "MAX_RECENT",
    "MAX_WORKERS",
    "PoolState",
    "Refusals",
    "StateDocument",
    "pool_state",
    "refusals_by_reason",
    "same_state",
]

#: Workers of a pool that are listed; a pool of coroutines can have thousands.
MAX_WORKERS = 64

#: Finished jobs that are listed.
MAX_RECENT = 120


class Refusals(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that were turned away since the start, for one reason.

    :ivar reason: one word.
    :ivar status: of the response.
    :ivar count: how many.
    """

    reason: str
    status: int
    count: int


class PoolState(PoolStatus, frozen=True, kw_only=True):
    """A pool with its workers.

    :ivar workers: at most :data:`MAX_WORKERS` of them; those that run jobs come first where there
        are more.
    :ivar workers_total: how many there are; None where the pool lets nobody look.
    """

    workers: tuple[WorkerStatus, ...] = ()
    workers_total: int | None = None


class StateDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment.

    :ivar time: when, in seconds since 1970.
    :ivar version: of deferpost.
    :ivar accepting: whether calls are accepted.
    :ivar ready: whether they are, and every pool can run them.
    :ivar uptime: seconds since the start.
    :ivar pools: the pools.
    :ivar percentiles: how long the jobs of the last minutes waited and ran.
    :ivar refusals: calls that were turned away, the most frequent reason first.
    :ivar recent: at most :data:`MAX_RECENT` jobs that are over, the newest last.
    """

    time: float
    version: str
    accepting: bool
    ready: bool
    uptime: float
    pools: tuple[PoolState, ...]
    percentiles: Percentiles
    refusals: tuple[Refusals, ...]
    recent: tuple[FinishedJob, ...]


def pool_state(status: PoolStatus, workers: Sequence[WorkerStatus] | None) -> PoolState:
    """A pool as the document has it.

    :param status: the pool.
    :param workers: its workers; None where it lets nobody look.
    """
    fields = {name: getattr(status, name) for name in status.__struct_fields__}
    if workers is None:
        return PoolState(**fields)
    return PoolState(**fields, workers=_listed(workers), workers_total=len(workers))


def _listed(workers: Sequence[WorkerStatus]) -> tuple[WorkerStatus, ...]:
    if len(workers) <= MAX_WORKERS:
        return tuple(workers)
    return tuple(sorted(workers, key=lambda worker: worker.job is None)[:MAX_WORKERS])


def refusals_by_reason(counted: Iterable[Counted]) -> tuple[Refusals, ...]:
    """Calls that were turned away, of all routes together, the most frequent reason first.

    :param counted: as they are counted for each route.
    """
    counts: Counter[tuple[str, int]] = Counter()
    for one in counted:
        counts[one.reason, one.status] += one.count
    return tuple(
        Refusals(reason=reason, status=status, count=count)
        for (reason, status), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def same_state(one: StateDocument, other: StateDocument) -> bool:
    """Whether two documents differ in nothing but what passes by itself: time, ages and memory."""
    return _lasting(one) == _lasting(other)


def _lasting(document: StateDocument) -> tuple[object, ...]:
    return (
        document.version,
        document.accepting,
        document.ready,
        tuple(map(_lasting_pool, document.pools)),
        document.percentiles,
        document.refusals,
        document.recent,
    )


def _lasting_pool(pool: PoolState) -> PoolState:
    return msgspec.structs.replace(
        pool, oldest_waiting=None, workers=tuple(_lasting_workers(pool.workers))
    )


def _lasting_workers(workers: Iterable[WorkerStatus]) -> Iterable[WorkerStatus]:
    for worker in workers:
        yield msgspec.structs.replace(worker, run_seconds=0.0, age=0.0, memory=None)
