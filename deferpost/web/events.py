"""An exchange whose response is a stream of events: progress, chunks, and the result at the end.

The response begins at once, so its status says nothing of the job: the last event does.  Of a job
that tells more than its reader takes, the reader gets the newest.  Nothing here decides what an
event looks like (:mod:`deferpost.eventstream` does) or what ends an exchange
(:mod:`deferpost.exchanges` does).  For the reactor thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.bodies import PIECE_BYTES, BodyWriter
from deferpost.eventstream import EventFormat, Events, format_of, is_text, media_type
from deferpost.jobs import Job
from deferpost.model import Answer, OnDisconnect
from deferpost.progress import Noted, progress_of
from deferpost.web.exchange import Exchange, OpenExchanges, log_failure, problem_for
from deferpost.web.respond import common_fields

__all__ = ["BEAT_SECONDS", "HEARTBEAT_SECONDS", "Beat", "EventExchange", "wanted_format"]

#: Seconds between two looks at the progress of jobs.
BEAT_SECONDS = 0.1

#: Seconds of silence after which a stream says that it is alive, so that proxies keep it open.
HEARTBEAT_SECONDS = 15.0

#: Bytes of events that are kept until those that came together have come.
_TOGETHER_BYTES = 32 * 1024

_log = Logger(namespace="deferpost.web")

#: Fields that every response has, and has once.
_COMMON = frozenset({b"x-request-id", b"server-timing"})


def wanted_format(request: Any) -> EventFormat | None:
    """The format of events that a client wants, by ``Accept``; None for the plain response.

    :param request: of our own wire or of a site of Twisted's; its head is there.
    """
    framing = getattr(request, "framing", None)
    if framing is not None:
        accept: bytes | None = framing.accept
    else:
        accept = b",".join(request.requestHeaders.getRawHeaders(b"accept", ())) or None
    return None if accept is None else format_of(accept)


class Beat:
    """The one timer of all exchanges with events; it runs while there are any.

    :param clock: of the reactor (:class:`IReactorTime`).
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._exchanges: dict[EventExchange, None] = {}
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._exchanges)

    def add(self, exchange: EventExchange) -> None:
        """Look at its progress from now on."""
        self._exchanges[exchange] = None
        if self._timer is None:
            self._timer = self._clock.callLater(BEAT_SECONDS, self._tick)

    def discard(self, exchange: EventExchange) -> None:
        """Look no more."""
        self._exchanges.pop(exchange, None)
        if not self._exchanges and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._clock.callLater(BEAT_SECONDS, self._tick)
        for exchange in list(self._exchanges):
            exchange.beat()


@implementer(IPushProducer)
class EventExchange(Exchange):
    """A request whose job is told of by events; see :class:`deferpost.web.exchange.Exchange`.

    :param beat: the timer of all of them.
    :param format: how the events are written.
    """

    __slots__ = (
        "_beat",
        "_body",
        "_events",
        "_has_begun",
        "_kept",
        "_kept_bytes",
        "_noted",
        "_paused",
        "_spoke",
        "_told",
    )

    def __init__(
        self,
        request: Any,
        job: Job,
        on_disconnect: OnDisconnect,
        now: Callable[[], float],
        open_exchanges: OpenExchanges,
        responded: Callable[[Job, int], None],
        *,
        beat: Beat,
        format: EventFormat,
    ) -> None:
        super().__init__(request, job, on_disconnect, now, open_exchanges, responded)
        self._beat = beat
        self._events = Events(format)
        self._body: _EventBody | None = None
        self._has_begun = False
        self._paused = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._noted: Noted | None = None
        self._spoke = now()
        self._told = self._spoke - BEAT_SECONDS
        beat.add(self)

    def open(self) -> None:
        """Begin the response; called before :meth:`begin` unless the request's body still comes.

        While that comes, the response begins with the first beat: there may be a ``100 Continue``
        to be sent before it.
        """
        self._has_begun = True
        request = self._request
        self._common()
        headers = request.responseHeaders
        headers.setRawHeaders(b"Content-Type", [self._events.content_type])
        headers.setRawHeaders(b"Cache-Control", [b"no-store"])
        headers.setRawHeaders(b"X-Accel-Buffering", [b"no"])  # nginx would keep events back
        request.registerProducer(self, True)
        request.write(b"")

    def beat(self) -> None:
        """Tell what is new of the job, or that the stream is alive."""
        try:
            if not self._has_begun:
                self.open()
            if self._paused:
                return
            self._tell_progress()
            if self._now() - self._spoke >= HEARTBEAT_SECONDS:
                self._say(self._events.heartbeat)
        except Exception:
            _log.failure("[{job}] could not be told of", job=self._job.head.id)
            self._beat.discard(self)
            self._request.loseConnection()

    def _tell_progress(self) -> None:
        noted = self._job.noted
        if noted is not self._noted:
            self._noted = noted
            self._told = self._now()
            progress = None if noted is None else progress_of(noted)
            if progress is not None:
                self._say(self._events.progress(progress))

    def _say_chunk(self, piece: bytes) -> None:
        """Tell of a piece of the body, after the progress that was told before, if it may be."""
        if self._now() - self._told >= BEAT_SECONDS:
            self._tell_progress()
        if event := self._events.chunk(piece):
            self._kept.append(event)
            self._kept_bytes += len(event)
            if self._kept_bytes >= _TOGETHER_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what was kept: events that came together leave together."""
        if self._kept:
            self._say(b"")

    def _say(self, data: bytes) -> None:
        self._spoke = self._now()
        if self._kept:
            data = b"".join((*self._kept, data))
            self._kept.clear()
            self._kept_bytes = 0
        self._request.write(data)

    # IPushProducer, for the transport.

    def pauseProducing(self) -> None:
        """The client has enough for now; of progress it gets the newest when it reads again."""
        self._paused = True
        if self._body is not None:
            self._body.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._body is not None:
            self._body.resume()

    def stopProducing(self) -> None:
        """The connection is lost, which the request tells, too."""
        self._paused = True

    # What the job tells.

    def _write(self, answer: Answer) -> None:
        if not self._has_begun:
            self.open()
        kind, parameters = media_type(answer.headers)
        body = answer.body
        if kind == self._events.content_type and answer.status == 200:
            self._beat.discard(self)  # it speaks for itself
            self._body = _EventBody(self, self._say)
            self._start(answer, self._finish, self._broken_bare)
            return
        self._tell_progress()
        if type(body) is bytes and len(body) <= PIECE_BYTES:
            self._end(self._result(answer, body))
            return
        self._events.begin_chunks(is_text(kind, parameters))
        self._body = _EventBody(self, self._say_chunk)

        def written() -> None:
            self._say(self._events.chunk(b"", final=True))
            self._tell_progress()
            self._end(self._result(answer, None))

        self._start(answer, written, self._broken)

    def _start(
        self, answer: Answer, done: Callable[[], None], broken: Callable[[Exception], None]
    ) -> None:
        self._writer = BodyWriter(self._body, answer, done, broken, apart=True)
        self._writer.start()

    def _result(self, answer: Answer, body: bytes | None) -> bytes:
        job, now = self._job, self._now()
        own = [pair for pair in answer.headers if pair[0].lower() not in _COMMON]
        common = common_fields(job.head.id, job.queue_so_far(now), job.run_so_far(now))
        return self._events.result(answer.status, (*common, *own), body)

    def _explain(self, error: BaseException) -> None:
        if self._has_begun:
            self._tell_progress()
            self._end(self._error(error))
        else:
            super()._explain(error)

    def _broken(self, error: Exception) -> None:
        """The body broke off, which an event can say."""
        log_failure(error, self._job)
        self._end(self._events.chunk(b"", final=True) + self._error(error))

    def _broken_bare(self, error: Exception) -> None:
        """The handler's own events broke off: only the end of the connection says so."""
        self._request.unregisterProducer()
        super()._broken(error)

    def _defect(self, failure: Failure) -> None:
        with contextlib.suppress(Exception):  # it may be over
            self._request.unregisterProducer()  # which would hold up the end of the connection
        super()._defect(failure)

    def _error(self, error: BaseException) -> bytes:
        return self._events.error(problem_for(error).document(self._job.head.id))

    def _end(self, data: bytes) -> None:
        self._say(data)
        self._finish()

    def _finish(self) -> None:
        self._beat.discard(self)
        self._request.unregisterProducer()
        self._request.finish()

    def _close(self, status: int) -> None:
        self._beat.discard(self)
        self._body = None
        self._kept.clear()
        super()._close(status)


class _EventBody:
    """Stands for the request before whoever writes a body: makes events of it.

    :param exchange: which passes on what the transport says.
    :param say: writes a piece, as an event or as it is.
    """

    __slots__ = ("_exchange", "_producer", "_say")

    def __init__(self, exchange: EventExchange, say: Callable[[bytes], None]) -> None:
        self._exchange = exchange
        self._say = say
        self._producer: Any = None

    def write(self, data: bytes) -> None:
        """Write a piece of the body."""
        if data:
            self._say(data)

    def flush(self) -> None:
        """The pieces that came together have come."""
        self._exchange.flush()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Whoever writes is told what the transport says."""
        self._producer = producer
        if self._exchange._paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """It has written all."""
        self._producer = None

    def pause(self) -> None:
        """The client has enough."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """The client reads again."""
        if self._producer is not None:
            self._producer.resumeProducing()
