"""A small server that keeps jobs in memory, as the contract of jobs says, over real sockets.

Its jobs run no code: a test says what they do.  It can be told to break off at exact moments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

__all__ = ["FakeJob", "JobSite", "abort", "problem"]

ENDED = ("succeeded", "failed", "canceled", "expired")

#: Handles a request in the place of the site.
Handling = Callable[[Any], object]


def stamp(seconds: float | None) -> str | None:
    """A time as documents have it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def send(request: Any, status: int, document: Any, **headers: str) -> None:
    """Answer with JSON."""
    request.setResponseCode(status)
    kind = "application/json" if status < 400 else "application/problem+json"
    request.setHeader("content-type", kind)
    for name, value in headers.items():
        request.setHeader(name.replace("_", "-"), value)
    request.write(json.dumps(document).encode())
    request.finish()


def problem(status: int, reason: str | None = None, detail: str = "", **headers: str) -> Handling:
    """What answers with a problem document."""
    document = {"status": status, "title": "A problem", "detail": detail, "id": "req-1"}
    if reason is not None:
        document["reason"] = reason
    return lambda request: send(request, status, document, **headers)


def abort(request: Any) -> None:
    """Break the connection off."""
    request.transport.abortConnection()


def preferences(request: Any) -> tuple[bool, float]:
    """Whether a job is preferred, and for how many seconds to wait."""
    values = request.requestHeaders.getRawHeaders("prefer", [])
    words = [word.strip() for value in values for word in value.split(",")]
    waits = [float(word[5:]) for word in words if word.startswith("wait=")]
    return "respond-async" in words, waits[0] if waits else 0.0


class FakeJob:
    """A job that does what the test says."""

    def __init__(self, site: JobSite, id: str, route: str, body: bytes) -> None:
        self.site = site
        self.id = id
        self.route = route
        self.body = body
        self.state = "queued"
        self.reason: str | None = None
        self.position = 1
        self.progress: dict[str, Any] | None = None
        self.created = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self.result: tuple[int, str, bytes] | None = None
        self.events: list[tuple[str, Any]] = []
        self.readers: dict[Any, int] = {}
        self.ending: list[Deferred[None]] = []

    def document(self) -> dict[str, Any]:
        """The job as its clients see it."""
        url = f"{self.site.public_url}/jobs/{self.id}"
        result, error = None, None
        if self.result is not None:
            status, kind, body = self.result
            result = {"status": status, "content_type": kind, "length": len(body)}
            error = json.loads(body) if "problem" in kind else None
        parts = {part: f"{url}/{part}" for part in ("result", "events", "cancel")}
        return {
            "id": self.id,
            "route": self.route,
            "state": self.state,
            "reason": self.reason,
            "created": stamp(self.created),
            "started": stamp(self.started),
            "finished": stamp(self.finished),
            "expires": stamp(self.finished and self.finished + 60),
            "queue": {"position": self.position, "estimated_start": None}
            if self.state == "queued"
            else None,
            "progress": self.progress,
            "attempt": int(self.started is not None),
            "queue_seconds": (self.started or time.time()) - self.created,
            "run_seconds": (self.finished or time.time()) - (self.started or time.time()),
            "result": result,
            "error": error,
            "webhook": None,
            "links": {"self": url, **parts},
        }

    def begin(self) -> None:
        """It runs."""
        self.state, self.started = "running", time.time()
        self.tell("state", {"state": self.state, "reason": None, "attempt": 1})

    def advance(self, done: float, total: float | None, message: str = "") -> None:
        """It tells how far it is."""
        self.progress = {"done": done, "total": total, "message": message}
        self.tell("progress", self.progress)

    def end(
        self,
        body: bytes = b"",
        status: int = 200,
        kind: str = "text/plain; charset=utf-8",
        state: str | None = None,
        reason: str | None = None,
    ) -> None:
        """It ends."""
        self.state = state or ("succeeded" if status < 400 else "failed")
        self.reason, self.finished = reason, time.time()
        self.result = (status, kind, body)
        self.tell("state", {"state": self.state, "reason": reason, "attempt": 1})
        self.tell("end", self.document())
        for ended in list(self.ending):
            ended.callback(None)

    def fail(self, status: int, reason: str, detail: str, state: str = "failed") -> None:
        """It ends with a problem of the server's."""
        document = {"status": status, "title": "It failed", "detail": detail, "reason": reason}
        body = json.dumps({**document, "id": self.id}).encode()
        self.end(body, status, "application/problem+json", state, reason)

    def tell(self, kind: str, data: Any) -> None:
        """An event happens."""
        self.events.append((kind, data))
        for request in list(self.readers):
            self.write_events(request)

    def write_events(self, request: Any) -> None:
        """Tell a reader what is new to it."""
        for number in range(self.readers[request] + 1, len(self.events) + 1):
            kind, data = self.events[number - 1]
            self.readers[request] = number
            text = f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            request.write(text.encode())
            if kind == "end":
                self.readers.pop(request)
                request.finish()
                return

    def drop_readers(self) -> None:
        """Break off the connections of all who read events."""
        readers, self.readers = self.readers, {}
        for request in readers:
            abort(request)


class JobSite(Resource):
    """The site.

    :ivar jobs: the jobs by their ids.
    :ivar requests: method, path, and header fields of each request, in order.
    :ivar instead: handles the next requests in the place of the site, one each; None handles one as
        usual.
    :ivar made: what a route does with each new job; by default nothing.
    :ivar public_url: what Locations begin with.
    :ivar keeps: whether it keeps jobs; else it answers when they have ended.
    :ivar cuts: of each of the next results, the bytes after which the connection breaks.
    :ivar connections: those that are open.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, FakeJob] = {}
        self.keys: dict[str, FakeJob] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.instead: list[Handling | None] = []
        self.made: Callable[[FakeJob], object] = lambda job: None
        self.public_url = ""
        self.keeps = True
        self.cuts: list[int] = []
        self.page = 50
        self.port: Any = None
        self.connections: set[Any] = set()

    def listen(self, reactor: Any, port: int = 0) -> None:
        """Take connections."""
        connections = self.connections

        class Channel(HTTPChannel):
            def connectionMade(self) -> None:
                super().connectionMade()
                connections.add(self.transport)

            def connectionLost(self, reason: Any = None) -> None:
                connections.discard(self.transport)
                super().connectionLost(reason)

        site: Any = Site(self)
        site.protocol = Channel
        self.port = reactor.listenTCP(port, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.public_url = self.public_url or self.url

    def headers(self, name: str) -> list[str | None]:
        """The values of a header field in all requests."""
        return [headers.getRawHeaders(name, [None])[0] for _, _, headers in self.requests]

    def new_job(self, route: str = "/work", body: bytes = b"") -> FakeJob:
        """Accept a job."""
        job = FakeJob(self, f"job-{len(self.jobs) + 1}", route, body)
        self.jobs[job.id] = job
        job.tell("state", {"state": "queued", "reason": None, "attempt": 0})
        return job

    def render(self, request: Any) -> Any:
        """Handle a request."""
        path = request.path.decode()
        self.requests.append((request.method.decode(), path, request.requestHeaders))
        instead = self.instead.pop(0) if self.instead else None
        if instead is not None:
            instead(request)
        elif path == "/jobs":
            self._list(request)
        elif path.startswith("/jobs/"):
            self._job(request, *path.split("/")[2:])
        elif request.method == b"POST":
            self._post(request, path)
        else:
            problem(404)(request)
        return NOT_DONE_YET

    def _post(self, request: Any, path: str) -> None:
        wants_job, seconds = preferences(request)
        key = request.requestHeaders.getRawHeaders("idempotency-key", [None])[0]
        job = self.keys.get(key)
        if job is not None:
            request.setHeader("idempotency-replayed", "true")
        else:
            job = self.new_job(path, request.content.read())
            if key is not None:
                self.keys[key] = job
            self.made(job)

        def answer(_: object) -> None:
            if job.state not in ENDED and self.keeps:
                url = f"{self.public_url}/jobs/{job.id}"
                send(request, 202, job.document(), location=url, retry_after="1")
            else:
                self._result(request, job)

        if not self.keeps or not wants_job or seconds:
            self._wait(request, job, seconds if wants_job and self.keeps else None, answer)
        else:
            answer(None)

    def _wait(
        self, request: Any, job: FakeJob, seconds: float | None, then: Callable[[Any], Any]
    ) -> None:
        """Go on when a job has ended, or the time is over."""
        from twisted.internet import reactor

        if job.state in ENDED or seconds == 0:
            then(None)
            return
        ended: Deferred[None] = Deferred()
        clock: Any = reactor
        if seconds is not None:
            ended.addTimeout(seconds, clock, lambda *_: None)
        job.ending.append(ended)

        def forget(result: Any) -> Any:
            job.ending.remove(ended)
            return result

        ended.addBoth(forget)
        ended.addCallbacks(then, lambda _: None)
        request.notifyFinish().addErrback(lambda _: ended.cancel())

    def _job(self, request: Any, id: str, part: str = "") -> None:
        job = self.jobs.get(id)
        method = request.method
        if job is None:
            problem(404, detail="There is no such job.")(request)
        elif job.state == "expired" and job.result is None:
            problem(410, detail="The job has expired.")(request)
        elif part == "events":
            last = request.requestHeaders.getRawHeaders("last-event-id", ["0"])[0]
            request.setHeader("content-type", "text/event-stream")
            job.readers[request] = int(last)
            request.notifyFinish().addErrback(lambda _: job.readers.pop(request, None))
            request.write(b": here it is\n\n")
            job.write_events(request)
        elif part == "result":

            def answer(_: object) -> None:
                if job.state in ENDED:
                    self._result(request, job)
                else:
                    send(request, 202, job.document(), retry_after="1")

            self._wait(request, job, preferences(request)[1], answer)
        elif part == "cancel" or (method == b"DELETE" and job.state not in ENDED):
            if job.state == "queued":
                job.fail(499, "requested", "It was canceled.", "canceled")
            elif job.state == "running":
                job.state = "canceling"
            send(request, 200 if job.state in ENDED else 202, job.document())
        elif method == b"DELETE":
            del self.jobs[id]
            request.setResponseCode(204)
            request.finish()
        else:
            seconds = preferences(request)[1]
            self._wait(request, job, seconds, lambda _: send(request, 200, job.document()))

    def _result(self, request: Any, job: FakeJob) -> None:
        assert job.result is not None
        status, kind, body = job.result
        etag = f'"{job.id}"'
        request.setHeader("content-type", kind)
        request.setHeader("etag", etag)
        wanted = request.requestHeaders.getRawHeaders("range", [""])[0]
        if wanted and request.requestHeaders.getRawHeaders("if-range") == [etag]:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            place = f"bytes {start}-{len(body) - 1}/{len(body)}"
            request.setHeader("content-range", place)
            status, body = 206, body[start:]
        request.setResponseCode(status)
        request.setHeader("content-length", str(len(body)))
        if self.cuts:
            request.write(body[: self.cuts.pop(0)])
            request.loseConnection()
        else:
            request.write(body)
            request.finish()

    def _list(self, request: Any) -> None:
        states = [value.decode() for value in request.args.get(b"state", [])]
        jobs = [job for job in self.jobs.values() if not states or job.state in states][::-1]
        begin = int(request.args.get(b"cursor", [b"0"])[0])
        end = begin + min(int(request.args.get(b"limit", [b"50"])[0]), self.page)
        following = str(end) if end < len(jobs) else None
        documents = [job.document() for job in jobs[begin:end]]
        send(request, 200, {"jobs": documents, "next": following})
