"""Ending jobs that run too long."""

from __future__ import annotations

import io
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from deferpost.jobs import Job
from deferpost.model import CallHead
from deferpost.pools.deadlines import DeadlineWatch


class FakePool:
    """A pool as far as its watch knows it: what waits, what runs, and what was expired when."""

    def __init__(self) -> None:
        self.clock = Clock()
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

    def _expire(self, job: Job) -> None:
        self.expired.append((job.head.id, self.clock.seconds()))
        self.on_expire(job)

    def running_no_more(self, job: Job) -> None:
        job.canceled = True
        self.running.remove(job)

    def submit(self, id: str, timeout: float | None) -> Job:
        """A job arrives, and waits."""
        head = CallHead(id, "/", "POST", "/", b"", (), None, timeout)
        job = Job(1, head, io.BytesIO(), self.clock.seconds(), lambda job: None)
        self.waiting.append(job)
        self.watch.expect(timeout, job.created)
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
