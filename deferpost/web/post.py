"""The resource of one route: makes a Call of a POST and gives it to the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from deferpost.bodies import SpooledBody, body_size, take_body
from deferpost.dispatch import Dispatcher
from deferpost.errors import BodyTooLarge, DeferPostError, StorageFailed
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
    """

    dispatcher: Callable[[], Dispatcher]
    now: Callable[[], float]
    open_exchanges: OpenExchanges
    timeout: float | None
    max_body: int


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

    @property
    def max_body(self) -> int:
        """Bytes that a body may have."""
        return self._max_body

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
            self._submit(request, id)
        except Exception as error:
            set_common(request, id)
            if isinstance(error, StorageFailed):
                _log.error("[{job}] the body could not be kept: {error}", job=id, error=error)
            elif not isinstance(error, DeferPostError):
                _log.failure("[{job}] could not be submitted", job=id)
            respond_problem(request, problem_of(error), id)
        return NOT_DONE_YET

    def _submit(self, request: Any, id: str) -> None:
        content = request.content
        if isinstance(content, SpooledBody):
            if content.too_large:
                raise BodyTooLarge(self._max_body)
            if content.failure is not None:
                raise StorageFailed(str(content.failure))
        if body_size(content) > self._max_body:
            raise BodyTooLarge(self._max_body)
        route, context = self._route, self._context
        uri = request.uri
        path, _, query = uri.partition(b"?")
        client = request.client
        head = CallHead(
            id,
            route.path,
            "POST",
            path.decode("latin-1"),
            query,
            tuple(
                [
                    (name, value)
                    for name, values in request.requestHeaders.getAllRawHeaders()
                    for value in values
                ]
            ),
            (client.host, client.port) if hasattr(client, "port") else None,
            self._timeout,
        )
        dispatcher = context.dispatcher()
        job, answer = dispatcher.submit(route.pool, head, take_body(request))
        request.deferpost_job = job  # for an access log that wants its times
        Exchange(request, job, route.on_disconnect, context.now, context.open_exchanges).begin(
            answer
        )
