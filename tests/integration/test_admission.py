"""A real daemon that has more to do than it can: who is let in, in which order, and until when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import pytest_twisted
from treq.client import HTTPClient

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, Daemon, Response
from tests.integration.test_examples import CHECKOUT, blocks, commands, curl

pytestmark = pytest.mark.integration

PAGE = CHECKOUT / "docs" / "admission.rst"

APP = '''
import os
import time

from deferpost import App, ProcessPool, ThreadPool

app = App(pools={
    "threads": ThreadPool(size=1, max_waiting=8, max_held=1000),
    "processes": ProcessPool(size=1, max_waiting=8),
})


def work(call):
    """Wait for a file to be there, if one is named, and say when it may be over."""
    with open("started", "a") as started:
        started.write(call.id + "\\n")
    gate = call.args.get("gate")
    while gate and not os.path.exists(gate[0]):
        call.check()
        time.sleep(0.002)
    return {"left": None if call.deadline is None else call.deadline - time.monotonic()}


for name in ("threads", "processes"):
    app.post("/" + name, pool=name, timeout="10s", queue_timeout="20s")(work)
app.post("/short", pool="threads", queue_timeout="100ms")(work)
'''


@pytest_twisted.ensureDeferred
async def test_the_answers_of_the_page_about_admission(
    daemon: StartDaemon, http: HTTPClient
) -> None:
    """The example of the page answers as the page shows."""
    (source,) = (b.astext() for b in blocks(PAGE, "python") if "/report" in b.astext())
    started = daemon(source)
    for line, shown in commands(PAGE, "deadlines"):
        assert await curl(http, started, line) == shown


def _sent(served: Daemon, path: str, name: str, *headers: str, body: bytes = b"") -> Connection:
    client = served.connect()
    client.post(path, body, f"X-Request-ID: {name}", *headers)
    return client


def _begun(served: Daemon) -> list[str]:
    """The ids of the calls that have begun, in order."""
    path = served.directory / "started"
    return path.read_text().split() if path.exists() else []


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _until_begun(served: Daemon, name: str) -> None:
    _until(lambda: name in _begun(served))


def _problem(client: Connection) -> tuple[Response, str]:
    with client:
        response = client.response()
        assert response.headers["content-type"] == "application/problem+json"
        return response, json.loads(response.body)["reason"]


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_under_too_much_work(daemon: StartDaemon, pool: str) -> None:
    """Urgent calls go first, late ones never run, each is told why, and places come back."""
    path = f"/{pool}"
    served = daemon(APP, ["--max-jobs-per-client=7", "--most-urgent=1", "--total-timeout=15s"])
    gate = served.directory / "gate"
    first = _sent(served, f"{path}?gate=gate", "first", "X-Timeout: 8s")
    _until_begun(served, "first")
    late = _sent(served, path, "late", "X-Timeout: 200ms")
    others = {
        name: _sent(served, path, name, f"Priority: {value}")
        for name, value in (("usual", "i"), ("least", "u=7"), ("most", "u=0, i"))
    }
    upload = served.connect()  # which counts, too
    upload.send(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: upload\r\n"
        "Priority: u=1\r\nContent-Length: 4\r\n\r\n".encode()
    )
    response, reason = _problem(late)
    assert (response.status, reason) == (504, "deadline_total")
    _sent(served, path, "sixth").close()  # it leaves, and gives back what it had
    _until(lambda: f"[sixth] {path} canceled (client_disconnected): removed" in served.log())
    upload.send(b"body")
    more = [_sent(served, path, f"more-{number}", "Priority: u=6") for number in range(2)]
    response, reason = _problem(_sent(served, path, "eighth"))
    assert (response.status, reason) == (429, "client_quota")
    assert response.headers["ratelimit-policy"] == '"client";q=7;qu="concurrent-requests"'
    assert int(response.headers["retry-after"]) >= 1
    gate.touch()
    for client in (first, *others.values(), upload, *more):
        with client:
            response = client.response()
            assert response.status == 200
            assert 0 < json.loads(response.body)["left"] <= 10
    assert _begun(served)[:4] == ["first", "most", "upload", "usual"]
    assert _begun(served)[-1] == "least"
    assert "late" not in _begun(served)
    assert "sixth" not in _begun(served)
    assert "eighth" not in _begun(served)
    assert "late] /" in served.log()
    assert "Traceback" not in served.log()


def test_a_full_pool(daemon: StartDaemon) -> None:
    """Neither places nor bytes are given twice, and late ones make room."""
    served = daemon(APP)
    gate = served.directory / "gate"
    first = _sent(served, "/threads?gate=gate", "first", body=b"x" * 600)
    _until_begun(served, "first")
    response, reason = _problem(_sent(served, "/threads", "large", body=b"x" * 600))
    assert (response.status, reason) == (503, "pool_full")
    assert response.headers["ratelimit-policy"] == '"pool";q=1000;qu="content-bytes"'
    assert response.headers["ratelimit"].startswith('"pool";r=400;t=')
    waiting = [_sent(served, "/short", f"short-{number}") for number in range(8)]
    with served.connect() as client:
        client.send(
            b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        response = client.response()  # and not 100
        assert response.status == 503
        assert response.headers["ratelimit-policy"] == '"pool";q=9;qu="concurrent-requests"'
    for client in waiting:
        response, reason = _problem(client)
        assert (response.status, reason) == (504, "deadline_queue")
    last = _sent(served, "/threads", "last", body=b"x" * 400)
    gate.touch()
    for client in (first, last):
        with client:
            assert client.response().status == 200
    assert _begun(served) == ["first", "last"]
