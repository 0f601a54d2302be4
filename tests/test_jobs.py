"""The record of a call's run: its state, its reason and its times."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from deferpost.jobs import Job
from deferpost.lifecycle import ENDED, TABLE, Event, ImpossibleEvent
from deferpost.model import CallHead, Progress, Reason, State

HEAD = CallHead("id-1", "/rst", "POST", "/rst", b"", (), None, None)


class Stopper:
    """A pool as far as a job knows it: remembers what it was asked to stop."""

    def __init__(self) -> None:
        self.asked: list[tuple[Job, Reason]] = []

    def stop(self, job: Job, reason: Reason) -> None:
        self.asked.append((job, reason))


def make_job(created: float = 10.0) -> tuple[Job, list[Job]]:
    """A job that is queued, and the list to which it goes when it ends."""
    ended: list[Job] = []
    return Job(1, HEAD, io.BytesIO(b"body"), created, ended.append), ended


def test_new_job_is_queued() -> None:
    """A job that was just made waits, and nothing has happened to it."""
    job, ended = make_job()
    assert job.state is State.QUEUED
    assert not job.has_ended
    assert (job.reason, job.rung, job.progress, job.started, job.ended) == (None,) * 5
    assert not job.canceled
    assert ended == []
    assert repr(job) == "<Job id-1 /rst queued>"


def test_end_tells_once() -> None:
    """The end of a job is told to whoever made it, with its time, and takes its callers away."""
    job, ended = make_job()
    job.answer, job.stop = Deferred(), Stopper().stop
    job.happened(Event.START)
    job.end(Event.SUCCEED, 12.5)
    assert ended == [job]
    assert (job.state, job.ended, job.reason) == (State.SUCCEEDED, 12.5, None)
    assert job.has_ended
    assert job.answer is None
    assert job.stop is None


def test_end_is_seen_whole() -> None:
    """Whoever is told of the end finds the job in its last state, with its reason and time."""
    seen = []
    job = Job(1, HEAD, io.BytesIO(), 0.0, lambda job: seen.append((job.state, job.reason)))
    job.end(Event.CANCEL, 1.0, Reason.SHUTDOWN)
    assert seen == [(State.CANCELED, Reason.SHUTDOWN)]


def test_second_end_is_refused() -> None:
    """A pool that reports the end of a job twice hears of its defect, and nobody else does."""
    job, ended = make_job()
    job.end(Event.CANCEL, 11.0, Reason.REQUESTED)
    with pytest.raises(ImpossibleEvent):
        job.end(Event.FAIL, 12.0, Reason.ERROR)
    assert ended == [job]
    assert (job.state, job.ended, job.reason) == (State.CANCELED, 11.0, Reason.REQUESTED)


def test_first_reason_stays() -> None:
    """A job whose time was up and that is canceled afterwards has expired."""
    job, _ = make_job()
    job.happened(Event.START)
    job.happened(Event.EXPIRE, Reason.DEADLINE_RUN)
    job.end(Event.STOP, 11.0, Reason.CLIENT_DISCONNECTED)
    assert (job.state, job.reason) == (State.EXPIRED, Reason.DEADLINE_RUN)


def test_refused_event_changes_nothing() -> None:
    """An event that cannot happen leaves neither a state nor a reason behind."""
    job, _ = make_job()
    job.happened(Event.START)
    job.end(Event.SUCCEED, 11.0)
    with pytest.raises(ImpossibleEvent):
        job.happened(Event.CANCEL, Reason.REQUESTED)
    assert (job.state, job.reason) == (State.SUCCEEDED, None)


def test_cancel_climbs_the_ladder_of_the_pool() -> None:
    """Canceling a job asks the pool that has it, and says why."""
    job, _ = make_job()
    pool = Stopper()
    job.stop = pool.stop
    job.cancel(Reason.REQUESTED)
    assert pool.asked == [(job, Reason.REQUESTED)]


def test_cancel_before_a_pool_has_it() -> None:
    """Canceling a job that no pool has does nothing."""
    job, _ = make_job()
    job.cancel(Reason.REQUESTED)
    assert job.state is State.QUEUED


def test_cancel_while_it_is_canceling() -> None:
    """A job that is being canceled is not canceled a second time."""
    job, _ = make_job()
    pool = Stopper()
    job.stop = pool.stop
    job.happened(Event.START)
    job.happened(Event.CANCEL, Reason.REQUESTED)
    job.cancel(Reason.SHUTDOWN)
    assert pool.asked == []


def test_cancel_after_its_end() -> None:
    """Canceling a job that has ended does nothing."""
    job, _ = make_job()
    pool = Stopper()
    job.stop = pool.stop
    job.happened(Event.START)
    job.end(Event.FAIL, 11.0, Reason.ERROR)
    job.cancel(Reason.REQUESTED)
    assert pool.asked == []


def test_newest_progress() -> None:
    """Of what a handler reports, the newest is kept."""
    job, _ = make_job()
    job.report(1, 3, "")
    job.report(2, 3, "almost")
    assert job.progress == Progress(2, 3, "almost")


def test_times_while_it_waits() -> None:
    """As long as it waits, its time in the queue grows and it has not run."""
    job, _ = make_job(created=10.0)
    assert job.queue_seconds == 0.0
    assert job.queue_so_far(14.0) == 4.0
    assert job.run_so_far(14.0) == 0.0


def test_times_while_it_runs() -> None:
    """As long as it runs, its time in the queue stands still and its run time grows."""
    job, _ = make_job(created=10.0)
    job.started = 13.0
    assert job.queue_seconds == job.queue_so_far(20.0) == 3.0
    assert job.run_so_far(20.0) == 7.0


def test_times_after_its_end() -> None:
    """After its end both times stand still."""
    job, _ = make_job(created=10.0)
    job.started = 13.0
    job.happened(Event.START)
    job.end(Event.SUCCEED, 15.0)
    assert job.queue_seconds == job.queue_so_far(99.0) == 3.0
    assert job.run_so_far(99.0) == 2.0


def test_times_if_it_never_started() -> None:
    """One that left the queue has waited until then, and has not run."""
    job, _ = make_job(created=10.0)
    job.end(Event.CANCEL, 16.0, Reason.CLIENT_DISCONNECTED)
    assert job.queue_seconds == job.queue_so_far(99.0) == 6.0
    assert job.run_so_far(99.0) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from(Event), st.sampled_from([None, *Reason])), max_size=10),
)
def test_any_order_tells_of_one_end(reports: list[tuple[Event, Reason | None]]) -> None:
    """In whatever order events are reported, the end is told at most once, and only of ended jobs.

    Pools report what ends a job by ``end``, and the rest by ``happened``.
    """
    told: list[State] = []
    job = Job(1, HEAD, io.BytesIO(), 0.0, lambda job: told.append(job.state))
    now = 0.0
    for event, reason in reports:
        now += 1
        before = (job.state, job.reason)
        try:
            if TABLE.get((job.state, event), State.FAILED) in ENDED:
                job.end(event, now, reason)
            else:
                job.happened(event, reason)
        except ImpossibleEvent:
            assert (job.state, job.reason) == before
        else:
            assert before[1] in (None, job.reason)
    assert len(told) <= 1
    assert all(state is job.state for state in told)
