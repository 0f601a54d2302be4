"""The thread pool: the reactor's side of it.

The jobs wait here, where the reactor removes those whose client has left, and threads take the
oldest: see :mod:`deferpost.pools.handoff`.  Each :class:`~deferpost.pools.slots.Slot` is one long
call dispatched with ``deferToThreadPool``: it takes job after job, so that a job costs no dispatch
of its own, and what the threads have to say crosses in batches (:mod:`deferpost.pools.outbox`).
"""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool as TwistedThreadPool
from zope.interface import classImplements, implementer

from deferpost.errors import PoolFull, ShuttingDown
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
from deferpost.pools.deadlines import DeadlineWatch
from deferpost.pools.endings import answer_stopped, failure_of, log_late, stop_error, stop_event
from deferpost.pools.handoff import Handoff
from deferpost.pools.outbox import Outbox
from deferpost.pools.plans import ThreadPool
from deferpost.pools.slots import Late, Shared, Slot
from deferpost.pools.stragglers import Stragglers
from deferpost.pools.streams import ChunkBuffer
from deferpost.pools.threadbody import ThreadBody
from deferpost.pools.threadstreams import StreamEnd, ThreadStream

__all__ = ["RunningThreadPool", "start_thread_pool"]

classImplements(ThreadPool, IPoolPlan)


class _DaemonThreads(TwistedThreadPool):
    """Threads that do not keep the interpreter from exiting while a handler hangs."""

    threadFactory = staticmethod(partial(threading.Thread, daemon=True))  # type: ignore[assignment]


def start_thread_pool(
    context: PoolContext, *, size: int, max_waiting: int, interrupt_grace: float
) -> RunningThreadPool:
    """Start a pool of threads of its own; the threads come when there is work.

    :param context: what every pool is started with.
    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param interrupt_grace: seconds from telling a job to stop to its interrupt.
    """
    threads = _DaemonThreads(0, size, f"deferpost-{context.name}")
    threads.start()
    return RunningThreadPool(context, threads, size, max_waiting, interrupt_grace)


@implementer(IForeseeable, IInspectable, IWorkerPool)
class RunningThreadPool:
    """A started thread pool; see :class:`deferpost.interfaces.IWorkerPool`.

    :param context: what every pool is started with.
    :param threads: a started pool of Twisted's, for this pool alone.
    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param interrupt_grace: seconds from telling a job to stop to its interrupt, and to each
        further one, where its route has ``interrupt=True``.
    """

    def __init__(
        self,
        context: PoolContext,
        threads: TwistedThreadPool,
        size: int,
        max_waiting: int,
        interrupt_grace: float,
    ) -> None:
        self.name = context.name
        self._reactor = context.reactor
        self._now = context.now
        self._threads = threads
        self._size = size
        self._max_waiting = max_waiting
        self._count = 0  # jobs that have not ended
        self._waiting = Handoff(context.ageing)
        self._rouse_due = False
        self._shared = Shared(
            context.source,
            context.now,
            self._waiting,
            Outbox(context.reactor, self._heard),
            context.reactor.callFromThread,
            self._stop_job,
        )
        self._slots: list[Slot] = []
        self._slot_numbers = itertools.count(1)
        self._interruptible = context.source.interruptible
        self._stragglers = Stragglers(
            context.reactor,
            context.now,
            context.name,
            size,
            interrupt=self._interrupt,
            interrupt_grace=interrupt_grace,
        )
        self._slots_ended: list[Deferred[None]] = []
        self._streams = self._shared.streams
        self._arriving = self._shared.arriving
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            self._running_jobs,
            # One that a thread has just taken is for a moment in neither place.
            lambda: self._count > sum(1 for _ in self._running_jobs()),
            self._expire,
        )

    # The reactor's side.

    def check(self) -> None:
        """See :meth:`deferpost.interfaces.IForeseeable.check`."""
        if self._shared.stopping:
            raise ShuttingDown("the pool is stopping")

    def ahead_of(self, urgency: int) -> int:
        """See :meth:`deferpost.interfaces.IForeseeable.ahead_of`."""
        return self._waiting.line.ahead_of(urgency)

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        self.check()
        if self._count >= self._size + self._max_waiting:
            raise PoolFull(self.name)
        self._count += 1
        stop = self._stop_job
        job.stop = stop
        answer: Deferred[Answer] = Deferred(lambda _: stop(job, Reason.REQUESTED))
        job.answer = answer
        if type(job.body) is not io.BytesIO and IArrivingBody.providedBy(job.body):
            body = ThreadBody(job.body, self._reactor.callFromThread)
            self._arriving[job.key] = body
            job.body.deliver_to(body)
        self._waiting.put(job)
        if len(self._slots) < self._size and self._count > len(self._slots):
            self._add_slot()
        self._watch.expect(job, job.created)
        if not self._rouse_due:
            # When the reactor has read what else has arrived: threads that start in the middle of
            # that only take turns with it.
            self._rouse_due = True
            self._reactor.callLater(0, self._rouse)
        return answer

    def _rouse(self) -> None:
        self._rouse_due = False
        self._waiting.rouse()

    def status(self) -> PoolStatus:
        """See :meth:`deferpost.interfaces.IWorkerPool.status`."""
        running = list(self._running_jobs())
        return PoolStatus(
            name=self.name,
            kind="thread",
            size=self._size,
            max_waiting=self._max_waiting,
            running=len(running),
            waiting=len(self._waiting),
            stuck=sum(job.canceled for job in running),
            ready=not (self._shared.stopping or self._stragglers.hung),
            hung=self._stragglers.hung,
            oldest_waiting=self._waiting.line.longest_wait(self._now()),
        )

    def workers(self) -> list[WorkerStatus]:
        """See :meth:`deferpost.interfaces.IInspectable.workers`."""
        now = self._now()
        return [slot.status(now) for slot in self._slots]

    def stack(self, key: int) -> Deferred[str]:
        """See :meth:`deferpost.interfaces.IInspectable.stack`."""
        for slot in self._slots:
            lines = slot.stack(key)
            if lines is not None:
                return succeed(lines)
        return fail(LookupError(f"no thread of pool {self.name!r} runs the job {key}"))

    def restart(self, name: str) -> bool:
        """See :meth:`deferpost.interfaces.IInspectable.restart`: a thread cannot be ended."""
        return False

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        self._shared.stopping = True
        self._watch.stop()
        self._stragglers.hurry(patience)
        asking = [job for job, _ in self._shared.asking.values()]
        for job in [*self._waiting, *self._running_jobs(), *asking]:
            self._stop_job(job, Reason.SHUTDOWN)
        self._waiting.close()
        stopped: Deferred[int] = Deferred()
        out_of_patience = self._reactor.callLater(patience, self._leave_behind, stopped)

        def join(_: object) -> None:
            self._threads.stop()  # they have nothing to do, so that this does not block
            if out_of_patience.active():
                out_of_patience.cancel()
                stopped.callback(0)

        DeferredList(self._slots_ended).addCallback(join)
        return stopped

    def _leave_behind(self, stopped: Deferred[int]) -> None:
        left = list(self._running_jobs())
        for job in left:
            _log.error(
                "[{job}] {route} did not return when it was told to stop; its thread of pool "
                "{pool} is left behind",
                job=job.head.id,
                route=job.head.route,
                pool=self.name,
            )
        self._stragglers.leave()
        stopped.callback(len(left))

    def _running_jobs(self) -> Iterator[Job]:
        return (job for slot in self._slots if (job := slot.job) is not None)

    def _interrupt(self, job: Job) -> bool:
        """Interrupt the handler of a job, if it is in its own code."""
        for slot in self._slots:
            if slot.job is job and slot.part is not None:
                return slot.part.interrupt(job.key)
        return False

    def _add_slot(self) -> None:
        slot = Slot(f"{self.name}-{next(self._slot_numbers)}", self._shared)
        self._slots.append(slot)
        ended = deferToThreadPool(self._reactor, self._threads, slot.run)
        ended.addErrback(self._slot_failed, slot)
        self._slots_ended.append(ended)

    def _slot_failed(self, failure: Failure, slot: Slot) -> None:
        """A defect of ours, not of a handler: keep the pool whole and say so."""
        _log.failure("a thread of pool {pool} ended", failure=failure, pool=self.name)
        self._slots.remove(slot)

    def _expire(self, job: Job, reason: Reason) -> None:
        # One that a thread is taking at this moment is that thread's, which looks at the clock.
        if job.started is not None or job in self._waiting or job.key in self._shared.asking:
            self._stop_job(job, reason)

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or tell it."""
        if self._waiting.remove(job):
            self._removed(job, reason)
            return
        if job.state is State.CANCELING:
            return
        if job.state is State.QUEUED:  # a thread has it, and the reactor has not heard yet
            job.happened(Event.START)
        asking = self._shared.asking.get(job.key)
        job.rung = Rung.TOLD if asking is None else Rung.REMOVED
        job.canceled = True
        job.happened(stop_event(reason), reason)
        self._stragglers.told(job, interruptible=job.head.route in self._interruptible)
        arriving = self._arriving.get(job.key)
        if arriving is not None:
            arriving.shut()
            job.body.close()  # the rest of it is not waited for
        stream = self._streams.get(job.key)
        if stream is not None:
            stream.shut()
        if asking is not None:
            asking[1].cancel()
        answer_stopped(job, reason)
        if stream is not None:
            stream.buffer.finish(stop_error(job, reason))

    def _removed(self, job: Job, reason: Reason) -> None:
        """It is no longer in the queue, and no thread runs it."""
        job.rung = Rung.REMOVED
        job.canceled = True
        job.body.close()
        answer_stopped(job, reason)
        self._end(job, stop_event(reason), reason)

    def _end(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        self._count -= 1
        if job.canceled:
            self._stragglers.ended(job)
        if self._arriving and self._arriving.pop(job.key, None) is not None:
            job.body.close()
        job.end(event, self._now(), reason)

    def _heard(self, job: Job, what: Any) -> None:
        """A thread has said something of a job."""
        if job.state is State.QUEUED:
            if type(what) is Late:
                self._removed(job, what.reason)
                return
            job.happened(Event.START)
        elif type(what) is Late:  # and was canceled when the thread had just taken it
            job.rung = Rung.REMOVED
            job.body.close()
            self._end(job, Event.STOP)
            return
        if type(what) is ThreadStream:
            what.deliver()
        elif isinstance(what, Answer):
            self._answered(job, what)
        elif isinstance(what, StreamEnd):
            self._stream_ended(job, what.error)
        else:
            self._failed(job, what)

    def _answered(self, job: Job, answer: Answer) -> None:
        waiter = job.answer
        if isinstance(answer.body, ChunkBuffer):
            if job.state is State.CANCELING:
                self._streams[job.key].shut()
            elif waiter is not None:
                job.answer = None
                waiter.callback(answer)
        elif job.state is State.CANCELING:
            answer.close()
            self._end(job, Event.STOP)
        else:
            self._end(job, Event.SUCCEED)
            if waiter is not None:
                waiter.callback(answer)

    def _failed(self, job: Job, error: BaseException) -> None:
        if job.state is State.CANCELING:
            log_late(job, error)
            self._end(job, Event.STOP)
            return
        waiter = job.answer
        error, reason = failure_of(job, error)
        self._end(job, Event.FAIL, reason)
        if waiter is not None:
            waiter.errback(error)

    def _stream_ended(self, job: Job, error: BaseException | None) -> None:
        stream = self._streams.pop(job.key)
        if job.state is State.CANCELING:
            log_late(job, error)
            self._end(job, Event.STOP)
        elif error is None:
            self._end(job, Event.SUCCEED)
            stream.buffer.finish()
        else:
            error, reason = failure_of(job, error)
            self._end(job, Event.FAIL, reason)
            stream.buffer.finish(error)


_log = Logger(namespace="deferpost.pools.threads")
