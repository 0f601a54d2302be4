"""Pools for tests: one that runs each job at once, and one that runs them when the test says so.

Both run handlers on the calling thread, through the same :class:`~deferpost.model.WorkSource` and
with the same events as the pools that they stand for; what cannot be had on one thread is left
out: a plain handler cannot be interrupted, and is told to stop by ``call.canceled`` alone, also
where it stands for one in a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from deferpost.errors import HandlerFailed, PoolFull, ShuttingDown
from deferpost.interfaces import IChunkSink, IChunkSource, IPoolPlan, IWorkerPool, PoolContext
from deferpost.jobs import Job
from deferpost.model import Answer, PoolStatus, Reason, Rung
from deferpost.pools.deadlines import DeadlineWatch
from deferpost.pools.endings import answer_stopped, stop_event
from deferpost.pools.frames import WINDOW_BYTES
from deferpost.pools.line import Line
from deferpost.pools.streams import ChunkBuffer
from deferpost.testing.runs import Run, Stage

__all__ = ["InlinePool", "ManualPool", "RunningInlinePool", "RunningManualPool"]


class _LinePool:
    """The queue and the places of a pool that runs jobs on the calling thread.

    :param context: what every pool is started with; of the reactor, :class:`IReactorTime` is
        enough, so that a :class:`twisted.internet.task.Clock` will do.
    :param kind: what it stands for: ``thread``, ``process``, ``reactor`` or another word.
    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param window: bytes of a stream that may be unread before its handler is held back.
    :param tracebacks: takes what handlers raised, by the ids of their requests.
    :raises deferpost.errors.DeclarationError: it stands for processes, and one of its handlers is
        none that a process could find.
    """

    def __init__(
        self,
        context: PoolContext,
        kind: str,
        size: int,
        max_waiting: int,
        window: int,
        tracebacks: dict[str, str],
    ) -> None:
        if kind == "process":
            context.source.refs()
        self.name = context.name
        self._kind = kind
        self._reactor = context.reactor
        self._now = context.now
        self._source = context.source
        self._work = None if kind == "reactor" else context.source.work()
        self._size = size
        self._max_waiting = max_waiting
        self._window = window
        self._tracebacks = tracebacks
        self._waiting = Line(context.ageing)
        self._runs: dict[int, Run] = {}
        self._stopped: Deferred[int] | None = None
        self._out_of_patience: Any = None
        self._watch = DeadlineWatch(
            context.reactor,
            context.now,
            lambda: (run.job for run in self._runs.values()),
            lambda: bool(self._waiting),
            self._stop_job,
        )

    def submit(self, job: Job) -> Deferred[Answer]:
        """See :meth:`deferpost.interfaces.IWorkerPool.submit`."""
        if self._stopped is not None:
            raise ShuttingDown("the pool is stopping")
        if len(self._runs) + len(self._waiting) >= self._size + self._max_waiting:
            raise PoolFull(self.name)
        answer: Deferred[Answer] = Deferred(lambda _: self._stop_job(job, Reason.REQUESTED))
        job.answer = answer
        job.stop = self._stop_job
        self._waiting.put(job)
        self._watch.expect(job, job.created)
        self._fill()
        return answer

    def status(self) -> PoolStatus:
        """See :meth:`deferpost.interfaces.IWorkerPool.status`."""
        return PoolStatus(
            name=self.name,
            kind=self._kind,
            size=self._size,
            max_waiting=self._max_waiting,
            running=len(self._runs),
            waiting=len(self._waiting),
            stuck=sum(run.job.canceled for run in self._runs.values()),
            ready=self._stopped is None,
        )

    def stop(self, patience: float) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IWorkerPool.stop`."""
        stopped: Deferred[int] = Deferred()
        self._stopped = stopped
        self._watch.stop()
        self._out_of_patience = self._reactor.callLater(patience, self._force)
        for job in [*self._waiting, *(run.job for run in self._runs.values())]:
            self._stop_job(job, Reason.SHUTDOWN)
        self._stop_if_empty()
        return stopped

    def _force(self) -> None:
        """End what has not ended by itself; coroutines, which cannot be ended, are left behind."""
        for run in list(self._runs.values()):
            if run.stage in (Stage.TAKEN, Stage.ASKING, Stage.STREAMING):
                run.lose("stopped")
        self._fire()

    def _stop_if_empty(self) -> None:
        timer = self._out_of_patience
        if not self._runs and timer is not None and timer.active():
            timer.cancel()
            self._fire()

    def _fire(self) -> None:
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(len(self._runs))

    def _stop_job(self, job: Job, reason: Reason) -> None:
        """Climb the cancel ladder: take it from the queue, or tell it."""
        if self._waiting.remove(job):
            job.rung = Rung.REMOVED
            job.canceled = True
            job.body.close()
            answer_stopped(job, reason)
            job.end(stop_event(reason), self._now(), reason)
        elif job.key in self._runs:
            run = self._runs[job.key]
            run.stop(reason)
            self._was_told(run)

    def _take(self) -> Run:
        """Give the next job that waits a place."""
        job = self._waiting.take()
        run = self._runs[job.key] = Run(
            job, self._source, self._work, self._now, self, self._window, self._source_of
        )
        return run

    # What runs tell.

    def run_failed(self, run: Run, error: HandlerFailed) -> None:
        """See :class:`deferpost.testing.runs.Owner`."""
        self._tracebacks[run.job.head.id] = error.traceback

    def run_ended(self, run: Run) -> None:
        """See :class:`deferpost.testing.runs.Owner`."""
        del self._runs[run.job.key]

    def run_told(self, run: Run) -> None:
        """See :class:`deferpost.testing.runs.Owner`."""
        self._fill()
        self._stop_if_empty()

    # How the two pools differ.

    def _fill(self) -> None:
        """A job came, or a place is free."""

    def _was_told(self, run: Run) -> None:
        """A run was told to stop."""

    def _source_of(self, run: Run, buffer: ChunkBuffer) -> Any:
        """What the reader of a stream is given."""
        return buffer


@implementer(IWorkerPool)
class RunningInlinePool(_LinePool):
    """A started :class:`InlinePool`; see :class:`deferpost.interfaces.IWorkerPool`."""

    def __init__(
        self,
        context: PoolContext,
        kind: str,
        size: int,
        max_waiting: int,
        tracebacks: dict[str, str],
    ) -> None:
        super().__init__(context, kind, size, max_waiting, 1, tracebacks)
        self._filling = False

    def _fill(self) -> None:
        if self._filling:
            return  # further up the stack, which goes on
        self._filling = True
        try:
            while self._waiting and len(self._runs) < self._size:
                self._take().finish()
        finally:
            self._filling = False

    def _was_told(self, run: Run) -> None:
        run.finish()

    def _source_of(self, run: Run, buffer: ChunkBuffer) -> Any:
        return _PulledChunks(run, buffer)


@implementer(IChunkSource)
class _PulledChunks:
    """A stream whose handler makes the next chunk when the reader has taken the last.

    :param run: makes chunks.
    :param buffer: keeps the one that the reader has not taken.
    """

    def __init__(self, run: Run, buffer: ChunkBuffer) -> None:
        self._run = run
        self._buffer = buffer

    def open(self, sink: IChunkSink, apart: bool = False) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.open`."""
        self._buffer.open(sink, apart)
        self._run.finish()

    def pause(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.pause`."""
        self._buffer.pause()

    def resume(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.resume`."""
        self._buffer.resume()
        self._run.finish()

    def abandon(self, reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.abandon`."""
        self._buffer.abandon(reason)

    def discard(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSource.discard`."""
        self._buffer.discard()
        self._run.finish()


@implementer(IWorkerPool)
class RunningManualPool(_LinePool):
    """A started :class:`ManualPool`; see :class:`deferpost.interfaces.IWorkerPool`."""

    def __init__(
        self,
        context: PoolContext,
        kind: str,
        size: int,
        max_waiting: int,
        tracebacks: dict[str, str],
    ) -> None:
        super().__init__(context, kind, size, max_waiting, WINDOW_BYTES, tracebacks)

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that wait, the more urgent first, and of these the oldest."""
        return tuple(self._waiting)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The jobs that have a place, in the order in which they got it."""
        return tuple(self._runs.values())

    @property
    def has_place(self) -> bool:
        """Whether one more job can begin."""
        return len(self._runs) < self._size

    def begin(self) -> Run:
        """See :meth:`ManualPool.begin`."""
        if not self._waiting:
            raise AssertionError(f"no job waits in pool {self.name!r}")
        if not self.has_place:
            raise AssertionError(f"every place of pool {self.name!r} is taken: {self.runs}")
        return self._take()


@implementer(IPoolPlan)
@attrs.frozen(kw_only=True)
class InlinePool:
    """A plan for a pool that runs each job inside of ``submit``, on the calling thread.

    A plain handler has ended when ``submit`` returns.  A coroutine has run until it first waits.
    A generator makes each chunk when the reader takes it.

    :ivar kind: what it stands for: ``thread``, ``process`` (whose handlers are then to be found
        by name) or ``reactor`` (for coroutines).
    :ivar size: how many jobs, coroutines and streams that is, run at once.
    :ivar max_waiting: how many more may wait.
    :ivar tracebacks: what handlers raised, by the ids of their requests.
    """

    kind: str = "thread"
    size: int = 1000
    max_waiting: int = 1000
    tracebacks: dict[str, str] = attrs.field(factory=dict, eq=False, repr=False)

    def start(self, context: PoolContext) -> RunningInlinePool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        return RunningInlinePool(context, self.kind, self.size, self.max_waiting, self.tracebacks)

    def of_kind(self, kind: str) -> Self:
        """The same plan for another kind."""
        return attrs.evolve(self, kind=kind)


@implementer(IPoolPlan)
@attrs.frozen(kw_only=True)
class ManualPool:
    """A plan for pools whose jobs run when the test says so, on the calling thread.

    One may be started several times, as a client does for an app whose routes name several
    pools; what is said to it is then about the jobs of all.

    :ivar kind: what it stands for, as in :class:`InlinePool`.
    :ivar size: how many jobs run at once.
    :ivar max_waiting: how many more may wait.
    :ivar tracebacks: what handlers raised, by the ids of their requests.
    """

    kind: str = "thread"
    size: int = 4
    max_waiting: int = 1000
    tracebacks: dict[str, str] = attrs.field(factory=dict, eq=False, repr=False)
    _started: list[RunningManualPool] = attrs.field(factory=list, eq=False, repr=False)

    def start(self, context: PoolContext) -> RunningManualPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        pool = RunningManualPool(context, self.kind, self.size, self.max_waiting, self.tracebacks)
        self._started.append(pool)
        return pool

    def of_kind(self, kind: str) -> Self:
        """A plan for another kind, whose jobs this one knows too."""
        return attrs.evolve(self, kind=kind)

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that wait, oldest first."""
        return tuple(sorted((job for pool in self._started for job in pool.waiting), key=_age))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The jobs that have a place, oldest first."""
        runs = (run for pool in self._started for run in pool.runs)
        return tuple(sorted(runs, key=lambda run: _age(run.job)))

    def begin(self) -> Run:
        """Give the oldest job that waits its place, and run nothing of its handler yet.

        :returns: its run, by which the handler is run on or its worker lost.
        :raises AssertionError: no job waits, or every place is taken.
        """
        return self._oldest().begin()

    def step(self) -> Run:
        """Run the oldest job that waits: to its end, if neither reader nor Deferred holds it up.

        :returns: its run.
        :raises AssertionError: no job waits, or every place is taken.
        """
        run = self.begin()
        run.finish()
        return run

    def _oldest(self) -> RunningManualPool:
        able: Iterator[RunningManualPool] = (
            pool for pool in self._started if pool.waiting and pool.has_place
        )
        pools = sorted(able, key=lambda pool: _age(pool.waiting[0]))
        if not pools:
            why = f"every place is taken: {self.runs}" if self.waiting else "no job waits"
            raise AssertionError(why)
        return pools[0]


def _age(job: Job) -> tuple[float, int]:
    return job.created, job.key
