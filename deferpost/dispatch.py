"""The dispatcher: the one place where routes, admission and pools meet.

A call comes in, a job goes to the pool of its route, and the job is known here until its code has
ended: this is what is drained and canceled when the service stops.  Who is let in is decided by
:mod:`deferpost.admission`, which this module asks, and tells what has happened.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.admission import Clients, PoolBooks, client_of, whole_seconds
from deferpost.errors import ClientQuota, DeadlineUnmeetable, PoolFull, ShuttingDown
from deferpost.interfaces import IArrivingBody, IForeseeable
from deferpost.jobs import DEFAULT_URGENCY, Job
from deferpost.model import Answer, CallHead, PoolStatus, Quota, Reason, State

__all__ = ["Dispatcher", "Place"]

_log = Logger(namespace="deferpost.jobs")


class Dispatcher:
    """Takes calls to pools.  For the reactor thread.

    :param pools: the started pools, by name (:class:`deferpost.interfaces.IWorkerPool`).
    :param now: the monotonic clock, in seconds.
    :param observer: hears of every job that is over (:class:`deferpost.interfaces.IJobObserver`).
    :param max_held: how many bytes of request bodies each pool may hold, by name; 0 for no bound,
        as for a pool that is not named.
    :param max_jobs_per_client: how many calls a client may have under way; 0 for no bound.
    """

    def __init__(
        self,
        pools: Mapping[str, Any],
        now: Callable[[], float],
        observer: Any = None,
        *,
        max_held: Mapping[str, int] | None = None,
        max_jobs_per_client: int = 0,
    ) -> None:
        self._pools = pools
        self._now = now
        self._observer = observer
        self._keys = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._entrances = {
            name: _Entrance(name, pool, (max_held or {}).get(name, 0), self._ended)
            for name, pool in pools.items()
        }
        self._clients = Clients(max_jobs_per_client) if max_jobs_per_client else None
        self._closed = False
        self._drained: list[Deferred[None]] = []

    def reserve(
        self,
        pool: str,
        head: CallHead,
        size: int,
        *,
        start_by: float | None = None,
        urgency: int = DEFAULT_URGENCY,
    ) -> Place:
        """Keep a place for a call whose body has yet to come.

        :param pool: the name of the pool.
        :param head: the call.
        :param size: bytes of its body, or the most that there may be of it.
        :param start_by: as for :meth:`submit`.
        :param urgency: as for :meth:`submit`.
        :returns: what is to be given back, or to be given to :meth:`submit`.
        :raises deferpost.errors.DeferPostError: as of :meth:`submit`, which would refuse it now.
        """
        entrance = self._entrances[pool]
        if self._closed:
            raise ShuttingDown("the service is stopping")
        if entrance.check is not None:
            entrance.check()
        self._check(entrance, head, size, start_by, urgency)
        client = None
        if self._clients is not None:
            client = client_of(head)
            self._clients.enter(client)
        entrance.books.reserve(size)
        return Place(entrance.books, size, self._clients, client)

    def _check(
        self,
        entrance: _Entrance,
        head: CallHead,
        size: int,
        start_by: float | None,
        urgency: int,
    ) -> None:
        """Refuse a call for which there is no room, or no time."""
        clients, books = self._clients, entrance.books
        if clients is not None and clients.left(client_of(head)) <= 0:
            raise ClientQuota(clients.most, self._retry_after(entrance, clients.most))
        if not books.is_open(size):
            quota = Quota("pool", books.places, 0)
            if books.has_place:
                left = max(0, books.max_held - books.held)
                quota = Quota("pool", books.max_held, left, "content-bytes")
            raise PoolFull(entrance.name, self._retry_after(entrance), quota)
        if head.finish_by is not None or start_by is not None:
            now = self._now()
            queue = None if start_by is None else start_by - now
            total = None if head.finish_by is None else head.finish_by - now
            ahead = entrance.ahead_of(urgency)
            late = books.lateness(head.route, ahead, queue, total, now)
            if late > 0:
                # When the queue is empty, a worker is free, and nobody is turned away.
                raise DeadlineUnmeetable(min(whole_seconds(late), self._retry_after(entrance)))

    def _retry_after(self, entrance: _Entrance, share: int = 1) -> int:
        status: PoolStatus = self._pools[entrance.name].status()
        return entrance.books.retry_after(status.waiting, self._now(), share)

    def submit(
        self,
        pool: str,
        head: CallHead,
        body: BinaryIO | IArrivingBody,
        size: int = 0,
        *,
        place: Place | None = None,
        created: float | None = None,
        start_by: float | None = None,
        urgency: int = DEFAULT_URGENCY,
        retries: int = 0,
    ) -> tuple[Job, Deferred[Answer]]:
        """Give a call to a pool.

        :param pool: the name of the pool.
        :param head: the call without its body.
        :param body: the body, a file or one that arrives, which is closed in any case.
        :param size: bytes that it holds, in memory or in a file.
        :param place: what was kept for it before its body came; given back in any case.
        :param created: when it came, in seconds of the monotonic clock; None for now.
        :param start_by: when it must have started, on the same clock; None for no limit.
        :param urgency: 0 for the most urgent to 7 for the least.
        :param retries: how often it may run again when its worker process was lost.
        :returns: the job, and the Deferred of its answer
            (see :meth:`deferpost.interfaces.IWorkerPool.submit`).
        :raises deferpost.errors.PoolFull: with the time after which to try again.
        :raises deferpost.errors.PoolBroken: the pool cannot run anything now.
        :raises deferpost.errors.ClientQuota: the client has too many calls under way.
        :raises deferpost.errors.DeadlineUnmeetable: by what was measured it cannot be in time.
        :raises deferpost.errors.ShuttingDown: nothing is accepted any more.
        """
        key = next(self._keys)
        entrance = self._entrances[pool]
        books = entrance.books
        try:
            if place is not None:
                place.give_back()
            if self._closed:
                raise ShuttingDown("the service is stopping")
            if place is None and (
                start_by is not None
                or head.finish_by is not None
                or self._clients is not None
                or not books.is_open(size)
            ):
                self._check(entrance, head, size, start_by, urgency)
        except Exception:
            body.close()
            raise
        if created is None:
            created = self._now()
        job = Job(key, head, body, created, entrance.ended, start_by, urgency, retries, size)
        books.enter(size)
        if self._clients is not None:
            self._clients.enter(client_of(head))
        try:
            answer = entrance.submit(job)
        except Exception as error:
            body.close()
            books.leave(size, 0.0, ran=False)
            if self._clients is not None:
                self._clients.leave(client_of(head))
            if type(error) is PoolFull:  # by a count of its own
                raise PoolFull(pool, self._retry_after(entrance)) from None
            raise
        if job.ended is None:
            self._jobs[key] = job
        return job, answer

    def submit_kept(
        self,
        pool: str,
        head: CallHead,
        body: BinaryIO,
        *,
        created: float,
        start_by: float | None,
        urgency: int,
        retries: int,
        permit: Callable[[Job], Deferred[None]],
        on_end: Callable[[Job], None],
    ) -> tuple[Job, Deferred[Answer]]:
        """Give a call to a pool that was accepted before, and is kept elsewhere.

        Its body holds nothing here, and it does not count against its client: that was done when
        it was accepted.

        :param permit: see :class:`deferpost.jobs.Job`.
        :param on_end: called with the job when its code has ended.
        :returns: as :meth:`submit`.
        :raises deferpost.errors.PoolFull: there is no place now.
        :raises deferpost.errors.PoolBroken: the pool cannot run anything now.
        :raises deferpost.errors.ShuttingDown: nothing is accepted any more.
        """
        entrance = self._entrances[pool]
        books = entrance.books
        if self._closed:
            raise ShuttingDown("the service is stopping")
        if not books.is_open(0):
            raise PoolFull(pool, self._retry_after(entrance))

        def ended(job: Job) -> None:
            self._ended(books, job, counts=False)
            on_end(job)

        job = Job(next(self._keys), head, body, created, ended, start_by, urgency, retries)
        job.permit = permit
        books.enter(0)
        try:
            answer = entrance.submit(job)
        except Exception as error:
            books.leave(0, 0.0, ran=False)
            if type(error) is PoolFull:
                raise PoolFull(pool, self._retry_after(entrance)) from None
            raise
        if job.ended is None:
            self._jobs[job.key] = job
        return job, answer

    def wait_of(self, pool: str, position: int) -> float | None:
        """Seconds until a job is likely to start.

        :param pool: the name of its pool.
        :param position: its place among those that wait, from 1.
        :returns: None where nothing was measured yet, or there is no such pool.
        """
        entrance = self._entrances.get(pool)
        interval = None if entrance is None else entrance.books.interval(self._now())
        return None if interval is None else position * interval

    def quota_of(self, head: CallHead) -> Quota | None:
        """How many more calls the client of this one may have under way; None for no bound."""
        if self._clients is None:
            return None
        client = client_of(head)
        return (
            None
            if client is None
            else Quota("client", self._clients.most, self._clients.left(client))
        )

    def responded(self, job: Job, status: int) -> None:
        """The exchange of a job with its client is over.

        :param job: the job, whose code may still run.
        :param status: the status that was sent, or 499 where the client left first.
        """
        job.status = status
        if self._observer is not None and job.ended is not None:
            try:
                self._observer.job_done(job)
            except Exception:
                self._not_observed(job)

    def _done(self, job: Job) -> None:
        try:
            self._observer.job_done(job)
        except Exception:
            self._not_observed(job)

    def _not_observed(self, job: Job) -> None:
        _log.failure("[{job}] was not observed", job=job.head.id)

    def statuses(self) -> list[PoolStatus]:
        """How every pool is, at this moment."""
        return [pool.status() for pool in self._pools.values()]

    def find(self, key: int) -> Job | None:
        """A job that has not ended; None where there is none with this key."""
        return self._jobs.get(key)

    @property
    def unended(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs)

    def close(self) -> None:
        """Accept nothing any more; what was accepted goes on."""
        self._closed = True

    def drained(self) -> Deferred[None]:
        """A Deferred that fires when every job has ended."""
        drained: Deferred[None] = Deferred()
        if self._jobs:
            self._drained.append(drained)
        else:
            drained.callback(None)
        return drained

    def cancel_all(self, reason: Reason) -> int:
        """Climb the cancel ladder for every job.

        :returns: how many there were.
        """
        # Those first that wait: none of them is to take the place of one that has run.
        jobs = sorted(self._jobs.values(), key=lambda job: job.started is not None)
        for job in jobs:
            job.cancel(reason)
        return len(jobs)

    def _ended(self, books: PoolBooks, job: Job, counts: bool = True) -> None:
        self._jobs.pop(job.key, None)
        started, ended = job.started, job.ended
        assert ended is not None
        books.leave(job.held, ended, ran=started is not None)
        if counts and self._clients is not None:
            self._clients.leave(client_of(job.head))
        if self._observer is not None and job.status is not None:
            self._done(job)
        if job.state is State.SUCCEEDED:
            if started is not None:
                books.measured(job.head.route, ended - started)
        elif job.state is not State.FAILED:
            _log.info(
                "[{job}] {route} {state} ({reason}): {rung} after {queue:.3f} s in the queue and "
                "{run:.3f} s of running",
                job=job.head.id,
                route=job.head.route,
                state=str(job.state),
                reason=str(job.reason),
                rung=str(job.rung),
                queue=job.queue_seconds,
                run=job.run_so_far(self._now()),
            )
        if not self._jobs:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)


class Place:
    """A place in a pool that is kept for a call whose body has yet to come.

    :param books: of the pool.
    :param size: bytes that are kept for its body.
    :param clients: the calls of the clients, where these are counted.
    :param client: whose call it is.
    """

    __slots__ = ("_books", "_client", "_clients", "_size")

    def __init__(
        self, books: PoolBooks, size: int, clients: Clients | None, client: str | None
    ) -> None:
        self._books: PoolBooks | None = books
        self._size = size
        self._clients = clients
        self._client = client

    def give_back(self) -> None:
        """It is not needed any more; again is no error."""
        books, self._books = self._books, None
        if books is not None:
            books.give_back(self._size)
            if self._clients is not None:
                self._clients.leave(self._client)


class _Entrance:
    """A pool, and what its calls have taken of it.

    :param name: of the pool.
    :param pool: the pool.
    :param max_held: bytes of request bodies that it may hold; 0 for no bound.
    :param ended: called with its books and each of its jobs that has ended.
    """

    __slots__ = ("_foreseen", "_pool", "books", "check", "ended", "name", "submit")

    def __init__(
        self, name: str, pool: Any, max_held: int, ended: Callable[[PoolBooks, Job], None]
    ) -> None:
        status: PoolStatus = pool.status()
        self.name = name
        self.books = PoolBooks(status.size, status.max_waiting, max_held)
        self.submit = pool.submit
        self._pool = pool
        #: Called with each of its jobs that has ended.
        self.ended = partial(ended, self.books)
        self._foreseen = IForeseeable.providedBy(pool)
        self.check: Callable[[], None] | None = pool.check if self._foreseen else None

    def ahead_of(self, urgency: int) -> int:
        """How many jobs are sure to start before one that comes now."""
        if self._foreseen:
            ahead: int = self._pool.ahead_of(urgency)
            return ahead
        status: PoolStatus = self._pool.status()
        return status.waiting
