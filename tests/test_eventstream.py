"""A job as a stream of events: what a client reads, wherever its bytes were cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.eventstream import EventFormat, Events, format_of, is_text, media_type
from deferpost.model import Progress
from tests.eventparsing import Event, body_of, parse_ndjson, parse_sse

SSE, NDJSON = EventFormat.SSE, EventFormat.NDJSON
FORMATS = pytest.mark.parametrize("format", EventFormat)


def parsed(format: EventFormat, stream: bytes) -> list[Event]:
    """What a client reads; every event as JSON but chunks of Server-Sent Events."""
    if format is NDJSON:
        return parse_ndjson(stream)
    return [
        event if event.kind == "chunk" else event._replace(data=json.loads(event.data))
        for event in parse_sse(stream)
    ]


# Who gets them


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (b"text/event-stream", SSE),
        (b"application/x-ndjson", NDJSON),
        (b"TEXT/Event-Stream", SSE),
        (b" text/event-stream ; charset=utf-8", SSE),
        (b"text/event-stream, */*", SSE),
        (b"*/*, text/event-stream", SSE),
        (b"text/event-stream, text/*;q=0.5", SSE),
        (b"text/event-stream;q=0.5, */*;q=0.1", SSE),
        (b"text/event-stream;q=0.5, application/x-ndjson", NDJSON),
        (b"text/event-stream, application/x-ndjson", SSE),
        (b"application/x-ndjson, text/event-stream", NDJSON),
        (b"text/event-stream; q=1.000", SSE),
        (b"text/event-stream;q=0.2, application/json;q=0.1", SSE),
        (b"text/event-stream, application/json;q=0", SSE),
        (b"text/event-stream;q=0.001", SSE),
        (b"", None),
        (b"*/*", None),
        (b"text/*", None),
        (b"application/json", None),
        (b"text/html, application/xhtml+xml, */*;q=0.8", None),
        (b"text/event-stream;q=0", None),
        (b"text/event-stream;q=0.0, */*;q=0", None),
        (b"application/json, text/event-stream", None),
        (b"text/event-stream;q=0.9, application/json", None),
        (b"text/event-stream;q=0.5, */*", None),
        (b"text/event-stream;q=2", None),
        (b"text/event-stream;q=high", None),
        (b"text/event-stream;q=", None),
        (b"text/event-streams", None),
        (b"x-ndjson", None),
        (b",;,text/event-stream;;q", None),
    ],
)
def test_who_gets_events(accept: bytes, format: EventFormat | None) -> None:
    """Events are for clients that name their format and want nothing else as much."""
    assert format_of(accept) is format


@given(st.binary(max_size=40))
def test_any_accept(accept: bytes) -> None:
    """Whatever a client sends as what it accepts is no error."""
    assert format_of(accept + b",text/event-stream;q=0") in (None, *EventFormat)
    format_of(b"text/event-stream" + accept)


def test_very_many_ranges() -> None:
    """What a client accepts is looked at up to a bound."""
    assert format_of(b"text/event-stream," + b"a/*;q=0.1," * 10_000) is SSE
    assert format_of(b"a/*;q=0.1," * 10_000 + b"text/event-stream") is None


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        (b"text/plain", True),
        (b"text/plain; charset=utf-8", True),
        (b'TEXT/PLAIN; Charset="UTF-8"', True),
        (b"text/html; x=y; charset=us-ascii", True),
        (b"application/json", True),
        (b"application/problem+json", True),
        (b"application/x-ndjson", True),
        (b"text/plain; charset=latin-1", False),
        (b"application/octet-stream", False),
        (b"image/png", False),
        (b"", False),
    ],
)
def test_what_is_text(content_type: bytes, text: bool) -> None:
    """Text and JSON in UTF-8 are sent as text, and nothing else is."""
    assert is_text(*media_type([(b"Content-Type", content_type)])) is text
    assert media_type([(b"X", b"y")]) == (b"", b"")


# What they look like


@FORMATS
def test_progress(format: EventFormat) -> None:
    """Progress is told as numbers and words."""
    events = Events(format)
    stream = events.progress(Progress(1.0)) + events.progress(Progress(2.5, 10.0, "a\nb ü"))
    assert parsed(format, stream) == [
        Event("progress", "1", {"done": 1, "total": None, "message": ""}),
        Event("progress", "2", {"done": 2.5, "total": 10, "message": "a\nb ü"}),
    ]


@FORMATS
def test_result(format: EventFormat) -> None:
    """The result has the status, the header fields and the body of the reply."""
    events = Events(format)
    headers = ((b"Content-Type", b"application/json"), (b"Link", b"\xe9"), (b"Link", b"b"))
    (event,) = parsed(format, events.result(201, headers, b'{"a": "\xc3\xa9"}\n'))
    assert event == Event(
        "result",
        "1",
        {
            "status": 201,
            "headers": [["Content-Type", "application/json"], ["Link", "é"], ["Link", "b"]],
            "body": '{"a": "é"}\n',
        },
    )


@FORMATS
@pytest.mark.parametrize(
    ("content_type", "body", "members"),
    [
        (b"image/png", b"\0\xff", {"body": "AP8=", "encoding": "base64"}),
        (b"text/plain", b"\xff", {"body": "/w==", "encoding": "base64"}),
        (b"image/png", b"", {"body": ""}),
        (b"image/png", None, {}),
    ],
)
def test_body_of_a_result(
    format: EventFormat, content_type: bytes, body: bytes | None, members: dict[str, str]
) -> None:
    """A body that is no text is sent as Base64, and one that was sent before is not sent again."""
    stream = Events(format).result(200, [(b"Content-Type", content_type)], body)
    (event,) = parsed(format, stream)
    del event.data["status"], event.data["headers"]
    assert event.data == members


@FORMATS
def test_error(format: EventFormat) -> None:
    """An error has its problem document."""
    problem = {"title": "Conflict", "status": 409, "type": "about:blank"}
    (event,) = parsed(format, Events(format).error(json.dumps(problem).encode()))
    assert event.kind == "error"
    assert (event.data if format is SSE else event.data["problem"]) == problem


@FORMATS
def test_heartbeat(format: EventFormat) -> None:
    """A heartbeat is no event, and takes no number."""
    events = Events(format)
    stream = events.heartbeat + events.progress(Progress(1.0)) + events.heartbeat
    assert [event.id for event in parsed(format, stream)] == ["1"]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def stream_of(format: EventFormat, pieces: list[bytes], as_text: bool) -> bytes:
    """The events of a body in pieces."""
    events = Events(format)
    events.begin_chunks(as_text)
    return b"".join(map(events.chunk, pieces)) + events.chunk(b"", final=True)


PLACES = st.lists(st.integers(0, 500), max_size=20)
TEXT = st.text(st.sampled_from("a \r\n:{é☃\U0001f642\0") | st.characters(codec="utf-8"))


@given(st.sampled_from(EventFormat), st.binary(), PLACES)
def test_bytes_however_they_are_cut(format: EventFormat, data: bytes, places: list[int]) -> None:
    """Bytes arrive as they were, one event for each chunk."""
    pieces = cut(data, places)
    events = parsed(format, stream_of(format, pieces, as_text=False))
    assert body_of(events) == data
    assert len(events) == len(pieces)
    assert [event.id for event in events] == [str(n + 1) for n in range(len(events))]


@given(st.sampled_from(EventFormat), TEXT, PLACES)
def test_text_however_it_is_cut(format: EventFormat, text: str, places: list[int]) -> None:
    """Text arrives as it was, also where characters and line ends are cut in two.

    Server-Sent Events have one kind of line end.
    """
    if format is SSE:
        text = text.replace('{"', "")  # which the parser of the tests would take for Base64
    events = parsed(format, stream_of(format, cut(text.encode(), places), as_text=True))
    arrived = "".join(event.data if format is SSE else event.data["data"] for event in events)
    if format is SSE:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    assert arrived == text


@given(st.sampled_from(EventFormat), st.binary(), PLACES)
def test_what_is_no_text(format: EventFormat, data: bytes, places: list[int]) -> None:
    """Bytes that are not the UTF-8 that they should be arrive with marks in their place."""
    events = parsed(format, stream_of(format, cut(data, places), as_text=True))
    arrived = "".join(event.data if format is SSE else event.data["data"] for event in events)
    text = data.decode(errors="replace")
    if format is SSE:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    assert arrived == text
