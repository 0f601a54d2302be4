"""Tests of the resources: a site without a network, and a pool whose answers the tests give.

:func:`serving` has a real site with real requests.  Only the transport is not real, and the pool:
nothing runs there but what a test says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

from deferpost.dispatch import Dispatcher
from deferpost.errors import DeadlineExceeded, ShuttingDown
from deferpost.interfaces import IWorkerPool
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, OnDisconnect, PoolStatus, Reason, Route, Rung, State
from deferpost.pools.streams import ChunkBuffer
from deferpost.web.events import Beat
from deferpost.web.exchange import OpenExchanges
from deferpost.web.post import PostContext
from deferpost.web.tree import AppResource

PEER = IPv4Address("TCP", "192.0.2.1", 4711)


@implementer(IWorkerPool)
class FakePool:
    """A pool that runs nothing: the test starts its jobs and says what comes of them."""

    name = "fake"

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.jobs: list[Job] = []
        self.bodies: list[bytes] = []
        self.refusal: Exception | None = None
        self.canceled: list[Reason] = []

    def submit(self, job: Job) -> Deferred[Answer]:
        if self.refusal is not None:
            raise self.refusal
        answer: Deferred[Answer] = Deferred(lambda _: self._stop(job, Reason.REQUESTED))
        job.answer, job.stop = answer, self._stop
        self.jobs.append(job)
        if hasattr(job.body, "read"):  # else it arrives
            self.bodies.append(job.body.read())
        return answer

    def status(self) -> PoolStatus:
        running = [job for job in self.jobs if job.state in (State.RUNNING, State.CANCELING)]
        waiting = [job for job in self.jobs if job.state is State.QUEUED]
        return PoolStatus(
            name=self.name,
            kind="fake",
            size=2,
            max_waiting=10,
            running=len(running),
            waiting=len(waiting),
            stuck=sum(job.canceled for job in running),
            ready=True,
        )

    def stop(self, patience: float) -> Deferred[int]:
        raise NotImplementedError

    def _stop(self, job: Job, reason: Reason) -> None:
        self.canceled.append(reason)
        job.canceled = True
        answer, job.answer = job.answer, None
        event = Event.EXPIRE if reason is Reason.DEADLINE_RUN else Event.CANCEL
        if job.state is State.QUEUED:
            job.rung = Rung.REMOVED
            job.body.close()
            job.end(event, self._now(), reason)
        else:
            job.rung = Rung.TOLD
            job.happened(event, reason)
        if answer is not None:
            errors: dict[Reason, Exception] = {
                Reason.DEADLINE_RUN: DeadlineExceeded(job.head.timeout or 0.0),
                Reason.SHUTDOWN: ShuttingDown("the service is stopping"),
            }
            answer.errback(errors.get(reason, CancelledError()))

    # What the test says.

    def start(self, number: int = -1) -> Job:
        """A worker takes a job."""
        job = self.jobs[number]
        job.started = self._now()
        job.happened(Event.START)
        return job

    def _end(self, job: Job, event: Event, reason: Reason | None = None) -> Deferred[Answer] | None:
        answer = job.answer
        job.body.close()
        if job.state is State.CANCELING:
            event, reason = Event.STOP, None
        job.end(event, self._now(), reason)
        return answer

    def give(self, answer: Answer, number: int = -1) -> None:
        """Its code has ended with an answer."""
        waiter = self._end(self.jobs[number], Event.SUCCEED)
        if waiter is not None:
            waiter.callback(answer)
        else:
            answer.close()

    def fail(self, error: Exception, number: int = -1) -> None:
        """Its code has ended with an error."""
        waiter = self._end(self.jobs[number], Event.FAIL, Reason.ERROR)
        if waiter is not None:
            waiter.errback(error)

    def stream(self, number: int = -1, **fields: Any) -> ChunkBuffer:
        """Its answer begins; the test delivers the chunks."""
        job = self.jobs[number]
        waiter, job.answer = job.answer, None
        buffer = ChunkBuffer(abandoned=job.cancel)
        assert waiter is not None
        waiter.callback(answer_of(buffer, None, **fields))
        return buffer

    def end_stream(
        self, buffer: ChunkBuffer, error: Exception | None = None, number: int = -1
    ) -> None:
        """Its code has ended, and so has the stream; with an error, because it broke off."""
        job = self.jobs[number]
        if not job.has_ended:
            if error is None:
                self._end(job, Event.SUCCEED)
            else:
                self._end(job, Event.FAIL, Reason.ERROR)
        buffer.finish(error)


def answer_of(body: Any, length: int | None = -1, **fields: Any) -> Answer:
    """An answer with this body."""
    if length == -1:
        length = len(body)
    pairs: tuple[tuple[bytes, bytes], ...] = fields.get("headers", ((b"Content-Type", b"text/a"),))
    return Answer(fields.get("status", 200), pairs, body, length)


class Response(NamedTuple):
    """A response as a client reads it.

    :ivar is_whole: whether it has an end that the client can see.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_whole: bool

    def header(self, name: str) -> str | None:
        """The value of a field that may come once."""
        values = [value for other, value in self.headers if other.lower() == name.lower()]
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse(data: bytes, has_body: bool = True) -> tuple[Response, bytes]:
    """The first response in what a client has received, and the rest.

    :param has_body: false for a response to HEAD.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, data
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status = status_line.split(" ")[:2]
    assert version in ("HTTP/1.1", "HTTP/1.0")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    response = Response(int(status), headers, b"", True)
    length, coding = response.header("content-length"), response.header("transfer-encoding")
    assert length is None or coding is None
    if not has_body or response.status in (204, 304):
        return response, rest
    if length is not None:
        body, rest = rest[: int(length)], rest[int(length) :]
        return response._replace(body=body, is_whole=len(body) == int(length)), rest
    if coding is None:  # until the connection is closed
        return response._replace(body=rest, is_whole=False), b""
    assert coding == "chunked"
    body = b""
    while True:
        size, separator, after = rest.partition(b"\r\n")
        if not separator:
            return response._replace(body=body, is_whole=False), b""
        count = int(size, 16)
        body, rest = body + after[:count], after[count + 2 :]
        if count == 0:
            return response._replace(body=body), rest


class SlowTransport(StringTransport):
    """A transport that pauses its producer like a real one, when the test lets nobody read."""

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER, lenient=True)
        self.is_full = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)
        self._pause()

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.writes += 1
        super().writeSequence(data)
        self._pause()

    def _pause(self) -> None:
        if self.is_full and self.producer is not None:
            self.producer.pauseProducing()

    def read(self) -> None:
        """The client reads what there is."""
        if self.producer is not None:
            self.producer.resumeProducing()


class Client:
    """A client with its connection."""

    def __init__(self, site: Site) -> None:
        self.transport = SlowTransport()
        self._channel = site.buildProtocol(PEER)
        self._channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self._channel.dataReceived(data)

    def request(self, method: str, path: str, body: bytes = b"", *headers: str) -> None:
        """Send a request, with headers as lines."""
        lines = [f"{method} {path} HTTP/1.1", "Host: example.com", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join((*lines, "", "")).encode("latin-1") + body)

    def post(self, path: str = "/rst", body: bytes = b"body", *headers: str) -> None:
        self.request("POST", path, body, *headers)

    def leave(self) -> None:
        """Close the connection."""
        self._channel.connectionLost(Failure(ConnectionLost()))

    @property
    def received(self) -> bytes:
        data: bytes = self.transport.value()
        return data

    @property
    def was_disconnected(self) -> bool:
        return bool(self.transport.disconnecting)

    def response(self, has_body: bool = True) -> Response:
        """The one response that has come."""
        response, rest = parse(self.received, has_body)
        assert rest == b""
        return response

    def responses(self) -> list[Response]:
        """All the responses that have come."""
        found, rest = [], self.received
        while rest:
            response, rest = parse(rest)
            found.append(response)
        return found


class Served:
    """An app that is served."""

    def __init__(
        self,
        routes: Sequence[Route],
        others: Sequence[tuple[bytes, IResource]],
        logs: Sequence[LogEvent],
        timeout: float | None,
    ) -> None:
        self.clock = Clock()
        self.pool = FakePool(self.clock.seconds)
        self.dispatcher = Dispatcher({"fake": self.pool}, self.clock.seconds)
        self.open_exchanges = OpenExchanges()
        self.context = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=self.clock.seconds,
            open_exchanges=self.open_exchanges,
            timeout=timeout,
            max_body=100,
            beat=Beat(self.clock),
        )
        self.root = AppResource(routes, self.context, others)
        self.site = Site(self.root, reactor=self.clock)
        self.logs = logs
        self._flushed = 0

    def connect(self) -> Client:
        return Client(self.site)

    @property
    def log_lines(self) -> list[str]:
        """What was logged, as text."""
        return [formatEvent(event) for event in self.logs]

    def flush_failures(self) -> list[Exception]:
        """The exceptions that were logged with their tracebacks; a test that expects none fails."""
        events, self._flushed = self.logs[self._flushed :], len(self.logs)
        return [event["log_failure"].value for event in events if "log_failure" in event]


def route(path: str = "/rst", **fields: Any) -> Route:
    """A route of the fake pool."""
    return Route(path=path, handler=None, pool="fake", **fields)


@contextmanager
def serving(
    *routes: Route,
    others: Sequence[tuple[bytes, IResource]] = (),
    timeout: float | None = 30.0,
    on_disconnect: str = "cancel",
) -> Iterator[Served]:
    """Serve routes, by default one; a failure that was logged and not expected is an error."""
    with capturedLogs() as logs:
        found = routes or (route(on_disconnect=OnDisconnect(on_disconnect)),)
        served = Served(found, others, logs, timeout)
        yield served
        assert served.flush_failures() == []
