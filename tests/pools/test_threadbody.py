"""An arriving body as a thread reads it."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.arriving import ArrivingBody
from deferpost.errors import BodyBroken, BodyTooLarge, Canceled, HTTPError
from deferpost.pools.threadbody import UNREAD_PIECES, ThreadBody

#: Seconds after which something that is waited for will not come any more.
PATIENCE = 30.0


class Turns:
    """What a thread has the reactor do, when the test says so."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()
        self.came = threading.Event()

    def __call__(self, function: Callable[[], None]) -> None:
        """Remember it.  On any thread."""
        self._due.append(function)
        self.came.set()

    def run(self) -> None:
        """Do it all."""
        self.came.clear()
        while self._due:
            self._due.popleft()()

    def __len__(self) -> int:
        return len(self._due)


def way(bound: int = 10) -> tuple[ArrivingBody, ThreadBody, Turns]:
    """A body and its way to a thread."""
    turns = Turns()
    body = ArrivingBody(bound)
    reader = ThreadBody(body, turns, bound)
    body.deliver_to(reader)
    return body, reader, turns


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.lists(st.integers(1, 50), min_size=1),
    st.integers(1, 60),
)
def test_any_cut(pieces: list[bytes], rooms: list[int], bound: int) -> None:
    """However pieces, reads and the bound fit, the bytes are the same, and no read waits."""
    body, reader, turns = way(bound)
    for piece in pieces:
        body.receive(piece)
    body.complete()
    read = bytearray()
    for turn in range(10_000):
        room = bytearray(rooms[turn % len(rooms)])
        size = reader.readinto(room)
        read += room[:size]
        if not size:
            break
        turns.run()
    assert bytes(read) == b"".join(pieces)
    assert reader.readall() == b""


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 60))
def test_all_at_once(pieces: list[bytes], bound: int) -> None:
    """All can be read at once, while the reactor turns."""
    body, reader, turns = way(bound)
    for piece in pieces:
        body.receive(piece)
    body.complete()
    with ThreadPoolExecutor(1) as executor:
        whole = executor.submit(io.BufferedReader(reader).read)
        while not whole.done():
            turns.run()
        assert whole.result(PATIENCE) == b"".join(pieces)


def test_bound() -> None:
    """The source is paused when more than the bound is unread, and goes on at half of it."""
    body, reader, turns = way(bound=10)
    body.receive(b"0123456789")
    body.receive(b"a")
    body.receive(b"kept by the body")
    assert reader.read(5) == b"01234"
    assert len(turns) == 0
    assert reader.read(1) == b"5"
    assert len(turns) == 1
    turns.run()
    assert reader.read(100) == b"6789akept by the body"


def test_many_small_pieces() -> None:
    """Pieces are bounded in number, too, and the source goes on at half of it."""
    turns, body = Turns(), ArrivingBody()
    reader = ThreadBody(body, turns)
    body.deliver_to(reader)
    for _ in range(UNREAD_PIECES + 2):
        body.receive(b"x")
    assert len(reader.read(UNREAD_PIECES // 2) or b"") == UNREAD_PIECES // 2
    assert len(turns) == 0
    reader.read(1)
    assert len(turns) == 1
    turns.run()
    body.complete()
    assert len(reader.readall()) == UNREAD_PIECES // 2 + 1


def _blocked(reader: ThreadBody, executor: ThreadPoolExecutor) -> Future[bytes]:
    """A read in a thread that finds nothing."""
    begun = threading.Event()

    def read() -> bytes:
        begun.set()
        return reader.read(10) or b""

    future = executor.submit(read)
    assert begun.wait(PATIENCE)
    return future


def test_read_waits() -> None:
    """A read waits for the next piece, and gives it when it is there."""
    body, reader, _ = way()
    with ThreadPoolExecutor(1) as executor:
        first = _blocked(reader, executor)
        assert not first.done()
        body.receive(b"one")
        assert first.result(PATIENCE) == b"one"
        last = _blocked(reader, executor)
        body.complete()
        assert last.result(PATIENCE) == b""


@pytest.mark.parametrize("blocked", [True, False])
def test_broken(blocked: bool) -> None:
    """A read is told that the body is broken, and so is every later one."""
    body, reader, _ = way()
    with ThreadPoolExecutor(1) as executor:
        if not blocked:
            body.receive(b"one")
            body.broken(BodyTooLarge(2))
        read = _blocked(reader, executor)
        body.broken(BodyTooLarge(2))
        with pytest.raises(BodyBroken, match="larger than the 2 bytes"):
            read.result(PATIENCE)
    with pytest.raises(BodyBroken):
        reader.readall()


def test_broken_by_what_would_be_answered() -> None:
    """A handler is told why its body is broken in words, without the status of an answer."""
    body, reader, _ = way()
    body.broken(HTTPError(400, "The digest does not match."))
    with pytest.raises(BodyBroken, match=r"^The digest does not match\.$"):
        reader.readall()


@pytest.mark.parametrize("blocked", [True, False])
def test_shut(blocked: bool) -> None:
    """A read is told that nobody wants the result, whatever has come of the body."""
    body, reader, _ = way()
    with ThreadPoolExecutor(1) as executor:
        if not blocked:
            body.receive(b"one")
            body.complete()
            reader.shut()
        read = _blocked(reader, executor)
        reader.shut()
        with pytest.raises(Canceled):
            read.result(PATIENCE)


def test_close() -> None:
    """A handler that closes its body lets its client go on; what comes is dropped."""
    body, reader, turns = way()
    body.receive(b"more than the bound")
    file = reader.reader()
    file.close()
    file.close()
    assert len(turns) == 1
    turns.run()
    assert body.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_is_a_buffered_file() -> None:
    """It is a binary file, read from front to back."""
    body, reader, _ = way(bound=1000)
    for piece in (b"one\ntw", b"o\nthree", b"\n", b"rest"):
        body.receive(piece)
    body.complete()
    file = reader.reader()
    assert (file.readable(), file.writable(), file.seekable()) == (True, False, False)
    assert file.readline() == b"one\n"
    assert file.read1(2) == b"tw"
    assert list(file) == [b"o\n", b"three\n", b"rest"]
    assert file.readinto(bytearray(0)) == 0
    with pytest.raises(io.UnsupportedOperation):
        file.fileno()
