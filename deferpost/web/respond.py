"""Writing a short response, and what every response has: its id and its times."""

from __future__ import annotations

from typing import Any

from deferpost.fields import field_bytes
from deferpost.ids import id_of
from deferpost.web.problems import PROBLEM_TYPE, Problem, title_of

__all__ = [
    "common_fields",
    "request_id",
    "respond",
    "respond_problem",
    "server_timing",
    "set_common",
]


#: Both times, in milliseconds.
_TIMING = b"queue;dur=%.3f, run;dur=%.3f"


def request_id(request: Any) -> str:
    """The id of a request: the ``X-Request-ID`` that it came with, or a new one."""
    framing = getattr(request, "framing", None)
    if framing is not None:  # a request of our own wire has seen it already
        id: str | None = request.id
        if id is None:
            id = request.id = id_of(None if framing.id is None else (framing.id,))
        return id
    return id_of(request.requestHeaders.getRawHeaders(b"x-request-id"))


def server_timing(queue_seconds: float, run_seconds: float) -> bytes:
    """The value of ``Server-Timing``: both times in milliseconds."""
    return _TIMING % (queue_seconds * 1e3, run_seconds * 1e3)


def common_fields(
    id: str, queue_seconds: float, run_seconds: float
) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """What every response has, as pairs; see :func:`set_common`."""
    timing = _TIMING % (queue_seconds * 1e3, run_seconds * 1e3)
    return (b"X-Request-ID", id.encode("ascii")), (b"Server-Timing", timing)


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
    cork = getattr(request, "cork", None)
    if cork is not None:  # so that it leaves as one piece, and after its line in the log
        cork()
    request.setResponseCode(status, title_of(status).encode("ascii"))
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
