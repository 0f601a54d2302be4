"""A thread takes a job at the very moment at which it is late, canceled, or both."""

from __future__ import annotations

import threading

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from deferpost import ThreadPool
from deferpost.errors import DeadlineExceeded
from deferpost.model import Reason, Rung, State
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.suite import PoolSuite, Sent

_PATIENCE = 30.0


class _HeldClock:
    """A clock that a thread of the pool looks at no further than the test lets it."""

    def __init__(self) -> None:
        self.time = Clock()
        self.looking = threading.Event()
        self._may_look = threading.Event()
        self._may_look.set()
        self._main = threading.current_thread()

    def __call__(self) -> float:
        if threading.current_thread() is self._main:
            return self.time.seconds()
        seen = self.time.seconds()  # before it is held up: what it sees may be old
        if not self._may_look.is_set():
            self.looking.set()
            assert self._may_look.wait(_PATIENCE)
            return max(seen, self.shown)
        return seen

    shown = 0.0

    def hold(self) -> None:
        """Hold up the next thread that looks."""
        self._may_look.clear()

    def let_on(self) -> None:
        """Let it on."""
        self._may_look.set()


class TakenLateTests(PoolSuite, TestCase):
    """Each ends in exactly one way."""

    reactor = reactor

    def make_plan(self, *, size: int, max_waiting: int) -> ThreadPool:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting)

    async def _taken(self, **limits: float) -> tuple[_HeldClock, Sent]:
        """A job that a thread has taken out of the queue, and whose clock it now looks at."""
        clock = _HeldClock()
        self._clocked = ClockedReactor(self.reactor)
        self._clocked.clock = clock.time
        self._clocked.callLater = clock.time.callLater
        self.now = clock
        self.start_pool(size=1, reactor=self._clocked)
        clock.hold()
        self.addCleanup(clock.let_on)
        sent = self.submit("echo", b"body", **limits)  # type: ignore[arg-type]  # only limits
        await self.until(clock.looking.is_set, "a thread has taken it")
        return clock, sent

    async def test_late(self) -> None:
        """A job that is late when a thread has taken it is expired, and never runs."""
        clock, sent = await self._taken(start_by=5.0)
        self.pass_time(6.0)
        self.assertEqual((sent.state, sent.outcomes), (State.QUEUED, []))
        clock.shown = 6.0
        clock.let_on()
        error = await self.error_of(sent, DeadlineExceeded)
        self.assertIs(error.reason, Reason.DEADLINE_QUEUE)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_QUEUE)
        self.assertEqual((sent.job.rung, sent.job.started), (Rung.REMOVED, None))

    async def test_canceled_and_late(self) -> None:
        """A job that is canceled before the thread finds that it is late is canceled."""
        clock, sent = await self._taken(start_by=5.0)
        sent.job.cancel(Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        self.assertEqual(sent.ends, [])
        self.pass_time(6.0)
        clock.shown = 6.0
        clock.let_on()
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual((sent.job.rung, sent.job.started), (Rung.REMOVED, None))

    async def test_just_in_time(self) -> None:
        """A job that its thread has found in time runs, though the timer was due meanwhile."""
        clock, sent = await self._taken(start_by=5.0)
        self.pass_time(6.0)
        clock.shown = 4.0
        clock.let_on()
        self.assertEqual(await self.content_of(sent), b"body")
        await self.end_of(sent, State.SUCCEEDED)
