"""The uploaded file, as a handler gets it.

It decides what a handler can see of a file and how one is saved.  It never chooses a name on the
disk, and judges nothing that the client says of the file.
"""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["UploadedFile"]

_COPY_BYTES = 64 * 1024


class UploadedFile:
    """One uploaded file.  Its content is on disk and goes when :attr:`file` is closed.

    To be used by one thread at a time.

    :param name: the name of the form's field.
    :param filename: the client's name of the file.
    :param content_type: the client's idea of the media type.
    :param size: bytes of content.
    :param file: the content.
    """

    __slots__ = ("_content_type", "_file", "_filename", "_name", "_size")

    def __init__(
        self, name: str, filename: str, content_type: str, size: int, file: BinaryIO
    ) -> None:
        self._name = name
        self._filename = filename
        self._content_type = content_type
        self._size = size
        self._file = file

    def __repr__(self) -> str:
        return f"<UploadedFile {self._name!r} {self._filename!r} {self._size} bytes>"

    @property
    def name(self) -> str:
        """The name of the form's field; several files may share it."""
        return self._name

    @property
    def filename(self) -> str:
        """The last component of the client's name of the file; do not trust it.

        There is no ``/``, no ``\\`` and no NUL in it, and it is neither ``.`` nor ``..``.  It can
        still be empty, begin with a dot, hold line breaks, name a device or be the name of
        another upload: show it, but choose the names on your disk yourself.
        """
        return self._filename

    @property
    def content_type(self) -> str:
        """The media type that the client claims, in lower case and without parameters.

        ``application/octet-stream`` where it claims none.  Do not trust it either.
        """
        return self._content_type

    @property
    def size(self) -> int:
        """How many bytes the client sent."""
        return self._size

    @property
    def file(self) -> BinaryIO:
        """The content: an open temporary file, seekable, with a ``fileno()``, at position 0."""
        return self._file

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Copy the content to a file; :attr:`file` keeps its position.

        :param path: where to.  Never derive it from :attr:`filename` alone.
        :param overwrite: replace the content of a file that is there, following a symbolic link,
            instead of refusing.
        :raises FileExistsError: there is something at ``path`` and ``overwrite`` is false.
        :raises OSError: the file cannot be written; one that was created for it is removed again.
        :raises ValueError: the form was closed.
        """
        position = self._file.tell()
        try:
            with open(path, "wb" if overwrite else "xb") as target:
                try:
                    self._file.seek(0)
                    while chunk := self._file.read(_COPY_BYTES):
                        target.write(chunk)
                    target.flush()
                except BaseException:
                    if not overwrite:
                        os.unlink(path)
                    raise
        finally:
            self._file.seek(position)
