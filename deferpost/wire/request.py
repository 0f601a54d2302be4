"""A request of twisted.web that does at once only what is asked of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
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
    """

    line: RequestLine
    fields: list[tuple[bytes, bytes]]
    framing: Framing

    def __init__(self, channel: Any, queued: object = False, **further: Any) -> None:
        # Not the superclass's: it makes six containers that a POST of ours never looks into.
        self.channel = channel
        self.transport = channel.transport
        self.client = channel.peer
        self.host = channel.host
        self.queued = queued
        self.notifications: list[Deferred[None]] = []
        self.fields = []

    def __getattr__(self, name: str) -> Any:
        """Make one of the superclass's containers; only called for what is not there."""
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value

    def begin(self, line: RequestLine, fields: list[tuple[bytes, bytes]], framing: Framing) -> None:
        """Its head is complete; called by the channel."""
        self.line = line
        self.fields = fields
        self.framing = framing
        self.method = line.method
        self.uri = line.target
        self.path = line.path
        self.clientproto = line.version

    def write(self, data: bytes) -> None:
        """Write of the response; the head leaves with the first piece."""
        channel = self.channel
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
        channel = self.channel
        if channel is not None:
            channel.outgoing.cork()
        try:
            super().finish()
        finally:
            if channel is not None:
                channel.outgoing.uncork()

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
        channel.write_answer(self, fields, body)
        if channel.site is not None:
            channel.site.log(self)
        self.finished = 1
        self._cleanup()  # type: ignore[no-untyped-call]  # Twisted's


def _request_headers(request: WireRequest) -> Headers:
    headers = Headers()
    for name, value in request.fields:
        headers.addRawHeader(name, value)
    return headers


def _response_headers(request: WireRequest) -> Headers:
    return Headers({b"Server": [server_version], b"Date": [datetimeToString()]})


def _cookies(request: WireRequest) -> dict[bytes, bytes]:
    request.received_cookies = {}
    request.parseCookies()  # type: ignore[no-untyped-call]  # Twisted's
    return request.received_cookies


_LATE: dict[str, Any] = {
    "requestHeaders": _request_headers,
    "responseHeaders": _response_headers,
    "received_cookies": _cookies,
    "cookies": lambda request: [],
    "_adapterCache": lambda request: {},
    "_parsePOSTFormSubmission": lambda request: request.channel.site._parsePOSTFormSubmission,
}
