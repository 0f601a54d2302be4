"""The bytes of a response's head."""

from __future__ import annotations

import pytest
from twisted.web.server import version

from deferpost.wire.refusals import problem_document
from deferpost.wire.responses import Stamp, head_bytes, status_line


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, b"OK"),
        (404, b"Not Found"),
        (431, b"Request Header Fields Too Large"),
        (299, b"Unknown Status"),
    ],
)
def test_status_lines(status: int, phrase: bytes) -> None:
    """The phrase is that of the registry, also of statuses that Twisted does not know."""
    line = b"HTTP/1.0 %d %b\r\n" % (status, phrase)
    assert status_line(b"HTTP/1.0", status) == line
    assert status_line(b"HTTP/1.0", status) == line


def test_the_date_changes_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and Date are made once a second."""
    now = 0.9
    monkeypatch.setattr("deferpost.wire.responses.time.time", lambda: now)
    stamp = Stamp()
    first = stamp.bytes()
    assert first == b"Server: %b\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" % version
    assert stamp.bytes() is first
    now = 1.0
    assert stamp.bytes().endswith(b"00:00:01 GMT\r\n")


def test_a_head() -> None:
    """Each value has a line of its own, and the end is empty."""
    assert head_bytes(b"L\r\n", [(b"A", [b"1", b"2"]), (b"B", [b""])]) == (
        b"L\r\nA: 1\r\nA: 2\r\nB: \r\n\r\n"
    )


def test_a_problem() -> None:
    """It has the fields of RFC 9457, and the id."""
    assert problem_document(431, "Too many.", "id") == (
        b'{"type":"about:blank","title":"Request Header Fields Too Large","status":431,'
        b'"detail":"Too many.","id":"id"}'
    )
