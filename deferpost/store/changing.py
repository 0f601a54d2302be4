"""What is written of kept jobs: each change of one, with its event, in a transaction.

What a change is decides :mod:`deferpost.store.changes`; here it becomes SQL.  Each statement that
changes the state of a job names the state that it was decided by, so that none ever replaces an
outcome.  For the thread that writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deferpost.model import Progress, Reason
from deferpost.records import Accepted, HookAttempt, HookState, JobRecord, NewJob, Outcome
from deferpost.store import changes
from deferpost.store.changes import Change
from deferpost.store.files import Content
from deferpost.store.rows import (
    NEW,
    event_row,
    find_key,
    find_record,
    hook_values,
    insert_many,
    new_row,
    packed_head,
    packed_headers,
    progress_text,
)
from deferpost.store.writer import Transaction

__all__ = [
    "accept",
    "cancel",
    "clean",
    "delete",
    "finish",
    "hook_tried",
    "requeue",
    "start",
    "tell",
]

_EVENT = "INSERT INTO events (number, event, kind, data) VALUES (?, ?, ?, ?)"


def accept(transaction: Transaction, jobs: Sequence[tuple[NewJob, Content]]) -> list[Accepted]:
    """Keep new jobs; see :meth:`deferpost.interfaces.IJobStore.accept`.

    :param jobs: each with its body.
    """
    connection = transaction.connection
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    first = last[0] + 1 if last is not None else 1
    new = [
        changes.accepted(job, number, content.length)
        for number, (job, content) in enumerate(jobs, first)
    ]
    rows = [
        new_row(record, content.file) for (record, _), (_, content) in zip(new, jobs, strict=True)
    ]
    if insert_many(connection, "jobs", NEW, rows) == len(rows):
        kept = set(range(first, first + len(rows)))
    else:
        numbers = connection.execute("SELECT number FROM jobs WHERE number >= ?", (first,))
        kept = {number for (number,) in numbers.fetchall()}
    calls, events, answers = [], [], []
    for (job, content), (record, event) in zip(jobs, new, strict=True):
        if record.number in kept:
            calls.append((record.number, packed_head(job.head), content.data))
            events.append(event_row(record.number, event))
            answers.append(Accepted(record))
        else:
            answers.append(_found(transaction, job))
            if content.file is not None:
                transaction.forgotten.append(content.file)
    if calls:
        insert_many(connection, "calls", "number, head, body", calls)
        insert_many(connection, "events", "number, event, kind, data", events)
    return answers


def _found(transaction: Transaction, job: NewJob) -> Accepted:
    connection = transaction.connection
    record = find_record(connection, job.id)
    if record is None and job.key is not None:
        record = find_key(connection, job.key.scope, job.key.key)
    assert record is not None, "a job that was refused for being there is not there"
    return changes.found(record, job)


def _change(
    transaction: Transaction, id: str, decide: Callable[[JobRecord], Change | None]
) -> tuple[JobRecord | None, bool]:
    """Change the state of a job that has not ended.

    :returns: the record, as it is now, and whether it has changed.
    """
    connection = transaction.connection
    record = find_record(connection, id)
    change = None if record is None else decide(record)
    if record is None or change is None:
        return record, False
    after, event = change
    done = connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, started = ?, retries = ?, attempt = ?, "
        "progress = ?, events = ? WHERE number = ? AND state = ?",
        (
            after.state.value,
            None if after.reason is None else after.reason.value,
            after.started,
            after.retries,
            after.attempt,
            progress_text(after.progress),
            after.events,
            record.number,
            record.state.value,
        ),
    )
    assert done.rowcount == 1, "another program writes to this database"
    connection.execute(_EVENT, event_row(record.number, event))
    return after, True


def start(transaction: Transaction, id: str, at: float) -> JobRecord | None:
    """See :meth:`deferpost.interfaces.IJobStore.start`."""
    record, changed = _change(transaction, id, lambda record: changes.started(record, at))
    return record if changed else None


def requeue(transaction: Transaction, id: str, at: float) -> JobRecord | None:
    """See :meth:`deferpost.interfaces.IJobStore.requeue`."""
    record, changed = _change(transaction, id, lambda record: changes.requeued(record, at))
    return record if changed else None


def cancel(transaction: Transaction, id: str, reason: Reason, at: float) -> JobRecord | None:
    """See :meth:`deferpost.interfaces.IJobStore.cancel`."""
    record, _ = _change(transaction, id, lambda record: changes.canceled(record, reason, at))
    return None if record is None or record.finished is not None else record


def tell(transaction: Transaction, id: str, progress: Progress) -> None:
    """See :meth:`deferpost.interfaces.IJobStore.tell`."""
    connection = transaction.connection
    row = connection.execute(
        "UPDATE jobs SET progress = ?, events = events + 1 WHERE id = ? AND finished IS NULL "
        "RETURNING number, events",
        (progress_text(progress), id),
    ).fetchone()
    if row is not None:
        number, event = row
        connection.execute(_EVENT, event_row(number, changes.progress_event(event, progress)))


def finish(
    transaction: Transaction, id: str, outcome: Outcome, content: Content
) -> JobRecord | None:
    """See :meth:`deferpost.interfaces.IJobStore.finish`.

    :param content: the body of the result.
    :returns: None where there is no such job.
    """
    connection = transaction.connection
    record = find_record(connection, id)
    change = None if record is None else changes.ended(record, outcome, content.length)
    if record is None or change is None:
        if content.file is not None:
            transaction.forgotten.append(content.file)
        return record
    after, event = change
    hook_state, _, hook_due = hook_values(after.hook)
    row = connection.execute(
        "SELECT body_file FROM jobs WHERE number = ?", (record.number,)
    ).fetchone()
    done = connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, rung = ?, finished = ?, expires = ?, "
        "body_file = NULL, status = ?, content_type = ?, result_bytes = ?, result_file = ?, "
        "problem = ?, hook_state = ?, hook_due = ?, events = ? WHERE number = ? AND state = ?",
        (
            after.state.value,
            None if after.reason is None else after.reason.value,
            None if after.rung is None else after.rung.value,
            after.finished,
            after.expires,
            after.status,
            after.content_type,
            after.result_bytes,
            content.file,
            after.problem,
            hook_state,
            hook_due,
            after.events,
            record.number,
            record.state.value,
        ),
    )
    assert done.rowcount == 1, "another program writes to this database"
    connection.execute(
        "INSERT INTO results (number, headers, body) VALUES (?, ?, ?)",
        (record.number, packed_headers(outcome.headers), content.data),
    )
    connection.execute("DELETE FROM calls WHERE number = ?", (record.number,))
    connection.execute(_EVENT, event_row(record.number, event))
    if row[0] is not None:
        transaction.forgotten.append(row[0])
    return after


def _forget(transaction: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
    """Remove ended jobs with all that belongs to them; of each, its number and its files."""
    connection = transaction.connection
    numbers = [(row[0],) for row in rows]
    for table in ("events", "results", "jobs"):
        connection.executemany(f"DELETE FROM {table} WHERE number = ?", numbers)
    transaction.forgotten.extend(row[1] for row in rows if row[1] is not None)


def delete(transaction: Transaction, id: str) -> bool:
    """See :meth:`deferpost.interfaces.IJobStore.delete`."""
    rows = transaction.connection.execute(
        "SELECT number, result_file FROM jobs WHERE id = ? AND finished IS NOT NULL", (id,)
    ).fetchall()
    _forget(transaction, rows)
    return bool(rows)


def clean(transaction: Transaction, now: float, most: int) -> int:
    """See :meth:`deferpost.interfaces.IJobStore.clean`."""
    rows = transaction.connection.execute(
        "SELECT number, result_file FROM jobs WHERE expires IS NOT NULL AND expires <= ? "
        "ORDER BY expires LIMIT ?",
        (now, most),
    ).fetchall()
    _forget(transaction, rows)
    return len(rows)


def hook_tried(
    transaction: Transaction, id: str, attempt: HookAttempt, state: HookState, due: float | None
) -> None:
    """See :meth:`deferpost.interfaces.IJobStore.hook_tried`."""
    record = find_record(transaction.connection, id)
    after = None if record is None else changes.tried(record, attempt, state, due)
    if after is None:
        return
    transaction.connection.execute(
        "UPDATE jobs SET hook_state = ?, hook_attempts = ?, hook_due = ? WHERE number = ?",
        (*hook_values(after.hook), after.number),
    )
