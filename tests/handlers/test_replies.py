"""What a handler may return, and what becomes of it on the wire."""

from __future__ import annotations

import array
import codecs
import collections
import dataclasses
import gzip
import io
import json
import numbers
import os
import tempfile
import types
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.handlers.replies import CHUNK_BYTES, encode, file_pieces
from deferpost.model import Answer, Reply

BINARY = ((b"Content-Type", b"application/octet-stream"),)
TEXT = ((b"Content-Type", b"text/plain; charset=utf-8"),)
JSON = ((b"Content-Type", b"application/json"),)


@dataclasses.dataclass
class Point:
    """As many handlers return it."""

    x: int
    y: int


@attrs.frozen
class Size:
    """As other handlers return it."""

    width: int


class Order(msgspec.Struct):
    """As yet others return it."""

    name: str


class Pair(NamedTuple):
    """A tuple is a JSON array, whatever its fields are called."""

    left: int
    right: int


def content(answer: Answer) -> bytes:
    """What the client gets; a file is closed afterwards, as by whoever sends it."""
    body = answer.body
    if isinstance(body, bytes):
        assert answer.length == len(body)
        return body
    if answer.length is None:
        return b"".join(body)
    with body:
        data: bytes = body.read(answer.length)
        assert len(data) == answer.length
        return data


def test_none() -> None:
    """A handler that returns nothing answers 204."""
    answer = encode(None)
    assert (answer.status, answer.headers, answer.body, answer.length) == (204, (), b"", 0)


@pytest.mark.parametrize(
    ("value", "headers", "body"),
    [
        (b"", BINARY, b""),
        (b"\x00\xff", BINARY, b"\x00\xff"),
        (bytearray(b"ab"), BINARY, b"ab"),
        (memoryview(b"abcd")[::2], BINARY, b"ac"),
        (memoryview(array.array("H", [0])), BINARY, b"\0\0"),
        ("", TEXT, b""),
        ("é", TEXT, b"\xc3\xa9"),
        ({"a": 1}, JSON, b'{"a":1}'),
        ({1: None}, JSON, b'{"1":null}'),
        (collections.OrderedDict(b=1, a=2), JSON, b'{"b":1,"a":2}'),
        (types.MappingProxyType({"a": 1}), JSON, b'{"a":1}'),
        ([types.MappingProxyType({"a": Fraction(1, 2)})], JSON, b'[{"a":0.5}]'),
        ([], JSON, b"[]"),
        ((1, "a"), JSON, b'[1,"a"]'),
        (Pair(1, 2), JSON, b"[1,2]"),
        ({1}, JSON, b"[1]"),
        (frozenset({"a"}), JSON, b'["a"]'),
        (7, JSON, b"7"),
        (True, JSON, b"true"),
        (1.5, JSON, b"1.5"),
        (Fraction(1, 4), JSON, b"0.25"),
        ([Decimal("1.5")], JSON, b'["1.5"]'),
        (Point(1, 2), JSON, b'{"x":1,"y":2}'),
        (Size(3), JSON, b'{"width":3}'),
        (Order("tea"), JSON, b'{"name":"tea"}'),
        (io.BytesIO(b"abc"), BINARY, b"abc"),
    ],
)
def test_values(value: Any, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
    """Bytes, text and what JSON can say are answered as such, with 200 and their length."""
    answer = encode(value)
    assert (answer.status, answer.headers) == (200, headers)
    assert content(answer) == body
    assert type(answer.body) is bytes


@numbers.Integral.register
class Whole:
    """An integer of another library, as NumPy's are."""

    def __int__(self) -> int:
        return 5


@numbers.Real.register
class Half:
    """A number of another library, as NumPy's are."""

    def __float__(self) -> float:
        return 0.5


def test_numbers_of_other_libraries() -> None:
    """Numbers that only claim to be such are JSON numbers."""
    assert content(encode(Whole())) == b"5"
    assert content(encode({"half": Half()})) == b'{"half":0.5}'


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Point,
        Order,
        Size,
        Reply(Reply("x")),
        3j,
        Decimal(1),
        range(3),
        lambda: None,
    ],
)
def test_no_reply(value: Any) -> None:
    """What is none of these is refused by its type, with what there is."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Reply):
        name = "deferpost.model.Reply"
    with pytest.raises(TypeError, match=f"^the handler returned {name}, which is neither bytes"):
        encode(value)


@pytest.mark.parametrize(
    "value", [{"a": object()}, [3j], {"a": {(1, 2): 3}}, Reply({"a": object()})]
)
def test_no_json(value: Any) -> None:
    """A member that JSON cannot express fails in the worker, and never half-way to the client."""
    with pytest.raises(TypeError):
        encode(value)


def test_text_that_is_no_text() -> None:
    """Text that UTF-8 cannot express fails in the worker."""
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800")


# Replies


def test_reply_in_full() -> None:
    """A reply chooses status, headers and type beside the body."""
    answer = encode(Reply("<p>", 201, {"Location": "/a", "X-Name": "é"}, "text/html"))
    assert answer.status == 201
    assert answer.headers == (
        (b"Location", b"/a"),
        (b"X-Name", b"\xe9"),
        (b"Content-Type", b"text/html"),
    )
    assert content(answer) == b"<p>"


@pytest.mark.parametrize(
    ("reply", "types"),
    [
        (Reply("a"), [b"text/plain; charset=utf-8"]),
        (Reply({}), [b"application/json"]),
        (Reply({}, headers={"content-type": "application/hal+json"}), [b"application/hal+json"]),
        (Reply({}, content_type="application/hal+json"), [b"application/hal+json"]),
        (Reply({}, headers={"Content-TYPE": "text/a"}, content_type="text/b"), [b"text/b"]),
        (Reply(None, 200), []),
        (Reply(None, 200, content_type="text/a"), [b"text/a"]),
        (Reply(None), []),
        (Reply(None, content_type="text/a"), []),
    ],
)
def test_content_type(reply: Reply, types: list[bytes]) -> None:
    """There is one content type: the chosen one, or the header's, or the body's own."""
    answer = encode(reply)
    assert [value for name, value in answer.headers if name.lower() == b"content-type"] == types


def test_header_beyond_latin_1() -> None:
    """A header value that ISO-8859-1 cannot express is sent as UTF-8."""
    assert encode(Reply(headers={"X-Name": "茶"})).headers == ((b"X-Name", "茶".encode()),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nSet-Cookie: b=c"),
        ("X-A", "a\nb"),
        ("X-A", "a\rb"),
        ("X-A", "a\0b"),
        ("X-A", "a\x7fb"),
        ("X-A", "\x0b"),
        ("X-A\r\nX-B", "a"),
        ("X-A: b\r\n", "a"),
        ("X A", "a"),
        ("X-Ä", "a"),
        ("X:", "a"),
        ("", "a"),
        ("X-A\n", "a"),
    ],
)
def test_header_injection(name: str, value: str) -> None:
    """A header that would end in the next one, or in the body, is refused."""
    with pytest.raises(ValueError, match="header field"):
        encode(Reply("x", headers=[("X-Good", "1"), (name, value)]))


def test_header_injection_by_content_type() -> None:
    """The content type is a header like any other."""
    with pytest.raises(ValueError, match="control characters"):
        encode(Reply("x", content_type="text/plain\r\nX-A: b"))


@given(st.text(), st.text())
def test_no_header_breaks_a_line(name: str, value: str) -> None:
    """Whatever a handler sets: it is refused, or it is one line of name and value."""
    try:
        answer = encode(Reply(headers=[(name, value)]))
    except ValueError:
        return
    ((raw_name, raw_value),) = answer.headers
    assert not set(raw_name + raw_value) & set(b"\r\n\0")
    assert raw_name.isascii()
    assert not set(raw_name) & set(b": \t")


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "TRANSFER-ENCODING",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
    ],
)
def test_framing_headers(name: str) -> None:
    """How a response is framed is for the server to decide."""
    with pytest.raises(ValueError, match=f"a handler cannot set {name}"):
        encode(Reply("x", headers={name: "1"}))


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("body", [None, b"", "", iter(())])
def test_status_without_content(status: int, body: Any) -> None:
    """A status that has no body has none, and no content type, either."""
    answer = encode(Reply(body, status, {"ETag": '"1"'}))
    assert (answer.status, answer.headers) == (status, ((b"ETag", b'"1"'),))
    assert (answer.body, answer.length) == (b"", 0)


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("body", [b"x", "x", {}, 0])
def test_status_without_content_and_a_body(status: int, body: Any) -> None:
    """A body with a status that has none is refused, rather than dropped."""
    with pytest.raises(ValueError, match=f"a reply with status {status} cannot have a body"):
        encode(Reply(body, status))


def test_status_without_content_closes_the_body(tmp_path: Path) -> None:
    """What is refused for its status is closed: a file, and a generator."""
    path = tmp_path / "a"
    path.write_bytes(b"text")
    with open(path, "rb") as file:
        ended: list[str] = []
        for body in (file, noted(ended)):
            with pytest.raises(ValueError, match="cannot have a body"):
                encode(Reply(body, 204))
        assert file.closed
    assert ended == ["begun", "closed"]


# Files


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", b"text/html"),
        ("a.pdf", b"application/pdf"),
        ("a.csv", b"text/csv"),
        ("a", b"application/octet-stream"),
        ("a.nonsense", b"application/octet-stream"),
        # It is not a CSV file until somebody has decompressed it.
        ("a.csv.gz", b"application/octet-stream"),
    ],
)
def test_path(tmp_path: Path, name: str, content_type: bytes) -> None:
    """A path is answered with the file's content, and a type by its name."""
    (tmp_path / name).write_bytes(b"content")
    answer = encode(tmp_path / name)
    assert answer.headers == ((b"Content-Type", content_type),)
    assert answer.length == 7
    assert content(answer) == b"content"


def test_no_such_path(tmp_path: Path) -> None:
    """A path where there is no file fails in the worker."""
    with pytest.raises(FileNotFoundError):
        encode(tmp_path / "a")


def test_directory(tmp_path: Path) -> None:
    """A directory is no reply."""
    with pytest.raises(IsADirectoryError):
        encode(tmp_path)


def test_bad_header_opens_nothing(tmp_path: Path) -> None:
    """A reply that is refused for its headers leaves no file open behind it."""
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(ValueError, match="control"):
        encode(Reply(tmp_path / "a", content_type="a\nb"))
    with pytest.raises(ValueError, match="control"):
        encode(Reply(tmp_path / "a", headers={"X-A": "a\nb"}))
    # A file that was left to the collector would be a ResourceWarning, and so an error.


def buffered(path: Path) -> BinaryIO:
    return open(path, "rb")


def unbuffered(path: Path) -> BinaryIO:
    return open(path, "rb", buffering=0)


def updated(path: Path) -> BinaryIO:
    return open(path, "r+b")


@pytest.mark.parametrize("opened", [buffered, unbuffered, updated])
@pytest.mark.parametrize("offset", [0, 3, 7, 100])
def test_file_at_its_place(tmp_path: Path, opened: Callable[[Path], BinaryIO], offset: int) -> None:
    """An open file is answered from where the handler has read to, and is closed."""
    path = tmp_path / "a"
    path.write_bytes(b"content")
    file = opened(path)
    if offset < 100:
        file.read(offset)
    else:
        file.seek(offset)
    answer = encode(file)
    assert answer.headers == BINARY
    assert answer.length == max(0, 7 - offset)
    # By its descriptor, too, which is what a worker process sends.
    assert os.lseek(answer.body.fileno(), 0, os.SEEK_CUR) == offset
    assert content(answer) == b"content"[offset:]
    assert file.closed


def test_file_that_is_being_written(tmp_path: Path) -> None:
    """What the handler wrote into the file is part of the answer, flushed or not."""
    with open(tmp_path / "a", "w+b") as file:
        file.write(b"written")
        file.seek(0)
        file.write(b"W")
        file.seek(0)
        assert content(encode(file)) == b"Written"


@pytest.mark.parametrize(
    "make",
    [
        tempfile.TemporaryFile,
        tempfile.NamedTemporaryFile,
        partial(tempfile.SpooledTemporaryFile, max_size=100),
        partial(tempfile.SpooledTemporaryFile, max_size=2),
    ],
)
def test_temporary_files(make: Callable[[], Any]) -> None:
    """Temporary files of every kind can be returned, and their owner may close them."""
    file = make()
    file.write(b"content")
    file.seek(3)
    answer = encode(file)
    if answer.length is not None:
        file.close()
    assert content(answer) == b"tent"
    file.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: io.StringIO("text"),
        open,
        partial(open, mode="r+"),
        partial(codecs.open, encoding="utf-8"),
        lambda path: tempfile.NamedTemporaryFile("w+"),  # noqa: SIM115 (the test closes it)
        lambda path: tempfile.SpooledTemporaryFile(mode="w+"),  # noqa: SIM115 (as above)
    ],
)
def test_text_mode(tmp_path: Path, make: Callable[[str], Any]) -> None:
    """A file in text mode is refused, with what to do."""
    path = tmp_path / "a"
    path.write_text("text")
    with make(str(path)) as file, pytest.raises(TypeError, match="open it in binary mode"):
        encode(file)


def test_file_that_decompresses(tmp_path: Path) -> None:
    """A file object that gives other bytes than the file has is answered with what it gives."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"content" * 1000))
    with gzip.open(path) as file:
        answer = encode(file)
        assert answer.length is None
        assert content(answer) == b"content" * 1000


def test_bytes_in_memory_at_their_place() -> None:
    """A file in memory is answered from its place, too."""
    file = io.BytesIO(b"content")
    file.seek(3)
    answer = encode(file)
    assert (answer.body, answer.length) == (b"tent", 4)


def test_pipe() -> None:
    """What has no length is streamed, and closed at its end."""
    reader, writer = os.pipe()
    with open(writer, "wb") as target:
        target.write(b"through a pipe")
    with open(reader, "rb") as file:
        answer = encode(file)
        assert answer.length is None
        assert content(answer) == b"through a pipe"
        assert file.closed


class Readable:
    """The least that is a file: it can be read and closed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.closed = False

    def read(self, size: int) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def __enter__(self) -> Readable:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


def test_file_of_ones_own() -> None:
    """An object that reads like a file is streamed in bounded pieces."""
    file: Any = Readable(b"x" * (2 * CHUNK_BYTES + 1))
    pieces = list(encode(file).body)
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert file.closed


def test_pieces_of_a_file_that_is_let_go() -> None:
    """A file that is not read to its end is closed all the same."""
    file: Any = Readable(b"x" * (2 * CHUNK_BYTES))
    pieces: Any = file_pieces(file)
    next(pieces)
    pieces.close()
    assert file.closed


# Streams


def noted(notes: list[str], *chunks: Any) -> Iterator[Any]:
    """A generator that notes when it is begun and closed."""
    notes.append("begun")
    try:
        yield from chunks or (b"x",)
    finally:
        notes.append("closed")


@pytest.mark.parametrize(
    ("chunks", "headers", "pieces"),
    [
        ([b"a", b"b"], BINARY, [b"a", b"b"]),
        (["a", "é"], TEXT, [b"a", b"\xc3\xa9"]),
        (["a", b"\xff", bytearray(b"c"), memoryview(b"d")], TEXT, [b"a", b"\xff", b"c", b"d"]),
        ([b"", b"a", "", b"", b"b", b""], BINARY, [b"a", b"b"]),
        (["", b""], TEXT, []),
    ],
)
def test_stream(
    chunks: list[Any], headers: tuple[tuple[bytes, bytes], ...], pieces: list[bytes]
) -> None:
    """A generator is streamed chunk by chunk, typed by its first one; empty ones are left out."""
    answer = encode(chunk for chunk in chunks)
    assert (answer.status, answer.headers, answer.length) == (200, headers, None)
    assert list(answer.body) == pieces


@pytest.mark.parametrize(
    "chunks", [iter([b"a", b"b"]), map(str.encode, "ab"), (b for b in [b"ab"])]
)
def test_any_iterator(chunks: Iterator[bytes]) -> None:
    """Any iterator is a stream, not only a generator's."""
    assert content(encode(chunks)) == b"ab"


def test_empty_stream() -> None:
    """A generator that gives nothing is an empty body."""
    answer = encode(iter(()))
    assert (answer.status, answer.headers, answer.body, answer.length) == (200, BINARY, b"", 0)


def test_stream_in_a_reply() -> None:
    """A stream can have a status and a type of its own."""
    answer = encode(Reply(iter(["a,b\n"]), 201, content_type="text/csv"))
    assert (answer.status, answer.headers) == (201, ((b"Content-Type", b"text/csv"),))
    assert content(answer) == b"a,b\n"


def test_stream_is_made_as_it_is_read() -> None:
    """Only the first chunk is made before somebody reads."""
    made: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    body = encode(chunks()).body
    assert made == [0]
    assert next(body) == b"0"
    assert made == [0]
    assert next(body) == b"1"
    assert made == [0, 1]


def test_error_before_the_first_chunk() -> None:
    """A generator that fails before its first chunk can still be answered with an error."""

    def chunks() -> Iterator[bytes]:
        raise ValueError("no such document")
        yield b""

    with pytest.raises(ValueError, match="no such document"):
        encode(chunks())


@pytest.mark.parametrize("wrong", [None, 3, ["a"], {"a": 1}, object()])
def test_wrong_first_chunk(wrong: Any) -> None:
    """A first chunk that is neither bytes nor text can still be answered with an error."""
    notes: list[str] = []
    with pytest.raises(TypeError, match=f"yielded {type(wrong).__name__}; a chunk is bytes or te"):
        encode(noted(notes, wrong))
    assert notes == ["begun", "closed"]


def test_wrong_chunk_later() -> None:
    """A later chunk that is neither bytes nor text breaks the stream off."""
    body = encode(iter([b"a", 3])).body
    assert next(body) == b"a"
    with pytest.raises(TypeError, match="yielded int; a chunk is bytes or text"):
        next(body)


def test_closing_a_stream() -> None:
    """A stream that is broken off runs the generator's ``finally``, and gives nothing more."""
    notes: list[str] = []
    body = encode(noted(notes, b"a", b"b")).body
    assert notes == ["begun"]
    body.close()
    assert notes == ["begun", "closed"]
    assert list(body) == []


def test_closing_a_plain_iterator() -> None:
    """An iterator that cannot be closed is just let go."""
    body = encode(iter([b"a", b"b"])).body
    next(body)
    body.close()


@given(st.lists(st.binary(max_size=3) | st.text(st.characters(codec="utf-8"), max_size=3)))
def test_stream_loses_nothing(chunks: list[bytes | str]) -> None:
    """All that a generator gives reaches the client, in order."""
    expected = b"".join(chunk if isinstance(chunk, bytes) else chunk.encode() for chunk in chunks)
    assert content(encode(iter(chunks))) == expected


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
        ),
    ).filter(lambda value: isinstance(value, (list, dict)))
)
def test_json_there_and_back(value: Any) -> None:
    """What a handler returns as JSON is what a client reads."""
    assert json.loads(content(encode(value))) == value
