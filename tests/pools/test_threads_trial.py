"""What is particular to the pool of threads."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from deferpost import Call, ThreadPool
from deferpost.errors import DeadlineExceeded, HandlerFailed
from deferpost.handlers.running import Handlers
from deferpost.model import Reason, Route, State
from deferpost.pools.outbox import DRAIN_MOST
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.suite import PoolSuite, Reader

#: Seconds that the reactor's thread waits in a test for other threads.
PATIENCE = 60.0


class CountingReactor:
    """The real reactor, which counts how often threads wake it."""

    def __init__(self) -> None:
        self.wake_ups = 0

    def callFromThread(self, *args: Any, **options: Any) -> None:
        """Count, and pass on."""
        self.wake_ups += 1
        reactor.callFromThread(*args, **options)  # type: ignore[attr-defined]  # the module stands for it

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class HeldClock:
    """A monotonic clock that holds up a thread which asks for the time, where a test wants it.

    A thread asks when it has taken a job, before it says so.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._home = threading.get_ident()
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> float:
        """The time."""
        if threading.get_ident() != self._home:
            self.asked.set()
            self.go_on.wait(PATIENCE)
        return self._seconds()


class ThreadPoolTests(PoolSuite, TestCase):
    """Threads."""

    reactor = reactor

    def make_plan(self, *, size: int, max_waiting: int) -> ThreadPool:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting)

    def _start(self, *, size: int = 1, reactor: Any = None, **handlers: Any) -> None:
        """Start a pool with handlers of the test's own."""
        routes = [
            Route(path=f"/{name}", handler=handler, pool="tested")
            for name, handler in handlers.items()
        ]
        self.start_pool(size=size, max_waiting=2000, reactor=reactor, source=Handlers(routes))

    async def test_one_wake_up_for_many(self) -> None:
        """What threads have done while the reactor was at something else costs one wake-up."""
        counting = CountingReactor()
        held, done = threading.Event(), threading.Event()
        self._start(
            reactor=counting,
            hold=lambda call: held.wait(PATIENCE) and None,
            quick=lambda call: call.id,
            last=lambda call: done.set(),
        )
        jobs = [self.submit("hold"), *(self.submit("quick") for _ in range(100))]
        jobs.append(self.submit("last"))
        await self.running(1)
        before = counting.wake_ups
        held.set()
        self.assertTrue(done.wait(PATIENCE))  # meanwhile the reactor's thread is here
        self.assertEqual(counting.wake_ups - before, 1)
        for sent in jobs:
            await self.answer_of(sent)

    async def test_other_events_in_between(self) -> None:
        """Many outcomes at once do not keep the reactor from its other events."""
        held, done = threading.Event(), threading.Event()
        self._start(
            hold=lambda call: held.wait(PATIENCE) and None,
            quick=lambda call: None,
            last=lambda call: done.set(),
        )
        jobs = [self.submit("hold"), *(self.submit("quick") for _ in range(4 * DRAIN_MOST))]
        jobs.append(self.submit("last"))
        await self.running(1)
        held.set()
        self.assertTrue(done.wait(PATIENCE))
        answered: list[int] = []

        def look() -> None:
            answered.append(sum(bool(sent.outcomes) for sent in jobs))
            if answered[-1] < len(jobs):
                reactor.callLater(0, look)

        look()
        await self.until(lambda: answered[-1] == len(jobs), "all are answered")
        steps = [after - before for before, after in pairwise(answered)]
        self.assertLessEqual(max(steps), 2 * DRAIN_MOST)

    async def test_as_many_as_it_says(self) -> None:
        """As many jobs run at once as the pool has threads, and no more."""
        barrier = threading.Barrier(3)
        running: list[int] = []
        most: list[int] = []

        def meet(call: Call) -> None:
            running.append(0)
            most.append(len(running))
            barrier.wait(PATIENCE)  # three have to be here at once
            running.pop()

        self._start(size=3, meet=meet)
        jobs = [self.submit("meet") for _ in range(30)]
        for sent in jobs:
            await self.answer_of(sent)
        self.assertEqual(max(most), 3)

    async def test_class_is_built_once_per_thread(self) -> None:
        """A class is built by each thread that runs it, once, and never used by another."""
        barrier = threading.Barrier(3)
        built: list[int] = []

        class Handler:
            def __init__(self) -> None:
                self.thread = threading.get_ident()
                built.append(self.thread)

            def __call__(self, call: Call) -> bool:
                barrier.wait(PATIENCE)
                return self.thread == threading.get_ident()

        self._start(size=3, handler=Handler)
        jobs = [self.submit("handler") for _ in range(30)]
        for sent in jobs:
            self.assertEqual(await self.content_of(sent), b"true")
        self.assertEqual((len(built), len(set(built))), (3, 3))

    async def test_nothing_stays_of_canceled_jobs(self) -> None:
        """Jobs that were canceled in the queue are forgotten, and those behind them run."""

        class Body(io.BytesIO):
            pass

        self.start_pool(size=1, max_waiting=2000)
        first = self.submit("hold")
        await self.running(1)
        bodies = [Body(b"x") for _ in range(1000)]
        for sent in [self.submit("echo", body) for body in bodies]:
            sent.job.cancel(Reason.REQUESTED)
            self.judge_end(sent)
        self.assertEqual(self.pool.status().waiting, 0)
        references = [weakref.ref(body) for body in bodies]
        del bodies, sent, self._sent[1:]
        gc.collect()
        self.assertEqual([body for body in references if body() is not None], [])
        following = [self.submit("hold") for _ in range(10)]
        self.open_gate()
        for sent in [first, *following]:
            await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.lines("started"), [sent.job.head.id for sent in (first, *following)])

    async def test_system_exit(self) -> None:
        """A handler that wants to end the process fails, and ends nothing."""

        def leave(call: Call) -> None:
            raise SystemExit(3)

        self._start(leave=leave, quick=lambda call: b"well")
        error = await self.error_of(self.submit("leave"), HandlerFailed)
        self.assertEqual(str(error), "SystemExit: 3")
        self.assertEqual(await self.content_of(self.submit("quick")), b"well")

    async def test_stuck_thread(self) -> None:
        """A handler that does not return holds its place, and is left behind by a stop."""
        self.left_behind = 1
        self.start_pool(size=2, max_waiting=0)
        stuck, free = self.submit("hold_on"), self.submit("hold")
        await self.begun(stuck)
        await self.running(2)
        stuck.job.cancel(Reason.REQUESTED)
        free.job.cancel(Reason.REQUESTED)
        await self.end_of(free, State.CANCELED, Reason.REQUESTED)
        status = self.pool.status()
        self.assertEqual((status.running, status.stuck), (1, 1))
        self.assertEqual(await self.stop_pool(patience=0.05), 1)
        self.assertEqual((stuck.state, stuck.ends), (State.CANCELING, []))
        self.open_gate()
        await self.end_of(stuck, State.CANCELED, Reason.REQUESTED)
        await self.until(lambda: not self._threads(), "the threads end after all")

    async def test_threads_end(self) -> None:
        """No thread is left of a pool that has stopped."""
        self.start_pool(size=3)
        for sent in [self.submit("echo") for _ in range(20)]:
            await self.answer_of(sent)
        self.assertTrue(self._threads())
        await self.stop_pool()
        self.assertEqual(self._threads(), [])

    def _threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "deferpost-tested" in thread.name]

    async def test_stop_as_a_thread_takes_a_job(self) -> None:
        """A job that a thread has just taken is canceled by a stop like any other."""
        self.now = clock = HeldClock(time.monotonic)
        self.start_pool(size=1)
        sent = self.submit("hold")
        await self.until(clock.asked.is_set, "a thread has taken the job")
        stopped: list[int] = []
        self._stopping = stopped
        self.pool.stop(PATIENCE).addCallback(stopped.append)
        clock.go_on.set()
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        await self.until(lambda: stopped, "the pool has stopped")

    async def test_cancel_as_a_thread_takes_a_job(self) -> None:
        """A job that a thread has just taken is canceled as one that runs."""
        self.now = clock = HeldClock(time.monotonic)
        self.start_pool(size=1)
        sent = self.submit("hold")
        await self.until(clock.asked.is_set, "a thread has taken the job")
        sent.job.cancel(Reason.REQUESTED)
        self.assertIs(sent.state, State.CANCELING)
        clock.go_on.set()
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_deadline_as_a_thread_takes_a_job(self) -> None:
        """A job is ended when its time is up, also if the pool looked as a thread took it."""
        self._clocked = ClockedReactor(reactor)
        self.now = clock = HeldClock(self._clocked.seconds)
        self.start_pool(reactor=self._clocked)
        sent = self.submit("hold", timeout=10.0)
        await self.until(clock.asked.is_set, "a thread has taken the job")
        self.pass_time(10.0)
        clock.go_on.set()
        await self.running(1)
        self.pass_time(100.0)
        await self.error_of(sent, DeadlineExceeded)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)

    async def test_reader_that_fails(self) -> None:
        """A reader with a defect does not keep other jobs from being answered."""

        class Defective(Reader):
            def chunk(self, data: bytes) -> None:
                raise RuntimeError("a defect of the reader")

        self.start_pool(size=2)
        sent = self.submit("count", chunks=3, size=10, reader=Defective)
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(await self.content_of(self.submit("echo", b"other")), b"other")
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
