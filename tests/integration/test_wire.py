"""The daemon's own HTTP/1.1: refusing early, asking for bodies, and streaming them to handlers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import ANY_PORT, Daemon, wait_until
from tests.integration.hostile import RESET, request, send_until_full
from tests.integration.limited import LIMITED
from tests.integration.load import PeakMemory, idle, pool, unlinked_bytes
from tests.integration.test_hostile import file_of, no_error, open_gate, waits

pytestmark = pytest.mark.integration

#: How long something may take that is done at once on a machine that is not busy.
SOON = 20.0

MIB = 2**20

APP = """
import time
from pathlib import Path

from deferpost import App, HTTPError, ThreadPool

app = App(pools={"one": ThreadPool(size=1, max_waiting=0)})


@app.post("/size")
def size(call):
    return str(len(call.body.read()))


@app.post("/small", max_body="1MB")
def small(call):
    return str(len(call.body.read()))


@app.post("/waits", pool="one")
def waits(call):
    Path(f"{call.id}.begun").touch()
    while not (call.canceled or Path("gate").exists()):
        time.sleep(0.005)
    return call.id


def gate(head):
    given = dict(head.headers).get(b"X-Gate")
    if given is not None:
        fields = {b"401": {"WWW-Authenticate": "Bearer"}, b"429": {"Retry-After": "7"}}
        raise HTTPError(int(given), "Not so.", headers=fields.get(given, {}))
"""


def announced(path: str, size: int, *headers: str, method: str = "POST") -> bytes:
    """The head of a request whose body has so many bytes."""
    head = request(path, b"", *headers, method=method)
    return head.replace(b"Content-Length: 0\r\n", b"Content-Length: %d\r\n" % size)


EXPECTED = "Expect: 100-continue"


@pytest.mark.parametrize("expect", [(), (EXPECTED,)], ids=["plain", "expecting"])
def test_refused_by_its_head(daemon: StartDaemon, expect: tuple[str, ...]) -> None:
    """What a head rules out is answered before the body, and no body is asked for."""
    served = daemon(APP, ["--max-body=2MB"])
    with served.connect() as running:
        running.send(waits("running"))
        file_of(served, "running.begun")
        for head, status in (
            (announced("/missing", 1000, *expect), 404),
            (announced("/size", 1000, *expect, method="PUT"), 405),
            (announced("/size", 2_000_001, *expect), 413),
            (announced("/small", 1_000_001, *expect), 413),
            (announced("/waits", 1000, *expect), 503),
        ):
            with served.connect() as client:
                client.send(head)
                response = client.response()
                assert response.status == status, head
                assert response.headers["content-type"] == "application/problem+json"
                assert json.loads(response.body)["status"] == status
                if status == 405:
                    assert response.headers["allow"] == "OPTIONS, POST"
                if status == 503:
                    assert int(response.headers["retry-after"]) > 0
                if expect:  # whether the body comes is not sure, so nothing can come behind it
                    assert response.headers["connection"] == "close"
        open_gate(served)
        assert running.response().body == b"running"
    no_error(served)


@pytest.mark.parametrize("status", [401, 403, 429])
def test_refused_by_the_gate(daemon: StartDaemon, status: int) -> None:
    """What is asked of each call before its body, for authentication and quotas, can refuse it."""
    site = daemon(APP, ["gate=gate"], command=LIMITED)
    with site.connect() as client:
        client.send(announced("/size", 10**9, f"X-Gate: {status}", EXPECTED))
        response = client.response()
        assert response.status == status
        assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert response.headers.get("retry-after") == ("7" if status == 429 else None)
    with site.connect() as client:  # one whose body came with its head
        client.send(request("/size", b"12345", f"X-Gate: {status}") + request("/size", b"123"))
        assert client.response().status == status
        assert client.response().body == b"3"
    with site.connect() as client:
        client.send(announced("/size", 5, EXPECTED))
        assert client.head().status == 100
        client.send(b"12345")
        assert client.response().body == b"5"
    no_error(site)


def test_expectations(daemon: StartDaemon) -> None:
    """100 Continue is for who waits for it; another expectation cannot be met."""
    served = daemon(APP)
    with served.connect() as client:
        for _ in range(2):
            client.send(announced("/size", 5, EXPECTED))
            assert client.head().status == 100
            client.send(b"12345")
            response = client.response()
            assert (response.status, response.body) == (200, b"5")
        client.send(request("/size", b"12345", EXPECTED))
        response = client.response()
        assert (response.status, response.body) == (200, b"5"), "the body had come"
        client.send(request("/size", b"", EXPECTED))
        assert client.response().body == b"0", "there is none"
        client.request("POST", "/size", None, "Transfer-Encoding: chunked", EXPECTED)
        assert client.head().status == 100
        client.send(b"5\r\nhello\r\n0\r\n\r\n")
        assert client.response().body == b"5"
    with served.connect() as old:  # RFC 9110, section 10.1.1
        old.send(announced("/size", 5, EXPECTED).replace(b"HTTP/1.1", b"HTTP/1.0"))
        old.send(b"12345")
        assert old.response().body == b"5"
    with served.connect() as odd:
        odd.send(announced("/size", 5, "Expect: 200-ok"))
        assert odd.response().status == 417
    no_error(served)


#: How curl is told to post: its options, the size of the file, and whether it knows that size.
CURLS = {
    "data": (["--data-binary", "@large"], 2**28),  # which it reads into its memory first
    "file": (["--request", "POST", "--upload-file", "large"], 2**30),
    "pipe": (["--request", "POST", "--upload-file", "-"], 2**30),
}


@pytest.mark.parametrize("how", CURLS)
def test_curl_uploads_nothing(daemon: StartDaemon, tmp_path: Path, how: str) -> None:
    """curl with a huge file for a route limited to 1 MB gets 413 at once, and sends nothing."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    served = daemon(APP)
    options, size = CURLS[how]
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)
    with large.open("rb") as file:
        done = subprocess.run(
            [
                curl,
                *("--silent", "--show-error", "--output", os.devnull, "--noproxy", "*"),
                *("--http1.1", "--header", EXPECTED, "--expect100-timeout", "60"),
                *("--write-out", "%{http_code} %{size_upload}", *options),
                served.url("/small"),
            ],
            stdin=file,
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.stdout, done.stderr
    status, uploaded = map(int, done.stdout.split())
    assert status == 413
    if how == "pipe":  # of which nobody knows the size until it is over the limit
        assert uploaded < 16 * MIB
    else:
        assert uploaded == 0
    no_error(served)


def test_nothing_is_sent_of_a_refused_body(daemon: StartDaemon) -> None:
    """A client that waits for 100 Continue has its 413 before it has sent a byte."""
    served = daemon(APP, ["--max-body=1MB"])
    with served.connect() as client:
        client.send(announced("/size", 2**30, EXPECTED))
        response = client.response()
        assert response.status == 413
        assert json.loads(response.body)["reason"] == "body_too_large"
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_closed()


@pytest.mark.parametrize("path", ["/missing", "/small"])
def test_naive_client(daemon: StartDaemon, path: str) -> None:
    """A client that sends all of 50 MB before it reads gets its refusal, and no reset."""
    served = daemon(APP, ["--body-memory=1kB"])
    naive = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SOON)
    written = []
    over = threading.Event()

    def watch_the_disk() -> None:
        while not over.wait(0.002):
            written.append(unlinked_bytes(served.pid))

    watcher = threading.Thread(target=watch_the_disk)
    watcher.start()
    try:
        naive.request("POST", path, bytes(50_000_000))
        response = naive.getresponse()
        assert response.status == (404 if path == "/missing" else 413)
        assert json.loads(response.read())["status"] == response.status
        assert response.headers["Connection"] == "close"
    finally:
        over.set()
        watcher.join()
        naive.close()
    assert max(written) == 0, "the disk gets nothing of a refused body"
    no_error(served)


def test_lingering_has_a_bound(daemon: StartDaemon) -> None:
    """A client that goes on sending after its refusal is read for a time, and no longer."""
    served = daemon(APP, ["--linger=500ms"])
    with served.connect() as client:
        client.send(announced("/missing", 2**40))
        assert client.response().status == 404
        client.socket.settimeout(0.2)
        sent = 0

        def is_cut_off() -> bool:
            nonlocal sent
            try:
                sent += client.socket.send(b"x" * 1000)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        wait_until(is_cut_off, SOON, "it is cut off")
        assert sent > 1000, "it was not read for any time"
    with served.connect() as silent:
        silent.send(announced("/missing", 2**40))
        assert silent.response().status == 404
        assert silent.is_closed()
        wait_until(lambda: _connections(served) == 0, SOON, "it is gone")


def _connections(daemon: Daemon) -> int:
    """Connections that a daemon has open, on TCP."""
    port = f":{daemon.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" and row[9] != "0" for row in rows)


def test_keep_alive_after_a_refusal(daemon: StartDaemon) -> None:
    """A connection goes on behind an early refusal when what is left of the body is short."""
    served = daemon(APP)
    with served.connect() as client:
        for path, status in (("/missing", 404), ("/size", 405)):
            client.send(announced(path, 10_000, method="PUT"))
            response = client.response()
            assert response.status == status
            assert response.headers.get("connection") != "close"
            client.send(b"x" * 4_000)
            client.send(b"x" * 6_000 + request("/size", b"123"))
            assert client.response().body == b"3"
        client.send(announced("/missing", MIB))
        assert client.response().headers["connection"] == "close"


def test_chunked_body_over_the_limit(daemon: StartDaemon) -> None:
    """A chunked body is stopped at the limit, by one chunk that is announced or by many."""
    served = daemon(APP, ["--body-memory=1kB"])
    with served.connect() as client:
        client.request("POST", "/small", None, "Transfer-Encoding: chunked")
        client.send(b"%x\r\n" % 1_000_001)
        response = client.response()
        assert response.status == 413
        assert json.loads(response.body)["reason"] == "body_too_large"
        assert response.headers["connection"] == "close"
    with served.connect() as client:
        client.request("POST", "/small", None, "Transfer-Encoding: chunked")
        piece = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        client.send(piece * 100)
        wait_until(lambda: unlinked_bytes(served.pid) >= 900_000, SOON, "it is kept")
        client.send(piece * 3_000)  # which a client does that does not look
        assert client.response().status == 413
        wait_until(lambda: unlinked_bytes(served.pid) == 0, SOON, "nothing of it is kept")
    with served.connect() as client:
        client.request("POST", "/small", None, "Transfer-Encoding: chunked")
        client.send(piece * 100 + b"0\r\n\r\n")
        assert client.response().body == b"1000000"
    no_error(served)


def test_refusals_are_logged(daemon: StartDaemon) -> None:
    """Each refusal of the wire is one line of the access log, found by the id of its answer."""
    served = daemon(APP, ["--head-timeout=300ms"])
    for data, status in (
        (b"GET /size HTTP/1.1\r\n\r\n", 400),
        (b"GET /size HTTP/3.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\r\n", 400),
        (b"POST /size HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, 431),
        (b"POST /" + b"x" * 20_000, 414),
        (b"POST /size", 408),
        (b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (announced("/size", 5, "Expect: more"), 417),
    ):
        before = len(served.log_lines("deferpost.access"))
        with served.connect() as client:
            client.send(data)
            response = client.response()
            assert response.status == status, data[:80]
            assert client.is_closed(), data[:80]
        id = response.headers["x-request-id"]
        assert json.loads(response.body)["id"] == id
        wait_until(lambda id=id: served.log_lines(f"id={id}"), SOON, "it is logged")  # type: ignore[misc]
        lines = served.log_lines("deferpost.access")[before:]
        assert len(lines) == 1, lines
        assert f'" {status} ' in lines[0]
        assert f"id={id}" in lines[0]
    no_error(served)


def test_drain(daemon: StartDaemon) -> None:
    """At the end pending requests are answered, and connections that wait for none are closed."""
    served = daemon(APP, ["--grace=30s"])
    with served.connect() as pending, served.connect() as idle, served.connect() as unused:
        idle.send(request("/size", b"x"))
        assert idle.response().body == b"1"
        pending.send(waits("pending"))
        file_of(served, "pending.begun")
        served.send_signal(signal.SIGTERM)
        wait_until(lambda: served.log_lines("draining"), SOON, "it drains")
        open_gate(served)
        start = time.monotonic()
        assert pending.response().body == b"pending"
        for each in (pending, idle, unused):
            assert each.is_closed()
        assert served.process.wait(SOON) == 0
        assert time.monotonic() - start < served.stretched(5.0)
    no_error(served)


def test_stock_wire(daemon: StartDaemon) -> None:
    """With --wire=stock Twisted's own channel serves the same app."""
    served = daemon(APP, ["--wire=stock", "--max-body=2MB"], listen=[ANY_PORT])
    with served.connect() as client:
        client.send(request("/size", b"x" * 100_000))
        assert client.response().body == b"100000"
        client.send(request("/missing", b"x"))
        assert client.response().status == 404
        client.send(request("/small", b"x" * 1_000_001))
        assert client.response().status == 413
    served.send_signal(signal.SIGTERM)
    assert served.process.wait(SOON) == 0


# Bodies that arrive with their call.

STREAMS = """
import hashlib
import os
import time
from pathlib import Path

from deferpost import App, ProcessPool, ThreadPool
from deferpost.errors import BodyBroken, Canceled

app = App(pools={"thread": ThreadPool(size=2), "process": ProcessPool(size=1)})


def digest(call):
    found = hashlib.sha256()
    while piece := call.body.read(65536):
        if not Path(f"{call.id}.first").exists():
            Path(f"{call.id}.first").touch()
        found.update(piece)
    return {"digest": found.hexdigest(), "pid": os.getpid()}


def held(call):
    Path(f"{call.id}.begun").touch()
    try:
        while not Path("gate").exists() and not call.canceled:
            time.sleep(0.005)
        size = 0
        while piece := call.body.read(65536):
            size += len(piece)
        return str(size)
    except (BodyBroken, Canceled) as error:
        Path(f"{call.id}.{type(error).__name__}").touch()
        raise
    finally:
        Path(f"{call.id}.over").touch()


def reads(call):
    try:
        while call.body.read(65536):
            Path(f"{call.id}.begun").touch()
    except (BodyBroken, Canceled) as error:
        Path(f"{call.id}.raised").touch()
        raise


def early(call):
    return call.body.read(10)


for kind in ("thread", "process"):
    for handler in (digest, held, reads, early):
        app.post(f"/{kind}/{handler.__name__}", pool=kind, stream=True, max_body="300MB")(handler)
    app.post(f"/{kind}/small", pool=kind, stream=True, max_body="1MB")(reads)
"""

STREAMED = 200 * MIB

_BLOCK = bytes(range(256)) * 4096  # 1 MiB


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_streamed_upload(daemon: StartDaemon, kind: str) -> None:
    """A handler reads what arrives while the client sends, and no memory grows with the body."""
    served = daemon(STREAMS)
    with served.connect() as client:
        client.send(request(f"/{kind}/digest", b"warm"))
        pid = json.loads(client.response().body)["pid"]
        peaks = {each: PeakMemory(each) for each in {served.pid, pid}}
        client.send(announced(f"/{kind}/digest", STREAMED, "X-Request-ID: streamed", EXPECTED))
        assert client.head().status == 100
        expected = hashlib.sha256()
        for number in range(STREAMED // MIB):
            block = number.to_bytes(4, "big") + _BLOCK[4:]
            client.send(block)
            expected.update(block)
            if number == 0:
                file_of(served, "streamed.first")  # the rest is still here
        response = client.response()
        assert json.loads(response.body)["digest"] == expected.hexdigest()
        assert unlinked_bytes(served.pid) == 0
        for each, peak in peaks.items():
            assert peak.growth() < 16 * MIB, (each, served.pid)
        client.send(request(f"/{kind}/digest", b"again"))
        assert client.response().status == 200
    no_error(served)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_handler_that_does_not_read(daemon: StartDaemon, kind: str) -> None:
    """While a handler does not read, its client is held back; when it does, the rest comes."""
    served = daemon(STREAMS)
    with served.connect() as client:
        client.send(announced(f"/{kind}/held", STREAMED, "X-Request-ID: held"))
        file_of(served, "held.begun")
        peak = PeakMemory(served.pid)
        taken = 0
        for _ in range(2):  # the systems' buffers may grow once more
            taken += send_until_full(client, bytes(STREAMED - taken))
        assert taken < 32 * MIB, "the systems' buffers, and little more"
        assert peak.growth() < 4 * MIB
        (served.directory / "gate").touch()
        left = STREAMED - taken
        while left:
            client.send(bytes(min(left, MIB)))
            left -= min(left, MIB)
        assert client.response().body == str(STREAMED).encode()
    no_error(served)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_departure_in_mid_upload(daemon: StartDaemon, kind: str, how: str) -> None:
    """A client that leaves in the middle of its body is told to the handler that reads it."""
    served = daemon(STREAMS)
    with served.connect() as client:
        client.send(announced(f"/{kind}/reads", STREAMED, "X-Request-ID: leaves"))
        client.send(_BLOCK)
        file_of(served, "leaves.begun")
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    file_of(served, "leaves.raised")
    wait_until(lambda: pool(served, kind) == (0, 0), SOON, "the worker is free")
    assert '" 499 ' in served.log_lines("id=leaves ")[0]
    with served.connect() as client:
        client.send(request(f"/{kind}/digest", b"next"))
        assert client.response().status == 200
    no_error(served)


@pytest.mark.parametrize("size", [300_000, STREAMED], ids=["a little", "all that goes"])
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_departure_while_nobody_reads(daemon: StartDaemon, kind: str, size: int) -> None:
    """A client that leaves while its handler does not read is noticed all the same."""
    site = daemon(STREAMS, ["body_window=0.5"], command=LIMITED)
    idle(site)  # its workers are set up
    with site.connect() as client:
        client.send(announced(f"/{kind}/held", STREAMED, "X-Request-ID: leaves"))
        send_until_full(client, bytes(size))  # at once: this client is not slow
        file_of(site, "leaves.begun")
    file_of(site, "leaves.over" if kind == "thread" else "leaves.Canceled")
    wait_until(lambda: pool(site, kind) == (0, 0), SOON, "the worker is free")
    no_error(site)


def test_held_back_is_not_slow(daemon: StartDaemon) -> None:
    """A client that is held back for long is not taken for one that is slow."""
    site = daemon(STREAMS, ["body_window=0.5", "min_body_rate=1000"], command=LIMITED)
    with site.connect() as client:
        client.send(announced("/thread/held", 20 * MIB, "X-Request-ID: held"))
        file_of(site, "held.begun")
        taken = send_until_full(client, bytes(20 * MIB))
        time.sleep(1.2)
        (site.directory / "gate").touch()
        client.send(bytes(20 * MIB - taken))
        assert client.response().body == str(20 * MIB).encode()
    no_error(site)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_streamed_body_over_the_limit(daemon: StartDaemon, kind: str) -> None:
    """A streamed body over its limit is refused: before it if that is known, else on its way."""
    served = daemon(STREAMS)
    with served.connect() as client:
        client.send(announced(f"/{kind}/small", 1_000_001, EXPECTED))
        assert client.response().status == 413
    with served.connect() as client:
        client.request("POST", f"/{kind}/small", None, "Transfer-Encoding: chunked")
        client.send((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 500)
        response = client.response()
        assert response.status == 413
        assert json.loads(response.body)["reason"] == "body_too_large"
        assert response.headers["connection"] == "close"
    wait_until(lambda: pool(served, kind) == (0, 0), SOON, "the worker is free")
    no_error(served)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_answer_in_mid_upload(daemon: StartDaemon, kind: str) -> None:
    """A handler that has enough answers, and a client that is still sending gets the answer."""
    served = daemon(STREAMS)
    naive = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SOON)
    try:
        naive.request("POST", f"/{kind}/early", b"0123456789" * 5_000_000)
        response = naive.getresponse()
        assert (response.status, response.read()) == (200, b"0123456789")
        assert response.headers["Connection"] == "close"
    finally:
        naive.close()
    with served.connect() as short:  # of which so little is left that the connection goes on
        short.send(announced(f"/{kind}/early", 1000) + b"0123456789")
        answer = short.response()
        assert answer.body == b"0123456789"
        assert answer.headers.get("connection") != "close"
        short.send(b"x" * 990 + request(f"/{kind}/early", b"abc"))
        assert short.response().body == b"abc"
    wait_until(lambda: pool(served, kind) == (0, 0), SOON, "the worker is free")
    no_error(served)


def test_streamed_on_the_stock_wire(daemon: StartDaemon) -> None:
    """On Twisted's own channel a streamed route gets its body whole."""
    served = daemon(STREAMS, ["--wire=stock"])
    with served.connect() as client:
        for kind in ("thread", "process"):
            client.send(request(f"/{kind}/digest", _BLOCK))
            found = json.loads(client.response().body)["digest"]
            assert found == hashlib.sha256(_BLOCK).hexdigest()
    no_error(served)
