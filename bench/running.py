"""A server that runs for the length of a block, and all of which has ended behind it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

from bench.clients.exchange import Responses, get
from bench.pinning import held_to
from bench.processes import Identity, descendants, is_alive, kill, until
from bench.programs import ROOT, Program, Setting

__all__ = ["Running", "ServerFailed", "environment", "free_port", "running"]

#: Seconds that a server may take until it answers.
_START = 30.0

#: Seconds that it may take to end when it is told to.
_END = 5.0


class ServerFailed(Exception):
    """A server did not start, or has ended."""


@attrs.frozen
class Running:
    """A server that answers.

    :ivar pid: its process, the first of them.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar seconds: from its command to its first answer, which says that it is ready.
    """

    pid: int
    port: int
    seconds: float

    def family(self) -> list[int]:
        """The processes that it has started, directly or not."""
        return [each.pid for each in descendants(self.pid)]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This environment without what would configure a server, and with something more."""
    unwanted = ("DEFERPOST_", "BENCH_", "PYTHON", "COVERAGE_", "GRANIAN_", "GUNICORN_", "UVICORN_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextlib.contextmanager
def running(
    program: Program,
    app: str,
    directory: Path,
    *,
    cores: Collection[int],
    threads: int = 10,
    processes: int = 2,
    more: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start a server, wait for its first answer, and end it behind the block.

    :param program: the server.
    :param app: which app, for ours.
    :param directory: where it writes its log.
    :param cores: the CPUs that it is held to.
    :param threads: how many threads it has for handlers.
    :param processes: how many processes it has for handlers.
    :param more: further variables of its environment.
    :raises ServerFailed: it does not answer.
    """
    setting = Setting(free_port(), app, threads, processes)
    sizes = {"BENCH_THREADS": str(threads), "BENCH_PROCESSES": str(processes)}
    log = directory / f"{program.name}.log"
    began = time.perf_counter()
    with log.open("wb") as output, held_to(cores):
        process = subprocess.Popen(
            program.command(setting),
            cwd=ROOT,
            env=environment({**sizes, **(more or {})}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        while not _answers(setting.port, program.ready or program.ping):
            if process.poll() is not None or time.perf_counter() - began > _START:
                raise ServerFailed(f"{program.name} does not answer:\n{_tail(log)}")
            time.sleep(0.002)
        yield Running(process.pid, setting.port, time.perf_counter() - began)
        if process.poll() is not None:
            raise ServerFailed(f"{program.name} has ended:\n{_tail(log)}")
    finally:
        _end(process)


def _answers(port: int, path: str) -> bool:
    """Whether it answers, and not that it is not ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), _START) as connection:
            connection.sendall(get(path))
            return Responses().read(connection) < 500
    except (OSError, RuntimeError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it has started, as gently as it lets us."""
    family: list[Identity] = descendants(process.pid)
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        family = list({*family, *descendants(process.pid)})
        process.kill()
        process.wait()
    with contextlib.suppress(RuntimeError):
        until(lambda: not any(map(is_alive, family)), 1.0, "its processes have ended")
    for each in family:
        kill(each)
    until(lambda: not any(map(is_alive, family)), 5.0, "its killed processes have ended")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="backslashreplace")[-3000:]
