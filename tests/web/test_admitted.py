"""Which calls are let in, before and after their bodies, and on what terms."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
from twisted.internet.address import UNIXAddress

from deferpost.credentials import Admitted
from deferpost.dispatch import Dispatcher
from deferpost.errors import PoolBroken, ShuttingDown
from deferpost.jobs import Job
from deferpost.model import Route
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.web import Client, Served, answer_of, route, serving

#: How many calls the pool of these tests takes.
PLACES = 12


@contextmanager
def wired(
    *routes: Route,
    wire: bool = True,
    max_held: int = 0,
    max_jobs_per_client: int = 0,
    **context: Any,
) -> Iterator[Served]:
    """Serve routes on our own wire, or on a site of Twisted's."""
    found = routes or (route(),)
    with serving(*found) as served:
        served.dispatcher = Dispatcher(
            {"fake": served.pool},
            served.clock.seconds,
            max_held={"fake": max_held},
            max_jobs_per_client=max_jobs_per_client,
        )
        root = AppResource(found, attrs.evolve(served.context, **context), ())
        served.root = root
        served.site.resource = root
        if wire:
            served.site = DeferPostSite(root, limits=Limits(), reactor=served.clock)
        clients: list[Client] = []
        connect = served.connect

        def connected() -> Client:
            clients.append(connect())
            return clients[-1]

        served.connect = connected  # type: ignore[method-assign]  # to see all off in the end
        yield served
        for client in clients:
            client.leave()


def begin(served: Served, length: int | None, *headers: str, path: str = "/rst") -> Client:
    """A client that has sent the head of a POST, and nothing of its body."""
    client = served.connect()
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: x", framing, *headers]
    client.send("\r\n".join((*lines, "", "")).encode("latin-1"))
    return client


def is_open(served: Served) -> bool:
    """Whether the pool takes one more call."""
    client = served.connect()
    client.post("/rst", b"x")
    if client.received:
        assert client.response().status in (429, 503)
        return False
    client.leave()
    return True


def fill(served: Served, count: int) -> list[Client]:
    """As many calls as that, each of a client of its own."""
    clients = [served.connect() for _ in range(count)]
    for client in clients:
        client.post("/rst", b"")
    assert not any(client.received for client in clients)
    return clients


# Places.


def test_an_upload_has_a_place() -> None:
    """A call whose body is arriving is not refused when it is whole, whatever came meanwhile."""
    with wired() as served:
        client = begin(served, 4)
        fill(served, PLACES - 1)
        refused = served.connect()
        refused.post()
        response = refused.response()
        assert (response.status, response.json["reason"]) == (503, "pool_full")
        assert response.header("retry-after") == "1"
        assert response.header("ratelimit-policy") == '"pool";q=12;qu="concurrent-requests"'
        assert response.header("ratelimit") == '"pool";r=0;t=1'
        client.send(b"body")
        assert client.received == b""
        assert len(served.pool.jobs) == PLACES


def test_uploads_do_not_share_a_place() -> None:
    """For one free place one upload is accepted, and the next is refused before its body."""
    with wired() as served:
        fill(served, PLACES - 1)
        first, second = begin(served, 4), begin(served, 4, "Expect: 100-continue")
        assert first.received == b""
        assert second.received.startswith(b"HTTP/1.1 503 ")
        first.send(b"body")
        assert len(served.pool.jobs) == PLACES


@pytest.mark.parametrize("how", ["leaves", "too slow", "too large", "answered"])
def test_a_place_is_given_back(how: str) -> None:
    """Whatever becomes of an upload, its place and its bytes are free again."""
    with wired(max_held=60, max_jobs_per_client=1) as served:
        client = begin(served, None if how == "too large" else 50)
        assert not is_open(served)
        if how == "leaves":
            client.send(b"b")
            client.leave()
        elif how == "too slow":
            for _ in range(60):
                served.clock.advance(1)
            assert client.received.startswith(b"HTTP/1.1 408 ")
        elif how == "too large":
            client.send(b"65\r\n" + b"b" * 101 + b"\r\n0\r\n\r\n")
            assert client.received.startswith(b"HTTP/1.1 413 ")
        else:
            client.send(b"b" * 50)
            served.pool.start()
            served.pool.give(answer_of(b"done"))
            assert client.response().status == 200
        assert is_open(served)
        assert is_open(served)


def test_a_place_of_a_body_that_could_not_be_kept() -> None:
    """A call that fails when its body is whole has nothing left."""
    with wired(max_held=60) as served:
        served.pool.refusal = RuntimeError("a defect")
        client = begin(served, 50)
        client.send(b"b" * 50)
        assert client.response().status == 500
        served.flush_failures()
        served.pool.refusal = None
        fill(served, PLACES)


@pytest.mark.parametrize("refusal", [PoolBroken("fake", 7), ShuttingDown("no")])
def test_a_pool_that_runs_nothing(refusal: Exception) -> None:
    """A call is refused before its body where the pool could not run it."""
    with wired() as served:
        served.dispatcher = _Foreseeing(served, refusal)
        client = begin(served, 50)
        assert client.response().status == 503
        assert served.pool.jobs == []


def test_nothing_is_accepted_before_the_end() -> None:
    """A service that stops refuses uploads that begin, and those that end."""
    with wired() as served:
        client = begin(served, 4)
        served.dispatcher.close()
        later = begin(served, 4)
        assert later.response().json["reason"] == "shutdown"
        client.send(b"body")
        assert client.response().json["reason"] == "shutdown"


class _Foreseeing(Dispatcher):
    """A dispatcher whose pool says beforehand that it would refuse."""

    def __init__(self, served: Served, refusal: Exception) -> None:
        from zope.interface import directlyProvides

        from deferpost.interfaces import IForeseeable, IWorkerPool

        def check() -> None:
            raise refusal

        pool: Any = served.pool
        pool.check = check
        directlyProvides(pool, IForeseeable, IWorkerPool)
        super().__init__({"fake": pool}, served.clock.seconds)


# Bytes.


def test_bytes_of_bodies() -> None:
    """What the bodies of a pool's calls take together is bounded, from the head to the end."""
    with wired(max_held=100) as served:
        uploading, whole = begin(served, 60), served.connect()
        whole.post("/rst", b"w" * 40)
        for refused in (begin(served, 30), served.connect()):
            if not refused.received:
                refused.post("/rst", b"x")
            response = refused.response()
            assert (response.status, response.json["reason"]) == (503, "pool_full")
            assert response.header("ratelimit-policy") == '"pool";q=100;qu="content-bytes"'
            assert response.header("ratelimit") == '"pool";r=0;t=1'
        uploading.send(b"u" * 60)
        served.pool.start(0)
        served.pool.give(answer_of(b"done"), 0)
        assert whole.response().status == 200
        served.connect().post("/rst", b"y" * 40)
        assert len(served.pool.jobs) == 3


def test_a_large_body_alone() -> None:
    """A body over the bound is let in where no other is held."""
    with wired(max_held=10) as served:
        client = begin(served, 90)
        assert not is_open(served)
        client.send(b"b" * 90)
        assert not is_open(served)
        fill(served, 3)  # which have no bodies
        assert [len(body) for body in served.pool.bodies] == [90, 0, 0, 0]


def test_a_chunked_body_counts_as_the_largest() -> None:
    """A body that does not say how long it is counts as long as it may be, until it is whole."""
    with wired(max_held=120) as served:
        client = begin(served, None)
        second = begin(served, 30)
        assert second.response().status == 503
        client.send(b"4\r\nbody\r\n0\r\n\r\n")
        assert served.pool.bodies[-1] == b"body"
        assert not begin(served, 90).received


# Clients.


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
def test_a_client_over_its_bound(wire: bool) -> None:
    """A client with as many calls as it may have gets 429, and another one is served."""
    with wired(wire=wire, max_jobs_per_client=2) as served:
        fill(served, 2)
        refused = served.connect()
        refused.post()
        response = refused.response()
        assert (response.status, response.json["reason"]) == (429, "client_quota")
        assert response.json["title"] == "Too Many Requests"
        assert refused.received.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert response.header("retry-after") == "1"
        assert response.header("ratelimit-policy") == '"client";q=2;qu="concurrent-requests"'
        assert response.header("ratelimit") == '"client";r=0;t=1'
        served.pool.start(0)
        served.pool.give(answer_of(b"done"), 0)
        fill(served, 1)
        assert not is_open(served)


def test_a_client_over_its_bound_before_its_body() -> None:
    """Uploads count, and one too many is refused before it begins."""
    with wired(max_jobs_per_client=2) as served:
        clients = [begin(served, 4) for _ in range(3)]
        assert [client.received[:12] for client in clients] == [b"", b"", b"HTTP/1.1 429"]
        clients[0].leave()
        assert begin(served, 4).received == b""


def test_clients_by_who_they_are() -> None:
    """Clients that have proved who they are are counted by that, wherever they come from."""

    def gate(head: Any) -> Any:
        name = dict(head.headers).get(b"X-Name")
        return Admitted(principal=None if name is None else name.decode())

    with wired(max_jobs_per_client=1, gate=gate) as served:
        statuses = []
        for name in ("ann", "bob", "ann", None, None):
            client = served.connect()
            client.post("/rst", b"x", *([] if name is None else [f"X-Name: {name}"]))
            statuses.append(client.response().status if client.received else None)
        assert statuses == [None, None, 429, None, 429]
        assert [job.head.principal for job in served.pool.jobs] == ["ann", "bob", None]


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
def test_replies_tell_what_is_left(wire: bool) -> None:
    """Where clients have a bound, each reply says how many more calls this one may have."""
    with wired(wire=wire, max_jobs_per_client=3, tells_quota=True) as served:
        clients = fill(served, 2)
        for number, (left, client) in enumerate(zip((2, 3), clients, strict=True)):
            served.pool.start(number)
            served.pool.give(answer_of(b"done"), number)
            response = client.response()
            assert response.header("ratelimit-policy") == '"client";q=3;qu="concurrent-requests"'
            assert response.header("ratelimit") == f'"client";r={left}'


def test_clients_on_a_unix_socket() -> None:
    """Clients that cannot be told apart have no bound."""
    with wired(max_jobs_per_client=1, wire=False, tells_quota=True) as served:
        for _ in range(3):
            client = served.connect()
            client.transport.peerAddr = UNIXAddress("/run/x")
            client.post()
        assert len(served.pool.jobs) == 3
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert client.response().header("ratelimit") is None


# Terms.


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
def test_limits_of_a_job(wire: bool) -> None:
    """A job has the limits of its route, or else those that are configured; the client shortens."""
    routes = (
        route("/own", queue_timeout=2.0, total_timeout=20.0),
        route("/usual"),
    )
    with wired(*routes, wire=wire, queue_timeout=3.0, total_timeout=30.0) as served:
        served.clock.advance(100)
        for path, *headers in (
            ("/own",),
            ("/usual",),
            ("/own", "X-Timeout: 10s"),
            ("/own", "X-Timeout: 1"),
            ("/usual", "X-TIMEOUT: 1h"),
        ):
            served.connect().post(path, b"", *headers)
        jobs = served.pool.jobs
        assert [job.created for job in jobs] == [100.0] * 5
        assert [job.head.finish_by for job in jobs] == [120.0, 130.0, 110.0, 101.0, 130.0]
        assert [job.start_by for job in jobs] == [102.0, 103.0, 102.0, 101.0, 103.0]


def test_no_limits() -> None:
    """A job has none where nobody has set any."""
    with wired() as served:
        served.connect().post()
        (job,) = served.pool.jobs
        assert (job.start_by, job.head.finish_by, job.urgency) == (None, None, 3)


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
def test_urgency_of_a_job(wire: bool) -> None:
    """A job is as urgent as its client asks, up to what is configured."""
    with wired(wire=wire, most_urgent=2) as served:
        for value in ("u=0", "u=5, i", "u=9", "rubbish("):
            served.connect().post("/rst", b"", f"Priority: {value}")
        assert [job.urgency for job in served.pool.jobs] == [2, 5, 3, 3]


def test_retries_of_a_job() -> None:
    """A job is tried again as often as its route says."""
    with wired(route("/rst", retries=2)) as served:
        served.connect().post()
        assert served.pool.jobs[0].retries == 2


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
def test_malformed_timeout(wire: bool) -> None:
    """A timeout that makes no sense is the client's mistake, and nothing runs."""
    with wired(wire=wire) as served:
        client = served.connect()
        client.post("/rst", b"x", "X-Timeout: soon")
        response = client.response()
        assert response.status == 400
        assert response.json["detail"].startswith("X-Timeout is a duration")
        assert served.pool.jobs == []


def test_malformed_timeout_before_the_body() -> None:
    """It is refused before the body, where the wire lets that be."""
    with wired() as served:
        client = begin(served, 50, "X-Timeout: 1s", "X-Timeout: 2s", "Expect: 100-continue")
        assert client.response().status == 400
        fill(served, PLACES)


def test_deadline_that_cannot_be_met() -> None:
    """A call that by what was measured cannot be in time is refused at once, with a pause."""
    with wired() as served:
        for _ in range(12):  # one after the other, each of two seconds
            (client,) = fill(served, 1)
            served.pool.start()
            served.clock.advance(2)
            served.pool.give(answer_of(b"done"))
            client.leave()
        fill(served, 8)
        late = begin(served, 50, "X-Timeout: 5s")
        response = late.response()
        assert (response.status, response.json["reason"]) == (503, "deadline_unmeetable")
        # Eight that wait, two at once, and two seconds for itself: five too many.
        assert response.header("retry-after") == "5"
        assert begin(served, 50, "X-Timeout: 1m").received == b""
        assert begin(served, 50).received == b""


def test_a_streaming_route_holds_nothing() -> None:
    """A body that its handler reads while it arrives does not count, however long it is."""
    with wired(route("/stream", stream=True), route()) as served:
        submit = served.pool.submit

        def unread(job: Job) -> Any:
            job.body = io.BytesIO()
            return submit(job)

        served.pool.submit = unread  # type: ignore[method-assign]  # it reads bodies that are whole
        now = served.clock.seconds
        served.dispatcher = Dispatcher({"fake": served.pool}, now, max_held={"fake": 10})
        for length in (90, 90, None):
            assert begin(served, length, path="/stream").received == b""
        assert [job.held for job in served.pool.jobs] == [0, 0, 0]
        assert [job.body_bytes for job in served.pool.jobs] == [90, 90, None]
        assert is_open(served)
