"""Webhooks by real daemons and a real receiver: told whatever happens, signed, and refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from deferpost import verify_webhook
from deferpost.records import HookState, JobRecord
from deferpost.store.sqlite import SQLiteStore
from deferpost.webhooks.schedule import PAUSES
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import (
    Connection,
    Daemon,
    Response,
    clean_environment,
    until,
    wait_until,
)
from tests.integration.hostile import request
from tests.integration.test_examples import CHECKOUT, named
from tests.webhooks.receivers import REACTOR, Receiver, response

pytestmark = pytest.mark.integration

PAGE = CHECKOUT / "docs" / "webhooks.rst"

APP = """
import time
from pathlib import Path

from deferpost import App

app = App()


@app.post("/upper")
def upper(call):
    return call.body.read().decode().upper()


@app.post("/fail")
def fail(call):
    raise ValueError("a secret of the handler")


@app.post("/hang")
def hang(call):
    Path("begun").touch()
    time.sleep(60)


@app.post("/plain", delivery="sync")
def plain(call):
    return "plain"
"""

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

LATER = "Prefer: respond-async"
EXPECTED = "Expect: 100-continue"

Listen = Callable[..., Receiver]


def keeps(started: Daemon) -> Daemon:
    """Wait until the store of a daemon is open."""
    started.wait_listening()
    wait_until(lambda: started.log_lines("jobs are kept in"), 10, started.log)
    return started


@pytest.fixture
def keeper(daemon: StartDaemon) -> StartDaemon:
    """Starts daemons as ``daemon`` does, and waits until their stores are open."""
    return lambda *args, **kwargs: keeps(daemon(*args, **kwargs))


@pytest_twisted.async_yield_fixture
async def listen() -> AsyncIterator[Listen]:
    """Makes receivers, which are stopped behind the test."""
    receivers: list[Receiver] = []

    def start(*arguments: Any, **options: Any) -> Receiver:
        receivers.append(Receiver(*arguments, **options))
        return receivers[-1]

    yield start
    for receiver in receivers:
        await receiver.stop()


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def write_secrets(directory: Path, *secrets: str) -> None:
    """Write the file of secrets."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "secrets"
    path.write_text("".join(f"{secret}\n" for secret in secrets))
    path.chmod(0o600)


def options_for(*ports: int, private: str = "yes") -> list[str]:
    """The options of a daemon that tells receivers at ports of this machine."""
    hosts = [f"--webhook-hosts=http://127.0.0.1:{port}" for port in ports]
    return [
        *hosts,
        "--store=store",
        "--webhook-secrets=secrets",
        f"--webhook-private={private}",
        "--public-url=https://jobs.example.com/",
    ]


def post(daemon: Daemon, path: str, body: bytes, *headers: str) -> Response:
    """POST on a connection of its own."""
    with daemon.connect() as connection:
        connection.post(path, body, *headers)
        return connection.response()


def accepted(daemon: Daemon, url: str, path: str = "/upper", body: bytes = b"body") -> str:
    """Have a call done later, and its end told; returns the id of the job."""
    answer = post(daemon, path, body, LATER, f"Webhook-URL: {url}")
    assert answer.status == 202, answer
    document = json.loads(answer.body)
    assert document["webhook"] == {"url": url, "state": "waiting", "attempts": [], "next": None}
    return str(document["id"])


def fields_of(head: bytes) -> dict[str, str]:
    """The header fields of a request."""
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}


def verified(receiver: Receiver, number: int, *secrets: str) -> tuple[str, dict[str, Any]]:
    """The id and the content of a notification whose signature is right."""
    head, body = receiver.requests[number]
    return verify_webhook(secrets, fields_of(head), body), json.loads(body)


async def told(receiver: Receiver, daemon: Daemon, count: int = 1, seconds: float = 10) -> None:
    """Wait until a receiver has got so many notifications."""
    await until(lambda: len(receiver.requests) >= count, seconds, daemon.log)


async def record_of(daemon: Daemon, id: str) -> JobRecord:
    """A job as it stands in the store of a daemon that has ended."""
    store = SQLiteStore(daemon.directory / "store", REACTOR)
    await store.open()
    try:
        record = await store.get(id)
    finally:
        await store.close()
    assert record is not None
    assert record.hook is not None
    return record


async def stopped(daemon: Daemon) -> None:
    """SIGTERM, after which nothing is wrong in the log."""
    assert await daemon.stop() == 0
    assert "Traceback" not in daemon.log()
    assert "Unhandled" not in daemon.log()


@pytest_twisted.ensureDeferred
async def test_told(keeper: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """A receiver gets the document of a job that has ended, signed, and once."""
    directory = tmp_path / "served"
    write_secrets(directory, NEW, OLD)
    receiver = listen(response("204 No Content"))
    served = keeper(APP, options_for(receiver.number), directory=directory)
    url = receiver.url("127.0.0.1")
    before = time.time()
    id = accepted(served, url)
    await told(receiver, served)
    head, _ = receiver.requests[0]
    assert head.startswith(b"POST /done?a=b%20c HTTP/1.1\r\n")
    fields = fields_of(head)
    assert fields["host"] == f"127.0.0.1:{receiver.number}"
    assert fields["content-type"] == "application/json"
    for secret in (OLD, NEW):
        event, content = verified(receiver, 0, secret)
        assert event == fields["webhook-id"]
    assert before - 1 <= int(fields["webhook-timestamp"]) <= time.time()
    document = content["data"]
    assert list(content) == ["type", "timestamp", "data"]
    assert (content["type"], content["timestamp"]) == ("job.succeeded", document["finished"])
    assert (document["id"], document["route"], document["state"]) == (id, "/upper", "succeeded")
    assert document["result"] == {
        "status": 200,
        "content_type": "text/plain; charset=utf-8",
        "length": 4,
    }
    assert document["links"]["result"] == f"https://jobs.example.com/jobs/{id}/result"
    assert document["webhook"]["state"] == "pending"

    failed = accepted(served, url, "/fail")
    await told(receiver, served, 2)
    other, content = verified(receiver, 1, OLD)
    assert other != event
    assert (content["type"], content["data"]["id"]) == ("job.failed", failed)
    assert content["data"]["error"]["status"] == 500
    assert b"secret of the handler" not in receiver.requests[1][1]

    await served.logged("its webhook was told: 204")
    await until(lambda: len(served.log_lines("its webhook was told")) == 2, 5, served.log)
    assert await served.stop() == 0
    log = served.log()
    assert OLD not in log
    assert NEW not in log
    hook = (await record_of(served, id)).hook
    assert hook is not None
    assert (hook.state, [attempt.status for attempt in hook.attempts]) == (
        HookState.DELIVERED,
        [204],
    )
    assert len(receiver.requests) == 2


@pytest_twisted.ensureDeferred
async def test_down_at_first(daemon: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """A receiver that is down is told when it is up, by the daemon after the one that was ended.

    Where the daemon after it tells nobody any more, that is what is noted.
    """
    names = ("stopped", "killed", "without")
    ports = [free_port() for _ in names]

    def start(*options: list[str]) -> list[Daemon]:
        started = [
            daemon(APP, each, directory=tmp_path / name, listening=False)
            for each, name in zip(options, names, strict=True)
        ]
        return list(map(keeps, started))

    for name in names:
        write_secrets(tmp_path / name, OLD)
    firsts = start(*map(options_for, ports))
    ids = [
        accepted(served, f"http://127.0.0.1:{port}/")
        for served, port in zip(firsts, ports, strict=True)
    ]
    for served in firsts:
        await served.logged("its webhook was not told: the connection was refused; it is tried")
    firsts[1].send_signal(signal.SIGKILL)
    assert await firsts[1].wait(5) == -signal.SIGKILL
    await stopped(firsts[0])
    await stopped(firsts[2])
    receivers = [listen(response(), port=port) for port in ports]
    seconds = start(options_for(ports[0]), options_for(ports[1]), ["--store=store"])
    patience = 2 * PAUSES[0] + 5
    for served, receiver, id in list(zip(seconds, receivers, ids, strict=True))[:2]:
        await told(receiver, served, seconds=patience)
        _, content = verified(receiver, 0, OLD)
        assert content["data"]["id"] == id
        (attempt,) = content["data"]["webhook"]["attempts"]
        assert (attempt["status"], attempt["error"]) == (None, "the connection was refused")
        await served.logged("its webhook was told: 200")
        await stopped(served)
        hook = (await record_of(served, id)).hook
        assert hook is not None
        assert [attempt.status for attempt in hook.attempts] == [None, 200]
        assert hook.attempts[1].at - hook.attempts[0].at >= PAUSES[0]
        assert len(receiver.requests) == 1
    await seconds[2].logged("no hosts for webhooks are configured here", patience)
    await stopped(seconds[2])
    hook = (await record_of(seconds[2], ids[2])).hook
    assert hook is not None
    assert (len(hook.attempts), hook.state) == (2, HookState.PENDING)
    assert receivers[2].connected == 0


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_tells(keeper: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """What SIGTERM has cut off is told again after the next start, with the same id."""
    directory = tmp_path / "served"
    write_secrets(directory, OLD)
    receiver = listen(lambda transport: None)
    first = keeper(APP, options_for(receiver.number), directory=directory)
    id = accepted(first, receiver.url("127.0.0.1"))
    await told(receiver, first)
    await stopped(first)
    receiver.answer = response()
    second = keeper(APP, options_for(receiver.number), directory=directory)
    await told(receiver, second, 2)
    once, _ = verified(receiver, 0, OLD)
    twice, content = verified(receiver, 1, OLD)
    assert once == twice
    assert content["data"]["id"] == id
    await second.logged("its webhook was told: 200")
    await stopped(second)
    hook = (await record_of(second, id)).hook
    assert hook is not None
    assert [attempt.status for attempt in hook.attempts] == [200]


@pytest_twisted.ensureDeferred
async def test_killed_while_it_tells(keeper: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """So is what SIGKILL has cut off; and a job that it has cut off is told of as failed."""
    directory = tmp_path / "served"
    write_secrets(directory, OLD)
    receiver = listen(lambda transport: None)
    first = keeper(APP, options_for(receiver.number), directory=directory)
    url = receiver.url("127.0.0.1")
    cut_off = accepted(first, url, "/hang")
    id = accepted(first, url)
    await until((directory / "begun").exists, 10, first.log)
    await told(receiver, first)
    first.send_signal(signal.SIGKILL)
    assert await first.wait(5) == -signal.SIGKILL
    receiver.answer = response()
    second = keeper(APP, options_for(receiver.number), directory=directory)
    await told(receiver, second, 3)
    once, _ = verified(receiver, 0, OLD)
    found = dict(verified(receiver, number, OLD) for number in (1, 2))
    assert found[once]["data"]["id"] == id
    (other,) = (content for event, content in found.items() if event != once)
    assert (other["type"], other["data"]["id"]) == ("job.failed", cut_off)
    assert other["data"]["reason"] == "worker_lost"
    await until(lambda: len(second.log_lines("its webhook was told: 200")) == 2, 5, second.log)
    await stopped(second)


@pytest_twisted.ensureDeferred
async def test_the_receiver_of_the_page(keeper: StartDaemon, tmp_path: Path) -> None:
    """The receiver that the page shows is told by a daemon with its secret, and by nobody else."""
    program = tmp_path / "receiver.py"
    program.write_text(named(PAGE, "receiver.py"), encoding="utf-8")
    port = free_port()
    output = tmp_path / "output"
    environment = clean_environment({"PORT": str(port), "WEBHOOK_SECRET": OLD})
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, program], env=environment, stdout=file, stderr=subprocess.STDOUT
        ) as receiver,
    ):
        try:
            write_secrets(tmp_path / "served", OLD)
            served = keeper(APP, options_for(port), directory=tmp_path / "served")
            wait_until(lambda: is_listening(port), 10, output.read_text)
            id = accepted(served, f"http://127.0.0.1:{port}/done")
            await served.logged("its webhook was told: 204")
            with Connection.tcp(port) as other:
                fields = ["webhook-id: job_1_a", f"webhook-timestamp: {int(time.time())}"]
                other.post("/done", b"{}", *fields, "webhook-signature: v1,AAAA")
                assert other.response().status == 400
        finally:
            receiver.terminate()
    lines = [line for line in output.read_text().splitlines() if "HTTP/1." not in line]
    assert lines[0] == f"job.succeeded {id}"


REFUSED = [
    ("http://elsewhere.example.com/", "has a host, with its scheme and port, that is not allowed"),
    ("https://127.0.0.1/", "has a host, with its scheme and port, that is not allowed"),
    ("http://127.0.0.1:1/", "has a host, with its scheme and port, that is not allowed"),
    ("http://user@127.0.0.1/", "has a user name or a password"),
    ("ftp://127.0.0.1/", "does not begin with https://"),
    ("nonsense", "is not a URL"),
]


@pytest_twisted.ensureDeferred
async def test_refused(keeper: StartDaemon, tmp_path: Path) -> None:
    """A URL that may not be told, and one that would never be, are refused before the upload."""
    directory = tmp_path / "served"
    write_secrets(directory, OLD)
    served = keeper(APP, options_for(free_port()), directory=directory)

    def refused(path: str, *headers: str) -> dict[str, Any]:
        with served.connect() as client:
            head = request(path, b"", EXPECTED, *headers)
            client.send(head.replace(b"Content-Length: 0\r\n", b"Content-Length: 900000\r\n"))
            answer = client.response()
            assert (answer.status, answer.headers["connection"]) == (400, "close")
            assert client.is_closed()
        document: dict[str, Any] = json.loads(answer.body)
        assert document["reason"] == "webhook_refused"
        return document

    for url, words in REFUSED:
        document = refused("/upper", LATER, f"Webhook-URL: {url}")
        assert words in document["detail"]
    allowed = options_for(free_port())[0].removeprefix("--webhook-hosts=")
    for path, *headers in (
        ("/upper", f"Webhook-URL: {allowed}"),
        ("/upper", f"Webhook-URL: {allowed}", 'Idempotency-Key: "k"'),
        ("/upper", f"Webhook-URL: {allowed}", "Prefer: wait=1"),
        ("/plain", f"Webhook-URL: {allowed}", LATER),
    ):
        assert "is for calls that prefer respond-async" in refused(path, *headers)["detail"]
    twice = refused("/upper", LATER, f"Webhook-URL: {allowed}", f"Webhook-URL: {allowed}/b")
    assert "more than once" in twice["detail"]


@pytest_twisted.ensureDeferred
async def test_private_addresses(keeper: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """Nothing is sent to an address of this machine, even a listed one, unless that is allowed."""
    directory = tmp_path / "served"
    write_secrets(directory, OLD)
    receiver = listen(response())
    options = options_for(receiver.number, private="no")
    served = keeper(APP, options, directory=directory)
    id = accepted(served, receiver.url("127.0.0.1"))
    await served.logged("its webhook was not told")
    await stopped(served)
    hook = (await record_of(served, id)).hook
    assert hook is not None
    (attempt,) = hook.attempts
    assert (attempt.status, attempt.error) == (
        None,
        "the host has an address to which webhooks are not sent (loopback)",
    )
    assert hook.state is HookState.PENDING
    assert hook.due is not None
    assert hook.due >= attempt.at + PAUSES[0]
    assert receiver.connected == 0


@pytest_twisted.ensureDeferred
async def test_reload(keeper: StartDaemon, tmp_path: Path, listen: Listen) -> None:
    """SIGHUP: new secrets sign from then on, a broken file changes nothing, hosts are taken off."""
    directory = tmp_path / "served"
    write_secrets(directory, OLD)
    receiver = listen(response())
    url = receiver.url("127.0.0.1")
    lines = ['store = "store"', 'webhook_secrets = "secrets"', "webhook_private = true"]
    hosts = f'webhook_hosts = ["http://127.0.0.1:{receiver.number}"]'
    configuration = directory / "deferpost.toml"
    configuration.write_text("\n".join([*lines, hosts]) + "\n")
    served = keeper(APP, ["--config=deferpost.toml"], directory=directory)
    accepted(served, url)
    await told(receiver, served)
    verified(receiver, 0, OLD)

    async def reloaded(count: int) -> None:
        served.send_signal(signal.SIGHUP)
        await until(lambda: len(served.log_lines("] reloaded in")) >= count, 15, served.log)

    write_secrets(directory, NEW)
    await reloaded(1)
    accepted(served, url)
    await told(receiver, served, 2)
    verified(receiver, 1, NEW)
    with pytest.raises(ValueError, match="no signature"):
        verified(receiver, 1, OLD)

    write_secrets(directory, NEW, "whsec_broken")
    served.send_signal(signal.SIGHUP)
    await served.logged("not reloaded")
    assert "secrets, line 2: " in served.log()
    assert "whsec_broken" not in served.log()
    accepted(served, url)
    await told(receiver, served, 3)
    verified(receiver, 2, NEW)

    configuration.write_text("\n".join(lines) + "\n")
    await reloaded(2)
    answer = post(served, "/upper", b"", LATER, f"Webhook-URL: {url}")
    assert answer.status == 400
    assert "no hosts for webhooks are configured" in json.loads(answer.body)["detail"]
    await until(lambda: len(served.log_lines("its webhook was told: 200")) == 3, 5, served.log)
    await stopped(served)
    assert len(receiver.requests) == 3


def test_no_secrets_at_the_start(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon whose file of secrets is not there does not start, and says so in one message."""
    directory = tmp_path / "wrong"
    served = daemon(APP, options_for(1), directory=directory, listening=False)
    assert served.process.wait(30) == 1
    assert served.log() == (
        "deferpost: the configuration has 1 problem:\n"
        "  secrets: cannot be read: No such file or directory\n"
    )
