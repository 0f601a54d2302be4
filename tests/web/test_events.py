"""Responses that are streams of events: what a client is told, when, and how it ends."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferpost.bodies import PIECE_BYTES
from deferpost.errors import HandlerFailed, HTTPError, PoolFull, ShuttingDown
from deferpost.eventstream import EventFormat
from deferpost.model import Reason
from deferpost.web.events import BEAT_SECONDS, HEARTBEAT_SECONDS
from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.eventparsing import Event, body_of, parse_ndjson, parse_sse
from tests.web import Client, Served, answer_of, parse, route, serving

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
FORMATS = pytest.mark.parametrize("accept", [SSE, NDJSON])


def begun(served: Served, accept: str = SSE) -> Client:
    """A client whose job runs, and whose response has begun."""
    client = served.connect()
    client.post("/rst", b"body", f"Accept: {accept}")
    served.pool.start()
    return client


def events_of(client: Client, accept: str = SSE) -> list[Event]:
    """What the client was told; each as JSON but the chunks of Server-Sent Events."""
    body = client.response().body
    if accept == NDJSON:
        return parse_ndjson(body)
    return [
        event if event.kind == "chunk" else event._replace(data=json.loads(event.data))
        for event in parse_sse(body)
    ]


def beat(served: Served, count: int = 1) -> None:
    """Time passes."""
    for _ in range(count):
        served.clock.advance(BEAT_SECONDS)


@contextmanager
def quiet(served: Served) -> Iterator[None]:
    """When it is over nothing is left: no exchange, and no timer."""
    yield
    assert len(served.open_exchanges) == 0
    assert served.context.beat is not None
    assert len(served.context.beat) == 0
    assert [call for call in served.clock.getDelayedCalls() if "Beat" in str(call)] == []


@FORMATS
def test_begins_at_once(accept: str) -> None:
    """The response begins before the job does, for proxies to pass on as it comes."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"body", f"Accept: {accept}", "X-Request-ID: mine")
        response = client.response()
        assert (response.status, response.body, response.is_whole) == (200, b"", False)
        assert response.header("content-type") == accept
        assert response.header("cache-control") == "no-store"
        assert response.header("x-accel-buffering") == "no"
        assert response.header("x-request-id") == "mine"
        assert response.header("content-length") is None
        served.pool.start()
        served.pool.give(answer_of(b""))


@pytest.mark.parametrize("accept", ["*/*", "application/json", f"application/json, {SSE}"])
def test_who_gets_none(accept: str) -> None:
    """A client that has not asked for events is answered as ever."""
    with serving() as served:
        client = begun(served, accept)
        assert client.received == b""
        served.pool.give(answer_of(b"done"))
        assert client.response().body == b"done"
        assert client.response().header("content-type") == "text/a"


def test_several_accepts() -> None:
    """What a client accepts may come in several fields."""
    with serving() as served, quiet(served):
        client = served.connect()
        client.post("/rst", b"body", "Accept: text/html;q=0.1", f"Accept: {SSE}")
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert [event.kind for event in events_of(client)] == ["result"]


@FORMATS
def test_progress_and_result(accept: str) -> None:
    """Progress is told while the job runs, and the result when it has ended."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        job = served.pool.jobs[0]
        beat(served)
        assert events_of(client, accept) == []
        job.report(1, 4, "one of four")
        beat(served)
        job.report(2, 4, "")
        job.report(3, 4, "three")
        beat(served, 3)
        progress = [
            Event("progress", "1", {"done": 1, "total": 4, "message": "one of four"}),
            Event("progress", "2", {"done": 3, "total": 4, "message": "three"}),
        ]
        assert events_of(client, accept) == progress
        job.report(4, 4, "all")
        served.pool.give(answer_of(b'{"a":1}', headers=((b"Content-Type", b"application/json"),)))
        *others, last = events_of(client, accept)
        assert others[:2] == progress
        assert others[2:] == [Event("progress", "3", {"done": 4, "total": 4, "message": "all"})]
        assert (last.kind, last.id) == ("result", "4")
        assert (last.data["status"], last.data["body"]) == (200, '{"a":1}')
        headers = dict(last.data["headers"])
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Request-ID"] == client.response().header("x-request-id")
        assert headers["Server-Timing"].startswith("queue;dur=0.000, run;dur=500")
        assert client.response().is_whole
        assert not client.was_disconnected


def test_progress_without_a_number() -> None:
    """What a handler says that is no progress is not told."""
    with serving() as served, quiet(served):
        client = begun(served)
        served.pool.jobs[0].report("half", None, "")
        beat(served)
        served.pool.give(answer_of(b"done"))
        assert [event.kind for event in events_of(client)] == ["result"]


@FORMATS
def test_stream(accept: str) -> None:
    """Each chunk is an event as it comes, and the result is without a body."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        buffer = served.pool.stream()
        buffer.deliver_all([b"one\n", b"two ", "☃".encode()[:1]])
        assert body_of(events_of(client, accept)) == b"one\ntwo "
        assert len(events_of(client, accept)) == 2
        buffer.deliver("☃".encode()[1:])
        served.pool.jobs[0].report(1, None, "")
        served.pool.end_stream(buffer)
        events = events_of(client, accept)
        assert body_of(events) == "one\ntwo ☃".encode()
        assert [event.kind for event in events] == ["chunk"] * 3 + ["progress", "result"]
        assert [event.id for event in events] == list("12345")
        assert events[-1].data["status"] == 200
        assert "body" not in events[-1].data


def test_progress_before_a_chunk() -> None:
    """What a handler told before it yielded is told before that chunk, but not too often."""
    with serving() as served, quiet(served):
        client = begun(served)
        job = served.pool.jobs[0]
        buffer = served.pool.stream()
        for number in range(4):
            job.report(number, None, "")
            buffer.deliver(b"%d" % number)
            served.clock.advance(BEAT_SECONDS / 2)
        served.pool.end_stream(buffer)
        told = [e.data["done"] if e.kind == "progress" else e.data for e in events_of(client)]
        assert told[:-1] == [0, "0", "1", 1, "2", "3", 3]


def test_many_small_chunks() -> None:
    """Chunks that came together are events of their own, and leave in few pieces."""
    with serving() as served, quiet(served):
        client = begun(served, NDJSON)
        buffer = served.pool.stream()
        before = client.transport.writes
        buffer.deliver_all([b"%d\n" % number for number in range(3000)])
        assert len(events_of(client, NDJSON)) == 3000
        assert client.transport.writes - before < 30
        served.pool.end_stream(buffer)
        assert body_of(events_of(client, NDJSON)) == b"".join(b"%d\n" % n for n in range(3000))


@FORMATS
def test_binary_stream(accept: str) -> None:
    """Chunks that are no text arrive as Base64."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        buffer = served.pool.stream(headers=((b"Content-Type", b"image/png"),))
        buffer.deliver_all([b"\0\xff", b"abc"])
        served.pool.end_stream(buffer)
        events = events_of(client, accept)
        assert [event.kind for event in events] == ["chunk", "chunk", "result"]
        assert body_of(events) == b"\0\xffabc"


@FORMATS
@pytest.mark.parametrize("is_file", [True, False])
def test_large_body(accept: str, is_file: bool) -> None:
    """A large body is sent by chunks, so that nothing has to hold it twice."""
    data = os.urandom(3 * PIECE_BYTES + 5)
    with serving() as served, tempfile.TemporaryFile(buffering=0) as file, quiet(served):
        client = begun(served, accept)
        file.write(data)
        file.seek(0)
        binary = ((b"Content-Type", b"image/png"),)
        served.pool.give(answer_of(file if is_file else data, len(data), headers=binary))
        events = events_of(client, accept)
        assert body_of(events) == data
        assert [event.kind for event in events] == ["chunk"] * 4 + ["result"]
        assert "body" not in events[-1].data


@FORMATS
@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (HTTPError(409, "no"), 409, None),
        (HandlerFailed("Traceback: secret"), 500, "error"),
        (ShuttingDown("secret"), 503, "shutdown"),
    ],
)
def test_error(accept: str, error: Exception, status: int, reason: str | None) -> None:
    """An error is the last event: the problem document that would have been the response."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        served.pool.jobs[0].report(1, None, "")
        served.pool.fail(error)
        progress, last = events_of(client, accept)
        assert (progress.kind, last.kind) == ("progress", "error")
        problem = last.data if accept == SSE else last.data["problem"]
        assert (problem["status"], problem.get("reason")) == (status, reason)
        assert problem["id"] == client.response().header("x-request-id")
        assert client.response().is_whole
        assert b"secret" not in client.received


@FORMATS
def test_stream_that_breaks_off(accept: str) -> None:
    """A stream that breaks off ends with an error, after what came of it."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        buffer = served.pool.stream()
        buffer.deliver(b"one" + "☃".encode()[:2])
        served.pool.end_stream(buffer, HandlerFailed("Traceback: secret"))
        events = events_of(client, accept)
        assert [event.kind for event in events] == ["chunk", "chunk", "error"]
        assert body_of(events) == "one�".encode()
        assert client.response().is_whole
        assert any("Traceback: secret" in line for line in served.log_lines)


@pytest.mark.parametrize("status", [200, 404])
@FORMATS
def test_events_of_the_handler(accept: str, status: int) -> None:
    """A handler that makes events itself is not disturbed, unless only ours can tell its status."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        headers = ((b"Content-Type", f"{accept}; charset=utf-8".encode()),)
        buffer = served.pool.stream(headers=headers, status=status)
        served.pool.jobs[0].report(1, None, "")
        buffer.deliver(b"data: {}\n\n")
        beat(served, 200)
        served.pool.end_stream(buffer)
        if status == 200:
            assert client.response().body == b"data: {}\n\n"
        else:
            assert events_of(client, accept)[-1].data["status"] == 404
        assert client.response().is_whole


@FORMATS
def test_small_events_of_the_handler(accept: str) -> None:
    """So it is with events that it gives at once."""
    with serving() as served, quiet(served):
        client = begun(served, accept)
        headers = ((b"Content-Type", accept.encode()),)
        served.pool.give(answer_of(b"data: {}\n\n", headers=headers))
        assert client.response().body == b"data: {}\n\n"


def test_events_of_the_handler_that_break_off() -> None:
    """Where a handler's own events break off, so does the response."""
    with serving() as served:
        client = begun(served)
        buffer = served.pool.stream(headers=((b"Content-Type", SSE.encode()),))
        buffer.deliver(b"data: {}\n\n")
        served.pool.end_stream(buffer, HandlerFailed("Traceback"))
        assert client.response().body == b"data: {}\n\n"
        assert not client.response().is_whole
        assert client.was_disconnected
        client.leave()
        assert len(served.open_exchanges) == 0


def test_refusal() -> None:
    """A call that is refused has no job, and is answered as ever."""
    with serving() as served, quiet(served):
        served.pool.refusal = PoolFull("fake")
        client = served.connect()
        client.post("/rst", b"body", f"Accept: {SSE}")
        response = client.response()
        assert response.status == 503
        assert response.header("content-type") == "application/problem+json"


@FORMATS
def test_heartbeats(accept: str) -> None:
    """A stream that has nothing to tell for long says that it is alive, and only then."""
    with serving(timeout=None) as served, quiet(served):
        client = begun(served, accept)
        job = served.pool.jobs[0]
        rate = round(HEARTBEAT_SECONDS / BEAT_SECONDS)
        for number in range(3):
            beat(served, rate - 2)
            job.report(number, None, "")
            beat(served)
        said = client.response().body
        assert said.count(b"heartbeat") + said.count(b":\n\n") == 0
        beat(served, 2 * rate + 2)
        assert len(client.response().body) > len(said)
        rest = client.response().body[len(said) :]
        assert rest == 2 * (b":\n\n" if accept == SSE else b'{"type":"heartbeat"}\n')
        assert [event.kind for event in events_of(client, accept)] == ["progress"] * 3
        served.pool.give(answer_of(b""))


def test_one_timer() -> None:
    """However many streams there are, one timer serves them, and none when there are none."""

    def timers() -> int:
        return len([c for c in served.clock.getDelayedCalls() if "Beat" in str(c)])

    with serving() as served:
        assert timers() == 0
        clients = [begun(served) for _ in range(5)]
        for _ in range(3):
            beat(served)
            assert timers() == 1
        for number, client in enumerate(clients):
            if number % 2:
                client.leave()
            else:
                served.pool.give(answer_of(b""), number)
        assert timers() == 0
        beat(served, 3)


def test_reader_that_is_slow() -> None:
    """A client that does not read is told the newest progress when it does, and no other."""
    with serving() as served, quiet(served):
        client = begun(served)
        job = served.pool.jobs[0]
        client.transport.is_full = True
        job.report(0, 1000, "")
        beat(served)
        size = len(client.received)
        for done in range(1, 1000):
            job.report(done, 1000, "")
            beat(served)
        assert len(client.received) == size
        client.transport.is_full = False
        client.transport.read()
        beat(served)
        assert [event.data["done"] for event in events_of(client)] == [0, 999]
        served.pool.give(answer_of(b"done"))
        assert events_of(client)[-1].kind == "result"


def test_slow_reader_of_a_stream() -> None:
    """A client that does not read holds its stream back, also when it did so before that began."""
    with serving() as served, quiet(served):
        client = begun(served)
        client.transport.is_full = True
        served.pool.jobs[0].report(1, None, "")
        beat(served)
        buffer = served.pool.stream()
        first, second = b"a" * 40_000, b"b" * 40_000
        buffer.deliver_all([first, second])
        assert body_of(events_of(client)) == b""
        client.transport.read()  # and is full again after each write
        assert body_of(events_of(client)) == first
        client.transport.read()
        assert body_of(events_of(client)) == first + second
        served.pool.end_stream(buffer)
        assert events_of(client)[-1].kind == "chunk"
        client.transport.read()
        assert events_of(client)[-1].kind == "result"


@FORMATS
@pytest.mark.parametrize("stage", ["queued", "running", "streaming"])
@pytest.mark.parametrize("on_disconnect", ["cancel", "finish"])
def test_client_that_leaves(accept: str, stage: str, on_disconnect: str) -> None:
    """A client that leaves is noticed as any other, and its job ends or goes on by its route."""
    with serving(on_disconnect=on_disconnect) as served, quiet(served):
        client = served.connect()
        client.post("/rst", b"body", f"Accept: {accept}")
        if stage != "queued":
            served.pool.start()
        if stage == "streaming":
            buffer = served.pool.stream()
            buffer.deliver(b"one")
        had = client.received
        client.leave()
        goes_on = on_disconnect == "finish" and stage != "queued"
        assert served.pool.canceled == ([] if goes_on else [Reason.CLIENT_DISCONNECTED])
        beat(served, 3)
        if stage == "streaming":
            buffer.deliver(b"two")
            served.pool.end_stream(buffer)
        elif goes_on:
            served.pool.jobs[0].report(1, None, "")
            served.pool.give(answer_of(b"done"))
        assert client.received == had


def test_old_client() -> None:
    """To a client of HTTP/1.0, the end of the events is the end of the connection."""
    with serving() as served, quiet(served):
        client = served.connect()
        client.send(f"POST /rst HTTP/1.0\r\nAccept: {SSE}\r\nContent-Length: 0\r\n\r\n".encode())
        served.pool.start()
        buffer = served.pool.stream()
        buffer.deliver(b"one")
        served.pool.end_stream(buffer)
        assert client.response().header("transfer-encoding") is None
        assert [event.kind for event in events_of(client)] == ["chunk", "result"]
        assert client.was_disconnected


@pytest.mark.parametrize("method", ["HEAD", "GET", "OPTIONS"])
def test_other_methods(method: str) -> None:
    """Events are of a POST; other methods are answered as ever."""
    with serving() as served, quiet(served):
        client = served.connect()
        client.request(method, "/rst", b"", f"Accept: {SSE}")
        assert client.response(has_body=method != "HEAD").status == (
            204 if method == "OPTIONS" else 405
        )


def test_next_request_on_the_connection() -> None:
    """After the last event the connection takes the next request."""
    with serving() as served, quiet(served):
        client = begun(served)
        served.pool.give(answer_of(b"done"))
        client.post()
        served.pool.start()
        served.pool.give(answer_of(b"plain"))
        first, second = client.responses()
        assert [event.kind for event in parse_sse(first.body)] == ["result"]
        assert second.body == b"plain"


class Broken(Exception):
    """A defect of ours."""


def _raise(*_: Any) -> None:
    raise Broken


@pytest.mark.parametrize("where", ["progress", "result"])
def test_defect_of_ours(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own is logged, and the client sees that the response broke off."""
    monkeypatch.setattr(f"deferpost.eventstream.Events.{where}", _raise)
    with serving() as served:
        clients = [begun(served), begun(served)]
        if where == "progress":
            served.pool.jobs[0].report(1, None, "")
            beat(served, 2)
        else:
            served.pool.give(answer_of(b"done"), 0)
        assert [type(error) for error in served.flush_failures()] == [Broken]
        assert [client.was_disconnected for client in clients] == [True, False]
        assert not clients[0].response().is_whole
        clients[0].leave()
        clients[1].leave()
        assert len(served.open_exchanges) == 0


ACTS: dict[str, Callable[[Served, Client, Any], Any]] = {
    "progress": lambda served, client, buffer: served.pool.jobs[0].report(1, None, ""),
    "beat": lambda served, client, buffer: beat(served),
    "full": lambda served, client, buffer: setattr(client.transport, "is_full", True),
    "read": lambda served, client, buffer: client.transport.read(),
    "free": lambda served, client, buffer: setattr(client.transport, "is_full", False),
    "chunk": lambda served, client, buffer: buffer.deliver(b"abc"),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(EventFormat),
    st.lists(st.sampled_from(sorted(ACTS)), max_size=25),
    st.sampled_from(["end", "break", "leave"]),
)
def test_any_order(format: EventFormat, acts: list[str], end: str) -> None:
    """Whatever happens in whichever order, a client that reads has every chunk and one end."""
    accept = format.value.decode()
    with serving() as served, quiet(served):
        client = begun(served, accept)
        buffer = served.pool.stream(headers=((b"Content-Type", b"image/png"),))
        for act in acts:
            ACTS[act](served, client, buffer)
        if end == "leave":
            client.leave()
            had = client.received
            buffer.deliver(b"more")
            assert client.received == had
            return
        if end == "end":
            client.transport.is_full = False
            client.transport.read()
        served.pool.end_stream(buffer, None if end == "end" else HTTPError(409, "no"))
        events = events_of(client, accept)
        assert [event.id for event in events] == [str(n + 1) for n in range(len(events))]
        kinds = [event.kind for event in events]
        assert kinds[-1] == ("result" if end == "end" else "error")
        assert kinds.count("result") + kinds.count("error") == 1
        if end == "end":
            assert kinds.count("chunk") == acts.count("chunk")


# On our own wire


@contextmanager
def wired(**fields: Any) -> Iterator[Served]:
    """Serve a route on a site of ours, which decides when the head of a request is in."""
    with serving(route(**fields)) as served, quiet(served):
        served.site = DeferPostSite(served.root, limits=Limits(), reactor=served.clock)
        yield served


@pytest.mark.parametrize(
    ("accepts", "gets_events"),
    [
        ((SSE,), True),
        (("text/html;q=0.1", SSE), True),
        ((SSE, "*/*"), True),
        (("*/*",), False),
        ((), False),
        (("application/json", SSE), False),
    ],
)
def test_accept_on_the_wire(accepts: tuple[str, ...], gets_events: bool) -> None:
    """On our own wire it is the same clients that get events."""
    with wired() as served:
        client = served.connect()
        client.post("/rst", b"body", *(f"Accept: {accept}" for accept in accepts))
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert (client.response().header("content-type") == SSE) is gets_events
        assert client.response().is_whole
        client.leave()


def arriving(served: Served, client: Client) -> None:
    """The head of a POST, whose client waits to be told to go on."""
    lines = ["POST /rst HTTP/1.1", "Host: x", "Content-Length: 4", f"Accept: {SSE}"]
    client.send("\r\n".join([*lines, "Expect: 100-continue", "", ""]).encode())
    served.pool.start()


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_body_that_arrives() -> None:
    """Where the body still comes, its client is told to go on first, and gets events meanwhile."""
    with wired(stream=True) as served:
        client = served.connect()
        arriving(served, client)
        assert client.received == CONTINUE
        served.pool.jobs[0].report(1, None, "")
        beat(served)
        assert client.received.startswith(CONTINUE + b"HTTP/1.1 200 OK\r\n")
        client.send(b"body")
        served.pool.give(answer_of(b"done"))
        response, rest = parse(client.received.removeprefix(CONTINUE))
        assert [event.kind for event in parse_sse(response.body)] == ["progress", "result"]
        assert (response.is_whole, rest) == (True, b"")
        client.leave()


@pytest.mark.parametrize("is_error", [True, False])
def test_quick_answer_to_a_body_that_arrives(is_error: bool) -> None:
    """Where the answer is there before the first event, an error keeps its own status."""
    with wired(stream=True) as served:
        client = served.connect()
        arriving(served, client)
        if is_error:
            served.pool.fail(HTTPError(409, "no"))
        else:
            served.pool.give(answer_of(b"done"))
        response, _ = parse(client.received.removeprefix(CONTINUE))
        assert response.status == (409 if is_error else 200)
        assert response.header("content-type") == ("application/problem+json" if is_error else SSE)
        client.leave()


def test_slow_reader_on_the_wire() -> None:
    """On our own wire, too, a client that does not read holds its stream back."""
    with wired() as served:
        client = begun(served)
        client.transport.is_full = True
        buffer = served.pool.stream()
        chunks = [bytes([number]) * 40_000 for number in b"abc"]
        buffer.deliver_all(chunks)
        assert len(events_of(client)) < 3
        client.transport.is_full = False
        client.transport.read()
        assert body_of(events_of(client)) == b"".join(chunks)
        served.pool.end_stream(buffer)
        assert events_of(client)[-1].kind == "result"
        client.leave()
