"""The process pool: which job goes to which worker, and what follows when one is lost.

The queue is here, in the reactor; a worker has one job or none.  A worker that is gone is
replaced at once if it ever did its work, and after a growing pause if it could not be set up.
"""

from __future__ import annotations

import math
import os
import sys
from collections import OrderedDict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import classImplements, implementer

from deferpost.errors import PoolBroken, PoolFull, ShuttingDown, WorkerLost
from deferpost.interfaces import IArrivingBody, IPoolPlan, IWorkerPool, PoolContext
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, PoolStatus, Reason, Rung, State
from deferpost.pools.deadlines import DeadlineWatch
from deferpost.pools.endings import answer_stopped, stop_error, stop_event
from deferpost.pools.frames import SetUp
from deferpost.pools.plans import ProcessPool
from deferpost.pools.worker import Stage, Worker

__all__ = ["RunningProcessPool", "start_process_pool"]

classImplements(ProcessPool, IPoolPlan)

_log = Logger(namespace="deferpost.pools.processes")

#: Seconds before a worker is started again whose set-up failed: first, and at most.
_PAUSE_FIRST, _PAUSE_MOST = 0.5, 30.0

#: Workers in a row that end before they are ready, without a word, until nobody is let wait.
_ATTEMPTS = 3


def start_process_pool(
    context: PoolContext, *, size: int, max_waiting: int, kill_grace: float
) -> RunningProcessPool:
    """Start a pool and its worker processes.

    :param context: what every pool is started with.
    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param kill_grace: seconds between SIGTERM and SIGKILL.
    :raises deferpost.errors.DeclarationError: a handler cannot be found by name.
    """
    pool = RunningProcessPool(context, size, max_waiting, kill_grace)
    pool.fill()
    return pool


@implementer(IWorkerPool)
class RunningProcessPool:
    """A started process pool; see :class:`deferpost.interfaces.IWorkerPool`.

    :param context: what every pool is started with.
    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param kill_grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self, context: PoolContext, size: int, max_waiting: int, kill_grace: float
    ) -> None:
        self.name = context.name
        self._reactor = context.reactor
        self._now = context.now
        self._size = size
        self._max_waiting = max_waiting
        self._kill_grace = kill_grace
        self._set_up = SetUp(
            context.source.refs(),
            tuple(os.path.abspath(entry) for entry in sys.path),
            context.directory,
        )
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        self._busy: dict[int, Worker] = {}
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._failures = 0  # workers in a row that came to nothing
        self._hopeless = False  # so that none of those that wait would be run
        self._restarts = 0
        self._refill: Any = None
        self._stopped: Deferred[int] | None = None
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            lambda: (worker.job for worker in self._busy.values() if worker.job is not None),
            lambda: bool(self._waiting),
            lambda job: self._stop_job(job, Reason.DEADLINE_RUN),
        )

    def fill(self) -> None:
        """Start workers until there are as many as there are to be."""
        refill, self._refill = self._refill, None
        if refill is not None and refill.active():
            refill.cancel()
        while len(self._workers) < self._size and self._stopped is None:
            try:
                worker = Worker(self._reactor, self, self._set_up, self._kill_grace)
            except OSError as error:
                _log.error(
                    "pool {pool} cannot start a worker process: {error}",
                    pool=self.name,
                    error=error,
                )
                self._failed(certain=False)
                return
            self._workers.add(worker)

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        if self._stopped is not None:
            raise ShuttingDown("the pool is stopping")
        if self._is_broken():
            raise PoolBroken(self.name, math.ceil(self._pause()))
        worker = self._idle_worker()
        if worker is None and len(self._busy) + len(self._waiting) >= (
            self._size + self._max_waiting
        ):
            raise PoolFull(self.name)
        stop = self._stop_job
        answer: Deferred[Answer] = Deferred(lambda _: stop(job, Reason.REQUESTED))
        job.answer = answer
        job.stop = stop
        now = job.created
        self._watch.expect(job.head.timeout, now)
        if worker is not None:
            self._assign(worker, job, now)
        else:
            self._waiting[job.key] = job
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
            ready=self._stopped is None and any(worker.was_ready for worker in self._workers),
            restarts=self._restarts,
        )

    def worker_pids(self) -> list[int]:
        """The numbers of the worker processes that there are now."""
        return sorted(worker.pid for worker in self._workers)

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        stopped: Deferred[int] = Deferred()
        self._stopped = stopped
        self._watch.stop()
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        running = [worker.job for worker in self._busy.values() if worker.job is not None]
        for job in [*self._waiting.values(), *running]:
            self._stop_job(job, Reason.SHUTDOWN)
        self._idle.clear()
        for worker in list(self._workers):
            worker.terminate() if worker.stage is Stage.STARTING else worker.dismiss()
            worker.hurry(patience)
        self._fire_if_empty()
        return stopped

    # What workers tell.

    def worker_ready(self, worker: Worker) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        self._failures = 0
        self._hopeless = False
        if self._stopped is not None:
            worker.dismiss()
        elif self._waiting:
            _, job = self._waiting.popitem(last=False)
            self._assign(worker, job, self._now())
        else:
            self._idle.append(worker)

    def worker_gone(self, worker: Worker, how: str) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._stopped is not None:
            self._fire_if_empty()
            return
        self._restarts += 1
        if worker.set_up_error is not None:
            _log.error(
                "a worker of pool {pool} could not be set up:\n{traceback}",
                pool=self.name,
                traceback=worker.set_up_error,
            )
        elif not worker.was_told_to_go:
            _log.error(
                "worker {pid} of pool {pool} was lost: {how}",
                pid=worker.pid,
                pool=self.name,
                how=how,
            )
        if not worker.was_ready:
            self._failed(certain=worker.set_up_error is not None)
        elif worker.jobs_done == 0 and not worker.was_told_to_go:
            self._fill_after(_PAUSE_FIRST)  # so that one that cannot live is not started all day
        else:
            self.fill()

    def job_ended(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        """See :class:`deferpost.pools.worker.Owner`."""
        del self._busy[job.key]
        job.end(event, self._now(), reason)

    # Our own.

    def _idle_worker(self) -> Worker | None:
        """A worker without a job, taken from among the idle; one that has just ended is none."""
        while self._idle:
            worker = self._idle.pop()
            if worker.stage is Stage.IDLE:
                return worker
        return None

    def _assign(self, worker: Worker, job: Job, now: float) -> None:
        self._busy[job.key] = worker
        worker.run(job, now)

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or end its process."""
        job.canceled = True
        if self._waiting.pop(job.key, None) is not None:
            job.rung = Rung.REMOVED
            job.body.close()
            answer_stopped(job, reason)
            job.end(stop_event(reason), self._now(), reason)
        elif job.state is State.RUNNING:
            worker = self._busy[job.key]
            job.happened(stop_event(reason), reason)
            if IArrivingBody.providedBy(job.body):
                job.body.close()  # the rest of it is not waited for
            worker.terminate()
            answer_stopped(job, reason)
            worker.break_stream(stop_error(job, reason))

    def _failed(self, *, certain: bool) -> None:
        """A worker came to nothing: try again after a pause, and let nobody wait for ever.

        :param certain: whether the next will fare alike: its set-up raised.  One that was killed
            from outside costs those that wait only the pause.
        """
        self._failures += 1
        self._hopeless = self._hopeless or certain or self._failures >= _ATTEMPTS
        self._fill_after(self._pause())
        if self._is_broken():
            while self._waiting:
                _, job = self._waiting.popitem(last=False)
                job.body.close()
                waiter = job.answer
                job.end(Event.FAIL, self._now(), Reason.WORKER_LOST)
                if waiter is not None:
                    waiter.errback(WorkerLost("no worker could be set up"))

    def _fill_after(self, pause: float) -> None:
        if self._refill is None:
            self._refill = self._reactor.callLater(pause, self.fill)

    def _is_broken(self) -> bool:
        return self._hopeless and not any(worker.was_ready for worker in self._workers)

    def _pause(self) -> float:
        """Seconds until the next attempt."""
        return min(_PAUSE_MOST, _PAUSE_FIRST * 2.0 ** min(self._failures - 1, 16))

    def _fire_if_empty(self) -> None:
        stopped = self._stopped
        if stopped is not None and not self._workers and not stopped.called:
            stopped.callback(0)
