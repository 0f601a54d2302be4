"""The directory of a store, taken possession of: locked, with its database at the last version.

For a thread that may wait for the disk.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import attrs
from twisted.logger import Logger

from deferpost.records import JobRecord
from deferpost.store import queries, schema
from deferpost.store.files import BodyFiles, sync_directory
from deferpost.store.ids import SECRET_BYTES
from deferpost.store.lock import DirectoryLock

__all__ = ["StoreDirectory", "take"]

_log = Logger(namespace="deferpost.store")

_DATABASE = "jobs.sqlite3"
_FILES = "bodies"


@attrs.frozen
class StoreDirectory:
    """What was found in it.

    :ivar database: the path of the database.
    :ivar lock: which keeps others out.
    :ivar connection: for reading.
    :ivar files: the bodies beside the database.
    :ivar secret: by which the store knows its ids.
    :ivar unended: the jobs that have not ended, oldest first.
    """

    database: Path
    lock: DirectoryLock
    connection: sqlite3.Connection
    files: BodyFiles
    secret: bytes
    unended: Sequence[JobRecord]


def take(
    directory: Path, durable: bool, migrations: Sequence[str] = schema.MIGRATIONS
) -> StoreDirectory:
    """Take possession of a directory, which is made where it is not there.

    :param directory: its path; only the last part of it may be missing.
    :param durable: whether what is written has to outlive a loss of power.
    :param migrations: as :data:`deferpost.store.schema.MIGRATIONS`.
    :raises deferpost.errors.StoreFailed: another process has it, or it is of a later version.
    :raises OSError: the directory cannot be made, read or written to.
    :raises sqlite3.Error: the database cannot be read or written to.
    """
    if not directory.exists():
        directory.mkdir(mode=0o700)
        sync_directory(directory.parent)
    lock = DirectoryLock(directory)
    try:
        database = directory / _DATABASE
        schema.create(database)
        connection = schema.connect(database, durable=durable)
        try:
            schema.migrate(connection, directory, migrations)
            secret = _secret(connection)
            files = BodyFiles(directory / _FILES, durable)
            removed = files.prepare(lambda name: queries.wanted(connection, name))
            if removed:
                _log.info("{count} bodies that belong to no job were removed", count=removed)
            if durable:
                sync_directory(directory)
            unended = queries.unended(connection)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.release()
        raise
    return StoreDirectory(database, lock, connection, files, secret, unended)


def _secret(connection: sqlite3.Connection) -> bytes:
    """The secret of the store, which is made with it."""
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('secret', ?) ON CONFLICT DO NOTHING",
        (secrets.token_bytes(SECRET_BYTES),),
    )
    secret: bytes = connection.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]
    return secret
