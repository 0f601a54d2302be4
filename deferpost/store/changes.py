"""What becomes of the record of a kept job, and what event tells of it.

Decides only, for every store: it is given a record and what has happened, and gives a new record
and its event, or None where that cannot happen to a job in this state.  It keeps nothing and does
not look at a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from deferpost.eventstream import plain_number
from deferpost.lifecycle import ENDED
from deferpost.model import Progress, Reason, State
from deferpost.records import (
    Accepted,
    Hook,
    HookAttempt,
    HookState,
    JobRecord,
    NewJob,
    Outcome,
    StoredEvent,
)

__all__ = [
    "Change",
    "accepted",
    "canceled",
    "ended",
    "found",
    "progress_event",
    "requeued",
    "rfc3339",
    "started",
    "told",
    "tried",
]

#: A record as it is now, and the event that says so.
Change = tuple[JobRecord, StoredEvent]

_encode = msgspec.json.encode


def rfc3339(at: float) -> str:
    """A time as it stands in documents: of RFC 3339, in UTC, to the millisecond.

    :param at: seconds since the epoch.
    """
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return f"{text[:-6]}Z"


def _state_event(record: JobRecord, reason: Reason | None, at: float) -> StoredEvent:
    data = {
        "state": record.state,
        "reason": reason,
        "attempt": record.attempt,
        "at": rfc3339(at),
    }
    return StoredEvent(record.events, "state", _encode(data))


def _with(record: JobRecord, **changes: Any) -> JobRecord:
    return msgspec.structs.replace(record, events=record.events + 1, **changes)


def accepted(job: NewJob, number: int, body_bytes: int) -> Change:
    """The record of a new job.

    :param job: what came.
    :param number: its place among the jobs of the store.
    :param body_bytes: how large its body is, by what was kept of it.
    """
    head = job.head
    record = JobRecord(
        number=number,
        id=job.id,
        request_id=head.id,
        route=head.route,
        pool=job.pool,
        principal=head.principal,
        state=State.QUEUED,
        created=job.created,
        ttl=job.ttl,
        urgency=job.urgency,
        retries=job.retries,
        start_by=job.start_by,
        finish_by=job.finish_by,
        body_bytes=body_bytes,
        key=job.key,
        hook=None if job.webhook is None else Hook(url=job.webhook),
        events=1,
    )
    return record, _state_event(record, None, job.created)


def found(record: JobRecord, job: NewJob) -> Accepted:
    """The answer to a job that was there already.

    Where either of the two has no fingerprint, nobody can tell that they are the same.

    :param record: the one that was there.
    :param job: the one that came.
    """
    key, other = record.key, job.key
    is_same = key is not None and other is not None and key.fingerprint == other.fingerprint
    return Accepted(record, is_new=False, is_same=is_same)


def started(record: JobRecord, at: float) -> Change | None:
    """A run is about to begin."""
    if record.state is not State.QUEUED:
        return None
    after = _with(record, state=State.RUNNING, started=at, attempt=record.attempt + 1)
    return after, _state_event(after, None, at)


def requeued(record: JobRecord, at: float) -> Change | None:
    """The worker of a run was lost, and a retry is left."""
    if record.state is not State.RUNNING or not record.retries:
        return None
    after = _with(record, state=State.QUEUED, retries=record.retries - 1, progress=None)
    return after, _state_event(after, Reason.WORKER_LOST, at)


def canceled(record: JobRecord, reason: Reason, at: float) -> Change | None:
    """A job that runs is to end."""
    if record.state is not State.RUNNING:
        return None
    after = _with(record, state=State.CANCELING, reason=reason)
    return after, _state_event(after, reason, at)


def told(record: JobRecord, progress: Progress) -> Change | None:
    """A job says how far it is."""
    if record.state in ENDED:
        return None
    after = _with(record, progress=progress)
    return after, progress_event(after.events, progress)


def progress_event(number: int, progress: Progress) -> StoredEvent:
    """The event that tells of progress.

    :param number: the event's.
    :param progress: how far the job is.
    """
    total = progress.total
    data = {
        "done": plain_number(progress.done),
        "total": None if total is None else plain_number(total),
        "message": progress.message,
    }
    return StoredEvent(number, "progress", _encode(data))


def ended(record: JobRecord, outcome: Outcome, result_bytes: int) -> Change | None:
    """A job has ended.

    :param record: as it was.
    :param outcome: how it has ended.
    :param result_bytes: how large the body of its result is.
    :raises ValueError: the state of the outcome is not a final one: a defect of the caller.
    """
    if outcome.state not in ENDED:
        raise ValueError(f"a job does not end as {outcome.state}")
    if record.state in ENDED:
        return None
    hook = record.hook
    if hook is not None:
        hook = msgspec.structs.replace(hook, state=HookState.PENDING, due=outcome.at)
    after = _with(
        record,
        state=outcome.state,
        reason=outcome.reason,
        rung=outcome.rung,
        finished=outcome.at,
        expires=outcome.at + record.ttl,
        status=outcome.status,
        content_type=outcome.content_type,
        result_bytes=result_bytes,
        problem=outcome.problem,
        hook=hook,
    )
    data = {
        "state": outcome.state,
        "reason": outcome.reason,
        "at": rfc3339(outcome.at),
        "status": outcome.status,
    }
    return after, StoredEvent(after.events, "end", _encode(data))


def tried(
    record: JobRecord, attempt: HookAttempt, state: HookState, due: float | None
) -> JobRecord | None:
    """A webhook was told, or was to be; None where there is none.  No event tells of it."""
    hook = record.hook
    if hook is None:
        return None
    attempts = (*hook.attempts, attempt)
    after = msgspec.structs.replace(hook, state=state, attempts=attempts, due=due)
    return msgspec.structs.replace(record, hook=after)
