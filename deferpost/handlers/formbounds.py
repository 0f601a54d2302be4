"""What is kept of a form while it is read: text in memory, files on disk, both within bounds.

It decides when a form is too large, and owns the files until the form does.  It never reads the
format of a form, and never holds a file's content in memory.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from deferpost.errors import HTTPError
from deferpost.handlers.formplaces import Place, shown
from deferpost.handlers.uploads import UploadedFile

__all__ = ["CHUNK_BYTES", "Bounds", "Held", "TemporaryFile", "read_up_to"]

#: How much of a body is read at a time.
CHUNK_BYTES = 64 * 1024


class Bounds(NamedTuple):
    """How much a form may have; see :func:`deferpost.handlers.forms.parse_form`."""

    fields: int
    files: int
    field_bytes: int
    text_bytes: int


class TemporaryFile(io.BufferedRandom):
    """A file that may be forgotten: it then closes without a :class:`ResourceWarning`.

    Handlers need not close a form, and the system deletes the file with its descriptor.
    """

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()


class Held:
    """What was read of a form so far, within the bounds; owns the files until there is a form.

    :param bounds: what there may be; one more is an :class:`HTTPError` with the status 413.
    :param directory: where temporary files go; the system's own place where it is ``None``.
    """

    def __init__(self, bounds: Bounds, directory: str | None) -> None:
        self.bounds = bounds
        self._directory = directory
        self._fields: dict[str, list[str]] = {}
        self._files: dict[str, list[UploadedFile]] = {}
        self._open: list[TemporaryFile] = []
        self._field_count = 0
        self._text_bytes = 0

    def begin_field(self, place: Place) -> None:
        """Count a field."""
        self._field_count += 1
        if self._field_count > self.bounds.fields:
            limit = self.bounds.fields
            raise place.too_large(f"the form has more than {limit} fields", limit=limit)

    def begin_file(self, place: Place) -> TemporaryFile:
        """Count a file, and open it; :meth:`close` closes it again."""
        if len(self._open) >= self.bounds.files:
            limit = self.bounds.files
            raise place.too_large(f"the form has more than {limit} files", limit=limit)
        import tempfile

        file = TemporaryFile(tempfile.TemporaryFile(dir=self._directory, buffering=0))  # noqa: SIM115
        self._open.append(file)
        return file

    def keep(self, size: int, place: Place) -> None:
        """Count bytes that stay in memory."""
        self._text_bytes += size
        if self._text_bytes > self.bounds.text_bytes:
            limit = self.bounds.text_bytes
            raise place.too_large(f"the form has more than {limit} bytes of text", limit=limit)

    def field_too_large(self, name: str, place: Place) -> HTTPError:
        """The 413 for a value of more bytes than a field may have; to be raised."""
        limit = self.bounds.field_bytes
        return place.too_large(f"the field {shown(name)} has more than {limit} bytes", limit=limit)

    def add_field(self, name: str, value: str) -> None:
        """Keep a field that was read to its end."""
        self._fields.setdefault(name, []).append(value)

    def add_file(self, upload: UploadedFile) -> None:
        """Keep a file that was read to its end."""
        self._files.setdefault(upload.name, []).append(upload)

    def fields(self) -> dict[str, tuple[str, ...]]:
        """The values of each field, in the order in which they were added."""
        return {name: tuple(values) for name, values in self._fields.items()}

    def files(self) -> dict[str, tuple[UploadedFile, ...]]:
        """The files of each field, in the order in which they were added."""
        return {name: tuple(uploads) for name, uploads in self._files.items()}

    def close(self) -> None:
        """Close the files, which deletes them: there will be no form."""
        for file in self._open:
            # What cannot be written any more is not wanted any more.
            with suppress(OSError):
                file.close()


def read_up_to(body: BinaryIO, size: int) -> bytes:
    """The next bytes of the body; fewer only where it ends."""
    pieces = []
    while size and (piece := body.read(min(size, CHUNK_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
