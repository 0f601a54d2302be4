"""Tests of the status page, on both kinds of sites, without a network and with their own clock."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.web.server import Site
from zope.interface import implementer

from deferpost.credentials import OperatorTokens
from deferpost.dispatch import Dispatcher
from deferpost.interfaces import IInspectable
from deferpost.jobs import Job
from deferpost.model import State, WorkerStatus
from deferpost.tally import Tally
from deferpost.web.exchange import OpenExchanges
from deferpost.web.post import PostContext
from deferpost.web.status import Access, Looking, Overview, StatusPage
from deferpost.web.tree import AppResource
from deferpost.wire.site import DeferPostSite
from tests.web import Client, FakePool, Response, route

TOKEN = "token-of-the-operator"
BEARER = f"Authorization: Bearer {TOKEN}"
BASIC = f"Authorization: Basic {base64.b64encode(f'me:{TOKEN}'.encode()).decode()}"
JSON = "Content-Type: application/json"

#: 2001-09-09, when the clock of the tests begins.
DAWN = 1e9


@implementer(IInspectable)
class OpenPool(FakePool):
    """A pool whose workers can be seen: one for each job that runs, and an idle one."""

    def __init__(self, now: Any) -> None:
        super().__init__(now)
        self.stacks: list[Deferred[str]] = []
        self.restarted: list[str] = []
        self.looks = 0
        self.idle = 1

    def workers(self) -> list[WorkerStatus]:
        self.looks += 1
        running = [job for job in self.jobs if job.state in (State.RUNNING, State.CANCELING)]
        return [self._worker(f"idle-{number}") for number in range(self.idle)] + [
            self._worker(f"busy-{job.key}", job) for job in running
        ]

    def _worker(self, name: str, job: Job | None = None) -> WorkerStatus:
        now = self._now()
        return WorkerStatus(
            name=name,
            pid=100,
            stage="idle" if job is None else "busy",
            job=None if job is None else job.key,
            job_id=None if job is None else job.head.id,
            route=None if job is None else job.head.route,
            run_seconds=0.0 if job is None else job.run_so_far(now),
            canceling=False if job is None else job.canceled,
            jobs_done=3,
            age=now,
            memory=int(now),
        )

    def stack(self, key: int) -> Deferred[str]:
        if all(job.key != key or job.has_ended for job in self.jobs):
            raise LookupError("That job does not run here.")
        self.stacks.append(Deferred())
        return self.stacks[-1]

    def restart(self, name: str) -> bool:
        self.restarted.append(name)
        return name.startswith("idle")


class Looked:
    """A daemon with a status page.

    :ivar pool: a pool that can be looked into; ``closed`` names one that cannot.
    """

    def __init__(
        self, logs: Sequence[LogEvent], looking: str, *, operators: bool, wire: bool
    ) -> None:
        self.logs = logs
        self.clock = Clock()
        now = self.clock.seconds
        self.pool = OpenPool(now)
        closed = FakePool(now)
        closed.name = "closed"
        self.pools = {"fake": self.pool, "closed": closed}
        self.tally = Tally({"/rst": "fake"}, lambda: DAWN)
        self.dispatcher = Dispatcher(self.pools, now, self.tally)
        self.is_accepting = True
        overview = Overview(
            self,
            self.tally,
            accepting=lambda: self.is_accepting,
            now=now,
            wall_clock=lambda: DAWN + now(),
            version="1.2.3",
            since=0.0,
        )
        tokens = OperatorTokens.parse(f"boss {TOKEN}\n", "tokens", b"k" * 32)
        access = Access(Looking(looking), tokens.name if operators else None)
        self.page = StatusPage(overview, access, self.clock)
        context = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=now,
            open_exchanges=OpenExchanges(),
            timeout=30.0,
            max_body=100,
            observer=self.tally,
        )
        root = AppResource([route()], context, self.page.resources())
        if wire:
            self.site: Site = DeferPostSite(root, reactor=self.clock)
        else:
            self.site = Site(root, reactor=self.clock, parsePOSTFormSubmission=False)

    def find(self, key: int) -> Job | None:
        return self.dispatcher.find(key)

    @property
    def log_lines(self) -> list[str]:
        """What was logged, as text."""
        return [formatEvent(event) for event in self.logs]

    def forget_failures(self) -> list[str]:
        """The names of the exceptions that were logged with their tracebacks, as expected."""
        failed = [event for event in self.logs if "log_failure" in event]
        return [type(event.pop("log_failure").value).__name__ for event in failed]

    def connect(self) -> Client:
        return Client(self.site)

    def ask(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> Response:
        """Send one request, as an operator, and read its response."""
        return self.ask_as((BEARER,), path, *headers, method=method, body=body)

    def ask_as(
        self, who: tuple[str, ...], path: str, *headers: str, method: str = "GET", body: bytes = b""
    ) -> Response:
        """Send one request, as somebody, and read its response."""
        client = self.connect()
        client.request(method, f"/_deferpost{path}", body, *who, *headers)
        return client.response(method != "HEAD")

    def act(self, path: str, body: bytes, *headers: str) -> Response:
        """Press a button, as the page would."""
        return self.ask(
            path, JSON, "Sec-Fetch-Site: same-origin", *headers, method="POST", body=body
        )

    def job(self, id: str = "id-1", started: bool = True) -> tuple[Job, Client]:
        """A job, and the client who waits for it."""
        client = self.connect()
        client.post("/rst", b"body", f"X-Request-ID: {id}")
        job = self.pool.start() if started else self.pool.jobs[-1]
        return job, client


@contextmanager
def looked(
    looking: str = "operators", *, operators: bool = True, wire: bool = True
) -> Iterator[Looked]:
    """A daemon with a status page; a failure that was logged and not expected is an error."""
    with capturedLogs() as logs:
        yield Looked(logs, looking, operators=operators, wire=wire)
        assert [event["log_failure"].value for event in logs if "log_failure" in event] == []
