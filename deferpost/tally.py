"""What has become of calls, as counts: by route, status and reason, and how long they took.

Decides what is counted and under which words.  Everything that a count can be told apart by is
bounded: routes that were declared, statuses, reasons and rungs of a fixed set.  Nothing is counted
by job, id or client.  It knows no clock and writes nothing: :mod:`deferpost.metrics` puts the
counts into Prometheus' words.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from math import inf
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from zope.interface import implementer

from deferpost.interfaces import IJobObserver
from deferpost.model import Reason, Rung, State

if TYPE_CHECKING:
    from deferpost.jobs import Job

__all__ = [
    "NONE",
    "OTHER",
    "REASONS",
    "SECONDS",
    "SIZES",
    "Counted",
    "FinishedJob",
    "Histogram",
    "Percentiles",
    "Spread",
    "Tally",
    "TallySnapshot",
]

#: Stands for a route that was not declared, and for a reason that is not one of :data:`REASONS`.
OTHER = "other"

#: Stands for the reason of a job that has none, as those that succeed.
NONE = "none"

#: The reasons by which calls are told apart: those of jobs, and those of calls turned away.
REASONS = frozenset(
    {*map(str, Reason)}
    | {"body_broken", "body_too_large", "client_quota", "deadline_unmeetable"}
    | {"pool_broken", "pool_full", "storage_failed"}
)

#: Ten to each decade, a quarter more each time (the R10 series of ISO 3), in seconds.  A
#: percentile is so off by less than a quarter, whatever its size.
_STEPS = ("1", "1.25", "1.6", "2", "2.5", "3.15", "4", "5", "6.3", "8")
_BOUNDS = [float(f"{step}e{power}") for power in range(-4, 4) for step in _STEPS]

#: The bounds of the histograms of seconds that are shown: 1, 2.5 and 5 of each decade.
SECONDS: tuple[float, ...] = tuple(
    float(f"{step}e{power}") for power in range(-3, 3) for step in ("1", "2.5", "5")
)

#: The bounds of the histogram of bytes that is shown: powers of four, 64 bytes to 1 GiB.
SIZES: tuple[float, ...] = tuple(float(4**power) for power in range(3, 16))

_SHOWN_SECONDS = tuple(_BOUNDS.index(bound) for bound in SECONDS)
_SHOWN_SIZES = tuple(int(bound).bit_length() - 1 for bound in SIZES)

#: Bodies of 2**40 bytes and more are counted as one.
_LARGEST = 40

#: Seconds of a piece of the recent past, and how many pieces make it up: five minutes.
_PIECE_SECONDS, _PIECES = 20, 15

#: Jobs of the past that are remembered one by one.
_MOST_RECENT = 200

#: Seconds that these go back at least, by remembering one in so many seconds where there are more.
_RECENT_SECONDS, _RECENT_PAUSE = 1.0, 0.005

#: Jobs of a route that are noted until they are counted together.
_NOTED_MOST = 512

#: Jobs that are noted at once.  In the middle of answering a short one, all that is needed for it
#: would be out of the processor's cache by then: one by one they take three times as long.
_AT_ONCE = 32


class FinishedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is over.

    :ivar id: the id of its request.
    :ivar route: its route.
    :ivar pool: the name of the pool that had it.
    :ivar state: its last state.
    :ivar reason: why it did not succeed; None if it did.
    :ivar rung: how far up the cancel ladder it was taken; None if it was not canceled.
    :ivar status: HTTP status, 499 where the client left first.
    :ivar created: when it was submitted, in seconds since 1970.
    :ivar started: when its code started, in seconds since 1970; None if it never did.
    :ivar ended: when its code ended, in seconds since 1970.
    :ivar worker: the name of the worker that ran it; None where that is not known.
    """

    id: str
    route: str
    pool: str
    state: State
    reason: Reason | None
    rung: Rung | None
    status: int
    created: float
    started: float | None
    ended: float
    worker: str | None


#: The same as a tuple, which is made of every job: id and route, how it ended, times, worker.
_Done: TypeAlias = tuple[
    str,
    str,
    State,
    Reason | None,
    Rung | None,
    int,
    float,
    float | None,
    float,
    str | None,
]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How a time was spread over jobs; each percentile is off by less than a quarter.

    :ivar count: how many jobs.
    :ivar p50: seconds that half of them did not exceed; 0 without jobs, as the others.
    :ivar p90: seconds that nine tenths of them did not exceed.
    :ivar p99: seconds that 99 of 100 did not exceed.
    """

    count: int
    p50: float
    p90: float
    p99: float


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """How long the jobs of the last five minutes waited and ran.

    :ivar queue: of all, whether they were started or not.
    :ivar run: of those that were started.
    """

    queue: Spread
    run: Spread


class Counted(msgspec.Struct, frozen=True):
    """How often something happened.

    :ivar route: the route.
    :ivar status: HTTP status.
    :ivar reason: one of :data:`REASONS`, :data:`NONE`, :data:`OTHER` or the status as text.
    :ivar count: how often.
    """

    route: str
    status: int
    reason: str
    count: int


class Histogram(msgspec.Struct, frozen=True):
    """A histogram of one route.

    :ivar route: the route.
    :ivar counts: for each bound how many were not over it, and last how many there were.
    :ivar sum: of all values.
    """

    route: str
    counts: tuple[int, ...]
    sum: float


class TallySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All counts at one moment, to be read on any thread.

    :ivar requests: jobs that are over.
    :ivar refusals: calls that were turned away.
    :ivar queue: seconds in the queue, of all jobs, by :data:`SECONDS`.
    :ivar run: seconds of running, of the jobs that were started, by :data:`SECONDS`.
    :ivar size: bytes of request bodies, where they are known, by :data:`SIZES`.
    :ivar rungs: how often each rung of the cancel ladder was the last one.
    """

    requests: list[Counted]
    refusals: list[Counted]
    queue: list[Histogram]
    run: list[Histogram]
    size: list[Histogram]
    rungs: dict[str, int]


class _Piece:
    """The jobs of one route in one piece of time, by the bounds of how long they took."""

    __slots__ = ("queue", "run", "tick")

    def __init__(self, tick: int) -> None:
        self.tick = tick
        self.queue = [0] * (len(_BOUNDS) + 1)
        self.run = [0] * (len(_BOUNDS) + 1)


class _RouteTally:
    """The counts of one route, and what is noted and has yet to be counted (:meth:`count`).

    :ivar until: when the newest piece of time is over.
    :ivar waits: seconds in the queue of those that are noted.
    :ivar note_status: notes the status of one that had no reason.
    :ivar note_wait: notes seconds in the queue, of each.
    :ivar note_run: notes seconds of running, of one that was started.
    :ivar note_size: notes bytes of a body, where they are known.
    """

    __slots__ = (
        "_runs",
        "_sizes",
        "_statuses",
        "counts",
        "name",
        "note_run",
        "note_size",
        "note_status",
        "note_wait",
        "piece",
        "pieces",
        "pool",
        "queue_past",
        "queue_sum",
        "run_past",
        "run_sum",
        "size_sum",
        "sizes",
        "until",
        "waits",
    )

    def __init__(self, name: str, pool: str) -> None:
        self.name = name
        self.pool = pool
        self._statuses: array[int] = array("h")
        self._sizes: array[int] = array("q")
        self.waits: array[float] = array("d")
        self._runs: array[float] = array("d")
        self.note_status: Callable[[Any], None] = self._statuses.append
        self.note_wait = self.waits.append
        self.note_run = self._runs.append
        self.note_size = self._sizes.append
        self.until = -inf
        self.counts: Counter[tuple[int, Reason | None]] = Counter()
        self.queue_sum = self.run_sum = 0.0
        self.size_sum = 0
        self.sizes = [0] * (_LARGEST + 2)
        self.piece = _Piece(-1)  # the newest
        self.pieces: deque[_Piece] = deque(maxlen=_PIECES)
        self.queue_past, self.run_past = self.piece.queue, self.piece.run  # what came before it

    def turn(self, now: float) -> None:
        """Begin a new piece."""
        self.count()
        self.queue_past, self.run_past = self.all_queued(), self.all_run()
        tick = int(now) // _PIECE_SECONDS
        self.until = (tick + 1) * _PIECE_SECONDS
        self.piece = _Piece(tick)
        self.pieces.append(self.piece)

    def count(self) -> None:
        """Count what is noted; all of it is of the newest piece."""
        if not self.waits:
            return
        for status, count in Counter(self._statuses).items():
            self.counts[status, None] += count
        for size, count in Counter(self._sizes).items():
            self.sizes[min((size - 1).bit_length(), _LARGEST + 1) if size else 0] += count
        self.size_sum += sum(self._sizes)
        self.queue_sum += _count_times(self.waits, self.piece.queue)
        self.run_sum += _count_times(self._runs, self.piece.run)
        for noted in (self._statuses, self.waits, self._runs, self._sizes):
            del noted[:]

    def all_queued(self) -> list[int]:
        """By bounds, how many there ever were that waited so long."""
        return list(map(add, self.queue_past, self.piece.queue))

    def all_run(self) -> list[int]:
        """By bounds, how many there ever were that ran so long."""
        return list(map(add, self.run_past, self.piece.run))


@implementer(IJobObserver)
class Tally:
    """Counts what becomes of calls (:class:`deferpost.interfaces.IJobObserver`).

    For the reactor thread.  Times are in seconds of the monotonic clock that jobs have theirs of.

    :param routes: the pool of each route, by the route's path.
    :param ahead: gives by how many seconds the time of day, in seconds since 1970, is ahead of
        the monotonic clock; what :meth:`recent` tells is in the former.
    """

    def __init__(self, routes: Mapping[str, str], ahead: Callable[[], float] = lambda: 0.0) -> None:
        self._ahead = ahead
        self._other = _RouteTally(OTHER, OTHER)
        self._routes: dict[str, _RouteTally] = {}
        self._refusals: Counter[tuple[str, int, str]] = Counter()
        self._rungs: Counter[Rung] = Counter()
        self._recent: deque[_Done] = deque(maxlen=_MOST_RECENT)
        self._next_kept = 0.0
        self._done: list[Job] = []
        self.declare(routes)

    def declare(self, routes: Mapping[str, str]) -> None:
        """Count these routes too; what was counted of others stays.

        :param routes: as for :class:`Tally`.
        """
        for name, pool in routes.items():
            seen = self._routes.get(name)
            if seen is None:
                self._routes[name] = _RouteTally(name, pool)
            else:
                seen.pool = pool

    # IJobObserver.

    def job_done(self, job: Job) -> None:
        """See :meth:`deferpost.interfaces.IJobObserver.job_done`."""
        done = self._done
        done.append(job)
        if len(done) >= _AT_ONCE:
            self._take_all()

    def _take_all(self) -> None:
        """Note the jobs that are over."""
        done, self._done = self._done, []
        routes, other = self._routes, self._other
        for job in done:
            route = routes.get(job.head.route, other)
            created: float = job.created
            ended: float = job.ended  # type: ignore[assignment]  # it has ended
            started = job.started
            if ended >= route.until:
                route.turn(ended)
            reason = job.reason
            if reason is None:
                route.note_status(job.status)
            else:
                route.counts[job.status, reason] += 1  # type: ignore[index]  # it has one
            if started is None:
                route.note_wait(ended - created)
            else:
                route.note_wait(started - created)
                route.note_run(ended - started)
            size = job.body_bytes
            if size is not None:
                route.note_size(size)
            rung = job.rung
            if rung is not None:
                self._rungs[rung] += 1
            if ended >= self._next_kept or self._has_gap(ended):
                self._keep(job)
            if len(route.waits) >= _NOTED_MOST:
                route.count()

    def _has_gap(self, now: float) -> bool:
        """Whether what is remembered leaves room for one more."""
        recent = self._recent
        return len(recent) < _MOST_RECENT or now - recent[0][8] > _RECENT_SECONDS

    def _keep(self, job: Job) -> None:
        head = job.head
        ended: float = job.ended  # type: ignore[assignment]  # it has ended
        status: int = job.status  # type: ignore[assignment]  # as has its exchange
        self._next_kept = ended + _RECENT_PAUSE
        self._recent.append(
            (
                head.id,
                head.route,
                job.state,
                job.reason,
                job.rung,
                status,
                job.created,
                job.started,
                ended,
                job.worker,
            )
        )

    def refused(self, route: str, status: int, reason: str) -> None:
        """See :meth:`deferpost.interfaces.IJobObserver.refused`."""
        if reason not in REASONS and reason != str(status):
            reason = OTHER
        self._refusals[route if route in self._routes else OTHER, status, reason] += 1

    # What has been counted.

    def recent(self) -> list[FinishedJob]:
        """The last 200 jobs that are over, the latest last; where there are very many, some."""
        self._take_all()
        found = []
        ahead = self._ahead()
        for job in self._recent:
            id, name, state, reason, rung, status, created, started, ended, worker = job
            route = self._routes.get(name, self._other)
            found.append(
                FinishedJob(
                    id=id,
                    route=route.name,
                    pool=route.pool,
                    state=state,
                    reason=reason,
                    rung=rung,
                    status=status,
                    created=created + ahead,
                    started=None if started is None else started + ahead,
                    ended=ended + ahead,
                    worker=worker,
                )
            )
        return found

    def percentiles(self, now: float, route: str | None = None) -> Percentiles:
        """How long the jobs waited and ran that have ended in the last five minutes.

        :param now: the time, in seconds of the monotonic clock.
        :param route: of one route alone; of all together if it is None.
        :raises KeyError: there is no such route.
        """
        self._take_all()
        tick = int(now) // _PIECE_SECONDS
        routes = [*self._routes.values(), self._other] if route is None else [self._routes[route]]
        for one in routes:
            one.count()
        pieces = [piece for one in routes for piece in one.pieces if piece.tick > tick - _PIECES]
        return Percentiles(
            queue=_spread(_added([piece.queue for piece in pieces])),
            run=_spread(_added([piece.run for piece in pieces])),
        )

    def refusals(self) -> list[Counted]:
        """How often calls were turned away, in the order of route, status and reason."""
        return [Counted(*key, count) for key, count in sorted(self._refusals.items())]

    def snapshot(self) -> TallySnapshot:
        """All counts; routes of which nothing was counted have their zeros."""
        self._take_all()
        routes = [*self._routes.values(), self._other]
        for one in routes:
            one.count()
        if not self._other.counts:
            routes.pop()
        return TallySnapshot(
            requests=[
                Counted(one.name, status, NONE if reason is None else str(reason), count)
                for one in routes
                for (status, reason), count in one.counts.items()
            ],
            refusals=self.refusals(),
            queue=[_histogram(one.name, one.all_queued(), one.queue_sum) for one in routes],
            run=[_histogram(one.name, one.all_run(), one.run_sum) for one in routes],
            size=[_histogram(one.name, one.sizes, one.size_sum, _SHOWN_SIZES) for one in routes],
            rungs={str(rung): self._rungs[rung] for rung in Rung},
        )


def _count_times(times: Iterable[float], counts: list[int]) -> float:
    """Count times by :data:`_BOUNDS`, each by the first that it does not exceed.

    :param times: in seconds.
    :param counts: where they are added.
    :returns: all times together.
    """
    ordered = sorted(times)
    counted = 0
    while counted < len(ordered):
        index = bisect_left(_BOUNDS, ordered[counted])
        upto = len(ordered)
        if index < len(_BOUNDS):
            upto = bisect_right(ordered, _BOUNDS[index], counted)
        counts[index] += upto - counted
        counted = upto
    return sum(ordered)


def _added(counts: Sequence[list[int]]) -> list[int]:
    """Counts by the same bounds, added."""
    return [sum(column) for column in zip(*counts, strict=True)]


def _histogram(
    route: str, counts: Iterable[int], total: float, shown: tuple[int, ...] = _SHOWN_SECONDS
) -> Histogram:
    """Counts by fine bounds as a histogram by those that are shown."""
    below = list(accumulate(counts))
    return Histogram(route, (*(below[index] for index in shown), below[-1]), total)


def _spread(counts: list[int]) -> Spread:
    """The percentiles of times that are counted by bounds."""
    below = list(accumulate(counts))
    count = below[-1] if below else 0
    p50, p90, p99 = (_quantile(below, count * part) for part in (0.5, 0.9, 0.99))
    return Spread(count=count, p50=p50, p90=p90, p99=p99)


def _quantile(below: list[int], rank: float) -> float:
    """The time that so many did not exceed, as if they lay evenly between two bounds."""
    if not rank:
        return 0.0
    index = bisect_left(below, rank)
    if index >= len(_BOUNDS):
        return _BOUNDS[-1]
    start = _BOUNDS[index - 1] if index else 0.0
    before = below[index - 1] if index else 0
    return start + (_BOUNDS[index] - start) * (rank - before) / (below[index] - before)
