"""An app as one resource: finds the route of a path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.interfaces import IEarlyResource, IEarlyTree
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


@implementer(IEarlyResource)
class _Nothing(Resource):
    """What is at every path that has no route."""

    isLeaf = True

    def head_received(self, request: Any, length: int | None, whole: bool) -> None:
        """Answer 404, whatever the body."""
        self.render(request)

    def render(self, request: Any) -> int:
        """Answer 404."""
        id = request_id(request)
        set_common(request, id)
        respond_problem(request, not_found(), id)
        return NOT_DONE_YET


_NOTHING = _Nothing()


@implementer(IEarlyTree)
class AppResource(Resource):
    """The routes of an app below the place where it is mounted.

    :param routes: the routes.
    :param context: what their resources share.
    :param others: further resources, such as the daemon's own, each with its path without the
        slash in front.
    :param trees: what is below a path (:class:`deferpost.interfaces.IEarlyTree`), each with the
        one segment of that path; it finds a resource for whatever is asked.  A route or one of the
        others comes before it.
    """

    isLeaf = True

    def __init__(
        self,
        routes: Iterable[Route],
        context: PostContext,
        others: Iterable[tuple[bytes, IResource]] = (),
        trees: Iterable[tuple[bytes, Any]] = (),
    ) -> None:
        super().__init__()
        self._resources: dict[tuple[bytes, ...], Any] = {
            segments(route.path): PostResource(route, context) for route in routes
        }
        self._resources.update((tuple(path.split(b"/")), resource) for path, resource in others)
        self._trees = dict(trees)

    def render(self, request: Any) -> Any:
        """Give the request to the resource of its path, or answer 404."""
        below = tuple(request.postpath)
        resource = self._resources.get(() if below == (b"",) else below)
        if resource is not None:
            return resource.render(request)
        if below and below[0] in self._trees:
            segments = [quote_from_bytes(segment, b"") for segment in below[1:]]
            tree = self._trees[below[0]]
            return tree.early_resource([each.encode("ascii") for each in segments]).render(request)
        return _NOTHING.render(request)

    def early_resource(self, segments: Sequence[bytes]) -> Any:
        """The resource of a path; see :meth:`deferpost.interfaces.IEarlyTree.early_resource`."""
        key = tuple(segments)
        resource = self._resources.get(key)
        if resource is None:
            below = tuple([unquote_to_bytes(segment) for segment in segments])
            resource = self._resources.get(() if below == (b"",) else below)
            if resource is None and below and below[0] in self._trees:
                return self._trees[below[0]].early_resource(segments[1:])
            if resource is None:
                resource = _NOTHING
        return resource if hasattr(resource, "head_received") else None

    @property
    def largest_body(self) -> int:
        """The largest ``max_body`` of all that is here, in bytes."""
        found = (*self._resources.values(), *self._trees.values())
        return max((getattr(each, "max_body", 0) for each in found), default=0)
