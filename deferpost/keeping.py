"""Kept jobs: durable before they are promised, given to their pools in turn, recorded at their end.

The keeper stands between a store, which keeps jobs and runs none, and the dispatcher, which runs
jobs and keeps none.  A job waits here, in its pool's backlog, with a few of each pool in the queue
of the pool itself, so that no worker waits for the disk.  That a run begins is on disk before the
code of its handler begins: what was queued at a crash runs after it, and what ran does not run
again unless its route asks for that.

It decides nothing about HTTP: what a result looks like is said by a function that it is given.
For the reactor thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from deferpost.backlog import Backlog, Waiting
from deferpost.dispatch import Dispatcher
from deferpost.errors import (
    DeadlineExceeded,
    HTTPError,
    NotStarted,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StoreFailed,
    WorkerLost,
)
from deferpost.jobs import Job
from deferpost.lifecycle import DEADLINES, ENDED
from deferpost.model import Answer, Reason, Route, Rung, State
from deferpost.recording import StreamRecorder, Unclosed
from deferpost.records import (
    Accepted,
    JobPage,
    JobRecord,
    NewJob,
    Outcome,
    StoredEvent,
    StoredResult,
)

__all__ = ["Explain", "Keeper", "Kept", "Response"]

_log = Logger(namespace="deferpost.kept")

#: Seconds between two looks for progress that is to be told.
BEAT_SECONDS = 0.5

#: Seconds between two attempts of a store that could not write.
RETRY_SECONDS = 1.0

#: Seconds between two looks for jobs that are to be forgotten, and how many go at once.
CLEAN_SECONDS, CLEAN_MOST = 5.0, 500


class Response(Protocol):
    """What an error is as a response: of ``deferpost.web``, which this must not know."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Header fields, its media type among them."""

    @property
    def body(self) -> bytes:
        """A problem document."""


#: Makes a response of an error, for the request with an id.
Explain = Callable[[BaseException, str], Response]


class Kept:
    """A kept job that has not ended, as far as this process knows it.

    :ivar id: its id.
    :ivar request_id: the id of the request that brought it.
    :ivar route: its route.
    :ivar urgency: 0 for the most urgent to 7 for the least.
    :ivar lane: where it waits; None once it has begun.
    :ivar job: its run; None while there is none.
    :ivar began: whether this process has begun to run it.
    :ivar stopped: why it is to end; None while it is not.
    :ivar ending: whether its outcome is known, and on its way to the store.
    :ivar attached: how many clients wait for it on a connection.
    :ivar promised: whether a client has been told where it finds it.
    """

    __slots__ = (
        "attached",
        "began",
        "created",
        "ending",
        "grace",
        "id",
        "job",
        "lane",
        "promised",
        "request_id",
        "route",
        "start_by",
        "stopped",
        "told",
        "urgency",
    )

    def __init__(self, record: JobRecord, *, promised: bool) -> None:
        self.id = record.id
        self.request_id = record.request_id
        self.route = record.route
        self.urgency = record.urgency
        self.created = record.created
        self.start_by = record.start_by
        self.lane: _Lane | None = None
        self.job: Job | None = None
        self.began = False
        self.stopped: Reason | None = None
        self.ending = False
        self.attached = 0
        self.promised = promised
        self.told: Any = None  # of its progress, what was told last
        self.grace: Any = None  # the timer of a client that has left

    @property
    def waiting(self) -> Waiting:
        """It, as its backlog knows it."""
        return Waiting(self.id, self.created, self.urgency, self.start_by)


class _Lane:
    """What waits for one pool.

    :ivar backlog: those that wait here.
    :ivar size: how many jobs its pool runs at once; 0 where there is no such pool.
    :ivar ahead: those that were given to the pool and have not begun.
    :ivar pause: the timer after which to try again; None while nothing speaks against it.
    """

    __slots__ = ("ahead", "backlog", "name", "pause", "size")

    def __init__(self, name: str, ageing: float) -> None:
        self.name = name
        self.backlog = Backlog(ageing)
        self.size = 0
        self.ahead = 0
        self.pause: Any = None


class Keeper:
    """Keeps jobs, has them run, and records how they end.

    :param store: where (:class:`deferpost.interfaces.IJobStore`), not opened.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param explain: makes a response of an error.
    :param now: the monotonic clock, in seconds.
    :param wall: seconds since the epoch.
    :param max_kept: how many jobs may be here that have not ended.
    :param grace: seconds that a client who left has to come back with its key.
    :param ageing: seconds that a step of urgency is worth.
    """

    def __init__(
        self,
        store: Any,
        reactor: Any,
        explain: Explain,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        max_kept: int = 100_000,
        grace: float = 60.0,
        ageing: float = 10.0,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._explain = explain
        self._now = now
        self._wall = wall
        self._max_kept = max_kept
        self._grace = grace
        self._ageing = ageing
        self._dispatcher: Dispatcher | None = None
        self._routes: Mapping[str, Route] = {}
        self._kept: dict[str, Kept] = {}
        self._coming = 0  # on their way into the store
        self._lanes: dict[str, _Lane] = {}
        self._running: dict[str, Kept] = {}
        self._waiters: dict[str, list[Deferred[JobRecord | None]]] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._ailing = False
        self._feeding = True
        self._timers: dict[str, Any] = {}
        self._quiet: list[Deferred[None]] = []
        self._opened = False
        #: Called when a job with a webhook may have ended.
        self.hook_due: Callable[[], None] | None = None

    # The start and the end.

    async def open(self) -> int:
        """Open the store, and see to the jobs that were not over when it was closed.

        Those that ran at that moment run again if they may, and have failed if not.

        :returns: how many wait to be run.
        :raises deferpost.errors.StoreFailed: it cannot be opened.
        """
        records = await self._store.open()
        self._opened = True
        for record in records:
            kept = Kept(record, promised=True)
            self._kept[kept.id] = kept
            if record.state is State.QUEUED:
                self._wait(kept, record.pool)
            else:
                await self._recover(kept, record)
        self._later("clean", CLEAN_SECONDS, self._clean)
        self._later("beat", BEAT_SECONDS, self._tell_progress)
        self._feed_all()
        return len(self._kept)

    async def _recover(self, kept: Kept, record: JobRecord) -> None:
        """See to a job that ran when the process before this one ended."""
        if record.state is State.CANCELING:
            reason = record.reason or Reason.REQUESTED
            await self._end(kept, self._stopped_outcome(kept, reason, record.rung))
        elif record.retries > 0 and await self._store.requeue(record.id) is not None:
            _log.warn(
                "[{job}] {route}: the daemon ended while it ran; it runs again",
                job=record.request_id,
                route=record.route,
            )
            self._wait(kept, record.pool, first=True)
        else:
            _log.error(
                "[{job}] {route}: the daemon ended while it ran; it is not run again",
                job=record.request_id,
                route=record.route,
            )
            error = WorkerLost("the daemon ended")
            await self._end(kept, self._outcome_of(kept, State.FAILED, Reason.WORKER_LOST, error))

    def serve(self, dispatcher: Dispatcher, routes: Mapping[str, Route]) -> None:
        """Have jobs run there from now on; what runs elsewhere ends there.

        :param dispatcher: of started pools.
        :param routes: the routes by their names.
        """
        self._dispatcher = dispatcher
        self._routes = routes
        sizes = {status.name: status.size for status in dispatcher.statuses()}
        for lane in self._lanes.values():
            lane.size = sizes.get(lane.name, 0)
        for name, size in sizes.items():
            self._lane(name).size = size
        for lane in list(self._lanes.values()):
            if lane.size == 0:  # the routes of what waits here have another pool, or are gone
                while (waiting := lane.backlog.take()) is not None:
                    kept = self._kept[waiting.id]
                    route = routes.get(kept.route)
                    if route is None:
                        self._spawn(self._end(kept, self._gone_outcome(kept)), kept)
                    else:
                        self._wait(kept, route.pool)
        self._feed_all()

    def stop_feeding(self) -> None:
        """Give nothing more to the pools: what waits is run by the process after this one."""
        self._feeding = False
        for name in list(self._timers):
            if name == "deadlines":
                self._stop_timer(name)

    async def close(self) -> None:
        """End, when what has ended is recorded; the pools are stopped before."""
        self.stop_feeding()
        for name in list(self._timers):
            self._stop_timer(name)
        for lane in self._lanes.values():
            if lane.pause is not None and lane.pause.active():
                lane.pause.cancel()
        for kept in self._kept.values():
            if kept.grace is not None and kept.grace.active():
                kept.grace.cancel()
        if any(kept.ending for kept in self._kept.values()):
            quiet: Deferred[None] = Deferred()
            self._quiet.append(quiet)
            await quiet
        waiters, self._waiters = self._waiters, {}
        for each in waiters.values():
            for waiter in each:
                waiter.errback(ShuttingDown("the service is stopping"))
        await self._store.close()

    # New jobs.

    def check(self, size: int = 0) -> None:
        """Refuse one more job, where there is no room for it.

        :raises deferpost.errors.PoolFull: so many wait already.
        :raises deferpost.errors.StoreFailed: the store cannot write now.
        :raises deferpost.errors.ShuttingDown: it stops.
        """
        if not self._feeding or not self._opened:
            raise ShuttingDown("the service is stopping")
        if self._ailing:
            raise StoreFailed("the store could not write a moment ago")
        if len(self._kept) + self._coming >= self._max_kept:
            raise PoolFull("kept", 5)

    async def accept(self, new: NewJob, body: BinaryIO) -> Accepted:
        """Keep a job, unless there is one with its id or key already.

        :param new: the job.
        :param body: its body, which is closed in any case.
        :returns: what the store says, when it is durable.
        :raises deferpost.errors.DeferPostError: as of :meth:`check`, and what the store says.
        """
        try:
            self.check()
        except BaseException:
            body.close()
            raise
        self._coming += 1
        try:
            accepted: Accepted = await self._store.accept(new, body)
        except StoreFailed as error:
            self._ail(error)
            raise
        finally:
            self._coming -= 1
        if accepted.is_new:
            kept = Kept(accepted.record, promised=False)
            self._kept[kept.id] = kept
            self._wait(kept, accepted.record.pool)
        return accepted

    # What clients ask.

    async def get(self, id: str) -> JobRecord | None:
        """A job as it is now; None where there is none."""
        record: JobRecord | None = await self._store.get(id)
        return None if record is None else self._live(record)

    def _live(self, record: JobRecord) -> JobRecord:
        """A record with what is newer than the store's word."""
        kept = self._kept.get(record.id)
        job = None if kept is None else kept.job
        progress = None if job is None else job.progress
        if progress is None or record.state in ENDED:
            return record
        live: JobRecord = _replaced(record, progress=progress)
        return live

    async def ended(self, id: str, seconds: float) -> JobRecord | None:
        """Wait until a job has ended, or the time is up.

        :param seconds: how long at most.
        :returns: the job as it is then; None where there is none.
        """
        kept = self._kept.get(id)
        if kept is not None and seconds > 0:
            waiter: Deferred[JobRecord | None] = Deferred()
            self._waiters.setdefault(id, []).append(waiter)
            timer = self._reactor.callLater(seconds, self._tired, id, waiter)
            try:
                record = await waiter
            finally:
                if timer.active():
                    timer.cancel()
                self._forget_waiter(id, waiter)
            if record is not None:
                return record
        return await self.get(id)

    def _tired(self, id: str, waiter: Deferred[JobRecord | None]) -> None:
        self._forget_waiter(id, waiter)
        waiter.callback(None)

    def _forget_waiter(self, id: str, waiter: Deferred[JobRecord | None]) -> None:
        waiters = self._waiters.get(id)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[id]

    def watch(self, id: str, heard: Callable[[], None]) -> Callable[[], None]:
        """Be told each time that there are new events of a job, and when it has ended.

        :param heard: called without arguments.
        :returns: what is called to hear no more; again is no error.
        """
        self._watchers.setdefault(id, []).append(heard)

        def unwatch() -> None:
            watchers = self._watchers.get(id)
            if watchers is not None and heard in watchers:
                watchers.remove(heard)
                if not watchers:
                    del self._watchers[id]

        return unwatch

    def _changed(self, id: str) -> None:
        for heard in list(self._watchers.get(id, ())):
            heard()

    def events(self, id: str, after: int, most: int) -> Deferred[Sequence[StoredEvent]]:
        """See :meth:`deferpost.interfaces.IJobStore.events`."""
        events: Deferred[Sequence[StoredEvent]] = self._store.events(id, after, most)
        return events

    def result(self, id: str) -> Deferred[StoredResult | None]:
        """See :meth:`deferpost.interfaces.IJobStore.result`."""
        result: Deferred[StoredResult | None] = self._store.result(id)
        return result

    async def page(
        self, principal: str | None, states: frozenset[State], before: int | None, most: int
    ) -> JobPage:
        """See :meth:`deferpost.interfaces.IJobStore.page`."""
        page: JobPage = await self._store.page(principal, states, before, most)
        return JobPage(tuple(map(self._live, page.records)), page.next)

    def delete(self, id: str) -> Deferred[bool]:
        """See :meth:`deferpost.interfaces.IJobStore.delete`."""
        deleted: Deferred[bool] = self._store.delete(id)
        return deleted

    def authentic(self, id: str) -> bool:
        """See :meth:`deferpost.interfaces.IJobStore.authentic`."""
        return bool(self._store.authentic(id))

    def new_id(self) -> str:
        """See :meth:`deferpost.interfaces.IJobStore.new_id`."""
        return str(self._store.new_id())

    def queue_of(self, id: str) -> tuple[int, float | None] | None:
        """The place of a job in the queue, from 1, and when it is likely to start.

        :returns: None where it does not wait.  The time is in seconds since the epoch, and None
            where nothing was measured yet.
        """
        kept = self._kept.get(id)
        if kept is None or kept.began or kept.lane is None:
            return None
        lane = kept.lane
        before = lane.backlog.position(id, kept.urgency)
        position = lane.ahead + before if before is not None else max(1, lane.ahead)
        dispatcher = self._dispatcher
        seconds = None if dispatcher is None else dispatcher.wait_of(lane.name, position)
        return position, None if seconds is None else self._wall() + seconds

    def retry_after(self, id: str) -> int:
        """Seconds after which it is worth asking for a job again, from 1 to 60."""
        found = self.queue_of(id)
        if found is None or found[1] is None:
            return 1
        return max(1, min(60, int(found[1] - self._wall()) + 1))

    # Clients that wait on a connection.

    def attach(self, id: str) -> None:
        """A client waits for the end of a job on its connection."""
        kept = self._kept.get(id)
        if kept is not None:
            kept.attached += 1
            if kept.grace is not None:
                kept.grace.cancel()
                kept.grace = None

    def detach(self, id: str, *, promised: bool, cancel: bool, keyed: bool) -> None:
        """It waits no more.

        :param promised: whether it was told where the job is: then that goes on.
        :param cancel: whether a job that nobody waits for is to be canceled.
        :param keyed: whether the client may come back with a key, within the grace.
        """
        kept = self._kept.get(id)
        if kept is None:
            return
        kept.attached -= 1
        kept.promised = kept.promised or promised
        if kept.promised or kept.attached > 0 or not cancel or kept.ending:
            return
        if keyed and self._grace > 0:
            kept.grace = self._reactor.callLater(self._grace, self._abandoned, kept)
        else:
            self._abandoned(kept)

    def _abandoned(self, kept: Kept) -> None:
        kept.grace = None
        self._spawn(self._cancel(kept, Reason.CLIENT_DISCONNECTED), kept)

    # Canceling.

    async def cancel(self, id: str, reason: Reason = Reason.REQUESTED) -> JobRecord | None:
        """End a job; one that has ended stays as it is.

        :returns: the job, which is canceling where its code runs on; None where there is none.
        """
        kept = self._kept.get(id)
        if kept is not None:
            await self._cancel(kept, reason)
        return await self.get(id)

    async def _cancel(self, kept: Kept, reason: Reason) -> None:
        if kept.stopped is not None or kept.ending:
            return
        kept.stopped = reason
        lane = kept.lane
        if lane is not None and lane.backlog.remove(kept.id, kept.urgency):
            kept.lane = None
            await self._end(kept, self._stopped_outcome(kept, reason, Rung.REMOVED))
            return
        if kept.began:
            try:
                await self._store.cancel(kept.id, reason)
            except StoreFailed as error:
                self._ail(error)  # it is canceled all the same
            self._changed(kept.id)
        if kept.job is not None:
            kept.job.cancel(reason)

    # Feeding the pools.

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._ageing)
        return lane

    def _wait(self, kept: Kept, pool: str, *, first: bool = False) -> None:
        """Have a job wait for its pool."""
        route = self._routes.get(kept.route)
        lane = self._lane(pool if route is None else route.pool)
        kept.lane = lane
        kept.job = None
        (lane.backlog.put_first if first else lane.backlog.put)(kept.waiting)
        if kept.start_by is not None:
            self._look_at_deadlines()
        self._feed(lane)

    def _feed_all(self) -> None:
        for lane in list(self._lanes.values()):
            self._feed(lane)

    def _feed(self, lane: _Lane) -> None:
        """Give the pool of a lane so much that none of its workers waits for the disk."""
        if (
            not self._feeding
            or not self._opened
            or self._ailing
            or self._dispatcher is None
            or lane.pause is not None
        ):
            return
        while lane.ahead < lane.size and (waiting := lane.backlog.take()) is not None:
            kept = self._kept[waiting.id]
            lane.ahead += 1
            self._spawn(self._give(kept, lane, self._dispatcher), kept)

    def _pause(self, lane: _Lane, seconds: float) -> None:
        if lane.pause is None:
            lane.pause = self._reactor.callLater(seconds, self._paused, lane)

    def _paused(self, lane: _Lane) -> None:
        lane.pause = None
        self._feed(lane)

    def _back(self, kept: Kept, lane: _Lane, pause: float | None) -> None:
        """It could not be run now; it is the next, after a pause."""
        lane.ahead -= 1
        if pause is not None:
            self._pause(lane, pause)
        self._wait(kept, lane.name, first=True)

    async def _give(self, kept: Kept, lane: _Lane, dispatcher: Dispatcher) -> None:
        """Give a job to its pool, and record how it ends."""
        route = self._routes.get(kept.route)
        if route is None:
            lane.ahead -= 1
            await self._end(kept, self._gone_outcome(kept))
            return
        try:
            call = await self._store.call(kept.id)
        except StoreFailed as error:
            self._ail(error)
            self._back(kept, lane, RETRY_SECONDS)
            return
        if call is None or kept.stopped is not None:
            lane.ahead -= 1
            if call is not None:
                call.body.close()
                assert kept.stopped is not None
                await self._end(kept, self._stopped_outcome(kept, kept.stopped, Rung.REMOVED))
            return
        run = _Run(kept, lane)
        ahead = self._now() - self._wall()  # of the clock that outlives a process
        record = await self._store.get(kept.id)
        try:
            if record is None:
                raise NotStarted("it is not there any more")
            job, answer = dispatcher.submit_kept(
                route.pool,
                _replaced(
                    call.head,
                    finish_by=None if record.finish_by is None else record.finish_by + ahead,
                ),
                call.body,
                created=record.created + ahead,
                start_by=None if record.start_by is None else record.start_by + ahead,
                urgency=kept.urgency,
                retries=record.retries,
                permit=lambda job: Deferred.fromCoroutine(self._permit(run, job)),
                on_end=run.ended,
            )
        except (PoolFull, PoolBroken, ShuttingDown) as error:
            call.body.close()
            self._back(kept, lane, getattr(error, "retry_after", 1) if self._feeding else None)
            return
        job.body_bytes = record.body_bytes
        kept.job = job
        if kept.stopped is not None:
            job.cancel(kept.stopped)
        await self._see_through(run, answer)

    async def _permit(self, run: _Run, job: Job) -> None:
        """A worker has a job: have the store know before its code begins."""
        kept = run.kept
        if kept.stopped is not None:
            raise NotStarted("it is canceled")
        try:
            if run.began and await self._store.requeue(kept.id) is None:
                raise NotStarted("it has ended")
            if await self._store.start(kept.id, self._wall()) is None:
                raise NotStarted("it has ended")
        except StoreFailed as error:
            self._ail(error)
            raise NotStarted(error.reason) from None
        if not run.began:
            run.began = kept.began = True
            self._begun(run)
        self._running[kept.id] = kept
        self._changed(kept.id)

    def _begun(self, run: _Run) -> None:
        """It is no longer ahead of the workers."""
        if run.is_ahead:
            run.is_ahead = False
            run.lane.ahead -= 1
            self._feed(run.lane)

    async def _see_through(self, run: _Run, answer: Deferred[Answer]) -> None:
        """Wait for the end of a job, and record it."""
        kept = run.kept
        error: BaseException | None = None
        answered: Answer | None = None
        body: Any = b""
        try:
            answered = await answer
            body = answered.body
            if answered.length is None:
                recorder = StreamRecorder(self._store, kept.id, body)
                body = None
                await recorder.recorded()
        except GeneratorExit:  # the process ends
            raise
        except BaseException as failed:
            error = failed
            if isinstance(failed, StoreFailed):
                self._ail(failed)
        job = await run.over
        self._running.pop(kept.id, None)
        if run.is_ahead:
            run.is_ahead = False
            run.lane.ahead -= 1
        if not run.began and self._runs_later(kept, job, error):
            self._wait(kept, run.lane.name, first=True)
            return
        if job.state is State.CANCELED and job.reason is Reason.SHUTDOWN and job.retries > 0:
            return  # it is left as one that runs, so that the process after this one runs it again
        if error is None and answered is not None and job.state is State.SUCCEEDED:
            outcome = Outcome(
                state=State.SUCCEEDED,
                at=self._wall(),
                status=answered.status,
                headers=answered.headers,
                content_type=_content_type(answered.headers),
            )
            await self._end(kept, outcome, body, job)
        else:
            state = job.state
            if error is None:  # it was told to stop, and has answered all the same
                error = CancelledError()
            if state is State.SUCCEEDED:  # but could not be recorded
                state = State.FAILED
            reason = job.reason or Reason.ERROR
            await self._end(kept, self._outcome_of(kept, state, reason, error, job.rung), b"", job)

    def _runs_later(self, kept: Kept, job: Job, error: BaseException | None) -> bool:
        """Whether a job whose code has not begun is still to run."""
        if kept.stopped is not None:
            return False
        return isinstance(error, (NotStarted, WorkerLost)) or job.reason is Reason.SHUTDOWN

    # The end of jobs.

    async def _end(
        self, kept: Kept, outcome: Outcome, body: Any = b"", job: Job | None = None
    ) -> None:
        """Record how a job has ended; it is tried until the store can."""
        kept.ending = True
        if kept.grace is not None:
            kept.grace.cancel()
            kept.grace = None
        if outcome.problem is not None:
            body = outcome.problem
        file = None if body is None or isinstance(body, bytes) else Unclosed(body)
        try:
            record = await self._finish(kept, outcome, body if file is None else file)
        finally:
            if file is not None:
                body.close()
            self._kept.pop(kept.id, None)
            kept.ending = False
            if not any(each.ending for each in self._kept.values()) and self._quiet:
                quiet, self._quiet = self._quiet, []
                for each in quiet:
                    each.callback(None)
        if job is not None and self._dispatcher is not None:
            job.sent_bytes = record.result_bytes
            self._dispatcher.responded(job, outcome.status)
        for waiter in self._waiters.pop(kept.id, ()):
            waiter.callback(record)
        self._changed(kept.id)
        if record.hook is not None and self.hook_due is not None:
            self.hook_due()

    async def _finish(self, kept: Kept, outcome: Outcome, body: Any) -> JobRecord:
        while True:
            try:
                record: JobRecord = await self._store.finish(kept.id, outcome, body)
                return record
            except StoreFailed as error:
                self._ail(error)
                if error.fatal:
                    raise
                if isinstance(body, Unclosed):
                    body.again()
                await deferLater(self._reactor, RETRY_SECONDS)

    def _outcome_of(
        self,
        kept: Kept,
        state: State,
        reason: Reason,
        error: BaseException,
        rung: Rung | None = None,
    ) -> Outcome:
        response = self._explain(error, kept.request_id)
        return Outcome(
            state=state,
            at=self._wall(),
            status=response.status,
            headers=response.headers,
            reason=reason,
            rung=rung,
            content_type=_content_type(response.headers),
            problem=response.body,
        )

    def _stopped_outcome(self, kept: Kept, reason: Reason, rung: Rung | None) -> Outcome:
        state = State.CANCELED
        error: BaseException = CancelledError()
        if reason in DEADLINES:
            state = State.EXPIRED
            error = DeadlineExceeded(round(self._wall() - kept.created, 3), reason)
        return self._outcome_of(kept, state, reason, error, rung)

    def _gone_outcome(self, kept: Kept) -> Outcome:
        error = HTTPError(404, "The route of this job is not there any more.")
        return self._outcome_of(kept, State.FAILED, Reason.ERROR, error)

    # What goes on by itself.

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._reactor.callLater(seconds, call)

    def _stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name)
        if timer.active():
            timer.cancel()

    def _look_at_deadlines(self) -> None:
        """Have one timer for the job that is over its time next."""
        nexts = [lane.backlog.next_deadline for lane in self._lanes.values()]
        due = min((each for each in nexts if each is not None), default=None)
        timer = self._timers.get("deadlines")
        if due is None or not self._feeding:
            return
        seconds = max(0.0, due - self._wall())
        if timer is not None and timer.active():
            if timer.getTime() <= self._reactor.seconds() + seconds:
                return
            timer.cancel()
        self._later("deadlines", seconds, self._expire)

    def _expire(self) -> None:
        now = self._wall()
        for lane in self._lanes.values():
            for waiting in lane.backlog.overdue(now):
                kept = self._kept[waiting.id]
                kept.lane = None
                kept.stopped = Reason.DEADLINE_QUEUE
                outcome = self._stopped_outcome(kept, Reason.DEADLINE_QUEUE, Rung.REMOVED)
                self._spawn(self._end(kept, outcome), kept)
        self._look_at_deadlines()

    def _tell_progress(self) -> None:
        self._later("beat", BEAT_SECONDS, self._tell_progress)
        for kept in list(self._running.values()):
            job = kept.job
            if job is None or job.noted is kept.told or self._ailing:
                continue
            kept.told = job.noted
            progress = job.progress
            if progress is not None:
                self._spawn(self._tell(kept, progress), kept)

    async def _tell(self, kept: Kept, progress: Any) -> None:
        try:
            await self._store.tell(kept.id, progress)
        except StoreFailed as error:
            self._ail(error)
        else:
            self._changed(kept.id)

    def _clean(self) -> None:
        cleaning: Deferred[int] = self._store.clean(self._wall(), CLEAN_MOST)

        def cleaned(count: int) -> None:
            if "clean" in self._timers:  # else it is over
                self._later("clean", 0.0 if count >= CLEAN_MOST else CLEAN_SECONDS, self._clean)

        def failed(failure: Any) -> None:
            if not isinstance(failure.value, StoreFailed):
                _log.failure("expired jobs could not be forgotten", failure=failure)
            cleaned(0)

        cleaning.addCallbacks(cleaned, failed)

    def _ail(self, error: StoreFailed) -> None:
        """The store could not write: take nothing, and give nothing to the pools, until it can."""
        if self._ailing:
            return
        self._ailing = True
        _log.error("the store of jobs cannot write: {error}", error=error.reason)
        if not error.fatal:
            self._later("probe", RETRY_SECONDS, self._probe)

    def _probe(self) -> None:
        """Look whether the store can write again."""

        def well(_: object) -> None:
            self._ailing = False
            _log.info("the store of jobs can write again")
            self._feed_all()

        def ill(failure: Any) -> None:
            if not isinstance(failure.value, StoreFailed):
                _log.failure("the store of jobs could not be tried", failure=failure)
            self._later("probe", RETRY_SECONDS, self._probe)

        probing: Deferred[None] = self._store.probe()
        probing.addCallbacks(well, ill)

    def _spawn(self, work: Any, kept: Kept) -> None:
        """Have something go on by itself; a defect of it is logged."""
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: _log.failure(
                "[{job}] a kept job could not be seen to", failure=failure, job=kept.request_id
            )
        )

    @property
    def unended(self) -> int:
        """How many jobs have not ended."""
        return len(self._kept)

    @property
    def ailing(self) -> bool:
        """Whether the store cannot write."""
        return self._ailing


class _Run:
    """One time that a job was given to a pool.

    :ivar began: whether its code has been permitted to begin.
    :ivar is_ahead: whether it counts among those ahead of the workers.
    :ivar over: fires with the job when its code has ended.
    """

    __slots__ = ("began", "is_ahead", "kept", "lane", "over")

    def __init__(self, kept: Kept, lane: _Lane) -> None:
        self.kept = kept
        self.lane = lane
        self.began = False
        self.is_ahead = True
        self.over: Deferred[Job] = Deferred()

    def ended(self, job: Job) -> None:
        """Its code has ended."""
        self.over.callback(job)


def _replaced(value: Any, **changes: Any) -> Any:
    """A frozen value with some of its fields changed."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    return type(value)(**{**fields, **changes})


def _content_type(headers: tuple[tuple[bytes, bytes], ...]) -> str | None:
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.decode("latin-1")
    return None
