"""Raising :exc:`~deferpost.errors.Interrupted` in a handler's thread, and nowhere else in it.

The interpreter can be asked to raise an exception in another thread, between two bytecodes of
whatever that thread is doing by then (``PyThreadState_SetAsyncExc``).  It must not meet our own
code, which would be left half-way with a lock held or an outcome lost, and not the next job.  So a
thread says when it is in the handler's code, and does not leave it before what was asked for has
either been raised there or been taken back.

The handshake takes no lock, because a thread that is interrupted as it takes one may keep it for
ever.  It rests on two stores and two loads, which the interpreter does not reorder: the thread
closes its part and then looks whether a request is under way; the reactor says that a request is
under way and then looks whether the part is open.

Taking back is raising, too: an exception of our own takes the place of the one that is pending, and
is caught at once.  For the thread it would do to ask for none.  But the interpreter keeps one mark
for all threads, that one of them has something pending.  Only raising removes it, and while it
stands every thread stops to look at each call; under a tracer, such as coverage, CPython 3.11 never
gets past the first instruction of a function.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from deferpost.errors import Interrupted

__all__ = ["HandlerPart"]

T = TypeVar("T")

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
_set_async_exc.restype = ctypes.c_int


class _TakenBack(BaseException):
    """Takes the place of what was asked for and comes too late."""


class HandlerPart:
    """The part of what one thread does that is the handler's.

    Made on that thread.  All is for that thread, but :meth:`interrupt`.

    :ivar key: of the job that runs (:attr:`deferpost.jobs.Job.key`); set while the part is closed.
    """

    __slots__ = ("_asked", "_asking", "_ident", "_open", "key")

    def __init__(self) -> None:
        self.key: int | None = None
        self._ident = threading.get_ident()
        self._open = False
        self._asking = False
        self._asked = False  # since it was settled last; the reactor says so, the thread takes it

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call something of the handler's, which may be interrupted until it has returned.

        :param function: is called with ``args``.
        :returns: what it gives.
        :raises Interrupted: it was interrupted, and has let that pass.
        """
        try:
            self._open = True
            return function(*args)
        finally:
            # At once: no call, function entry or jump, at which an exception could be raised,
            # comes before this.
            self._open = False
            # From now on at most two can be raised: one that was asked for before, and one that
            # is under way.
            try:
                try:
                    self._settle()
                except Interrupted:
                    self._settle()
            except Interrupted:
                self._settle()

    def outside(self, function: Callable[..., T], *args: Any) -> T:
        """Call something of ours from inside the handler, which is not to be interrupted.

        For code that holds locks which the reactor takes, too.  On a thread that the handler has
        started itself this does nothing beside the call.

        :param function: is called with ``args``.
        :returns: what it gives.
        """
        if not self._open or threading.get_ident() != self._ident:
            return function(*args)
        missed = False
        self._open = False
        try:
            try:
                self._settle()
            except Interrupted:
                missed = True
                self._settle()
        except Interrupted:
            self._settle()
        try:
            result = function(*args)
        finally:
            self._open = True
        if missed:
            raise Interrupted
        return result

    def _settle(self) -> None:
        """Wait for a request that is under way, and take back what was not raised.

        :raises Interrupted: that is what was pending; it has to be called again.
        """
        while self._asking:
            time.sleep(0)
        if self._asked:
            time.sleep(0)  # what is pending is raised behind this, at the latest
            try:
                while True:
                    # Nothing runs between this and that it is raised, which is as the call returns.
                    _set_async_exc(self._ident, id(_TakenBack))
            except _TakenBack:
                pass
            self._asked = False

    def interrupt(self, key: int) -> bool:
        """Have :exc:`Interrupted` raised in the handler.  On the reactor thread.

        :param key: of the job that is meant.
        :returns: whether the thread was in the handler of this job.  If it is in C code, the
            exception is raised when it has come back from there, unless it leaves the handler.
        """
        self._asking = True
        try:
            meant = self._open and self.key == key
            if meant:
                self._asked = True
                _set_async_exc(self._ident, id(Interrupted))
        finally:
            self._asking = False
        return meant
