"""Sending the recorded result of a job: the whole, a part of it, or that it has not changed.

What is sent is as the job's code gave it; only what belongs to one response, or to one connection,
is this one's own.  :mod:`deferpost.web.jobs.ranges` decides which part it is.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import Logger

from deferpost.bodies import PIECE_BYTES, BodyWriter
from deferpost.errors import HTTPError
from deferpost.fields import FRAMING
from deferpost.model import Answer
from deferpost.records import JobRecord, StoredResult
from deferpost.web.jobs.ranges import Asked, Part, own_tag, part_of
from deferpost.web.jobs.replying import LateReply

__all__ = ["let_go", "send_result"]

_log = Logger(namespace="deferpost.web.jobs")

#: Recorded fields that are not sent again: they were of another response, or are set here.
_DROPPED = frozenset(name.encode("ascii") for name in FRAMING) | {
    b"accept-ranges",
    b"date",
    b"etag",
    b"x-request-id",
}

#: Fields of a 304 (RFC 9110, section 15.4.5).
_OF_UNCHANGED = frozenset({b"cache-control", b"content-location", b"expires", b"vary"})

#: Media types that a browser runs the scripts of.
_ACTIVE = frozenset(
    {b"text/html", b"application/xhtml+xml", b"image/svg+xml", b"application/xml", b"text/xml"}
)


def let_go(result: StoredResult) -> None:
    """Close a body that nobody is going to read."""
    if not isinstance(result.body, bytes):
        result.body.close()


def send_result(reply: LateReply, record: JobRecord, result: StoredResult) -> None:
    """Answer with the result of a job.

    :param reply: the request; its common header fields are set.
    :param record: the job, which has ended.
    :param result: what was recorded; its body is closed in any case.
    """
    try:
        _send(reply, record, result)
    except BaseException:
        let_go(result)
        raise


def _send(reply: LateReply, record: JobRecord, result: StoredResult) -> None:
    request = reply.request
    recorded = [(name, value) for name, value in result.headers if name.lower() not in _DROPPED]
    tag = _value(result.headers, b"etag") or own_tag(record.id, record.number)
    part = Part(result.status, 0, result.length)
    if result.status == 200:
        part = _wanted(request, tag, result)
    request.setResponseCode(part.status)
    headers = request.responseHeaders
    headers.setRawHeaders(b"Cache-Control", [b"private, no-cache"])
    if result.status == 200:
        headers.setRawHeaders(b"ETag", [tag])
        headers.setRawHeaders(b"Accept-Ranges", [b"bytes"])
    if part.status == 416:
        raise HTTPError(
            416,
            "The result has no such bytes.",
            headers=(("Content-Range", f"bytes */{result.length}"),),
        )
    replaced = set()
    for name, value in recorded:
        lowered = name.lower()
        if part.status == 304 and lowered not in _OF_UNCHANGED:
            continue
        if lowered not in replaced and lowered != b"server-timing":
            headers.removeHeader(name)  # the recorded one takes the place of ours
            replaced.add(lowered)
        headers.addRawHeader(name, value)
    if part.status in (204, 304):
        let_go(result)
        request.finish()
        return
    _protect(headers)
    if part.status == 206 and result.status == 200:
        last = part.start + part.length - 1
        value = b"bytes %d-%d/%d" % (part.start, last, result.length)
        headers.setRawHeaders(b"Content-Range", [value])
    headers.setRawHeaders(b"Content-Length", [b"%d" % part.length])
    if request.method == b"HEAD":
        let_go(result)
        request.finish()
    else:
        _write(reply, _body(result, part))


def _wanted(request: Any, tag: bytes, result: StoredResult) -> Part:
    values = request.requestHeaders.getRawHeaders
    asked = Asked(values(b"range", ()), values(b"if-range", ()), values(b"if-none-match", ()))
    modified = _value(result.headers, b"last-modified")
    return part_of(asked, tag, modified, result.length, is_get=request.method == b"GET")


def _value(fields: tuple[tuple[bytes, bytes], ...], name: bytes) -> bytes | None:
    """The value of a field that may come once."""
    values = [value for each, value in fields if each.lower() == name]
    return values[0] if len(values) == 1 else None


def _protect(headers: Any) -> None:
    """Have no script of a result run as one of this site's, unless its handler has said more.

    The answer to a POST is hardly ever shown by a browser.  This is at an address that anybody can
    be led to.
    """
    kind = (headers.getRawHeaders(b"content-type") or [b""])[0]
    is_active = kind.partition(b";")[0].strip().lower() in _ACTIVE
    if is_active and not headers.hasHeader(b"content-security-policy"):
        headers.setRawHeaders(b"Content-Security-Policy", [b"sandbox"])


def _body(result: StoredResult, part: Part) -> Answer:
    body = result.body
    if isinstance(body, bytes):
        if part.length != len(body):
            body = body[part.start : part.start + part.length]
    elif part.start:
        body.seek(part.start, os.SEEK_CUR)
    return Answer(part.status, (), body, part.length)


def _write(reply: LateReply, answer: Answer) -> None:
    request = reply.request
    if isinstance(answer.body, bytes) and len(answer.body) <= PIECE_BYTES:
        cork = getattr(request, "cork", None)
        if cork is not None:
            cork()
        if answer.body:
            request.write(answer.body)
        request.finish()
        return

    def broken(error: Exception) -> None:
        _log.error("[{request}] a result broke off: {error}", request=reply.id, error=error)
        request.loseConnection()

    def over(is_there: bool) -> None:
        if not is_there:
            writer.stop(finish=False)

    writer = BodyWriter(request, answer, request.finish, broken)
    reply.when_over(over)
    writer.start()
