"""Handing jobs to threads: each job to one taker, none left lying while a thread sleeps."""

from __future__ import annotations

import io
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from deferpost.jobs import Job
from deferpost.model import CallHead
from deferpost.pools.handoff import Handoff

_HEAD = CallHead("id", "/", "POST", "/", b"", (), None, None)
_PATIENCE = 30.0


def _job(key: int, urgency: int = 3) -> Job:
    return Job(key, _HEAD, io.BytesIO(), 0.0, lambda job: None, urgency=urgency)


class _Takers:
    """Threads that take jobs until there are no more."""

    def __init__(self, handoff: Handoff, count: int) -> None:
        self.taken: list[list[int]] = [[] for _ in range(count)]
        self._handoff = handoff
        self._threads = [threading.Thread(target=self._run, args=(keys,)) for keys in self.taken]
        for thread in self._threads:
            thread.start()

    def _run(self, keys: list[int]) -> None:
        bed = threading.Lock()
        bed.acquire()
        while (job := self._handoff.take(bed)) is not None:
            keys.append(job.key)

    def join(self) -> list[int]:
        """Wait for the threads; all keys that they have taken."""
        for thread in self._threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive(), "a thread sleeps on"
        return sorted(key for keys in self.taken for key in keys)


@pytest.fixture(params=[0.000001, 0.005], ids=["switching all the time", "as usual"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads that take turns at almost every step, where a race would show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_job_is_taken_once(threads: int) -> None:
    """Each of many jobs goes to exactly one thread."""
    handoff = Handoff()
    takers = _Takers(handoff, threads)
    for key in range(5000):
        handoff.put(_job(key))
        handoff.rouse()
    handoff.close()
    assert takers.join() == list(range(5000))


@pytest.mark.usefixtures("switching")
def test_no_job_is_left_lying() -> None:
    """A job that is put in is taken without another rouse, however the threads fall asleep."""
    handoff = Handoff()
    takers = _Takers(handoff, 4)
    for key in range(1500):
        handoff.put(_job(key))
        handoff.rouse()
        if key % 3 == 0:  # the threads are now on their way to sleep, or asleep
            deadline = time.monotonic() + _PATIENCE
            while len(handoff):
                assert time.monotonic() < deadline, "a job lies there and nobody takes it"
                time.sleep(0)
    handoff.close()
    assert takers.join() == list(range(1500))


@pytest.mark.usefixtures("switching")
def test_a_job_is_taken_or_removed() -> None:
    """What the reactor takes back no thread gets, and what a thread has it cannot take back."""
    handoff = Handoff()
    takers = _Takers(handoff, 4)
    chance = random.Random(7)
    removed = []
    for start in range(0, 4000, 20):
        jobs = [_job(key) for key in range(start, start + 20)]
        for job in jobs:
            handoff.put(job)
        handoff.rouse()
        removed += [job.key for job in jobs if chance.random() < 0.5 and handoff.remove(job)]
    handoff.close()
    taken = takers.join()
    assert sorted(taken + removed) == list(range(4000))
    assert len(set(taken) & set(removed)) == 0


def test_jobs_leave_in_the_order_in_which_they_came() -> None:
    """The oldest job is the first to be taken."""
    handoff = Handoff()
    for key in (3, 1, 2):
        handoff.put(_job(key))
    assert len(handoff) == 3
    assert [job.key for job in handoff] == [3, 1, 2]
    takers = _Takers(handoff, 1)
    handoff.close()
    assert takers.join() == [1, 2, 3]
    assert takers.taken == [[3, 1, 2]]


@pytest.mark.usefixtures("switching")
def test_urgent_jobs_wake_threads_too() -> None:
    """Jobs of any urgency are taken once each, and none lies there while threads sleep."""
    handoff = Handoff(0.001)
    takers = _Takers(handoff, 4)
    for key in range(1500):
        handoff.put(_job(key, urgency=(3, 0, 3, 7)[key % 4]))
        handoff.rouse()
        if key % 5 == 0:
            deadline = time.monotonic() + _PATIENCE
            while len(handoff):
                assert time.monotonic() < deadline, "a job lies there and nobody takes it"
                time.sleep(0)
    handoff.close()
    assert takers.join() == list(range(1500))


def test_urgent_jobs_are_taken_first() -> None:
    """The most urgent job is the first to be taken, and how many are ahead of one is known."""
    handoff = Handoff(10.0)
    jobs = [_job(key, urgency) for key, urgency in ((1, 3), (2, 5), (3, 1), (4, 3))]
    for job in jobs:
        handoff.put(job)
    assert jobs[1] in handoff
    assert handoff.line.ahead_of(3) == 3
    handoff.remove(jobs[3])
    takers = _Takers(handoff, 1)
    handoff.close()
    takers.join()
    assert takers.taken == [[3, 1, 2]]


def test_a_job_that_blocks_does_not_hold_the_others_up() -> None:
    """With one rouse for several jobs, all threads come awake although the first job blocks."""
    handoff = Handoff()
    together = threading.Barrier(4, timeout=_PATIENCE)

    def run() -> None:
        bed = threading.Lock()
        bed.acquire()
        while handoff.take(bed) is not None:
            together.wait()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for key in range(4):
        handoff.put(_job(key))
    handoff.rouse()
    handoff.close()
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive()
    assert not together.broken
