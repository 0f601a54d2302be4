"""Ending jobs that run too long."""

from __future__ import annotations

import io
import itertools
import time
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from deferpost.jobs import Job
from deferpost.model import CallHead, Reason
from deferpost.pools.deadlines import DeadlineWatch, limit_reached, limit_seconds


class FakePool:
    """A pool as far as its watch knows it: what waits, what runs, and what was expired when."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keys = itertools.count(1)
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.expired: list[tuple[str, float]] = []
        self.on_expire: Callable[[Job], None] = self.running_no_more
        self.watch = DeadlineWatch(
            self.clock,
            self.clock.seconds,
            lambda: iter(self.running),
            lambda: bool(self.waiting),
            self._expire,
        )
        self.reasons: list[Reason] = []

    def _expire(self, job: Job, reason: Reason) -> None:
        self.expired.append((job.head.id, self.clock.seconds()))
        self.reasons.append(reason)
        self.on_expire(job)

    def running_no_more(self, job: Job) -> None:
        job.canceled = True
        (self.waiting if job in self.waiting else self.running).remove(job)

    def submit(
        self,
        id: str,
        timeout: float | None,
        queue: float | None = None,
        total: float | None = None,
    ) -> Job:
        """A job arrives, and waits."""
        now = self.clock.seconds()
        finish_by = None if total is None else now + total
        head = CallHead(id, "/", "POST", "/", b"", (), None, timeout, finish_by)
        start_by = None if queue is None else now + queue
        key = next(self.keys)
        job = Job(key, head, io.BytesIO(), now, lambda job: None, start_by=start_by)
        self.waiting.append(job)
        self.watch.expect(job, job.created)
        return job

    def start(self, job: Job) -> None:
        """A worker takes it."""
        self.waiting.remove(job)
        self.running.append(job)
        job.started = self.clock.seconds()

    def run(self, id: str, timeout: float | None) -> Job:
        """A job arrives, and runs at once."""
        job = self.submit(id, timeout)
        self.start(job)
        return job

    def wait(self, seconds: float) -> None:
        """Time passes, in small steps that a float counts exactly."""
        self.clock.pump([0.125] * round(seconds * 8))


def test_in_time() -> None:
    """A job that ends in time is left alone, and no timer stays behind."""
    pool = FakePool()
    job = pool.run("a", 2.0)
    pool.wait(1.0)
    pool.running.remove(job)
    pool.wait(2.0)
    assert pool.expired == []
    assert pool.clock.getDelayedCalls() == []


def test_time_is_up() -> None:
    """A job is ended when its time is up, and not before."""
    pool = FakePool()
    pool.run("a", 2.0)
    pool.wait(1.875)
    assert pool.expired == []
    pool.wait(0.125)
    assert pool.expired == [("a", 2.0)]
    assert pool.clock.getDelayedCalls() == []


def test_no_limit() -> None:
    """A job without a limit needs no timer, and is never ended."""
    pool = FakePool()
    pool.run("a", None)
    assert pool.clock.getDelayedCalls() == []
    pool.run("b", 1.0)
    pool.wait(5.0)
    assert pool.expired == [("b", 1.0)]


def test_time_in_the_queue_does_not_count() -> None:
    """The time of a job begins when it starts."""
    pool = FakePool()
    job = pool.submit("a", 2.0)
    pool.wait(5.0)
    assert pool.expired == []
    pool.start(job)
    pool.wait(1.875)
    assert pool.expired == []
    pool.wait(0.125)
    assert pool.expired == [("a", 7.0)]


def test_job_that_starts_between_two_looks() -> None:
    """A short job that starts while a long one runs is ended in its own time."""
    pool = FakePool()
    pool.run("long", 100.0)
    short = pool.submit("short", 1.0)
    pool.wait(1.5)  # the watch has looked once in the meantime
    pool.start(short)
    pool.wait(2.5)
    assert pool.expired == [("short", 2.5)]


def test_many_jobs_have_one_timer() -> None:
    """Whatever their number and their limits, jobs share one timer."""
    pool = FakePool()
    for timeout in (5.0, 3.0, 4.0, None, 3.0):
        pool.run(f"{timeout}", timeout)
        assert len(pool.clock.getDelayedCalls()) <= 1
    (timer,) = pool.clock.getDelayedCalls()
    assert timer.getTime() == 3.0
    pool.wait(6.0)
    assert pool.expired == [("3.0", 3.0), ("3.0", 3.0), ("4.0", 4.0), ("5.0", 5.0)]


def test_longer_limits_do_not_move_the_timer() -> None:
    """A job that may run longer than another does not put that one's end off."""
    pool = FakePool()
    pool.run("short", 1.0)
    pool.run("long", 10.0)
    pool.wait(1.25)
    assert pool.expired == [("short", 1.0)]


def test_canceled_jobs_are_not_ended_again() -> None:
    """A job that was told to stop and still runs is not told a second time."""
    pool = FakePool()
    pool.on_expire = lambda job: setattr(job, "canceled", True)
    pool.run("stuck", 1.0)
    pool.run("other", 3.0)
    pool.wait(5.0)
    assert pool.expired == [("stuck", 1.0), ("other", 3.0)]
    assert pool.clock.getDelayedCalls() == []


def test_job_that_is_just_being_taken() -> None:
    """A job that has a worker and no start yet is looked at again later."""
    pool = FakePool()
    job = pool.run("a", 1.0)
    job.started = None
    pool.submit("waiting", None)
    pool.wait(1.5)
    job.started = 1.5
    pool.wait(1.5)
    assert pool.expired == [("a", 2.5)]


def test_job_that_comes_while_others_end() -> None:
    """A job that is submitted because another one expired is ended in its own time, too."""
    pool = FakePool()
    pool.run("slow", 100.0)

    def next_of_the_client(job: Job) -> None:
        pool.running_no_more(job)
        if job.head.id == "first":
            pool.run("second", 2.0)

    pool.on_expire = next_of_the_client
    pool.run("first", 1.0)
    pool.wait(3.5)
    assert pool.expired == [("first", 1.0), ("second", 3.0)]
    assert len(pool.clock.getDelayedCalls()) == 1


def test_stopped() -> None:
    """A watch that was stopped ends nobody, and stopping twice is no harm."""
    pool = FakePool()
    pool.run("a", 1.0)
    pool.watch.stop()
    pool.watch.stop()
    pool.wait(5.0)
    assert pool.expired == []
    assert pool.clock.getDelayedCalls() == []


def test_watch_goes_on_after_a_quiet_time() -> None:
    """After all jobs have ended, the next one is watched like the first."""
    pool = FakePool()
    pool.run("a", 1.0)
    pool.wait(10.0)
    pool.run("b", 2.0)
    pool.wait(2.25)
    assert pool.expired == [("a", 1.0), ("b", 12.0)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # seconds until the next job comes
            st.integers(0, 5),  # seconds that it waits
            st.none() | st.integers(1, 9),  # seconds that it may run
            st.integers(1, 15),  # seconds that it takes
        ),
        max_size=8,
    )
)
def test_everybody_has_their_time(plan: list[tuple[int, int, int | None, int]]) -> None:
    """Whatever comes when: who is not done in time is ended when it is up, and nobody else is."""
    pool = FakePool()
    jobs: dict[str, Job] = {}
    for second in range(60):
        came = 0
        for number, (pause, wait, limit, length) in enumerate(plan):
            came += pause
            id = str(number)
            if second == came:
                jobs[id] = pool.submit(id, limit)
            if second == came + wait + length and jobs[id] in pool.running:
                pool.running.remove(jobs[id])
            if second == came + wait:
                pool.start(jobs[id])
        pool.clock.advance(1)
    expired = dict(pool.expired)
    for number, (_, _, limit, length) in enumerate(plan):
        start = jobs[str(number)].started
        assert start is not None
        is_late = limit is not None and length >= limit
        assert (str(number) in expired) == is_late
        if is_late:
            assert expired[str(number)] == start + (limit or 0)
    assert pool.clock.getDelayedCalls() == []


def test_waits_too_long() -> None:
    """A job that may not wait any longer is ended when it is up; one that has started is not."""
    pool = FakePool()
    pool.submit("late", 10.0, queue=2.0)
    pool.start(pool.submit("started", 10.0, queue=2.0))
    pool.wait(1.875)
    assert pool.expired == []
    pool.wait(0.25)
    assert pool.expired == [("late", 2.0)]
    assert pool.reasons == [Reason.DEADLINE_QUEUE]
    pool.wait(10.0)
    assert pool.expired[1:] == [("started", 10.0)]
    assert pool.clock.getDelayedCalls() == []


def test_takes_too_long_in_all() -> None:
    """A job whose time for waiting and running is up is ended, whichever of them it does."""
    pool = FakePool()
    pool.submit("waits", 10.0, total=2.0)
    job = pool.submit("runs", 10.0, total=3.0)
    pool.wait(1.0)
    pool.start(job)
    pool.wait(4.0)
    assert pool.expired == [("waits", 2.0), ("runs", 3.0)]
    assert pool.reasons == [Reason.DEADLINE_TOTAL] * 2


def test_without_a_limit_for_the_run() -> None:
    """A job that may run as long as it likes has its other limits all the same."""
    pool = FakePool()
    pool.submit("queue", None, queue=1.0)
    pool.start(pool.submit("total", None, total=2.0))
    pool.submit("both", None, queue=4.0, total=3.0)
    pool.wait(5.0)
    assert pool.expired == [("queue", 1.0), ("total", 2.0), ("both", 3.0)]
    assert pool.reasons == [Reason.DEADLINE_QUEUE, Reason.DEADLINE_TOTAL, Reason.DEADLINE_TOTAL]


def test_the_earlier_limit_is_the_reason() -> None:
    """Where two limits are reached at one look, the earlier one is why the job ends."""
    head = CallHead("total", "/", "POST", "/", b"", (), None, 2.0, 1.5)
    total = Job(9, head, io.BytesIO(), 0.0, lambda job: None)
    total.started = 0.0
    assert limit_reached(total, 1.25) is None
    assert limit_reached(total, 3.0) is Reason.DEADLINE_TOTAL
    total.started = -1.0
    assert limit_reached(total, 3.0) is Reason.DEADLINE_RUN
    assert limit_seconds(total, Reason.DEADLINE_RUN) == 2.0
    assert limit_seconds(total, Reason.DEADLINE_TOTAL) == 1.5


def test_job_that_is_being_taken_when_it_is_late() -> None:
    """One that is left to the worker that takes it is looked at again soon."""
    pool = FakePool()
    pool.on_expire = lambda job: None
    job = pool.submit("a", None, total=1.0)
    pool.clock.advance(1.0)
    assert pool.expired == [("a", 1.0)]
    pool.start(job)  # its clock said that it was not late yet
    pool.on_expire = pool.running_no_more
    pool.clock.advance(0.01)
    assert pool.expired == [("a", 1.0), ("a", 1.01)]
    assert pool.clock.getDelayedCalls() == []


def test_points_of_jobs_that_are_over_do_not_pile_up() -> None:
    """However many jobs with limits have ended, hardly more is kept than for those that wait."""
    pool = FakePool()
    waiting = [pool.submit(f"w{number}", None, queue=1000.0) for number in range(100)]
    ended: weakref.WeakSet[io.BytesIO] = weakref.WeakSet()
    for number in range(5_000):
        job = pool.submit(f"{number}", None, queue=500.0)
        ended.add(job.body)
        job.canceled = True
        pool.waiting.remove(job)
    del job
    assert len(ended) <= len(waiting) + 64
    pool.clock.advance(1000.0)
    assert len(pool.expired) == 100


def test_stopped_with_jobs_that_wait() -> None:
    """A watch that was stopped ends nobody who waits, either."""
    pool = FakePool()
    pool.submit("a", None, queue=1.0)
    pool.watch.stop()
    pool.wait(5.0)
    assert pool.expired == []
    assert pool.clock.getDelayedCalls() == []


@pytest.mark.alone
def test_a_look_costs_the_same_however_many_wait() -> None:
    """A job that is late is found as quickly among thirty thousand as among ten."""

    def cost(waiting: int) -> float:
        pool = FakePool()
        pool.on_expire = lambda job: setattr(job, "canceled", True)
        for number in range(waiting):
            pool.submit(f"{number}", 1e6, queue=1e6 + number)
        best = 1.0
        for number in range(20):
            now = pool.clock.seconds()
            head = CallHead("late", "/", "POST", "/", b"", (), None, None)
            key = next(pool.keys)
            job = Job(key, head, io.BytesIO(), now, lambda job: None, start_by=now + 0.5)
            pool.watch.expect(job, now)
            began = time.perf_counter()
            pool.clock.advance(1.0)
            best = min(best, time.perf_counter() - began)
            assert len(pool.expired) == number + 1
        return best

    assert cost(30_000) < 20 * cost(10) + 0.001


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # seconds until the next job comes
            st.integers(0, 8),  # seconds that it would wait
            st.integers(1, 15),  # seconds that it would take
            st.none() | st.integers(1, 9),  # seconds that it may run
            st.none() | st.integers(1, 9),  # seconds that it may wait
            st.none() | st.integers(1, 18),  # seconds for both
        ),
        max_size=6,
    )
)
def test_every_limit_counts(
    plan: list[tuple[int, int, int, int | None, int | None, int | None]],
) -> None:
    """Whatever comes when: each job ends by its earliest limit, or by itself before that."""
    pool = FakePool()
    jobs: dict[str, Job] = {}
    for second in range(80):
        came = 0
        for number, (pause, wait, length, run, queue, total) in enumerate(plan):
            came += pause
            id = str(number)
            if second == came:
                jobs[id] = pool.submit(id, run, queue, total)
            if second == came + wait and jobs[id] in pool.waiting:
                pool.start(jobs[id])
            if second == came + wait + length and jobs[id] in pool.running:
                pool.running.remove(jobs[id])
                jobs[id].canceled = True
        pool.clock.advance(1)
    expired = dict(pool.expired)
    came = 0
    for number, (pause, wait, length, run, queue, total) in enumerate(plan):
        came += pause
        limits = []
        if queue is not None and queue <= wait:
            limits.append(came + queue)
        elif run is not None and run <= length:
            limits.append(came + wait + run)
        if total is not None and total <= wait + length:
            limits.append(came + total)
        assert expired.get(str(number)) == (min(limits) if limits else None)
    assert pool.clock.getDelayedCalls() == []


def test_job_that_comes_again() -> None:
    """A job that is tried again with the same limit is ended by it once."""
    pool = FakePool()
    job = pool.submit("b", None, total=2.0)
    pool.start(job)
    pool.wait(1.0)
    pool.running.remove(job)  # its worker was lost
    job.started = None
    pool.waiting.append(job)
    pool.watch.expect(job, pool.clock.seconds())
    pool.wait(4.0)
    assert pool.expired == [("b", 2.0)]
    assert pool.reasons == [Reason.DEADLINE_TOTAL]
    assert pool.clock.getDelayedCalls() == []
