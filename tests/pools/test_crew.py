"""Which workers a pool has: started, spare, replaced one at a time, tried again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from deferpost.pools.crew import Crew
from deferpost.pools.plans import ProcessPool
from deferpost.pools.worker import Stage, Worker


class StandIn:
    """A worker without a process, which does what the test says.

    :param crew: gives the crew that it belongs to.
    """

    pid = os.getpid()

    def __init__(self, name: str, clock: Clock, crew: Callable[[], Crew]) -> None:
        self.name = name
        self.stage = Stage.STARTING
        self.jobs_done = 0
        self.was_ready = self.was_told_to_go = self.is_due = self.terminated = False
        self.set_up_error: str | None = None
        self.patience: float | None = None
        self._clock = clock
        self._started = clock.seconds()
        self._crew = crew

    @property
    def age(self) -> float:
        """As a worker's."""
        return self._clock.seconds() - self._started

    def _ready(self) -> bool:
        self.stage = Stage.IDLE
        ready = self._crew().ready(cast(Worker, self))
        if ready:
            self._crew().rest(cast(Worker, self))
        return ready

    def set_up(self) -> None:
        """Its set-up has succeeded."""
        self.was_ready = True
        assert self._ready()

    def run(self, jobs: int = 1) -> bool:
        """It runs jobs, one after another, as long as it gets some.

        :returns: whether it would get another one.
        """
        for _ in range(jobs):
            self.begin_job()
            if not self.end_job():
                return False
        return True

    def begin_job(self) -> None:
        """It gets a job."""
        others = []
        while (taken := self._crew().take()) is not cast(Worker, self):
            assert taken is not None
            others.append(taken)
        self.stage = Stage.BUSY
        for other in others:
            self._crew().rest(other)

    def end_job(self) -> bool:
        """Its job has ended."""
        self.jobs_done += 1
        return self._ready()

    def end(self, how: str = "signal 9 (SIGKILL)") -> None:
        """Its process has ended."""
        self.stage = Stage.GONE
        self._crew().gone(cast(Worker, self), how)

    def dismiss(self) -> None:
        """As a worker's."""
        self.stage, self.was_told_to_go = Stage.LEAVING, True

    def terminate(self) -> None:
        """As a worker's."""
        self.dismiss()
        self.terminated = True

    def hurry(self, patience: float) -> None:
        """As a worker's."""
        self.patience = patience


class Staff:
    """A crew of stand-ins.

    :param size: how many workers have a job at once.
    :param options: of the plan.
    """

    def __init__(self, size: int = 1, **options: Any) -> None:
        self.clock = Clock()
        self.started: list[StandIn] = []
        self.refused = 0
        self.gave_up = 0
        self.crew = Crew(
            "tested", ProcessPool(**options), size, self.clock, self._start, self._give_up
        )
        self.crew.fill()

    def _start(self, name: str) -> Worker:
        if self.refused:
            self.refused -= 1
            raise OSError("no more processes")
        self.started.append(StandIn(name, self.clock, lambda: self.crew))
        return cast(Worker, self.started[-1])

    def _give_up(self) -> None:
        self.gave_up += 1

    def set_up(self) -> list[StandIn]:
        """All workers that start are ready.

        :returns: all that there are.
        """
        for worker in self.started:
            if worker.stage is Stage.STARTING:
                worker.set_up()
        return self.there

    @property
    def there(self) -> list[StandIn]:
        """The workers that there are."""
        return cast("list[StandIn]", list(self.crew))

    def stages(self) -> list[str]:
        """The stages of those."""
        return [worker.stage.value for worker in self.there]


def test_as_many_as_there_are_to_be() -> None:
    """There are as many workers as jobs at once, and the spare ones."""
    assert [worker.name for worker in Staff(2).there] == ["1", "2"]
    assert [worker.name for worker in Staff(2, warm=1).there] == ["1", "2", "3"]


def test_replaced_when_the_next_is_ready() -> None:
    """A worker that has done its jobs goes on until the one that follows it is ready."""
    staff = Staff(1, max_jobs=3)
    (first,) = staff.set_up()
    assert first.run(3)
    assert staff.stages() == ["idle", "starting"]
    assert first.run(2)  # nobody waits
    staff.set_up()
    assert staff.stages() == ["leaving", "idle"]
    first.end("exit code 0")
    assert staff.stages() == ["idle"]
    assert staff.crew.restarts == 1


def test_replaced_after_its_job() -> None:
    """A worker that has a job when the next is ready leaves when that has ended."""
    staff = Staff(1, max_jobs=1)
    (first,) = staff.set_up()
    first.run(1)
    first.begin_job()
    staff.set_up()
    assert staff.stages() == ["busy", "idle"]
    assert not first.end_job()
    assert staff.stages() == ["leaving", "idle"]


def test_one_at_a_time() -> None:
    """However many workers are due, one is replaced after the other, and none is missing."""
    staff = Staff(3, max_age=100.0)
    old = staff.set_up()
    staff.clock.advance(200.0)
    for number in range(3):
        assert all(worker.is_due for worker in old)
        assert staff.stages() == ["idle"] * 3 + ["starting"]
        staff.set_up()
        assert staff.stages().count("idle") == 3
        (leaving,) = (worker for worker in old if worker.stage is Stage.LEAVING)
        assert leaving is old[number]
        leaving.end("exit code 0")
    assert staff.stages() == ["idle"] * 3
    assert {worker.name for worker in staff.there} == {"4", "5", "6"}


def test_long_job() -> None:
    """A worker that is due and has a job for hours does not hold up the others that are due."""
    staff = Staff(2, max_jobs=1)
    first, second = staff.set_up()
    first.run(1)
    first.begin_job()
    second.run(1)
    assert staff.stages() == ["busy", "idle", "starting"]
    staff.set_up()
    assert (first.stage, second.stage) == (Stage.BUSY, Stage.LEAVING)
    second.end("exit code 0")
    staff.set_up()
    assert staff.stages() == ["busy", "idle", "idle"]
    assert not first.end_job()
    first.end("exit code 0")
    assert [worker.name for worker in staff.there] == ["3", "4"]


def test_nobody_to_take() -> None:
    """A worker that is about to end gets no job, and there may be none that does."""
    staff = Staff(2)
    first, second = staff.set_up()
    second.stage = Stage.LEAVING
    assert staff.crew.take() is cast(Worker, first)
    assert staff.crew.take() is None


def test_filled_before_its_time() -> None:
    """A worker that is to be started after a pause is started sooner where another one is."""
    staff = Staff(2)
    first, second = staff.set_up()
    first.run(1)
    second.end()  # before its first job, so that the next is started after a pause
    assert staff.stages() == ["idle"]
    first.end()
    assert staff.stages() == ["starting", "starting"]
    assert staff.clock.getDelayedCalls() == []


def test_idle_workers_age() -> None:
    """A worker that has nothing to do is replaced at its age, too."""
    staff = Staff(1, max_age=60.0)
    staff.set_up()
    for _ in range(53):
        staff.clock.advance(1.0)
    assert staff.stages() == ["idle"]
    for _ in range(16):
        staff.clock.advance(1.0)
    assert staff.stages() == ["idle", "starting"]


def test_memory() -> None:
    """A worker is replaced that is too large after a job; one that was set up so large is not."""
    staff = Staff(1, max_memory=1)  # this process has more
    (first,) = staff.set_up()
    assert staff.stages() == ["idle"]
    first.run(1)
    assert staff.stages() == ["idle", "starting"]
    large = Staff(1, max_memory=2**50)
    (first,) = large.set_up()
    assert first.run(5)
    assert large.stages() == ["idle"]


def test_next_that_fails() -> None:
    """While no worker can follow, the old one stays; it leaves when one can."""
    staff = Staff(1, max_jobs=1)
    (first,) = staff.set_up()
    first.run(1)
    for pause in (0.5, 1.0, 2.0, 4.0):
        staff.there[1].set_up_error = "the new version is broken"
        staff.there[1].end("exit code 1")
        assert staff.stages() == ["idle"]
        assert first.run(10)
        staff.clock.advance(pause - 0.1)
        assert staff.stages() == ["idle"]
        staff.clock.advance(0.2)
        assert staff.stages() == ["idle", "starting"]
    assert (staff.gave_up, staff.crew.is_broken) == (0, False)
    staff.set_up()
    assert staff.stages() == ["leaving", "idle"]


def test_old_one_that_dies() -> None:
    """A worker that is lost while it is replaced was replaced; the next that is due follows."""
    staff = Staff(2, max_jobs=1)
    first, second = staff.set_up()
    first.run(1)
    second.run(1)
    assert staff.stages() == ["idle", "idle", "starting"]
    first.end()
    assert staff.stages() == ["idle", "starting", "starting"]
    staff.set_up()
    assert staff.stages() == ["leaving", "idle", "idle"]
    assert second.stage is Stage.LEAVING


def test_due_but_gone() -> None:
    """A worker that has gone before it was its turn is not replaced twice."""
    staff = Staff(2, max_age=100.0)
    first, second = staff.set_up()
    second.run(1)
    staff.clock.advance(200.0)
    second.end()
    staff.set_up()
    first.end("exit code 0")
    staff.set_up()
    assert {worker.name for worker in staff.there} == {"3", "4"}


def test_spare_takes_its_place() -> None:
    """With a spare, a worker that is due leaves at once, and a spare is started in turn."""
    staff = Staff(1, max_jobs=2, warm=1)
    first, second = staff.set_up()
    assert not second.run(2)
    assert staff.stages() == ["idle", "leaving", "starting"]
    second.end("exit code 0")
    assert staff.stages() == ["idle", "starting"]
    assert first.stage is Stage.IDLE


def test_restart() -> None:
    """An operator has a worker replaced: ahead of those that are due, and once."""
    staff = Staff(3, max_age=100.0)
    first, second, third = staff.set_up()
    staff.clock.advance(200.0)
    assert staff.crew.restart("3")
    assert staff.crew.restart("3")
    staff.set_up()
    assert first.stage is Stage.LEAVING
    first.end("exit code 0")
    staff.set_up()
    assert (second.stage, third.stage) == (Stage.IDLE, Stage.LEAVING)
    assert not staff.crew.restart("3")
    assert not staff.crew.restart("1")
    assert not staff.crew.restart("no such worker")


def test_restart_without_bounds() -> None:
    """A worker is replaced at a request where none is replaced by itself."""
    staff = Staff(1)
    staff.set_up()
    assert staff.crew.restart("1")
    assert staff.stages() == ["idle", "starting"]
    staff.set_up()
    assert staff.stages() == ["leaving", "idle"]


def test_restart_of_one_that_starts() -> None:
    """A worker that hangs in its set-up is ended at once, which is not counted as a failure."""
    staff = Staff(1)
    (first,) = staff.there
    assert staff.crew.restart("1")
    assert first.terminated
    first.end("signal 15 (SIGTERM)")
    assert [worker.name for worker in staff.there] == ["2"]


def test_no_process_to_be_had() -> None:
    """Where the system starts no process, that is tried again after a pause."""
    staff = Staff(1)
    staff.refused = 2
    (first,) = staff.set_up()
    first.run(1)
    first.end()
    staff.clock.advance(0.6)
    assert staff.there == []
    staff.clock.advance(1.1)
    assert staff.stages() == ["starting"]


def test_gives_up_for_now() -> None:
    """When set-up after set-up comes to nothing, nobody is let wait, until one works."""
    staff = Staff(1)
    for _ in range(2):
        staff.there[0].end()
        assert not staff.crew.is_broken
        staff.clock.advance(1.1)
    staff.there[0].end()
    assert (staff.crew.is_broken, staff.gave_up) == (True, 1)
    staff.clock.advance(2.1)
    staff.set_up()
    assert not staff.crew.is_broken


def test_lives_too_short() -> None:
    """A worker that is lost before its first job is followed by the next after a pause."""
    staff = Staff(1)
    staff.set_up()[0].end()
    assert staff.there == []
    staff.clock.advance(0.6)
    assert staff.stages() == ["starting"]


@pytest.mark.parametrize("options", [{}, {"max_age": 100.0}])
def test_stop(options: dict[str, Any]) -> None:
    """At the end all leave, whatever they do, none is replaced, and no timer is left."""
    staff = Staff(3, **options)
    first, second, third = staff.there
    first.set_up()
    second.set_up()
    second.begin_job()
    third.end()  # so that one is to be started later
    staff.clock.advance(0.6)
    third = staff.there[-1]
    left: list[int] = []
    staff.crew.stop(2.0).addCallback(left.append)
    assert [worker.patience for worker in staff.there] == [2.0] * 3
    assert third.terminated
    assert staff.clock.getDelayedCalls() == []
    assert not staff.crew.restart("1")
    second.stage = Stage.IDLE
    assert not staff.crew.ready(cast(Worker, second))
    for worker in staff.there:
        assert left == []
        worker.end("exit code 0")
    assert left == [0]
    assert len(staff.started) == 4


def test_stop_between_attempts() -> None:
    """A stop while no worker is there is over at once."""
    staff = Staff(1)
    staff.there[0].end()
    left: list[int] = []
    staff.crew.stop(2.0).addCallback(left.append)
    assert (left, staff.clock.getDelayedCalls()) == ([0], [])
