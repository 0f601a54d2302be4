"""Bodies that have to agree with the digest that was signed, on any site and route."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.server import Site

from deferpost.bodies import SpooledBody
from deferpost.credentials import Admitted
from deferpost.digests import content_digest, expected_digest
from deferpost.errors import BodyBroken, BodyTooLarge, HTTPError, StorageFailed
from deferpost.model import CallHead, Route
from deferpost.web.checked import AT_ONCE, CheckedBody, CheckedUpload
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.web import Client, Served, answer_of, route, serving

MAX_BODY = 8 * AT_ONCE


def gate(head: CallHead) -> Admitted | str:
    """Hold bodies to their digest, and trust whoever says no digest."""
    lines = [value for name, value in head.headers if name == b"Content-Digest"]
    return Admitted("ci", expected_digest(lines)) if lines else "alice"


@contextmanager
def gated(*routes: Route) -> Iterator[Served]:
    """Serve routes behind that gate."""
    with serving(*routes) as served:
        context = attrs.evolve(served.context, gate=gate, max_body=MAX_BODY)
        served.root = AppResource(routes or (route(),), context)
        served.site = Site(served.root, reactor=served.clock)
        yield served


def wired(served: Served, keep: Any = None) -> Client:
    """A client of a site of our own wire."""
    site: Any = DeferPostSite(served.root, limits=Limits(), reactor=served.clock)
    if keep is not None:
        site.getContentFile = lambda length: keep()
    return Client(site)


def digest_of(body: bytes) -> str:
    """The header field of a body."""
    return f"Content-Digest: {content_digest(body)}"


def test_who_calls() -> None:
    """The job knows who calls, by a name alone or with a digest."""
    with gated() as served:
        served.connect().post("/rst", b"body")
        served.connect().post("/rst", b"body", digest_of(b"body"))
        wired(served).post("/rst", b"body")
        assert [job.head.principal for job in served.pool.jobs] == ["alice", "ci", "alice"]


@pytest.mark.parametrize("connect", [Served.connect, wired])
@pytest.mark.parametrize("body", [b"", b"body"])
def test_small_bodies(connect: Any, body: bytes) -> None:
    """A body that came with its head is run if it is right, and refused if it is not."""
    with gated() as served:
        client = connect(served)
        client.post("/rst", body, digest_of(body))
        assert served.pool.bodies == [body]
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert client.response().body == b"done"
        client = connect(served)
        client.post("/rst", body + b"x", digest_of(body))
        assert client.response().status == 400
        assert client.response().json["reason"] == "digest_mismatch"
        assert len(served.pool.jobs) == 1


LARGE = bytes(range(256)) * (3 * AT_ONCE // 256)


def send_in_pieces(client: Client, body: bytes, *fields: str, chunked: bool = False) -> None:
    """Send a request whose body comes after its head, piece by piece."""
    how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    client.request("POST", "/rst", b"", how, *fields)
    for start in range(0, len(body), 50_000):
        piece = body[start : start + 50_000]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        client.send(b"0\r\n\r\n")


KEEPERS = [None, tempfile.TemporaryFile, lambda: SpooledBody(1000, MAX_BODY)]


@pytest.mark.parametrize("keep", KEEPERS, ids=["default", "file", "spooled"])
@pytest.mark.parametrize("chunked", [False, True])
def test_kept_as_it_comes(keep: Any, chunked: bool) -> None:
    """On our wire a body is hashed while it comes, wherever the site keeps it."""
    with gated() as served:
        client = wired(served, keep)
        send_in_pieces(client, LARGE, digest_of(LARGE), chunked=chunked)
        assert served.pool.bodies == [LARGE]
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        send_in_pieces(client, LARGE[:-1] + b"x", digest_of(LARGE), chunked=chunked)
        done, refused = client.responses()
        assert (done.status, refused.status) == (200, 400)
        assert refused.json["reason"] == "digest_mismatch"
        assert len(served.pool.jobs) == 1
        client.post("/rst", b"next", digest_of(b"next"))  # the connection goes on
        assert served.pool.bodies[1:] == [b"next"]


def test_too_large() -> None:
    """A body over the limit is 413 whatever its digest, and one that nobody sends on is nothing."""
    with gated() as served:
        client = wired(served)
        client.request("POST", "/rst", b"", "Transfer-Encoding: chunked", digest_of(b"x"))
        client.send(b"%x\r\n" % (MAX_BODY + 1) + b"x" * 1000)
        assert client.response().status == 413
        client = wired(served)
        client.request("POST", "/rst", b"", "Content-Length: 10", digest_of(b"x"))
        client.send(b"x")
        client.leave()
        client = wired(served)
        client.request("POST", "/rst", b"", "Transfer-Encoding: chunked", digest_of(b"x"))
        client.send(b"not a chunk\r\n")
        assert client.response().status == 400
        assert "reason" not in client.response().json
        assert served.pool.jobs == []


class _Full:
    """A file on a disk without room."""

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        """Nothing is held."""


def test_no_room() -> None:
    """Where the disk is full, the client may try again, and the rest of its body is nothing."""
    with gated() as served:
        client = wired(served, _Full)
        send_in_pieces(client, LARGE, digest_of(LARGE))
        (response,) = client.responses()
        assert (response.status, response.json["reason"]) == (503, "storage_failed")
        client = wired(served, lambda: SpooledBody(1000, MAX_BODY, "/nonexistent"))
        send_in_pieces(client, LARGE, digest_of(LARGE))
        assert client.response().json["reason"] == "storage_failed"
        assert served.pool.jobs == []
        assert len(served.log_lines) == 2


def test_what_follows_a_failure() -> None:
    """Once a client was told that its body is not kept, nothing else is told."""
    told: list[object] = []
    request: Any = SimpleNamespace(handleContentChunk=_Full().write)
    digest = expected_digest([content_digest(b"").encode()])
    upload = CheckedUpload(request, 4, digest, lambda: told.append("whole"), told.append)
    upload.receive(b"bo")
    upload.receive(b"dy")
    upload.complete()
    upload.broken(BodyTooLarge(1))
    assert [type(error) for error in told] == [StorageFailed]


# Given to the handler as it arrives


class _Handler:
    """Who reads a body as it arrives."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def chunk(self, data: bytes) -> None:
        self.heard.append(data)

    def end(self) -> None:
        self.heard.append("end")

    def fail(self, error: Exception) -> None:
        self.heard.append(error)


def test_a_handler_that_reads_hears_of_it() -> None:
    """A body that breaks its digest breaks at its end, after the handler has had its pieces."""
    for sent, last in ((b"body", "end"), (b"BODY", HTTPError)):
        body, handler = CheckedBody(expected_digest([content_digest(b"body").encode()])), _Handler()
        body.deliver_to(handler)
        body.receive(sent[:2])
        body.receive(sent[2:])
        body.complete()
        assert handler.heard[:2] == [sent[:2], sent[2:]]
        assert handler.heard[2] == last or isinstance(handler.heard[2], HTTPError)
        assert isinstance(body.error, HTTPError) is (last != "end")


def test_a_handler_that_has_enough() -> None:
    """Of a body that nobody reads any more nothing is hashed or told."""
    body = CheckedBody(expected_digest([content_digest(b"body").encode()]))
    body.close()
    body.receive(b"BODY")
    body.complete()
    assert body.error is None


def test_a_client_that_leaves() -> None:
    """A body that breaks off is broken for that reason."""
    body = CheckedBody(expected_digest([content_digest(b"body").encode()]))
    body.receive(b"bo")
    body.broken()
    body.complete()
    assert isinstance(body.error, BodyBroken)


# On a site that asks when the body is whole


@pytest.mark.parametrize("keep", [tempfile.TemporaryFile, lambda: SpooledBody(1000, MAX_BODY)])
@pytest_twisted.ensureDeferred
async def test_large_bodies_of_a_stock_site(keep: Any) -> None:
    """There a large body is hashed in turns of the reactor; then it runs or is refused."""

    class Keeping(Site):
        def getContentFile(self, length: int | None) -> Any:
            return keep()

    with gated() as served:
        site = Keeping(served.root, reactor=served.clock)
        good, bad, large, leaver = (Client(site) for _ in range(4))
        good.post("/rst", LARGE, digest_of(LARGE))
        bad.post("/rst", LARGE[:-1] + b"x", digest_of(LARGE))
        large.post("/rst", bytes(MAX_BODY + 1), digest_of(LARGE))
        leaver.post("/rst", LARGE, digest_of(LARGE))
        assert served.pool.jobs == []
        assert bad.received == b""
        assert large.response().status == 413
        leaver.leave()
        await turns(lambda: served.pool.jobs and bad.received)
        assert served.pool.bodies == [LARGE]
        assert bad.response().status == 400
        served.pool.start()
        good.leave()  # whose body is hashed long since
        served.pool.fail(HTTPError(500))
        assert leaver.received == b""


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_when_it_is_read() -> None:
    """What cannot be read again is no fault of the client."""

    class Unreadable(SpooledBody):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    class Keeping(Site):
        def getContentFile(self, length: int | None) -> Any:
            return Unreadable(1000, MAX_BODY)

    with gated() as served:
        for body in (b"x", LARGE):
            client = Client(Keeping(served.root, reactor=served.clock))
            client.post("/rst", body, digest_of(body))
            await turns(lambda: client.received)  # noqa: B023 (it is awaited here)
            assert client.response().json["reason"] == "storage_failed"
        assert len(served.log_lines) == 2


async def turns(condition: Any) -> None:
    """Let the reactor turn until something holds; at most a few thousand times."""
    from twisted.internet import reactor

    for _ in range(5000):
        if condition():
            return
        turned: Deferred[None] = deferLater(reactor, 0)
        await turned
    raise AssertionError("it does not come to hold")
