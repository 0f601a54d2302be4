"""What is counted of calls, by which words, and what is told of the recent past."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from deferpost import errors
from deferpost.interfaces import IJobObserver
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import CallHead, Reason, Rung, State
from deferpost.tally import OTHER, REASONS, SECONDS, SIZES, Counted, Histogram, Tally
from deferpost.web.problems import problem_of

ROUTES = {"/a": "thread", "/b": "process"}


def done(
    route: str = "/a",
    *,
    status: int = 200,
    at: float = 100.0,
    queue: float = 0.002,
    run: float | None = 0.03,
    reason: Reason | None = None,
    rung: Rung | None = None,
    size: int | None = 10,
    id: str = "id-1",
) -> Job:
    """A job that is over.

    :param at: when it was submitted.
    :param run: how long it ran; None if it never started.
    """
    head = CallHead(id, route, "POST", route, b"", (), None, None)
    job = Job(1, head, io.BytesIO(), at, lambda job: None)
    if run is not None:
        job.started = at + queue
        job.happened(Event.START)
    ended = at + queue + (run or 0.0)
    if reason in (None, Reason.ERROR):
        job.end(Event.SUCCEED if reason is None else Event.FAIL, ended, reason)
    else:
        job.happened(Event.CANCEL, reason)
        if run is not None:
            job.end(Event.STOP, ended)
        job.ended = ended
    job.status, job.rung, job.body_bytes = status, rung, size
    return job


def tally_of(*jobs: Job) -> Tally:
    """A tally that has heard of these jobs."""
    tally = Tally(ROUTES)
    for job in jobs:
        tally.job_done(job)
    return tally


def count_below(histogram: Histogram, bounds: tuple[float, ...], bound: float) -> int:
    """How many values a histogram has up to a bound."""
    return histogram.counts[bounds.index(bound)]


def of_route(histograms: list[Histogram], route: str = "/a") -> Histogram:
    """The histogram of one route."""
    (found,) = (one for one in histograms if one.route == route)
    return found


def test_it_is_an_observer_of_jobs() -> None:
    """It can be given wherever somebody is to hear of jobs."""
    assert verifyObject(IJobObserver, Tally(ROUTES))


def test_jobs_are_counted_by_route_status_and_reason() -> None:
    """Every job is one more under its route, its status, and why it did not succeed."""
    tally = tally_of(
        done(),
        done(status=201),
        done(),
        done("/b", status=500, reason=Reason.ERROR),
        done("/b", status=499, reason=Reason.CLIENT_DISCONNECTED, rung=Rung.KILLED),
    )
    assert tally.snapshot().requests == [
        Counted("/a", 200, "none", 2),
        Counted("/a", 201, "none", 1),
        Counted("/b", 500, "error", 1),
        Counted("/b", 499, "client_disconnected", 1),
    ]


def test_what_was_not_declared_is_one_route() -> None:
    """A path that no route has cannot add to what is counted apart."""
    tally = tally_of(*(done(f"/{number}") for number in range(1000)))
    assert tally.snapshot().requests == [Counted(OTHER, 200, "none", 1000)]
    for number in range(1000):
        tally.refused(f"/{number}", 503, f"word_{number}")
    assert tally.refusals() == [Counted(OTHER, 503, OTHER, 1000)]


def test_routes_of_a_later_version_are_counted_too() -> None:
    """Routes can be declared later; what was counted of others stays."""
    tally = tally_of(done())
    tally.declare({"/a": "heavy", "/c": "thread"})
    tally.job_done(done("/c"))
    tally.job_done(done("/a"))
    assert tally.snapshot().requests == [
        Counted("/a", 200, "none", 2),
        Counted("/c", 200, "none", 1),
    ]
    assert [job.pool for job in tally.recent()] == ["heavy", "thread", "heavy"]


def test_refusals_are_counted_by_reason() -> None:
    """Calls that are turned away are counted by the reason that their clients are told."""
    tally = Tally(ROUTES)
    tally.refused("/b", 503, "pool_full")
    tally.refused("/a", 413, "body_too_large")
    tally.refused("/a", 401, "401")
    tally.refused("/b", 503, "pool_full")
    tally.refused("/b", 503, "what is this")
    assert tally.refusals() == tally.snapshot().refusals
    assert tally.refusals() == [
        Counted("/a", 401, "401", 1),
        Counted("/a", 413, "body_too_large", 1),
        Counted("/b", 503, OTHER, 1),
        Counted("/b", 503, "pool_full", 2),
    ]


@pytest.mark.parametrize(
    "error",
    [
        errors.BodyBroken(),
        errors.BodyTooLarge(1),
        errors.ClientQuota(1),
        errors.DeadlineUnmeetable(1),
        errors.DeadlineExceeded(1.0),
        errors.DeadlineExceeded(1.0, Reason.DEADLINE_QUEUE),
        errors.DeadlineExceeded(1.0, Reason.DEADLINE_TOTAL),
        errors.HandlerFailed("Error"),
        errors.PoolBroken("a"),
        errors.PoolFull("a"),
        errors.ShuttingDown(),
        errors.StorageFailed("full"),
        errors.WorkerLost("signal 9"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_reasons_that_clients_are_told_are_counted_apart(error: Exception) -> None:
    """The reason of a problem document is the reason under which the refusal is counted."""
    assert problem_of(error).reason in REASONS


def test_how_long_jobs_waited_and_ran() -> None:
    """The histograms have every job at or below the bounds that it did not exceed."""
    snapshot = tally_of(done(queue=0.25, run=2.0), done(queue=0.002, run=700.0)).snapshot()
    queue, run = of_route(snapshot.queue), of_route(snapshot.run)
    assert [count_below(queue, SECONDS, bound) for bound in (0.001, 0.0025, 0.1, 0.25)] == [
        0,
        1,
        1,
        2,
    ]
    assert queue.sum == pytest.approx(0.252)
    assert [count_below(run, SECONDS, bound) for bound in (1.0, 2.5, 500.0)] == [0, 1, 1]
    assert run.counts[-1] == 2
    assert run.sum == pytest.approx(702.0)


def test_what_never_started_has_waited_but_not_run() -> None:
    """A job that left the queue counts by how long it waited, and not as a run."""
    job = done(queue=3.0, run=None, reason=Reason.CLIENT_DISCONNECTED, rung=Rung.REMOVED)
    snapshot = tally_of(job).snapshot()
    assert of_route(snapshot.queue).counts[-1] == 1
    assert of_route(snapshot.queue).sum == pytest.approx(3.0)
    assert of_route(snapshot.run).counts[-1] == 0


@given(st.lists(st.integers(0, 2**50), max_size=20))
def test_sizes_of_bodies(sizes: list[int]) -> None:
    """However large bodies are, each is counted at or below every bound that it does not exceed."""
    histogram = of_route(tally_of(*(done(size=size) for size in sizes)).snapshot().size)
    for bound, count in zip(SIZES, histogram.counts, strict=False):
        assert count == sum(size <= bound for size in sizes)
    assert histogram.counts[-1] == len(sizes)
    assert histogram.sum == sum(sizes)


def test_a_body_of_unknown_size() -> None:
    """A body that did not say how long it is does not count as an empty one."""
    assert of_route(tally_of(done(size=None)).snapshot().size).counts[-1] == 0


def test_rungs() -> None:
    """Each rung of the cancel ladder is counted, also where it was never reached."""
    told = done(reason=Reason.REQUESTED, rung=Rung.TOLD)
    assert tally_of(done(), told, told).snapshot().rungs == {
        "removed": 0,
        "told": 2,
        "interrupted": 0,
        "terminated": 0,
        "killed": 0,
    }


@given(
    st.lists(st.tuples(st.floats(1e-4, 5000), st.floats(0, 2000)), max_size=30),
    st.floats(0.0, 400.0),
)
def test_nothing_is_lost_as_time_passes(jobs: list[tuple[float, float]], pause: float) -> None:
    """The histograms have every job that there ever was, however long ago."""
    tally, at = Tally(ROUTES), 0.0
    for queue, run in jobs:
        tally.job_done(done(at=at, queue=queue, run=run))
        at += pause
    snapshot = tally.snapshot()
    waited, ran = of_route(snapshot.queue), of_route(snapshot.run)
    assert (waited.counts[-1], ran.counts[-1]) == (len(jobs), len(jobs))
    for index, bound in enumerate(SECONDS):
        # A start that is created plus the wait is rounded, and so is the wait that is read of it.
        assert waited.counts[index] <= sum(q <= bound * 1.000001 for q, _ in jobs)
        assert waited.counts[index] >= sum(q <= bound * 0.999999 for q, _ in jobs)


@given(st.lists(st.floats(0.0002, 5000.0), min_size=1, max_size=60))
def test_percentiles_are_close(runs: list[float]) -> None:
    """A percentile is within a quarter of what the sorted times say."""
    spread = tally_of(*(done(at=10_000.0, run=run) for run in runs)).percentiles(10_000.0).run
    assert spread.count == len(runs)
    ordered = sorted(runs)
    for part, found in ((0.5, spread.p50), (0.9, spread.p90), (0.99, spread.p99)):
        exact = ordered[min(len(runs) - 1, int(len(runs) * part - 1e-9))]
        assert exact / 1.27 <= found <= exact * 1.27


def test_percentiles_are_of_the_last_five_minutes() -> None:
    """What ended longer ago than five minutes does not count; nothing at all is zeros."""
    tally = tally_of(done(at=1000.0, run=1.0), done(at=1200.0, run=4.0))
    assert tally.percentiles(1200.0).run.count == 2
    later = tally.percentiles(1400.0)
    assert (later.run.count, later.queue.count) == (1, 1)
    assert later.run.p50 == pytest.approx(4.0, rel=0.25)
    nothing = tally.percentiles(2000.0).run
    assert (nothing.count, nothing.p50, nothing.p90, nothing.p99) == (0, 0.0, 0.0, 0.0)
    assert tally.snapshot().run[0].counts[-1] == 2


def test_percentiles_of_one_route() -> None:
    """A route has percentiles of its own, and all have some together."""
    tally = tally_of(done("/a", run=0.1), done("/b", run=10.0), done("/elsewhere", run=10.0))
    assert tally.percentiles(100.0, "/a").run.p99 == pytest.approx(0.1, rel=0.25)
    assert tally.percentiles(100.0, "/b").run.count == 1
    assert tally.percentiles(100.0).run.count == 3
    with pytest.raises(KeyError):
        tally.percentiles(100.0, "/elsewhere")


def test_percentiles_beyond_the_last_bound() -> None:
    """What took longer than anything foreseen is shown as the longest time that is."""
    assert tally_of(done(run=1e6)).percentiles(1_000_200.0).run.p50 == 8000.0


def test_recent_jobs() -> None:
    """The last jobs are told one by one, with the times of the day."""
    tally = Tally(ROUTES, lambda: 1_000_000.0)
    killed = done("/b", at=50.0, status=504, reason=Reason.CLIENT_DISCONNECTED, rung=Rung.KILLED)
    killed.worker = "worker 7"
    tally.job_done(killed)
    tally.job_done(done(at=51.0, queue=1.0, run=None, reason=Reason.SHUTDOWN, id="id-2"))
    first, second = tally.recent()
    assert (first.id, first.route, first.pool, first.worker) == (
        "id-1",
        "/b",
        "process",
        "worker 7",
    )
    assert (first.state, first.status) == (State.CANCELED, 504)
    assert (first.reason, first.rung) == (Reason.CLIENT_DISCONNECTED, Rung.KILLED)
    assert first.created == 1_000_050.0
    assert first.started == pytest.approx(1_000_050.002)
    assert first.ended == pytest.approx(1_000_050.032)
    assert (second.id, second.started, second.ended) == ("id-2", None, 1_000_052.0)


def test_recent_jobs_are_bounded() -> None:
    """However many there were, the last 200 are remembered, and routes are those declared."""
    jobs = [done(f"/{number}", at=float(number), id=str(number)) for number in range(500)]
    tally = tally_of(*jobs)
    assert [job.id for job in tally.recent()] == [str(number) for number in range(300, 500)]
    assert {(job.route, job.pool) for job in tally.recent()} == {(OTHER, OTHER)}


def test_recent_jobs_of_a_flood() -> None:
    """Where there are very many, what is remembered still goes back for about a second."""
    tally = tally_of(*(done(at=number / 20_000, id=str(number)) for number in range(60_000)))
    ended = [job.ended for job in tally.recent()]
    assert len(ended) == 200
    assert ended == sorted(ended)
    assert 0.8 < ended[-1] - ended[0] < 1.2
