"""What the properties, the table of cases and the fuzzer have found, each by a test of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deferpost.wire.limits import Limits
from tests.wire.answers import Response, responses
from tests.wire.invariants import LIMITS, check
from tests.wire.memory import Connection, site_of
from tests.wire.recorders import EarlyRecorder, HastyRecorder, LateRecorder, Recorder

SECOND = b"GET /second HTTP/1.1\r\nHost: h\r\n\r\n"


def answers_to(*pieces: bytes, kind: type[Recorder] = Recorder) -> list[Response]:
    """What comes of some pieces."""
    connection = Connection(site_of(kind()))
    connection.send(*pieces)
    answers = responses(connection.received)
    connection.leave()
    return answers


def test_a_slow_body_that_was_answered_early_is_not_answered_again() -> None:
    """The client of a finished response gets no 408 behind it; its connection just ends."""
    connection = Connection(site_of(HastyRecorder()))
    connection.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
    for _ in range(20):
        connection.clock.advance(5)
        connection.settle()
    assert [answer.status for answer in responses(connection.received)] == [200]
    assert connection.transport.over


def test_a_body_that_ends_among_what_was_kept_ends_the_connection() -> None:
    """A client that pipelines half a request and closes its side is not waited for."""
    recorder = LateRecorder()
    connection = Connection(site_of(recorder))
    connection.send(SECOND + b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
    connection.half_close()
    recorder.answer()
    connection.settle()
    assert [answer.status for answer in responses(connection.received)] == [200]
    assert connection.transport.ended
    connection.leave()


def test_only_one_empty_line_passes_however_they_come() -> None:
    """Empty lines that come one by one are counted as those that come together."""
    (answer,) = answers_to(b"\r\n", b"\r\n", SECOND)
    assert answer.status == 400


def test_each_request_may_have_an_empty_line_before_it() -> None:
    """The count begins anew with each request."""
    assert len(answers_to(*[b"\r\n", SECOND] * 3)) == 3
    assert len(answers_to((b"\r\n" + SECOND) * 3)) == 3


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("field", [b"X : a", b"Host: a b", b"Transfer-Encoding: x"])
def test_a_refused_head_request_gets_no_body(field: bytes, *, whole: bool) -> None:
    """HEAD has no body in its answer, be it a refusal (RFC 9110, section 9.3.2)."""
    request = b"HEAD / HTTP/1.1\r\n" + field + b"\r\n\r\n"
    connection = Connection(site_of(Recorder()))
    connection.send(*([request] if whole else [request[:9], request[9:]]))
    assert connection.received.endswith(b"\r\n\r\n")
    assert not responses(connection.received, [b"HEAD"])[0].body
    connection.leave()


def test_a_refusal_says_the_version_of_its_request() -> None:
    """One of HTTP/1.0 is refused in HTTP/1.0."""
    (answer,) = answers_to(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (answer.version, answer.status) == (b"HTTP/1.0", 400)


def test_a_body_in_pieces_is_read_from_its_beginning() -> None:
    """A resource that was found by the head gets a body that came slowly as any other."""
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    (answer,) = answers_to(request[:-3], request[-3:], kind=EarlyRecorder)
    assert answer.body == b"POST /\nhello"


@pytest.mark.parametrize(
    ("method", "status"),
    [(b"GETS", 501), (b"OPTIONS2", 501), (b"PRI", 501), (b"SETUP", 501), (b"M-SEARCH", 200)],
)
def test_methods_that_are_not_known_are_not_implemented(method: bytes, status: int) -> None:
    """Any well-formed method that the parser does not know is answered 501."""
    (answer,) = answers_to(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.status == status


@pytest.mark.parametrize(("trailers", "status"), [(6, 200), (7, 431)])
def test_trailers_are_as_many_as_fields(trailers: int, status: int) -> None:
    """The bound on the number of fields holds for trailers, too."""
    connection = Connection(site_of(Recorder(), Limits(max_headers=6)))
    connection.send(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"X: y\r\n" * trailers
        + b"\r\n"
    )
    assert [answer.status for answer in responses(connection.received)] == [status]
    connection.leave()


_SMALL = LIMITS[1]
_POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"

#: Requests with something of as many bytes as are given, and their status when it is too much.
_SIZED: dict[str, tuple[Callable[[int], bytes], int, int]] = {
    "request line": (
        lambda size: b"GET /".ljust(size - 9, b"a") + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        _SMALL.max_target,
        414,
    ),
    "head": (
        lambda size: (_POST + b"X: ").ljust(size - 4, b"a") + b"\r\n\r\n",
        _SMALL.max_head,
        431,
    ),
    "fields": (
        lambda size: _POST + b"X: y\r\n" * (size - 1) + b"\r\n",
        _SMALL.max_headers,
        431,
    ),
    "chunk line": (
        lambda size: _CHUNKED + b"5;".ljust(size - 2, b"a") + b"\r\nhello\r\n0\r\n\r\n",
        _SMALL.max_chunk_line,
        400,
    ),
    "trailers": (
        lambda size: _CHUNKED + b"0\r\nX: ".ljust(size - 1, b"a") + b"\r\n\r\n",
        _SMALL.max_head,
        431,
    ),
    "body": (
        lambda size: _POST + b"Content-Length: %d\r\n\r\n" % size + b"a" * size,
        _SMALL.max_body or 0,
        413,
    ),
    "chunk": (
        lambda size: _CHUNKED + b"%x\r\n" % size + b"a" * size + b"\r\n0\r\n\r\n",
        _SMALL.max_body or 0,
        413,
    ),
}


@pytest.mark.parametrize("what", _SIZED)
def test_a_bound_is_the_same_wherever_the_bytes_are_cut(what: str) -> None:
    """What is as large as it may be is taken, and what is larger is not (the fuzzer found one)."""
    make, most, status = _SIZED[what]
    for size, expected in ((most, 200), (most + 1, status)):
        request = make(size)
        for place in range(len(request)):
            connection = Connection(site_of(Recorder(), _SMALL))
            connection.send(request[:place], request[place:])
            (answer,) = responses(connection.received)
            assert answer.status == expected, f"{size} bytes, cut at {place}"
            connection.leave()


#: Kind of resource, bounds, cuts and bytes, as the fuzzer found them; those of the first two were
#: mistakes of the checks.
FOUND: list[tuple[int, int, tuple[int, ...], bytes]] = [
    (
        3,
        0,
        (14, 32, 47, 72),
        b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 33\rConnection: \n\r\n" + SECOND,
    ),
    (
        4,
        0,
        (18, 41, 60, 93),
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\nExpect: 100-continue\r\n\r\n"
        b"GET /hidden HTTP/0.1\r\nHo\r\n\r\nabc",
    ),
    (4, 1, (61,), b"POST".ljust(41, b"U") + b" /second HTTP/1.0\r\n\rX: y\nabc"),
]


@pytest.mark.parametrize(("kind", "limits", "cuts", "data"), FOUND)
def test_what_the_fuzzer_found(kind: int, limits: int, cuts: tuple[int, ...], data: bytes) -> None:
    """It does not come back."""
    check(data, cuts, kind=kind, limits=limits)
