"""Watching the state: what is sent, when, and to how many."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deferpost.web.status.watchers import HEARTBEAT_SECONDS, MAX_WATCHERS, TICK_SECONDS
from tests.web import Client, parse
from tests.web.status import BEARER, Looked, looked

both_sites = pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])


def watch(daemon: Looked) -> Client:
    """Somebody who watches."""
    client = daemon.connect()
    client.request("GET", "/_deferpost/events", b"", BEARER)
    return client


def documents(client: Client) -> list[dict[str, Any]]:
    """What has been sent to somebody who watches."""
    response, _ = parse(client.received)
    assert (response.status, response.header("content-type")) == (200, "text/event-stream")
    events = response.body.decode().split("\n\n")
    assert events.pop() == ""
    found = []
    for event in events:
        kind, _, data = event.partition("\n")
        assert kind == "event: state"
        found.append(json.loads(data.removeprefix("data: ")))
    return found


def ticks(daemon: Looked, count: int) -> None:
    """Let time pass."""
    daemon.clock.pump([TICK_SECONDS] * count)


@both_sites
def test_changes_are_sent_and_nothing_else(wire: bool) -> None:
    """The state comes at once, then when something has changed, and not between two ticks."""
    with looked(wire=wire) as daemon:
        client = watch(daemon)
        assert len(documents(client)) == 1
        ticks(daemon, 3)
        assert len(documents(client)) == 1
        daemon.job("one")
        daemon.job("two")
        assert len(documents(client)) == 1
        ticks(daemon, 1)
        assert [document["pools"][0]["running"] for document in documents(client)] == [0, 2]


def test_heartbeat() -> None:
    """Where nothing changes, ages and memory are brought up to date every few seconds."""
    with looked() as daemon:
        client = watch(daemon)
        ticks(daemon, int(HEARTBEAT_SECONDS / TICK_SECONDS))
        first, second = documents(client)
        assert second["uptime"] - first["uptime"] == HEARTBEAT_SECONDS


def test_one_look_for_all_and_none_for_nobody() -> None:
    """The pools are asked once a tick however many watch, and not at all when nobody does."""
    with looked() as daemon:
        ticks(daemon, 5)
        assert daemon.pool.looks == 0
        clients = [watch(daemon) for _ in range(5)]
        assert daemon.pool.looks == 1
        ticks(daemon, 4)
        assert daemon.pool.looks == 5
        assert daemon.page.watching == 5
        for client in clients:
            client.leave()
        assert daemon.page.watching == 0
        ticks(daemon, 5)
        assert daemon.pool.looks == 5
        assert daemon.clock.getDelayedCalls() == []
        again = watch(daemon)
        assert len(documents(again)) == 1
        again.leave()


def test_one_who_comes_later_has_the_state_at_once() -> None:
    """Nobody waits for the next change to see the first document."""
    with looked() as daemon:
        watch(daemon)
        ticks(daemon, 1)
        assert len(documents(watch(daemon))) == 1


@both_sites
def test_a_slow_reader_skips_documents(wire: bool) -> None:
    """Who does not read is sent nothing more, and then the state of that time alone."""
    with looked(wire=wire) as daemon:
        slow, quick = watch(daemon), watch(daemon)
        slow.transport.is_full = True
        daemon.job("0")
        ticks(daemon, 1)
        filled = len(documents(slow))
        for number in range(1, 5):
            daemon.job(str(number))
            ticks(daemon, 1)
        assert len(documents(slow)) == filled
        assert len(documents(quick)) == 6
        slow.transport.is_full = False
        slow.transport.read()
        ticks(daemon, 1)
        assert len(documents(slow)) == filled + 1
        assert documents(slow)[-1] == documents(quick)[-1]


def test_so_many_can_watch_and_no_more() -> None:
    """One too many is answered 503 with a time after which to try again, until one leaves."""
    with looked() as daemon:
        clients = [watch(daemon) for _ in range(MAX_WATCHERS)]
        response = daemon.ask("/events")
        assert (response.status, response.header("retry-after")) == (503, "10")
        clients[0].leave()
        assert len(documents(watch(daemon))) == 1


def test_head() -> None:
    """HEAD says what it would be, and does not watch."""
    with looked() as daemon:
        response = daemon.ask("/events", method="HEAD")
        assert (response.status, response.header("content-type")) == (200, "text/event-stream")
        assert daemon.page.watching == 0


@both_sites
def test_the_end(wire: bool) -> None:
    """When the daemon ends, so do the responses to those who watch, and nobody new can."""
    with looked(wire=wire) as daemon:
        client = watch(daemon)
        daemon.page.close()
        response, rest = parse(client.received)
        assert (response.is_whole, rest, daemon.page.watching) == (True, b"", 0)
        assert daemon.ask("/events").status == 503
        ticks(daemon, 2)
        assert daemon.pool.looks == 1


def test_a_pool_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in a pool is logged; those who watch stay, and see the state that is told next."""
    with looked() as daemon:
        client = watch(daemon)
        with monkeypatch.context() as broken:
            broken.setattr(daemon.pool, "workers", lambda: 1 / 0)
            ticks(daemon, 1)
            assert daemon.forget_failures() == ["ZeroDivisionError"]
            daemon.clock.advance(0.3)
            assert daemon.ask("/state").status == 500
            assert daemon.forget_failures() == ["ZeroDivisionError"]
        daemon.job()
        ticks(daemon, 1)
        assert [document["pools"][0]["running"] for document in documents(client)] == [0, 1]
