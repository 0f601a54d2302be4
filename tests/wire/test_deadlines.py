"""Deadlines of many with one timer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from deferpost.wire.deadlines import Deadlines, OwnDeadline

TICK = 0.25


class Holder:
    """Notes when it was called, and when it should have been."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadline: float | None = None
        self.held_until: int | None = None
        self.due: float | None = None  # as the test has it
        self.late: list[float] = []

    def expired(self, now: float) -> None:
        """It is due."""
        assert self.deadline is None
        assert self.due is not None, "it was dropped"
        self.late.append(self.clock.seconds() - self.due)
        self.due = None


class DeadlineMachine(RuleBasedStateMachine):
    """In any order of events each is called once, when it is due, and never when it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, TICK)
        self.holders = [Holder(self.clock) for _ in range(4)]

    which = st.integers(0, 3)
    seconds = st.integers(0, 80).map(lambda eighths: eighths / 8)

    @rule(which=which, seconds=seconds)
    def hold(self, which: int, seconds: float) -> None:
        """Set a deadline, nearer or further than one before."""
        holder = self.holders[which]
        holder.due = self.deadlines.now() + seconds
        self.deadlines.hold(holder, holder.due)

    @rule(which=which)
    def drop(self, which: int) -> None:
        """Forget one."""
        self.deadlines.drop(self.holders[which])
        self.holders[which].due = None

    @rule(which=which)
    def clear(self, which: int) -> None:
        """Drop a deadline by assignment alone."""
        self.holders[which].deadline = self.holders[which].due = None

    @rule(which=which, seconds=seconds)
    @precondition(lambda self: any(holder.deadline for holder in self.holders))
    def move_on(self, which: int, seconds: float) -> None:
        """Move a deadline on by assignment alone."""
        holder = self.holders[which]
        if holder.deadline is not None:
            holder.deadline += seconds
            holder.due = holder.deadline

    @rule(seconds=st.integers(1, 60).map(lambda tenths: tenths / 10))
    def wait(self, seconds: float) -> None:
        """Let time pass, as a reactor does: from call to call."""
        end = self.clock.seconds() + seconds
        while True:
            calls = [call.getTime() for call in self.clock.getDelayedCalls()]
            until = min([end, *calls])
            self.clock.advance(max(0.0, until - self.clock.seconds()))
            if until >= end:
                break

    @invariant()
    def each_in_time(self) -> None:
        """None is early, none more than a tick late, none forgotten; there is one timer."""
        now = self.clock.seconds()
        for holder in self.holders:
            assert all(0 <= late <= TICK + 1e-6 for late in holder.late)
            assert holder.due is None or holder.due > now - TICK - 1e-6
            assert holder.due is None or holder.deadline == holder.due
        assert len(self.clock.getDelayedCalls()) <= 1


TestDeadlines = DeadlineMachine.TestCase


def test_nothing_is_left_behind() -> None:
    """When all are dropped, no timer runs."""
    clock = Clock()
    deadlines = Deadlines(clock)
    holders = [Holder(clock) for _ in range(5)]
    for n, holder in enumerate(holders):
        deadlines.hold(holder, float(n))
    for holder in holders:
        deadlines.drop(holder)
        deadlines.drop(holder)
    assert clock.getDelayedCalls() == []


def test_others_of_the_same_tick() -> None:
    """One that is due may drop and move others that are due with it."""
    clock = Clock()
    deadlines = Deadlines(clock, TICK)
    one, two, three = holders = [Holder(clock) for _ in range(3)]

    def expired(now: float) -> None:
        deadlines.drop(two)
        deadlines.hold(three, now + 1)
        deadlines.hold(one, now + 2)

    one.expired = expired  # type: ignore[method-assign]
    for holder in holders:
        deadlines.hold(holder, 1.0)
    three.due = 2.25
    clock.pump([1.25, 0.75, 0.5])
    assert (two.late, three.late) == ([], [0.25])
    assert one.deadline == 3.25


def test_a_defect_is_alone() -> None:
    """One that cannot be ended is logged; the next one is, and so are those of later."""
    clock = Clock()
    deadlines = Deadlines(clock, TICK)
    broken, good, later = (Holder(clock) for _ in range(3))
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    deadlines.hold(broken, 1.0)  # it raises, as its due is not set
    good.due = 1.0
    deadlines.hold(good, 1.0)
    later.due = 2.0
    deadlines.hold(later, 2.0)
    clock.pump([1.3, 1.0])
    globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    assert len(good.late) == len(later.late) == 1
    [event] = [event for event in events if "log_failure" in event]
    assert event["log_failure"].check(AssertionError)


def test_soon() -> None:
    """A call for the next turn comes in the next turn."""
    clock = Clock()
    for deadlines in (Deadlines(clock), OwnDeadline(clock.callLater)):
        called: list[int] = []
        deadlines.soon(lambda called=called: called.append(1))  # type: ignore[misc]
        assert not called
        clock.advance(0)
        assert called == [1]


@given(st.lists(st.tuples(st.sampled_from("hdcw"), st.integers(1, 9)), max_size=20))
def test_one_of_its_own(acts: list[tuple[str, int]]) -> None:
    """A deadline with its own timer is exact, whatever was before."""
    clock = Clock()
    deadline = OwnDeadline(clock.callLater)
    holder = Holder(clock)
    for act, seconds in acts:
        if act == "h":
            deadline.hold(holder, deadline.now() + seconds)
            holder.due = clock.seconds() + seconds
        elif act == "d":
            deadline.drop(holder)
            holder.due = None
        elif act == "c":
            holder.deadline = holder.due = None
        else:
            for _ in range(seconds):
                clock.advance(1)
        assert len(clock.getDelayedCalls()) <= 1
        assert holder.due is None or holder.due > clock.seconds()
    assert all(late == pytest.approx(0) for late in holder.late)
