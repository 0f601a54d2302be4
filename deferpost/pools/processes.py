"""The process pool: which job goes to which worker, and what follows when one is lost.

The queue is here, in the reactor; a worker has one job or none.  Which workers there are is
decided in :mod:`deferpost.pools.crew`.
"""

from __future__ import annotations

import math
import os
import sys

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import classImplements, implementer

from deferpost.errors import PoolBroken, PoolFull, ShuttingDown, WorkerLost
from deferpost.interfaces import (
    IArrivingBody,
    IForeseeable,
    IInspectable,
    IPoolPlan,
    IWorkerPool,
    PoolContext,
)
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, PoolStatus, Reason, Rung, State, WorkerStatus
from deferpost.pools.crew import Crew
from deferpost.pools.deadlines import DeadlineWatch, limit_reached
from deferpost.pools.endings import answer_stopped, stop_error, stop_event
from deferpost.pools.frames import SetUp
from deferpost.pools.line import Line
from deferpost.pools.plans import ProcessPool
from deferpost.pools.worker import Worker

__all__ = ["RunningProcessPool", "start_process_pool"]

classImplements(ProcessPool, IPoolPlan)

_log = Logger(namespace="deferpost.pools.processes")


def start_process_pool(context: PoolContext, *, plan: ProcessPool, size: int) -> RunningProcessPool:
    """Start a pool and its worker processes.

    :param context: what every pool is started with.
    :param plan: what is asked for.
    :param size: how many jobs run at once, whatever the plan says.
    :raises deferpost.errors.DeclarationError: a handler cannot be found by name.
    """
    return RunningProcessPool(context, plan, size)


@implementer(IForeseeable, IInspectable, IWorkerPool)
class RunningProcessPool:
    """A started process pool; see :class:`deferpost.interfaces.IWorkerPool`.

    :param context: what every pool is started with.
    :param plan: what is asked for.
    :param size: how many jobs run at once, whatever the plan says.
    """

    def __init__(self, context: PoolContext, plan: ProcessPool, size: int) -> None:
        self.name = context.name
        self._now = context.now
        self._size = size
        self._places = size  # for jobs of workers that stay
        self._max_waiting = plan.max_waiting
        set_up = SetUp(
            context.source.refs(),
            tuple(os.path.abspath(entry) for entry in sys.path),
            context.directory,
            plan.memory_limit,
            plan.cpu_limit,
        )
        self._crew = Crew(
            self.name,
            plan,
            size,
            context.reactor,
            lambda name: Worker(
                context.reactor,
                self,
                name,
                set_up,
                kill_grace=plan.kill_grace,
                set_up_timeout=plan.set_up_timeout,
            ),
            self._give_up,
        )
        self._busy: dict[int, Worker] = {}
        self._waiting = Line(context.ageing)
        self._stopped = False
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            lambda: (worker.job for worker in self._busy.values() if worker.job is not None),
            lambda: bool(self._waiting),
            self._stop_job,
        )
        self._crew.fill()

    def check(self) -> None:
        """See :meth:`deferpost.interfaces.IForeseeable.check`."""
        if self._stopped:
            raise ShuttingDown("the pool is stopping")
        if self._crew.is_broken:
            raise PoolBroken(self.name, math.ceil(self._crew.pause))

    def ahead_of(self, urgency: int) -> int:
        """See :meth:`deferpost.interfaces.IForeseeable.ahead_of`."""
        return self._waiting.ahead_of(urgency)

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        self.check()
        worker = self._crew.take() if self._places else None
        if worker is None and len(self._busy) + len(self._waiting) >= (
            self._size + self._max_waiting
        ):
            raise PoolFull(self.name)
        stop = self._stop_job
        answer: Deferred[Answer] = Deferred(lambda _: stop(job, Reason.REQUESTED))
        job.answer = answer
        job.stop = stop
        now = job.created
        self._watch.expect(job, now)
        if worker is not None:
            self._assign(worker, job, now)
        else:
            self._waiting.put(job)
        return answer

    def status(self) -> PoolStatus:
        """See :meth:`deferpost.interfaces.IWorkerPool.status`."""
        busy = [worker.job for worker in self._busy.values() if worker.job is not None]
        return PoolStatus(
            name=self.name,
            kind="process",
            size=self._size,
            max_waiting=self._max_waiting,
            running=len(busy),
            waiting=len(self._waiting),
            stuck=sum(job.canceled for job in busy),
            ready=not self._stopped and self._crew.has_ready,
            restarts=self._crew.restarts,
            oldest_waiting=self._waiting.longest_wait(self._now()),
        )

    def worker_pids(self) -> list[int]:
        """The numbers of the worker processes that there are now."""
        return sorted(worker.pid for worker in self._crew)

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        self._stopped = True
        self._watch.stop()
        running = [worker.job for worker in self._busy.values() if worker.job is not None]
        for job in [*self._waiting, *running]:
            self._stop_job(job, Reason.SHUTDOWN)
        return self._crew.stop(patience)

    def workers(self) -> list[WorkerStatus]:
        """See :meth:`deferpost.interfaces.IInspectable.workers`."""
        now = self._now()
        return [worker.status(now) for worker in self._crew]

    def stack(self, key: int) -> Deferred[str]:
        """See :meth:`deferpost.interfaces.IInspectable.stack`."""
        worker = self._busy.get(key)
        if worker is None:
            return fail(LookupError("no such job runs here"))
        return worker.stack()

    def restart(self, name: str) -> bool:
        """See :meth:`deferpost.interfaces.IInspectable.restart`."""
        return self._crew.restart(name)

    # What workers tell.

    def worker_ready(self, worker: Worker) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        if not self._crew.ready(worker):
            self._serve()  # one that has waited for its place may be there
            return
        job = self._next_job() if self._places else None
        if job is not None:
            self._assign(worker, job, self._now())
        else:
            self._crew.rest(worker)

    def worker_leaving(self, worker: Worker) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        if worker.has_place:
            worker.has_place = False
            self._places += 1
            self._serve()

    def worker_gone(self, worker: Worker, how: str) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        self._crew.gone(worker, how)

    def job_ended(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        self._leave_place(job)
        job.end(event, self._now(), reason)

    def job_lost(self, job: Job, how: str) -> None:
        """See :class:`deferpost.pools.worker.Owner`: it runs again, before all others."""
        self._leave_place(job)
        job.retries -= 1
        _log.warn(
            "[{job}] {route}: its worker was lost ({how}); it runs again, retries left: {left}",
            job=job.head.id,
            route=job.head.route,
            how=how,
            left=job.retries,
        )
        job.happened(Event.RETRY)
        job.started = job.noted = None
        job.start_by = job.head.finish_by  # it was started in time once
        self._watch.expect(job, self._now())
        self._waiting.put_first(job)
        self._serve()

    # Our own.

    def _next_job(self) -> Job | None:
        """The job that is next; those that nobody waits for any more are ended here."""
        while self._waiting:
            job = self._waiting.take()
            late = None if job.start_by is None else limit_reached(job, self._now())
            if late is None:
                return job
            self._remove(job, late)
        return None

    def _serve(self) -> None:
        """Give jobs that wait to workers that wait, as far as there are places."""
        while self._places and self._waiting and not self._stopped:
            worker = self._crew.take()
            if worker is None:
                return
            job = self._next_job()
            if job is None:
                self._crew.rest(worker)
            else:
                self._assign(worker, job, self._now())

    def _assign(self, worker: Worker, job: Job, now: float) -> None:
        self._busy[job.key] = worker
        worker.has_place = True
        self._places -= 1
        worker.run(job, now)

    def _leave_place(self, job: Job) -> None:
        """A job is no longer with its worker."""
        worker = self._busy.pop(job.key)
        if worker.has_place:
            worker.has_place = False
            self._places += 1

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or end its process."""
        job.canceled = True
        if self._waiting.remove(job):
            self._remove(job, reason)
        elif job.state is State.RUNNING:
            worker = self._busy[job.key]
            job.happened(stop_event(reason), reason)
            if IArrivingBody.providedBy(job.body):
                job.body.close()  # the rest of it is not waited for
            if not worker.withdraw():
                worker.terminate()
            answer_stopped(job, reason)
            worker.break_stream(stop_error(job, reason))

    def _remove(self, job: Job, reason: Reason) -> None:
        """End a job that is no longer in the queue, and not with a worker."""
        job.canceled = True
        job.rung = Rung.REMOVED
        job.body.close()
        answer_stopped(job, reason)
        job.end(stop_event(reason), self._now(), reason)

    def _give_up(self) -> None:
        """There is no worker, and none can be had: let nobody wait for ever."""
        while self._waiting:
            job = self._waiting.take()
            job.body.close()
            waiter = job.answer
            job.end(Event.FAIL, self._now(), Reason.WORKER_LOST)
            if waiter is not None:
                waiter.errback(WorkerLost("no worker could be set up"))
