"""What is read of kept jobs.  For the thread that reads.

Every question is answered by an index, so that it costs the same however many jobs have ended.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from deferpost.model import State
from deferpost.records import (
    JobPage,
    JobRecord,
    StoredCall,
    StoredEvent,
    StoredResult,
)
from deferpost.store.files import BodyFiles
from deferpost.store.rows import find, head_of

__all__ = ["call", "events", "hooks_due", "next_hook", "page", "result", "unended", "wanted"]

_UNENDED = (State.QUEUED, State.RUNNING, State.CANCELING)

_headers = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes], ...])


def unended(connection: sqlite3.Connection) -> list[JobRecord]:
    """The jobs that have not ended, oldest first."""
    states = [state.value for state in _UNENDED]
    return find(connection, "state IN (?, ?, ?) ORDER BY number", states)


def wanted(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a job has a file of that name."""
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE body_file = ?1 AND body_file IS NOT NULL) OR "
        "EXISTS (SELECT 1 FROM jobs WHERE result_file = ?1 AND result_file IS NOT NULL)",
        (name,),
    ).fetchone()
    return bool(found[0])


def call(connection: sqlite3.Connection, files: BodyFiles, id: str) -> StoredCall | None:
    """See :meth:`deferpost.interfaces.IJobStore.call`."""
    row = connection.execute(
        "SELECT head, body, body_file FROM jobs JOIN calls USING (number) WHERE id = ?", (id,)
    ).fetchone()
    if row is None:
        return None
    head, body, file = row
    return StoredCall(head_of(head), io.BytesIO(body) if file is None else files.open(file))


def result(connection: sqlite3.Connection, files: BodyFiles, id: str) -> StoredResult | None:
    """See :meth:`deferpost.interfaces.IJobStore.result`."""
    row = connection.execute(
        "SELECT status, headers, body, result_file, result_bytes "
        "FROM jobs JOIN results USING (number) WHERE id = ?",
        (id,),
    ).fetchone()
    if row is None:
        return None
    status, headers, body, file, length = row
    content: Any = body if file is None else files.open(file)
    return StoredResult(status, _headers.decode(headers), content, length)


def events(connection: sqlite3.Connection, id: str, after: int, most: int) -> Sequence[StoredEvent]:
    """See :meth:`deferpost.interfaces.IJobStore.events`."""
    rows = connection.execute(
        "SELECT event, kind, data FROM events "
        "WHERE number = (SELECT number FROM jobs WHERE id = ?) AND event > ? "
        "ORDER BY event LIMIT ?",
        (id, after, most),
    ).fetchall()
    return [StoredEvent(*row) for row in rows]


def page(
    connection: sqlite3.Connection,
    principal: str | None,
    states: frozenset[State],
    before: int | None,
    most: int,
) -> JobPage:
    """See :meth:`deferpost.interfaces.IJobStore.page`.

    Of each state that is wanted the newest are taken from an index, and of these the newest.
    """
    limit = most + 1  # one more tells whether there is a next page
    parameters: list[Any] = []
    if principal is None and not states:
        if before is None:
            where = "true"
        else:
            where = "number < ?"
            parameters.append(before)
    else:
        pieces = []
        for state in sorted(states or State):
            piece = "SELECT number FROM jobs WHERE state = ?"
            parameters.append(state.value)
            if principal is not None:
                piece += " AND principal = ? AND principal IS NOT NULL"
                parameters.append(principal)
            if before is not None:
                piece += " AND number < ?"
                parameters.append(before)
            parameters.append(limit)
            pieces.append(f"SELECT * FROM ({piece} ORDER BY number DESC LIMIT ?)")
        where = f"number IN ({' UNION ALL '.join(pieces)})"
    records = find(connection, f"{where} ORDER BY number DESC LIMIT ?", [*parameters, limit])
    next_page = records[most - 1].number if len(records) > most else None
    return JobPage(tuple(records[:most]), next_page)


def hooks_due(connection: sqlite3.Connection, now: float, most: int) -> Sequence[JobRecord]:
    """See :meth:`deferpost.interfaces.IJobStore.hooks_due`."""
    where = "hook_due IS NOT NULL AND hook_due <= ? ORDER BY hook_due LIMIT ?"
    return find(connection, where, (now, most))


def next_hook(connection: sqlite3.Connection) -> float | None:
    """See :meth:`deferpost.interfaces.IJobStore.next_hook`."""
    found: float | None = connection.execute(
        "SELECT min(hook_due) FROM jobs WHERE hook_due IS NOT NULL"
    ).fetchone()[0]
    return found
