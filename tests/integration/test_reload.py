"""SIGHUP as an operator sends it: new code and settings, no call lost, and broken versions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import (
    ANY_PORT,
    DEFERPOST,
    TWISTD,
    Connection,
    Daemon,
    children,
    until,
    wait_until,
)
from tests.integration.test_daemon import certify

pytestmark = pytest.mark.integration

#: An app whose answers name its version.  Its processes are set up when the gate of the version is
#: open, if there is one.
APP = """
import os
import threading
import time
from pathlib import Path

from deferpost import App, ProcessPool

import {lower}

VERSION = "{version}"
app = App(pools={{"process": ProcessPool(size={size}, kill_grace=0.1)}})


def wait(name):
    Path(f"begun-{{name}}").touch()
    while not Path(f"gate-{{name}}").exists():
        time.sleep(0.005)


@app.post("/thread")
def in_thread(call):
    return f"thread {{VERSION}} {{{lower}.NAME}}"


@app.post("/reactor")
async def on_reactor(call):
    return f"reactor {{VERSION}}"


@app.post("/gated")
def gated(call):
    name = call.body.read().decode()
    wait(name)
    import {lower}
    return f"gated {{VERSION}}"


@app.post("/stream", stream=True)
def stream(call):
    Path("begun-stream").touch()
    return f"stream {{VERSION}} {{len(call.body.read())}}"


@app.post("/process", pool="process")
class InProcess:
    def __init__(self):
        {set_up}

    def __call__(self, call):
        name = call.body.read().decode()
        if name:
            wait(name)
        return f"process {{VERSION}}"
"""


#: Any free port of another address of this machine.
OTHER_PORT = "tcp:0:interface=127.0.0.2"


def write_app(
    directory: Path, version: str, set_up: str = "pass", lower: str = "lower", size: int = 1
) -> None:
    """Write a version of the app, with a module that it imports."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lower.py").write_text(f"NAME = 'lower {version}'\n")
    text = APP.format(version=version, set_up=set_up, lower=lower, size=size)
    (directory / "served.py").write_text(text)


@pytest.fixture
def served(daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """A daemon with the first version, configured by a file."""
    directory = tmp_path / "served"
    write_app(directory, "first")
    configure(directory)
    return start(daemon, directory)


def configure(directory: Path, *lines: str, listen: str = ANY_PORT) -> None:
    """Write the file of the configuration."""
    text = "\n".join(['app = "served:app"', f"listen = {json.dumps(listen.split())}", *lines])
    (directory / "deferpost.toml").write_text(text + "\n")


def start(daemon: StartDaemon, directory: Path, **further: object) -> Daemon:
    """Start a daemon with the file of its folder; the same text can be written anew in a second."""
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    return daemon(
        None,
        ["--config=deferpost.toml"],
        directory=directory,
        listen=(),
        environment=environment,
        **further,
    )


def ask(daemon: Daemon, path: str, body: bytes = b"") -> str:
    """What a POST on a connection of its own is answered."""
    with daemon.connect() as connection:
        return post(connection, path, body)


def post(connection: Connection, path: str, body: bytes = b"") -> str:
    """What a POST is answered."""
    connection.post(path, body)
    response = connection.response()
    assert response.status == 200, response
    return response.body.decode()


def open_gate(daemon: Daemon, name: str) -> None:
    """Let what waits by this name go on."""
    (daemon.directory / f"gate-{name}").touch()


async def begun(daemon: Daemon, name: str) -> None:
    """Wait until what waits by this name has begun."""
    path = daemon.directory / f"begun-{name}"
    await until(path.exists, 10, lambda: f"{name} has begun\n{daemon.log()}")


async def reloaded(daemon: Daemon, count: int = 1) -> None:
    """Wait until it has reloaded so many times since its start."""
    await until(
        lambda: len(daemon.log_lines("#info] reloaded in ")) >= count,
        15,
        lambda: f"{count} reloads\n{daemon.log()}",
    )


def descriptors(daemon: Daemon) -> int:
    """How many descriptors it has open."""
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def threads(daemon: Daemon) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{daemon.pid}/task"))


@contextlib.contextmanager
def load(daemon: Daemon) -> Iterator[dict[str, list[str]]]:
    """Clients that post all the time, with connections that they keep and new ones.

    :returns: the answers of each path, in order; something else than 200 is an answer too.
    """
    ended = threading.Event()
    answers: dict[str, list[str]] = {}

    def client(path: str, keep: bool) -> None:
        mine = answers.setdefault(f"{path} kept" if keep else path, [])
        connection = daemon.connect()
        while not ended.is_set():
            try:
                connection.post(path)
                response = connection.response()
                mine.append(f"{response.status} {response.body.decode()}")
            except Exception as error:
                mine.append(repr(error))
                break
            if not keep:
                connection.close()
                connection = daemon.connect()
        connection.close()

    clients = [
        threading.Thread(target=client, args=(path, keep))
        for path in ("/thread", "/process", "/reactor")
        for keep in (True, False)
    ]
    for each in clients:
        each.start()
    try:
        yield answers
    finally:
        ended.set()
        for each in clients:
            each.join()


@pytest_twisted.ensureDeferred
async def test_new_code_under_load(served: Daemon) -> None:
    """SIGHUP under load: every call is answered, at first by the old code and then by the new."""
    assert ask(served, "/process") == "process first"
    assert ask(served, "/thread") == "thread first lower first"
    (worker,) = served.worker_pids()
    before = descriptors(served), threads(served)
    with load(served) as answers, served.connect() as late, served.connect() as uploading:
        late.post("/gated", b"late")
        await begun(served, "late")
        # One whose handler reads it as it comes, and one that is kept until it is whole.
        uploading.request("POST", "/stream", None, "Content-Length: 8")
        uploading.send(b"four")
        await begun(served, "stream")
        whole = served.connect()
        whole.request("POST", "/thread", None, "Content-Length: 8")
        whole.send(b"four")
        await until(lambda: len(answers) == 6 and all(answers.values()), 10, "calls are answered")
        write_app(served.directory, "second")
        served.send_signal(signal.SIGHUP)
        await reloaded(served)
        # A moment later each client has asked once more.
        counts = {name: len(given) for name, given in answers.items()}
        await until(
            lambda: all(len(answers[name]) > count + 1 for name, count in counts.items()),
            10,
            "calls are answered",
        )
        assert worker in served.worker_pids(), "the old one has work left"
        assert not served.log_lines("the version before has ended")
        open_gate(served, "late")
        assert late.response().body == b"gated first"
        uploading.send(b"more")
        assert uploading.response().body == b"stream first 8"
        whole.send(b"more")
        assert whole.response().body == b"thread first lower first"
        whole.close()
    for name, given in answers.items():
        kind = name.split()[0][1:]
        old = [answer for answer in given if answer.startswith(f"200 {kind} first")]
        new = [answer for answer in given if answer.startswith(f"200 {kind} second")]
        assert given == old + new, name
        assert old, name
        assert new, name
    assert ask(served, "/thread") == "thread second lower second"
    await served.logged("the version before has ended")
    await until(lambda: worker not in served.worker_pids(), 5, "the old worker is gone")
    assert len(served.worker_pids()) == 1
    # Threads are started as they are needed: not more than the size of the pool.
    await until(lambda: descriptors(served) <= before[0], 5, "no descriptor is left open")
    assert threads(served) <= before[1] + 5
    assert await served.stop() == 0
    await served.gone()
    assert "Traceback" not in served.log()


BROKEN = {
    "does not import": ("broken = (", "the module served does not import: SyntaxError"),
    "misses a module": ("import surely_not_there", "No module named 'surely_not_there'"),
    "is gone": ("app = None", "served:app is neither an App nor a handler"),
    "exits": ("raise SystemExit(1)", "the module served does not import: SystemExit"),
}


@pytest_twisted.ensureDeferred
async def test_broken_versions(served: Daemon) -> None:
    """Whatever is wrong with a new version is in the log, and the old one stays in service."""
    directory = served.directory
    with served.connect() as kept:
        assert post(kept, "/process") == "process first"
        workers = served.worker_pids()
        failures = 0

        async def refused(why: str) -> None:
            nonlocal failures
            served.send_signal(signal.SIGHUP)
            failures += 1
            await until(
                lambda: len(served.log_lines("not reloaded, what was served")) == failures,
                15,
                lambda: f"{why!r}\n{served.log()}",
            )
            said = served.log().rpartition("not reloaded, what was served before still is: ")[2]
            assert why in said
            assert post(kept, "/process") == ask(served, "/process") == "process first"
            assert ask(served, "/thread") == "thread first lower first"
            assert ask(served, "/reactor") == "reactor first"
            await until(lambda: served.worker_pids() == workers, 5, "no worker is left over")

        for text, why in BROKEN.values():
            write_app(directory, "broken")
            with (directory / "served.py").open("a") as file:
                file.write(text + "\n")
            await refused(why)
        write_app(directory, "broken", set_up="raise ValueError('no model')")
        await refused("no worker of the pool process could be set up")
        assert "ValueError: no model" in served.log()
        write_app(directory, "broken", set_up="wait('set-up')")
        configure(directory, 'reload_timeout = "300ms"')
        await refused("no worker of the pool process was set up within 300ms")
        write_app(directory, "broken")
        configure(directory, 'timeout = "soon"')
        await refused("deferpost.toml:3: timeout: 'soon' is not a duration")
        taken = f"tcp:{served.port}:interface=127.0.0.1"
        configure(directory, listen=f"{ANY_PORT} {OTHER_PORT} {taken}")
        await refused(f"cannot listen on {taken}: Address already in use")
        with pytest.raises(ConnectionRefusedError):  # the one before it is closed again
            socket.create_connection(("127.0.0.2", served.ports[1]), 10).close()
        (directory / "deferpost.toml").unlink()
        await refused("cannot read the configuration deferpost.toml: No such file")
        configure(directory, listen="tcp:0:interface=127.0.0.1 systemd:domain=INET:index=0")
        await refused("systemd has handed over no such socket")

        write_app(directory, "whole")
        configure(directory)
        served.send_signal(signal.SIGHUP)
        await reloaded(served)
        assert post(kept, "/process") == "process whole"
        assert ask(served, "/thread") == "thread whole lower whole"
        (pool,) = [
            pool
            for pool in json.loads(get(served, "/readyz"))["pools"]
            if pool["kind"] == "process"
        ]
        assert pool["restarts"] == 0


def get(daemon: Daemon, path: str) -> bytes:
    """What a GET is answered."""
    with daemon.connect() as connection:
        connection.request("GET", path)
        return connection.response("GET").body


@pytest_twisted.ensureDeferred
async def test_signals_meanwhile(served: Daemon) -> None:
    """SIGHUP during a reload runs after it, a killed worker does not spoil it, SIGTERM ends it."""
    assert ask(served, "/process") == "process first"
    old = served.worker_pids()
    write_app(served.directory, "second", set_up="wait('second')")
    served.send_signal(signal.SIGHUP)
    await begun(served, "second")
    served.send_signal(signal.SIGHUP)
    await served.logged("told to reload while it reloads")
    (new,) = set(served.worker_pids()) - set(old)
    os.kill(new, signal.SIGKILL)
    (served.directory / "begun-second").unlink()
    await begun(served, "second")  # in another worker
    write_app(served.directory, "third")
    open_gate(served, "second")
    await reloaded(served, 2)
    assert ask(served, "/process") == "process third"
    assert ask(served, "/thread") == "thread third lower third"

    write_app(served.directory, "fourth", set_up="wait('fourth')")
    served.send_signal(signal.SIGHUP)
    await begun(served, "fourth")
    assert await served.stop() == 0
    await served.gone()
    assert "the daemon is told to stop" in served.log()
    assert "Traceback" not in served.log()


@pytest_twisted.ensureDeferred
async def test_old_work_at_the_end(served: Daemon) -> None:
    """SIGTERM after a reload waits for the old version too, and at the end of the grace cancels."""
    with served.connect() as first, served.connect() as second:
        first.post("/process", b"first")
        await begun(served, "first")
        write_app(served.directory, "second")
        configure(served.directory, 'grace = "400ms"')
        served.send_signal(signal.SIGHUP)
        await reloaded(served)
        second.post("/process", b"second")
        await begun(served, "second")
        served.send_signal(signal.SIGTERM)
        for connection in (first, second):
            response = connection.response()
            assert response.status == 503
            assert json.loads(response.body)["reason"] == "shutdown"
    assert await served.wait(10) == 0
    await served.gone()


@pytest_twisted.ensureDeferred
async def test_listen_changes(daemon: StartDaemon, tmp_path: Path) -> None:
    """New endpoints are opened, others closed, the same ones stay; certificates are read again."""
    directory = tmp_path / "served"
    write_app(directory, "first")
    certificate, key = certify(directory)
    tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    path = directory / "socket"
    configure(directory, listen=f"{ANY_PORT} {tls} unix:{path}")
    served = start(daemon, directory)
    served.wait_listening(3)
    plain, encrypted = served.ports

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", encrypted))

    before = shown()
    assert before == certificate.read_text()
    with served.connect() as kept, Connection.unix(path) as over_unix:
        assert post(kept, "/thread") == post(over_unix, "/thread") == "thread first lower first"
        certify(directory)
        write_app(directory, "second")
        configure(directory, 'wire = "stock"', listen=f"{ANY_PORT} {tls} {OTHER_PORT}")
        served.send_signal(signal.SIGHUP)
        await reloaded(served)
        assert shown() == certificate.read_text() != before
        assert served.ports[:2] == [plain, encrypted]
        third = served.ports[2]
        await until(lambda: not path.exists(), 5, "the Unix socket is closed")
        # Connections that were there stay, those of a port that is closed too.
        assert post(kept, "/thread") == post(over_unix, "/thread") == "thread second lower second"
    assert ask(served, "/thread") == "thread second lower second"
    with Connection(socket.create_connection(("127.0.0.2", third), 10)) as connection:
        assert post(connection, "/process") == "process second"
    # And back, with a connection of the other wire.
    with served.connect() as stock:
        assert post(stock, "/thread") == "thread second lower second"
        configure(directory, listen=f"{ANY_PORT} {tls}")
        served.send_signal(signal.SIGHUP)
        await reloaded(served, 2)
        assert post(stock, "/thread") == "thread second lower second"
        served.send_signal(signal.SIGTERM)
        assert await served.wait(5) == 0
        assert stock.is_closed()


@pytest_twisted.ensureDeferred
async def test_in_the_background_from_elsewhere(daemon: StartDaemon, tmp_path: Path) -> None:
    """With twistd in the background, and another folder to run in, the first folder is read."""
    directory, elsewhere = tmp_path / "served", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_app(directory, "first")
    configure(directory)
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    command = (
        *TWISTD[:3],
        f"--pidfile={pid_file}",
        f"--logfile={log}",
        f"--rundir={elsewhere}",
        "deferpost",
    )
    launched = start(daemon, directory, command=command, listening=False)
    assert await launched.wait(20) == 0
    launched.log_path = log
    await until(lambda: log.exists() and launched.places(), 10, "it listens")
    pid = int(pid_file.read_text())
    assert ask(launched, "/process") == "process first"
    write_app(directory, "second")
    os.kill(pid, signal.SIGHUP)
    await reloaded(launched)
    assert ask(launched, "/process") == "process second"
    assert ask(launched, "/thread") == "thread second lower second"
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not launched.alive(), 10, launched.log)


#: Runs what follows in a terminal of its own, which is closed when there is a file "close".
IN_TERMINAL = (
    sys.executable,
    "-c",
    "import os, pty, sys, time\n"
    "output = os.dup(1)\n"
    "pid, terminal = pty.fork()\n"
    "if not pid:\n"
    "    os.dup2(output, 1)\n"
    "    os.dup2(output, 2)\n"
    "    os.execv(sys.argv[1], sys.argv[1:])\n"
    "while not os.path.exists('close'):\n"
    "    time.sleep(0.01)\n"
    "os.close(terminal)\n"
    "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
)


@pytest_twisted.ensureDeferred
async def test_the_terminal_is_closed(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon in the foreground of a terminal reloads by SIGHUP, and ends with the terminal."""
    directory = tmp_path / "served"
    write_app(directory, "first")
    configure(directory)
    served = start(daemon, directory, command=(*IN_TERMINAL, *DEFERPOST))
    assert ask(served, "/process") == "process first"
    write_app(directory, "second")
    (pid,) = children(served.pid)
    os.kill(pid, signal.SIGHUP)
    await reloaded(served)
    assert ask(served, "/process") == "process second"
    (directory / "close").touch()
    assert await served.wait(10) == 0
    await served.gone()
    assert len(served.log_lines("reloading: ")) == 1
