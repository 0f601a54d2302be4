"""A job's code, run on the calling thread, as far as it is told to.

What a thread or a worker process does by itself is done here step by step, and the same events of
the life-cycle are told.  It starts nothing by itself and knows no queue.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from deferpost.errors import (
    BodyBroken,
    Canceled,
    HandlerFailed,
    HTTPError,
    NotStarted,
    WorkerLost,
)
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, Reason, Rung, State, Work, WorkSource
from deferpost.pools.endings import answer_stopped, log_late, stop_error, stop_event, without_cause
from deferpost.pools.streams import ChunkBuffer

__all__ = ["Owner", "Run", "Stage"]


class Stage(enum.Enum):
    """Where a run stands."""

    TAKEN = "taken"  #: it has its place, and nothing of its code has run
    ASKING = "asking"  #: it waits for the permission to begin (:attr:`Job.permit`)
    EXECUTING = "executing"  #: its code is on the stack
    AWAITING = "awaiting"  #: its coroutine waits for something
    STREAMING = "streaming"  #: between two chunks
    ENDED = "ended"


class Owner(Protocol):
    """What a run tells its pool."""

    def run_failed(self, run: Run, error: HandlerFailed) -> None:
        """Its handler raised."""

    def run_ended(self, run: Run) -> None:
        """Its place is free; the job is about to end."""

    def run_told(self, run: Run) -> None:
        """Whoever waits for its answer has been told."""


class Run:
    """A job that has a place in a pool.  For the thread that made it.

    :param job: the job, which starts with this.
    :param source: the handlers of its pool.
    :param work: runs plain handlers; None where the handlers are coroutines.
    :param now: the monotonic clock, in seconds.
    :param owner: the pool.
    :param window: bytes of a stream that may be unread before its handler is held back.
    :param source_of: makes what the reader of a stream is given of the buffer that it is kept in.

    :ivar job: the job.
    :ivar stage: where it stands.
    """

    def __init__(
        self,
        job: Job,
        source: WorkSource,
        work: Work | None,
        now: Callable[[], float],
        owner: Owner,
        window: int,
        source_of: Callable[[Run, ChunkBuffer], Any],
    ) -> None:
        self.job = job
        self.stage = Stage.TAKEN
        self._source = source
        self._work = work
        self._now = now
        self._owner = owner
        self._window = window
        self._source_of = source_of
        self._asked: Deferred[None] | None = None
        self._awaited: Deferred[Any] | None = None
        self._chunks: Any = None
        self._buffer: ChunkBuffer | None = None
        self._unread = 0
        self._finishing = False
        self._goes_on = False  # when it is permitted to begin
        job.started = now()
        job.happened(Event.START)

    def __repr__(self) -> str:
        return f"<Run {self.stage.value} of {self.job!r}>"

    @property
    def has_ended(self) -> bool:
        """Whether its code has ended."""
        return self.stage is Stage.ENDED

    # What a test asks.

    def advance(self) -> bool:
        """Run the handler on: first to its answer, then to each chunk of a stream, then to its end.

        A coroutine is started, and goes on by itself.  A stream that was canceled is ended.  One
        that has to be permitted to begin goes on by itself when it is.

        :returns: whether it can be run on now.  False where it has ended, where its reader holds
            it back, and where a coroutine or the permission is waited for.
        """
        if self.stage is Stage.TAKEN and self.job.permit is not None:
            self._ask(self.job.permit)
        elif self.stage is Stage.TAKEN:
            self._start()
        elif self._can_go_on():
            self._make_chunk()
        return self._can_go_on()

    def finish(self) -> None:
        """Run the handler on for as long as :meth:`advance` can."""
        if self._finishing:
            return  # further up the stack, which goes on
        self._finishing = True
        try:
            while self.advance():
                pass
            self._goes_on = self.stage is Stage.ASKING
        finally:
            self._finishing = False

    def lose(self, how: str = "signal 9 (SIGKILL)") -> None:
        """End its worker in the middle of the job, as a process can end at any moment.

        :param how: how the worker ended, as :class:`~deferpost.errors.WorkerLost` says it.
        :raises AssertionError: there is no worker to lose: it has ended, it is further up the
            stack, or it is a coroutine, which runs on the reactor.
        """
        stages = (Stage.TAKEN, Stage.ASKING, Stage.STREAMING)
        if self.stage not in stages or self._work is None:
            raise AssertionError(f"{self!r} has no worker that could be lost now")
        self._close_chunks()
        job = self.job
        error: Exception = WorkerLost(how)
        if self.stage is Stage.ASKING:
            error = NotStarted(f"its worker was lost before: {how}")
        if job.state is State.CANCELING:
            self._end(Event.STOP)
        elif self._buffer is not None:
            self._end(Event.FAIL, Reason.WORKER_LOST, self._buffer.finish, error)
        elif job.answer is not None:
            self._end(Event.FAIL, Reason.WORKER_LOST, job.answer.errback, error)

    # What the pool asks.

    def stop(self, reason: Reason) -> None:
        """Tell the handler that nobody wants its result; it is "canceling" until it has ended.

        :param reason: why.
        """
        job = self.job
        if job.state is not State.RUNNING:
            return
        job.rung = Rung.TOLD
        job.canceled = True
        job.happened(stop_event(reason), reason)
        answer_stopped(job, reason)
        if self._buffer is not None:
            self._buffer.finish(stop_error(job, reason))
        if self._asked is not None:
            self._asked.cancel()
        if self._awaited is not None:
            self._awaited.cancel()

    # Our own.

    def _is_canceling(self) -> bool:
        return self.job.state is State.CANCELING

    def _can_go_on(self) -> bool:
        return self.stage is Stage.STREAMING and (
            self._unread < self._window or self._is_canceling()
        )

    def _ask(self, permit: Callable[[Job], Deferred[None]]) -> None:
        """Ask whether the code may begin, and have it begin."""
        self.stage = Stage.ASKING
        self._asked = asked = permit(self.job)
        asked.addCallbacks(self._permitted, self._refused)

    def _permitted(self, _: object) -> None:
        self._asked = None
        if self.stage is not Stage.ASKING:
            return  # its worker was lost meanwhile
        if self._is_canceling():
            self._failed(NotStarted("it was stopped before its code began"))
            return
        self._start()
        if self._goes_on:
            self.finish()

    def _refused(self, failure: Failure) -> None:
        self._asked = None
        if self.stage is Stage.ASKING and failure.value is not None:
            self._failed(failure.value)

    def _start(self) -> None:
        self.stage = Stage.EXECUTING
        job = self.job
        if self._work is None:
            self._awaited = Deferred.fromCoroutine(self._coroutine())
            self.stage = Stage.AWAITING
            if job.canceled:
                self._awaited.cancel()
            self._awaited.addCallbacks(self._answered, self._coroutine_failed)
            return
        try:
            answer = self._work(job.head, job.body, job)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failed(_translated(error))
        else:
            self._answered(answer)

    async def _coroutine(self) -> Answer:
        job = self.job
        answer = self._source.encode(await self._source.coroutine(job.head, job.body, job))
        if _is_stream(answer):
            answer.close()
            raise HandlerFailed(
                "TypeError: an async handler returned an iterator; stream from a plain "
                "generator function in a thread or a process"
            )
        return answer

    def _coroutine_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            self._failed(Canceled())
        else:
            self._failed(_translated(failure.value, failure))

    def _answered(self, answer: Answer) -> None:
        job = self.job
        waiter = job.answer
        if _is_stream(answer):
            self._stream(answer)
        elif job.state is State.CANCELING:
            answer.close()
            self._end(Event.STOP)
        elif waiter is not None:
            self._end(Event.SUCCEED, None, waiter.callback, answer)

    def _failed(self, error: BaseException) -> None:
        waiter = self.job.answer
        self._note(error)
        if self.job.state is State.CANCELING:
            log_late(self.job, error)
            self._end(Event.STOP)
        elif waiter is not None:
            self._end(Event.FAIL, Reason.ERROR, waiter.errback, without_cause(error))

    def _stream(self, answer: Answer) -> None:
        job = self.job
        self._chunks = answer.body
        self.stage = Stage.STREAMING
        if job.state is State.CANCELING:
            self._stream_ended(None)
            return
        self._buffer = buffer = ChunkBuffer(taken=self._taken, abandoned=job.cancel)
        waiter, job.answer = job.answer, None
        if waiter is not None:
            body = self._source_of(self, buffer)
            waiter.callback(Answer(answer.status, answer.headers, body, None))

    def _taken(self, size: int) -> None:
        self._unread -= size

    def _make_chunk(self) -> None:
        if self._is_canceling():
            self._stream_ended(None)
            return
        self.stage = Stage.EXECUTING
        try:
            chunk = next(self._chunks)
        except KeyboardInterrupt:
            raise
        except StopIteration:
            self._stream_ended(None)
        except BaseException as error:
            self._stream_ended(_translated(error))
        else:
            self.stage = Stage.STREAMING
            if self._is_canceling():  # since it has begun to make this one
                self._stream_ended(None)
            elif self._buffer is not None:
                self._unread += len(chunk)
                self._buffer.deliver(chunk)

    def _stream_ended(self, error: BaseException | None) -> None:
        error = self._close_chunks() or error
        job, buffer = self.job, self._buffer
        self._note(error)
        if job.state is State.CANCELING or buffer is None:
            log_late(job, error)
            self._end(Event.STOP)
        elif error is None:
            self._end(Event.SUCCEED, None, buffer.finish, None)
        else:
            self._end(Event.FAIL, Reason.ERROR, buffer.finish, without_cause(error))

    def _note(self, error: BaseException | None) -> None:
        if isinstance(error, HandlerFailed):
            self._owner.run_failed(self, error)

    def _close_chunks(self) -> BaseException | None:
        """End the generator where it stands.

        :returns: what it raised.
        """
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            self.stage = Stage.EXECUTING
            try:
                chunks.close()
            except Exception as error:
                return _translated(error)
        return None

    def _end(
        self,
        event: Event,
        reason: Reason | None = None,
        tell: Callable[[Any], object] | None = None,
        what: object = None,
    ) -> None:
        """The code has ended.

        :param tell: called, when the job has ended, with ``what``.
        """
        self.stage = Stage.ENDED
        job = self.job
        job.body.close()
        self._owner.run_ended(self)
        job.end(event, self._now(), reason)
        if tell is not None:
            tell(what)
        self._owner.run_told(self)


def _is_stream(answer: Answer) -> bool:
    return type(answer.body) is not bytes and answer.length is None


def _translated(error: Any, failure: Failure | None = None) -> BaseException:
    """The error of a handler, as one of ours."""
    if isinstance(error, (HTTPError, HandlerFailed, BodyBroken, Canceled)):
        return error
    frames = error.__traceback__ if failure is None else failure.getTracebackObject()
    return HandlerFailed("".join(traceback.format_exception(type(error), error, frames)))
