"""Reading what worker processes print, line by line."""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["LINE_MOST", "OutputReader"]

#: Bytes of a line; a longer one is given in pieces.
LINE_MOST = 16 * 1024

_READ_BYTES = 64 * 1024


@implementer(IReadDescriptor)
class OutputReader:
    """The reading end of the pipe that a worker prints into.  For the reactor thread.

    :param reactor: the reactor that reads it (:class:`IReactorFDSet`).
    :param descriptor: the reading end; this owns it.
    :param line: called with each line as text, without its end.
    """

    def __init__(self, reactor: Any, descriptor: int, line: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._line = line
        self._rest = b""
        os.set_blocking(descriptor, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "deferpost worker output"

    def doRead(self) -> None:
        """Read once what is there; at the end, close."""
        if self._read() == b"":
            self.close()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives it up, as it does at its end."""
        self.close()

    def drain(self) -> None:
        """Give all that was printed until now, an unfinished line included.

        Bounded by what the pipe holds.
        """
        for _ in range(16):
            if not self._has_some() or not self._read():
                break
        if self._rest:
            self._give_rest()

    def _has_some(self) -> bool:
        """Whether there is something to read; asked after every job, so without an exception."""
        if self._descriptor == -1:
            return False
        return fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0"

    def close(self) -> None:
        """Give what is left and close the pipe."""
        if self._descriptor != -1:
            self._give_rest()
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> bytes | None:
        """One read: what came, b"" at the end, None where nothing is there."""
        if self._descriptor == -1:
            return b""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return None
        if data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._give(line)
            while len(self._rest) > LINE_MOST:
                piece, self._rest = self._rest[:LINE_MOST], self._rest[LINE_MOST:]
                self._give(piece)
        return data

    def _give_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._give(rest)

    def _give(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_MOST) or (0,):
            self._line(line[start : start + LINE_MOST].decode("utf-8", "backslashreplace"))
