"""Telling webhooks: when, how often, and what a store, a receiver or a close can do to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from deferpost.errors import StoreFailed
from deferpost.interfaces import IJobStore
from deferpost.notifying import AGAIN_SECONDS, AT_ONCE, LEAST_SECONDS, Notifier
from deferpost.records import Hook, HookAttempt, HookState, JobRecord
from deferpost.webhooks.delivery import Sent
from deferpost.webhooks.rules import HookHosts
from deferpost.webhooks.schedule import MOST_ATTEMPTS, PAUSES
from deferpost.webhooks.signing import hook_id
from tests.hookworld import DAY, EPOCH, URL, FakeSender, Sending, World, answering, document


@pytest.fixture
def world() -> World:
    """A store, a notifier, and the time."""
    return World()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """What is logged as an error or worse."""
    events: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def test_the_store_is_one(world: World) -> None:
    """What is tried here is a store like any other."""
    assert IJobStore.providedBy(world.store)


def test_told_once(world: World) -> None:
    """When a job has ended its webhook is told, once, by a notification of the job's document."""
    record = world.end()
    (sending,) = world.sender.sendings
    assert (sending.url, sending.id, sending.at) == (URL, hook_id(record), EPOCH)
    assert json.loads(sending.body) == {
        "type": "job.succeeded",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {"id": record.id, "state": "succeeded"},
    }
    assert world.hook(record) == Hook(
        url=URL, state=HookState.DELIVERED, attempts=(HookAttempt(at=EPOCH, status=204),)
    )
    world.wait(7 * DAY)
    world.notifier.look()
    world.settle()
    assert len(world.sender.sendings) == 1


def test_told_after_a_start(world: World) -> None:
    """What was due before the start is told after it, without anybody asking."""
    world.notifier.close()
    record = world.ended()
    world.wait(100)
    world.start()
    assert world.hook(record).state is HookState.DELIVERED


def test_the_schedule(world: World) -> None:
    """One who fails is told again by the schedule, with the same id, until that is over."""
    world.sender.answer = answering(500)
    record = world.end()
    assert world.hook(record).due == EPOCH + PAUSES[0]
    world.wait(7 * DAY)
    times = [0.0]
    for pause in PAUSES:
        times.append(times[-1] + pause)
    assert world.sender.times == times
    hook = world.hook(record)
    assert (hook.state, hook.due) == (HookState.FAILED, None)
    assert [attempt.status for attempt in hook.attempts] == [500] * MOST_ATTEMPTS
    assert len({sending.id for sending in world.sender.sendings}) == 1
    # A look for each attempt and for its end, and one each hour.
    assert world.looks <= 2 * MOST_ATTEMPTS + 7 * 24 + 2


def test_told_later(world: World) -> None:
    """One who has recovered is told by the next attempt."""
    world.sender.answer = answering(503)
    record = world.end()
    world.wait(4.9)
    assert len(world.sender.sendings) == 1
    world.sender.answer = answering(200)
    world.wait(0.1)
    hook = world.hook(record)
    assert hook.state is HookState.DELIVERED
    assert [attempt.status for attempt in hook.attempts] == [503, 200]


def test_retry_after(world: World) -> None:
    """A receiver that asks for a longer pause gets it."""
    world.sender.answer = answering(503, 100.0)
    world.end()
    world.wait(250)
    assert world.sender.times == [0.0, 100.0, 200.0]


def test_gone(world: World) -> None:
    """A receiver that is gone for good is not told any more."""
    world.sender.answer = answering(410)
    record = world.end()
    world.wait(7 * DAY)
    assert world.sender.times == [0.0]
    assert world.hook(record).state is HookState.FAILED


def test_more_than_at_once(world: World) -> None:
    """However many are due, so many are told at once; each that ends makes room for the next."""
    world.sender.answer = None
    records = [world.ended() for _ in range(3 * AT_ONCE)]
    world.notifier.look()
    world.settle()
    sendings = world.sender.sendings
    assert len(sendings) == AT_ONCE
    before = world.looks
    world.wait(2 * DAY)  # which only a fake needs for an attempt
    assert len(sendings) == AT_ONCE
    assert world.looks <= before + 2 * 24 + 1
    for number in range(3 * AT_ONCE):
        sendings[number].answer(200)
        world.settle()
        assert len(sendings) == min(3 * AT_ONCE, AT_ONCE + number + 1)
    assert Counter(sending.id for sending in sendings) == Counter(map(hook_id, records))
    assert {world.hook(record).state for record in records} == {HookState.DELIVERED}


def test_one_that_takes_long_holds_no_other_up(world: World) -> None:
    """While one is under way, others are told when they are due, the first time and again."""
    world.sender.answer = None
    slow = world.end()
    other = world.end()
    world.sender.sendings[1].answer(500)
    world.settle()
    world.wait(PAUSES[0])
    assert world.sender.times == [0.0, 0.0, PAUSES[0]]
    world.sender.sendings[2].answer(200)
    world.sender.sendings[0].answer(200)
    world.settle()
    assert world.hook(slow).state is world.hook(other).state is HookState.DELIVERED


def test_a_host_is_taken_off_the_list(world: World) -> None:
    """A host that is not allowed any more is not sent to; that counts, and is said."""
    world.sender.answer = answering(500)
    record = world.end()
    allowed, world.check = world.check, HookHosts(["other.example.com"]).check
    world.wait(PAUSES[0])
    assert world.sender.times == [0.0]
    hook = world.hook(record)
    assert hook.attempts[1] == HookAttempt(
        at=EPOCH + PAUSES[0],
        error="The Webhook-URL has a host, with its scheme and port, that is not allowed here.",
    )
    assert hook.state is HookState.PENDING
    world.check = allowed
    world.sender.answer = answering(200)
    world.wait(PAUSES[1])
    assert world.hook(record).state is HookState.DELIVERED


def test_no_host_is_left(world: World) -> None:
    """Where no webhook is told any more, those that were to be are given up in time."""
    world.sender.answer = answering(500)
    record = world.end()
    world.notifier.use(None, HookHosts().check)
    world.wait(7 * DAY)
    assert world.sender.times == [0.0]
    assert world.hook(record).state is HookState.FAILED


def test_the_url_as_it_is_used(world: World) -> None:
    """What is sent to is what the check gives, and not what the client wrote."""
    world.end("HTTPS://Hooks.Example.com:443")
    assert [sending.url for sending in world.sender.sendings] == ["https://hooks.example.com/"]


@pytest.mark.parametrize("operation", ["next_hook", "hooks_due"])
def test_the_store_cannot_say_what_is_due(world: World, logged: list[Any], operation: str) -> None:
    """The store is asked again after a pause, and then nothing is lost."""
    world.store.failing[operation] = StoreFailed("the disk is gone")
    record = world.end()
    before = world.store.asked[operation]
    world.wait(60)
    assert world.store.asked[operation] - before <= 60 / AGAIN_SECONDS + 1
    assert world.sender.sendings == []
    world.store.failing.clear()
    world.wait(AGAIN_SECONDS)
    assert world.hook(record).state is HookState.DELIVERED
    assert logged == []  # whoever opens and writes the store says so


def test_the_store_fails_otherwise(world: World, logged: list[Any]) -> None:
    """A defect of a store is logged, and is no reason to look no more."""
    world.store.failing["hooks_due"] = LookupError("a defect")
    record = world.end()
    assert [event["log_failure"].type for event in logged] == [LookupError]
    world.store.failing.clear()
    world.wait(AGAIN_SECONDS)
    assert world.hook(record).state is HookState.DELIVERED


def test_an_attempt_cannot_be_noted(world: World, logged: list[Any]) -> None:
    """While the store cannot note an attempt, nothing is sent again; it is noted when it can."""
    world.store.failing["hook_tried"] = StoreFailed("the disk is full")
    record = world.end()
    other = world.end()
    looks = world.looks
    world.wait(600)
    assert [sending.id for sending in world.sender.sendings] == [hook_id(record), hook_id(other)]
    assert world.store.asked["hook_tried"] <= 2 * (600 / AGAIN_SECONDS + 2)
    assert world.looks <= looks + 1
    assert len(logged) == 2
    world.store.failing.clear()
    world.wait(AGAIN_SECONDS)
    for each in (record, other):
        assert world.hook(each).attempts == (HookAttempt(at=EPOCH, status=204),)
    world.wait(DAY)
    assert len(world.sender.sendings) == 2


def test_an_attempt_was_not_noted_at_the_end(world: World, logged: list[Any]) -> None:
    """What could not be noted before the end is told twice, with the same id, and never lost."""
    world.store.failing["hook_tried"] = StoreFailed("the disk is full")
    record = world.end()
    world.notifier.close()
    assert world.is_at_rest()
    world.store.failing.clear()
    world.start()
    assert [sending.id for sending in world.sender.sendings] == [hook_id(record)] * 2
    assert world.hook(record).state is HookState.DELIVERED
    assert len(logged) == 1


def test_a_store_that_refuses_to_note(world: World, logged: list[Any]) -> None:
    """One that a defect keeps from being noted is told once by each process, and others are."""
    world.store.failing["hook_tried"] = LookupError("a defect")
    world.end()
    world.store.failing.clear()
    record = world.end()
    world.wait(DAY)
    assert len(world.sender.sendings) == 2
    assert world.hook(record).state is HookState.DELIVERED
    assert [event["log_failure"].type for event in logged] == [LookupError]
    assert world.looks <= 2 * 2 + 24 + 2


@pytest.mark.parametrize("defect", ["document", "send"])
def test_a_notification_cannot_be_made(world: World, logged: list[Any], defect: str) -> None:
    """A defect on this side counts as an attempt, so that it has an end, and is in the log."""

    def broken(*_: object) -> Any:
        raise ValueError("a defect")

    if defect == "document":
        world.document = broken
    else:
        world.sender.answer = broken
    record = world.end()
    hook = world.hook(record)
    assert hook.due == EPOCH + PAUSES[0]
    assert [attempt.error for attempt in hook.attempts] == [
        "it could not be sent; the log of the server says why"
    ]
    assert [event["log_failure"].type for event in logged] == [ValueError]
    world.document, world.sender.answer = document, answering(200)
    world.wait(PAUSES[0])
    assert world.hook(record).state is HookState.DELIVERED


def test_closed_in_the_middle(world: World, logged: list[Any]) -> None:
    """At the end what is under way is broken off, and is made again after the next start."""
    world.sender.answer = None
    records = [world.end() for _ in range(AT_ONCE + 1)]
    world.notifier.close()
    assert world.sender.broken_off == AT_ONCE
    world.settle()
    assert world.is_at_rest()
    assert logged == []
    assert {world.hook(record).attempts for record in records} == {()}
    first = [sending.id for sending in world.sender.sendings]
    world.sender = FakeSender(answering(200))
    world.start()
    again = [sending.id for sending in world.sender.sendings]
    assert sorted(again) == sorted(map(hook_id, records))
    assert set(first) < set(again)
    assert {world.hook(record).state for record in records} == {HookState.DELIVERED}


def test_closed_while_it_notes(world: World) -> None:
    """What was answered before the end is noted all the same, and not told again."""
    world.store.late["hook_tried"] = 1.0
    record = world.end()
    world.notifier.close()
    world.wait(1)
    world.start()
    assert world.hook(record).state is HookState.DELIVERED
    assert len(world.sender.sendings) == 1


@pytest.mark.parametrize("operation", ["next_hook", "hooks_due"])
def test_closed_while_it_looks(world: World, operation: str) -> None:
    """What a look finds after the end is not told any more."""
    world.store.late[operation] = 1.0
    record = world.end()
    world.notifier.close()
    world.wait(10)
    assert world.sender.sendings == []
    assert world.is_at_rest()
    world.notifier.look()
    world.settle()
    assert world.is_at_rest()
    assert world.hook(record).state is HookState.PENDING


def test_no_timer_is_left(world: World) -> None:
    """A close leaves no timer, whatever the notifier waits for, and may come twice."""
    world.sender.answer = answering(500)
    world.end()
    assert not world.is_at_rest()
    world.notifier.close()
    world.notifier.close()
    assert world.is_at_rest()


@pytest.mark.parametrize("operation", ["next_hook", "hooks_due"])
def test_a_job_ends_while_it_looks(world: World, operation: str) -> None:
    """A job that a look that is under way cannot have seen is told right after it."""
    world.store.late[operation] = 1.0
    first = world.end()
    second = world.ended()
    world.notifier.look()
    world.notifier.look()
    world.wait(4.0)
    assert [sending.id for sending in world.sender.sendings] == [hook_id(first), hook_id(second)]
    assert world.sender.times[1] <= 4.0


def test_told_while_it_looks(world: World) -> None:
    """What a look has read before an attempt was noted is not told once more."""
    world.sender.answer = None
    first = world.end()
    world.store.late["hooks_due"] = 1.0
    second = world.end()  # by a look that reads that the first is due
    world.sender.sendings[0].answer(200)
    world.settle()
    assert world.hook(first).state is HookState.DELIVERED
    world.wait(5.0)
    assert [sending.id for sending in world.sender.sendings] == [hook_id(first), hook_id(second)]


def test_deleted_meanwhile(world: World) -> None:
    """What came of an attempt is not noted of another job that has got the id since."""
    world.sender.answer = None
    first = world.ended(id="chosen")
    world.notifier.look()
    world.settle()
    assert world.got(world.store.delete("chosen"))
    second = world.ended(id="chosen")
    world.sender.sendings[0].answer(200)
    world.settle()
    assert world.hook(second).attempts == ()
    world.sender.sendings[1].answer(200)
    world.settle()
    assert [sending.id for sending in world.sender.sendings] == [hook_id(first), hook_id(second)]
    assert world.hook(second).state is HookState.DELIVERED


def test_looking_costs_little(world: World) -> None:
    """Where nothing is due the store is asked once an hour; where much ends, once for all."""
    before = world.looks
    world.wait(10 * 3600)
    assert world.looks - before == 10
    world.store.late["next_hook"] = 0.01
    world.wait(1)
    before = world.looks
    for _ in range(1000):
        world.notifier.look()
    world.wait(1)
    assert world.looks - before == 2


def test_a_wall_clock_that_lags(world: World) -> None:
    """Where timers are early by the clock that counts, the store is not asked in a whirl."""
    world.sender.answer = answering(500)
    record = world.end()
    before = world.looks
    lagging = Notifier(
        lambda: world.store,
        world.clock,
        document,
        wall=lambda: EPOCH + float(world.clock.seconds()) * 0.5,
        chance=lambda: 0.0,
    )
    world.notifier.close()
    lagging.use(world.sender.send, world.check)
    world.wait(2 * PAUSES[0] + 2 * LEAST_SECONDS)
    assert len(world.hook(record).attempts) == 2
    assert world.looks - before <= 12
    lagging.close()


def test_a_wall_clock_that_is_put_forward(world: World) -> None:
    """What is due by a clock that was set is told within the hour, and not a day later."""
    world.sender.answer = answering(503, DAY)
    record = world.end()
    world.sender.answer = answering(200)
    world.wait(60)
    assert world.hook(record).state is HookState.PENDING
    world.ahead = DAY
    world.wait(3600)
    assert world.hook(record).state is HookState.DELIVERED


def test_before_it_may(world: World) -> None:
    """Before it was said how to tell, nothing is looked for."""
    notifier = Notifier(lambda: world.store, world.clock, document)
    before = world.looks
    notifier.look()
    world.settle()
    assert world.looks == before
    notifier.close()


def test_without_a_store(world: World) -> None:
    """While the store is not open, it is looked for now and then."""
    opened: list[Any] = []

    def store() -> Any:
        if not opened:
            raise StoreFailed("the store is not open")
        return opened[0]

    world.notifier.close()
    record = world.ended()
    notifier = Notifier(store, world.clock, document, wall=world.now)
    notifier.use(world.sender.send, world.check)
    world.wait(12)
    opened.append(world.store)
    world.wait(AGAIN_SECONDS)
    assert world.hook(record).state is HookState.DELIVERED
    notifier.close()
    assert world.is_at_rest()


class Life:
    """What may happen to a notifier, its store and its receivers."""

    def __init__(self) -> None:
        self.world = World()
        self.records: list[JobRecord] = []
        self.delivered: Counter[str] = Counter()
        self.status = 200
        self.restarts = 0
        self.world.sender.answer = self._answer

    def _answer(self, sending: Sending) -> Sent:
        if self.status == 200:
            self.delivered[sending.id] += 1
        return answering(self.status)(sending)

    def happen(self, what: str) -> None:
        """Have one thing happen."""
        world = self.world
        failing = world.store.failing
        if what == "end":
            self.records.append(world.ended())
            world.notifier.look()
        elif what == "restart":
            self.restarts += 1
            world.notifier.close()
            world.start()
        elif what == "well":
            failing.clear()
        elif what == "late":
            world.store.late = dict.fromkeys(("next_hook", "hooks_due", "hook_tried"), 0.2)
        elif what == "prompt":
            world.store.late = {}
        elif what.isdigit():
            self.status = int(what)
        elif what in ("next_hook", "hooks_due", "hook_tried"):
            failing[what] = StoreFailed("it fails")
        else:
            world.wait(float(what.removesuffix("s")))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "end",
                "end",
                "end",
                "restart",
                "well",
                "late",
                "prompt",
                "200",
                "500",
                "next_hook",
                "hooks_due",
                "hook_tried",
                "0.1s",
                "1s",
                "6s",
            ]
        ),
        max_size=30,
    )
)
def test_none_is_lost(happenings: list[str]) -> None:
    """Whatever happens, each is told in the end; and twice only by two processes."""
    life = Life()
    for happening in happenings:
        life.happen(happening)
    life.happen("well")
    life.status = 200
    life.world.wait(2 * DAY)
    for record in life.records:
        assert life.world.hook(record).state is HookState.DELIVERED
        assert 1 <= life.delivered[hook_id(record)] <= 1 + life.restarts
    life.world.notifier.close()
    life.world.settle()
    assert life.world.is_at_rest()
