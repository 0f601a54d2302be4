"""The daemon's figures in the words of Prometheus."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from deferpost import __version__
from deferpost.metrics import PoolScrape, Scrape, encoder_of, exposition
from deferpost.model import PoolStatus, Reason, WorkerStatus
from deferpost.tally import Tally
from tests.test_tally import done

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Labels = dict[str, str]


def status(name: str, **fields: Any) -> PoolStatus:
    """A pool with something to show."""
    given = {"running": 2, "waiting": 3, "stuck": 1, "ready": True, "restarts": 7, **fields}
    return PoolStatus(name=name, kind="process", size=4, max_waiting=10, **given)


def worker(name: str, stage: str, memory: int | None) -> WorkerStatus:
    """A worker of a pool."""
    return WorkerStatus(
        name=name,
        pid=1,
        stage=stage,
        job=None,
        job_id=None,
        route=None,
        run_seconds=0.0,
        canceling=False,
        jobs_done=3,
        age=1.0,
        memory=memory,
    )


def scrape_of(tally: Tally, *pools: PoolScrape) -> Scrape:
    """A moment of a daemon."""
    return Scrape(tally=tally.snapshot(), pools=list(pools), connections=5, accepting=True)


def samples(scrape: Scrape, accept: str = "") -> dict[str, list[tuple[Labels, float]]]:
    """What a scraper reads: labels and values by name; its parser refuses what is not valid."""
    encoder, content_type = encoder_of(accept)
    text = exposition(scrape, encoder).decode()
    parse: Any = parse_openmetrics if "openmetrics" in content_type else parse_text
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def busy() -> Tally:
    """A tally of some calls."""
    tally = Tally({"/a": "thread", '/"\\\n': "thread"})
    tally.job_done(done("/a", queue=0.002, run=0.2))
    tally.job_done(done("/a", status=500, reason=Reason.ERROR))
    tally.job_done(done('/"\\\n'))
    tally.refused("/a", 503, "pool_full")
    return tally


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_calls(accept: str) -> None:
    """Calls and refusals are counters with route, status and reason, in both formats."""
    found = samples(scrape_of(busy()), accept)
    assert ({"route": "/a", "status": "200", "reason": "none"}, 1.0) in found[
        "deferpost_requests_total"
    ]
    assert ({"route": "/a", "status": "500", "reason": "error"}, 1.0) in found[
        "deferpost_requests_total"
    ]
    assert found["deferpost_rejections_total"] == [
        ({"route": "/a", "status": "503", "reason": "pool_full"}, 1.0)
    ]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_histograms(accept: str) -> None:
    """Times and sizes are histograms by route, whose counts grow and end with all."""
    found = samples(scrape_of(busy()), accept)
    for name in ("deferpost_queue_seconds", "deferpost_run_seconds", "deferpost_request_bytes"):
        buckets = [
            (float(labels["le"]), value)
            for labels, value in found[f"{name}_bucket"]
            if labels["route"] == "/a"
        ]
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1] == (float("inf"), 2.0)
        assert ({"route": "/a"}, 2.0) in found[f"{name}_count"]
    assert ({"route": "/a", "le": "0.25"}, 2.0) in found["deferpost_run_seconds_bucket"]
    assert ({"route": "/a", "le": "0.1"}, 1.0) in found["deferpost_run_seconds_bucket"]


def test_any_route_is_a_label() -> None:
    """A route with quotes, backslashes and line ends comes through as it is."""
    routes = {
        labels["route"] for labels, _ in samples(scrape_of(busy()))["deferpost_run_seconds_sum"]
    }
    assert routes == {"/a", '/"\\\n'}


def test_pools() -> None:
    """Each pool shows how full it is, its workers, and what was replaced."""
    workers = [
        worker("w1", "idle", 1000),
        worker("w2", "busy", 3000),
        worker("w3", "starting", None),
    ]
    found = samples(
        scrape_of(
            busy(),
            PoolScrape(status("process", oldest_waiting=1.5), workers),
            PoolScrape(status("own", ready=False), None),
        )
    )
    for name, value in {
        "deferpost_pool_size": 4.0,
        "deferpost_pool_running": 2.0,
        "deferpost_pool_waiting": 3.0,
        "deferpost_pool_max_waiting": 10.0,
        "deferpost_pool_stuck": 1.0,
        "deferpost_worker_restarts_total": 7.0,
    }.items():
        assert found[name] == [({"pool": "process"}, value), ({"pool": "own"}, value)]
    assert found["deferpost_pool_ready"] == [({"pool": "process"}, 1.0), ({"pool": "own"}, 0.0)]
    assert [value for _, value in found["deferpost_pool_oldest_waiting_seconds"]] == [1.5, 0.0]
    assert found["deferpost_pool_workers"] == [
        ({"pool": "process", "stage": stage}, count)
        for stage, count in (("starting", 1), ("idle", 1), ("busy", 1), ("leaving", 0))
    ]
    assert found["deferpost_pool_memory_bytes"] == [({"pool": "process"}, 4000.0)]
    assert found["deferpost_pool_largest_worker_bytes"] == [({"pool": "process"}, 3000.0)]


def test_the_daemon() -> None:
    """It shows its version, its connections, whether it accepts calls, and its own process."""
    found = samples(scrape_of(Tally({})))
    ((build, one),) = found["deferpost_build_info"]
    assert (build["version"], one) == (__version__, 1.0)
    assert found["deferpost_open_connections"] == [({}, 5.0)]
    assert found["deferpost_accepting"] == [({}, 1.0)]
    assert found["process_resident_memory_bytes"][0][1] > 1e6


def test_rungs_are_shown_before_they_are_reached() -> None:
    """Every rung of the cancel ladder has its counter from the start."""
    rungs = samples(scrape_of(Tally({})))["deferpost_cancel_rung_total"]
    assert [(labels["rung"], value) for labels, value in rungs] == [
        ("removed", 0.0),
        ("told", 0.0),
        ("interrupted", 0.0),
        ("terminated", 0.0),
        ("killed", 0.0),
    ]


def test_the_format_is_the_one_asked_for() -> None:
    """Prometheus gets OpenMetrics where it asks for it, and everybody else plain text."""
    assert encoder_of("")[1].startswith("text/plain; version=0.0.4")
    assert encoder_of("text/html, */*")[1].startswith("text/plain; version=0.0.4")
    assert encoder_of(f"{OPENMETRICS}, text/plain;q=0.5")[1].startswith(OPENMETRICS)
    assert encoder_of("text/plain;version=1.0.0")[1].startswith("text/plain; version=1.0.0")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=1.x",
        "application/openmetrics-text; version=1.0.0.<script>",
        "application/openmetrics-text; version=99.0.0",
        "text/plain; version=1.0.0x",
        "text/plain; version=",
    ],
)
def test_versions_that_there_are_not(accept: str) -> None:
    """A made-up version is answered in plain text, and does not come back in the response."""
    assert encoder_of(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


@given(
    st.text(st.characters(max_codepoint=255), max_size=80) | st.from_regex("(version|escaping)=.*")
)
def test_any_accept(rest: str) -> None:
    """Whatever a client accepts, it gets one of the formats."""
    for kind in ("application/openmetrics-text;", "text/plain;", ""):
        _, content_type = encoder_of(kind + rest)
        assert content_type.startswith(("text/plain; version=", "application/openmetrics-text; "))
        assert content_type.isascii()
