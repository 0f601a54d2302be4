"""PUT: jobs whose ids their clients have chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.logger import capturedLogs
from twisted.web.server import Site

from deferpost.errors import HTTPError
from deferpost.model import CallHead, Delivery, State
from deferpost.web.exchange import OpenExchanges
from deferpost.web.jobs import JOBS, JobsContext, JobTree, base_of, job_document, url_of
from deferpost.web.kept import Keeping
from deferpost.web.post import PostContext
from deferpost.web.put import JobPuts
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.keeping import Bench, route
from tests.web import Client, Response

SYNC = route("/sync", delivery=Delivery.SYNC)


def gate(head: CallHead) -> str:
    """Whoever says who they are is believed."""
    for name, value in head.headers:
        if name.lower() == b"x-user":
            return value.decode()
    raise HTTPError(401, "Who are you?")


class Served(Bench):
    """Kept jobs, as the daemon serves them."""

    def __init__(self, wire: bool, asked: bool) -> None:
        routes = (route(), SYNC)
        super().__init__(routes=routes)

        def document(request: Any, record: Any) -> bytes:
            return job_document(record, base_of(request, "", None), None, self.wall())

        context = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=self.clock.seconds,
            open_exchanges=OpenExchanges(),
            timeout=30.0,
            max_body=100,
            gate=gate if asked else None,
            keeping=Keeping(
                keeper=self.keeper,
                ttl=100.0,
                document=document,
                url=lambda request, id: url_of(base_of(request, "", None), id),
                check_hook=lambda url: url,
                wall=self.wall,
            ),
        )
        jobs = JobsContext(
            keeper=self.keeper,
            clock=self.clock,
            wall=self.wall,
            gate=context.gate,
            put=JobPuts(routes, context),
        )
        root = AppResource(routes, context, trees=[(JOBS, JobTree(jobs))])
        self.site: Any = (
            DeferPostSite(root, limits=Limits(), reactor=self.clock)
            if wire
            else Site(root, reactor=self.clock)
        )
        self._clients: list[Client] = []

    def put(self, path: str, body: bytes = b"body", *headers: str, method: str = "PUT") -> Response:
        client = Client(self.site)
        self._clients.append(client)
        client.request(method, path, body, *headers)
        self.turn()
        return client.response()

    def close(self) -> None:
        """See :meth:`Bench.close`."""
        for client in self._clients:
            client.leave()
        super().close()


@contextmanager
def serving(wire: bool, asked: bool = False) -> Iterator[Served]:
    with capturedLogs() as logs:
        served = Served(wire, asked)
        yield served
        served.close()
    assert [event for event in logs if "log_failure" in event] == []


both_sites = pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
PATH = "/jobs/order-7?route=/rst"


@both_sites
def test_the_same_job(wire: bool) -> None:
    """The same call with the same id is one job: accepted, then found, then found ended."""
    with serving(wire) as served:
        first = served.put(PATH)
        assert first.status == 202
        assert first.json["id"] == "order-7"
        assert str(first.header("location")).endswith("/jobs/order-7")
        second = served.put(PATH)
        assert (second.status, second.json["state"]) == (202, "running")
        assert served.pool.begun == [first.header("x-request-id")]
        served.pool.give()
        served.turn()
        third = served.put(PATH)
        assert (third.status, third.json["state"]) == (200, "succeeded")
        assert len(served.pool.begun) == 1
        assert served.state("order-7") == (State.SUCCEEDED, None)


@both_sites
@pytest.mark.parametrize(
    ("path", "body"),
    [(PATH, b"other"), (f"{PATH}&more=1", b"body")],
    ids=["body", "query"],
)
def test_another_call(wire: bool, path: str, body: bytes) -> None:
    """Another call with the id of a job is the client's mistake."""
    with serving(wire) as served:
        assert served.put(PATH).status == 202
        refused = served.put(path, body)
        assert (refused.status, refused.json["reason"]) == (422, "job_id_reused")
        assert len(served.pool.begun) == 1


@both_sites
def test_of_somebody_else(wire: bool) -> None:
    """The id of somebody else's job is taken, and nothing is told of it, whatever the call."""
    with serving(wire, asked=True) as served:
        assert served.put(PATH).status == 401
        assert served.put(PATH, b"body", "X-User: ann").status == 202
        for body in (b"body", b"other"):
            refused = served.put(PATH, body, "X-User: ben")
            assert (refused.status, refused.json["reason"]) == (422, "job_id_reused")
            assert b"ann" not in refused.body
        assert served.put(PATH, b"body", "X-User: ann").status == 202


@both_sites
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/order-7", 400),
        ("/jobs/order-7?route=/rst&route=/rst", 400),
        ("/jobs/order-7?route=/nowhere", 404),
        ("/jobs/order-7?route=/sync", 409),
        ("/jobs/not%20an%20id?route=/rst", 400),
    ],
)
def test_refused(wire: bool, path: str, status: int) -> None:
    """What cannot be a job is refused, with a sentence, and nothing is kept."""
    with serving(wire) as served:
        refused = served.put(path)
        assert refused.status == status
        assert refused.json["detail"]
        assert not served.pool.begun
        assert json.loads(served.put("/jobs", b"", method="GET").body)["jobs"] == []


@both_sites
def test_too_large(wire: bool) -> None:
    """The route's bound holds."""
    with serving(wire) as served:
        refused = served.put(PATH, bytes(101))
        assert (refused.status, refused.json["reason"]) == (413, "body_too_large")


@both_sites
def test_waits(wire: bool) -> None:
    """With ``wait`` the document is that of the job when it has ended."""
    with serving(wire) as served:
        client = Client(served.site)
        served._clients.append(client)
        client.request("PUT", PATH, b"body", "Prefer: wait=10")
        served.turn()
        served.pool.give()
        served.turn()
        response = client.response()
        assert (response.status, response.json["state"]) == (200, "succeeded")
