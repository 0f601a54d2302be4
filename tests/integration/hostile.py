"""Clients that leave, stall, trickle and flood, as plain sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tests.integration.daemon import Connection, Daemon

__all__ = [
    "RESET",
    "Crowd",
    "KilledClient",
    "connected",
    "pipelined",
    "request",
    "send_until_full",
    "skip_body",
]

#: A value of SO_LINGER by which closing a socket resets its connection.
RESET = struct.pack("ii", 1, 0)

#: A client that says so when it has sent all it can, and then does nothing but live.
_CLIENT = """
import socket, sys, time
port, times = int(sys.argv[1]), int(sys.argv[3])
connected = socket.create_connection(("127.0.0.1", port))
data = sys.argv[2].encode() + sys.argv[4].encode() * times
connected.setblocking(False)
try:
    while data:
        data = data[connected.send(data):]
except BlockingIOError:
    pass
print(len(data), flush=True)
time.sleep(1000)
"""


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def pipelined(size: int) -> bytes:
    """Whole requests of at least so many bytes together, or none."""
    one = request("/echo", b"x" * 900)
    return one * -(-size // len(one))


def connected(daemon: Daemon, timeout: float = 20.0, *, receive_buffer: int = 0) -> Connection:
    """A connection whose system buffers no more than asked for on its side."""
    made = socket.socket()
    made.settimeout(timeout)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.connect(("127.0.0.1", daemon.port))
    return Connection(made)


def send_until_full(connection: Connection, data: bytes, patience: float = 0.3) -> int:
    """Send for as long as the other side takes something.

    :param patience: seconds in which nothing is taken, after which it is enough.
    :returns: the bytes that were taken, by the systems or the other side.
    """
    taken = 0
    view = memoryview(data)
    before = connection.socket.gettimeout()
    connection.socket.settimeout(patience)
    try:
        while taken < len(data):
            taken += connection.socket.send(view[taken : taken + 65536])
    except TimeoutError:
        pass
    finally:
        connection.socket.settimeout(before)
    return taken


def skip_body(connection: Connection, size: int) -> None:
    """Read a body of which the bytes do not matter."""
    left = size - len(connection.rest_so_far())
    while left:
        piece = connection.socket.recv(min(left, 2**20))
        assert piece, f"the connection ended {left} bytes before the end"
        left -= len(piece)


class KilledClient:
    """A client in a process of its own, to be killed.

    :param port: where it connects to.
    :param head: what it sends first.
    :param more: what it sends after that, as far as the systems take it.
    :param times: how often.
    """

    def __init__(self, port: int, head: bytes, more: bytes = b"", times: int = 0) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-SEIc",
                _CLIENT,
                str(port),
                head.decode(),
                str(times),
                more.decode(),
            ],
            stdout=subprocess.PIPE,
            env={},
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    def wait_sent(self) -> int:
        """Wait until it has sent what it can; returns the bytes that were left over."""
        return int(self._output.readline())

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._output.close()


#: What one of a crowd does at each turn: it is given its socket and the number of the turn.
Turn = Callable[[socket.socket, int], None]


def slow_head(client: socket.socket, turn: int) -> None:
    """A head that comes byte by byte and never ends."""
    beginning = b"POST /echo HTTP/1.1\r\nHost: test\r\nX-Padding: "
    client.send(beginning[turn : turn + 1] or b"x")


def slow_body(client: socket.socket, turn: int) -> None:
    """A body that comes byte by byte."""
    client.send(request("/echo", b"x" * 100_000)[:-99_999] if turn == 0 else b"x")


def never_reads(client: socket.socket, turn: int) -> None:
    """Requests for a large reply, one behind the other, of which nothing is read."""
    client.send(request("/file") * 20)


def floods(client: socket.socket, turn: int) -> None:
    """As many small requests as go in, of which no answer is read."""
    client.send(request("/missing") * 500)


KINDS: tuple[Turn, ...] = (slow_head, slow_body, never_reads, floods)


class Crowd:
    """Many hostile clients in one thread, each of which comes again when it is sent away.

    :param port: where they connect to.
    :param count: how many.
    :param kinds: what they do; by turns, if there is more than one.
    :param pause: seconds between two turns of one client.

    :ivar sent_away: how many connections were closed by the other side.
    """

    def __init__(
        self, port: int, count: int, kinds: Sequence[Turn] = KINDS, pause: float = 0.5
    ) -> None:
        self.sent_away = 0
        self._port = port
        self._kinds = [kinds[number % len(kinds)] for number in range(count)]
        self._pause = pause
        self._stop = threading.Event()
        self._all_here = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._all_here.wait(30), "the crowd could not connect"
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _connect(self) -> socket.socket:
        made = socket.socket()
        made.settimeout(10)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", self._port))
        made.setblocking(False)
        return made

    def _run(self) -> None:
        clients = [self._connect() for _ in self._kinds]
        turns = [0] * len(clients)
        while not self._stop.is_set():
            began = time.monotonic()
            for number, kind in enumerate(self._kinds):
                try:
                    with contextlib.suppress(BlockingIOError):
                        kind(clients[number], turns[number])
                    turns[number] += 1
                except OSError:
                    self.sent_away += 1
                    clients[number].close()
                    clients[number] = self._connect()
                    turns[number] = 0
                if number % 20 == 0:
                    time.sleep(0.001)  # they are to share the processor with the good ones
            self._all_here.set()
            self._stop.wait(max(0.01, self._pause - (time.monotonic() - began)))
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
