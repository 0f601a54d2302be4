"""A store that keeps jobs in memory: for tests, and for looking at how one is used.

It promises what every store promises, but that nothing outlives it.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.errors import StoreFailed
from deferpost.interfaces import IJobStore
from deferpost.lifecycle import ENDED
from deferpost.model import CallHead, Progress, Reason, State
from deferpost.records import (
    Accepted,
    HookAttempt,
    HookState,
    JobPage,
    JobRecord,
    NewJob,
    Outcome,
    StoredCall,
    StoredEvent,
    StoredResult,
)
from deferpost.store import changes
from deferpost.store.changes import Change
from deferpost.store.ids import SECRET_BYTES, IdMaker

__all__ = ["MemoryStore"]


class _Kept:
    """A job with all that belongs to it."""

    def __init__(self, record: JobRecord, event: StoredEvent, head: CallHead, body: bytes) -> None:
        self.record = record
        self.events = [event]
        self.head = head
        self.body = body
        self.result: StoredResult | None = None

    def change(self, change: Change | None) -> bool:
        """Take over a change; whether there was one."""
        if change is None:
            return False
        self.record, event = change
        self.events.append(event)
        return True


@implementer(IJobStore)
class MemoryStore:
    """A store in memory; see :class:`deferpost.interfaces.IJobStore`.

    What is asked for is done at once, but told in a later turn of the reactor, as by other stores.

    :param reactor: by which it is told (:class:`IReactorTime`, so that a
        :class:`twisted.internet.task.Clock` will do).
    :param now: the time, in seconds since the epoch.

    :ivar failure: what every operation fails with, and does nothing, while it is not None: by this
        a test has the disk full, and then not any more.
    """

    def __init__(self, reactor: Any, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._now = now
        self._ids = IdMaker(secrets.token_bytes(SECRET_BYTES))
        self._jobs: dict[str, _Kept] = {}
        self._by_key: dict[tuple[str, str], _Kept] = {}
        self._parts: dict[str, bytearray] = {}
        self._numbers = 0
        self._stage = "is not open"
        self.failure: StoreFailed | None = None

    def _tell(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Do something now, and tell in a later turn what came of it."""
        if self._stage != "is open":
            return fail(StoreFailed(f"the store in memory {self._stage}"))
        answer: Deferred[Any] = Deferred()
        try:
            if self.failure is not None:
                raise self.failure
            value = work()
        except Exception as error:
            value = Failure(error)
        self._reactor.callLater(0, _fire, answer, value)
        return answer

    def open(self) -> Deferred[Sequence[JobRecord]]:
        """See :meth:`deferpost.interfaces.IJobStore.open`."""
        if self._stage != "is not open":
            return fail(StoreFailed(f"the store in memory {self._stage}"))
        self._stage = "is open"
        opened = self._tell(self._unended)
        if self.failure is not None:
            self._stage = "is closed"
        return opened

    def _unended(self) -> list[JobRecord]:
        return [kept.record for kept in self._jobs.values() if kept.record.state not in ENDED]

    def close(self) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.close`."""
        self._stage = "is closed"
        closed: Deferred[None] = Deferred()
        self._reactor.callLater(0, closed.callback, None)
        return closed

    def new_id(self) -> str:
        """See :meth:`deferpost.interfaces.IJobStore.new_id`."""
        if self._stage == "is not open":
            raise StoreFailed(f"the store in memory {self._stage}")
        return self._ids.new()

    def authentic(self, id: str) -> bool:
        """See :meth:`deferpost.interfaces.IJobStore.authentic`."""
        return self._ids.is_own(id)

    # From a job's beginning to its end.

    def accept(self, job: NewJob, body: BinaryIO) -> Deferred[Accepted]:
        """See :meth:`deferpost.interfaces.IJobStore.accept`."""
        with body:
            return self._tell(lambda: self._accept(job, body.read()))

    def _accept(self, job: NewJob, body: bytes) -> Accepted:
        pair = None if job.key is None else (job.key.scope, job.key.key)
        there = self._jobs.get(job.id)
        if there is None and pair is not None:
            there = self._by_key.get(pair)
        if there is not None:
            return changes.found(there.record, job)
        self._numbers += 1
        record, event = changes.accepted(job, self._numbers, len(body))
        kept = self._jobs[job.id] = _Kept(record, event, job.head, body)
        if pair is not None:
            self._by_key[pair] = kept
        return Accepted(record)

    def start(self, id: str, at: float) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.start`."""
        return self._tell(lambda: self._begin_anew(id, lambda job: changes.started(job, at)))

    def requeue(self, id: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.requeue`."""
        at = self._now()
        return self._tell(lambda: self._begin_anew(id, lambda job: changes.requeued(job, at)))

    def _begin_anew(
        self, id: str, decide: Callable[[JobRecord], Change | None]
    ) -> JobRecord | None:
        kept = self._jobs.get(id)
        if kept is None or not kept.change(decide(kept.record)):
            return None
        self._parts.pop(id, None)
        return kept.record

    def cancel(self, id: str, reason: Reason) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.cancel`."""
        return self._tell(lambda: self._cancel(id, reason))

    def _cancel(self, id: str, reason: Reason) -> JobRecord | None:
        kept = self._jobs.get(id)
        if kept is None or kept.record.state in ENDED:
            return None
        kept.change(changes.canceled(kept.record, reason, self._now()))
        return kept.record

    def tell(self, id: str, progress: Progress) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.tell`."""

        def tell() -> None:
            kept = self._jobs.get(id)
            if kept is not None:
                kept.change(changes.told(kept.record, progress))

        return self._tell(tell)

    def write(self, id: str, data: bytes) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.write`."""

        def write() -> None:
            self._parts.setdefault(id, bytearray()).extend(data)

        return self._tell(write)

    def finish(
        self, id: str, outcome: Outcome, body: bytes | BinaryIO | None
    ) -> Deferred[JobRecord]:
        """See :meth:`deferpost.interfaces.IJobStore.finish`."""
        if outcome.state not in ENDED:
            raise ValueError(f"a job does not end as {outcome.state}")
        if body is None or isinstance(body, bytes):
            return self._tell(lambda: self._finish(id, outcome, body))
        with body:
            data = body.read()
        return self._tell(lambda: self._finish(id, outcome, data))

    def _finish(self, id: str, outcome: Outcome, body: bytes | None) -> JobRecord:
        kept = self._jobs.get(id)
        if kept is None:
            raise LookupError(f"no job has the id {id!r}")
        data = bytes(self._parts.pop(id, b"")) if body is None else body
        self._parts.pop(id, None)
        if kept.change(changes.ended(kept.record, outcome, len(data))):
            kept.result = StoredResult(outcome.status, outcome.headers, data, len(data))
            kept.body = b""
        return kept.record

    def delete(self, id: str) -> Deferred[bool]:
        """See :meth:`deferpost.interfaces.IJobStore.delete`."""
        return self._tell(lambda: self._delete(id))

    def _delete(self, id: str) -> bool:
        kept = self._jobs.get(id)
        if kept is None or kept.record.state not in ENDED:
            return False
        del self._jobs[id]
        key = kept.record.key
        if key is not None:
            del self._by_key[key.scope, key.key]
        return True

    def clean(self, now: float, most: int) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IJobStore.clean`."""
        return self._tell(lambda: self._clean(now, most))

    def _clean(self, now: float, most: int) -> int:
        over = sorted(
            (record.expires, id)
            for id, record in ((id, kept.record) for id, kept in self._jobs.items())
            if record.expires is not None
            and record.expires <= now
            and (record.hook is None or record.hook.due is None)
        )
        for _, id in over[:most]:
            self._delete(id)
        return len(over[:most])

    def probe(self) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.probe`."""
        return self._tell(lambda: None)

    # What is asked about jobs.

    def get(self, id: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.get`."""
        return self._tell(lambda: kept.record if (kept := self._jobs.get(id)) else None)

    def keyed(self, scope: str, key: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.keyed`."""
        return self._tell(lambda: kept.record if (kept := self._by_key.get((scope, key))) else None)

    def call(self, id: str) -> Deferred[StoredCall | None]:
        """See :meth:`deferpost.interfaces.IJobStore.call`."""

        def call() -> StoredCall | None:
            kept = self._jobs.get(id)
            if kept is None or kept.record.state in ENDED:
                return None
            return StoredCall(kept.head, io.BytesIO(kept.body))

        return self._tell(call)

    def result(self, id: str) -> Deferred[StoredResult | None]:
        """See :meth:`deferpost.interfaces.IJobStore.result`."""
        return self._tell(lambda: kept.result if (kept := self._jobs.get(id)) else None)

    def events(self, id: str, after: int, most: int) -> Deferred[Sequence[StoredEvent]]:
        """See :meth:`deferpost.interfaces.IJobStore.events`."""

        def events() -> Sequence[StoredEvent]:
            kept = self._jobs.get(id)
            return [] if kept is None else kept.events[after : after + most]

        return self._tell(events)

    def page(
        self, principal: str | None, states: frozenset[State], before: int | None, most: int
    ) -> Deferred[JobPage]:
        """See :meth:`deferpost.interfaces.IJobStore.page`."""

        def page() -> JobPage:
            records = [
                kept.record
                for kept in reversed(self._jobs.values())
                if (principal is None or kept.record.principal == principal)
                and (not states or kept.record.state in states)
                and (before is None or kept.record.number < before)
            ]
            shown = tuple(records[:most])
            return JobPage(shown, shown[-1].number if len(records) > most else None)

        return self._tell(page)

    # Webhooks.

    def _due(self) -> list[tuple[float, int, JobRecord]]:
        records = (kept.record for kept in self._jobs.values())
        return sorted(
            (record.hook.due, record.number, record)
            for record in records
            if record.hook is not None and record.hook.due is not None
        )

    def hooks_due(self, now: float, most: int) -> Deferred[Sequence[JobRecord]]:
        """See :meth:`deferpost.interfaces.IJobStore.hooks_due`."""
        return self._tell(lambda: [job for due, _, job in self._due() if due <= now][:most])

    def next_hook(self) -> Deferred[float | None]:
        """See :meth:`deferpost.interfaces.IJobStore.next_hook`."""
        return self._tell(lambda: due[0][0] if (due := self._due()) else None)

    def hook_tried(
        self, id: str, attempt: HookAttempt, state: HookState, due: float | None
    ) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.hook_tried`."""

        def note() -> None:
            kept = self._jobs.get(id)
            after = None if kept is None else changes.tried(kept.record, attempt, state, due)
            if kept is not None and after is not None:
                kept.record = after

        return self._tell(note)


def _fire(answer: Deferred[Any], value: Any) -> None:
    if not answer.called:  # else whoever has asked has canceled it
        answer.callback(value)  # a Failure too
