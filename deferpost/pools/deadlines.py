"""Ending jobs whose time is up, waiting or running, with one timer for a whole pool.

A timer for each job would cost more than the rest of a short job's way through the pool.  What a
job may run begins to count when it starts: for that the running jobs are looked at, of which there
are as many as workers.  Points in time that are known when a job comes, until when it may wait and
by when all of it is to be over, are kept in a heap, so that no look goes through those that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Any

from deferpost.jobs import Job
from deferpost.model import Reason

__all__ = ["DeadlineWatch", "limit_reached", "limit_seconds"]

#: Seconds until a job is looked at again that a thread is just taking.
_SOON = 0.01

#: Points in time that are kept before those of jobs that are over are looked for.
_KEPT_LEAST = 64


def limit_reached(job: Job, now: float) -> Reason | None:
    """Which limit of a job is reached, the earliest where several are.

    :param job: a job that has not ended.
    :param now: the time, in seconds of the monotonic clock.
    :returns: None while none is.
    """
    head, started = job.head, job.started
    finish_by = head.finish_by
    if started is None:
        start_by = job.start_by
        if start_by is None or now < start_by:
            return None
        is_last = finish_by is not None and finish_by <= start_by
        return Reason.DEADLINE_TOTAL if is_last else Reason.DEADLINE_QUEUE
    run_by = None if head.timeout is None else started + head.timeout
    if run_by is not None and run_by <= now and (finish_by is None or run_by <= finish_by):
        return Reason.DEADLINE_RUN
    return Reason.DEADLINE_TOTAL if finish_by is not None and finish_by <= now else None


def limit_seconds(job: Job, reason: Reason) -> float:
    """How long the limit is that a job has reached, in seconds.

    :param reason: one of the three for which a job expires.
    """
    if reason is Reason.DEADLINE_RUN:
        return job.head.timeout or 0.0
    until = job.start_by if reason is Reason.DEADLINE_QUEUE else job.head.finish_by
    return 0.0 if until is None else round(until - job.created, 6)


class DeadlineWatch:
    """Looks at the jobs of a pool when the earliest of them can be over its time.

    For the reactor thread.

    :param reactor: where timers come from (:class:`IReactorTime`).
    :param now: the monotonic clock, in seconds.
    :param jobs: gives the jobs that run now.
    :param waiting: tells whether there are jobs that do not run yet.
    :param expire: called with each job whose time is up, and with which limit that is; it cancels
        the job, or leaves one alone that a worker is taking at this moment.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        jobs: Callable[[], Iterable[Job]],
        waiting: Callable[[], bool],
        expire: Callable[[Job, Reason], None],
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._jobs = jobs
        self._waiting = waiting
        self._expire = expire
        self._shortest: float | None = None
        self._points: list[tuple[float, int, Job]] = []  # a heap
        self._kept_most = _KEPT_LEAST
        self._due: float | None = None
        self._timer: Any = None

    def expect(self, job: Job, now: float) -> None:
        """A job was submitted.

        :param job: the job.
        :param now: the time, which the caller has just read.
        """
        timeout = job.head.timeout
        if job.start_by is not None:
            self._keep(job.start_by, job)
            if self._due is None or job.start_by < self._due:
                self._look_at(job.start_by, now)
        if timeout is None:
            return
        if self._shortest is None or timeout < self._shortest:
            self._shortest = timeout
        if self._due is None or now + timeout < self._due:
            self._look_at(now + timeout, now)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = None
        self._points.clear()

    def _keep(self, point: float, job: Job) -> None:
        points = self._points
        if len(points) >= self._kept_most:
            # Those of jobs that have ended stay until they are due: no more of them than of others.
            points[:] = [kept for kept in points if _matters(kept[2])]
            heapify(points)
            self._kept_most = max(_KEPT_LEAST, 2 * len(points))
        heappush(points, (point, job.key, job))

    def _look_at(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._reactor.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._timer = self._due = None
        now = self._now()
        due = self._look_at_running(now)
        point = self._look_at_points(now)
        if point is not None and (due is None or point < due):
            due = point
        # A job that was submitted while others were expired may be due sooner.
        if due is not None and (self._due is None or due < self._due):
            self._look_at(due, now)

    def _look_at_running(self, now: float) -> float | None:
        """Expire those that have run for long enough; returns when the next can be due."""
        due = None
        for job in list(self._jobs()):
            timeout = job.head.timeout
            if timeout is None or job.started is None or job.canceled:
                continue
            deadline = job.started + timeout
            if deadline <= now:
                self._expire(job, limit_reached(job, now) or Reason.DEADLINE_RUN)
            elif due is None or deadline < due:
                due = deadline
        if self._shortest is not None and self._waiting():
            # One that starts right after this look is over its time no sooner than this.
            soonest = now + self._shortest
            due = soonest if due is None else min(due, soonest)
        return due

    def _look_at_points(self, now: float) -> float | None:
        """Expire those that are due; returns when the next is."""
        points = self._points
        while points and (points[0][0] <= now or not _matters(points[0][2])):
            job = heappop(points)[2]
            if not _matters(job):
                continue
            reason = limit_reached(job, now)
            if reason is not None:
                self._expire(job, reason)
                if not job.canceled and not job.has_ended:
                    self._keep(now + _SOON, job)
            elif job.head.finish_by is not None:  # it has started in time
                self._keep(job.head.finish_by, job)
        return points[0][0] if points else None


def _matters(job: Job) -> bool:
    """Whether a point in time of a job can still end it."""
    if job.canceled or job.has_ended:
        return False
    return job.started is None or job.head.finish_by is not None
