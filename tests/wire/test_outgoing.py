"""What leaves a connection."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport

from deferpost.wire.outgoing import DirectOutgoing, Outgoing, TransportOutgoing, outgoing_for
from tests.waiting import until


class Told:
    """What an owner was told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def filled(self) -> None:
        """The client takes no more."""
        self.events.append("filled")

    def drained(self) -> None:
        """It has taken all."""
        self.events.append("drained")


def over(transport: Any) -> tuple[Outgoing, Told]:
    """The way out over a transport."""
    told = Told()
    outgoing = outgoing_for(transport, told.filled, told.drained)
    outgoing.start()
    return outgoing, told


def test_corks() -> None:
    """What is written between a cork and the last uncork leaves as one piece, in order."""
    transport = StringTransport()
    written: list[bytes] = []
    transport.write = written.append  # type: ignore[method-assign]
    outgoing, _ = over(transport)
    outgoing.write(b"")
    outgoing.write(b"0")
    outgoing.cork()
    outgoing.uncork()
    outgoing.cork()
    outgoing.write(b"1")
    outgoing.uncork()
    outgoing.cork()
    outgoing.cork()
    outgoing.write(b"2")
    outgoing.uncork()
    outgoing.write(b"3")
    outgoing.uncork()
    outgoing.cork()
    outgoing.cork()
    outgoing.write(b"4")
    outgoing.flush()
    outgoing.write(b"5")
    outgoing.flush()
    assert written == [b"0", b"1", b"23", b"4", b"5"]


def test_a_transport_with_rules_of_its_own() -> None:
    """It tells when it has enough, as a producer's consumer does."""
    transport = StringTransport()
    outgoing, told = over(transport)
    assert isinstance(outgoing, TransportOutgoing)
    assert transport.producer is outgoing
    assert transport.streaming
    assert outgoing.unsent() is None
    transport.producer.pauseProducing()
    assert outgoing.full
    transport.producer.resumeProducing()
    assert not outgoing.full
    assert told.events == ["filled", "drained"]
    transport.producer.stopProducing()
    outgoing.stop()
    assert transport.producer is None
    outgoing.close()
    outgoing.pauseProducing()
    assert told.events == ["filled", "drained"]


def test_a_transport_without_producers() -> None:
    """One that has no rules only gets the bytes."""

    class Plain:
        def __init__(self) -> None:
            self.written = b""

        def write(self, data: bytes) -> None:
            """Keep."""
            self.written += data

    transport = Plain()
    outgoing, _ = over(transport)
    outgoing.write(b"a")
    outgoing.stop()
    assert transport.written == b"a"


def test_the_base_sends_nothing() -> None:
    """It does not know how."""
    outgoing = Outgoing(None, lambda: None, lambda: None)
    outgoing.start()
    outgoing.stop()
    with pytest.raises(NotImplementedError):
        outgoing.write(b"a")


class Kept(Protocol):
    """Keeps that it is connected."""

    connected_now = True

    def connectionLost(self, reason: Any = None) -> None:
        """It is not any more."""
        self.connected_now = False


def adopted() -> tuple[Kept, socket.socket]:
    """A transport of the reactor's over one end of a connection, and the other end."""
    from twisted.internet.protocol import Factory

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    protocols: list[Kept] = []

    class Keeping(Factory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Kept:
            """One."""
            protocols.append(Kept())
            return protocols[0]

    reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Keeping())  # type: ignore[attr-defined]
    ours.close()
    theirs.settimeout(10)
    return protocols[0], theirs


@ensureDeferred
async def test_a_socket_is_written_at_once() -> None:
    """A short answer is with the client before the reactor turns."""
    protocol, theirs = adopted()
    outgoing, told = over(protocol.transport)
    assert isinstance(outgoing, DirectOutgoing)
    outgoing.write(b"answer")
    assert theirs.recv(100) == b"answer"
    assert not outgoing.full
    assert told.events == []
    theirs.close()
    await until(lambda: not protocol.connected_now)


@ensureDeferred
async def test_a_client_that_takes_nothing() -> None:
    """What does not go into the socket is kept by the transport, in order; then all is taken."""
    protocol, theirs = adopted()
    outgoing, told = over(protocol.transport)
    pieces = [bytes([n]) * 300_000 for n in range(4)]
    for piece in pieces:
        outgoing.write(piece)
    assert outgoing.full
    assert told.events == ["filled"]
    before = outgoing.unsent()
    assert outgoing.unsent() == before
    received = theirs.recv(100_000)
    assert outgoing.unsent() != before
    theirs.setblocking(False)

    def take() -> bool:
        nonlocal received
        with contextlib.suppress(BlockingIOError):
            received += theirs.recv(1_000_000)
        return len(received) == 1_200_000

    await until(take)
    await until(lambda: told.events == ["filled", "drained"])
    assert received == b"".join(pieces)
    outgoing.write(b"more")
    assert theirs.recv(100) == b"more"
    theirs.close()
    await until(lambda: not protocol.connected_now)


@ensureDeferred
async def test_a_client_that_is_gone() -> None:
    """The transport finds out, and says so."""
    protocol, theirs = adopted()
    outgoing, told = over(protocol.transport)
    theirs.close()
    outgoing.write(b"a" * 1000)
    assert told.events == ["filled"]
    await until(lambda: not protocol.connected_now)
    outgoing.close()
