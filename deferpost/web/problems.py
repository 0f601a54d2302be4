"""What each error is in HTTP: the one table of statuses (RFC 9457).

No traceback, path or word of the operating system gets from here into a response.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.http import RESPONSES

from deferpost.errors import (
    BodyBroken,
    BodyTooLarge,
    DeadlineExceeded,
    DeferPostError,
    HandlerFailed,
    HTTPError,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StorageFailed,
    WorkerLost,
)
from deferpost.model import Reason

__all__ = ["PROBLEM_TYPE", "Problem", "method_not_allowed", "not_found", "problem_of", "title_of"]

PROBLEM_TYPE = b"application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """An error as its response.

    :ivar status: HTTP status.
    :ivar title: the kind of problem, short.
    :ivar detail: one sentence for the client.
    :ivar reason: one word for programs, where the error is the server's.
    :ivar type: a URI that names the kind.
    :ivar headers: further header fields.
    :ivar extensions: further members of the document.
    """

    status: int
    title: str
    detail: str = ""
    reason: str | None = None
    type: str = "about:blank"
    headers: tuple[tuple[str, str], ...] = ()
    extensions: dict[str, Any] = {}

    def document(self, request_id: str) -> bytes:
        """The body of the response.

        :param request_id: the id of the request, by which the log can be searched.
        """
        members: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "id": request_id,
        }
        members = {name: value for name, value in members.items() if value or name == "status"}
        return msgspec.json.encode({**self.extensions, **members})


#: Error, status, reason, and what the client is told where not the error's own words.
_TABLE: tuple[tuple[type[DeferPostError], int, str, str | None], ...] = (
    (BodyTooLarge, 413, "body_too_large", None),
    (BodyBroken, 400, "body_broken", "The body of the request ended before it was whole."),
    (PoolFull, 503, "pool_full", "Every worker is busy and the queue is full; try again later."),
    (PoolBroken, 503, "pool_broken", "The workers of this route do not start; try again later."),
    (ShuttingDown, 503, Reason.SHUTDOWN, "The server is stopping; try again later."),
    (StorageFailed, 503, "storage_failed", "The server could not keep the body; try again later."),
    (
        WorkerLost,
        502,
        Reason.WORKER_LOST,
        "The process that did the work ended before it was done.",
    ),
    (DeadlineExceeded, 504, Reason.DEADLINE_RUN, None),
    (
        HandlerFailed,
        500,
        Reason.ERROR,
        "The work failed; the server's log tells more under this id.",
    ),
)

#: Seconds after which to try again, where no measure says it.
_RETRY_AFTER = 5


def title_of(status: int) -> str:
    """The phrase of a status, such as "Not Found"."""
    return RESPONSES.get(status, b"Error").decode("ascii")


def problem_of(error: BaseException) -> Problem:
    """The response to an error; one that is not ours is a 500 that tells nothing."""
    if isinstance(error, HTTPError):
        return Problem(
            error.status,
            error.title or title_of(error.status),
            error.detail,
            None,
            error.type,
            error.headers,
            error.extensions,
        )
    for kind, status, reason, words in _TABLE:
        if isinstance(error, kind):
            headers: tuple[tuple[str, str], ...] = ()
            if status == 503:
                headers = (("Retry-After", str(getattr(error, "retry_after", _RETRY_AFTER))),)
            return Problem(
                status, title_of(status), words or str(error), str(reason), headers=headers
            )
    return Problem(
        500, title_of(500), "The server failed; its log tells more under this id.", "error"
    )


def not_found() -> Problem:
    """The response to an unknown path."""
    return Problem(404, title_of(404), "There is nothing at this path.")


def method_not_allowed(allow: str) -> Problem:
    """The response to a method that the resource does not have.

    :param allow: the methods that it has.
    """
    return Problem(
        405,
        title_of(405),
        f"This resource takes {allow}.",
        headers=(("Allow", allow),),
    )
