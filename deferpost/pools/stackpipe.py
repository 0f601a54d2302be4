"""Where the code of a worker process stands: asking for it by a signal, and reading the answer.

The worker's interpreter answers in C, inside of the signal's handler (``faulthandler``), so that a
handler answers too that never comes to its next line.  The answer goes through a pipe of its own;
what does not come within a moment will not come.
"""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ANSWER_SECONDS", "StackReader", "readable_stack"]

#: Seconds that a process gets to say where it stands.
ANSWER_SECONDS = 2.0

#: Bytes of an answer: a hundred frames, with their files and functions.
_ANSWER_MOST = 256 * 1024

#: Bytes of a file whose lines are shown.
_SOURCE_MOST = 2 * 2**20

_READ_BYTES = 64 * 1024

_FRAME = re.compile(r'  File "(.*)", line ([0-9]+|\?\?\?) in (.*)')

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CHILD = os.path.join(_PACKAGE, "pools", "child.py")

#: Folders of what stands between the beginning of the program and a handler.
_OURS = tuple(os.path.join(_PACKAGE, name, "") for name in ("handlers", "pools"))

#: How an answer ends: with the beginning of the program, or because there is more than it shows.
_WHOLE = re.compile(
    rb'/pools/child\.py", line [0-9]+ in main\n  File "<string>", line 1 in <module>\n\Z|'
    rb"\n  \.\.\.\n\Z"
)


@implementer(IReadDescriptor)
class StackReader:
    """Asks one worker process, for everybody who wants to know.  For the reactor thread.

    :param reactor: the reactor (:class:`IReactorFDSet`, :class:`IReactorTime`).
    :param descriptor: the reading end of the pipe; this owns it.
    :param ask: sends the signal.

    :ivar asked: whether an answer is waited for.
    """

    def __init__(self, reactor: Any, descriptor: int, ask: Callable[[], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._ask = ask
        self._waiting: list[Deferred[str]] = []
        self._text = bytearray()
        self._timer: Any = None
        self.asked = False
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "deferpost worker stack"

    def request(self) -> Deferred[str]:
        """Where the process stands now; who asks while an answer is on its way gets that one.

        :returns: a Deferred that fires with the stack, or fails with :exc:`LookupError`.
        """
        waiter: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if self._descriptor == -1:
            self.fail("its process has ended")
        elif not self.asked:
            while self._read():  # what came too late for those who asked before
                pass
            self._text.clear()
            self.asked = True
            self._reactor.addReader(self)
            self._timer = self._reactor.callLater(ANSWER_SECONDS, self._late)
            self._ask()
        return waiter

    def fail(self, why: str) -> None:
        """There will be no answer.

        :param why: in words.
        """
        for waiter in self._rest():
            waiter.errback(LookupError(why))

    def close(self) -> None:
        """Close the pipe; whoever waits is told."""
        self.fail("its process has ended")
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1

    def doRead(self) -> None:
        """Read once what is there; the process may be in the middle of its answer."""
        data = self._read()
        if data == b"":
            self.fail("its process has ended")
        elif data is not None:
            self._text += data
            if _WHOLE.search(self._text) or len(self._text) > _ANSWER_MOST:
                self._answer()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives it up, as it does at its end."""
        self.close()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return None

    def _late(self) -> None:
        if self._text:
            self._answer()  # of another thread, or cut short: better than nothing
        else:
            self.fail("its process does not say where it stands")

    def _answer(self) -> None:
        stack = readable_stack(self._text[:_ANSWER_MOST].decode("utf-8", "replace"))
        if stack is None:
            self.fail("its process runs no job at this moment")
            return
        for waiter in self._rest():
            waiter.callback(stack)

    def _rest(self) -> list[Deferred[str]]:
        """Wait no more.

        :returns: those who did, of whom each is to be told.
        """
        if self.asked:
            self.asked = False
            self._reactor.removeReader(self)
            if self._timer.active():
                self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        return waiting


def readable_stack(dump: str) -> str | None:
    """What ``faulthandler`` wrote, in the order and the form of a traceback.

    The frames of the worker's own program, above the handler, are left out where there are others.

    :param dump: the stack, most recent call first.
    :returns: its lines, most recent call last; None if no handler runs there.
    """
    matches = [_FRAME.fullmatch(line) for line in dump.splitlines()]
    frames = [match.groups() for match in matches if match is not None]
    is_cut = "\n  ...\n" in dump
    if not is_cut and not any(file == _CHILD and name == "_run" for file, _, name in frames):
        return None
    frames.reverse()
    if not is_cut:
        users = (n for n, (file, _, _) in enumerate(frames) if not _is_ours(file))
        frames = frames[next(users, 0) :]
    lines = ["  ...\n"] if is_cut else []
    for file, number, name in frames:
        lines.append(f'  File "{file}", line {number}, in {name}\n')
        source = _source(file, int(number)) if number.isdigit() else ""
        if source:
            lines.append(f"    {source}\n")
    return "".join(lines)


def _is_ours(file: str) -> bool:
    return file == "<string>" or file.startswith(_OURS)


def _source(file: str, number: int) -> str:
    """A line of a file as it is now; empty where there is none."""
    try:
        if os.stat(file).st_size > _SOURCE_MOST:
            return ""
    except (OSError, ValueError):
        return ""
    linecache.checkcache(file)
    return linecache.getline(file, number).strip()
