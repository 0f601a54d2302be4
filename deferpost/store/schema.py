"""The tables of a store on disk, version by version, and how its database is opened.

A version is a script that makes it of the one before; there is no other way to get there, so that a
new database and an old one are the same in the end.  A script that was released is not changed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from deferpost.errors import StoreFailed

__all__ = ["APPLICATION_ID", "MIGRATIONS", "connect", "create", "migrate"]

#: By which ``file`` and others know the database for ours: ``dfps``.
APPLICATION_ID = 0x64667073

#: Pages (of 4 KiB) in the log from which on they are moved to the database.
_CHECKPOINT_PAGES = 4000

#: Bytes to which the log is cut back after it was larger.
_LOG_BYTES = 64 * 2**20

#: KiB of the database that are kept in memory for each connection.
_CACHE_KIB = 16 * 1024

#: Seconds to wait for another program, a backup for example, that has the database locked.
_PATIENCE = 5.0

_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL,
    route TEXT NOT NULL,
    pool TEXT NOT NULL,
    principal TEXT,
    state TEXT NOT NULL,
    reason TEXT,
    rung TEXT,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    expires REAL,
    ttl REAL NOT NULL,
    urgency INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    start_by REAL,
    finish_by REAL,
    progress TEXT,
    body_bytes INTEGER NOT NULL,
    body_file TEXT,
    status INTEGER,
    content_type TEXT,
    result_bytes INTEGER,
    result_file TEXT,
    problem BLOB,
    scope TEXT,
    key TEXT,
    fingerprint BLOB,
    hook_url TEXT,
    hook_state TEXT,
    hook_attempts TEXT,
    hook_due REAL,
    events INTEGER NOT NULL
);
CREATE UNIQUE INDEX jobs_key ON jobs (scope, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_principal ON jobs (principal, state) WHERE principal IS NOT NULL;
CREATE INDEX jobs_expires ON jobs (expires) WHERE expires IS NOT NULL;
CREATE INDEX jobs_hook ON jobs (hook_due) WHERE hook_due IS NOT NULL;
CREATE INDEX jobs_body_file ON jobs (body_file) WHERE body_file IS NOT NULL;
CREATE INDEX jobs_result_file ON jobs (result_file) WHERE result_file IS NOT NULL;

CREATE TABLE calls (number INTEGER PRIMARY KEY, head BLOB NOT NULL, body BLOB);
CREATE TABLE results (number INTEGER PRIMARY KEY, headers BLOB NOT NULL, body BLOB);
CREATE TABLE events (
    number INTEGER NOT NULL,
    event INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (number, event)
) WITHOUT ROWID;
"""

#: What makes each version of the one before, beginning with that of an empty database.
MIGRATIONS: Sequence[str] = (_VERSION_1,)


def create(path: Path) -> None:
    """Make the file of a database that is not there, readable for its owner alone.

    :raises OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path, *, durable: bool = True, writes: bool = True) -> sqlite3.Connection:
    """Open the database.

    :param path: of its file, which is there.
    :param durable: whether what is committed has to outlive a loss of power.
    :param writes: whether the connection is for writing.
    :returns: a connection that may be handed from thread to thread, and begins no transaction by
        itself.
    :raises sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreFailed(
                f"the database in {path.parent} cannot have a write-ahead log there: its file "
                "system has no shared memory, as those of networks have none; choose another one",
                fatal=True,
            )
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Overwrite what is deleted where that costs no further write.
        connection.execute("PRAGMA secure_delete = FAST")
        if not writes:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection, where: Path, migrations: Sequence[str] = MIGRATIONS
) -> None:
    """Bring a database to the last version.  What is done of it is done for good or not at all.

    :param connection: to the database.
    :param where: what the store is called in messages.
    :param migrations: as :data:`MIGRATIONS`.
    :raises deferpost.errors.StoreFailed: it is none of ours, or of a later version.
    :raises sqlite3.Error: it is damaged, or the disk is.
    """
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if owner != APPLICATION_ID and not (is_empty and owner == version == 0):
        raise StoreFailed(
            f"the database in {where} belongs to another program: choose another directory",
            fatal=True,
        )
    if version > len(migrations):
        raise StoreFailed(
            f"the store in {where} is of version {version}, made by a later release; this one "
            f"knows versions up to {len(migrations)}: install the later release again",
            fatal=True,
        )
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            # executescript ends the transaction that it finds, and has none of its own.
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {number}; COMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
