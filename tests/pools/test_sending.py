"""What a worker sends and when: whole frames, few of them, within the reader's credit."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferpost.errors import Canceled
from deferpost.model import Progress
from deferpost.pools.frames import (
    CHUNK_COST,
    Chunks,
    End,
    FrameReader,
    Moved,
    Raised,
    Ready,
    RepliedFile,
    Streams,
    decode_from_worker,
)
from deferpost.pools.sending import PIECE_BYTES, PROGRESS_PAUSE, RunControl, Sender
from deferpost.pools.streams import CreditGiver

#: Seconds for which a test waits before it gives up.
PATIENCE = 10.0

HEAD = Streams(200, ())


class Told:
    """Was told to stop, or was not."""

    canceled = False


class Reader:
    """The other end: takes what comes, and gives credit for it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        theirs.settimeout(PATIENCE)
        self._theirs = theirs
        self._frames = FrameReader()
        self.messages: list[Any] = []
        credit: SimpleQueue[int] = SimpleQueue()
        self._giver = CreditGiver(credit.put)
        self.sender = Sender(self.ours, lambda: credit.get(timeout=PATIENCE))

    def read(self) -> None:
        """Take what is there, at least something."""
        for payload in self._frames.feed(self._theirs.recv(1 << 20)):
            message = decode_from_worker(payload)
            self.messages.append(message)
            if isinstance(message, Chunks):
                for piece in message.pieces:
                    self._giver.taken(len(piece) + CHUNK_COST)

    def read_until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.read()

    @property
    def chunks(self) -> list[bytes]:
        return [p for each in self.messages if isinstance(each, Chunks) for p in each.pieces]

    @property
    def progress(self) -> list[Progress]:
        return [each.progress for each in self.messages if isinstance(each, Moved)]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read to the end of the run, while it runs."""
        thread = threading.Thread(target=self.read_until, args=(self.is_ended,), daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert self.is_ended()

    def is_ended(self) -> bool:
        return bool(self.messages) and isinstance(self.messages[-1], (End, Raised))

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    """The other end of a worker's socket."""
    reader = Reader()
    yield reader
    reader.close()


def test_chunks_in_order(reader: Reader) -> None:
    """What is yielded comes in order, after the head, and before the end."""
    reader.sender.begin(Told())
    reader.sender.stream(HEAD, iter([b"a", b"b", bytes(20_000), b"c"]))
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert reader.messages[0] == HEAD
    assert reader.chunks == [b"a", b"b", bytes(20_000), b"c"]
    assert isinstance(reader.messages[-1], End)


def test_no_chunk_at_all(reader: Reader) -> None:
    """A stream that yields nothing has a head and an end."""
    reader.sender.begin(Told())
    reader.sender.stream(HEAD, iter([]))
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert reader.messages == [HEAD, End()]


def test_error_before_the_first_chunk(reader: Reader) -> None:
    """Where a stream fails before its first chunk, its head is not sent: the error is all."""

    def chunks() -> Iterator[bytes]:
        raise ZeroDivisionError
        yield b""

    reader.sender.begin(Told())
    with pytest.raises(ZeroDivisionError):
        reader.sender.stream(HEAD, chunks())
    reader.sender.end(Raised("no"))
    reader.sender.begin(Told())
    reader.sender.end(Raised("again"))
    reader.read_until(lambda: len(reader.messages) == 2)
    assert reader.messages == [Raised("no"), Raised("again")]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from([1, 7, 1000, 16 * 1024, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]),
        max_size=120,
    )
)
def test_any_sizes(sizes: list[int]) -> None:
    """Whatever the sizes of chunks, the reader has their bytes, in pieces that have a bound."""
    reader = Reader()
    try:
        chunks = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
        with reader.reading():
            reader.sender.begin(Told())
            reader.sender.stream(HEAD, iter(chunks))
            reader.sender.end(End())
        assert b"".join(reader.chunks) == b"".join(chunks)
        assert max(map(len, reader.chunks), default=0) <= PIECE_BYTES
    finally:
        reader.close()


def test_many_chunks_in_few_messages(reader: Reader) -> None:
    """Tiny chunks that come quickly travel together, and stay chunks of their own."""
    with reader.reading():
        reader.sender.begin(Told())
        reader.sender.stream(HEAD, (b"%d" % number for number in range(50_000)))
        reader.sender.end(End())
    assert reader.chunks == [b"%d" % number for number in range(50_000)]
    assert len(reader.messages) < 5_000


def test_window(reader: Reader) -> None:
    """Without credit no more is sent than the window and one piece."""
    made = 0

    def chunks() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(PIECE_BYTES)

    class OutOfCredit(Exception):
        """The test has seen enough."""

    def refuse() -> int:
        raise OutOfCredit

    sender = Sender(reader.ours, refuse)
    reading = threading.Thread(
        target=reader.read_until, args=(lambda: len(reader.chunks) >= 4,), daemon=True
    )
    reading.start()
    sender.begin(Told())
    with pytest.raises(OutOfCredit):
        sender.stream(HEAD, chunks())
    reading.join(PATIENCE)
    assert made == 5
    assert sum(map(len, reader.chunks)) == 4 * PIECE_BYTES


def test_chunk_that_nothing_follows(reader: Reader) -> None:
    """A chunk leaves though the handler goes on to compute and yields no other."""
    seen = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"a"
        yield b"b"
        assert seen.wait(PATIENCE), "the reader has both"
        yield b"c"

    def read() -> None:
        reader.read_until(lambda: reader.chunks == [b"a", b"b"])
        seen.set()

    threading.Thread(target=read, daemon=True).start()
    reader.sender.begin(Told())
    reader.sender.stream(HEAD, chunks())
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert reader.chunks == [b"a", b"b", b"c"]


def test_last_progress_while_the_job_runs(reader: Reader) -> None:
    """Of much progress the last is told while the job still runs, in few messages."""
    control = reader.sender.begin(Told())
    for done in range(100_000):
        control.report(done, 100_000, "")
    control.report(100_000, 100_000, "all")
    reader.read_until(lambda: reader.progress and reader.progress[-1].message == "all")
    assert reader.progress[-1] == Progress(100_000.0, 100_000.0, "all")
    assert len(reader.progress) < 100
    told = len(reader.progress)
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert len(reader.progress) == told


def test_progress_of_another_thread(reader: Reader) -> None:
    """Progress may be told by any thread of the handler."""
    control = reader.sender.begin(Told())
    thread = threading.Thread(target=control.report, args=(1, 2, "half"))
    thread.start()
    thread.join()
    reader.read_until(lambda: reader.progress)
    assert reader.progress == [Progress(1.0, 2.0, "half")]


def test_progress_before_the_end(reader: Reader) -> None:
    """What was told last comes before the end, however soon that is."""
    control = reader.sender.begin(Told())
    control.report(1, None, "")
    control.report(2, None, "")
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert reader.progress[-1] == Progress(2.0)


def test_progress_and_chunks(reader: Reader) -> None:
    """Chunks are not kept back until progress may be told again."""
    times: list[float] = []

    def read() -> None:
        for count in (1, 2, 3):
            reader.read_until(lambda c=count: len(reader.chunks) >= c)  # type: ignore[misc]
            seen[count].set()

    seen = {count: threading.Event() for count in (1, 2, 3)}
    control = reader.sender.begin(Told())

    def chunks() -> Iterator[bytes]:
        for count in (1, 2, 3):
            control.report(count, 3, "")
            yield b"%d" % count
            control.report(count + 0.5, 3, "")
            assert seen[count].wait(PATIENCE)
            times.append(count)

    threading.Thread(target=read, daemon=True).start()
    reader.sender.stream(HEAD, chunks())
    reader.sender.end(End())
    assert times == [1, 2, 3]


def test_thread_that_was_left_behind(reader: Reader) -> None:
    """What a thread of an earlier call still tells is not told of the next."""
    earlier = reader.sender.begin(Told())
    reader.sender.end(End())
    later = reader.sender.begin(Told())
    earlier.report(1, None, "secret")
    later.report(2, None, "mine")
    earlier.report(3, None, "secret")
    reader.sender.end(End())
    reader.read_until(lambda: len([m for m in reader.messages if isinstance(m, End)]) == 2)
    assert {each.message for each in reader.progress} == {"mine"}


def test_what_is_no_progress(reader: Reader) -> None:
    """Progress without a number is not told, and stops nothing."""
    control = reader.sender.begin(Told())
    control.report("half", None, "")
    reader.sender.end(End())
    reader.read_until(reader.is_ended)
    assert reader.messages == [End()]


def test_frame_that_was_cut_off() -> None:
    """After a frame was cut off by a signal, nothing is sent that could be taken for its rest."""

    class Cut:
        """A socket whose first frame is cut off."""

        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def sendall(self, data: bytes) -> None:
            self.sent.append(data[:3])
            raise Canceled

        sendmsg = sendall

    for large in (False, True):
        cut: Any = Cut()
        sender = Sender(cut, lambda: 1)
        sender.begin(Told())
        with pytest.raises(Canceled):
            sender.stream(HEAD, iter([bytes(PIECE_BYTES if large else 1)]))
        count = len(cut.sent)
        sender.send(Ready())
        sender.end(End())
        sender.begin(Told())
        sender.stream(HEAD, iter([bytes(PIECE_BYTES)]))
        assert len(cut.sent) == count


def test_piece_that_is_sent_in_parts(reader: Reader) -> None:
    """A piece arrives whole from a socket that takes little at a time."""

    class Slow:
        """Takes a few bytes of what is sent at once."""

        def __init__(self, most: int) -> None:
            self.most = most

        def sendmsg(self, parts: tuple[bytes, bytes]) -> int:
            data = b"".join(parts)[: self.most]
            reader.ours.sendall(data)
            return len(data)

        def sendall(self, data: bytes) -> None:
            reader.ours.sendall(data)

    for most in (3, 100):
        slow: Any = Slow(most)
        sender = Sender(slow, lambda: 1)
        sender.begin(Told())
        sender.stream(HEAD, iter([bytes(PIECE_BYTES)]))
        sender.end(End())
        reader.read_until(reader.is_ended)
        assert reader.messages == [HEAD, Chunks([bytes(PIECE_BYTES)]), End()]
        reader.messages.clear()


def test_descriptor(reader: Reader, tmp_path: Any) -> None:
    """A file goes with its message, after what was told before."""
    control = reader.sender.begin(Told())
    control.report(1, None, "")
    with (tmp_path / "file").open("wb") as file:
        reader.sender.end(RepliedFile(200, (), 0), file.fileno())
    reader.read_until(lambda: any(isinstance(each, RepliedFile) for each in reader.messages))
    assert reader.progress == [Progress(1.0)]


def test_reader_that_is_gone(reader: Reader) -> None:
    """That nobody is there any more ends no thread with an error."""
    control = reader.sender.begin(Told())
    reader.close()
    control.report(1, None, "")
    thread = reader.sender._thread
    assert thread is not None
    thread.join(3 * PROGRESS_PAUSE)
    assert thread.is_alive()
    reader.sender.end(End())


def test_canceled() -> None:
    """A handler sees that its worker was told to stop."""
    told = Told()
    control = RunControl(Sender(None, lambda: 1), told)  # type: ignore[arg-type]  # nothing is sent
    assert not control.canceled
    told.canceled = True
    assert control.canceled
