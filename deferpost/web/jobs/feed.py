"""The events of a kept job on one connection: those that are there, then those that come.

They are read from the store, a few at a time, and only while the client takes what it is sent.  The
keeper says no more than that there are new ones, so none is missed and none comes twice, whenever
it says so.  Decides nothing about who may see them.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.errors import DeferPostError
from deferpost.eventstream import EventFormat
from deferpost.keeping import Keeper
from deferpost.lifecycle import ENDED
from deferpost.records import JobRecord, StoredEvent
from deferpost.web.events import HEARTBEAT_SECONDS
from deferpost.web.jobs.replying import LateReply

__all__ = ["BATCH", "END", "RETRY_MILLISECONDS", "Feed", "event_bytes"]

_log = Logger(namespace="deferpost.web.jobs")

#: Events that are read at once.
BATCH = 100

#: The kind of the last event.
END = "end"

#: After which a browser that has lost its connection is to come back.
RETRY_MILLISECONDS = 2000

_HEARTBEATS = {EventFormat.SSE: b":\n\n", EventFormat.NDJSON: b'{"type":"heartbeat"}\n'}


def event_bytes(format: EventFormat, number: int, kind: str, data: bytes) -> bytes:
    """An event as it is sent.

    :param format: how events are written.
    :param number: its number, by which a client resumes.
    :param kind: its kind.
    :param data: a JSON document.
    """
    name = kind.encode("ascii")
    if format is EventFormat.SSE:
        lines = data.replace(b"\n", b"\ndata: ")
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name, lines)
    line = data.replace(b"\n", b" ")  # where JSON has line breaks it may have spaces
    return b'{"type":"%b","id":%d,"data":%b}\n' % (name, number, line)


@implementer(IPushProducer)
class Feed:
    """The response with the events of one job.

    :param reply: the request; its common header fields are set.
    :param job: the id of the job.
    :param after: the number of the last event that is not wanted.
    :param format: how events are written.
    :param keeper: has the job.
    :param clock: of the reactor (:class:`IReactorTime`).
    :param document: makes the document of a job, for its last event.
    """

    __slots__ = (
        "_after",
        "_clock",
        "_document",
        "_format",
        "_job",
        "_keeper",
        "_news",
        "_over",
        "_paused",
        "_reading",
        "_reply",
        "_request",
        "_spoke",
        "_timer",
        "_unwatch",
    )

    def __init__(
        self,
        reply: LateReply,
        job: str,
        after: int,
        format: EventFormat,
        keeper: Keeper,
        clock: Any,
        document: Callable[[JobRecord], bytes],
    ) -> None:
        self._reply = reply
        self._request = reply.request
        self._job = job
        self._after = after
        self._format = format
        self._keeper = keeper
        self._clock = clock
        self._document = document
        self._news = True
        self._reading = False
        self._paused = False
        self._over = False
        self._spoke = clock.seconds()
        self._timer: Any = None
        self._unwatch: Callable[[], None] = _nothing

    def start(self) -> None:
        """Begin the response."""
        request = self._request
        headers = request.responseHeaders
        headers.setRawHeaders(b"Content-Type", [self._format.value])
        headers.setRawHeaders(b"X-Accel-Buffering", [b"no"])  # nginx would keep events back
        request.setResponseCode(200)
        self._unwatch = self._keeper.watch(self._job, self._heard)
        self._timer = self._clock.callLater(HEARTBEAT_SECONDS, self._beat)
        request.registerProducer(self, True)
        retry = b"retry: %d\n\n" % RETRY_MILLISECONDS
        request.write(retry if self._format is EventFormat.SSE else b"")
        self._reply.when_over(self._end)
        self._pump()

    # IPushProducer, for the transport.

    def pauseProducing(self) -> None:
        """The client has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        """The connection is lost, which the request tells, too."""
        self._paused = True

    # Reading and writing.

    def _heard(self) -> None:
        self._news = True
        self._pump()

    def _pump(self) -> None:
        """Read what is new, unless that goes on, or nobody takes it."""
        if self._over or self._paused or self._reading or not self._news:
            return
        self._news = False
        self._reading = True
        Deferred.fromCoroutine(self._read()).addErrback(self._failed)

    async def _read(self) -> None:
        events = await self._keeper.events(self._job, self._after, BATCH)
        record = None
        is_last = not events or events[-1].kind == END
        if is_last:
            record = await self._keeper.get(self._job)
            if record is None:  # it was forgotten meanwhile, and there is no document of it
                events = events[:-1]
        self._reading = False
        if self._over:
            return
        if events:
            self._say(b"".join(self._lines(events, record)))
        if is_last and (record is None or self._has_all(record)):
            self._end(True)
        else:
            self._news = self._news or len(events) == BATCH
            self._pump()

    def _has_all(self, record: JobRecord) -> bool:
        return record.state in ENDED and self._after >= record.events

    def _lines(self, events: Sequence[StoredEvent], record: JobRecord | None) -> list[bytes]:
        lines = []
        for event in events:
            data = event.data
            if event.kind == END and record is not None:
                data = self._document(record)
            lines.append(event_bytes(self._format, event.number, event.kind, data))
            self._after = event.number
        return lines

    def _failed(self, failure: Failure) -> None:
        """The store cannot read; the client may come again, and go on where it was."""
        self._reading = False
        error: Any = failure.value
        if isinstance(error, DeferPostError):
            _log.warn("[{job}] its events cannot be read: {error}", job=self._job, error=error)
        else:
            _log.failure("[{job}] its events cannot be told", failure, job=self._job)
        self._end(True)

    def _say(self, data: bytes) -> None:
        self._spoke = self._clock.seconds()
        self._request.write(data)

    def _beat(self) -> None:
        """Say that the stream is alive, where nothing was said for long."""
        silence = self._clock.seconds() - self._spoke
        if silence >= HEARTBEAT_SECONDS:
            silence = 0.0
            if not self._paused:
                self._say(_HEARTBEATS[self._format])
        self._timer = self._clock.callLater(HEARTBEAT_SECONDS - silence, self._beat)

    def _end(self, is_there: bool) -> None:
        """End the response, if its client is still there to see it."""
        if self._over:
            return
        self._over = True
        self._unwatch()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if is_there:
            self._request.unregisterProducer()
            self._request.finish()


def _nothing() -> None:
    """There is nothing to undo."""
