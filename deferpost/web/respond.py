"""Writing a short response, and what every response has: its id and its times."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

from deferpost.fields import field_bytes
from deferpost.web.problems import PROBLEM_TYPE, Problem

__all__ = ["request_id", "respond", "respond_problem", "server_timing", "set_common"]

_SENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def _ids() -> Iterator[str]:
    """Ids that cannot be guessed, of 24 hexadecimal digits.

    Random bytes are asked of the system for many at once: each time is a system call, which gives
    the interpreter's lock away in the middle of a request.
    """
    while True:
        digits = secrets.token_hex(12 * 256)
        for start in range(0, len(digits), 24):
            yield digits[start : start + 24]


_new_ids = _ids()


def request_id(request: Any) -> str:
    """The id of a request: the ``X-Request-ID`` that it came with, or a new one.

    One with spaces, control characters or over 128 characters is not taken up.
    """
    sent = request.requestHeaders.getRawHeaders(b"x-request-id")
    if sent is not None and len(sent) == 1 and _SENT_ID.fullmatch(sent[0]):
        return sent[0].decode("ascii")  # type: ignore[no-any-return]  # bytes, by IRequest
    return next(_new_ids)


def server_timing(queue_seconds: float, run_seconds: float) -> bytes:
    """The value of ``Server-Timing``: both times in milliseconds."""
    return b"queue;dur=%.3f, run;dur=%.3f" % (queue_seconds * 1e3, run_seconds * 1e3)


def set_common(request: Any, id: str, queue_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
    """Set what every response has.

    :param request: the request.
    :param id: its id.
    :param queue_seconds: how long its job waited, where there is one.
    :param run_seconds: how long its job has run.
    """
    headers = request.responseHeaders
    headers.setRawHeaders(b"X-Request-ID", [id.encode("ascii")])
    headers.setRawHeaders(b"Server-Timing", [server_timing(queue_seconds, run_seconds)])


def respond(request: Any, status: int, content_type: bytes, body: bytes) -> None:
    """Write a short response and finish; its common headers are set."""
    request.setResponseCode(status)
    headers = request.responseHeaders
    if status != 204:
        headers.setRawHeaders(b"Content-Type", [content_type])
        headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    if body and request.method != b"HEAD":
        request.write(body)
    request.finish()


def respond_problem(request: Any, problem: Problem, id: str) -> None:
    """Write an error as problem+json and finish; its common headers are set."""
    for name, value in problem.headers:
        request.responseHeaders.addRawHeader(name.encode("ascii"), field_bytes(value))
    respond(request, problem.status, PROBLEM_TYPE, problem.document(id))
