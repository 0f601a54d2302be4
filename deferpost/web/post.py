"""The resource of one route: makes a Call of a POST and gives it to the dispatcher."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import attrs
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.arriving import ArrivingBody
from deferpost.bodies import SpooledBody, body_size, take_body
from deferpost.dispatch import Dispatcher
from deferpost.errors import BodyTooLarge, DeferPostError, StorageFailed
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.model import CallHead, Route
from deferpost.web.exchange import Exchange, OpenExchanges
from deferpost.web.problems import method_not_allowed, problem_of
from deferpost.web.respond import request_id, respond, respond_problem, set_common

__all__ = ["PostContext", "PostResource"]

_log = Logger(namespace="deferpost.web")

_ALLOW = "OPTIONS, POST"


@attrs.frozen(kw_only=True)
class PostContext:
    """What the resources of one app share.

    :ivar dispatcher: gives the dispatcher; starts the pools if they are not.
    :ivar now: the monotonic clock, in seconds.
    :ivar open_exchanges: where exchanges count until they end.
    :ivar timeout: seconds for routes that set none; None for no limit.
    :ivar max_body: bytes for routes that set none.
    :ivar gate: looks at each call, on our own wire before its body is read, and refuses it by
        raising :class:`~deferpost.errors.HTTPError`, with 401, 403 or 429 for example.
    :ivar queue_timeout: seconds that calls of routes that set none may wait; None for no limit.
    :ivar total_timeout: seconds that calls of routes that set none may wait and run; None for no
        limit.
    :ivar observer: hears of calls that are turned away
        (:class:`deferpost.interfaces.IJobObserver`).
    """

    dispatcher: Callable[[], Dispatcher]
    now: Callable[[], float]
    open_exchanges: OpenExchanges
    timeout: float | None
    max_body: int
    gate: Callable[[CallHead], None] | None = None
    queue_timeout: float | None = None
    total_timeout: float | None = None
    observer: Any = None


@implementer(IEarlyResource)
class PostResource(Resource):
    """One route as a resource.

    :param route: the route.
    :param context: what the resources of an app share.
    """

    isLeaf = True

    def __init__(self, route: Route, context: PostContext) -> None:
        super().__init__()
        self._route = route
        self._context = context
        self._max_body = context.max_body if route.max_body is None else route.max_body
        self._timeout = context.timeout if route.timeout is None else route.timeout
        self._wanted = BodyWanted(self._max_body)

    @property
    def max_body(self) -> int:
        """Bytes that a body may have."""
        return self._max_body

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Refuse a request before its body, or say how its body is wanted.

        See :meth:`deferpost.interfaces.IEarlyResource.head_received`.
        """
        if request.method != b"POST":
            self.render(request)
            return None
        context = self._context
        if whole and length <= self._max_body and context.gate is None:  # type: ignore[operator]  # a whole one has a length
            return self._wanted  # at once: what can be refused is so by :meth:`render`
        id = request_id(request)
        try:
            if length is not None and length > self._max_body:
                raise BodyTooLarge(self._max_body)
            self._pass_gate(request, id)
            if whole:
                return self._wanted
            context.dispatcher().check_room(self._route.pool)
            if not self._route.stream:
                return self._wanted
            body = ArrivingBody()
            self._run(request, id, body)
            return BodyWanted(self._max_body, body)
        except Exception as error:
            self._refuse(request, id, error)
            return None

    def render(self, request: Any) -> int:
        """Answer a request of any method; see :meth:`render_POST` for the one that matters."""
        method = request.method
        if method == b"POST":
            return self.render_POST(request)
        id = request_id(request)
        set_common(request, id)
        if method == b"OPTIONS":
            request.setHeader(b"Allow", _ALLOW.encode())
            respond(request, 204, b"", b"")
        else:
            respond_problem(request, method_not_allowed(_ALLOW), id)
        return NOT_DONE_YET

    def render_POST(self, request: Any) -> int:
        """Submit the call; the response is written when its Deferred fires."""
        id = request_id(request)
        try:
            if self._context.gate is not None:
                self._pass_gate(request, id)
            self._run(request, id, self._whole_body(request))
        except Exception as error:
            self._refuse(request, id, error)
        return NOT_DONE_YET

    def _pass_gate(self, request: Any, id: str) -> None:
        """Ask the gate, once: when the head is in, where the site can do that."""
        gate = self._context.gate
        if gate is not None and not getattr(request, "deferpost_passed", False):
            gate(self._head(request, id))
            request.deferpost_passed = True

    def _refuse(self, request: Any, id: str, error: Exception) -> None:
        set_common(request, id)
        if isinstance(error, StorageFailed):
            _log.error("[{job}] the body could not be kept: {error}", job=id, error=error)
        elif not isinstance(error, DeferPostError):
            _log.failure("[{job}] could not be submitted", job=id)
        problem = problem_of(error)
        respond_problem(request, problem, id)
        observer = self._context.observer
        if observer is not None:
            try:
                observer.refused(
                    self._route.path, problem.status, problem.reason or str(problem.status)
                )
            except Exception:
                _log.failure("[{job}] its refusal was not observed", job=id)

    def _whole_body(self, request: Any) -> BinaryIO:
        """The body of a request that is complete, if it may be run."""
        content = request.content
        if type(content) is io.BytesIO:  # as most are
            framing = getattr(request, "framing", None)
            length = None if framing is None else framing.length
            if (content.getbuffer().nbytes if length is None else length) > self._max_body:
                raise BodyTooLarge(self._max_body)
            request.content = None
            return content
        if isinstance(content, SpooledBody):
            if content.too_large:
                raise BodyTooLarge(self._max_body)
            if content.failure is not None:
                raise StorageFailed(str(content.failure))
        if body_size(content) > self._max_body:
            raise BodyTooLarge(self._max_body)
        return take_body(request)

    def _head(self, request: Any, id: str) -> CallHead:
        """The call of a request, without its body."""
        path, _, query = request.uri.partition(b"?")
        client = request.client
        fields = getattr(request, "fields", None)
        if fields is None:  # a request of another site
            fields = [
                (name, value)
                for name, values in request.requestHeaders.getAllRawHeaders()
                for value in values
            ]
        return CallHead(
            id,
            self._route.path,
            "POST",
            path.decode("latin-1"),
            query,
            tuple(fields),
            (client.host, client.port) if hasattr(client, "port") else None,
            self._timeout,
        )

    def _run(self, request: Any, id: str, body: BinaryIO | ArrivingBody) -> None:
        """Submit the call, and see to its answer."""
        route, context = self._route, self._context
        dispatcher = context.dispatcher()
        job, answer = dispatcher.submit(route.pool, self._head(request, id), body)
        request.deferpost_job = job  # for an access log that wants its times
        Exchange(
            request,
            job,
            route.on_disconnect,
            context.now,
            context.open_exchanges,
            dispatcher.responded,
        ).begin(answer)
