"""One event of the log for each job that is over.

Decides what the event tells.  How it is written, and whether, is for the log's observer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from deferpost.interfaces import IJobObserver
from deferpost.jobs import Job
from deferpost.tracing import trace_of

__all__ = ["JobLog", "job_members"]

_log = Logger(namespace="deferpost.joblog")


def job_members(job: Job, pool: str | None) -> dict[str, Any]:
    """What is told of a job that is over, but for when it was submitted.

    :param job: the job.
    :param pool: the name of its pool.
    """
    head = job.head
    trace = trace_of(head)
    return {
        "event": "job",
        "id": head.id,
        "route": head.route,
        "pool": pool,
        "worker": job.worker,
        "client": None if head.client is None else head.client[0],
        "principal": head.principal,
        "trace_id": None if trace is None else trace.trace_id,
        "span_id": None if trace is None else trace.span_id,
        "parent_id": None if trace is None else trace.parent_id,
        "state": str(job.state),
        "reason": None if job.reason is None else str(job.reason),
        "rung": None if job.rung is None else str(job.rung),
        "status": job.status,
        "queue_seconds": round(job.queue_seconds, 6),
        "run_seconds": None if job.started is None else round(job.run_so_far(0.0), 6),
        "body_bytes": job.body_bytes,
        "sent_bytes": job.sent_bytes,
    }


@implementer(IJobObserver)
class JobLog:
    """Logs each job that is over (:class:`deferpost.interfaces.IJobObserver`).

    :param pools: the pool of each route, by the route's path; read each time.
    :param time_of_day: takes seconds of the monotonic clock to a time of the day, as text.
    :param members: the key of an event under which its members are.
    """

    def __init__(
        self, pools: Mapping[str, str], time_of_day: Callable[[float], str], members: str
    ) -> None:
        self._pools = pools
        self._time_of_day = time_of_day
        self._members = members

    def job_done(self, job: Job) -> None:
        """See :meth:`deferpost.interfaces.IJobObserver.job_done`."""
        members = job_members(job, self._pools.get(job.head.route))
        members["created"] = self._time_of_day(job.created)
        _log.info(
            "[{job}] {route} {state}: {status}",
            job=job.head.id,
            route=job.head.route,
            state=members["state"],
            status=job.status,
            **{self._members: members},
        )

    def refused(self, route: str, status: int, reason: str) -> None:
        """There is no job of it; its line in the access log tells it."""
