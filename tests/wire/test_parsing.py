"""The parser alone: bytes in, parts out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.wire import parsing
from deferpost.wire.parsing import MessageParser, Parsers
from deferpost.wire.refusals import Refused


def fed(head: bytes, length: int | None, parser: MessageParser | None = None) -> MessageParser:
    """A parser that has read a head."""
    parser = parser or MessageParser(100, 1000)
    parser.head(head)
    fields = parser.fields
    parser.expect(length)
    assert parser.fields is not fields
    return parser


def bodies(parser: MessageParser, *pieces: bytes) -> tuple[int, bytes]:
    """What a parser takes of pieces, and the body that it reads."""
    total, body = 0, b""
    for piece in pieces:
        taken, parts = parser.body(piece)
        total += taken
        body += b"".join(parts)
    return total, body


POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@given(st.lists(st.integers(1, 60), max_size=5))
def test_a_head_in_pieces(cuts: list[int]) -> None:
    """The fields are the same wherever a head is cut, without the space around them."""
    head = POST + b"X:  y \t\r\nContent-Length: 0\r\n\r\n"
    parser = MessageParser(100, 1000)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(head)), len(head)})
    for start, end in pairwise(bounds):
        parser.head(head[start:end])
    assert parser.fields == [(b"Host", b"h"), (b"X", b"y"), (b"Content-Length", b"0")]
    parser.expect(0)
    assert parser.complete


@pytest.mark.parametrize("size", [5, 200_000])
def test_a_body_by_length(size: int) -> None:
    """Exactly so much is taken, be it copied by the parser or not; then the next head comes."""
    head = POST + b"Content-Length: %d\r\n\r\n" % size
    body = b"b" * size
    parser = fed(head, size)
    assert bodies(parser, body[:2], body[2:] + b"GET") == (size, body)
    assert parser.complete
    parser.head(head)
    parser.expect(size)
    parser.whole_body(body)
    assert parser.complete
    assert fed(head, size, parser).complete is False
    assert bodies(parser, body) == (size, body)


def test_chunks() -> None:
    """Chunks are taken apart, the trailers dropped, and what follows is left."""
    parser = fed(CHUNKED, None)
    assert bodies(parser, b"3\r\nabc\r\n", b"2\r", b"\nde\r\n0\r\nT: u\r\n\r\nGET") == (
        26,
        b"abcde",
    )
    assert parser.complete
    assert parser.announced == 5
    assert parser.fields == []
    fed(CHUNKED, None, parser)
    assert bodies(parser, b"0\r\n\r\n") == (5, b"")


@pytest.mark.parametrize("length", [0, 5, None])
def test_nothing_is_upgraded(length: int | None) -> None:
    """``Upgrade`` is let pass: the body is read, and the fields are those of the request."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    head = POST + b"Connection: Upgrade\r\nUpgrade: x\r\n%b\r\n\r\n" % framing
    parser = MessageParser(100, 1000)
    parser.head(head)
    fields = parser.fields
    parser.expect(length)
    assert [name for name, _ in fields].count(b"Host") == 1
    assert len(fields) == 4
    assert parser.fields == []
    if length is None:
        assert bodies(parser, b"5\r\nhello\r\n0\r\n\r\n") == (15, b"hello")
    elif length:
        assert bodies(parser, b"hello") == (5, b"hello")
    assert parser.complete
    fed(CHUNKED, None, parser)


def test_after_one_that_said_close() -> None:
    """What llhttp takes for the end is not: the channel decides."""
    parser = fed(POST + b"Connection: close\r\nContent-Length: 0\r\n\r\n", 0)
    fed(CHUNKED, None, parser)
    assert bodies(parser, b"0\r\n\r\n") == (5, b"")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"a b: c\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
    ],
)
def test_bad_heads(head: bytes, status: int) -> None:
    """llhttp's mistakes have statuses."""
    with pytest.raises(Refused) as refused:
        MessageParser(100, 1000).head(head)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x\r\n", 400), (b"f" * 20 + b"\r\n", 413), (b"1\r\nab\r\n", 400), (b"0" * 200, 400)],
)
def test_bad_chunks(body: bytes, status: int) -> None:
    """A body that breaks the rules is refused where it does."""
    with pytest.raises(Refused) as refused:
        bodies(fed(CHUNKED, None), body)
    assert refused.value.status == status


def test_parsers_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has read a message reads another's; not more are kept than so many."""
    monkeypatch.setattr(parsing, "_MOST_FREE", 1)
    parsers = Parsers(100, 1000, 10)
    one, two = parsers.take(), parsers.take()
    assert one is not two
    parsers.give_back(one)
    parsers.give_back(two)
    assert parsers.take() is one
    assert parsers.take() is not two
