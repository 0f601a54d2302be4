"""The daemon's site: its access log, its bounds on bodies, and how its connections are closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from deferpost.bodies import SpooledBody
from deferpost.model import OnDisconnect
from deferpost.web.site import CLIENT_LEFT, DaemonSite, access_line
from tests.web import PEER, Client, Served, answer_of, route, serving


class Failing(Resource):
    """A resource of somebody else, which fails."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        raise ValueError("/secret/path")


class Asking(Resource):
    """A resource of somebody else, which shows what Twisted made of a request."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        return repr((request.args, request.content.read())).encode()


class Daemon:
    """The daemon's site with an app."""

    def __init__(self, served: Served, *, access_log: bool = True, root: Any = None) -> None:
        self.served = served
        self.site = DaemonSite(
            served.root if root is None else root,
            body_memory=4,
            largest_body=100,
            directory=None,
            access_log=access_log,
            now=served.clock.seconds,
        )
        self.site.reactor = served.clock  # so that its timeouts are the test's

    def connect(self) -> Client:
        return Client(self.site)

    @property
    def lines(self) -> list[str]:
        """The access log."""
        return [line for line in self.served.log_lines if " id=" in line]


@contextmanager
def daemon(**options: Any) -> Iterator[Daemon]:
    """The daemon's site, with a route for each word of what becomes of a job."""
    routes = [route(f"/{word}", on_disconnect=word) for word in OnDisconnect]
    with serving(*routes) as served:
        yield Daemon(served, **options)


# The access log


def test_line_of_a_response() -> None:
    """Each response is one line: whose, what, how it went, how large, which id, and how long."""
    with daemon() as running:
        client = running.connect()
        client.post("/cancel?a=1", b"body", "User-Agent: test/1", "X-Request-ID: id-7")
        running.served.clock.advance(0.25)
        running.served.pool.start()
        running.served.clock.advance(1.5)
        running.served.pool.give(answer_of(b"done", status=201))
        assert running.lines == [
            '192.0.2.1 "POST /cancel?a=1 HTTP/1.1" 201 4 "test/1" id=id-7 '
            "queue=0.250000 run=1.500000"
        ]


def test_line_of_a_stream() -> None:
    """A stream is logged when it has ended, with all its bytes and its time until then."""
    with daemon() as running:
        running.connect().post("/cancel", b"", "X-Request-ID: id-7")
        running.served.pool.start()
        buffer = running.served.pool.stream()
        running.served.clock.advance(2.0)
        buffer.deliver(b"12345")
        buffer.deliver(b"67890")
        assert running.lines == []
        buffer.finish()
        (line,) = running.lines
        assert line.endswith('" 200 10 "-" id=id-7 queue=0.000000 run=2.000000')


def test_line_without_a_job() -> None:
    """A request that became no job has a line, too, with the id of its response."""
    with daemon() as running:
        running.connect().request("GET", "/nowhere", b"", "X-Request-ID: id-7")
        (line,) = running.lines
        assert line.startswith('192.0.2.1 "GET /nowhere HTTP/1.1" 404 ')
        assert line.endswith(" id=id-7 queue=0.000000 run=0.000000")


def test_line_of_a_foreign_resource() -> None:
    """A response without an id is logged without one."""
    with daemon(root=Asking()) as running:
        running.connect().request("GET", "/")
        assert running.lines[0].endswith(' "-" id=- queue=0.000000 run=0.000000')


def test_no_access_log() -> None:
    """The access log can be switched off."""
    with daemon(access_log=False) as running:
        running.connect().request("GET", "/nowhere")
        client = running.connect()
        client.post("/cancel")
        client.leave()
        assert running.lines == []


def test_client_that_left_the_queue() -> None:
    """A client that leaves before its job has started is logged with the time that it waited."""
    with daemon() as running:
        client = running.connect()
        client.post("/cancel", b"", "X-Request-ID: id-7")
        running.served.clock.advance(3.0)
        client.leave()
        assert running.lines == [
            '192.0.2.1 "POST /cancel HTTP/1.1" 499 0 "-" id=id-7 queue=3.000000 run=0.000000'
        ]


@pytest.mark.parametrize("path", ["/cancel", "/finish"])
def test_client_that_left_a_running_job(path: str) -> None:
    """A client that leaves while its job runs is logged once, whatever becomes of the job."""
    with daemon() as running:
        client = running.connect()
        client.post(path)
        running.served.pool.start()
        running.served.clock.advance(3.0)
        client.leave()
        running.served.pool.give(answer_of(b"late"))
        (line,) = running.lines
        assert f'"POST {path} HTTP/1.1" {CLIENT_LEFT} 0 ' in line
        assert line.endswith("queue=0.000000 run=3.000000")


def test_client_that_left_a_stream() -> None:
    """A client that leaves in the middle is logged with what was sent to it."""
    with daemon() as running:
        client = running.connect()
        client.post("/cancel")
        running.served.pool.start()
        running.served.pool.stream().deliver(b"12345")
        client.leave()
        assert ' HTTP/1.1" 499 5 "' in running.lines[0]


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b"", []),
        (b"POST /cancel HTTP/1.1\r\n", ['"-" 499']),
        (
            b"POST /cancel HTTP/1.1\r\nUser-Agent: test/1\r\nContent-Length: 10\r\n\r\nbody",
            ['"-" 499 0 "test/1" id=-'],
        ),
    ],
)
def test_request_that_never_got_complete(sent: bytes, logged: list[str]) -> None:
    """A client that leaves before its request is complete is logged as far as it came."""
    with daemon() as running:
        client = running.connect()
        client.send(sent)
        client.leave()
        assert len(running.lines) == len(logged)
        assert all(words in line for words, line in zip(logged, running.lines, strict=True))


def test_client_that_left_after_its_response() -> None:
    """A client that leaves when it has all is logged once."""
    with daemon() as running:
        client = running.connect()
        client.request("GET", "/nowhere")
        client.leave()
        assert len(running.lines) == 1


def fake_request(**fields: Any) -> Any:
    """A request as far as the access log reads it."""
    headers = Headers()
    if "agent" in fields:
        headers._rawHeaders[b"User-Agent"] = [fields["agent"]]  # as no parser would let it in
    response_headers = Headers()
    if "id" in fields:
        response_headers._rawHeaders[b"X-Request-Id"] = [fields["id"]]
    return SimpleNamespace(
        method=fields.get("method", b"GET"),
        uri=fields.get("uri", b"/"),
        clientproto=fields.get("clientproto", b"HTTP/1.1"),
        client=fields.get("client", PEER),
        sentLength=0,
        requestHeaders=headers,
        responseHeaders=response_headers,
    )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"uri": b'/"a"'}, '"GET /\\x22a\\x22 HTTP/1.1" 200 0 "-"'),
        ({"uri": b"/a\\x22"}, '"GET /a\\x5cx22 HTTP/1.1" 200 0 "-"'),
        ({"agent": b"caf\xc3\xa9"}, '"GET / HTTP/1.1" 200 0 "caf\\xc3\\xa9"'),
        ({"agent": b"\x1b[31mred"}, '"GET / HTTP/1.1" 200 0 "\\x1b[31mred"'),
        ({"agent": b"a\r\n192.0.2.9 fake"}, '"GET / HTTP/1.1" 200 0 "a\\x0d\\x0a192.0.2.9 fake"'),
        ({"agent": b"\x7f\x00\t"}, '"GET / HTTP/1.1" 200 0 "\\x7f\\x00\\x09"'),
        ({"method": b'G"T\n'}, '"G\\x22T\\x0a / HTTP/1.1" 200 0 "-"'),
        ({"agent": b""}, '"GET / HTTP/1.1" 200 0 ""'),
        ({"agent": b"{job} %s"}, '"GET / HTTP/1.1" 200 0 "{job} %s"'),
    ],
)
def test_escapes(fields: dict[str, bytes], line: str) -> None:
    """What a client sends stays between its quotes, on one line, without control characters."""
    expected = f"192.0.2.1 {line} id=- queue=0.000000 run=0.000000"
    assert access_line(fake_request(**fields), 200, 0.0) == expected


@given(st.binary(), st.binary(), st.binary(), st.binary(), st.binary())
def test_one_line_whatever_comes(
    method: bytes, uri: bytes, clientproto: bytes, agent: bytes, id: bytes
) -> None:
    """Whatever a client sends, its line is one line with four quotes, and can be read back."""
    fields = {"method": method, "uri": uri, "clientproto": clientproto, "agent": agent, "id": id}
    line = access_line(fake_request(**fields), 200, 0.0)
    assert line.isascii()
    assert line.isprintable()
    assert [len(line.split('"')), line.count("\n")] == [5, 0]
    shown = line.split('"')[3]
    assert shown.encode().decode("unicode_escape").encode("latin-1") == agent


@pytest.mark.parametrize(
    ("client", "host"),
    [
        (IPv6Address("TCP", "2001:db8::1", 4711), "2001:db8::1"),
        (UNIXAddress("/run/x"), "-"),
        (None, "-"),
    ],
)
def test_whose_request(client: Any, host: str) -> None:
    """The line begins with the client's address, where it has one."""
    assert access_line(fake_request(client=client), 200, 0.0).startswith(f'{host} "GET')


def test_braces_in_the_log() -> None:
    """What looks like a field of the log's format is none."""
    with daemon() as running:
        running.connect().request("GET", "/{job}", b"", "User-Agent: {log_level}")
        assert '"GET /{job} HTTP/1.1"' in running.lines[0]
        assert '"{log_level}"' in running.lines[0]


# Bodies


def test_bodies_are_bounded() -> None:
    """A body is kept in memory while small, then on disk, up to what any route accepts."""
    with daemon() as running:
        body = running.site.getContentFile(None)
        assert isinstance(body, SpooledBody)
        body.write(b"x" * 100)
        assert not body.too_large
        body.write(b"x")
        assert body.too_large


def test_forms_are_left_to_the_workers() -> None:
    """A form is not parsed on the reactor thread: the worker gets it as it came."""
    with daemon(root=Asking()) as running:
        client = running.connect()
        client.post("/", b"a=1", "Content-Type: application/x-www-form-urlencoded")
        assert client.response().body == b"({}, b'a=1')"


def test_failing_resource() -> None:
    """A resource that fails shows no traceback to the client."""
    with daemon(root=Failing()) as running:
        client = running.connect()
        client.request("GET", "/")
        assert client.response().status == 500
        assert b"secret" not in client.received
        assert b"Traceback" not in client.received
        assert len(running.served.flush_failures()) == 1


# The end


def test_close_without_connections() -> None:
    """Where there is no connection, there is nothing to wait for."""
    with daemon() as running:
        assert running.site.close_connections().called


def test_close_idle_connections() -> None:
    """Connections that are kept alive are closed, and waited for."""
    with daemon() as running:
        clients = [running.connect() for _ in range(3)]
        clients[0].request("GET", "/nowhere")
        clients[2].leave()
        closed = running.site.close_connections()
        assert [client.was_disconnected for client in clients] == [True, True, False]
        assert not closed.called
        # What would keep a real transport waiting for the end of its producer:
        assert clients[0].transport.producer is None
        clients[0].leave()
        assert not closed.called
        clients[1].leave()
        assert closed.called


def test_close_in_the_middle_of_a_response() -> None:
    """A response that is still being written is cut when its time is up."""
    with daemon() as running:
        client = running.connect()
        client.post("/cancel")
        running.served.pool.start()
        running.served.pool.stream().deliver(b"12345")
        closed = running.site.close_connections()
        assert client.was_disconnected
        client.leave()
        assert closed.called
        assert len(running.lines) == 1


def test_abort() -> None:
    """Connections that do not end by themselves can be cut."""
    with daemon() as running:
        client = running.connect()
        closed = running.site.close_connections()
        running.site.abort_connections()
        assert client.transport.disconnected
        client.leave()
        assert closed.called


def test_connections_that_come_and_go() -> None:
    """Connections that have ended before are no longer known."""
    with daemon() as running:
        for _ in range(3):
            running.connect().leave()
        running.site.abort_connections()
        assert running.site.close_connections().called


def test_close_what_is_idle() -> None:
    """Idle connections are closed; others say that their response is the last, and close then."""
    with daemon() as running:
        idle, busy, late = [running.connect() for _ in range(3)]
        idle.request("GET", "/nowhere")
        late.request("GET", "/nowhere")
        assert running.site.requests() == []
        busy.post("/cancel")
        assert len(running.site.requests()) == 1
        running.site.announce_end()
        assert not idle.was_disconnected
        late.request("GET", "/nowhere")
        first, last = late.responses()
        assert first.header("Connection") is None
        assert last.header("Connection") == "close"
        assert late.was_disconnected
        late.leave()
        running.site.close_idle()
        assert idle.was_disconnected
        assert not busy.was_disconnected
        running.served.pool.start()
        running.served.pool.give(answer_of(b"done"))
        assert busy.response().header("Connection") == "close"
        assert busy.was_disconnected


def test_another_tree() -> None:
    """A site that serves another tree does so on connections that are there, too."""
    with daemon() as running:
        client = running.connect()
        client.request("GET", "/asking")
        asking = Resource()
        asking.putChild(b"asking", Asking())
        running.site.change(asking)
        running.site.take_habits(4, 100, None, access_log=False)
        client.request("GET", "/asking")
        assert [response.status for response in client.responses()] == [404, 200]
        assert len(running.lines) == 1
