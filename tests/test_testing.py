"""What users test their handlers with: the client, the pools for tests, the guard."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource

import deferpost.testing
from deferpost import App, Call, DeferPost, HTTPError, ProcessPool, Reply, ThreadPool
from deferpost.errors import DeadlineExceeded, DeclarationError, PoolFull
from deferpost.handlers.running import Handlers
from deferpost.interfaces import PoolContext
from deferpost.jobs import Job
from deferpost.model import Answer, CallHead, Reason, Route, Rung, State
from deferpost.testing import (
    InlinePool,
    ManualPool,
    NoResponse,
    PostClient,
)
from deferpost.testing.handlers import echo as findable
from deferpost.testing.suite import Reader

pytest_plugins = ["deferpost.testing.fixtures"]

MakeClient = Callable[..., PostClient]

CHECKOUT = Path(__file__).resolve().parents[1]


def app_of(**handlers: Any) -> App:
    """An app with a route for each handler, or for each handler and its options."""
    app = App()
    for name, handler in handlers.items():
        handler, options = handler if isinstance(handler, tuple) else (handler, {})
        app.post(f"/{name}", **options)(handler)
    return app


def echo(call: Call) -> bytes:
    """The body."""
    return call.body.read()


def count(call: Call) -> Iterator[str]:
    """A stream of three chunks."""
    for n in range(3):
        yield f"{n}\n"


def fail(call: Call) -> None:
    """An error."""
    raise LookupError("the handler's own words")


# The client.


def test_post(deferpost_client: MakeClient) -> None:
    """A post is answered at once, as a server would answer it."""

    def describe(call: Call) -> Reply:
        said = f"{call.args['a'][0]} {call.headers['x-word']} {call.body.read().decode()}"
        return Reply(said, status=201, headers={"X-Answer": "yes"})

    client = deferpost_client(app_of(describe=describe))
    response = client.post("/describe?a=b%20c", "the body", headers={"X-Word": "word"})
    assert (response.status, response.text) == (201, "b c word the body")
    assert response.headers["x-answer"] == "yes"
    assert response.headers["content-length"] == "17"
    assert re.fullmatch(r"queue;dur=\d.*, run;dur=\d.*", response.headers["Server-Timing"])
    assert response.complete
    assert response.traceback is None


def test_large_post(deferpost_client: MakeClient) -> None:
    """A body of many megabytes goes there and back."""
    body = os.urandom(5_000_000)
    assert deferpost_client(app_of(echo=echo)).post("/echo", body).body == body


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"json": {"a": [1, None]}}, {"application/json": '{"a":[1,null]}'}),
        ({"json": None}, {"application/json": "null"}),
        ({"form": {"a": "b c"}}, {"application/x-www-form-urlencoded": "a=b+c"}),
        ({"form": []}, {"application/x-www-form-urlencoded": ""}),
        ({"body": b"x", "headers": [("Content-Type", "text/x")]}, {"text/x": "x"}),
        ({"json": 1, "headers": [("content-type", "text/x")]}, {"text/x": "1"}),
        ({}, {"": ""}),
    ],
)
def test_bodies(
    deferpost_client: MakeClient, options: dict[str, Any], expected: dict[str, str]
) -> None:
    """A body is sent as bytes, as JSON or as a form, with its media type."""

    def show(call: Call) -> dict[str, str]:
        return {call.headers.get("content-type", ""): call.body.read().decode()}

    assert deferpost_client(app_of(show=show)).post("/show", **options).json() == expected


def test_uploads(deferpost_client: MakeClient) -> None:
    """Files are sent with the fields of a form, as a browser sends them."""

    def show(call: Call) -> list[object]:
        form = call.form()
        one, two = form.file("one"), form.file("two")
        return [
            form.fields,
            *((file.filename, file.content_type, file.file.read().decode()) for file in (one, two)),
        ]

    response = deferpost_client(app_of(show=show)).post(
        "/show",
        form=[("word", "a"), ("word", 'b"\r\n')],
        files={"one": b"first", "two": ('"2".txt', b"sec\r\nond", "text/x-two")},
    )
    assert response.json() == [
        {"word": ["a", 'b"\r\n']},
        ["one", "application/octet-stream", "first"],
        ['"2".txt', "text/x-two", "sec\r\nond"],
    ]


def test_one_body_only(deferpost_client: MakeClient) -> None:
    """A request has one body."""
    with pytest.raises(TypeError, match="one body"):
        deferpost_client(app_of(echo=echo)).post("/echo", b"x", json=1)


def test_errors_as_clients_see_them(deferpost_client: MakeClient) -> None:
    """Errors are answered as in production, and what the client is not told is at hand, too."""

    def refuse(call: Call) -> None:
        raise HTTPError(422, "Too many words.", extensions={"words": 7})

    client = deferpost_client(app_of(refuse=refuse, fail=fail))
    refused = client.post("/refuse")
    assert refused.status == 422
    assert refused.json()["words"] == 7
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.traceback is None
    failed = client.post("/fail")
    assert failed.status == 500
    assert "own words" not in failed.text
    assert failed.traceback is not None
    assert "LookupError: the handler's own words" in failed.traceback
    assert client.post("/missing").status == 404
    assert client.post("/fail", method="GET").status == 405


def test_too_large(deferpost_client: MakeClient) -> None:
    """A body over the limit is refused."""
    client = deferpost_client(app_of(echo=echo), max_body=10)
    assert client.post("/echo", b"x" * 10).status == 200
    assert client.post("/echo", b"x" * 11).status == 413


def test_stream(deferpost_client: MakeClient) -> None:
    """A stream is there as a whole."""
    response = deferpost_client(app_of(count=count)).post("/count")
    assert (response.text, response.complete) == ("0\n1\n2\n", True)


def test_broken_stream(deferpost_client: MakeClient) -> None:
    """A stream that breaks off is not complete, and why is at hand."""

    def break_off(call: Call) -> Iterator[str]:
        yield "begun"
        fail(call)

    response = deferpost_client(app_of(break_off=break_off)).post("/break_off")
    assert (response.status, response.text, response.complete) == (200, "begun", False)
    assert response.traceback is not None
    assert "the handler's own words" in response.traceback


def test_coroutine_that_waits(deferpost_client: MakeClient) -> None:
    """The response to a coroutine that waits is there when it has gone on."""
    waits: list[Deferred[str]] = []

    async def wait(call: Call) -> str:
        waits.append(Deferred())
        return await waits[-1]

    client = deferpost_client(app_of(wait=wait))
    with pytest.raises(NoResponse, match="a coroutine that waits goes on"):
        client.post("/wait")
    pending = client.start("/wait")
    responses: list[Any] = []
    pending.wait().addCallback(responses.append)
    assert (pending.status, pending.body, pending.is_over, responses) == (None, b"", False, [])
    assert len(pending.headers) == 0
    waits[-1].callback("at last")
    assert [response.text for response in responses] == ["at last"]
    assert pending.response() == responses[0]
    pending.wait().addCallback(responses.append)
    assert len(responses) == 2


def test_wait_for_nothing(deferpost_client: MakeClient) -> None:
    """Who waits for a response that will not come is told."""

    async def wait(call: Call) -> None:
        await Deferred()

    client = deferpost_client(app_of(wait=wait))
    pending = client.start("/wait")
    errors: list[Any] = []
    pending.wait().addErrback(errors.append)
    pending.leave()
    assert [error.type for error in errors] == [NoResponse]
    with pytest.raises(NoResponse, match="has left"):
        pending.response()


def test_connection_closed_without_a_response(deferpost_client: MakeClient) -> None:
    """A server that closes the connection has not responded."""

    class Closing(Resource):
        isLeaf = True

        def render_POST(self, request: Any) -> int:
            request.loseConnection()
            return 1  # NOT_DONE_YET

    with pytest.raises(NoResponse, match="closed the connection without a response"):
        deferpost_client(Closing()).post("/")


def test_client_of_a_resource(deferpost_client: MakeClient) -> None:
    """A client takes any resource, such as a tree that has an app in it."""
    root = Resource()
    root.putChild(b"app", DeferPost(echo, pool=InlinePool(), reactor=_QuietReactor()))
    client = deferpost_client(root)
    assert client.post("/app", b"mounted").body == b"mounted"
    assert client.statuses() == []
    with pytest.raises(TypeError, match="pools of its own"):
        deferpost_client(root, pool=ManualPool())


def test_route_whose_body_streams_in(deferpost_client: MakeClient) -> None:
    """A handler that reads a body as it arrives is tested with plain bytes, alone and mounted."""

    def shout(call: Call) -> Iterator[bytes]:
        while piece := call.body.read1(5):  # type: ignore[attr-defined]  # a buffered file has it
            yield piece.upper()

    client = deferpost_client(app_of(shout=(shout, {"stream": True})))
    assert client.post("/shout", b"some words").body == b"SOME WORDS"
    resource = DeferPost(shout, pool=InlinePool(), stream=True, reactor=_QuietReactor())
    assert deferpost_client(resource).post("/", b"mounted").body == b"MOUNTED"


class _QuietReactor(Clock):
    """A clock with the one thing more that a mounted app asks for."""

    def addSystemEventTrigger(self, *args: object) -> None:
        """Nothing ends."""


def test_process_handlers_have_to_be_found(deferpost_client: MakeClient) -> None:
    """A handler that no worker process could find fails in the test as it would in production."""

    def local(call: Call) -> None:
        """Inside of a function."""

    found = app_of(echo=(findable, {"pool": "process"}))
    assert deferpost_client(found).post("/echo", b"found").body == b"found"
    with pytest.raises(DeclarationError, match="defined inside a function"):
        app_of(local=(local, {"pool": "process"}))
    lost = app_of(local=(local, {"pool": "workers"}))
    with pytest.raises(DeclarationError, match="the pool 'workers', which is not there"):
        deferpost_client(lost)
    with pytest.raises(DeclarationError, match="defined inside a function"):
        deferpost_client(lost, configured={"workers": "process"})
    client = deferpost_client(lost, configured={"workers": "thread"})
    assert client.post("/local").status == 204


def test_own_pools_of_routes(deferpost_client: MakeClient) -> None:
    """Routes with pools of their own run in the test's pool, too, and start nothing."""
    app = app_of(
        one=(findable, {"pool": ProcessPool(size=1)}), two=(echo, {"pool": ThreadPool(size=1)})
    )
    client = deferpost_client(app)
    threads = threading.active_count()
    assert [client.post(path, b"x").body for path in ("/one", "/two")] == [b"x", b"x"]
    assert {status.kind for status in client.statuses()} == {"process", "thread"}
    assert threading.active_count() == threads


# Pools by themselves.

_keys = itertools.count(1)


def _submit(
    pool: Any, name: str = "handler", body: bytes = b"", timeout: float | None = None
) -> tuple[Job, Deferred[Answer]]:
    """Give a pool a job, as the dispatcher does."""
    head = CallHead("id", f"/{name}", "POST", f"/{name}", b"", (), None, timeout)
    job = Job(next(_keys), head, io.BytesIO(body), 0.0, lambda job: None)
    return job, pool.submit(job)


def _context(*handlers: Any) -> PoolContext:
    """What to start a pool with: an own clock, and handlers by their names."""
    clock = Clock()
    routes = [Route(path=f"/{each.__name__}", handler=each, pool="pool") for each in handlers]
    return PoolContext(name="pool", reactor=clock, source=Handlers(routes), now=clock.seconds)


def test_inline_has_run_when_it_is_submitted() -> None:
    """An inline job has ended when it is submitted, on the same thread."""
    threads: list[int] = []

    def handler(call: Call) -> bytes:
        threads.append(threading.get_ident())
        return call.body.read()

    job, answer = _submit(InlinePool().start(_context(handler)), body=b"body")
    assert (job.state, threads) == (State.SUCCEEDED, [threading.get_ident()])
    bodies: list[Any] = []
    answer.addCallback(lambda answer: bodies.append(answer.body))
    assert bodies == [b"body"]


def test_inline_inside_of_inline() -> None:
    """A handler that submits another job runs it after itself, or is told that there is no room."""
    pools: list[Any] = []
    order: list[str] = []

    def outer(call: Call) -> None:
        _, answer = _submit(pools[0], "inner")
        answer.addCallback(lambda answer: order.append("inner answered"))
        with pytest.raises(PoolFull):
            _submit(pools[0], "inner")
        order.append("outer")

    def inner(call: Call) -> None:
        order.append("inner")

    pools.append(InlinePool(size=1, max_waiting=1).start(_context(outer, inner)))
    _submit(pools[0], "outer")
    assert order == ["outer", "inner", "inner answered"]


def test_inline_errors() -> None:
    """A handler that wants to end the process has failed, and so has a generator at its end."""

    def leave(call: Call) -> None:
        raise SystemExit(3)

    def chunks(call: Call) -> Iterator[bytes]:
        yield b"x"
        raise SystemExit(4)

    def clings(call: Call) -> Iterator[bytes]:
        try:
            yield b"x"
        finally:
            raise LookupError("on the way out")

    plan = InlinePool()
    pool = plan.start(_context(leave, chunks, clings))
    job, answer = _submit(pool, "leave")
    errors: list[Any] = []
    answer.addErrback(lambda failure: errors.append(str(failure.value)))
    assert (job.state, errors) == (State.FAILED, ["SystemExit: 3"])
    job, answer = _submit(pool, "chunks")
    readers: list[Reader] = []
    answer.addCallback(lambda answer: readers.append(Reader(answer.body)))
    assert (job.state, str(readers[0].error)) == (State.FAILED, "SystemExit: 4")
    job, answer = _submit(pool, "clings")
    answer.addCallback(lambda answer: answer.body.abandon())
    assert (job.state, job.reason) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
    assert "LookupError: on the way out" in plan.tracebacks["id"]


def test_inline_stream_over_its_time() -> None:
    """A stream whose time is up while it makes a chunk is ended before the chunk is delivered."""

    def chunks(call: Call) -> Iterator[bytes]:
        yield b"x"
        context.reactor.advance(31.0)
        yield b"y"

    context = _context(chunks)
    job, answer = _submit(InlinePool().start(context), "chunks", timeout=30.0)
    readers: list[Reader] = []
    answer.addCallback(lambda answer: readers.append(Reader(answer.body)))
    (reader,) = readers
    assert (job.state, reader.chunks) == (State.EXPIRED, [b"x"])
    assert isinstance(reader.error, DeadlineExceeded)


@pytest.mark.parametrize("plan", [InlinePool(kind="process"), ManualPool(kind="process")])
def test_a_pool_for_processes_wants_names(plan: InlinePool | ManualPool) -> None:
    """A pool that stands for processes is not started with a handler that these could not find."""

    def handler(call: Call) -> None:
        """Inside of a function."""

    plan.start(_context(findable))
    with pytest.raises(DeclarationError, match="defined inside a function"):
        plan.start(_context(handler))


def test_inline_stop_in_the_middle() -> None:
    """A stop ends a stream that is held back, at once; a coroutine that goes on is left behind."""

    def chunks(call: Call) -> Iterator[bytes]:
        yield b"x"
        yield b"y"

    async def stubborn(call: Call) -> None:
        try:
            await Deferred()
        except CancelledError:
            await Deferred()

    left: list[int] = []
    pool = InlinePool().start(_context(chunks))
    job, answer = _submit(pool, "chunks")
    assert job.state is State.RUNNING
    pool.stop(1.0).addCallback(left.append)
    assert (job.state, left) == (State.CANCELED, [0])
    context = _context(stubborn)
    pool = InlinePool(kind="reactor").start(context)
    job, answer = _submit(pool, "stubborn")
    answer.addErrback(lambda failure: None)
    pool.stop(1.0).addCallback(left.append)
    assert (job.state, left) == (State.CANCELING, [0])
    context.reactor.advance(1.0)
    assert (job.state, left) == (State.CANCELING, [0, 1])


# Pools that the test runs.


def test_step(deferpost_client: MakeClient) -> None:
    """Jobs wait until the test says so, and run in the order in which they came."""
    pool = ManualPool()
    client = deferpost_client(app_of(echo=echo, count=count), pool=pool)
    first, second = client.start("/echo", b"1"), client.start("/count")
    assert [job.head.route for job in pool.waiting] == ["/echo", "/count"]
    with pytest.raises(NoResponse, match="say step"):
        first.response()
    assert pool.step().has_ended
    assert (first.response().body, second.is_over) == (b"1", False)
    pool.step()
    assert second.response().text == "0\n1\n2\n"
    with pytest.raises(AssertionError, match="no job waits"):
        pool.step()


def test_steps_of_several_pools(deferpost_client: MakeClient) -> None:
    """One manual pool stands for all that an app names; the oldest job of all comes first."""

    async def wait(call: Call) -> str:
        return "coroutine"

    pool = ManualPool(size=1)
    app = app_of(echo=echo, wait=wait, found=(findable, {"pool": "process"}))
    client = deferpost_client(app, pool=pool)
    pendings = [client.start(path, b"x") for path in ("/wait", "/found", "/echo", "/wait")]
    assert len(pool.waiting) == 4
    for pending in pendings:
        pool.step()
        assert pending.is_over
    bodies = [pending.response().body for pending in pendings]
    assert bodies == [b"coroutine", b"x", b"x", b"coroutine"]


def test_client_leaves_the_queue(deferpost_client: MakeClient) -> None:
    """The job of a client that leaves while it waits is removed, and never runs."""
    ran: list[str] = []
    pool = ManualPool()
    client = deferpost_client(app_of(note=lambda call: ran.append(call.id)), pool=pool)
    pending = client.start("/note")
    (job,) = pool.waiting
    pending.leave()
    assert (job.state, job.rung, job.reason) == (
        State.CANCELED,
        Rung.REMOVED,
        Reason.CLIENT_DISCONNECTED,
    )
    assert (pool.waiting, ran, pending.is_over) == ((), [], True)
    pending.leave()


def test_client_leaves_while_it_runs(deferpost_client: MakeClient) -> None:
    """The handler of a client that leaves is told, and its job is over when it has ended."""
    seen: list[bool] = []

    def look(call: Call) -> None:
        seen.append(call.canceled)
        call.check()
        raise AssertionError("it was to end before this")

    pool = ManualPool()
    client = deferpost_client(app_of(look=look), pool=pool)
    pending = client.start("/look")
    run = pool.begin()
    assert run.job.state is State.RUNNING
    pending.leave()
    assert (run.job.state, run.has_ended, pool.runs) == (State.CANCELING, False, (run,))
    (status,) = client.statuses()
    assert (status.running, status.stuck) == (1, 1)
    run.finish()
    assert (run.job.state, run.has_ended, pool.runs, seen) == (State.CANCELED, True, (), [True])


def test_client_leaves_and_the_job_goes_on(deferpost_client: MakeClient) -> None:
    """With on_disconnect="finish" a job that runs goes on, and one that waits does not."""
    pool = ManualPool()
    client = deferpost_client(app_of(echo=(echo, {"on_disconnect": "finish"})), pool=pool)
    running, waiting = client.start("/echo"), client.start("/echo")
    run = pool.begin()
    (job,) = pool.waiting
    running.leave()
    waiting.leave()
    assert (run.job.state, job.state) == (State.RUNNING, State.CANCELED)
    run.finish()
    assert run.job.state is State.SUCCEEDED


def test_stream_step_by_step(deferpost_client: MakeClient) -> None:
    """A stream is made chunk by chunk; one whose client leaves is ended where it stands."""
    closed: list[bool] = []

    def forever(call: Call) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append(True)

    pool = ManualPool()
    client = deferpost_client(app_of(forever=forever), pool=pool)
    pending = client.start("/forever")
    run = pool.begin()
    assert run.advance()
    assert (pending.status, pending.body) == (200, b"")
    for n in range(1, 5):
        assert run.advance()
        assert pending.body == b"x" * n
    pending.leave()
    assert (run.job.state, closed) == (State.CANCELING, [])
    assert not run.advance()
    assert (run.job.state, closed) == (State.CANCELED, [True])
    assert pending.body == b"xxxx"


def test_lost_worker(deferpost_client: MakeClient) -> None:
    """A worker can be lost before its handler has run, and in the middle of a stream."""
    pool = ManualPool()
    client = deferpost_client(app_of(echo=echo, count=count), pool=pool)
    pending = client.start("/echo")
    run = pool.begin()
    run.lose("exit code 0")
    response = pending.response()
    assert (response.status, response.json()["reason"]) == (502, "worker_lost")
    assert (run.job.state, run.job.reason) == (State.FAILED, Reason.WORKER_LOST)
    with pytest.raises(AssertionError, match="no worker that could be lost"):
        run.lose()
    pending = client.start("/count")
    run = pool.begin()
    run.advance()
    run.advance()
    run.lose()
    response = pending.response()
    assert (response.status, response.text, response.complete) == (200, "0\n", False)
    pending = client.start("/echo")
    run = pool.begin()
    pending.leave()
    run.lose()
    assert run.job.state is State.CANCELED


def test_coroutine_cannot_be_lost(deferpost_client: MakeClient) -> None:
    """A coroutine runs on the reactor, of which there is only one."""

    async def wait(call: Call) -> None:
        await Deferred()

    pool = ManualPool()
    deferpost_client(app_of(wait=wait), pool=pool).start("/wait")
    run = pool.step()
    assert not run.has_ended
    with pytest.raises(AssertionError, match="no worker that could be lost"):
        run.lose()


def test_deadline(deferpost_client: MakeClient) -> None:
    """Time passes when the test says so."""
    pool = ManualPool()
    client = deferpost_client(app_of(echo=(echo, {"timeout": "30s"})), pool=pool)
    pending = client.start("/echo")
    client.advance(1000.0)  # in the queue
    run = pool.begin()
    client.advance(29.0)
    assert not pending.is_over
    client.advance(1.0)
    response = pending.response()
    assert (response.status, response.json()["reason"]) == (504, "deadline_run")
    assert (run.job.state, run.has_ended) == (State.CANCELING, False)
    run.finish()
    assert (run.job.state, run.has_ended) == (State.EXPIRED, True)


def test_deadline_inside_a_handler(deferpost_client: MakeClient) -> None:
    """A handler that takes too long by the clock is told, and its client, too."""
    clock = Clock()
    told: list[bool] = []

    def slow(call: Call) -> None:
        clock.advance(31.0)
        told.append(call.canceled)

    client = deferpost_client(app_of(slow=slow), clock=clock, timeout=30.0)
    assert client.post("/slow").status == 504
    assert told == [True]


def test_full(deferpost_client: MakeClient) -> None:
    """A pool that is full is answered with 503, and begins no more than it has places."""
    pool = ManualPool(size=1, max_waiting=1)
    client = deferpost_client(app_of(echo=echo), pool=pool)
    client.start("/echo")
    client.start("/echo")
    response = client.post("/echo")
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    pool.begin()
    with pytest.raises(AssertionError, match="every place is taken"):
        pool.begin()


def test_disconnect(deferpost_client: MakeClient) -> None:
    """All of a client's connections can be closed at once."""
    pool = ManualPool()
    client = deferpost_client(app_of(echo=echo), pool=pool)
    pendings = [client.start("/echo") for _ in range(3)]
    client.disconnect()
    assert (pool.waiting, [pending.is_over for pending in pendings]) == ((), [True] * 3)


def test_close() -> None:
    """A client that is closed leaves nothing: no job, no open body, no generator."""
    closed: list[bool] = []

    def stream(call: Call) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.append(True)

    async def wait(call: Call) -> None:
        await Deferred()

    pool = ManualPool()
    with PostClient(app_of(echo=echo, stream=stream, wait=wait), pool=pool) as client:
        for path in ("/echo", "/stream", "/wait", "/echo"):
            client.start(path, os.urandom(200_000))
        runs = [pool.begin() for _ in range(3)]
        runs[1].advance()
        runs[1].advance()
        runs[2].advance()
        jobs = [*pool.waiting, *(run.job for run in runs)]
    assert [job.state for job in jobs] == [State.CANCELED] * 4
    assert all(job.body.closed for job in jobs)
    assert (closed, pool.runs, client.clock.getDelayedCalls()) == ([True], (), [])
    client.close()


# The face.


def test_every_name() -> None:
    """Every public name is there, and only these are said to be."""
    for name in deferpost.testing.__all__:
        assert getattr(deferpost.testing, name).__name__ == name
    assert set(deferpost.testing.__all__) <= set(dir(deferpost.testing))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(deferpost.testing, "nothing")  # noqa: B009 (type checkers know that it is not)


def test_workers_load_no_twisted() -> None:
    """A worker that imports the handlers of the suite does not load Twisted."""
    program = (
        "import sys, deferpost.testing.handlers\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] in ('twisted', 'zope', 'treq')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_trial_beside_pytest_twisted(tmp_path: Path) -> None:
    """With the plugin, test cases of trial pass beside tests of pytest-twisted."""
    (tmp_path / "test_both.py").write_text(
        "from twisted.internet import reactor, task, threads\n"
        "from twisted.trial.unittest import TestCase\n"
        "def test_first():\n"
        "    return task.deferLater(reactor, 0)\n"
        "class Second(TestCase):\n"
        "    async def test_waits(self):\n"
        "        await task.deferLater(reactor, 0.01)\n"
        "    def test_thread(self):\n"
        "        return threads.deferToThread(int)\n"
        "    def test_at_once(self):\n"
        "        pass\n"
        "    async def test_fails(self):\n"
        "        await task.deferLater(reactor, 0)\n"
        "        self.fail('as it should')\n"
        "def test_last():\n"
        "    return task.deferLater(reactor, 0)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-W", "error", "."),
            *("-p", "no:randomly", "-p", "no:cacheprovider", "-p", "deferpost.testing.trialcases"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search("1 failed, 5 passed in", done.stdout), done.stdout + done.stderr
    assert "as it should" in done.stdout
