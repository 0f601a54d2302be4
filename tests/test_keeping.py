"""Kept jobs: durable before they are promised, run once, ended once, whatever goes wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from deferpost.errors import (
    HandlerFailed,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StoreFailed,
)
from deferpost.model import Reason, Rung, State
from deferpost.records import Accepted, JobRecord, Outcome
from tests.keeping import EPOCH, Bench, route


@pytest.fixture(autouse=True)
def defects() -> Iterator[list[str]]:
    """The defects of ours that are to be logged; any other is an error of the test."""
    expected: list[str] = []
    with capturedLogs() as logs:
        yield expected
    failures = [event["log_failure"] for event in logs if "log_failure" in event]
    tracebacks = "\n".join(failure.getTraceback() for failure in failures)
    assert [str(failure.value) for failure in failures] == expected, tracebacks


def fired(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with, or None; a failure is given, not raised."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


# From the beginning to the end.


def test_from_accepted_to_succeeded() -> None:
    """A job is in the store, then it runs, then its result is in the store."""
    bench = Bench()
    accepting = bench.begin_to_accept()
    assert bench.pool.begun == []
    bench.turn()
    accepted = fired(accepting)
    assert (accepted.is_new, accepted.record.state) == (True, State.QUEUED)
    id = accepted.record.id
    assert bench.state(id) == (State.RUNNING, None)
    assert bench.record(id).attempt == 1
    assert bench.pool.begun == ["request-1"]
    assert bench.keeper.unended == 1
    bench.pool.give(b"done")
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    result = bench.result(id)
    assert (result.status, result.body) == (200, b"done")
    assert bench.record(id).content_type == "text/plain"
    assert bench.observer.heard == [(State.SUCCEEDED, 200)]
    bench.judge()
    bench.close()


def test_started_is_durable_before_the_code_begins() -> None:
    """The code of a job begins when the store has told that it knows, not before."""
    bench = Bench()
    bench.store.hold("start")
    id = bench.accept()
    assert bench.state(id) == (State.RUNNING, None)  # but this has not been told
    assert bench.pool.begun == []
    bench.store.go_on()
    bench.turn()
    assert bench.pool.begun == ["request-1"]


def test_the_handler_sees_its_call() -> None:
    """A job is run with the call and the body that came, from memory or from the store."""
    bench = Bench(size=2)
    for size in (10, 100_000):
        body = bytes(size)
        bench.accept(body=io.BytesIO(body), body_bytes=size)
        job = bench.pool.running[-1]
        assert (job.body.read(), job.body_bytes, job.head.route) == (body, size, "/rst")
    assert bench.store.asked.count("call") == 1  # the small one was in memory


def test_error_of_the_handler() -> None:
    """What a handler raised is the result, as a problem, and reported."""
    bench = Bench()
    id = bench.accept()
    error = HandlerFailed("LookupError: words")
    bench.pool.fail(error)
    bench.turn()
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    record = bench.record(id)
    assert (record.status, record.content_type) == (500, "application/problem+json")
    assert record.problem == bench.result(id).body
    assert b"words" not in bench.result(id).body
    assert bench.reports == [error]
    assert bench.observer.heard == [(State.FAILED, 500)]
    bench.judge()


def test_file_as_result() -> None:
    """A file is recorded from where it stands, and closed."""
    bench = Bench()
    id = bench.accept()
    file = io.BytesIO(b"not this: but this")
    file.seek(10)
    bench.pool.give(file, 8)
    bench.turn()
    assert bench.result(id).body == b"but this"
    assert file.closed
    bench.judge()


def test_stream_as_result() -> None:
    """A stream is recorded as it comes, and whole when the job has ended."""
    bench = Bench()
    id = bench.accept()
    buffer = bench.pool.stream()
    buffer.deliver(b"one ")
    buffer.deliver(b"two")
    bench.turn()
    bench.pool.end_stream(buffer)
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    assert bench.result(id).body == b"one two"
    bench.judge()


def test_stream_that_breaks_off() -> None:
    """Of a stream that broke off nothing is given as if it were whole."""
    bench = Bench()
    id = bench.accept()
    buffer = bench.pool.stream()
    buffer.deliver(b"one ")
    bench.pool.end_stream(buffer, error=HandlerFailed("words"))
    bench.turn()
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    assert bench.result(id).status == 500
    bench.judge()


def test_many_jobs_and_few_workers() -> None:
    """Every job runs once; no more are given to a pool than keep its workers busy."""
    bench = Bench(size=3)
    ids = [bench.accept() for _ in range(20)]
    most = 0
    while bench.keeper.unended:
        most = max(most, len(bench.pool.waiting))
        bench.pool.give()
        bench.turn()
    assert most <= 3
    assert sorted(bench.pool.begun, key=lambda id: int(id[8:])) == bench.pool.begun
    assert len(bench.pool.begun) == 20
    assert {bench.state(id) for id in ids} == {(State.SUCCEEDED, None)}
    bench.judge()


def test_urgent_ones_first() -> None:
    """Of those that wait the more urgent is first; a step is worth no more than its time."""
    bench = Bench(ageing=10.0)
    bench.accept()  # request-1 runs
    bench.accept(urgency=3)  # request-2 is in the queue of the pool
    bench.accept(urgency=5)
    bench.accept(urgency=1)
    bench.turn(45.0)
    bench.accept(urgency=1)
    for _ in range(5):
        bench.pool.give()
        bench.turn()
    assert bench.pool.begun == [f"request-{n}" for n in (1, 2, 4, 3, 5)]
    bench.judge()


# Room.


def test_no_more_than_may_be_kept() -> None:
    """As many jobs are taken as may be kept that have not ended."""
    bench = Bench(max_kept=2)
    coming = [bench.begin_to_accept() for _ in range(3)]  # before any is in the store
    bench.turn()
    assert [isinstance(fired(each), Accepted) for each in coming] == [True, True, False]
    body = io.BytesIO()
    with pytest.raises(PoolFull):
        bench.accept(body=body)
    assert body.closed
    bench.pool.give()
    bench.turn()
    bench.accept()


def test_a_pool_that_is_full_is_tried_again() -> None:
    """Jobs wait while others fill their pool, and lose nothing by it."""
    bench = Bench()
    bench.pool.refusal = PoolFull("a", 7)
    first, second = bench.accept(), bench.accept()
    bench.turn(60.0)
    assert bench.pool.begun == []
    bench.pool.refusal = None
    bench.turn(60.0)
    assert bench.pool.begun == ["request-1"]
    bench.pool.give()
    bench.turn()
    bench.pool.give()
    bench.turn()
    assert {bench.state(id) for id in (first, second)} == {(State.SUCCEEDED, None)}
    bench.judge()


def test_a_pool_that_is_broken_is_tried_again() -> None:
    """Jobs wait for a pool that has no workers."""
    bench = Bench()
    bench.pool.refusal = PoolBroken("a", 3)
    id = bench.accept()
    bench.turn(3.0)
    bench.pool.refusal = None
    bench.turn(3.0)
    bench.pool.give()
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()


def test_a_defect_of_a_pool_ends_the_job(defects: list[str]) -> None:
    """What a pool raises that it should not fails the job and not the others."""
    bench = Bench()
    bench.pool.refusal = RuntimeError("a defect")
    defects.append("a defect")
    id = bench.accept()
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    bench.judge()


# Who waits.


def test_waiting_for_the_end() -> None:
    """Whoever waits for the end of a job gets it as it has ended, all of them."""
    bench = Bench()
    id = bench.accept()
    waiting = [bench.start(bench.keeper.ended(id, seconds)) for seconds in (None, 10.0, None)]
    bench.turn()
    assert [fired(each) for each in waiting] == [None, None, None]
    again = [bench.start(bench.keeper.ended(id, None))]
    bench.pool.give()
    bench.turn()
    assert [record.state for record in map(fired, again)] == [State.SUCCEEDED]
    assert bench.run(bench.keeper.ended(id, None)).state is State.SUCCEEDED
    assert bench.run(bench.keeper.ended("unknown", None)) is None
    bench.judge()
    bench.close()


def test_waiting_for_some_time() -> None:
    """When the time is up, the job is given as it is."""
    bench = Bench()
    id = bench.accept()
    waiting = bench.start(bench.keeper.ended(id, 10.0))
    bench.turn(9.9)
    assert fired(waiting) is None
    waiting = bench.start(bench.keeper.ended(id, 0.1))
    bench.turn(0.2)
    assert fired(waiting).state is State.RUNNING
    assert bench.run(bench.keeper.ended(id, 0.0)).state is State.RUNNING
    assert bench.keeper._waiters == {}


def test_waiting_no_more() -> None:
    """Whoever waits can stop that; the job and the others know nothing of it."""
    bench = Bench()
    id = bench.accept()
    first, second = (bench.start(bench.keeper.ended(id, seconds)) for seconds in (10.0, None))
    first.cancel()
    assert isinstance(fired(first), Failure)
    bench.pool.give()
    bench.turn()
    assert fired(second).state is State.SUCCEEDED
    bench.judge()
    bench.close()


def test_watching_a_job() -> None:
    """Whoever watches hears of each change, and of none when that is over."""
    bench = Bench()
    bench.store.hold("start")
    id = bench.accept()
    heard: list[int] = []

    def hear() -> None:
        heard.append(bench.record(id).events)

    unwatch = bench.keeper.watch(id, hear)
    other = bench.keeper.watch(id, hear)
    bench.store.go_on()
    bench.turn()
    bench.pool.running[0].report(1, 2, "half")
    bench.turn(0.5)
    other()
    other()
    bench.pool.give()
    bench.turn()
    unwatch()
    assert heard == [2, 2, 3, 3, 4]
    events = bench.run(bench.keeper.events(id, 0, 10))
    assert [event.kind for event in events] == ["state", "state", "progress", "end"]
    bench.judge()


def test_progress_is_live() -> None:
    """A job shows how far it is at this moment; the store is told now and then."""
    bench = Bench()
    id = bench.accept()
    bench.pool.running[0].report(1, 3, "one")
    assert bench.run(bench.keeper.get(id)).progress.done == 1
    assert bench.run(bench.keeper.page(None, frozenset(), None, 9)).records[0].progress.done == 1
    bench.pool.running[0].report(2, 3, "two")
    bench.turn(0.5)
    bench.turn(0.5)
    assert bench.store.asked.count("tell") == 1
    found = bench.record(id).progress
    assert found is not None
    assert found.done == 2


def test_place_in_the_queue() -> None:
    """One that waits knows its place, and when it is likely to start, once that was measured."""
    bench = Bench()
    ids = [bench.accept() for _ in range(4)]
    keeper = bench.keeper
    assert [keeper.queue_of(id) for id in ids] == [None, (1, None), (2, None), (3, None)]
    assert keeper.retry_after(ids[3]) == 1
    bench.turn(10.0)
    bench.pool.give()
    bench.turn()
    places = [keeper.queue_of(id) for id in ids[2:]]
    assert [place and place[0] for place in places] == [1, 2]
    assert all(place and place[1] and place[1] > bench.wall() for place in places)
    assert 1 < keeper.retry_after(ids[3]) <= 60
    assert keeper.queue_of("unknown") is None


# Clients that leave.


def test_client_leaves_and_nobody_waits() -> None:
    """A job that was promised to nobody ends when the last client that waits has left."""
    bench = Bench()
    id = bench.accept(promised=False)
    bench.keeper.attach(id)
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=False)
    bench.turn()
    assert bench.state(id) == (State.RUNNING, None)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=False)
    bench.turn()
    assert bench.state(id) == (State.CANCELING, Reason.CLIENT_DISCONNECTED)
    bench.pool.end_canceled()
    bench.turn()
    assert bench.state(id) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
    bench.judge()


@pytest.mark.parametrize(("promised", "cancel"), [(True, True), (False, False), (True, False)])
def test_client_leaves_and_the_job_goes_on(promised: bool, cancel: bool) -> None:
    """A job goes on that was promised, or whose route lets it go on."""
    bench = Bench()
    id = bench.accept(promised=False)
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=promised, cancel=cancel, keyed=False)
    bench.turn(1000.0)
    bench.pool.give()
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()


def test_one_of_two_was_promised() -> None:
    """Where one client was told where the job is, another one that leaves changes nothing."""
    bench = Bench()
    id = bench.accept(promised=False)
    bench.keeper.attach(id)
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=True, cancel=True, keyed=False)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.turn(1000.0)
    assert bench.state(id) == (State.RUNNING, None)


def test_client_with_a_key_comes_back_in_time() -> None:
    """A job whose client has its key goes on for the grace, and on when that is back."""
    bench = Bench(grace=60.0)
    id = bench.accept(promised=False, key=bench.key())
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.turn(59.0)
    assert bench.state(id) == (State.RUNNING, None)
    again = fired_after(bench, bench.begin_to_accept(key=bench.key()))
    assert (again.is_new, again.is_same, again.record.id) == (False, True, id)
    bench.keeper.attach(id)
    bench.turn(1000.0)
    assert bench.state(id) == (State.RUNNING, None)
    bench.pool.give()
    bench.turn()
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()
    bench.close()


def fired_after(bench: Bench, deferred: Deferred[Any]) -> Any:
    bench.turn()
    return fired(deferred)


def test_client_with_a_key_comes_back_too_late() -> None:
    """After the grace the job is canceled, and that is what the key stands for."""
    bench = Bench(grace=60.0)
    id = bench.accept(promised=False, key=bench.key())
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.turn(60.0)
    assert bench.state(id) == (State.CANCELING, Reason.CLIENT_DISCONNECTED)
    bench.pool.end_canceled()
    bench.turn()
    again = fired_after(bench, bench.begin_to_accept(key=bench.key()))
    assert (again.is_new, again.record.state) == (False, State.CANCELED)
    bench.judge()
    bench.close()


def test_grace_of_a_job_that_ends_meanwhile() -> None:
    """A job that ends within the grace has succeeded, and no timer stays."""
    bench = Bench(grace=60.0)
    id = bench.accept(promised=False, key=bench.key())
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.pool.give()
    bench.turn(90.0)
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()
    bench.close()


def test_no_grace() -> None:
    """Without a grace a key is worth no more than none."""
    bench = Bench(grace=0.0)
    id = bench.accept(promised=False, key=bench.key())
    bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.turn()
    assert bench.state(id) == (State.CANCELING, Reason.CLIENT_DISCONNECTED)


# Canceling, at every stage.


def canceled(bench: Bench, id: str) -> JobRecord:
    """Cancel a job; what its client is told."""
    record = bench.run(bench.keeper.cancel(id))
    assert record is not None
    found: JobRecord = record
    return found


def test_cancel_in_the_backlog() -> None:
    """One that waits is canceled at once, and never runs; those behind it move up."""
    bench = Bench()
    ids = [bench.accept() for _ in range(4)]
    record = canceled(bench, ids[2])
    assert (record.state, record.reason, record.rung) == (
        State.CANCELED,
        Reason.REQUESTED,
        Rung.REMOVED,
    )
    assert bench.keeper.queue_of(ids[3]) == (2, None)
    for _ in range(3):
        bench.pool.give()
        bench.turn()
    assert bench.pool.begun == ["request-1", "request-2", "request-4"]
    bench.judge()


def test_cancel_while_it_is_read() -> None:
    """One whose call is just being read does not run; the next one does."""
    bench = Bench()
    bench.keeper._fresh = 1000  # so that it has to be read
    bench.store.hold("get")
    id = bench.accept()
    canceling = bench.start(bench.keeper.cancel(id))
    bench.store.go_on()
    bench.turn()
    assert fired(canceling).id == id
    assert bench.state(id) == (State.CANCELED, Reason.REQUESTED)
    assert bench.pool.begun == []
    bench.keeper._fresh = 0
    bench.accept()
    assert bench.pool.begun == ["request-2"]


def test_cancel_in_the_queue_of_the_pool() -> None:
    """One that its pool has, but no worker, never runs; another takes its place in the queue."""
    bench = Bench()
    ids = [bench.accept() for _ in range(3)]
    assert [job.head.id for job in bench.pool.waiting] == ["request-2"]
    assert canceled(bench, ids[1]).state is State.CANCELED
    assert bench.record(ids[1]).rung is Rung.REMOVED
    assert [job.head.id for job in bench.pool.waiting] == ["request-3"]
    for _ in range(2):
        bench.pool.give()
        bench.turn()
    assert bench.pool.begun == ["request-1", "request-3"]
    bench.judge()


def test_lanes_do_not_stand_still() -> None:
    """When all that a pool has in its queue is canceled, the next ones are given to it."""
    bench = Bench(size=2)
    ids = [bench.accept() for _ in range(8)]
    for id in ids[2:6]:
        canceled(bench, id)
    for _ in range(4):
        bench.pool.give()
        bench.turn()
    assert bench.pool.begun == [f"request-{n}" for n in (1, 2, 7, 8)]
    bench.judge()


def test_cancel_while_it_waits_for_its_permit() -> None:
    """One that has a worker, and is being noted as running, does not run any more."""
    bench = Bench()
    bench.store.hold("start", "cancel")
    id = bench.accept()
    canceling = bench.start(bench.keeper.cancel(id))
    assert bench.store.asked[-1] == "cancel"
    bench.store.go_on()
    bench.turn()
    assert fired(canceling).state in (State.CANCELING, State.CANCELED)
    assert bench.state(id) == (State.CANCELED, Reason.REQUESTED)
    assert bench.pool.begun == []
    bench.judge()


def test_cancel_while_it_runs() -> None:
    """One that runs is canceling until its code has ended; that it is to end is durable."""
    bench = Bench()
    id = bench.accept()
    assert canceled(bench, id).state is State.CANCELING
    assert bench.state(id) == (State.CANCELING, Reason.REQUESTED)
    assert canceled(bench, id).state is State.CANCELING  # again is no error
    waiting = bench.start(bench.keeper.ended(id, None))
    bench.pool.end_canceled()
    bench.turn()
    assert fired(waiting).state is State.CANCELED
    assert (bench.record(id).reason, bench.record(id).rung) == (Reason.REQUESTED, Rung.TOLD)
    bench.judge()


def test_cancel_a_stream() -> None:
    """A stream that is canceled has no result but that it was."""
    bench = Bench()
    id = bench.accept()
    buffer = bench.pool.stream()
    buffer.deliver(b"one")
    canceled(bench, id)
    bench.pool.end_stream(buffer, error=CancelledError())
    bench.turn()
    assert bench.state(id) == (State.CANCELED, Reason.REQUESTED)
    bench.judge()


def test_cancel_against_the_end() -> None:
    """A cancel that comes when the outcome is on its way to the store is too late."""
    bench = Bench()
    id = bench.accept()
    bench.store.hold()
    bench.pool.give(b"done")
    canceling = bench.start(bench.keeper.cancel(id))
    bench.store.go_on()
    bench.turn()
    assert fired(canceling).state is State.SUCCEEDED
    assert bench.result(id).body == b"done"
    bench.judge()


def test_the_end_against_a_cancel() -> None:
    """A job that succeeds while the cancel is on its way has one outcome, and the cancel no job."""
    bench = Bench()
    id = bench.accept()
    bench.store.hold()
    canceling = bench.start(bench.keeper.cancel(id))
    bench.pool.give(b"done")
    bench.store.go_on()
    bench.turn()
    assert fired(canceling).state in (State.SUCCEEDED, State.CANCELING)
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()


def test_cancel_what_has_ended_or_is_not_there() -> None:
    """One that has ended stays as it is; of one that is not there nothing is said."""
    bench = Bench()
    id = bench.accept()
    bench.pool.give()
    bench.turn()
    assert canceled(bench, id).state is State.SUCCEEDED
    assert bench.run(bench.keeper.cancel("unknown")) is None


# Time.


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"start_by": EPOCH + 5.0}, Reason.DEADLINE_QUEUE),
        ({"finish_by": EPOCH + 5.0}, Reason.DEADLINE_TOTAL),
        ({"start_by": EPOCH + 5.0, "finish_by": EPOCH + 9.0}, Reason.DEADLINE_QUEUE),
        ({"start_by": EPOCH + 9.0, "finish_by": EPOCH + 5.0}, Reason.DEADLINE_TOTAL),
    ],
)
def test_deadline_in_the_backlog(limits: dict[str, Any], reason: Reason) -> None:
    """One that waits for longer than it may ends as expired, and says how long that was."""
    bench = Bench()
    bench.accept()
    bench.accept()
    id = bench.accept(**limits)
    bench.accept()
    waiting = bench.start(bench.keeper.ended(id, None))
    bench.turn(4.9)
    assert fired(waiting) is None
    bench.turn(0.2)
    record = bench.record(id)
    assert (record.state, record.reason, record.status) == (State.EXPIRED, reason, 504)
    assert record.problem is not None
    assert b"5 s" in record.problem
    for _ in range(3):
        bench.pool.give()
        bench.turn()
    bench.judge()
    bench.close()


def test_deadlines_are_those_of_the_pool_too() -> None:
    """A pool is told when a job must start and end, on the clock that it has."""
    bench = Bench()
    bench.turn(100.0)
    bench.accept()
    bench.accept(start_by=EPOCH + 110.0, finish_by=EPOCH + 120.0)
    (job,) = bench.pool.waiting
    assert job.start_by == pytest.approx(110.0)
    assert job.head.finish_by == pytest.approx(120.0)
    assert job.created == pytest.approx(100.0)


def test_next_deadline_is_earlier_than_the_timer() -> None:
    """A job that comes later may be over its time earlier."""
    bench = Bench()
    bench.accept()
    bench.accept()
    late = bench.accept(start_by=EPOCH + 50.0)
    early = bench.accept(start_by=EPOCH + 5.0)
    bench.turn(5.0)
    assert [bench.record(id).state for id in (late, early)] == [State.QUEUED, State.EXPIRED]
    bench.turn(45.0)
    assert bench.record(late).state is State.EXPIRED


# Keys, and calls that are the same.


def test_a_key_is_one_job() -> None:
    """Calls with one key are one job, also those that come before it is in the store."""
    bench = Bench()
    first, second = (bench.begin_to_accept(key=bench.key()) for _ in range(2))
    other = bench.begin_to_accept(key=bench.key(fingerprint=b"other"))
    bench.turn()
    a, b, c = fired(first), fired(second), fired(other)
    assert (a.is_new, b.is_new, b.is_same, c.is_same) == (True, False, True, False)
    assert a.record.id == b.record.id == c.record.id
    assert bench.pool.begun == ["request-1"]
    bench.pool.give()
    bench.turn()
    again = fired_after(bench, bench.begin_to_accept(key=bench.key()))
    assert again.record.state is State.SUCCEEDED
    bench.judge()


def coalesce(bench: Bench, print: bytes = b"same") -> Deferred[Accepted]:
    job = bench.new()
    return bench.start(bench.keeper.accept_one_of(("scope", print), job, io.BytesIO(b"body")))


def test_those_that_are_the_same_run_once() -> None:
    """A call that is the same as one under way waits for that one; others run by themselves."""
    bench = Bench()
    first, second, other = coalesce(bench), coalesce(bench), coalesce(bench, b"other")
    bench.turn()
    a, b, c = fired(first), fired(second), fired(other)
    assert (a.is_new, b.is_new, c.is_new) == (True, False, True)
    assert a.record.id == b.record.id != c.record.id
    third = fired_after(bench, coalesce(bench))
    assert (third.is_new, third.record.id) == (False, a.record.id)
    bench.pool.give()
    bench.turn()
    later = fired_after(bench, coalesce(bench))
    assert later.is_new
    for _ in range(2):
        bench.pool.give()
        bench.turn()
    bench.judge()


def test_the_first_of_the_same_is_refused() -> None:
    """Where the first is not accepted, those that wait for it are told why, and the next tries."""
    bench = Bench()
    bench.store.failing = {"accept"}
    waiting = [coalesce(bench) for _ in range(3)]
    bench.turn()
    assert all(isinstance(fired(each).value, StoreFailed) for each in waiting)
    bench.store.failing = set()
    bench.turn(1.0)
    assert fired_after(bench, coalesce(bench)).is_new
    bench.pool.give()
    bench.turn()
    bench.judge()


def test_last_of_the_same_leaves() -> None:
    """The job of those that are the same ends with the last that waits; what comes then is new."""
    bench = Bench()
    first, second = coalesce(bench), coalesce(bench)
    bench.turn()
    id = fired(first).record.id
    assert fired(second).record.id == id
    for _ in range(2):
        bench.keeper.attach(id)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=False)
    bench.turn()
    assert bench.state(id) == (State.RUNNING, None)
    bench.keeper.detach(id, promised=False, cancel=True, keyed=False)
    bench.turn()
    assert bench.state(id)[0] is State.CANCELING
    after = fired_after(bench, coalesce(bench))
    assert after.is_new, "it would be canceled with the one before"
    bench.pool.end_canceled()
    bench.turn()
    bench.pool.give()
    bench.turn()
    assert bench.state(id)[0] is State.CANCELED
    assert bench.state(after.record.id)[0] is State.SUCCEEDED
    bench.judge()


# A store that fails.


def test_accept_fails() -> None:
    """Where a job cannot be kept, nobody is promised anything; when it can, all goes on."""
    bench = Bench()
    bench.store.failure = StoreFailed("no space is left")
    with pytest.raises(StoreFailed, match="no space is left"):
        bench.accept()
    assert bench.keeper.ailing
    body = io.BytesIO()
    with pytest.raises(StoreFailed, match="a moment ago"):
        bench.accept(body=body)
    assert body.closed
    bench.turn(5.0)
    assert bench.keeper.ailing
    bench.store.failure = None
    bench.turn(1.0)
    assert not bench.keeper.ailing
    bench.accept()
    bench.pool.give()
    bench.turn()
    bench.judge()
    bench.close()


@pytest.mark.parametrize("operation", ["get", "call", "start", "finish", "tell", "clean"])
def test_operation_fails_for_some_time(operation: str) -> None:
    """Whichever operation fails, every job that was promised runs once, and ends."""
    bench = Bench()
    bench.keeper._fresh = 1000
    bench.pool.refusal = PoolFull("a")
    ids = [bench.accept() for _ in range(2)]
    bench.store.failing = {operation, "probe"}
    bench.pool.refusal = None
    bench.turn(5.0)
    if bench.pool.running:
        bench.pool.running[0].report(1, 2, "half")
        bench.turn(1.0)
        bench.pool.give()
    bench.turn(5.0)
    bench.store.failing = set()
    for _ in range(3):
        bench.turn(5.0)
        if bench.pool.running:
            bench.pool.give()
    bench.turn(1.0)
    bench.keeper._fresh = 0
    assert [bench.state(id) for id in ids] == [(State.SUCCEEDED, None)] * 2
    assert sorted(bench.pool.begun) == ["request-1", "request-2"]
    assert not bench.keeper.ailing
    bench.judge()
    bench.close()


def test_a_cancel_that_cannot_be_noted() -> None:
    """Where the store cannot note that a job is to end, it ends all the same."""
    bench = Bench()
    id = bench.accept()
    bench.store.failing = {"cancel"}
    bench.run(bench.keeper.cancel(id))
    bench.pool.end_canceled()
    bench.turn()
    assert bench.state(id) == (State.CANCELED, Reason.REQUESTED)


def test_calls_that_are_not_kept_go_on() -> None:
    """A store that fails is no concern of calls that are not kept."""
    bench = Bench()
    bench.store.failure = StoreFailed("no space is left")
    with pytest.raises(StoreFailed):
        bench.accept()
    _, answer = bench.dispatcher.submit("a", bench.new().head, io.BytesIO())
    bench.pool.give(b"plain")
    assert fired(answer).body == b"plain"


def test_a_call_that_is_lost_in_the_store() -> None:
    """A job whose call cannot be read fails in the end, and holds up no other."""
    bench = Bench()
    real = bench.store.call
    bench.keeper._fresh = 1000
    lost = ""

    def call(id: str) -> Any:
        bench.store.failing = {"call"} if not lost or id == lost else set()
        return real(id)

    bench.store.call = call  # type: ignore[method-assign]  # a disk that has lost one file
    lost = bench.accept()
    bench.turn(1.0)
    well = bench.accept()
    for _ in range(20):
        bench.turn(1.0)
        if bench.pool.running:
            bench.pool.give()
    bench.keeper._fresh = 0
    assert bench.state(well) == (State.SUCCEEDED, None)
    assert bench.state(lost) == (State.FAILED, Reason.ERROR)
    bench.judge()


class Unreadable(io.BytesIO):
    """A file of which the disk has lost a part."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_result_that_cannot_be_read() -> None:
    """A file that a handler gave, and that cannot be read, fails its job and nothing else."""
    bench = Bench()
    id = bench.accept()
    file = Unreadable(b"x")
    bench.pool.give(file, 1)
    bench.turn(3.0)
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    assert b"Input/output" not in bench.result(id).body
    assert file.closed
    assert not bench.keeper.ailing
    bench.judge()


def test_finish_fails_with_a_file() -> None:
    """A file is recorded whole, also where that took several attempts."""
    bench = Bench()
    id = bench.accept()
    bench.store.failing = {"finish"}
    bench.pool.give(io.BytesIO(b"content"), 7)
    bench.turn(1.0)
    bench.turn(1.0)
    bench.store.failing = set()
    bench.turn(1.0)
    assert bench.result(id).body == b"content"
    bench.judge()


def test_a_piece_of_a_stream_cannot_be_written() -> None:
    """A stream of which a part is lost fails its job, which is told to stop."""
    bench = Bench()
    id = bench.accept()
    buffer = bench.pool.stream()
    buffer.deliver(b"one")
    bench.store.failing = {"write"}
    buffer.deliver(b"two")
    bench.turn()
    (job,) = bench.pool.running
    assert job.state is State.CANCELING
    bench.pool.end_canceled()
    bench.store.failing = set()
    bench.turn(1.0)
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    assert bench.result(id).status == 503
    bench.judge()


def test_what_was_streamed_is_lost_at_the_end() -> None:
    """A stream that a store that is well cannot make durable fails its job, and is not tried on."""
    bench = Bench()
    id = bench.accept()
    real = bench.store.finish

    def finish(id: str, outcome: Outcome, body: Any) -> Any:
        bench.store.failing = {"finish"} if body is None else set()
        return real(id, outcome, body)

    bench.store.finish = finish  # type: ignore[method-assign]  # a disk that lost a part
    buffer = bench.pool.stream()
    buffer.deliver(b"one")
    bench.pool.end_stream(buffer)
    for _ in range(5):
        bench.turn(1.0)
    assert bench.state(id) == (State.FAILED, Reason.ERROR)
    bench.judge()


def test_a_store_that_is_damaged() -> None:
    """Where the end of a job can never be recorded, those who wait for it are told."""
    bench = Bench()
    id = bench.accept()
    waiting = bench.start(bench.keeper.ended(id, None))
    bench.store.failing = {"finish"}
    bench.store.is_fatal = True
    with capturedLogs() as logs:
        bench.pool.give()
        bench.turn()
    assert any("cannot be recorded" in formatEvent(event) for event in logs)
    assert isinstance(fired(waiting).value, StoreFailed)
    assert bench.keeper.unended == 0
    bench.close()


# Workers that are lost.


def test_worker_lost_without_retries() -> None:
    """A job that ran when its worker was lost has failed, and does not run again."""
    bench = Bench()
    id = bench.accept()
    bench.pool.lose()
    bench.turn()
    assert bench.state(id) == (State.FAILED, Reason.WORKER_LOST)
    assert bench.pool.begun == ["request-1"]
    bench.judge()


def test_worker_lost_with_retries() -> None:
    """A job runs again as often as it may; each run is counted before it begins."""
    bench = Bench()
    id = bench.accept(retries=2)
    for attempt in (2, 3):
        bench.pool.lose()
        bench.turn()
        record = bench.record(id)
        assert (record.state, record.attempt, record.retries) == (
            State.RUNNING,
            attempt,
            3 - attempt,
        )
    bench.pool.lose()
    bench.turn()
    assert bench.state(id) == (State.FAILED, Reason.WORKER_LOST)
    assert bench.pool.begun == ["request-1"] * 3
    bench.judge()


@pytest.mark.parametrize("retries", [0, 2])
def test_worker_lost_before_the_code_began(retries: int) -> None:
    """A job whose worker is lost while its run is noted has not run; it does, at no cost."""
    bench = Bench()
    bench.store.hold("start")
    id = bench.accept(retries=retries)
    bench.pool.lose()
    bench.turn()
    assert bench.pool.begun == []
    bench.store.go_on()
    bench.turn()
    assert bench.pool.begun == ["request-1"]
    record = bench.record(id)
    assert (record.state, record.attempt, record.retries) == (State.RUNNING, 1, retries)
    assert list(bench.keeper._running) == [id]
    bench.pool.give()
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()


@pytest.mark.parametrize("operation", ["requeue", "start"])
def test_worker_lost_and_the_store_fails(operation: str) -> None:
    """A job that is to run once more does so when the store can note that again."""
    bench = Bench()
    id = bench.accept(retries=1)
    bench.store.failing = {operation, "probe"}
    bench.pool.lose()
    bench.turn(3.0)
    assert bench.pool.begun == ["request-1"]
    bench.store.failing = set()
    bench.turn(3.0)
    assert bench.pool.begun == ["request-1"] * 2
    record = bench.record(id)
    assert (record.state, record.attempt, record.retries) == (State.RUNNING, 2, 0)
    bench.pool.give()
    bench.turn()
    assert bench.state(id) == (State.SUCCEEDED, None)
    bench.judge()


def test_canceled_while_it_waits_to_run_once_more() -> None:
    """A job that waits for its next run can be canceled as any other that waits."""
    bench = Bench()
    id = bench.accept(retries=1)
    bench.store.failing = {"requeue", "probe"}
    bench.pool.lose()
    bench.turn()
    assert canceled(bench, id).state is State.CANCELED
    bench.store.failing = set()
    bench.turn(3.0)
    assert bench.pool.begun == ["request-1"]
    bench.judge()


# The start after another process.


def test_what_waited_is_run() -> None:
    """What waited in a store is run in its order; clients may have been told of it."""
    bench = Bench()
    ids = [bench.accept() for _ in range(3)]
    bench.pool.give()
    bench.turn()
    after = bench.next_process()  # request-2 ran
    assert after.pool.begun == ["request-3"]
    assert bench.state(ids[0]) == (State.SUCCEEDED, None)
    assert after.state(ids[1]) == (State.FAILED, Reason.WORKER_LOST)
    after.keeper.attach(ids[2])
    after.keeper.detach(ids[2], promised=False, cancel=True, keyed=False)
    after.pool.give()
    after.turn()
    assert after.state(ids[2]) == (State.SUCCEEDED, None)
    after.judge()


def test_what_ran_is_run_again_if_it_may() -> None:
    """A job that ran, and has a retry, runs again, before those that still wait."""
    bench = Bench()
    ids = [bench.accept(retries=1), bench.accept(), bench.accept()]
    after = bench.next_process()
    assert after.pool.begun == ["request-2"]
    assert [job.head.id for job in after.pool.waiting] == ["request-1"]
    after.pool.give()
    after.turn()
    assert (after.record(ids[0]).attempt, after.record(ids[0]).retries) == (2, 0)
    for _ in ids[1:]:
        after.pool.give()
        after.turn()
    assert after.pool.begun == ["request-2", "request-1", "request-3"]
    after.judge()


def test_what_was_to_end_ends() -> None:
    """A job that was canceling is canceled, for its reason, and not run."""
    bench = Bench()
    id = bench.accept(retries=5)
    canceled(bench, id)
    after = bench.next_process()
    assert after.pool.begun == []
    assert after.state(id) == (State.CANCELED, Reason.REQUESTED)
    after.judge()


def test_start_with_a_store_that_fails() -> None:
    """A store that cannot write when it is opened forgets none of its jobs."""
    bench = Bench()
    ids = [bench.accept(retries=1), bench.accept(), bench.accept()]
    store = bench.store.reopened(bench.clock)
    store.failing = {"requeue", "start", "finish", "probe"}
    after = Bench(store=store, clock=bench.clock)
    assert after.keeper.unended == 3
    after.turn(2.0)
    assert after.pool.begun == []
    store.failing = set()
    for _ in range(6):
        after.turn(1.0)
        if after.pool.running:
            after.pool.give()
    after.turn()
    assert {after.state(id) for id in ids} == {(State.SUCCEEDED, None)}
    after.judge()


def test_a_store_that_cannot_be_opened() -> None:
    """A keeper whose store is not open refuses, and can be opened later."""
    bench = Bench(is_open=False)
    for act in (lambda: bench.keeper.check(), lambda: bench.keeper.new_id()):
        with pytest.raises(StoreFailed, match="not open"):
            act()
    assert not bench.keeper.is_open
    assert bench.keeper.authentic("x") is False
    bench.store.failing = {"open"}
    with pytest.raises(StoreFailed):
        bench.run(bench.keeper.open())
    assert not bench.keeper.is_open
    bench.close()


@pytest.mark.parametrize("is_served_first", [True, False])
def test_the_route_is_gone(is_served_first: bool) -> None:
    """A job whose route is not there any more has failed, whether or not its pool is there."""
    bench = Bench(routes=(route(), route("/b", "b")))
    ids = [bench.accept(), bench.accept(), bench.accept(), bench.accept(route="/b", pool="b")]
    bench.accept(route="/b", pool="b")
    store = bench.store.reopened(bench.clock)
    after = Bench(store=store, clock=bench.clock, is_open=False, is_served=False)
    if not is_served_first:
        after.run(after.keeper.open())
    after.serve(route("/other"), pools=("a",))
    if is_served_first:
        after.run(after.keeper.open())
    after.turn()
    assert after.pool.begun == []
    assert {after.record(id).state for id in ids} == {State.FAILED}
    assert after.record(ids[1]).status == 404
    after.judge()


def test_the_route_has_another_pool() -> None:
    """A job runs in the pool that its route has now."""
    bench = Bench(routes=(route(pool="b"),))
    ids = [bench.accept(pool="b") for _ in range(3)]
    store = bench.store.reopened(bench.clock)
    after = Bench(store=store, clock=bench.clock, routes=(route(pool="a"),))
    assert after.pool.begun == ["request-2"]
    after.pool.give()
    after.turn()
    after.pool.give()
    after.turn()
    assert [after.record(id).state for id in ids[1:]] == [State.SUCCEEDED] * 2
    after.judge()


# Another version.


def test_reload() -> None:
    """What runs ends where it runs; what waits is run by the version that is served now."""
    bench = Bench()
    ids = [bench.accept() for _ in range(3)]
    old = bench.pool
    bench.serve()
    assert (old.begun, [job.head.id for job in old.waiting]) == (["request-1"], ["request-2"])
    old.give()
    bench.turn()
    old.give()
    bench.turn()
    bench.pool.give()
    bench.turn()
    assert (old.begun, bench.pool.begun) == (["request-1", "request-2"], ["request-3"])
    assert {bench.state(id) for id in ids} == {(State.SUCCEEDED, None)}
    bench.judge()


def test_reload_while_a_call_is_read() -> None:
    """A job that is read when another version comes is run by that one."""
    bench = Bench()
    bench.keeper._fresh = 1000
    bench.store.hold("get")
    bench.accept()
    old = bench.pool
    bench.serve()
    bench.store.go_on()
    bench.turn()
    assert (old.begun, bench.pool.begun) == ([], ["request-1"])


@pytest.mark.parametrize("retries", [0, 1])
def test_reload_that_stops_what_runs(retries: int) -> None:
    """A job that the pool before did not end in time runs again if it may, and else is canceled."""
    bench = Bench()
    id = bench.accept(retries=retries)
    waits = bench.accept()
    old = bench.pool
    bench.serve()
    old.stop()
    old.end_canceled()
    bench.turn()
    while bench.pool.running:
        bench.pool.give()
        bench.turn()
    if retries:
        assert (bench.record(id).attempt, bench.record(id).retries) == (2, 0)
        assert bench.state(id) == (State.SUCCEEDED, None)
    else:
        assert bench.state(id) == (State.CANCELED, Reason.SHUTDOWN)
    assert bench.state(waits) == (State.SUCCEEDED, None)
    bench.judge()


# The end.


def test_end_with_jobs_everywhere() -> None:
    """What waits stays for the process after this one; what runs ends, or runs again there."""
    bench = Bench(size=2)
    ids = [bench.accept(retries=retries) for retries in (1, 0, 0, 0, 0, 0)]
    bench.keeper.stop_feeding()
    bench.turn()
    with pytest.raises(ShuttingDown):
        bench.accept()
    bench.pool.stop()
    bench.pool.end_canceled()
    bench.turn()
    bench.close()
    assert bench.state(ids[0]) == (State.RUNNING, None)
    assert bench.state(ids[1]) == (State.CANCELED, Reason.SHUTDOWN)
    assert {bench.state(id) for id in ids[2:]} == {(State.QUEUED, None)}
    after = bench.next_process()
    for _ in range(5):
        after.pool.give()
        after.turn()
    assert after.pool.begun == [f"request-{n}" for n in (3, 1, 4, 5, 6)]
    after.judge()
    after.close()


def test_those_who_wait_are_told_of_the_end() -> None:
    """Whoever waits for what will not begin any more is told at once, others while it runs."""
    bench = Bench()
    runs, in_pool, waits = (bench.accept() for _ in range(3))
    waiting = {id: bench.start(bench.keeper.ended(id, None)) for id in (runs, in_pool, waits)}
    impatient = bench.start(bench.keeper.ended(runs, 100.0))
    bench.keeper.stop_feeding()
    bench.turn()
    assert isinstance(fired(waiting[waits]).value, ShuttingDown)
    assert fired(impatient).state is State.RUNNING
    with pytest.raises(ShuttingDown):
        bench.run(bench.keeper.ended(waits, None))
    assert bench.run(bench.keeper.ended(waits, 100.0)).state is State.QUEUED
    bench.pool.give()  # which the daemon waits for
    bench.turn()
    assert fired(waiting[runs]).state is State.SUCCEEDED
    bench.pool.give()
    bench.turn()
    assert fired(waiting[in_pool]).state is State.SUCCEEDED
    bench.close()


def test_the_end_waits_for_what_is_recorded() -> None:
    """A job that has ended when all ends is recorded first, its stream whole."""
    bench = Bench(size=2)
    first, second = bench.accept(), bench.accept()
    buffer = bench.pool.stream(bench.pool.running[0])
    bench.store.hold()
    buffer.deliver(b"one")
    bench.pool.end_stream(buffer, bench.pool.running[0])
    bench.pool.give(b"two")
    closing = bench.start(bench.keeper.close())
    bench.turn(1.0)
    assert not closing.called
    bench.store.go_on()
    bench.turn()
    assert closing.called
    assert [bench.result(id).body for id in (first, second)] == [b"one", b"two"]
    assert bench.clock.getDelayedCalls() == []


def test_the_end_with_a_store_that_fails() -> None:
    """A store that cannot write does not keep the service from its end."""
    bench = Bench()
    id = bench.accept(retries=1)
    bench.store.failing = {"finish", "probe"}
    bench.pool.give()
    bench.turn(2.5)
    bench.close()
    assert bench.state(id) == (State.RUNNING, None)
    after = bench.next_process()
    assert after.pool.begun == ["request-1"]  # it may run once more


def test_client_with_a_key_at_the_end() -> None:
    """A client that is sent away at the end may find its job again in the next process."""
    bench = Bench()
    bench.accept()
    bench.accept()
    id = bench.accept(promised=False, key=bench.key())
    bench.keeper.attach(id)
    bench.keeper.stop_feeding()
    bench.keeper.detach(id, promised=False, cancel=True, keyed=True)
    bench.pool.stop()
    bench.pool.end_canceled()
    bench.close()
    assert bench.state(id) == (State.QUEUED, None)


def test_nothing_is_left_of_a_keeper_that_did_nothing() -> None:
    """One that was opened and closed leaves no timer."""
    bench = Bench()
    bench.turn(20.0)
    bench.close()


# What is forgotten.


def test_expired_jobs_are_forgotten() -> None:
    """A job is there for its time after its end, and then it is not."""
    bench = Bench()
    id = bench.accept(ttl=60.0)
    bench.pool.give()
    bench.turn(59.0)
    assert bench.run(bench.keeper.get(id)) is not None
    bench.turn(10.0)
    assert bench.run(bench.keeper.get(id)) is None
    assert bench.keeper.authentic(id)


def test_deleting() -> None:
    """A job that has ended can be deleted; one that has not stays."""
    bench = Bench()
    id = bench.accept()
    assert bench.run(bench.keeper.delete(id)) is False
    bench.pool.give()
    bench.turn()
    assert bench.run(bench.keeper.delete(id)) is True
    assert bench.run(bench.keeper.result(id)) is None


def test_webhooks_are_due_at_the_end() -> None:
    """Whoever sends the webhooks hears of each end of a job that has one."""
    bench = Bench()
    heard: list[int] = []
    bench.keeper.hook_due = lambda: heard.append(1)
    bench.accept(webhook="https://a.example/")
    bench.accept()
    for _ in range(2):
        bench.pool.give()
        bench.turn()
    assert heard == [1]
