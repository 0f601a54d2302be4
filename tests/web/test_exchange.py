"""One request and its response: exactly one end, whatever happens in which order."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from deferpost.bodies import PIECE_BYTES
from deferpost.errors import (
    BadRequest,
    DeadlineExceeded,
    HandlerFailed,
    HTTPError,
    ShuttingDown,
    WorkerLost,
)
from deferpost.model import Answer, Reason, State
from deferpost.web.exchange import OpenExchanges
from tests.web import Served, answer_of, serving


def answered(served: Served, answer: Answer) -> Any:
    """The response to a POST whose handler gives this."""
    client = served.connect()
    client.post()
    served.pool.start()
    served.pool.give(answer)
    assert len(served.open_exchanges) == 0
    return client.response()


# Answers


def test_short_answer() -> None:
    """What the handler gave is the response: its status, headers and bytes."""
    with serving() as served:
        headers = ((b"Content-Type", b"text/a"), (b"Link", b"a"), (b"Link", b"b"))
        response = answered(served, answer_of(b"done", status=201, headers=headers))
        assert (response.status, response.body, response.is_whole) == (201, b"done", True)
        assert response.header("content-type") == "text/a"
        assert response.header("content-length") == "4"
        assert [value for name, value in response.headers if name == "Link"] == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "length"), [(200, "0"), (204, None), (205, "0"), (304, None), (404, "0")]
)
def test_answer_without_a_body(status: int, length: str | None) -> None:
    """A response without a body has no length where HTTP permits none, and 0 elsewhere."""
    with serving() as served:
        response = answered(served, answer_of(b"", status=status, headers=()))
        assert response.status == status
        assert response.header("content-length") == length
        assert response.header("content-type") is None
        assert response.header("transfer-encoding") is None


@pytest.mark.parametrize("size", [PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5])
def test_large_answer(size: int) -> None:
    """A large body arrives whole."""
    with serving() as served:
        response = answered(served, answer_of(bytes(size)))
        assert response.body == bytes(size)
        assert response.header("content-length") == str(size)


def test_file() -> None:
    """A file arrives from its place on, and is closed."""
    with serving() as served, tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"content")
        file.seek(3)
        response = answered(served, answer_of(file, 4))
        assert (response.body, response.is_whole) == (b"tent", True)
        assert response.header("content-length") == "4"
        assert file.closed


def test_stream() -> None:
    """A stream arrives chunk by chunk, as it is made."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        buffer = served.pool.stream()
        assert client.response().status == 200
        assert not client.response().is_whole
        buffer.deliver(b"one ")
        buffer.deliver(b"two")
        assert client.response().body == b"one two"
        assert len(served.open_exchanges) == 1
        buffer.finish()
        assert client.response().is_whole
        assert client.response().header("content-length") is None
        assert len(served.open_exchanges) == 0
        assert not client.was_disconnected


def test_stream_to_an_old_client() -> None:
    """To a client of HTTP/1.0, which knows no chunks, the end is the end of the connection."""
    with serving() as served:
        client = served.connect()
        client.send(b"POST /rst HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        served.pool.start()
        buffer = served.pool.stream()
        buffer.deliver(b"one")
        buffer.finish()
        assert client.response().body == b"one"
        assert client.response().header("transfer-encoding") is None
        assert client.was_disconnected


def test_id_and_times() -> None:
    """Every response says its id, and how long its job waited and ran."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"", "X-Request-ID: id-7")
        served.clock.advance(0.25)
        served.pool.start()
        served.clock.advance(1.5)
        served.pool.give(answer_of(b""))
        response = client.response()
        assert response.header("x-request-id") == "id-7"
        assert response.header("server-timing") == "queue;dur=250.000, run;dur=1500.000"


def test_times_of_a_stream() -> None:
    """The headers of a stream say how long it took until then."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.clock.advance(0.5)
        served.pool.stream()
        timing = client.response().header("server-timing")
        assert timing == "queue;dur=0.000, run;dur=500.000"


# Errors


@pytest.mark.parametrize(
    ("error", "status", "reason", "lines"),
    [
        (HTTPError(409, "taken"), 409, None, []),
        (BadRequest("no", line=1), 400, None, []),
        (
            HandlerFailed("Traceback\n  File x\nValueError: no"),
            500,
            "error",
            ["[id-7] /rst failed:\nTraceback\n  File x\nValueError: no"],
        ),
        (
            WorkerLost("signal 9"),
            502,
            "worker_lost",
            ["[id-7] /rst: the worker process ended (signal 9) before the job was done"],
        ),
        (
            DeadlineExceeded(2.0),
            504,
            "deadline_run",
            ["[id-7] /rst: the work did not end within 2 seconds"],
        ),
        (ShuttingDown("no"), 503, "shutdown", ["[id-7] /rst: no"]),
        (CancelledError(), 503, "requested", []),
        (ValueError("/secret"), 500, "error", ["[id-7] /rst: /secret"]),
    ],
)
def test_error(error: Exception, status: int, reason: str | None, lines: list[str]) -> None:
    """An error is answered as a problem document, and logged if others than the client can act."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"", "X-Request-ID: id-7")
        served.pool.start()
        served.clock.advance(2.0)
        served.pool.fail(error)
        response = client.response()
        assert response.status == response.json["status"] == status
        assert response.header("content-type") == "application/problem+json"
        assert response.json.get("reason") == reason
        assert response.json["id"] == "id-7"
        assert response.header("server-timing") == "queue;dur=0.000, run;dur=2000.000"
        assert served.log_lines == lines
        assert len(served.open_exchanges) == 0


def test_error_with_headers() -> None:
    """An HTTPError of the handler has its headers and members in the response."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.fail(
            HTTPError(401, headers={"WWW-Authenticate": "Basic"}, extensions={"realm": "a"})
        )
        assert client.response().header("www-authenticate") == "Basic"
        assert client.response().json["realm"] == "a"


def test_error_with_odd_text() -> None:
    """Words and headers of an HTTPError that ASCII cannot express reach the client all the same."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.fail(
            HTTPError(400, "no such file: caf\udce9", headers={"X-Name": "茶", "X-Too": "é"})
        )
        assert client.response().status == 400
        assert client.response().json["detail"] == "no such file: caf\\udce9"
        assert client.response().header("x-too") == "é"


@pytest.mark.parametrize("name", ["Server", "Date", "X-Request-ID"])
def test_field_that_every_response_has(name: str) -> None:
    """A handler's own value takes the place of the server's, and is not a second one."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.give(answer_of(b"", headers=((name.encode(), b"mine"),)))
        assert client.response().header(name.lower()) == "mine"


def test_error_that_cannot_be_written() -> None:
    """An HTTPError that cannot be put in a response is a 500, rather than a silent hang."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"", "X-Request-ID: id-7")
        served.pool.start()
        served.pool.fail(HTTPError(400, extensions={"value": object()}))
        assert (client.response().status, client.response().json["id"]) == (500, "id-7")
        assert len(served.flush_failures()) == 1
        assert len(served.open_exchanges) == 0


def test_canceled_from_outside() -> None:
    """A job that somebody cancels answers its client that it was canceled."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start().cancel(Reason.REQUESTED)
        assert client.response().status == 503
        assert client.response().json["detail"] == "The work was canceled."


# Clients that leave


def test_leaves_the_queue() -> None:
    """A job that waits is removed when its client leaves: it never runs."""
    for on_disconnect in ("cancel", "finish"):
        with serving(on_disconnect=on_disconnect) as served:
            client = served.connect()
            client.post()
            client.leave()
            (job,) = served.pool.jobs
            assert (job.state, job.reason) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
            assert job.body.closed
            assert len(served.open_exchanges) == 0
            assert client.received == b""


def test_leaves_while_it_runs() -> None:
    """A job that runs is canceled when its client leaves, and what it still gives is let go."""
    with serving() as served:
        client = served.connect()
        client.post()
        job = served.pool.start()
        client.leave()
        assert served.pool.canceled == [Reason.CLIENT_DISCONNECTED]
        assert job.state is State.CANCELING
        file = io.BytesIO(b"late")
        served.pool.give(answer_of(file, 4))
        assert file.closed
        assert job.has_ended
        assert client.received == b""


@pytest.mark.parametrize("size", [4, PIECE_BYTES + 1])
def test_leaves_while_it_is_to_finish(size: int) -> None:
    """A job of a route that says so goes on when its client leaves; its result is dropped."""
    with serving(on_disconnect="finish") as served:
        client = served.connect()
        client.post()
        job = served.pool.start()
        client.leave()
        assert (served.pool.canceled, job.state) == ([], State.RUNNING)
        served.pool.give(answer_of(bytes(size)))
        assert job.state is State.SUCCEEDED
        assert client.received == b""


def test_leaves_before_a_file() -> None:
    """A file that comes too late is closed."""
    with serving(on_disconnect="finish") as served:
        client = served.connect()
        client.post()
        served.pool.start()
        client.leave()
        file = io.BytesIO(b"late")
        served.pool.give(answer_of(file, 4))
        assert file.closed
        assert client.received == b""


def test_leaves_before_a_stream() -> None:
    """A stream that begins too late goes to its end unread, and is not held."""
    with serving(on_disconnect="finish") as served:
        client = served.connect()
        client.post()
        served.pool.start()
        client.leave()
        buffer = served.pool.stream()
        for _ in range(3):
            buffer.deliver(bytes(PIECE_BYTES))
        buffer.finish()
        assert served.pool.canceled == []
        assert client.received == b""


@pytest.mark.parametrize(
    "error", [HandlerFailed("Traceback\nValueError: no"), WorkerLost("signal 9"), HTTPError(400)]
)
def test_leaves_before_an_error(error: Exception) -> None:
    """What goes wrong after the client has left is logged all the same, and not answered."""
    with serving(on_disconnect="finish") as served:
        client = served.connect()
        client.post()
        served.pool.start()
        client.leave()
        served.pool.fail(error)
        assert client.received == b""
        assert len(served.log_lines) == (0 if isinstance(error, HTTPError) else 1)


@pytest.mark.parametrize("on_disconnect", ["cancel", "finish"])
def test_leaves_in_the_middle_of_a_file(on_disconnect: str) -> None:
    """A file that is being sent is closed when the client leaves."""
    with serving(on_disconnect=on_disconnect) as served:
        client = served.connect()
        client.transport.is_full = True
        client.post()
        served.pool.start()
        file = io.BytesIO(bytes(3 * PIECE_BYTES))
        served.pool.give(answer_of(file, 3 * PIECE_BYTES))
        assert not client.response().is_whole
        client.leave()
        assert file.closed
        assert len(served.open_exchanges) == 0


@pytest.mark.parametrize(
    ("on_disconnect", "canceled"),
    [("cancel", [Reason.CLIENT_DISCONNECTED]), ("finish", [])],
)
@pytest.mark.parametrize("is_full", [True, False])
def test_leaves_in_the_middle_of_a_stream(
    on_disconnect: str, canceled: list[Reason], is_full: bool
) -> None:
    """A stream whose client leaves is canceled, or goes on to its end unread."""
    with serving(on_disconnect=on_disconnect) as served:
        client = served.connect()
        client.transport.is_full = is_full
        client.post()
        served.pool.start()
        buffer = served.pool.stream()
        buffer.deliver(b"one")
        had = client.received
        client.leave()
        buffer.deliver(b"two")
        assert client.received == had
        assert served.pool.canceled == canceled
        assert len(served.open_exchanges) == 0


def test_leaves_after_the_response() -> None:
    """A client that leaves after its response cancels nothing."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        client.leave()
        assert served.pool.canceled == []


def test_leaves_with_another_request_behind() -> None:
    """Requests that were sent and not yet looked at are gone with their connection."""
    with serving() as served:
        client = served.connect()
        client.post()
        client.post()
        served.pool.start()
        client.leave()
        served.pool.give(answer_of(b"late"))
        assert len(served.pool.jobs) == 1


# Slow clients and broken bodies


def test_slow_client() -> None:
    """A client that reads slowly is sent one piece after the other."""
    with serving() as served:
        client = served.connect()
        client.transport.is_full = True
        client.post()
        served.pool.start()
        served.pool.give(answer_of(bytes(3 * PIECE_BYTES)))
        for pieces in (1, 2, 3):
            assert len(client.response().body) == pieces * PIECE_BYTES
            client.transport.read()
        assert client.response().is_whole
        assert len(served.open_exchanges) == 0


def test_stream_that_breaks_off() -> None:
    """A stream that breaks off has no end that the client could take for one."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"", "X-Request-ID: id-7")
        served.pool.start()
        buffer = served.pool.stream()
        buffer.deliver(b"one")
        buffer.finish(HandlerFailed("Traceback\nValueError: no"))
        assert client.was_disconnected
        assert (client.response().body, client.response().is_whole) == (b"one", False)
        assert served.log_lines == [
            "[id-7] /rst failed:\nTraceback\nValueError: no",
            "[id-7] /rst: the reply broke off: ValueError: no",
        ]
        client.leave()
        assert served.pool.canceled == []
        assert len(served.open_exchanges) == 0


def test_stream_that_breaks_off_without_words() -> None:
    """An error that says nothing is logged by its name."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"", "X-Request-ID: id-7")
        served.pool.start()
        served.pool.stream().finish(CancelledError())
        assert served.log_lines == ["[id-7] /rst: the reply broke off: CancelledError"]
        assert client.was_disconnected


def test_file_that_has_shrunk(tmp_path: Path) -> None:
    """A file that was cut in the meantime breaks off, rather than to end too early."""
    path = tmp_path / "a"
    path.write_bytes(b"content")
    with serving() as served, open(path, "rb", buffering=0) as file:
        client = served.connect()
        client.post()
        served.pool.start()
        os.truncate(path, 3)
        served.pool.give(answer_of(file, 7))
        assert file.closed
        assert client.was_disconnected
        assert (client.response().body, client.response().is_whole) == (b"con", False)


# Defects


def test_answer_that_cannot_be_written() -> None:
    """An answer of a foreign pool that HTTP does not permit is a 500, and is logged."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.give(answer_of(b"done", headers=((b"no name", b"a"),)))
        assert client.response().status == 500
        (failure,) = served.flush_failures()
        assert isinstance(failure, ValueError)


@pytest.mark.parametrize("body", [object(), bytearray(PIECE_BYTES + 1)])
def test_body_that_cannot_be_written(body: Any) -> None:
    """A body that nothing can be read of breaks the connection, and is logged."""
    with serving() as served:
        client = served.connect()
        client.post()
        served.pool.start()
        served.pool.give(answer_of(body, 10))
        assert client.was_disconnected
        assert len(served.flush_failures()) == 1


def test_defect_after_the_client_left() -> None:
    """A defect that nobody is there to hear of is logged."""
    with serving(on_disconnect="finish") as served:
        client = served.connect()
        client.post()
        served.pool.start()
        client.leave()
        served.pool.give(Answer(200, (), object(), None))
        assert len(served.flush_failures()) == 1


# All exchanges


def fired(open_exchanges: OpenExchanges) -> Callable[[], bool]:
    """Whether whoever waits for them from now on has heard."""
    closed = open_exchanges.closed()
    return lambda: bool(closed.called)


def test_closed_at_once() -> None:
    """Where no exchange is open, there is nothing to wait for."""
    assert fired(OpenExchanges())()


def test_closed() -> None:
    """A service that stops hears when the last response has left, and not before."""
    with serving() as served:
        clients = [served.connect(), served.connect()]
        for client in clients:
            client.post()
            served.pool.start()
        buffer = served.pool.stream(0)
        waiting = [fired(served.open_exchanges), fired(served.open_exchanges)]
        served.pool.give(answer_of(b"done"), 1)
        assert len(served.open_exchanges) == 1
        assert not any(is_closed() for is_closed in waiting)
        buffer.finish()
        assert all(is_closed() for is_closed in waiting)
        assert fired(served.open_exchanges)()


STEPS = st.sampled_from(
    [
        "start",
        "give",
        "file",
        "fail",
        "stream",
        "deliver",
        "finish",
        "break",
        "leave",
        "full",
        "read",
        "expire",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12), st.sampled_from(["cancel", "finish"]))
@example(["start", "leave", "stream", "deliver", "finish"], "finish")
@example(["start", "stream", "full", "deliver", "expire", "read"], "cancel")
@example(["start", "stream", "finish", "leave"], "cancel")
@example(["start", "stream", "expire", "finish", "leave"], "cancel")
def test_one_end_in_any_order(steps: list[str], on_disconnect: str) -> None:
    """Whatever happens in any order: one response or one client that left, and nothing after it."""
    with serving(on_disconnect=on_disconnect) as served:
        client = served.connect()
        client.post()
        (job,) = served.pool.jobs
        is_closed = fired(served.open_exchanges)
        buffer: Any = None
        files: list[io.BytesIO] = []
        has_left, had, is_over = False, b"", False
        for step in steps:
            runs = job.state in (State.RUNNING, State.CANCELING)
            if step == "start" and job.state is State.QUEUED:
                served.pool.start()
            elif step == "give" and runs and buffer is None:
                is_over = True
                served.pool.give(answer_of(bytes(PIECE_BYTES * 2)))
            elif step == "file" and runs and buffer is None:
                is_over = True
                files.append(io.BytesIO(bytes(PIECE_BYTES * 2)))
                served.pool.give(answer_of(files[0], PIECE_BYTES * 2))
            elif step == "fail" and runs and buffer is None:
                is_over = True
                served.pool.fail(HandlerFailed("Traceback\nValueError: no"))
            elif step == "stream" and job.state is State.RUNNING and buffer is None:
                buffer = served.pool.stream()
            elif step == "deliver" and buffer is not None:
                buffer.deliver(bytes(PIECE_BYTES + 1))
            elif step == "finish" and buffer is not None:
                is_over = True
                served.pool.end_stream(buffer)
            elif step == "break" and buffer is not None:
                is_over = True
                served.pool.end_stream(buffer, HandlerFailed("Traceback\nValueError: no"))
            elif step == "leave" and not has_left:
                has_left, had = True, client.received
                client.leave()
            elif step in ("full", "read") and not has_left:
                client.transport.is_full = step == "full"
                client.transport.read()
            elif step == "expire":
                is_over = is_over or buffer is None
                job.cancel(Reason.DEADLINE_RUN)
        if not has_left:
            client.transport.is_full = False
            client.transport.read()
        if has_left:
            assert client.received == had
            assert is_closed()
        else:
            assert (is_closed() or client.was_disconnected) == is_over
            if is_over:
                assert client.response().is_whole == is_closed()
                assert client.was_disconnected != is_closed()
        assert len(served.open_exchanges) == (not is_closed())
        assert all(file.closed for file in files)
        if has_left and on_disconnect == "cancel":
            assert job.has_ended or job.state is State.CANCELING
