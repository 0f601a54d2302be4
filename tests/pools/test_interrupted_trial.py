"""Handlers in threads that go on after they were told to stop: interrupted, and spoken of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from deferpost import Call, Interrupted, ThreadPool
from deferpost.errors import DeadlineExceeded
from deferpost.handlers.running import Handlers
from deferpost.interfaces import IInspectable
from deferpost.model import PoolStatus, Reason, Reply, Route, Rung, State
from deferpost.pools.stragglers import HANG_SECONDS
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.suite import PoolSuite, Sent
from deferpost.testing.uploads import Upload

#: Seconds between being told and being interrupted.
GRACE = 3.0

#: Seconds that a thread waits for a test.
PATIENCE = 60.0


class InterruptedTests(PoolSuite, TestCase):
    """Threads, and a clock that the test moves."""

    reactor = reactor

    def setUp(self) -> None:
        """Collect what is logged, too."""
        super().setUp()
        self.logged: list[tuple[LogLevel, str]] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if str(event.get("log_namespace")).startswith("deferpost"):
                self.logged.append((event["log_level"], formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.begun_ones: list[str] = []
        self.let_go = threading.Event()
        self.addCleanup(self.let_go.set)

    def make_plan(self, *, size: int, max_waiting: int) -> ThreadPool:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting, interrupt_grace=GRACE)

    def start(self, *, size: int = 1, interrupt: bool = True, **handlers: Any) -> None:
        """Start a pool with handlers of the test's own."""
        self._clocked = ClockedReactor(reactor)
        self.now = self._clocked.seconds
        routes = [
            Route(path=f"/{name}", handler=handler, pool="tested", interrupt=interrupt)
            for name, handler in handlers.items()
        ]
        self.start_pool(size=size, source=Handlers(routes), reactor=self._clocked)

    def stubborn(self, call: Call) -> None:
        """A handler that does not look whether it is to stop."""
        self.begun_ones.append(call.id)
        while not self.let_go.is_set():
            time.sleep(0.001)

    async def in_handler(self, *jobs: Sent) -> None:
        """Wait until handlers have begun, and the pool has heard of it."""
        for sent in jobs:
            await self.until(lambda id=sent.job.head.id: id in self.begun_ones, f"{sent} has begun")  # type: ignore[misc]

    def lines(self, *levels: LogLevel) -> list[str]:  # type: ignore[override]  # of the log here
        """What was logged at these levels."""
        return [line for level, line in self.logged if level in levels]

    async def test_interrupted(self) -> None:
        """A handler that ignores what it is told is interrupted after the grace, and has ended."""
        self.start(stubborn=self.stubborn, quick=lambda call: b"next")
        sent = self.submit("stubborn")
        await self.in_handler(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        self.pass_time(GRACE - 0.1)
        self.assertEqual((sent.state, sent.job.rung), (State.CANCELING, Rung.TOLD))
        self.pass_time(0.1)
        self.assertIs(sent.job.rung, Rung.INTERRUPTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertIs(sent.job.rung, Rung.INTERRUPTED)
        self.assertEqual(
            self.lines(LogLevel.info), [f"[{sent.job.head.id}] /stubborn is interrupted"]
        )
        self.assertEqual(await self.content_of(self.submit("quick")), b"next")
        self.assertEqual(self._clocked.getDelayedCalls(), [])  # type: ignore[union-attr]

    async def test_deadline(self) -> None:
        """A handler whose time is up is interrupted like one that nobody wants any more."""
        self.start(stubborn=self.stubborn)
        sent = self.submit("stubborn", timeout=10.0)
        await self.in_handler(sent)
        self.pass_time(10.0)
        await self.error_of(sent, DeadlineExceeded)
        self.pass_time(GRACE)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)
        self.assertIs(sent.job.rung, Rung.INTERRUPTED)

    async def test_again_and_again(self) -> None:
        """A handler that swallows interrupts gets another after each grace, until it ends."""
        swallowed: list[str] = []

        def swallow(call: Call) -> None:
            self.begun_ones.append(call.id)
            for _ in range(3):
                try:
                    self.stubborn(call)
                except Interrupted as error:
                    swallowed.append(type(error).__name__)
            self.stubborn(call)

        self.start(swallow=swallow)
        sent = self.submit("swallow")
        await self.in_handler(sent)
        sent.job.cancel(Reason.REQUESTED)
        for count in (1, 2, 3):
            self.pass_time(GRACE)
            await self.until(lambda count=count: len(swallowed) == count)  # type: ignore[misc]
        self.assertEqual(sent.ends, [])
        self.pass_time(GRACE)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        is_interrupted = [line for line in self.lines(LogLevel.info) if "interrupted" in line]
        self.assertEqual(is_interrupted, [f"[{sent.job.head.id}] /swallow is interrupted"])

    async def test_only_where_the_route_says_so(self) -> None:
        """A handler of another route is told, and never interrupted."""
        self.start(interrupt=False, stubborn=self.stubborn)
        sent = self.submit("stubborn")
        await self.in_handler(sent)
        sent.job.cancel(Reason.REQUESTED)
        self.pass_time(10 * GRACE)
        self.let_go.set()
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertIs(sent.job.rung, Rung.TOLD)

    async def test_in_time(self) -> None:
        """A handler that stops when it is told to is not interrupted."""

        def polite(call: Call) -> None:
            self.begun_ones.append(call.id)
            while True:
                call.check()
                time.sleep(0.001)

        self.start(polite=polite)
        sent = self.submit("polite")
        await self.in_handler(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertIs(sent.job.rung, Rung.TOLD)
        self.assertEqual(self.lines(LogLevel.info), [])

    async def test_stream(self) -> None:
        """A generator is interrupted in the step that goes on, and its ``finally`` runs."""
        cleaned: list[str] = []

        def chunks(call: Call) -> Iterator[bytes]:
            try:
                yield b"first"
                self.stubborn(call)
                yield b"never"
            finally:
                cleaned.append(call.id)

        def replied(call: Call) -> Reply:
            return Reply(chunks(call), content_type="text/plain")

        self.start(chunks=chunks, replied=replied)
        for name in ("chunks", "replied"):
            sent = self.submit(name)
            (await self.answer_of(sent)).body.resume()
            await self.in_handler(sent)
            sent.job.cancel(Reason.CLIENT_DISCONNECTED)
            self.pass_time(GRACE)
            await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
            self.assertIs(sent.job.rung, Rung.INTERRUPTED)
            self.assertEqual(cleaned.pop(), sent.job.head.id)

    async def test_before_the_first_chunk(self) -> None:
        """A generator that has not made anything yet is interrupted too."""

        def slow(call: Call) -> Iterator[bytes]:
            self.stubborn(call)
            yield b"never"

        self.start(slow=slow)
        sent = self.submit("slow")
        await self.in_handler(sent)
        sent.job.cancel(Reason.REQUESTED)
        self.pass_time(GRACE)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_reading_what_arrives(self) -> None:
        """A handler reads a body that arrives, may be interrupted, and holds no lock after it."""

        def read(call: Call) -> None:
            self.begun_ones.append(call.id)
            call.body.read(4)
            self.stubborn(call)

        def readall(call: Call) -> bytes:
            with call.body:
                return call.body.read()

        self.start(read=read, readall=readall)
        upload = Upload(reactor)
        sent = self.submit("read", upload.body)
        upload.send(b"some of it")
        await self.in_handler(sent)
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        self.pass_time(GRACE)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        upload = Upload(reactor)
        sent = self.submit("readall", upload.body)
        upload.send(b"all of it")
        upload.body.complete()
        self.assertEqual(await self.content_of(sent), b"all of it")

    async def test_stop_interrupts_sooner(self) -> None:
        """At the end of the service, interrupts come while there is still time for them."""
        self.start(size=2, stubborn=self.stubborn)
        jobs = [self.submit("stubborn"), self.submit("stubborn")]
        await self.in_handler(*jobs)
        jobs[0].job.cancel(Reason.SHUTDOWN)  # as the dispatcher does, before the pools are stopped
        stopped: list[int] = []
        self._stopping = stopped
        self.pool.stop(1.0).addCallback(stopped.append)
        self.pass_time(0.5)
        for sent in jobs:
            await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
            self.assertIs(sent.job.rung, Rung.INTERRUPTED)
        await self.until(lambda: stopped, "the pool has stopped")

    # Pools that hang.

    async def test_hung(self) -> None:
        """A pool all of whose threads go on after they were told to stop says so, and recovers."""
        self.start(interrupt=False, size=2, stubborn=self.stubborn, quick=lambda call: b"next")
        jobs = [self.submit("stubborn"), self.submit("stubborn")]
        await self.in_handler(*jobs)
        waiting = self.submit("quick")
        jobs[0].job.cancel(Reason.REQUESTED)
        self.pass_time(HANG_SECONDS)
        first, second = (sent.job.head.id for sent in jobs)
        goes_on = "goes on 10.0 s after it was told to stop (requested)"
        self.assertEqual(self.lines(LogLevel.warn), [f"[{first}] /stubborn {goes_on}"])
        self.assert_hung(False)
        jobs[1].job.cancel(Reason.REQUESTED)
        self.pass_time(HANG_SECONDS - 0.1)
        self.assert_hung(False)
        self.pass_time(0.1)
        self.assert_hung(True)
        self.assertEqual(self.lines(LogLevel.warn)[1:], [f"[{second}] /stubborn {goes_on}"])
        (error,) = self.lines(LogLevel.error)
        self.assertRegex(error, r"^pool tested hangs: each of its workers \(2\) has a job that ")
        self.pass_time(10 * HANG_SECONDS)  # it is said once
        self.assertEqual(len(self.lines(LogLevel.warn, LogLevel.error)), 3)
        self.let_go.set()
        self.assertEqual(await self.content_of(waiting), b"next")
        await self.until(lambda: all(sent.has_ended for sent in jobs))
        self.assert_hung(False)
        self.assertEqual(self.lines(LogLevel.info).count("pool tested works again"), 1)

    def assert_hung(self, expected: bool) -> None:
        """Judge what the pool says of itself."""
        status: PoolStatus = self.pool.status()
        self.assertEqual((status.hung, status.ready), (expected, not expected))

    async def test_left_behind(self) -> None:
        """What hangs when the pool has stopped is spoken of once more, and not interrupted."""
        self.left_behind = 1
        self.start(stubborn=self.stubborn)
        sent = self.submit("stubborn")
        await self.in_handler(sent)
        part_of = self.pool._slots[0]
        part_of.part = None  # as if it were in C code all the time
        stopped: list[int] = []
        self._stopping = stopped
        self.pool.stop(1.0).addCallback(stopped.append)
        self.pass_time(1.0)
        self.assertEqual(stopped, [1])
        self.assertEqual(self._clocked.getDelayedCalls(), [])  # type: ignore[union-attr]
        self.let_go.set()
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)

    # Looking into it.

    async def test_workers(self) -> None:
        """Threads are shown by name, with what each does and how much it has done."""
        self.start(size=2, stubborn=self.stubborn, quick=lambda call: b"next")
        verifyObject(IInspectable, self.pool)
        await self.content_of(self.submit("quick"))
        sent = self.submit("stubborn")
        await self.in_handler(sent)
        self.pass_time(2.0)
        by_stage = {worker.stage: worker for worker in self.pool.workers()}
        busy = by_stage["busy"]
        self.assertEqual((busy.job, busy.job_id), (sent.job.key, sent.job.head.id))
        self.assertEqual((busy.route, busy.run_seconds), ("/stubborn", 2.0))
        self.assertEqual((busy.canceling, busy.pid, busy.memory), (False, None, None))
        self.assertEqual(sent.job.worker, busy.name)
        self.assertEqual(sum(worker.jobs_done for worker in self.pool.workers()), 1)
        self.assertEqual(
            {worker.name for worker in self.pool.workers()} - {busy.name},
            {worker.name for worker in self.pool.workers() if worker.stage == "idle"},
        )
        sent.job.cancel(Reason.REQUESTED)
        self.assertTrue(any(worker.canceling for worker in self.pool.workers()))
        self.assertFalse(self.pool.restart(busy.name))
        self.let_go.set()

    async def test_stack(self) -> None:
        """The stack of a running job shows where its handler is, and nothing of the pool."""
        await self._judge_stack(interrupt=False)

    async def test_stack_of_what_may_be_interrupted(self) -> None:
        """So does that of one which may be interrupted."""
        await self._judge_stack(interrupt=True)

    async def _judge_stack(self, *, interrupt: bool) -> None:
        self.start(interrupt=interrupt, outer=self.outer)
        sent = self.submit("outer")
        await self.in_handler(sent)
        stack = self.successResultOf(self.pool.stack(sent.job.key))
        self.assertRegex(
            stack,
            r'(?s)^  File ".*test_interrupted_trial.py", line \d+, in outer\n'
            r".*in stubborn\n    .*\n$",
        )
        self.assertNotIn("deferpost/pools", stack)
        self.let_go.set()
        await self.end_of(sent, State.SUCCEEDED)
        self.failureResultOf(self.pool.stack(sent.job.key), LookupError)

    def outer(self, call: Call) -> None:
        """Calls what it wants to be seen in."""
        self.stubborn(call)
