"""Whether the daemon lives, and whether it is ready for more."""

from __future__ import annotations

import pytest

from deferpost.model import PoolStatus
from deferpost.web.health import Livez, Readyz
from tests.web import Response, serving


class Daemon:
    """What readiness looks at."""

    def __init__(self) -> None:
        self.is_accepting = True
        self.pools = [status("a"), status("b")]

    def accepting(self) -> bool:
        return self.is_accepting

    def statuses(self) -> list[PoolStatus]:
        return self.pools


def status(name: str, ready: bool = True, hung: bool = False) -> PoolStatus:
    """A pool that is busy."""
    return PoolStatus(
        name=name,
        kind="thread",
        size=4,
        max_waiting=10,
        running=4,
        waiting=3,
        stuck=1,
        ready=ready,
        restarts=2,
        hung=hung,
    )


def ask(path: str, method: str = "GET", daemon: Daemon | None = None) -> Response:
    """What the daemon answers."""
    daemon = daemon or Daemon()
    others = [(b"livez", Livez()), (b"readyz", Readyz(daemon.accepting, daemon.statuses))]
    with serving(others=others) as served:
        client = served.connect()
        client.request(method, path)
        return client.response(has_body=method != "HEAD")


def test_alive() -> None:
    """As long as it answers, it lives."""
    response = ask("/livez")
    assert (response.status, response.json) == (200, {"live": True})


def test_ready() -> None:
    """It is ready while it accepts calls and every pool can run them; it shows how they are."""
    response = ask("/readyz")
    assert response.status == 200
    assert response.json["ready"] is True
    assert response.json["accepting"] is True
    assert [pool["name"] for pool in response.json["pools"]] == ["a", "b"]
    assert response.json["pools"][0] == {
        "name": "a",
        "kind": "thread",
        "size": 4,
        "max_waiting": 10,
        "running": 4,
        "waiting": 3,
        "stuck": 1,
        "ready": True,
        "restarts": 2,
        "hung": False,
        "oldest_waiting": None,
    }


def test_not_accepting() -> None:
    """It is not ready before it has begun and from the moment at which it stops."""
    daemon = Daemon()
    daemon.is_accepting = False
    response = ask("/readyz", daemon=daemon)
    assert response.status == 503
    assert response.json == {
        "ready": False,
        "accepting": False,
        "reasons": ["no calls are accepted"],
        "pools": [],
    }


def test_broken_pool() -> None:
    """It is not ready while a pool cannot run anything, and shows which."""
    daemon = Daemon()
    daemon.pools[1] = status("b", ready=False)
    response = ask("/readyz", daemon=daemon)
    assert response.status == 503
    assert [pool["ready"] for pool in response.json["pools"]] == [True, False]
    assert response.json["reasons"] == ["pool b cannot run calls now"]


def test_hung_pool() -> None:
    """It is not ready while a pool hangs, and says which and why."""
    daemon = Daemon()
    daemon.pools[0] = status("a", ready=False, hung=True)
    response = ask("/readyz", daemon=daemon)
    assert (response.status, response.json["ready"]) == (503, False)
    assert response.json["reasons"] == [
        "pool a hangs: each of its 4 workers has a job that was told to stop and goes on"
    ]


def test_without_pools() -> None:
    """A daemon without pools that accepts calls is ready."""
    daemon = Daemon()
    daemon.pools = []
    assert ask("/readyz", daemon=daemon).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_never_cached(path: str) -> None:
    """What it says is of this moment, and is for programs."""
    response = ask(path)
    assert response.header("cache-control") == "no-store"
    assert response.header("content-type") == "application/json"
    assert response.header("x-request-id")
    assert response.body.endswith(b"}\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_head(path: str) -> None:
    """HEAD says as much, without the body."""
    response = ask(path, "HEAD")
    assert response.status == 200
    assert response.header("content-length") == ask(path).header("content-length")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_options(path: str) -> None:
    """OPTIONS says what there is."""
    response = ask(path, "OPTIONS")
    assert (response.status, response.header("allow")) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "FROB"])
def test_other_methods(path: str, method: str) -> None:
    """Nothing else is there."""
    response = ask(path, method)
    assert (response.status, response.header("allow")) == (405, "GET, HEAD, OPTIONS")
    assert response.json["title"] == "Method Not Allowed"
