"""What is at each path of kept jobs, for which methods, and for whom."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from deferpost.authentication import SignedCalls
from deferpost.credentials import Admitted, parse_keys
from deferpost.errors import HandlerFailed, HTTPError, StoreFailed
from deferpost.interfaces import BodyWanted
from deferpost.model import CallHead
from deferpost.signatures import sign
from deferpost.web.respond import respond
from tests.web import Response, answer_of
from tests.web.jobs import DAWN, Keeping, keeping

both_sites = pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])

#: An id that no store has made.
OTHER = "somebody-s"


@both_sites
def test_life(wire: bool) -> None:
    """The document of a job tells where it stands, from its beginning to its end."""
    with keeping(wire=wire) as served:
        record = served.accept()
        path = f"/jobs/{record.id}"
        response = served.get(path)
        assert (response.status, response.header("content-type")) == (200, "application/json")
        assert response.header("cache-control") == "no-store"
        url = f"http://example.com{path}"
        assert response.json == {
            "id": record.id,
            "route": "/rst",
            "state": "queued",
            "reason": None,
            "created": "2001-09-09T01:46:40.000Z",
            "started": None,
            "finished": None,
            "expires": None,
            "queue": {"position": 1, "estimated_start": None},
            "progress": None,
            "attempt": 0,
            "queue_seconds": 0.0,
            "run_seconds": 0.0,
            "result": None,
            "error": None,
            "webhook": None,
            "links": {
                "self": url,
                "result": f"{url}/result",
                "events": f"{url}/events",
                "cancel": f"{url}/cancel",
            },
        }
        served.tick(0.25)
        job = served.start()
        served.tick(2.0)
        job.report(1, 3, "one")
        document = served.get(path).json
        assert document["state"] == "running"
        assert document["started"] == "2001-09-09T01:46:40.250Z"
        assert document["attempt"] == 1
        assert document["progress"] == {"done": 1, "total": 3, "message": "one"}
        assert (document["queue"], document["queue_seconds"]) == (None, 0.25)
        assert document["run_seconds"] == 2.0
        served.give(answer_of(b"done"))
        served.tick(1.0)
        response = served.get(path)
        assert response.json["state"] == "succeeded"
        assert response.json["result"] == {"status": 200, "content_type": "text/a", "length": 4}
        assert response.json["finished"] == "2001-09-09T01:46:42.250Z"
        assert response.json["expires"] == "2001-09-09T02:46:42.250Z"
        assert response.json["run_seconds"] == 2.0
        assert response.header("server-timing") == "queue;dur=250.000, run;dur=2000.000"


@both_sites
def test_failed(wire: bool) -> None:
    """The document of a job that has failed has its problem document, and so has its result."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        served.pool.fail(HTTPError(422, "The text is none.", extensions={"line": 3}))
        served.settle()
        document = served.get(f"/jobs/{record.id}").json
        assert (document["state"], document["reason"]) == ("failed", "error")
        assert document["error"]["detail"] == "The text is none."
        assert document["error"]["line"] == 3
        response = served.get(f"/jobs/{record.id}/result")
        assert response.status == 422
        assert response.header("content-type") == "application/problem+json"
        assert response.json == document["error"]


def test_failed_by_a_defect() -> None:
    """Of a defect of its code nothing is told."""
    with keeping() as served:
        record = served.accept()
        served.start()
        served.pool.fail(HandlerFailed("Traceback: secret"))
        served.settle()
        response = served.get(f"/jobs/{record.id}")
        assert response.json["error"]["status"] == 500
        assert b"secret" not in response.body


@both_sites
@pytest.mark.parametrize("part", ["", "/result", "/events"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_not_there(wire: bool, part: str, method: str) -> None:
    """What never was is not found, and what was is gone."""
    with keeping(wire=wire) as served:
        gone = served.done()
        assert served.ask("DELETE", f"/jobs/{gone.id}").status == 204
        for id, status in [(OTHER, 404), (gone.id, 410), ("%20", 404), ("a" * 129, 404), ("", 404)]:
            response = served.ask(method, f"/jobs/{id}{part}")
            assert response.status == status
            assert response.header("x-request-id")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/cancel"), ("DELETE", ""), ("GET", "/result/more")]
)
def test_nothing_to_do(method: str, path: str) -> None:
    """What is not there cannot be ended either."""
    with keeping() as served:
        assert served.ask(method, f"/jobs/{OTHER}{path}").status == 404


@both_sites
@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/jobs", "GET, HEAD, OPTIONS"),
        ("/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/jobs/x/result", "GET, HEAD, OPTIONS"),
        ("/jobs/x/events", "GET, HEAD, OPTIONS"),
        ("/jobs/x/cancel", "OPTIONS, POST"),
    ],
)
def test_methods(wire: bool, path: str, allow: str) -> None:
    """Each resource says which methods it has."""
    with keeping(wire=wire) as served:
        response = served.ask("OPTIONS", path)
        assert (response.status, response.header("allow")) == (204, allow)
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            if method not in allow:
                response = served.ask(method, path, body=b"x")
                assert (response.status, response.header("allow")) == (405, allow)


@both_sites
def test_wait(wire: bool) -> None:
    """A client may wait for the end of a job on its connection."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}", "Prefer: wait=5")
        served.tick(4.0)
        assert client.received == b""
        served.give(answer_of(b"done"))
        response = client.response()
        assert response.json["state"] == "succeeded"
        assert response.header("preference-applied") == "wait=5"


@both_sites
def test_wait_is_over(wire: bool) -> None:
    """Where it does not end in time, its client is told how it stands."""
    with keeping(wire=wire, longest_wait=10.0) as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}", "Prefer: wait=5")
        served.tick(5.0)
        assert client.response().json["state"] == "running"
        client = served.begin("GET", f"/jobs/{record.id}/result", "Prefer: wait=500")
        served.tick(9.9)
        assert client.received == b""
        served.tick(0.1)
        response = client.response()
        assert (response.status, response.json["state"]) == (202, "running")
        assert response.header("preference-applied") is None
        assert response.header("location") == f"http://example.com/jobs/{record.id}"
        assert response.header("retry-after") == "1"


def test_strict() -> None:
    """A client that wants to hear of its mistakes does."""
    with keeping() as served:
        record = served.done()
        response = served.get(f"/jobs/{record.id}", "Prefer: handling=strict, wait=soon")
        assert response.status == 400


@both_sites
@pytest.mark.parametrize("part", ["", "/result"])
def test_client_leaves(wire: bool, part: str) -> None:
    """Nothing is left of a client that has left while it waited, and the job goes on."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}{part}", "Prefer: wait=5")
        assert served.tree.open_replies == 1
        client.leave()
        served.settle()
        assert served.tree.open_replies == 0
        assert not served.keeper._waiters
        served.give(answer_of(b"done"))
        assert served.get(f"/jobs/{record.id}").json["state"] == "succeeded"


@pytest.mark.parametrize("part", ["", "/result", "/cancel", "/events"])
def test_client_leaves_at_once(part: str) -> None:
    """One that leaves before the store has answered is not answered, and nothing goes wrong."""
    with keeping() as served:
        record = served.accept()
        client = served.connect()
        client.request("POST" if part == "/cancel" else "GET", f"/jobs/{record.id}{part}")
        client.leave()
        served.settle()
        assert client.received == b""
        expected = "canceled" if part == "/cancel" else "queued"
        assert served.get(f"/jobs/{record.id}").json["state"] in (expected, "queued")


@both_sites
def test_stopping(wire: bool) -> None:
    """When the service stops, those who wait are told to come again."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}", "Prefer: wait=50")
        served.tree.close()
        served.settle()
        response = client.response()
        assert (response.status, response.json["reason"]) == (503, "shutdown")
        assert response.header("retry-after") is not None
        assert served.get(f"/jobs/{record.id}", "Prefer: wait=5").status == 503
        assert served.get(f"/jobs/{record.id}").status == 200


def test_keeper_closes() -> None:
    """Where the keeper is closed first, who waits is told at once how the job stands."""
    with keeping() as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}", "Prefer: wait=50")
        served.run(served.keeper.close())
        response = client.response()
        assert (response.status, response.json["state"]) == (200, "running")


def test_store_fails() -> None:
    """A store that cannot read is nothing that its clients are to blame for."""
    with keeping() as served:
        record = served.done()
        served.store.failure = StoreFailed("the disk is gone")
        for path in ("/jobs", f"/jobs/{record.id}", f"/jobs/{record.id}/events"):
            response = served.get(path)
            assert (response.status, response.json["reason"]) == (503, "store_failed")
            assert b"disk" not in response.body
        served.store.failure = None


@both_sites
def test_defect(wire: bool) -> None:
    """A defect of ours is logged, and its client is told no more than that there is one."""
    with keeping(wire=wire) as served:
        record = served.done()

        def broken(id: str) -> Any:
            raise ZeroDivisionError("secret")

        served.keeper.queue_of = broken  # type: ignore[method-assign]  # something goes wrong
        response = served.get(f"/jobs/{record.id}")
        assert response.status == 500
        assert b"secret" not in response.body
        assert served.forget_failures() == ["ZeroDivisionError"]


@both_sites
def test_defect_midway(wire: bool) -> None:
    """Where the response has begun, its connection ends: nobody takes that for the whole."""
    with keeping(wire=wire) as served:
        record = served.done(b"x" * 200_000)
        client = served.connect()

        def broken(_: object) -> None:
            raise ZeroDivisionError

        transport: Any = client.transport
        transport.write = transport.writeSequence = broken  # something goes wrong
        client.request("GET", f"/jobs/{record.id}/result")
        served.settle()
        assert client.was_disconnected
        assert served.forget_failures() == ["ZeroDivisionError"]


@pytest.mark.parametrize("part", ["", "/result", "/cancel"])
def test_forgotten_meanwhile(part: str) -> None:
    """A job that is forgotten while somebody asks for it is gone."""
    with keeping() as served:
        record = served.done() if part == "/result" else served.accept()

        async def nothing(*_: Any) -> None:
            return None

        keeper: Any = served.keeper
        keeper.ended = keeper.cancel = keeper.result = nothing  # as if it were so
        method = "POST" if part == "/cancel" else "GET"
        assert served.ask(method, f"/jobs/{record.id}{part}", "Prefer: wait=5").status == 410


def test_deleted_twice() -> None:
    """Of two who delete a job at once, one is told that it is gone."""
    with keeping() as served:
        record = served.done()
        clients = [served.connect() for _ in range(2)]
        for client in clients:
            client.request("DELETE", f"/jobs/{record.id}")
        served.settle()
        assert sorted(client.response().status for client in clients) == [204, 410]


# Ending jobs.


@both_sites
def test_cancel(wire: bool) -> None:
    """A job that waits is canceled at once, one that runs when its code has ended."""
    with keeping(wire=wire) as served:
        running = served.accept()
        served.start()
        others = [served.accept() for _ in range(3)]
        response = served.ask("POST", f"/jobs/{others[-1].id}/cancel")
        assert (response.status, response.json["state"]) == (200, "canceled")
        assert response.json["reason"] == "requested"
        response = served.ask("POST", f"/jobs/{running.id}/cancel")
        assert (response.status, response.json["state"]) == (202, "canceling")
        assert response.header("retry-after") == "1"
        assert response.header("location") == f"http://example.com/jobs/{running.id}"
        served.give(answer_of(b"late"), 0)
        response = served.ask("POST", f"/jobs/{running.id}/cancel")
        assert (response.status, response.json["state"]) == (200, "canceled")
        assert served.get(f"/jobs/{running.id}/result").status == 503


@both_sites
def test_delete(wire: bool) -> None:
    """One that has ended is forgotten, another one canceled."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        response = served.ask("DELETE", f"/jobs/{record.id}")
        assert (response.status, response.json["state"]) == (202, "canceling")
        served.give(answer_of(b"late"))
        response = served.ask("DELETE", f"/jobs/{record.id}")
        assert (response.status, response.body) == (204, b"")
        assert served.ask("DELETE", f"/jobs/{record.id}").status == 410


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-origin", 202),
        ("Origin: http://evil.example", 403),
        ("Origin: http://example.com", 202),
        ("Content-Type: application/x-www-form-urlencoded", 415),
        ("Content-Type: text/plain; charset=utf-8", 415),
        ("Content-Type: application/json", 202),
        ("User-Agent: curl/8", 202),
    ],
)
def test_other_sites(field: str, status: int) -> None:
    """No page of another site ends a job."""
    with keeping() as served:
        record = served.accept()
        served.start()
        assert served.ask("POST", f"/jobs/{record.id}/cancel", field).status == status
        assert served.ask("DELETE", f"/jobs/{record.id}", field).status == status


@both_sites
def test_large_body(wire: bool) -> None:
    """A body that nobody wants is refused where it is large."""
    with keeping(wire=wire) as served:
        record = served.accept()
        path = f"/jobs/{record.id}/cancel"
        assert served.ask("POST", path, body=b"x" * 5000).status == 413
        assert served.ask("POST", path, body=b"{}").status in (200, 202)


# The list.


@both_sites
def test_list(wire: bool) -> None:
    """All jobs are listed in pages, newest first."""
    with keeping(wire=wire) as served:
        assert served.get("/jobs").json == {"jobs": [], "next": None}
        ids = [served.accept().id for _ in range(5)][::-1]
        found: list[str] = []
        path = "/jobs?limit=2"
        for _ in range(3):
            page = served.get(path).json
            found += [job["id"] for job in page["jobs"]]
            path = f"/jobs?limit=2&cursor={page['next']}"
        assert page["next"] is None
        assert found == ids
        page = served.get("/jobs?limit=1").json
        assert page["jobs"] == [served.get(f"/jobs/{ids[0]}").json]


def test_list_of_states() -> None:
    """The states that are wanted are named one by one."""
    with keeping() as served:
        done = served.done()
        running = served.accept()
        served.start()
        waiting = served.accept()

        def listed(query: str) -> list[str]:
            return [job["id"] for job in served.get(f"/jobs?{query}").json["jobs"]]

        assert listed("state=queued") == [waiting.id]
        assert listed("state=succeeded&state=running") == [running.id, done.id]
        assert listed("state=failed") == []
        assert listed("other=1") == [waiting.id, running.id, done.id]


@pytest.mark.parametrize(
    "query",
    [
        *("state=done", "state=", "limit=0", "limit=501", "limit=-1", "limit=x", "limit=1&limit=2"),
        *("cursor=1", "cursor=%C3%A9", "cursor=", "cursor=bjA", "&".join(["a=1"] * 50)),
    ],
)
def test_list_of_nonsense(query: str) -> None:
    """A query that means nothing is refused."""
    with keeping() as served:
        response = served.get(f"/jobs?{query}")
        assert response.status == 400
        assert response.json["detail"]


@both_sites
def test_head(wire: bool) -> None:
    """HEAD says what GET would, without a body."""
    with keeping(wire=wire) as served:
        record = served.done()
        for path in ("/jobs", f"/jobs/{record.id}", f"/jobs/{record.id}/result"):
            got, head = served.get(path), served.ask("HEAD", path)
            assert head.status == got.status == 200
            assert head.header("content-length") == got.header("content-length")
            assert head.body == b""


# Who sees what.


def gate(head: CallHead) -> Admitted:
    """Lets in who says a name."""
    for name, value in head.headers:
        if name.lower() == b"authorization":
            return Admitted(None if value == b"nobody" else value.decode())
    raise HTTPError(401, "Say a name.")


def ask_as(served: Keeping, who: str | None, method: str, path: str) -> Any:
    return served.ask(method, path, *([] if who is None else [f"Authorization: {who}"]))


@both_sites
def test_gate(wire: bool) -> None:
    """Where there is a gate, a job is its client's alone: others do not learn that it is there."""
    with keeping(wire=wire, gate=gate) as served:
        record = served.done(principal="ada")
        other = served.done(principal="bob")
        nobodys = served.done()
        for part in ("", "/result", "/events"):
            path = f"/jobs/{record.id}{part}"
            assert ask_as(served, None, "GET", path).status == 401
            assert ask_as(served, "ada", "GET", path).status == 200
            refused = ask_as(served, "bob", "GET", path)
            unknown = ask_as(served, "bob", "GET", f"/jobs/{OTHER}{part}")
            assert refused.status == unknown.status == 404
            assert {**refused.json, "id": 0} == {**unknown.json, "id": 0}
        assert ask_as(served, "bob", "POST", f"/jobs/{record.id}/cancel").status == 404
        assert ask_as(served, "bob", "DELETE", f"/jobs/{record.id}").status == 404
        assert ask_as(served, None, "GET", "/jobs").status == 401

        def listed(who: str) -> list[str]:
            return [job["id"] for job in ask_as(served, who, "GET", "/jobs").json["jobs"]]

        assert listed("ada") == [record.id]
        assert listed("bob") == [other.id]
        assert listed("nobody") == [nobodys.id]
        assert listed("eve") == []
        assert ask_as(served, "ada", "DELETE", f"/jobs/{record.id}").status == 204


def test_what_a_gate_is_shown() -> None:
    """A gate sees the request as it was sent, and that it is for no route."""
    heads: list[CallHead] = []
    with keeping(gate=heads.append) as served:
        served.get("/jobs?limit=3", "X-A: b", "X-Request-ID: mine")
        (head,) = heads
        assert (head.id, head.route, head.method) == ("mine", "*", "GET")
        assert (head.path, head.query) == ("/jobs", b"limit=3")
        assert (b"x-a", b"b") in [(name.lower(), value) for name, value in head.headers]


@both_sites
def test_signed(wire: bool) -> None:
    """Requests about jobs are signed as calls are, and a body is the one that was signed."""
    keys = parse_keys("ci a-secret-of-ci-1234567890 /other", "keys")

    def signed(method: str, path: str, body: bytes, sent: bytes, nonce: str) -> Response:
        fields = sign(
            f"http://example.com{path}",
            body,
            key="ci",
            secret=b"a-secret-of-ci-1234567890",
            created=int(DAWN),
            nonce=nonce,
            method=method,
        )
        lines = [f"{name}: {value}" for name, value in fields.items()]
        return served.ask(method, path, *lines, body=sent)

    with keeping(wire=wire, gate=SignedCalls(keys, lambda: DAWN)) as served:
        record = served.accept(principal="ci")
        served.start()
        path = f"/jobs/{record.id}"
        assert signed("GET", path, b"", b"", "1").json["state"] == "running"
        replayed = signed("GET", path, b"", b"", "1")
        assert (replayed.status, replayed.json["reason"]) == (403, "signature_replayed")
        wrong = signed("POST", f"{path}/cancel", b"{}", b"[]", "2")
        assert (wrong.status, wrong.json["reason"]) == (400, "digest_mismatch")
        assert signed("POST", f"{path}/cancel", b"{}", b"{}", "3").status == 202
        assert served.get(path).status == 401


# Links.


@both_sites
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("Example.COM:8080", "http://example.com:8080"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_links(wire: bool, host: str, expected: str) -> None:
    """Links lead to where the client has asked, below the place where the app is mounted."""
    with keeping(wire=wire, below=b"my app") as served:
        record = served.accept()
        client = served.connect()
        client.send(
            f"GET /my%20app/jobs/{record.id} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")
        )
        served.settle()
        links = client.response().json["links"]
        assert links["self"] == f"{expected}/my%20app/jobs/{record.id}"
        assert served.get(f"/my%20app/jobs/{record.id}").status == 200
        jobs = served.get("/my%20app/jobs").json["jobs"]
        assert jobs[0]["links"]["self"] == f"http://example.com/my%20app/jobs/{record.id}"


@pytest.mark.parametrize("host", ['Host: evil"<>', "Host: a:99999", "Host: a@b", "X: y"])
def test_links_without_a_host(host: str) -> None:
    """What is no host gets into no link."""
    with keeping(wire=False) as served:
        record = served.accept()
        client = served.connect()
        client.send(f"GET /jobs/{record.id} HTTP/1.1\r\n{host}\r\n\r\n".encode("ascii"))
        served.settle()
        self = client.response().json["links"]["self"]
        assert self == f"http://10.0.0.1:12345/jobs/{record.id}"


def test_public_url() -> None:
    """What the operator says is what counts."""
    with keeping(public_url="https://jobs.example/api/") as served:
        record = served.accept()
        links = served.get(f"/jobs/{record.id}").json["links"]
        assert links["events"] == f"https://jobs.example/api/jobs/{record.id}/events"


# PUT.


class Puts(Resource):
    """Takes a job that is put."""

    isLeaf = True

    def __init__(self, id: str) -> None:
        super().__init__()
        self._id = id

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        return BodyWanted(10_000)

    def render_PUT(self, request: Any) -> int:
        body = request.content.read()
        respond(request, 202, b"text/plain", f"{self._id} {len(body)}".encode())
        return NOT_DONE_YET


@both_sites
def test_put(wire: bool) -> None:
    """Who takes a PUT is given it with its body."""
    with keeping(wire=wire, put=Puts) as served:
        response = served.ask("PUT", "/jobs/mine", body=b"x" * 9000)
        assert (response.status, response.body) == (202, b"mine 9000")
        assert served.ask("PUT", "/jobs/not%20mine", body=b"x").status == 400
        assert served.ask("OPTIONS", "/jobs/a").header("allow") == (
            "DELETE, GET, HEAD, OPTIONS, PUT"
        )
        assert served.get("/jobs/mine").status == 404
