"""Streams and progress from real threads and processes: windows, credit, floods, departures."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from deferpost import ProcessPool, ThreadPool
from deferpost.handlers.running import Handlers
from deferpost.model import Progress, Reason, Route, Rung, State
from deferpost.testing.handlers import HANDLERS
from deferpost.testing.suite import PoolSuite, Reader, Sent
from tests.pools import streaming_handlers


class _Streaming(PoolSuite):
    """What is true of threads and of processes."""

    reactor = reactor
    #: How often the generator of a flood is advanced for a reader that stops after one chunk.
    advances = 0

    def start(self) -> None:
        """Start a pool of one with the handlers of these tests beside those of the suite."""
        named = {**HANDLERS, **streaming_handlers.HANDLERS}
        routes = [Route(path=f"/{name}", handler=named[name], pool="tested") for name in named]
        self.start_pool(size=1, source=Handlers(routes))

    def done(self, sent: Sent) -> float:
        """How much the handler says that it has done."""
        progress = sent.job.progress
        return 0.0 if progress is None else progress.done

    def its_reader(self, sent: Sent) -> Reader:
        """The reader of a stream."""
        assert sent.reader is not None
        return sent.reader

    def read(self, sent: Sent) -> bytes:
        """All that it was given."""
        return b"".join(self.its_reader(sent).chunks)

    async def flooded(self, handler: str = "flood") -> Sent:
        """A stream whose reader has enough, and whose handler waits."""
        sent = self.submit(handler, reader=lambda source: Reader(source, pause_at=1))
        await self.until(lambda: self.done(sent) == self.advances, "the window is used up")
        return sent

    async def test_slow_reader(self) -> None:
        """A reader that has enough holds the handler back, of which the news still come."""
        self.start()
        sent = await self.flooded("flood_and_tell")
        self.open_gate()
        await self.until(lambda: sent.job.progress and sent.job.progress.message, "more news")
        self.assertEqual(sent.job.progress, Progress(float(self.advances), None, "from beside"))
        self.its_reader(sent).resume()
        await self.until(lambda: self.done(sent) > 3 * self.advances, "it goes on")
        self.its_reader(sent).pause()
        had = len(self.its_reader(sent).chunks)
        self.assertGreater(had, 1)
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual(len(self.its_reader(sent).chunks), had)

    async def test_reader_that_departs(self) -> None:
        """A handler that waits for its reader ends cleanly when that one leaves."""
        self.start()
        sent = await self.flooded()
        sent.outcomes[0].body.abandon()
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertIn(sent.job.rung, (Rung.TOLD, Rung.TERMINATED))
        self.assertEqual(self.lines("closed"), [""])
        following = self.submit("echo", b"next")
        await self.end_of(following, State.SUCCEEDED)

    async def test_reader_that_departs_from_a_job_that_goes_on(self) -> None:
        """A stream that is to go on unread takes no notice of the reader that has left."""
        self.start()
        sent = await self.flooded()
        sent.outcomes[0].body.discard()
        await self.until(lambda: self.done(sent) > 10 * self.advances, "it goes on")
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_time_limit_of_a_slow_reader(self) -> None:
        """A handler that waits for its reader is ended when its time is up."""
        self.start()
        await self.end_of(self.submit("echo", b"warm"), State.SUCCEEDED)
        sent = self.submit("flood", timeout=0.2, reader=lambda source: Reader(source, pause_at=1))
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)
        self.assertEqual(self.lines("closed"), [""])

    async def test_crumbs(self) -> None:
        """Very many tiny chunks arrive whole and in order, not each by itself."""
        self.start()
        count = 100_000
        sent = self.submit("crumbs", count=count, reader=lambda source: Reader(source, apart=False))
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.read(sent), b"".join(b"%d\n" % n for n in range(count)))
        self.assertLess(len(self.its_reader(sent).chunks), count / 2)

    async def test_streams_one_after_the_other(self) -> None:
        """Credit for one stream is not spent on the next."""
        self.start()
        for _ in range(3):
            sent = self.submit("crumbs", count=10_000, reader=Reader)
            await self.end_of(sent, State.SUCCEEDED)
            sent = await self.flooded()
            sent.outcomes[0].body.abandon()
            await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
            (self.folder / "closed").unlink()

    async def test_chunks_that_nothing_follows(self) -> None:
        """Chunks that came quickly arrive though the handler makes no more for now."""
        self.start()
        sent = self.submit("two_and_wait", reader=Reader)
        await self.until(lambda: sent.reader and self.read(sent) == b"onetwo", "both")
        self.open_gate()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.read(sent), b"onetwothree")

    async def test_flood_of_progress(self) -> None:
        """Of very much progress the last is seen while the job still runs."""
        self.start()
        sent = self.submit("report_a_lot", count=100_000)
        await self.until(lambda: self.done(sent) == 100_000, "the last is there")
        self.assertFalse(sent.has_ended)
        self.assertEqual(sent.job.progress, Progress(100_000.0, None, "all"))
        self.open_gate()
        await self.end_of(sent, State.SUCCEEDED)


class ThreadStreamTests(_Streaming, TestCase):
    """Streams of a pool of threads."""

    # Four pieces are in the window, one was taken, and the handler waits with another.
    advances = 6

    def make_plan(self, *, size: int, max_waiting: int) -> Any:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting)


class ProcessStreamTests(_Streaming, TestCase):
    """Streams of a pool of processes."""

    # The same, but of a single piece that was taken the worker does not hear.
    advances = 5

    def make_plan(self, *, size: int, max_waiting: int) -> Any:
        """See :class:`PoolSuite`."""
        return ProcessPool(size=size, max_waiting=max_waiting, kill_grace=30.0)

    async def test_worker_that_is_lost_in_the_middle(self) -> None:
        """A reader hears at once that its worker is gone, also when it has enough for now."""
        self.start()
        sent = await self.flooded()
        (worker,) = self.pool.workers()
        os.kill(worker.pid, signal.SIGKILL)
        await self.end_of(sent, State.FAILED, Reason.WORKER_LOST)
        self.assertIsNotNone(self.its_reader(sent).error)
