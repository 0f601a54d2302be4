"""Where the body of an answer goes: into memory, up to a bound, or into a file.

A receiver knows how much it has, so that the rest can be asked for when a connection was lost.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from deferpost.client.errors import BadAnswer

__all__ = ["Receiver"]


class Receiver:
    """Takes a body.

    :param to: a binary file, which gets it at the place where it stands; None for memory.
    :param most_bytes: that are kept in memory.
    """

    def __init__(self, to: BinaryIO | None, most_bytes: int) -> None:
        self._file: Any = io.BytesIO() if to is None else to
        self._most_bytes = most_bytes if to is None else None
        self._is_memory = to is None
        self._can_seek = self._file.seekable()
        self._start: int = self._file.tell() if self._can_seek else 0
        self._skip = 0
        #: Bytes of the body that are there.
        self.length = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        :raises BadAnswer: there are too many for memory.
        """
        if self._skip:
            skipped = data[: self._skip]
            self._skip -= len(skipped)
            data = data[len(skipped) :]
        if not data:
            return
        self.length += len(data)
        if self._most_bytes is not None and self.length > self._most_bytes:
            raise BadAnswer(
                f"the answer has more than {self._most_bytes} bytes: have it written to a file"
            )
        self._file.write(data)

    def again(self, *, same: bool) -> None:
        """The body comes again from its beginning.

        :param same: whether it is known to be the same.
        :raises BadAnswer: it may be another one, and what was written cannot be taken back.
        """
        if same:
            self._skip = self.length
        elif self._can_seek:
            self._file.seek(self._start)
            self._file.truncate()
            self._skip = self.length = 0
        elif self.length:
            raise BadAnswer("the connection was lost, and the answer cannot be got once more")

    def body(self) -> bytes:
        """What is in memory; empty where it went to a file."""
        return self._file.getvalue() if self._is_memory else b""
