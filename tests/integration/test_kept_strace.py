"""Kept jobs where the system fails at the worst moment: killed in a write, or refused one.

The daemon runs below strace, which has a system call of one of its threads fail, or kills it there.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from bench.control.killed import LOG
from bench.control.ledger import Sent, check, read_runs, read_store, unended
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import DEFERPOST, Daemon, children, kill, wait_until
from tests.required import required

pytestmark = pytest.mark.integration

#: Seconds that anything may take below strace, on a machine that has other things to do.
SOON = 40.0

PATHS = ("/thread", "/retried", "/large", "/stream", "/always", "/process")


class _Traced:
    """One daemon after another on one store, each with its own fault.

    :param start: starts a daemon, as the fixture does.
    :param folder: in which they run.
    """

    def __init__(self, start: StartDaemon, folder: Path) -> None:
        self._strace = required("strace", "strace")
        self._start = start
        self._folder = folder
        self._numbers = itertools.count()
        self.calls: list[Sent] = []

    def start(self, inject: str | None) -> Daemon:
        """Start a daemon; it may end before it listens.

        :param inject: what happens to which system call, as strace wants it.
        """
        command: Sequence[str] = DEFERPOST
        if inject is not None:
            syscall = inject.partition(":")[0]
            out = self._folder / "strace.log"  # --seccomp-bpf would be faster, and counts wrongly
            command = [
                *(self._strace, "-f", "-qq", "-o", os.fspath(out)),
                *("-e", f"trace={syscall}", "-e", f"inject={inject}"),
                *DEFERPOST,
            ]
        return self._start(
            "bench.control.killed:app",
            [f"--store={self._folder / 'store'}", "--process-size=1", "--idempotency-grace=0s"],
            directory=self._folder,
            listening=False,
            command=command,
            environment={
                LOG: os.fspath(self._folder / "runs.log"),
                "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
            },
        )

    def call(self, daemon: Daemon, count: int = 12) -> None:
        """Send calls of each kind until the daemon is gone; note what it says."""
        for number in range(count):
            path = PATHS[number % len(PATHS)]
            size = 100_000 if number % 4 == 2 else 300
            name = f"call-{next(self._numbers)}".rjust(24, "x")
            call = Sent(name, path, size, is_keyed=number % 2 == 0)
            self.calls.append(call)
            if not self.send(daemon, call):
                return

    def send(self, daemon: Daemon, call: Sent, prefer: str = "respond-async") -> bool:
        """Send a call once; returns whether there was an answer."""
        fields = {"X-Request-ID": call.name, "Prefer": prefer}
        if call.is_keyed:
            fields["Idempotency-Key"] = f'"{call.name}"'
        try:
            port = daemon.port
        except IndexError:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
        try:
            connection.request("POST", call.path, call.body, fields)
            response = connection.getresponse()
            call.answered(response.status, {}, response.read())
        except (TimeoutError, socket.gaierror):
            raise
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def wait_open(self, daemon: Daemon) -> bool:
        """Wait until a daemon keeps jobs; returns whether it lives."""
        wait_until(
            lambda: daemon.process.poll() is not None or daemon.log_lines("jobs are kept in"),
            SOON,
            daemon.log,
        )
        return daemon.process.poll() is None

    def end(self, daemon: Daemon) -> None:
        """Kill what is left of a daemon, and wait until nothing of it is."""
        if daemon.process.poll() is None:
            for pid in children(daemon.pid):
                kill(pid)  # below strace it is the daemon
            with contextlib.suppress(Exception):
                daemon.process.wait(1)
            daemon.process.kill()
        daemon.process.wait()
        wait_until(lambda: not daemon.alive(), SOON, "no process left")

    def check(self, *, disk_failed: bool = False) -> None:
        """Have all that was accepted end, and hold it against what clients were told."""
        daemon = self.start(None)
        daemon.wait_listening()
        assert self.wait_open(daemon), daemon.log()
        probe = Sent("probe".rjust(24, "x"), "/thread", 300, is_keyed=True)
        self.calls.append(probe)
        assert self.send(daemon, probe, "respond-async, wait=60")
        assert probe.seen is not None, daemon.log()
        for call in self.calls:
            if call.is_keyed and call.is_accepted:
                assert self.send(daemon, call, "wait=60")
                assert call.seen is not None or call.path == "/always"
        wait_until(lambda: not unended(self._folder / "store"), SOON, daemon.log)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.process.wait(SOON) == 0, daemon.log()
        found = check(
            self.calls,
            read_store(self._folder / "store"),
            read_runs(self._folder / "runs.log"),
            disk_failed=disk_failed,
        )
        assert found.is_good, (found, daemon.log())
        assert found.accepted > 1


def _is_decided(daemon: Daemon) -> bool:
    """Whether a daemon has its store, or has said why not."""
    return bool(daemon.log_lines("jobs are kept in") or daemon.log_lines("kept are refused"))


@pytest.fixture
def traced(daemon: StartDaemon, tmp_path: Path) -> _Traced:
    """Daemons below strace."""
    return _Traced(daemon, tmp_path)


def test_killed_at_each_sync(traced: _Traced) -> None:
    """Killed as it makes something durable, whichever time it is, a daemon loses nothing."""
    died = 0
    for number in (1, 2, 3, 4, 5, 6, 9, 12):
        served = traced.start(f"fdatasync:signal=KILL:when={number}")
        if traced.wait_open(served):
            traced.call(served)
        died += served.process.poll() is not None or not children(served.pid)
        traced.end(served)
    assert died >= 6, "it was killed by the system call"
    traced.check()


def test_killed_at_each_sync_of_a_body(traced: _Traced) -> None:
    """The same, where it makes large bodies durable."""
    for number in range(1, 4):
        served = traced.start(f"fsync:signal=KILL:when={number}")
        if traced.wait_open(served):
            traced.call(served)
        traced.end(served)
    traced.check()


def test_no_space_at_some_write(traced: _Traced) -> None:
    """A disk that is full from some write on costs nothing that was promised before."""
    for number in (1, 12, 110):
        served = traced.start(f"pwrite64:error=ENOSPC:when={number}+")
        served.wait_listening(seconds=SOON)
        wait_until(partial(_is_decided, served), SOON, served.log)
        traced.call(served, 18)
        plain = Sent("plain".rjust(24, "x"), "/thread", 300, is_keyed=False)
        assert traced.send(served, plain, "wait=60"), served.log()
        assert plain.seen is not None, served.log()
        assert not plain.wrong, served.log()
        said = served.log()
        assert "no space is left" in said or "cannot be read or written" in said, said
        traced.end(served)
    traced.check(disk_failed=True)


def test_disk_that_fails_for_a_moment(traced: _Traced) -> None:
    """What could not be made durable once is not there twice, nor is it lost, without a restart."""
    served = traced.start("fdatasync:error=EIO:when=8..11")
    served.wait_listening(seconds=SOON)
    assert traced.wait_open(served)
    began = time.monotonic()
    while "can write again" not in served.log() and time.monotonic() - began < SOON:
        traced.call(served, 6)
    assert "the store of jobs cannot write" in served.log()
    assert "can write again" in served.log()
    traced.call(served, 6)
    traced.end(served)
    traced.check(disk_failed=True)
