"""The store that comes with deferpost: a database of SQLite, and files for large bodies.

What waits for its threads is bounded.  Of what comes from outside (new jobs, reads, progress) no
more is taken when :data:`MOST_WAITING` things wait.  What jobs that are there have to say (that
they start, or have ended) is always taken: it is one thing at a time for each.  Of the pieces of a
result there are as many as their writer does not wait for.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.interfaces import IJobStore
from deferpost.lifecycle import ENDED
from deferpost.model import Progress, Reason, State
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
from deferpost.store import changing, queries, rows, schema
from deferpost.store.directory import StoreDirectory, take
from deferpost.store.errands import Errands, Work
from deferpost.store.files import INLINE_BYTES, Content, Part
from deferpost.store.ids import IdMaker
from deferpost.store.lanes import Lane

__all__ = ["MOST_WAITING", "SQLiteStore"]

#: How many things may wait for the threads until no more of them are taken.
MOST_WAITING = 10_000

#: Bytes of a body from which on it is copied by threads for large ones.
_LARGE_BYTES = 2**20

#: How many jobs are forgotten in one transaction.
_CLEAN_BATCH = 200


def _each(work: Callable[..., Any]) -> Work:
    """For the writer: what is done one by one, however many of its kind come in a row."""
    return lambda transaction, given: [work(transaction, *each) for each in given]


_start = _each(changing.start)
_requeue = _each(changing.requeue)
_cancel = _each(changing.cancel)
_tell = _each(changing.tell)
_finish = _each(changing.finish)
_delete = _each(changing.delete)
_clean = _each(changing.clean)
_hook_tried = _each(changing.hook_tried)


@implementer(IJobStore)
class SQLiteStore:
    """A store in a directory of its own; see :class:`deferpost.interfaces.IJobStore`.

    :param directory: its path; the last part of it is made where it is not there.
    :param reactor: on whose thread it is called and answers (:class:`IReactorFromThreads` and
        :class:`IReactorTime`).
    :param now: the time, in seconds since the epoch.
    :param durable: whether what is done outlives a loss of power.  Without, it outlives the end of
        the process, however that comes, and is quicker.
    :param most_waiting: how many things may wait for its threads.
    :param migrations: as :data:`deferpost.store.schema.MIGRATIONS`.
    """

    def __init__(
        self,
        directory: str | Path,
        reactor: Any,
        now: Callable[[], float] = time.time,
        durable: bool = True,
        most_waiting: int = MOST_WAITING,
        migrations: Sequence[str] = schema.MIGRATIONS,
    ) -> None:
        path = Path(directory)
        self._now = now
        self._errands = Errands(
            path, reactor, lambda: take(path, durable, migrations), durable, most_waiting
        )
        self._ids: IdMaker | None = None
        self._parts: dict[str, Part] = {}
        self._accepting: dict[tuple[str, str], str] = {}
        self._closed: Deferred[None] | None = None

    # The store itself.

    def open(self) -> Deferred[Sequence[JobRecord]]:
        """See :meth:`deferpost.interfaces.IJobStore.open`."""

        def opened(place: StoreDirectory) -> Sequence[JobRecord]:
            self._ids = IdMaker(place.secret)
            return place.unended

        return self._errands.open().addCallback(opened)

    def close(self) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.close`."""
        if self._closed is None:
            self._closed = Deferred.fromCoroutine(self._errands.close(self._drop_parts))
        answer: Deferred[None] = Deferred()

        def closed(result: Any) -> Any:
            (answer.errback if isinstance(result, Failure) else answer.callback)(result)

        self._closed.addBoth(closed)
        return answer

    def _drop_parts(self) -> None:
        for part in self._parts.values():
            part.drop()
        self._parts.clear()

    def new_id(self) -> str:
        """See :meth:`deferpost.interfaces.IJobStore.new_id`."""
        if self._ids is None:
            raise self._errands.not_open()
        return self._ids.new()

    def authentic(self, id: str) -> bool:
        """See :meth:`deferpost.interfaces.IJobStore.authentic`."""
        return self._ids is not None and self._ids.is_own(id)

    # From a job's beginning to its end.

    def accept(self, job: NewJob, body: BinaryIO) -> Deferred[Accepted]:
        """See :meth:`deferpost.interfaces.IJobStore.accept`."""
        errands = self._errands
        refusal = errands.refusal()
        data = _small(body)
        if data is not None:
            body.close()
        elif refusal is not None:
            (errands.apart(body.close) if errands.is_open else body.close())
        if refusal is not None:
            return fail(refusal)
        if data is not None:
            given = (job, Content(len(data), data))
            answer = errands.write(job.id, changing.accept, given)
        else:
            answer = errands.copy_and_write(
                job.id,
                errands.large if job.body_bytes > _LARGE_BYTES else errands.copier,
                lambda: errands.place.files.keep(body),
                changing.accept,
                lambda content: (job, content),
            )
        if job.key is not None:
            pair = (job.key.scope, job.key.key)
            self._accepting[pair] = job.id
            answer.addBoth(self._accepted, pair, job.id)
        return answer

    def _accepted(self, result: Any, pair: tuple[str, str], id: str) -> Any:
        if self._accepting.get(pair) == id:
            del self._accepting[pair]
        return result

    def start(self, id: str, at: float) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.start`."""
        return self._errands.write(id, _start, (id, at), self._drop_part_of)

    def requeue(self, id: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.requeue`."""
        return self._errands.write(id, _requeue, (id, self._now()), self._drop_part_of)

    def cancel(self, id: str, reason: Reason) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.cancel`."""
        return self._errands.write(id, _cancel, (id, reason, self._now()))

    def tell(self, id: str, progress: Progress) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.tell`."""
        refusal = self._errands.refusal()
        if refusal is not None:
            return fail(refusal)
        return self._errands.write(id, _tell, (id, progress))

    def write(self, id: str, data: bytes) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.write`."""

        def write() -> None:
            part = self._parts.get(id)
            if part is None:
                part = self._parts[id] = self._errands.place.files.begin()
            part.write(data)

        if not self._errands.is_open:
            return fail(self._errands.not_open())
        return self._errands.copy(id, self._errands.copier, write)

    def finish(
        self, id: str, outcome: Outcome, body: bytes | BinaryIO | None
    ) -> Deferred[JobRecord]:
        """See :meth:`deferpost.interfaces.IJobStore.finish`."""
        errands = self._errands
        if outcome.state not in ENDED:
            raise ValueError(f"a job does not end as {outcome.state}")
        if not errands.is_open:
            if body is not None and not isinstance(body, bytes):
                body.close()
            return fail(errands.not_open())
        given = lambda content: (id, outcome, content)  # noqa: E731 (it is one line)
        answer: Deferred[JobRecord | None]
        if isinstance(body, bytes) and len(body) <= INLINE_BYTES:
            content = Content(len(body), body)
            answer = errands.write(id, _finish, given(content), self._drop_part_of)
        elif body is None:
            answer = errands.copy_and_write(
                id,
                errands.large,
                lambda: self._written(id),
                _finish,
                given,
                settle=lambda _: self._forget_part(id),
                keep=True,
            )
        else:
            lane, keep = self._keeper(body)
            answer = errands.copy_and_write(id, lane, keep, _finish, given, self._drop_part_of)
        return answer.addCallback(_there, id)

    def _keeper(self, body: bytes | BinaryIO) -> tuple[Lane, Callable[[], Content]]:
        """What keeps the body of a result, and how."""
        files = self._errands.place.files
        if not isinstance(body, bytes):
            return self._errands.large, lambda: files.keep(body)
        is_large = len(body) > _LARGE_BYTES
        lane = self._errands.large if is_large else self._errands.copier
        return lane, lambda: files.keep_bytes(body)

    def _written(self, id: str) -> Content:
        part = self._parts.get(id)
        return Content(0, b"") if part is None else part.finish()

    def _forget_part(self, id: str) -> None:
        """What was written is the job's result now."""
        self._parts.pop(id, None)

    def _drop_part_of(self, record: JobRecord | None) -> None:
        """A job starts anew, or has ended: what was written for it before is not wanted."""
        part = None if record is None else self._parts.pop(record.id, None)
        if part is not None:
            self._errands.apart(part.drop)

    def delete(self, id: str) -> Deferred[bool]:
        """See :meth:`deferpost.interfaces.IJobStore.delete`."""
        return self._errands.write(id, _delete, (id,))

    def clean(self, now: float, most: int) -> Deferred[int]:
        """See :meth:`deferpost.interfaces.IJobStore.clean`."""
        return Deferred.fromCoroutine(self._clean(now, most))

    async def _clean(self, now: float, most: int) -> int:
        total = 0
        while total < most:
            batch = min(most - total, _CLEAN_BATCH)
            done: int = await self._errands.write(None, _clean, (now, batch))
            total += done
            if done < batch:
                break
        return total

    # What is asked about jobs.

    def get(self, id: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.get`."""
        return self._errands.read(id, lambda connection: rows.find_record(connection, id))

    def keyed(self, scope: str, key: str) -> Deferred[JobRecord | None]:
        """See :meth:`deferpost.interfaces.IJobStore.keyed`."""
        name = self._accepting.get((scope, key))
        return self._errands.read(name, lambda connection: rows.find_key(connection, scope, key))

    def call(self, id: str) -> Deferred[StoredCall | None]:
        """See :meth:`deferpost.interfaces.IJobStore.call`."""
        return self._errands.read(
            id, lambda connection: queries.call(connection, self._errands.place.files, id)
        )

    def result(self, id: str) -> Deferred[StoredResult | None]:
        """See :meth:`deferpost.interfaces.IJobStore.result`."""
        return self._errands.read(
            id, lambda connection: queries.result(connection, self._errands.place.files, id)
        )

    def events(self, id: str, after: int, most: int) -> Deferred[Sequence[StoredEvent]]:
        """See :meth:`deferpost.interfaces.IJobStore.events`."""
        return self._errands.read(
            id, lambda connection: queries.events(connection, id, after, most)
        )

    def page(
        self, principal: str | None, states: frozenset[State], before: int | None, most: int
    ) -> Deferred[JobPage]:
        """See :meth:`deferpost.interfaces.IJobStore.page`."""
        return self._errands.read(
            None, lambda connection: queries.page(connection, principal, states, before, most)
        )

    # Webhooks.

    def hooks_due(self, now: float, most: int) -> Deferred[Sequence[JobRecord]]:
        """See :meth:`deferpost.interfaces.IJobStore.hooks_due`."""
        return self._errands.read(None, lambda connection: queries.hooks_due(connection, now, most))

    def next_hook(self) -> Deferred[float | None]:
        """See :meth:`deferpost.interfaces.IJobStore.next_hook`."""
        return self._errands.read(None, queries.next_hook)

    def hook_tried(
        self, id: str, attempt: HookAttempt, state: HookState, due: float | None
    ) -> Deferred[None]:
        """See :meth:`deferpost.interfaces.IJobStore.hook_tried`."""
        return self._errands.write(id, _hook_tried, (id, attempt, state, due))


def _small(body: BinaryIO) -> bytes | None:
    """All of a body that is in memory and small; None of another one."""
    if isinstance(body, io.BytesIO) and body.getbuffer().nbytes <= INLINE_BYTES:
        return body.getvalue()
    return None


def _there(record: JobRecord | None, id: str) -> JobRecord:
    if record is None:
        raise LookupError(f"no job has the id {id!r}")
    return record
