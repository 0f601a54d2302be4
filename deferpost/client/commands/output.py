"""Where the body of a result goes: standard output, or a file that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import BinaryIO, Self

__all__ = ["Output"]


class Output:
    """To be used as a context manager; what is not kept is gone at its end.

    :param path: of the file; None for standard output.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._temporary: str | None = None
        self.file: BinaryIO = sys.stdout.buffer

    def __enter__(self) -> Self:
        """Open it.

        :raises OSError: there can be no such file.
        """
        if self.path is not None:
            directory, name = os.path.split(os.path.abspath(self.path))
            handle, self._temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)
            self.file = os.fdopen(handle, "wb")
        return self

    def keep(self) -> None:
        """It is whole: give it its name.

        :raises OSError: it cannot be written.
        """
        self.file.flush()
        if self.path is not None and self._temporary is not None:
            self.file.close()
            os.replace(self._temporary, self.path)
            self._temporary = None

    def __exit__(self, *exc_info: object) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
