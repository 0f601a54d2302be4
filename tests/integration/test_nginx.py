"""The example of nginx, with a real nginx in front of a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import ANY_PORT, Connection, Daemon, until, wait_until
from tests.required import required

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).resolve().parents[2] / "etc" / "nginx.conf"

APP = """
import time
from pathlib import Path

from deferpost import App, HTTPError

app = App()


@app.post("/echo")
def echo(call):
    return call.body.read()


@app.post("/size", pool="process")
def size(call):
    return str(len(call.body.read()))


@app.post("/small", max_body="1kB")
def small(call):
    return "small"


@app.post("/refused")
def refused(call):
    raise HTTPError(409, "Not now.")


@app.post("/client")
def client(call):
    names = ("x-forwarded-for", "x-forwarded-proto", "x-request-id", "host", "connection")
    return {"client": call.client, **{name: call.headers.get(name) for name in names}}


@app.post("/pieces")
def pieces(call):
    yield b"first"
    while not Path("gate").exists():
        time.sleep(0.005)
    yield b"second"


@app.post("/upload", stream=True)
def upload(call):
    first = call.body.read(5)
    Path("got").write_bytes(first)
    return first + call.body.read()


@app.post("/canceled")
def canceled(call):
    Path("begun").touch()
    while not call.canceled:
        time.sleep(0.005)
    Path("was-canceled").touch()
"""


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(directory: Path, upstream: str) -> Iterator[int]:
    """Start nginx with the example, in a folder of its own.

    :param upstream: where the daemon listens.
    :returns: its port.
    """
    program = required("nginx", "nginx-light")
    directory.mkdir()
    port = free_port()
    text = EXAMPLE.read_text()
    folders = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for old, new in (
        ("worker_processes auto;", f"worker_processes 1;\n{'user root;' * (os.getuid() == 0)}"),
        ("pid /run/nginx.pid;", f"pid {directory}/nginx.pid;\ndaemon off;"),
        ("/var/log/nginx/", f"{directory}/"),
        ("http {", f"http {{\n{folders}"),
        ("server 127.0.0.1:8080;", f"server {upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert old in text
        text = text.replace(old, new)
    (directory / "nginx.conf").write_text(text)
    with (directory / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [program, "-p", str(directory), "-c", str(directory / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )

    def listening() -> bool:
        assert process.poll() is None, (directory / "stderr").read_text()
        try:
            Connection.tcp(port).close()
        except OSError:
            return False
        return True

    try:
        wait_until(listening, 10, lambda: (directory / "stderr").read_text())
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_the_example(daemon: StartDaemon, tmp_path: Path, way: str) -> None:
    """Through nginx: a POST, streams both ways, a large upload, refusals, and who the client is."""
    path = tmp_path / "socket"
    served = daemon(APP, ["--max-body=16MiB"], listen=[ANY_PORT, f"unix:{path}"])
    served.wait_listening(2)
    upstream = f"127.0.0.1:{served.port}" if way == "tcp" else f"unix:{path}"
    with nginx(tmp_path / "nginx", upstream) as port, Connection.tcp(port) as client:
        client.post("/echo", b"hello", "X-Request-ID: mine")
        response = client.response()
        assert (response.status, response.body) == (200, b"hello")
        assert response.headers["x-request-id"] == "mine"
        assert " id=mine " in (await served.logged("id=mine "))
        log = tmp_path / "nginx" / "access.log"
        await until(lambda: "id=mine " in log.read_text(), 5, "nginx logs the same id")

        client.post("/client", b"", "X-Forwarded-For: 192.0.2.1")
        told = json.loads(client.response().body)
        assert told["x-forwarded-for"] == "127.0.0.1", "not what the client claims"
        assert told["x-forwarded-proto"] == "http"
        assert re.fullmatch("[0-9a-f]{32}", told["x-request-id"])
        assert told["connection"] is None
        assert told["client"] is None if way == "unix" else told["client"][0] == "127.0.0.1"

        client.post("/size", bytes(10_000_000))
        response = client.response()
        assert (response.status, response.body) == (200, b"10000000")

        client.post("/refused", b"x")
        response = client.response()
        assert response.status == 409
        assert json.loads(response.body)["detail"] == "Not now."
        client.request("GET", "/readyz")
        assert client.response("GET").status == 200

        await streams(served, port)


async def streams(served: Daemon, port: int) -> None:
    """What comes and goes piece by piece, or is given up."""
    directory = served.directory
    with Connection.tcp(port) as reader:
        reader.post("/pieces")
        assert reader.head().status == 200
        assert reader.chunk() == b"first"  # the second does not come before the gate is open
        (directory / "gate").touch()
        assert reader.chunk() == b"second"
        assert reader.chunk() == b""
    with Connection.tcp(port) as writer:
        writer.request("POST", "/upload", None, "Content-Length: 10")
        writer.send(b"first")
        await until((directory / "got").exists, 5, "the handler has the first piece")
        writer.send(b"other")
        assert writer.response().body == b"firstother"
    with Connection.tcp(port) as large:
        # Refused when its head has come: the rest is never sent.
        large.request("POST", "/small", None, "Content-Length: 10000000")
        large.send(b"x" * 1000)
        response = large.response()
        assert response.status == 413
        assert json.loads(response.body)["reason"] == "body_too_large"
    with Connection.tcp(port) as leaving:
        leaving.post("/canceled")
        await until((directory / "begun").exists, 5, "the handler runs")
    await until((directory / "was-canceled").exists, 5, "it is told that its client has left")
