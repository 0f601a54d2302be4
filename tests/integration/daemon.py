"""A real daemon in a process of its own, and a plain connection to talk to it.

All that a daemon has started carries a mark in its environment, by which it is found and ended
whatever became of its parents and groups.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from twisted.internet.task import deferLater

__all__ = [
    "DEFERPOST",
    "TWISTD",
    "Connection",
    "Daemon",
    "Response",
    "children",
    "clean_environment",
    "kill",
    "marked",
    "until",
    "wait_until",
]

#: The command ``deferpost``, before its options.
DEFERPOST = (sys.executable, "-c", "from deferpost.command import main; main()")

#: The command ``twistd -n deferpost``, before the options of deferpost.
TWISTD = (
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
    "deferpost",
)

#: Any free port of this machine.
ANY_PORT = "tcp:0:interface=127.0.0.1"

#: Seconds in which a machine with nothing else to do has started a daemon.
_USUAL_START = 0.5

_MARK = "INTEGRATION_TEST_MARK"

#: Seconds between two looks at something that is waited for.
_PAUSE = 0.01

_STARTING = re.compile(r"Site(?: \(TLS\))? starting on '?([^'\n]+?)'?$", re.MULTILINE)

T = TypeVar("T")

#: Words, or a function that gives them when they are needed.
What = str | Callable[[], str]


async def until(condition: Callable[[], T], seconds: float, what: What) -> T:
    """Wait, with the reactor turning, until a condition holds.

    :param condition: asked again and again.
    :param seconds: the most that it may take.
    :param what: says in the error what was waited for.
    :returns: the condition's value, which is true.
    """
    from twisted.internet import reactor

    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise _too_late(seconds, what)
        await deferLater(reactor, _PAUSE)
    return value


def wait_until(condition: Callable[[], T], seconds: float, what: What) -> T:
    """As :func:`until`, with the reactor standing still."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise _too_late(seconds, what)
        time.sleep(_PAUSE)
    return value


def _too_late(seconds: float, what: What) -> AssertionError:
    return AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without what would configure a daemon, and with something more."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEFERPOST_")}
    return {**kept, **(more or {})}


def marked(mark: str) -> list[int]:
    """The processes that live and have this mark in their environment."""
    sought = f"{_MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                environment = Path("/proc", entry, "environ").read_bytes()
                if sought in environment.split(b"\0"):
                    found.append(int(entry))
    return sorted(found)


def children(pid: int) -> list[int]:
    """The child processes of a process that have not ended."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # The name, in parentheses, may hold anything.
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[1]) == pid:
                    found.append(int(entry))
    return sorted(found)


def kill(pid: int) -> None:
    """SIGKILL to one process, if it still is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_open(place: str) -> bool:
    """Whether a port or the path of a socket takes connections."""
    try:
        if place.isdigit():
            Connection.tcp(int(place)).close()
        else:
            Connection.unix(Path(place)).close()
    except OSError:
        return False
    return True


class Daemon:
    """A daemon that runs.

    :param directory: its current folder, which also gets its log; it is made if need be.
    :param app: the text of a module that is to be served, or the name of what is served, as
        ``module:attribute``; None where the options say it or it is missing.
    :param options: the options of ``deferpost``, without ``--listen``.
    :param attribute: what of the text is served.
    :param listen: the endpoints; if it is empty, the options or the environment say them.
    :param environment: variables beside those of this process.
    :param command: the command before the options.
    """

    def __init__(
        self,
        directory: Path,
        app: str | None,
        options: Sequence[str] = (),
        *,
        attribute: str = "app",
        listen: Sequence[str] = (ANY_PORT,),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = DEFERPOST,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log_path = directory / "daemon.log"
        self.mark = secrets.token_hex(8)
        if app is not None and "\n" in app:
            (directory / "served.py").write_text(app, encoding="utf-8")
            app = f"served:{attribute}"
        self._slowness = 1.0
        self._started = time.monotonic()
        listening = [f"--listen={endpoint}" for endpoint in listen]
        with self.log_path.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *listening, *options, *([] if app is None else [app])],
                cwd=directory,
                env=clean_environment({**(environment or {}), _MARK: self.mark}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def log(self) -> str:
        """All that it has logged or printed until now."""
        return self.log_path.read_text(encoding="utf-8", errors="backslashreplace")

    def log_lines(self, containing: str) -> list[str]:
        """The lines of the log in which a text occurs."""
        return [line for line in self.log().splitlines() if containing in line]

    # Where it listens.

    def places(self) -> list[str]:
        """The ports, as text, and the paths of sockets on which it listens, in order."""
        return _STARTING.findall(self.log())

    def wait_listening(self, count: int = 1, seconds: float = 30.0) -> None:
        """Wait until it listens, with the reactor standing still.

        :param count: on how many endpoints.
        """

        def listening() -> bool:
            assert self.process.poll() is None, f"the daemon has ended:\n{self.log()}"
            places = self.places()
            # It is logged a moment before it is so.
            return len(places) >= count and all(map(_is_open, places))

        wait_until(listening, seconds, lambda: f"the daemon listens\n{self.log()}")
        self._slowness = max(1.0, (time.monotonic() - self._started) / _USUAL_START)

    def stretched(self, seconds: float) -> float:
        """A time limit for this machine: longer where it took long to start the daemon."""
        return seconds * self._slowness

    @property
    def ports(self) -> list[int]:
        """The TCP ports on which it listens."""
        return [int(place) for place in self.places() if place.isdigit()]

    @property
    def port(self) -> int:
        """The first of its TCP ports."""
        return self.ports[0]

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """The URL of a path on its first port."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def connect(self, timeout: float = 20.0) -> Connection:
        """A plain connection to its first port."""
        return Connection.tcp(self.port, timeout)

    async def logged(self, text: str, seconds: float = 10.0) -> str:
        """Wait for a text in its log; returns the first line that has it."""
        lines = await until(
            lambda: self.log_lines(text), seconds, lambda: f"{text!r} in the log\n{self.log()}"
        )
        return lines[0]

    # Its processes.

    def worker_pids(self) -> list[int]:
        """Its worker processes that have not ended."""
        return children(self.pid)

    def alive(self) -> list[int]:
        """All processes that it has started, directly or not, itself included, that live."""
        return marked(self.mark)

    # Its end.

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing if it has ended."""
        self.process.send_signal(number)

    async def wait(self, seconds: float) -> int:
        """Wait for its end; returns the exit status, negative for a signal.

        :param seconds: the most that it may take, on a machine that is not slow.
        """
        limit = self.stretched(seconds)
        await until(
            lambda: self.process.poll() is not None, limit, lambda: f"the end\n{self.log()}"
        )
        return self.process.wait()

    async def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, and wait for its end; returns the exit status.

        It is to have answered something before: until its reactor runs, a signal is the end.
        """
        self.send_signal(signal.SIGTERM)
        return await self.wait(seconds)

    async def gone(self, seconds: float = 2.0) -> None:
        """Wait until nothing lives of what it started."""
        limit = self.stretched(seconds)
        await until(lambda: not self.alive(), limit, lambda: f"no process left\n{self.log()}")

    def end(self) -> list[int]:
        """End it if it still runs, with all that it has started, the reactor standing still.

        :returns: the processes that had to be killed: itself, if SIGINT did not end it in ten
            seconds, and those that outlived it by two.
        """
        stuck = []
        if self.process.poll() is None:
            self.send_signal(signal.SIGINT)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                stuck = [self.pid]
                self.process.kill()
                self.process.wait()
        deadline = time.monotonic() + 2.0
        while (alive := self.alive()) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        for pid in alive:
            kill(pid)
        return stuck + alive


class Response(NamedTuple):
    """A response as it came.

    :ivar status: the status.
    :ivar headers: the fields, with names in lower case; the last value of each.
    :ivar body: the body, without the framing of chunks.
    :ivar is_whole: whether the connection did not end before the body did.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True


class Connection:
    """A plain connection, which sends what it is told to and reads one response after another.

    It blocks, with a time limit.

    :param connected: a socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._unread = b""

    @classmethod
    def tcp(cls, port: int, timeout: float = 20.0) -> Connection:
        """Connect to a port of this machine."""
        return cls(socket.create_connection(("127.0.0.1", port), timeout))

    @classmethod
    def unix(cls, path: Path, timeout: float = 20.0) -> Connection:
        """Connect to a Unix socket."""
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout)
        try:
            connected.connect(os.fspath(path))
        except OSError:
            connected.close()
            raise
        return cls(connected)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def request(
        self, method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1"
    ) -> None:
        """Send a request.

        :param headers: further fields, each as ``Name: value``.
        """
        lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    def post(self, path: str, body: bytes = b"", *headers: str) -> None:
        """Send a POST."""
        self.request("POST", path, body, *headers)

    def response(self, method: str = "POST") -> Response:
        """Read one response to its end.

        :param method: of the request, on which the presence of a body depends.
        """
        head = self.head()
        length = head.headers.get("content-length")
        if method == "HEAD" or head.status in (204, 304):
            return head
        if head.headers.get("transfer-encoding") == "chunked":
            body, is_whole = self._chunks()
            return head._replace(body=body, is_whole=is_whole)
        if length is not None:
            body = self._read(int(length))
            return head._replace(body=body, is_whole=len(body) == int(length))
        return head._replace(body=self.rest())

    def head(self) -> Response:
        """Read status and fields of one response; nothing of its body."""
        first, *lines = self._line_block()
        status = int(first.split()[1])
        fields = (line.partition(":") for line in lines)
        return Response(status, {name.lower(): value.strip() for name, _, value in fields}, b"")

    def chunk(self) -> bytes | None:
        """Read one chunk; empty is the last, None is a connection that ended before it."""
        size_line = self._until(b"\r\n")
        if size_line is None:
            return None
        size = int(size_line, 16)
        data = self._read(size + 2)
        return data[:-2] if len(data) == size + 2 else None

    def rest(self) -> bytes:
        """Read to the end of the connection."""
        while self._more():
            pass
        data, self._unread = self._unread, b""
        return data

    def rest_so_far(self) -> bytes:
        """Take what has been read of the connection beyond what was asked for."""
        data, self._unread = self._unread, b""
        return data

    def is_closed(self) -> bool:
        """Wait for the end of the connection: whether nothing comes before it."""
        return not self._unread and not self._more()

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while data := self.chunk():
            body += data
        return body, data is not None

    def _line_block(self) -> list[str]:
        block = self._until(b"\r\n\r\n")
        assert block is not None, f"the connection ended before a response: {self._unread!r}"
        return block.decode("latin-1").split("\r\n")

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._unread:
            if not self._more():
                return None
        data, _, self._unread = self._unread.partition(end)
        return data

    def _read(self, size: int) -> bytes:
        while len(self._unread) < size and self._more():
            pass
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._unread += data
        return bool(data)
