"""What the parts of deferpost promise each other; the place to start for a pool of your own.

:mod:`deferpost.testing` has the behaviour suite that every :class:`IWorkerPool` passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from zope.interface import Attribute, Interface

from deferpost.model import PoolStatus, Reason, WorkSource

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from deferpost.jobs import Job
    from deferpost.model import Answer

__all__ = ["IChunkSink", "IChunkSource", "IPoolPlan", "IWorkerPool", "PoolContext"]


class IWorkerPool(Interface):
    """A started pool.  All its methods are called on the reactor thread and never block."""

    name = Attribute("The name by which routes ask for it.")

    def submit(job: Job) -> Deferred[Answer]:
        """Run a job, now or when a worker is free; first come, first served.

        The pool closes ``job.body`` when it no longer needs it, and tells the job each event of
        its life-cycle, the last one when its code has ended.

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


@attrs.frozen(kw_only=True)
class PoolContext:
    """What a pool is started with.

    :ivar name: the pool's name.
    :ivar reactor: the reactor.
    :ivar source: the handlers of the routes that name this pool.
    :ivar now: the monotonic clock, in seconds; called on any thread.
    :ivar directory: where large bodies are kept; None for the system's choice.
    """

    name: str
    reactor: Any
    source: WorkSource
    now: Callable[[], float]
    directory: str | None = None


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

    def open(sink: IChunkSink) -> None:
        """Deliver to ``sink``, what has already come first.  Called once."""

    def pause() -> None:
        """Deliver nothing until :meth:`resume`; the worker is held back soon after."""

    def resume() -> None:
        """Deliver again."""

    def abandon(reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        """Nobody reads any more: cancel the job.  Nothing is delivered from now on."""

    def discard() -> None:
        """Nobody reads any more, but the job is to go on to its end: deliver nothing."""
