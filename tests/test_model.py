"""The values that the parts hand to each other: header fields, replies and answers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.model import Answer, CallHead, Headers, Progress, Reason, Reply

NAMES = st.text("abXY-", min_size=1, max_size=4)
FIELDS = st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=255), max_size=5)))


def headers(*pairs: tuple[str, str]) -> Headers:
    """Header fields, as they come from a client."""
    return Headers((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_headers_in_any_case(name: str) -> None:
    """A header field is found however its name is written."""
    fields = headers(("cOnTeNt-TyPe", "text/plain"))
    assert fields[name] == "text/plain"
    assert name in fields
    assert fields.get(name) == "text/plain"
    assert fields.get_all(name) == ["text/plain"]


def test_headers_that_repeat() -> None:
    """A field that comes more than once is one list, and its values can be had apart."""
    fields = headers(("Accept", "a"), ("Host", "h"), ("ACCEPT", "b, c"))
    assert fields["accept"] == "a, b, c"
    assert fields.get_all("Accept") == ["a", "b, c"]
    assert dict(fields) == {"accept": "a, b, c", "host": "h"}
    assert len(fields) == 2


def test_headers_that_are_absent() -> None:
    """A field that was not sent is absent as from any mapping."""
    fields = headers(("Host", "h"))
    assert "accept" not in fields
    assert not fields.__contains__(5)
    assert fields.get("accept") is None
    assert fields.get_all("accept") == []
    with pytest.raises(KeyError, match="accept"):
        fields["Accept"]


def test_headers_cannot_be_changed_through_their_lists() -> None:
    """Changing the list of values that one asked for changes no header."""
    fields = headers(("Accept", "a"))
    fields.get_all("accept").append("b")
    assert fields.get_all("accept") == ["a"]


def test_headers_as_they_came() -> None:
    """The fields can be had in their order, as bytes."""
    raw = ((b"Host", b"h"), (b"X", b"\xe9"))
    fields = Headers(raw)
    assert fields.raw == raw
    assert fields["x"] == "é"
    assert repr(fields) == "Headers(((b'Host', b'h'), (b'X', b'\\xe9')))"
    assert not Headers()


@given(FIELDS)
def test_headers_lose_nothing(pairs: list[tuple[str, str]]) -> None:
    """Every value that came is among those of its name, in order."""
    fields = headers(*pairs)
    for name, _ in pairs:
        same = [value for other, value in pairs if other.lower() == name.lower()]
        assert fields.get_all(name) == same
        assert fields[name.upper()] == ", ".join(same)
    assert sum(len(fields.get_all(name)) for name in fields) == len(pairs)
    assert list(fields) == list(dict.fromkeys(name.lower() for name, _ in pairs))


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(), 204),
        (Reply(None, 200), 200),
        (Reply(b""), 200),
        (Reply("text"), 200),
        (Reply({}, 201), 201),
        (Reply(status=599), 599),
    ],
)
def test_reply_status(reply: Reply, status: int) -> None:
    """A reply without a body is 204 and one with a body is 200, unless it says otherwise."""
    assert reply.status == status


@pytest.mark.parametrize("status", [0, 100, 199, 600, True, 200.0, "200"])
def test_reply_with_no_status(status: Any) -> None:
    """A status that HTTP does not have for final responses is refused where it is written."""
    with pytest.raises(ValueError, match="from 200 to 599") as caught:
        Reply("x", status=status)
    assert repr(status) in str(caught.value)


@pytest.mark.parametrize(
    ("given_headers", "pairs"),
    [
        ({"X-A": "1", "X-B": 2}, (("X-A", "1"), ("X-B", "2"))),
        ([("Link", "a"), ("Link", "b")], (("Link", "a"), ("Link", "b"))),
    ],
)
def test_reply_headers(
    given_headers: Mapping[str, str] | Sequence[tuple[str, str]],
    pairs: tuple[tuple[str, str], ...],
) -> None:
    """Headers of a reply are a mapping, or pairs where a name occurs more than once."""
    assert Reply(headers=given_headers).headers == pairs


def test_values_in_messages() -> None:
    """Replies and answers show their status and the type of their body, not the body itself."""
    assert repr(Reply("secret", 201)) == "<Reply 201 str>"
    assert repr(Answer(200, (), b"secret", 6)) == "<Answer 200 bytes 6>"


class Source:
    """A stream as the reactor's side has it."""

    def __init__(self) -> None:
        self.abandoned: list[Reason] = []

    def abandon(self, reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        self.abandoned.append(reason)


def test_close_an_answer() -> None:
    """Letting go of an answer closes its file or abandons its stream; bytes need nothing."""
    file, source = io.BytesIO(b"x"), Source()
    for body in (b"x", file, source):
        Answer(200, (), body, None).close()
    assert file.closed
    assert source.abandoned == [Reason.CLIENT_DISCONNECTED]


@given(
    st.builds(
        CallHead,
        id=st.text(),
        route=st.text(),
        method=st.just("POST"),
        path=st.text(),
        query=st.binary(),
        headers=st.lists(st.tuples(st.binary(), st.binary())).map(tuple),
        client=st.none() | st.tuples(st.text(), st.integers(0, 65535)),
        timeout=st.none() | st.floats(0, allow_infinity=False),
    )
)
def test_calls_cross_unchanged(head: CallHead) -> None:
    """What a worker process is told of a call is what the request said."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(head), type=CallHead) == head


def test_progress_defaults() -> None:
    """Progress needs no more than one number."""
    assert Progress(3) == Progress(3, None, "")
