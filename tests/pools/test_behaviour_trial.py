"""The behaviour suite, run against every pool there is."""

from __future__ import annotations

import os
import signal
from typing import Any
from urllib.parse import parse_qs

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from deferpost import ProcessPool, ReactorPool, ThreadPool
from deferpost.testing import InlinePool, ManualPool
from deferpost.testing.behaviour import (
    AnswerBehaviour,
    ArrivingBehaviour,
    CoroutineBehaviour,
    DeadlineBehaviour,
    PoolBehaviour,
    ProgressBehaviour,
    QueueBehaviour,
    StreamBehaviour,
)
from deferpost.testing.permits import LossBehaviour, PermitBehaviour
from deferpost.testing.suite import PoolSuite, Sent
from deferpost.testing.turns import LateBehaviour, TurnBehaviour


class ThreadPoolTests(PoolBehaviour, ArrivingBehaviour, PermitBehaviour, TestCase):
    """Threads."""

    reactor = reactor

    def make_plan(self, *, size: int, max_waiting: int) -> ThreadPool:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting)


class ProcessPoolTests(PoolBehaviour, ArrivingBehaviour, PermitBehaviour, LossBehaviour, TestCase):
    """Worker processes, which get long enough to end by themselves."""

    reactor = reactor
    rounds = 6

    def make_plan(self, *, size: int, max_waiting: int) -> ProcessPool:
        """See :class:`PoolSuite`."""
        return ProcessPool(size=size, max_waiting=max_waiting, kill_grace=60.0)

    def lose_worker(self) -> None:
        """See :class:`LossBehaviour`."""
        (pid,) = self.pool.worker_pids()
        os.kill(pid, signal.SIGKILL)


class ReactorPoolTests(
    AnswerBehaviour,
    QueueBehaviour,
    ProgressBehaviour,
    DeadlineBehaviour,
    TurnBehaviour,
    LateBehaviour,
    CoroutineBehaviour,
    PermitBehaviour,
    TestCase,
):
    """Coroutines on the reactor."""

    reactor = reactor
    handler_kind = "coroutine"

    def make_plan(self, *, size: int, max_waiting: int) -> ReactorPool:
        """See :class:`PoolSuite`."""
        return ReactorPool(size=size, max_waiting=max_waiting)


class InlineTests(AnswerBehaviour, StreamBehaviour, TestCase):
    """Jobs that have run when they are submitted."""

    reactor = reactor

    def make_plan(self, *, size: int, max_waiting: int) -> InlinePool:
        """See :class:`PoolSuite`."""
        return InlinePool(kind="process", size=size, max_waiting=max_waiting)


class InlineCoroutineTests(
    AnswerBehaviour,
    QueueBehaviour,
    ProgressBehaviour,
    DeadlineBehaviour,
    CoroutineBehaviour,
    PermitBehaviour,
    TestCase,
):
    """Coroutines that have run, until they first wait, when they are submitted."""

    reactor = reactor
    handler_kind = "coroutine"

    def make_plan(self, *, size: int, max_waiting: int) -> InlinePool:
        """See :class:`PoolSuite`."""
        return InlinePool(kind="reactor", size=size, max_waiting=max_waiting)


class _Manual(PoolSuite):
    """Runs the jobs of a pool that the test runs, when their gates are open."""

    def turn(self) -> None:
        """See :class:`PoolSuite`."""
        super().turn()
        pool = self.pool
        while pool.waiting and pool.has_place:
            pool.begin()
        for run in pool.runs:
            if self._can_run(run.job):
                run.finish()

    def _can_run(self, job: Any) -> bool:
        """Whether its handler would come back: this thread cannot wait at a gate."""
        if job.head.route == "/hold" and job.canceled:
            return True
        gate = parse_qs(job.head.query.decode())["gate"][0]
        return job.head.route not in ("/hold", "/hold_on") or (self.folder / gate).exists()

    async def begun(self, sent: Sent) -> None:
        """See :class:`PoolSuite`."""
        await self.until(lambda: sent.job.started is not None, f"{sent} has its place")


class ManualTests(
    AnswerBehaviour,
    QueueBehaviour,
    DeadlineBehaviour,
    TurnBehaviour,
    StreamBehaviour,
    _Manual,
    TestCase,
):
    """Jobs that run when the test says so."""

    reactor = reactor

    def make_plan(self, *, size: int, max_waiting: int) -> ManualPool:
        """See :class:`PoolSuite`."""
        return ManualPool(size=size, max_waiting=max_waiting)


class ManualCoroutineTests(
    AnswerBehaviour,
    QueueBehaviour,
    ProgressBehaviour,
    DeadlineBehaviour,
    TurnBehaviour,
    CoroutineBehaviour,
    PermitBehaviour,
    _Manual,
    TestCase,
):
    """Coroutines that are started when the test says so."""

    reactor = reactor
    handler_kind = "coroutine"

    def make_plan(self, *, size: int, max_waiting: int) -> ManualPool:
        """See :class:`PoolSuite`."""
        return ManualPool(kind="reactor", size=size, max_waiting=max_waiting)

    def _can_run(self, job: Any) -> bool:
        return True
