"""One Call's run through a pool: the record that pool, dispatcher and web share.

The record keeps state, reason and times, and refuses an event that the life-cycle does not have.
It starts nothing and stops nothing: pools do, and tell it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from deferpost.lifecycle import ENDED, Event, advance
from deferpost.model import CallHead, Progress, Reason, Rung, State
from deferpost.progress import Noted, progress_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from deferpost.model import Answer

__all__ = ["DEFAULT_URGENCY", "Job"]

#: The urgency of a call that names none (RFC 9218, section 4.1).
DEFAULT_URGENCY = 3


class Job(msgspec.Struct, eq=False):
    """A Call's run, from its submission to the end of its code.

    Every method is for the reactor thread, but two that the worker's thread uses: it reads
    :attr:`canceled`, and calls :meth:`report`.  A thread worker also sets :attr:`started`.

    :param key: a number that no other job of this process has.
    :param head: the call without its body.
    :param body: the call's body, a file at its beginning or one that arrives
        (:class:`deferpost.interfaces.IArrivingBody`); whoever runs the job closes it.
    :param created: when it was submitted, in seconds of the monotonic clock.
    :param on_end: called once, with the job, when its code has ended.
    :param start_by: when it must have started, in seconds of the monotonic clock; None for no
        limit of its own.  One that is to be over by a time has to have started by then, too.
    :param urgency: 0 for the most urgent to 7 for the least (RFC 9218, section 4.1).
    :param retries: how often it may run again when its worker process was lost.
    :param held: bytes of its body that count against what its pool may hold.
    :param body_bytes: the size of its body; None where it is not known when it is submitted.
    :param permit: called on the reactor thread with the job when a worker has it, before its code
        begins, each time that it is to run.  It begins when the Deferred fires; where that fails,
        the job fails with its error.  None where nobody has to be asked.

    :ivar answer: the Deferred that :meth:`IWorkerPool.submit` returned, until it has fired.
    :ivar stop: set by the pool: ``stop(job, reason)`` climbs the cancel ladder.
    :ivar canceled: true from the moment at which nobody wants the result any more.
    :ivar status: the HTTP status that was sent, 499 where the client left first; None while its
        exchange with the client goes on.
    :ivar sent_bytes: how much of the body of its response was written; None until the exchange
        is over.
    :ivar worker: the name of the worker that has it, or had it, where its pool says so
        (:attr:`deferpost.model.WorkerStatus.name`).
    """

    key: int
    head: CallHead
    body: Any
    created: float
    on_end: Callable[[Job], None]
    start_by: float | None = None
    urgency: int = DEFAULT_URGENCY
    retries: int = 0
    held: int = 0
    body_bytes: int | None = None
    permit: Callable[[Job], Deferred[None]] | None = None
    status: int | None = None
    sent_bytes: int | None = None
    worker: str | None = None
    started: float | None = None
    ended: float | None = None
    state: State = State.QUEUED
    reason: Reason | None = None
    rung: Rung | None = None
    noted: Noted | None = None
    canceled: bool = False
    answer: Deferred[Answer] | None = None
    stop: Callable[[Job, Reason], None] | None = None

    def __post_init__(self) -> None:
        finish_by = self.head.finish_by
        if finish_by is not None and (self.start_by is None or finish_by < self.start_by):
            self.start_by = finish_by

    def __repr__(self) -> str:
        return f"<Job {self.head.id} {self.head.route} {self.state}>"

    @property
    def has_ended(self) -> bool:
        """Whether its code has ended, or never will start."""
        return self.state in ENDED

    @property
    def queue_seconds(self) -> float:
        """Seconds from its submission to its start, or to its end if it never started."""
        until = self.started if self.started is not None else self.ended
        return 0.0 if until is None else until - self.created

    def queue_so_far(self, now: float) -> float:
        """Seconds in the queue: until its start or its end without one, or until now.

        :param now: the time, in seconds of the monotonic clock.
        """
        return now - self.created if self.started is self.ended is None else self.queue_seconds

    def run_so_far(self, now: float) -> float:
        """Seconds that it has run: until its end, or until now.

        :param now: the time, in seconds of the monotonic clock.
        """
        if self.started is None:
            return 0.0
        return (self.ended if self.ended is not None else now) - self.started

    def report(self, done: Any, total: Any, message: Any) -> None:
        """Keep the newest progress.  On any thread: it is one assignment."""
        self.noted = (done, total, message)

    @property
    def progress(self) -> Progress | None:
        """How far its handler says that it is; None where it has said nothing that can be shown."""
        noted = self.noted
        return None if noted is None else progress_of(noted)

    def happened(self, event: Event, reason: Reason | None = None) -> None:
        """Take one event of the life-cycle.

        :param event: what happened.
        :param reason: why; the first reason that a job gets stays.
        :raises deferpost.lifecycle.ImpossibleEvent: it cannot happen in this state.
        """
        first = reason if self.reason is None else self.reason
        self.state = advance(self.state, event, first)
        self.reason = first

    def end(self, event: Event, now: float, reason: Reason | None = None) -> None:
        """Take the last event: the code has ended, or the job left the queue.

        :param event: the event.
        :param now: the time, in seconds of the monotonic clock.
        :param reason: why, where it did not succeed.
        """
        self.happened(event, reason)
        self.ended = now
        self.stop = None
        self.answer = None
        self.on_end(self)

    def cancel(self, reason: Reason) -> None:
        """Climb the cancel ladder of the pool that has this job; nothing if it has ended.

        :param reason: why.
        """
        if self.stop is not None and self.state is not State.CANCELING:
            self.stop(self, reason)
