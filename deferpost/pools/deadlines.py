"""Ending jobs that run too long, with one timer for a whole pool.

A timer for each job would cost more than the rest of a short job's way through the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from deferpost.jobs import Job

__all__ = ["DeadlineWatch"]


class DeadlineWatch:
    """Looks at the running jobs when the earliest of them can be over its time.

    For the reactor thread.

    :param reactor: where timers come from (:class:`IReactorTime`).
    :param now: the monotonic clock, in seconds.
    :param jobs: gives the jobs that run now.
    :param waiting: tells whether there are jobs that do not run yet.
    :param expire: called with each job whose time is up.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        jobs: Callable[[], Iterable[Job]],
        waiting: Callable[[], bool],
        expire: Callable[[Job], None],
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._jobs = jobs
        self._waiting = waiting
        self._expire = expire
        self._shortest: float | None = None
        self._due: float | None = None
        self._timer: Any = None

    def expect(self, timeout: float | None, now: float) -> None:
        """A job was submitted that may run for so long.

        :param timeout: seconds, or None for no limit.
        :param now: the time, which the caller has just read.
        """
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

    def _look_at(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._reactor.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._timer = self._due = None
        now = self._now()
        due = None
        for job in list(self._jobs()):
            timeout = job.head.timeout
            if timeout is None or job.started is None or job.canceled:
                continue
            deadline = job.started + timeout
            if deadline <= now:
                self._expire(job)
            elif due is None or deadline < due:
                due = deadline
        if self._waiting() and self._shortest is not None:
            # One that starts right after this look is over its time no sooner than this.
            soonest = now + self._shortest
            due = soonest if due is None else min(due, soonest)
        # A job that was submitted while others were expired may be due sooner.
        if due is not None and (self._due is None or due < self._due):
            self._look_at(due, now)
