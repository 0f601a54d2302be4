"""Where calls become jobs: what is accepted, what is known of it, and how all of it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from deferpost.dispatch import Dispatcher
from deferpost.errors import (
    ClientQuota,
    DeadlineUnmeetable,
    PoolBroken,
    PoolFull,
    ShuttingDown,
)
from deferpost.interfaces import IForeseeable, IWorkerPool
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, CallHead, PoolStatus, Quota, Reason, Rung, State

HEAD = CallHead("id-1", "/rst", "POST", "/rst", b"", (), None, None)


@implementer(IWorkerPool)
class FakePool:
    """A pool that takes so many jobs, and does with them what the test says."""

    def __init__(self, name: str, clock: Clock, room: int = 10**9) -> None:
        self.name = name
        self._clock = clock
        self._room = room
        self.jobs: list[Job] = []
        self.refusal: Exception | None = None
        self.at_submit: Callable[[Job], None] = lambda job: None

    def submit(self, job: Job) -> Deferred[Answer]:
        if self.refusal is not None:
            raise self.refusal
        if len(self.jobs) >= self._room:
            raise PoolFull(self.name)
        self.jobs.append(job)
        answer: Deferred[Answer] = Deferred()
        job.answer, job.stop = answer, self._stop
        self.at_submit(job)
        return answer

    def status(self) -> PoolStatus:
        return PoolStatus(
            name=self.name,
            kind="fake",
            size=1,
            max_waiting=self._room - 1,
            running=0,
            waiting=len(self.jobs),
            stuck=0,
            ready=True,
        )

    def stop(self, patience: float) -> Deferred[int]:
        raise NotImplementedError

    def _stop(self, job: Job, reason: Reason) -> None:
        job.canceled = True
        if job.state is State.QUEUED:
            job.rung = Rung.REMOVED
            self.end(job, Event.CANCEL, reason)
        else:
            job.rung = Rung.TOLD
            job.happened(Event.CANCEL, reason)

    def start(self, job: Job) -> None:
        job.started = self._clock.seconds()
        job.happened(Event.START)

    def end(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        self.jobs.remove(job)
        job.body.close()
        job.end(event, self._clock.seconds(), reason)


class Dispatched:
    """A dispatcher with two pools."""

    def __init__(self, room: int = 10**9) -> None:
        self.clock = Clock()
        self.pool = FakePool("a", self.clock, room)
        self.other = FakePool("b", self.clock)
        self.dispatcher = Dispatcher({"a": self.pool, "b": self.other}, self.clock.seconds)

    def submit(self, pool: str = "a") -> Job:
        job, _ = self.dispatcher.submit(pool, HEAD, io.BytesIO(b"body"))
        return job

    def run(self, seconds: float) -> None:
        """A job that takes so long."""
        job = self.submit()
        self.pool.start(job)
        self.clock.advance(seconds)
        self.pool.end(job, Event.SUCCEED)


def test_call_goes_to_its_pool() -> None:
    """A call is given to the pool of its route, as a job of its own."""
    dispatched = Dispatched()
    dispatched.clock.advance(5)
    body = io.BytesIO(b"body")
    job, answer = dispatched.dispatcher.submit("b", HEAD, body)
    assert dispatched.other.jobs == [job]
    assert dispatched.pool.jobs == []
    assert (job.head, job.body, job.created) == (HEAD, body, 5.0)
    assert job.answer is answer
    assert dispatched.submit().key != job.key
    assert dispatched.dispatcher.unended == 2


def test_ended_jobs_are_forgotten() -> None:
    """Nothing stays behind of a job that has ended."""
    dispatched = Dispatched()
    dispatched.run(1.0)
    assert dispatched.dispatcher.unended == 0


def test_job_that_ends_at_once() -> None:
    """A job that has ended before its pool returns is not waited for."""
    dispatched = Dispatched()
    dispatched.pool.at_submit = lambda job: dispatched.pool.end(job, Event.FAIL, Reason.ERROR)
    job = dispatched.submit()
    assert job.has_ended
    assert dispatched.dispatcher.unended == 0
    assert fired(dispatched.dispatcher.drained())


def fired(deferred: Deferred[None]) -> bool:
    """Whether it has fired."""
    return bool(deferred.called)


@pytest.mark.parametrize(
    "refusal", [PoolBroken("a", 7), ShuttingDown("no"), RuntimeError("a defect")]
)
def test_refusal(refusal: Exception) -> None:
    """What a pool refuses is refused with its reason, and the body is let go."""
    dispatched = Dispatched()
    dispatched.pool.refusal = refusal
    body = io.BytesIO(b"body")
    with pytest.raises(type(refusal)) as caught:
        dispatched.dispatcher.submit("a", HEAD, body)
    assert caught.value is refusal
    assert body.closed
    assert dispatched.dispatcher.unended == 0


@pytest.mark.parametrize(
    ("times", "expected"), [([], 1), ([0.001], 1), ([4.0], 12), ([1000.0], 3000), ([2000.0], 3600)]
)
def test_full_pool(times: list[float], expected: int) -> None:
    """A full pool says when there is likely to be room, from how long its jobs have taken."""
    dispatched = Dispatched(room=2)
    for seconds in times:
        dispatched.run(seconds)
    for _ in range(2):
        dispatched.submit()
    body = io.BytesIO(b"body")
    with pytest.raises(PoolFull) as caught:
        dispatched.dispatcher.submit("a", HEAD, body)
    assert (caught.value.pool, caught.value.retry_after) == ("a", expected)
    assert body.closed


def test_pools_have_times_of_their_own() -> None:
    """Slow jobs of one pool do not put off the clients of another."""
    dispatched = Dispatched()
    dispatched.run(1000.0)
    dispatched.other.refusal = PoolFull("b")
    with pytest.raises(PoolFull) as caught:
        dispatched.submit("b")
    assert caught.value.retry_after == 1


@pytest.mark.parametrize("event", [Event.FAIL, Event.CANCEL])
def test_only_success_is_measured(event: Event) -> None:
    """How long a job takes is learned from those that succeed."""
    dispatched = Dispatched(room=1)
    job = dispatched.submit()
    if event is Event.FAIL:
        dispatched.pool.start(job)
        dispatched.clock.advance(1000)
    dispatched.pool.end(job, event, Reason.ERROR)
    dispatched.submit()
    with pytest.raises(PoolFull) as caught:
        dispatched.submit()
    assert caught.value.retry_after == 1


def test_statuses() -> None:
    """How every pool is can be asked at any moment."""
    dispatched = Dispatched()
    dispatched.submit()
    statuses = dispatched.dispatcher.statuses()
    assert [(status.name, status.waiting) for status in statuses] == [("a", 1), ("b", 0)]


def test_closed() -> None:
    """After the close nothing is accepted, and what was accepted goes on."""
    dispatched = Dispatched()
    job = dispatched.submit()
    dispatched.dispatcher.close()
    body = io.BytesIO(b"body")
    with pytest.raises(ShuttingDown, match="the service is stopping"):
        dispatched.dispatcher.submit("a", HEAD, body)
    assert body.closed
    assert dispatched.pool.jobs == [job]
    assert job.state is State.QUEUED


def test_drained_at_once() -> None:
    """Where there is nothing, there is nothing to wait for."""
    assert fired(Dispatched().dispatcher.drained())


def test_drained() -> None:
    """Whoever waits for the jobs hears when the last has ended, and not before."""
    dispatched = Dispatched()
    jobs = [dispatched.submit(), dispatched.submit()]
    waiting = [dispatched.dispatcher.drained(), dispatched.dispatcher.drained()]
    dispatched.pool.end(jobs[0], Event.FAIL, Reason.ERROR)
    assert not any(map(fired, waiting))
    dispatched.pool.end(jobs[1], Event.FAIL, Reason.ERROR)
    assert all(map(fired, waiting))


def test_drained_again() -> None:
    """What comes afterwards is waited for anew."""
    dispatched = Dispatched()
    first = dispatched.dispatcher.drained()
    job = dispatched.submit()
    second = dispatched.dispatcher.drained()
    assert (fired(first), fired(second)) == (True, False)
    dispatched.pool.end(job, Event.FAIL, Reason.ERROR)
    assert fired(second)


def test_cancel_all() -> None:
    """All jobs are canceled; those that run are waited for until their code has ended."""
    dispatched = Dispatched()
    waiting, running = dispatched.submit(), dispatched.submit("b")
    dispatched.other.start(running)
    drained = dispatched.dispatcher.drained()
    assert dispatched.dispatcher.cancel_all(Reason.SHUTDOWN) == 2
    assert (waiting.state, waiting.reason) == (State.CANCELED, Reason.SHUTDOWN)
    assert (running.state, running.reason) == (State.CANCELING, Reason.SHUTDOWN)
    assert dispatched.dispatcher.unended == 1
    assert not fired(drained)
    dispatched.other.end(running, Event.STOP)
    assert fired(drained)


def test_cancel_one_that_ends_another() -> None:
    """A job that ends because another was canceled is no trouble."""
    dispatched = Dispatched()
    first, second = dispatched.submit(), dispatched.submit()
    assert first.answer is not None
    first.answer.addErrback(lambda _: None)
    stop = first.stop
    assert stop is not None

    def stop_both(job: Job, reason: Reason) -> None:
        stop(first, reason)
        stop(second, reason)

    first.stop = stop_both
    dispatched.dispatcher.cancel_all(Reason.SHUTDOWN)
    assert dispatched.dispatcher.unended == 0


def test_log_of_the_canceled() -> None:
    """What was canceled is logged with its reason, its times and how far one had to go."""
    dispatched = Dispatched()
    with capturedLogs() as logs:
        job = dispatched.submit()
        dispatched.clock.advance(1.5)
        dispatched.pool.start(job)
        dispatched.clock.advance(2.0)
        job.cancel(Reason.CLIENT_DISCONNECTED)
        dispatched.clock.advance(0.25)
        dispatched.pool.end(job, Event.STOP)
    assert [formatEvent(event) for event in logs] == [
        "[id-1] /rst canceled (client_disconnected): told after 1.500 s in the queue and 2.250 s "
        "of running"
    ]


def test_no_log_of_the_others() -> None:
    """A job that succeeds is no news, and one that fails is logged by who knows why."""
    dispatched = Dispatched()
    with capturedLogs() as logs:
        dispatched.run(1.0)
        dispatched.pool.end(dispatched.submit(), Event.FAIL, Reason.ERROR)
    assert logs == []


@given(
    st.lists(st.tuples(st.sampled_from(["submit", "start", "end", "cancel"]), st.integers(0, 9)))
)
def test_slots_taken_are_slots_returned(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in any order, as many jobs are known as have not ended."""
    dispatched = Dispatched(room=3)
    jobs: list[Job] = []
    waiting: list[Any] = []
    for step, number in steps:
        unended = [job for job in jobs if not job.has_ended]
        job = unended[number % len(unended)] if unended else None
        if step == "submit":
            try:
                jobs.append(dispatched.submit())
            except PoolFull:
                assert len(unended) == 3
            waiting.append(dispatched.dispatcher.drained())
        elif job is not None and step == "start" and job.state is State.QUEUED:
            dispatched.pool.start(job)
        elif job is not None and step == "end" and job.state is not State.QUEUED:
            is_told = job.state is State.CANCELING
            dispatched.pool.end(job, Event.STOP if is_told else Event.SUCCEED)
        elif job is not None and step == "cancel":
            job.cancel(Reason.REQUESTED)
        unended = [job for job in jobs if not job.has_ended]
        assert dispatched.dispatcher.unended == len(unended) == len(dispatched.pool.jobs)
        if not unended:
            assert all(map(fired, waiting))
        elif waiting:
            assert not fired(waiting[-1])


def test_canceled_error_is_none_of_its_business() -> None:
    """What whoever waits for an answer is told is between them and the pool."""
    dispatched = Dispatched()
    _, answer = dispatched.dispatcher.submit("a", HEAD, io.BytesIO())
    failures: list[Any] = []
    answer.addErrback(failures.append)
    answer.errback(CancelledError())
    assert dispatched.dispatcher.unended == 1
    assert failures[0].type is CancelledError


@implementer(IForeseeable, IWorkerPool)
class ForeseeingPool(FakePool):
    """One that tells who is ahead."""

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def ahead_of(self, urgency: int) -> int:
        return sum(job.state is State.QUEUED and job.urgency <= urgency for job in self.jobs)


def test_who_is_sure_to_be_ahead_counts() -> None:
    """Whether a call can be in time depends on those before it, not on those that it overtakes."""
    clock = Clock()
    pool = ForeseeingPool("a", clock)
    dispatcher = Dispatcher({"a": pool}, clock.seconds)
    for _ in range(12):
        job, _ = dispatcher.submit("a", HEAD, io.BytesIO())
        pool.start(job)
        clock.advance(2.0)
        pool.end(job, Event.SUCCEED)
    for _ in range(5):
        dispatcher.submit("a", HEAD, io.BytesIO())
    in_five = clock.seconds() + 5.0
    with pytest.raises(DeadlineUnmeetable) as caught:
        dispatcher.submit("a", HEAD, io.BytesIO(), start_by=in_five)
    assert caught.value.retry_after == 5  # ten seconds of waiting, of which five are too many
    with pytest.raises(DeadlineUnmeetable):
        dispatcher.reserve("a", HEAD, 10, start_by=in_five)
    job, _ = dispatcher.submit("a", HEAD, io.BytesIO(), start_by=in_five, urgency=1)
    assert (job.start_by, job.urgency) == (in_five, 1)
    dispatcher.reserve("a", HEAD, 10, start_by=in_five, urgency=0).give_back()


def test_reserved_twice_given_back_once() -> None:
    """A place that is given back again is no second one."""
    dispatched = Dispatched(room=2)
    first = dispatched.dispatcher.reserve("a", HEAD, 10)
    dispatched.dispatcher.reserve("a", HEAD, 10)
    with pytest.raises(PoolFull):
        dispatched.submit()
    first.give_back()
    first.give_back()
    dispatched.submit()
    with pytest.raises(PoolFull):
        dispatched.dispatcher.reserve("a", HEAD, 10)


def test_nothing_is_kept_of_a_refused_call() -> None:
    """A call that its pool refuses takes no place, no bytes and nothing of its client's."""
    clock = Clock()
    pool = FakePool("a", clock, room=3)
    dispatcher = Dispatcher({"a": pool}, clock.seconds, max_held={"a": 10}, max_jobs_per_client=1)
    head = CallHead("id-1", "/rst", "POST", "/rst", b"", (), ("192.0.2.1", 1), None)
    pool.refusal = PoolBroken("a", 7)
    for _ in range(5):
        with pytest.raises(PoolBroken):
            dispatcher.submit("a", head, io.BytesIO(), 10)
    pool.refusal = None
    job, _ = dispatcher.submit("a", head, io.BytesIO(), 10)
    with pytest.raises(ClientQuota):
        dispatcher.submit("a", head, io.BytesIO(), 0)
    job.cancel(Reason.REQUESTED)
    dispatcher.submit("a", head, io.BytesIO(), 10)


class Observer:
    """Keeps what it hears."""

    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[tuple[State, int | None]] = []
        self._error = error

    def job_done(self, job: Job) -> None:
        self.heard.append((job.state, job.status))
        if self._error is not None:
            raise self._error

    def refused(self, route: str, status: int, reason: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("code_first", [True, False])
def test_observer_hears_when_all_is_over(code_first: bool) -> None:
    """Who observes hears of a job once, when its code and its exchange are both over."""
    clock = Clock()
    pool = FakePool("a", clock)
    observer = Observer()
    dispatcher = Dispatcher({"a": pool}, clock.seconds, observer)
    job, _ = dispatcher.submit("a", HEAD, io.BytesIO())
    assert dispatcher.find(job.key) is job
    pool.start(job)
    if code_first:
        pool.end(job, Event.SUCCEED)
    else:
        dispatcher.responded(job, 499)
    assert observer.heard == []
    if code_first:
        dispatcher.responded(job, 200)
    else:
        pool.end(job, Event.SUCCEED)
    assert observer.heard == [(State.SUCCEEDED, 200 if code_first else 499)]
    assert dispatcher.find(job.key) is None


def test_observer_that_fails() -> None:
    """What an observer raises is logged and stops nothing."""
    clock = Clock()
    pool = FakePool("a", clock)
    dispatcher = Dispatcher({"a": pool}, clock.seconds, Observer(RuntimeError("a defect")))
    job, _ = dispatcher.submit("a", HEAD, io.BytesIO())
    pool.start(job)
    pool.end(job, Event.SUCCEED)
    with capturedLogs() as logs:
        dispatcher.responded(job, 200)
    assert [event["log_failure"].value.args for event in logs] == [("a defect",)]
    assert fired(dispatcher.drained())


def test_how_much_is_left_of_a_quota() -> None:
    """A client has as much left as it has no calls under way; without a bound nobody says."""
    clock = Clock()
    pool = FakePool("a", clock)
    head = CallHead("id-1", "/rst", "POST", "/rst", b"", (), ("192.0.2.1", 1), None)
    assert Dispatcher({"a": pool}, clock.seconds).quota_of(head) is None
    dispatcher = Dispatcher({"a": pool}, clock.seconds, max_jobs_per_client=3)
    dispatcher.submit("a", head, io.BytesIO())
    assert dispatcher.quota_of(head) == Quota("client", 3, 2)
    assert dispatcher.quota_of(HEAD) is None
