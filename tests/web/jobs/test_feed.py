"""Events of kept jobs: each once and in order, whatever happens between the store and a client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from deferpost.errors import StoreFailed
from deferpost.eventstream import EventFormat
from deferpost.keeping import BEAT_SECONDS
from deferpost.records import StoredEvent
from deferpost.web.events import HEARTBEAT_SECONDS
from deferpost.web.jobs.feed import BATCH, event_bytes
from tests.eventparsing import Event, parse_sse
from tests.web import Client, answer_of, parse
from tests.web.jobs import Keeping, keeping
from tests.web.jobs.test_resources import both_sites

#: With which a stream begins: how long to wait when it has broken off.
RETRY = b"retry: 2000\n\n"

NDJSON = "Accept: application/x-ndjson"


def events_of(client: Client) -> list[Event]:
    """What a client was told by Server-Sent Events."""
    body = parse(client.received)[0].body
    assert body.startswith(RETRY)
    events = parse_sse(body.removeprefix(RETRY))
    return [event._replace(data=json.loads(event.data)) for event in events]


def told(served: Keeping, count: int) -> None:
    """The job that runs tells of its progress so often, and the store knows it."""
    job = served.pool.jobs[-1]
    for number in range(count):
        job.report(number, None, f"step {number}")
        served.tick(BEAT_SECONDS)


@both_sites
def test_all_of_it(wire: bool) -> None:
    """A client is told what was, what comes, and in the end the whole document."""
    with keeping(wire=wire) as served:
        record = served.accept()
        client = served.begin("GET", f"/jobs/{record.id}/events", "Accept: text/event-stream")
        response, _ = parse(client.received)
        assert response.status == 200
        assert response.header("content-type") == "text/event-stream"
        assert response.header("cache-control") == "no-store"
        assert response.header("x-accel-buffering") == "no"
        assert not response.is_whole
        served.start()
        told(served, 1)
        served.give(answer_of(b"done"))
        response = client.response()
        assert response.is_whole
        events = events_of(client)
        assert [(event.kind, event.id) for event in events] == [
            ("state", "1"),
            ("state", "2"),
            ("progress", "3"),
            ("end", "4"),
        ]
        assert events[1].data["state"] == "running"
        assert events[2].data["message"] == "step 0"
        assert events[3].data == served.get(f"/jobs/{record.id}").json


@both_sites
def test_ndjson(wire: bool) -> None:
    """Programs may have one JSON object in each line."""
    with keeping(wire=wire) as served:
        record = served.done()
        response = served.get(f"/jobs/{record.id}/events", NDJSON)
        assert response.header("content-type") == "application/x-ndjson"
        lines = [json.loads(line) for line in response.body.splitlines()]
        assert [(line["type"], line["id"]) for line in lines] == [
            ("state", 1),
            ("state", 2),
            ("end", 3),
        ]
        assert lines[0]["data"]["state"] == "queued"
        assert lines[2]["data"]["id"] == record.id


@pytest.mark.parametrize("how", ["field", "query", "both"])
def test_resumes(how: str) -> None:
    """A client that comes again goes on behind the last event that it has."""
    with keeping() as served:
        record = served.done()
        path, fields = f"/jobs/{record.id}/events", ["Last-Event-ID: 2"]
        if how != "field":
            path, fields = f"{path}?x=1&after=2", []
        if how == "both":  # as a browser does that began with the query
            path, fields = f"/jobs/{record.id}/events?after=1", ["Last-Event-ID: 2"]
        client = served.begin("GET", path, *fields)
        assert [event.id for event in events_of(client)] == ["3"]
        assert client.response().is_whole


@both_sites
def test_resumes_behind_the_end(wire: bool) -> None:
    """A browser that has all is told not to come again."""
    with keeping(wire=wire) as served:
        record = served.done()
        response = served.get(f"/jobs/{record.id}/events", "Last-Event-ID: 3")
        assert (response.status, response.body) == (204, b"")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?after=x", "X: y"),
        ("?after=-1", "X: y"),
        ("?after=1&after=2", "X: y"),
        ("?after=4", "X: y"),
        ("", "Last-Event-ID: 1.5"),
        ("", "Last-Event-ID: 99"),
    ],
)
def test_nonsense(query: str, field: str) -> None:
    """A number that is none, or of no event, is refused."""
    with keeping() as served:
        record = served.done()
        assert served.get(f"/jobs/{record.id}/events{query}", field).status == 400


@both_sites
def test_head(wire: bool) -> None:
    """HEAD says what it would be."""
    with keeping(wire=wire) as served:
        record = served.accept()
        response = served.ask("HEAD", f"/jobs/{record.id}/events")
        assert (response.status, response.body) == (200, b"")
        assert response.header("content-type") == "text/event-stream"


def test_many() -> None:
    """Events are read a few at a time, however many there are."""
    with keeping() as served:
        record = served.accept()
        served.start()
        told(served, 2 * BATCH + 30)
        asked: list[tuple[int, int]] = []
        events = served.keeper.events

        def counted(id: str, after: int, most: int) -> Any:
            asked.append((after, most))
            return events(id, after, most)

        served.keeper.events = counted  # type: ignore[method-assign]  # to see what is read
        client = served.begin("GET", f"/jobs/{record.id}/events")
        assert [event.id for event in events_of(client)] == [
            str(number) for number in range(1, 2 * BATCH + 33)
        ]
        assert asked == [(0, BATCH), (BATCH, BATCH), (2 * BATCH, BATCH)]


@both_sites
def test_slow_reader(wire: bool) -> None:
    """For a client that does not read, nothing is read; when it reads, it gets what it missed."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        client = served.connect()
        client.transport.is_full = True
        client.request("GET", f"/jobs/{record.id}/events")
        served.settle()
        before = client.received
        told(served, 3)
        served.tick(HEARTBEAT_SECONDS)
        assert client.received == before
        client.transport.is_full = False
        client.transport.read()
        served.settle()
        assert [event.id for event in events_of(client)] == ["1", "2", "3", "4", "5"]


@both_sites
def test_forgotten_meanwhile(wire: bool) -> None:
    """The response ends where the job was forgotten before a slow client has had all of it."""
    with keeping(wire=wire) as served:
        record = served.accept()
        served.start()
        client = served.connect()
        client.request("GET", f"/jobs/{record.id}/events")
        served.settle()
        client.transport.is_full = True
        told(served, 1)  # which fills it
        served.give(answer_of(b"done"))
        assert served.run(served.keeper.delete(record.id))
        client.transport.is_full = False
        client.transport.read()
        served.settle()
        assert client.response().is_whole
        assert [event.kind for event in events_of(client)] == ["state", "state", "progress"]


@both_sites
@pytest.mark.parametrize("field", ["Accept: text/event-stream", NDJSON])
def test_heartbeat(wire: bool, field: str) -> None:
    """Where nothing happens, the stream says now and then that it is alive."""
    with keeping(wire=wire) as served:
        record = served.accept()
        client = served.begin("GET", f"/jobs/{record.id}/events", field)
        quiet = parse(client.received)[0].body
        served.tick(HEARTBEAT_SECONDS - 1)
        assert parse(client.received)[0].body == quiet
        served.tick(1)
        beat = b":\n\n" if field != NDJSON else b'{"type":"heartbeat"}\n'
        assert parse(client.received)[0].body == quiet + beat
        served.start()  # which says something
        served.tick(HEARTBEAT_SECONDS - 1)
        assert parse(client.received)[0].body.count(beat) == 1
        served.tick(1)
        assert parse(client.received)[0].body.count(beat) == 2


@both_sites
def test_client_leaves(wire: bool) -> None:
    """Of a client that leaves nothing is left, and the job goes on."""
    with keeping(wire=wire) as served:
        record = served.accept()
        client = served.begin("GET", f"/jobs/{record.id}/events")
        client.leave()
        assert not served.keeper._watchers
        assert served.tree.open_replies == 0
        served.start()
        served.give(answer_of(b"done"))
        assert served.get(f"/jobs/{record.id}").json["state"] == "succeeded"


@both_sites
def test_stopping(wire: bool) -> None:
    """When the service stops the stream ends, and its client goes on with the next one."""
    with keeping(wire=wire) as served:
        record = served.accept()
        client = served.begin("GET", f"/jobs/{record.id}/events")
        served.tree.close()
        assert client.response().is_whole
        assert [event.id for event in events_of(client)] == ["1"]
        assert served.get(f"/jobs/{record.id}/events").is_whole


def test_store_fails() -> None:
    """Where the store cannot read the stream ends without an end, and its client comes again."""
    with keeping() as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}/events")
        failing = True
        events = served.keeper.events

        def fails(id: str, after: int, most: int) -> Any:
            if not failing:
                return events(id, after, most)
            broken: Deferred[Any] = Deferred()
            broken.errback(StoreFailed("the disk is gone"))
            return broken

        served.keeper.events = fails  # type: ignore[method-assign]  # while the store itself works
        told(served, 1)
        assert client.response().is_whole
        assert [event.id for event in events_of(client)] == ["1", "2"]
        assert any("its events cannot be read" in line for line in served.log_lines)
        failing = False
        client = served.begin("GET", f"/jobs/{record.id}/events", "Last-Event-ID: 2")
        assert [event.id for event in events_of(client)] == ["3"]


def test_defect() -> None:
    """A defect of ours is logged, and ends the stream without an end."""
    with keeping() as served:
        record = served.accept()
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}/events")

        def broken(id: str) -> Any:
            raise ZeroDivisionError

        served.keeper.queue_of = broken  # type: ignore[method-assign]  # something goes wrong
        served.give(answer_of(b"done"))
        assert client.response().is_whole
        assert [event.kind for event in events_of(client)] == ["state", "state"]
        assert served.forget_failures() == ["ZeroDivisionError"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["tell", "turn", "full", "read", "end"]), max_size=40))
def test_whatever_comes_between(acts: Sequence[str]) -> None:
    """In whatever order events are stored, read and taken, each comes once and in order."""
    with keeping() as served:
        record = served.accept()
        served.start()
        client = served.connect()
        client.request("GET", f"/jobs/{record.id}/events")
        job, step = served.pool.jobs[-1], 0
        for act in acts:
            if act == "tell" and not job.has_ended:
                step += 1
                job.report(step, None, "")
                served.clock.advance(BEAT_SECONDS)
            elif act == "turn":
                served.clock.advance(0)
            elif act == "full":
                client.transport.is_full = True
            elif act == "read":
                client.transport.is_full = False
                client.transport.read()
            elif act == "end" and not job.has_ended:
                served.pool.give(answer_of(b"done"))
        if not job.has_ended:
            served.pool.give(answer_of(b"done"))
        client.transport.is_full = False
        client.transport.read()
        served.settle()
        events = events_of(client)
        assert [event.id for event in events] == [str(n + 1) for n in range(len(events))]
        assert events[-1].kind == "end"
        assert client.response().is_whole


@pytest.mark.parametrize("format", list(EventFormat))
def test_lines(format: EventFormat) -> None:
    """Data with line breaks does not break the format."""
    event = StoredEvent(7, "state", b'{\n"a": 1\n}')
    data = event_bytes(format, event.number, event.kind, event.data)
    if format is EventFormat.SSE:
        (found,) = parse_sse(data)
        assert (found.kind, found.id, json.loads(found.data)) == ("state", "7", {"a": 1})
    else:
        assert data.count(b"\n") == 1
        assert json.loads(data) == {"type": "state", "id": 7, "data": {"a": 1}}
