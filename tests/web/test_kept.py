"""Calls that are kept: what is answered when, and what becomes of clients that leave."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.task import Cooperator
from twisted.logger import LogEvent, capturedLogs
from twisted.web.server import Site

from deferpost.bodies import PIECE_BYTES
from deferpost.errors import HandlerFailed, HTTPError, StoreFailed
from deferpost.lifecycle import Event
from deferpost.model import Answer, CallHead, Delivery, OnDisconnect, Reason, Route, State
from deferpost.web import kept
from deferpost.web.exchange import OpenExchanges
from deferpost.web.kept import AT_ONCE, Keeping, fingerprint_of, response_of, scope_of
from deferpost.web.post import PostContext
from deferpost.web.tree import AppResource
from tests.keeping import Bench
from tests.keeping import route as bench_route
from tests.web import Client, Response


class Leaving(Client):
    """A client that leaves once."""

    has_left = False

    def leave(self) -> None:
        if not self.has_left:
            self.has_left = True
            super().leave()


class Served(Bench):
    """A bench whose routes are served."""

    def __init__(self, routes: tuple[Route, ...], **options: Any) -> None:
        super().__init__(routes=routes, **options)
        self.open_exchanges = OpenExchanges()
        self._clients: list[Client] = []
        keeping = Keeping(
            keeper=self.keeper,
            ttl=100.0,
            document=lambda request, record: json.dumps(
                {"id": record.id, "state": record.state}
            ).encode(),
            url=lambda request, id: f"http://example.com/jobs/{id}",
            check_hook=lambda url: url,
            wall=self.wall,
        )
        context = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=self.clock.seconds,
            open_exchanges=self.open_exchanges,
            timeout=30.0,
            max_body=10 * AT_ONCE,
            keeping=keeping,
        )
        self.site = Site(AppResource(routes, context, ()), reactor=self.clock)

    def connect(self) -> Client:
        client = Leaving(self.site)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """See :meth:`Bench.close`; the connections have timers, too."""
        for client in self._clients:
            client.leave()
        super().close()

    def post(self, *headers: str, body: bytes = b"body", path: str = "/rst") -> Client:
        """Send a call, and let happen what follows at once."""
        client = self.connect()
        client.post(path, body, *headers)
        self.turn()
        return client

    @property
    def ids(self) -> list[str]:
        """The jobs that were kept, in order."""
        return list(self.store._jobs)


def route(path: str = "/rst", on_disconnect: str = "cancel", **fields: Any) -> Route:
    return bench_route(path, on_disconnect=OnDisconnect(on_disconnect), **fields)


@contextmanager
def serving(*routes: Route, **options: Any) -> Iterator[Served]:
    """Serve routes; whatever happened, no exchange is left open."""
    with capturedLogs() as logs:
        served = Served(routes or (route(),), **options)
        yield served
    assert failures(logs) == []
    assert len(served.open_exchanges) == 0


def failures(logs: Any) -> list[str]:
    events: list[LogEvent] = list(logs)
    return [event["log_failure"].getTraceback() for event in events if "log_failure" in event]


def reason_of(response: Response) -> str | None:
    reason = response.json.get("reason")
    assert reason is None or isinstance(reason, str)
    return reason


ASYNC = "Prefer: respond-async"
KEY = 'Idempotency-Key: "a key"'


# 202.


def test_promised_at_once() -> None:
    """Who prefers that is told where the job is, when it is in the store."""
    with serving() as served:
        served.store.hold("accept")
        client = served.post(ASYNC, "X-Request-ID: id-7")
        assert client.received == b""
        served.store.go_on()
        served.turn()
        response = client.response()
        (id,) = served.ids
        assert response.status == 202
        assert response.json == {"id": id, "state": "queued"}
        assert response.header("Location") == f"http://example.com/jobs/{id}"
        assert response.header("Retry-After") == "1"
        assert response.header("Preference-Applied") == "respond-async"
        assert response.header("Vary") == "Prefer"
        assert response.header("Content-Type") == "application/json"
        assert response.header("X-Request-ID") == "id-7"
        assert response.header("Server-Timing") is not None
        client.leave()
        served.turn(100.0)
        served.pool.give()
        served.turn()
        assert served.state(id) == (State.SUCCEEDED, None)
        served.judge()


def test_plain_calls_are_not_kept() -> None:
    """A call that asks for nothing is answered from memory."""
    with serving() as served:
        client = served.post()
        served.pool.give(b"plain")
        assert client.response().body == b"plain"
        assert served.ids == []


def test_route_that_always_promises() -> None:
    """A route that answers later does so for everybody; nobody's preference was honoured then."""
    with serving(route(delivery=Delivery.ASYNC)) as served:
        response = served.post().response()
        assert response.status == 202
        assert response.header("Preference-Applied") is None
        served.pool.give()
        served.turn()
        served.judge()


def test_in_time() -> None:
    """An answer that is there within the time is given in place of the promise."""
    with serving() as served:
        client = served.post(f"{ASYNC}, wait=10")
        served.turn(9.0)
        assert client.received == b""
        served.pool.give(b"quick")
        served.turn()
        response = client.response()
        assert (response.status, response.body) == (200, b"quick")
        assert response.header("Content-Type") == "text/plain"
        assert response.header("Server-Timing") == "queue;dur=0.000, run;dur=9000.000"
        assert response.header("Idempotency-Replayed") is None
        assert response.header("Location") is None
        served.judge()
        served.close()


def test_not_in_time() -> None:
    """When the time is up, the client is told where the job is, as it is then."""
    with serving() as served:
        client = served.post(f"{ASYNC}, wait=10")
        served.turn(10.0)
        assert client.response().json["state"] == "running"
        assert client.response().header("Preference-Applied") == "respond-async, wait=10"
        client.leave()
        served.turn(1000.0)
        assert served.state(served.ids[0]) == (State.RUNNING, None)
        served.pool.give()
        served.turn()
        served.judge()


def test_fallback() -> None:
    """A route that falls back promises what takes longer, to those who did not ask too."""
    with serving(route(fallback=5.0)) as served:
        slow, quick = served.post(), served.post("Prefer: wait=2")
        served.turn(2.0)
        assert slow.received == b""
        assert quick.response().header("Preference-Applied") == "wait=2"
        served.turn(3.0)
        assert slow.response().status == 202
        for _ in range(2):
            served.pool.give()
            served.turn()
        served.judge()


# The result.


def test_error_as_result() -> None:
    """An error is answered as it would have been without the store."""
    with serving(route(coalesce=True)) as served:
        client = served.post("X-Request-ID: id-7")
        served.pool.fail(HTTPError(409, "Too late.", headers=(("X-A", "1"),)))
        served.turn()
        response = client.response()
        assert (response.status, response.json["detail"]) == (409, "Too late.")
        assert response.header("X-A") == "1"
        assert response.header("Content-Type") == "application/problem+json"
        assert response.json["id"] == "id-7"
        served.judge()


def test_no_content() -> None:
    """A result without a body has none."""
    with serving(route(coalesce=True)) as served:
        client = served.post()
        job = served.pool.running[0]
        answer = job.answer
        assert answer is not None
        served.pool.running.remove(job)
        job.end(Event.SUCCEED, served.clock.seconds())
        answer.callback(Answer(204, (), b"", 0))
        served.turn()
        response = client.response()
        assert (response.status, response.body) == (204, b"")
        assert response.header("Content-Length") is None


def test_large_result_at_the_pace_of_the_client() -> None:
    """A large result is written as its client reads it, whole."""
    body = bytes(range(256)) * (4 * PIECE_BYTES // 256)
    with serving(route(coalesce=True)) as served:
        client = served.connect()
        client.transport.is_full = True
        client.post()
        served.turn()
        served.pool.give(body)
        served.turn()
        assert len(client.received) < len(body)
        client.transport.is_full = False
        client.transport.read()
        served.turn()
        assert client.response().body == body
        served.judge()


def test_client_leaves_while_the_result_is_written() -> None:
    """A client that leaves in the middle harms nothing: the result is in the store."""
    with serving() as served:
        client = served.connect()
        client.transport.is_full = True
        client.post("/rst", b"body", KEY)
        served.turn()
        served.pool.give(bytes(4 * PIECE_BYTES))
        served.turn()
        client.leave()
        served.turn()
        again = served.post(KEY).response()
        assert (again.status, len(again.body)) == (200, 4 * PIECE_BYTES)
        served.judge()


# Keys.


def test_key_attaches_and_replays() -> None:
    """The same call with the same key gets the same answer, whenever it comes."""
    with serving() as served:
        first = served.post(KEY)
        second = served.post("Idempotency-Key: other", KEY.replace("a key", "other"))  # one key
        third = served.post(KEY, "X-Request-ID: another")
        served.pool.give(b"done")
        served.turn()
        assert first.response().header("Idempotency-Replayed") is None
        assert third.response().header("Idempotency-Replayed") == "true"
        assert third.response().header("X-Request-ID") == "another"
        fourth = served.post(KEY).response()
        assert [each.response().body for each in (first, third)] == [b"done"] * 2
        assert (fourth.status, fourth.body) == (200, b"done")
        assert fourth.header("Idempotency-Replayed") == "true"
        assert second.received == b""
        served.pool.give(b"second")
        served.turn()
        assert second.response().body == b"second"
        assert len(served.pool.begun) == 2
        served.judge()
        served.close()


def test_errors_are_replayed_too() -> None:
    """A call that failed is not run again for its key."""
    with serving() as served:
        served.post(KEY)
        served.pool.fail(HandlerFailed("words"))
        served.turn()
        response = served.post(KEY).response()
        assert (response.status, response.header("Idempotency-Replayed")) == (500, "true")
        assert served.pool.begun[1:] == []


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/rst", (), b"other"),
        ("/rst?a=1", (), b"body"),
        ("/rst", ("Content-Type: text/other",), b"body"),
    ],
)
def test_key_of_another_call(path: str, headers: tuple[str, ...], body: bytes) -> None:
    """A key that came with another call is a mistake of the client's, and is said to be one."""
    with serving() as served:
        served.post(KEY)
        client = served.post(KEY, *headers, path=path, body=body)
        response = client.response()
        assert (response.status, reason_of(response)) == (422, "idempotency_key_reused")
        served.pool.give()
        served.turn()
        served.judge()


def test_keys_of_other_routes() -> None:
    """A key means one thing to one route."""
    with serving(route(), route("/other"), size=2) as served:
        clients = [served.post(KEY), served.post(KEY, path="/other")]
        for body in (b"one", b"two"):
            served.pool.give(body)
            served.turn()
        assert [client.response().body for client in clients] == [b"one", b"two"]


def test_key_with_a_promise() -> None:
    """A client that comes back with its key is told where the job is, as it is now."""
    with serving() as served:
        first = served.post(KEY, ASYNC)
        again = served.post(KEY, ASYNC)
        assert [each.response().status for each in (first, again)] == [202, 202]
        assert again.response().json["state"] == "running"
        assert first.response().header("Location") == again.response().header("Location")
        served.pool.give(b"done")
        served.turn()
        assert served.post(KEY, ASYNC).response().body == b"done"
        served.judge()


def test_job_that_was_deleted_meanwhile() -> None:
    """Where the job of a key is deleted in the middle, its client is told so."""
    with serving() as served:
        served.post(KEY)
        served.pool.give()
        served.turn()
        served.store.hold("accept")
        client = served.post(KEY)
        served.run(served.keeper.delete(served.ids[0]))
        served.store.go_on()
        served.turn()
        assert client.response().status == 410


# Coalescing.


def test_the_same_calls_run_once() -> None:
    """Calls that are the same, and come while one is under way, are one job."""
    with serving(route(coalesce=True)) as served:
        clients = [served.post() for _ in range(3)]
        other = served.post(body=b"other")
        served.pool.give(b"one")
        served.turn()
        assert [client.response().body for client in clients] == [b"one"] * 3
        assert clients[1].response().header("Idempotency-Replayed") is None
        served.pool.give(b"two")
        served.turn()
        assert other.response().body == b"two"
        assert len(served.ids) == 2
        served.judge()


# Clients that leave.


@pytest.mark.parametrize("held", ["accept", "start", ""])
@pytest.mark.parametrize(
    ("headers", "options"),
    [((f"{ASYNC}, wait=9",), {}), ((), {"coalesce": True}), ((), {"fallback": 9.0})],
)
def test_client_leaves(held: str, headers: tuple[str, ...], options: dict[str, Any]) -> None:
    """Whenever a client leaves that was promised nothing, its job ends, and once."""
    with serving(route(**options)) as served:
        served.store.hold(held or "nothing")
        client = served.post(*headers)
        client.leave()
        served.turn()
        assert len(served.open_exchanges) == 0
        served.store.go_on()
        served.turn()
        served.pool.end_canceled()
        served.turn(10.0)
        (id,) = served.ids
        assert served.state(id) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
        assert client.received == b""
        served.judge()


def test_client_leaves_and_the_route_goes_on() -> None:
    """A route may let jobs go on whose client has left."""
    with serving(route(on_disconnect="finish", coalesce=True)) as served:
        client = served.post()
        client.leave()
        served.turn(100.0)
        served.pool.give()
        served.turn()
        assert served.state(served.ids[0]) == (State.SUCCEEDED, None)
        served.judge()


@pytest.mark.parametrize("comes_back", [True, False])
def test_client_with_a_key_leaves(comes_back: bool) -> None:
    """A client with a key has some time to come back."""
    with serving(grace=60.0) as served:
        served.post(KEY).leave()
        served.turn(59.0)
        assert served.state(served.ids[0]) == (State.RUNNING, None)
        again = served.post(KEY) if comes_back else None
        served.turn(2.0)
        if again is None:
            served.pool.end_canceled()
            served.turn()
            assert served.state(served.ids[0]) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
        else:
            served.pool.give(b"done")
            served.turn()
            assert again.response().body == b"done"
        served.judge()
        served.close()


def test_one_of_two_leaves() -> None:
    """Where two wait, the job goes on for the other."""
    with serving(route(coalesce=True)) as served:
        first, second = served.post(), served.post()
        first.leave()
        served.turn()
        served.pool.give(b"done")
        served.turn()
        assert second.response().body == b"done"
        served.judge()


def test_client_leaves_before_it_was_told() -> None:
    """A client that leaves while its promise is looked up was promised nothing."""
    with serving() as served:
        client = served.post(f"{ASYNC}, wait=5")
        served.store.hold("get")
        served.turn(5.0)
        client.leave()
        served.store.go_on()
        served.turn()
        served.pool.end_canceled()
        served.turn()
        assert served.state(served.ids[0]) == (State.CANCELED, Reason.CLIENT_DISCONNECTED)
        served.judge()


# What is refused.


def test_store_that_fails() -> None:
    """Where a call cannot be kept, it is refused with 503; others are served."""
    with serving() as served:
        served.store.failure = StoreFailed("/var/secret: no space is left")
        for _ in range(2):
            response = served.post(ASYNC).response()
            assert response.status == 503
            assert response.header("Retry-After") is not None
            assert b"secret" not in response.body
        plain = served.post()
        served.pool.give(b"plain")
        assert plain.response().body == b"plain"
        served.store.failure = None
        served.turn(1.0)
        assert served.post(ASYNC).response().status == 202


@pytest.mark.parametrize("operation", ["result", "get"])
def test_store_that_cannot_be_read(operation: str) -> None:
    """Where the result of a job cannot be read, its client is told to come again, and can."""
    with serving() as served:
        client = served.post(KEY, f"{ASYNC}, wait=5")
        served.store.failing = {operation}
        if operation == "result":
            served.pool.give(b"done")
        served.turn(5.0)
        assert client.response().status == 503
        served.store.failing = set()
        if operation == "get":
            served.pool.give(b"done")
            served.turn()
        assert served.post(KEY).response().body == b"done"
        served.judge()
        served.close()


def test_no_room() -> None:
    """When as many are kept as may be, more are refused with 503; replays are too, for then."""
    with serving(max_kept=1) as served:
        served.post(ASYNC)
        response = served.post(ASYNC).response()
        assert response.status == 503
        assert response.header("Retry-After") == "5"


def test_the_service_stops() -> None:
    """At the end those who wait for what waits are refused; what was promised stays."""
    with serving() as served:
        served.post(ASYNC)
        served.post(ASYNC)
        waits = served.post(KEY)
        soon = served.post(f"{ASYNC}, wait=50", KEY.replace("a key", "b"))
        served.keeper.stop_feeding()
        served.turn()
        assert waits.response().status == 503
        assert soon.response().status == 202
        assert served.post(ASYNC).response().status == 503
        served.pool.stop()
        served.pool.end_canceled()
        served.close()
        states = [served.state(id)[0] for id in served.ids]
        assert states == [State.CANCELED, State.QUEUED, State.QUEUED, State.QUEUED]


# Fingerprints, scopes, errors.


def head(**fields: Any) -> CallHead:
    return CallHead(
        "id", "/rst", "POST", fields.get("path", "/rst"), b"", fields.get("headers", ()), None, None
    )


def test_fingerprint_of_large_bodies() -> None:
    """A large body is hashed in turns of the reactor, with the same result as at once."""
    body = bytes(range(256)) * (3 * AT_ONCE // 256)
    at_once: list[bytes] = []
    fingerprint_of(head(), io.BytesIO(body), 10).addCallback(at_once.append)
    works: list[Any] = []

    def scheduler(work: Any) -> Any:
        works.append(work)
        return None

    cooperator = Cooperator(scheduler=scheduler)
    original, kept.cooperate = kept.cooperate, cooperator.cooperate  # type: ignore[attr-defined]
    try:
        file = io.BytesIO(body)
        later: list[bytes] = []
        fingerprint_of(head(), file, len(body)).addCallback(later.append)
        assert later == []
        while works:
            works.pop()()
        assert later == at_once
        assert file.tell() == 0
    finally:
        kept.cooperate = original  # type: ignore[attr-defined]


def test_scopes() -> None:
    """Keys of one principal and route are those of no other."""
    pairs = [(None, "/a"), ("ann", "/a"), (None, "/b"), ("ann", "/b"), ("", "/a b")]
    assert len({scope_of(*pair) for pair in pairs}) == len(pairs)


def test_error_as_response() -> None:
    """An error is its problem document, with its media type and its fields."""
    response = response_of(HTTPError(429, "Slow down.", headers=(("Retry-After", "3"),)), "id-7")
    assert response.status == 429
    assert (b"Content-Type", b"application/problem+json") in response.headers
    assert (b"Retry-After", b"3") in response.headers
    assert json.loads(response.body)["detail"] == "Slow down."
