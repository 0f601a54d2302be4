"""One request and its response: from a submitted job to the last byte, or to a client that left.

Ends in exactly one of the two.  :mod:`deferpost.exchanges` decides what follows what; this does it.
For the reactor thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.bodies import PIECE_BYTES, BodyWriter
from deferpost.errors import HandlerFailed, HTTPError, WorkerLost
from deferpost.exchanges import TABLE, Act, ExchangeEvent, ExchangeState, advance, job_goes_on
from deferpost.jobs import Job
from deferpost.model import Answer, OnDisconnect, Reason
from deferpost.web.problems import Problem, problem_of
from deferpost.web.respond import common_fields, respond_problem, set_common

__all__ = ["CLIENT_LEFT", "Exchange", "OpenExchanges", "log_failure", "problem_for"]

#: What stands in place of a status where the client left before its response.
CLIENT_LEFT = 499

_log = Logger(namespace="deferpost.web")

#: Fields that every response has, and has once.
_ONE_ONLY = frozenset({b"date", b"server", b"x-request-id"})


class OpenExchanges:
    """The exchanges that have not ended, so that a service that stops can wait for them."""

    def __init__(self) -> None:
        self._open: set[Any] = set()
        self._waiting: list[Deferred[None]] = []

    def add(self, exchange: Any) -> None:
        """It has begun."""
        self._open.add(exchange)

    def discard(self, exchange: Any) -> None:
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

    :mod:`deferpost.exchanges` has the table of its life; each event is taken through
    :meth:`_take`, and what the table says is done.

    :param request: the request, of which nothing has been written.
    :param job: its job.
    :param on_disconnect: what becomes of the job when the client leaves.
    :param now: the monotonic clock, in seconds.
    :param open_exchanges: where this counts until it ends.
    :param responded: called once, with the job and the status that was sent, when this has ended.
    """

    __slots__ = (
        "_job",
        "_now",
        "_on_disconnect",
        "_open",
        "_request",
        "_responded",
        "_state",
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
        self._state = ExchangeState.WAITING
        self._writer: BodyWriter | None = None  # of a body that leaves piece by piece

    @property
    def state(self) -> ExchangeState:
        """Where it stands."""
        return self._state

    def begin(self, answer: Deferred[Answer]) -> None:
        """Watch the client and wait for the answer."""
        self._open.add(self)
        request = self._request
        watch = getattr(request, "watch", None)
        if watch is not None:
            watch(self._ended)
        else:
            request.notifyFinish().addCallbacks(self._written, self._left)
        answer.addCallbacks(self._answered, self._failed)

    def _take(self, event: ExchangeEvent) -> Act:
        """Take one event.

        :returns: what is to be done now.
        """
        step = TABLE.get((self._state, event))
        if step is None:
            step = advance(self._state, event)  # which says what is wrong
        self._state, act = step
        return act

    # What the request tells.

    def _ended(self, reason: Failure | None) -> None:
        if reason is None:
            self._take(ExchangeEvent.WRITTEN)
            self._close(self._request.code)
        else:
            self._left(reason)

    def _written(self, _: object) -> None:
        self._take(ExchangeEvent.WRITTEN)
        self._close(self._request.code)

    def _left(self, _: Failure) -> None:
        """The connection is gone: remove or cancel the job, or let it finish unread."""
        act = self._take(ExchangeEvent.LEAVE)
        if act is Act.NOTHING:
            return
        if act is Act.CLOSE:
            self._close(self._request.code)
            return
        job = self._job
        goes_on = job_goes_on(self._on_disconnect, job.started is not None)
        if self._writer is not None:
            self._writer.stop(finish=goes_on)
        elif not goes_on:
            job.cancel(Reason.CLIENT_DISCONNECTED)
        self._close(CLIENT_LEFT)

    def _close(self, status: int) -> None:
        job, request = self._job, self._request
        job.sent_bytes = request.sentLength
        self._open.discard(self)
        self._responded(job, status)

    # What the job tells.

    def _answered(self, answer: Answer) -> None:
        act = self._take(ExchangeEvent.ANSWER)
        try:
            if act is Act.WRITE:
                self._write(answer)
            elif answer.length is None:
                answer.body.discard()  # it is only still here because it is to finish
            else:
                answer.close()
        except Exception:
            self._defect(Failure())
            _let_go(answer)

    def _failed(self, failure: Failure) -> None:
        act = self._take(ExchangeEvent.FAIL)
        try:
            error: BaseException = failure.value  # type: ignore[assignment]  # it has one
            log_failure(error, self._job)
            if act is Act.EXPLAIN:
                self._explain(error)
        except Exception:
            self._defect(Failure())

    # Writing.

    def _common(self) -> None:
        job = self._job
        now = self._now()
        set_common(self._request, job.head.id, job.queue_so_far(now), job.run_so_far(now))

    def _write(self, answer: Answer) -> None:
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

    def _explain(self, error: BaseException) -> None:
        """Write an error."""
        self._common()
        respond_problem(self._request, problem_for(error), self._job.head.id)

    def _broken(self, error: Exception) -> None:
        """The body broke off: the only honest sign is a connection that ends before it."""
        self._take(ExchangeEvent.BREAK)
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
        clean = self._writer is None and not self._request.startedWriting
        act = self._take(ExchangeEvent.DEFECT if clean else ExchangeEvent.DEFECT_MIDWAY)
        if act is Act.APOLOGIZE:
            error: BaseException = failure.value  # type: ignore[assignment]  # as above
            try:
                respond_problem(self._request, problem_of(error), self._job.head.id)
            except Exception:
                _log.failure("[{job}] could not be told so", job=self._job.head.id)
                act = self._take(ExchangeEvent.DEFECT_MIDWAY)
        if act is Act.DISCONNECT:
            self._request.loseConnection()


def _let_go(answer: Answer) -> None:
    """End what could not be written: its file, or the job that makes its stream."""
    with contextlib.suppress(Exception):  # it may be what the defect is about
        if answer.length is None:
            answer.body.abandon(Reason.ERROR)
        else:
            answer.close()


def problem_for(error: BaseException) -> Problem:
    """What a client is told of the error of its job."""
    if isinstance(error, CancelledError):
        error = HTTPError(503, "The work was canceled.", extensions={"reason": "requested"})
    return problem_of(error)


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
