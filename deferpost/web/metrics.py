"""The metrics of the daemon as a resource, written off the reactor thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.errors import BodyTooLarge
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.metrics import Scrape, encoder_of, exposition
from deferpost.web.problems import method_not_allowed, problem_of
from deferpost.web.respond import request_id, respond, respond_problem, set_common

__all__ = ["Metrics", "RunOffReactor"]

_log = Logger(namespace="deferpost.web")

_ALLOW = "GET, HEAD, OPTIONS"

#: A GET may have a body, which nothing reads; more than this is answered 413 before it has come.
_MOST_BODY = 4096

#: Calls a function on another thread than the reactor's; the Deferred fires with what it returns.
RunOffReactor: TypeAlias = Callable[[Callable[[], bytes]], "Deferred[bytes]"]


@implementer(IEarlyResource)
class Metrics(Resource):
    """The metrics, as Prometheus scrapes them.  For the reactor thread.

    Those who ask while an answer is being written get the same one: however many ask, each format
    is written once at a time.

    :param scrape: gives what is shown.
    :param run_off_reactor: where it is written.
    """

    isLeaf = True

    def __init__(self, scrape: Callable[[], Scrape], run_off_reactor: RunOffReactor) -> None:
        super().__init__()
        self._scrape = scrape
        self._run_off_reactor = run_off_reactor
        self._waiting: dict[str, list[_Scraper]] = {}  # by content type, while it is written

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Answer, or have :meth:`render` called; see :class:`IEarlyResource`."""
        if request.method not in (b"GET", b"HEAD"):
            self.render(request)
        elif length is not None and length > _MOST_BODY:
            id = request_id(request)
            set_common(request, id)
            respond_problem(request, problem_of(BodyTooLarge(_MOST_BODY)), id)
        else:
            return BodyWanted(_MOST_BODY)
        return None

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        id = request_id(request)
        set_common(request, id)
        request.setHeader(b"Cache-Control", b"no-store")
        if request.method in (b"GET", b"HEAD"):
            self._answer(_Scraper(request, id))
        elif request.method == b"OPTIONS":
            request.setHeader(b"Allow", _ALLOW.encode())
            respond(request, 204, b"", b"")
        else:
            respond_problem(request, method_not_allowed(_ALLOW), id)
        return NOT_DONE_YET

    def _answer(self, scraper: _Scraper) -> None:
        encoder, content_type = encoder_of(scraper.accept)
        waiting = self._waiting.get(content_type)
        if waiting is not None:
            waiting.append(scraper)
            return
        waiting = self._waiting[content_type] = [scraper]

        def written(result: bytes | Failure) -> None:
            del self._waiting[content_type]
            if isinstance(result, Failure):
                _log.failure("the metrics could not be written", failure=result)
            for one in waiting:
                one.answer(content_type.encode("ascii"), result)

        try:
            scrape = self._scrape()
            writing = self._run_off_reactor(lambda: exposition(scrape, encoder))
        except Exception:
            written(Failure())
        else:
            writing.addBoth(written)


class _Scraper:
    """Somebody who waits for metrics, and may leave meanwhile.

    :param request: the request.
    :param id: its id.
    """

    def __init__(self, request: Any, id: str) -> None:
        self._request = request
        self._id = id
        self._left = False
        values = request.requestHeaders.getRawHeaders("accept") or ()
        self.accept = ",".join(values)
        request.notifyFinish().addErrback(self._leave)

    def _leave(self, _: Failure) -> None:
        self._left = True

    def answer(self, content_type: bytes, result: bytes | Failure) -> None:
        """Write what was made, or that it could not be."""
        if self._left:
            return
        if isinstance(result, Failure):
            error: BaseException = result.value  # type: ignore[assignment]  # it has one
            respond_problem(self._request, problem_of(error), self._id)
        else:
            self._request.setHeader(b"Vary", b"Accept")
            respond(self._request, 200, content_type, result)
