"""The daemon as its clients and its operator meet it: serving, draining, ending, being killed."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.web.http_headers import Headers

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import (
    ANY_PORT,
    DEFERPOST,
    TWISTD,
    Connection,
    Daemon,
    clean_environment,
    until,
    wait_until,
)

pytestmark = pytest.mark.integration

APP = '''
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from deferpost import App, ProcessPool, ThreadPool

app = App(pools={"one": ThreadPool(size=1), "idle": ProcessPool(size=1)})


def begin():
    """Tell the test that a handler runs."""
    Path("begun").touch()


def wait_for_gate():
    """Wait until the test opens the gate."""
    while not Path("gate").exists():
        time.sleep(0.01)


@app.post("/echo")
def echo(call):
    return call.body.read()


@app.post("/size", pool="process")
def size(call):
    return str(len(call.body.read()))


@app.post("/small", max_body="1kB")
def small(call):
    return str(len(call.body.read()))


@app.post("/client")
def client(call):
    return {"client": call.client}


@app.post("/gated", pool="process")
def gated(call):
    begin()
    wait_for_gate()
    return "done"


@app.post("/gated-thread", pool="one", on_disconnect="finish")
def gated_thread(call):
    begin()
    wait_for_gate()
    return "done"


@app.post("/fails")
def fails(call):
    raise KeyError("the reason")


@app.post("/ignores-sigterm", pool="process")
def ignores_sigterm(call):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin()
    while True:
        time.sleep(1000)


@app.post("/spins")
def spins(call):
    begin()
    while True:
        pass


@app.post("/sleeps")
def sleeps(call):
    begin()
    time.sleep(1000)


@app.post("/large")
def large(call):
    begin()
    return bytes(50_000_000)


@app.post("/large-process", pool="process")
def large_process(call):
    begin()
    return bytes(50_000_000)


@app.post("/endless")
def endless(call):
    begin()
    while True:
        yield b"tick\\n"
        time.sleep(0.01)


@app.post("/endless-process", pool="process")
def endless_process(call):
    begin()
    while True:
        yield b"tick\\n"
        time.sleep(0.01)


@app.post("/regex", pool="process")
def regex(call):
    begin()
    return str(re.match(r"(a|aa)+$", "a" * 200 + "b"))


@app.post("/subprocess", pool="process")
def starts_a_process(call):
    with subprocess.Popen(["sleep", "1000"]) as process:
        begin()
        process.wait()


@app.post("/pid", pool="process")
def pid(call):
    return {"pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid()}
'''

#: An app whose worker cannot take a job before the gate is open.
SLOW_START = """
import time
from pathlib import Path

from deferpost import App, ProcessPool

app = App(pools={"slow": ProcessPool(size=1)})


@app.post("/", pool="slow")
class Slow:
    def __init__(self):
        while not Path("gate").exists():
            time.sleep(0.01)

    def __call__(self, call):
        return "done"
"""

#: How late after the end of the grace the daemon may be gone.
AFTER_GRACE = 2.0


def open_gate(daemon: Daemon) -> None:
    """Let the handlers go on that wait for it."""
    (daemon.directory / "gate").touch()


async def begun(daemon: Daemon) -> None:
    """Wait until a handler runs; the next one can be waited for alike."""
    path = daemon.directory / "begun"
    await until(path.exists, 10, lambda: f"a handler runs\n{daemon.log()}")
    path.unlink()


def assert_in_time(daemon: Daemon, start: float, seconds: float) -> None:
    """Check that no more time has passed, on a machine that is not slow."""
    took, limit = time.monotonic() - start, daemon.stretched(seconds)
    assert took < limit, f"{took:.3f} s are more than {limit:.3f}\n{daemon.log()}"


def one_line(daemon: Daemon, containing: str) -> str:
    """The one line of the log in which a text occurs.

    A request is logged when its response has been sent, so a client may be a moment ahead.
    """
    lines = wait_until(lambda: daemon.log_lines(containing), 5, lambda: f"{containing!r} is logged")
    assert len(lines) == 1, daemon.log()
    return lines[0]


class Times(NamedTuple):
    """What the access log says of a request.

    :ivar status: the status of its response.
    :ivar queue: seconds in the queue.
    :ivar run: seconds of running.
    """

    status: int
    queue: float
    run: float


def access(daemon: Daemon, id: str) -> Times:
    """What the access log says of the request with this id."""
    line = one_line(daemon, f"id={id} ")
    found = re.search(r'HTTP/1\.1" (\d+) \d+ "[^"]*" id=\S+ queue=([\d.]+) run=([\d.]+)$', line)
    assert found is not None, line
    return Times(int(found[1]), float(found[2]), float(found[3]))


def with_id(id: str) -> Headers:
    """The header fields of a request with this id."""
    return Headers({"X-Request-ID": [id]})


async def readiness(http: HTTPClient, daemon: Daemon) -> dict[str, Any]:
    """What /readyz says, and its status says too."""
    response = await http.get(daemon.url("/readyz"))
    document: dict[str, Any] = await response.json()
    assert response.code == (200 if document["ready"] else 503)
    return document


async def problem(response: Any) -> dict[str, Any]:
    """The problem document of a response of treq."""
    assert response.headers.getRawHeaders("content-type") == ["application/problem+json"]
    document: dict[str, Any] = json.loads(await response.content())
    assert document["status"] == response.code
    assert [document["id"]] == response.headers.getRawHeaders("x-request-id")
    return document


# Serving.


@pytest.mark.parametrize("command", [DEFERPOST, TWISTD], ids=["deferpost", "twistd"])
@pytest_twisted.ensureDeferred
async def test_serves_and_stops(
    daemon: StartDaemon, http: HTTPClient, command: Sequence[str]
) -> None:
    """Either command serves the app, and ends by SIGTERM with status 0 and nothing left."""
    served = daemon(APP, command=command)
    response = await http.post(served.url("/echo"), data=b"hello")
    assert (response.code, await response.content()) == (200, b"hello")
    response = await http.post(served.url("/size"), data=b"hello")
    assert (response.code, await response.content()) == (200, b"5")
    assert await served.stop() == 0
    await served.gone()
    log = served.log()
    assert "Traceback" not in log
    assert "deferpost 0." in one_line(served, "serves served:app")


@pytest_twisted.ensureDeferred
async def test_is_ready_soon(daemon: StartDaemon, http: HTTPClient) -> None:
    """With worker processes started, it is ready within seconds of the command."""
    start = time.monotonic()
    served = daemon(APP)
    while not (document := await readiness(http, served))["ready"]:
        assert_in_time(served, start, 10)
    assert {pool["name"]: pool["ready"] for pool in document["pools"]} == {
        "one": True,
        "process": True,
        "thread": True,
    }, "a pool that no route names is not started"


@pytest_twisted.ensureDeferred
async def test_listens_on_every_endpoint(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path
) -> None:
    """--listen can be given several times, for ports and for a Unix socket."""
    path = tmp_path / "socket"
    served = daemon(APP, listen=[ANY_PORT, f"unix:{path}", ANY_PORT])
    served.wait_listening(3)
    first, second = served.ports
    assert first != second
    for port in (first, second):
        response = await http.post(f"http://127.0.0.1:{port}/client")
        client = (await response.json())["client"]
        assert client[0] == "127.0.0.1"
    with Connection.unix(path) as over_unix:
        over_unix.post("/client", b"", "X-Request-ID: over-unix")
        answer = over_unix.response()
        assert (answer.status, json.loads(answer.body)) == (200, {"client": None})
    assert access(served, "over-unix").status == 200
    assert await served.stop() == 0
    assert not path.exists()


@pytest_twisted.ensureDeferred
async def test_serves_tls(daemon: StartDaemon, tmp_path: Path) -> None:
    """An ssl endpoint serves with its certificate."""
    certificate, key = certify(tmp_path)
    served = daemon(
        APP, listen=[f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"]
    )
    context = ssl.create_default_context(cafile=os.fspath(certificate))
    with (
        socket.create_connection(("127.0.0.1", served.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connected,
    ):
        encrypted = Connection(connected)
        body = os.urandom(1_000_000)
        encrypted.post("/echo", body)
        response = encrypted.response()
        assert (response.status, response.body == body) == (200, True)
        encrypted.post("/client")
        assert json.loads(encrypted.response().body)["client"][0] == "127.0.0.1"
    assert await served.stop() == 0


def certify(directory: Path) -> tuple[Path, Path]:
    """Make a certificate of localhost, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "certificate.pem", directory / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


@pytest_twisted.ensureDeferred
async def test_is_not_ready_before_its_workers(daemon: StartDaemon, http: HTTPClient) -> None:
    """It listens and lives while workers start, says that it is not ready, and keeps calls."""
    served = daemon(SLOW_START)
    response = await http.get(served.url("/livez"))
    assert (response.code, await response.json()) == (200, {"live": True})
    document = await readiness(http, served)
    assert (document["ready"], document["accepting"]) == (False, True)
    (pool,) = document["pools"]
    assert (pool["name"], pool["kind"], pool["ready"], pool["size"]) == (
        "slow",
        "process",
        False,
        1,
    )
    early = http.post(served.url("/"))
    open_gate(served)
    response = await early
    assert (response.code, await response.content()) == (200, b"done")
    assert (await readiness(http, served))["ready"]


@pytest_twisted.ensureDeferred
async def test_methods_and_paths(daemon: StartDaemon) -> None:
    """Other methods, unknown paths and the daemon's own resources have their right answers."""
    served = daemon(APP)
    with served.connect() as connection:

        def ask(method: str, path: str) -> tuple[int, dict[str, str], bytes]:
            connection.request(method, path, b"" if method in ("POST", "PUT") else None)
            response = connection.response(method)
            assert re.fullmatch(
                r"queue;dur=\d+\.\d{3}, run;dur=\d+\.\d{3}", response.headers["server-timing"]
            )
            assert response.headers["x-request-id"]
            return response.status, response.headers, response.body

        assert ask("POST", "/size")[0] == 200  # from here on it is ready
        for path in ("/echo", "/size"):
            for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
                status, headers, body = ask(method, path)
                assert (status, headers["allow"]) == (405, "OPTIONS, POST")
                assert headers["content-type"] == "application/problem+json"
                assert (body == b"") is (method == "HEAD")
            status, headers, _ = ask("OPTIONS", path)
            assert (status, headers["allow"]) == (204, "OPTIONS, POST")
        for path in ("/livez", "/readyz"):
            assert ask("GET", path)[0] == 200
            status, headers, body = ask("HEAD", path)
            assert (status, body) == (200, b"")
            assert int(headers["content-length"]) > 0
            status, headers, _ = ask("OPTIONS", path)
            assert (status, headers["allow"]) == (204, "GET, HEAD, OPTIONS")
            status, headers, _ = ask("POST", path)
            assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        for path in ("/", "/nothing", "/echo/", "/echo/more", "//echo", "/livez/", "/%65cho/x"):
            for method in ("GET", "HEAD", "POST"):
                status, headers, _ = ask(method, path)
                assert (status, headers["content-type"]) == (404, "application/problem+json"), path
        status, _, body = ask("POST", "/fails")
        assert status == 500
        assert b"reason" in body
        assert b"KeyError" not in body
        assert b"the reason" not in body
    assert "KeyError: 'the reason'" in served.log()


@pytest_twisted.ensureDeferred
async def test_request_ids(daemon: StartDaemon) -> None:
    """An id that the client sends is kept and logged; one that could do harm is replaced."""
    served = daemon(APP)
    with served.connect() as connection:
        connection.post("/echo", b"", "X-Request-ID: my-own.id/1")
        assert connection.response().headers["x-request-id"] == "my-own.id/1"
        assert access(served, "my-own.id/1").status == 200
        connection.post("/fails", b"", "X-Request-ID: failing")
        document = json.loads(connection.response().body)
        assert document["id"] == "failing"
        assert "[failing] /fails failed" in served.log()
        for bad in ("has space", "x" * 129, "", "caf\xe9", "tab\tinside"):
            connection.post("/echo", b"", f"X-Request-ID: {bad}")
            made = connection.response().headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{24}", made), bad
            assert access(served, made).status == 200
        connection.post("/echo", b"", "X-Request-ID: one", "X-Request-ID: two")
        assert re.fullmatch("[0-9a-f]{24}", connection.response().headers["x-request-id"])


@pytest_twisted.ensureDeferred
async def test_bodies_over_the_limit(daemon: StartDaemon, http: HTTPClient) -> None:
    """413 for a body over the route's or the daemon's limit, announced or in chunks."""
    served = daemon(APP, ["--max-body=2kB"])
    for path, limit in (("/small", 1000), ("/echo", 2000), ("/size", 2000)):
        response = await http.post(served.url(path), data=b"x" * limit)
        assert response.code == 200
        await response.content()
        response = await http.post(served.url(path), data=b"x" * (limit + 1))
        assert response.code == 413
        document = await problem(response)
        assert document["reason"] == "body_too_large"
        assert str(limit) in document["detail"]
        assert response.headers.getRawHeaders("server-timing")
        with served.connect() as connection:
            connection.request("POST", path, None, "Transfer-Encoding: chunked")
            connection.send(b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n")
            assert connection.response().status == 413
    response = await http.post(served.url("/echo"), data=b"still here")
    assert await response.content() == b"still here"


@pytest_twisted.ensureDeferred
async def test_access_log(daemon: StartDaemon, http: HTTPClient) -> None:
    """Every request is one line with its times, those too whose client left before the answer."""
    served = daemon(APP)
    with served.connect() as connection:
        for method, path, status in (
            ("POST", "/echo", 200),
            ("GET", "/echo", 405),
            ("POST", "/nothing?q=1", 404),
            ("GET", "/livez", 200),
            ("POST", "/fails", 500),
        ):
            id = f"{method}{path}"
            connection.request(method, path, b"", f"X-Request-ID: {id}", "User-Agent: test/1")
            assert connection.response(method).status == status
            assert access(served, id).status == status
            line = one_line(served, f"id={id} ")
            assert f'127.0.0.1 "{method} {path} HTTP/1.1" {status} ' in line
            assert '"test/1"' in line
        connection.post("/echo", b"", 'User-Agent: "\xff\t\\ fake', "X-Request-ID: odd-agent")
        assert connection.response().status == 200
        line = one_line(served, "id=odd-agent ")
        assert '"\\x22\\xc3\\xbf\\x09\\x5c fake"' in line
        # What is not HTTP is refused before there is a request, and is logged all the same.
        connection.post("/echo", b"", "User-Agent: \x1b[31m fake", "X-Request-ID: forged")
        refused = connection.response()
        assert refused.status == 400
        line = one_line(served, f"id={refused.headers['x-request-id']} ")
        assert '127.0.0.1 "POST /echo HTTP/1.1" 400 ' in line
        assert "\x1b" not in served.log()

    # One client leaves while its call runs, one while its call waits for the same thread.
    runs, waits = served.connect(), served.connect()
    runs.post("/gated-thread", b"", "X-Request-ID: runs")
    await begun(served)
    waits.post("/gated-thread", b"", "X-Request-ID: waits")

    async def waiting() -> int:
        pools = (await readiness(http, served))["pools"]
        return int(next(pool["waiting"] for pool in pools if pool["name"] == "one"))

    deadline = time.monotonic() + 10
    while await waiting() != 1:
        assert time.monotonic() < deadline
    time.sleep(0.1)  # what the log has to show at least
    waits.close()
    await served.logged("id=waits ")
    runs.close()
    await served.logged("id=runs ")
    times = access(served, "waits")
    assert (times.status, times.run) == (499, 0.0)
    assert times.queue >= 0.1
    times = access(served, "runs")
    assert times.status == 499
    assert times.run >= 0.1
    assert await waiting() == 0, "nobody waits for it any more"
    open_gate(served)


@pytest_twisted.ensureDeferred
async def test_access_log_can_be_left_out(daemon: StartDaemon, http: HTTPClient) -> None:
    """--access-log=no leaves requests out of the log."""
    served = daemon(APP, ["--access-log=no"])
    response = await http.post(served.url("/echo"), data=b"x")
    await response.content()
    assert await served.stop() == 0
    assert "/echo" not in served.log()


# Draining.


@pytest_twisted.ensureDeferred
async def test_sigterm_drains(daemon: StartDaemon, http: HTTPClient) -> None:
    """SIGTERM: no new connections, idle ones are closed, but what runs gets its answer."""
    served = daemon(APP, ["--grace=30s"])
    with served.connect() as kept, served.connect() as busy:
        kept.request("GET", "/livez")
        assert kept.response("GET").status == 200
        busy.post("/gated", b"", "X-Request-ID: running")
        await begun(served)
        served.send_signal(signal.SIGTERM)
        await served.logged("jobs that have not ended: 1")
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        assert kept.is_closed()
        assert served.process.poll() is None
        open_gate(served)
        response = busy.response()
        assert (response.status, response.body) == (200, b"done")
        assert response.headers["connection"] == "close"
        assert await served.wait(2) == 0
    assert access(served, "running").status == 200
    await served.gone()
    assert "Traceback" not in served.log()


@pytest.mark.parametrize("wire", ["deferpost", "stock"])
@pytest_twisted.ensureDeferred
async def test_drain_delay(daemon: StartDaemon, wire: str) -> None:
    """With --drain-delay it is not ready at once, and accepts calls until load balancers know."""
    served = daemon(APP, ["--drain-delay=1h", f"--wire={wire}"])
    with served.connect() as kept, served.connect() as idle:
        idle.post("/size", b"x")
        assert idle.response().status == 200
        kept.request("GET", "/readyz")
        assert kept.response("GET").status == 200
        served.send_signal(signal.SIGTERM)
        await served.logged("accepting calls for 3600 s more")
        kept.request("GET", "/readyz")
        response = kept.response("GET")
        assert response.status == 503
        document = json.loads(response.body)
        assert (document["ready"], document["accepting"]) == (False, False)
        assert response.headers["connection"] == "close"
        assert kept.is_closed()
        with served.connect() as new:
            new.post("/size", b"four")
            response = new.response()
            assert (response.status, response.body) == (200, b"4")
            assert response.headers["connection"] == "close"
            assert new.is_closed()
        start = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert await served.wait(2) == 0
        assert_in_time(served, start, AFTER_GRACE)
        assert idle.is_closed()
    await served.gone()
    assert "Traceback" not in served.log()


@pytest_twisted.ensureDeferred
async def test_drain_delay_ends(daemon: StartDaemon) -> None:
    """When the delay is over, idle connections are closed and what runs is waited for."""
    served = daemon(APP, ["--drain-delay=300ms", "--grace=1h"])
    with served.connect() as idle, served.connect() as busy:
        busy.post("/gated")
        await begun(served)
        start = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        assert time.monotonic() - start >= 0.3
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        open_gate(served)
        assert busy.response().status == 200
        assert await served.wait(2) == 0


@pytest_twisted.ensureDeferred
async def test_sigterm_with_nothing_to_do(daemon: StartDaemon, http: HTTPClient) -> None:
    """An idle daemon ends at once, however long its grace and with connections kept open."""
    served = daemon(APP, ["--grace=1h"])
    with served.connect() as kept:
        kept.post("/size", b"x")
        assert kept.response().status == 200
        start = time.monotonic()
        assert await served.stop(2) == 0
        assert_in_time(served, start, 2)
        assert kept.is_closed()


@pytest.mark.parametrize(
    "path",
    ["/ignores-sigterm", "/gated", "/spins", "/sleeps", "/regex", "/subprocess"],
)
@pytest_twisted.ensureDeferred
async def test_grace_is_over(daemon: StartDaemon, http: HTTPClient, path: str) -> None:
    """What runs when the grace is over is canceled: 503 for its client, and status 0."""
    served = daemon(APP, ["--grace=300ms"])
    running = http.post(served.url(path), headers=with_id("late"))
    await begun(served)
    start = time.monotonic()
    served.send_signal(signal.SIGTERM)
    response = await running
    assert response.code == 503
    document = await problem(response)
    assert (document["reason"], document["id"]) == ("shutdown", "late")
    assert time.monotonic() - start >= 0.3
    assert await served.wait(10) == 0
    assert_in_time(served, start, 0.3 + AFTER_GRACE)
    assert access(served, "late").status == 503
    await served.gone()
    assert "Traceback" not in served.log()


@pytest.mark.parametrize("path", ["/large", "/large-process", "/endless", "/endless-process"])
@pytest_twisted.ensureDeferred
async def test_grace_is_over_for_a_reply(daemon: StartDaemon, path: str) -> None:
    """A reply that does not end, or that nobody reads, is cut off when the grace is over."""
    served = daemon(APP, ["--grace=300ms"])
    with served.connect() as reader:
        reader.post(path, b"", "X-Request-ID: slow-reader")
        assert reader.head().status == 200
        start = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert await served.wait(10) == 0
        assert time.monotonic() - start >= 0.3
        assert_in_time(served, start, 0.3 + AFTER_GRACE)
        rest = reader.rest()
    assert not rest.endswith(b"0\r\n\r\n")
    assert len(rest) < 50_000_000
    await served.gone()
    assert "Traceback" not in served.log()


@pytest_twisted.ensureDeferred
async def test_grace_is_over_for_all_at_once(daemon: StartDaemon) -> None:
    """The worst handlers and readers together do not hold the end up either."""
    served = daemon(APP, ["--grace=300ms", "--process-size=4"])
    paths = ["/large", "/large-process", "/endless", "/endless-process", "/sleeps", "/regex"]
    paths += ["/ignores-sigterm", "/spins"]
    with contextlib.ExitStack() as stack:
        for path in paths:
            connection = stack.enter_context(served.connect())
            connection.post(path)
            await begun(served)
        start = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert await served.wait(10) == 0
        assert_in_time(served, start, 0.3 + AFTER_GRACE)
    await served.gone()


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
@pytest_twisted.ensureDeferred
async def test_in_a_hurry(
    daemon: StartDaemon, http: HTTPClient, numbers: Sequence[signal.Signals]
) -> None:
    """A second SIGTERM, and SIGINT at once, do not wait for what runs."""
    served = daemon(APP, ["--grace=1h"])
    running = http.post(served.url("/gated"))
    await begun(served)
    for number in numbers:
        start = time.monotonic()
        served.send_signal(number)
        await served.logged("jobs that have not ended: 1")
    response = await running
    assert response.code == 503
    assert (await problem(response))["reason"] == "shutdown"
    assert await served.wait(10) == 0
    assert_in_time(served, start, AFTER_GRACE)
    await served.gone()
    assert "Traceback" not in served.log()


@pytest_twisted.ensureDeferred
async def test_sigterm_while_workers_start(daemon: StartDaemon, http: HTTPClient) -> None:
    """Workers that are still starting do not hold the end up, and their callers are told."""
    served = daemon(SLOW_START, ["--grace=300ms"])
    with served.connect() as early:
        early.post("/")
        deadline = time.monotonic() + 10
        while not (await readiness(http, served))["pools"][0]["waiting"]:
            assert time.monotonic() < deadline
        start = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert early.response().status == 503
        assert await served.wait(10) == 0
        assert_in_time(served, start, 0.3 + AFTER_GRACE)
    await served.gone()


# As an operator runs it.


def detach(tmp_path: Path, *options: str) -> tuple[tuple[str, ...], Path, Path]:
    """The command of a daemon in the background, its pid file and its log."""
    pid_file, log = tmp_path / "deferpost.pid", tmp_path / "deferpost.log"
    command = (
        *TWISTD[:3],
        f"--pidfile={pid_file}",
        f"--logfile={log}",
        *options,
        "deferpost",
    )
    return command, pid_file, log


@pytest_twisted.ensureDeferred
async def test_in_the_background(daemon: StartDaemon, http: HTTPClient, tmp_path: Path) -> None:
    """twistd puts it into the background, with a pid file that goes when it ends, and a log."""
    command, pid_file, log = detach(tmp_path)
    launched = daemon(APP, command=command, listening=False)
    assert await launched.wait(20) == 0
    assert launched.log() == ""
    launched.log_path = log
    await until(lambda: log.exists() and launched.places(), 10, "it listens")
    response = await http.post(launched.url("/size"), data=b"hello")
    assert (response.code, await response.content()) == (200, b"5")
    pid = int(pid_file.read_text())
    assert pid in launched.alive()
    assert len(launched.alive()) > 1, "it has workers"
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGTERM)
    await launched.gone(5)
    assert not pid_file.exists()
    assert "Traceback" not in log.read_text()


def interpreter_for(uid: int) -> tuple[str, str]:
    """A Python that another user can run deferpost with, and its PYTHONPATH."""
    # Another interpreter has a standard library of its own, whose compiled modules fit it.
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")}
    entries = [entry for entry in sys.path if entry not in standard]
    path = os.pathsep.join(entry for entry in entries if os.path.isdir(entry))
    version = "{}.{}".format(*sys.version_info)
    for candidate in (
        sys.executable,
        f"/usr/bin/python{version}",
        f"/usr/local/bin/python{version}",
    ):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [candidate, "-c", "import deferpost.tap, deferpost.service"],
                user=uid,
                group=uid,
                extra_groups=[],
                env={**clean_environment(), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                check=True,
                capture_output=True,
                timeout=30,
            )
            return candidate, path
    pytest.skip(f"no Python here that the user {uid} may run")


@pytest_twisted.ensureDeferred
async def test_as_another_user(daemon: StartDaemon, http: HTTPClient) -> None:
    """With --uid and --gid it binds as root, and works and runs its workers as that user."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    uid = 65534
    python, path = interpreter_for(uid)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o777)  # for the gate files; pytest's own folders are for root alone
        served = daemon(
            APP,
            command=(
                python,
                *TWISTD[1:4],
                "--pidfile=",
                f"--uid={uid}",
                f"--gid={uid}",
                "deferpost",
            ),
            directory=home,
            environment={"PYTHONPATH": path},
        )
        response = await http.post(served.url("/pid"))
        document = await response.json()
        assert (response.code, document["uid"], document["gid"]) == (200, uid, uid)
        for pid in (served.pid, *served.worker_pids()):
            fields = Path(f"/proc/{pid}/status").read_text()
            for field in ("Uid", "Gid"):
                assert re.search(rf"^{field}:\s+{uid}\s+{uid}\s+{uid}\s+{uid}$", fields, re.M)
        assert owner_of_port(served.port) == 0, "it was bound before the user was changed"
        assert await served.stop() == 0
        await served.gone()


def owner_of_port(port: int) -> int:
    """The user as whom a listening port was opened."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
            return int(fields[7])
    raise AssertionError(f"nothing listens on {port}")


@pytest_twisted.ensureDeferred
async def test_port_in_use_in_the_background(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon that cannot listen says so to whoever starts it, and leaves no pid file."""
    command, pid_file, log = detach(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        failed = daemon(APP, command=command, listen=[endpoint], listening=False)
        assert await failed.wait(20) == 1
        await failed.gone()
    assert f"cannot listen on {endpoint}: " in failed.log()
    assert not pid_file.exists()
    assert "Traceback" not in log.read_text()


@pytest_twisted.ensureDeferred
async def test_unix_socket_of_a_killed_daemon(daemon: StartDaemon, tmp_path: Path) -> None:
    """A Unix socket that is served is in use; one that a killed daemon left behind is not."""
    path = tmp_path / "socket"
    endpoint = f"unix:{path}"
    first = daemon(APP, listen=[endpoint])
    second = daemon(APP, listen=[endpoint], listening=False)
    assert await second.wait(20) == 1
    assert f"cannot listen on {endpoint}: " in second.log()
    os.kill(first.pid, signal.SIGKILL)
    assert await first.wait(2) == -signal.SIGKILL
    third = daemon(APP, listen=[endpoint])
    with Connection.unix(path) as connection:
        connection.post("/echo", b"x")
        assert connection.response().status == 200
    assert await third.stop() == 0


@pytest.mark.parametrize("command", [DEFERPOST, TWISTD], ids=["deferpost", "twistd"])
@pytest_twisted.ensureDeferred
async def test_port_in_use(daemon: StartDaemon, command: Sequence[str]) -> None:
    """A port that another program has is one message and status 1; no worker is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        failed = daemon(APP, command=command, listen=[ANY_PORT, endpoint], listening=False)
        assert await failed.wait(20) == 1
        await failed.gone()
    log = failed.log()
    assert "Traceback" not in log, log
    assert one_line(failed, "listen on").endswith(
        f"deferpost: cannot listen on {endpoint}: Address already in use"
    )


@pytest_twisted.ensureDeferred
async def test_large_bodies_have_no_place(daemon: StartDaemon, http: HTTPClient) -> None:
    """Where large bodies cannot be kept they get 503, the log says why, and small ones work."""
    served = daemon(APP, ["--temporary-directory=/nonexistent/bodies", "--body-memory=1kB"])
    for path in ("/echo", "/size"):
        response = await http.post(
            served.url(path), data=b"x" * 100_000, headers=with_id(f"large{path}")
        )
        assert response.code == 503
        assert response.headers.getRawHeaders("retry-after")
        document = await problem(response)
        assert document["reason"] == "storage_failed"
        assert "nonexistent" not in json.dumps(document)
        lines = served.log_lines(f"[large{path}]")
        assert len(lines) == 1
        assert "No such file or directory: '/nonexistent/bodies" in lines[0]
        assert access(served, f"large{path}").status == 503
        response = await http.post(served.url(path), data=b"x" * 1000)
        assert response.code == 200
        await response.content()
    # A large reply of a process finds another way.
    response = await http.post(served.url("/large-process"))
    assert (response.code, len(await response.content())) == (200, 50_000_000)


# Being killed.


@pytest.mark.parametrize("path", ["/regex", "/subprocess", "/ignores-sigterm", "/endless-process"])
@pytest_twisted.ensureDeferred
async def test_killed_while_jobs_run(daemon: StartDaemon, path: str) -> None:
    """kill -9 leaves no process: none that holds the interpreter, none that a handler started."""
    served = daemon(APP, ["--process-size=2"])
    with served.connect() as connection:
        connection.post(path)
        await begun(served)
        expected = 4 if path == "/subprocess" else 3  # the daemon, an idle worker, a busy one
        await until(lambda: len(served.alive()) == expected, 5, "all its processes live")
        os.kill(served.pid, signal.SIGKILL)
        assert await served.wait(2) == -signal.SIGKILL
        await served.gone(2)


@pytest_twisted.ensureDeferred
async def test_killed_while_workers_start(daemon: StartDaemon) -> None:
    """kill -9 leaves no process that was only just starting."""
    served = daemon(SLOW_START)
    await until(served.worker_pids, 10, "a worker starts")
    os.kill(served.pid, signal.SIGKILL)
    await served.gone(2)


@pytest_twisted.ensureDeferred
async def test_worker_killed(daemon: StartDaemon, http: HTTPClient) -> None:
    """A worker that is killed from outside costs its own job only, and is replaced."""
    served = daemon(APP, ["--process-size=1"])
    running = http.post(served.url("/gated"), headers=with_id("lost"))
    await begun(served)
    (worker,) = served.worker_pids()
    os.kill(worker, signal.SIGKILL)
    response = await running
    assert response.code == 502
    assert (await problem(response))["reason"] == "worker_lost"
    assert "signal 9 (SIGKILL)" in served.log_lines("[lost]")[0]
    response = await http.post(served.url("/size"), data=b"abc")
    assert (response.code, await response.content()) == (200, b"3")
    assert served.worker_pids() != [worker]
