"""The result of a job, got in as many pieces as lost connections make of it.

What is missing is asked for by ``Range``, with ``If-Range`` so that it belongs to what is there
(RFC 9110, section 13.1.5).  For the reactor thread.
"""

from __future__ import annotations

import re

from deferpost.client.asking import Asker
from deferpost.client.connecting import Response
from deferpost.client.documents import Answer
from deferpost.client.errors import BadAnswer, Unreachable
from deferpost.client.receiving import Receiver
from deferpost.model import Headers

__all__ = ["download", "take"]

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(\*|[0-9]{1,18})")


async def download(asker: Asker, url: str, status: int | None, receiver: Receiver) -> Answer:
    """Get a result, whole.

    :param url: of the result of a job that has ended.
    :param status: that the result has, where that is known: it may be an error of the handler's.
    :param receiver: gets the body.
    :raises Problem: the result is an error.
    :raises JobGone: there is no such job, or no longer.
    :raises Unreachable: the server could not be reached for longer than the client is patient.
    """
    trying = asker.trying(patient=True)
    first: Response | None = None
    while True:
        etag = "" if first is None else first.headers.get("etag", "")
        fields: list[tuple[str, str]] = []
        if first is not None and receiver.length and _is_strong(etag):
            fields = [("Range", f"bytes={receiver.length}-"), ("If-Range", etag)]
        response = await asker.ask("GET", url, fields, expected=status, trying=trying)
        try:
            if response.status >= 400:
                raise await asker.error(response)
            if first is None:
                first = response
            elif response.status == 206:
                _check_range(response.headers, receiver.length)
            else:
                receiver.again(same=_is_strong(etag) and response.headers.get("etag") == etag)
                first = response
            if first.status == 202 and "retry-after" in first.headers:
                raise BadAnswer("the server says that the job has not ended, after it had")
            had = receiver.length
            try:
                await take(response, receiver)
            except Unreachable as error:
                if receiver.length > had:
                    trying = asker.trying(patient=True)
                await asker.pause(trying, error)
                continue
        finally:
            response.body.abandon()
        whole = first.headers.get("content-length", "")
        if whole.isdecimal() and int(whole) != receiver.length:
            raise BadAnswer(f"the result has {receiver.length} bytes instead of {whole}")
        return answer_of(first, receiver)


async def take(response: Response, receiver: Receiver) -> None:
    """Take the body of a response.

    :raises Unreachable: it was cut off; what came is with the receiver.
    :raises BadAnswer: it is too long for memory.
    """
    while data := await response.body.read():
        receiver.write(data)


def answer_of(response: Response, receiver: Receiver) -> Answer:
    """What a response and its body are together.

    :param response: the head of it.
    :param receiver: which has the body.
    """
    return Answer(
        status=response.status,
        headers=response.headers,
        body=receiver.body(),
        length=receiver.length,
    )


def _is_strong(etag: str) -> bool:
    return etag.startswith('"')


def _check_range(headers: Headers, wanted: int) -> None:
    match = _RANGE.fullmatch(headers.get("content-range", ""))
    if match is None or int(match[1]) != wanted:
        raise BadAnswer(f"the server sent {headers.get('content-range')!r}, not from byte {wanted}")
