"""The dispatcher: the one place where routes, admission and pools meet.

A call comes in, a job goes to the pool of its route, and the job is known here until its code has
ended: this is what is drained and canceled when the service stops.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.admission import ServiceTime, retry_after
from deferpost.errors import PoolFull, ShuttingDown
from deferpost.interfaces import IArrivingBody
from deferpost.jobs import Job
from deferpost.model import Answer, CallHead, PoolStatus, Reason, State

__all__ = ["Dispatcher"]

_log = Logger(namespace="deferpost.jobs")


class Dispatcher:
    """Takes calls to pools.  For the reactor thread.

    :param pools: the started pools, by name (:class:`deferpost.interfaces.IWorkerPool`).
    :param now: the monotonic clock, in seconds.
    :param observer: hears of every job that is over (:class:`deferpost.interfaces.IJobObserver`).
    """

    def __init__(
        self, pools: Mapping[str, Any], now: Callable[[], float], observer: Any = None
    ) -> None:
        self._pools = pools
        self._now = now
        self._observer = observer
        self._keys = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._service_times: dict[str, ServiceTime] = {name: ServiceTime() for name in pools}
        self._closed = False
        self._drained: list[Deferred[None]] = []

    def check_room(self, pool: str) -> None:
        """Refuse a call whose body has yet to come, where :meth:`submit` would refuse it now.

        :param pool: the name of the pool.
        :raises deferpost.errors.PoolFull: with the time after which to try again.
        :raises deferpost.errors.ShuttingDown: nothing is accepted any more.
        """
        if self._closed:
            raise ShuttingDown("the service is stopping")
        status: PoolStatus = self._pools[pool].status()
        if status.waiting >= status.max_waiting and status.running >= status.size:
            raise self._full(pool)

    def _full(self, pool: str) -> PoolFull:
        status: PoolStatus = self._pools[pool].status()
        mean = self._service_times[pool].mean
        return PoolFull(pool, retry_after(status.waiting, status.size, mean))

    def submit(
        self, pool: str, head: CallHead, body: BinaryIO | IArrivingBody
    ) -> tuple[Job, Deferred[Answer]]:
        """Give a call to a pool.

        :param pool: the name of the pool.
        :param head: the call without its body.
        :param body: the body, a file or one that arrives, which is closed in any case.
        :returns: the job, and the Deferred of its answer
            (see :meth:`deferpost.interfaces.IWorkerPool.submit`).
        :raises deferpost.errors.PoolFull: with the time after which to try again.
        :raises deferpost.errors.PoolBroken: the pool cannot run anything now.
        :raises deferpost.errors.ShuttingDown: nothing is accepted any more.
        """
        key = next(self._keys)
        service_time = self._service_times[pool]
        job = Job(key, head, body, self._now(), lambda job: self._ended(job, service_time))
        try:
            if self._closed:
                raise ShuttingDown("the service is stopping")
            answer = self._pools[pool].submit(job)
        except PoolFull:
            body.close()
            raise self._full(pool) from None
        except Exception:
            body.close()
            raise
        if not job.has_ended:
            self._jobs[key] = job
        return job, answer

    def responded(self, job: Job, status: int) -> None:
        """The exchange of a job with its client is over.

        :param job: the job, whose code may still run.
        :param status: the status that was sent, or 499 where the client left first.
        """
        job.status = status
        if self._observer is not None and job.has_ended:
            self._done(job)

    def _done(self, job: Job) -> None:
        try:
            self._observer.job_done(job)
        except Exception:
            _log.failure("[{job}] was not observed", job=job.head.id)

    def statuses(self) -> list[PoolStatus]:
        """How every pool is, at this moment."""
        return [pool.status() for pool in self._pools.values()]

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
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel(reason)
        return len(jobs)

    def _ended(self, job: Job, service_time: ServiceTime) -> None:
        self._jobs.pop(job.key, None)
        if self._observer is not None and job.status is not None:
            self._done(job)
        if job.state is State.SUCCEEDED:
            service_time.add(job.run_so_far(self._now()))
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
