"""Bodies beside a database: those that are too large for it, each in a file of its own.

All is for threads that may wait for the disk.  What refers to which file is not known here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs
from twisted.logger import Logger

__all__ = ["INLINE_BYTES", "BodyFiles", "Content", "Part", "sync_directory"]

_log = Logger(namespace="deferpost.store")

#: Bytes up to which a body stands in the database itself.
INLINE_BYTES = 16 * 1024

#: Bytes that are copied at once.
_PIECE_BYTES = 256 * 1024


@attrs.frozen
class Content:
    """A body that is kept.

    :ivar length: bytes that it has.
    :ivar data: the bytes, of a small one.
    :ivar file: the name of its file, of a large one.
    """

    length: int
    data: bytes | None = None
    file: str | None = None


class BodyFiles:
    """The files of one store.

    :param directory: where they are.
    :param durable: whether a file has to outlive a loss of power once it is kept.
    """

    def __init__(self, directory: Path, durable: bool) -> None:
        self._directory = directory
        self._durable = durable

    def prepare(self, is_wanted: Callable[[str], bool]) -> int:
        """Make the directory, and remove what nothing refers to.

        :param is_wanted: whether something refers to a file of that name.
        :returns: how many files were removed.
        :raises OSError: the directory cannot be made or read.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with os.scandir(self._directory) as entries:
            orphans = [entry.name for entry in entries if not is_wanted(entry.name)]
        self.remove(orphans)
        return len(orphans)

    def keep(self, body: BinaryIO) -> Content:
        """Keep what a file has from where it stands; a large body is in a file and durable.

        :param body: is closed in any case.
        :raises OSError: it cannot be read, or not be written; nothing is left of it.
        """
        with body:
            data = _read(body, INLINE_BYTES + 1)
            if len(data) <= INLINE_BYTES:
                return Content(len(data), data)
            return self._copy(data, body)

    def keep_bytes(self, data: bytes) -> Content:
        """As :meth:`keep`, for bytes."""
        if len(data) <= INLINE_BYTES:
            return Content(len(data), data)
        return self._copy(data, None)

    def _copy(self, data: bytes, rest: BinaryIO | None) -> Content:
        part = self.begin()
        try:
            part.write(data)
            while rest is not None and (piece := rest.read(_PIECE_BYTES)):
                part.write(piece)
            return part.finish()
        except BaseException:
            part.drop()
            raise

    def begin(self) -> Part:
        """A body that comes in pieces."""
        return Part(self._directory, self._durable)

    def open(self, name: str) -> BinaryIO:
        """A file, for reading.

        :raises OSError: it cannot be opened.
        """
        return open(self._directory / name, "rb")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is no error, one that stays is removed later."""
        for name in names:
            try:
                (self._directory / name).unlink(missing_ok=True)
            except OSError as error:
                _log.warn("the file {name} is left behind: {error}", name=name, error=error)


class Part:
    """A body that comes piece by piece: in memory while it is small, then in a file.

    :param directory: where the file is made.
    :param durable: whether it has to outlive a loss of power once it is finished.
    """

    def __init__(self, directory: Path, durable: bool) -> None:
        self._directory = directory
        self._durable = durable
        self._data = bytearray()
        self._length = 0
        self._name: str | None = None
        self._file: Any = None
        self._broken: OSError | None = None

    def write(self, data: bytes) -> None:
        """Take one more piece.

        :raises OSError: it could not be written; nor can any other, as one is missing.
        """
        if self._broken is not None:
            raise self._broken
        try:
            self._write(data)
        except OSError as error:
            self.drop()
            self._broken = error
            raise

    def _write(self, data: bytes) -> None:
        self._length += len(data)
        if self._file is None:
            if self._length <= INLINE_BYTES:
                self._data += data
                return
            name = secrets.token_hex(16)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self._directory / name, flags, 0o600)
            self._name = name
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            _write_all(self._file, self._data)
            self._data = bytearray()
        _write_all(self._file, data)

    def finish(self) -> Content:
        """It is whole; a file is durable when this returns.  Again gives the same.

        :raises OSError: it could not be written, this time or earlier; nothing is left of it.
        """
        if self._broken is not None:
            raise self._broken
        if self._name is None:
            return Content(self._length, bytes(self._data))
        if self._file is not None:
            try:
                file, self._file = self._file, None
                with file:
                    if self._durable:
                        os.fsync(file.fileno())
                if self._durable:
                    sync_directory(self._directory)
            except OSError as error:
                self.drop()
                self._broken = error
                raise
        return Content(self._length, file=self._name)

    def drop(self) -> None:
        """Nobody wants it: nothing is left of it."""
        self._data = bytearray()
        file, self._file = self._file, None
        name, self._name = self._name, None
        if file is not None:
            file.close()
        if name is not None:
            BodyFiles(self._directory, self._durable).remove([name])


def sync_directory(directory: Path) -> None:
    """Make durable which files a directory has.

    :raises OSError: the disk cannot do it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: BinaryIO, most: int) -> bytes:
    """So many bytes, or all where there are fewer; a raw file may give less at a time."""
    pieces = bytearray()
    while len(pieces) < most and (piece := file.read(most - len(pieces))):
        pieces += piece
    return bytes(pieces)


def _write_all(file: Any, data: Sequence[int] | bytes | bytearray) -> None:
    """Write all of it to a file that may take less at a time."""
    rest = memoryview(data)  # type: ignore[arg-type]  # bytes of either kind
    while rest:
        rest = rest[file.write(rest) :]
