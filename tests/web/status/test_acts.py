"""What operators do: cancel a job, restart a worker, read the stack of a job."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from deferpost.model import Reason, State
from deferpost.web.status.acts import MAX_BODY
from deferpost.web.status.resources import MAX_STACK, MAX_STACKS, STACK_SECONDS
from tests.web import Client, answer_of
from tests.web.status import BEARER, JSON, Looked, looked

both_sites = pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])


def body(**members: object) -> bytes:
    return json.dumps(members).encode()


@both_sites
def test_cancel_a_job_that_runs(wire: bool) -> None:
    """Its client is answered 503, and the job is "canceling" until its code has ended."""
    with looked(wire=wire) as daemon:
        job, client = daemon.job()
        response = daemon.act("/cancel", body(pool="fake", job=job.key, id="id-1"))
        assert (response.status, response.header("content-type")) == (200, "application/json")
        assert response.json == {
            "pool": "fake",
            "job": job.key,
            "id": "id-1",
            "state": "canceling",
        }
        assert daemon.pool.canceled == [Reason.REQUESTED]
        answer = client.response()
        assert (answer.status, answer.json["reason"]) == (503, "requested")
        daemon.pool.give(answer_of(b"too late"))
        assert job.state is State.CANCELED
        assert "[id-1] /rst: the operator boss cancels it" in daemon.log_lines


def test_cancel_a_job_that_waits() -> None:
    """It is removed at once and never runs."""
    with looked() as daemon:
        job, client = daemon.job(started=False)
        response = daemon.act("/cancel", body(pool="fake", job=job.key))
        assert response.json["state"] == "canceled"
        assert client.response().status == 503


@pytest.mark.parametrize(
    "members",
    [
        {"pool": "fake", "job": 99},
        {"pool": "none", "job": 1},
        {"pool": "fake", "job": 1, "id": "of another job with this key, before a reload"},
    ],
)
def test_cancel_what_is_not_there(members: dict[str, object]) -> None:
    """A job that is not known, or is another than was meant, is left alone."""
    with looked() as daemon:
        job, _ = daemon.job()
        assert job.key == 1
        response = daemon.act("/cancel", body(**members))
        assert response.status == 404
        assert response.json["detail"] == "There is no such job, or it has ended."
        assert job.state is State.RUNNING


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{",
        b"[]",
        b'"\xff"',
        b'{"pool": "fake"}',
        b'{"pool": "fake", "job": "1"}',
        b'{"pool": "fake", "job": 1.5}',
        b'{"pool": "fake", "job": 1, "force": true}',
        b"[" * 4000,
    ],
)
def test_a_body_that_makes_no_sense(wrong: bytes) -> None:
    """It is answered 400, with what is wrong."""
    with looked() as daemon:
        response = daemon.act("/cancel", wrong)
        assert response.status == 400
        assert response.json["detail"].startswith("The body is not what is wanted here: ")


@both_sites
def test_a_body_that_is_too_large(wire: bool) -> None:
    """It is answered 413; on our own wire before it is sent."""
    with looked(wire=wire) as daemon:
        assert daemon.act("/cancel", b" " * (MAX_BODY + 1)).status == 413
        client = daemon.connect()
        fields = f"{BEARER}\r\n{JSON}\r\nContent-Length: {MAX_BODY + 1}"
        client.send(
            f"POST /_deferpost/cancel HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n\r\n".encode()
        )
        assert client.received.startswith(b"HTTP/1.1 413 ") is wire


def test_refused_before_the_body() -> None:
    """Who has no token is told so without having sent a body."""
    with looked() as daemon:
        client = daemon.connect()
        fields = "Content-Type: application/json\r\nContent-Length: 20\r\nExpect: 100-continue"
        client.send(
            f"POST /_deferpost/cancel HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n\r\n".encode()
        )
        assert client.received.startswith(b"HTTP/1.1 401 ")


@both_sites
def test_restart_a_worker(wire: bool) -> None:
    """The pool replaces it, and the log says who wanted it."""
    with looked(wire=wire) as daemon:
        response = daemon.act("/restart", body(pool="fake", worker="idle-0"))
        assert (response.status, response.json) == (200, {"pool": "fake", "worker": "idle-0"})
        assert daemon.pool.restarted == ["idle-0"]
        assert "the operator boss restarts worker idle-0 of pool fake" in daemon.log_lines


@pytest.mark.parametrize(("pool", "worker"), [("fake", "x"), ("none", "x"), ("closed", "x")])
def test_restart_what_cannot_be(pool: str, worker: str) -> None:
    """A worker that is not there, or cannot be replaced, is answered 404."""
    with looked() as daemon:
        assert daemon.act("/restart", body(pool=pool, worker=worker)).status == 404


@pytest.mark.parametrize("path", ["/cancel", "/restart"])
def test_acts_take_posts_alone(path: str) -> None:
    """A link or an image cannot act: every method but POST is answered 405."""
    with looked() as daemon:
        for method in ("GET", "PUT", "DELETE"):
            response = daemon.ask(path, method=method)
            assert (response.status, response.header("allow")) == (405, "OPTIONS, POST")
        response = daemon.ask(path, method="OPTIONS")
        assert (response.status, response.header("allow")) == (204, "OPTIONS, POST")
        assert response.header("access-control-allow-origin") is None


# Stacks.


def ask_stack(daemon: Looked, query: str) -> Client:
    """Ask for a stack, which is told later."""
    client = daemon.connect()
    client.request("GET", f"/_deferpost/stack?{query}", b"", BEARER)
    return client


@both_sites
def test_the_stack_of_a_job(wire: bool) -> None:
    """It is plain text, as the worker tells it, of which the end is kept."""
    with looked(wire=wire) as daemon:
        job, _ = daemon.job()
        client = ask_stack(daemon, f"pool=fake&job={job.key}")
        assert client.received == b""
        daemon.pool.stacks[0].callback(
            "x" * MAX_STACK + '  File "a.py", line 1, in <b>\u2028\udc80'
        )
        response = client.response()
        assert response.status == 200
        assert response.header("content-type") == "text/plain; charset=utf-8"
        assert response.body.endswith("line 1, in <b>\u2028\\udc80".encode())
        assert len(response.body) < MAX_STACK + 20


@pytest.mark.parametrize(
    "query", ["pool=fake&job=9", "pool=none&job=1", "pool=closed&job=1", "pool=%FF&job=1"]
)
def test_the_stack_of_what_is_not_there(query: str) -> None:
    """A job that does not run, and a pool that lets nobody look, are answered 404."""
    with looked() as daemon:
        daemon.job()
        response = ask_stack(daemon, query).response()
        assert response.status == 404
        assert response.json["detail"]


@pytest.mark.parametrize(
    "query",
    ["", "pool=fake", "pool=fake&job=x", "pool=fake&job=-1", "job=%D9%A1", f"job={10**19}"],
)
def test_a_query_that_makes_no_sense(query: str) -> None:
    """It is answered 400."""
    with looked() as daemon:
        assert ask_stack(daemon, query).response().status == 400
        assert ask_stack(daemon, f"pool=fake&job=1{'&a=b' * 7}").response().status == 400


def test_a_job_that_ends_meanwhile() -> None:
    """It has no stack any more: 404."""
    with looked() as daemon:
        job, _ = daemon.job()
        client = ask_stack(daemon, f"pool=fake&job={job.key}")
        daemon.pool.stacks[0].errback(LookupError("It has ended."))
        response = client.response()
        assert (response.status, response.json["detail"]) == (
            404,
            "That job does not run, or not any more.",
        )


def test_a_worker_that_does_not_tell() -> None:
    """Nobody waits for ever: 504."""
    with looked() as daemon:
        job, _ = daemon.job()
        client = ask_stack(daemon, f"pool=fake&job={job.key}")
        daemon.clock.advance(STACK_SECONDS)
        assert client.response().status == 504


def test_a_pool_that_fails() -> None:
    """A defect is logged, and told to nobody else."""
    with looked() as daemon:
        job, _ = daemon.job()
        client = ask_stack(daemon, f"pool=fake&job={job.key}")
        daemon.pool.stacks[0].errback(OSError("/secret/path"))
        response = client.response()
        assert (response.status, b"secret" in response.body) == (500, False)
        assert daemon.forget_failures() == ["OSError"]


def test_so_many_stacks_at_once_and_no_more() -> None:
    """Workers are not interrupted by a flood of requests: 503, until one has been told."""
    with looked() as daemon:
        job, _ = daemon.job()
        query = f"pool=fake&job={job.key}"
        clients = [ask_stack(daemon, query) for _ in range(MAX_STACKS)]
        response = ask_stack(daemon, query).response()
        assert (response.status, response.header("retry-after")) == (503, "1")
        assert len(daemon.pool.stacks) == MAX_STACKS
        daemon.pool.stacks[0].callback("one")
        assert clients[0].response().body == b"one"
        ask_stack(daemon, query)
        assert len(daemon.pool.stacks) == MAX_STACKS + 1


@both_sites
@pytest.mark.parametrize("fails", [True, False])
def test_who_asked_for_a_stack_and_left(fails: bool, wire: bool) -> None:
    """What is told to nobody is dropped, and counts no more."""
    with looked(wire=wire) as daemon:
        job, _ = daemon.job()
        query = f"pool=fake&job={job.key}"
        for _ in range(MAX_STACKS + 1):
            client = ask_stack(daemon, query)
            client.leave()
            told: Deferred[str] = daemon.pool.stacks[-1]
            told.errback(OSError("late")) if fails else told.callback("late")
            assert client.received == b""
