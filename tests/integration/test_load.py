"""The daemon under load and fault: many clients, slow readers, lost workers, hostile bytes."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import json
import os
import random
import re
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, Daemon, wait_until
from tests.integration.load import (
    Answer,
    Download,
    Latencies,
    PeakMemory,
    Post,
    blocks,
    idle,
    memory,
    open_files,
    pool,
    pools,
    post_all,
    probe,
    unlinked_bytes,
    upload,
)

pytestmark = pytest.mark.integration

POOLS = ("thread", "process", "reactor")

MIB = 2**20

#: Hundreds of connections are made at once, and none is to wait for the system to try again.
MANY = ("tcp:0:interface=127.0.0.1:backlog=1024",)

#: How long something may take that is done at once on a machine that is not busy.
SOON = 20.0


#: Keeps a figure for the report of the test: its name and its value.
Note = Callable[[str, object], None]


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Figures that a test saw: in the report of ``--junitxml``, and printed by ``-rP``."""

    def keep(name: str, value: object) -> None:
        shown = f"{value:.2f}" if isinstance(value, float) else str(value)
        request.node.user_properties.append((name, shown))
        print(f"{name}: {shown}")

    return keep


def touched(daemon: Daemon, name: str) -> Path:
    """Wait until a handler has made a file of this name."""
    path = daemon.directory / name
    wait_until(path.exists, SOON, f"{name}\n{daemon.log()[-5000:]}")
    return path


def open_gate(daemon: Daemon) -> None:
    """Let the handlers go on that wait for it."""
    (daemon.directory / "gate").touch()


def no_error(daemon: Daemon) -> None:
    """Check that nothing in its log is worse than information."""
    log = daemon.log()
    assert "Traceback" not in log, log
    assert "Unhandled" not in log, log
    assert not re.search(r"#(warn|error|critical)\]", log), log


def stop(daemon: Daemon) -> None:
    """SIGTERM, and check that it ends well and leaves nothing."""
    daemon.send_signal(signal.SIGTERM)
    assert daemon.process.wait(SOON) == 0
    wait_until(lambda: not daemon.alive(), 2, "no process left")


# Many at once.

DIGESTS = """
import hashlib
import time

from deferpost import App, Reply

app = App()


def digest(call):
    body = call.body.read()
    found = hashlib.sha256(call.id.encode() + b" " + body).hexdigest()
    return len(body), Reply(found.encode() + body[::-1], headers={"X-Handled": call.id})


def plain(call):
    length, reply = digest(call)
    time.sleep(length % 3 / 1000)
    return reply


app.post("/thread")(plain)
app.post("/process", pool="process")(plain)


@app.post("/reactor")
async def on_reactor(call):
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    length, reply = digest(call)
    await deferLater(reactor, length % 3 / 1000)
    return reply
"""


def digest_post(path: str, number: int) -> Post:
    """A request with an id and a body that no other has; some bodies are files in the daemon."""
    size = 100 + number * 149 % 100_000 if number % 20 == 0 else number % 2_000
    return Post(path, f"{path} {number} ".encode() + bytes(size), f"{path[1:]}-{number}")


def is_digest(answer: Answer) -> bool:
    """Whether the answer is the one to its own request."""
    post = answer.post
    found = hashlib.sha256(post.id.encode() + b" " + post.body).hexdigest()
    return (
        answer.status == 200
        and answer.body == found.encode() + post.body[::-1]
        and answer.headers["x-request-id"] == answer.headers["x-handled"] == post.id
    )


def test_everyone_gets_their_own(daemon: StartDaemon, note: Note) -> None:
    """2,000 POSTs over 200 connections through each pool: each is answered with its own."""
    served = daemon(DIGESTS, ["--access-log=no"], listen=MANY)
    for name in POOLS:
        began = time.monotonic()
        posts = [digest_post(f"/{name}", number) for number in range(2_000)]
        # An id is the client's to choose: some choose the same.
        posts[::10] = [post._replace(id="same") for post in posts[::10]]
        answers = post_all(served.port, posts, 200)
        note(f"{name}: requests per second", 2_000 / (time.monotonic() - began))
        note(f"{name}", str(Latencies.of([each.seconds for each in answers])))
        assert len(answers) == 2_000
        assert {each.post.body for each in answers} == {post.body for post in posts}
        wrong = [each.post.id for each in answers if not is_digest(each)]
        assert not wrong, wrong[:20]
    idle(served)
    no_error(served)


# The reactor stays free.

BUSY = """
import time

from deferpost import App

app = App()


@app.post("/sleeps")
def sleeps(call):
    while not call.canceled:
        time.sleep(0.05)


@app.post("/spins")
def spins(call):
    while not call.canceled:
        pass


@app.post("/works", pool="process")
def works(call):
    while True:
        pass
"""

BUSY_OPTIONS = ("--thread-size=4", "--process-size=2", "--access-log=no")

#: What keeps the pools busy, for each case.
BUSY_CASES: dict[str, dict[str, str]] = {
    "idle": {},
    "threads asleep": {"thread": "/sleeps"},
    "processes busy": {"process": "/works"},
    "threads asleep, processes busy": {"thread": "/sleeps", "process": "/works"},
    "threads busy": {"thread": "/spins"},
    "threads busy, processes busy": {"thread": "/spins", "process": "/works"},
}


@contextlib.contextmanager
def occupied(daemon: Daemon, name: str, path: str, waiting: int = 20) -> Iterator[None]:
    """Every worker of a pool is busy, and more wait, until the clients leave.

    :param name: the pool.
    :param path: where to post.
    """
    size = pools(daemon)[name]["size"]
    with contextlib.ExitStack() as stack:
        for _ in range(size + waiting):
            stack.enter_context(daemon.connect()).post(path)
        full = (size, waiting)
        wait_until(lambda: pool(daemon, name) == full, SOON, f"the pool {name} is full")
        yield


def latency_under_load(daemon: Daemon, case: str, count: int = 200, most: float = 4.0) -> Latencies:
    """How long ``/livez`` takes in one of the cases; the daemon serves :data:`BUSY`.

    :param count: how many times it is asked for.
    :param most: seconds after which that is enough.
    """
    idle(daemon)
    with contextlib.ExitStack() as stack:
        # Processes first: it takes long to fill a pool beside threads that are busy.
        for name, path in sorted(BUSY_CASES[case].items()):
            stack.enter_context(occupied(daemon, name, path))
        return probe(daemon, count, most=most)


@pytest.mark.alone
def test_livez_while_all_are_busy(daemon: StartDaemon, note: Note) -> None:
    """However busy the workers are, /livez is answered soon: the reactor runs none of the work."""
    served = daemon(BUSY, BUSY_OPTIONS)
    for case in BUSY_CASES:
        latencies = latency_under_load(served, case)
        note(case, str(latencies))
        if "threads busy" in case:
            # They take turns with the reactor's thread, each for the switch interval of 5 ms.
            assert latencies.median < 1_000, case
        else:
            assert latencies.median < 50, case
    no_error(served)


# Clients that leave.

LEAVING = """
import itertools
import os
import subprocess
import time
from pathlib import Path

from deferpost import App, ProcessPool, ThreadPool

app = App(pools={"one": ThreadPool(size=1)})


def mark(call, what):
    path = Path(f"{what}-{call.id}.new")
    path.write_text(str(os.getpid()))
    path.rename(f"{what}-{call.id}")


def hold(call):
    mark(call, "begun")
    while not Path("gate").exists():
        time.sleep(0.01)
    mark(call, "ended")
    return call.id


def stream(call):
    # More than all buffers on the way to a client that does not read.
    yield "first"
    mark(call, "begun")
    for _ in range(320):
        yield bytes(64 * 1024)
    while not Path("gate").exists():
        time.sleep(0.01)
    yield "last"
    mark(call, "ended")


for name in ("thread", "process"):
    app.post(f"/{name}", pool=name)(hold)
    app.post(f"/{name}-finish", pool=name, on_disconnect="finish")(hold)
    app.post(f"/{name}-stream-finish", pool=name, on_disconnect="finish")(stream)


@app.post("/reactor")
async def on_reactor(call):
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    mark(call, "begun")
    while not Path("gate").exists():
        await deferLater(reactor, 0.01)
    mark(call, "ended")
    return call.id


@app.post("/works", pool="process")
def works(call):
    mark(call, "begun")
    try:
        while True:
            pass
    finally:
        mark(call, "ended")


@app.post("/stuck", pool="process")
def stuck(call):
    mark(call, "begun")
    sum(itertools.repeat(0))  # never gives up the interpreter, and looks at no signal


@app.post("/starts", pool="process")
def starts(call):
    with subprocess.Popen(["sleep", "1000"]) as process:
        Path(f"sleep-{call.id}").write_text(str(process.pid))
        mark(call, "begun")
        process.wait()


@app.post("/ticks", pool="process")
def ticks(call):
    yield b"tick"
    mark(call, "begun")
    while True:
        yield b"tick"


def until_told(call):
    mark(call, "begun")
    while not call.canceled:
        time.sleep(0.01)
    mark(call, "told")


def generate(call):
    yield "first"
    until_told(call)
    yield "second"
    mark(call, "impossible")


def generate_at_full_speed(call):
    yield "first"
    mark(call, "begun")
    try:
        while True:
            yield bytes(64 * 1024)
    finally:
        mark(call, "told")


def check(call):
    mark(call, "begun")
    try:
        while True:
            call.check()
            time.sleep(0.01)
    finally:
        mark(call, "told")


RESULTS = {
    "nothing": lambda: None,
    "bytes": lambda: b"late",
    "large": lambda: bytes(10_000_000),
    "json": lambda: {"late": [1, 2, 3]},
    "file": lambda: Path("served.py"),
    "stream": lambda: iter([b"late", b"later"]),
}


def returning(kind):
    def handler(call):
        until_told(call)
        return RESULTS[kind]()

    return handler


for kind in RESULTS:
    app.post(f"/told/{kind}")(returning(kind))
app.post("/told/generator")(generate)
app.post("/told/full-speed")(generate_at_full_speed)
app.post("/told/check")(check)
"""


@pytest.mark.parametrize("name", POOLS)
def test_left_while_queued(daemon: StartDaemon, name: str) -> None:
    """A job whose client leaves while it waits never runs; those before and behind it do."""
    served = daemon(LEAVING, [f"--{name}-size=1" for name in POOLS])
    path = f"/{name}"
    with served.connect() as first, served.connect() as second, served.connect() as third:
        first.post(path, b"", "X-Request-ID: first")
        touched(served, "begun-first")
        for waiting, connection, id in ((1, second, "second"), (2, third, "third")):
            connection.post(path, b"", f"X-Request-ID: {id}")
            wait_until(lambda n=waiting: pool(served, name) == (1, n), SOON, f"{id} waits")  # type: ignore[misc]
        second.close()
        wait_until(lambda: pool(served, name) == (1, 1), SOON, "the second is removed")
        open_gate(served)
        assert first.response().body == b"first"
        assert third.response().body == b"third"
    idle(served)
    assert not (served.directory / "begun-second").exists()
    assert served.log_lines("[second]")[0].endswith(" of running")
    assert "canceled (client_disconnected): removed" in served.log_lines("[second]")[0]
    no_error(served)


def leave(connection: Connection, how: str) -> None:
    """Leave, by an end, by a reset, or by the end of one direction and then of the other."""
    if how == "half":
        connection.socket.shutdown(socket.SHUT_WR)
        time.sleep(0.1)  # in which that alone is seen
    elif how == "reset":
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    ("path", "how", "rung"),
    [
        ("/works", "close", "terminated"),
        ("/ticks", "reset", "terminated"),
        ("/stuck", "half", "killed"),
        ("/starts", "close", "killed"),
    ],
)
def test_left_while_a_process_runs(daemon: StartDaemon, path: str, how: str, rung: str) -> None:
    """The process of a job whose client leaves is dead within the grace, and is replaced."""
    grace = {"terminated": 30.0, "killed": 0.5}[rung]
    served = daemon(LEAVING, ["--process-size=2", f"--process-kill-grace={grace * 1e3:.0f}ms"])
    with served.connect() as neighbour, served.connect() as following:
        neighbour.post("/process", b"", "X-Request-ID: neighbour")
        its_pid = int(touched(served, "begun-neighbour").read_text())
        with served.connect() as victim:
            victim.post(path, b"", "X-Request-ID: victim")
            pid = int(touched(served, "begun-victim").read_text())
            began = time.monotonic()
            leave(victim, how)
        wait_until(lambda: pid not in served.worker_pids(), SOON, "the process is gone")
        seconds = time.monotonic() - began
        assert seconds < (10.0 if rung == "terminated" else grace + 2.0)
        assert rung == "terminated" or seconds > grace - 0.1
        if path == "/starts":
            child = int((served.directory / "sleep-victim").read_text())
            wait_until(lambda: child not in served.alive(), SOON, "what it had started is gone")
        wait_until(lambda: len(served.worker_pids()) == 2, SOON, "it is replaced")
        assert its_pid in served.worker_pids()
        following.post("/process", b"", "X-Request-ID: following")
        touched(served, "begun-following")
        open_gate(served)
        assert neighbour.response().body == b"neighbour"
        assert following.response().body == b"following"
    assert (served.directory / "ended-victim").exists() == (path == "/works")
    (line,) = served.log_lines("[victim]")
    assert f"{path} canceled (client_disconnected): {rung} after" in line
    assert pools(served)["process"]["restarts"] == 1
    no_error(served)


def test_left_while_threads_run(daemon: StartDaemon) -> None:
    """A thread's job is told that its client has left; whatever it returns then is dropped."""
    kinds = ["nothing", "bytes", "large", "json", "file", "stream"]
    kinds += ["generator", "full-speed", "check"]
    served = daemon(LEAVING, ["--thread-size=2"])
    with served.connect() as neighbour:
        neighbour.post("/thread", b"", "X-Request-ID: neighbour")
        touched(served, "begun-neighbour")
        for kind, how in zip(kinds, itertools.cycle(("close", "reset", "half")), strict=False):
            with served.connect() as victim:
                victim.post(f"/told/{kind}", b"", f"X-Request-ID: {kind}")
                touched(served, f"begun-{kind}")
                if kind in ("generator", "full-speed"):
                    assert victim.head().status == 200
                leave(victim, how)
            touched(served, f"told-{kind}")
            wait_until(lambda: pool(served, "thread") == (1, 0), SOON, "its slot is free")
        open_gate(served)
        assert neighbour.response().body == b"neighbour"
    idle(served)
    assert not (served.directory / "impossible-generator").exists()
    for kind in kinds:
        (line,) = served.log_lines(f"[{kind}]")
        assert f"/told/{kind} canceled (client_disconnected): told after" in line
        (line,) = served.log_lines(f"id={kind} ")
        assert '1.1" 499 ' in line
    no_error(served)


@pytest.mark.parametrize("name", ["thread", "process"])
def test_finishes_without_its_client(daemon: StartDaemon, name: str) -> None:
    """on_disconnect="finish": what runs goes on to its end, read or not; what waits is removed."""
    served = daemon(LEAVING, ["--thread-size=3", "--process-size=3"])
    idle(served)
    workers = served.worker_pids()
    with contextlib.ExitStack() as stack:
        for path, how in (("finish", "close"), ("finish", "half"), ("stream-finish", "reset")):
            victim = stack.enter_context(served.connect())
            victim.post(f"/{name}-{path}", b"", f"X-Request-ID: {path}-{how}")
            if path == "stream-finish":
                assert victim.head().status == 200
            touched(served, f"begun-{path}-{how}")
            if how == "reset":
                queued = stack.enter_context(served.connect())
                queued.post(f"/{name}-finish", b"", "X-Request-ID: queued")
                wait_until(lambda: pool(served, name) == (3, 1), SOON, "it waits")
                queued.close()
            leave(victim, how)
        wait_until(lambda: pool(served, name) == (3, 0), SOON, "the queued job is removed")
        open_gate(served)
        for ended in ("finish-close", "finish-half", "stream-finish-reset"):
            touched(served, f"ended-{ended}")
    idle(served)
    assert not (served.directory / "begun-queued").exists()
    assert served.worker_pids() == workers
    no_error(served)


CHURN = """
import json
import time

from deferpost import App

app = App()


def answer(call):
    wish = json.loads(call.body.readline())
    time.sleep(wish["seconds"])
    if wish["stream"]:
        return (b"x" * 50_000 for _ in range(wish["size"] // 50_000))
    return b"x" * wish["size"]


for name in ("thread", "process"):
    app.post(f"/{name}", pool=name)(answer)
    app.post(f"/{name}-finish", pool=name, on_disconnect="finish")(answer)


@app.post("/reactor")
@app.post("/reactor-finish", on_disconnect="finish")
async def on_reactor(call):
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    wish = json.loads(call.body.readline())
    await deferLater(reactor, wish["seconds"])
    return b"x" * wish["size"]
"""

LEAVINGS = ("sending", "waiting", "waiting", "reading", "staying")


def visit(daemon: Daemon, number: int) -> str:
    """A client that leaves sooner or later.

    :param number: from which all that it does derives.
    :returns: what it did.
    """
    dice = random.Random(number)
    name = dice.choice(POOLS)
    when = dice.choice(LEAVINGS)
    how = dice.choice(("close", "reset", "half"))
    # The largest do not fit into the buffers of the system: they are left in the middle.
    size = dice.choice((0, 1_000, 100_000) if when == "staying" else (1_000_000, 8_000_000))
    wish = {
        "seconds": dice.choice((0, dice.uniform(0, 0.02), 0.05)),
        "size": size,
        "stream": dice.random() < 0.5 and name != "reactor" and size > 1_000,
    }
    body = json.dumps(wish).encode() + b"\n" + bytes(dice.choice((0, 1_000, 200_000)))
    path = f"/{name}-finish" if dice.random() < 0.2 else f"/{name}"
    request = Post(path, body, f"visit-{number}").request()
    moment = dice.uniform(0, 0.05)
    with daemon.connect() as connection:
        if dice.random() < 0.3:
            connection.post("/thread", b'{"seconds": 0, "size": 5, "stream": false}\n')
            assert connection.response().body == b"xxxxx"
        if when == "sending":
            connection.send(request[: dice.randrange(len(request))])
            time.sleep(moment)
        else:
            connection.send(request)
            if when == "waiting":
                time.sleep(moment)
            elif when == "reading":
                assert connection.head().status == 200
                time.sleep(moment)
            else:
                response = connection.response()
                assert (response.status, len(response.body)) == (200, size)
                return f"{name} {when}"
        leave(connection, how)
    return f"{name} {when} {how}"


def test_a_thousand_clients_leave(daemon: StartDaemon, note: Note) -> None:
    """After 1,000 clients that left at random moments all is as it was before."""
    served = daemon(
        CHURN,
        ["--thread-size=4", "--process-size=2", "--process-kill-grace=500ms"],
        # Else the C library keeps what was freed, and how much of it is chance: see mallopt(3).
        environment={"MALLOC_TRIM_THRESHOLD_": "131072"},
    )
    numbers = iter(range(2**32))

    def come_and_go(count: int) -> None:
        with ThreadPoolExecutor(16) as clients:
            done = list(clients.map(lambda n: visit(served, n), itertools.islice(numbers, count)))
        assert len(set(done)) > 20, "of every kind"

    def at_rest() -> dict[str, str]:
        idle(served)
        wait_until(lambda: len(served.worker_pids()) == 2, SOON, "two workers")
        files: dict[str, str] = {}

        def is_same_twice() -> bool:
            nonlocal files
            before, files = files, open_files(served.pid)
            return before.keys() == files.keys()

        wait_until(is_same_twice, SOON, "the last connections are closed")
        return files

    come_and_go(250)
    files, before = at_rest(), memory(served.pid)
    began = time.monotonic()
    come_and_go(1_000)
    note("seconds", time.monotonic() - began)
    files_after, after = at_rest(), memory(served.pid)
    note("growth of memory in MiB", (after - before) / MIB)
    note("workers replaced", pools(served)["process"]["restarts"])
    assert len(files_after) == len(files), f"{files}\n{files_after}"
    assert after - before < 16 * MIB
    for name in POOLS:
        with served.connect() as connection:
            connection.post(f"/{name}", b'{"seconds": 0, "size": 9, "stream": false}\n')
            assert connection.response().body == b"x" * 9
    no_error(served)
    stop(served)


# Workers that are lost.

LOST = """
import hashlib
import itertools
import os
import subprocess
import time
from pathlib import Path

from deferpost import App, Reply

app = App()


@app.post("/work", pool="process")
class Work:
    def __init__(self):
        self.begun = open(f"worker-{os.getpid()}", "w", buffering=1)

    def __call__(self, call):
        print(call.id, file=self.begun)
        body = call.body.read()
        time.sleep(len(body) % 5 / 1000)
        digest = hashlib.sha256(call.id.encode() + b" " + body).hexdigest().encode()
        return Reply(digest + body[::-1], headers={"X-Handled": call.id})


def begin(call):
    Path(f"begun{call.route[1:]}").touch()


@app.post("/stuck", pool="process")
def stuck(call):
    begin(call)
    sum(itertools.repeat(0))  # never gives up the interpreter, and looks at no signal


@app.post("/starts", pool="process")
def starts(call):
    process = subprocess.Popen(["sleep", "1000"])
    begin(call)
    process.wait()


@app.post("/works", pool="process")
def works(call):
    begin(call)
    while True:
        pass
"""


def test_fifty_workers_are_killed(daemon: StartDaemon, note: Note) -> None:
    """A worker that is killed costs the one job that it had, which is told so; no other."""
    served = daemon(LOST, ["--process-size=4", "--access-log=no"])
    dice = random.Random(50)
    over = threading.Event()
    killed: list[int] = []

    def posts() -> Iterator[Post]:
        for number in itertools.count():
            if over.is_set():
                return
            yield digest_post("/work", number)

    def victims(experience: int) -> list[int]:
        """Workers that have begun so many jobs: one that only just starts has none to lose."""
        pids = set(served.worker_pids()) - set(killed)
        return sorted(pid for pid in pids if len(begun_by(pid)) >= experience)

    def begun_by(pid: int) -> list[str]:
        """The jobs that a worker has begun."""
        path = served.directory / f"worker-{pid}"
        return path.read_text().split() if path.exists() else []

    with ThreadPoolExecutor(1) as thread:
        answers = thread.submit(post_all, served.port, posts(), 16)
        try:
            for _ in range(50):
                find = partial(victims, dice.randrange(1, 30))
                pid = dice.choice(wait_until(find, SOON, "a worker has worked"))
                os.kill(pid, dice.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)))
                killed.append(pid)
        finally:
            over.set()
        lost = {each.post.id: each for each in answers.result() if each.status != 200}
    assert all(is_digest(each) for each in answers.result() if each.status == 200)
    for each in lost.values():
        assert each.status == 502, each
        assert each.headers["content-type"] == "application/problem+json"
        document = json.loads(each.body)
        assert (document["reason"], document["id"]) == ("worker_lost", each.post.id)
    note("answers", len(answers.result()))
    note("lost", len(lost))
    begun = {path: path.read_text().split() for path in sorted(served.directory.glob("worker-*"))}
    last = {ids[-1] for path, ids in begun.items() if ids and int(path.name[7:]) in killed}
    never = set(lost) - {id for ids in begun.values() for id in ids}
    assert set(lost) <= last | never, "only what a killed worker had"
    assert 20 < len(lost) <= 50
    assert sum(len(ids) for ids in begun.values()) == len(answers.result()) - len(never), "once"
    idle(served)
    wait_until(lambda: len(served.worker_pids()) == 4, SOON, "four workers")
    assert not set(killed) & set(served.worker_pids())
    answers_after = post_all(served.port, (digest_post("/work", n) for n in range(40)), 4)
    assert all(is_digest(each) for each in answers_after)
    assert "Traceback" not in served.log()
    stop(served)


def test_worker_is_killed_while_it_streams(daemon: StartDaemon) -> None:
    """A stream whose worker is killed is cut off: what came of it cannot be taken for the whole."""
    served = daemon(LEAVING, ["--process-size=1"])
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        with served.connect() as connection:
            connection.post("/ticks", b"", f"X-Request-ID: {number:d}")
            assert connection.head().status == 200
            os.kill(int(touched(served, f"begun-{number:d}").read_text()), number)
            assert not connection.rest().endswith(b"0\r\n\r\n")
    idle(served)
    assert "Traceback" not in served.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_orphan(daemon: StartDaemon, number: signal.Signals) -> None:
    """Nothing outlives the daemon, whatever its workers do and however it ends."""
    served = daemon(LOST, ["--process-size=4", "--grace=300ms"])
    with contextlib.ExitStack() as stack:
        for path in ("/stuck", "/starts", "/works"):
            stack.enter_context(served.connect()).post(path)
            touched(served, f"begun{path[1:]}")
        assert len(served.alive()) >= 6, "the daemon, its workers and sleep"
        served.send_signal(number)
        assert served.process.wait(10) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_until(lambda: not served.alive(), 2, "no process left")
    assert "Traceback" not in served.log()


# Large bodies.

SIZE = 200_000_000

LARGE = f"""
from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

from deferpost import App

SIZE = {SIZE}

{inspect.getsource(blocks)}

app = App()


@app.post("/upload", pool="process")
def upload(call):
    digest, size = hashlib.sha256(), 0
    while piece := call.body.read(65536):
        digest.update(piece)
        size += len(piece)
    return {{"sha256": digest.hexdigest(), "size": size}}


def generator(call):
    progress = os.open("progress", os.O_WRONLY | os.O_CREAT)
    size = 0
    try:
        for block in blocks(SIZE):
            size += len(block)
            os.pwrite(progress, b"%12d" % size, 0)
            yield block
    finally:
        os.close(progress)


def whole(call):
    buffer = io.BytesIO()
    buffer.writelines(blocks(SIZE))
    return buffer.getvalue()


def file(call):
    return Path("large")


for name in ("thread", "process"):
    app.post(f"/generator-{{name}}", pool=name)(generator)
    app.post(f"/bytes-{{name}}", pool=name)(whole)
    app.post(f"/file-{{name}}", pool=name)(file)
"""

LARGE_OPTIONS = ("--max-body=256MiB", "--temporary-directory=.", "--process-size=1")

#: By how many bytes the daemon's memory may grow for a body of any size.
BODY_GROWTH = 16 * MIB

#: Large replies, with what they may cost: of a thread, the handler itself makes the bytes.
REPLIES = {
    "/bytes-process": BODY_GROWTH,
    "/generator-process": BODY_GROWTH,
    "/file-process": BODY_GROWTH,
    "/generator-thread": BODY_GROWTH,
    "/file-thread": BODY_GROWTH,
    "/bytes-thread": SIZE + SIZE // 2 + BODY_GROWTH,
}


def large_digest() -> str:
    """The SHA-256 of every large reply, in hexadecimal."""
    digest = hashlib.sha256()
    for block in blocks(SIZE):
        digest.update(block)
    return digest.hexdigest()


def write_large_file(directory: Path) -> None:
    """Make the file that is the large reply."""
    with (directory / "large").open("wb") as file:
        file.writelines(blocks(SIZE))


def steady(value: Callable[[], object], seconds: float = 0.3) -> None:
    """Wait until something has not changed for a time."""
    seen, since = value(), time.monotonic()

    def is_steady() -> bool:
        nonlocal seen, since
        now = value()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= seconds

    wait_until(is_steady, SOON, f"it stays at {seen}")


def growth_of_upload(daemon: Daemon) -> int:
    """By how many bytes the daemon, which serves :data:`LARGE`, grows for a large body."""
    with daemon.connect() as connection:
        peak = PeakMemory(daemon.pid)
        digest = upload(connection, "/upload", SIZE)
        response = connection.response()
        assert (response.status, json.loads(response.body)) == (
            200,
            {"sha256": digest, "size": SIZE},
        )
        return peak.growth()


def growth_of_reply(daemon: Daemon, path: str, digest: str) -> int:
    """By how many bytes it grows for a large reply that is read with pauses."""
    peak = PeakMemory(daemon.pid)
    with Download(daemon, path) as download:
        download.read_head()
        steady(lambda: memory(daemon.pid))
        download.read(SIZE // 2)
        steady(lambda: memory(daemon.pid))
        assert download.read_all() == digest, path
        assert (download.response.status, download.response.size) == (200, SIZE)
    return peak.growth()


def test_large_upload(daemon: StartDaemon, note: Note) -> None:
    """200 MB posted to a process arrive whole, and hardly pass through the daemon's memory."""
    served = daemon(LARGE, LARGE_OPTIONS)
    growth = growth_of_upload(served)
    note("growth of memory in MiB", growth / MIB)
    assert growth <= BODY_GROWTH
    idle(served)
    wait_until(lambda: not unlinked_bytes(served.pid), SOON, "the disk is free again")
    no_error(served)


def test_large_replies(daemon: StartDaemon, note: Note) -> None:
    """200 MB to a slow reader arrive whole, and hardly pass through the daemon's memory."""
    served = daemon(LARGE, LARGE_OPTIONS)
    write_large_file(served.directory)
    digest = large_digest()
    for path, most in REPLIES.items():
        growth = growth_of_reply(served, path, digest)
        note(f"{path}: growth of memory in MiB", growth / MIB)
        assert growth <= most, path
    idle(served)
    wait_until(lambda: not unlinked_bytes(served.pid), SOON, "the disk is free again")
    no_error(served)


@pytest.mark.parametrize("name", ["thread", "process"])
def test_generator_waits_for_its_reader(daemon: StartDaemon, name: str, note: Note) -> None:
    """A generator stands still while its client reads nothing, and goes on when it reads."""
    served = daemon(LARGE, LARGE_OPTIONS)

    def progress() -> int:
        return int((served.directory / "progress").read_text() or 0)

    peak = PeakMemory(served.pid)
    with Download(served, f"/generator-{name}") as download:
        download.read_head()
        for step in range(3):
            steady(progress, 0.5)
            under_way = progress() - download.response.size
            note(f"bytes under way {step}", under_way)
            assert under_way <= 12 * MIB
            assert pool(served, name) == (1, 0)
            assert peak.growth() <= BODY_GROWTH
            before = progress()
            download.read(download.response.size + 40 * MIB)
            wait_until(lambda b=before: progress() >= b + 24 * MIB, SOON, "it goes on")  # type: ignore[misc]
        assert download.read_all() == large_digest()
    idle(served)
    no_error(served)


def test_worker_is_free_before_its_reply_is_read(daemon: StartDaemon) -> None:
    """The worker that made a large reply does other work while a slow client reads it."""
    served = daemon(LARGE, LARGE_OPTIONS)
    with Download(served, "/bytes-process") as download, served.connect() as other:
        download.read_head()
        assert pool(served, "process") == (0, 0)
        for _ in range(3):
            other.post("/upload", b"abc")
            assert json.loads(other.response().body)["size"] == 3
        assert download.response.size < MIB
        assert download.read_all() == large_digest()
    no_error(served)


KEEPER = """
from deferpost import App

app = App()


@app.post("/large")
def large(call):
    return b"x" * 50_000_000
"""


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "left"])
def test_reply_does_not_stay(daemon: StartDaemon, is_read: bool) -> None:
    """A large reply that was read, or whose client has left, takes no memory any more."""
    served = daemon(KEEPER)
    before = memory(served.pid)
    for _ in range(4):
        with Download(served, "/large") as download:
            download.read_head()
            if is_read:
                download.read_all()
    # None of them, rather than all but those that the collector has found.
    wait_until(lambda: memory(served.pid) < before + 25 * MIB, SOON, "the memory is free again")
    no_error(served)


# More than there is room for.

CROWDED = """
import os
import time
from pathlib import Path

from deferpost import App

app = App()


def ran(call):
    # Appended in one go, whichever process does it.
    log = os.open("ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, call.id.encode() + b"\\n")
    os.close(log)


def wait(call):
    ran(call)
    while not Path("gate").exists():
        time.sleep(0.01)
    return call.id


app.post("/thread")(wait)
app.post("/process", pool="process")(wait)


@app.post("/reactor")
async def on_reactor(call):
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    ran(call)
    await deferLater(reactor, 0)
    while not Path("gate").exists():
        await deferLater(reactor, 0.01)
    return call.id
"""


def is_refusal(status: int, headers: dict[str, str], body: bytes) -> bool:
    """Whether a response says that there is no room, and when to come again."""
    document = json.loads(body)
    return (
        status == 503
        and headers["content-type"] == "application/problem+json"
        and int(headers["retry-after"]) >= 1
        and (document["status"], document["reason"]) == (503, "pool_full")
        and document["id"] == headers["x-request-id"]
    )


@pytest.mark.parametrize("name", POOLS)
def test_crowd(daemon: StartDaemon, name: str) -> None:
    """What there is no room for is refused at once and never runs; all else is answered."""
    served = daemon(CROWDED, [f"--{name}-size=2", f"--{name}-max-waiting=3", "--access-log=no"])
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(40)]
        for number, connection in enumerate(connections):
            connection.post(f"/{name}", b"", f"X-Request-ID: early-{number}")
        unanswered = dict(enumerate(connections))
        while len(unanswered) > 5:
            ready = select.select([each.socket for each in unanswered.values()], [], [], SOON)[0]
            assert ready, f"{len(unanswered)} of 40 are neither refused nor answered"
            for number, connection in list(unanswered.items()):
                if connection.socket in ready:
                    response = connection.response()
                    assert is_refusal(response.status, response.headers, response.body), response
                    del unanswered[number]
        wait_until(lambda: pool(served, name) == (2, 3), SOON, "it is full, and no more")
        open_gate(served)
        for number, connection in unanswered.items():
            assert connection.response().body == f"early-{number}".encode()
    posts = (Post(f"/{name}", b"", f"rush-{number}") for number in range(1_000))
    answers = post_all(served.port, posts, 40)
    accepted = [f"early-{number}" for number in unanswered]
    for each in answers:
        if each.status == 200:
            assert each.body == each.post.id.encode()
            accepted.append(each.post.id)
        else:
            assert is_refusal(each.status, each.headers, each.body), each
    assert len(answers) == 1_000
    assert 5 < len(accepted) < 1_005, "some of either"
    assert sorted((served.directory / "ran").read_text().split()) == sorted(accepted), "each once"
    idle(served)
    no_error(served)


# Hostile bytes.

STRICT = """
import hashlib

from deferpost import App

app = App()


def size(call):
    return str(len(call.body.read()))


app.post("/thread")(size)
app.post("/process", pool="process")(size)
"""

CHUNKED = "Transfer-Encoding: chunked"

MEGABYTE = 1_000_000


def still_serves(daemon: Daemon) -> None:
    """Check that others are served."""
    for path in ("/thread", "/process"):
        with daemon.connect() as connection:
            connection.post(path, b"abc")
            assert connection.response().body == b"3"


def framed(data: bytes) -> bytes:
    """Data as one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize("field", [CHUNKED, "Content-Length: 1000000000000"])
def test_body_without_end(daemon: StartDaemon, field: str, note: Note) -> None:
    """Of a body that never ends no more is kept than the largest that is allowed, anywhere."""
    served = daemon(STRICT, ["--max-body=1MB", "--temporary-directory=.", "--process-size=1"])
    still_serves(served)
    files = len(open_files(served.pid))
    piece = bytes(64 * 1024)
    piece = framed(piece) if field == CHUNKED else piece
    disk = [0]
    peak = PeakMemory(served.pid)
    with served.connect() as endless:
        endless.send(f"POST /process HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):  # it is refused, and not read for ever
            for number in range(2_000):
                endless.send(piece)
                if number < 50 or number % 100 == 0:
                    disk.append(unlinked_bytes(served.pid))
        note("growth of memory in MiB", peak.growth() / MIB)
        note("most on disk", max(disk))
        assert peak.growth() < 4 * MIB
        assert max(disk) <= 1.1 * MEGABYTE
        assert disk[-1] == 0
        still_serves(served)
    wait_until(lambda: len(open_files(served.pid)) <= files, SOON, "it is let go")
    no_error(served)


@pytest.mark.parametrize("path", ["/thread", "/process"])
def test_body_too_large(daemon: StartDaemon, path: str) -> None:
    """A body over the bound is 413, however it is framed; one at the bound is not."""
    served = daemon(STRICT, ["--max-body=1MB", "--process-size=1"])
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\n{CHUNKED}\r\n\r\n".encode()
    for size, status in ((MEGABYTE, 200), (MEGABYTE + 1, 413), (3 * MEGABYTE, 413)):
        with served.connect() as first, served.connect() as second:  # a refusal is the last
            first.post(path, bytes(size))
            declared = first.response()
            pieces = (framed(bytes(each)) for each in (1, size // 2, size - size // 2 - 1, 0))
            second.send(head + b"".join(pieces))
            chunked = second.response()
            for response in (declared, chunked):
                assert response.status == status
                if status == 413:
                    assert response.headers["content-type"] == "application/problem+json"
                    assert json.loads(response.body)["reason"] == "body_too_large"
                else:
                    assert response.body == b"%d" % size
    still_serves(served)
    no_error(served)


def test_body_in_tiny_pieces(daemon: StartDaemon, note: Note) -> None:
    """100,000 pieces of one byte make a body like any other, sent one by one or as chunks."""
    served = daemon(STRICT, ["--process-size=1"])
    count = 100_000
    for path in ("/thread", "/process"):
        with served.connect() as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            connection.send(f"POST {path} HTTP/1.1\r\nContent-Length: {count}\r\n".encode())
            connection.send(b"Host: test\r\n\r\n")
            for _ in range(count):
                connection.send(b"x")
            assert connection.response().body == b"%d" % count
            note(f"{path}: seconds, bytes", time.monotonic() - began)
            began = time.monotonic()
            connection.send(f"POST {path} HTTP/1.1\r\nHost: test\r\n{CHUNKED}\r\n\r\n".encode())
            connection.send(framed(b"x") * count + framed(b""))
            assert connection.response().body == b"%d" % count
            note(f"{path}: seconds, chunks", time.monotonic() - began)
    no_error(served)


def post_head(*lines: str) -> bytes:
    """The head of a POST with these further lines."""
    return "\r\n".join(["POST /thread HTTP/1.1", "Host: test", *lines, "", ""]).encode("latin-1")


#: What is no request, or none that can be answered with success.
BAD_BYTES = {
    "random": random.Random(1).randbytes(100_000),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "zeros": bytes(100_000),
    "lines": b"\r\n" * 50_000,
    "one long line": b"P" * 1_000_000,
    "long path": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
    "no version": b"POST /thread\r\n\r\n",
    "many words": b"POST /thread HTTP/1.1 and more\r\n\r\n",
    "negative length": post_head("Content-Length: -1"),
    "length in words": post_head("Content-Length: three"),
    "two lengths": post_head("Content-Length: 3", "Content-Length: 4") + b"abcd",
    "length and chunks": post_head("Content-Length: 3", CHUNKED) + framed(b"abc") + framed(b""),
    "unknown coding": post_head("Transfer-Encoding: gzip") + b"abc",
    "bad chunk size": post_head(CHUNKED) + b"xyz\r\nabc\r\n",
    "negative chunk size": post_head(CHUNKED) + b"-3\r\nabc\r\n",
    "chunk that is longer": post_head(CHUNKED) + b"3\r\nabcdef\r\n0\r\n\r\n",
    "endless chunk size": post_head(CHUNKED) + b"0" * 1_000_000,
    "endless chunk extension": post_head(CHUNKED) + b"1;" + b"x" * 1_000_000,
    "endless trailer": post_head(CHUNKED) + b"0\r\n" + b"X-Trailer: yes\r\n" * 100_000,
    "no colon": post_head("this is no field"),
    "no name": post_head(": value"),
    "zero in a field": post_head("X-Zero: a\0b"),
    "long field": post_head("X-Long: " + "x" * 100_000),
    "a thousand fields": post_head(*[f"X-Field-{number}: yes" for number in range(1_000)]),
}


def test_bad_bytes(daemon: StartDaemon) -> None:
    """What is no request is refused, or its connection ends, and it harms nobody else."""
    served = daemon(STRICT, ["--process-size=1", "--max-body=1MB"])
    still_serves(served)
    files = len(open_files(served.pid))
    peak = PeakMemory(served.pid)
    for name, data in BAD_BYTES.items():
        with served.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it need not read all of it
                connection.send(data)
            answer = connection.rest()
            assert re.match(rb"HTTP/1\.[01] (4\d\d|501) |$", answer), (name, answer[:200])
    assert peak.growth() < 8 * MIB
    still_serves(served)
    wait_until(lambda: len(open_files(served.pid)) <= files, SOON, "all are closed")
    no_error(served)


def test_half_open_connections(daemon: StartDaemon) -> None:
    """Hundreds of requests that are never completed keep nobody else from being served."""
    served = daemon(STRICT, ["--process-size=1"], listen=MANY)
    still_serves(served)
    files = len(open_files(served.pid))
    with contextlib.ExitStack() as stack:
        for number in range(400):
            whole = Post("/process", b"x" * 100, f"half-{number}").request()
            connection = stack.enter_context(served.connect())
            connection.send(whole[: number * len(whole) // 400])
        still_serves(served)
        assert probe(served, 50).median < 50
        assert pool(served, "process") == (0, 0)
    wait_until(lambda: len(open_files(served.pid)) <= files, SOON, "all are closed")
    no_error(served)


def test_many_and_strange_headers(daemon: StartDaemon) -> None:
    """Hundreds of fields are fine where they may be; a strange id is not taken up."""
    served = daemon(STRICT, ["--process-size=1", "--max-headers=500"])
    with served.connect() as connection:
        connection.post("/process", b"abc", *[f"X-Field-{number}: yes" for number in range(400)])
        assert connection.response().body == b"3"
        connection.post("/process", b"abc", f"X-Request-ID: {'i' * 128}")
        assert connection.response().headers["x-request-id"] == "i" * 128
        for strange in ("i" * 129, "i" * 10_000, "two words", "caf\xe9", "", "a\tb"):
            connection.post("/process", b"abc", f"X-Request-ID: {strange}")
            response = connection.response()
            assert response.body == b"3"
            assert re.fullmatch("[0-9a-f]{24}", response.headers["x-request-id"])
    no_error(served)


FORMS = """
from deferpost import App

app = App()


def form(call):
    return str(len(call.form()))


app.post("/thread")(form)
app.post("/process", pool="process")(form)
"""

MULTIPART = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"


def part(number: int, more: str = "") -> bytes:
    """A part of a form."""
    disposition = f'Content-Disposition: form-data; name="f{number}"{more}'
    return f"--b\r\n{disposition}\r\n\r\nx\r\n".encode()


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "fields": (MULTIPART, lambda: b"".join(map(part, range(100_000))) + b"--b--"),
    "files": (
        MULTIPART,
        lambda: b"".join(part(n, f'; filename="{n}"') for n in range(100_000)) + b"--b--",
    ),
    "header lines": (MULTIPART, lambda: b"--b\r\n" + b"X: y\r\n" * 1_000_000),
    "long header": (MULTIPART, lambda: b"--b\r\nContent-Disposition: " + b"x" * 10_000_000),
    "boundaries": (MULTIPART, lambda: b"--b\r\n" * 1_000_000),
    "almost boundaries": (MULTIPART, lambda: part(1) + b"\r\n--" * 2_000_000),
    "no end": (MULTIPART, lambda: part(1)[:-2] + bytes(10_000_000)),
    "pairs": (URLENCODED, lambda: b"&".join(b"f%d=x" % n for n in range(100_000))),
    "long": (URLENCODED, lambda: b"a=" + b"%41" * 5_000_000),
    "broken": (URLENCODED, lambda: b"a=" + b"%" * 1_000_000),
}


def test_form_bombs(daemon: StartDaemon, note: Note) -> None:
    """A form that is made to cost much is refused soon, and hurts nobody meanwhile."""
    served = daemon(FORMS, ["--process-size=1"])
    for name, (content_type, make) in BOMBS.items():
        body = make()
        for path in ("/thread", "/process"):
            with served.connect() as connection:
                began = time.monotonic()
                connection.post(path, body, f"Content-Type: {content_type}")
                response = connection.response()
                seconds = time.monotonic() - began
                note(f"{name}, {path}: seconds", seconds)
                assert response.status in (400, 413), (name, path, response)
                assert response.headers["content-type"] == "application/problem+json"
                assert len(response.body) < 1_000
                assert seconds < 10, (name, path)
                connection.post(path, b"a=1&b=2", f"Content-Type: {URLENCODED}")
                assert connection.response().body == b"2"
    idle(served)
    no_error(served)
