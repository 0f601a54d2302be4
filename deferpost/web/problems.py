"""What each error is in HTTP: the one table of statuses (RFC 9457).

No traceback, path or word of the operating system gets from here into a response.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from twisted.web.http import RESPONSES

from deferpost.errors import (
    BodyBroken,
    BodyTooLarge,
    ClientQuota,
    DeadlineExceeded,
    DeadlineUnmeetable,
    DeferPostError,
    HandlerFailed,
    HTTPError,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StorageFailed,
    StoreFailed,
    WorkerLost,
)
from deferpost.model import Quota, Reason

__all__ = [
    "PROBLEM_TYPE",
    "Problem",
    "method_not_allowed",
    "not_found",
    "problem_of",
    "quota_fields",
    "title_of",
]

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
    (
        ClientQuota,
        429,
        "client_quota",
        "This client has as many calls under way as one may have; try again later.",
    ),
    (
        DeadlineUnmeetable,
        503,
        "deadline_unmeetable",
        "Too much work waits for this to be done in time; try again later.",
    ),
    (PoolFull, 503, "pool_full", "Every worker is busy and the queue is full; try again later."),
    (PoolBroken, 503, "pool_broken", "The workers of this route do not start; try again later."),
    (ShuttingDown, 503, Reason.SHUTDOWN, "The server is stopping; try again later."),
    (StorageFailed, 503, "storage_failed", "The server could not keep the body; try again later."),
    (StoreFailed, 503, "store_failed", "The server cannot keep jobs now; try again later."),
    (
        WorkerLost,
        502,
        Reason.WORKER_LOST,
        "The process that did the work ended before it was done.",
    ),
    (DeadlineExceeded, 504, Reason.DEADLINE_RUN, None),  # or the one that it has
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
    phrase = RESPONSES.get(status)
    if phrase is not None:
        return phrase.decode("ascii")
    # Twisted does not know the newer ones, 422 and 429 among them.
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


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
            if status in (429, 503):
                seconds = getattr(error, "retry_after", _RETRY_AFTER)
                headers = (("Retry-After", str(seconds)),)
                quota = getattr(error, "quota", None)
                if quota is not None:
                    headers += quota_fields(quota, seconds)
            if isinstance(error, DeadlineExceeded):
                reason = error.reason
            return Problem(
                status, title_of(status), words or str(error), str(reason), headers=headers
            )
    return Problem(
        500, title_of(500), "The server failed; its log tells more under this id.", "error"
    )


def quota_fields(quota: Quota, seconds: int | None = None) -> tuple[tuple[str, str], ...]:
    """What tells a client of a bound (draft-ietf-httpapi-ratelimit-headers-10).

    :param quota: the bound.
    :param seconds: after which there is likely to be more; None where that is not said.
    """
    more = "" if seconds is None else f";t={seconds}"
    return (
        ("RateLimit-Policy", f'"{quota.name}";q={quota.most};qu="{quota.unit}"'),
        ("RateLimit", f'"{quota.name}";r={quota.left}{more}'),
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
