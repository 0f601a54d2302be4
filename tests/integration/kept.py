"""What tests of kept jobs have in common: an app, calls to its daemon, a look at the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.control.ledger import Stored, read_store
from tests.integration.daemon import Daemon, Response, wait_until

__all__ = ["APP", "Place", "ask", "digest", "key", "keyed", "promise", "result_of", "url_of"]

#: Each run notes that it begins, and ends when there is a file ``gate``; those of ``/quick`` do not
#: wait.  All give the version of the code, and the digest of their body.
APP = """
import hashlib
import os
import time
from pathlib import Path

from deferpost import App, ProcessPool, ThreadPool
from twisted.internet import reactor
from twisted.internet.task import deferLater

VERSION = 1

app = App(pools={"one": ThreadPool(size=1), "processes": ProcessPool(size=2)})


def note(word, body):
    with open("runs", "a") as runs:
        runs.write(f"{word} {body[:20].decode()} {os.getpid()}\\n")


def given(body):
    return f"{VERSION} {hashlib.sha256(body).hexdigest()}"


def run(call):
    body = call.body.read()
    note("begin", body)
    while not Path("gate").exists():
        call.check()
        time.sleep(0.01)
    note("end", body)
    return given(body)


def quick(call):
    body = call.body.read()
    note("begin", body)
    return given(body)


app.post("/one", pool="one")(run)
app.post("/thread")(run)
app.post("/process", pool="processes")(run)
app.post("/retried", pool="processes", retries=1)(run)
app.post("/quick")(quick)
app.post("/quick-process", pool="processes")(quick)
app.post("/always", delivery="async")(quick)
app.post("/never", delivery="sync")(quick)
app.post("/falls-back", fallback=0.2)(run)
app.post("/coalesced", coalesce=True)(run)
app.post("/needs-key", require_key=True)(quick)


@app.post("/coroutine")
async def coroutine(call):
    body = call.body.read()
    note("begin", body)
    while not Path("gate").exists():
        await deferLater(reactor, 0.01)
    return given(body)


@app.post("/stream")
def stream(call):
    body = call.body.read()
    note("begin", body)
    for piece in range(50):
        yield given(body).encode() * 40
"""

#: Seconds that anything may take on a machine that has other things to do.
SOON = 20.0


def digest(body: bytes, version: int = 1) -> bytes:
    """What a handler of the app gives for a body."""
    return f"{version} {hashlib.sha256(body).hexdigest()}".encode()


def key(name: str) -> str:
    """The field of a key."""
    return f'Idempotency-Key: "{name}"'


class Place:
    """A folder in which one daemon after another serves the app and keeps its jobs.

    :param folder: the folder.
    :param start: starts a daemon, as the fixture does.
    :param store: the directory of the store; one in the folder if it is not given.
    """

    def __init__(
        self, folder: Path, start: Callable[..., Daemon], store: Path | None = None
    ) -> None:
        self.folder = folder
        self.store = store or folder / "store"
        self._start = start

    def start(self, *options: str, app: str = APP, is_open: bool = True) -> Daemon:
        """Start a daemon there.

        :param is_open: whether to wait until its store is.
        """
        daemon = self._start(app, [f"--store={self.store}", *options], directory=self.folder)
        if is_open:
            wait_open(daemon)
        return daemon

    def open_gate(self) -> None:
        """Have all that runs come to its end."""
        (self.folder / "gate").touch()

    def runs(self, word: str = "begin") -> list[str]:
        """The bodies whose runs have begun, or ended, in order."""
        log = self.folder / "runs"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split()[1] for line in lines if line.startswith(word)]

    def wait_running(self, *bodies: str) -> None:
        """Wait until these run."""
        wait_until(
            lambda: set(bodies) <= set(self.runs()), SOON, lambda: f"{bodies} run: {self.runs()}"
        )

    def jobs(self) -> dict[str, Stored]:
        """All jobs by the request ids that they came with; no daemon may have the store open."""
        return {job.record.request_id: job for job in read_store(self.store)}


def wait_open(daemon: Daemon) -> None:
    """Wait until a daemon keeps jobs."""
    wait_until(
        lambda: daemon.log_lines("jobs are kept in"), SOON, lambda: f"a store\n{daemon.log()}"
    )


def ask(daemon: Daemon, path: str, body: bytes, *headers: str, name: str = "") -> Response:
    """Post, and read the answer.

    :param name: the request's id; else the body, as far as it goes.
    """
    id = name or body[:20].decode()
    with daemon.connect(SOON) as connection:
        connection.post(path, body, f"X-Request-ID: {id}", *headers)
        return connection.response()


def promise(daemon: Daemon, path: str, *bodies: str, headers: Sequence[str] = ()) -> None:
    """Have calls promised, each with its body for a key."""
    for body in bodies:
        fields = ["Prefer: respond-async", key(body), *headers]
        response = ask(daemon, path, body.encode(), *fields)
        assert response.status == 202, (response, daemon.log())


def keyed(daemon: Daemon, path: str, body: str) -> Response:
    """The result of a call that was promised: its key comes again."""
    return ask(daemon, path, body.encode(), key(body))


def result_of(job: Stored) -> tuple[str, str | None, Any]:
    """How a job has ended, and its result."""
    return job.record.state, job.record.reason, job.result


def url_of(response: Response) -> str:
    """The path of the job that a response tells of."""
    return "/" + response.headers["location"].split("/", 3)[3]
