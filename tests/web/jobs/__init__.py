"""Tests of the resources of kept jobs: a site without a network, and a keeper with a real store.

Nothing runs in the pool but what a test says.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from deferpost.dispatch import Dispatcher
from deferpost.errors import HTTPError
from deferpost.jobs import Job
from deferpost.keeping import Keeper
from deferpost.lifecycle import Event
from deferpost.model import Answer, CallHead
from deferpost.records import JobRecord, NewJob
from deferpost.store.memory import MemoryStore
from deferpost.web.exchange import OpenExchanges, problem_for
from deferpost.web.jobs import JOBS, JobsContext, JobTree
from deferpost.web.post import PostContext
from deferpost.web.problems import PROBLEM_TYPE
from deferpost.web.tree import AppResource
from deferpost.wire.site import DeferPostSite
from tests.web import Client, FakePool, Response, answer_of, route

#: 2001-09-09T01:46:40Z, when the clock of the tests begins.
DAWN = 1e9

_T = TypeVar("_T")


class Explained(NamedTuple):
    """An error as a response."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def explain(error: BaseException, id: str) -> Explained:
    """What an error is as a response."""
    problem = problem_for(error)
    return Explained(problem.status, ((b"Content-Type", PROBLEM_TYPE),), problem.document(id))


class PermittedPool(FakePool):
    """A pool that asks before the code of a job begins."""

    def start(self, number: int = -1) -> Job:
        job = self.jobs[number]
        assert job.permit is not None

        def permitted(_: None) -> None:
            job.started = self._now()
            job.happened(Event.START)

        job.permit(job).addCallback(permitted)
        return job


def unreported(error: BaseException, job: Job) -> None:
    """Nobody reads the log of these."""


class Keeping:
    """An app with kept jobs that is served.

    :param wire: whether on our own wire.
    :param below: the segment of the path below which the app is mounted.
    """

    def __init__(
        self, logs: Sequence[LogEvent], *, wire: bool, below: bytes | None, **context: Any
    ) -> None:
        self.logs = logs
        self.clock = Clock()
        now = self.clock.seconds
        self.pool = PermittedPool(now)
        self.dispatcher = Dispatcher({"fake": self.pool}, now)
        self.store = MemoryStore(self.clock, self.wall)
        self.keeper = Keeper(
            lambda: self.store, self.clock, explain, unreported, now=now, wall=self.wall
        )
        self.run(self.keeper.open())
        self.keeper.serve(self.dispatcher, {"/rst": route()})
        self.context = JobsContext(keeper=self.keeper, clock=self.clock, wall=self.wall, **context)
        self.tree = JobTree(self.context)
        posts = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=now,
            open_exchanges=OpenExchanges(),
            timeout=30.0,
            max_body=100,
        )
        root: Resource = AppResource([route()], posts, trees=[(JOBS, self.tree)])
        if below is not None:
            app, root = root, Resource()
            root.putChild(below, app)
        if wire:
            self.site: Site = DeferPostSite(root, reactor=self.clock)
        else:
            self.site = Site(root, reactor=self.clock, parsePOSTFormSubmission=False)
        self.clients: list[Client] = []

    def wall(self) -> float:
        """Seconds since the epoch."""
        return DAWN + self.clock.seconds()

    def settle(self) -> None:
        """What the store has to say is said."""
        for _ in range(30):
            self.clock.advance(0)

    def run(self, work: Any) -> Any:
        """What a coroutine gives, or a Deferred."""

        async def awaited() -> Any:
            return await work

        found: list[Any] = []
        Deferred.fromCoroutine(awaited()).addBoth(found.append)
        self.settle()
        assert found, "it waits for something else than the store"
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    # Jobs.

    def accept(
        self, id: str | None = None, principal: str | None = None, **fields: Any
    ) -> JobRecord:
        """Keep a job."""
        id = self.keeper.new_id() if id is None else id
        head = CallHead(
            f"request-of-{id}", "/rst", "POST", "/rst", b"", (), None, None, None, principal
        )
        new = NewJob(
            id=id,
            head=head,
            pool="fake",
            created=self.wall(),
            urgency=3,
            retries=0,
            ttl=3600.0,
            **fields,
        )
        record: JobRecord = self.run(self.keeper.accept(new, io.BytesIO(b"body"))).record
        return record

    def start(self, number: int = -1) -> Job:
        """A worker takes a job that was given to the pool."""
        job = self.pool.start(number)
        self.settle()
        return job

    def give(self, answer: Answer, number: int = -1) -> None:
        """Its code has ended with an answer."""
        self.pool.give(answer, number)
        self.settle()

    def done(self, body: Any = b"done", length: int | None = -1, **fields: Any) -> JobRecord:
        """A job that has ended."""
        names = ("id", "principal")
        record = self.accept(**{name: fields.pop(name) for name in names if name in fields})
        self.start()
        self.give(answer_of(body, length, **fields))
        return record

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        self.settle()

    # Clients.

    def connect(self) -> Client:
        """One that leaves when the test is over."""
        client = Client(self.site)
        self.clients.append(client)
        return client

    def begin(self, method: str, path: str, *headers: str, body: bytes = b"") -> Client:
        """Send one request, which may be answered later."""
        client = self.connect()
        client.request(method, path, body, *headers)
        self.settle()
        return client

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Response:
        """Send one request, and read its response."""
        client = self.begin(method, path, *headers, body=body)
        return client.response(has_body=method != "HEAD")

    def get(self, path: str, *headers: str) -> Response:
        """Look at something."""
        return self.ask("GET", path, *headers)

    def end_all(self) -> None:
        """Every job ends that was given to the pool."""
        number = 0
        while number < len(self.pool.jobs):
            if not self.pool.jobs[number].has_ended:
                self.pool.fail(HTTPError(500, "The test is over."), number)
                self.settle()
            number += 1

    def forget_failures(self) -> list[str]:
        """The names of the exceptions that were logged with their tracebacks, as expected."""
        failed = [event for event in self.logs if "log_failure" in event]
        return [type(event.pop("log_failure").value).__name__ for event in failed]

    @property
    def log_lines(self) -> list[str]:
        """What was logged, as text."""
        return [formatEvent(event) for event in self.logs]


@contextmanager
def keeping(*, wire: bool = True, below: bytes | None = None, **context: Any) -> Iterator[Keeping]:
    """Serve an app with kept jobs; nothing is left in the end, and no failure was logged."""
    with capturedLogs() as logs:
        served = Keeping(logs, wire=wire, below=below, **context)
        yield served
        for client in served.clients:
            client.leave()
        served.settle()
        served.store.failure = None
        served.end_all()
        assert served.tree.open_replies == 0
        assert not served.keeper._watchers
        assert not served.keeper._waiters
        left = [call for call in served.clock.getDelayedCalls() if "Feed" in str(call)]
        assert left == []
        assert [event["log_failure"].value for event in logs if "log_failure" in event] == []
