"""A request of twisted.web that does at once only what is asked of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from twisted.web.server import version as server_version
from zope.interface import implementer

from deferpost.wire.rules import Framing, RequestLine

__all__ = ["WireRequest"]


@implementer(IRequest)
class WireRequest(Request):
    """A :class:`twisted.web.server.Request` whose parts are made when they are first looked at.

    It is one in all that resources see.  On the reactor thread, as every request.

    :ivar line: the first line of the request, from when its head is complete.
    :ivar fields: the header fields as they came: name and value pairs, in order.
    :ivar framing: how long its body is.
    :ivar id: for whoever answers: the id of the request, once it has one.
    """

    #: For the channel: that :meth:`begin` takes the head.
    begins = True

    channel: Any  # a WireChannel, where the superclass says Twisted's
    line: RequestLine
    fields: list[tuple[bytes, bytes]]
    framing: Framing
    id: str | None = None

    def __init__(
        self, channel: Any, queued: object = False, parsePOSTFormSubmission: bool | None = None
    ) -> None:
        # Not the superclass's: it makes six containers that a POST of ours never looks into.
        self.channel = channel
        self.transport = channel.transport
        self.client = channel.peer
        self.host = channel.host
        self.queued = queued
        self.notifications: list[Deferred[None]] = []
        self.fields = []
        if parsePOSTFormSubmission is not None:  # else the site's word counts
            self._parsePOSTFormSubmission = parsePOSTFormSubmission

    def __getattr__(self, name: str) -> Any:
        """Make one of the superclass's containers; only called for what is not there."""
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value

    _ended: Callable[[Failure | None], None] | None = None

    #: What a resource keeps that was asked when the head had come, until the body has.
    kept: Any = None

    def watch(self, ended: Callable[[Failure | None], None]) -> None:
        """Be told once of the end, as by ``notifyFinish``, without a Deferred.

        :param ended: called with None when the response is written, or with why the client has
            left before that.
        """
        self._ended = ended

    def connectionLost(self, reason: Failure) -> None:
        """The client has left; called by the channel."""
        ended, self._ended = self._ended, None
        super().connectionLost(reason)
        if ended is not None:
            ended(reason)

    def getStateToCopyFor(self, issuer: Any) -> dict[str, Any]:
        """What :mod:`twisted.web.distrib` sends of a request to where it is answered."""
        for name in _LATE:
            getattr(self, name)
        state: dict[str, Any] = super().getStateToCopyFor(issuer)
        return {name: value for name, value in state.items() if name not in _OURS}

    def getTypeToCopyFor(self, issuer: Any) -> bytes:
        """What it is taken for there."""
        return qual(Request).encode("ascii")

    def begin(self, line: RequestLine, fields: list[tuple[bytes, bytes]], framing: Framing) -> None:
        """Its head is complete; called by the channel."""
        self.line = line
        self.fields = fields
        self.framing = framing
        self.method = line.method
        self.uri = line.target
        self.path = line.path
        self.clientproto = line.version

    def cork(self) -> None:
        """Keep what is written until the response is whole: it leaves as one piece."""
        if self.channel is not None:
            self.channel.outgoing.cork()
            self._corked = True

    _corked = False

    def write(self, data: bytes) -> None:
        """Write of the response; the head leaves with the first piece."""
        channel = getattr(self, "channel", None)  # Twisted deletes it in the end
        if self.startedWriting or channel is None:
            super().write(data)
            return
        channel.outgoing.cork()
        try:
            super().write(data)
        finally:
            channel.outgoing.uncork()

    def finish(self) -> None:
        """The response is whole."""
        channel = getattr(self, "channel", None)
        if channel is not None:
            channel.outgoing.cork()
        try:
            super().finish()
        finally:
            if channel is not None:
                channel.outgoing.uncork()
                if self._corked:
                    channel.outgoing.uncork()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(None)

    def answer(self, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole response and finish, with ``Server``, ``Date`` and ``Content-Length``.

        In place of ``setResponseCode``, ``setHeader``, ``write`` and ``finish``, at a fifth of
        their cost; for a method other than HEAD.

        :param status: HTTP status, of a response that has a body, if only an empty one.
        :param fields: further header fields, whose values have no line breaks.
        :param body: the whole body.
        """
        channel = self.channel
        self.code = status
        self.code_message = RESPONSES.get(status, b"Unknown Status")
        self.startedWriting = 1
        self.sentLength = len(body)
        if channel.site is not None:
            channel.site.log(self)  # before a client can look for it in the log
        channel.write_answer(self, fields, body)
        self.finished = 1
        ended, self._ended = self._ended, None
        self._cleanup()
        if ended is not None:
            ended(None)


#: What a request has beside those of the superclass.
_OURS = frozenset({"fields", "framing", "kept", "line", "_corked", "_ended"})


def _request_headers(request: WireRequest) -> Headers:
    headers = Headers()
    for name, value in request.fields:
        headers.addRawHeader(name, value)
    return headers


def _response_headers(request: WireRequest) -> Headers:
    return Headers({b"Server": [server_version], b"Date": [datetimeToString()]})


def _cookies(request: WireRequest) -> dict[bytes, bytes]:
    request.received_cookies = {}
    request.parseCookies()
    return request.received_cookies


_LATE: dict[str, Any] = {
    "requestHeaders": _request_headers,
    "responseHeaders": _response_headers,
    "received_cookies": _cookies,
    "cookies": lambda request: [],
    "_adapterCache": lambda request: {},
    "_parsePOSTFormSubmission": lambda request: request.channel.site._parsePOSTFormSubmission,
}
