"""What a request has to look like, beyond what the table of strictness sends over a connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deferpost.wire import rules
from deferpost.wire.refusals import Refused
from deferpost.wire.rules import check_host, framing, request_line, transfer_codings


def refused(act: Callable[[], object]) -> int:
    """The status with which something is refused."""
    with pytest.raises(Refused) as caught:
        act()
    return caught.value.status


@pytest.mark.parametrize(
    ("line", "target", "path", "query", "authority"),
    [
        (b"GET /a?b?c HTTP/1.1", b"/a?b?c", b"/a", b"b?c", None),
        (b"GET /%41 HTTP/1.0", b"/%41", b"/%41", b"", None),
        (b"OPTIONS * HTTP/1.1", b"*", b"*", b"", None),
        (b"GET http://h:8 HTTP/1.1", b"/", b"/", b"", b"h:8"),
        (b"GET HTTP://h?q HTTP/1.1", b"/?q", b"/", b"q", b"h"),
        (b"GET https://[::1]/p HTTP/1.1", b"/p", b"/p", b"", b"[::1]"),
        (b"OPTIONS http://h HTTP/1.1", b"*", b"*", b"", b"h"),
    ],
)
def test_request_lines(
    line: bytes, target: bytes, path: bytes, query: bytes, authority: bytes | None
) -> None:
    """A line is taken apart, and remembered."""
    read = request_line(line)
    assert (read.target, read.path, read.query, read.authority) == (target, path, query, authority)
    assert request_line(line) is read


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET / HTTP/2.0", 505),
        (b"CONNECT h:1 HTTP/1.1", 501),
        (b"GET http:/// HTTP/1.1", 400),
        (b"GET http://u@h/ HTTP/1.1", 400),
        (b"GET http://h:99999/ HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET /<> HTTP/1.1", 400),
        (b"GET /%4 HTTP/1.1", 400),
        (b"GET x HTTP/1.1", 400),
    ],
)
def test_bad_request_lines(line: bytes, status: int) -> None:
    """A line that is none is refused each time."""
    for _ in range(2):
        assert refused(lambda: request_line(line)) == status


@pytest.mark.parametrize("host", [b"", b"h", b"h:", b"h:80", b"1.2.3.4", b"[::1]:1", b"[v1.x]"])
def test_hosts(host: bytes) -> None:
    """Hosts of each kind are good, the second time as well."""
    check_host(host)
    check_host(host)


@pytest.mark.parametrize(
    "host", [b"a b", b"h:x", b"h:65536", b"[::z]", b"[1::2::3]", b":80", b"[]", b"a/b", b"%zz"]
)
def test_bad_hosts(host: bytes) -> None:
    """What is no host is refused."""
    assert refused(lambda: check_host(host)) == 400


def test_memories_have_bounds() -> None:
    """However many lines, hosts and spellings come, few are remembered, and no long ones."""
    most = rules._REMEMBERED
    for n in range(most + 10):
        request_line(b"GET /%d HTTP/1.1" % n)
        check_host(b"h%d" % n)
        framing(request_line(b"GET / HTTP/1.0"), [(b"X-%d" % n, b"")])
    request_line(b"GET /%b HTTP/1.1" % (b"a" * 500))
    check_host(b"h" * 500)
    framing(request_line(b"GET / HTTP/1.0"), [(b"X" * 100, b"")])
    for memory in (rules._known_lines, rules._known_hosts, rules._spellings):
        assert len(memory) <= most
        assert max(map(len, memory)) <= 256


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([b"chunked, chunked"], 400),
        ([b"chunked, gzip"], 400),
        ([b"gzip,, chunked"], 400),
        ([b"gzip", b"chunked"], 501),
        ([b"gzip"], 501),
    ],
)
def test_codings(values: list[bytes], status: int) -> None:
    """Chunked alone is understood; others are unknown, or no list that ends in it."""
    transfer_codings([b" Chunked\t"])
    assert refused(lambda: transfer_codings(values)) == status


LINE, OLD = request_line(b"POST / HTTP/1.1"), request_line(b"POST / HTTP/1.0")
HOST = (b"hOsT", b"h")


def test_framing() -> None:
    """The fields decide about length, connection, expectation and id."""
    frame = framing(LINE, [HOST, (b"content-length", b"5"), (b"X-Request-Id", b"i")])
    assert (frame.length, frame.keep_alive, frame.expects_continue, frame.id) == (
        5,
        True,
        False,
        b"i",
    )
    frame = framing(
        LINE,
        [HOST, (b"Transfer-Encoding", b"chunked"), (b"Expect", b"100-Continue")],
    )
    assert (frame.length, frame.expects_continue) == (None, True)
    assert framing(LINE, [HOST, (b"X-Request-ID", b"a"), (b"X-Request-ID", b"b")]).id is None
    assert framing(LINE, [], require_host=False).keep_alive
    assert not framing(LINE, [HOST, (b"Connection", b"x, Close")]).keep_alive
    assert not framing(OLD, [(b"Expect", b"x")]).keep_alive
    assert framing(OLD, [(b"Connection", b"Keep-Alive")]).keep_alive
    assert not framing(OLD, [(b"Expect", b"100-continue")]).expects_continue
    absolute = request_line(b"GET http://h/ HTTP/1.1")
    assert framing(absolute, [(b"Host", b"another")]).length == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 400),
        ([HOST, HOST], 400),
        ([HOST, (b"Expect", b"x")], 417),
        ([HOST, (b"Transfer-Encoding", b"br")], 501),
        ([(b"Host", b"a b")], 400),
        ([HOST, (b"Content-Length", b"1" * 50)], 413),
    ],
)
def test_bad_framing(fields: list[tuple[bytes, bytes]], status: int) -> None:
    """What would leave a doubt is refused."""
    assert refused(lambda: framing(LINE, fields)) == status
    assert refused(lambda: framing(OLD, [(b"Transfer-Encoding", b"chunked")])) == 400
