"""The metrics as a resource: who gets them, and how often they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from deferpost.metrics import Scrape
from deferpost.tally import Tally
from deferpost.web.metrics import Metrics
from tests.web import Client, Served, serving


class Writing:
    """Where metrics are written: when the test says so."""

    served: Served

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.begun: list[tuple[Callable[[], bytes], Deferred[bytes]]] = []
        self.connections = 0

    def scrape(self) -> Scrape:
        """What there is to show; each time it is another."""
        if self.problem is not None:
            raise self.problem
        self.connections += 1
        return Scrape(
            tally=Tally({}).snapshot(), pools=[], connections=self.connections, accepting=True
        )

    def run(self, write: Callable[[], bytes]) -> Deferred[bytes]:
        """Begin to write."""
        written: Deferred[bytes] = Deferred()
        self.begun.append((write, written))
        return written

    def finish(self) -> None:
        """Write what was begun."""
        begun, self.begun = self.begun, []
        for write, written in begun:
            written.callback(write())

    def ask(self, method: str = "GET", *headers: str) -> Client:
        """A client that asks."""
        client = self.served.connect()
        client.request(method, "/metrics", b"", *headers)
        return client


@contextmanager
def serving_metrics() -> Iterator[Writing]:
    """The metrics in a site."""
    writing = Writing()
    with serving(others=[(b"metrics", Metrics(writing.scrape, writing.run))]) as served:
        writing.served = served
        yield writing


def shown(client: Client) -> float:
    """How many connections a client was told of."""
    response = client.response()
    assert response.status == 200
    for family in text_string_to_metric_families(response.body.decode()):
        if family.name == "deferpost_open_connections":
            return family.samples[0].value
    raise AssertionError(response.body)


def test_a_scrape() -> None:
    """The metrics are of the moment of the request, and are not to be kept."""
    with serving_metrics() as writing:
        client = writing.ask()
        assert client.received == b""
        writing.finish()
        assert shown(client) == 1.0
        response = client.response()
        assert response.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        assert response.header("cache-control") == "no-store"
        assert response.header("vary") == "Accept"
        again = writing.ask()
        writing.finish()
        assert shown(again) == 2.0


def test_many_at_once_are_one_piece_of_work() -> None:
    """Those who ask while metrics are being written get these; another format is another work."""
    with serving_metrics() as writing:
        clients = [writing.ask() for _ in range(20)]
        other = writing.ask("GET", "Accept: application/openmetrics-text; version=1.0.0")
        assert len(writing.begun) == 2
        writing.finish()
        assert [shown(client) for client in clients] == [1.0] * 20
        content_type = other.response().header("content-type")
        assert content_type is not None
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")


def test_a_scraper_that_leaves() -> None:
    """Nothing is written to a client that has left meanwhile, and others get theirs."""
    with serving_metrics() as writing:
        leaving, staying = writing.ask(), writing.ask()
        leaving.leave()
        writing.finish()
        assert leaving.received == b""
        assert shown(staying) == 1.0


def test_head() -> None:
    """HEAD tells how long they are."""
    with serving_metrics() as writing:
        client = writing.ask("HEAD")
        writing.finish()
        response = client.response(has_body=False)
        assert response.status == 200
        assert int(response.header("content-length") or 0) > 100


def test_options() -> None:
    """OPTIONS says what there is."""
    with serving_metrics() as writing:
        response = writing.ask("OPTIONS").response()
        assert (response.status, response.header("allow")) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("method", ["POST", "DELETE", "FROB"])
def test_other_methods(method: str) -> None:
    """Nothing else is there, and nothing is written for it."""
    with serving_metrics() as writing:
        response = writing.ask(method).response()
        assert (response.status, response.header("allow")) == (405, "GET, HEAD, OPTIONS")
        assert writing.begun == []


def test_what_cannot_be_written() -> None:
    """A defect is a 500 that tells nothing, is in the log, and is over with the next scrape."""
    with serving_metrics() as writing:
        client = writing.ask()
        ((_, written),) = writing.begun
        writing.begun.clear()
        written.errback(ValueError("secret"))
        response = client.response()
        assert response.status == 500
        assert b"secret" not in response.body
        assert [str(error) for error in writing.served.flush_failures()] == ["secret"]
        again = writing.ask()
        writing.finish()
        assert shown(again) == 2.0


def test_what_cannot_be_asked() -> None:
    """A pool that fails when it is looked at makes a 500, not a client that waits for ever."""
    with serving_metrics() as writing:
        writing.problem = RuntimeError("a pool")
        assert writing.ask().response().status == 500
        assert [str(error) for error in writing.served.flush_failures()] == ["a pool"]
