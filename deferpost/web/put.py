"""PUT: a call as a job whose id its client has chosen, so that it can be sent again.

The same id with the same call is the same job.  The route is named in the query, since the path is
that of the job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.errors import HTTPError
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.model import Delivery, Route
from deferpost.web.delivery import Manner
from deferpost.web.post import PostContext, PostResource
from deferpost.web.problems import problem_of
from deferpost.web.respond import request_id, respond_problem, set_common

__all__ = ["JobPuts"]


class _PutCall(PostResource):
    """The calls of a route as a job of this id.

    :param route: the route.
    :param context: what the resources of an app share.
    :param job: the id.
    """

    method = b"PUT"
    allowed = "DELETE, GET, HEAD, OPTIONS, PUT"

    def __init__(self, route: Route, context: PostContext, job: str) -> None:
        # The id is the key, and the answer is where the job stands.
        asynchronous = msgspec.structs.replace(
            route, delivery=Delivery.ASYNC, fallback=None, require_key=False, coalesce=False
        )
        super().__init__(asynchronous, context)
        self._job = job

    def _manner(self, request: Any) -> Manner:
        manner = super()._manner(request)
        if manner.job is None:
            manner = msgspec.structs.replace(manner, key=None, job=self._job)
            request.deferpost_manner = manner
        return manner


class JobPuts:
    """Gives the resource that takes a PUT for a job.

    :param routes: the routes.
    :param context: what the resources of an app share; it keeps jobs.
    """

    def __init__(self, routes: Iterable[Route], context: PostContext) -> None:
        self._routes = {route.path: route for route in routes}
        self._context = context

    def __call__(self, job: str) -> _Put:
        """See :attr:`deferpost.web.jobs.JobsContext.put`."""
        return _Put(self, job)

    def calls(self, request: Any, job: str) -> _PutCall:
        """What takes the call of a request.

        :param job: the id of the job.
        :raises deferpost.errors.HTTPError: 400, 404 or 409: there is no such route for that.
        """
        _, _, query = request.uri.partition(b"?")
        named = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("route", [])
        if len(named) != 1:
            raise HTTPError(400, "Name one route in the query, as in PUT /jobs/order-7?route=/rst.")
        route = self._routes.get(named[0])
        if route is None:
            raise HTTPError(404, "There is no such route.", extensions={"reason": "no_such_route"})
        if route.delivery is Delivery.SYNC:
            raise HTTPError(409, "Calls of this route are answered on their connection only.")
        return _PutCall(route, self._context, job)


@implementer(IEarlyResource)
class _Put(Resource):
    """A PUT for one job.

    :param puts: knows the routes.
    :param job: the id of the job.
    """

    isLeaf = True

    def __init__(self, puts: JobPuts, job: str) -> None:
        super().__init__()
        self._puts = puts
        self._job = job

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """See :meth:`deferpost.interfaces.IEarlyResource.head_received`."""
        calls = self._calls(request)
        return None if calls is None else calls.head_received(request, length, whole)

    def render(self, request: Any) -> int:
        """Take the call."""
        calls = self._calls(request)
        return NOT_DONE_YET if calls is None else calls.render(request)

    def _calls(self, request: Any) -> _PutCall | None:
        try:
            return self._puts.calls(request, self._job)
        except HTTPError as error:
            id = request_id(request)
            set_common(request, id)
            respond_problem(request, problem_of(error), id)
            return None
