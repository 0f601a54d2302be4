"""The behaviour suite: what every :class:`~deferpost.interfaces.IWorkerPool` does.

A pool of your own proves itself by it, under trial and under pytest with pytest-twisted::

    from twisted.internet import reactor
    from twisted.trial.unittest import TestCase

    from deferpost.testing.behaviour import PoolBehaviour


    class MyPoolTests(PoolBehaviour, TestCase):
        reactor = reactor

        def make_plan(self, *, size, max_waiting):
            return MyPool(size=size, max_waiting=max_waiting)

To be set are ``reactor`` and ``make_plan``, and where that is not enough ``turn``, ``begun``,
``patience`` and ``handler_kind``: see :class:`~deferpost.testing.suite.PoolSuite`.  A pool that
cannot do all of this takes the mixins that apply: one of coroutines has no streams, for example.
One whose handlers can read a body while it arrives takes :class:`ArrivingBehaviour`, too.
Under pytest, in a session with tests of pytest-twisted, take ``deferpost.testing.trialcases``, too.
"""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009, PT027

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from deferpost.errors import (
    BodyBroken,
    BodyTooLarge,
    DeadlineExceeded,
    HandlerFailed,
    HTTPError,
    PoolFull,
    ShuttingDown,
)
from deferpost.interfaces import IArrivingBody, IChunkSource, IWorkerPool
from deferpost.model import Progress, Reason, Rung, State
from deferpost.testing.handlers import large_body, numbered_chunk
from deferpost.testing.suite import PoolSuite, Reader, Sent
from deferpost.testing.turns import LateBehaviour, TurnBehaviour
from deferpost.testing.uploads import Upload

__all__ = [
    "AnswerBehaviour",
    "ArrivingBehaviour",
    "CoroutineBehaviour",
    "DeadlineBehaviour",
    "LiveStreamBehaviour",
    "PoolBehaviour",
    "ProgressBehaviour",
    "QueueBehaviour",
    "StreamBehaviour",
]

#: Bytes that are large for every pool: more than goes through a socket or a pipe at once.
_LARGE_BYTES = 20 * 1024 * 1024

#: Bytes of a stream that a pool may take from a handler before its reader has taken them.
_UNREAD_MOST = 4 * 1024 * 1024


#: Makes readers that pause after two chunks.
_PAUSING = partial(Reader, pause_at=2)


def _file_of(data: bytes) -> BinaryIO:
    """A body that is in a file, at its beginning."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the pool closes it)
    file.write(data)
    file.seek(0)
    return file


class AnswerBehaviour(PoolSuite):
    """A job is run, and its answer or error is given to whoever waits for it."""

    def test_is_a_pool(self) -> None:
        """It has what the interface asks for."""
        verifyObject(IWorkerPool, self.start_pool())
        self.assertEqual(self.pool.name, "tested")

    async def test_answers_go_to_their_jobs(self) -> None:
        """Each of many jobs gets its own answer."""
        self.start_pool(size=3, max_waiting=200)
        jobs = {b"body %d" % n: self.submit("echo", b"body %d" % n) for n in range(200)}
        for body, sent in jobs.items():
            self.assertEqual(await self.content_of(sent), body)
            await self.end_of(sent, State.SUCCEEDED)

    async def test_handler_sees_its_call(self) -> None:
        """The handler is given the call that was submitted."""
        self.start_pool()
        sent = self.submit("describe", word="ünïcode & more")
        answer = await self.answer_of(sent)
        self.assertEqual(answer.headers, ((b"Content-Type", b"application/json"),))
        self.assertEqual(
            (await self.content_of(sent)).decode(),
            '{"id":"describe-1","route":"/describe","path":"/app/describe",'
            '"args":["ünïcode & more"]}',
        )

    async def test_no_content(self) -> None:
        """A handler that returns nothing is answered with 204 and no body."""
        self.start_pool()
        answer = await self.answer_of(self.submit("empty"))
        self.assertEqual((answer.status, answer.body, answer.length), (204, b"", 0))

    async def test_large_answer(self) -> None:
        """An answer of many megabytes arrives whole."""
        self.start_pool()
        sent = self.submit("large", size=_LARGE_BYTES)
        content = await self.content_of(sent)
        self.assertEqual(hashlib.sha256(content).digest(), _digest(large_body(_LARGE_BYTES)))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_large_body(self) -> None:
        """A body of many megabytes, which is in a file, reaches the handler whole."""
        self.start_pool()
        body = large_body(_LARGE_BYTES)
        sent = self.submit("echo", _file_of(body))
        self.assertEqual(_digest(await self.content_of(sent)), _digest(body))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_file_answer(self) -> None:
        """A file that a handler returns is given from the position at which it stands."""
        self.start_pool()
        sent = self.submit("file")
        self.assertEqual(await self.content_of(sent), large_body(100_000)[5:])
        await self.end_of(sent, State.SUCCEEDED)

    async def test_own_body_as_answer(self) -> None:
        """A handler may return its body, in memory or in a file."""
        self.start_pool()
        for body in (b"short", _file_of(large_body(500_000))):
            sent = self.submit("own_body", body)
            expected = body if isinstance(body, bytes) else large_body(500_000)
            self.assertEqual(await self.content_of(sent), expected)

    async def test_http_error(self) -> None:
        """An HTTPError that the handler raises arrives with all that it says."""
        self.start_pool()
        sent = self.submit("refuse")
        error = await self.error_of(sent, HTTPError)
        self.assertEqual(
            (error.status, error.detail, error.title, error.type, error.headers, error.extensions),
            (
                422,
                "There are too many words.",
                "Too Wordy",
                "https://example.org/wordy",
                (("X-Words", "7"), ("X-Words", "8")),
                {"words": 7},
            ),
        )
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_other_error(self) -> None:
        """Whatever else a handler raises arrives as HandlerFailed, with its traceback."""
        self.start_pool()
        sent = self.submit("fail")
        error = await self.error_of(sent, HandlerFailed)
        self.assertEqual(str(error), "LookupError: the handler's own words")
        self.assertIn("in fail", error.traceback)
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_canceled_by_itself(self) -> None:
        """A handler that raises Canceled, though nobody canceled it, has failed."""
        self.start_pool()
        sent = self.submit("cancel_itself")
        error = await self.error_of(sent, HandlerFailed)
        self.assertIn("Canceled", str(error))
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_goes_on_after_errors(self) -> None:
        """Errors of handlers leave the pool as it was."""
        self.start_pool(size=2)
        failing = [self.submit(name) for name in ("fail", "refuse", "cancel_itself") * 3]
        for sent in failing:
            await self.error_of(sent, Exception)
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")
        status = self.pool.status()
        self.assertEqual((status.running, status.waiting, status.stuck), (0, 0, 0))
        self.assertEqual(status.restarts, 0)

    async def test_class_is_built_once(self) -> None:
        """A handler that is a class is built once in each worker."""
        self.start_pool(size=1)
        for calls in range(1, 6):
            self.assertEqual(await self.content_of(self.submit("calls")), b"%d" % calls)

    async def test_cancel_after_the_end(self) -> None:
        """A cancel that comes too late changes nothing."""
        self.start_pool()
        sent = self.submit("echo", b"done")
        self.assertEqual(await self.content_of(sent), b"done")
        await self.end_of(sent, State.SUCCEEDED)
        sent.job.cancel(Reason.REQUESTED)
        assert sent.answer is not None
        sent.answer.cancel()
        self.assertEqual((sent.state, sent.job.rung), (State.SUCCEEDED, None))
        self.assertFalse(sent.job.canceled)
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_status_at_rest(self) -> None:
        """A pool that has nothing to do says so."""
        self.start_pool(size=2, max_waiting=7)
        await self.until(lambda: self.pool.status().ready, "the pool is ready")
        status = self.pool.status()
        self.assertEqual((status.name, status.size, status.max_waiting), ("tested", 2, 7))
        self.assertEqual((status.running, status.waiting, status.stuck), (0, 0, 0))

    async def test_stop_at_rest(self) -> None:
        """A pool that has nothing to do stops, and takes nothing any more."""
        self.start_pool(size=2)
        await self.content_of(self.submit("echo", b"x"))
        self.assertEqual(await self.stop_pool(), 0)
        self.assertFalse(self.pool.status().ready)
        with self.assertRaises(ShuttingDown):
            self.submit("echo")

    async def test_stop_before_any_job(self) -> None:
        """A pool that was only just started can be stopped."""
        self.start_pool(size=2)
        self.assertEqual(await self.stop_pool(), 0)


class QueueBehaviour(PoolSuite):
    """Jobs wait, run and are canceled; needs handlers that run on while the test does.

    :cvar rounds: how often a cancel is set against the end of the same job.
    """

    rounds = 40

    async def test_full(self) -> None:
        """As many jobs are taken as run and may wait, no more; and again as many later."""
        self.start_pool(size=2, max_waiting=3)
        for _ in range(2):
            jobs = [self.submit("hold") for _ in range(5)]
            with self.assertRaises(PoolFull) as caught:
                self.submit("hold")
            self.assertEqual(caught.exception.pool, "tested")
            await self.running(2)
            with self.assertRaises(PoolFull):
                self.submit("hold")
            jobs[-1].job.cancel(Reason.REQUESTED)  # which makes room for one
            jobs.append(self.submit("hold"))
            with self.assertRaises(PoolFull):
                self.submit("hold")
            self.open_gate()
            for sent in jobs:
                await self.until(lambda sent=sent: sent.has_ended, f"{sent} has ended")  # type: ignore[misc]  # bound at once
            (self.folder / "gate").unlink()

    async def test_nothing_may_wait(self) -> None:
        """A pool without a queue takes one job for each worker."""
        self.start_pool(size=1, max_waiting=0)
        first = self.submit("hold")
        with self.assertRaises(PoolFull):
            self.submit("echo")
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        self.assertEqual(await self.content_of(self.submit("echo", b"now")), b"now")

    async def test_first_come_first_served(self) -> None:
        """Jobs that wait run in the order in which they came."""
        self.start_pool(size=1)
        jobs = [self.submit("hold") for _ in range(8)]
        await self.running(1)
        jobs.append(self.submit("hold"))
        jobs[4].job.cancel(Reason.REQUESTED)
        self.open_gate()
        for sent in jobs:
            await self.until(lambda sent=sent: sent.has_ended, f"{sent} has ended")  # type: ignore[misc]  # bound at once
        expected = [sent.job.head.id for sent in jobs if sent is not jobs[4]]
        self.assertEqual(self.lines("started"), expected)

    async def test_cancel_while_queued(self) -> None:
        """A job that is canceled in the queue never runs."""
        self.start_pool(size=1)
        first = self.submit("hold")
        await self.running(1)
        sent = self.submit("hold", _file_of(b"body"))
        self.assertEqual(self.pool.status().waiting, 1)
        self.assertFalse(sent.job.body.closed)
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        self.assertTrue(sent.has_ended)
        self.assertTrue(sent.job.body.closed)
        self.assertEqual((sent.state, sent.job.rung), (State.CANCELED, Rung.REMOVED))
        self.assertTrue(sent.job.canceled)
        self.assertEqual(sent.job.reason, Reason.CLIENT_DISCONNECTED)
        self.assertIsNone(sent.job.started)
        self.assertEqual(self.pool.status().waiting, 0)
        await self.error_of(sent, CancelledError)
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self.content_of(self.submit("echo"))
        self.assertNotIn(sent.job.head.id, self.lines("started"))

    async def test_cancel_while_running(self) -> None:
        """A job that is canceled while it runs is told, and is over when its code is."""
        self.start_pool(size=1)
        sent = self.submit("hold")
        await self.running(1)
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        self.assertTrue(sent.job.canceled)
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertIn(sent.job.rung, (Rung.TOLD, Rung.TERMINATED))
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_canceling_until_the_code_has_ended(self) -> None:
        """A job is not said to be canceled, nor its worker free, while its code still runs."""
        self.start_pool(size=1, max_waiting=1)
        sent = self.submit("hold_on")
        await self.begun(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        following = self.submit("echo", b"following")
        with self.assertRaises(PoolFull):
            self.submit("echo")
        self.assertEqual((sent.state, sent.has_ended), (State.CANCELING, False))
        status = self.pool.status()
        self.assertEqual((status.running, status.waiting, status.stuck), (1, 1, 1))
        self.assertEqual(following.state, State.QUEUED)
        self.open_gate()
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(await self.content_of(following), b"following")
        self.assertEqual(self.pool.status().stuck, 0)

    async def test_cancel_twice(self) -> None:
        """A second cancel changes nothing, and the first reason stays."""
        self.start_pool(size=1)
        running = self.submit("hold_on")
        await self.begun(running)
        waiting = self.submit("hold")
        for sent in (running, waiting):
            sent.job.cancel(Reason.REQUESTED)
            sent.job.cancel(Reason.CLIENT_DISCONNECTED)
            assert sent.answer is not None
            sent.answer.cancel()
        self.open_gate()
        for sent in (running, waiting):
            await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_cancel_by_the_deferred(self) -> None:
        """Canceling the Deferred cancels the job, waiting or running."""
        self.start_pool(size=1)
        running = self.submit("hold")
        await self.running(1)
        waiting = self.submit("hold")
        for sent in (waiting, running):
            assert sent.answer is not None
            sent.answer.cancel()
            await self.error_of(sent, CancelledError)
            await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(waiting.job.rung, Rung.REMOVED)

    async def test_cancel_leaves_others_alone(self) -> None:
        """Canceling some jobs touches no other."""
        self.start_pool(size=3, max_waiting=9)
        jobs = [self.submit("hold") for _ in range(12)]
        await self.running(3)
        for sent in jobs[::2]:
            sent.job.cancel(Reason.REQUESTED)
        self.open_gate()
        for sent in jobs[1::2]:
            self.assertEqual(await self.content_of(sent), sent.job.head.id.encode())
        for sent in jobs[::2]:
            await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_cancel_against_the_end(self) -> None:
        """A cancel at the moment of the end leaves a job answered or canceled, never both."""
        self.start_pool(size=1)
        for turn in range(self.rounds):
            sent = self.submit("echo", b"%d" % turn)
            if turn % 4:
                # Not to wait for something: to come at any moment of a short job.
                await deferLater(self.reactor, (turn % 4) * 0.0007)
            self.look()
            sent.job.cancel(Reason.REQUESTED)
            await self.until(lambda sent=sent: sent.has_ended, f"{sent} has ended")  # type: ignore[misc]  # bound at once
            outcome = sent.outcomes[0]
            if sent.state is State.SUCCEEDED:
                self.assertEqual(outcome.body, b"%d" % turn)
            else:
                self.assertIs(sent.state, State.CANCELED)
                self.assertIsInstance(outcome.value, CancelledError)
        self.assertEqual(await self.content_of(self.submit("echo", b"last")), b"last")

    async def test_status_counts(self) -> None:
        """The status says how many jobs run, wait and are stuck, at every stage."""
        self.start_pool(size=2, max_waiting=5)
        jobs = [self.submit("hold_on", gate=f"gate-{n}") for n in range(1, 6)]
        status = await self.running(2)
        await self.begun(jobs[0])
        self.assertEqual((status.waiting, status.stuck), (3, 0))
        jobs[0].job.cancel(Reason.REQUESTED)
        jobs[4].job.cancel(Reason.REQUESTED)
        status = self.pool.status()
        self.assertEqual((status.running, status.waiting, status.stuck), (2, 2, 1))
        self.open_gate("gate-1")
        await self.end_of(jobs[0], State.CANCELED, Reason.REQUESTED)
        await self.until(lambda: self.pool.status().waiting == 1)
        status = await self.running(2)
        self.assertEqual((status.waiting, status.stuck), (1, 0))
        for name in ("gate-2", "gate-3", "gate-4"):
            self.open_gate(name)
        for sent in jobs[1:4]:
            await self.end_of(sent, State.SUCCEEDED)
        status = self.pool.status()
        self.assertEqual((status.running, status.waiting, status.stuck), (0, 0, 0))

    async def test_stop_cancels_all(self) -> None:
        """A pool that is stopped cancels what runs and what waits, and takes nothing more."""
        self.start_pool(size=2)
        jobs = [self.submit("hold") for _ in range(5)]
        await self.running(2)
        stopped: list[int] = []
        self._stopping = stopped
        self.pool.stop(60.0).addCallback(stopped.append)
        with self.assertRaises(ShuttingDown):
            self.submit("echo")
        for sent in jobs:
            await self.error_of(sent, ShuttingDown)
            await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        self.assertEqual([sent.job.rung for sent in jobs[2:]], [Rung.REMOVED] * 3)
        await self.until(lambda: stopped, "the pool has stopped")
        self.assertEqual(stopped, [0])

    async def test_stop_waits_for_the_code(self) -> None:
        """A pool has stopped when the code of its jobs has ended, not before."""
        self.start_pool(size=1)
        sent = self.submit("hold_on")
        await self.begun(sent)
        stopped: list[int] = []
        self._stopping = stopped
        self.pool.stop(60.0).addCallback(stopped.append)
        await self.error_of(sent, ShuttingDown)
        self.assertEqual((stopped, sent.state), ([], State.CANCELING))
        self.open_gate()
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        await self.until(lambda: stopped, "the pool has stopped")


class ProgressBehaviour(PoolSuite):
    """A handler says how far it is; needs handlers that run on while the test does."""

    async def test_progress(self) -> None:
        """What the handler says of its progress is on the job, while it runs and after."""
        self.start_pool()
        sent = self.submit("report")
        await self.until(lambda: sent.job.progress, "the job says how far it is")
        self.assertEqual(sent.job.progress, Progress(1.0, 4.0, "one of four"))
        self.open_gate()
        await self.answer_of(sent)
        self.assertEqual(sent.job.progress, Progress(4.0, 4.0, "all"))


class DeadlineBehaviour(PoolSuite):
    """Jobs whose time is up are ended; needs handlers that run on while the test does.

    The pool's reactor has a clock that the tests move, and so has its ``now``.
    """

    async def test_time_is_up(self) -> None:
        """A job that runs too long fails with DeadlineExceeded, and ends as expired."""
        self.start_clocked_pool(size=1)
        sent = self.submit("hold", timeout=10.0)
        await self.running(1)
        self.pass_time(9.0)
        self.assertEqual(sent.outcomes, [])
        self.pass_time(1.5)
        error = await self.error_of(sent, DeadlineExceeded)
        self.assertEqual(error.seconds, 10.0)
        self.assertTrue(sent.job.canceled)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)
        self.assertIn(sent.job.rung, (Rung.TOLD, Rung.TERMINATED))
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_expiring_until_the_code_has_ended(self) -> None:
        """A job whose time is up is not said to be expired while its code still runs."""
        self.start_clocked_pool(size=1)
        sent = self.submit("hold_on", timeout=1.0)
        await self.begun(sent)
        self.pass_time(1.0)
        await self.error_of(sent, DeadlineExceeded)
        self.assertEqual((sent.state, self.pool.status().stuck), (State.CANCELING, 1))
        sent.job.cancel(Reason.REQUESTED)
        self.open_gate()
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)

    async def test_several_deadlines(self) -> None:
        """Each of several jobs has its own time."""
        self.start_clocked_pool(size=4)
        timeouts = (30.0, 10.0, None, 20.0)
        jobs = {timeout: self.submit("hold", timeout=timeout) for timeout in timeouts}
        await self.running(4)
        for passed in (10.0, 20.0, 30.0):
            self.pass_time(10.0)
            await self.end_of(jobs[passed], State.EXPIRED, Reason.DEADLINE_RUN)
            left = [sent.outcomes for timeout, sent in jobs.items() if (timeout or 99) > passed]
            self.assertEqual(left, [[]] * len(left))
        self.pass_time(1000.0)
        self.open_gate()
        await self.end_of(jobs[None], State.SUCCEEDED)

    async def test_waiting_is_not_running(self) -> None:
        """The time of a job starts with its run: it has all of it, however long it waited."""
        self.start_clocked_pool(size=1)
        first = self.submit("hold", gate="gate-1")
        await self.running(1)
        sent = self.submit("hold", timeout=10.0, gate="gate-2")
        for _ in range(5):
            self.pass_time(7.0)
        self.assertEqual((sent.state, sent.outcomes), (State.QUEUED, []))
        self.open_gate("gate-1")
        await self.end_of(first, State.SUCCEEDED)
        await self.until(lambda: self.pool.status().waiting == 0)
        await self.running(1)
        self.pass_time(9.0)
        self.assertEqual(sent.outcomes, [])
        self.pass_time(2.0)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)
        await self.error_of(sent, DeadlineExceeded)

    async def test_in_time(self) -> None:
        """A job that ends in time is not touched by its deadline."""
        self.start_clocked_pool(size=1)
        sent = self.submit("echo", b"quick", timeout=5.0)
        self.assertEqual(await self.content_of(sent), b"quick")
        self.pass_time(100.0)
        self.assertEqual((sent.state, sent.job.rung), (State.SUCCEEDED, None))


class StreamBehaviour(PoolSuite):
    """A handler makes its body chunk by chunk, at the pace of its reader."""

    def _count(self, chunks: int, size: int, reader: Callable[[Any], Reader] | None = None) -> Sent:
        return self.submit("count", chunks=chunks, size=size, reader=reader)

    async def _source_of(self, sent: Sent) -> Any:
        answer = await self.answer_of(sent)
        self.assertIsNone(answer.length)
        verifyObject(IChunkSource, answer.body)
        return answer.body

    async def _paused(self, sent: Sent) -> tuple[Reader, Any]:
        """A reader that has paused after two chunks, and a handler that is held back."""
        source = await self._source_of(sent)
        reader = await self.reader_of(sent)
        await self.until(lambda: len(reader.chunks) == 2, "two chunks have come")
        seen = [-1]

        def is_still() -> bool:
            seen.append(len(self.lines("made")))
            return seen[-1] == seen[-2]

        await self.until(is_still, "the handler is held back")
        return reader, source

    async def test_in_order(self) -> None:
        """Chunks arrive in order and whole, and the job has ended when the stream has."""
        self.start_pool()
        sent = self._count(500, 1000, Reader)
        self.assertEqual((await self.answer_of(sent)).status, 200)
        reader = await self.reader_of(sent)
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertIsNone(reader.error)
        expected = b"".join(numbered_chunk(index, 1000) for index in range(500))
        self.assertEqual(b"".join(reader.chunks), expected)
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(self.lines("closed"), [sent.job.head.id])

    async def test_large_chunks(self) -> None:
        """A chunk may be larger than any buffer."""
        self.start_pool()
        sent = self._count(3, 3_000_000)
        content = await self.content_of(sent)
        expected = b"".join(numbered_chunk(index, 3_000_000) for index in range(3))
        self.assertEqual(_digest(content), _digest(expected))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_no_chunks(self) -> None:
        """A stream without chunks is an empty body."""
        self.start_pool()
        sent = self._count(0, 1)
        self.assertEqual(await self.content_of(sent), b"")
        await self.end_of(sent, State.SUCCEEDED)

    async def test_several_streams(self) -> None:
        """Streams of several jobs do not mix."""
        self.start_pool(size=2)
        jobs = [self._count(50, size) for size in (100, 200, 300)]
        for size, sent in zip((100, 200, 300), jobs, strict=True):
            expected = b"".join(numbered_chunk(index, size) for index in range(50))
            self.assertEqual(await self.content_of(sent), expected)

    async def test_handler_is_held_back(self) -> None:
        """While its reader has paused, a handler makes no more than a bounded number of chunks."""
        self.start_pool()
        chunks, size = 2000, 16 * 1024
        sent = self._count(chunks, size, _PAUSING)
        reader, _ = await self._paused(sent)
        self.assertLessEqual(len(self.lines("made")), _UNREAD_MOST // size)
        self.assertFalse(sent.has_ended)
        self.assertEqual(self.pool.status().running, 1)
        reader.resume()
        await self.until(lambda: reader.is_over, "the stream ends")
        expected = b"".join(numbered_chunk(index, size) for index in range(chunks))
        self.assertEqual(_digest(b"".join(reader.chunks)), _digest(expected))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_paused_at_the_end(self) -> None:
        """A reader that pauses when all is made gets the rest, and the end, later."""
        self.start_pool()
        sent = self._count(5, 10, _PAUSING)
        reader, _ = await self._paused(sent)
        self.assertEqual((len(reader.chunks), reader.is_over), (2, False))
        reader.resume()
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertEqual(len(b"".join(reader.chunks)), 50)
        await self.end_of(sent, State.SUCCEEDED)

    async def test_broken_off(self) -> None:
        """An error in the middle reaches the reader, after what was made before it."""
        self.start_pool()
        sent = self.submit("break_off", reader=Reader)
        reader = await self.reader_of(sent)
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertIsInstance(reader.error, HandlerFailed)
        self.assertIn("the handler's own words", str(reader.error))
        self.assertEqual(b"onetwo"[: len(b"".join(reader.chunks))], b"".join(reader.chunks))
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_error_before_the_first_chunk(self) -> None:
        """An error before the first chunk is answered as that of any handler."""
        self.start_pool()
        sent = self.submit("fail_first")
        self.assertEqual((await self.error_of(sent, HTTPError)).status, 422)
        await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_abandoned(self) -> None:
        """A stream that nobody reads any more is canceled, and its handler's finally runs."""
        self.start_pool()
        sent = self._count(2000, 16 * 1024, _PAUSING)
        reader, source = await self._paused(sent)
        source.abandon()
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual(self.lines("closed"), [sent.job.head.id])
        self.assertLess(len(self.lines("made")), 2000)
        self.assertEqual((len(reader.chunks), reader.is_over), (2, False))
        source.abandon()
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_abandoned_unread(self) -> None:
        """A stream may be abandoned before anybody has read it, for a reason."""
        self.start_pool()
        sent = self._count(2000, 16 * 1024)
        source = await self._source_of(sent)
        source.abandon(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(self.lines("closed"), [sent.job.head.id])

    async def test_discarded(self) -> None:
        """A stream that nobody reads any more may go on to its end: nothing is delivered."""
        self.start_pool()
        sent = self._count(500, 16 * 1024, _PAUSING)
        reader, source = await self._paused(sent)
        source.discard()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(len(self.lines("made")), 500)
        self.assertEqual((len(reader.chunks), reader.is_over), (2, False))

    async def test_discarded_unread(self) -> None:
        """A stream may be discarded before anybody has read it."""
        self.start_pool()
        sent = self._count(500, 16 * 1024)
        source = await self._source_of(sent)
        source.discard()
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(len(self.lines("made")), 500)

    async def test_canceled_in_the_middle(self) -> None:
        """A cancel in the middle of a stream breaks it off for its reader."""
        self.start_pool()
        sent = self._count(2000, 16 * 1024, _PAUSING)
        reader, _ = await self._paused(sent)
        sent.job.cancel(Reason.REQUESTED)
        self.assertIsInstance(reader.error, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(self.lines("closed"), [sent.job.head.id])
        self.assertEqual(len(reader.chunks), 2)

    async def test_stopped_in_the_middle(self) -> None:
        """A pool that stops breaks its streams off."""
        self.start_pool()
        sent = self._count(2000, 16 * 1024, _PAUSING)
        reader, _ = await self._paused(sent)
        await self.stop_pool()
        self.assertIsInstance(reader.error, ShuttingDown)
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)

    async def test_deadline_in_the_middle(self) -> None:
        """The time of a job includes its stream."""
        self.start_clocked_pool()
        sent = self.submit("count", chunks=2000, size=16 * 1024, timeout=10.0, reader=_PAUSING)
        reader, _ = await self._paused(sent)
        self.pass_time(10.0)
        await self.until(lambda: reader.is_over, "the stream breaks off")
        self.assertIsInstance(reader.error, DeadlineExceeded)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)


class LiveStreamBehaviour(PoolSuite):
    """A stream arrives while it is made; needs handlers that run on while the test does."""

    async def test_chunk_by_chunk(self) -> None:
        """A chunk is delivered when it is made, and does not wait for the next."""
        self.start_pool()
        sent = self.submit("drip", reader=Reader)
        reader = await self.reader_of(sent)
        await self.until(lambda: reader.chunks, "the first chunk comes")
        self.assertEqual((reader.chunks, reader.ended), ([b"first"], False))
        self.open_gate()
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertEqual((reader.chunks, reader.error), ([b"first", b"second"], None))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_abandoned_while_it_is_made(self) -> None:
        """A handler between two chunks is told when nobody reads any more."""
        self.start_pool()
        sent = self.submit("drip", reader=Reader)
        answer = await self.answer_of(sent)
        reader = await self.reader_of(sent)
        await self.until(lambda: reader.chunks, "the first chunk comes")
        answer.body.abandon()
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual((reader.chunks, reader.is_over), ([b"first"], False))


class ArrivingBehaviour(PoolSuite):
    """Handlers read a body while it arrives; needs handlers that run on while the test does.

    For pools that take an :class:`~deferpost.interfaces.IArrivingBody` as the body of a job.
    """

    def upload(self, handler: str, **args: Any) -> tuple[Upload, Sent]:
        """Submit a job whose body is still to be sent."""
        upload = Upload(self.reactor)
        return upload, self.submit(handler, upload.body, **args)

    async def measured(self, sent: Sent, body: bytes) -> None:
        """Wait for a job that measures its body, and judge what it has found."""
        found = json.loads(await self.content_of(sent))
        self.assertEqual(found, {"size": len(body), "sha256": _digest(body).hex()})
        await self.end_of(sent, State.SUCCEEDED)

    async def held_back(self, upload: Upload) -> None:
        """Wait until a client is held back, and judge that it is so in time."""
        await self.until(lambda: upload.paused, "the client is held back")
        self.assertLessEqual(upload.sent, _UNREAD_MOST)
        self.assertFalse(upload.is_done)

    async def test_is_a_body(self) -> None:
        """What the tests send is what the interface asks for."""
        self.start_pool()
        upload, sent = self.upload("empty")
        verifyObject(IArrivingBody, upload.body)
        await self.end_of(sent, State.SUCCEEDED)

    async def test_first_before_last(self) -> None:
        """A handler has the first bytes before the last were sent."""
        self.start_pool()
        upload, sent = self.upload("first_word")
        upload.send(b"hel")
        upload.send(b"lo wor")
        await self.until(lambda: self.lines("first"), "the handler has read")
        self.assertEqual((self.lines("first"), sent.outcomes), (["hello"], []))
        upload.send(b"ld")
        upload.complete()
        self.assertEqual(await self.content_of(sent), b" world")
        await self.end_of(sent, State.SUCCEEDED)

    async def test_pieces_of_every_size(self) -> None:
        """A body arrives whole and in order, however it is cut."""
        self.start_pool()
        body = large_body(3_000_000)
        for cuts in ((1, 7, 100), (59_999, 60_000, 60_001), (1_000_000,), (3_000_000,)):
            upload, sent = self.upload("measure")
            upload.send_all(_cut(body if max(cuts) > 100 else body[:50_000], cuts))
            await self.measured(sent, body if max(cuts) > 100 else body[:50_000])

    async def test_empty_body(self) -> None:
        """A body may have no bytes at all."""
        self.start_pool()
        upload, sent = self.upload("measure")
        upload.complete()
        await self.measured(sent, b"")

    async def test_there_before_the_job(self) -> None:
        """What has come before the job was submitted, or all of it, is read first."""
        self.start_pool()
        whole, begun = Upload(self.reactor), Upload(self.reactor)
        whole.send(b"all of it")
        whole.complete()
        begun.send(b"the beginning")
        await self.measured(self.submit("measure", whole.body), b"all of it")
        sent = self.submit("measure", begun.body)
        begun.send(b" and the end")
        begun.complete()
        await self.measured(sent, b"the beginning and the end")

    async def test_lines(self) -> None:
        """A body is iterated line by line, wherever it is cut."""
        self.start_pool()
        upload, sent = self.upload("longest_line")
        for piece in (b"one\ntw", b"o and a half", b"\nthree", b"\n", b"no end"):
            upload.send(piece)
        upload.complete()
        self.assertEqual(await self.content_of(sent), b"15")

    async def test_json(self) -> None:
        """JSON is read from a body that arrives, as often as the handler wants."""
        self.start_pool()
        upload, sent = self.upload("numbers")
        upload.send_all([b"[1, 2", b"0, 30", b"0]"])
        self.assertEqual(await self.content_of(sent), b"324")

    async def test_form(self) -> None:
        """A form with a file is read from a body that arrives, and what follows it is not."""
        self.start_pool()
        upload, sent = self.upload("title", headers=((b"Content-Type", _FORM_TYPE),))
        upload.send_all(_cut(_form_with(large_body(500_000)) + b"\r\nmore" * 1000, (10_000,)))
        self.assertEqual(json.loads(await self.content_of(sent)), {"title": "A", "size": 500_000})
        await self.until(lambda: upload.is_done, "the client has sent all")

    async def test_client_is_held_back(self) -> None:
        """While a handler does not read, its client may send no more than a bounded amount."""
        self.start_pool()
        body = large_body(_LARGE_BYTES)
        upload, sent = self.upload("measure_later")
        upload.send_all(_cut(body, (65536,)))
        await self.running(1)
        await self.held_back(upload)
        upload.send(b"")
        self.open_gate()
        await self.measured(sent, body)
        self.assertFalse(upload.paused)

    async def test_client_is_held_back_in_the_queue(self) -> None:
        """While a job waits, its client may send no more than a bounded amount."""
        self.start_pool(size=1)
        first = self.submit("hold")
        await self.running(1)
        body = large_body(_LARGE_BYTES)
        upload, sent = self.upload("measure")
        upload.send_all(_cut(body, (65536,)))
        await self.held_back(upload)
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self.measured(sent, body)

    async def test_client_leaves(self) -> None:
        """A client that leaves in the middle raises in the handler, which has not failed."""
        self.start_pool()
        upload, sent = self.upload("interrupted")
        upload.send(b"the beginning")
        await self.begun(sent)
        upload.leave()
        await self.error_of(sent, BodyBroken)
        await self.end_of(sent, State.FAILED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual(self.lines("interrupted"), ["BodyBroken"])
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_client_has_left(self) -> None:
        """A job whose client left before it began is told when it reads."""
        self.start_pool(size=1)
        first = self.submit("hold")
        await self.running(1)
        upload, sent = self.upload("interrupted")
        upload.send(b"the beginning")
        upload.leave()
        self.open_gate()
        await self.end_of(first, State.SUCCEEDED)
        await self.error_of(sent, BodyBroken)
        await self.end_of(sent, State.FAILED, Reason.CLIENT_DISCONNECTED)

    async def test_client_leaves_and_job_is_canceled(self) -> None:
        """A job that is canceled because its client left ends so, whatever its handler sees."""
        self.start_pool()
        for leave_first in (True, False):
            upload, sent = self.upload("interrupted")
            await self.begun(sent)
            if leave_first:
                upload.leave()
            sent.job.cancel(Reason.CLIENT_DISCONNECTED)
            upload.leave()
            await self.error_of(sent, CancelledError)
            await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)

    async def test_body_breaks_a_rule(self) -> None:
        """A job whose body broke a limit or a rule fails with that, if its handler lets it."""
        self.start_pool()
        for error in (BodyTooLarge(10), HTTPError(400, "The body is cut wrongly.")):
            for handler in ("interrupted", "wrapped"):
                upload, sent = self.upload(handler)
                upload.send(b"too much")
                upload.body.broken(error)
                self.assertIs(await self.error_of(sent, type(error)), error)
                await self.end_of(sent, State.FAILED, Reason.ERROR)

    async def test_cancel_while_reading(self) -> None:
        """A job that is canceled while it waits for its body frees its place at once."""
        self.start_pool(size=1)
        upload, sent = self.upload("interrupted")
        upload.send(b"the beginning")
        await self.begun(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.error_of(sent, CancelledError)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(self.lines("interrupted"), ["Canceled"])
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_deadline_while_reading(self) -> None:
        """The time of a job includes the time for which it waits for its client."""
        self.start_clocked_pool()
        upload, sent = self.upload("interrupted", timeout=10.0)
        await self.begun(sent)
        self.pass_time(10.0)
        await self.error_of(sent, DeadlineExceeded)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_RUN)
        self.assertEqual(self.lines("interrupted"), ["Canceled"])
        upload.send(b"too late")

    async def test_stop_while_reading(self) -> None:
        """A pool that stops does not wait for clients."""
        self.start_pool(size=1)
        _, sent = self.upload("interrupted")
        _, waiting = self.upload("interrupted")
        await self.begun(sent)
        self.assertEqual(await self.stop_pool(), 0)
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        await self.end_of(waiting, State.CANCELED, Reason.SHUTDOWN)

    async def test_cancel_in_the_queue(self) -> None:
        """The client of a job that was taken from the queue is not held back."""
        self.start_pool(size=1)
        self.submit("hold")
        await self.running(1)
        upload, sent = self.upload("measure")
        upload.send_all(_cut(large_body(_LARGE_BYTES), (65536,)))
        await self.held_back(upload)
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertTrue(upload.body.closed)
        await self.until(lambda: upload.is_done, "the client has sent all")

    async def test_canceled_client_is_let_go(self) -> None:
        """The client of a job that was canceled is not held back, while its code still runs."""
        self.start_pool(size=1)
        upload, sent = self.upload("hold_on")
        upload.send_all(_cut(large_body(_LARGE_BYTES), (65536,)))
        await self.begun(sent)
        await self.held_back(upload)
        sent.job.cancel(Reason.REQUESTED)
        await self.until(lambda: upload.is_done, "the client has sent all")
        self.assertIs(sent.state, State.CANCELING)
        self.open_gate()
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)

    async def test_unread(self) -> None:
        """A handler need not read: its answer does not wait, and the rest is dropped."""
        self.start_pool(size=1)
        for _ in range(3):
            upload, sent = self.upload("empty")
            upload.send_all(_cut(large_body(_LARGE_BYTES), (65536,)))
            self.assertEqual((await self.answer_of(sent)).status, 204)
            await self.end_of(sent, State.SUCCEEDED)
            await self.until(lambda upload=upload: upload.is_done, "the client has sent all")  # type: ignore[misc]  # bound at once
            self.assertFalse(upload.paused)
            following, measured = self.upload("measure")
            following.send_all([b"another ", b"body"])
            await self.measured(measured, b"another body")

    async def test_answered_before_the_end(self) -> None:
        """A handler may answer when it has read enough."""
        self.start_pool(size=1)
        upload, sent = self.upload("first_word", most=6)
        upload.send(b"hello, world")
        self.assertEqual(await self.content_of(sent), b", worl")
        await self.end_of(sent, State.SUCCEEDED)
        upload.send(b"more")
        upload.complete()
        self.assertEqual(await self.content_of(self.submit("echo", b"next")), b"next")

    async def test_both_ways(self) -> None:
        """A handler streams its answer while its body arrives."""
        self.start_pool()
        upload, sent = self.upload("shout", reader=Reader)
        upload.send(b"one")
        reader = await self.reader_of(sent)
        for word in (b"two", b"three"):
            await self.until(lambda: len(b"".join(reader.chunks)) == upload.sent, "it comes back")
            upload.send(word)
        upload.complete()
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertEqual((b"".join(reader.chunks), reader.error), (b"ONETWOTHREE", None))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_both_ways_held_back(self) -> None:
        """A reader that pauses holds back the handler, and so the client."""
        self.start_pool()
        upload, sent = self.upload("shout", reader=_PAUSING)
        body = large_body(_LARGE_BYTES)
        upload.send_all(_cut(body, (65536,)))
        reader = await self.reader_of(sent)
        await self.until(lambda: len(reader.chunks) == 2, "two chunks have come")
        await self.held_back(upload)
        reader.resume()
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertEqual(_digest(b"".join(reader.chunks)), _digest(body.upper()))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_own_body_as_stream(self) -> None:
        """A handler may return the body that arrives; it is answered as it comes."""
        self.start_pool()
        upload, sent = self.upload("own_body")
        body = large_body(1_000_000)
        upload.send_all(_cut(body, (65536,)))
        self.assertEqual(_digest(await self.content_of(sent)), _digest(body))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_client_leaves_in_the_middle_of_both(self) -> None:
        """A client that leaves while it is answered breaks the answer off."""
        self.start_pool()
        upload, sent = self.upload("shout", reader=Reader)
        upload.send(b"one")
        reader = await self.reader_of(sent)
        upload.leave()
        await self.until(lambda: reader.is_over, "the stream ends")
        self.assertIsInstance(reader.error, BodyBroken)
        await self.end_of(sent, State.FAILED, Reason.CLIENT_DISCONNECTED)

    async def test_several_bodies(self) -> None:
        """Bodies that arrive at the same time do not mix."""
        self.start_pool(size=3)
        bodies = [large_body(700_000 + n)[n:] for n in range(9)]
        uploads = [self.upload("measure") for _ in bodies]
        for (upload, _), body in zip(uploads, bodies, strict=True):
            upload.send_all(_cut(body, (10_007,)))
        for (_, sent), body in zip(uploads, bodies, strict=True):
            await self.measured(sent, body)


class CoroutineBehaviour(PoolSuite):
    """What is particular to coroutines."""

    async def test_no_streams(self) -> None:
        """A coroutine that returns an iterator has failed: it cannot stream."""
        self.start_pool()
        sent = self.submit("stream")
        error = await self.error_of(sent, HandlerFailed)
        self.assertIn("an async handler returned an iterator", str(error))
        await self.end_of(sent, State.FAILED, Reason.ERROR)


class PoolBehaviour(
    AnswerBehaviour,
    QueueBehaviour,
    ProgressBehaviour,
    DeadlineBehaviour,
    TurnBehaviour,
    LateBehaviour,
    StreamBehaviour,
    LiveStreamBehaviour,
):
    """All that a pool of plain handlers does."""


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _cut(body: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """A body in pieces, of these sizes in turns."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(body):
            return
        yield body[start : start + size]
        start += size


_FORM_TYPE = b"multipart/form-data; boundary=cut"


def _form_with(content: bytes) -> bytes:
    """A form with a title and a file."""
    return (
        b'--cut\r\nContent-Disposition: form-data; name="title"\r\n\r\nA\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + content
        + b"\r\n--cut--\r\n"
    )
