"""Following jobs: over lost connections, to their ends."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from deferpost.client import (
    BadAnswer,
    Job,
    JobEvent,
    JobGone,
    NotEnded,
    Problem,
    Retries,
    Unreachable,
)
from deferpost.client.receiving import Receiver
from tests.client.conftest import MakeClient
from tests.client.site import FakeJob, JobSite, abort, problem


async def turns(seconds: float = 0.02) -> None:
    """Let others have their turn."""
    from twisted.internet import reactor

    pause: Deferred[None] = deferLater(reactor, seconds)
    await pause


def reply(status: int, body: bytes, **fields: str) -> Any:
    """What answers with a body."""

    def answer(request: Any) -> None:
        request.setResponseCode(status)
        for name, value in fields.items():
            request.setHeader(name.replace("_", "-"), value)
        request.write(body)
        request.finish()

    return answer


@pytest.fixture
def running(site: JobSite) -> FakeJob:
    """A job that runs."""
    job = site.new_job()
    job.begin()
    return job


@pytest.fixture
def job(client: MakeClient, running: FakeJob) -> Job:
    """The handle of it."""
    return client().attach(running.id)


# Its document, and its end.


@pytest_twisted.ensureDeferred
async def test_the_document(job: Job, running: FakeJob) -> None:
    """The document is a value with all that the server tells."""
    running.advance(1, 3, "first")
    document = await job.document()
    assert (document.id, document.route, document.state) == (running.id, "/work", "running")
    assert document.progress is not None
    assert (document.progress.done, document.progress.total) == (1, 3)
    assert document.created is not None
    assert document.created.timestamp() == pytest.approx(running.created, abs=0.01)
    assert not document.ended
    assert document.members["links"]["self"].endswith("/jobs/job-1")
    assert document.queue is None


@pytest_twisted.ensureDeferred
async def test_waiting(site: JobSite, job: Job, running: FakeJob) -> None:
    """Waiting takes one request, which the server answers at the end."""
    waiting = job.wait()
    await turns(0.1)
    assert not waiting.called
    running.end(b"done")
    assert (await waiting).state == "succeeded"
    assert site.headers("prefer") == ["wait=30"]


@pytest_twisted.ensureDeferred
async def test_waiting_outlives_connections_and_the_server(
    site: JobSite, job: Job, running: FakeJob
) -> None:
    """Connections that break, gateways that know nothing, and a restart are no end of a job."""
    from twisted.internet import reactor

    site.instead = [abort, problem(502), problem(503, retry_after="0"), None]
    waiting = job.wait()
    while len(site.requests) < 4:
        await turns()
    port = site.port.getHost().port
    await site.port.stopListening()
    for connection in list(site.connections):
        connection.abortConnection()
    await turns(0.1)
    running.end(b"done")
    site.listen(reactor, port)
    assert (await waiting).state == "succeeded"


@pytest_twisted.ensureDeferred
async def test_the_time_to_wait(site: JobSite, client: MakeClient, running: FakeJob) -> None:
    """When the time is over the job as it was is in the error; it goes on."""
    job = client().attach(running.id)
    with pytest.raises(NotEnded) as raised:
        await job.wait(timeout=0.1)
    assert raised.value.document is not None
    assert raised.value.document.state == "running"
    await site.port.stopListening()
    with pytest.raises(NotEnded, match="refuses connections"):
        await job.wait(timeout=0.1)
    from twisted.internet import reactor

    site.listen(reactor)


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_wait(site: JobSite, job: Job, running: FakeJob) -> None:
    """A server that answers at once in spite of ``Prefer`` is not asked without a pause."""

    def at_once(request: Any) -> None:
        request.requestHeaders.removeHeader("prefer")
        site._job(request, running.id)

    site.instead = [at_once] * 100
    waiting = job.wait()
    await turns(0.3)
    assert 1 <= len(site.requests) <= 2
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting


@pytest_twisted.ensureDeferred
async def test_an_unreachable_server_ends_the_patience(site: JobSite, client: MakeClient) -> None:
    """A server that does not come back is told of in the end."""
    job = client(retries=Retries(first_pause_seconds=0.01, patience_seconds=0.1)).attach("x")
    site.instead = [abort] * 1000
    with pytest.raises(Unreachable):
        await job.document()
    assert len(site.requests) > 1
    site.instead.clear()


@pytest.mark.parametrize(
    ("handling", "status"), [(problem(404), 404), (problem(410), 410)], ids=["unknown", "expired"]
)
@pytest_twisted.ensureDeferred
async def test_a_job_that_is_gone(site: JobSite, job: Job, handling: Any, status: int) -> None:
    """What is not there, or no longer, has an error of its own, whatever was asked."""
    for ask in (job.document, job.wait, job.result, job.cancel, job.delete):
        site.instead = [handling]
        with pytest.raises(JobGone) as raised:
            await ask()
        assert raised.value.status == status
    site.instead = [handling]
    with pytest.raises(JobGone):
        [event async for event in job.events()]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":1}', b"<html>", b'{"id":"a"}'])
@pytest_twisted.ensureDeferred
async def test_what_is_no_document(site: JobSite, job: Job, body: bytes) -> None:
    """What is no document of a job is no answer."""
    site.instead = [reply(200, body)]
    with pytest.raises(BadAnswer):
        await job.document()


@pytest_twisted.ensureDeferred
async def test_cancel_and_delete(site: JobSite, client: MakeClient) -> None:
    """Canceling and deleting may be done twice, and are where a connection is lost."""
    queued, running = site.new_job(), site.new_job()
    running.begin()
    made = client()
    site.instead = [abort]
    assert (await made.attach(queued.id).cancel()).state == "canceled"
    assert (await made.attach(queued.id).cancel()).state == "canceled"
    assert (await made.attach(running.id).cancel()).state == "canceling"
    assert await made.attach(running.id).delete() is False
    assert await made.attach(queued.id).delete() is True
    running.end()

    def delete_and_lose(request: Any) -> None:
        del site.jobs[running.id]
        abort(request)

    site.instead = [delete_and_lose]
    assert await made.attach(running.id).delete() is True
    with pytest.raises(JobGone):
        await made.attach(running.id).delete()


def test_attaching(client: MakeClient, site: JobSite) -> None:
    """A job is known by its id or its URL."""
    made = client()
    for name in ("a.B-1", f"{site.url}/jobs/a.B-1", f"{site.url}/jobs/a.B-1/", "/jobs/a.B-1"):
        job = made.attach(name)
        assert (job.id, job.url) == ("a.B-1", f"{site.url}/jobs/a.B-1")
        assert repr(job) == f"<Job {site.url}/jobs/a.B-1>"
    for name in ("", "a b", "\u00e9", "http://elsewhere/jobs/a"):
        with pytest.raises(ValueError, match=r"is not"):
            made.attach(name)


# Its result.


@pytest_twisted.ensureDeferred
async def test_a_result_in_pieces(
    site: JobSite, job: Job, running: FakeJob, tmp_path: Path
) -> None:
    """A result whose connection breaks is got from where it broke, not from its beginning."""
    body = os.urandom(3_000_000)
    running.end(body, kind="application/octet-stream")
    site.cuts = [1_000_000, 0, 500_000, 1]
    with (tmp_path / "result").open("wb") as file:
        answer = await job.result(to=file)
    assert (answer.status, answer.body, answer.length) == (200, b"", len(body))
    assert (tmp_path / "result").read_bytes() == body
    ranges = site.headers("range")[1:]
    assert ranges[0] is None
    begins = [int(value[6:-1]) for value in ranges[1:] if value is not None]
    assert begins == sorted(begins)
    assert begins[0] > 0
    assert begins[-1] > 1_000_000


@pytest_twisted.ensureDeferred
async def test_a_result_in_memory(site: JobSite, client: MakeClient, running: FakeJob) -> None:
    """A result in memory is resumed, too, and has a bound."""
    running.end(b"x" * 1000)
    site.cuts = [300, 300]
    assert (await client().attach(running.id).result()).body == b"x" * 1000
    with pytest.raises(BadAnswer, match="more than 999 bytes"):
        await client(memory_bytes=999).attach(running.id).result()


@pytest_twisted.ensureDeferred
async def test_a_result_that_has_no_ranges(site: JobSite, job: Job, running: FakeJob) -> None:
    """A server that sends all of it again is listened to again; the file has it once."""
    running.end(b"0123456789")
    whole = reply(200, b"0123456789", etag='"job-1"', content_length="10")
    for file in (io.BytesIO(b"old "), Pipe(b"old ")):
        file.seek(4)
        site.cuts = [4]
        site.instead = [None, None, whole]
        assert (await job.result(to=file)).length == 10
        assert file.getvalue() == b"old 0123456789"


@pytest_twisted.ensureDeferred
async def test_a_result_that_is_another(site: JobSite, job: Job, running: FakeJob) -> None:
    """What was got of another result is thrown away, or, where it cannot be, is an error."""
    running.end(b"0123456789")
    other = reply(200, b"abc", etag='"else"', content_length="3")
    file = io.BytesIO()
    site.cuts, site.instead = [4], [None, None, other]
    assert (await job.result(to=file)).length == 3
    assert file.getvalue() == b"abc"
    site.cuts, site.instead = [4], [None, None, other]
    with pytest.raises(BadAnswer, match="cannot be got once more"):
        await job.result(to=Pipe())


@pytest_twisted.ensureDeferred
async def test_a_wrong_range(site: JobSite, job: Job, running: FakeJob) -> None:
    """A piece that does not fit is not put behind what is there."""
    running.end(b"0123456789")
    site.cuts = [4]
    site.instead = [None, None, reply(206, b"9", content_range="bytes 9-9/10")]
    with pytest.raises(BadAnswer, match="not from byte 4"):
        await job.result()


class Pipe(io.BytesIO):
    """A file that cannot be sought."""

    def seekable(self) -> bool:
        """It says so."""
        return False


@pytest_twisted.ensureDeferred
async def test_what_was_packed_stays_packed(site: JobSite, job: Job, running: FakeJob) -> None:
    """A body is what the job has made, byte for byte, whatever its coding is."""
    running.end(b"\x1f\x8b no gzip at all")
    packed = reply(200, b"\x1f\x8b no gzip at all", content_encoding="gzip")
    site.instead = [None, packed]
    answer = await job.result()
    assert answer.body == b"\x1f\x8b no gzip at all"
    assert answer.headers["content-encoding"] == "gzip"
    assert set(site.headers("accept-encoding")) == {None}


@pytest_twisted.ensureDeferred
async def test_a_job_that_failed(site: JobSite, job: Job, running: FakeJob) -> None:
    """The result of a job that failed is its problem; a 503 of the handler's is no other's."""
    running.fail(502, "worker_lost", "The process ended.")
    with pytest.raises(Problem) as raised:
        await job.result()
    assert (raised.value.status, raised.value.reason) == (502, "worker_lost")
    for status in (503, 404, 410, 422):
        running.result = (status, "text/plain", b"the handler's own")
        before = len(site.requests)
        with pytest.raises(Problem) as raised:
            await job.result()
        assert (raised.value.status, raised.value.detail) == (status, "the handler's own")
        assert not isinstance(raised.value, JobGone)
        assert len(site.requests) == before + 2


@given(st.binary(max_size=30), st.data())
def test_whatever_comes_again(body: bytes, data: st.DataObject) -> None:
    """However often the same body begins anew, it is there once."""
    file = Pipe()
    receiver = Receiver(file, 0)
    for end in data.draw(st.lists(st.integers(0, len(body)), max_size=4)):
        receiver.again(same=True)
        receiver.write(body[:end])
    receiver.again(same=True)
    receiver.write(body)
    assert file.getvalue() == body
    assert receiver.length == len(body)


# Its events.


@pytest_twisted.ensureDeferred
async def test_events_over_lost_connections(site: JobSite, job: Job, running: FakeJob) -> None:
    """Events come without a gap and without a repeat, however often the connection breaks."""
    seen: list[JobEvent] = []
    site.instead = [abort]

    async def follow() -> None:
        async for event in job.events():
            seen.append(event)

    following = Deferred.fromCoroutine(follow())
    for number in range(1, 21):
        running.advance(number, 20)
        if number % 3 == 0:
            running.drop_readers()
        if number % 5 == 0:
            await turns(0.05)
    running.drop_readers()
    running.end(b"done")
    await following
    assert [event.number for event in seen] == list(range(1, len(running.events) + 1))
    assert [(event.kind, event.data) for event in seen] == [
        (kind, data) for kind, data in running.events
    ]
    assert (seen[-1].kind, seen[-1].data["state"]) == ("end", "succeeded")
    assert len(site.requests) > 3


@pytest_twisted.ensureDeferred
async def test_events_from_a_place(site: JobSite, job: Job, running: FakeJob) -> None:
    """Whoever has seen some asks for those behind them; leaving early closes the connection."""
    async with contextlib.aclosing(job.events(after=1)) as events:
        async for event in events:
            assert (event.number, event.data["state"]) == (2, "running")
            break
    assert site.headers("last-event-id") == ["1"]
    while site.connections:
        await turns()
    assert running.readers == {}


@pytest_twisted.ensureDeferred
async def test_events_that_are_cut_in_the_middle(site: JobSite, job: Job, running: FakeJob) -> None:
    """An event of which only a part came is got again, whole; one that comes again is dropped."""

    def half(request: Any) -> None:
        request.setHeader("content-type", "text/event-stream")
        request.write(b'id: 1\nevent: state\ndata: {"state": "queued"}\n\nid: 2\nevent: sta')
        request.loseConnection()

    def repeated(request: Any) -> None:
        request.requestHeaders.removeHeader("last-event-id")
        site._job(request, running.id, "events")

    running.end()
    site.instead = [half, repeated]
    assert [event.number async for event in job.events()] == [1, 2, 3, 4]
    assert site.headers("last-event-id") == [None, "1"] or len(site.requests) == 2


@pytest.mark.parametrize(
    ("kind", "stream", "words"),
    [
        ("text/event-stream", b"id: 3\ndata: 1\n\n", "left out events 1 to 2"),
        ("text/event-stream", b"id: x\ndata: 1\n\n", "no number"),
        ("text/event-stream", b"data: 1\n\n", "no number"),
        ("text/event-stream", b"id: 1\ndata: {\n\n", "no JSON"),
        ("text/html", b"<p>", "instead of events"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_are_no_events(
    site: JobSite, job: Job, kind: str, stream: bytes, words: str
) -> None:
    """A server that leaves events out, or speaks of something else, is told of."""
    site.instead = [reply(200, stream, content_type=kind)]
    with pytest.raises(BadAnswer, match=words):
        [event async for event in job.events()]


@pytest_twisted.ensureDeferred
async def test_a_silent_stream(site: JobSite, client: MakeClient, running: FakeJob) -> None:
    """A stream without a sign of life is one that was lost."""
    job = client(timeout=0.1).attach(running.id)
    numbers = []
    async with contextlib.aclosing(job.events()) as events:
        async for event in events:
            numbers.append(event.number)
            if event.number == 2:
                clock = Deferred.fromCoroutine(turns(0.25))
                clock.addCallback(lambda _: running.end())
    assert numbers == [1, 2, 3, 4]
    assert len(site.requests) >= 2


@pytest_twisted.ensureDeferred
async def test_a_long_stream_that_is_lost(
    site: JobSite, client: MakeClient, running: FakeJob
) -> None:
    """The patience begins with the first failure, not with a stream that was good for hours."""
    job = client(retries=Retries(first_pause_seconds=0.01, patience_seconds=0.2)).attach(running.id)

    async def follow() -> list[int]:
        return [event.number async for event in job.events(after=2)]

    following = Deferred.fromCoroutine(follow())
    await turns(0.4)
    running.drop_readers()
    await turns(0.05)
    running.end()
    assert await following == [3, 4]
