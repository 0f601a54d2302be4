"""The daemon under systemd: its notifications, sockets that it is handed, and its units."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import ANY_PORT, DEFERPOST, Connection, clean_environment, until
from tests.required import required

pytestmark = pytest.mark.integration

ETC = Path(__file__).resolve().parents[2] / "etc"

APP = """
import os
import time
from pathlib import Path

from deferpost import App, ProcessPool

app = App(pools={"one": ProcessPool(size=1)})


@app.post("/environment", pool="one")
class Environment:
    def __init__(self):
        while not Path("gate").exists():
            time.sleep(0.005)

    def __call__(self, call):
        return sorted(os.environ)


@app.post("/block")
async def block(call):
    time.sleep(float(call.body.read()))
    return "turned again"
"""

#: Runs what follows with variables that name its own process, as systemd does.
AS_MAIN = (
    sys.executable,
    "-c",
    "import os, sys\n"
    "for name in ('WATCHDOG_PID', 'LISTEN_PID'):\n"
    "    os.environ[name] = str(os.getpid())\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)


@pytest_twisted.ensureDeferred
async def test_notifications(daemon: StartDaemon, tmp_path: Path) -> None:
    """systemd hears when workers are ready, of reloads and the end, and that the reactor turns."""
    directory = tmp_path / "served"
    directory.mkdir()
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def hear(wanted: str) -> Callable[[], bool]:
            def look() -> bool:
                try:
                    while True:
                        heard.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return any(wanted in message for message in heard)

            return look

        served = daemon(
            APP,
            directory=directory,
            command=(*AS_MAIN, *DEFERPOST),
            environment={
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "100000",
                "LISTEN_FDS": "0",
                "LISTEN_FDNAMES": "",
            },
        )
        await until(hear("WATCHDOG=1"), 15, "it is alive")
        assert not hear("READY=1")(), "its workers are not ready"
        (directory / "gate").touch()
        await until(hear("READY=1\nSTATUS=serving served:app"), 15, lambda: f"{heard}")
        with served.connect() as connection:
            connection.post("/environment")
            names = connection.response().body.decode()
            assert "PATH" in names
            assert not re.search("NOTIFY|WATCHDOG|LISTEN", names), names

            # A reactor that stands still says nothing.
            heard.clear()
            connection.post("/block", b"0.6")
            assert connection.response().body == b"turned again"
            hear("")()
            # Else there were twelve; some came before and after.
            assert heard.count("WATCHDOG=1") <= 7, heard

        heard.clear()
        served.send_signal(signal.SIGHUP)
        await until(hear("READY=1"), 15, lambda: f"{heard}")
        first, second = [message for message in heard if message != "WATCHDOG=1"]
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=reloading", first)
        assert second == "READY=1\nSTATUS=serving served:app, reloaded"
        heard.clear()
        (directory / "served.py").write_text("broken = (")
        served.send_signal(signal.SIGHUP)
        await until(hear("READY=1"), 15, lambda: f"{heard}")
        assert hear("STATUS=serving as before, since the reload failed: the module served does")()
        assert await served.stop() == 0
        assert hear("STOPPING=1")()


@pytest_twisted.ensureDeferred
async def test_never_ready(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon whose workers cannot be set up says that it is ready when a reload has mended it."""
    directory = tmp_path / "served"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def said(wanted: str) -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.append(listener.recv(4096).decode())
            return any(wanted in message for message in heard)

        served = daemon(
            APP.replace("while not", "raise ValueError\n        while not"),
            directory=directory,
            environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        await served.logged("could not be set up", 15)
        served.send_signal(signal.SIGHUP)
        await until(lambda: said("since the reload failed"), 15, lambda: f"{heard}")
        assert not said("READY=1")
        (directory / "served.py").write_text(APP)
        (directory / "gate").touch()
        served.send_signal(signal.SIGHUP)
        await until(lambda: said("READY=1"), 15, lambda: f"{heard}")
        with served.connect() as connection:
            connection.post("/environment")
            assert connection.response().status == 200


@pytest_twisted.ensureDeferred
async def test_socket_activation(daemon: StartDaemon, tmp_path: Path) -> None:
    """A socket that systemd has opened serves, and goes on doing so after a reload."""
    activate = required("systemd-socket-activate", "systemd")
    path, directory = tmp_path / "socket", tmp_path / "served"
    directory.mkdir()
    (directory / "gate").touch()
    (directory / "served.py").write_text(APP)
    handed = "systemd:domain=UNIX:name=http"

    def configure(*listen: str) -> None:
        (directory / "deferpost.toml").write_text(f"app = 'served:app'\nlisten = {[*listen]}\n")

    configure(handed)
    served = daemon(
        None,
        ["--config=deferpost.toml"],
        directory=directory,
        # What it starts gets none of its environment by itself.
        command=(
            *(activate, f"--listen={path}", "--fdname=http"),
            *(f"--setenv={name}" for name in clean_environment()),
            "--setenv=INTEGRATION_TEST_MARK",
            *DEFERPOST,
        ),
        listen=(),
        listening=False,
    )
    await until(path.exists, 10, served.log)
    with Connection.unix(path) as first:  # which starts it
        first.post("/environment")
        response = first.response()
        assert response.status == 200
        assert b"LISTEN" not in response.body
        configure(handed, ANY_PORT)
        served.send_signal(signal.SIGHUP)
        await served.logged("reloaded in")
        with Connection.unix(path) as second:
            second.post("/block", b"0")
            assert second.response().status == 200
        configure(ANY_PORT)
        served.send_signal(signal.SIGHUP)
        await until(lambda: len(served.log_lines("reloaded in")) == 2, 10, served.log)
        configure(ANY_PORT, handed)
        served.send_signal(signal.SIGHUP)
        await served.logged(f"{handed}: a socket of systemd can be taken only at the start")
        first.post("/block", b"0")
        assert first.response().status == 200
    assert await served.stop() == 0
    assert path.exists(), "it is systemd's"


def test_units(tmp_path: Path) -> None:
    """The units are what systemd understands, to the last option."""
    analyze = required("systemd-analyze", "systemd")

    def verify(text: str) -> str:
        (tmp_path / "deferpost.service").write_text(text)
        done = subprocess.run(
            [
                analyze,
                "verify",
                "--man=no",
                "--recursive-errors=no",
                *sorted(map(str, tmp_path.iterdir())),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return f"{done.stderr}{done.stdout}" or f"status {done.returncode}"

    shutil.copy(ETC / "deferpost.socket", tmp_path)
    text = (ETC / "deferpost.service").read_text()
    # It looks whether the command is there.
    installed = text.replace("/opt/deferpost/bin/deferpost", sys.executable)
    assert installed != text
    assert verify(installed) == "status 0"
    assert "Unknown" in verify(installed.replace("KillMode=", "KilMode="))


def test_times_of_the_unit() -> None:
    """systemd lets the daemon stop in its own time: delay, grace and two seconds."""
    from deferpost.settings import Settings
    from deferpost.units import parse_duration

    text = (ETC / "deferpost.service").read_text()
    found = re.search("^TimeoutStopSec=(.*)$", text, re.MULTILINE)
    assert found is not None
    settings = Settings()
    assert parse_duration(found[1]) > settings.grace + settings.drain_delay + 2
