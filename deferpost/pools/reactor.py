"""The pool of coroutine handlers, which run on the reactor and are canceled by their Deferred.

What they return is encoded in a thread, unless it is bytes or text already: a large JSON document
must not hold the reactor up.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from types import NoneType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
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
from deferpost.interfaces import IForeseeable, IInspectable, IPoolPlan, IWorkerPool, PoolContext
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, PoolStatus, Reason, Rung, State, WorkerStatus
from deferpost.pools.deadlines import DeadlineWatch, limit_reached
from deferpost.pools.endings import (
    answer_stopped,
    log_late,
    stop_event,
    without_cause,
)
from deferpost.pools.line import Line
from deferpost.pools.plans import ReactorPool
from deferpost.pools.stacks import coroutine_stack

#: Characters that are encoded on the reactor's thread; more are in a thread of their own.
_TEXT_MOST = 64 * 1024

#: How many of the jobs that run are shown to those who look into the pool.
SHOWN_MOST = 100

__all__ = ["SHOWN_MOST", "RunningReactorPool", "start_reactor_pool"]

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


class _Refused(Exception):
    """A job was not permitted to begin.

    :param error: why.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Run:
    """A job that runs.

    :ivar ended: fires when its coroutine has ended; None during the first steps of it.
    :ivar coroutine: ours, which awaits the handler's.
    """

    __slots__ = ("coroutine", "ended", "job")

    def __init__(self, job: Job, coroutine: Any) -> None:
        self.job = job
        self.coroutine = coroutine
        self.ended: Deferred[Any] | None = None


@implementer(IForeseeable, IInspectable, IWorkerPool)
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
        self._waiting = Line(context.ageing)
        self._running: dict[int, _Run] = {}
        self._stopped: Deferred[int] | None = None
        self._out_of_patience: Any = None
        self._starting = False
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            lambda: (run.job for run in self._running.values()),
            lambda: bool(self._waiting),
            self._stop_job,
        )

    def check(self) -> None:
        """See :meth:`deferpost.interfaces.IForeseeable.check`."""
        if self._stopped is not None:
            raise ShuttingDown("the pool is stopping")

    def ahead_of(self, urgency: int) -> int:
        """See :meth:`deferpost.interfaces.IForeseeable.ahead_of`."""
        return self._waiting.ahead_of(urgency)

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        self.check()
        if len(self._running) + len(self._waiting) >= self._size + self._max_waiting:
            raise PoolFull(self.name)
        answer: Deferred[Answer] = Deferred(lambda _: self._stop_job(job, Reason.REQUESTED))
        job.answer = answer
        job.stop = self._stop_job
        self._watch.expect(job, job.created)
        if len(self._running) < self._size:
            self._start(job)
        else:
            self._waiting.put(job)
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
            stuck=sum(run.job.canceled for run in self._running.values()),
            ready=self._stopped is None,
            oldest_waiting=self._waiting.longest_wait(self._now()),
        )

    def workers(self) -> list[WorkerStatus]:
        """See :meth:`deferpost.interfaces.IInspectable.workers`: one for each job that runs.

        Only the oldest are shown where there are very many.
        """
        now = self._now()
        return [
            WorkerStatus(
                name=f"{self.name}-{key}",
                pid=None,
                stage="busy",
                job=key,
                job_id=run.job.head.id,
                route=run.job.head.route,
                run_seconds=run.job.run_so_far(now),
                canceling=run.job.canceled,
                jobs_done=0,
                age=run.job.run_so_far(now),
                memory=None,
            )
            for key, run in itertools.islice(self._running.items(), SHOWN_MOST)
        ]

    def stack(self, key: int) -> Deferred[str]:
        """See :meth:`deferpost.interfaces.IInspectable.stack`: what awaits what."""
        run = self._running.get(key)
        if run is None:
            return fail(LookupError(f"no coroutine of pool {self.name!r} runs the job {key}"))
        return succeed(coroutine_stack(run.coroutine))

    def restart(self, name: str) -> bool:
        """See :meth:`deferpost.interfaces.IInspectable.restart`: there is nothing to restart."""
        return False

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        stopped: Deferred[int] = Deferred()
        self._stopped = stopped
        self._watch.stop()
        self._out_of_patience = self._reactor.callLater(patience, self._stop_encoders)
        for job in [*self._waiting, *(run.job for run in self._running.values())]:
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
        coroutine = self._run(job)
        run = self._running[job.key] = _Run(job, coroutine)
        run.ended = ended = Deferred.fromCoroutine(coroutine)
        if job.canceled:  # by what its own first steps did
            ended.cancel()
        ended.addBoth(self._ended, job)

    async def _run(self, job: Job) -> Answer:
        if job.permit is not None:
            try:
                await job.permit(job)
            except Exception as error:
                raise _Refused(error) from None
            job.started = self._now()
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
                following = self._waiting.take()
                late = None
                if following.start_by is not None:
                    late = limit_reached(following, self._now())
                if late is None:
                    self._start(following)
                else:
                    self._remove(following, late)
            self._starting = False
        self._stop_if_empty()

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or cancel its coroutine."""
        job.canceled = True
        if self._waiting.remove(job):
            self._remove(job, reason)
        elif job.state is State.RUNNING:
            job.rung = Rung.TOLD
            job.happened(stop_event(reason), reason)
            answer_stopped(job, reason)
            run = self._running[job.key]
            if run.ended is not None:  # else it is canceled as soon as it waits
                run.ended.cancel()

    def _remove(self, job: Job, reason: Reason) -> None:
        """End a job that is no longer in the queue, and does not run."""
        job.canceled = True
        job.rung = Rung.REMOVED
        job.body.close()
        answer_stopped(job, reason)
        self._end(job, stop_event(reason), reason)


def _is_sendable(answer: Answer) -> bool:
    return type(answer.body) is bytes or answer.length is not None


def _translated(failure: Failure) -> BaseException:
    """The error of a coroutine, as one of ours."""
    error = failure.value
    if isinstance(error, _Refused):
        return error.error
    if isinstance(error, (HTTPError, HandlerFailed, Canceled)):
        return error
    if isinstance(error, CancelledError):
        return Canceled()
    return HandlerFailed("".join(traceback.format_exception(error)))
