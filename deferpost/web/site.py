"""The daemon's site: bounds on bodies, an access log, and connections that can be closed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from deferpost.bodies import SpooledBody
from deferpost.jsonlog import MEMBERS
from deferpost.web.exchange import CLIENT_LEFT
from deferpost.wire.limits import Limits
from deferpost.wire.refusals import RequestRefused
from deferpost.wire.request import WireRequest
from deferpost.wire.rules import RequestLine
from deferpost.wire.site import DeferPostSite

__all__ = [
    "CLIENT_LEFT",
    "DaemonRequest",
    "DaemonSite",
    "DaemonWireRequest",
    "DaemonWireSite",
    "access_line",
]

_log = Logger(namespace="deferpost.access")

_UNPRINTABLE = re.compile(rb"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


def _quoted(value: bytes) -> str:
    """Bytes of a client for a quoted place of the log: one line, no quote, no control."""
    return _UNPRINTABLE.sub(lambda found: b"\\x%02x" % found[0][0], value).decode("ascii")


def access_line(request: Any, status: int, now: float) -> str:
    """A request as a line: the common format, then id and times.

    :param request: the request, as far as it came.
    :param status: the status of its response, or :data:`CLIENT_LEFT`.
    :param now: the time, in seconds of the monotonic clock.
    """
    job = getattr(request, "deferpost_job", None)
    ids = request.responseHeaders.getRawHeaders(b"X-Request-ID")
    id = job.head.id.encode("ascii") if job is not None else (ids or [b"-"])[0]
    queue, run = (job.queue_so_far(now), job.run_so_far(now)) if job is not None else (0.0, 0.0)
    agent = request.requestHeaders.getRawHeaders(b"user-agent") or [b"-"]
    host = getattr(request.client, "host", None) or "-"
    line = "-"
    if request.method != Request.method:  # else its client left before it was whole
        line = " ".join(map(_quoted, (request.method, request.uri, request.clientproto)))
    return (
        f'{host} "{line}" {status} {request.sentLength} '
        f'"{_quoted(agent[0])}" id={_quoted(id)} queue={queue:.6f} run={run:.6f}'
    )


def access_members(request: Any, status: int, now: float) -> dict[str, Any]:
    """The same as members of a JSON document; see :func:`access_line`."""
    job = getattr(request, "deferpost_job", None)
    ids = request.responseHeaders.getRawHeaders(b"X-Request-ID") or [b""]
    agent = request.requestHeaders.getRawHeaders(b"user-agent")
    whole = request.method != Request.method
    return {
        "event": "access",
        "id": job.head.id if job is not None else _text(ids[0]) or None,
        "client": getattr(request.client, "host", None),
        "method": _text(request.method) if whole else None,
        "path": _text(request.uri) if whole else None,
        "protocol": _text(request.clientproto) if whole else None,
        "status": status,
        "bytes": request.sentLength,
        "agent": _text(agent[0]) if agent else None,
        "queue_seconds": 0.0 if job is None else round(job.queue_so_far(now), 6),
        "run_seconds": 0.0 if job is None else round(job.run_so_far(now), 6),
    }


def _text(value: bytes) -> str:
    """Bytes of a client as text."""
    return value.decode("utf-8", "backslashreplace")


class DaemonRequest(Request):
    """A request that is in the access log however it ends."""

    def connectionLost(self, reason: Any) -> None:
        """The client left before the response was written."""
        factory = getattr(self.channel, "factory", None)
        super().connectionLost(reason)  # first, so that the job knows
        if factory is not None and not self.finished:
            factory.log_left(self)

    def write(self, data: bytes) -> None:
        """Write of the response; its head says so if it is the last of its connection."""
        channel = self.channel
        if not self.startedWriting and getattr(getattr(channel, "factory", None), "ending", False):
            channel.persistent = False
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        super().write(data)


class DaemonWireRequest(WireRequest):
    """A request of our own wire that is in the access log however it ends."""

    def connectionLost(self, reason: Any) -> None:
        """The client left before the response was written."""
        site = getattr(self.channel, "site", None)
        super().connectionLost(reason)  # first, so that the job knows
        if site is not None and not self.finished and not reason.check(RequestRefused):
            site.log_left(self)


class _DaemonHabits(Site):
    """What both sites of the daemon do: where bodies go, and what is logged.

    :param body_memory: bytes of a body that are kept in memory.
    :param largest_body: bytes of a body that are kept at all.
    :param directory: where larger bodies are kept; None for the system's choice.
    :param access_log: whether each request is logged.
    :param log_json: whether the log is JSON, so that such a line has members of its own.
    :param now: the monotonic clock, in seconds.
    """

    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        *site: Any,
        body_memory: int,
        largest_body: int,
        directory: str | None,
        access_log: bool,
        log_json: bool = False,
        now: Callable[[], float],
        **further: Any,
    ) -> None:
        # Forms are read in the workers; here it would be done on the reactor thread.
        super().__init__(*site, parsePOSTFormSubmission=False, **further)
        self._now = now
        self._log_json = log_json
        self.take_habits(body_memory, largest_body, directory, access_log)

    def take_habits(
        self, body_memory: int, largest_body: int, directory: str | None, access_log: bool
    ) -> None:
        """Take other habits, for bodies that begin and requests that end from now on."""
        self._body_memory = body_memory
        self._largest_body = largest_body
        self._directory = directory
        self._access_log = access_log

    def getContentFile(self, length: int | None) -> Any:
        """Where the body of a request goes; called when its head is in."""
        return SpooledBody(self._body_memory, self._largest_body, self._directory)

    def log(self, request: Any) -> None:
        """Log a request that was answered; called by it."""
        if self._access_log:
            self._log_access(request, request.code)

    def log_left(self, request: Any) -> None:
        """Log a request whose client left."""
        if self._access_log:
            self._log_access(request, CLIENT_LEFT)

    def _log_access(self, request: Any, status: int) -> None:
        now = self._now()
        line = access_line(request, status, now)
        if self._log_json:
            _log.info("{line}", line=line, **{MEMBERS: access_members(request, status, now)})
        else:
            _log.info("{line}", line=line)


class DaemonWireSite(_DaemonHabits, DeferPostSite):
    """The site of the daemon, on our own wire.

    :param resource: the root.
    :param limits: the bounds of its connections.
    :param habits: see :class:`_DaemonHabits`, and as DeferPostSite takes them.

    :ivar refused: called with the path, as far as it was understood, the status and a word for
        each request that the wire refuses by itself; None for nobody.
    """

    refused: Callable[[str, int, str], None] | None = None

    def __init__(self, resource: IResource, *, limits: Limits, **habits: Any) -> None:
        super().__init__(resource, DaemonWireRequest, limits=limits, **habits)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self.channels)

    def log_refused(
        self, peer: Any, line: RequestLine | None, status: int, detail: str, id: str
    ) -> None:
        """Log a request that the channel refused by itself."""
        if self.refused is not None:
            target = b"" if line is None else line.target.partition(b"?")[0]
            word = "body_too_large" if status == 413 else str(status)
            self.refused(target.decode("latin-1"), status, word)
        if self._access_log:
            words = () if line is None else (line.method, line.target, line.version)
            members = {}
            if self._log_json:
                method, path, protocol = map(_text, words) if words else (None, None, None)
                members[MEMBERS] = {
                    "event": "access",
                    "id": id,
                    "client": getattr(peer, "host", None),
                    "method": method,
                    "path": path,
                    "protocol": protocol,
                    "status": status,
                    "bytes": 0,
                    "agent": None,
                    "queue_seconds": 0.0,
                    "run_seconds": 0.0,
                }
            _log.info(
                '{host} "{line}" {status} 0 "-" id={id} refused: {detail}',
                **members,
                host=getattr(peer, "host", None) or "-",
                line=" ".join(map(_quoted, words)) or "-",
                status=status,
                id=_quoted(id.encode("ascii")),
                detail=detail,
            )


class DaemonSite(_DaemonHabits):
    """The site of the daemon, on Twisted's channel.

    :param resource: the root.
    :param habits: see :class:`_DaemonHabits`, and as Site takes them.
    """

    def __init__(self, resource: IResource, **habits: Any) -> None:
        super().__init__(resource, DaemonRequest, **habits)
        self.ending = False
        self._transports: dict[Any, Any] = {}  # by channel
        self._closed: Deferred[None] | None = None

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._transports)

    def buildProtocol(self, addr: Any) -> Any:
        """A channel for a connection; it is remembered until its end."""
        channel = super().buildProtocol(addr)
        make, lost = channel.makeConnection, channel.connectionLost

        def make_connection(transport: Any) -> None:
            self._transports[channel] = transport
            make(transport)

        def connection_lost(reason: Any) -> None:
            del self._transports[channel]
            lost(reason)
            self._fire_if_closed()

        channel.makeConnection = make_connection
        channel.connectionLost = connection_lost
        return channel

    def change(self, resource: IResource) -> None:
        """Serve another tree, to connections that are there too."""
        self.resource = resource

    def requests(self) -> list[Any]:
        """The requests whose head has come and whose response is not whole; of HTTP/1.1."""
        return [request for channel in self._transports for request in _requests(channel) or ()]

    def announce_end(self) -> None:
        """Have each response from now on be the last of its connection, and say so."""
        self.ending = True

    def close_idle(self) -> None:
        """Close each connection as soon as no request is under way on it."""
        self.ending = True
        for channel, transport in list(self._transports.items()):
            if _requests(channel) == []:
                transport.unregisterProducer()  # the channel, for whose end it would wait
                transport.loseConnection()

    def close_connections(self) -> Deferred[None]:
        """Close every connection when what was written to it has left.

        :returns: a Deferred that fires when none is left.
        """
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for transport in list(self._transports.values()):
            transport.unregisterProducer()  # the channel, for whose end it would wait
            transport.loseConnection()
        self._fire_if_closed()
        return closed

    def abort_connections(self) -> None:
        """Close every connection now."""
        for transport in list(self._transports.values()):
            transport.abortConnection()

    def _fire_if_closed(self) -> None:
        if self._closed is not None and not self._transports and not self._closed.called:
            self._closed.callback(None)


def _requests(channel: Any) -> list[Any] | None:
    """The requests of a channel of Twisted's; None where it does not tell, as that of HTTP/2."""
    return getattr(channel._channel, "requests", None)
