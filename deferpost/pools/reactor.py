"""The pool of coroutine handlers, which run on the reactor and are canceled by their Deferred.

What they return is encoded in a thread, unless it is bytes or text already: a large JSON document
must not hold the reactor up.
"""

from __future__ import annotations

import threading
import traceback
from collections import OrderedDict
from types import NoneType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool as TwistedThreadPool
from zope.interface import classImplements, implementer

from deferpost.errors import (
    Canceled,
    HandlerFailed,
    HTTPError,
    PoolFull,
    ShuttingDown,
)
from deferpost.interfaces import IPoolPlan, IWorkerPool, PoolContext
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, PoolStatus, Reason, Rung, State
from deferpost.pools.deadlines import DeadlineWatch
from deferpost.pools.endings import (
    answer_stopped,
    log_late,
    stop_event,
    without_cause,
)
from deferpost.pools.plans import ReactorPool

#: Characters that are encoded on the reactor's thread; more are in a thread of their own.
_TEXT_MOST = 64 * 1024

__all__ = ["RunningReactorPool", "start_reactor_pool"]

classImplements(ReactorPool, IPoolPlan)


def start_reactor_pool(context: PoolContext, *, size: int, max_waiting: int) -> RunningReactorPool:
    """Start a pool for coroutines.

    :param context: what every pool is started with.
    :param size: how many run at once.
    :param max_waiting: how many more may wait.
    """
    encoders = TwistedThreadPool(0, 2, f"deferpost-{context.name}-encode")
    encoders.start()
    return RunningReactorPool(context, encoders, size, max_waiting)


@implementer(IWorkerPool)
class RunningReactorPool:
    """A started pool of coroutines; see :class:`deferpost.interfaces.IWorkerPool`.

    :param context: what every pool is started with.
    :param encoders: started threads that encode what the coroutines return.
    :param size: how many run at once.
    :param max_waiting: how many more may wait.
    """

    def __init__(
        self, context: PoolContext, encoders: TwistedThreadPool, size: int, max_waiting: int
    ) -> None:
        self.name = context.name
        self._reactor = context.reactor
        self._source = context.source
        self._now = context.now
        self._encoders = encoders
        self._size = size
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._running: dict[int, tuple[Job, Deferred[Any]]] = {}
        self._stopped: Deferred[int] | None = None
        self._out_of_patience: Any = None
        self._starting = False
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            lambda: (job for job, _ in self._running.values()),
            lambda: bool(self._waiting),
            lambda job: self._stop_job(job, Reason.DEADLINE_RUN),
        )

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        if self._stopped is not None:
            raise ShuttingDown("the pool is stopping")
        if len(self._running) + len(self._waiting) >= self._size + self._max_waiting:
            raise PoolFull(self.name)
        answer: Deferred[Answer] = Deferred(lambda _: self._stop_job(job, Reason.REQUESTED))
        job.answer = answer
        job.stop = self._stop_job
        self._watch.expect(job.head.timeout, job.created)
        if len(self._running) < self._size:
            self._start(job)
        else:
            self._waiting[job.key] = job
        return answer

    def status(self) -> PoolStatus:
        """See :meth:`deferpost.interfaces.IWorkerPool.status`."""
        return PoolStatus(
            name=self.name,
            kind="reactor",
            size=self._size,
            max_waiting=self._max_waiting,
            running=len(self._running),
            waiting=len(self._waiting),
            stuck=sum(job.canceled for job, _ in self._running.values()),
            ready=self._stopped is None,
        )

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        stopped: Deferred[int] = Deferred()
        self._stopped = stopped
        self._watch.stop()
        self._out_of_patience = self._reactor.callLater(patience, self._stop_encoders)
        for job in [*self._waiting.values(), *(job for job, _ in self._running.values())]:
            self._stop_job(job, Reason.SHUTDOWN)
        self._stop_if_empty()
        return stopped

    def _stop_if_empty(self) -> None:
        if not self._running and self._out_of_patience is not None:
            self._out_of_patience.cancel()
            self._stop_encoders()

    def _stop_encoders(self) -> None:
        self._out_of_patience = None
        if self._stopped is not None:
            # What is still encoded for a job that was canceled ends by itself, and to wait for
            # it here would hold the reactor up.
            threading.Thread(target=self._encoders.stop, daemon=True).start()
            self._stopped.callback(len(self._running))

    def _start(self, job: Job) -> None:
        job.started = self._now()
        job.happened(Event.START)
        run = Deferred.fromCoroutine(self._run(job))
        # Entered after the coroutine's first steps: one that never waited has its result already.
        self._running[job.key] = (job, run)
        run.addBoth(self._ended, job)

    async def _run(self, job: Job) -> Answer:
        result = await self._source.coroutine(job.head, job.body, job)
        if isinstance(result, (bytes, NoneType)) or (
            isinstance(result, str) and len(result) <= _TEXT_MOST
        ):
            return self._source.encode(result)
        return await deferToThreadPool(self._reactor, self._encoders, self._source.encode, result)

    def _ended(self, result: Answer | Failure, job: Job) -> None:
        del self._running[job.key]
        job.body.close()
        waiter = job.answer
        if isinstance(result, Answer) and not _is_sendable(result):
            result.close()
            result = Failure(
                HandlerFailed(
                    "TypeError: an async handler returned an iterator; stream from a plain "
                    "generator function in a thread or a process"
                )
            )
        if job.state is State.CANCELING:
            if isinstance(result, Answer):
                result.close()
            else:
                log_late(job, _translated(result))
            self._end(job, Event.STOP)
        elif isinstance(result, Answer):
            self._end(job, Event.SUCCEED)
            if waiter is not None:
                waiter.callback(result)
        else:
            self._end(job, Event.FAIL, Reason.ERROR)
            if waiter is not None:
                waiter.errback(without_cause(_translated(result)))

    def _end(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        job.end(event, self._now(), reason)
        if not self._starting:  # else the loop below, further up, goes on
            self._starting = True
            while self._waiting and len(self._running) < self._size:
                _, following = self._waiting.popitem(last=False)
                self._start(following)
            self._starting = False
        self._stop_if_empty()

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or cancel its coroutine."""
        job.canceled = True
        if self._waiting.pop(job.key, None) is not None:
            job.rung = Rung.REMOVED
            job.body.close()
            answer_stopped(job, reason)
            self._end(job, stop_event(reason), reason)
        elif job.state is State.RUNNING:
            job.rung = Rung.TOLD
            job.happened(stop_event(reason), reason)
            answer_stopped(job, reason)
            if job.key in self._running:
                self._running[job.key][1].cancel()


def _is_sendable(answer: Answer) -> bool:
    return type(answer.body) is bytes or answer.length is not None


def _translated(failure: Failure) -> BaseException:
    """The error of a coroutine, as one of ours."""
    error = failure.value
    if isinstance(error, (HTTPError, HandlerFailed, Canceled)):
        return error
    if isinstance(error, CancelledError):
        return Canceled()
    return HandlerFailed("".join(traceback.format_exception(error)))
