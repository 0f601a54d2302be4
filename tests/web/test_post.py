"""A route as a resource: which requests become calls, and what the others are told."""

from __future__ import annotations

import io
import resource
import tempfile
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from twisted.internet.address import UNIXAddress
from twisted.web.server import Site

from deferpost.bodies import SpooledBody
from deferpost.dispatch import Dispatcher
from deferpost.errors import PoolBroken, PoolFull, ShuttingDown
from deferpost.model import Route
from deferpost.web.post import PostResource
from tests.web import Client, Served, answer_of, route, serving


def test_post_is_a_call() -> None:
    """A POST is given to the pool as it was sent, and nothing is answered before its time."""
    with serving(route(timeout=2.0)) as served:
        client = served.connect()
        client.post("/rst?a=1&b=%20", b"content", "X-Tag: a", "X-Tag: b", "X-Request-ID: id-7")
        (job,) = served.pool.jobs
        assert client.received == b""
        assert served.pool.bodies == [b"content"]
        head = job.head
        assert (head.id, head.route, head.method) == ("id-7", "/rst", "POST")
        assert (head.path, head.query) == ("/rst", b"a=1&b=%20")
        assert (head.client, head.timeout) == (("192.0.2.1", 4711), 2.0)
        assert (b"X-Tag", b"a") in head.headers
        assert (b"X-Tag", b"b") in head.headers
        assert (b"Host", b"example.com") in head.headers


def test_path_as_it_was_sent() -> None:
    """The path keeps its percent-encoding, and bytes that are none of ASCII's."""
    with serving(route("/a b")) as served:
        client = served.connect()
        client.send(b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert served.pool.jobs[0].head.path == "/a%20b"


@pytest.mark.parametrize(
    ("of_route", "configured", "expected"),
    [(None, 30.0, 30.0), (2.0, 30.0, 2.0), (None, None, None)],
)
def test_timeout(of_route: float | None, configured: float | None, expected: float | None) -> None:
    """A route without a timeout takes the configured one."""
    with serving(route(timeout=of_route), timeout=configured) as served:
        served.connect().post()
        assert served.pool.jobs[0].head.timeout == expected


def test_client_on_a_unix_socket() -> None:
    """A client without an address has none."""
    with serving() as served:
        client = served.connect()
        client.transport.peerAddr = UNIXAddress("/run/x")
        client.post()
        assert served.pool.jobs[0].head.client is None


def test_id_is_made() -> None:
    """A request without an id gets one that no other has, and its response says it."""
    with serving() as served:
        ids = set()
        for _ in range(300):
            client = served.connect()
            client.post()
            ids.add(served.pool.jobs[-1].head.id)
            served.pool.start()
            served.pool.give(answer_of(b"done"))
            assert client.response().header("x-request-id") == served.pool.jobs[-1].head.id
        assert len(ids) == 300
        assert {len(id) for id in ids} == {24}


@pytest.mark.parametrize(
    "line",
    [
        "X-Request-ID: two words",
        "X-Request-ID: caf\xe9",
        "X-Request-ID: a\x01b",
        "X-Request-ID: " + "x" * 129,
        "X-Request-ID:",
        "X-Request-ID: a\r\nX-Request-ID: b",
    ],
)
def test_id_that_is_not_taken_up(line: str) -> None:
    """An id that could forge a line of the log, or is too long, or two at once, is replaced."""
    with serving() as served:
        served.connect().post("/rst", b"body", line)
        assert len(served.pool.jobs[0].head.id) == 24


def test_longest_id() -> None:
    """An id of 128 characters is taken up."""
    with serving() as served:
        served.connect().post("/rst", b"body", "X-Request-ID: " + "~" * 128)
        assert served.pool.jobs[0].head.id == "~" * 128


@pytest.mark.parametrize(
    ("body", "of_route", "is_call"),
    [
        (b"x" * 100, None, True),
        (b"x" * 101, None, False),
        (b"x" * 5, 5, True),
        (b"x" * 6, 5, False),
        (b"", 0, True),
        (b"x", 0, False),
        (b"x" * 200, 1000, True),
    ],
)
def test_size_of_the_body(body: bytes, of_route: int | None, is_call: bool) -> None:
    """A body may be as large as its route accepts; a larger one is refused with the limit."""
    with serving(route(max_body=of_route)) as served:
        client = served.connect()
        client.post("/rst", body)
        assert len(served.pool.jobs) == is_call
        if not is_call:
            limit = 100 if of_route is None else of_route
            response = client.response()
            assert response.status == 413
            assert response.json["reason"] == "body_too_large"
            assert f"{limit} bytes" in response.json["detail"]


def test_body_too_large_in_chunks() -> None:
    """So is one whose size was not announced."""
    with serving() as served:
        client = served.connect()
        client.request("POST", "/rst", b"", "Transfer-Encoding: chunked")
        client.send(b"65\r\n" + b"x" * 0x65 + b"\r\n0\r\n\r\n")
        assert client.response().status == 413
        assert served.pool.jobs == []


def keeping(make: Callable[[], Any]) -> Callable[[Served], Client]:
    """A client of a site that keeps bodies in a file of this kind."""

    def connect(served: Served) -> Client:
        class Keeping(Site):
            def getContentFile(self, length: int | None) -> Any:
                return make()

        return Client(Keeping(served.root, reactor=served.clock))

    return connect


@pytest.mark.parametrize(
    "make",
    [
        io.BytesIO,
        tempfile.TemporaryFile,
        lambda: SpooledBody(2, 100),
        lambda: SpooledBody(50, 100),
    ],
)
def test_any_site(make: Callable[[], Any]) -> None:
    """Whatever the site keeps bodies in, the worker gets all of it."""
    with serving() as served:
        client = keeping(make)(served)
        client.post("/rst", b"content")
        assert served.pool.bodies == [b"content"]
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert client.response().body == b"done"


def test_body_that_the_site_has_dropped() -> None:
    """A body that the daemon's site did not keep, because of its size, is refused as too large."""
    with serving() as served:
        client = keeping(lambda: SpooledBody(2, 10))(served)
        client.post("/rst", b"x" * 11)
        assert client.response().status == 413
        assert "100 bytes" in client.response().json["detail"]


def test_disk_is_full() -> None:
    """Where the disk has no room for a body, the client may try again; the log knows why."""
    with serving() as served:
        client = keeping(lambda: SpooledBody(2, 100))(served)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
        try:
            client.post("/rst", b"content", "X-Request-ID: id-7")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        response = client.response()
        assert (response.status, response.json["reason"]) == (503, "storage_failed")
        assert response.header("retry-after") == "5"
        assert "too large" not in response.body.decode()
        (line,) = served.log_lines
        assert line == "[id-7] the body could not be kept: [Errno 27] File too large"
        assert served.pool.jobs == []


@pytest.mark.parametrize(
    ("refusal", "reason", "retry_after"),
    [
        (PoolFull("fake"), "pool_full", "1"),
        (PoolBroken("fake", 7), "pool_broken", "7"),
        (ShuttingDown("no"), "shutdown", "5"),
    ],
)
def test_refused_by_the_pool(refusal: Exception, reason: str, retry_after: str) -> None:
    """A POST that cannot be taken now is told when to come again, with its id."""
    with serving() as served:
        served.pool.refusal = refusal
        client = served.connect()
        client.post("/rst", b"body", "X-Request-ID: id-7")
        response = client.response()
        assert (response.status, response.json["reason"]) == (503, reason)
        assert response.header("retry-after") == retry_after
        assert response.header("x-request-id") == response.json["id"] == "id-7"
        assert response.header("server-timing") == "queue;dur=0.000, run;dur=0.000"
        assert response.header("content-type") == "application/problem+json"
        assert len(served.open_exchanges) == 0


def test_defect_of_a_pool() -> None:
    """A pool that fails in a way that nobody foresaw is a 500 that tells nothing, and is logged."""
    with serving() as served:
        served.pool.refusal = RuntimeError("/secret/path")
        client = served.connect()
        client.post("/rst", b"body", "X-Request-ID: id-7")
        response = client.response()
        assert (response.status, response.json["id"]) == (500, "id-7")
        assert b"secret" not in response.body
        assert b"Traceback" not in response.body
        assert served.flush_failures() == [served.pool.refusal]


def test_pools_that_do_not_start() -> None:
    """Where the pools cannot be started, the body is let go with its request."""

    def no_dispatcher() -> Dispatcher:
        raise PoolBroken("fake")

    with serving() as served:
        context = attrs.evolve(served.context, dispatcher=no_dispatcher)
        client = Client(Site(PostResource(route(), context), reactor=served.clock))
        client.post()
        assert client.response().status == 503


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "FROB", "post"]
)
def test_other_methods(method: str) -> None:
    """A route takes POST, and says so to all else."""
    with serving() as served:
        client = served.connect()
        client.request(method, "/rst")
        response = client.response(has_body=method != "HEAD")
        assert response.status == 405
        assert response.header("allow") == "OPTIONS, POST"
        assert response.header("x-request-id")
        assert served.pool.jobs == []
        if method != "HEAD":
            assert response.json["detail"] == "This resource takes OPTIONS, POST."
        else:
            assert response.header("content-length") != "0"


def test_options() -> None:
    """OPTIONS is answered with what there is."""
    with serving() as served:
        client = served.connect()
        client.request("OPTIONS", "/rst")
        response = client.response()
        assert (response.status, response.body) == (204, b"")
        assert response.header("allow") == "OPTIONS, POST"
        assert response.header("content-length") is None


def test_one_resource_in_an_existing_site() -> None:
    """A route can be mounted by itself, anywhere."""
    with serving() as served:
        mounted = PostResource(Route(path="/", handler=None, pool="fake"), served.context)
        assert mounted.max_body == 100
        client = Client(Site(mounted, reactor=served.clock))
        client.post("/any/where")
        assert served.pool.jobs[0].head.route == "/"
        assert served.pool.jobs[0].head.path == "/any/where"


def test_requests_on_one_connection() -> None:
    """A connection carries one request after the other, also those that were sent at once."""
    with serving() as served:
        client = served.connect()
        client.post("/rst", b"1", "X-Request-ID: a")
        client.post("/rst", b"2", "X-Request-ID: b")
        assert [job.head.id for job in served.pool.jobs] == ["a"]
        served.pool.start()
        served.pool.give(answer_of(b"first"))
        assert [job.head.id for job in served.pool.jobs] == ["a", "b"]
        served.pool.start()
        served.pool.give(answer_of(b"second"))
        assert [
            (response.header("x-request-id"), response.body) for response in client.responses()
        ] == [("a", b"first"), ("b", b"second")]
