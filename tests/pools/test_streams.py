"""Carrying chunks from a worker to whoever writes them: nothing lost, nothing unasked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from zope.interface import implementer
from zope.interface.verify import verifyObject

from deferpost.errors import Canceled
from deferpost.interfaces import IChunkSink, IChunkSource
from deferpost.model import Reason
from deferpost.pools.frames import CHUNK_COST
from deferpost.pools.streams import CREDIT_STEP, JOIN_BYTES, ChunkBuffer, CreditGiver, ThreadGate

#: Seconds for which a test waits before it gives a thread up.
PATIENCE = 5.0


@implementer(IChunkSink)
class FakeSink:
    """Where a stream goes: remembers all, and does something at the next chunk if told to."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.at_next_chunk: Callable[[], None] | None = None
        self.flushed = 0

    def chunk(self, data: bytes) -> None:
        assert not self.ends, "no chunk comes after the end"
        self.chunks.append(data)
        act, self.at_next_chunk = self.at_next_chunk, None
        if act is not None:
            act()

    def flush(self) -> None:
        assert not self.ends
        self.flushed = len(self.chunks)

    def end(self) -> None:
        self.ends.append(None)

    def fail(self, error: Exception) -> None:
        self.ends.append(error)


class Stream:
    """A buffer with what it tells the worker, and a sink."""

    def __init__(self) -> None:
        self.taken = 0
        self.abandoned: list[Reason] = []
        self.sink = FakeSink()
        self.buffer = ChunkBuffer(taken=self.take, abandoned=self.abandoned.append)

    def take(self, amount: int) -> None:
        self.taken += amount

    def open(self) -> None:
        """Have every chunk by itself."""
        self.buffer.open(self.sink, apart=True)


def cost(chunks: Iterable[bytes]) -> int:
    """What chunks count."""
    return sum(len(chunk) + CHUNK_COST for chunk in chunks)


def test_it_is_a_source() -> None:
    """A buffer is what an answer's body is on the reactor's side."""
    assert verifyObject(IChunkSource, Stream().buffer)


def test_what_came_before_it_was_opened() -> None:
    """Chunks that came early are kept, and given in order when somebody reads."""
    stream = Stream()
    stream.buffer.deliver(b"a")
    stream.buffer.deliver(b"b")
    assert (stream.sink.chunks, stream.taken) == ([], 0)
    stream.open()
    assert (stream.sink.chunks, stream.taken) == ([b"a", b"b"], cost([b"a", b"b"]))
    assert stream.sink.ends == []


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_what_ended_before_it_was_opened(error: Exception | None) -> None:
    """A stream that has ended already is read like any other; a broken one only breaks."""
    stream = Stream()
    stream.buffer.deliver(b"a")
    stream.buffer.finish(error)
    stream.open()
    assert stream.sink.chunks == ([b"a"] if error is None else [])
    assert stream.sink.ends == [error]


def test_pause_and_resume() -> None:
    """While the reader has enough, nothing is given and the worker is held back."""
    stream = Stream()
    stream.open()
    stream.buffer.pause()
    stream.buffer.pause()
    stream.buffer.deliver(b"a")
    stream.buffer.finish()
    assert (stream.sink.chunks, stream.sink.ends, stream.taken) == ([], [], 0)
    stream.buffer.resume()
    assert (stream.sink.chunks, stream.sink.ends) == ([b"a"], [None])


def test_flush() -> None:
    """A reader that wants chunks apart is told when those that came together have come."""
    stream = Stream()
    stream.open()
    stream.buffer.deliver_all([b"a", b"b"])
    assert (stream.sink.chunks, stream.sink.flushed) == ([b"a", b"b"], 2)
    stream.sink.at_next_chunk = stream.buffer.abandon
    stream.buffer.deliver_all([b"c", b"d"])
    assert (stream.sink.chunks, stream.sink.flushed) == ([b"a", b"b", b"c"], 2)


def test_small_chunks_together() -> None:
    """A reader that wants bytes gets small chunks that came together as one."""
    stream = Stream()
    stream.buffer.open(stream.sink)
    stream.buffer.deliver_all([b"a", b"b", b"c"])
    assert stream.sink.chunks == [b"abc"]
    assert stream.taken == cost([b"a", b"b", b"c"])


@pytest.mark.parametrize("size", [1, 1000, JOIN_BYTES // 2, JOIN_BYTES, JOIN_BYTES + 1])
def test_not_too_many_together(size: int) -> None:
    """What is put together has a bound; a chunk that is larger comes by itself."""
    stream = Stream()
    stream.buffer.open(stream.sink)
    chunks = [bytes([number]) * size for number in range(200)]
    stream.buffer.deliver_all(chunks)
    assert b"".join(stream.sink.chunks) == b"".join(chunks)
    assert max(map(len, stream.sink.chunks)) <= max(size, JOIN_BYTES)
    assert len(stream.sink.chunks) == -(-200 // max(1, JOIN_BYTES // size))
    assert stream.taken == cost(chunks)


def test_what_comes_after_the_reader_left() -> None:
    """Chunks that come together after the reader has left are dropped."""
    stream = Stream()
    stream.open()
    stream.buffer.abandon()
    stream.buffer.deliver_all([b"a", b"b"])
    assert (stream.sink.chunks, stream.taken) == ([], 0)


def test_end_waits_for_the_reader() -> None:
    """The end is said when the reader wants to hear it, once, and not while it has enough."""
    stream = Stream()
    stream.open()
    stream.buffer.pause()
    stream.buffer.finish()
    assert stream.sink.ends == []
    for _ in range(2):
        stream.buffer.resume()
        assert stream.sink.ends == [None]
        stream.buffer.pause()


def test_many_chunks_to_a_reader_that_changes_its_mind() -> None:
    """A reader that pauses and resumes at each chunk gets any number of them, in order."""
    stream = Stream()

    def blink() -> None:
        stream.buffer.pause()
        stream.buffer.resume()
        stream.sink.at_next_chunk = blink

    stream.sink.at_next_chunk = blink
    chunks = [b"%d" % number for number in range(5000)]
    for chunk in chunks:
        stream.buffer.deliver(chunk)
    stream.open()
    assert stream.sink.chunks == chunks


def test_enough_again_while_it_catches_up() -> None:
    """A reader that has enough in the middle of what was kept gets no more, and holds on."""
    stream = Stream()
    stream.open()
    stream.buffer.pause()
    stream.buffer.deliver(b"a")
    stream.buffer.deliver(b"b")
    stream.sink.at_next_chunk = stream.buffer.pause
    stream.buffer.resume()
    assert stream.sink.chunks == [b"a"]
    stream.buffer.resume()
    assert stream.sink.chunks == [b"a", b"b"]


def test_broken_while_paused() -> None:
    """That a stream broke off is said at once: nobody has to wait for the client to read."""
    stream = Stream()
    stream.open()
    stream.buffer.pause()
    stream.buffer.deliver(b"a")
    error = ValueError("no")
    stream.buffer.finish(error)
    assert (stream.sink.chunks, stream.sink.ends) == ([], [error])


@pytest.mark.parametrize("reason", [Reason.CLIENT_DISCONNECTED, Reason.SHUTDOWN])
def test_abandon(reason: Reason) -> None:
    """When nobody reads any more the worker hears why, and what it still sends is dropped."""
    stream = Stream()
    stream.open()
    stream.buffer.abandon(reason)
    stream.buffer.abandon()
    stream.buffer.deliver(b"a")
    stream.buffer.finish()
    assert stream.abandoned == [reason]
    assert (stream.sink.chunks, stream.sink.ends) == ([], [])


def test_abandon_what_has_ended() -> None:
    """Where the worker is done there is nothing to cancel."""
    stream = Stream()
    stream.buffer.deliver(b"a")
    stream.buffer.finish()
    stream.buffer.abandon()
    assert stream.abandoned == []


@pytest.mark.parametrize("is_opened", [True, False])
@pytest.mark.parametrize("is_paused", [True, False])
def test_discard(is_opened: bool, is_paused: bool) -> None:
    """A stream that is to go on unread takes all that comes, and never holds its worker back."""
    stream = Stream()
    if is_paused:
        stream.buffer.pause()
    if is_opened:
        stream.open()
    stream.buffer.deliver(b"a")
    received = list(stream.sink.chunks)
    stream.buffer.discard()
    stream.buffer.deliver(b"b")
    stream.buffer.finish(ValueError("no"))
    assert stream.taken == cost([b"a", b"b"])
    assert stream.abandoned == []
    assert (stream.sink.chunks, stream.sink.ends) == (received, [])


def test_discard_to_its_end() -> None:
    """A stream that ends well unread is over, as one that was read."""
    stream = Stream()
    stream.buffer.discard()
    stream.buffer.deliver(b"a")
    stream.buffer.finish()
    stream.buffer.abandon()
    assert (stream.taken, stream.abandoned) == (cost([b"a"]), [])


def test_without_bounds() -> None:
    """A worker that needs to know nothing is told nothing."""
    sink = FakeSink()
    buffer = ChunkBuffer(abandoned=lambda reason: None)
    buffer.open(sink)
    buffer.pause()
    buffer.deliver(b"a")
    buffer.resume()
    buffer.finish()
    assert (sink.chunks, sink.ends) == ([b"a"], [None])


class AnyOrder(RuleBasedStateMachine):
    """A stream that is used in any order that its promises allow, beside what it should do."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()
        self.delivered: list[bytes] = []
        self.finished: list[Exception | None] = []
        self.is_open = self.is_paused = self.is_abandoned = self.is_discarded = False
        self.had: list[bytes] = []  # what the sink had when it left
        self.steps = self.leavings = 0
        self.old_age = 0

    @initialize(old_age=st.integers(0, 15), is_open=st.booleans())
    def begin(self, old_age: int, is_open: bool) -> None:
        """So many steps come before what mostly comes last."""
        self.old_age = old_age
        if is_open:
            self.open()

    @property
    def is_gone(self) -> bool:
        return self.is_abandoned or self.is_discarded

    @property
    def error(self) -> Exception | None:
        return self.finished[0] if self.finished else None

    def is_quiet(self) -> bool:
        return self.is_paused or self.is_gone or not self.is_open

    def is_old(self) -> bool:
        """Whether enough has happened for what mostly comes last."""
        return self.steps > self.old_age

    # The worker's side.

    @rule(size=st.integers(1, 3))
    def deliver(self, size: int) -> None:
        if not self.finished:
            chunk = bytes([len(self.delivered) % 256]) * size
            self.delivered.append(chunk)
            quiet, before = self.is_quiet(), len(self.stream.sink.chunks)
            self.stream.buffer.deliver(chunk)
            assert not (quiet and len(self.stream.sink.chunks) > before)

    @precondition(lambda self: self.is_old() and len(self.finished) < 2)
    @rule(error=st.none() | st.builds(ValueError))
    def finish(self, error: Exception | None) -> None:
        self.finished.append(error)
        if error is not None and len(self.finished) == 1:
            self.is_paused = False
        ends = list(self.stream.sink.ends)
        self.stream.buffer.finish(error)
        if self.is_quiet():
            assert self.stream.sink.ends == ends

    # The reader's side.

    @precondition(lambda self: not self.is_open and not self.is_gone)
    @rule()
    def open(self) -> None:
        self.is_open = True
        self.stream.open()

    @precondition(lambda self: not self.is_discarded and self.error is None)
    @rule()
    def pause(self) -> None:
        self.is_paused = True
        self.stream.buffer.pause()

    @rule()
    def resume(self) -> None:
        self.is_paused = False
        self.stream.buffer.resume()

    @precondition(lambda self: self.is_old() and self.leavings < 2)
    @rule()
    def abandon(self) -> None:
        self.leavings += 1
        if not self.is_gone:
            self.had = list(self.stream.sink.chunks)
        self.is_abandoned = True
        self.stream.buffer.abandon()

    @precondition(lambda self: self.is_old() and self.leavings < 2)
    @rule()
    def discard(self) -> None:
        self.leavings += 1
        if not self.is_gone:
            self.had = list(self.stream.sink.chunks)
        self.is_discarded = True
        self.is_paused = False
        self.stream.buffer.discard()

    def blink(self) -> None:
        self.pause()
        self.resume()

    @precondition(lambda self: not self.is_gone)
    @rule(act=st.sampled_from(["pause", "abandon", "discard", "blink"]))
    def at_next_chunk(self, act: str) -> None:
        """In the middle of a delivery the reader pauses, leaves, or does both and back."""
        self.stream.sink.at_next_chunk = getattr(self, act)

    # What always holds.

    @invariant()
    def time_passes(self) -> None:
        self.steps += 1

    @invariant()
    def nothing_is_lost_or_out_of_order(self) -> None:
        chunks = self.stream.sink.chunks
        assert chunks == self.delivered[: len(chunks)]
        if not self.is_quiet() and self.error is None:
            assert chunks == self.delivered

    @invariant()
    def nothing_comes_after_the_reader_left(self) -> None:
        if self.is_gone:
            assert self.stream.sink.chunks == self.had

    @invariant()
    def the_end_comes_exactly_once(self) -> None:
        ends = self.stream.sink.ends
        assert len(ends) <= 1
        if self.finished and not self.is_quiet():
            assert ends == self.finished[:1]
        if ends == [None]:
            assert self.stream.sink.chunks == self.delivered

    @invariant()
    def what_was_taken_is_counted(self) -> None:
        taken = self.stream.taken
        assert taken >= cost(self.stream.sink.chunks)
        assert taken <= cost(self.delivered)
        if self.is_discarded and not self.is_abandoned and self.error is None:
            assert taken == cost(self.delivered)

    @invariant()
    def the_worker_is_abandoned_once(self) -> None:
        assert len(self.stream.abandoned) <= int(self.is_abandoned)


AnyOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


class TestAnyOrder(AnyOrder.TestCase):  # type: ignore[misc,valid-type]  # made by Hypothesis
    """Whatever the order of events, a stream loses nothing and ends once."""


# Credit


@given(st.lists(st.integers(1, 3 * CREDIT_STEP), max_size=50))
def test_credit(amounts: list[int]) -> None:
    """A worker hears of all that was taken, but for less than a step, in few messages."""
    given_: list[int] = []
    giver = CreditGiver(given_.append)
    for amount in amounts:
        giver.taken(amount)
    assert 0 <= sum(amounts) - sum(given_) < CREDIT_STEP
    assert all(amount >= CREDIT_STEP for amount in given_)


# The gate


class Producer:
    """A thread that sends chunks of these sizes through a gate, until it may not."""

    def __init__(self, gate: ThreadGate, sizes: list[int]) -> None:
        self._gate = gate
        self._sizes = sizes
        self.passed = threading.Semaphore(0)
        self.count = 0
        self.was_canceled = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for size in self._sizes:
                self._gate.enter(size)
                self.count += 1
                self.passed.release()
        except Canceled:
            self.was_canceled = True

    def waits_for(self, count: int) -> None:
        """Let so many more chunks pass."""
        for _ in range(count):
            assert self.passed.acquire(timeout=PATIENCE)

    def ends(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def gate() -> Iterator[ThreadGate]:
    """A gate for ten bytes, which lets every thread go in the end."""
    gate = ThreadGate(10)
    yield gate
    gate.shut()


def test_gate_with_room(gate: ThreadGate) -> None:
    """A handler whose stream is read is not held."""
    producer = Producer(gate, [3, 3, 3])
    producer.ends()
    assert producer.count == 3


def test_gate_without_room(gate: ThreadGate) -> None:
    """A handler is held while too much is unread, and goes on as soon as enough was taken."""
    producer = Producer(gate, [6, 6, 1])
    producer.waits_for(2)
    assert not producer.passed.acquire(timeout=0.02)
    gate.leave(1)
    assert not producer.passed.acquire(timeout=0.02)
    gate.leave(2)
    producer.ends()
    assert producer.count == 3


def test_gate_with_a_large_chunk(gate: ThreadGate) -> None:
    """A chunk that is larger than the window passes when there is room."""
    producer = Producer(gate, [1000, 1000])
    producer.waits_for(1)
    gate.leave(1000)
    producer.ends()
    assert producer.count == 2


def test_gate_that_is_shut(gate: ThreadGate) -> None:
    """A handler that waits for its reader ends when there is none any more."""
    producer = Producer(gate, [10, 1])
    producer.waits_for(1)
    gate.shut()
    producer.ends()
    assert (producer.count, producer.was_canceled) == (1, True)


def test_gate_that_was_shut(gate: ThreadGate) -> None:
    """So does one that comes later, however much room there is."""
    gate.shut()
    with pytest.raises(Canceled):
        gate.enter(1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 25), max_size=20), st.integers(1, 20))
def test_gate_bounds_what_is_under_way(sizes: list[int], bound: int) -> None:
    """Never more is unread than the window and one chunk, and all passes in the end."""
    gate = ThreadGate(bound)
    producer = Producer(gate, sizes)
    unread = 0
    for taken, size in enumerate(sizes, 1):
        producer.waits_for(1)
        unread = sum(sizes[taken - 1 : producer.count])
        assert unread <= bound - 1 + max(sizes)
        gate.leave(size)
    producer.ends()
    assert producer.count == len(sizes)
    assert not producer.was_canceled
    gate.enter(bound)  # there is room again
