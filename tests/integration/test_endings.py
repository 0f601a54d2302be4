"""Every way a call can end, run on one real daemon, all at the same time.

The rows are in :mod:`tests.endings`.  Of each it is checked what its client saw, what the event of
its job in the log says, and which lines the log has about it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deferpost.lifecycle import ENDED, REASONS
from deferpost.model import Rung
from tests.endings import ENDINGS, Ending, Sees
from tests.integration.daemon import Connection, Daemon, wait_until

pytestmark = [
    pytest.mark.integration,
    # One daemon serves all of these at the same time, which takes the whole machine.
    pytest.mark.alone,
]

#: Seconds that anything may take on a machine that has other things to do.
SOON = 60.0

OPERATOR = "token-of-the-operator"

APP = """
import os
import signal
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from deferpost import App, HTTPError, ProcessPool, ReactorPool, ThreadPool

app = App(pools={
    "thread": ThreadPool(size=30, interrupt_grace=0.2),
    "process": ProcessPool(size=6, kill_grace=30.0),
    "deaf": ProcessPool(size=3, kill_grace=0.2),
    # The first call of each of these stays until the daemon stops, and what follows waits.
    "one thread": ThreadPool(size=1),
    "one process": ProcessPool(size=1),
    "one reactor": ReactorPool(size=1),
    "prompt": ProcessPool(size=2),
    "full": ThreadPool(size=1, max_waiting=0),
    "late": ThreadPool(size=1),
    "broken": ProcessPool(size=1),
})


def serve(name, pool, handler, **options):
    app.post("/" + name, pool=pool, **options)(handler)


def begin(call):
    Path(call.id + ".pid").write_text(str(os.getpid()))
    os.rename(call.id + ".pid", call.id + ".begun")


def gate_of(call):
    return call.args.get("gate", [call.id])[0] + ".gate"


def wait(call):
    while not os.path.exists(gate_of(call)):
        time.sleep(0.005)


def returns(call):
    return "done"


def yields(call):
    yield b"one"
    yield b"two"


def raises_http(call):
    raise HTTPError(409, "not now")


def reads_json(call):
    return call.json()


def raises(call):
    raise ValueError("no")


def returns_object(call):
    return object()


def waits(call):
    begin(call)
    wait(call)
    return "done"


def waits_and_raises(call):
    begin(call)
    wait(call)
    raise ValueError("no")


def listens(call):
    begin(call)
    while True:
        call.check()
        time.sleep(0.005)


def goes_on(call):
    begin(call)
    while True:
        time.sleep(0.005)


def ignores(call):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    goes_on(call)


def exits(call):
    os._exit(int(call.body.read()))


def exits_once(call):
    if not os.path.exists(call.id + ".begun"):
        begin(call)
        os._exit(1)
    return "done"


def yields_and_waits(call):
    yield b"one"
    begin(call)
    while not os.path.exists(gate_of(call)):
        call.check()
        time.sleep(0.005)
    raise ValueError("no")


def reads(call):
    begin(call)
    return call.body.read()


def naps(call):
    time.sleep(0.02)
    return "done"


class NeverReady:
    def __init__(self):
        while not os.path.exists("broken.gate"):
            time.sleep(0.005)
        raise RuntimeError("no model")

    def __call__(self, call):
        return "done"


async def co_returns(call):
    return "done"


async def co_raises_http(call):
    raise HTTPError(409, "not now")


async def co_reads_json(call):
    return call.json()


async def co_raises(call):
    raise ValueError("no")


async def co_returns_object(call):
    return object()


async def co_waits(call):
    from twisted.internet import reactor

    begin(call)
    while not os.path.exists(gate_of(call)):
        await deferLater(reactor, 0.005)
    return "done"


async def co_waits_and_raises(call):
    await co_waits(call)
    raise ValueError("no")


async def co_awaits(call):
    begin(call)
    await Deferred()


for name, handler, coroutine, options in (
    ("success", returns, co_returns, {}),
    ("http_error", raises_http, co_raises_http, {}),
    ("bad_request", reads_json, co_reads_json, {}),
    ("error", raises, co_raises, {}),
    ("unencodable", returns_object, co_returns_object, {}),
    ("left_finish", waits, co_waits, {"on_disconnect": "finish"}),
    ("left_finish_error", waits_and_raises, co_waits_and_raises, {"on_disconnect": "finish"}),
    ("shutdown_success", waits, co_waits, {}),
):
    for kind in ("thread", "process"):
        serve(f"{name}/{kind}", kind, handler, **options)
    serve(f"{name}/reactor", "reactor", coroutine, **options)

for name, options in (
    ("left_queued", {}),
    ("queue_deadline", {"queue_timeout": 0.2}),
    ("total_queued", {"total_timeout": 0.2}),
    ("asked_queued", {}),
    ("requested_queued", {}),
    ("shutdown_queued", {}),
):
    for kind in ("thread", "process"):
        serve(f"{name}/{kind}", f"one {kind}", returns, **options)
    serve(f"{name}/reactor", "one reactor", co_returns, **options)

for name, options in (
    ("left_stream", {}),
    ("left_stream_terminated", {}),
    ("stream_breaks", {}),
    ("stream_is_killed", {}),
):
    for kind in ("thread", "process"):
        serve(f"{name}/{kind}", kind, yields_and_waits, **options)

for kind in ("thread", "process"):
    serve(f"stream/{kind}", kind, yields)
    serve(f"body_left_finish/{kind}", kind, reads, stream=True, on_disconnect="finish")
    serve(f"events_end/{kind}", kind, raises)
    serve(f"body_too_large/{kind}", kind, reads, stream=True, max_body=5)

serve("body_left/thread", "thread", reads, stream=True)
serve("body_left_terminated/process", "process", reads, stream=True)
serve("body_broken/thread", "thread", reads, stream=True)
serve("body_broken_terminated/process", "process", reads, stream=True)

for name in ("exits_0", "exits_1"):
    serve(f"{name}/process", "process", exits)
serve("is_killed/process", "process", goes_on)
serve("retried/process", "process", exits_once, retries=1)
serve("out_of_retries/process", "process", exits, retries=1)

for name, options in (
    ("left", {}),
    ("run", {"timeout": 0.6}),
    ("total", {"total_timeout": 1.5}),
    ("asked", {}),
    ("requested", {}),
):
    serve(f"{name}_told/thread", "thread", listens, **options)
    serve(f"{name}_running/thread", "thread", listens, **options)
    serve(f"{name}_running/reactor", "reactor", co_awaits, **options)
    serve(f"{name}_told/reactor", "reactor", co_awaits, **options)
    serve(f"{name}_awaiting/reactor", "reactor", co_awaits, **options)
    serve(f"{name}_interrupted/thread", "thread", goes_on, interrupt=True, **options)
    # What is measured from the beginning must not wait for a worker.
    pool = "prompt" if name in ("total", "asked") else "process"
    serve(f"{name}_terminated/process", pool, goes_on, **options)
    serve(f"{name}_killed/process", "deaf", ignores, **options)

serve("shutdown_told/thread", "one thread", listens)
serve("shutdown_told/reactor", "one reactor", co_awaits)
serve("shutdown_terminated/process", "one process", goes_on)
serve("shutdown_killed/process", "deaf", ignores)
serve("shutdown_left_behind/thread", "thread", goes_on)

serve("refused_timeout", "thread", returns)
serve("refused_unknown", "thread", returns)
serve("refused_route", "thread", returns)
serve("refused_large", "thread", returns, max_body=5)
serve("refused_quota", "thread", waits)
serve("refused_full", "full", waits)
serve("refused_late", "late", naps)
serve("refused_late/stays", "late", waits)
serve("set_up_fails/process", "broken", NeverReady)
serve("refused_broken", "broken", NeverReady)
serve("refused_storage", "thread", returns)
serve("refused_shutdown", "thread", returns)
serve("refused_left", "thread", returns)
"""


class Seen(NamedTuple):
    """What a client saw of a response.

    :ivar status: the status; None where it has left before.
    :ivar reason: of the problem document, if it is one that has it.
    :ivar sees: how much of it came.
    """

    status: int | None
    reason: str | None
    sees: Sees


class Case(NamedTuple):
    """A row with one of its kinds."""

    row: Ending
    kind: str | None

    @property
    def id(self) -> str:
        """Of the request, and of the test."""
        return self.row.name if self.kind is None else f"{self.row.name}.{self.kind}"

    @property
    def route(self) -> str:
        """The route on which it is called."""
        return "/" + (self.row.name if self.kind is None else f"{self.row.name}/{self.kind}")


CASES = [Case(row, kind) for row in ENDINGS for kind in row.kinds or (None,)]


class Stage:
    """The daemon, and what the ways need beside it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        spool = directory / "spool"
        spool.mkdir()
        lines = [f"{case.id} {token(case.id)}" for case in CASES if case.id != "refused_route"]
        # Who may call another route than the one that is called.
        self._secret("tokens", "\n".join([*lines, f"refused_route {token('refused_route')} /x"]))
        self._secret("operators", f"boss {OPERATOR}\n")
        self.daemon = Daemon(
            directory,
            APP,
            [
                "--log-format=json",
                "--status-page=open",
                "--tokens=tokens",
                "--operator-tokens=operators",
                "--max-jobs-per-client=2",
                f"--temporary-directory={spool}",
                "--grace=1m",
            ],
        )
        #: How many ways are where they want to be when the daemon is stopped.
        self.in_place = threading.Semaphore(0)
        #: It is being stopped, and drains.
        self.stopping = threading.Event()

    def _secret(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        return (self.directory / name).exists()

    def open_gate(self, id: str) -> None:
        """Let a handler go on that waits for it."""
        (self.directory / f"{id}.gate").touch()

    def begun(self, id: str) -> int:
        """Wait until a handler runs; returns the number of its process."""
        wait_until(lambda: self.exists(f"{id}.begun"), SOON, lambda: f"{id} runs")
        return int((self.directory / f"{id}.begun").read_text())

    def documents(self) -> list[dict[str, Any]]:
        """All that is logged."""
        whole, _, _ = self.daemon.log_path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def port(self) -> int:
        """The port on which it listens; 0 until it does."""
        found = re.search(r"Site starting on (\d+)", self.daemon.log())
        return 0 if found is None else int(found[1])

    def state(self) -> dict[str, Any]:
        """What the status page shows."""
        with Connection.tcp(self.port()) as client:
            client.request("GET", "/_deferpost/state")
            state: dict[str, Any] = json.loads(client.response("GET").body)
        return state

    def pool(self, name: str) -> dict[str, Any]:
        """What the status page shows of a pool."""
        pool: dict[str, Any] = next(p for p in self.state()["pools"] if p["name"] == name)
        return pool

    def wait_in_place(self, count: int) -> None:
        """Wait until so many ways more are where they want to be when the daemon is stopped."""
        for _ in range(count):
            assert self.in_place.acquire(timeout=SOON)

    def wait_logged(self, text: str) -> None:
        """Wait until something is logged."""
        wait_until(lambda: text in self.daemon.log(), SOON, lambda: f"{text!r} is logged")


def token(id: str) -> str:
    """The token of the client whose calls have this id, or begin so."""
    return f"token-of-{id}-1234567890"


class Client:
    """Calls the route of a case.

    :param stage: where.
    :param case: what.
    """

    def __init__(self, stage: Stage, case: Case) -> None:
        self.stage = stage
        self.case = case

    def connect(self) -> Connection:
        """Connect."""
        return Connection.tcp(self.stage.port(), SOON)

    def fields(self, id: str = "") -> list[str]:
        """What each of its calls has in its head."""
        case = self.case
        return [f"X-Request-ID: {id or case.id}", f"Authorization: Bearer {token(case.id)}"]

    def post(self, body: bytes = b"", *fields: str, id: str = "", more: str = "") -> Connection:
        """Send a call."""
        connection = self.connect()
        connection.post(self.case.route + more, body, *self.fields(id), *fields)
        return connection

    def begin(self, length: int, part: bytes) -> Connection:
        """Send a call whose body has not come yet, but for a part of it."""
        connection = self.connect()
        lines = [f"POST {self.case.route} HTTP/1.1", "Host: test", *self.fields()]
        connection.send("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode() + part)
        return connection

    def answer(self, connection: Connection) -> Seen:
        """The answer."""
        with connection:
            response = connection.response()
        reason = None
        if response.headers.get("content-type") == "application/problem+json":
            reason = json.loads(response.body).get("reason")
        return Seen(response.status, reason, Sees.WHOLE if response.is_whole else Sees.PART)

    def leave(self, connection: Connection) -> Seen:
        """Go away, and wait until that has been noticed."""
        connection.close()
        self.stage.wait_logged(f'\\"POST {self.case.route} HTTP/1.1\\" 499')
        return Seen(None, None, Sees.NOTHING)

    def begun(self) -> int:
        """Wait until the handler runs."""
        return self.stage.begun(self.case.id)

    def queued(self, connection: Connection) -> None:
        """Wait until the call waits."""
        # A request of the same connection is not read before the answer to the call; one of another
        # is read after what was sent before.
        self.stage.state()

    def cancel(self) -> None:
        """Have an operator cancel the call."""
        with self.connect() as operator:
            # What waits is on no page; the keys of jobs are small numbers.
            for key in itertools.cycle(range(1, 300)):
                asked = {"pool": "thread", "job": key, "id": self.case.id}
                operator.post(
                    "/_deferpost/cancel",
                    json.dumps(asked).encode(),
                    "Content-Type: application/json",
                    f"Authorization: Bearer {OPERATOR}",
                )
                if operator.response().status == 200:
                    return


#: What is done for a row, by its name.
WAYS: dict[str, Callable[[Client], Seen]] = {}

#: The ways of calls that are still there when the daemon stops.
AT_THE_END: set[str] = set()


def way(*names: str) -> Callable[[Callable[[Client], Seen]], Callable[[Client], Seen]]:
    """Declare what is done for rows."""

    def declare(play: Callable[[Client], Seen]) -> Callable[[Client], Seen]:
        WAYS.update(dict.fromkeys(names, play))
        AT_THE_END.update(name for name in names if "shutdown" in name)
        return play

    return declare


@way("success", "stream", "http_error", "error", "unencodable", "retried")
@way("queue_deadline", "total_queued", "run_told", "run_interrupted", "run_terminated")
@way("run_killed", "run_awaiting", "total_running", "total_terminated")
def is_answered(client: Client) -> Seen:
    """Call, and wait for the answer."""
    return client.answer(client.post())


@way("bad_request", "exits_0", "exits_1", "out_of_retries", "refused_large")
def is_answered_by_its_body(client: Client) -> Seen:
    """Call with a body that matters."""
    name = client.case.row.name
    bodies = {"bad_request": b"{", "exits_0": b"0", "refused_large": b"too large"}
    return client.answer(client.post(bodies.get(name, b"1")))


@way("asked_queued")
def asks_for_little(client: Client) -> Seen:
    """Call with less time than others have to go before it."""
    return client.answer(client.post(b"", "X-Timeout: 200ms"))


@way("asked_running", "asked_terminated")
def asks_for_less(client: Client) -> Seen:
    """Call with less time than the handler takes."""
    return client.answer(client.post(b"", "X-Timeout: 1.5"))


@way("stream_breaks")
def breaks_off(client: Client) -> Seen:
    """Let the handler raise when a part of its reply is there."""
    connection = client.post()
    client.begun()
    client.stage.open_gate(client.case.id)
    return client.answer(connection)


@way("is_killed", "stream_is_killed")
def is_killed(client: Client) -> Seen:
    """Kill the worker."""
    connection = client.post()
    pid = client.begun()
    if "stream" in client.case.row.name:
        head = connection.head()
        assert connection.chunk() == b"one"
        os.kill(pid, signal.SIGKILL)
        assert connection.chunk() is None
        connection.close()
        return Seen(head.status, None, Sees.PART)
    os.kill(pid, signal.SIGKILL)
    return client.answer(connection)


@way("left_queued")
def leaves_the_queue(client: Client) -> Seen:
    """Leave while it waits."""
    connection = client.post()
    client.queued(connection)
    return client.leave(connection)


@way("left_told", "left_interrupted", "left_terminated", "left_killed", "left_awaiting")
@way("left_finish", "left_finish_error")
def leaves(client: Client) -> Seen:
    """Leave while it runs."""
    connection = client.post()
    client.begun()
    seen = client.leave(connection)
    client.stage.open_gate(client.case.id)
    return seen


@way("left_stream", "left_stream_terminated")
def leaves_midway(client: Client) -> Seen:
    """Leave when a part of the reply has come."""
    connection = client.post()
    client.begun()
    assert connection.head().status == 200
    assert connection.chunk() == b"one"
    return client.leave(connection)


@way("requested_queued")
def is_canceled_in_the_queue(client: Client) -> Seen:
    """Cancel it while it waits."""
    connection = client.post()
    client.cancel()
    return client.answer(connection)


@way("requested_told", "requested_terminated")
def is_canceled(client: Client) -> Seen:
    """Cancel it while it runs."""
    connection = client.post()
    client.begun()
    client.cancel()
    return client.answer(connection)


@way("shutdown_queued")
def waits_at_the_end(client: Client) -> Seen:
    """Be in the queue when the daemon stops."""
    connection = client.post()
    client.queued(connection)
    client.stage.in_place.release()
    return client.answer(connection)


@way("shutdown_told", "shutdown_terminated", "shutdown_killed", "shutdown_left_behind")
def runs_at_the_end(client: Client) -> Seen:
    """Run when the daemon stops, and do not return."""
    connection = client.post()
    client.begun()
    client.stage.in_place.release()
    return client.answer(connection)


@way("shutdown_success")
def returns_at_the_end(client: Client) -> Seen:
    """Run when the daemon stops, and return when it drains."""
    connection = client.post()
    client.begun()
    client.stage.in_place.release()
    assert client.stage.stopping.wait(SOON)
    client.stage.open_gate(client.case.id)
    return client.answer(connection)


@way("refused_shutdown")
def uploads_at_the_end(client: Client) -> Seen:
    """Send the rest of the body when the daemon drains."""
    connection = client.begin(4, b"bo")
    client.queued(connection)
    client.stage.in_place.release()
    assert client.stage.stopping.wait(SOON)
    connection.send(b"dy")
    return client.answer(connection)


@way("body_left", "body_left_terminated", "body_left_finish")
def leaves_its_body(client: Client) -> Seen:
    """Leave when a part of the body has come."""
    connection = client.begin(10, b"bo")
    client.begun()
    return client.leave(connection)


@way("body_too_large", "body_broken", "body_broken_terminated")
def sends_too_much(client: Client) -> Seen:
    """Send chunks that are more than may come, or are none."""
    connection = client.connect()
    lines = [f"POST {client.case.route} HTTP/1.1", "Host: test", *client.fields()]
    connection.send("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
    client.begun()
    broken = "broken" in client.case.row.name
    connection.send(b"no size\r\n" if broken else b"9\r\ntoo large\r\n0\r\n\r\n")
    return client.answer(connection)


@way("refused_timeout")
def asks_for_nonsense(client: Client) -> Seen:
    """Call with a deadline that makes no sense."""
    return client.answer(client.post(b"", "X-Timeout: soon"))


@way("refused_unknown")
def is_unknown(client: Client) -> Seen:
    """Call with a token that nobody has."""
    connection = client.connect()
    connection.post(
        client.case.route, b"", "X-Request-ID: refused_unknown", "Authorization: Bearer nobodys"
    )
    return client.answer(connection)


@way("refused_route")
def is_refused(client: Client) -> Seen:
    """Call with a token for something else."""
    return client.answer(client.post())


@way("set_up_fails")
def waits_in_vain(client: Client) -> Seen:
    """Wait for the only worker while it is being set up."""
    connection = client.post()
    client.queued(connection)
    client.stage.open_gate("broken")
    return client.answer(connection)


@way("refused_broken")
def comes_too_late(client: Client) -> Seen:
    """Call when it is known that the workers cannot be set up."""
    client.stage.wait_logged("[set_up_fails.process]")
    return client.answer(client.post())


@way("events_end")
def takes_events(client: Client) -> Seen:
    """Call for Server-Sent Events."""
    return client.answer(client.post(b"", "Accept: text/event-stream"))


@way("refused_quota", "refused_full")
def is_one_too_many(client: Client) -> Seen:
    """Call when others of the same client, or of all clients, have taken what there is."""
    id = client.case.id
    count = 2 if client.case.row.name == "refused_quota" else 1
    ids = [f"{id}-{number}" for number in range(count)]
    others = [client.post(id=other, more=f"?gate={id}") for other in ids]
    for other in ids:
        client.stage.begun(other)
    seen = client.answer(client.post())
    client.stage.open_gate(id)
    assert [client.answer(other).status for other in others] == [200] * count
    return seen


@way("refused_late")
def is_sure_to_be_late(client: Client) -> Seen:
    """Call when it has been measured how long the others took."""
    for number in range(10):
        assert client.answer(client.post(id=f"nap-{number}")).status == 200
    stays = client.post(id="stays", more="/stays")
    client.stage.begun("stays")
    seen = client.answer(client.post(b"", "X-Timeout: 10ms"))
    client.stage.open_gate("stays")
    assert client.answer(stays).status == 200
    return seen


@way("refused_storage")
def cannot_be_kept(client: Client) -> Seen:
    """Send a body that does not fit into memory, when there is no place for files."""
    return client.answer(client.post(b"x" * 200_000))


@way("refused_left")
def leaves_before(client: Client) -> Seen:
    """Leave before the body is whole."""
    connection = client.begin(10, b"bo")
    client.queued(connection)
    return client.leave(connection)


class Outcome(NamedTuple):
    """What came of a case.

    :ivar seen: what its client saw.
    :ivar jobs: the events of jobs with its id.
    :ivar access: the lines of the access log with its path.
    :ivar lines: the first lines of what else is logged under its id, without the id.
    """

    seen: Seen
    jobs: list[dict[str, Any]]
    access: list[dict[str, Any]]
    lines: list[str]


def play(stage: Stage) -> dict[str, Seen]:
    """Let all of it happen, to the end of the daemon."""
    daemon = stage.daemon
    wait_until(stage.port, SOON, lambda: f"it listens\n{daemon.log()}")
    (stage.directory / "spool").rmdir()
    usable = ("process", "one process", "prompt", "deaf")
    wait_until(lambda: all(stage.pool(name)["ready"] for name in usable), SOON, "workers")
    waiting = [case for case in CASES if case.row.name in AT_THE_END]
    # Those first behind which others are to wait.
    runs = [case for case in waiting if "queued" not in case.id and "refused" not in case.id]
    others = [case for case in CASES if case not in runs]
    with ThreadPoolExecutor(len(CASES)) as threads:
        playing: dict[Case, Future[Seen]] = {}

        def start(cases: list[Case]) -> None:
            for case in cases:
                playing[case] = threads.submit(WAYS[case.row.name], Client(stage, case))

        try:
            start(runs)
            stage.wait_in_place(len(runs))
            start(others)
            for case in others:
                if case not in waiting:
                    playing[case].result(SOON)
            stage.wait_in_place(len(waiting) - len(runs))
            daemon.send_signal(signal.SIGTERM)
            stage.wait_logged("draining for at most")
            stage.stopping.set()
            for case in waiting:
                if case.row.status == 200 or case.row.state is None:
                    playing[case].result(SOON)
            daemon.send_signal(signal.SIGTERM)  # do not wait for the others
            return {case.id: future.result(SOON) for case, future in playing.items()}
        except BaseException:
            left = [case.id for case, future in playing.items() if not future.done()]
            print("not over:", *left)
            daemon.process.kill()  # so that nobody waits for an answer
            raise


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of each case, by its id."""
    stage = Stage(tmp_path_factory.mktemp("endings"))
    try:
        seen = play(stage)
        wait_until(lambda: stage.daemon.process.poll() is not None, SOON, "its end")
        assert stage.daemon.process.returncode == 0
    finally:
        left = stage.daemon.end()
    assert not left, stage.daemon.log()
    by_id: dict[str, Outcome] = {id: Outcome(seen[id], [], [], []) for id in seen}
    by_route: dict[str, str] = {case.route: case.id for case in CASES}
    for document in stage.documents():
        event = document.get("event")
        if event == "access":
            # Of a client that leaves before there is a job, it does not tell the id.
            id = document["id"] or by_route.get(document["path"])
            if id in by_id:
                by_id[id].access.append(document)
        elif event == "job":
            if document["id"] in by_id:
                by_id[document["id"]].jobs.append(document)
        elif (told := re.match(r"\[([^]]*)\] (.*)", document["message"])) and told[1] in by_id:
            by_id[told[1]].lines.append(told[2])
    return by_id


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_ending(outcomes: dict[str, Outcome], case: Case) -> None:
    """Client, job and log agree with the table."""
    row, outcome = case.row, outcomes[case.id]
    status = None if row.sees is Sees.NOTHING else row.status
    assert outcome.seen == Seen(status, row.problem, row.sees)
    # As the access log has it, a reply that broke off is as one whose client has left.
    logged = 499 if row.sees is Sees.PART else row.status
    assert [one["status"] for one in outcome.access] == [logged]
    ended = [(job["state"], job["reason"], job["rung"], job["status"]) for job in outcome.jobs]
    if row.state not in ENDED:
        assert ended == []
    else:
        assert ended == [(row.state, row.reason, row.rung, row.noted or row.status)]
    lines = [line.replace("{route}", case.route) for line in row.lines]
    patterns = [re.escape(line).replace("…", ".*") for line in lines]
    assert len(outcome.lines) == len(patterns), outcome.lines
    for pattern, line in zip(patterns, outcome.lines, strict=True):
        assert re.fullmatch(pattern, line)


def test_each_row_is_played() -> None:
    """There is something to do for each row, and no name twice."""
    assert sorted(WAYS) == sorted(row.name for row in ENDINGS)


def test_nothing_is_missing() -> None:
    """Each final state, reason and rung that there is occurs in a row."""
    assert {row.state for row in ENDINGS} >= ENDED
    assert {row.rung for row in ENDINGS} - {None} == set(Rung)
    assert {row.reason for row in ENDINGS} - {None} == set().union(*REASONS.values())
