"""What a handler is given: the call with its arguments, header fields and body."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deferpost.arriving import ArrivingBody
from deferpost.errors import BadRequest, Canceled, HTTPError
from deferpost.handlers.call import Call
from deferpost.pools.threadbody import ThreadBody
from tests.handlers import FakeControl, call_head, make_call


class Order(msgspec.Struct):
    """What a client of these tests orders."""

    name: str
    count: int = 1


@dataclass
class Point:
    """A type of the standard library."""

    x: int
    y: int


class Tree(msgspec.Struct):
    """A type that contains itself."""

    child: Tree | None = None


def refused(body: bytes, type: Any = Any) -> BadRequest:
    """The error that a body gets when it is read as JSON."""
    with pytest.raises(BadRequest) as caught:
        make_call(body).json(type)
    assert caught.value.status == 400
    assert caught.value.__suppress_context__, "the parser's own error is not shown to anybody"
    return caught.value


def test_call_is_the_request() -> None:
    """A handler sees the request: its id, route, method, path and peer."""
    call = make_call()
    assert (call.id, call.route, call.method, call.path) == ("id-1", "/rst", "POST", "/api/rst")
    assert call.client == ("192.0.2.1", 4711)
    assert repr(call) == "<Call id-1 POST /api/rst>"


def test_call_over_a_unix_socket() -> None:
    """A client on a Unix socket has no address."""
    assert make_call(client=None).client is None


@pytest.mark.parametrize(
    ("query", "args"),
    [
        (b"", {}),
        (b"a=1", {"a": ["1"]}),
        (b"a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        (b"a=&b", {"a": [""], "b": [""]}),
        (b"q=%C3%A9+%26", {"q": ["é &"]}),
        (b"q=%FF", {"q": ["\N{REPLACEMENT CHARACTER}"]}),
        (b"a;b=1", {"a;b": ["1"]}),
    ],
)
def test_args(query: bytes, args: dict[str, list[str]]) -> None:
    """The arguments of the query are decoded, each with all its values, the empty ones too."""
    call = make_call(query=query)
    assert call.args == args
    assert call.args is call.args


def test_headers() -> None:
    """The header fields of the request are found in any case."""
    call = make_call(headers=((b"X-Tag", b"a"), (b"x-tag", b"b")))
    assert call.headers["X-TAG"] == "a, b"
    assert call.headers is call.headers


def test_no_deadline() -> None:
    """A route without a timeout gives its handlers no deadline."""
    assert make_call(timeout=None).deadline is None


def test_deadline() -> None:
    """The deadline is the timeout from now, on the monotonic clock."""
    before = time.monotonic()
    deadline = make_call(timeout=30.0).deadline
    assert deadline is not None
    assert before + 30.0 <= deadline <= time.monotonic() + 30.0


def test_check_while_wanted() -> None:
    """As long as somebody wants the result, a check does nothing."""
    call = make_call()
    assert not call.canceled
    call.check()


def test_check_when_canceled() -> None:
    """From the moment of the cancel on, a check ends the handler."""
    control = FakeControl()
    call = make_call(control=control)
    control.canceled = True
    assert call.canceled
    with pytest.raises(Canceled):
        call.check()


def test_progress() -> None:
    """What a handler says of its progress reaches its job."""
    control = FakeControl()
    call = make_call(control=control)
    call.progress(1)
    call.progress(2.5, 10, "rendering")
    assert control.reports == [(1, None, ""), (2.5, 10, "rendering")]


@pytest.mark.parametrize(
    ("body", "type", "value"),
    [
        (b' {"a": [1, 2.5, null, true]} ', Any, {"a": [1, 2.5, None, True]}),
        (b'"\xc3\xa9"', Any, "é"),
        (b'{"name": "tea", "count": 2}', Order, Order("tea", 2)),
        (b'{"name": "tea", "unknown": 1}', Order, Order("tea")),
        (b'{"x": 1, "y": 2}', Point, Point(1, 2)),
        (b"[1, 2]", list[int], [1, 2]),
    ],
)
def test_json(body: bytes, type: Any, value: Any) -> None:
    """A body is read as JSON, into a type if one is given."""
    assert make_call(body).json(type) == value


def test_json_twice() -> None:
    """A body can be read again, also after the handler has read some of it."""
    call = make_call(b'{"name": "tea"}')
    call.body.read(3)
    assert call.json() == {"name": "tea"}
    assert call.json(Order) == Order("tea")


@pytest.mark.parametrize(
    ("body", "offset", "line", "column", "reason"),
    [
        (b"x", 0, 1, 1, "invalid character"),
        (b"\xef\xbb\xbf{}", 0, 1, 1, "invalid character"),  # a byte order mark
        (b"\xff\xfe[\x00]\x00", 0, 1, 1, "invalid character"),  # UTF-16
        (b"[\x00", 1, 1, 2, "invalid character"),
        (b"{'a': 1}", 1, 1, 2, "keys must be strings"),
        (b"{\n  a: 1}", 4, 2, 3, "keys must be strings"),
        (b'{"a" 1}', 5, 1, 6, "expected ':'"),
        (b'{"a": 1\n"b": 2}', 8, 2, 1, "expected ','"),
        (b"[1,\n 2\n 3]", 8, 3, 2, "expected ','"),
        (b"[1,]", 3, 1, 4, "trailing comma"),
        (b'{"a":1,}', 7, 1, 8, "trailing comma"),
        (b"01", 1, 1, 2, "invalid number"),
        (b"[NaN]", 1, 1, 2, "invalid character"),
        (b'["a\nb"]', 3, 1, 4, "invalid character"),
        # Columns are bytes, as the offset is.
        ('["é", x]'.encode(), 7, 1, 8, "invalid character"),
        # What is not UTF-8 is found in the whole body, not only within its string.
        (b"\xff", 0, 1, 1, "invalid character"),
        (b'["\xff"]', 2, 1, 3, "invalid UTF-8: invalid start byte"),
        (b'{"a": 1,\n "b": "x\xc3"}', 17, 2, 9, "invalid UTF-8: "),
        ('["éé",\n"'.encode() + b'x\xff"]', 11, 2, 3, "invalid UTF-8: invalid start byte"),
        (b'{"\xff": 1}', 2, 1, 3, "invalid UTF-8: invalid start byte"),
        (b'["\xed\xa0\x80"]', 2, 1, 3, "invalid UTF-8: "),  # a surrogate
        # The parser gives no place for these.
        (b'{"a":', 5, 1, 6, "truncated"),
        (b"[1,\n2,", 6, 2, 3, "truncated"),
        (b"nul", 0, 1, 1, "truncated"),
        (b'[\n"abc', 2, 2, 1, "truncated"),
        ('[1,\n "éé", "x'.encode(), 13, 2, 10, "truncated"),
        (b'"\\', 0, 1, 1, "truncated"),
        (b'"\xc3', 1, 1, 2, "truncated"),
        (b'[1,\n"abc\xe2\x82', 8, 2, 5, "truncated"),
        (b'"\\ud800"', 8, 1, 9, "truncated"),
    ],
)
def test_json_error_has_a_place(
    body: bytes, offset: int, line: int, column: int, reason: str
) -> None:
    """A body that is not JSON is refused with the place, for people and for programs."""
    error = refused(body)
    assert error.extensions == {"offset": offset, "line": line, "column": column}
    assert error.detail.startswith("the body is not JSON: ")
    assert reason in error.detail
    assert error.detail.endswith(f" at line {line}, column {column} (byte {offset})")


@pytest.mark.parametrize(
    ("body", "offset", "reason"),
    [(b"{}\n\n{}", 4, "trailing characters"), (b'["\\x"]', 3, "invalid escape")],
)
def test_json_error_has_a_place_nearby(body: bytes, offset: int, reason: str) -> None:
    """Where the parser has read one byte further before it gives up, the place is one too far."""
    error = refused(body)
    assert reason in error.detail
    assert error.extensions["offset"] in (offset, offset + 1)


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t \n"])
def test_json_of_nothing(body: bytes) -> None:
    """A client that sent nothing is told that JSON was expected."""
    error = refused(body)
    assert error.detail == "the body is empty; JSON was expected"
    assert error.extensions == {"offset": 0, "line": 1, "column": 1}


def test_json_nested_too_deeply() -> None:
    """A body that is nested deeper than can be read is the client's error, at any depth."""
    for depth in (100_000, *range(600, 1100)):
        assert refused(b"[" * depth).status == 400
    assert "nested too deeply" in refused(b"[" * 100_000).detail
    assert "nested too deeply" in refused(b'{"child":' * 100_000, Tree).detail
    assert "nested too deeply" in refused(b"[" * 100_000 + b"]" * 100_000).detail


@pytest.mark.parametrize(
    ("body", "type", "words"),
    [
        (b"{}", Order, "missing required field `name`"),
        (b'{"name": 3}', Order, "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "tea", "count": "two"}', Order, "at `$.count`"),
        (b'[1, "2"]', list[int], "at `$[1]`"),
        (b"1e999", Any, "out of range"),
        (b"null", Point, "got `null`"),
    ],
)
def test_json_of_another_type(body: bytes, type: Any, words: str) -> None:
    """JSON that is not of the type is refused, and the error says which member it is."""
    error = refused(body, type)
    assert error.detail.startswith("the JSON body does not fit: ")
    assert words in error.detail


def test_json_into_no_type() -> None:
    """A type that JSON cannot be read into is the handler's error, not the client's."""
    ambiguous: Any = list[int] | set[int]
    with pytest.raises(TypeError):
        make_call(b"[]").json(ambiguous)


@given(st.binary(max_size=30) | st.text('[]{}":,\\u1e-+ \n\xe9tfn', max_size=30).map(str.encode))
@example(b'["' + b"\xf0\x9f\x98" + b'"]')
def test_json_never_fails_otherwise(body: bytes) -> None:
    """Whatever a client sends, it is either JSON or refused with a place inside the body."""
    try:
        value = make_call(body).json()
    except BadRequest as error:
        if "does not fit" in error.detail:
            return
        offset, line, column = (error.extensions[name] for name in ("offset", "line", "column"))
        assert 0 <= offset <= len(body)
        before = body[:offset]
        if body.strip():
            assert line == before.count(b"\n") + 1
            assert column == len(before.rpartition(b"\n")[2]) + 1
    else:
        assert value == json.loads(body)


def arriving(data: bytes) -> io.BufferedReader:
    """A body that arrives, and has arrived: read once, from front to back."""
    body = ThreadBody(ArrivingBody(), lambda function: None)
    body.chunk(data)
    body.end()
    return body.reader()


def test_json_of_a_body_that_arrives() -> None:
    """JSON is read from a body that cannot be read twice, as often as the handler wants."""
    call = Call(call_head(), arriving(b'{"name": "tea"}'), FakeControl())
    assert call.json() == {"name": "tea"}
    assert call.json(Order) == Order("tea")


def test_form_of_a_body_that_arrives() -> None:
    """So is a form."""
    headers = ((b"Content-Type", b"application/x-www-form-urlencoded"),)
    call = Call(call_head(headers=headers), arriving(b"a=1&b=2"), FakeControl())
    assert dict(call.form()) == dict(call.form()) == {"a": "1", "b": "2"}


def test_form_is_read_once() -> None:
    """A form is the same however often a handler asks for it."""
    call = make_call(
        b"title=Tea&tag=a&tag=b",
        headers=((b"Content-Type", b"application/x-www-form-urlencoded"),),
    )
    assert call.form()["title"] == "Tea"
    assert call.form() is call.form()


def test_no_form() -> None:
    """A body that is no form is refused as such."""
    with pytest.raises(HTTPError) as caught:
        make_call(b"{}", headers=((b"Content-Type", b"application/json"),)).form()
    assert caught.value.status == 415


def test_release_closes_the_form() -> None:
    """When the run has ended, uploaded files are gone."""
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="doc"; filename="a.txt"\r\n\r\n'
        b"text\r\n--cut--\r\n"
    )
    call = make_call(body, headers=((b"Content-Type", b"multipart/form-data; boundary=cut"),))
    file = call.form().file("doc").file
    assert file.read() == b"text"
    call.release()
    assert file.closed


@pytest.mark.parametrize("act", [Call.release, Call.__repr__], ids=["release", "repr"])
def test_a_form_is_not_read_for_nothing(act: Callable[[Call], object]) -> None:
    """A body that the handler does not read as a form is left alone."""
    body = io.BytesIO(b"not a form")
    call = Call(call_head(), body, FakeControl())
    act(call)
    assert body.tell() == 0
    assert not body.closed
