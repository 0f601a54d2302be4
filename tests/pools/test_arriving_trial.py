"""Arriving bodies in real threads and processes: descriptors, memory, lost workers."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from deferpost import ProcessPool, ThreadPool
from deferpost.errors import BodyBroken, BodyTooLarge, HandlerFailed, StorageFailed, WorkerLost
from deferpost.handlers.running import Handlers
from deferpost.model import Reason, Route, State
from deferpost.pools.bodyframes import PipeReader
from deferpost.pools.pipebody import PipeBody
from deferpost.testing.handlers import HANDLERS
from deferpost.testing.suite import PoolSuite, Sent
from deferpost.testing.uploads import Upload
from tests.pools import arriving_handlers

#: Bytes of the body that is to go through without being kept.
HUGE = 200 * 1024 * 1024

#: Bytes that a process may need more for it.
MEMORY_MOST = 24 * 1024 * 1024

PIECE = bytes(range(256)) * 256


def descriptors() -> set[str]:
    """The descriptors that are open in this process."""
    return set(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class _Arriving(PoolSuite):
    """What is true of threads and of processes."""

    reactor = reactor

    def setUp(self) -> None:
        """See :class:`PoolSuite`; the log is kept."""
        super().setUp()
        self.log: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if str(event.get("log_namespace")).startswith("deferpost"):
                self.log.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def start(self, *, size: int = 1) -> None:
        """Start a pool with the handlers of these tests beside those of the suite."""
        named = {**HANDLERS, **arriving_handlers.HANDLERS}
        routes = [Route(path=f"/{name}", handler=named[name], pool="tested") for name in named]
        self.start_pool(size=size, source=Handlers(routes))

    def upload(self, handler: str, **args: Any) -> tuple[Upload, Sent]:
        """Submit a job whose body is still to be sent."""
        upload = Upload(reactor)
        return upload, self.submit(handler, upload.body, **args)

    async def quiet(self) -> None:
        """Judge that no handler was logged to have failed."""
        await self.content_of(self.submit("echo", b"next"))
        self.assertEqual([line for line in self.log if "Traceback" in line], [])

    async def test_huge_body(self) -> None:
        """A body of any size goes through with the same memory, here and there."""
        self.start()
        before = json.loads(await self.content_of(self.submit("count")))["peak"]
        grown = [resident()]

        def pieces() -> Iterator[bytes]:
            for turn in range(HUGE // len(PIECE)):
                if turn % 50 == 0:
                    grown.append(resident())
                yield bytes(bytearray(PIECE))  # each its own, as those of a connection are

        upload, sent = self.upload("count")
        began = time.monotonic()
        upload.send_all(pieces())
        found = json.loads(await self.content_of(sent))
        seconds = time.monotonic() - began
        self.assertEqual(found["size"], HUGE)
        self.assertLess(max(grown) - grown[0], MEMORY_MOST)
        self.assertLess(found["peak"] - before, MEMORY_MOST)
        self.assertGreater(HUGE / seconds, 20e6, f"{HUGE / seconds / 1e6:.0f} MB/s")

    async def test_no_descriptor_is_left(self) -> None:
        """However jobs end, no descriptor of theirs is left, here and there."""
        self.start()
        await self.content_of(self.submit("echo"))  # by now there are those of the pool
        before, theirs = descriptors(), await self.content_of(self.submit("descriptors"))
        for turn in range(60):
            handler = ("measure", "empty", "interrupted", "closes")[turn % 4]
            upload, sent = self.upload(handler, gate="gate-open")
            waiting, removed = self.upload("measure")
            waiting.send(b"x" * 100)
            removed.job.cancel(Reason.REQUESTED)
            self.open_gate("gate-open")
            upload.send(PIECE)
            upload.leave() if handler == "interrupted" else upload.complete()
            await self.until(lambda sent=sent: sent.has_ended, "it has ended")  # type: ignore[misc]  # bound at once
        self.assertEqual(await self.content_of(self.submit("descriptors")), theirs)
        await self.until(lambda: descriptors() == before, "all are closed")
        await self.quiet()

    async def test_handler_closes_its_body(self) -> None:
        """A handler that closes its body has its client let go, while it runs on."""
        self.start()
        upload, sent = self.upload("closes")
        upload.send_all(itertools.repeat(PIECE, 200))
        await self.until(lambda: upload.is_done, "the client has sent all")
        self.assertTrue(upload.body.closed)
        self.assertFalse(sent.has_ended)
        self.open_gate()
        await self.end_of(sent, State.SUCCEEDED)

    async def test_thread_of_the_handlers_own(self) -> None:
        """A thread that a handler has left in a read holds up neither it nor the next."""
        self.start()
        for turn in range(1, 4):
            upload, sent = self.upload("leaves_a_reader")
            upload.send(b"the beginning")
            self.assertEqual(await self.content_of(sent), b"answered")
            await self.end_of(sent, State.SUCCEEDED)
            await self.until(lambda turn=turn: len(self.lines("reader")) == turn)  # type: ignore[misc]  # bound at once
        await self.quiet()

    async def test_broken_and_answered(self) -> None:
        """A handler may answer although its body is broken, and is told why it is."""
        self.start()
        upload, sent = self.upload("swallows")
        upload.send(b"too much")
        upload.body.broken(BodyTooLarge(5))
        self.assertIn(b"larger than the 5 bytes", await self.content_of(sent))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_broken_is_no_failure_of_the_handler(self) -> None:
        """What a broken body raises is not the handler's failure; a defect beside it is."""
        self.start()
        for handler in ("interrupted", "wrapped"):
            upload, sent = self.upload(handler)
            upload.leave()
            await self.error_of(sent, BodyBroken)
        await self.quiet()
        upload, sent = self.upload("cleans_up_badly")
        upload.leave()
        error = await self.error_of(sent, HandlerFailed)
        self.assertIn("a defect of the handler's own", error.traceback)
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_canceled_promptly(self) -> None:
        """A job that waits for its client ends as soon as it is canceled."""
        self.start()
        upload, sent = self.upload("interrupted")
        await self.begun(sent)
        began = time.monotonic()
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertLess(time.monotonic() - began, 5.0)
        self.assertTrue(upload.body.closed)
        await self.quiet()


class ThreadTests(_Arriving, TestCase):
    """Threads."""

    def make_plan(self, *, size: int, max_waiting: int) -> ThreadPool:
        """See :class:`PoolSuite`."""
        return ThreadPool(size=size, max_waiting=max_waiting)

    async def test_no_descriptor_at_all(self) -> None:
        """A body for a thread needs no descriptor."""
        self.start(size=3)
        await self.content_of(self.submit("echo"))
        before = descriptors()
        uploads = [self.upload("measure_later") for _ in range(10)]
        for upload, _ in uploads:
            upload.send(PIECE)
        await self.running(3)
        self.assertEqual(descriptors(), before)
        for upload, _ in uploads:
            upload.complete()


class ProcessTests(_Arriving, TestCase):
    """Worker processes."""

    def make_plan(self, *, size: int, max_waiting: int) -> ProcessPool:
        """See :class:`PoolSuite`."""
        return ProcessPool(size=size, max_waiting=max_waiting, kill_grace=60.0)

    async def test_descriptors_of_those_that_run(self) -> None:
        """Jobs that wait have no descriptor, and those that run have one each."""
        self.start(size=2)
        await self.until(lambda: self.pool.status().ready)
        uploads = [self.upload("interrupted") for _ in range(8)]
        for upload, _ in uploads:
            upload.send(PIECE)
        await self.until(lambda: len(self.lines("started")) == 2, "two run")
        before = descriptors()
        for _, sent in uploads[2:]:
            sent.job.cancel(Reason.REQUESTED)
        self.assertEqual(descriptors(), before)
        for upload, _ in uploads[:2]:
            upload.complete()
        await self.until(lambda: all(sent.has_ended for _, sent in uploads))
        await self.until(lambda: len(before) - len(descriptors()) == 2, "both are closed")

    async def test_lost_in_the_middle(self) -> None:
        """A worker that ends in the middle of a body is replaced, and the client let go."""
        self.start()
        await self.content_of(self.submit("echo"))
        before = len(descriptors())
        upload, sent = self.upload("dies")
        upload.send_all(itertools.repeat(PIECE, 200))
        await self.error_of(sent, WorkerLost)
        await self.end_of(sent, State.FAILED, Reason.WORKER_LOST)
        await self.until(lambda: upload.is_done, "the client has sent all")
        following, measured = self.upload("measure")
        following.send_all([b"another body"])
        self.assertEqual(json.loads(await self.content_of(measured))["size"], 12)
        await self.until(lambda: len(descriptors()) == before, "all are closed")

    async def test_killed_in_the_middle(self) -> None:
        """A worker that is killed while it waits for its client is lost like any other."""
        self.start()
        upload, sent = self.upload("interrupted")
        upload.send(b"the beginning")
        await self.begun(sent)
        (pid,) = self.pool.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await self.error_of(sent, WorkerLost)
        await self.end_of(sent, State.FAILED, Reason.WORKER_LOST)
        upload.send(b"the rest")
        self.assertTrue(upload.body.closed)
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_no_more_descriptors(self) -> None:
        """Where there is no descriptor for a body, its job fails, and others do not."""
        self.start()
        await self.content_of(self.submit("echo"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            upload, sent = self.upload("measure")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await self.error_of(sent, StorageFailed)
        await self.end_of(sent, State.FAILED, Reason.ERROR)
        upload.send(PIECE)
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")


class PipeTests(TestCase):
    """The reactor's end of a pipe."""

    def _pipe(self) -> tuple[Upload, PipeBody, PipeReader]:
        upload = Upload(reactor)
        pipe = PipeBody(reactor, upload.body)
        self.addCleanup(pipe.close)
        reader = PipeReader(os.dup(pipe.reading_end))
        self.addCleanup(reader.close)
        pipe.sent()
        pipe.begin()
        return upload, pipe, reader

    def test_what_there_is(self) -> None:
        """What fits into the pipe is written at once."""
        upload, _, reader = self._pipe()
        upload.send(b"one")
        upload.send(b"two")
        self.assertEqual((reader.read(9), reader.read(9)), (b"one", b"two"))
        upload.complete()
        self.assertEqual(reader.read(9), b"")

    def test_nobody_reads(self) -> None:
        """When its other end is closed the rest is dropped, at once or when the reactor hears."""
        for full in (False, True):
            upload, pipe, reader = self._pipe()
            while full and not upload.paused:
                upload.send(PIECE)
            reader.close()
            if full:
                pipe.connectionLost(Failure(ConnectionDone()))
            else:
                upload.send(PIECE)
            self.assertTrue(upload.body.closed)
            self.assertFalse(upload.paused)
            pipe.close()

    def test_reader_that_comes_late(self) -> None:
        """A broken body is told behind what the pipe holds."""
        upload, pipe, reader = self._pipe()
        while not upload.paused:
            upload.send(PIECE)
        upload.leave()
        read: list[bytes | None] = []

        def read_on() -> None:
            while True:
                read.append(reader.read(100_000))
                pipe.doWrite()

        self.assertRaises(BodyBroken, read_on)
        self.assertEqual(sum(map(len, filter(None, read))), upload.sent)
