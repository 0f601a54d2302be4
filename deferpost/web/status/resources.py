"""The resources of the status page: what is at each path, and for whom.

Looks and acts only through :class:`~deferpost.web.status.overview.Overview`; who may is decided in
:mod:`deferpost.web.status.access`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.errors import HTTPError
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.web.respond import respond
from deferpost.web.status.access import Access
from deferpost.web.status.acts import Act, Cancel, Restart
from deferpost.web.status.answers import Shared, begin, missing, other_method, refuse
from deferpost.web.status.overview import Overview

__all__ = ["MAX_STACKS", "PREFIX", "STACK_SECONDS", "StatusPage"]

#: The path below which all of it is.
PREFIX = "/_deferpost"

#: Stacks that are being taken at once: each interrupts a worker for a moment.
MAX_STACKS = 4

#: Seconds that a worker gets to tell where it stands.
STACK_SECONDS = 5.0

#: Characters of a stack that are sent, from its end, where the code stands.
MAX_STACK = 256 * 1024


@implementer(IEarlyResource)
class _Look(Resource):
    """Answers GET and HEAD, to who may look."""

    isLeaf = True
    allow: ClassVar[str] = "GET, HEAD, OPTIONS"

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Answer when the head is in: no method here has a body that matters."""
        self.render(request)
        return None

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        id = begin(request)
        try:
            if request.method in (b"GET", b"HEAD"):
                self.check(request)
                self.answer(request, id)
            else:
                other_method(request, self.allow, id)
        except Exception as error:
            refuse(request, id, error)
        return NOT_DONE_YET

    def check(self, request: Any) -> None:
        """Refuse who may not."""
        self._shared.access.check_look(request)

    def answer(self, request: Any, id: str) -> None:
        """Answer."""
        raise NotImplementedError


class _Page(_Look):
    """The page."""

    def answer(self, request: Any, id: str) -> None:
        """Answer with the page, as this visitor is to see it."""
        shared = self._shared
        request.setHeader(b"Content-Security-Policy", shared.page.policy)
        request.setHeader(b"Cross-Origin-Opener-Policy", b"same-origin")
        respond(
            request,
            200,
            b"text/html; charset=utf-8",
            shared.page.for_role(shared.access.role(request)),
        )


class _Elsewhere(_Look):
    """Leads to the page: its path without the slash."""

    target: ClassVar[bytes] = PREFIX[1:].encode() + b"/"

    def answer(self, request: Any, id: str) -> None:
        """Answer with where it is, as seen from here: a proxy may have put it below a path."""
        request.setHeader(b"Location", self.target)
        respond(request, 303, b"text/plain", b"")


class _SignIn(_Elsewhere):
    """Has a browser ask for a token, and leads back to the page with its buttons."""

    target = b"./"

    def check(self, request: Any) -> None:
        """Refuse who has not shown one yet."""
        self._shared.access.check_operator(request)


class _State(_Look):
    """The state, as JSON."""

    def answer(self, request: Any, id: str) -> None:
        """Answer with the document."""
        _, encoded = self._shared.source.state()
        respond(request, 200, b"application/json", encoded + b"\n")


class _Lasting(_Look):
    """Answers later than it is asked."""

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Have the whole request first: only of one that is whole is it known that it is left."""
        return BodyWanted(0)


class _Events(_Lasting):
    """The state while it changes, as Server-Sent Events."""

    def answer(self, request: Any, id: str) -> None:
        """Begin to answer."""
        watchers = self._shared.watchers
        if not watchers.has_room:
            detail = "Too many watch already; try again later."
            raise HTTPError(503, detail, headers=(("Retry-After", "10"),))
        if request.method == b"HEAD":
            respond(request, 200, b"text/event-stream", b"")
        else:
            watchers.add(request)


class _Stack(_Lasting):
    """Where the code of a running job stands: for operators, since it shows their code."""

    def check(self, request: Any) -> None:
        """Refuse who is no operator, and what another site has caused."""
        self._shared.access.check_inspect(request)

    def answer(self, request: Any, id: str) -> None:
        """Answer when the worker has told."""
        shared = self._shared
        pool, key = _job_of(request)
        if shared.stacks >= MAX_STACKS:
            detail = "Other stacks are being taken; try again in a moment."
            raise HTTPError(503, detail, headers=(("Retry-After", "1"),))
        try:
            telling = shared.overview.inspectable(pool).stack(key)
        except LookupError as error:
            raise missing(error) from None
        shared.stacks += 1
        left: list[object] = []
        request.notifyFinish().addErrback(left.append)

        def told(result: str | Failure) -> None:
            shared.stacks -= 1
            if left:
                return
            if isinstance(result, str):
                text = result[-MAX_STACK:].encode("utf-8", "backslashreplace")
                respond(request, 200, b"text/plain; charset=utf-8", text)
                return
            error: BaseException = result.value  # type: ignore[assignment]  # it has one
            if isinstance(error, LookupError):
                error = HTTPError(404, "That job does not run, or not any more.")
            elif isinstance(error, DeferredTimeout):
                error = HTTPError(504, "Its worker has not told in time.")
            refuse(request, id, error)

        telling.addTimeout(STACK_SECONDS, shared.clock).addBoth(told)


class StatusPage:
    """The status page and all that belongs to it.  For the reactor thread.

    :param overview: what it shows.
    :param access: who may look and act.
    :param clock: provides ``callLater`` and ``seconds``.
    """

    def __init__(self, overview: Overview, access: Access, clock: Any) -> None:
        self._shared = Shared(overview, access, clock)

    def resources(self) -> Sequence[tuple[bytes, Resource]]:
        """The resources, each with its path without the slash in front."""
        prefix = PREFIX[1:].encode()
        kinds: tuple[tuple[bytes, type[_Look] | type[Act]], ...] = (
            (b"", _Elsewhere),
            (b"/", _Page),
            (b"/sign-in", _SignIn),
            (b"/state", _State),
            (b"/events", _Events),
            (b"/stack", _Stack),
            (b"/cancel", Cancel),
            (b"/restart", Restart),
        )
        return [(prefix + path, kind(self._shared)) for path, kind in kinds]

    @property
    def watching(self) -> int:
        """How many watch."""
        return len(self._shared.watchers)

    def close(self) -> None:
        """End the responses to those who watch."""
        self._shared.watchers.close()


def _job_of(request: Any) -> tuple[str, int]:
    """The pool and the key of the job that a query names.

    :raises HTTPError: 400.
    """
    try:
        query = parse_qs(request.uri.partition(b"?")[2].decode("latin-1"), max_num_fields=8)
    except ValueError:  # there are more
        query = {}
    pool, key = ("".join(query.get(name, ())) for name in ("pool", "job"))
    if not (key.isascii() and key.isdigit() and len(key) < 20):
        raise HTTPError(400, "Name the job, as ?pool=NAME&job=NUMBER.")
    return pool, int(key)
