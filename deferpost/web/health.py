"""Whether the daemon lives, and whether it is ready for more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.interfaces import IEarlyResource
from deferpost.model import PoolStatus
from deferpost.web.problems import method_not_allowed
from deferpost.web.respond import request_id, respond, respond_problem, set_common

__all__ = ["Livez", "Readyz"]

_ALLOW = "GET, HEAD, OPTIONS"


@implementer(IEarlyResource)
class _Health(Resource):
    """A short answer to GET, made on the reactor thread."""

    isLeaf = True

    def head_received(self, request: Any, length: int | None, whole: bool) -> None:
        """Answer: no method here has a body that matters."""
        self.render(request)

    def report(self) -> tuple[int, dict[str, Any]]:
        """Status and document."""
        raise NotImplementedError

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        id = request_id(request)
        set_common(request, id)
        request.setHeader(b"Cache-Control", b"no-store")
        if request.method in (b"GET", b"HEAD"):
            status, document = self.report()
            respond(request, status, b"application/json", msgspec.json.encode(document) + b"\n")
        elif request.method == b"OPTIONS":
            request.setHeader(b"Allow", _ALLOW.encode())
            respond(request, 204, b"", b"")
        else:
            respond_problem(request, method_not_allowed(_ALLOW), id)
        return NOT_DONE_YET


class Livez(_Health):
    """200 as long as the reactor turns."""

    def report(self) -> tuple[int, dict[str, Any]]:
        """Status and document."""
        return 200, {"live": True}


class Readyz(_Health):
    """200 while calls are accepted and every pool can run them, else 503.

    :param accepting: tells whether calls are accepted.
    :param statuses: gives the state of every pool.
    """

    def __init__(
        self, accepting: Callable[[], bool], statuses: Callable[[], list[PoolStatus]]
    ) -> None:
        super().__init__()
        self._accepting = accepting
        self._statuses = statuses

    def report(self) -> tuple[int, dict[str, Any]]:
        """Status and document."""
        accepting = self._accepting()
        pools = self._statuses() if accepting else []
        reasons = [_reason(pool) for pool in pools if not pool.ready]
        if not accepting:
            reasons = ["no calls are accepted"]
        document: dict[str, Any] = {"ready": not reasons, "accepting": accepting}
        if reasons:
            document["reasons"] = reasons
        document["pools"] = pools
        return (503 if reasons else 200), document


def _reason(pool: PoolStatus) -> str:
    """Why a pool is not ready."""
    if pool.hung:
        return (
            f"pool {pool.name} hangs: each of its {pool.size} workers has a job that was told to "
            "stop and goes on"
        )
    return f"pool {pool.name} cannot run calls now"
