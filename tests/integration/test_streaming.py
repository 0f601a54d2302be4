"""Streams and events over real sockets, from threads and processes of a real daemon."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from treq import content
from treq.client import HTTPClient
from twisted.web.http_headers import Headers

from bench.processes import memory
from tests.eventparsing import body_of, parse_ndjson, parse_sse
from tests.integration.daemon import Daemon, wait_until

APP = '''
import os
import time
from deferpost import App, HTTPError

app = App()


def steps(call):
    """Tells of its steps, and waits for a moment after each."""
    for step in range(3):
        call.progress(step, 3, f"step {step}")
        time.sleep(0.12)
    return {"steps": 3}


def gated(call):
    """Tells that it has begun, and waits for a file."""
    call.progress(0)
    while not os.path.exists(call.args["gate"][0]):
        time.sleep(0.01)


def words(call):
    """Yields text with a character that is cut in two."""
    for part in (b"one\\n", b"tw\\xc3", b"\\xb6", b"\\r\\nthree"):
        yield part


def text(call):
    yield "one\\n"
    yield "two \\u2603"


def breaks(call):
    yield "one"
    raise HTTPError(409, "no")


def flood(call):
    """Yields for ever; notes how much, and that it has ended."""
    name = call.args["name"][0]
    count = 0
    try:
        while True:
            count += 1
            with open(name, "w") as file:
                file.write(str(count))
            yield bytes(64 * 1024)
    finally:
        with open(name + ".closed", "w"):
            pass


for pool in ("thread", "process"):
    for handler in (steps, gated, words, text, breaks, flood):
        app.post(f"/{pool}/{handler.__name__}", pool=pool)(handler)
'''

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
POOLS = pytest.mark.parametrize("pool", ["thread", "process"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one worker of each kind."""
    daemon = Daemon(
        tmp_path_factory.mktemp("streaming"), APP, ["--process-size=1", "--thread-size=1"]
    )
    try:
        daemon.wait_listening()
        yield daemon
    finally:
        left = daemon.end()
    assert left == [], daemon.log()


@POOLS
async def test_events_with_treq(served: Daemon, pool: str, http: HTTPClient) -> None:
    """A client of treq reads progress and result."""
    response = await http.post(
        served.url(f"/{pool}/steps"), headers=Headers({"Accept": [SSE]}), data=b"x"
    )
    assert response.code == 200
    assert response.headers.getRawHeaders("content-type") == [SSE]
    events = parse_sse(await content(response))
    assert [event.kind for event in events] == ["progress"] * 3 + ["result"]
    assert '"message":"step 2"' in events[2].data
    assert '{\\"steps\\":3}' in events[3].data


@POOLS
def test_events_come_while_the_job_runs(served: Daemon, pool: str) -> None:
    """The head and each event leave at once, and do not wait for the next."""
    gate = served.directory / f"gate-{pool}"
    with served.connect() as client:
        client.post(f"/{pool}/gated?gate={gate.name}", b"", f"Accept: {NDJSON}")
        assert client.head().headers["content-type"] == NDJSON
        first = client.chunk()
        gate.touch()
        rest = b""
        while chunk := client.chunk():
            rest += chunk
    assert first is not None
    assert [event.kind for event in parse_ndjson(first)] == ["progress"]
    assert parse_ndjson(rest)[-1].data["status"] == 204


@POOLS
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_chunks(served: Daemon, pool: str, version: str) -> None:
    """Each chunk is an event; to a client of HTTP/1.0 the events end with the connection."""
    with served.connect() as client:
        client.request("POST", f"/{pool}/text", b"", f"Accept: {SSE}", version=version)
        response = client.response()
        assert ("transfer-encoding" in response.headers) is (version == "1.1")
        if version == "1.0":
            assert client.is_closed()
    events = parse_sse(response.body)
    assert [event.kind for event in events] == ["chunk", "chunk", "result"]
    assert [event.data for event in events[:2]] == ["one\n", "two ☃"]


@POOLS
def test_stream_that_breaks_off(served: Daemon, pool: str) -> None:
    """An error in the middle is the last event, and the connection goes on."""
    with served.connect() as client:
        client.post(f"/{pool}/breaks", b"", f"Accept: {NDJSON}")
        events = parse_ndjson(client.response().body)
        assert [event.kind for event in events] == ["chunk", "error"]
        assert events[1].data["problem"]["status"] == 409
        client.post(f"/{pool}/words", b"", f"Accept: {NDJSON}")
        assert body_of(parse_ndjson(client.response().body)) == "one\ntwö\r\nthree".encode()
        client.post(f"/{pool}/text")
        assert client.response().body == "one\ntwo ☃".encode()


@pytest.mark.parametrize(("pool", "accept"), [("thread", SSE), ("process", "*/*")])
def test_slow_and_departed_reader(served: Daemon, pool: str, accept: str) -> None:
    """A reader that does not read pauses the handler, and frees it when it leaves."""
    name = f"flood-{pool}-{len(accept)}"
    noted, closed = served.directory / name, Path(served.directory, f"{name}.closed")

    def count() -> int:
        return int((noted.read_text() if noted.exists() else "") or 0)

    pids = [served.pid, *served.worker_pids()]
    before = [memory(pid) for pid in pids]
    with served.connect() as client:
        client.post(f"/{pool}/flood?name={name}", b"", f"Accept: {accept}")
        assert client.head().status == 200
        seen = [0]

        def has_stopped() -> bool:
            """Whether nothing was made for a while, though the daemon turned."""
            with served.connect() as other:
                other.request("GET", "/livez")
                assert other.response("GET").status == 200
            seen.append(count())
            return len(seen) > 30 and seen[-30] == seen[-1] > 0

        wait_until(has_stopped, 20.0, "the handler is paused")
        # What is in the buffers of the system's sockets, beside the window, was read by them.
        assert count() < 200
        stopped = count()
        for pid, size in zip(pids, before, strict=True):
            assert memory(pid) - size < 16 * 2**20
        for _ in range(150):
            assert client.chunk()
        wait_until(lambda: count() > stopped, 10.0, "it goes on")
        assert not closed.exists()
    wait_until(closed.exists, 10.0, "the handler is ended")
    with served.connect() as client:
        client.post(f"/{pool}/text")
        assert client.response().status == 200


PAGE = Path(__file__).resolve().parents[2] / "docs" / "streaming.rst"


def block(name: str) -> str:
    """The block of the page with this name."""
    found = publish_doctree(PAGE.read_text(encoding="utf-8")).findall(nodes.literal_block)
    (text,) = (each.astext() for each in found if name in each["names"])
    return text


def timeless(text: str) -> str:
    """A text without the times that it tells."""
    return re.sub(r"dur=[0-9.]+", "dur=0", text).rstrip("\n")


def test_the_page_shows_what_comes(tmp_path: Path) -> None:
    """What the page shows of events is what curl would."""
    daemon = Daemon(tmp_path, block("streaming.py"), ["--process-size=1"])
    try:
        daemon.wait_listening()
        parts = re.split(r"^\$ ", block("events"), flags=re.MULTILINE)[1:]
        assert len(parts) == 2
        for part in parts:
            command, _, shown = part.partition("\n")
            words = shlex.split(command)
            fields = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
            with daemon.connect() as client:
                client.post(urlsplit(words[-1]).path, b"x", *fields)
                assert timeless(client.response().body.decode()) == timeless(shown)
    finally:
        daemon.end()
