"""The thread's side of a thread pool: a place that takes job after job and runs each.

A thread touches nothing here that the reactor writes while it runs, but what is made for both.
What becomes of an outcome is decided on the reactor's side, in :mod:`deferpost.pools.threads`.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from deferpost.errors import BodyBroken, Canceled, HandlerFailed, HTTPError, NotStarted
from deferpost.jobs import Job
from deferpost.model import Answer, Reason, Work, WorkerStatus
from deferpost.pools.deadlines import limit_reached
from deferpost.pools.handoff import Handoff
from deferpost.pools.interrupts import HandlerPart
from deferpost.pools.outbox import Outbox
from deferpost.pools.stacks import thread_stack
from deferpost.pools.threadbody import ThreadBody
from deferpost.pools.threadstreams import StreamEnd, ThreadStream

__all__ = ["Late", "Shared", "Slot"]


class Late:
    """A thread has not started a job, because a limit of it was reached.

    :ivar reason: which one.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class Shared:
    """What the threads of one pool share with the reactor.

    :param source: what makes handlers run.
    :param now: the monotonic clock, in seconds.
    :param waiting: where the jobs come from.
    :param outbox: where what they did goes.
    :param call_from_thread: has a function called on the reactor thread.
    :param stop_job: stops a job, on the reactor thread.

    :ivar asking: the jobs that a thread has, and that wait for the permission to begin, by their
        keys; for the reactor thread.
    :ivar arriving: bodies that arrive, by the key of their job; written by the reactor.
    :ivar streams: streams that go on, by the key of their job; a thread adds, the reactor removes.
    :ivar stopping: whether jobs are to be stopped that were not seen to run; written by the
        reactor.
    """

    __slots__ = (
        "arriving",
        "asking",
        "call_from_thread",
        "now",
        "outbox",
        "source",
        "stop_job",
        "stopping",
        "streams",
        "waiting",
    )

    def __init__(
        self,
        source: Any,
        now: Callable[[], float],
        waiting: Handoff,
        outbox: Outbox,
        call_from_thread: Callable[..., object],
        stop_job: Callable[[Job, Reason], None],
    ) -> None:
        self.source = source
        self.now = now
        self.waiting = waiting
        self.outbox = outbox
        self.call_from_thread = call_from_thread
        self.stop_job = stop_job
        self.asking: dict[int, tuple[Job, Deferred[None]]] = {}
        self.arriving: dict[int, ThreadBody] = {}
        self.streams: dict[int, ThreadStream] = {}
        self.stopping = False


class Slot:
    """A thread's place: the job that it runs.  Written by the thread, read by the reactor.

    :param name: of its thread; no other of the pool has it.
    :param shared: what it has in common with the others.

    :ivar job: the one that it runs.
    :ivar part: what of its work is a handler's; None where none may be interrupted, or it has not
        started.
    """

    __slots__ = ("_done", "_ident", "_shared", "_started", "job", "name", "part")

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.job: Job | None = None
        self.part: HandlerPart | None = None
        self._shared = shared
        self._started = shared.now()
        self._ident: int | None = None
        self._done = 0

    # The reactor's side.

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
            jobs_done=self._done,
            age=now - self._started,
            memory=None,
        )

    def stack(self, key: int) -> str | None:
        """Where the handler of a job stands; on the reactor thread.

        :param key: of the job.
        :returns: the lines; None if this does not run it.
        """
        job = self.job
        if job is None or job.key != key or self._ident is None:
            return None
        lines = thread_stack(self._ident, Slot._run_job.__code__)
        # It may have ended in the meantime, and the thread be at the next.
        return lines if self.job is job else None

    # The thread's side.

    def run(self) -> None:
        """Take jobs and run them, until there are no more."""
        shared = self._shared
        self._ident = threading.get_ident()
        part = None
        if shared.source.interruptible:
            part = self.part = HandlerPart()
        work = shared.source.work(None if part is None else part.run)
        bed = threading.Lock()
        bed.acquire()
        take, now, post = shared.waiting.take, shared.now, shared.outbox.post
        while (job := take(bed)) is not None:
            refused = None if job.permit is None else self._refusal(job)
            if refused is not None:
                if job.key not in shared.arriving:  # else the reactor closes it
                    job.body.close()
                post(job, refused)
                del job, refused
                continue
            started = now()
            if job.start_by is not None:
                late = limit_reached(job, started)
                if late is not None:
                    post(job, Late(late))
                    del job
                    continue
            job.started = started
            job.worker = self.name
            if part is not None:
                part.key = job.key
            self.job = job
            if shared.stopping:  # which may not have seen it
                shared.call_from_thread(job.cancel, Reason.SHUTDOWN)
            outcome = self._run_job(job, work)
            self.job = None
            self._done += 1
            post(job, outcome)
            del job, outcome  # nothing of the last client stays while this waits for the next

    def _refusal(self, job: Job) -> BaseException | None:
        """Wait until the job may begin; gives why it may not."""
        shared = self._shared
        refused: list[BaseException] = []
        gate = threading.Lock()
        gate.acquire()

        def ask() -> None:
            if shared.stopping:  # which has not seen it
                shared.stop_job(job, Reason.SHUTDOWN)
            permit = job.permit
            assert permit is not None
            if job.canceled:
                answered(Failure(NotStarted("it was stopped before its code began")))
                return
            asking: Deferred[None] = maybeDeferred(permit, job)
            shared.asking[job.key] = job, asking
            asking.addBoth(answered)

        def answered(result: object) -> None:
            shared.asking.pop(job.key, None)
            if isinstance(result, Failure):
                refused.append(result.value)  # type: ignore[arg-type]  # it has one
            gate.release()

        shared.call_from_thread(ask)
        gate.acquire()
        if job.canceled and not refused:
            return NotStarted("it was canceled before its code began")
        return refused[0] if refused else None

    def _run_job(self, job: Job, work: Work) -> Answer | StreamEnd | BaseException:
        """Run one job to its end, its stream included."""
        shared = self._shared
        arriving = shared.arriving.get(job.key) if shared.arriving else None
        body = job.body
        if arriving is not None:
            body = arriving.reader(None if self.part is None else self.part.outside)
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

    def _run_stream(self, job: Job, answer: Answer) -> StreamEnd:
        shared = self._shared
        stream = ThreadStream(partial(shared.stop_job, job))
        shared.streams[job.key] = stream
        post = shared.outbox.post
        post(job, Answer(answer.status, answer.headers, stream.buffer, None))
        try:
            stream.run(answer.body, partial(post, job, stream))
        except BaseException as error:
            return StreamEnd(_translated(error))
        return StreamEnd(None)


def _translated(error: BaseException) -> BaseException:
    """The error of a handler, as one of ours."""
    if isinstance(error, (HTTPError, HandlerFailed, BodyBroken, Canceled)):
        return error
    return HandlerFailed("".join(traceback.format_exception(error)))
