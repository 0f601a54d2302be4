"""The table of strictness cases itself: that it says what it means, and can be sent as it is."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.wire.cases import CASES, Case

#: Answers that a client may get before its request has ended.
EARLY = {414, 431}

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def rest_of(request: bytes) -> bytes:
    """What follows a request that is well-formed.

    :raises ValueError: the request is not whole.
    """
    head, body = request.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
    values = {
        name.lower(): value.strip(b" \t")
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if b"transfer-encoding" not in values:
        length = int(values.get(b"content-length", b"0"))
        if len(body) < length:
            raise ValueError("the body is not whole")
        return body[length:]
    while True:
        line, body = body.split(b"\r\n", 1)
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        if body[size : size + 2] != b"\r\n":
            raise ValueError("the chunk does not end")
        body = body[size + 2 :]
    while line:  # of trailers
        line, body = body.split(b"\r\n", 1)
    return body


def test_there_are_many_different_cases() -> None:
    """No two cases have the same name or send the same bytes, and every answer has some."""
    assert len(CASES) >= 120
    assert Counter(case.name for case in CASES).most_common(1)[0][1] == 1
    assert Counter(case.request for case in CASES).most_common(1)[0][1] == 1
    statuses = Counter(case.status for case in CASES)
    assert set(statuses) == {200, 400, 413, 414, 417, 431, 501, 505}
    assert min(statuses.values()) >= 3


@each_case
def test_a_case_can_be_understood(case: Case) -> None:
    """It has a name on one line, the place in an RFC, and a reason in one short sentence."""
    assert re.fullmatch("[!-~]+( [!-~]+)*", case.name)
    assert re.fullmatch(r"RFC (3986|6585|9110|9112), [1-9]\d*(\.[1-9]\d*)*", case.rfc)
    assert re.fullmatch(r"[A-Z][^\n]{10,90}[^.\n]\.", case.why)
    assert not re.search(r"[.!?] [A-Z]", case.why)


@each_case
def test_a_case_ends_where_its_answer_is_due(case: Case) -> None:
    """A good request is whole and nothing follows; a bad one ends in an empty line."""
    if case.status in {200, 417}:
        assert rest_of(case.request) == b""
    elif case.status not in EARLY:
        assert case.request.endswith(b"\r\n\r\n")
    assert len(case.request) < 64 * 1024


@pytest.mark.parametrize(
    ("request_", "rest"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\r\nGET / HTTP/1.1\r\nX: y\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nContent-length: \t5\r\n\r\nhello!", b"!"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\nrest",
            b"rest",
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00\r\nX: y\r\n\r\n", b""),
    ],
)
def test_the_end_of_a_request_is_found(request_: bytes, rest: bytes) -> None:
    """The check of the good cases finds what follows a request."""
    assert rest_of(request_) == rest


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_request_without_its_end_is_known(request_: bytes) -> None:
    """The check of the good cases finds one that is not whole."""
    with pytest.raises(ValueError, match=r"not"):
        rest_of(request_)
