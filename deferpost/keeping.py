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

import io
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.backlog import Backlog, Waiting
from deferpost.dispatch import Dispatcher
from deferpost.errors import (
    DeadlineExceeded,
    HandlerFailed,
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
from deferpost.model import Answer, CallHead, Reason, Route, Rung, State
from deferpost.recording import StreamRecorder, Unclosed
from deferpost.records import (
    Accepted,
    JobPage,
    JobRecord,
    NewJob,
    Outcome,
    StoredCall,
    StoredEvent,
    StoredResult,
)

__all__ = ["Explain", "Keeper", "Kept", "Response"]

_log = Logger(namespace="deferpost.kept")

#: Seconds between two looks for progress that is to be told.
BEAT_SECONDS = 0.5

#: Seconds between two attempts of a store that could not write.
RETRY_SECONDS = 1.0

#: How often a store that is well may fail to finish what was streamed into it, before that is lost.
STREAM_MOST = 2

#: Seconds between two looks for jobs that are to be forgotten, and how many go at once.
CLEAN_SECONDS, CLEAN_MOST = 5.0, 500

#: How often a call is read before its job has failed: a store that is well may have lost its body.
READ_MOST = 10

#: Bytes of a body that may stay in memory until its job runs, and of how many jobs.
FRESH_BYTES, FRESH_MOST = 16 * 1024, 1000


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
    :ivar start_by: when it must have started, for the first time, or be over.
    :ivar finish_by: when it must be over.
    :ivar lane: where it waits; None once it has begun.
    :ivar job: its run; None while there is none.
    :ivar starting: whether the store is being told that a run of it begins.
    :ivar noted: whether the store has it as one that runs.
    :ivar began: whether the code of the run that is noted may have begun.
    :ivar unread: how often its call could not be read.
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
        "finish_by",
        "fresh",
        "grace",
        "id",
        "job",
        "lane",
        "noted",
        "promised",
        "request_id",
        "route",
        "same",
        "start_by",
        "starting",
        "stopped",
        "told",
        "unread",
        "urgency",
    )

    def __init__(self, record: JobRecord, *, promised: bool) -> None:
        self.id = record.id
        self.request_id = record.request_id
        self.route = record.route
        self.urgency = record.urgency
        self.created = record.created
        self.finish_by = record.finish_by
        points = (record.finish_by, None if record.attempt else record.start_by)
        self.start_by = min((each for each in points if each is not None), default=None)
        self.lane: _Lane | None = None
        self.job: Job | None = None
        self.starting = self.noted = self.began = False
        self.unread = 0
        self.stopped: Reason | None = None
        self.ending = False
        self.attached = 0
        self.promised = promised
        self.same: tuple[str, bytes] | None = None  # by which others that are the same find it
        self.told: Any = None  # of its progress, what was told last
        self.grace: Any = None  # the timer of a client that has left
        self.fresh: _Fresh | None = None

    @property
    def waiting(self) -> Waiting:
        """It, as its backlog knows it."""
        return Waiting(self.id, self.created, self.urgency, self.start_by)


class _Fresh(NamedTuple):
    """A small call that has just come, so that it need not be read to be run."""

    record: JobRecord
    head: CallHead
    data: bytes


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

    :param make_store: makes a store that is not opened
        (:class:`deferpost.interfaces.IJobStore`); again where one could not be.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param explain: makes a response of an error.
    :param report: logs the error of a job where others than its client can act.
    :param now: the monotonic clock, in seconds.
    :param wall: seconds since the epoch.
    :param max_kept: how many jobs may be here that have not ended.
    :param grace: seconds that a client who left has to come back with its key.
    :param ageing: seconds that a step of urgency is worth.
    """

    def __init__(
        self,
        make_store: Callable[[], Any],
        reactor: Any,
        explain: Explain,
        report: Callable[[BaseException, Job], None],
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        max_kept: int = 100_000,
        grace: float = 60.0,
        ageing: float = 10.0,
    ) -> None:
        self._make_store = make_store
        self._opened: Any = None
        self._reactor = reactor
        self._explain = explain
        self._report = report
        self._now = now
        self._wall = wall
        self._max_kept = max_kept
        self._grace = grace
        self._ageing = ageing
        self._dispatcher: Dispatcher | None = None
        self._routes: Mapping[str, Route] = {}
        self._kept: dict[str, Kept] = {}
        self._coming = 0  # on their way into the store
        self._fresh = 0  # jobs whose calls are in memory
        self._lanes: dict[str, _Lane] = {}
        self._running: dict[str, Kept] = {}
        self._waiters: dict[str, list[Deferred[JobRecord | None]]] = {}
        self._impatient: dict[Deferred[JobRecord | None], str] = {}
        self._same: dict[tuple[str, bytes], Deferred[Accepted]] = {}
        self._watchers: dict[str, dict[int, Callable[[], None]]] = {}
        self._numbers = itertools.count()  # of those who watch
        self._ailing = False
        self._feeding = True
        self._closing = False
        self._unrecorded = 0  # ends that are not in the store yet
        self._timers: dict[str, Any] = {}
        self._quiet: list[Deferred[None]] = []
        #: Called when a job with a webhook may have ended.
        self.hook_due: Callable[[], None] | None = None

    # The start and the end.

    async def open(self) -> int:
        """Open the store, and see to the jobs that were not over when it was closed.

        Those that ran at that moment run again if they may, and have failed if not.

        :returns: how many have not ended.
        :raises deferpost.errors.StoreFailed: it cannot be opened.
        """
        store = self._make_store()
        records = await store.open()
        self._opened = store
        for record in records:
            kept = Kept(record, promised=True)
            self._kept[kept.id] = kept
            if record.state is State.QUEUED:
                self._wait(kept, record.pool)
            else:
                self._spawn(self._recover(kept, record), kept)
        self._later("clean", CLEAN_SECONDS, self._clean)
        self._later("beat", BEAT_SECONDS, self._tell_progress)
        self._feed_all()
        return len(self._kept)

    @property
    def _store(self) -> Any:
        if self._opened is None:
            raise StoreFailed("the store is not open")
        return self._opened

    @property
    def is_open(self) -> bool:
        """Whether the store is open."""
        return self._opened is not None

    async def _recover(self, kept: Kept, record: JobRecord) -> None:
        """See to a job that ran when the process before this one ended."""
        if record.state is State.CANCELING:
            reason = record.reason or Reason.REQUESTED
            await self._end(kept, self._stopped_outcome(kept, reason, record.rung))
            return
        kept.noted = kept.began = True
        if record.retries > 0 and await self._requeued(kept):
            _log.warn(
                "[{job}] {route}: the daemon ended while it ran; it runs again",
                job=record.request_id,
                route=record.route,
            )
            self._wait(kept, record.pool, first=True)
        elif kept.stopped is not None:
            await self._end(kept, self._stopped_outcome(kept, kept.stopped, Rung.REMOVED))
        else:
            _log.error(
                "[{job}] {route}: the daemon ended while it ran; it is not run again",
                job=record.request_id,
                route=record.route,
            )
            error = WorkerLost("the daemon ended")
            await self._end(kept, self._outcome_of(kept, State.FAILED, Reason.WORKER_LOST, error))

    async def _requeued(self, kept: Kept) -> bool:
        """Have the store know that a job runs once more; it is tried until the store can.

        :returns: whether it may run again.
        """
        while True:
            try:
                record = await self._store.requeue(kept.id)
            except StoreFailed as error:
                if error.fatal or self._closing:
                    raise
                self._ail(error)
                await deferLater(self._reactor, RETRY_SECONDS)
                continue
            if record is None or kept.stopped is not None:
                return False
            kept.noted = kept.began = False
            self._changed(kept.id)
            return True

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
                    self._wait(self._kept[waiting.id], lane.name)
        self._feed_all()

    def stop_feeding(self) -> None:
        """Give nothing more to the pools: what waits is run by the process after this one.

        Those who wait for it on a connection are told.
        """
        self._feeding = False
        if "deadlines" in self._timers:
            self._stop_timer("deadlines")
        for waiter, id in list(self._impatient.items()):
            self._tired(id, waiter)
        for id in list(self._waiters):
            kept = self._kept.get(id)
            if kept is not None and kept.lane is not None and kept.job is None:
                self._disappoint(id, ShuttingDown("the service is stopping"))

    def _disappoint(self, id: str, error: Exception) -> None:
        """Tell those who wait for a job that they will not see its end."""
        for waiter in self._waiters.pop(id, ()):
            self._impatient.pop(waiter, None)
            waiter.errback(error)

    async def close(self) -> None:
        """End, when what has ended is recorded; the pools are stopped before.

        What the store cannot record now is, to the process after this one, a job that ran.
        """
        self.stop_feeding()
        self._closing = True
        for name in list(self._timers):
            self._stop_timer(name)
        for lane in self._lanes.values():
            if lane.pause is not None:
                lane.pause.cancel()
                lane.pause = None
        for id in list(self._waiters):
            kept = self._kept.get(id)
            if kept is None or not kept.ending:
                self._disappoint(id, ShuttingDown("the service is stopping"))
        for kept in self._kept.values():
            self._no_grace(kept)
        if self._unrecorded:
            quiet: Deferred[None] = Deferred()
            self._quiet.append(quiet)
            await quiet
        for id in list(self._waiters):
            self._disappoint(id, ShuttingDown("the service is stopping"))
        if self._opened is not None:
            await self._opened.close()

    def _recorded_one(self) -> None:
        """The end of a job is in the store, or will not be."""
        self._unrecorded -= 1
        if not self._unrecorded and self._quiet:
            quiet, self._quiet = self._quiet, []
            for each in quiet:
                each.callback(None)

    # New jobs.

    def check(self, size: int = 0) -> None:
        """Refuse one more job, where there is no room for it.

        :raises deferpost.errors.PoolFull: so many wait already.
        :raises deferpost.errors.StoreFailed: the store cannot write now.
        :raises deferpost.errors.ShuttingDown: it stops.
        """
        if not self._feeding:
            raise ShuttingDown("the service is stopping")
        if self._opened is None:
            raise StoreFailed("the store is not open")
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
        data = None
        if type(body) is io.BytesIO and body.getbuffer().nbytes <= FRESH_BYTES:
            data = body.getvalue()
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
            if data is not None and self._fresh < FRESH_MOST:
                self._fresh += 1
                kept.fresh = _Fresh(accepted.record, new.head, data)
            self._wait(kept, accepted.record.pool)
        return accepted

    async def accept_one_of(self, same: tuple[str, bytes], new: NewJob, body: BinaryIO) -> Accepted:
        """Keep a job, unless one that is the same is under way.

        :param same: what makes it the same: whose it is, and its fingerprint.
        :param new: the job.
        :param body: its body, which is closed in any case.
        :returns: as :meth:`accept`.
        """
        under_way = self._same.get(same)
        if under_way is None:
            accepting: Deferred[Accepted] = Deferred()
            self._same[same] = accepting
            try:
                accepted = await self.accept(new, body)
            except Exception:
                del self._same[same]
                accepting.errback()
                accepting.addErrback(lambda _: None)  # those that wait have been told
                raise
            kept = self._kept.get(accepted.record.id)
            if kept is None:
                del self._same[same]
            else:
                kept.same = same
            accepting.callback(accepted)
            return accepted
        body.close()
        first = await _another(under_way)
        kept = self._kept.get(first.record.id)
        record = first.record if kept is not None else await self.get(first.record.id)
        if record is None:
            raise StoreFailed("the job that was the same is not there any more")
        return Accepted(record, is_new=False)

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
        return msgspec.structs.replace(record, progress=progress)

    async def ended(self, id: str, seconds: float | None) -> JobRecord | None:
        """Wait until a job has ended, or the time is up.

        :param seconds: how long at most; it is less where no jobs are given to pools any more.
            None for as long as it takes.
        :returns: the job as it is then; None where there is none.
        :raises deferpost.errors.ShuttingDown: it was not over when all of this was.
        :raises deferpost.errors.StoreFailed: its end cannot be recorded, or not be read.
        """
        kept = self._kept.get(id)
        patient = seconds is None
        if kept is not None and patient and not kept.ending:
            waits = kept.lane is not None and kept.job is None
            if self._closing or (waits and not self._feeding):
                raise ShuttingDown("the service is stopping")
        if kept is not None and (patient or (seconds > 0 and self._feeding)):  # type: ignore[operator]  # it is a number
            waiter: Deferred[JobRecord | None] = Deferred()
            self._waiters.setdefault(id, []).append(waiter)
            timer = None
            if not patient:
                self._impatient[waiter] = id
                timer = self._reactor.callLater(seconds, self._tired, id, waiter)
            try:
                record = await waiter
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
                self._forget_waiter(id, waiter)
            if record is not None:
                return record
        return await self.get(id)

    def _tired(self, id: str, waiter: Deferred[JobRecord | None]) -> None:
        self._forget_waiter(id, waiter)
        waiter.callback(None)

    def _forget_waiter(self, id: str, waiter: Deferred[JobRecord | None]) -> None:
        self._impatient.pop(waiter, None)
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
        number = next(self._numbers)
        self._watchers.setdefault(id, {})[number] = heard

        def unwatch() -> None:
            watchers = self._watchers.get(id, {})
            if watchers.pop(number, None) is not None and not watchers:
                del self._watchers[id]

        return unwatch

    def _changed(self, id: str) -> None:
        for heard in list(self._watchers.get(id, {}).values()):
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

    @property
    def store(self) -> Any:
        """The open store (:class:`deferpost.interfaces.IJobStore`).

        :raises deferpost.errors.StoreFailed: it is not open.
        """
        return self._store

    def authentic(self, id: str) -> bool:
        """See :meth:`deferpost.interfaces.IJobStore.authentic`."""
        return self._opened is not None and bool(self._opened.authentic(id))

    def new_id(self) -> str:
        """See :meth:`deferpost.interfaces.IJobStore.new_id`."""
        return str(self._store.new_id())

    def queue_of(self, id: str) -> tuple[int, float | None] | None:
        """The place of a job in the queue, from 1, and when it is likely to start.

        :returns: None where it does not wait.  The time is in seconds since the epoch, and None
            where nothing was measured yet.
        """
        kept = self._kept.get(id)
        if kept is None or kept.lane is None:
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
            self._no_grace(kept)

    def _no_grace(self, kept: Kept) -> None:
        grace, kept.grace = kept.grace, None
        if grace is not None:
            grace.cancel()

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
        if keyed and self._closing:
            return  # its client may come back to the process after this one
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
        self._no_more_same(kept)
        lane = kept.lane
        if lane is not None and lane.backlog.remove(kept.id, kept.urgency):
            kept.lane = None
            await self._end(kept, self._stopped_outcome(kept, reason, Rung.REMOVED))
            return
        if kept.starting or kept.noted:
            try:
                await self._store.cancel(kept.id, reason)
            except StoreFailed as error:
                self._ail(error)  # it is canceled all the same
            self._changed(kept.id)
        if kept.job is not None:
            kept.job.cancel(reason)

    def _no_more_same(self, kept: Kept) -> None:
        """What comes now and is the same is a job of its own."""
        same, kept.same = kept.same, None
        if same is not None:
            del self._same[same]

    # Feeding the pools.

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._ageing)
        return lane

    def _wait(self, kept: Kept, pool: str, *, first: bool = False) -> None:
        """Have a job wait for its pool."""
        kept.job = None
        route = self._routes.get(kept.route)
        if route is None and self._dispatcher is not None:
            self._spawn(self._end(kept, self._gone_outcome(kept)), kept)
            return
        lane = self._lane(pool if route is None else route.pool)
        kept.lane = lane
        (lane.backlog.put_first if first else lane.backlog.put)(kept.waiting)
        if kept.start_by is not None:
            self._look_at_deadlines()
        if not self._feeding:
            self._disappoint(kept.id, ShuttingDown("the service is stopping"))
        self._feed(lane)

    def _feed_all(self) -> None:
        for lane in list(self._lanes.values()):
            self._feed(lane)

    def _feed(self, lane: _Lane) -> None:
        """Give the pool of a lane so much that none of its workers waits for the disk."""
        if (
            not self._feeding
            or self._opened is None
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

    def _back(
        self, kept: Kept, lane: _Lane, pause: float | None = None, *, first: bool = True
    ) -> None:
        """It could not be run now; it is the next, after a pause."""
        lane.ahead -= 1
        if pause is not None and self._feeding:
            self._pause(lane, pause)
        self._wait(kept, lane.name, first=first)
        self._feed(lane)  # which it may not have gone back to

    def _free(self, lane: _Lane) -> None:
        """One of those ahead of the workers is so no longer."""
        lane.ahead -= 1
        self._feed(lane)

    async def _give(self, kept: Kept, lane: _Lane, dispatcher: Dispatcher) -> None:
        """Give a job to its pool, and record how it ends."""
        route = self._routes.get(kept.route)
        if route is None:
            self._free(lane)
            await self._end(kept, self._gone_outcome(kept))
            return
        try:
            record, call = await self._fetched(kept)
        except StoreFailed as error:
            if await self._is_well():  # so that it is this one, or does not last
                kept.unread += 1
            else:
                self._ail(error)
            if kept.unread < READ_MOST and kept.stopped is None:
                self._back(kept, lane, RETRY_SECONDS, first=False)
                return
            if kept.stopped is not None:
                self._free(lane)
                await self._end(kept, self._stopped_outcome(kept, kept.stopped, Rung.REMOVED))
                return
            _log.error(
                "[{job}] {route}: its call cannot be read, and is not run: {error}",
                job=kept.request_id,
                route=kept.route,
                error=error.reason,
            )
            self._free(lane)
            await self._end(kept, self._outcome_of(kept, State.FAILED, Reason.ERROR, error))
            return
        if record is None or call is None or kept.stopped is not None:
            if call is not None:
                call.body.close()
            self._free(lane)
            if kept.stopped is not None:
                await self._end(kept, self._stopped_outcome(kept, kept.stopped, Rung.REMOVED))
            else:  # its end is in the store, though the store has said that it failed
                self._is_over(kept, record)
            return
        if not self._feeding or self._dispatcher is not dispatcher:
            call.body.close()
            self._back(kept, lane)
            return
        run = _Run(kept, lane, self._code_ended)
        ahead = self._now() - self._wall()  # of the clock that outlives a process
        finish_by = None if kept.finish_by is None else kept.finish_by + ahead
        try:
            job, answer = dispatcher.submit_kept(
                route.pool,
                msgspec.structs.replace(call.head, finish_by=finish_by),
                call.body,
                created=record.created + ahead,
                start_by=None if kept.start_by is None else kept.start_by + ahead,
                urgency=kept.urgency,
                retries=record.retries,
                permit=lambda job: self._asked(run, job),
                on_end=run.ended,
            )
        except (PoolFull, PoolBroken, ShuttingDown) as error:
            call.body.close()
            self._back(kept, lane, getattr(error, "retry_after", 1))
            return
        except Exception as error:
            _log.failure("[{job}] could not be given to its pool", job=kept.request_id)
            call.body.close()
            self._free(lane)
            await self._end(kept, self._outcome_of(kept, State.FAILED, Reason.ERROR, error))
            return
        job.body_bytes = record.body_bytes
        kept.job = job
        await self._see_through(run, answer)

    async def _fetched(self, kept: Kept) -> tuple[JobRecord | None, StoredCall | None]:
        """What it takes to run a job: from memory where it has just come, else from the store."""
        fresh = kept.fresh
        if fresh is not None:
            self._drop_fresh(kept)
            return fresh.record, StoredCall(fresh.head, io.BytesIO(fresh.data))
        record = await self._store.get(kept.id)
        return record, await self._store.call(kept.id)

    def _drop_fresh(self, kept: Kept) -> None:
        if kept.fresh is not None:
            kept.fresh = None
            self._fresh -= 1

    def _asked(self, run: _Run, job: Job) -> Deferred[None]:
        """A worker has a job, and asks whether its code may begin.

        :returns: a Deferred of the permission, which may be canceled: what the store has been told
            is known all the same.
        """
        answer: Deferred[None] = Deferred()
        run.asked = answer
        permitting: Deferred[None] = run.lock.run(
            lambda: Deferred.fromCoroutine(self._permit(run, answer))
        )
        permitting.addBoth(answer.callback)
        return answer

    async def _permit(self, run: _Run, answer: Deferred[None]) -> None:
        """Have the store know that a run begins, before the code of its handler does."""
        kept = run.kept
        run.permitted = False
        if not run.waits(answer):
            raise NotStarted("it was stopped before its code began")
        kept.starting = True
        try:
            if kept.began:  # its worker was lost
                if await self._store.requeue(kept.id) is None:
                    run.refused = True
                    raise NotStarted("it has no retry left")
                kept.noted = kept.began = False
            if not kept.noted:
                if await self._store.start(kept.id, self._wall()) is None:
                    run.refused = True
                    raise NotStarted("it has ended")
                kept.noted = True
        except StoreFailed as error:
            self._ail(error)
            raise NotStarted(error.reason) from None
        finally:
            kept.starting = False
        if not run.waits(answer):
            raise NotStarted("it was stopped, or its worker lost, before its code began")
        run.permitted = kept.began = True
        kept.start_by = kept.finish_by  # it has started in time
        kept.lane = None
        self._running[kept.id] = kept
        if run.is_ahead:
            run.is_ahead = False
            self._free(run.lane)
        self._changed(kept.id)

    def _code_ended(self) -> None:
        self._unrecorded += 1

    async def _see_through(self, run: _Run, answer: Deferred[Answer]) -> None:
        """Wait for the end of a job, and record it."""
        error: BaseException | None = None
        answered: Answer | None = None
        body: Any = b""
        try:
            answered = await answer
            body = answered.body
            if answered.length is None:
                recorder = StreamRecorder(self._store, run.kept.id, body)
                body = None
                await recorder.recorded()
        except Exception as failed:
            error = failed
            if isinstance(failed, StoreFailed):
                self._ail(failed)
        job = await run.over
        try:
            await run.lock.acquire()  # what the store has been told of it is known now
            await self._after(run, job, answered, body, error)
        finally:
            self._recorded_one()

    async def _after(
        self,
        run: _Run,
        job: Job,
        answered: Answer | None,
        body: Any,
        error: BaseException | None,
    ) -> None:
        """The code of a job has ended, or will not begin: record that, or have it wait again."""
        kept, lane = run.kept, run.lane
        self._running.pop(kept.id, None)
        if run.permitted and isinstance(error, NotStarted):
            kept.began = False  # its worker was lost when it was to begin
        if await self._runs_later(run, job, error):
            if run.is_ahead:
                self._back(kept, lane)
            else:
                self._wait(kept, lane.name, first=True)
            return
        if run.is_ahead:
            self._free(lane)
        if kept.stopped is None and self._outlives(job):
            # It is left as one that runs, so that the process after this one runs it again.
            self._disappoint(kept.id, ShuttingDown("the service is stopping"))
            return
        if error is None and answered is not None and job.state is State.SUCCEEDED:
            outcome = Outcome(
                state=State.SUCCEEDED,
                at=self._wall(),
                status=answered.status,
                headers=answered.headers,
                content_type=_content_type(answered.headers),
            )
            await self._end(kept, outcome, body, job)
            return
        if answered is not None and answered.length is not None:
            answered.close()
        state, reason = job.state, job.reason or Reason.ERROR
        if error is None:  # it was told to stop, and has answered all the same
            error = CancelledError()
        elif isinstance(error, StoreFailed):  # its result could not be recorded
            state, reason = State.FAILED, Reason.ERROR
        elif kept.stopped is not None and (isinstance(error, NotStarted) or self._outlives(job)):
            await self._end(kept, self._stopped_outcome(kept, kept.stopped, job.rung), b"", job)
            return
        elif isinstance(error, NotStarted) and kept.began:
            error, reason = WorkerLost("it has no retry left"), Reason.WORKER_LOST
        if state is State.SUCCEEDED:  # but what it gave was not whole
            state = State.FAILED
        self._report(error, job)
        await self._end(kept, self._outcome_of(kept, state, reason, error, job.rung), b"", job)

    async def _runs_later(self, run: _Run, job: Job, error: BaseException | None) -> bool:
        """Whether a job is still to run, from its beginning."""
        kept = run.kept
        if kept.stopped is not None or run.refused:
            return False
        if isinstance(error, NotStarted):
            return True
        if not kept.began:
            return isinstance(error, WorkerLost) or job.reason is Reason.SHUTDOWN
        if self._feeding and self._outlives(job):  # its pool was stopped, and there is another
            return await self._requeued(kept)
        return False

    def _outlives(self, job: Job) -> bool:
        """Whether a job that was canceled with its pool may run once more."""
        return job.state is State.CANCELED and job.reason is Reason.SHUTDOWN and job.retries > 0

    # The end of jobs.

    async def _end(
        self, kept: Kept, outcome: Outcome, body: Any = b"", job: Job | None = None
    ) -> None:
        """Record how a job has ended; it is tried until the store can."""
        kept.ending = True
        kept.lane = None
        self._unrecorded += 1
        self._drop_fresh(kept)
        self._no_more_same(kept)
        self._no_grace(kept)
        try:
            record = await self._recorded(kept, outcome, body)
        except Exception as error:
            self._kept.pop(kept.id, None)
            told = StoreFailed("the end of the job cannot be recorded")
            self._disappoint(kept.id, told)
            self._changed(kept.id)
            if not isinstance(error, StoreFailed):
                raise
            _log.error(
                "[{job}] {route}: that it has ended ({state}) cannot be recorded: {error}",
                job=kept.request_id,
                route=kept.route,
                state=str(outcome.state),
                error=error.reason,
            )
        else:
            if job is not None and self._dispatcher is not None:
                job.sent_bytes = record.result_bytes
                status = outcome.status if record.status is None else record.status
                self._dispatcher.responded(job, status)
            self._is_over(kept, record)
        finally:
            kept.ending = False
            self._recorded_one()

    def _is_over(self, kept: Kept, record: JobRecord | None) -> None:
        """A job has ended, and the store has it so: tell those who wait."""
        self._kept.pop(kept.id, None)
        for waiter in self._waiters.pop(kept.id, ()):
            self._impatient.pop(waiter, None)
            waiter.callback(record)
        self._changed(kept.id)
        if record is not None and record.hook is not None and self.hook_due is not None:
            self.hook_due()

    async def _recorded(self, kept: Kept, outcome: Outcome, body: Any) -> JobRecord:
        if outcome.problem is not None:
            body = outcome.problem
        if body is None or isinstance(body, bytes):
            return await self._finish(kept, outcome, body)
        try:
            return await self._finish(kept, outcome, Unclosed(body))
        finally:
            body.close()

    async def _finish(self, kept: Kept, outcome: Outcome, body: Any) -> JobRecord:
        failed = 0
        while True:
            try:
                record: JobRecord = await self._store.finish(kept.id, outcome, body)
                return record
            except Exception as error:
                what: Exception | None = None
                if isinstance(body, Unclosed) and body.error is not None:
                    what = HandlerFailed(f"the file that it gave cannot be read: {body.error}")
                elif not isinstance(error, StoreFailed):
                    raise
                else:
                    self._ail(error)
                    if error.fatal or self._closing:
                        raise
                    await deferLater(self._reactor, RETRY_SECONDS)
                    if body is None and await self._is_well():
                        failed += 1
                        if failed > STREAM_MOST:
                            what = error  # what was written of it is lost
                if what is not None:
                    _log.error(
                        "[{job}] {route}: its result is lost: {error}",
                        job=kept.request_id,
                        route=kept.route,
                        error=str(what),
                    )
                    outcome = self._outcome_of(kept, State.FAILED, Reason.ERROR, what)
                    body = outcome.problem
                elif isinstance(body, Unclosed):
                    body.again()

    async def _is_well(self) -> bool:
        try:
            await self._store.probe()
        except StoreFailed:
            return False
        return True

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
            until = kept.start_by if reason is Reason.DEADLINE_QUEUE else kept.finish_by
            limit = self._wall() if until is None else until
            error = DeadlineExceeded(round(limit - kept.created, 3), reason)
        return self._outcome_of(kept, state, reason, error, rung)

    def _gone_outcome(self, kept: Kept) -> Outcome:
        error = HTTPError(404, "The route of this job is not there any more.")
        return self._outcome_of(kept, State.FAILED, Reason.ERROR, error)

    # What goes on by itself.

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if self._closing:
            return
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
                is_last = kept.finish_by is not None and kept.finish_by <= now
                reason = Reason.DEADLINE_TOTAL if is_last else Reason.DEADLINE_QUEUE
                kept.stopped = reason
                outcome = self._stopped_outcome(kept, reason, Rung.REMOVED)
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

        def failed(failure: Failure) -> None:
            text = "[{job}] a kept job could not be seen to"
            if isinstance(failure.value, StoreFailed):
                why = failure.value.reason
                _log.error(f"{text}: {{error}}", job=kept.request_id, error=why)
            else:
                _log.failure(text, failure=failure, job=kept.request_id)

        Deferred.fromCoroutine(work).addErrback(failed)

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

    :ivar lock: held while the store is told that its code begins.
    :ivar asked: what the worker waits for that asked last whether its code may begin.
    :ivar permitted: whether the worker that asked last was permitted to begin.
    :ivar refused: whether it must not run any more.
    :ivar is_ahead: whether it counts among those ahead of the workers.
    :ivar over: fires with the job when its code has ended.
    """

    __slots__ = (
        "_code_ended",
        "asked",
        "is_ahead",
        "kept",
        "lane",
        "lock",
        "over",
        "permitted",
        "refused",
    )

    def __init__(self, kept: Kept, lane: _Lane, code_ended: Callable[[], None]) -> None:
        self.kept = kept
        self.lane = lane
        self._code_ended = code_ended
        self.lock = DeferredLock()
        self.asked: Deferred[None] | None = None
        self.permitted = self.refused = False
        self.is_ahead = True
        self.over: Deferred[Job] = Deferred()

    def waits(self, answer: Deferred[None]) -> bool:
        """Whether a worker still waits for this answer, and is to begin."""
        return (
            not answer.called
            and answer is self.asked
            and not self.over.called
            and self.kept.stopped is None
        )

    def ended(self, job: Job) -> None:
        """Its code has ended."""
        self._code_ended()
        self.over.callback(job)


def _another(deferred: Deferred[Accepted]) -> Deferred[Accepted]:
    """A Deferred of its own that fires as another does, which stays as it is."""
    another: Deferred[Accepted] = Deferred()

    def fired(result: Any) -> Any:
        (another.errback if isinstance(result, Failure) else another.callback)(result)
        return result

    deferred.addBoth(fired)
    return another


def _content_type(headers: tuple[tuple[bytes, bytes], ...]) -> str | None:
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.decode("latin-1")
    return None
