"""What systemd is told, over the sockets that it uses for it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferpost.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a socket as it stands in NOTIFY_SOCKET."""
    name = f"@deferpost-{secrets.token_hex(8)}"
    return name if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def listener(address: str) -> Iterator[socket.socket]:
    """The socket of that name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address.replace("@", "\0"))
        bound.settimeout(5)
        yield bound


def test_every_message(address: str, listener: socket.socket) -> None:
    """Each message is one datagram of assignments, as sd_notify(3) has them."""
    notifier = Notifier(address)
    assert notifier.is_there
    notifier.status("setting up")
    assert listener.recv(1000) == b"STATUS=setting up"
    notifier.ready("serving\n  a:b  \n" + "x" * 1000)
    kind, status = listener.recv(10_000).split(b"\n")
    assert kind == b"READY=1"
    assert status.startswith(b"STATUS=serving a:b xxx")
    assert len(status) < 500
    notifier.reloading()
    kind, time, status = listener.recv(1000).split(b"\n")
    assert (kind, status) == (b"RELOADING=1", b"STATUS=reloading")
    name, _, microseconds = time.partition(b"=")
    assert name == b"MONOTONIC_USEC"
    with open("/proc/uptime") as uptime:
        assert abs(int(microseconds) / 1e6 - float(uptime.read().split()[0])) < 1e6
    notifier.stopping()
    assert listener.recv(1000).startswith(b"STOPPING=1\n")
    notifier.alive()
    assert listener.recv(1000) == b"WATCHDOG=1"


def test_nobody_to_tell() -> None:
    """Without systemd nothing is sent, and nothing fails."""
    notifier = Notifier()
    assert not notifier.is_there
    notifier.ready("serving")
    notifier.alive()


def test_nobody_listens(tmp_path: Path) -> None:
    """A socket that is gone, or full, costs the daemon nothing."""
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready("serving")
    notifier.alive()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"))
        for _ in range(2000):  # the system keeps fewer
            notifier.alive()


@pytest.mark.parametrize(
    ("environ", "is_there", "watchdog"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": "/run/notify"}, True, None),
        ({"NOTIFY_SOCKET": "@notify", "WATCHDOG_USEC": "30000000"}, True, 30.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "42"}, True, 5e-6),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "43"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, True, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "5"}, False, None),
        ({"NOTIFY_SOCKET": "@", "LISTEN_FDS": "1", "LISTEN_PID": "42"}, False, None),
        ({"LISTEN_FDNAMES": "http"}, False, None),
    ],
)
def test_environment(environ: dict[str, str], is_there: bool, watchdog: float | None) -> None:
    """What systemd says is taken out of the environment, so that no worker finds it."""
    environ = {"PATH": os.defpath, **environ}
    notifier = Notifier.taken_from(environ, 42)
    assert (notifier.is_there, notifier.watchdog) == (is_there, watchdog)
    assert environ == {"PATH": os.defpath}
