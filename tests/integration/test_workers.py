"""The daemon's worker processes over their time: replaced, limited, tried again, never orphaned."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, wait_until

pytestmark = pytest.mark.integration

APP = """
import os, time
from pathlib import Path
from deferpost import App, ProcessPool

app = App()

@app.post("/pid", pool="process")
def pid(call):
    return str(os.getpid())

@app.post("/large", pool="process")
def large(call):
    return str(len(bytearray(4 * 2**30)))

@app.post("/lost", pool="process", retries=2)
def lost(call):
    body = call.body.read()
    tries = Path("tries")
    with tries.open("ab") as file:
        file.write(b"x")
    if tries.stat().st_size < 3:
        os._exit(9)
    return body

@app.post("/strip", pool="process")
def strip(call):
    os.closerange(3, 4096)
    Path("stripped").touch()
    time.sleep(600)
"""


def post(connection: Connection, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
    """Status and body of a POST."""
    connection.post(path, body, *headers)
    response = connection.response()
    return response.status, response.body


def test_workers_that_last(daemon: StartDaemon) -> None:
    """Calls are answered while workers are replaced, lost and restrained; the log tells which."""
    served = daemon(
        APP,
        [
            "--process-size=1",
            "--process-max-jobs=4",
            "--process-warm=1",
            "--process-memory-limit=2GiB",
            "--process-max-age=1d",
            "--process-cpu-limit=1m",
        ],
    )
    with served.connect() as client:

        def ready() -> bool:
            client.request("GET", "/readyz", None)
            return client.response("GET").status == 200

        wait_until(ready, 30.0, "a worker is ready")
        status, body = post(client, "/large")
        assert (status, json.loads(body)["reason"]) == (500, "error")
        assert post(client, "/lost", b"the body", "X-Request-ID: again") == (200, b"the body")
        pids = set()

        def five() -> bool:
            status, body = post(client, "/pid")
            assert status == 200
            pids.add(body)
            return len(pids) == 5

        wait_until(five, served.stretched(10.0), lambda: f"five workers, one after another: {pids}")
    assert any("MemoryError" in line for line in served.log().splitlines())
    lines = served.log_lines("[again] /lost: its worker was lost (exit code 9)")
    assert [line[-1] for line in lines] == ["1", "0"]
    assert served.log_lines("is to be replaced: after 4 jobs")
    with served.connect() as client:
        client.post("/strip")
        wait_until((served.directory / "stripped").exists, 10.0, "a worker has no descriptors")
        assert len(served.alive()) > 1
        os.kill(served.pid, signal.SIGKILL)
        # Sooner than the grace of the handler is over.
        wait_until(lambda: not served.alive(), 4.0, "no process is left")
