"""What is known of the daemon's work, put together."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from deferpost import App
from deferpost.defaults import LOG_FORMATS, WIRES, LogFormat, Wire
from deferpost.errors import DeclarationError
from deferpost.interfaces import IJobObserver
from deferpost.jsonlog import MEMBERS
from deferpost.model import Route
from deferpost.observing import Observing
from deferpost.service import DaemonService
from deferpost.settings import Settings
from deferpost.tally import Counted
from tests.integration.daemon import until
from tests.test_tally import done
from tests.web import Client, Response


def observing(job_events: bool) -> Observing:
    """It, at ten seconds of the monotonic clock, which are a thousand seconds since 1970."""
    made = Observing(Clock(), job_events=job_events, now=lambda: 10.0, time_of_day=lambda: 1000.0)
    made.declare([Route(path="/a", handler=None, pool="heavy")])
    return made


def test_jobs_are_counted_and_told() -> None:
    """With events of jobs each is counted and logged, with its pool and the time of the day."""
    watching = observing(job_events=True)
    assert verifyObject(IJobObserver, watching.observer)
    with capturedLogs() as events:
        watching.observer.job_done(done(at=7.5))
        watching.observer.refused("/a", 503, "pool_full")
    (event,) = events
    assert event[MEMBERS]["pool"] == "heavy"
    assert event[MEMBERS]["created"] == "1970-01-01T00:16:37.500Z"
    assert watching.tally.snapshot().requests == [Counted("/a", 200, "none", 1)]
    assert watching.tally.refusals() == [Counted("/a", 503, "pool_full", 1)]
    assert watching.tally.recent()[0].created == 997.5


def test_jobs_are_counted_alone() -> None:
    """Without events of jobs they are only counted."""
    watching = observing(job_events=False)
    with capturedLogs() as events:
        watching.observer.job_done(done())
    assert events == []
    assert watching.tally.snapshot().requests == [Counted("/a", 200, "none", 1)]


def test_one_that_fails_does_not_silence_the_other() -> None:
    """A job that cannot be counted is logged all the same, and so is the defect."""
    watching = observing(job_events=True)
    broken: Any = done()
    broken.created = "yesterday"
    with capturedLogs() as events:
        watching.observer.job_done(broken)
    assert "was not observed" in formatEvent(events[0])
    assert events[0]["log_failure"].check(TypeError)


def service(app: App, **settings: Any) -> DaemonService:
    """A daemon on the reactor that tests run with, which listens nowhere."""
    from twisted.internet import reactor

    return DaemonService(app, Settings(app="tests:app", **settings), reactor)


def test_a_route_of_the_same_path() -> None:
    """An app whose route is at /metrics is refused, unless the daemon leaves the path to it."""
    app = App()
    app.post("/metrics")(lambda call: None)
    with pytest.raises(DeclarationError, match="/metrics is the daemon's own unless metrics is"):
        service(app)
    assert service(app, metrics=False)


async def asked(daemon: DaemonService, path: str) -> Response:
    """What a daemon answers to a GET, over a connection in memory."""
    client = Client(Site(daemon.version.root, reactor=Clock()))
    client.request("GET", path)
    await until(lambda: client.received, 10.0, "the response")
    return client.response()


@pytest_twisted.ensureDeferred
async def test_metrics_are_served() -> None:
    """What was counted is at /metrics, written by another thread while the reactor turns."""
    app = App()
    app.post("/a")(lambda call: None)
    daemon = service(app)
    daemon.observing.observer.job_done(done())
    response = await asked(daemon, "/metrics")
    assert response.status == 200
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
        if family.name in ("deferpost_requests", "deferpost_accepting")
    }
    assert values == {"deferpost_requests_total": 1.0, "deferpost_accepting": 0.0}


@pytest_twisted.ensureDeferred
async def test_metrics_can_be_switched_off() -> None:
    """With metrics off there is nothing at their path."""
    app = App()
    app.post("/a")(lambda call: None)
    assert (await asked(service(app, metrics=False), "/metrics")).status == 404


@pytest.mark.parametrize("wire", WIRES)
def test_requests_that_the_wire_refuses(wire: Wire) -> None:
    """What is no request of an app is counted where the daemon's own wire refuses it."""
    app = App()
    app.post("/a")(lambda call: None)
    daemon = service(app, wire=wire, access_log=False)
    site = daemon.version.site()
    client = Client(site)
    assert site.open_connections == 1
    client.send(b"POST /a?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
    client.leave()
    assert site.open_connections == 0
    counted = [Counted("/a", 400, "400", 1)] if wire == "deferpost" else []
    assert daemon.observing.tally.refusals() == counted


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_requests_have_members_in_a_json_log(wire: Wire, log_format: LogFormat) -> None:
    """The line of a request is the same in both logs; for JSON it brings its parts as members."""
    app = App()
    app.post("/a")(lambda call: None)
    client = Client(service(app, wire=wire, log_format=log_format).version.site())
    with capturedLogs() as events:
        client.request("GET", "/livez", b"", "X-Request-ID: id-7", 'User-Agent: a "b"')
        client.leave()
    (access,) = (event for event in events if "id=id-7" in formatEvent(event))
    if log_format == "text":
        assert MEMBERS not in access
        return
    members = access[MEMBERS]
    assert members["bytes"] > 0
    assert members == {
        "event": "access",
        "id": "id-7",
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/livez",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": members["bytes"],
        "agent": 'a "b"',
        "queue_seconds": 0.0,
        "run_seconds": 0.0,
    }


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_leaves_early_in_a_json_log(wire: Wire) -> None:
    """A request that never was whole has no method and no path, and is 499."""
    app = App()
    app.post("/a")(lambda call: None)
    client = Client(service(app, wire=wire, log_format="json").version.site())
    with capturedLogs() as events:
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        client.leave()
    members = [event[MEMBERS] for event in events if MEMBERS in event]
    assert [(one["status"], one["client"]) for one in members] == [(499, "192.0.2.1")]
