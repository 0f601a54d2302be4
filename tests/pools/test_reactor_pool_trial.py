"""What is particular to the pool of coroutines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from deferpost import Call, ReactorPool
from deferpost.errors import HandlerFailed, ShuttingDown
from deferpost.handlers.running import Handlers
from deferpost.interfaces import IInspectable
from deferpost.model import Reason, Route, Rung, State
from deferpost.testing.suite import PoolSuite

#: Seconds that a pool gets to stop.
PATIENCE = 60.0


class Noting(Mapping[str, int]):
    """A mapping that notes which threads read it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.read_on: set[int] = set()

    def __getitem__(self, key: str) -> int:
        return int(key)

    def __iter__(self) -> Iterator[str]:
        self.read_on.add(threading.get_ident())
        return map(str, range(self._size))

    def __len__(self) -> int:
        return self._size


class ReactorPoolTests(PoolSuite, TestCase):
    """Coroutines on the reactor."""

    reactor = reactor
    handler_kind = "coroutine"

    def make_plan(self, *, size: int, max_waiting: int) -> ReactorPool:
        """See :class:`PoolSuite`."""
        return ReactorPool(size=size, max_waiting=max_waiting)

    def _start(self, *, size: int = 1, **handlers: Any) -> None:
        """Start a pool with handlers of the test's own."""
        routes = [
            Route(path=f"/{name}", handler=handler, pool="tested")
            for name, handler in handlers.items()
        ]
        self.start_pool(size=size, source=Handlers(routes))

    async def test_on_the_reactor_thread(self) -> None:
        """A coroutine runs on the reactor thread, before and after it has waited."""
        threads: list[int] = []
        waited: Deferred[None] = Deferred()

        async def handler(call: Call) -> str:
            threads.append(threading.get_ident())
            await waited
            threads.append(threading.get_ident())
            return "done"

        self._start(handler=handler)
        sent = self.submit("handler")
        self.assertEqual(len(threads), 1)
        waited.callback(None)
        self.assertEqual(await self.content_of(sent), b"done")
        self.assertEqual(set(threads), {threading.get_ident()})

    async def test_encoded_elsewhere(self) -> None:
        """What a coroutine returns is made into JSON on another thread than the reactor's."""
        document = Noting(1000)

        async def handler(call: Call) -> Noting:
            return document

        self._start(handler=handler)
        self.assertIn(b'"999":999', await self.content_of(self.submit("handler")))
        self.assertTrue(document.read_on)
        self.assertNotIn(threading.get_ident(), document.read_on)

    async def test_not_json(self) -> None:
        """What cannot be encoded is the handler's failure."""

        async def handler(call: Call) -> list[object]:
            return [object()]

        self._start(handler=handler)
        error = await self.error_of(self.submit("handler"), HandlerFailed)
        self.assertIn("is not JSON", str(error))

    async def test_no_streams(self) -> None:
        """A coroutine that returns a generator fails, and the generator is closed."""
        closed: list[bool] = []

        def chunks() -> Iterator[bytes]:
            try:
                yield b"never"
            finally:
                closed.append(True)

        async def handler(call: Call) -> Iterator[bytes]:
            return chunks()

        self._start(handler=handler)
        sent = self.submit("handler")
        error = await self.error_of(sent, HandlerFailed)
        self.assertIn("an async handler returned an iterator", str(error))
        await self.end_of(sent, State.FAILED, Reason.ERROR)
        self.assertEqual(closed, [True])

    async def test_cancel_reaches_what_is_awaited(self) -> None:
        """A cancel cancels the Deferred for which the coroutine waits."""
        canceled: list[object] = []
        waited: Deferred[None] = Deferred(canceled.append)
        raised: list[type[BaseException]] = []

        async def handler(call: Call) -> None:
            try:
                await waited
            except CancelledError as error:
                raised.append(type(error))
                raise

        self._start(handler=handler)
        sent = self.submit("handler")
        sent.job.cancel(Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual((canceled, raised), ([waited], [CancelledError]))

    async def test_failure_after_a_cancel(self) -> None:
        """What a coroutine raises when it was told to stop is logged, and changes nothing."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        async def handler(call: Call) -> None:
            try:
                await Deferred()
            finally:
                raise LookupError("on the way out")

        self._start(handler=handler)
        sent = self.submit("handler")
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        self.assertTrue(any("LookupError: on the way out" in line for line in lines))

    async def test_left_behind(self) -> None:
        """A coroutine that goes on when it was told to stop is left behind."""
        self.left_behind = 1
        self.start_pool(size=1)
        sent = self.submit("hold_on")
        self.assertEqual(await self.stop_pool(patience=0.05), 1)
        await self.error_of(sent, ShuttingDown)
        self.assertEqual((sent.state, sent.ends), (State.CANCELING, []))
        self.open_gate()
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)

    async def test_stopped_by_its_first_steps(self) -> None:
        """A coroutine whose own first steps get it canceled is canceled when it waits."""
        canceled: list[object] = []
        waited: Deferred[None] = Deferred(canceled.append)

        async def handler(call: Call) -> None:
            (run,) = self.pool._running.values()
            run.job.cancel(Reason.CLIENT_DISCONNECTED)
            await waited

        self._start(handler=handler)
        sent = self.submit("handler")
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual((canceled, sent.job.rung), ([waited], Rung.TOLD))

    async def test_pool_stopped_by_first_steps(self) -> None:
        """A coroutine whose own first steps stop the pool is canceled, and not left behind."""
        stopped: list[int] = []

        async def handler(call: Call) -> None:
            self._stopping = stopped
            self.pool.stop(PATIENCE).addCallback(stopped.append)
            self.assertEqual(stopped, [])
            await Deferred()

        self._start(handler=handler)
        sent = self.submit("handler")
        await self.error_of(sent, ShuttingDown)
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        self.assertEqual(stopped, [0])

    async def test_canceled_by_first_steps_that_end(self) -> None:
        """What a coroutine returns without ever waiting is let go if it was canceled by then."""

        async def handler(call: Call) -> bytes:
            (run,) = self.pool._running.values()
            run.job.cancel(Reason.REQUESTED)
            return b"late"

        self._start(handler=handler)
        sent = self.submit("handler")
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_workers(self) -> None:
        """Each coroutine that runs is shown, with its job; they cannot be restarted."""
        verifyObject(IInspectable, self.start_pool(size=2))
        sent = self.submit("hold")
        await self.running(1)
        (worker,) = self.pool.workers()
        self.assertEqual((worker.job, worker.job_id), (sent.job.key, sent.job.head.id))
        self.assertEqual((worker.stage, worker.route, worker.canceling), ("busy", "/hold", False))
        self.assertFalse(self.pool.restart(worker.name))
        self.open_gate()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.pool.workers(), [])

    async def test_stack(self) -> None:
        """The stack of a coroutine is what awaits what, from the handler on."""
        waited: Deferred[None] = Deferred()

        async def inner() -> None:
            await waited

        async def outer(call: Call) -> None:
            await inner()

        self._start(outer=outer)
        sent = self.submit("outer")
        stack = self.successResultOf(self.pool.stack(sent.job.key))
        self.assertRegex(
            stack,
            r'(?s)^  File ".*test_reactor_pool_trial.py", line \d+, in outer\n'
            r"    await inner\(\)\n.*in inner\n    await waited\n",
        )
        self.assertNotIn("deferpost/pools", stack)
        waited.callback(None)
        await self.end_of(sent, State.SUCCEEDED)
        self.failureResultOf(self.pool.stack(sent.job.key), LookupError)

    async def test_threads_end(self) -> None:
        """No thread is left of a pool that has stopped."""
        self.start_pool(size=3)
        for sent in [self.submit("describe", word="w") for _ in range(20)]:
            await self.answer_of(sent)
        self.assertTrue(self._threads())
        await self.stop_pool()
        await self.until(lambda: not self._threads(), "the threads end")

    def _threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "deferpost-tested" in thread.name]
