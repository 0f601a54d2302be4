"""The site: connections with their bounds, in front of any resources of twisted.web."""

from __future__ import annotations

import select
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from deferpost.ids import id_of
from deferpost.wire.channel import WireChannel
from deferpost.wire.deadlines import Deadlines
from deferpost.wire.departures import HangupWatch
from deferpost.wire.limits import Limits
from deferpost.wire.parsing import Parsers
from deferpost.wire.refusals import PROBLEM_TYPE, problem_document
from deferpost.wire.request import WireRequest
from deferpost.wire.responses import Stamp, status_line
from deferpost.wire.rules import RequestLine

__all__ = ["DeferPostSite"]

#: Paths of which a site remembers the resource, and their length in bytes.
_MOST_KNOWN, _LONGEST_KNOWN = 1024, 256

#: Connections too many that are still told so; further ones are closed at once.
_MOST_TURNED_AWAY = 100

_stamp = Stamp()


class DeferPostSite(Site):
    """A :class:`twisted.web.server.Site` whose connections are :class:`WireChannel`.

    It speaks HTTP/1.1 and HTTP/1.0.  Any tree of resources works on it; a resource of ours decides
    about a request when its head is in.  For the reactor thread.

    :param resource: the root.
    :param limits: the bounds.
    :param requestFactory: makes requests of channels; a subclass of :class:`WireRequest` is quick.
    :param further: as Site takes it.  A site whose forms only handlers read is quicker with
        ``parsePOSTFormSubmission=False``.
    """

    protocol = WireChannel  # type: ignore[assignment]  # Twisted's is typed as its own channel

    def __init__(
        self,
        resource: IResource,
        requestFactory: Any = None,
        *args: Any,
        limits: Limits | None = None,
        **further: Any,
    ) -> None:
        super().__init__(resource, requestFactory or WireRequest, *args, **further)
        if limits is None:  # then Site's own ``timeout`` counts
            limits = Limits() if self.timeOut is None else Limits(idle_timeout=self.timeOut)
        self.limits = limits
        self._take_limits()
        self._hangups: HangupWatch | None = None
        if hasattr(select, "epoll") and IReactorFDSet.providedBy(self.reactor):
            self._hangups = HangupWatch(self.reactor)
        self.channels: set[WireChannel] = set()
        self.turned_away: set[TurnedAway] = set()
        self._by_client: dict[str, int] = {}
        self._closed: Deferred[None] | None = None
        self._known: dict[bytes, tuple[Any, Any]] = {}  # paths
        self._ending = False

    def _take_limits(self) -> None:
        limits = self.limits
        times = (
            limits.head_timeout,
            limits.idle_timeout,
            limits.body_window,
            limits.write_timeout,
        )
        self.deadlines = Deadlines(self.reactor, min(0.25, *(time / 4 for time in times)))
        self._parsers = Parsers(limits.max_chunk_line, limits.max_head, limits.max_headers)

    def change(self, resource: IResource, limits: Limits) -> None:
        """Serve another tree, with other bounds.

        Requests whose head has come are answered by the tree in which they were found.  The bounds
        are those of connections that are made from now on.

        :param resource: the root.
        :param limits: the bounds.
        """
        self.resource = resource
        self._known.clear()  # it holds what was found in the tree before
        if limits != self.limits:
            self.limits = limits
            self._take_limits()

    def requests(self) -> list[Any]:
        """The requests whose head has come and whose response is not whole."""
        return [request for channel in self.channels for request in channel.requests]

    def buildProtocol(self, addr: Any) -> Any:
        """A channel for a connection, or what turns it away where there are too many."""
        limits = self.limits
        if len(self.channels) >= limits.max_connections:
            return TurnedAway(self, 503, "The server has as many connections as it takes.")
        most = limits.max_connections_per_client
        client = getattr(addr, "host", None)
        if most and client is not None:
            count = self._by_client.get(client, 0)
            if count >= most:
                return TurnedAway(self, 429, f"A client has at most {most} connections here.")
            self._by_client[client] = count + 1
        channel = super().buildProtocol(addr)
        channel.limits = limits
        channel.parsers = self._parsers
        channel.deadlines = self.deadlines
        channel.hangups = self._hangups
        channel.client = client if most else None
        if self._ending:
            channel.announce_end()
        self.channels.add(channel)
        return channel

    def channel_lost(self, channel: Any) -> None:
        """Called by a channel whose connection has gone."""
        self.channels.discard(channel)
        client = channel.client
        if client is not None:
            count = self._by_client[client] - 1
            if count:
                self._by_client[client] = count
            else:
                del self._by_client[client]
        self._fire_if_closed()

    def log_refused(
        self, peer: Any, line: RequestLine | None, status: int, detail: str, id: str
    ) -> None:
        """Called by a channel that has refused a request by itself.

        :param peer: the client's address.
        :param line: the first line of the request, if that much of it was understood.
        :param status: HTTP status.
        :param detail: what the client was told.
        :param id: what the client was told the id is.
        """

    def early_resource(self, path: bytes) -> Any:
        """The resource of a path, where it can be found by the head of a request alone.

        Through children that were put, as far as no resource finds them in a way of its own.

        :param path: of the request target.
        :returns: a resource that has ``head_received``, or None.
        """
        known = self._known.get(path)
        if known is not None and known[0] is self.resource:
            return known[1]
        if path == b"*":
            return None  # it is of the server as a whole, which Twisted answers for
        resource: Any = self.resource
        segments = path[1:].split(b"/")
        for index, segment in enumerate(segments):
            find = getattr(resource, "early_resource", None)
            if find is not None:
                found = find(segments[index:])
                if index == 0:  # no other resource stands before it
                    self._remember(path, found)
                return found
            if resource.isLeaf:
                break
            kind = type(resource)
            if getattr(kind, "getChildWithDefault", None) is not Resource.getChildWithDefault:
                return None
            resource = resource.children.get(unquote_to_bytes(segment))
            if resource is None:
                return None
        find = getattr(resource, "early_resource", None)
        if find is not None:
            return find([])
        return resource if hasattr(resource, "head_received") else None

    def _remember(self, path: bytes, found: Any) -> None:
        if len(path) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[path] = (self.resource, found)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS: HTTP/1.1 alone."""
        return [b"http/1.1"]

    def announce_end(self) -> None:
        """Have each response from now on be the last of its connection, and say so."""
        self._ending = True
        for channel in self.channels:
            channel.announce_end()

    def close_idle(self) -> None:
        """Close each connection as soon as no request is under way on it."""
        for channel in list(self.channels):
            channel.close_when_idle()

    def close_connections(self) -> Deferred[None]:
        """Close every connection when what was written to it has left.

        :returns: a Deferred that fires when none is left.
        """
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for channel in list(self.channels):
            channel.loseConnection()
        self._fire_if_closed()
        return closed

    def abort_connections(self) -> None:
        """Close every connection now."""
        for channel in list(self.channels):
            channel.abortConnection()
        for turned_away in list(self.turned_away):
            turned_away.expired(0.0)

    def _fire_if_closed(self) -> None:
        if self._closed is not None and not self.channels and not self._closed.called:
            self._closed.callback(None)


class TurnedAway(Protocol):
    """A connection too many: it is told so, and closed when its client has had time to see it.

    :param site: the site.
    :param status: HTTP status.
    :param detail: one sentence for the client.
    """

    def __init__(self, site: DeferPostSite, status: int, detail: str) -> None:
        self._site = site
        self._status = status
        self._detail = detail
        self._dropped = 0
        self.deadline: float | None = None
        self.held_until: int | None = None

    def connectionMade(self) -> None:
        """Called by the transport."""
        transport: Any = self.transport
        site = self._site
        id = id_of(None)
        body = problem_document(self._status, self._detail, id)
        transport.write(
            b"%b%bX-Request-ID: %b\r\nConnection: close\r\nRetry-After: 1\r\n"
            b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (
                status_line(b"HTTP/1.1", self._status),
                _stamp.bytes(),
                id.encode("ascii"),
                PROBLEM_TYPE,
                len(body),
                body,
            )
        )
        site.log_refused(transport.getPeer(), None, self._status, self._detail, id)
        turned_away = site.turned_away
        turned_away.add(self)
        is_tls = ISSLTransport.providedBy(transport)
        if site.limits.linger <= 0 or len(turned_away) > _MOST_TURNED_AWAY:
            if is_tls:  # it would wait for its client
                transport.abortConnection()
            else:
                transport.loseConnection()
            return
        site.deadlines.hold(self, site.deadlines.now() + site.limits.linger)
        # Unread bytes would reset the connection, and the client would not see why.
        if is_tls or not hasattr(transport, "loseWriteConnection"):
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Drop what comes, up to a bound."""
        self._dropped += len(data)
        if self._dropped > self._site.limits.linger_bytes:
            self.expired(0.0)

    def expired(self, now: float) -> None:
        """The client has had its time; called by :class:`Deadlines`."""
        transport: Any = self.transport
        getattr(transport, "abortConnection", transport.loseConnection)()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called by the transport: the connection has gone."""
        self._site.deadlines.drop(self)
        self._site.turned_away.discard(self)
