"""What the resources of the status page share: what they work with, and how responses begin."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.errors import DeferPostError, HTTPError
from deferpost.web.problems import method_not_allowed, problem_of
from deferpost.web.respond import request_id, respond, respond_problem, set_common
from deferpost.web.status.access import Access
from deferpost.web.status.overview import Overview
from deferpost.web.status.page import load_page
from deferpost.web.status.watchers import StateSource, Watchers

__all__ = ["Shared", "begin", "missing", "other_method", "refuse"]

_log = Logger(namespace="deferpost.web.status")

#: On every response: it is of this moment, for this page, and nothing else than it says.
_FIELDS = (
    (b"Cache-Control", b"no-store"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Content-Type-Options", b"nosniff"),
)


class Shared:
    """What the resources share.

    :param overview: what is shown.
    :param access: who may look and act.
    :param clock: provides ``callLater`` and ``seconds``.

    :ivar stacks: how many stacks are being taken.
    """

    def __init__(self, overview: Overview, access: Access, clock: Any) -> None:
        self.overview = overview
        self.access = access
        self.clock = clock
        self.source = StateSource(overview.build, clock.seconds)
        self.watchers = Watchers(self.source, clock)
        self.page = load_page()
        self.stacks = 0


def begin(request: Any) -> str:
    """Set what every response has, and return the request's id."""
    id = request_id(request)
    set_common(request, id)
    for name, value in _FIELDS:
        request.responseHeaders.setRawHeaders(name, [value])
    return id


def other_method(request: Any, allow: str, id: str) -> None:
    """Answer OPTIONS, or 405 to a method that a resource does not have.

    :param allow: the methods that it has.
    """
    if request.method == b"OPTIONS":
        request.setHeader(b"Allow", allow.encode())
        respond(request, 204, b"", b"")
    else:
        respond_problem(request, method_not_allowed(allow), id)


def missing(error: BaseException) -> HTTPError:
    """What is not there, in words for the client."""
    return HTTPError(404, str(error.args[0]) if error.args else "There is nothing of that name.")


def refuse(request: Any, id: str, error: BaseException) -> None:
    """Answer with an error, as a problem document; one that is a defect is logged."""
    if not isinstance(error, DeferPostError):
        _log.failure("[{request}] of the status page failed", Failure(error), request=id)
    respond_problem(request, problem_of(error), id)
