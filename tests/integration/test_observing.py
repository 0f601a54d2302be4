"""Metrics, the log as JSON and traces of a real daemon, and what the page about them shows."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from docutils import nodes
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from deferpost.tracing import parse_traceparent
from tests.integration.daemon import (
    DEFERPOST,
    TWISTD,
    Connection,
    Daemon,
    clean_environment,
    until,
    wait_until,
)
from tests.integration.test_examples import CHECKOUT, doctree, named

pytestmark = pytest.mark.integration

PAGE = CHECKOUT / "docs" / "observing.rst"

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"

APP = r"""
import sys
import threading

from deferpost import App, HTTPError, ProcessPool

app = App(pools={"small": ProcessPool(size=1, max_waiting=0)})


@app.post("/words")
def words(call):
    print("{\"printed\": \udc80 \u2028\r\x00 in a thread")
    return {"words": len(call.body.read().split())}


@app.post("/trace", pool="process")
def trace(call):
    print("\"printed\" in a process")
    return {"traceparent": call.traceparent, "tracestate": call.tracestate}


@app.post("/fail")
def fail(call):
    print("to standard error", file=sys.stderr)
    raise ValueError("two\nlines \udc80")


@app.post("/hang", pool="small")
def hang(call):
    threading.Event().wait()
"""


class JSONDaemon(Daemon):
    """A daemon that logs as JSON."""

    def documents(self) -> list[dict[str, Any]]:
        """All that it has logged; what is not a document is an error."""
        data = self.log_path.read_bytes()
        whole, _, _ = data.rpartition(b"\n")
        return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]

    def events(self, kind: str, id: str) -> list[dict[str, Any]]:
        """The events of a kind about a call."""
        return [one for one in self.documents() if one.get("event") == kind and one["id"] == id]

    def places(self) -> list[str]:
        """The ports on which it listens."""
        messages = [one["message"] for one in self.documents()]
        return [message.split()[-1] for message in messages if "Site starting on" in message]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JSONDaemon]:
    """A daemon that logs as JSON, with routes of every kind."""
    options = ["--log-format=json", "--process-size=1", "--thread-size=2", "--process-kill-grace=0"]
    daemon = JSONDaemon(tmp_path_factory.mktemp("watched"), APP, options)
    try:
        daemon.wait_listening()
        wait_until(lambda: get(daemon, "/readyz")[0] == 200, 30.0, "the workers are ready")
        yield daemon
    finally:
        left = daemon.end()
    assert not left, daemon.log()


def get(daemon: Daemon, path: str, *headers: str) -> tuple[int, str, str]:
    """GET: status, content type and text."""
    with daemon.connect() as client:
        client.request("GET", path, None, *headers)
        response = client.response("GET")
    return response.status, response.headers["content-type"], response.body.decode()


def post(daemon: Daemon, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
    """POST: status and body."""
    with daemon.connect() as client:
        client.post(path, body, *headers)
        response = client.response()
    return response.status, response.body


def figures(daemon: Daemon, accept: str = "text/plain") -> dict[str, dict[tuple[str, ...], float]]:
    """The metrics: values by labels by name."""
    status, content_type, text = get(daemon, "/metrics", f"Accept: {accept}")
    assert status == 200
    parse: Any = parse_openmetrics if "openmetrics" in content_type else parse_text
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended, also where nobody has taken notice yet."""
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes() == b""
    except OSError:
        return True


# Metrics


@pytest_twisted.ensureDeferred
async def test_calls_are_counted(watched: JSONDaemon) -> None:
    """What clients do is seen in the figures, to the call."""

    def of(name: str, *labels: str) -> float:
        return now.get(name, {}).get(labels, 0.0) - before.get(name, {}).get(labels, 0.0)

    before = figures(watched)
    for _ in range(3):
        assert post(watched, "/words", b"one two")[0] == 200
    assert post(watched, "/fail", b"x" * 100)[0] == 500
    assert post(watched, "/nowhere")[0] == 404
    now = figures(watched)
    assert of("deferpost_requests_total", "reason=none", "route=/words", "status=200") == 3
    assert of("deferpost_requests_total", "reason=error", "route=/fail", "status=500") == 1
    assert of("deferpost_run_seconds_count", "route=/words") == 3
    assert of("deferpost_queue_seconds_count", "route=/fail") == 1
    assert of("deferpost_request_bytes_sum", "route=/words") == 21
    assert of("deferpost_request_bytes_sum", "route=/fail") == 100
    assert not any("nowhere" in str(series) for series in now.values())


@pytest_twisted.ensureDeferred
async def test_a_full_pool_and_a_killed_worker_are_seen(watched: JSONDaemon) -> None:
    """A call that is turned away, and a client that leaves, are in the figures and the log."""
    before = figures(watched)
    with watched.connect() as client:
        client.post("/hang", b"", "X-Request-ID: hangs")
        await until(
            lambda: figures(watched)["deferpost_pool_running"]["pool=small",] == 1,
            10.0,
            "it runs",
        )
        assert post(watched, "/hang")[0] == 503
        now = figures(watched)
        assert now["deferpost_open_connections"][()] >= 2
    refused = ("reason=pool_full", "route=/hang", "status=503")
    earlier = before.get("deferpost_rejections_total", {})
    assert now["deferpost_rejections_total"][refused] == earlier.get(refused, 0) + 1
    (job,) = await until(lambda: watched.events("job", "hangs"), 10.0, "the job is over")
    assert (job["state"], job["reason"], job["status"]) == ("canceled", "client_disconnected", 499)
    assert job["rung"] in ("terminated", "killed")
    assert job["run_seconds"] > 0.0
    now = figures(watched)
    left = ("reason=client_disconnected", "route=/hang", "status=499")
    assert now["deferpost_requests_total"][left] >= 1
    assert now["deferpost_cancel_rung_total"][f"rung={job['rung']}",] >= 1


@pytest_twisted.ensureDeferred
async def test_prometheus_gets_openmetrics(watched: JSONDaemon) -> None:
    """A scraper that asks for OpenMetrics gets it, valid, with the same figures."""
    post(watched, "/words")
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    in_openmetrics, in_text = figures(watched, accept), figures(watched)
    counts = in_text["deferpost_requests_total"]
    assert counts
    assert in_openmetrics["deferpost_requests_total"] == counts
    assert in_text["process_cpu_seconds_total"][()] > 0.0


@pytest_twisted.ensureDeferred
async def test_metrics_take_no_other_method(watched: JSONDaemon) -> None:
    """A POST to the metrics is answered 405 before its body; a GET with a small one is a GET."""
    with watched.connect() as client:
        client.request("POST", "/metrics", None, "Content-Length: 1000000000")
        refused = client.response()
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    with watched.connect() as client:
        client.request("GET", "/metrics", b"x")
        assert client.response("GET").status == 200
        client.request("HEAD", "/metrics")
        assert int(client.response("HEAD").headers["content-length"]) > 1000
        client.request("GET", "/metrics", None, "Content-Length: 1000000000")
        assert client.response("GET").status == 413


@pytest_twisted.ensureDeferred
async def test_the_page_has_every_metric(watched: JSONDaemon) -> None:
    """The table of the documentation names each metric with its labels, and none that is not."""
    post(watched, "/words")
    described = {}
    for row in doctree(PAGE).findall(nodes.row):
        name, labels, _ = (" ".join(cell.astext().split()) for cell in row.findall(nodes.entry))
        if name.startswith("deferpost_"):
            described[name] = {label for label in labels.split(", ") if label}
    shown: dict[str, set[str]] = {}
    families = get(watched, "/metrics")[2]
    for family in parse_text(families):
        if family.name.startswith("deferpost_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            shown[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert set(shown) == set(described)
    seen = {name: labels for name, labels in shown.items() if labels}
    assert {name: described[name] for name in seen} == seen
    queries = set(re.findall(r"deferpost_[a-z_]+", PAGE.read_text(encoding="utf-8")))
    assert {re.sub("_bucket$", "", name) for name in queries} == set(described)


# The log as JSON


@pytest_twisted.ensureDeferred
async def test_every_line_is_a_document(watched: JSONDaemon) -> None:
    """Prints and tracebacks with anything in them are documents like all else."""
    assert post(watched, "/words", b"a", "X-Request-ID: prints")[0] == 200
    assert post(watched, "/trace", b"", "X-Request-ID: prints-2")[0] == 200
    assert post(watched, "/fail", b"", "X-Request-ID: fails")[0] == 500
    await until(lambda: watched.events("job", "fails"), 10.0, "the job is over")
    documents = watched.documents()
    messages = [one["message"] for one in documents]
    assert any("in a thread" in message for message in messages)
    assert any('"printed" in a process' in message for message in messages)
    assert "to standard error" in messages
    traces = [one for one in documents if one.get("traceback") and one.get("id") == "fails"]
    assert [one["level"] for one in traces] == ["error"]
    assert "ValueError: two\nlines" in traces[0]["traceback"]
    for one in documents:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
        assert {"level", "namespace", "message"} <= set(one)


@pytest_twisted.ensureDeferred
async def test_a_job_and_its_request(watched: JSONDaemon) -> None:
    """A call is one event as a job and one as a request, with the same id."""
    fields = ["X-Request-ID: both", 'User-Agent: "agent"\\', f"traceparent: {TRACEPARENT}"]
    assert post(watched, "/words?a=1", b"one two", *fields)[0] == 200
    (job,) = await until(lambda: watched.events("job", "both"), 10.0, "the job is over")
    (access,) = watched.events("access", "both")
    expected = {
        "route": "/words",
        "pool": "thread",
        "client": "127.0.0.1",
        "principal": None,
        "trace_id": TRACE_ID,
        "parent_id": "b7ad6b7169203331",
        "state": "succeeded",
        "reason": None,
        "rung": None,
        "status": 200,
        "body_bytes": 7,
        "sent_bytes": 11,
    }
    assert {name: job[name] for name in expected} == expected
    assert 0.0 <= job["queue_seconds"] < 10.0
    assert 0.0 <= job["run_seconds"] < 10.0
    assert access["agent"] == '"agent"\\'
    assert (access["method"], access["path"], access["status"]) == ("POST", "/words?a=1", 200)
    assert (access["bytes"], access["queue_seconds"]) == (11, job["queue_seconds"])
    shown = [
        json.loads(block.astext())
        for block in doctree(PAGE).findall(nodes.literal_block)
        if "json" in block["classes"]
    ]
    assert [list(one) for one in shown if one.get("event") == "job"] == [list(job)]
    assert [list(one) for one in shown if one.get("event") == "access"] == [list(access)]


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_no_http(watched: JSONDaemon) -> None:
    """What the wire refuses by itself is an event of its own too."""
    with watched.connect() as client:
        client.send(b"POST /words HTTP/1.1\r\nHost: a\r\nX-Request-ID: odd\r\nBad Field: 1\r\n\r\n")
        refused = client.response()
    id = refused.headers["x-request-id"]
    assert refused.status == 400
    (access,) = await until(lambda: watched.events("access", id), 10.0, "it is logged")
    assert (access["status"], access["client"], access["bytes"]) == (400, "127.0.0.1", 0)
    assert f"id={id} refused: " in access["message"]


@pytest_twisted.ensureDeferred
async def test_in_the_background(tmp_path: Path) -> None:
    """As a daemon of twistd's with --logfile, all is JSON in that file, to the last line."""
    app = 'from deferpost import App\napp = App()\napp.post("/words")(lambda call: "words")\n'
    (tmp_path / "served.py").write_text(app, encoding="utf-8")
    log, pidfile = tmp_path / "own.log", tmp_path / "pid"
    before_the_plugin = [f"--pidfile={pidfile}", f"--logfile={log}"]
    options = ["--listen=tcp:0:interface=127.0.0.1", "--log-format=json", "served:app"]
    subprocess.run(
        [*TWISTD[:3], *before_the_plugin, "deferpost", *options],
        cwd=tmp_path,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    pid = int(pidfile.read_text())
    try:
        starting = re.search(r"Site starting on (\d+)", log.read_text())
        assert starting is not None
        with Connection.tcp(int(starting[1])) as client:
            client.post("/words", b"a", "X-Request-ID: far")
            assert client.response().status == 200
    finally:
        os.kill(pid, signal.SIGTERM)
        await until(lambda: has_ended(pid), 20.0, "it has ended")
    documents = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [one["state"] for one in documents if one.get("event") == "job"] == ["succeeded"]
    assert documents[-1]["message"] == "Server Shut Down."
    assert not (tmp_path / "twistd.log").exists()


# Traces


@pytest_twisted.ensureDeferred
async def test_a_trace_goes_through_a_process(watched: JSONDaemon) -> None:
    """A handler in a process hands on the trace, with the id that the log has for the call."""
    fields = [
        "X-Request-ID: traced",
        f"Traceparent: {TRACEPARENT}",
        "tracestate: a=1",
        "tracestate: b=2",
    ]
    status, body = post(watched, "/trace", b"", *fields)
    assert status == 200
    told = json.loads(body)
    assert told["tracestate"] == "a=1, b=2"
    handed_on = parse_traceparent(told["traceparent"].encode())
    assert handed_on is not None
    assert (handed_on.trace_id, handed_on.flags) == (TRACE_ID, 1)
    (job,) = await until(lambda: watched.events("job", "traced"), 10.0, "the job is over")
    assert (job["trace_id"], job["span_id"]) == (TRACE_ID, handed_on.parent_id)


@pytest_twisted.ensureDeferred
async def test_without_a_trace(watched: JSONDaemon) -> None:
    """Without a valid traceparent nothing is handed on, and the state of a trace is dropped."""
    for fields in ([], ["tracestate: a=1"], ["traceparent: 00-0-0-0", "tracestate: a=1"]):
        _, body = post(watched, "/trace", b"", *fields)
        assert json.loads(body) == {"traceparent": None, "tracestate": None}


@pytest_twisted.ensureDeferred
async def test_the_example_of_the_page(tmp_path: Path) -> None:
    """The handler of the documentation asks another server as part of its client's trace."""
    seen: list[dict[str, str]] = []

    class Prices(http.server.BaseHTTPRequestHandler):
        """The other server."""

        def do_POST(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"42")

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prices)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    app = named(PAGE, "traced").replace(":8081/", f":{server.server_port}/")
    daemon = JSONDaemon(tmp_path, app, ["--log-format=json"], command=DEFERPOST)
    try:
        daemon.wait_listening()
        fields = [f"traceparent: {TRACEPARENT}", "tracestate: a=1", "X-Request-ID: price"]
        assert post(daemon, "/price", b"tea", *fields) == (200, b"42")
        assert post(daemon, "/price", b"tea") == (200, b"42")
        (job,) = await until(lambda: daemon.events("job", "price"), 10.0, "the job is over")
    finally:
        left = daemon.end()
        server.shutdown()
        server.server_close()
        serving.join()
    assert not left
    assert seen[0]["traceparent"] == f"00-{TRACE_ID}-{job['span_id']}-01"
    assert seen[0]["tracestate"] == "a=1"
    assert "traceparent" not in seen[1]
