"""Peers that hang up while nothing is read of them."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from deferpost.wire.departures import PAUSES, HangupWatch
from deferpost.wire.sockets import connection_below, socket_of
from tests.waiting import until


def connection() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    return client, server


def reset(client: socket.socket) -> None:
    """Leave without a word."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.fixture
def watch() -> Iterator[HangupWatch]:
    """A watch, at whose end nothing is left in the reactor."""
    watch = HangupWatch(reactor)
    yield watch
    watch.connectionLost(Failure(ConnectionDone()))
    assert watch not in reactor.getReaders()


@pytest.mark.parametrize("half", [True, False])
@ensureDeferred
async def test_a_reset(watch: HangupWatch, half: bool) -> None:
    """It is told once, though bytes are unread."""
    client, server = connection()
    client.sendall(b"unread")
    told: list[int] = []
    watch.watch(server.fileno(), lambda: told.append(1), half=half)
    reset(client)
    await until(lambda: told)
    await deferLater(reactor, 0.02, lambda: None)
    assert told == [1]
    server.close()


@ensureDeferred
async def test_the_end_of_one_side(watch: HangupWatch) -> None:
    """The end of the peer's side is told to who asked for it, behind what is unread."""
    client, server = connection()
    other_client, other_server = connection()
    told: list[str] = []
    watch.watch(server.fileno(), lambda: told.append("half"), half=True)
    watch.watch(other_server.fileno(), lambda: told.append("whole"), half=False)
    for each in (client, other_client):
        each.sendall(b"unread")
        each.shutdown(socket.SHUT_WR)
    await until(lambda: told)
    await deferLater(reactor, 0.05, lambda: None)
    assert told == ["half"]
    assert server.recv(100) == b"unread"
    for each in (client, server, other_client, other_server):
        each.close()


@ensureDeferred
async def test_one_ends_another(watch: HangupWatch) -> None:
    """Who is told may unwatch others that hung up with it: they are not told."""
    pairs = [connection() for _ in range(3)]
    told: list[int] = []

    def hung_up(which: int) -> None:
        told.append(which)
        for n, (_, server) in enumerate(pairs):
            if n != which:
                watch.unwatch(server.fileno())

    for n, (_, server) in enumerate(pairs):
        watch.watch(server.fileno(), lambda n=n: hung_up(n), half=False)  # type: ignore[misc]
    for client, _ in pairs:
        reset(client)
    await until(lambda: told)
    await deferLater(reactor, 0.02, lambda: None)
    assert len(told) == 1
    for _, server in pairs:
        server.close()


def test_nothing_is_watched(watch: HangupWatch) -> None:
    """To unwatch what is not watched is no error."""
    watch.unwatch(0)
    assert watch.fileno() == -1
    assert watch.logPrefix() == "HangupWatch"


def test_no_descriptors_are_left(monkeypatch: pytest.MonkeyPatch, watch: HangupWatch) -> None:
    """Then nobody is watched, which is no error."""

    def exhausted() -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(select, "epoll", exhausted)
    watch.watch(0, lambda: None, half=False)
    assert watch.fileno() == -1


@ensureDeferred
async def test_a_watched_socket_that_is_closed(watch: HangupWatch) -> None:
    """It is out of the set already."""
    client, server = connection()
    fd = server.fileno()
    watch.watch(fd, lambda: None, half=True)
    server.close()
    watch.unwatch(fd)
    client.close()


def test_as_many_pauses_as_bytes() -> None:
    """Each byte of the beginning of a status line has its time, and they grow."""
    assert len(PAUSES) == len(b"HTTP/1.1 ")
    assert list(PAUSES) == sorted(PAUSES)


def test_no_socket_below() -> None:
    """A transport in memory has none."""
    assert connection_below(object()) is None
    assert socket_of(object()) is None
