"""A directory that one process has to itself."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from deferpost.errors import StoreFailed

__all__ = ["DirectoryLock"]

_NAME = "lock"


class DirectoryLock:
    """Holds a directory until it is released, or the process has ended, however it does.

    Its file stays: to remove it would let a third process in beside a second one that has it open.

    :param directory: which is there.
    :raises deferpost.errors.StoreFailed: another one holds it.
    :raises OSError: the file of the lock cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self._file)
            os.close(self._file)
            raise StoreFailed(
                f"the store in {directory} is in use by {holder}: give each process a directory "
                "of its own, or stop that one",
                fatal=True,
            ) from None
        except OSError:
            os.close(self._file)
            raise
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the number is for people, the lock is held all the same

    def release(self) -> None:
        """Let others have it; again is no error."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _holder(file: int) -> str:
    """Who has the lock, in words."""
    try:
        text = os.pread(file, 32, 0).strip()
    except OSError:
        text = b""
    if not text.isdigit():
        return "another process"
    if int(text) == os.getpid():
        return f"this process ({os.getpid()}), which has it open already"
    return f"process {int(text)}"
