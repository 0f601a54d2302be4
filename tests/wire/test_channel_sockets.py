"""What a connection in memory cannot show: clients that leave unread, and TLS's own end."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import alsoProvides

from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.waiting import until
from tests.wire.memory import Connection, site_of
from tests.wire.recorders import HastyRecorder

GET = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"


class Waiting(Resource):
    """Answers when the test does."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.left: list[Any] = []

    def render_GET(self, request: Any) -> int:
        """Keep it."""
        self.requests.append(request)
        request.notifyFinish().addErrback(self.left.append)
        return NOT_DONE_YET


class Server:
    """A site that listens, and its clients."""

    def __init__(self, **limits: Any) -> None:
        self.root = Waiting()
        self.site = DeferPostSite(self.root, limits=Limits(**limits))
        self.port: Any = None

    async def client(self, data: bytes) -> socket.socket:
        """A client that has sent something, which has arrived."""
        if self.port is None:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            self.port = await endpoint.listen(self.site)
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        client.sendall(data)
        await until(lambda: self.root.requests)
        await deferLater(reactor, 0.05, lambda: None)
        return client

    async def stop(self) -> None:
        """It is over, and every connection with it."""
        await self.port.stopListening()
        await until(lambda: not self.site.channels)


def reset(client: socket.socket) -> None:
    """Leave without a word."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("more", [0, 200_000])
@pytest.mark.parametrize("how", ["reset", "close", "half-close and reset"])
@ensureDeferred
async def test_a_client_that_leaves(more: int, how: str) -> None:
    """It is noticed while its request is pending, whatever it has sent that is not read."""
    server = Server()
    client = await server.client(GET + b"x" * more)
    if how == "half-close and reset":
        client.shutdown(socket.SHUT_WR)
        await deferLater(reactor, 0.05, lambda: None)
        assert not server.root.left
    if how == "close":
        client.close()
    else:
        reset(client)
    await until(lambda: server.root.left)
    await server.stop()


@ensureDeferred
async def test_a_client_that_waits_behind_much() -> None:
    """One that has ended its side behind more than is read gets all its answers."""
    server = Server(max_pipelined=1000)
    client = await server.client(GET * 200)
    client.shutdown(socket.SHUT_WR)
    await deferLater(reactor, 0.05, lambda: None)
    for n in range(200):
        await until(lambda n=n: len(server.root.requests) > n)  # type: ignore[misc]
        server.root.requests[n].finish()
    await until(lambda: not server.site.channels)
    received = b""
    while piece := client.recv(100_000):
        received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 200
    client.close()
    await server.stop()


@ensureDeferred
async def test_a_client_that_takes_a_little() -> None:
    """As long as it takes some of what is written, it may take its time; then it is gone."""
    server = Server(write_timeout=0.4)
    client = await server.client(GET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.root.requests[0].write(b"x" * 20_000_000)
    for _ in range(8):
        await deferLater(reactor, 0.15, lambda: None)
        client.recv(400_000)
    assert not server.root.left
    await until(lambda: server.root.left)
    client.close()
    await server.stop()


def test_tls_ends_by_itself() -> None:
    """After the last answer it says so, and waits for its client no longer than it lingers."""
    connection = Connection(site_of(HastyRecorder(), Limits(linger=2)))
    alsoProvides(connection.transport, ISSLTransport)
    connection.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n")
    assert connection.channel.isSecure()
    assert connection.transport.over
    assert connection.received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_whose_client_has_left() -> None:
    """To go on with it is no error, until it is finished."""
    root = Waiting()
    connection = Connection(site_of(root))
    connection.send(GET)
    [request] = root.requests
    connection.leave()
    request.cork()
    request.write(b"a")
    assert request.isSecure() is False
    with pytest.raises(RuntimeError):
        request.finish()
