"""What the parts of deferpost promise each other; the place to start for a pool of your own.

:mod:`deferpost.testing` has the behaviour suite that every :class:`IWorkerPool` passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
from zope.interface import Attribute, Interface

from deferpost.model import PoolStatus, Progress, Reason, State, WorkerStatus, WorkSource
from deferpost.records import (
    Accepted,
    HookAttempt,
    HookState,
    JobPage,
    JobRecord,
    NewJob,
    Outcome,
    StoredCall,
    StoredEvent,
    StoredResult,
)

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IPushProducer

    from deferpost.jobs import Job
    from deferpost.model import Answer

__all__ = [
    "IArrivingBody",
    "IBodySink",
    "IChunkSink",
    "IChunkSource",
    "IForeseeable",
    "IInspectable",
    "IJobObserver",
    "IJobStore",
    "IPoolPlan",
    "IWorkerPool",
    "PoolContext",
]


class IWorkerPool(Interface):
    """A started pool.  All its methods are called on the reactor thread and never block."""

    name = Attribute("The name by which routes ask for it.")

    def submit(job: Job) -> Deferred[Answer]:
        """Run a job, now or when a worker is free.

        Of those that wait, the one is next with the least ``created + urgency * ageing``; equals
        are served as they come.  One whose :attr:`~deferpost.jobs.Job.start_by` or ``finish_by``
        has passed does not start, and ends as expired; so does one that runs when its ``timeout``
        is over or its ``finish_by`` has passed.

        The pool closes ``job.body`` when it no longer needs it, and tells the job each event of
        its life-cycle, the last one when its code has ended.  The body is a binary file; of a
        route with ``stream=True`` it may be an :class:`IArrivingBody` instead, of which the
        handler gets a binary file whose reads wait for what arrives.

        :returns: a Deferred that fires with the answer as soon as there is one.  Where the body
            of the answer is a stream, the job goes on until the stream has ended.  It fails with
            :class:`~deferpost.errors.HTTPError` or :class:`~deferpost.errors.HandlerFailed` if
            the handler raised, :class:`~deferpost.errors.WorkerLost`,
            :class:`~deferpost.errors.DeadlineExceeded`, :class:`~deferpost.errors.ShuttingDown`
            or :class:`twisted.internet.defer.CancelledError`.  ``cancel()`` climbs the cancel
            ladder, as :meth:`deferpost.jobs.Job.cancel` does.
        :raises deferpost.errors.PoolFull: every worker is taken and the queue is at its bound.
        :raises deferpost.errors.PoolBroken: the pool has no worker and cannot start one.
        :raises deferpost.errors.ShuttingDown: the pool is stopping.
        """

    def status() -> PoolStatus:
        """How the pool is, at this moment."""

    def stop(patience: float) -> Deferred[int]:
        """Take nothing more, cancel what is left, and let the workers go.

        :param patience: seconds until what has not ended by itself is forced to, or left behind
            where it cannot be.
        :returns: a Deferred that fires with the number of workers left behind: threads whose
            handlers did not return.
        """


class IForeseeable(Interface):
    """A started pool that tells what it would do with a job, before there is one.

    An optional interface beside :class:`IWorkerPool`.  For the reactor thread.
    """

    def check() -> None:
        """Whether it runs anything now, however full it is.

        :raises deferpost.errors.PoolBroken: it has no worker and cannot start one.
        :raises deferpost.errors.ShuttingDown: it is stopping.
        """

    def ahead_of(urgency: int) -> int:
        """How many of the jobs that wait are sure to start before one that comes now.

        :param urgency: of that one (:attr:`deferpost.jobs.Job.urgency`).
        """


class IInspectable(Interface):
    """A started pool into which an operator can look.  For the reactor thread, as all of a pool."""

    def workers() -> list[WorkerStatus]:
        """Its workers at this moment, in an order that stays."""

    def stack(key: int) -> Deferred[str]:
        """Where the code of a running job stands.

        :param key: of the job (:attr:`deferpost.jobs.Job.key`).
        :returns: a Deferred that fires with its Python stack as lines of text, the most recent
            call last; or fails with :exc:`LookupError` if the job does not run here, or has ended
            meanwhile.
        """

    def restart(name: str) -> bool:
        """Have a new worker take the place of one: at once if it is idle, else after its job.

        :param name: of the worker (:attr:`deferpost.model.WorkerStatus.name`).
        :returns: whether there is one of that name that can be restarted.
        """


class IJobObserver(Interface):
    """Hears of what becomes of calls: for metrics, logs and pages.  For the reactor thread.

    What it raises is logged and stops nothing.
    """

    def job_done(job: Job) -> None:
        """A job is over in every way: its code has ended, and so has its exchange with the client.

        Its state, reason, rung and times are final, and :attr:`~deferpost.jobs.Job.status` is the
        status that was sent, or 499 where the client left first.
        """

    def refused(route: str, status: int, reason: str) -> None:
        """A call was turned away, so that there is no job of it.

        :param route: the route's path.
        :param status: of the response.
        :param reason: one word of the problem's ``reason``, or its status as text without one.
        """


@attrs.frozen(kw_only=True)
class PoolContext:
    """What a pool is started with.

    :ivar name: the pool's name.
    :ivar reactor: the reactor.
    :ivar source: the handlers of the routes that name this pool.
    :ivar now: the monotonic clock, in seconds; called on any thread.
    :ivar directory: where large bodies are kept; None for the system's choice.
    :ivar ageing: seconds in the queue that a step of urgency is worth.
    """

    name: str
    reactor: Any
    source: WorkSource
    now: Callable[[], float]
    directory: str | None = None
    ageing: float = 10.0


class IPoolPlan(Interface):
    """A pool that is not started: a description of one."""

    kind = Attribute("``thread``, ``process``, ``reactor`` or a word of your own.")

    def start(context: PoolContext) -> IWorkerPool:
        """Start it.  Called on the reactor thread, with the reactor running or about to."""


class IChunkSink(Interface):
    """Where a stream of chunks goes.  All calls are on the reactor thread."""

    def chunk(data: bytes) -> None:
        """One more piece; not called while the source is paused."""

    def end() -> None:
        """There are no more."""

    def fail(error: Exception) -> None:
        """The stream broke off: what was sent so far is not the whole."""


class IChunkSource(Interface):
    """A body that a worker is still making.  All calls are on the reactor thread."""

    def open(sink: IChunkSink, apart: bool = False) -> None:
        """Deliver to ``sink``, what has already come first.  Called once.

        :param apart: whether each chunk is delivered by itself, and ``sink.flush()`` is called
            behind the last of those that came together; else small ones that came quickly after
            each other may be delivered as one.
        """

    def pause() -> None:
        """Deliver nothing until :meth:`resume`; the worker is held back soon after."""

    def resume() -> None:
        """Deliver again."""

    def abandon(reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        """Nobody reads any more: cancel the job.  Nothing is delivered from now on."""

    def discard() -> None:
        """Nobody reads any more, but the job is to go on to its end: deliver nothing."""


class IBodySink(Interface):
    """Where the bytes of a request's body go as they arrive.  All calls are on the reactor thread.

    :meth:`open` comes first, then any number of :meth:`receive`, then one of :meth:`complete` and
    :meth:`broken`, unless the connection and the sink are given up together.
    """

    def open(flow: IPushProducer) -> None:
        """The body begins.  Called once, before anything else.

        :param flow: holds back the client: ``pauseProducing`` and ``resumeProducing`` are called,
            in turns, and the last of them is never a pause once the body is whole, broken or
            closed.  ``resumeProducing`` may call :meth:`receive` before it returns.
        """

    def receive(data: bytes) -> None:
        """A piece has arrived.

        It may come while the flow is paused: a bounded amount that had been read already.
        """

    def complete() -> None:
        """The body is whole."""

    def broken(error: Exception) -> None:
        """It will never be whole.

        :param error: why: :class:`~deferpost.errors.BodyBroken` where the client left,
            :class:`~deferpost.errors.BodyTooLarge` or an :class:`~deferpost.errors.HTTPError`
            where the body broke a limit or a rule.  If the handler lets what it is told pass, the
            job fails with this error.
        """


class IArrivingBody(IBodySink):
    """A body that arrives while its handler runs, as the pool sees it.

    All is for the reactor thread.  Like a file, it is closed by the pool of its job.
    """

    closed = Attribute("Whether nobody reads it any more.")
    error = Attribute("What :meth:`broken` was called with; None while it may become whole.")

    def deliver_to(sink: IChunkSink) -> None:
        """Deliver to ``sink`` what arrives, and what has already come first.  Called once.

        ``fail`` is called at once when the body breaks, also instead of pieces not delivered yet.
        """

    def pause() -> None:
        """Deliver nothing until :meth:`resume`; the client is held back soon after."""

    def resume() -> None:
        """Deliver again."""

    def close() -> None:
        """Nobody reads any more.

        What comes from now on is dropped, the client is not held back, and the sink is told
        nothing more.  Again is no error.
        """


@attrs.frozen
class BodyWanted:
    """How a resource wants the body of a request.

    :ivar limit: bytes that it may have; None for no limit.
    :ivar sink: where it goes as it comes (:class:`IBodySink`); None to have it kept, and
        ``render`` called when it is whole.
    """

    limit: int | None
    sink: Any = None


class IEarlyResource(Interface):
    """A resource that decides about a request when its head has come, before its body.

    A site of ours asks; on any other, ``render`` is all that is called.
    """

    def head_received(request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """The head of a request has come.  Called on the reactor thread.

        :param request: the request, without its body; it may be answered now.
        :param length: of the body, in bytes; None where it is chunked.
        :param whole: whether the body has come too: then ``render`` follows at once.
        :returns: how the body is wanted; None if the request has been answered, or will be
            without its body, which is dropped: ``render`` is not called.
        """


class IEarlyTree(Interface):
    """A resource that finds the resources below it by path alone."""

    def early_resource(segments: Sequence[bytes]) -> Any:
        """Find a resource.

        :param segments: of the path below this resource, as they were sent.
        :returns: a provider of :class:`IEarlyResource`; None if only a whole request tells.
        """


class IJobStore(Interface):
    """Keeps accepted jobs.  :mod:`deferpost.testing` has the behaviour suite of it.

    All methods are called on the reactor thread and never block; their Deferreds fire there.  What
    has fired is durable: it is there after a loss of power.  An operation that cannot be done
    because of the disk, or because what is on it is damaged, fails with
    :class:`deferpost.errors.StoreFailed`, and leaves everything as it was; a later one may succeed.
    So does one that comes while too much waits, but never :meth:`start`, :meth:`requeue`,
    :meth:`cancel` or :meth:`finish`.  Operations on one job take effect in the order in which they
    were asked for; a Deferred that is canceled takes nothing back.
    """

    def open() -> Deferred[Sequence[JobRecord]]:
        """Take possession of it; called first, and once.

        :returns: a Deferred of the jobs that have not ended, oldest first.
        :raises deferpost.errors.StoreFailed: as a failure: another process has it, it is damaged,
            or it was made by a later version.
        """

    def accept(job: NewJob, body: BinaryIO) -> Deferred[Accepted]:
        """Keep a new job with its body; its first event is its state.

        Where there is one already with its id, or else with its key in the same scope, nothing is
        kept, and that one is given, also if it has ended.  It is the same where both have a
        fingerprint, and these are equal.

        :param body: at its beginning; closed in any case, when it is not needed any more.
        """

    def start(id: str, at: float) -> Deferred[JobRecord | None]:
        """Note that a run is about to begin: it is counted, and an event tells of it.

        :returns: a Deferred of the record; None if the job was not queued, because it has ended or
            is to end: it must not run.
        """

    def requeue(id: str) -> Deferred[JobRecord | None]:
        """Note that a job is to run once more, because its worker was lost; one retry is used up.

        :returns: a Deferred of the record; None if the job did not run, because it has ended or is
            to end, or if it has no retry left: it must not run again.
        """

    def cancel(id: str, reason: Reason) -> Deferred[JobRecord | None]:
        """Note that a job that runs is to end; after a crash it is not run again.

        Nothing is noted of one that is queued, which can be ended at once: whoever cancels it takes
        it from its queue and calls :meth:`finish`, and tells nobody before that has fired.  After a
        crash in between it is queued as before, and its client, who was not told either, can cancel
        it again.  Where a job is to end already, its first reason stays.

        :returns: a Deferred of the record; None if it has ended, or is not there.
        """

    def tell(id: str, progress: Progress) -> Deferred[None]:
        """Note how far a job is, as an event; nothing if it has ended."""

    def write(id: str, data: bytes) -> Deferred[None]:
        """Append to the body of the result that a job, which runs, is going to have.  Not an event.

        Where the job starts again, what was written is dropped; so it is not durable before
        :meth:`finish`.  When one piece could not be written, the others cannot either, and
        :meth:`finish` without a body fails.

        :returns: a Deferred that fires when there is room for more: who writes waits for it.
        """

    def finish(id: str, outcome: Outcome, body: bytes | BinaryIO | None) -> Deferred[JobRecord]:
        """Note how a job has ended.  Where it had, that stays, and is what is given.

        :param body: of the result: bytes; a file, read from where it stands to its end and closed
            in any case; or None for what was written before.
        :returns: a Deferred of the record; it fails with :exc:`LookupError` where there is no such
            job.
        :raises ValueError: the state of the outcome is not a final one.
        """

    def get(id: str) -> Deferred[JobRecord | None]:
        """A job; None where there is none."""

    def keyed(scope: str, key: str) -> Deferred[JobRecord | None]:
        """The job with a key; None where there is none."""

    def call(id: str) -> Deferred[StoredCall | None]:
        """What it takes to run a job; None where it is not there or has ended."""

    def result(id: str) -> Deferred[StoredResult | None]:
        """The result of a job; None where it is not there or has not ended."""

    def events(id: str, after: int, most: int) -> Deferred[Sequence[StoredEvent]]:
        """Events of a job, in order.

        :param after: the number of the last one that is not wanted; 0 for all.
        :param most: how many to give.
        """

    def page(
        principal: str | None, states: frozenset[State], before: int | None, most: int
    ) -> Deferred[JobPage]:
        """Jobs, newest first.

        :param principal: whose; None for everybody's.
        :param states: those that are wanted; empty for all.
        :param before: ``next`` of the page before; None for the first.
        :param most: how many to give.
        """

    def delete(id: str) -> Deferred[bool]:
        """Forget a job that has ended, with all that belongs to it.

        :returns: a Deferred that says whether it was there, and had ended.
        """

    def clean(now: float, most: int) -> Deferred[int]:
        """Forget jobs whose time is over, those first that expired first.

        One whose webhook is still to be told is kept until that has been done or is given up.

        :param most: how many at most.
        :returns: a Deferred of how many were forgotten.
        """

    def hooks_due(now: float, most: int) -> Deferred[Sequence[JobRecord]]:
        """Jobs whose webhook is to be told by now, those first that are due first."""

    def next_hook() -> Deferred[float | None]:
        """When the next webhook is to be told; None where none is."""

    def hook_tried(
        id: str, attempt: HookAttempt, state: HookState, due: float | None
    ) -> Deferred[None]:
        """Note an attempt to tell a webhook, and what follows.

        :param state: how far it is now.
        :param due: when to try again; None where it is over.
        """

    def probe() -> Deferred[None]:
        """Try whether it can write, without changing anything that it keeps."""

    def authentic(id: str) -> bool:
        """Whether this store has made an id (:meth:`new_id`); so one that is not there has expired.

        Does not look at the disk.
        """

    def new_id() -> str:
        """An id that nobody can guess, and that no other job has.  After :meth:`open`."""

    def close() -> Deferred[None]:
        """End, when all that was asked for is done.  Called last."""
