"""Posting calls: what is sent, what is sent again, and what is not."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from deferpost.client import (
    Answer,
    BadAnswer,
    Client,
    ClientError,
    Job,
    JobGone,
    Problem,
    Retries,
    Unreachable,
)
from tests.client.conftest import MakeClient
from tests.client.site import JobSite, abort, problem


async def turns(seconds: float = 0.02) -> None:
    """Let others have their turn."""
    from twisted.internet import reactor

    pause: Deferred[None] = deferLater(reactor, seconds)
    await pause


# What comes of it.


@pytest_twisted.ensureDeferred
async def test_an_answer_at_once(site: JobSite, client: MakeClient) -> None:
    """A call that is answered while the server waits is an answer."""
    site.made = lambda job: job.end(b'{"got":' + job.body + b"}")
    answer = await client().post("/work?x=1", b"17", wait=5)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.text, answer.length) == (200, '{"got":17}', 10)
    assert answer.json() == {"got": 17}
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert not answer.was_replayed
    assert await answer.result() is answer


@pytest_twisted.ensureDeferred
async def test_a_job(site: JobSite, client: MakeClient) -> None:
    """A call that takes longer is a job, whose Location is that of the client's own origin."""
    site.public_url = "https://elsewhere.example:9999"
    job = await client().post("/work", b"this")
    assert isinstance(job, Job)
    assert (job.id, job.url, job.was_replayed) == ("job-1", f"{site.url}/jobs/job-1", False)
    assert job.accepted is not None
    assert (job.accepted.state, job.accepted.route) == ("queued", "/work")


@pytest_twisted.ensureDeferred
async def test_a_server_without_jobs(site: JobSite, client: MakeClient) -> None:
    """A server that keeps none answers when it is done, and that is waited for."""
    site.keeps = False
    waiting = client(timeout=0.05).post("/work", b"this")
    await turns(0.2)
    assert not waiting.called
    site.jobs["job-1"].end(b"done")
    answer = await waiting
    assert isinstance(answer, Answer)
    assert answer.body == b"done"


@pytest_twisted.ensureDeferred
async def test_a_202_of_the_handlers_own(site: JobSite, client: MakeClient) -> None:
    """A 202 that has no document of a job is an answer as any other."""

    def accepted(request: Any) -> None:
        request.setResponseCode(202)
        request.setHeader("location", "/elsewhere")
        request.write(b'{"id": 5}')
        request.finish()

    site.instead = [accepted]
    answer = await client().post("/work")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (202, b'{"id": 5}')


@pytest_twisted.ensureDeferred
async def test_an_answer_into_a_file(site: JobSite, client: MakeClient, tmp_path: Any) -> None:
    """An answer can be written where it belongs, and only in memory does it have a bound."""
    site.made = lambda job: job.end(b"x" * 1000)
    with (tmp_path / "answer").open("wb") as file:
        answer = await client(memory_bytes=999).post("/work", wait=5, to=file)
    assert isinstance(answer, Answer)
    assert (answer.body, answer.length) == (b"", 1000)
    assert (tmp_path / "answer").read_bytes() == b"x" * 1000
    with pytest.raises(BadAnswer, match="more than 999 bytes"):
        await client(memory_bytes=999).post("/work", wait=5)


# What is sent.


@pytest_twisted.ensureDeferred
async def test_the_header_fields(site: JobSite, client: MakeClient) -> None:
    """What is asked for is in the header fields that the server knows."""
    site.made = lambda job: job.end()
    await client(token="s3cret").post(
        "/work",
        b"{}",
        wait=2.7,
        idempotency_key='my "key\\',
        content_type="application/json",
        headers={"X-Mine": "1"},
        webhook="https://example.com/hook",
        deadline=90,
    )
    _, _, headers = site.requests[0]
    sent = {name.decode().lower(): value[0].decode() for name, value in headers.getAllRawHeaders()}
    sent.pop("host")
    assert sent.pop("user-agent").startswith("deferpost/")
    assert sent.pop("connection") == "close"
    assert sent == {
        "authorization": "Bearer s3cret",
        "content-length": "2",
        "content-type": "application/json",
        "idempotency-key": '"my \\"key\\\\"',
        "prefer": "respond-async, wait=2",
        "webhook-url": "https://example.com/hook",
        "x-mine": "1",
        "x-timeout": "1m30s",
    }


@pytest_twisted.ensureDeferred
async def test_keys(site: JobSite, client: MakeClient) -> None:
    """Every call has a key of its own, unless none is wanted."""
    for key in (None, None, False):
        await client().post("/work", idempotency_key=key)
    first, second, none = site.headers("idempotency-key")
    assert first is not None
    assert len({first, second, none}) == 3
    assert none is None
    assert site.headers("prefer") == ["respond-async"] * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "control characters"),
        ({"headers": [("X A", "1")]}, "not the name"),
        ({"headers": {"Content-Length": "1"}}, "for the server"),
        ({"idempotency_key": ""}, "1 to 255"),
        ({"idempotency_key": "\u00e9"}, "1 to 255"),
        ({"content_type": "a\0b"}, "control characters"),
        ({"webhook": "http://\u00e9/"}, "not ASCII"),
        ({"wait": -1}, "cannot wait"),
    ],
)
def test_what_cannot_be_sent(given: dict[str, Any], words: str) -> None:
    """What would break a request is refused before there is one."""
    with pytest.raises(ValueError, match=words):
        Client("http://127.0.0.1:1").post("/work", **given)


def test_bodies_and_tokens_that_cannot_be_sent() -> None:
    """A body is bytes or a file that can be sent again; a token has no spaces."""
    client = Client("http://127.0.0.1:1")
    with pytest.raises(TypeError, match="not str"):
        client.post("/work", "text")  # type: ignore[arg-type]

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(ValueError, match="copy it"):
        client.post("/work", Pipe(b"x"))
    for token in ("", "a b", "a\r\nX: y", "\u00e9"):
        with pytest.raises(ValueError, match="token"):
            Client("http://127.0.0.1:1", token=token)


@pytest_twisted.ensureDeferred
async def test_a_file_is_sent_from_where_it_stands(site: JobSite, client: MakeClient) -> None:
    """What was read of a file is not sent, and how far it is gets told, from 0 to all."""
    file = io.BytesIO(b"head" + b"x" * 200_000)
    file.seek(4)
    told: list[tuple[int, int]] = []
    await client().post("/work", file, progress=lambda *sent: told.append(sent))
    assert site.jobs["job-1"].body == b"x" * 200_000
    assert told[0] == (0, 200_000)
    assert told[-1] == (200_000, 200_000)
    assert told == sorted(told)
    assert len(told) > 3


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_read(site: JobSite, client: MakeClient) -> None:
    """A file that fails fails the call with its own error, and nothing is tried again."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        await client().post("/work", Broken(b"x" * 10))
    assert site.jobs == {}


# What is sent again.


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_is_asked_for_again(site: JobSite, client: MakeClient) -> None:
    """A call that was taken but not answered is sent again with its key, and is one job."""

    def lose(request: Any) -> None:
        key = request.requestHeaders.getRawHeaders("idempotency-key")[0]
        site.keys[key] = site.new_job("/work", request.content.read())
        abort(request)

    site.instead = [lose]
    file = io.BytesIO(b"the body")
    job = await client().post("/work", file)
    assert isinstance(job, Job)
    assert job.was_replayed
    assert list(site.jobs) == ["job-1"]
    first, second = site.headers("idempotency-key")
    assert first == second
    assert site.headers("content-length") == ["8", "8"]


@pytest_twisted.ensureDeferred
async def test_the_body_is_sent_from_its_beginning(site: JobSite, client: MakeClient) -> None:
    """An upload that was broken off begins anew."""
    from twisted.internet import reactor

    body = b"0123456789" * 300_000
    told: list[int] = []

    def break_off(sent: int, total: int) -> None:
        told.append(sent)
        if sent > 1_000_000 and told.count(0) == 1:
            for connection in list(site.connections):
                connection.abortConnection()

    job = await client().post("/work", io.BytesIO(body), progress=break_off)
    assert isinstance(job, Job)
    assert told.count(0) == 2
    assert site.jobs["job-1"].body == body
    assert reactor is not None


@pytest_twisted.ensureDeferred
async def test_nothing_is_done_twice_without_a_key(site: JobSite, client: MakeClient) -> None:
    """A call without a key that may have been taken is not sent again."""
    site.instead = [abort]
    with pytest.raises(Unreachable) as raised:
        await client().post("/work", idempotency_key=False)
    assert raised.value.was_sent
    assert len(site.requests) == 1
    for refusal in (problem(503, "shutdown"), problem(502), problem(504), problem(503)):
        site.instead = [refusal]
        with pytest.raises(Problem):
            await client().post("/work", idempotency_key=False)
    assert len(site.requests) == 5


@pytest_twisted.ensureDeferred
async def test_what_was_turned_away_is_sent_again(site: JobSite, client: MakeClient) -> None:
    """A server that has no room has done nothing, so even a call without a key comes again."""
    told: list[tuple[str, float]] = []
    site.instead = [
        problem(503, "pool_full", retry_after="0"),
        problem(429, "client_quota", retry_after="0"),
    ]
    made = client(notice=lambda error, seconds: told.append((str(error), seconds)))
    assert isinstance(await made.post("/work", idempotency_key=False), Job)
    assert len(site.requests) == 3
    assert [text for text, _ in told] == [
        "503 A problem (pool_full, id req-1)",
        "429 A problem (client_quota, id req-1)",
    ]


@pytest_twisted.ensureDeferred
async def test_the_server_says_how_long_to_wait(site: JobSite, client: MakeClient) -> None:
    """Retry-After is honoured, up to a bound."""
    from twisted.internet import reactor

    clock: Any = reactor
    site.instead = [problem(503, "pool_full", retry_after="1")]
    began = clock.seconds()
    await client().post("/work")
    assert clock.seconds() - began >= 1.0
    site.instead = [problem(503, "pool_full", retry_after="3600")]
    with pytest.raises(Problem) as raised:
        await client().post("/work")
    assert (raised.value.status, raised.value.reason) == (503, "pool_full")


@pytest_twisted.ensureDeferred
async def test_the_last_error_is_told(site: JobSite, client: MakeClient) -> None:
    """When all attempts were made, the last failure is the client's."""
    site.instead = [problem(503, retry_after="0")] * 6
    with pytest.raises(Problem):
        await client().post("/work")
    assert len(site.requests) == 6


@pytest_twisted.ensureDeferred
async def test_nobody_listens(site: JobSite, client: MakeClient) -> None:
    """A server that is not there yet is tried again; nothing was sent, so no key is needed."""
    from twisted.internet import reactor

    port = site.port.getHost().port
    await site.port.stopListening()
    made = client(retries=Retries(first_pause_seconds=0.2, longest_pause_seconds=0.2))
    waiting = made.post("/work", idempotency_key=False)
    await turns(0.15)
    site.listen(reactor, port)
    assert isinstance(await waiting, Job)
    await site.port.stopListening()
    with pytest.raises(Unreachable, match="refuses connections") as raised:
        await client().post("/work")
    assert not raised.value.was_sent
    site.listen(reactor, port)


@pytest_twisted.ensureDeferred
async def test_silence(site: JobSite, client: MakeClient) -> None:
    """A server that does not answer in time is taken to be lost, and is asked again."""
    site.instead = [lambda request: None]
    assert isinstance(await client(timeout=0.1).post("/work", deadline=0.1), Job)
    assert len(site.requests) >= 2


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_off(site: JobSite, client: MakeClient) -> None:
    """Of an answer that broke off, the call is sent again, and the recorded one is whole."""
    site.made = lambda job: job.end(b"0123456789")
    site.cuts = [4]
    file = io.BytesIO()
    answer = await client().post("/work", wait=5, to=file)
    assert isinstance(answer, Answer)
    assert answer.was_replayed
    assert file.getvalue() == b"0123456789"
    assert list(site.jobs) == ["job-1"]


# Errors.


@pytest_twisted.ensureDeferred
async def test_a_problem(site: JobSite, client: MakeClient) -> None:
    """An error has what its document says, and is not tried again."""
    site.instead = [problem(422, "idempotency_key_reused", "Another body has this key.")]
    with pytest.raises(Problem) as raised:
        await client().post("/work")
    error = raised.value
    assert isinstance(error, ClientError)
    assert not isinstance(error, JobGone)
    assert (error.status, error.title, error.detail) == (
        422,
        "A problem",
        "Another body has this key.",
    )
    assert (error.reason, error.id) == ("idempotency_key_reused", "req-1")
    assert str(error) == (
        "422 A problem: Another body has this key. (idempotency_key_reused, id req-1)"
    )
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/plain", b"Sorry,\n not now", "500 Internal Server Error: Sorry, not now"),
        ("text/html", b"<p>Sorry", "500 Internal Server Error"),
        ("application/problem+json", b"{", "500 Internal Server Error: {"),
        ("application/problem+json", b'{"title":5,"detail":null}', "500 Internal Server Error"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_error_that_is_no_problem_document(
    site: JobSite, client: MakeClient, kind: str, body: bytes, words: str
) -> None:
    """An error of a proxy, or of a handler that says it in another way, is one all the same."""

    def fail(request: Any) -> None:
        request.setResponseCode(500)
        request.setHeader("content-type", kind)
        request.write(body)
        request.finish()

    site.instead = [fail]
    with pytest.raises(Problem) as raised:
        await client().post("/work")
    assert str(raised.value) == words
    assert raised.value.body == body


@pytest_twisted.ensureDeferred
async def test_an_early_refusal_ends_the_upload(site: JobSite, client: MakeClient) -> None:
    """A server that refuses before the body is there is heard, and the rest is not sent."""
    answer = b'{"status":413,"title":"Too Large","reason":"body_too_large"}'
    sent: list[int] = []
    with EarlyServer(answer) as port:
        refused = Client(f"http://127.0.0.1:{port}").post(
            "/work",
            io.BytesIO(bytes(50_000_000)),
            progress=lambda done, total: sent.append(done),
        )
        with pytest.raises(Problem) as raised:
            await refused
    assert raised.value.reason == "body_too_large"
    assert sent[-1] < 50_000_000


class EarlyServer:
    """Answers 413 when it has the head of a request, and reads on for a while, as daemons do."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __enter__(self) -> int:
        from twisted.internet import reactor
        from twisted.internet.protocol import Factory, Protocol

        body = self._body

        class Early(Protocol):
            has_answered = False

            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                if not self.has_answered:
                    self.has_answered = True
                    head = (
                        "HTTP/1.1 413 Too Large\r\nConnection: close\r\n"
                        "Content-Type: application/problem+json\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n"
                    )
                    self.transport.write(head.encode() + body)
                    clock.callLater(0.1, self.transport.abortConnection)  # type: ignore[attr-defined]

        clock: Any = reactor
        self._port = clock.listenTCP(0, Factory.forProtocol(Early), interface="127.0.0.1")
        return int(self._port.getHost().port)

    def __exit__(self, *exc_info: object) -> None:
        self._port.stopListening()


@pytest_twisted.ensureDeferred
async def test_cancel(site: JobSite, client: MakeClient) -> None:
    """A call that is canceled is not sent again, and its connection is closed."""
    site.instead = [lambda request: None]
    posting = client().post("/work")
    while not site.requests:
        await turns()
    posting.cancel()
    with pytest.raises(CancelledError):
        await posting
    pausing = client(retries=Retries(first_pause_seconds=60)).post("/work")
    site.instead = [problem(503)]
    while len(site.requests) < 2:
        await turns()
    await turns()
    pausing.cancel()
    with pytest.raises(CancelledError):
        await pausing
    assert site.jobs == {}


# Whose server it is.


@pytest_twisted.ensureDeferred
async def test_no_token_gets_to_another_origin(site: JobSite, client: MakeClient) -> None:
    """Neither a redirect, nor a Location or link elsewhere, nor a URL given, takes a token away."""
    from twisted.internet import reactor

    other = JobSite()
    other.listen(reactor)
    try:
        site.public_url = other.url
        made = client(token="s3cret")
        job = await made.post("/work")
        assert isinstance(job, Job)
        site.jobs["job-1"].end(b"here")
        assert (await job.result()).body == b"here"
        async for _ in job.events():
            pass

        def redirect(request: Any) -> None:
            request.redirect(f"{other.url}/work".encode())
            request.finish()

        site.instead = [redirect]
        answer = await made.post("/work")
        assert isinstance(answer, Answer)
        assert answer.status == 302
        with pytest.raises(ValueError, match="is not at"):
            made.attach(f"{other.url}/jobs/job-1")
    finally:
        await other.port.stopListening()
    assert other.requests == []
    assert set(site.headers("authorization")) == {"Bearer s3cret"}


# The list.


@pytest_twisted.ensureDeferred
async def test_the_list_of_jobs(site: JobSite, client: MakeClient) -> None:
    """Jobs are listed newest first, over as many pages as there are, up to a limit."""
    site.page = 3
    for number in range(8):
        job = site.new_job()
        if number % 2:
            job.end()
    made = client()
    assert [job.id async for job in made.jobs()] == [f"job-{n}" for n in range(8, 0, -1)]
    assert [job.id async for job in made.jobs(limit=4)] == ["job-8", "job-7", "job-6", "job-5"]
    assert [job.id async for job in made.jobs(state="queued")] == [f"job-{n}" for n in (7, 5, 3, 1)]
    assert [job.id async for job in made.jobs(state=["failed", "expired"])] == []


@pytest_twisted.ensureDeferred
async def test_what_is_no_list(site: JobSite, client: MakeClient) -> None:
    """A server that is no deferpost is told from one."""

    def answering(document: Any) -> Any:
        def answer(request: Any) -> None:
            request.write(
                document if isinstance(document, bytes) else json.dumps(document).encode()
            )
            request.finish()

        return answer

    wrong: list[Any] = [[], {}, {"jobs": [{}]}, {"jobs": [], "next": 5}, b"<html>"]
    for document in wrong:
        site.instead = [answering(document)]
        with pytest.raises(BadAnswer):
            [job async for job in client().jobs()]
