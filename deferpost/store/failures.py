"""What went wrong in a store, in words for its operator.

Errors of SQLite and of the system become :class:`~deferpost.errors.StoreFailed` here; all others
are defects of ours, and stay what they are.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from deferpost.errors import StoreFailed

__all__ = ["store_failed"]

_PRIMARY = 0xFF  # the bits of an extended result code that are the plain one

#: What follows from a result code, and whether that does not go away by itself.
_WORDS = {
    sqlite3.SQLITE_CORRUPT: (
        "its database is damaged: restore it, or move the directory away and start anew",
        True,
    ),
    sqlite3.SQLITE_NOTADB: (
        "its database is damaged or none of SQLite: restore it, or move it away and start anew",
        True,
    ),
    sqlite3.SQLITE_FULL: ("no space is left on its disk", False),
    sqlite3.SQLITE_IOERR: ("its disk cannot be read or written", False),
    sqlite3.SQLITE_READONLY: (
        "it cannot be written to: its disk or its files are read-only",
        False,
    ),
    sqlite3.SQLITE_CANTOPEN: ("a file of its database cannot be opened or made", False),
    sqlite3.SQLITE_PERM: ("access to its database is denied", False),
    sqlite3.SQLITE_AUTH: ("access to its database is denied", False),
    sqlite3.SQLITE_BUSY: ("another program has its database locked", False),
    sqlite3.SQLITE_LOCKED: ("its database is locked", False),
    sqlite3.SQLITE_NOMEM: ("there is no memory for its database", False),
    sqlite3.SQLITE_PROTOCOL: ("another program has its database locked", False),
    sqlite3.SQLITE_NOLFS: ("its disk takes no files that large", False),
    sqlite3.SQLITE_TOOBIG: ("a value is too large for its database", False),
}


def store_failed(error: BaseException, directory: Path) -> BaseException:
    """What is told of an error.

    :param error: as it was raised.
    :param directory: of the store.
    :returns: a :class:`~deferpost.errors.StoreFailed` where the disk, or what is on it, is the
        cause; else the error itself.
    """
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        why = error.strerror or str(error)
        return _because(StoreFailed(f"the store in {directory} failed: {why}{where}"), error)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        words = None if code is None else _WORDS.get(code & _PRIMARY)
        if words is not None:
            name = getattr(error, "sqlite_errorname", code)
            text = f"the store in {directory} failed: {words[0]} ({error}, {name})"
            return _because(StoreFailed(text, fatal=words[1]), error)
    return error


def _because(failed: StoreFailed, error: BaseException) -> StoreFailed:
    # Without its frames, which hold on to bodies.
    failed.__cause__ = error.with_traceback(None)
    return failed
