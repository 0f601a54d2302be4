"""Kept jobs as rows: a record of a row, and the rows that a new job has.

All that is named here stands in :mod:`deferpost.store.schema`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from deferpost.model import CallHead, Progress, Reason, Rung, State
from deferpost.records import (
    Hook,
    HookAttempt,
    HookState,
    JobRecord,
    KeyOf,
    StoredEvent,
)

__all__ = [
    "RECORD",
    "event_row",
    "find",
    "find_key",
    "find_record",
    "head_of",
    "hook_values",
    "insert_many",
    "new_row",
    "packed_head",
    "packed_headers",
    "progress_text",
    "record_of",
]

#: The columns of a record, for SELECT.
RECORD = (
    "number, id, request_id, route, pool, principal, state, reason, rung, created, started, "
    "finished, expires, ttl, urgency, retries, attempt, start_by, finish_by, progress, "
    "body_bytes, status, content_type, result_bytes, problem, scope, key, fingerprint, "
    "hook_url, hook_state, hook_attempts, hook_due, events"
)

#: The columns of a job that a new one has values in.
NEW = (
    "number, id, request_id, route, pool, principal, state, created, ttl, urgency, retries, "
    "start_by, finish_by, body_bytes, body_file, scope, key, fingerprint, hook_url, hook_state, "
    "events"
)

_STATES = {state.value: state for state in State}
_REASONS: dict[str | None, Reason | None] = {None: None} | {each.value: each for each in Reason}
_RUNGS: dict[str | None, Rung | None] = {None: None} | {each.value: each for each in Rung}

_progress = msgspec.json.Decoder(Progress)
_attempts = msgspec.json.Decoder(tuple[HookAttempt, ...])
_head = msgspec.msgpack.Decoder(CallHead)

head_of = _head.decode
packed_head = msgspec.msgpack.encode
packed_headers = msgspec.msgpack.encode

#: How many rows are inserted by one statement.  Each size is a statement of its own, which is
#: prepared once.
_SIZES = (64, 16, 4, 1)


def record_of(row: Sequence[Any]) -> JobRecord:
    """The record of a row of :data:`RECORD`."""
    (
        number,
        id,
        request_id,
        route,
        pool,
        principal,
        state,
        reason,
        rung,
        created,
        started,
        finished,
        expires,
        ttl,
        urgency,
        retries,
        attempt,
        start_by,
        finish_by,
        progress,
        body_bytes,
        status,
        content_type,
        result_bytes,
        problem,
        scope,
        key,
        fingerprint,
        hook_url,
        hook_state,
        hook_attempts,
        hook_due,
        events,
    ) = row
    return JobRecord(
        number=number,
        id=id,
        request_id=request_id,
        route=route,
        pool=pool,
        principal=principal,
        state=_STATES[state],
        reason=_REASONS[reason],
        rung=_RUNGS[rung],
        created=created,
        started=started,
        finished=finished,
        expires=expires,
        ttl=ttl,
        urgency=urgency,
        retries=retries,
        attempt=attempt,
        start_by=start_by,
        finish_by=finish_by,
        progress=None if progress is None else _progress.decode(progress),
        body_bytes=body_bytes,
        status=status,
        content_type=content_type,
        result_bytes=result_bytes,
        problem=problem,
        key=None if key is None else KeyOf(scope, key, fingerprint),
        hook=None
        if hook_url is None
        else Hook(
            url=hook_url,
            state=HookState(hook_state),
            attempts=() if hook_attempts is None else _attempts.decode(hook_attempts),
            due=hook_due,
        ),
        events=events,
    )


def new_row(record: JobRecord, body_file: str | None) -> tuple[Any, ...]:
    """The row of a new job, in the columns of :data:`NEW`."""
    key, hook = record.key, record.hook
    return (
        record.number,
        record.id,
        record.request_id,
        record.route,
        record.pool,
        record.principal,
        record.state.value,
        record.created,
        record.ttl,
        record.urgency,
        record.retries,
        record.start_by,
        record.finish_by,
        record.body_bytes,
        body_file,
        None if key is None else key.scope,
        None if key is None else key.key,
        None if key is None else key.fingerprint,
        None if hook is None else hook.url,
        None if hook is None else hook.state.value,
        record.events,
    )


def event_row(number: int, event: StoredEvent) -> tuple[Any, ...]:
    """The row of an event.

    :param number: of its job.
    """
    return (number, event.number, event.kind, event.data)


def progress_text(progress: Progress | None) -> str | None:
    """Progress as it stands in its column."""
    return None if progress is None else msgspec.json.encode(progress).decode()


def hook_values(hook: Hook | None) -> tuple[str | None, str | None, float | None]:
    """State, attempts and time of a webhook as they stand in their columns."""
    if hook is None:
        return None, None, None
    attempts = msgspec.json.encode(hook.attempts).decode() if hook.attempts else None
    return hook.state.value, attempts, hook.due


def insert_many(
    connection: sqlite3.Connection, table: str, columns: str, rows: Sequence[tuple[Any, ...]]
) -> int:
    """Insert rows, except those that break a rule of uniqueness; of two such, the first is taken.

    One statement for many is not only less work: each is a time at which the thread gives the
    interpreter's lock away, and has to wait for it where the reactor is busy.

    :param table: its name.
    :param columns: their names, as many as there are values in a row.
    :returns: how many there were.
    """
    inserted = start = 0
    places = f"({','.join('?' * len(rows[0]))})"
    for size in _SIZES:
        while len(rows) - start >= size:
            values = [value for row in rows[start : start + size] for value in row]
            done = connection.execute(
                f"INSERT INTO {table} ({columns}) VALUES {','.join([places] * size)} "
                "ON CONFLICT DO NOTHING",
                values,
            )
            inserted += done.rowcount
            start += size
    return inserted


def find(connection: sqlite3.Connection, where: str, parameters: Sequence[Any]) -> list[JobRecord]:
    """The records of the rows that a condition, with its order and limit, is about."""
    rows = connection.execute(f"SELECT {RECORD} FROM jobs WHERE {where}", parameters).fetchall()
    return [record_of(row) for row in rows]


def find_record(connection: sqlite3.Connection, id: str) -> JobRecord | None:
    """The record of a job; None where there is none."""
    found = find(connection, "id = ?", (id,))
    return found[0] if found else None


def find_key(connection: sqlite3.Connection, scope: str, key: str) -> JobRecord | None:
    """The record of the job with a key; None where there is none."""
    found = find(connection, "scope = ? AND key = ? AND key IS NOT NULL", (scope, key))
    return found[0] if found else None
