"""What is known of the daemon's work: counted, shown at ``/metrics``, and logged where wanted.

One of it lasts as long as the daemon, whatever versions of the app come and go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from deferpost.interfaces import IInspectable, IJobObserver
from deferpost.joblog import JobLog
from deferpost.jobs import Job
from deferpost.jsonlog import MEMBERS, rfc3339
from deferpost.metrics import PoolScrape, Scrape
from deferpost.model import Route
from deferpost.runtime import Runtime
from deferpost.tally import Tally
from deferpost.web.metrics import Metrics

__all__ = ["Observing"]

_log = Logger(namespace="deferpost")


class Observing:
    """Counts, metrics and the events of jobs.  For the reactor thread.

    :param reactor: the reactor.
    :param job_events: whether each job that is over is logged.
    :param now: the monotonic clock that jobs have their times of, in seconds.
    :param time_of_day: the clock of the day, in seconds since 1970.

    :ivar tally: what is counted.
    :ivar observer: hears of jobs (:class:`deferpost.interfaces.IJobObserver`); for each runtime.
    :ivar since: when this began, in seconds of the monotonic clock.
    :ivar connections: gives how many connections are open.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        job_events: bool,
        now: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._pools: dict[str, str] = {}
        self.since = now()
        self.tally = Tally({}, lambda: time_of_day() - now())  # which a set clock changes
        self.observer: Any = self.tally
        if job_events:

            def text_of(moment: float) -> str:
                return rfc3339(moment + time_of_day() - now())

            self.observer = _Both(self.tally, JobLog(self._pools, text_of, MEMBERS))
        self.connections: Callable[[], int] = lambda: 0

    def declare(self, routes: Iterable[Route]) -> None:
        """Count the routes of one more version of the app."""
        pools = {route.path: route.pool for route in routes}
        self._pools.update(pools)
        self.tally.declare(pools)

    def metrics(self, runtime: Runtime, accepting: Callable[[], bool]) -> Metrics:
        """The resource that shows the figures.

        :param runtime: whose pools are shown.
        :param accepting: whether calls are accepted.
        """
        reactor = self._reactor

        def scrape() -> Scrape:
            return Scrape(
                tally=self.tally.snapshot(),
                pools=[_look_into(pool) for pool in runtime.pools.values()],
                connections=self.connections(),
                accepting=accepting(),
            )

        return Metrics(
            scrape, lambda write: deferToThreadPool(reactor, reactor.getThreadPool(), write)
        )


def _look_into(pool: Any) -> PoolScrape:
    inspectable = IInspectable.providedBy(pool)
    return PoolScrape(pool.status(), pool.workers() if inspectable else None)


@implementer(IJobObserver)
class _Both:
    """Two observers as one; what the first raises does not keep the second from hearing."""

    def __init__(self, first: Any, second: Any) -> None:
        self._observers = (first, second)

    def job_done(self, job: Job) -> None:
        """See :meth:`deferpost.interfaces.IJobObserver.job_done`."""
        for observer in self._observers:
            try:
                observer.job_done(job)
            except Exception:
                _log.failure("[{job}] was not observed", job=job.head.id)

    def refused(self, route: str, status: int, reason: str) -> None:
        """See :meth:`deferpost.interfaces.IJobObserver.refused`."""
        for observer in self._observers:
            observer.refused(route, status, reason)
