"""One HTTP exchange on a plain socket: as little as a client can do, so that it costs little."""

from __future__ import annotations

import re
import socket

__all__ = ["Responses", "get", "post"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def get(path: str) -> bytes:
    """A GET as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A POST as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Responses:
    """Tells the end of each response on a connection, however it is cut.

    Only responses that say their length are understood.
    """

    def __init__(self) -> None:
        self._unread = b""

    def feed(self, data: bytes) -> int | None:
        """Take what has arrived.

        :returns: the status when a response is whole, else None.
        :raises RuntimeError: the connection has ended, or a response does not say its length.
        """
        if not data:
            raise RuntimeError("the server closed a connection")
        self._unread += data
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return None
        length = _LENGTH.search(head)
        if length is None:
            raise RuntimeError(f"a response without a length: {head[:200]!r}")
        if len(rest) < int(length[1]):
            return None
        self._unread = rest[int(length[1]) :]
        return int(head.split(None, 2)[1])

    def read(self, connection: socket.socket) -> int:
        """Read one response from a socket that blocks; returns the status."""
        while (status := self.feed(connection.recv(65536))) is None:
            pass
        return status
