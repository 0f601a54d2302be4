"""An app as one resource: finds the route of a path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from deferpost.model import Route
from deferpost.web.post import PostContext, PostResource
from deferpost.web.problems import not_found
from deferpost.web.respond import request_id, respond_problem, set_common

__all__ = ["AppResource", "segments"]


def segments(path: str) -> tuple[bytes, ...]:
    """The segments of a path below its mount, as ``request.postpath`` has them.

    :param path: starts with a slash; percent-encoded or not, as in a request.
    """
    if path == "/":
        return ()
    return tuple(unquote_to_bytes(segment) for segment in path[1:].encode().split(b"/"))


class AppResource(Resource):
    """The routes of an app below the place where it is mounted.

    :param routes: the routes.
    :param context: what their resources share.
    :param others: further resources, each under one segment, such as the daemon's own.
    """

    isLeaf = True

    def __init__(
        self,
        routes: Iterable[Route],
        context: PostContext,
        others: Iterable[tuple[bytes, IResource]] = (),
    ) -> None:
        super().__init__()
        self._resources: dict[tuple[bytes, ...], Any] = {
            segments(route.path): PostResource(route, context) for route in routes
        }
        self._resources.update(((name,), resource) for name, resource in others)

    def render(self, request: Any) -> Any:
        """Give the request to the resource of its path, or answer 404."""
        below = tuple(request.postpath)
        resource = self._resources.get(() if below == (b"",) else below)
        if resource is not None:
            return resource.render(request)
        id = request_id(request)
        set_common(request, id)
        respond_problem(request, not_found(), id)
        return NOT_DONE_YET

    @property
    def largest_body(self) -> int:
        """The largest ``max_body`` of the routes, in bytes."""
        return max(
            (r.max_body for r in self._resources.values() if isinstance(r, PostResource)),
            default=0,
        )
