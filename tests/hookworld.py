"""A store, a notifier of webhooks, a sender that sends nothing, and the time: for tests."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock, deferLater

from deferpost.model import State
from deferpost.notifying import Notifier
from deferpost.records import Hook, HookAttempt, HookState, JobRecord, NewJob, Outcome
from deferpost.store.memory import MemoryStore
from deferpost.testing.storesuite import head_of
from deferpost.webhooks.delivery import Sent
from deferpost.webhooks.rules import HookHosts

__all__ = [
    "DAY",
    "EPOCH",
    "URL",
    "FakeSender",
    "FaultyStore",
    "Sending",
    "World",
    "answering",
    "document",
]

EPOCH = 1_700_000_000.0
URL = "https://hooks.example.com/done"
DAY = 24 * 3600.0


class FaultyStore(MemoryStore):
    """A store of which single operations fail, or answer late what they have found at once.

    :ivar failing: what each of these operations fails with.
    :ivar late: seconds by which each of these answers is late.
    :ivar asked: how often each was asked for.
    """

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        super().__init__(clock, now)
        self._clock = clock
        self.failing: dict[str, Exception] = {}
        self.late: dict[str, float] = {}
        self.asked: Counter[str] = Counter()

    def _done(self, name: str, work: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        self.asked[name] += 1
        if name in self.failing:
            return fail(self.failing[name])
        answer = work()
        seconds = self.late.get(name)
        if seconds is not None:
            answer.addCallback(lambda found: deferLater(self._clock, seconds, lambda: found))
        return answer

    def hooks_due(self, now: float, most: int) -> Deferred[Any]:
        return self._done("hooks_due", lambda: super(FaultyStore, self).hooks_due(now, most))

    def next_hook(self) -> Deferred[float | None]:
        return self._done("next_hook", super().next_hook)

    def hook_tried(
        self, id: str, attempt: HookAttempt, state: HookState, due: float | None
    ) -> Deferred[None]:
        return self._done(
            "hook_tried", lambda: super(FaultyStore, self).hook_tried(id, attempt, state, due)
        )


class Sending(NamedTuple):
    """An attempt that was asked for."""

    url: str
    id: str
    body: bytes
    at: float
    result: Deferred[Sent]

    def answer(self, status: int, retry_after: float | None = None) -> None:
        """The receiver answers."""
        self.result.callback(Sent(HookAttempt(at=self.at, status=status), retry_after))


class FakeSender:
    """Sends nothing.

    :param answer: what is answered to each attempt; None to leave it to the test.

    :ivar sendings: the attempts.
    :ivar broken_off: how many of them were cancelled.
    """

    def __init__(self, answer: Callable[[Sending], Sent] | None = None) -> None:
        self.answer = answer
        self.sendings: list[Sending] = []
        self.broken_off = 0

    def send(self, url: str, id: str, body: bytes, at: float) -> Deferred[Sent]:
        """See :meth:`deferpost.webhooks.delivery.HookSender.send`."""
        result: Deferred[Sent] = Deferred(self._canceled)
        sending = Sending(url, id, body, at, result)
        self.sendings.append(sending)
        if self.answer is not None:
            result.callback(self.answer(sending))
        return result

    def _canceled(self, _: Deferred[Sent]) -> None:
        self.broken_off += 1

    @property
    def times(self) -> list[float]:
        """When the attempts were made, in seconds since the first job's end."""
        return [sending.at - EPOCH for sending in self.sendings]


def answering(status: int, retry_after: float | None = None) -> Callable[[Sending], Sent]:
    """An answer of a receiver, always the same."""
    return lambda sending: Sent(HookAttempt(at=sending.at, status=status), retry_after)


def document(record: JobRecord) -> bytes:
    """The document of a job, as far as it matters here."""
    return json.dumps({"id": record.id, "state": record.state}).encode()


class World:
    """A store, a notifier, and the time.

    :ivar ahead: seconds by which the wall clock was put forward.
    :ivar store: the store.
    :ivar sender: sends.
    :ivar notifier: the notifier.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.ahead = 0.0
        self.store = FaultyStore(self.clock, self.now)
        self.sender = FakeSender(answering(204))
        self.check: Callable[[str], str] = HookHosts(["hooks.example.com"]).check
        self.document: Callable[[JobRecord], bytes] = document
        self.got(self.store.open())
        self.start()

    def start(self) -> None:
        """Begin to tell, as a new process does."""
        self.notifier = Notifier(
            lambda: self.store,
            self.clock,
            lambda record: self.document(record),
            wall=self.now,
            chance=lambda: 0.0,
        )
        self.notifier.use(lambda *given: self.sender.send(*given), lambda url: self.check(url))
        self.settle()

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.ahead + float(self.clock.seconds())

    def settle(self) -> None:
        """Have all happen that happens without time going by; it has an end."""
        for _ in range(2000):
            if not any(each.getTime() <= self.clock.seconds() for each in self._timers()):
                return
            self.clock.advance(0)
        raise AssertionError("it does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let time go by, with each thing at its time."""
        end = self.clock.seconds() + seconds
        self.settle()
        while times := [at for each in self._timers() if (at := each.getTime()) <= end]:
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
            self.settle()
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def _timers(self) -> list[Any]:
        return list(self.clock.getDelayedCalls())

    def got(self, asked: Deferred[Any]) -> Any:
        """What the store answers."""
        found: list[Any] = []
        asked.addCallback(found.append)
        self.settle()
        (value,) = found
        return value

    def ended(self, url: str = URL, *, id: str | None = None) -> JobRecord:
        """A job that has ended a moment ago, of which nobody has told the notifier."""
        job = NewJob(
            id=self.store.new_id() if id is None else id,
            head=head_of("request"),
            pool="thread",
            created=self.now(),
            urgency=3,
            retries=0,
            ttl=60.0,
            webhook=url,
        )
        outcome = Outcome(state=State.SUCCEEDED, at=self.now(), status=200)
        self.store.accept(job, io.BytesIO(b"body"))
        record: JobRecord = self.got(self.store.finish(job.id, outcome, b"result"))
        return record

    def end(self, url: str = URL) -> JobRecord:
        """A job ends, and the notifier is told."""
        record = self.ended(url)
        self.notifier.look()
        self.settle()
        return record

    def hook(self, record: JobRecord) -> Hook:
        """How the webhook of a job stands."""
        found: JobRecord = self.got(self.store.get(record.id))
        assert found.hook is not None
        return found.hook

    @property
    def looks(self) -> int:
        """How often the store was asked what is due."""
        return self.store.asked["next_hook"]

    def is_at_rest(self) -> bool:
        """Whether nothing is left that would happen by itself."""
        return not self._timers()
