"""Requests that are answered later than they came: by a coroutine, unless the client leaves.

What a coroutine waits for goes on when the client leaves, but for waits that are only made for
that client.  Decides nothing about jobs.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.errors import DeferPostError, ShuttingDown
from deferpost.web.problems import method_not_allowed, problem_of
from deferpost.web.respond import request_id, respond, respond_problem, set_common

__all__ = ["ClientLeft", "LateReply", "OpenReplies", "begin", "other_method", "refuse"]

_log = Logger(namespace="deferpost.web.jobs")

_T = TypeVar("_T")

#: On every response, unless it says otherwise: it is of this moment.
_FIELDS = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
)


class ClientLeft(Exception):
    """Nobody is there any more who could be answered."""


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
        request.setHeader(b"Allow", allow.encode("ascii"))
        respond(request, 204, b"", b"")
    else:
        respond_problem(request, method_not_allowed(allow), id)


def refuse(request: Any, id: str, error: BaseException) -> None:
    """Answer with an error, as a problem document; one that is a defect is logged."""
    if not isinstance(error, DeferPostError):
        _log.failure("[{request}] about a job failed", Failure(error), request=id)
    respond_problem(request, problem_of(error), id)


class OpenReplies:
    """The replies that have not ended, so that they can be ended when the service stops."""

    def __init__(self) -> None:
        self._open: dict[LateReply, None] = {}
        self.closed = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, reply: LateReply) -> None:
        """It has begun."""
        self._open[reply] = None

    def discard(self, reply: LateReply) -> None:
        """It has ended."""
        self._open.pop(reply, None)

    def close(self) -> None:
        """End those that go on or wait; nobody can wait any more."""
        self.closed = True
        for reply in list(self._open):
            reply.shut_down()


class LateReply:
    """One request, and the coroutine that answers it.

    :param request: the request, which is whole, and of which nothing was answered.
    :param id: its id.
    :param open: where it counts until it ends.

    :ivar left: whether its client has left.
    """

    __slots__ = ("_closing", "_ends", "_open", "_waiting", "id", "left", "request")

    def __init__(self, request: Any, id: str, open: OpenReplies) -> None:
        self.request = request
        self.id = id
        self.left = False
        self._open = open
        self._closing = open.closed
        self._waiting: Deferred[Any] | None = None
        self._ends: list[Callable[[bool], None]] = []

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it answered.

        :param work: answers.
        """
        self._open.add(self)
        self.request.notifyFinish().addCallbacks(self._written, self._client_left)
        Deferred.fromCoroutine(work).addErrback(self._failed)

    async def given(self, value: Awaitable[_T]) -> _T:
        """Wait for something that is done whether or not the client is there.

        :raises ClientLeft: it is not.
        """
        found = await value
        if self.left:
            raise ClientLeft
        return found

    async def until(self, wait: Coroutine[Any, Any, _T]) -> _T:
        """Wait for something that is of interest to this client alone.

        :param wait: canceled when the client leaves.
        :raises ClientLeft: the client has left.
        :raises deferpost.errors.ShuttingDown: the service stops.
        """
        if self._closing or self.left:
            wait.close()
            raise ClientLeft if self.left else ShuttingDown("the service is stopping")
        self._waiting = Deferred.fromCoroutine(wait)
        try:
            return await self.given(self._waiting)
        except CancelledError:
            if self._closing and not self.left:
                raise ShuttingDown("the service is stopping") from None
            raise ClientLeft from None
        finally:
            self._waiting = None

    def when_over(self, end: Callable[[bool], None]) -> None:
        """Have something ended with this: when the client leaves, and when the service stops.

        :param end: called once or twice, with whether the client is still there.
        """
        if self._closing:
            end(True)
        else:
            self._ends.append(end)

    def shut_down(self) -> None:
        """The service stops: end what may go on for long."""
        self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()
        self._end(is_there=True)

    def _end(self, *, is_there: bool) -> None:
        for end in list(self._ends):
            end(is_there)

    def _written(self, _: object) -> None:
        self._open.discard(self)
        self._ends.clear()

    def _client_left(self, _: Failure) -> None:
        self.left = True
        self._open.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()
        self._end(is_there=False)
        self._ends.clear()

    def _failed(self, failure: Failure) -> None:
        error: BaseException = failure.value  # type: ignore[assignment]  # it has one
        if isinstance(error, ClientLeft):
            return
        if self.left or self.request.startedWriting:
            if not isinstance(error, DeferPostError):
                _log.failure("[{request}] about a job failed", failure, request=self.id)
            if not self.left:
                self.request.loseConnection()
            return
        refuse(self.request, self.id, error)
