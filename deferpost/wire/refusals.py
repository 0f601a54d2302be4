"""What a connection is told when its request is refused by the wire itself, as RFC 9457 has it."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from twisted.internet.error import ConnectionDone

__all__ = ["PROBLEM_TYPE", "Refused", "RequestRefused", "problem_document"]

PROBLEM_TYPE = b"application/problem+json"


class Refused(Exception):
    """A request that breaks a rule or a bound; the connection ends with its answer.

    :ivar status: HTTP status.
    :ivar detail: one sentence for the client.
    :ivar reason: one word for programs, if there is one.
    """

    def __init__(self, status: int, detail: str, reason: str | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.reason = reason


class RequestRefused(ConnectionDone):
    """Why a request that had begun has ended: its bytes broke a rule, or a bound."""


def problem_document(status: int, detail: str, id: str, reason: str | None = None) -> bytes:
    """The body of a refusal.

    :param status: HTTP status.
    :param detail: one sentence for the client.
    :param id: the id of the response, by which the log can be searched.
    :param reason: one word for programs, if there is one.
    """
    members = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "id": id,
    }
    if reason is not None:
        members["reason"] = reason
    return msgspec.json.encode(members)
