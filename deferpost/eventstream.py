"""A job as a stream of events: what each looks like, and who gets them.

Two formats: Server-Sent Events, as the WHATWG's HTML standard has them, and JSON objects, one in a
line.  This decides about bytes only; it knows neither requests nor clocks.
"""

from __future__ import annotations

import base64
import codecs
import enum
import io
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from deferpost.model import Progress

__all__ = [
    "EventFormat",
    "Events",
    "format_of",
    "is_text",
    "media_type",
    "plain_number",
    "weight_of",
]

Pairs = Iterable[tuple[bytes, bytes]]

#: A weight (RFC 9110, section 12.4.2).
_WEIGHT = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

#: Media ranges of a client that are looked at; browsers send less than ten.
_RANGES_MOST = 50

#: Integers up to here are the same as a float and as JSON.
_EXACT = 2.0**53


class EventFormat(enum.Enum):
    """How events are written; the value is the media type."""

    SSE = b"text/event-stream"
    NDJSON = b"application/x-ndjson"


_FORMATS = {each.value: each for each in EventFormat}


def format_of(accept: bytes) -> EventFormat | None:
    """The format in which a client wants events (RFC 9110, section 12.5.1).

    Events are sent to those only who name one of the formats, and name nothing that they would
    rather have, or would have as gladly: of equals, a format of events comes before ranges such as
    ``*/*``, and after any other type that is named in full.

    :param accept: the value of ``Accept``; that of several fields joined by commas.
    :returns: None where the response is to be the plain one.
    """
    lowered = accept.lower()
    if b"event-stream" not in lowered and b"ndjson" not in lowered:  # as nearly always
        return None
    best: tuple[float, EventFormat] | None = None
    other = 0.0
    for part in lowered.split(b",", _RANGES_MOST)[:_RANGES_MOST]:
        kind, *parameters = (piece.strip(b" \t") for piece in part.split(b";"))
        weight = weight_of(parameters)
        if weight is None:
            continue  # malformed
        found = _FORMATS.get(kind)
        if found is None:
            # What is named in full wins over an equal, so it counts a little more.
            other = max(other, weight if kind.endswith(b"/*") else weight + 1e-6 * (weight > 0))
        elif weight > 0 and (best is None or weight > best[0]):
            best = weight, found
    return None if best is None or best[0] < other else best[1]


def weight_of(parameters: Iterable[bytes]) -> float | None:
    """The weight among the parameters of a media range; None where it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.rstrip(b" \t") == b"q":
            value = value.strip(b" \t")
            return float(value) if _WEIGHT.fullmatch(value) else None
    return 1.0


def media_type(headers: Pairs) -> tuple[bytes, bytes]:
    """The media type of a reply and its parameters, in lower case; both empty without one.

    :param headers: name and value pairs.
    """
    for name, value in headers:
        if name.lower() == b"content-type":
            kind, _, parameters = value.lower().partition(b";")
            return kind.strip(b" \t"), parameters
    return b"", b""


def is_text(kind: bytes, parameters: bytes) -> bool:
    """Whether a body is sent as text: one of UTF-8 that is text or JSON by its media type.

    :param kind: the media type, in lower case.
    :param parameters: what comes after it.
    """
    if not kind.startswith(b"text/") and not kind.endswith((b"/json", b"+json", b"ndjson")):
        return False
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t") == b"charset":
            return value.strip(b' \t"') in (b"utf-8", b"utf8", b"us-ascii")
    return True


class Events:
    """The events of one job, in order, each as its bytes.

    :param format: how they are written.
    """

    __slots__ = ("_decoder", "_format", "_number")

    def __init__(self, format: EventFormat) -> None:
        self._format = format
        self._number = 0
        self._decoder: Any = None

    @property
    def content_type(self) -> bytes:
        """The ``Content-Type`` of them all."""
        return self._format.value

    @property
    def heartbeat(self) -> bytes:
        """What says only that the stream is alive; it has no number."""
        return b":\n\n" if self._format is EventFormat.SSE else b'{"type":"heartbeat"}\n'

    def progress(self, progress: Progress) -> bytes:
        """How far the job is."""
        members = {
            "done": plain_number(progress.done),
            "total": None if progress.total is None else plain_number(progress.total),
            "message": progress.message,
        }
        return self._event("progress", members)

    def begin_chunks(self, as_text: bool) -> None:
        """The body is about to come, by :meth:`chunk`.

        :param as_text: whether it is UTF-8; else it is sent as Base64.
        """
        if as_text:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            if self._format is EventFormat.SSE:
                # Whose only line end is "\n": the others would end a line of the format itself.
                self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
            else:
                self._decoder = decoder

    def chunk(self, data: bytes, final: bool = False) -> bytes:
        """A piece of the body, wherever it was cut: a character that is not whole yet is kept.

        :param data: the bytes.
        :param final: whether there are no more.
        :returns: the event; nothing where there is nothing to tell.
        """
        if self._decoder is None:
            return self._event("chunk", _base64("data", data)) if data else b""
        text = self._decoder.decode(data, final)
        if not text:
            return b""
        if self._format is EventFormat.NDJSON:
            return self._event("chunk", {"data": text})
        return self._lines("chunk", text.encode())

    def result(self, status: int, headers: Pairs, body: bytes | None) -> bytes:
        """The reply: the last event.

        :param status: its status.
        :param headers: its header fields.
        :param body: its body; None where that was sent by :meth:`chunk`.
        """
        headers = tuple(headers)
        members: dict[str, Any] = {
            "status": status,
            "headers": [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
            ],
        }
        if body is not None:
            members.update(_as_json(body, is_text(*media_type(headers))))
        return self._event("result", members)

    def error(self, problem: bytes) -> bytes:
        """That there is no reply, or not the whole: the last event.

        :param problem: the problem document (RFC 9457), as JSON.
        """
        if self._format is EventFormat.SSE:
            return self._lines("error", problem)
        return self._event("error", {"problem": msgspec.Raw(problem)})

    def _event(self, kind: str, members: dict[str, Any]) -> bytes:
        if self._format is EventFormat.SSE:
            return self._lines(kind, msgspec.json.encode(members))
        self._number += 1
        return msgspec.json.encode({"type": kind, "id": self._number, **members}) + b"\n"

    def _lines(self, kind: str, data: bytes) -> bytes:
        self._number += 1
        lines = data.replace(b"\n", b"\ndata: ")
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self._number, kind.encode(), lines)


def plain_number(number: float) -> float:
    """A number as people write it: without a point where it is whole."""
    return int(number) if float(number).is_integer() and abs(number) <= _EXACT else number


def _as_json(body: bytes, as_text: bool) -> dict[str, str]:
    """A whole body as members."""
    if as_text or not body:
        try:
            return {"body": body.decode()}
        except UnicodeDecodeError:
            pass  # it is not what it says
    return _base64("body", body)


def _base64(name: str, data: bytes) -> dict[str, str]:
    return {name: base64.b64encode(data).decode("ascii"), "encoding": "base64"}
