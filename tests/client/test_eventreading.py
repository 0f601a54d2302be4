"""Server-Sent Events are read by the standard, wherever their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferpost.client.errors import BadAnswer
from deferpost.client.eventreading import EventReader, ServerEvent
from tests.eventparsing import parse_sse

#: What ends the lines of a stream; a "\r" before a "\n" would be one end with it.
MIXED_ENDS = st.sampled_from([("\n", "\r\n"), ("\r", "\r\n")])
#: Text that ends no line, and whose first character is not one that the format takes away.
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


def read(stream: bytes, *cuts: int) -> list[ServerEvent]:
    """What a reader makes of a stream that comes in pieces."""
    reader = EventReader()
    places = [0, *sorted(cuts), len(stream)]
    pieces = (stream[begin:end] for begin, end in pairwise(places))
    return [event for piece in pieces for event in reader.feed(piece)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[ServerEvent]]:
    """A stream in one of its many spellings, and the events in it."""
    text = draw(st.sampled_from(["", "\ufeff"]))
    events = []
    last_id = ""

    ends = draw(MIXED_ENDS)

    def line(content: str) -> str:
        return content + draw(st.sampled_from(ends))

    for _ in range(draw(st.integers(0, 4))):
        kind, data = draw(TEXT), draw(st.lists(TEXT, min_size=1, max_size=3))
        if draw(st.booleans()):
            text += line(f":{draw(TEXT)}")
        if draw(st.booleans()):
            last_id = draw(TEXT.filter(lambda text: "\0" not in text))
            text += line(f"id: {last_id}")
        if draw(st.booleans()):
            text += line("id: with \0 in it is none")
        text += line(f"event: {kind}")
        for part in data:
            space = " " if part.startswith(" ") else draw(st.sampled_from(["", " "]))
            text += line(f"data:{space}{part}")
            if draw(st.booleans()):
                text += line(draw(st.sampled_from([":", "nonsense: 1", "datax", "retry: x"])))
        text += line("") * draw(st.integers(1, 2))
        events.append(ServerEvent(kind or "message", "\n".join(data), last_id))
    if draw(st.booleans()):
        text += "data: this is not whole"
    return text.encode(), events


@given(streams(), st.data())
def test_any_cut_gives_the_same_events(
    made: tuple[bytes, list[ServerEvent]], data: st.DataObject
) -> None:
    """However the bytes arrive, and whatever ends lines, the events are those that were sent."""
    stream, events = made
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    assert read(stream, *cuts) == events


@settings(max_examples=40)
@given(streams())
def test_byte_by_byte(made: tuple[bytes, list[ServerEvent]]) -> None:
    """One byte at a time is a way of cutting, too."""
    stream, events = made
    assert read(stream, *range(1, len(stream))) == events


@given(st.binary(max_size=200), st.data())
def test_no_bytes_break_it(stream: bytes, data: st.DataObject) -> None:
    """Bytes that are no events raise nothing, and are read alike wherever they are cut."""
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    assert read(stream, *cuts) == read(stream)


def test_as_the_parser_of_the_other_tests() -> None:
    """A stream as the daemon writes it is read as the parser of its own tests reads it."""
    stream = (
        b': hi\n\nid: 1\nevent: state\ndata: {"a":1}\n\nid: 2\nevent: end\ndata: x\ndata: y\n\n'
    )
    theirs = [ServerEvent(event.kind, event.data, event.id) for event in parse_sse(stream)]
    assert read(stream) == theirs
    assert len(theirs) == 2


def test_an_event_without_data_is_none() -> None:
    """A type or an id alone makes no event, but the id is remembered."""
    assert read(b"event: x\n\nid: 7\n\ndata\n\n") == [ServerEvent("message", "", "7")]


def test_retry() -> None:
    """The pause that a stream asks for is known."""
    reader = EventReader()
    assert reader.retry_milliseconds is None
    reader.feed(b"retry: 1500\nretry: 1e3\n\n")
    assert reader.retry_milliseconds == 1500


@pytest.mark.parametrize("piece", [b"data: 1234567\n", b"d" * 14])
def test_an_event_has_a_bound(piece: bytes) -> None:
    """An event that never ends is refused, however short its lines are."""
    reader = EventReader(100)
    for _ in range(7):
        reader.feed(piece)
    with pytest.raises(BadAnswer, match="more than 100 bytes"):
        reader.feed(piece)


def test_heartbeats_are_not_counted() -> None:
    """A stream may be silent but for comments for as long as it likes."""
    reader = EventReader(100)
    for _ in range(100):
        assert reader.feed(b": here\n") == []
    assert reader.feed(b"data: 1\n\n") == [ServerEvent("message", "1", "")]
