"""An app as one resource: which path leads where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Site

from deferpost.interfaces import BodyWanted
from deferpost.web.health import Livez
from deferpost.web.tree import AppResource, segments
from deferpost.wire.site import DeferPostSite
from tests.web import Client, answer_of, route, serving


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ()),
        ("/a", (b"a",)),
        ("/a/b", (b"a", b"b")),
        ("/a/", (b"a", b"")),
        ("/é", ("é".encode(),)),
        ("/a%20b/%C3%A9", (b"a b", "é".encode())),
        ("/a%2Fb", (b"a/b",)),
        ("//", (b"", b"")),
    ],
)
def test_segments(path: str, expected: tuple[bytes, ...]) -> None:
    """A path is what comes between its slashes."""
    assert segments(path) == expected


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("/", "/"),
        ("/?a=/rst", "/"),
        ("/rst", "/rst"),
        ("/rst?a=1", "/rst"),
        ("/rst/deep", "/rst/deep"),
        ("/with/slash/", "/with/slash/"),
        ("/caf%C3%A9", "/café"),
        ("/r%73t", "/rst"),
        ("/rst/", None),
        ("/rst/deep/er", None),
        ("/with/slash", None),
        ("/RST", None),
        ("//", None),
        ("//rst", None),
        ("/rst%2Fdeep", None),
        ("/..", None),
        ("/rst;a=1", None),
    ],
)
def test_paths(sent: str, found: str | None) -> None:
    """A path is matched whole; what is none of the app's is not found."""
    paths = ["/", "/rst", "/rst/deep", "/with/slash/", "/café"]
    with serving(*map(route, paths)) as served:
        client = served.connect()
        client.post(sent)
        assert [job.head.route for job in served.pool.jobs] == ([] if found is None else [found])
        if found is None:
            response = client.response()
            assert response.status == 404
            assert response.json["detail"] == "There is nothing at this path."
            assert response.header("x-request-id") == response.json["id"]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "FROB"])
def test_nothing_there(method: str) -> None:
    """What is not there is not there for any method."""
    with serving() as served:
        client = served.connect()
        client.request(method, "/other")
        assert client.response(has_body=method != "HEAD").status == 404


def test_empty_app() -> None:
    """An app without a route at the root has nothing there."""
    with serving(route("/a")) as served:
        client = served.connect()
        client.post("/")
        assert client.response().status == 404


@pytest.mark.parametrize(
    ("sent", "found"), [("/api", "/"), ("/api/", "/"), ("/api/rst", "/rst"), ("/api/api", None)]
)
def test_mounted(sent: str, found: str | None) -> None:
    """Below the place where an app is mounted its paths are its own."""
    with serving(route("/"), route("/rst")) as served:
        root = Resource()
        root.putChild(b"api", served.root)
        client = Client(Site(root, reactor=served.clock))
        client.post(sent)
        assert [job.head.route for job in served.pool.jobs] == ([] if found is None else [found])
        if found is not None:
            assert served.pool.jobs[0].head.path == sent


def test_other_resources() -> None:
    """The daemon's own resources are beside the routes."""
    with serving(route("/rst"), others=[(b"livez", Livez())]) as served:
        client = served.connect()
        client.request("GET", "/livez")
        client.post("/rst")
        served.pool.start()
        served.pool.give(answer_of(b"done"))
        assert [response.status for response in client.responses()] == [200, 200]


def test_largest_body() -> None:
    """The site keeps as much of a body as the most generous route accepts."""
    with serving(route("/a"), route("/b", max_body=70), others=[(b"livez", Livez())]) as served:
        assert served.root.largest_body == 100
    with serving(route("/a"), route("/b", max_body=170)) as served:
        assert served.root.largest_body == 170


class Saying(Resource):
    """Says something."""

    isLeaf = True

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self._words = words

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted:
        return BodyWanted(0)

    def render_GET(self, request: Any) -> bytes:
        return self._words


class Below:
    """A tree that says what it was asked for."""

    max_body = 1000

    def early_resource(self, segments: Sequence[bytes]) -> Any:
        return Saying(b" ".join(segments))


@pytest.mark.parametrize("wire", [True, False])
def test_trees(wire: bool) -> None:
    """What is below a path is found by a tree, unless there is a route at the very path."""
    with serving(route("/t/route")) as served:
        root = AppResource([route("/t/route")], served.context, trees=[(b"t", Below())])
        assert root.largest_body == 1000
        site = DeferPostSite if wire else Site
        for path, found in [
            ("/t", b""),
            ("/t/a", b"a"),
            ("/t/a/b%2Fc", b"a b%2Fc"),
            ("/t/", b""),
            ("/t/route/x", b"route x"),
            ("/other", None),
        ]:
            client = Client(site(root, reactor=served.clock))
            client.request("GET", path)
            response = client.response()
            assert response.status == (404 if found is None else 200)
            assert found is None or response.body == found
        client = Client(site(root, reactor=served.clock))
        client.request("GET", "/t/route")
        assert client.response().status == 405
