"""The site: which resource a head is for, how many connections there are, how they are closed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import directlyProvides

from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite, TurnedAway

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Early(Resource):
    """Has a word about heads."""

    def head_received(self, request: Any, length: int | None, whole: bool) -> None:
        """Not called here."""


class Tree(Resource):
    """Finds what is below it by path alone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[bytes]] = []
        self.found = Early()

    def early_resource(self, segments: list[bytes]) -> Any:
        """The same for all."""
        self.asked.append(segments)
        return self.found


class Dynamic(Resource):
    """Finds its children in a way of its own."""

    def getChildWithDefault(self, path: Any, request: Any) -> Any:
        """Whatever."""
        return self


class Waiting(Resource):
    """Never answers by itself."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render_GET(self, request: Any) -> int:
        """Keep it."""
        self.requests.append(request)
        return NOT_DONE_YET


def site_of(root: IResource, **limits: Any) -> DeferPostSite:
    """A site on a clock."""
    return DeferPostSite(root, reactor=Clock(), limits=Limits(**limits))


def connected(
    site: DeferPostSite, host: str = "192.0.2.1", transport: Any = None
) -> tuple[Any, StringTransport]:
    """A connection to it."""
    address = IPv4Address("TCP", host, 1)
    protocol = site.buildProtocol(address)
    transport = transport or StringTransport(peerAddress=address)
    protocol.makeConnection(transport)
    return protocol, transport


def test_early_resources() -> None:
    """Children that were put are found by the path alone, percent-encoded or not."""
    root, child, leaf, tree, early = Resource(), Resource(), Resource(), Tree(), Early()
    dynamic = Dynamic()
    leaf.isLeaf = True
    root.putChild(b"a", child)
    root.putChild(b"leaf", leaf)
    root.putChild(b"tree", tree)
    root.putChild(b"dynamic", dynamic)
    dynamic.putChild(b"e", early)
    child.putChild(b"b c", early)
    site = site_of(root)
    assert site.early_resource(b"/a/b%20c") is early
    for path in (b"*", b"/a", b"/a/none", b"/none/x", b"/leaf", b"/leaf/x", b"/dynamic/e"):
        assert site.early_resource(path) is None
    assert site.early_resource(b"/tree/x/%20") is tree.found
    assert site.early_resource(b"/tree") is tree.found
    assert tree.asked == [[b"x", b"%20"], []]


def test_a_root_that_finds_by_path() -> None:
    """It is asked once for each path, as long as it is the root; and not too many are kept."""
    tree = Tree()
    site = site_of(tree)
    for _ in range(3):
        assert site.early_resource(b"/a/b") is tree.found
        assert site.early_resource(b"/" + b"l" * 1000) is tree.found
    assert tree.asked.count([b"a", b"b"]) == 1
    for n in range(3000):
        site.early_resource(b"/%d" % n)
    assert len(site._known) <= 1024
    other = Tree()
    site.resource = other
    assert site.early_resource(b"/2999") is other.found


def test_an_early_leaf() -> None:
    """A leaf takes every path, also as the root."""
    early = Early()
    early.isLeaf = True
    assert site_of(early).early_resource(b"/a/b") is early


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"max_connections": 2}, 503), ({"max_connections_per_client": 2}, 429)],
)
def test_too_many_connections(limits: dict[str, int], status: int) -> None:
    """One too many is told so, and closed; when another has gone there is room again."""
    site = site_of(Waiting(), **limits)
    first, _ = connected(site)
    connected(site)
    refused: list[int] = []
    site.log_refused = lambda peer, line, status, *more: refused.append(status)  # type: ignore[method-assign]
    turned_away, transport = connected(site)
    assert isinstance(turned_away, TurnedAway)
    head, _, body = transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Retry-After: 1" in head.split(b"\r\n")
    assert json.loads(body)["status"] == status
    assert refused == [status]
    assert transport.disconnecting
    turned_away.connectionLost(Failure(ConnectionDone()))
    assert not site.turned_away
    if status == 429:
        other, _ = connected(site, "192.0.2.2")
        assert other in site.channels
        other.connectionLost(Failure(ConnectionDone()))
    first.connectionLost(Failure(ConnectionDone()))
    again, _ = connected(site)
    assert again in site.channels
    for channel in list(site.channels):
        channel.connectionLost(Failure(ConnectionDone()))
    assert not site._by_client
    assert site.buildProtocol(UNIXAddress(None)).client is None


def test_who_is_turned_away_has_a_time_to_see_it() -> None:
    """A client that does not close is not waited for: by its time, and by what it sends."""
    site = site_of(Waiting(), max_connections=0, linger=5.0, linger_bytes=100)
    patient, transport = connected(site)
    site.reactor.pump([1] * 6)  # type: ignore[attr-defined]
    assert transport.disconnected
    talkative, transport = connected(site)
    talkative.dataReceived(b"x" * 100)
    assert not transport.disconnected
    talkative.dataReceived(b"x")
    assert transport.disconnected
    for each in (patient, talkative):
        each.connectionLost(Failure(ConnectionDone()))


class HalfClosing(StringTransport):
    """A transport whose sides can be closed one by one."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Ours."""
        self.half_closed = True


def test_how_one_is_turned_away() -> None:
    """By the end of our side; at once where there is no time, or there are too many of them."""
    site = site_of(Waiting(), max_connections=0)
    _, transport = connected(site, transport=HalfClosing())
    assert transport.half_closed  # type: ignore[attr-defined]
    assert not transport.disconnecting
    hasty = site_of(Waiting(), max_connections=0, linger=0.0)
    _, transport = connected(hasty)
    assert transport.disconnecting
    tls = StringTransport()
    directlyProvides(tls, ISSLTransport)
    _, transport = connected(hasty, transport=tls)
    assert transport.disconnected
    for _ in range(120):
        _, transport = connected(site, transport=HalfClosing())
    assert transport.disconnecting
    site.abort_connections()
    assert transport.disconnected


def test_closing_what_is_idle() -> None:
    """Idle connections close at once, others after their response."""
    waiting = Waiting()
    site = site_of(waiting)
    _, idle = connected(site)
    busy_channel, busy = connected(site)
    busy_channel.dataReceived(GET)
    site.close_idle()
    assert idle.disconnecting
    assert not busy.disconnecting
    waiting.requests[0].finish()
    assert busy.disconnecting
    assert b"\r\nConnection: close\r\n" in busy.value()


def test_closing_all() -> None:
    """The Deferred fires when the last has gone; at once if there is none."""
    site = site_of(Waiting())
    assert site.close_connections().called
    one, transport = connected(site)
    two, other = connected(site)
    closed = site.close_connections()
    assert transport.disconnecting
    one.connectionLost(Failure(ConnectionDone()))
    assert not closed.called
    site.abort_connections()
    assert other.disconnected
    two.connectionLost(Failure(ConnectionDone()))
    assert closed.called


def test_what_a_site_takes() -> None:
    """Site's own arguments count: its timeout, and whether it reads forms; TLS has HTTP/1.1."""
    site = DeferPostSite(Resource(), timeout=7, reactor=Clock())
    assert site.limits.idle_timeout == 7
    assert site.acceptableProtocols() == [b"http/1.1"]
    assert DeferPostSite(Resource(), timeout=None, reactor=Clock()).limits == Limits()
    assert DeferPostSite(Resource(), timeout=7, limits=Limits(), reactor=Clock()).limits == Limits()
    _, transport = connected(site)
    site.reactor.pump([1] * 8)  # type: ignore[attr-defined]
    assert transport.disconnecting


def test_announcing_the_end() -> None:
    """Every response says that it is the last, on connections that are made later too."""
    waiting = Waiting()
    site = site_of(waiting)
    early, first = connected(site)
    site.announce_end()
    late, second = connected(site)
    for channel, transport in ((early, first), (late, second)):
        assert not transport.disconnecting
        channel.dataReceived(GET)
        waiting.requests[-1].finish()
        assert b"\r\nConnection: close\r\n" in transport.value()
        assert transport.disconnecting


def test_another_tree() -> None:
    """What was begun is answered by the tree before, the next request by the one that is there."""
    before, after = Waiting(), Waiting()
    site = site_of(before)
    channel, transport = connected(site)
    assert site.requests() == []
    channel.dataReceived(GET)
    assert site.requests() == before.requests
    site.change(after, site.limits)
    before.requests[0].finish()
    assert site.requests() == []
    channel.dataReceived(GET)
    assert len(after.requests) == 1
    assert transport.value().count(b"HTTP/1.1 200 OK") == 1


def test_another_tree_that_is_asked_early() -> None:
    """What was found in the tree before is forgotten with it."""
    before, after = Tree(), Tree()
    site = site_of(before)
    assert site.early_resource(b"/a") is site.early_resource(b"/a") is before.found
    site.change(after, site.limits)
    assert site.early_resource(b"/a") is after.found
    assert len(before.asked) == len(after.asked) == 1


def test_other_limits() -> None:
    """Other limits are those of connections that are made from then on."""
    site = site_of(Waiting(), max_headers=1)
    old, first = connected(site)
    site.change(site.resource, Limits(max_headers=2, max_connections=2))
    new, second = connected(site)
    two = GET.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n")
    old.dataReceived(two)
    new.dataReceived(two)
    assert b" 431 " in first.value()
    assert second.value() == b""
    third, _ = connected(site)
    assert isinstance(third, TurnedAway)
