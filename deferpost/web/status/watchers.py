"""Those who watch the state: Server-Sent Events, one computation for all of them.

Decides when the state is computed and who is sent it.  Nothing is computed while nobody watches.
A watcher who reads slowly skips documents and never holds more than one that is not sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from deferpost.web.status.document import StateDocument, same_state

__all__ = ["HEARTBEAT_SECONDS", "MAX_WATCHERS", "TICK_SECONDS", "StateSource", "Watchers"]

_log = Logger(namespace="deferpost.web.status")

#: Seconds between two looks at the state while somebody watches.
TICK_SECONDS = 0.5

#: Seconds after which the state is sent although nothing but ages and memory has changed.
HEARTBEAT_SECONDS = 5.0

#: Watchers at once.  Each has a connection and is written a document of some ten KiB.
MAX_WATCHERS = 20


class StateSource:
    """Gives the state, and computes it at most once in half a tick, whoever asks.

    For the reactor thread.

    :param build: computes it.
    :param now: the monotonic clock, in seconds.
    """

    def __init__(self, build: Callable[[], StateDocument], now: Callable[[], float]) -> None:
        self._build = build
        self._now = now
        self._built: tuple[StateDocument, bytes] | None = None
        self._until = 0.0

    def state(self) -> tuple[StateDocument, bytes]:
        """The state, and as JSON."""
        now = self._now()
        if self._built is None or now >= self._until:
            document = self._build()
            self._built = document, msgspec.json.encode(document)
            self._until = now + TICK_SECONDS / 2
        return self._built


@implementer(IPushProducer)
class _Watcher:
    """One response that goes on.

    :ivar sent: the number of the last document that it was sent.
    """

    __slots__ = ("_paused", "request", "sent")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.sent = 0
        self._paused = False

    def start(self) -> None:
        request = self.request
        request.setResponseCode(200)
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"X-Accel-Buffering", b"no")  # else nginx keeps it back
        request.registerProducer(self, True)

    def send(self, number: int, event: bytes) -> None:
        """Send a document, unless it has this one or is still reading an older one."""
        if self.sent != number and not self._paused:
            self.sent = number
            self.request.write(event)

    def finish(self) -> None:
        self.request.unregisterProducer()
        self.request.finish()

    def pauseProducing(self) -> None:
        """The client reads slowly."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has read what it was sent; the next look sends what it has missed."""
        self._paused = False

    def stopProducing(self) -> None:
        """It is gone; ``notifyFinish`` tells of it."""
        self._paused = True


class Watchers:
    """All that watch.  For the reactor thread.

    :param source: gives the state.
    :param clock: provides ``callLater`` and ``seconds``.
    """

    def __init__(self, source: StateSource, clock: Any) -> None:
        self._source = source
        self._clock = clock
        self._watchers: dict[_Watcher, None] = {}
        self._looking: LoopingCall | None = None
        self._number = 0
        self._last: StateDocument | None = None
        self._event = b""
        self._due = 0.0
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def has_room(self) -> bool:
        """Whether one more can watch."""
        return not self._closed and len(self._watchers) < MAX_WATCHERS

    def add(self, request: Any) -> None:
        """Send the state to a request until its client leaves.

        :param request: whose common fields are set, and for whom there is room.
        """
        watcher = _Watcher(request)
        self._watchers[watcher] = None
        request.notifyFinish().addBoth(self._left, watcher)
        watcher.start()
        if self._looking is None:
            self._last = None
            self._looking = LoopingCall(self._look)
            self._looking.clock = self._clock
            self._looking.start(TICK_SECONDS)  # which looks at once
        else:
            watcher.send(self._number, self._event)

    def _left(self, _: object, watcher: _Watcher) -> None:
        self._watchers.pop(watcher, None)
        if not self._watchers and self._looking is not None:
            looking, self._looking = self._looking, None
            looking.stop()
            self._last, self._event = None, b""

    def _look(self) -> None:
        """One tick: compute the state once, and send it to who has to have it."""
        try:
            document, encoded = self._source.state()
        except Exception:  # of a pool's status, for example: the next look may do better
            _log.failure("the state could not be told")
            return
        now = self._clock.seconds()
        if self._last is None or now >= self._due or not same_state(self._last, document):
            self._last = document
            self._event = b"event: state\ndata: " + encoded + b"\n\n"
            self._number += 1
            self._due = now + HEARTBEAT_SECONDS
        for watcher in list(self._watchers):
            watcher.send(self._number, self._event)

    def close(self) -> None:
        """End every response; nobody can watch any more."""
        self._closed = True
        for watcher in list(self._watchers):
            watcher.finish()
