"""Connections that have posted and wait for their answers."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator, Sequence

from bench.clients.exchange import post

__all__ = ["none_answered", "pending"]

#: How many connections come from each address of this machine.  An address has 28,000 ports, and a
#: port is not free again until a minute after its connection.
_FROM_EACH = 1000


@contextlib.contextmanager
def pending(port: int, path: str, count: int, body: bytes) -> Iterator[list[socket.socket]]:
    """Connect so often and post on each connection; all clients leave behind the block."""
    request = post(path, body)
    clients = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            source = (f"127.0.0.{1 + number // _FROM_EACH}", 0)
            client = socket.create_connection(("127.0.0.1", port), 60.0, source)
            clients.append(stack.enter_context(client))
            client.sendall(request)
        yield clients


def none_answered(clients: Sequence[socket.socket]) -> None:
    """Check that every client still waits.

    :raises RuntimeError: some have an answer, or have lost their connection.
    """
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLIN)
    answered = poll.poll(0)
    if answered:
        raise RuntimeError(f"{len(answered)} of {len(clients)} POSTs were not left pending")
