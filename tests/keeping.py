"""A keeper with a store in memory, and a pool whose workers do what the test says."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, BinaryIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.dispatch import Dispatcher
from deferpost.errors import NotStarted, PoolFull, ShuttingDown, StoreFailed, WorkerLost
from deferpost.interfaces import IWorkerPool
from deferpost.jobs import Job
from deferpost.keeping import Keeper
from deferpost.lifecycle import DEADLINES, Event
from deferpost.model import Answer, CallHead, PoolStatus, Reason, Route, Rung, State
from deferpost.pools.streams import ChunkBuffer
from deferpost.records import Accepted, JobRecord, KeyOf, NewJob, StoredResult
from deferpost.store.memory import MemoryStore
from deferpost.web.kept import response_of

#: The time at which the tests begin, in seconds since the epoch.
EPOCH = 1_700_000_000.0


@implementer(IWorkerPool)
class WorkerPool:
    """A pool with a queue, whose workers take jobs by themselves; the test says what comes of them.

    :param size: how many run at once.
    :param max_waiting: how many more may wait.

    :ivar waiting: those that wait.
    :ivar asking: what those wait for that have a worker and were not permitted to begin yet.
    :ivar running: those whose code has begun.
    :ivar begun: the ids of the requests whose code has begun, each time that it has.
    :ivar refusal: what is raised instead of taking a job.
    """

    def __init__(self, name: str, clock: Clock, size: int = 1, max_waiting: int = 100) -> None:
        self.name = name
        self._clock = clock
        self.size = size
        self.max_waiting = max_waiting
        self.waiting: list[Job] = []
        self.asking: dict[int, tuple[Job, Deferred[None]]] = {}
        self.running: list[Job] = []
        self.begun: list[str] = []
        self.refusal: Exception | None = None
        self.is_stopped = False

    def submit(self, job: Job) -> Deferred[Answer]:
        if self.refusal is not None:
            raise self.refusal
        if self.is_stopped:
            raise ShuttingDown("the pool is stopping")
        if len(self.waiting) + self._busy >= self.size + self.max_waiting:
            raise PoolFull(self.name)
        answer: Deferred[Answer] = Deferred()
        job.answer, job.stop = answer, self._stop
        self.waiting.append(job)
        self._fill()
        return answer

    def status(self) -> PoolStatus:
        return PoolStatus(
            name=self.name,
            kind="fake",
            size=self.size,
            max_waiting=self.max_waiting,
            running=self._busy,
            waiting=len(self.waiting),
            stuck=0,
            ready=True,
        )

    def stop(self, patience: float = 0.0) -> Deferred[int]:
        self.is_stopped = True
        asking = [job for job, _ in self.asking.values()]
        for job in [*self.waiting, *asking, *self.running]:
            job.cancel(Reason.SHUTDOWN)
        stopped: Deferred[int] = Deferred()
        stopped.callback(self._busy)
        return stopped

    @property
    def _busy(self) -> int:
        return len(self.asking) + len(self.running)

    def _fill(self) -> None:
        while self.waiting and self._busy < self.size and not self.is_stopped:
            job = self.waiting.pop(0)
            job.started = self._clock.seconds()
            job.happened(Event.START)
            if job.permit is None:
                self._begin(job)
                continue
            asking = job.permit(job)
            self.asking[job.key] = job, asking
            asking.addCallbacks(
                self._permitted,
                self._refused,
                callbackArgs=(job, asking),
                errbackArgs=(job, asking),
            )

    def _begin(self, job: Job) -> None:
        self.running.append(job)
        self.begun.append(job.head.id)

    def _is_asking(self, job: Job, asking: Deferred[None]) -> bool:
        found = self.asking.get(job.key)
        if found is None or found[1] is not asking:
            return False  # its worker was lost meanwhile
        del self.asking[job.key]
        return True

    def _permitted(self, _: None, job: Job, asking: Deferred[None]) -> None:
        if self._is_asking(job, asking):
            if job.state is State.RUNNING:
                self._begin(job)
            else:
                self._over(job, Event.STOP)

    def _refused(self, failure: Failure, job: Job, asking: Deferred[None]) -> None:
        if self._is_asking(job, asking):
            error = failure.value
            assert isinstance(error, Exception)
            if job.state is State.CANCELING:
                self._over(job, Event.STOP)
            else:
                self._over(job, Event.FAIL, Reason.ERROR, error)

    def _stop(self, job: Job, reason: Reason) -> None:
        job.canceled = True
        event = Event.EXPIRE if reason in DEADLINES else Event.CANCEL
        answer, job.answer = job.answer, None
        if job in self.waiting:
            self.waiting.remove(job)
            job.rung = Rung.REMOVED
            job.body.close()
            job.end(event, self._clock.seconds(), reason)
        else:
            job.rung = Rung.TOLD
            job.happened(event, reason)
            if job.key in self.asking:
                self.asking[job.key][1].cancel()
        if answer is not None:
            is_end = reason is Reason.SHUTDOWN
            answer.errback(ShuttingDown("stopping") if is_end else CancelledError())

    def _over(
        self,
        job: Job,
        event: Event,
        reason: Reason | None = None,
        outcome: Answer | Exception | None = None,
    ) -> None:
        if job in self.running:
            self.running.remove(job)
        job.body.close()
        answer = job.answer
        job.end(event, self._clock.seconds(), reason)
        if answer is not None:
            if isinstance(outcome, Answer):
                answer.callback(outcome)
            else:
                answer.errback(outcome)
        self._fill()

    # What the test says.

    def give(
        self, body: Any = b"result", length: int | None = None, job: Job | None = None
    ) -> None:
        """The code of a job, by default the oldest that runs, has ended with an answer."""
        job = self.running[0] if job is None else job
        if job.state is State.CANCELING:
            self._over(job, Event.STOP)
            return
        length = len(body) if isinstance(body, bytes) else length
        answer = Answer(200, ((b"Content-Type", b"text/plain"),), body, length)
        self._over(job, Event.SUCCEED, None, answer)

    def fail(self, error: Exception, job: Job | None = None) -> None:
        """The code of a job has ended with an error."""
        job = self.running[0] if job is None else job
        canceling = job.state is State.CANCELING
        event = Event.STOP if canceling else Event.FAIL
        self._over(job, event, None if canceling else Reason.ERROR, error)

    def end_canceled(self) -> None:
        """The code of those has ended that were told to."""
        for job in [each for each in self.running if each.state is State.CANCELING]:
            self._over(job, Event.STOP)

    def stream(self, job: Job | None = None) -> ChunkBuffer:
        """The answer of a job begins."""
        job = self.running[0] if job is None else job
        answer, job.answer = job.answer, None
        buffer = ChunkBuffer(abandoned=job.cancel)
        assert answer is not None
        answer.callback(Answer(200, ((b"Content-Type", b"text/plain"),), buffer, None))
        return buffer

    def end_stream(
        self, buffer: ChunkBuffer, job: Job | None = None, error: Exception | None = None
    ) -> None:
        """The stream and the code of a job have ended."""
        job = self.running[0] if job is None else job
        if job.state is State.CANCELING:
            self._over(job, Event.STOP)
        elif error is None:
            self._over(job, Event.SUCCEED)
        else:
            self._over(job, Event.FAIL, Reason.ERROR)
        buffer.finish(error)

    def lose(self) -> None:
        """The worker of the oldest job that has one is lost."""
        job = next(iter([*self.running, *(asking for asking, _ in self.asking.values())]))
        if job.key in self.asking:
            del self.asking[job.key]
            canceling = job.state is State.CANCELING
            error = NotStarted("its worker was lost before")
            self._over(job, Event.STOP if canceling else Event.FAIL, Reason.ERROR, error)
        elif job.state is State.CANCELING:
            self._over(job, Event.STOP)
        elif job.retries and job.answer is not None:
            self.running.remove(job)
            job.retries -= 1
            job.happened(Event.RETRY)
            job.started = None
            self.waiting.insert(0, job)
            self._fill()
        else:
            self._over(job, Event.FAIL, Reason.WORKER_LOST, WorkerLost("signal 9"))


class Store(MemoryStore):
    """A store of which single operations fail, or take until the test says so.

    :ivar failing: the names of operations that fail.
    :ivar asked: the names of those that were asked for, in order.
    :ivar is_fatal: whether they fail for ever.
    """

    def __init__(self, reactor: Any, now: Callable[[], float]) -> None:
        super().__init__(reactor, now)
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self._holding: tuple[str, ...] = ()
        self._held: list[Callable[[], None]] = []
        self.is_fatal = False

    def _named(self, name: str, call: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        self.asked.append(name)
        if name in self.failing:
            before = self.failure
            self.failure = StoreFailed(f"{name} fails", fatal=self.is_fatal)
            try:
                answer = call()
            finally:
                self.failure = before
        else:
            answer = call()
        if name not in self._holding:
            return answer
        told: Deferred[None] = Deferred()
        later: Deferred[Any] = Deferred()

        def done(outcome: Any) -> None:  # which nobody may ever be told
            told.addCallback(lambda _: later.callback(outcome))

        answer.addBoth(done)
        self._held.append(lambda: told.callback(None))
        return later

    def hold(self, *names: str) -> None:
        """Do not tell what has become of these operations, by default all, until :meth:`go_on`."""
        self._holding = names or OPERATIONS

    def go_on(self) -> None:
        """Tell what was held back, and hold nothing back any more."""
        self._holding = ()
        held, self._held = self._held, []
        for tell in held:
            tell()

    def reopened(self, reactor: Any) -> Store:
        """The store as the process after this one finds it."""
        other = Store(reactor, self._now)
        other._jobs, other._by_key = self._jobs, self._by_key
        other._numbers, other._ids = self._numbers, self._ids
        return other


def _named(name: str) -> Any:
    def operation(self: Store, *args: Any) -> Deferred[Any]:
        return self._named(name, lambda: getattr(MemoryStore, name)(self, *args))

    return operation


OPERATIONS = (
    *("open", "accept", "start", "requeue", "cancel", "tell", "write", "finish", "get", "call"),
    *("result", "delete", "clean", "probe"),
)

for _name in OPERATIONS:
    setattr(Store, _name, _named(_name))


def route(path: str = "/rst", pool: str = "a", **fields: Any) -> Route:
    """A route of a pool of these tests."""
    return Route(path=path, handler=None, pool=pool, **fields)


class Observer:
    """Hears of jobs that are over."""

    def __init__(self) -> None:
        self.heard: list[tuple[State, int | None]] = []

    def job_done(self, job: Job) -> None:
        self.heard.append((job.state, job.status))

    def refused(self, route: str, status: int, reason: str) -> None:
        raise NotImplementedError


class Bench:
    """A keeper, its store, and a dispatcher with the pools ``a`` and ``b``.

    :ivar reports: the errors that were reported.
    """

    def __init__(
        self,
        *,
        size: int = 1,
        max_waiting: int = 100,
        routes: tuple[Route, ...] = (),
        store: Store | None = None,
        clock: Clock | None = None,
        is_open: bool = True,
        is_served: bool = True,
        **options: Any,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.store = Store(self.clock, self.wall) if store is None else store
        self.reports: list[BaseException] = []
        self.observer = Observer()
        self.keeper = Keeper(
            lambda: self.store,
            self.clock,
            response_of,
            lambda error, job: self.reports.append(error),
            now=self.clock.seconds,
            wall=self.wall,
            **options,
        )
        self.size, self.max_waiting = size, max_waiting
        self.routes: Mapping[str, Route] = {each.path: each for each in routes or (route(),)}
        if is_served:
            self.serve()
        self._count = 0
        if is_open:
            self.run(self.keeper.open())

    def wall(self) -> float:
        return EPOCH + self.clock.seconds()

    def serve(self, *routes: Route, pools: tuple[str, ...] = ("a", "b")) -> None:
        """Serve with new pools, as after a reload."""
        if routes:
            self.routes = {each.path: each for each in routes}
        self.pools = {
            name: WorkerPool(name, self.clock, self.size, self.max_waiting) for name in pools
        }
        self.dispatcher = Dispatcher(self.pools, self.clock.seconds, self.observer)
        self.keeper.serve(self.dispatcher, self.routes)

    @property
    def pool(self) -> WorkerPool:
        return self.pools["a"]

    # The clock.

    def turn(self, seconds: float = 0.0) -> None:
        """Let what is due happen, and what follows from it at once."""
        self.clock.advance(seconds)
        for _ in range(30):
            self.clock.advance(0)

    def start(self, work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Begin something."""
        return Deferred.fromCoroutine(work)

    def run(self, work: Coroutine[Any, Any, Any] | Deferred[Any], seconds: float = 0.0) -> Any:
        """Do something, which is over by then."""
        results: list[Any] = []
        waiting = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        waiting.addBoth(results.append)
        self.turn(seconds)
        assert results, "it goes on"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    # Jobs.

    def new(self, **fields: Any) -> NewJob:
        """A job that comes."""
        self._count += 1
        path = fields.pop("route", "/rst")
        head = CallHead(f"request-{self._count}", path, "POST", path, b"", (), None, None)
        given: dict[str, Any] = {
            "id": self.keeper.new_id(),
            "head": head,
            "pool": fields.pop("pool", "a"),
            "created": self.wall(),
            "urgency": 3,
            "retries": 0,
            "ttl": 100.0,
        }
        return NewJob(**{**given, **fields})

    def begin_to_accept(self, body: BinaryIO | None = None, **fields: Any) -> Deferred[Accepted]:
        return self.start(self.keeper.accept(self.new(**fields), body or io.BytesIO(b"body")))

    def accept(self, *, promised: bool = True, **fields: Any) -> str:
        """A job comes, its client is told where it is, and a free worker begins with it.

        :returns: its id.
        """
        id: str = self.run(self.begin_to_accept(**fields)).record.id
        if promised:
            self.keeper.attach(id)
            self.keeper.detach(id, promised=True, cancel=True, keyed=False)
        return id

    def key(self, name: str = "key", fingerprint: bytes = b"same") -> KeyOf:
        return KeyOf("scope", name, fingerprint)

    def record(self, id: str) -> JobRecord:
        """A job as the store has it, at this moment."""
        return self.store._jobs[id].record

    def state(self, id: str) -> tuple[State, Reason | None]:
        record = self.record(id)
        return record.state, record.reason

    def result(self, id: str) -> StoredResult:
        found = self.store._jobs[id].result
        assert found is not None
        return found

    # Judgement.

    def judge(self) -> None:
        """Judge what is true when nothing is left to be done."""
        keeper = self.keeper
        assert keeper.unended == 0
        assert keeper._running == {}
        assert keeper._waiters == {}
        assert keeper._impatient == {}
        assert keeper._same == {}
        assert keeper._watchers == {}
        assert keeper._fresh == keeper._coming == keeper._unrecorded == 0
        for lane in keeper._lanes.values():
            assert (lane.name, lane.ahead, len(lane.backlog)) == (lane.name, 0, 0)
        for pool in self.pools.values():
            assert (pool.waiting, pool.asking, pool.running) == ([], {}, [])
        for id, kept in self.store._jobs.items():
            ends = [event for event in kept.events if event.kind == "end"]
            assert len(ends) == 1, f"{id} has not ended exactly once: {kept.record}"

    def close(self) -> None:
        """End as the service does, and judge that no timer is left."""
        self.run(self.keeper.close(), 3.0)
        assert self.clock.getDelayedCalls() == []

    def next_process(self, **options: Any) -> Bench:
        """Another keeper, which finds what this one has left in the store."""
        store = self.store.reopened(self.clock)
        return Bench(store=store, clock=self.clock, routes=tuple(self.routes.values()), **options)
