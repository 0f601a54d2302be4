"""The thread pool.

The jobs wait on the reactor's side, where it removes those whose client has left, and threads take
the oldest: see :mod:`deferpost.pools.handoff`.  Each slot is one long call dispatched with
``deferToThreadPool``: it takes job after job, so that a job costs no dispatch of its own, and
what the threads have to say crosses in batches, with one ``callFromThread`` for all that has
gathered by the time the reactor turns.
"""

from __future__ import annotations

import io
import itertools
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool as TwistedThreadPool
from zope.interface import classImplements, implementer

from deferpost.errors import (
    BodyBroken,
    Canceled,
    HandlerFailed,
    HTTPError,
    PoolFull,
    ShuttingDown,
)
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
from deferpost.model import Answer, PoolStatus, Reason, Rung, State, Work, WorkerStatus
from deferpost.pools.deadlines import DeadlineWatch, limit_reached
from deferpost.pools.endings import answer_stopped, failure_of, log_late, stop_error, stop_event
from deferpost.pools.frames import CHUNK_COST
from deferpost.pools.handoff import Handoff
from deferpost.pools.interrupts import HandlerPart
from deferpost.pools.plans import ThreadPool
from deferpost.pools.stacks import thread_stack
from deferpost.pools.stragglers import Stragglers
from deferpost.pools.streams import ChunkBuffer, ThreadGate
from deferpost.pools.threadbody import ThreadBody

__all__ = ["DRAIN_MOST", "RunningThreadPool", "start_thread_pool"]

classImplements(ThreadPool, IPoolPlan)

#: How many outcomes are handled in one turn of the reactor; the others wait for the next.
DRAIN_MOST = 128


class _DaemonThreads(TwistedThreadPool):
    """Threads that do not keep the interpreter from exiting while a handler hangs."""

    threadFactory = staticmethod(partial(threading.Thread, daemon=True))  # type: ignore[assignment]


class _Slot:
    """A thread's place: the job that it runs.  Written by the thread, read by the reactor.

    :ivar name: of its thread; no other of the pool has it.
    :ivar part: what of its work is a handler's; None where none may be interrupted, or it has not
        started.
    :ivar ident: of its thread; None until it has started.
    :ivar started: when that was, in seconds of the monotonic clock.
    :ivar done: jobs that it has ended.
    """

    __slots__ = ("done", "ident", "job", "name", "part", "started")

    def __init__(self, name: str, started: float) -> None:
        self.name = name
        self.started = started
        self.job: Job | None = None
        self.part: HandlerPart | None = None
        self.ident: int | None = None
        self.done = 0

    def status(self, now: float) -> WorkerStatus:
        """How it is; on the reactor thread."""
        job = self.job
        return WorkerStatus(
            name=self.name,
            pid=None,
            stage="idle" if job is None else "busy",
            job=None if job is None else job.key,
            job_id=None if job is None else job.head.id,
            route=None if job is None else job.head.route,
            run_seconds=0.0 if job is None else job.run_so_far(now),
            canceling=job is not None and job.canceled,
            jobs_done=self.done,
            age=now - self.started,
            memory=None,
        )


class _Stream:
    """Both ends of a thread's stream."""

    __slots__ = ("buffer", "coming", "gate", "is_told")

    def __init__(self, abandoned: Callable[[Reason], None]) -> None:
        self.gate = ThreadGate()
        self.buffer = ChunkBuffer(taken=self.gate.leave, abandoned=abandoned)
        self.coming: deque[bytes] = deque()
        self.is_told = False  # the reactor has yet to hear of what is coming

    def deliver(self) -> None:
        """Take over what has come.  On the reactor thread."""
        self.is_told = False  # first, so that what comes from here on is told again
        coming = self.coming
        self.buffer.deliver_all([coming.popleft() for _ in range(len(coming))])


class _End:
    """A stream has ended, with an error if it broke off."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Late(Exception):
    """A thread has not started a job, because a limit of it was reached."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


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
        self._source = context.source
        self._now = context.now
        self._threads = threads
        self._size = size
        self._max_waiting = max_waiting
        self._count = 0  # jobs that have not ended
        self._waiting = Handoff(context.ageing)
        self._rouse_due = False
        self._slots: list[_Slot] = []
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
        self._streams: dict[int, _Stream] = {}
        self._arriving: dict[int, ThreadBody] = {}
        self._outbox: deque[tuple[Job, Any]] = deque()
        self._waking = False
        self._stopping = False
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
        if self._stopping:
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
            ready=not (self._stopping or self._stragglers.hung),
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
            job = slot.job
            if job is not None and job.key == key and slot.ident is not None:
                lines = thread_stack(slot.ident, RunningThreadPool._run_job.__code__)
                # It may have ended in the meantime, and the thread be at the next.
                if lines is not None and slot.job is job:
                    return succeed(lines)
        return fail(LookupError(f"no thread of pool {self.name!r} runs the job {key}"))

    def restart(self, name: str) -> bool:
        """See :meth:`deferpost.interfaces.IInspectable.restart`: a thread cannot be ended."""
        return False

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        self._stopping = True
        self._watch.stop()
        self._stragglers.hurry(patience)
        for job in [*self._waiting, *self._running_jobs()]:
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
        slot = _Slot(f"{self.name}-{next(self._slot_numbers)}", self._now())
        self._slots.append(slot)
        ended = deferToThreadPool(self._reactor, self._threads, self._run_slot, slot)
        ended.addErrback(self._slot_failed, slot)
        self._slots_ended.append(ended)

    def _slot_failed(self, failure: Failure, slot: _Slot) -> None:
        """A defect of ours, not of a handler: keep the pool whole and say so."""
        _log.failure("a thread of pool {pool} ended", failure=failure, pool=self.name)
        self._slots.remove(slot)

    def _expire(self, job: Job, reason: Reason) -> None:
        # One that a thread is taking at this moment is that thread's, which looks at the clock.
        if job.started is not None or job in self._waiting:
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
        job.rung = Rung.TOLD
        job.canceled = True
        job.happened(stop_event(reason), reason)
        self._stragglers.told(job, interruptible=job.head.route in self._interruptible)
        arriving = self._arriving.get(job.key)
        if arriving is not None:
            arriving.shut()
            job.body.close()  # the rest of it is not waited for
        stream = self._streams.get(job.key)
        if stream is not None:
            stream.gate.shut()
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

    def _drain(self) -> None:
        """Handle what the threads have posted, oldest first."""
        take = self._outbox.popleft
        for _ in range(DRAIN_MOST):
            try:
                job, posted = take()
            except IndexError:
                # Until here threads have posted without a wake-up; look once more after this.
                self._waking = False
                if not self._outbox:
                    return
                continue
            try:
                if job.state is State.QUEUED:
                    if type(posted) is _Late:
                        self._removed(job, posted.reason)
                        continue
                    job.happened(Event.START)
                elif type(posted) is _Late:  # and was canceled when the thread had just taken it
                    job.rung = Rung.REMOVED
                    job.body.close()
                    self._end(job, Event.STOP)
                    continue
                if type(posted) is _Stream:
                    posted.deliver()
                elif isinstance(posted, Answer):
                    self._answered(job, posted)
                elif isinstance(posted, _End):
                    self._stream_ended(job, posted.error)
                else:
                    self._failed(job, posted)
            except Exception:  # a defect, of a reader for example, which is to stop no other job
                _log.failure("[{job}] was not told what its thread did", job=job.head.id)
        self._reactor.callLater(0, self._drain)

    def _answered(self, job: Job, answer: Answer) -> None:
        waiter = job.answer
        if isinstance(answer.body, ChunkBuffer):
            if job.state is State.CANCELING:
                self._streams[job.key].gate.shut()
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

    # The threads' side.

    def _post(self, job: Job, what: Any) -> None:
        """Have the reactor hear of it; it is woken unless it is about to look."""
        self._outbox.append((job, what))
        if not self._waking:
            self._waking = True
            self._reactor.callFromThread(self._drain)

    def _run_slot(self, slot: _Slot) -> None:
        """Take jobs and run them, until there are no more."""
        slot.ident = threading.get_ident()
        part = None
        if self._interruptible:
            part = slot.part = HandlerPart()
        work = self._source.work(None if part is None else part.run)
        bed = threading.Lock()
        bed.acquire()
        take, now = self._waiting.take, self._now
        while (job := take(bed)) is not None:
            started = now()
            if job.start_by is not None:
                late = limit_reached(job, started)
                if late is not None:
                    self._post(job, _Late(late))
                    del job
                    continue
            job.started = started
            job.worker = slot.name
            if part is not None:
                part.key = job.key
            slot.job = job
            if self._stopping:  # which may not have seen it
                self._reactor.callFromThread(job.cancel, Reason.SHUTDOWN)
            outcome = self._run_job(job, work, part)
            slot.job = None
            slot.done += 1
            self._post(job, outcome)
            del job, outcome  # nothing of the last client stays while this waits for the next

    def _run_job(
        self, job: Job, work: Work, part: HandlerPart | None
    ) -> Answer | _End | BaseException:
        """Run one job to its end, its stream included."""
        arriving = self._arriving.get(job.key) if self._arriving else None
        body = job.body
        if arriving is not None:
            body = arriving.reader(None if part is None else part.outside)
        try:
            try:
                answer = work(job.head, body, job)
                if type(answer.body) is bytes or answer.length is not None:
                    return answer
                return self._run_stream(job, answer)
            finally:
                if arriving is not None:
                    arriving.shut()  # else a thread that the handler has left in a read holds it
                body.close()
        except BaseException as error:
            return _translated(error)

    def _run_stream(self, job: Job, answer: Answer) -> _End:
        chunks = answer.body
        stream = _Stream(partial(self._stop_job, job))
        self._streams[job.key] = stream
        self._post(job, Answer(answer.status, answer.headers, stream.buffer, None))
        ending: BaseException | None = None
        try:
            try:
                for chunk in chunks:
                    stream.gate.enter(len(chunk) + CHUNK_COST)
                    stream.coming.append(chunk)
                    if not stream.is_told:
                        stream.is_told = True
                        self._post(job, stream)
            finally:
                chunks.close()
        except BaseException as error:
            ending = _translated(error)
        return _End(ending)


def _translated(error: BaseException) -> BaseException:
    """The error of a handler, as one of ours."""
    if isinstance(error, (HTTPError, HandlerFailed, BodyBroken, Canceled)):
        return error
    return HandlerFailed("".join(traceback.format_exception(error)))


_log = Logger(namespace="deferpost.pools.threads")
