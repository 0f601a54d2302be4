"""What can go wrong between a client and its server: one tree.

* :class:`Unreachable`: there was no answer.
* :class:`Problem`: there was one, and it is an error; :class:`JobGone` where that says that there
  is no such job, or no longer.
* :class:`BadAnswer`: what answered does not speak as a deferpost does.
* :class:`NotEnded`: the time that was given for waiting is over; nothing else is wrong.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from deferpost.model import Headers

if TYPE_CHECKING:
    from deferpost.client.documents import JobDocument

__all__ = [
    "BadAnswer",
    "ClientError",
    "JobGone",
    "NotEnded",
    "Problem",
    "Unreachable",
    "problem_of",
]

#: The most of a body that is no problem document which is shown as the detail of one.
_SHOWN = 200


class ClientError(Exception):
    """The root of the tree."""


class Unreachable(ClientError):
    """The server could not be reached, or the connection was lost before its answer was whole.

    :ivar was_sent: whether the server may have got the request; False where it cannot have.
    :ivar again: whether another attempt may help: not where a certificate is wrong.
    """

    def __init__(self, message: str, *, was_sent: bool, again: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        self.again = again


class BadAnswer(ClientError):
    """What came is no answer of a deferpost, or breaks the bounds of this client."""


class NotEnded(ClientError):
    """The job has not ended in the time that was given; it goes on.

    :ivar document: the job as it was last seen; None where it was not.
    """

    def __init__(self, message: str, document: JobDocument | None = None) -> None:
        super().__init__(message)
        self.document = document


class Problem(ClientError):
    """An answer that is an error (RFC 9457).

    :ivar status: the HTTP status.
    :ivar title: the kind of problem, short.
    :ivar detail: one sentence about this occurrence; empty where there is none.
    :ivar reason: one word for programs; None where there is none.
    :ivar id: the id by which the server's log tells more; None where there is none.
    :ivar type: a URI that names the kind.
    :ivar members: the whole document; empty where the answer was none.
    :ivar headers: the header fields of the answer.
    :ivar body: the answer as it came.
    """

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        *,
        reason: str | None = None,
        id: str | None = None,
        type: str = "about:blank",
        members: dict[str, Any] | None = None,
        headers: Headers | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(status, title, detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.reason = reason
        self.id = id
        self.type = type
        self.members = members or {}
        self.headers = headers or Headers()
        self.body = body

    def __str__(self) -> str:
        text = f"{self.status} {self.title}".rstrip()
        if self.detail:
            text += f": {self.detail}"
        more = [self.reason or "", f"id {self.id}" if self.id else ""]
        shown = ", ".join(filter(None, more))
        return f"{text} ({shown})" if shown else text


class JobGone(Problem):
    """There is no such job (404), or it has expired (410)."""


def problem_of(
    status: int, headers: Headers, body: bytes, kind: type[Problem] = Problem
) -> Problem:
    """The error that an answer is.

    :param status: its status, from 400.
    :param headers: its header fields.
    :param body: its body, or the beginning of it.
    :param kind: the class of the error.
    """
    members = _members(headers, body)
    if members is None:
        text = " ".join(body[: 4 * _SHOWN].decode("utf-8", "replace").split())
        if "html" in headers.get("content-type", ""):
            text = ""
        if len(text) > _SHOWN:
            text = f"{text[: _SHOWN - 1]}…"
        request_id = headers.get("x-request-id")
        return kind(status, _phrase(status), text, id=request_id, headers=headers, body=body)

    def text_of(name: str) -> str:
        value = members.get(name)
        return value if isinstance(value, str) else ""

    return kind(
        status,
        text_of("title") or _phrase(status),
        text_of("detail"),
        reason=text_of("reason") or None,
        id=text_of("id") or headers.get("x-request-id"),
        type=text_of("type") or "about:blank",
        members=members,
        headers=headers,
        body=body,
    )


def _members(headers: Headers, body: bytes) -> dict[str, Any] | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/problem+json":
        return None
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
