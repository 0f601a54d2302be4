"""What the state document has, and which of them say the same."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from deferpost.model import PoolStatus, WorkerStatus
from deferpost.tally import Counted, Tally
from deferpost.web.status.document import (
    MAX_RECENT,
    MAX_WORKERS,
    StateDocument,
    pool_state,
    refusals_by_reason,
    same_state,
)
from tests.web import answer_of
from tests.web.status import DAWN, looked


def worker(name: str, job: int | None = None, **fields: Any) -> WorkerStatus:
    """A worker."""
    return replace(
        WorkerStatus(
            name=name,
            pid=None,
            stage="idle",
            job=job,
            job_id=None,
            route=None,
            run_seconds=0.0,
            canceling=False,
            jobs_done=0,
            age=1.0,
            memory=None,
        ),
        **fields,
    )


def status(**fields: Any) -> PoolStatus:
    """A pool."""
    usual = PoolStatus(
        name="a", kind="thread", size=4, max_waiting=9, running=0, waiting=0, stuck=0, ready=True
    )
    return replace(usual, **fields)


def document(*workers: WorkerStatus, **fields: Any) -> StateDocument:
    """A document with one pool."""
    usual = StateDocument(
        time=1.0,
        version="1",
        accepting=True,
        ready=True,
        uptime=1.0,
        pools=(pool_state(status(), workers),),
        percentiles=Tally({}).percentiles(0.0),
        refusals=(),
        recent=(),
    )
    return replace(usual, **fields)


def test_all_that_a_pool_says_is_there() -> None:
    """A pool has its status, and its workers where it tells of them."""
    told = status(restarts=3, waiting=2)
    state = pool_state(told, [worker("1")])
    assert all(getattr(state, name) == getattr(told, name) for name in told.__struct_fields__)
    assert ([one.name for one in state.workers], state.workers_total) == (["1"], 1)
    silent = pool_state(told, None)
    assert (silent.workers, silent.workers_total) == ((), None)


def test_of_many_workers_the_busy_ones_are_listed() -> None:
    """The list is bounded; who does something stays on it, and the count is of all."""
    many = [worker(str(n), job=n if n >= 100 else None) for n in range(110)]
    state = pool_state(status(), many)
    assert (len(state.workers), state.workers_total) == (MAX_WORKERS, 110)
    assert [one.name for one in state.workers[:11]] == [*map(str, range(100, 110)), "0"]
    few = many[:MAX_WORKERS]
    assert pool_state(status(), few).workers == tuple(few)


def test_refusals_of_all_routes_are_put_together() -> None:
    """Each reason is counted once, the most frequent first."""
    counted = [
        Counted("/a", 503, "pool_full", 2),
        Counted("/a", 413, "body_too_large", 4),
        Counted("/b", 503, "pool_full", 3),
        Counted("/b", 429, "client_quota", 4),
    ]
    found = [(one.reason, one.status, one.count) for one in refusals_by_reason(counted)]
    assert found == [("pool_full", 503, 5), ("body_too_large", 413, 4), ("client_quota", 429, 4)]


def test_what_passes_by_itself_is_no_change() -> None:
    """Time, ages and memory change nothing; a job, a count or readiness does."""
    before = document(worker("1"))
    later = document(worker("1", run_seconds=3.0, age=4.0, memory=5), time=9.0, uptime=9.0)
    assert same_state(before, later)
    aged = replace(before.pools[0], oldest_waiting=3.0)
    assert same_state(before, replace(before, pools=(aged,)))
    for other in (
        document(worker("1", job=7)),
        document(worker("1", canceling=True)),
        document(worker("1"), worker("2")),
        document(worker("1"), ready=False),
        document(worker("1"), pools=(replace(before.pools[0], waiting=1),)),
    ):
        assert not same_state(before, other)


def test_the_state_tells_of_pools_workers_and_jobs() -> None:
    """The document has what runs, what waits, what was turned away and what is over, with times."""
    with looked() as daemon:
        done, client = daemon.job("done")
        daemon.clock.advance(2.0)
        daemon.pool.give(answer_of(b"done"))
        assert client.response().status == 200
        running, _ = daemon.job("running")
        daemon.clock.advance(1.5)
        daemon.tally.refused("/rst", 503, "pool_full")
        state = daemon.ask("/state").json
        assert (state["time"], state["uptime"]) == (DAWN + 3.5, 3.5)
        assert (state["version"], state["accepting"], state["ready"]) == ("1.2.3", True, True)
        assert [pool["name"] for pool in state["pools"]] == ["fake", "closed"]
        (idle, busy) = state["pools"][0]["workers"]
        assert (idle["job"], idle["stage"]) == (None, "idle")
        assert (busy["job"], busy["job_id"], busy["route"]) == (running.key, "running", "/rst")
        assert busy["run_seconds"] == 1.5
        assert state["pools"][1]["workers_total"] is None
        assert state["percentiles"]["run"]["count"] == 1
        assert state["refusals"] == [{"reason": "pool_full", "status": 503, "count": 1}]
        (over,) = state["recent"]
        assert (over["id"], over["route"], over["pool"]) == (done.head.id, "/rst", "fake")
        assert (over["state"], over["reason"], over["status"]) == ("succeeded", None, 200)
        assert (over["created"], over["started"], over["ended"]) == (DAWN, DAWN, DAWN + 2.0)


def test_not_ready() -> None:
    """A daemon that accepts nothing is not ready, and the document says so."""
    with looked() as daemon:
        daemon.is_accepting = False
        state = daemon.ask("/state").json
        assert (state["accepting"], state["ready"]) == (False, False)


def test_recent_jobs_are_bounded() -> None:
    """Only the newest jobs are in the document."""
    with looked() as daemon:
        for number in range(MAX_RECENT + 5):
            daemon.job(f"job-{number}")
            daemon.pool.give(answer_of(b""))
        recent = daemon.ask("/state").json["recent"]
        assert len(recent) == MAX_RECENT
        assert (recent[0]["id"], recent[-1]["id"]) == ("job-5", f"job-{MAX_RECENT + 4}")


def test_it_is_computed_once_for_many_who_ask_at_once() -> None:
    """A flood of requests for the state costs the pools no more than a few looks a second."""
    with looked() as daemon:
        bodies = {daemon.ask("/state").body for _ in range(10)}
        assert (len(bodies), daemon.pool.looks) == (1, 1)
        daemon.clock.advance(0.25)
        assert daemon.ask("/state").body not in bodies
        assert daemon.pool.looks == 2
