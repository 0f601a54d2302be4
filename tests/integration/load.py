"""Load on a daemon, and what is seen of the daemon meanwhile.

The clients are plain sockets in one thread, so that they cost little beside the daemon.  Bodies
are made and judged piece by piece: a client never holds a large one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.integration.daemon import Connection, Daemon, wait_until

__all__ = [
    "Answer",
    "Download",
    "Latencies",
    "PeakMemory",
    "Post",
    "ResponseReader",
    "blocks",
    "idle",
    "memory",
    "open_files",
    "pool",
    "pools",
    "post_all",
    "probe",
    "unlinked_bytes",
    "upload",
]

_READ_BYTES = 256 * 1024

#: Bytes that a slow reader's own socket keeps for it; what is under way beside is the daemon's
#: socket, which the system lets grow to 4 MiB.
_RECEIVE_BUFFER = 256 * 1024


class Post(NamedTuple):
    """A request to be made."""

    path: str
    body: bytes
    id: str

    def request(self) -> bytes:
        """It as bytes."""
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: test\r\nX-Request-ID: {self.id}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        ).encode() + self.body


class Answer(NamedTuple):
    """What became of a request.

    :ivar post: the request.
    :ivar status: the status.
    :ivar headers: the fields, with names in lower case; the last value of each.
    :ivar body: the body.
    :ivar seconds: from the first byte of the request to the last one of the answer.
    """

    post: Post
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class ResponseReader:
    """Reads one response from what arrives, however it is cut.

    :param take: called with each piece of the body.

    :ivar status: the status; 0 until the head is there.
    :ivar headers: the fields, with names in lower case; the last value of each.
    :ivar size: bytes of the body that have come.
    :ivar is_whole: whether the response is complete.
    """

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._unread = b""
        self._left = 0  # of the body, or of the chunk
        self._chunked = False
        self._last_chunk = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.size = 0
        self.is_whole = False

    def feed(self, data: bytes) -> None:
        """Take what has arrived; nothing may follow the response."""
        self._unread += data
        while not self.is_whole and self._step():
            pass
        assert not (self.is_whole and self._unread), f"more than a response: {self._unread[:99]!r}"

    def _step(self) -> bool:
        """Read one thing more; returns whether it was there."""
        if self._left:
            piece, self._unread = self._unread[: self._left], self._unread[self._left :]
            self._left -= len(piece)
            self.size += len(piece)
            self._take(piece)
            self.is_whole = not (self._left or self._chunked)
            return bool(piece)
        end = b"\r\n" if self.status else b"\r\n\r\n"
        text, found, rest = self._unread.partition(end)
        if not found:
            return False
        self._unread = rest
        if not self.status:
            self._head(text.decode("latin-1").split("\r\n"))
        elif text:
            self._left = int(text, 16)
            self._last_chunk = not self._left
        else:  # behind a chunk, or behind the last one
            self.is_whole = self._last_chunk
        return True

    def _head(self, lines: Sequence[str]) -> None:
        self.status = int(lines[0].split()[1])
        fields = (line.partition(":") for line in lines[1:])
        self.headers = {name.lower(): value.strip() for name, _, value in fields}
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        if not self._chunked:
            self._left = int(self.headers.get("content-length", "0"))
            self.is_whole = not self._left


class _Client:
    """A connection that makes one request after another."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20.0)
        self.socket.setblocking(False)
        self.post: Post | None = None
        self._unsent = memoryview(b"")
        self._pieces: list[bytes] = []
        self._reader = ResponseReader(self._pieces.append)
        self._began = 0.0

    def begin(self, post: Post) -> None:
        """Begin with the next request."""
        self.post = post
        self._unsent = memoryview(post.request())
        self._pieces = []
        self._reader = ResponseReader(self._pieces.append)
        self._began = time.monotonic()
        self.send()

    def send(self) -> None:
        """Send what there is room for."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def events(self) -> int:
        """What it waits for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def receive(self) -> Answer | None:
        """Read what is there; returns the answer when it is whole."""
        data = self.socket.recv(_READ_BYTES)
        assert self.post is not None
        assert data, f"the daemon closed the connection of {self.post.id}"
        reader = self._reader
        reader.feed(data)
        if not reader.is_whole:
            return None
        seconds = time.monotonic() - self._began
        return Answer(self.post, reader.status, reader.headers, b"".join(self._pieces), seconds)


def post_all(
    port: int, posts: Iterable[Post], connections: int, seconds: float = 60.0
) -> list[Answer]:
    """Make many requests over kept-alive connections, each of which is never idle.

    :param port: the daemon's.
    :param posts: the requests, each asked for when a connection is free for it.
    :param connections: how many requests are under way at once.
    :param seconds: the most that all of it may take.
    :returns: the answers, in the order in which they came.
    """
    left = iter(posts)
    answers = []
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        clients = [_Client(port) for _ in range(connections)]
        for client in clients:
            stack.callback(client.socket.close)
        for client in clients:
            if (post := next(left, None)) is not None:
                client.begin(post)
                selector.register(client.socket, client.events(), client)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                missing = [key.data.post.id for key in selector.get_map().values()]
                raise AssertionError(f"not answered within {seconds:g} s: {missing[:20]}")
            for key, mask in ready:
                client = key.data
                if mask & selectors.EVENT_WRITE:
                    client.send()
                elif (answer := client.receive()) is not None:
                    answers.append(answer)
                    if (post := next(left, None)) is None:
                        selector.unregister(client.socket)
                        continue
                    client.begin(post)
                if key.events != client.events():
                    selector.modify(client.socket, client.events(), client)
    return answers


class Latencies(NamedTuple):
    """How long requests took, in milliseconds."""

    median: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Of at least two requests."""
        times = [each * 1e3 for each in seconds]
        return cls(
            statistics.median(times),
            statistics.quantiles(times, n=100, method="inclusive")[98],
            max(times),
        )

    def __str__(self) -> str:
        return f"median {self.median:.2f} ms, p99 {self.p99:.2f} ms, most {self.most:.2f} ms"


def probe(
    daemon: Daemon, count: int = 200, path: str = "/livez", pause: float = 0.005, most: float = 10.0
) -> Latencies:
    """Ask for something again and again on one connection.

    :param count: how many times.
    :param pause: seconds between an answer and the next request.
    :param most: seconds after which it is enough, if there were at least ten.
    """
    seconds: list[float] = []
    deadline = time.monotonic() + most
    with daemon.connect() as connection:
        while len(seconds) < count and (len(seconds) < 10 or time.monotonic() < deadline):
            began = time.monotonic()
            connection.request("GET", path)
            assert connection.response("GET").status == 200
            seconds.append(time.monotonic() - began)
            time.sleep(pause)
    return Latencies.of(seconds)


# What is seen of the daemon.


def pools(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """What it says of its pools, by name."""
    with daemon.connect() as connection:
        connection.request("GET", "/readyz")
        document = json.loads(connection.response("GET").body)
    return {each["name"]: each for each in document["pools"]}


def pool(daemon: Daemon, name: str) -> tuple[int, int]:
    """How many jobs run and how many wait in one of its pools."""
    status = pools(daemon)[name]
    return status["running"], status["waiting"]


def idle(daemon: Daemon, seconds: float = 20.0) -> None:
    """Wait until nothing runs or waits in any of its pools, and all can take more."""

    def is_idle() -> bool:
        found = pools(daemon).values()
        return all(not each["running"] and not each["waiting"] and each["ready"] for each in found)

    wait_until(is_idle, seconds, f"every pool is idle\n{daemon.log()[-5000:]}")


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes of memory of a process; its peak as ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"the process {pid} has no {field}")


class PeakMemory:
    """Measures by how much the memory of a process grows at most, from now on.

    :param pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = memory(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak is now's

    def growth(self) -> int:
        """Bytes, until now."""
        return memory(self._pid, "VmHWM") - self._before


def open_files(pid: int) -> dict[str, str]:
    """The open descriptors of a process, with what they are."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed at this moment
            found[each.name] = os.readlink(each)
    return found


def unlinked_bytes(pid: int) -> int:
    """Bytes of disk that a process holds in files that have no name any more."""
    size = 0
    for number, path in open_files(pid).items():
        if path.endswith(" (deleted)"):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(f"/proc/{pid}/fd/{number}").st_blocks * 512
    return size


# Large bodies.


def blocks(size: int) -> Iterator[bytes]:
    """Bytes that do not repeat, in pieces of at most 256 KiB.

    :param size: how many.
    """
    block = random.Random(size).randbytes(256 * 1024)
    for number in range(-(-size // len(block))):
        piece = number.to_bytes(8, "big") + block[8:]
        yield piece[: size - number * len(block)]


def upload(connection: Connection, path: str, size: int, *headers: str) -> str:
    """Post a large body that is made on the fly; the answer is still to be read.

    :returns: its SHA-256, in hexadecimal.
    """
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {size}", *headers, "", ""]
    connection.send("\r\n".join(lines).encode())
    digest = hashlib.sha256()
    for block in blocks(size):
        connection.send(block)
        digest.update(block)
    return digest.hexdigest()


class Download:
    """A request whose answer is read no sooner than it is asked for.

    :param daemon: the daemon.
    :param path: where to post an empty body.
    """

    def __init__(self, daemon: Daemon, path: str) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(20.0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.connect(("127.0.0.1", daemon.port))
        self._digest = hashlib.sha256()
        self.response = ResponseReader(self._digest.update)
        self._socket.sendall(Post(path, b"", f"download{path}").request())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def read_head(self) -> None:
        """Read until the head is there, and little more."""
        while not self.response.status:
            self._read(1024)

    def read(self, size: int) -> None:
        """Read until so many bytes of the body are there, or all."""
        while self.response.size < size and not self.response.is_whole:
            self._read(_READ_BYTES)

    def read_all(self) -> str:
        """Read to the end; returns the SHA-256 of the body, in hexadecimal."""
        while not self.response.is_whole:
            self._read(_READ_BYTES)
        return self._digest.hexdigest()

    def _read(self, size: int) -> None:
        data = self._socket.recv(size)
        assert data, f"the connection ended after {self.response.size} bytes"
        self.response.feed(data)
