"""One connection, in memory: heads, bodies, answers, deadlines and ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from deferpost.errors import BodyBroken, BodyTooLarge
from deferpost.interfaces import BodyWanted
from deferpost.wire.limits import Limits
from tests.wire.memory import Connection, site_of
from tests.wire.recorders import Recorder

HOST = b"Host: h\r\n"
GET = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


class Sink:
    """A body as it comes."""

    def __init__(self) -> None:
        self.flow: Any = None
        self.pieces: list[bytes] = []
        self.end: object = None

    def open(self, flow: Any) -> None:
        """It begins."""
        self.flow = flow

    def receive(self, data: bytes) -> None:
        """A piece."""
        self.pieces.append(data)

    def complete(self) -> None:
        """It is whole."""
        self.end = "whole"

    def broken(self, error: Exception) -> None:
        """It will never be."""
        self.end = error


class Early(Resource):
    """Asks what to do with a head, and keeps what was rendered.

    :param want: what it wants, by the request.
    """

    isLeaf = True

    def __init__(self, want: Callable[[Any], BodyWanted | None]) -> None:
        super().__init__()
        self.want = want
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []
        self.ends: list[Failure | None] = []

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """As the test has it."""
        self.requests.append(request)
        request.watch(self.ends.append)
        return self.want(request)

    def render(self, request: Any) -> int:
        """Keep its body."""
        self.bodies.append(request.content.read())
        return NOT_DONE_YET


class Never(Resource):
    """Answers when the test does."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render(self, request: Any) -> int:
        """Keep it."""
        self.requests.append(request)
        return NOT_DONE_YET


def connection(resource: Any, **limits: Any) -> Connection:
    """A connection to a site with one resource."""
    return Connection(site_of(resource, Limits(**limits)))


def pass_time(connection: Connection, seconds: float) -> None:
    """Let time pass."""
    for _ in range(int(seconds * 4)):
        connection.clock.advance(0.25)
        connection.settle()


def status(connection: Connection) -> int:
    """The status of the last response."""
    return int(re.findall(rb"HTTP/1\.\d (\d{3}) ", connection.received)[-1])


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_requests_in_pieces(size: int) -> None:
    """However they are cut, requests are answered in order; empty lines between them pass."""
    recorder = Recorder()
    client = connection(recorder)
    requests = GET + b"\r\n" + POST + b"Content-Length: 3\r\n\r\nabc" + GET
    client.send(*(requests[start : start + size] for start in range(0, len(requests), size)))
    assert [(seen.method, seen.body) for seen in recorder.seen] == [
        (b"GET", b""),
        (b"POST", b"abc"),
        (b"GET", b""),
    ]
    assert client.received.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("pieces", [1, 20])
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /" + b"a" * 60 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"a" * 600, 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 300 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 5 + b"\r\n", 431),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a b: c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n63\r\n", 413),
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_refusals(request_: bytes, expected: int, pieces: int) -> None:
    """What breaks a rule or a bound is answered, in however many pieces it comes; then the end."""
    client = connection(Recorder(), max_target=50, max_head=250, max_headers=4, max_body=50)
    size = -(-len(request_) // pieces)
    client.send(*(request_[start : start + size] for start in range(0, len(request_), size)))
    assert status(client) == expected
    assert client.transport.ended


def test_a_body_that_waits_for_its_word() -> None:
    """100 Continue comes before the body, and not for one that is there or refused."""
    client = connection(Recorder(), max_body=10)
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert status(client) == 200
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
    client.send(POST + b"Expect: 100-continue\r\nContent-Length: 30\r\n\r\n")
    assert client.received.count(b"100 Continue") == 1
    assert status(client) == 413


def answer(request: Any, status: int = 200, body: bytes = b"ok") -> None:
    """Answer as one piece."""
    request.answer(status, [(b"X", b"y")], body)


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_a_body_that_is_kept(length: int, cut: bool) -> None:
    """A resource that decides early gets its body whole, and answers."""
    early = Early(lambda request: BodyWanted(10))
    client = connection(early)
    head = POST + b"Content-Length: %d\r\n\r\n" % length
    client.send(*([head, b"abc"[:length]] if cut else [head + b"abc"[:length]]))
    assert early.bodies == [b"abc"[:length]]
    answer(early.requests[0])
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.received.endswith(b"X: y\r\nContent-Length: 2\r\n\r\nok")
    assert early.ends == [None]
    client.send(POST + b"Content-Length: 0\r\n\r\n")
    answer(early.requests[1], 204, b"")
    assert client.received.endswith(b"X: y\r\n\r\n")
    assert not client.transport.ended


def test_old_clients() -> None:
    """HTTP/1.0 is kept open where it asks for that."""
    early = Early(lambda request: BodyWanted(10))
    client = connection(early)
    old = b"POST / HTTP/1.0\r\nContent-Length: 0\r\n"
    client.send(old + b"Connection: keep-alive\r\n\r\n")
    answer(early.requests[0])
    assert b"Connection: keep-alive\r\n" in client.received
    client.send(old + b"\r\n")
    answer(early.requests[1])
    client.settle()
    assert client.transport.ended


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_an_answer_before_the_body(body: bytes) -> None:
    """What is left of a small body is read, and the connection goes on."""
    early = Early(lambda request: answer(request))
    client = connection(early)
    head = POST + b"Content-Length: 3\r\n\r\n" if body else POST + b"Content-Length: 0\r\n\r\n"
    client.send(head, body, head + body)
    assert client.received.count(b"HTTP/1.1 200 OK") == 2
    large = POST + b"Content-Length: 9999999\r\n\r\n"
    client.send(large)
    assert client.received.count(b"Connection: close") == 1
    client.send(b"x" * 100)
    pass_time(client, 6)
    assert client.transport.over


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(0, []), (3, [b"abc"]), (3, [b"a", b"bc"]), (3, [b"a"]), (3, [])],
    ids=["empty", "whole", "two pieces", "a part", "none of it"],
)
@pytest.mark.parametrize("leaves", [True, False])
def test_an_answer_later(length: int, pieces: list[bytes], leaves: bool) -> None:
    """A request that is answered after its head, in time of its own, is told how it ended.

    Its body is dropped, whether it comes before the answer or not at all.
    """
    early = Early(lambda request: None)
    client = connection(early)
    client.send(POST + b"Content-Length: %d\r\n\r\n" % length + b"".join(pieces[:1]), *pieces[1:])
    [request] = early.requests
    finished: list[str] = []
    request.notifyFinish().addCallbacks(
        lambda _: finished.append("written"), lambda _: finished.append("left")
    )
    assert (early.bodies, finished) == ([], [])
    if leaves:
        client.leave()
        assert finished == ["left"]
        assert [type(end) for end in early.ends] == [Failure]
        return
    answer(request)
    assert (finished, early.ends) == (["written"], [None])
    client.send(b"abc"[len(b"".join(pieces)) : length], GET)
    assert len(early.requests) == 2
    assert client.received.count(b"HTTP/1.1 200 OK") == 1


def test_a_body_without_an_end_before_a_later_answer() -> None:
    """A body that nobody wants is dropped, as much of it as a request may have."""
    early = Early(lambda request: None)
    client = connection(early, max_body=10)
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n", *[b"5\r\nabcde\r\n"] * 4)
    answer(early.requests[0])
    assert client.received.startswith(b"HTTP/1.1 200 OK")


def test_too_much_is_dropped() -> None:
    """A client that sends on and on after its last answer is cut off."""
    client = connection(Early(lambda request: answer(request)), linger_bytes=1000)
    client.send(POST + b"Content-Length: 9999999\r\n\r\n", b"x" * 1001)
    assert client.transport.aborted


def test_a_body_piece_by_piece() -> None:
    """A sink gets the pieces, holds the client back, and is told of the end."""
    sink = Sink()
    early = Early(lambda request: BodyWanted(10, sink))
    client = connection(early)
    client.send(POST + b"Content-Length: 6\r\n\r\n", b"abc")
    sink.flow.pauseProducing()
    client.send(b"def")
    assert sink.pieces == [b"abc"]
    pass_time(client, 30)
    assert not client.transport.over
    sink.flow.resumeProducing()
    sink.flow.stopProducing()
    client.settle()
    assert b"".join(sink.pieces) == b"abcdef"
    assert sink.end == "whole"
    request = early.requests[0]
    assert (request.channel.getPeer().port, request.channel.getHost().port) == (4711, 80)
    request.write(b"a")
    request.channel.writeSequence([b"0\r\n", b"\r\n"])
    assert client.received.endswith(b"1\r\na\r\n0\r\n\r\n")


def test_chunks_beyond_a_limit() -> None:
    """The sink is told which, and its handler answers."""
    sink = Sink()
    early = Early(lambda request: BodyWanted(4, sink))
    client = connection(early)
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    assert isinstance(sink.end, BodyTooLarge)
    answer(early.requests[0], 413)
    assert status(client) == 413


def test_a_client_that_leaves_in_its_body() -> None:
    """The sink and the request are told."""
    for leave in (Connection.leave, Connection.half_close):
        sink = Sink()
        early = Early(lambda request, sink=sink: BodyWanted(10, sink))  # type: ignore[misc]
        client = connection(early)
        client.send(POST + b"Content-Length: 6\r\n\r\n", b"abc")
        leave(client)
        assert isinstance(sink.end, BodyBroken)
        assert isinstance(early.ends[0], Failure)
        assert client.transport.over


def test_a_chunk_that_is_none() -> None:
    """The sink is told what is wrong, and the client too, if nothing was answered yet."""
    for begun in (False, True):
        sink = Sink()
        early = Early(lambda request, sink=sink: BodyWanted(10, sink))  # type: ignore[misc]
        client = connection(early)
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        if begun:
            early.requests[0].write(b"a")
        client.send(b"nonsense\r\n")
        assert isinstance(sink.end, BodyBroken)
        assert client.transport.aborted is begun
        assert begun or status(client) == 400


class Full(BytesIO):
    """A file on a full disk."""

    def write(self, data: Any) -> int:
        """There is no room."""
        raise OSError("no space left")


def test_a_body_that_cannot_be_kept() -> None:
    """It is answered 503, with a time to try again."""
    client = connection(Never())
    client.channel.site.getContentFile = lambda length: Full()
    client.send(POST + b"Content-Length: 3\r\n\r\na")
    assert status(client) == 503
    assert b"Retry-After: 5\r\n" in client.received


def test_a_defect_of_a_resource_that_decides_early() -> None:
    """It is a 500 as on any other, and the connection goes on."""

    class Broken(Early):
        def render(self, request: Any) -> int:
            """Fail."""
            raise LookupError

    client = connection(Broken(lambda request: BodyWanted(10)))
    request = POST + b"Content-Length: 1\r\n\r\na"
    client.send(request, request)
    assert client.received.count(b"HTTP/1.1 500 ") == 2


def test_only_so_much_is_read_ahead() -> None:
    """Behind a pending request so much is kept; then the client is held back, and goes on later."""
    never = Never()
    client = connection(never, max_pipelined=100)
    client.send(GET, *(GET for _ in range(9)))
    assert len(client.channel._kept) <= 100 + len(GET)
    for _ in range(10):
        never.requests[-1].finish()
        client.settle()
    assert client.received.count(b"HTTP/1.1 200 OK") == 10


def test_many_at_once() -> None:
    """Requests that came together are answered over several turns, all of them."""
    client = connection(Recorder())
    client.send(GET * 50)
    assert client.received.count(b"HTTP/1.1 200 OK") == 50


def test_a_client_that_has_ended_its_side() -> None:
    """It may wait for its answer: it gets the first bytes one by one, and then the rest."""
    never = Never()
    client = connection(never)
    client.send(GET)
    client.half_close()
    assert client.received == b"H"
    pass_time(client, 13)
    assert client.received == b"HTTP"
    never.requests[0].write(b"late")
    never.requests[0].finish()
    client.settle()
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.transport.over


def test_all_of_the_beginning_is_sent() -> None:
    """After the last of those bytes nothing more is sent; between chunks it is a few zeros."""
    never = Never()
    client = connection(never)
    client.send(GET)
    client.half_close()
    for _ in range(80):
        client.clock.advance(300)
        client.settle()
    assert client.received == b"HTTP/1.1 "
    begun = connection(never)
    begun.send(GET)
    never.requests[-1].write(b"a")
    received = begun.received
    begun.half_close()
    assert begun.received == received + b"0"  # of the next chunk's size
    for _ in range(80):
        begun.clock.advance(300)
        begun.settle()
    assert begun.received == received + b"0000"
    never.requests[-1].write(b"b")
    assert begun.received == received + b"00001\r\nb\r\n"


def test_times() -> None:
    """Idle, slow in the head, slow in the body: each has its time, and its answer."""
    idle = connection(Never(), idle_timeout=8)
    pass_time(idle, 9)
    assert idle.transport.over
    assert idle.received == b""
    slow = connection(Never(), head_timeout=4)
    slow.send(b"GET / ")
    pass_time(slow, 5)
    assert status(slow) == 408
    body = connection(Never(), body_window=4, min_body_rate=10)
    body.send(POST + b"Content-Length: 90\r\n\r\n", b"a" * 45)
    pass_time(body, 5)
    assert body.received == b""
    pass_time(body, 5)
    assert status(body) == 408


def test_a_client_that_takes_nothing() -> None:
    """It has a time to take a part; who takes all gets the rest, and may go on asking."""
    never = Never()
    client = connection(never, write_timeout=4)
    client.transport.taking = False
    client.send(GET)
    never.requests[0].write(b"x" * 100_000)
    never.requests[0].finish()
    client.send(GET)
    assert len(never.requests) == 1
    client.take()
    assert len(never.requests) == 2
    client.transport.taking = False
    never.requests[1].write(b"x" * 100_000)
    pass_time(client, 5)
    assert client.transport.over


def test_a_last_answer_that_is_taken_late() -> None:
    """The connection closes when it is taken."""
    client = connection(Never(), max_body=5)
    never = client.channel.site.resource
    client.transport.taking = False
    client.send(GET)
    request = never.requests[0]
    request.setHeader(b"Connection", b"close")
    request.write(b"x" * 100_000)
    client.send(b"more")
    request.finish()
    client.settle()
    assert not client.transport.ended
    client.take()
    assert client.transport.ended


def test_without_time_to_linger() -> None:
    """The connection closes with its last answer."""
    client = connection(Early(lambda request: answer(request)), linger=0)
    client.send(POST + b"Content-Length: 9999999\r\n\r\n")
    assert client.transport.over


def test_producers_on_a_client_that_takes_nothing() -> None:
    """A producer that begins then is paused at once."""

    class Producer:
        events: list[str] = []  # noqa: RUF012

        def pauseProducing(self) -> None:
            """Wait."""
            self.events.append("pause")

        def resumeProducing(self) -> None:
            """Go on."""
            self.events.append("resume")

        def stopProducing(self) -> None:
            """End."""
            self.events.append("stop")

    never = Never()
    client = connection(never)
    client.send(GET)
    client.transport.taking = False
    request = never.requests[0]
    request.write(b"x" * 100_000)
    request.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError, match="beside"):
        request.channel.registerProducer(Producer(), True)
    client.take()
    request.unregisterProducer()
    client.transport.taking = False
    request.write(b"x" * 100_000)
    request.registerProducer(Producer(), False)
    assert Producer.events == ["pause", "resume"]
    client.leave()
    assert Producer.events[-1] == "stop"


def test_the_wrong_request() -> None:
    """Only the request that is answered can be done."""
    client = connection(Never())
    with pytest.raises(TypeError):
        client.channel.requestDone(object())


def test_an_absolute_target() -> None:
    """Its authority is the request's only host."""
    recorder = Recorder()
    client = connection(recorder)
    client.send(b"GET http://a/p HTTP/1.1\r\nHost: b\r\n\r\n")
    assert recorder.seen[0].fields == ((b"host", b"a"),)
    assert recorder.seen[0].target == b"/p"


def test_an_old_client_of_a_resource() -> None:
    """With a length, its connection can go on, if it asked for that."""
    client = connection(Recorder())
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n")
    assert client.received.count(b"Connection: keep-alive\r\n") == 1
    assert client.received.count(b"Connection: close\r\n") == 1
    assert client.transport.over


def test_bodies_that_come_together() -> None:
    """What comes behind a whole body is of the next request."""
    early = Early(lambda request: BodyWanted(10))
    client = connection(early)
    request = POST + b"Content-Length: 3\r\n\r\n"
    client.send(request + b"abc" + request + b"def")
    answer(early.requests[0])
    client.settle()
    assert early.bodies == [b"abc", b"def"]


def test_an_end_while_an_answer_is_taken() -> None:
    """A client that has ended its side gets what was written, and what it asked for before."""
    never = Never()
    client = connection(never)
    client.transport.taking = False
    client.send(GET)
    never.requests[0].write(b"x" * 100_000)
    never.requests[0].finish()
    client.send(GET + b"GET / HT")
    client.half_close()
    assert not client.transport.over
    client.take()
    never.requests[1].finish()
    client.settle()
    assert client.received.count(b"HTTP/1.1 200 OK") == 2
    assert client.transport.over


def test_a_body_goes_on_while_its_answer_is_taken() -> None:
    """When a client that sends has taken what was written, its body has its time anew."""
    sink = Sink()
    early = Early(lambda request: BodyWanted(None, sink))
    client = connection(early, body_window=4, write_timeout=8)
    client.transport.taking = False
    client.send(POST + b"Content-Length: 9\r\n\r\nabc")
    early.requests[0].write(b"x" * 100_000)
    pass_time(client, 6)
    client.take()
    pass_time(client, 3)
    assert not client.transport.over
    pass_time(client, 2)
    assert client.transport.over
    assert isinstance(sink.end, BodyBroken)
