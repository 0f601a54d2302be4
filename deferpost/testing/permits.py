"""The part of the behaviour suite about jobs that have to be permitted to begin.

It is :class:`PermitBehaviour`, and for pools whose workers can be lost, :class:`LossBehaviour`.
"""

# As in deferpost.testing.behaviour.
# ruff: noqa: PT009

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater

from deferpost.errors import DeadlineExceeded, NotStarted, ShuttingDown, StoreFailed
from deferpost.jobs import Job
from deferpost.model import Reason, Rung, State
from deferpost.testing.suite import PoolSuite, Sent

__all__ = ["LossBehaviour", "PermitBehaviour", "Permits"]

#: Seconds in which a job would have begun that does not wait.
_A_WHILE = 0.05


class Permits:
    """Is asked whether jobs may begin, and answers when the test says so.

    :ivar asked: what waits for an answer, with its job, in the order in which they came.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Job, Deferred[None]]] = []

    def __call__(self, job: Job) -> Deferred[None]:
        """See :attr:`deferpost.jobs.Job.permit`."""
        answer: Deferred[None] = Deferred()
        self.asked.append((job, answer))
        return answer

    def grant(self, number: int = 0) -> None:
        """One may begin."""
        self.asked.pop(number)[1].callback(None)

    def refuse(self, error: Exception, number: int = 0) -> None:
        """One may not."""
        self.asked.pop(number)[1].errback(error)


class PermitBehaviour(PoolSuite):
    """A job that has to be permitted begins then, and not before; it can be ended until then."""

    def _submit(self, permit: Callable[[Job], Deferred[None]], **options: Any) -> Sent:
        return self.submit("hold", permit=permit, **options)

    async def _asking(self, permits: Permits, sent: Sent) -> None:
        """Wait until a job waits for its permission."""
        await self.until(lambda: any(job is sent.job for job, _ in permits.asked), f"{sent} asks")

    async def _is_free(self) -> None:
        """Judge that a worker is free, and that no other job than the next has run."""
        self.open_gate("free")
        sent = self.submit("hold", gate="free")
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [sent.job.head.id])
        status = self.pool.status()
        self.assertEqual((status.running, status.waiting, status.stuck), (0, 0, 0))

    async def test_permitted_at_once(self) -> None:
        """A job that is permitted at once runs as any other."""
        self.start_pool()
        asked: list[Job] = []

        def permit(job: Job) -> Deferred[None]:
            asked.append(job)
            return succeed(None)

        sent = self.submit("echo", b"body", permit=permit)
        self.assertEqual(await self.content_of(sent), b"body")
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(asked, [sent.job])

    async def test_begins_when_it_is_permitted(self) -> None:
        """The code of a job begins when it is permitted, not before."""
        self.start_pool(size=1)
        permits = Permits()
        self.open_gate()
        sent = self._submit(permits)
        await self._asking(permits, sent)
        await deferLater(self.reactor, _A_WHILE)
        self.assertEqual(self.lines("started"), [])
        self.assertFalse(sent.has_ended)
        permits.grant()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [sent.job.head.id])
        self.assertEqual(permits.asked, [])

    async def test_others_run_meanwhile(self) -> None:
        """A job that waits for its permission keeps its own worker only, and its place."""
        self.start_pool(size=2)
        permits = Permits()
        sent = self._submit(permits)
        await self._asking(permits, sent)
        for _ in range(3):
            self.assertEqual(await self.content_of(self.submit("echo", b"x")), b"x")
        self.open_gate()
        permits.grant()
        await self.end_of(sent, State.SUCCEEDED)

    async def test_asked_for_by_a_worker(self) -> None:
        """Permission is asked for when a worker has the job, not while it is in the queue."""
        self.start_pool(size=1)
        permits = Permits()
        first = self.submit("hold")
        await self.running(1)
        second = self._submit(permits)
        await deferLater(self.reactor, _A_WHILE)
        self.assertEqual(permits.asked, [])
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self._asking(permits, second)
        permits.grant()
        await self.end_of(second, State.SUCCEEDED)

    async def test_refused(self) -> None:
        """A job that is refused fails with what it was refused for, and its code never runs."""
        self.start_pool(size=1)
        permits = Permits()
        for error in (NotStarted("it has ended"), StoreFailed("no space is left")):
            sent = self._submit(permits)
            await self._asking(permits, sent)
            permits.refuse(error)
            self.assertIs(await self.error_of(sent, type(error)), error)
            await self.end_of(sent, State.FAILED, Reason.ERROR)
        await self._is_free()

    async def test_refused_at_once(self) -> None:
        """A job that is refused before anybody could wait fails all the same."""
        self.start_pool(size=1)

        def permit(job: Job) -> Deferred[None]:
            refused: Deferred[None] = Deferred()
            refused.errback(NotStarted("it has ended"))
            return refused

        jobs = [self._submit(permit) for _ in range(5)]
        for sent in jobs:
            await self.error_of(sent, NotStarted)
            await self.end_of(sent, State.FAILED, Reason.ERROR)
        await self._is_free()

    async def test_canceled_while_it_waits(self) -> None:
        """A job that is canceled then is over soon, without an answer about its permission."""
        self.start_pool(size=1)
        permits = Permits()
        sent = self._submit(permits)
        await self._asking(permits, sent)
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertIn(sent.job.rung, (Rung.REMOVED, Rung.TOLD))
        self.assertTrue(permits.asked[0][1].called, "nobody waits for it any more")
        await self._is_free()
        self.assertEqual(self.pool.status().restarts, 0)

    async def test_canceled_when_it_is_permitted(self) -> None:
        """A job that is canceled when it was just permitted ends once, and its worker is free."""
        self.start_pool(size=1)
        for _ in range(3):
            permits = Permits()
            sent = self._submit(permits)
            await self._asking(permits, sent)
            permits.grant()
            sent.job.cancel(Reason.REQUESTED)
            await self.error_of(sent, CancelledError)
            await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_stop_while_one_waits(self) -> None:
        """A pool that stops ends the jobs that wait for their permission, and waits for none."""
        self.start_pool(size=2)
        permits = Permits()
        jobs = [self._submit(permits) for _ in range(3)]
        for sent in jobs[:2]:
            await self._asking(permits, sent)
        self.assertEqual(await self.stop_pool(), 0)
        for sent in jobs:
            await self.error_of(sent, ShuttingDown)
            await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        self.assertEqual(self.lines("started"), [])

    async def test_deadline_while_one_waits(self) -> None:
        """A job whose time is up while it waits for its permission ends as expired, soon."""
        self.start_clocked_pool(size=1)
        permits = Permits()
        sent = self._submit(permits, finish_by=self.now() + 5.0)
        await self._asking(permits, sent)
        self.pass_time(5.0)
        await self.error_of(sent, DeadlineExceeded)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_TOTAL)
        self.open_gate()
        other = self.submit("hold")
        await self.end_of(other, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [other.job.head.id])


class LossBehaviour(PoolSuite):
    """A worker is lost while its job waits for its permission."""

    def lose_worker(self) -> None:
        """End the one worker that there is, without its doing."""
        raise NotImplementedError

    async def _asked(self, permits: Permits) -> None:
        await self.until(lambda: permits.asked, "a job asks")

    async def test_lost_while_it_waits(self) -> None:
        """A job whose worker is lost then has not run, and says so; the permission is too late."""
        for retries in (0, 2):
            if self.pool is None:
                self.start_pool(size=1)
            permits = Permits()
            sent = self.submit("hold", permit=permits, retries=retries)
            await self._asked(permits)
            self.lose_worker()
            await self.error_of(sent, NotStarted)
            await self.end_of(sent, State.FAILED, Reason.ERROR)
            self.assertEqual(sent.job.retries, retries)
            permits.grant()
        self.open_gate()
        other = self.submit("hold")
        await self.end_of(other, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [other.job.head.id])

    async def test_lost_while_it_runs(self) -> None:
        """A job that runs again is permitted again, each time."""
        self.start_pool(size=1)
        permits = Permits()
        sent = self.submit("hold", permit=permits, retries=1)
        await self._asked(permits)
        permits.grant()
        await self.until(lambda: self.lines("started"), f"{sent} has begun")
        self.lose_worker()
        await self._asked(permits)
        self.assertEqual(len(self.lines("started")), 1)
        self.open_gate()
        permits.grant()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [sent.job.head.id] * 2)
