"""What the tests of the behaviour suite are built on: a pool, jobs for it, and their readers.

It judges what is true of every job whatever the test: that it has ended once, that its body is
closed, that whoever waits was told.
"""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009

from __future__ import annotations

import io
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.arriving import ArrivingBody
from deferpost.handlers.running import Handlers
from deferpost.interfaces import IChunkSink, PoolContext
from deferpost.jobs import DEFAULT_URGENCY, Job
from deferpost.lifecycle import ENDED
from deferpost.model import Answer, CallHead, PoolStatus, Reason, Route, State
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.coroutines import COROUTINES, opened
from deferpost.testing.handlers import HANDLERS
from deferpost.testing.waiting import until

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

__all__ = ["PoolSuite", "Reader", "Sent"]

E = TypeVar("E", bound=BaseException)

#: Seconds that a pool gets to stop.
_STOP_PATIENCE = 60.0


class _Plan(Protocol):
    def start(self, context: PoolContext) -> Any: ...


class Sent:
    """A job that was submitted, and what has come of it so far.

    :param make: makes the job of what it is to call at its end.

    :ivar job: the job.
    :ivar outcomes: what its Deferred has fired with.
    :ivar ends: its state, each time it was said to have ended.
    :ivar was_open: whether its body was still open then.
    :ivar reader: reads its stream, where there is one that is to be read.
    """

    def __init__(self, make: Callable[[Callable[[Job], None]], Job]) -> None:
        self.ends: list[State] = []
        self.was_open = False
        self.job = make(self._ended)
        self.outcomes: list[Any] = []
        self.answer: Deferred[Answer] | None = None
        self.reader: Reader | None = None

    def __repr__(self) -> str:
        return f"<Sent {self.job!r} {self.outcomes}>"

    def _ended(self, job: Job) -> None:
        self.ends.append(job.state)
        self.was_open = not job.body.closed

    @property
    def state(self) -> State:
        """Where the job stands."""
        return self.job.state

    @property
    def has_ended(self) -> bool:
        """Whether the job was said to have ended."""
        return bool(self.ends)


@implementer(IChunkSink)
class Reader:
    """Reads a stream, and can pause.

    :param source: the stream, which it opens.
    :param pause_at: how many chunks it takes before it pauses; None for all.
    :param apart: whether it wants each chunk by itself.

    :ivar chunks: what it was given.
    :ivar ended: whether it was told the end.
    :ivar error: why the stream broke off, if it did.
    """

    def __init__(self, source: Any, pause_at: int | None = None, apart: bool = True) -> None:
        self.chunks: list[bytes] = []
        self.ended = False
        self.error: Exception | None = None
        self._source = source
        self._pause_at = pause_at
        self._paused = False
        source.open(self, apart)

    @property
    def is_over(self) -> bool:
        """Whether there is no more to come."""
        return self.ended or self.error is not None

    def pause(self) -> None:
        """Take no more."""
        self._paused = True
        self._source.pause()

    def resume(self) -> None:
        """Take more, without another pause."""
        self._paused = False
        self._pause_at = None
        self._source.resume()

    def chunk(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.chunk`."""
        assert not self._paused, "a chunk for a reader that has paused"
        assert not self.is_over, "a chunk after the end"
        self.chunks.append(data)
        if len(self.chunks) == self._pause_at:
            self.pause()

    def flush(self) -> None:
        """Those that came together have come; see :class:`deferpost.interfaces.IChunkSource`."""
        assert not self.is_over, "something after the end"

    def end(self) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.end`."""
        assert not self.is_over, "a second end"
        self.ended = True

    def fail(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IChunkSink.fail`."""
        assert not self.is_over, "a second end"
        self.error = error


class PoolSuite(TestCase):
    """The ground of the suite's mixins; in them is described what to set.

    :cvar reactor: the reactor that runs the tests.
    :cvar handler_kind: ``"plain"``, or ``"coroutine"`` for a pool that runs only these.
    :cvar patience: seconds after which something that is waited for will not come any more.
    """

    reactor: Any
    handler_kind = "plain"
    patience = 60.0

    def make_plan(self, *, size: int, max_waiting: int) -> _Plan:
        """A plan of the pool under test.

        :param size: how many jobs run at once.
        :param max_waiting: how many more may wait.
        """
        raise NotImplementedError

    def turn(self) -> None:
        """Called now and then: here a pool is driven that runs nothing by itself."""

    # Set-up and its end.

    def setUp(self) -> None:
        """Prepare a folder and the handlers; no pool yet."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.pool: Any = None
        self.now: Callable[[], float] = time.monotonic
        self._sent: list[Sent] = []
        self._keys = itertools.count(1)
        self._stopping: list[int] | None = None
        self._clocked: ClockedReactor | None = None
        #: How many workers the pool is to leave behind.
        self.left_behind = 0

    def start_clocked_pool(self, *, size: int = 1) -> Any:
        """Start the pool under test with a clock, which :meth:`pass_time` moves.

        :param size: how many jobs run at once.
        """
        self._clocked = ClockedReactor(self.reactor)
        self.now = self._clocked.seconds
        return self.start_pool(size=size, reactor=self._clocked)

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and have the pool see it.

        :param seconds: how much.
        """
        assert self._clocked is not None
        self._clocked.clock.advance(seconds)
        self.look()

    def start_pool(
        self, *, size: int = 1, max_waiting: int = 100, reactor: Any = None, **context: Any
    ) -> Any:
        """Start the pool under test; it is stopped, and all its jobs judged, after the test.

        :param size: how many jobs run at once.
        :param max_waiting: how many more may wait.
        :param reactor: the pool's reactor, if it is another than the tests'.
        :param context: more for its context.
        """
        named = COROUTINES if self.handler_kind == "coroutine" else HANDLERS
        routes = [
            Route(path=f"/{name}", handler=handler, pool="tested")
            for name, handler in named.items()
        ]
        plan = self.make_plan(size=size, max_waiting=max_waiting)
        given = {"name": "tested", "source": Handlers(routes), "now": self.now, **context}
        self.pool = plan.start(PoolContext(reactor=reactor or self.reactor, **given))
        self.addCleanup(self._end)
        return self.pool

    def _end(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop_and_judge())

    async def _stop_and_judge(self) -> None:
        for sent in self._sent:
            self.open_gate(f"gate-{sent.job.key}")
        self.open_gate()
        self.assertEqual(await self.stop_pool(), self.left_behind, "workers left behind")
        await self.until(lambda: all(sent.has_ended for sent in self._sent), "all has ended")
        for sent in self._sent:
            self.judge_end(sent)

    async def stop_pool(self, patience: float = _STOP_PATIENCE) -> int:
        """Stop the pool, if it is not stopped.

        :param patience: seconds.
        :returns: the number of workers left behind.
        """
        if self._stopping is None:
            left: list[int] = []
            self._stopping = left
            self.pool.stop(patience).addCallback(left.append)
        stopping = self._stopping
        await self.until(lambda: stopping, "the pool has stopped")
        return stopping[0]

    def judge_end(self, sent: Sent) -> None:
        """Judge what is true of every job that has ended."""
        job = sent.job
        self.assertEqual(sent.ends, [job.state], f"{job} has not ended exactly once")
        self.assertIn(job.state, ENDED)
        self.assertFalse(sent.was_open, f"{job} has ended with its body open")
        self.assertEqual(len(sent.outcomes), 1, f"whoever waits for {job} was not told")
        self.assertIsNone(job.stop)
        assert job.ended is not None
        self.assertGreaterEqual(job.ended, job.started or job.created)
        self.assertGreaterEqual(job.started or job.created, job.created)
        if job.state is State.SUCCEEDED:
            self.assertIsNone(job.reason)
        for outcome in sent.outcomes:
            if isinstance(outcome, Answer):
                outcome.close()

    # Jobs.

    def submit(
        self,
        handler: str,
        body: bytes | BinaryIO | ArrivingBody = b"",
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        timeout: float | None = None,
        start_by: float | None = None,
        finish_by: float | None = None,
        urgency: int = DEFAULT_URGENCY,
        retries: int = 0,
        permit: Callable[[Job], Deferred[None]] | None = None,
        gate: str = "gate",
        reader: Callable[[Any], Reader] | None = None,
        **args: object,
    ) -> Sent:
        """Submit a job.

        :param handler: the name of one of the suite's handlers.
        :param body: its body.
        :param headers: its header fields.
        :param timeout: seconds that it may run.
        :param start_by: when it must have started, on the clock of ``now``.
        :param finish_by: when it must be over, on the same clock.
        :param urgency: 0 for the most urgent to 7 for the least.
        :param retries: how often it may run again when its worker was lost.
        :param permit: is asked whether it may begin (:attr:`deferpost.jobs.Job.permit`).
        :param gate: the gate at which it waits, if it does.
        :param reader: makes the reader of its stream, as soon as there is one.
        :param args: further arguments of its query.
        """
        key = next(self._keys)
        query = urlencode({"dir": str(self.folder), "gate": gate, **args})
        route = f"/{handler}"
        head = CallHead(
            f"{handler}-{key}",
            route,
            "POST",
            f"/app{route}",
            query.encode(),
            headers,
            None,
            timeout,
            finish_by,
        )
        file = io.BytesIO(body) if isinstance(body, bytes) else body
        sent = Sent(
            lambda on_end: Job(
                key,
                head,
                file,
                self.now(),
                on_end,
                start_by=start_by,
                urgency=urgency,
                retries=retries,
                permit=permit,
            )
        )
        try:
            sent.answer = self.pool.submit(sent.job)
        except BaseException:
            file.close()  # as the dispatcher does
            raise

        def answered(outcome: Any) -> None:
            sent.outcomes.append(outcome)
            if reader is not None and isinstance(outcome, Answer):
                sent.reader = reader(outcome.body)

        sent.answer.addBoth(answered)
        self._sent.append(sent)
        return sent

    def open_gate(self, name: str = "gate") -> None:
        """Let on those who wait at a gate."""
        gate = self.folder / name
        gate.touch()
        opened(gate)

    def lines(self, name: str) -> list[str]:
        """The lines that handlers have noted in a file."""
        path = self.folder / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    # Waiting.

    def look(self) -> None:
        """Drive what does not run by itself: the clock, and the pool where it is such a one."""
        if self._clocked is not None:
            self._clocked.clock.advance(0)
        self.turn()

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until a condition is true.

        :raises AssertionError: it was not true in time.
        """

        def looked() -> object:
            self.look()
            return condition()

        await until(self.reactor, looked, self.patience, what)

    async def answer_of(self, sent: Sent) -> Answer:
        """Wait for the answer of a job, which is to have one."""
        await self.until(lambda: sent.outcomes, f"{sent} is answered")
        outcome = sent.outcomes[0]
        if isinstance(outcome, Failure):
            outcome.raiseException()
        assert isinstance(outcome, Answer)
        return outcome

    async def error_of(self, sent: Sent, expected: type[E]) -> E:
        """Wait for the error of a job, which is to have one."""
        await self.until(lambda: sent.outcomes, f"{sent} fails")
        outcome = sent.outcomes[0]
        self.assertIsInstance(outcome, Failure)
        error = outcome.value
        self.assertIsInstance(error, expected, outcome.getTraceback())
        assert isinstance(error, expected)
        return error

    async def end_of(self, sent: Sent, state: State, reason: Reason | None = None) -> None:
        """Wait until a job has ended, as it is to end."""
        await self.until(lambda: sent.has_ended, f"{sent} has ended")
        self.assertEqual((sent.state, sent.job.reason), (state, reason))

    async def reader_of(self, sent: Sent) -> Reader:
        """Wait for the stream of a job that is read."""
        await self.answer_of(sent)
        assert sent.reader is not None
        return sent.reader

    async def content_of(self, sent: Sent) -> bytes:
        """Wait for the whole body of a job's answer, of whichever kind it is."""
        answer = await self.answer_of(sent)
        body = answer.body
        if isinstance(body, bytes):
            content = body
        elif answer.length is None:
            reader = Reader(body)
            await self.until(lambda: reader.is_over, f"the stream of {sent} ends")
            self.assertIsNone(reader.error)
            return b"".join(reader.chunks)
        else:
            content = b""
            while len(content) < answer.length and (
                piece := body.read(answer.length - len(content))
            ):
                content += piece
            body.close()
        self.assertEqual(len(content), answer.length)
        return content

    async def begun(self, sent: Sent) -> None:
        """Wait until the code of a handler that holds has begun; a sign of it may come before.

        To be overridden, together with :meth:`turn`, for a pool whose handlers begin when they
        can also end.
        """
        id = sent.job.head.id
        await self.until(lambda: id in self.lines("started"), f"{sent} has begun")

    async def running(self, count: int) -> PoolStatus:
        """Wait until as many jobs run.

        :returns: the pool's status then.
        """
        status: list[PoolStatus] = []

        def looked() -> bool:
            status[:] = [self.pool.status()]
            return status[0].running == count

        await self.until(looked, f"{count} jobs run")
        return status[0]
