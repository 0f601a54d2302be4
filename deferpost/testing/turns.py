"""Whose turn it is, and whose turn does not come any more: a part of the behaviour suite."""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009, PT027

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from deferpost.errors import DeadlineExceeded, ShuttingDown
from deferpost.interfaces import IForeseeable
from deferpost.model import Reason, Rung, State
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.suite import PoolSuite, Sent

__all__ = ["LateBehaviour", "TurnBehaviour"]


class _Expiring(PoolSuite):
    async def _expired(self, sent: Sent, reason: Reason, seconds: float) -> None:
        error = await self.error_of(sent, DeadlineExceeded)
        self.assertEqual((error.reason, error.seconds), (reason, seconds))
        await self.end_of(sent, State.EXPIRED, reason)


class LateBehaviour(_Expiring):
    """A job that is late when its turn comes; needs a pool that starts its jobs by itself."""

    async def test_late_at_its_turn(self) -> None:
        """A job whose time is up when its turn comes does not start, whatever the timers do."""
        clocked = ClockedReactor(self.reactor)  # of which no timer that is due later ever fires
        self._clocked = clocked
        clock = Clock()
        self.now = clock.seconds
        self.start_pool(size=1, reactor=clocked)
        first = self.submit("hold")
        await self.running(1)
        queue = self.submit("echo", start_by=5.0)
        total = self.submit("echo", start_by=9.0, finish_by=4.0)
        last = self.submit("echo", b"last", start_by=50.0, finish_by=50.0)
        clock.advance(6.0)
        self.assertEqual((queue.state, total.state), (State.QUEUED, State.QUEUED))
        self.open_gate()
        await self._expired(queue, Reason.DEADLINE_QUEUE, 5.0)
        await self._expired(total, Reason.DEADLINE_TOTAL, 4.0)
        for sent in (queue, total):
            self.assertEqual((sent.job.rung, sent.job.started), (Rung.REMOVED, None))
        self.assertEqual(await self.content_of(last), b"last")
        await self.end_of(first, State.SUCCEEDED)


class TurnBehaviour(_Expiring):
    """Jobs wait for their turn, by urgency and age, and no longer than they may.

    Needs handlers that run on while the test does.
    """

    async def test_not_started_in_time(self) -> None:
        """A job that waits longer than it may is removed; what runs goes on."""
        self.start_clocked_pool(size=1)
        first = self.submit("hold", timeout=100.0)
        await self.running(1)
        sent = self.submit("hold", timeout=100.0, start_by=self.now() + 5.0)
        later = self.submit("hold", timeout=100.0, start_by=self.now() + 50.0)
        self.pass_time(4.5)
        self.assertEqual((sent.state, sent.outcomes), (State.QUEUED, []))
        self.pass_time(0.5)
        await self._expired(sent, Reason.DEADLINE_QUEUE, 5.0)
        self.assertEqual((sent.job.rung, sent.job.started), (Rung.REMOVED, None))
        self.assertEqual((first.outcomes, later.outcomes), ([], []))
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self.end_of(later, State.SUCCEEDED)

    async def test_not_over_in_time_while_it_waits(self) -> None:
        """A job whose whole time is up while it waits is removed, for that reason."""
        self.start_clocked_pool(size=1)
        first = self.submit("hold")
        await self.running(1)
        now = self.now()
        sent = self.submit("hold", start_by=now + 30.0, finish_by=now + 8.0)
        self.pass_time(8.0)
        await self._expired(sent, Reason.DEADLINE_TOTAL, 8.0)
        self.assertEqual(sent.job.rung, Rung.REMOVED)
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)

    async def test_not_over_in_time_while_it_runs(self) -> None:
        """A run ends when its time is up or that of waiting and running, whichever is first."""
        self.start_clocked_pool(size=2)
        now = self.now()
        total = self.submit("hold", timeout=60.0, finish_by=now + 10.0)
        run = self.submit("hold", timeout=10.0, finish_by=now + 60.0)
        await self.running(2)
        self.pass_time(9.0)
        self.assertEqual((total.outcomes, run.outcomes), ([], []))
        self.pass_time(1.5)
        await self._expired(total, Reason.DEADLINE_TOTAL, 10.0)
        await self._expired(run, Reason.DEADLINE_RUN, 10.0)
        self.assertIn(total.job.rung, (Rung.TOLD, Rung.TERMINATED))

    async def test_in_time_after_all(self) -> None:
        """A job that has started and ended in time is not touched by its limits."""
        self.start_clocked_pool(size=1)
        now = self.now()
        sent = self.submit("echo", b"quick", start_by=now + 5.0, finish_by=now + 6.0)
        self.assertEqual(await self.content_of(sent), b"quick")
        self.pass_time(100.0)
        self.assertEqual((sent.state, sent.job.rung), (State.SUCCEEDED, None))

    async def test_more_urgent_first(self) -> None:
        """Of jobs that wait, the more urgent start first, and equals as they came."""
        self.start_clocked_pool(size=1)
        self.submit("hold", gate="gate-1")
        await self.running(1)
        urgencies = [3, 7, 0, 3, 5, 0, 3]
        jobs = [self.submit("hold", urgency=urgency) for urgency in urgencies]
        removed = self.submit("hold", urgency=0)
        removed.job.cancel(Reason.REQUESTED)
        self.open_gate("gate-1")
        self.open_gate()
        for sent in jobs:
            await self.end_of(sent, State.SUCCEEDED)
        await self.end_of(removed, State.CANCELED, Reason.REQUESTED)
        expected = [jobs[place].job.head.id for place in (2, 5, 0, 3, 6, 4, 1)]
        self.assertEqual(self.lines("started")[1:], expected)

    async def test_age_counts(self) -> None:
        """A job that has waited long enough starts before more urgent ones that came later."""
        self.start_clocked_pool(size=1)
        self.submit("hold", gate="gate-1")
        await self.running(1)
        patient = self.submit("hold", urgency=5)  # two steps of ten seconds
        self.pass_time(19.0)
        before = self.submit("hold", urgency=3)
        self.pass_time(2.0)
        after = self.submit("hold", urgency=3)
        self.open_gate("gate-1")
        self.open_gate()
        for sent in (before, patient, after):
            await self.end_of(sent, State.SUCCEEDED)
        expected = [sent.job.head.id for sent in (before, patient, after)]
        self.assertEqual(self.lines("started")[1:], expected)

    async def test_foreseen(self) -> None:
        """A pool that can tell says how many are ahead, and refuses when it is stopped."""
        self.start_pool(size=1)
        if not IForeseeable.providedBy(self.pool):
            return
        verifyObject(IForeseeable, self.pool)
        first = self.submit("hold")
        await self.running(1)
        for urgency in (3, 5):
            self.submit("hold", urgency=urgency)
        self.assertEqual([self.pool.ahead_of(urgency) for urgency in (2, 3, 4, 5)], [0, 1, 1, 2])
        self.pool.check()
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self.stop_pool()
        with self.assertRaises(ShuttingDown):
            self.pool.check()
