"""One request and its response: from a submitted job to the last byte, or to a client that left.

Ends in exactly one of the two.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.bodies import PIECE_BYTES, BodyWriter
from deferpost.errors import HandlerFailed, HTTPError, WorkerLost
from deferpost.jobs import Job
from deferpost.model import Answer, OnDisconnect, Reason
from deferpost.web.problems import problem_of
from deferpost.web.respond import common_fields, respond_problem, set_common

__all__ = ["CLIENT_LEFT", "Exchange", "OpenExchanges", "log_failure"]

#: What stands in place of a status where the client left before its response.
CLIENT_LEFT = 499

_log = Logger(namespace="deferpost.web")

#: Fields that every response has, and has once.
_ONE_ONLY = frozenset({b"date", b"server", b"x-request-id"})


class OpenExchanges:
    """The exchanges that have not ended, so that a service that stops can wait for them."""

    def __init__(self) -> None:
        self._open: set[Exchange] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, exchange: Exchange) -> None:
        """It has begun."""
        self._open.add(exchange)

    def discard(self, exchange: Exchange) -> None:
        """It has ended."""
        self._open.discard(exchange)
        if not self._open and self._waiting:
            waiting, self._waiting = self._waiting, []
            for closed in waiting:
                closed.callback(None)

    def __len__(self) -> int:
        return len(self._open)

    def closed(self) -> Deferred[None]:
        """A Deferred that fires when none is open."""
        closed: Deferred[None] = Deferred()
        if self._open:
            self._waiting.append(closed)
        else:
            closed.callback(None)
        return closed


class Exchange:
    """A request whose job was submitted.

    :param request: the request, of which nothing has been written.
    :param job: its job.
    :param on_disconnect: what becomes of the job when the client leaves.
    :param now: the monotonic clock, in seconds.
    :param open_exchanges: where this counts until it ends.
    :param responded: called once, with the job and the status that was sent, when this has ended.
    """

    __slots__ = (
        "_job",
        "_left",
        "_now",
        "_on_disconnect",
        "_open",
        "_request",
        "_responded",
        "_writer",
    )

    def __init__(
        self,
        request: Any,
        job: Job,
        on_disconnect: OnDisconnect,
        now: Callable[[], float],
        open_exchanges: OpenExchanges,
        responded: Callable[[Job, int], None],
    ) -> None:
        self._request = request
        self._job = job
        self._on_disconnect = on_disconnect
        self._now = now
        self._open = open_exchanges
        self._responded = responded
        self._left = False
        self._writer: BodyWriter | None = None

    def begin(self, answer: Deferred[Answer]) -> None:
        """Watch the client and wait for the answer."""
        self._open.add(self)
        request = self._request
        watch = getattr(request, "watch", None)
        if watch is not None:
            watch(self._ended)
        else:
            request.notifyFinish().addCallbacks(self._finished, self._client_left)
        answer.addCallbacks(self._answered, self._failed)

    def _ended(self, reason: Failure | None) -> None:
        if reason is None:
            self._finished(None)
        else:
            self._client_left(reason)

    def _finished(self, _: object) -> None:
        self._open.discard(self)
        self._responded(self._job, self._request.code)

    def _client_left(self, _: Failure) -> None:
        """The connection is gone: remove or cancel the job, or let it finish unread."""
        self._left = True
        self._open.discard(self)
        # One that has not started is removed in either case.
        finish = self._on_disconnect is OnDisconnect.FINISH and self._job.started is not None
        if self._writer is not None:
            self._writer.stop(finish=finish)
        elif not finish:
            self._job.cancel(Reason.CLIENT_DISCONNECTED)
        self._responded(self._job, CLIENT_LEFT)

    def _common(self) -> None:
        job = self._job
        now = self._now()
        set_common(self._request, job.head.id, job.queue_so_far(now), job.run_so_far(now))

    def _answered(self, answer: Answer) -> None:
        try:
            self._write(answer)
        except Exception:
            self._defect(Failure())

    def _write(self, answer: Answer) -> None:
        if self._left:
            if answer.length is None:
                answer.body.discard()  # it is only still here because it is to finish
            else:
                answer.close()
            return
        request = self._request
        body = answer.body
        small = type(body) is bytes and len(body) <= PIECE_BYTES
        if small and self._answered_at_once(answer, body):
            return
        self._common()
        request.setResponseCode(answer.status)
        headers = request.responseHeaders
        for name, value in answer.headers:
            if name.lower() in _ONE_ONLY:
                headers.removeHeader(name)  # the handler's takes the place of ours
            headers.addRawHeader(name, value)
        length = answer.length
        if length is not None and answer.status not in (204, 304):
            headers.setRawHeaders(b"Content-Length", [b"%d" % length])
        if small:
            if body:
                request.write(body)
            request.finish()
        else:
            self._writer = BodyWriter(request, answer, request.finish, self._broken)
            self._writer.start()

    def _answered_at_once(self, answer: Answer, body: bytes) -> bool:
        """Write a small answer as one piece, on a request that can."""
        request = self._request
        write = getattr(request, "answer", None)
        if write is None or answer.status == 304 or request.method != b"POST":
            return False
        for name, _ in answer.headers:
            if name.lower() in _ONE_ONLY:
                return False
        job = self._job
        started, ended = job.started, job.ended
        if started is None or ended is None:
            now = self._now()
            common = common_fields(job.head.id, job.queue_so_far(now), job.run_so_far(now))
        else:
            common = common_fields(job.head.id, started - job.created, ended - started)
        write(answer.status, (*common, *answer.headers), body)
        return True

    def _failed(self, failure: Failure) -> None:
        try:
            self._write_failure(failure)
        except Exception:
            self._defect(Failure())

    def _write_failure(self, failure: Failure) -> None:
        error: BaseException = failure.value  # type: ignore[assignment]  # it has one
        log_failure(error, self._job)
        if not self._left:
            if isinstance(error, CancelledError):
                error = HTTPError(503, "The work was canceled.", extensions={"reason": "requested"})
            self._common()
            respond_problem(self._request, problem_of(error), self._job.head.id)

    def _broken(self, error: Exception) -> None:
        """The body broke off: the only honest sign is a connection that ends before it."""
        log_failure(error, self._job)
        _log.warn(
            "[{job}] {route}: the reply broke off: {error}",
            job=self._job.head.id,
            route=self._job.head.route,
            error=str(error) or type(error).__name__,
        )
        self._request.loseConnection()

    def _defect(self, failure: Failure) -> None:
        """An error of our own: never a silent hang for the client."""
        _log.failure("[{job}] could not be answered", failure=failure, job=self._job.head.id)
        error: BaseException = failure.value  # type: ignore[assignment]  # as above
        if self._left:
            return
        if self._writer is None and not self._request.startedWriting:
            respond_problem(self._request, problem_of(error), self._job.head.id)
        else:
            self._request.loseConnection()


def log_failure(error: BaseException, job: Job) -> None:
    """Log what the handler's author or the operator has to know; clients' errors are theirs."""
    if isinstance(error, HandlerFailed):
        _log.error(
            "[{job}] {route} failed:\n{traceback}",
            job=job.head.id,
            route=job.head.route,
            traceback=error.traceback,
        )
    elif isinstance(error, WorkerLost):
        _log.error("[{job}] {route}: {error}", job=job.head.id, route=job.head.route, error=error)
    elif not isinstance(error, (HTTPError, CancelledError)):
        _log.info("[{job}] {route}: {error}", job=job.head.id, route=job.head.route, error=error)
