"""A client that posts to an app in memory: no sockets, no threads, no sleeping.

It speaks HTTP with Twisted's own Site, over :class:`treq.testing.RequestTraversalAgent`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import attrs
import msgspec
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers as HeadersToSend
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from twisted.web.resource import IResource
from zope.interface import implementer

from deferpost.app import DEFAULT_PLANS, App
from deferpost.credentials import Gate
from deferpost.model import Headers, PoolStatus
from deferpost.service import Runtime
from deferpost.settings import Settings
from deferpost.testing.pools import InlinePool, ManualPool
from deferpost.web.tree import AppResource

__all__ = ["NoResponse", "Pending", "PostClient", "Response"]

_SETTINGS = Settings()

_HOST = b"http://deferpost.test"

#: Seconds of the clock in which everything ends when a client is closed.
_CLOSE_SECONDS = 3600.0

_NOT_GIVEN: Any = object()

Pairs = Mapping[str, str] | Iterable[tuple[str, str]]
#: Uploads by field: the content alone, or file name, content and media type.
Files = Mapping[str, bytes | tuple[str, bytes, str]]


class NoResponse(AssertionError):
    """There is no response yet, or there will be none."""


@attrs.frozen(kw_only=True)
class Response:
    """A response, or as much of it as came.

    :ivar status: the HTTP status.
    :ivar headers: the header fields, case-insensitive, without those of the connection.
    :ivar body: the body.
    :ivar complete: whether the body is whole: False where the server broke it off, as it does
        where a stream fails in the middle.
    :ivar traceback: what the handler raised, which no real client is told; None where it did not,
        and where the client was not made of an App.
    """

    status: int
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(repr=lambda body: repr(body if len(body) < 200 else body[:200]))
    complete: bool
    traceback: str | None

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode()

    def json(self, type: Any = Any) -> Any:
        """The body, read as JSON.

        :param type: the type to read it as: anything that msgspec can decode to.
        :raises msgspec.DecodeError: it is not JSON, or not of that type.
        """
        return msgspec.json.decode(self.body, type=type)


class PostClient:
    """A client of an app, or of any resource.  To be used as a context manager, or closed.

    :param target: an :class:`~deferpost.App`, whose routes are then run in ``pool`` instead of
        the pools that they name; or a resource, such as a tree that has an app in it, whose pools
        are then its own.
    :param pool: an :class:`InlinePool` or a :class:`ManualPool`, for an App; if not given, inline.
    :param clock: the clock by which an App's deadlines are kept.
    :param timeout: seconds that a run may take where its route sets none; None for no limit.
    :param max_body: bytes that a body may have where its route sets none.
    :param configured: the pools that the daemon's configuration adds to an App's own, each name
        with its kind: ``thread``, ``process`` or ``reactor``.
    :param gate: asks who calls, for an App; see :func:`deferpost.mount.mount_app`.
    :raises deferpost.errors.DeclarationError: a route names a pool that is not there, or one that
        cannot run its handler.
    """

    def __init__(
        self,
        target: App | IResource,
        *,
        pool: InlinePool | ManualPool | None = None,
        clock: Clock | None = None,
        timeout: float | None = _SETTINGS.timeout,
        max_body: int = _SETTINGS.max_body,
        configured: Mapping[str, str] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self._runtime: Runtime | None = None
        self._tracebacks: Mapping[str, str] = {}
        self._pendings: list[Pending] = []
        self._flushing = False
        self._flush_again = False
        if isinstance(target, App):
            plans = {**DEFAULT_PLANS, **target.pools}
            kinds = {name: plan.kind for name, plan in plans.items()} | dict(configured or {})
            pool = pool or InlinePool()
            self._tracebacks = pool.tracebacks
            self._runtime = runtime = Runtime(
                target.routes,
                {name: pool.of_kind(kind) for name, kind in kinds.items()},
                reactor=self.clock,
                timeout=timeout,
                max_body=max_body,
                gate=gate,
                now=self.clock.seconds,
            )
            resource: IResource = AppResource(target.routes, runtime.context)
        elif pool is not None:
            raise TypeError("a pool is for an App: a resource has pools of its own")
        else:
            resource = target
        self._agent = RequestTraversalAgent(_Watched(resource, self.flush))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def post(
        self,
        path: str,
        body: bytes | str = b"",
        *,
        headers: Pairs = (),
        json: Any = _NOT_GIVEN,
        form: Pairs | None = None,
        files: Files | None = None,
        method: str = "POST",
    ) -> Response:
        """Post, and give the response, which has to be there at once.

        :param path: the path and query, percent-encoded.
        :param body: the body.
        :param headers: header fields, as a mapping or as pairs.
        :param json: a value to send as JSON instead of ``body``.
        :param form: the fields of a form to send instead of ``body``.
        :param files: files to send with the form, by field.
        :param method: another method than POST.
        :raises NoResponse: there is none yet; use :meth:`start` where the job does not run at
            once.
        """
        return self.start(
            path, body, headers=headers, json=json, form=form, files=files, method=method
        ).response()

    def start(
        self,
        path: str,
        body: bytes | str = b"",
        *,
        headers: Pairs = (),
        json: Any = _NOT_GIVEN,
        form: Pairs | None = None,
        files: Files | None = None,
        method: str = "POST",
    ) -> Pending:
        """Post, and do not wait; see :meth:`post` for the arguments."""
        content_type, data = _body_of(body, json, form, files)
        to_send = HeadersToSend()
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            to_send.addRawHeader(name, value)
        if content_type is not None and not to_send.hasHeader("Content-Type"):
            to_send.addRawHeader("Content-Type", content_type)
        pending = Pending(self, self._tracebacks)
        self._pendings = [other for other in self._pendings if not other.is_over]
        self._pendings.append(pending)
        uri = _HOST + path.encode("ascii")
        # What the server writes meanwhile is flushed by the agent itself.
        self._flushing = True
        try:
            pending.wait_for(
                self._agent.request(method.encode("ascii"), uri, to_send, _WholeBody(data))
            )
        finally:
            self._flushing = False
        self.flush()
        return pending

    def flush(self) -> None:
        """Carry what either side has written to the other.

        Needed only by whoever looks at something else than this client: it does so before it
        tells anything, and when a response was finished.
        """
        self._flush_again = True
        if self._flushing:
            return  # further up the stack, which goes on
        self._flushing = True
        try:
            while self._flush_again:
                self._flush_again = False
                self._agent.flush()
        finally:
            self._flushing = False

    def advance(self, seconds: float) -> None:
        """Let time pass for an App's deadlines.

        :param seconds: how much.
        """
        self.clock.advance(seconds)
        self.flush()

    def statuses(self) -> list[PoolStatus]:
        """How the pools of an App are; empty before the first call and for a resource."""
        return [] if self._runtime is None else self._runtime.statuses()

    def disconnect(self) -> None:
        """Close every connection, as a client does that leaves."""
        for pending in self._pendings:
            pending.leave()

    def close(self) -> None:
        """Close every connection, and stop the pools of an App; what runs is ended."""
        self.disconnect()
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.hurry()
            Deferred.fromCoroutine(runtime.shut_down(0.0))
            self.clock.pump([0.0, _CLOSE_SECONDS])


class Pending:
    """A request that was sent.  Each look at it first carries over what the server has written.

    Made by :meth:`PostClient.start`.
    """

    def __init__(self, client: PostClient, tracebacks: Mapping[str, str]) -> None:
        self._client = client
        self._tracebacks = tracebacks
        self._asked: Deferred[IResponse] | None = None
        self._head: IResponse | None = None
        self._body = _Body(self._over)
        self._lost: Failure | None = None
        self._left = False
        self._waiting: list[Deferred[Response]] = []

    def wait_for(self, asked: Deferred[IResponse]) -> None:
        """For the client: the response is this one's."""
        self._asked = asked
        asked.addCallbacks(self._headed, self._failed)

    @property
    def status(self) -> int | None:
        """The status of the response, or None while its headers have not come."""
        self._client.flush()
        return None if self._head is None else int(self._head.code)

    @property
    def headers(self) -> Headers:
        """The header fields of the response, none while they have not come."""
        self._client.flush()
        return Headers() if self._head is None else _headers_of(self._head)

    @property
    def body(self) -> bytes:
        """As much of the body as has come."""
        self._client.flush()
        return bytes(self._body.data)

    @property
    def is_over(self) -> bool:
        """Whether the response has come, the connection was closed or the client has left."""
        self._client.flush()
        return self._left or self._lost is not None or self._body.ended is not None

    def response(self) -> Response:
        """The response.

        :raises NoResponse: it has not come, or not to its end; or the connection was closed
            without one.
        """
        if self._left:
            raise NoResponse("the client has left")
        if not self.is_over:
            raise NoResponse(
                "there is no response yet: its job has not run to its end.  With a ManualPool, "
                "say step(); a coroutine that waits goes on when what it waits for has happened"
            )
        if self._head is None:
            lost = self._lost.getErrorMessage() if self._lost is not None else ""
            raise NoResponse(f"the server closed the connection without a response: {lost}")
        return self._response(self._head)

    def wait(self) -> Deferred[Response]:
        """The response, when it has come: for a coroutine that waits, or a resource with real
        pools.

        :returns: a Deferred that fails as :meth:`response` does where there is none.
        """
        waited: Deferred[Response] = Deferred()
        self._waiting.append(waited)
        if self.is_over:
            self._over()
        return waited

    def leave(self) -> None:
        """Close the connection, as a client does that no longer waits; nothing if it is closed."""
        if self.is_over:
            return
        self._left = True
        if self._head is None and self._asked is not None:
            self._asked.cancel()
        else:
            self._body.close_connection()
        self._client.flush()

    def _headed(self, head: IResponse) -> None:
        self._head = head
        head.deliverBody(self._body)

    def _failed(self, failure: Failure) -> None:
        self._lost = failure
        self._over()

    def _over(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waited in waiting:
            try:
                response = self.response()
            except NoResponse:
                waited.errback()
            else:
                waited.callback(response)

    def _response(self, head: IResponse) -> Response:
        headers = _headers_of(head)
        return Response(
            status=int(head.code),
            headers=headers,
            body=bytes(self._body.data),
            complete=bool(self._body.ended),
            traceback=self._tracebacks.get(headers.get("x-request-id", "")),
        )


class _Body(Protocol):
    """Takes the body of a response."""

    def __init__(self, over: Any) -> None:
        self.data = bytearray()
        #: None until it has ended, then whether it is whole.
        self.ended: bool | None = None
        self._over = over

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason.check(ResponseDone) is not None
        self._over()

    def close_connection(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _WholeBody:
    """The body of a request, sent in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """It is sent already."""

    def resumeProducing(self) -> None:
        """It is sent already."""

    def stopProducing(self) -> None:
        """It is sent already."""


@implementer(IResource)
class _Watched:
    """A root that has the client look when a response was finished."""

    def __init__(self, root: Any, flush: Any) -> None:
        self._root = root
        self._flush = flush
        self.isLeaf = root.isLeaf

    def _watch(self, request: Any) -> None:
        request.notifyFinish().addBoth(lambda _: self._flush())

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        self._watch(request)
        return self._root.getChildWithDefault(name, request)

    def putChild(self, path: bytes, child: IResource) -> None:
        self._root.putChild(path, child)

    def render(self, request: Any) -> Any:
        self._watch(request)
        return self._root.render(request)


def _headers_of(head: IResponse) -> Headers:
    fields = [(name, value) for name, values in head.headers.getAllRawHeaders() for value in values]
    if head.length is not UNKNOWN_LENGTH and head.code not in (204, 304):
        fields.append((b"Content-Length", b"%d" % head.length))  # which the parser has taken out
    return Headers(fields)


def _body_of(
    body: bytes | str, json: Any, form: Pairs | None, files: Files | None
) -> tuple[str | None, bytes]:
    """Content type and bytes of what is to be posted."""
    given = [bool(body), json is not _NOT_GIVEN, form is not None or files is not None]
    if sum(given) > 1:
        raise TypeError("a request has one body: give body, json, or form and files")
    if json is not _NOT_GIVEN:
        return "application/json", msgspec.json.encode(json)
    fields = list(form.items() if isinstance(form, Mapping) else form or ())
    if files is not None:
        return _multipart(fields, files)
    if form is not None:
        return "application/x-www-form-urlencoded", urlencode(fields).encode()
    return None, body.encode() if isinstance(body, str) else body


def _multipart(fields: list[tuple[str, str]], files: Files) -> tuple[str, bytes]:
    boundary = secrets.token_hex(16)
    parts = [(f'name="{_quoted(name)}"', "", value.encode()) for name, value in fields]
    for name, upload in files.items():
        filename, content, media_type = (
            (name, upload, "application/octet-stream") if isinstance(upload, bytes) else upload
        )
        disposition = f'name="{_quoted(name)}"; filename="{_quoted(filename)}"'
        parts.append((disposition, f"Content-Type: {media_type}\r\n", content))
    lines = [
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n".encode()
        + content
        + b"\r\n"
        for disposition, more, content in parts
    ]
    return f"multipart/form-data; boundary={boundary}", b"".join(
        [*lines, f"--{boundary}--\r\n".encode()]
    )


def _quoted(name: str) -> str:
    """A name as browsers put it into a part's header."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
