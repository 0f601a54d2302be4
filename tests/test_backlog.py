"""Which of the kept jobs that wait is next, and what becomes of those whose time is over."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deferpost.backlog import Backlog, Waiting


def taken(backlog: Backlog) -> list[str]:
    """All that wait, in the order in which they are taken."""
    found = []
    while (waiting := backlog.take()) is not None:
        found.append(waiting.id)
    return found


def test_empty() -> None:
    """Of nothing, nothing is next."""
    backlog = Backlog()
    assert (len(backlog), bool(backlog)) == (0, False)
    assert backlog.take() is None
    assert backlog.next_deadline is None
    assert backlog.overdue(1e12) == []
    assert backlog.remove("a", 3) is False
    assert backlog.position("a", 3) is None


def test_first_come_first_served() -> None:
    """Jobs of one urgency are taken in the order in which they came."""
    backlog = Backlog(10.0)
    for name in "abc":
        backlog.put(Waiting(name, 5.0, 3))
    assert (len(backlog), bool(backlog)) == (3, True)
    assert [backlog.position(name, 3) for name in "abc"] == [1, 2, 3]
    assert taken(backlog) == ["a", "b", "c"]
    assert not backlog


def test_urgency_and_age() -> None:
    """A step of urgency is worth so much time in the queue, and no more."""
    backlog = Backlog(10.0)
    backlog.put(Waiting("old", 0.0, 7))
    backlog.put(Waiting("usual", 35.0, 3))
    backlog.put(Waiting("urgent", 69.0, 0))
    backlog.put(Waiting("late", 71.0, 0))
    assert taken(backlog) == ["usual", "urgent", "old", "late"]


def test_without_ageing() -> None:
    """Without ageing jobs are taken as they came, whatever their urgency."""
    backlog = Backlog()
    backlog.put(Waiting("a", 1.0, 7))
    backlog.put(Waiting("b", 2.0, 0))
    assert taken(backlog) == ["a", "b"]


def test_put_back() -> None:
    """One that was taken before is the next of its urgency again; its deadline counts again."""
    backlog = Backlog(10.0)
    for name in "abc":
        backlog.put(Waiting(name, 5.0, 3, 9.0))
    first, second = backlog.take(), backlog.take()
    assert first is not None
    assert second is not None
    backlog.put_first(second)
    backlog.put_first(first)
    assert [backlog.position(name, 3) for name in "abc"] == [1, 2, 3]
    assert backlog.overdue(8.9) == []
    assert [each.id for each in backlog.overdue(9.0)] == ["a", "b", "c"]
    assert backlog.next_deadline is None


def test_put_first_into_an_empty_line() -> None:
    """What is put back where nothing waits is before what comes next."""
    backlog = Backlog()
    backlog.put(Waiting("a", 1.0, 3))
    first = backlog.take()
    assert first is not None
    backlog.put_first(first)
    backlog.put(Waiting("b", 2.0, 3))
    assert [backlog.position(name, 3) for name in "ab"] == [1, 2]
    assert taken(backlog) == ["a", "b"]


def test_one_that_has_left_is_not_overdue() -> None:
    """The deadlines of jobs that were taken or removed end nobody."""
    backlog = Backlog()
    backlog.put(Waiting("a", 1.0, 3, 5.0))
    backlog.put(Waiting("b", 2.0, 3, 6.0))
    backlog.put(Waiting("c", 3.0, 2, 7.0))
    backlog.take()
    assert backlog.remove("b", 3)
    assert not backlog.remove("b", 3)
    assert [each.id for each in backlog.overdue(100.0)] == ["c"]


def test_another_deadline_the_second_time() -> None:
    """Of one that comes back with another deadline, the one before does not count."""
    backlog = Backlog()
    backlog.put(Waiting("a", 1.0, 3, 5.0))
    backlog.take()
    backlog.put_first(Waiting("a", 1.0, 3, 50.0))
    assert backlog.overdue(10.0) == []
    assert [each.id for each in backlog.overdue(50.0)] == ["a"]


def test_deadlines_do_not_pile_up() -> None:
    """Those who come and go before their time leave next to nothing behind."""
    backlog = Backlog()
    backlog.put(Waiting("stays", 0.0, 3, 10.0))
    for number in range(10_000):
        waiting = Waiting(f"job-{number}", 1.0, 2, 1e6 + number)
        backlog.put(waiting)
        assert backlog.remove(waiting.id, 2)
    assert len(backlog._deadlines) < 200
    assert [each.id for each in backlog.overdue(1e9)] == ["stays"]


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 7)), max_size=30),
    st.sampled_from([0.0, 1.0, 10.0]),
)
def test_nobody_is_passed_by_whoever_came_much_later(
    jobs: list[tuple[int, int]], ageing: float
) -> None:
    """Each is taken before all that came more than its urgency's worth later."""
    jobs.sort()  # as they come
    backlog = Backlog(ageing)
    for number, (created, urgency) in enumerate(jobs):
        backlog.put(Waiting(str(number), float(created), urgency))
    order = [jobs[int(name)] for name in taken(backlog)]
    ranks = [created + urgency * ageing for created, urgency in order]
    assert ranks == sorted(ranks)


class BacklogMachine(RuleBasedStateMachine):
    """A backlog beside one that is as simple as can be: a list for each urgency."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(5.0)
        self.lines: list[list[Waiting]] = [[] for _ in range(8)]
        self.out: list[Waiting] = []
        self.count = 0
        self.now = 0.0

    @property
    def all(self) -> list[Waiting]:
        return [each for line in self.lines for each in line]

    @rule(urgency=st.integers(0, 7), passed=st.integers(0, 9), limit=st.none() | st.integers(0, 30))
    def put(self, urgency: int, passed: int, limit: int | None) -> None:
        self.now += passed
        self.count += 1
        start_by = None if limit is None else self.now + limit
        waiting = Waiting(f"job-{self.count}", self.now, urgency, start_by)
        self.backlog.put(waiting)
        self.lines[urgency].append(waiting)

    @rule()
    def take(self) -> None:
        heads = [line[0] for line in self.lines if line]
        expected = min(heads, key=lambda each: each.created + each.urgency * 5.0, default=None)
        waiting = self.backlog.take()
        assert waiting == expected
        if waiting is not None:
            self.lines[waiting.urgency].remove(waiting)
            self.out.append(waiting)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def put_first(self, data: Any) -> None:
        waiting = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.backlog.put_first(waiting)
        self.lines[waiting.urgency].insert(0, waiting)

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        id = f"job-{data.draw(st.integers(1, self.count))}"
        urgency = data.draw(st.integers(0, 7))
        there = next((each for each in self.lines[urgency] if each.id == id), None)
        assert self.backlog.remove(id, urgency) is (there is not None)
        if there is not None:
            self.lines[urgency].remove(there)

    @rule(passed=st.integers(0, 20))
    def overdue(self, passed: int) -> None:
        self.now += passed
        expected = [
            each for each in self.all if each.start_by is not None and each.start_by <= self.now
        ]
        found = self.backlog.overdue(self.now)
        assert sorted(found, key=lambda each: each.id) == sorted(expected, key=lambda each: each.id)
        for each in found:
            self.lines[each.urgency].remove(each)

    @invariant()
    def counts(self) -> None:
        assert len(self.backlog) == len(self.all)
        assert bool(self.backlog) is bool(self.all)
        limits = [each.start_by for each in self.all if each.start_by is not None]
        if limits:
            assert self.backlog.next_deadline is not None
            assert self.backlog.next_deadline <= min(limits)
        for line in self.lines:
            for place, each in enumerate(line, 1):
                position = self.backlog.position(each.id, each.urgency)
                assert position is not None
                assert place <= position <= len(line)


TestBacklogMachine = BacklogMachine.TestCase
