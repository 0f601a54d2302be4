"""What code for Twisted's channel finds on ours; Twisted's own tests say the rest."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from deferpost.wire.channel import WireChannel
from deferpost.wire.site import DeferPostSite

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Other(Protocol):
    """Another protocol, which takes a connection over."""

    def __init__(self) -> None:
        self.received = b""
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        """Keep."""
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        """Keep."""
        self.reason = reason


class Giving(Resource):
    """Gives its connections away."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.other = Other()
        self.lost: list[Any] = []

    def render_GET(self, request: Any) -> int:
        """Give this one away."""
        request.notifyFinish().addErrback(self.lost.append)
        request.channel._protocolUpgradeForWebsockets(self.other)
        return NOT_DONE_YET


def test_a_connection_that_is_given_away() -> None:
    """What comes is for the other, for as long as it likes; the site hears of the end."""
    clock = Clock()
    resource = Giving()
    site = DeferPostSite(resource, reactor=clock)
    channel = site.buildProtocol(None)
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(GET)
    channel.dataReceived(b"frame")
    clock.pump([100.0] * 5)
    assert not transport.disconnecting
    assert resource.other.received == b"frame"
    assert resource.other.transport is transport
    channel.readConnectionLost()
    assert transport.disconnecting
    reason = Failure(ConnectionDone())
    channel.connectionLost(reason)
    assert resource.other.reason is reason
    assert resource.lost == [reason]
    assert not site.channels


class Waiting(Resource):
    """Never answers by itself."""

    isLeaf = True

    def render_GET(self, request: Any) -> int:
        """Later."""
        self.request = request
        return NOT_DONE_YET


def test_a_site_of_twisteds_with_our_channel() -> None:
    """Our channel serves for it, with the site's time for idleness, and a timer of its own."""
    clock = Clock()
    resource = Waiting()
    site = Site(resource, timeout=20, reactor=clock)
    site.protocol = WireChannel  # type: ignore[assignment]
    channel: Any = site.buildProtocol(None)
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(GET)
    assert channel.requests == [resource.request]
    clock.pump([10.0] * 10)
    resource.request.finish()
    assert channel.requests == []
    clock.advance(19)
    assert not transport.disconnecting
    clock.advance(1)
    assert transport.disconnecting
    channel.connectionLost(Failure(ConnectionDone()))
    assert clock.getDelayedCalls() == []


def test_a_channel_alone() -> None:
    """It takes the clock of its transport, or of nobody."""
    for clock in (Clock(), None):
        channel = WireChannel()
        transport: Any = StringTransport()
        if clock is not None:
            transport.reactor = clock
        channel.makeConnection(transport)
        if clock is not None:
            clock.advance(channel.limits.idle_timeout)
        assert transport.disconnecting is (clock is not None)


def test_timeouts() -> None:
    """``setTimeout`` has the connection closed then, or not at all for now."""
    clock = Clock()
    site = DeferPostSite(Waiting(), reactor=clock)
    for seconds, closed in ((5, True), (None, False)):
        channel = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.setTimeout(seconds)
        clock.pump([1.0] * 100)
        assert transport.disconnecting is closed


def test_pauses() -> None:
    """To pause twice is to pause; a producer is told, and stopped once it is there."""
    channel = DeferPostSite(Waiting(), reactor=Clock()).buildProtocol(None)
    channel.makeConnection(StringTransport())
    channel.stopProducing()
    channel.resumeProducing()
    channel.pauseProducing()
    channel.pauseProducing()
    assert channel.outgoing.full
    channel.resumeProducing()
    assert not channel.outgoing.full


def test_persistence() -> None:
    """Any Connection field may say close, in a list as well."""
    channel = WireChannel()
    site = DeferPostSite(Waiting(), reactor=Clock())
    other = site.buildProtocol(None)
    other.makeConnection(StringTransport())
    other.dataReceived(GET.replace(b"Host", b"Connection: x\r\nConnection: y, Close\r\nHost"))
    [request] = other.requests
    assert not channel.checkPersistence(request, b"HTTP/1.0")
    assert not request.responseHeaders.hasHeader(b"connection")
    assert not channel.checkPersistence(request, b"HTTP/1.1")
    assert request.responseHeaders.getRawHeaders(b"connection") == [b"close"]
    request.requestHeaders.setRawHeaders(b"connection", [b"x"])
    assert channel.checkPersistence(request, b"HTTP/1.1")
