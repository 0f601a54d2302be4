"""The jobs that wait: whose turn it is, and that nobody waits for ever."""

from __future__ import annotations

import io
import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.jobs import Job
from deferpost.model import CallHead
from deferpost.pools.line import LEAST_URGENT, Line

_HEAD = CallHead("id", "/", "POST", "/", b"", (), None, None)
_PATIENCE = 30.0

URGENCY = st.integers(0, LEAST_URGENT)


def _job(key: int, urgency: int = 3, created: float = 0.0) -> Job:
    return Job(key, _HEAD, io.BytesIO(), created, lambda job: None, urgency=urgency)


def _take_all(line: Line) -> list[int]:
    keys = []
    while line:
        keys.append(line.take().key)
    return keys


def test_equals_in_the_order_in_which_they_came() -> None:
    """Jobs of the usual urgency leave as they came, and nothing is left."""
    line = Line(10.0)
    for key in (3, 1, 2):
        line.put(_job(key))
    assert (len(line), bool(line), line.mixed) == (3, True, False)
    assert [job.key for job in line] == [3, 1, 2]
    assert _take_all(line) == [3, 1, 2]
    assert (len(line), bool(line)) == (0, False)
    with pytest.raises(KeyError):
        line.take()


def test_the_more_urgent_first() -> None:
    """Of jobs that came together, the more urgent are first."""
    line = Line(10.0)
    for key, urgency in enumerate((3, 7, 0, 3, 5)):
        line.put(_job(key, urgency))
    assert len(line) == 5
    assert [job.key for job in line] == [2, 0, 3, 4, 1]
    assert _take_all(line) == [2, 0, 3, 4, 1]
    with pytest.raises(KeyError):
        line.take()


def test_a_step_is_worth_so_many_seconds() -> None:
    """A job that came earlier by more than the steps are worth is first all the same."""
    line = Line(10.0)
    line.put(_job(1, 5, created=0.0))
    line.put(_job(2, 3, created=19.0))
    line.put(_job(3, 3, created=21.0))
    assert _take_all(line) == [2, 1, 3]


def test_without_ageing_first_come_first_served() -> None:
    """Where a step is worth nothing, all leave in the order in which they came."""
    line = Line(0.0)
    for key, urgency in enumerate((7, 0, 3, 1)):
        line.put(_job(key, urgency, created=float(key)))
    assert _take_all(line) == [0, 1, 2, 3]


def test_back_to_one_line() -> None:
    """When those of another urgency have left, the line is as simple as before."""
    line = Line(10.0)
    line.put(_job(1, 0))
    line.put(_job(2))
    assert line.mixed
    assert line.take().key == 1
    line.put(_job(3))
    assert not line.mixed
    assert _take_all(line) == [2, 3]


def test_put_first() -> None:
    """A job that comes back is in front of those of its urgency."""
    line = Line(10.0)
    line.put(_job(1))
    line.put(_job(2))
    back = line.take()
    line.put_first(back)
    line.put(_job(3, 4))
    line.put_first(_job(4, 4))
    assert _take_all(line) == [1, 2, 4, 3]


def test_removed() -> None:
    """A job is taken out of the middle, once."""
    line = Line(10.0)
    jobs = [_job(key, urgency) for key, urgency in enumerate((3, 3, 6, 3, 6))]
    for job in jobs:
        line.put(job)
    assert jobs[1] in line
    assert [line.remove(jobs[number]) for number in (1, 2, 1, 2)] == [True, True, False, False]
    assert jobs[1] not in line
    assert _take_all(line) == [0, 3, 4]


def test_how_many_are_ahead() -> None:
    """As many jobs are sure to be ahead as wait that are as urgent, or more."""
    line = Line(10.0)
    assert [line.ahead_of(urgency) for urgency in (0, 3, 7)] == [0, 0, 0]
    line.put(_job(1))
    assert [line.ahead_of(urgency) for urgency in (2, 3, 7)] == [0, 1, 1]
    line.put(_job(2, 1))
    line.put(_job(3, 5))
    assert [line.ahead_of(urgency) for urgency in (0, 1, 3, 5, 7)] == [0, 1, 2, 3, 3]


@given(
    st.lists(st.tuples(URGENCY, st.integers(0, 30)), max_size=40),
    st.floats(0, 20),
)
def test_the_least_rank_is_next(plan: list[tuple[int, int]], ageing: float) -> None:
    """Whatever waits, the job with the least of created + urgency * ageing is next."""
    line = Line(ageing)
    now = 0.0
    for key, (urgency, pause) in enumerate(plan):
        now += pause
        line.put(_job(key, urgency, now))
    ranks = []
    while line:
        job = line.take()
        ranks.append(job.created + job.urgency * ageing)
    assert len(ranks) == len(plan)
    assert ranks == sorted(ranks)


@given(st.lists(st.one_of(st.none(), URGENCY), max_size=80), st.integers(1, 20))
def test_nobody_starves(plan: list[int | None], ageing: int) -> None:
    """However many more urgent jobs come, one waits for none that came too long after it."""
    line = Line(ageing)
    taken: dict[int, int] = {}
    jobs: list[Job] = []
    for second, urgency in enumerate(plan):
        if urgency is not None:
            job = _job(len(jobs), urgency, float(second))
            jobs.append(job)
            line.put(job)
        elif line:
            taken[line.take().key] = len(taken)
    while line:
        taken[line.take().key] = len(taken)
    for patient in jobs:
        for other in jobs:
            if other.created > patient.created + patient.urgency * ageing:
                assert taken[patient.key] < taken[other.key]


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "take", "remove", "back"]), URGENCY, st.integers(0, 99)),
        max_size=60,
    )
)
def test_every_job_leaves_once(steps: list[tuple[str, int, int]]) -> None:
    """In any order of events each job is in the line or has left it, and is counted so."""
    line = Line(10.0)
    inside: dict[int, Job] = {}
    left: list[Job] = []
    for key, (step, urgency, number) in enumerate(steps):
        if step == "put":
            inside[key] = _job(key, urgency, float(key))
            line.put(inside[key])
        elif step == "take" and inside:
            job = line.take()
            del inside[job.key]
            left.append(job)
        elif step == "back" and left:
            job = left.pop(number % len(left))
            line.put_first(job)
            inside[job.key] = job
        elif step == "remove" and inside:
            job = inside.pop(sorted(inside)[number % len(inside)])
            assert line.remove(job)
            left.append(job)
        assert len(line) == len(inside)
        assert bool(line) == bool(inside)
        assert {job.key for job in line} == set(inside)
        assert all(job in line for job in inside.values())
        assert not any(job in line for job in left)


@pytest.fixture(params=[0.000001, 0.005], ids=["switching all the time", "as usual"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads that take turns at almost every step, where a race would show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_each_job_goes_to_one_thread() -> None:
    """Jobs of all urgencies, taken by several threads and removed meanwhile, leave once each."""
    line = Line(0.001)
    is_over = threading.Event()
    taken: list[list[int]] = [[] for _ in range(4)]

    def run(keys: list[int]) -> None:
        while True:
            over = is_over.is_set()
            try:
                keys.append(line.take().key)
            except KeyError:
                if over:
                    return
                time.sleep(0)

    threads = [threading.Thread(target=run, args=(keys,)) for keys in taken]
    for thread in threads:
        thread.start()
    chance = random.Random(7)
    removed = []
    for start in range(0, 3000, 20):
        jobs = [
            _job(key, chance.choice((3, 3, 3, 0, 5, 7)), key * 0.0001)
            for key in range(start, start + 20)
        ]
        for job in jobs:
            line.put(job)
        removed += [job.key for job in jobs if chance.random() < 0.3 and line.remove(job)]
    is_over.set()
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive()
    everything = [*removed, *(key for keys in taken for key in keys)]
    assert sorted(everything) == list(range(3000))


@pytest.mark.alone
def test_what_waits_does_not_make_it_slower() -> None:
    """Taking and removing cost as much with thirty thousand jobs as with ten."""

    def cost(waiting: int) -> float:
        line = Line(10.0)
        jobs = [_job(key, key % 8, float(key)) for key in range(waiting)]
        for job in jobs:
            line.put(job)
        best = 1.0
        for turn in range(20):
            began = time.perf_counter()
            for _ in range(5):
                line.put_first(line.take())
                line.remove(jobs[turn % waiting])
                line.put_first(jobs[turn % waiting])
            best = min(best, time.perf_counter() - began)
        return best

    assert cost(30_000) < 20 * cost(10) + 0.001


def test_how_long_the_oldest_has_waited() -> None:
    """The longest wait is that of the oldest job, whatever its urgency; of none there is none."""
    line = Line(10.0)
    assert (line.oldest, line.longest_wait(5.0)) == (None, None)
    line.put(_job(1, 3, created=2.0))
    line.put(_job(2, 7, created=1.0))
    assert (line.oldest, line.longest_wait(5.0)) == (1.0, 4.0)
    line.take()
    assert line.longest_wait(5.0) == 4.0
