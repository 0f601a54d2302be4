"""Recording what kept jobs give: at the pace of the disk, and again where that failed."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from deferpost.errors import HandlerFailed, StoreFailed
from deferpost.interfaces import IChunkSink, IChunkSource
from deferpost.model import Reason
from deferpost.recording import WINDOW_BYTES, StreamRecorder, Unclosed


class Disk:
    """The part of a store that takes streams; the test says when it has written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.waiting: list[tuple[bytes, Deferred[None]]] = []

    def write(self, id: str, data: bytes) -> Deferred[None]:
        assert id == "job"
        answer: Deferred[None] = Deferred()
        self.waiting.append((data, answer))
        return answer

    def work(self, count: int | None = None) -> None:
        """Write what came first."""
        pieces, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for data, answer in pieces:
            self.written += data
            answer.callback(None)

    def fail(self) -> None:
        """What waits cannot be written."""
        pieces, self.waiting = self.waiting, []
        for _, answer in pieces:
            answer.errback(StoreFailed("no space is left"))


@implementer(IChunkSource)
class Source:
    """A stream; the test says what comes."""

    def __init__(self) -> None:
        self.sink: Any = None
        self.is_paused = False
        self.said: list[str] = []

    def open(self, sink: IChunkSink, apart: bool = False) -> None:
        verifyObject(IChunkSink, sink)
        self.sink = sink

    def pause(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def abandon(self, reason: Reason = Reason.CLIENT_DISCONNECTED) -> None:
        self.said.append("abandon")

    def discard(self) -> None:
        self.said.append("discard")


class Recording:
    """A stream that is recorded."""

    def __init__(self) -> None:
        self.disk, self.source = Disk(), Source()
        self.outcome: list[Any] = []
        StreamRecorder(self.disk, "job", self.source).recorded().addBoth(self.outcome.append)

    @property
    def error(self) -> BaseException:
        (failure,) = self.outcome
        assert isinstance(failure, Failure)
        assert failure.value is not None
        return failure.value


def test_recorded_when_all_is_written() -> None:
    """A stream is recorded when its end has come and all of it is written, and not before."""
    recording = Recording()
    recording.source.sink.chunk(b"one ")
    recording.source.sink.chunk(b"two")
    recording.source.sink.end()
    recording.disk.work(1)
    assert recording.outcome == []
    recording.disk.work()
    assert recording.outcome == [None]
    assert recording.disk.written == b"one two"


def test_empty_stream() -> None:
    """A stream of nothing is recorded at its end."""
    recording = Recording()
    recording.source.sink.end()
    assert recording.outcome == [None]


def test_pace_of_the_disk() -> None:
    """A stream is held back while much waits for the disk, and goes on when half is written."""
    recording = Recording()
    piece = bytes(WINDOW_BYTES // 4)
    for _ in range(3):
        recording.source.sink.chunk(piece)
    assert not recording.source.is_paused
    recording.source.sink.chunk(piece)
    recording.source.sink.chunk(piece)  # one was under way
    assert recording.source.is_paused
    recording.disk.work(3)
    assert recording.source.is_paused
    recording.disk.work(1)
    assert not recording.source.is_paused


def test_end_while_it_is_held_back() -> None:
    """A stream that has ended is not told to go on."""
    recording = Recording()
    recording.source.sink.chunk(bytes(WINDOW_BYTES))
    recording.source.sink.end()
    recording.disk.work()
    assert recording.outcome == [None]
    assert recording.source.is_paused


def test_stream_that_breaks_off() -> None:
    """The error of a stream is what comes of it, once."""
    recording = Recording()
    recording.source.sink.chunk(b"one")
    error = HandlerFailed("words")
    recording.source.sink.fail(error)
    recording.disk.work()
    assert recording.error is error


def test_disk_that_fails() -> None:
    """Where a piece cannot be written the stream is given up, and what comes on is dropped."""
    recording = Recording()
    recording.source.sink.chunk(b"one")
    recording.source.sink.chunk(b"two")
    recording.disk.fail()
    assert isinstance(recording.error, StoreFailed)
    assert recording.source.said == ["abandon"]
    recording.source.sink.chunk(b"three")
    assert recording.disk.waiting == []
    recording.source.sink.fail(HandlerFailed("canceled"))
    assert len(recording.outcome) == 1


def test_disk_that_fails_after_the_end() -> None:
    """Where the last piece cannot be written, there is nobody to be told to stop."""
    recording = Recording()
    recording.source.sink.chunk(b"one")
    recording.source.sink.end()
    recording.disk.fail()
    assert isinstance(recording.error, StoreFailed)
    assert recording.source.said == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("chunk"), st.integers(0, WINDOW_BYTES)),
            st.tuples(st.just("work"), st.integers(1, 5)),
        ),
        max_size=40,
    )
)
def test_whatever_comes_when(steps: list[tuple[str, int]]) -> None:
    """However chunks and disk take turns, all is written in order, and the wait is bounded."""
    recording = Recording()
    sent = bytearray()
    for number, (what, size) in enumerate(steps):
        if what == "work":
            recording.disk.work(size)
        elif not recording.source.is_paused:
            data = bytes([number]) * size
            sent += data
            recording.source.sink.chunk(data)
        under_way = sum(len(data) for data, _ in recording.disk.waiting)
        assert under_way < 2 * WINDOW_BYTES
        assert recording.source.is_paused or under_way < WINDOW_BYTES
    recording.source.sink.end()
    recording.disk.work()
    assert recording.outcome == [None]
    assert recording.disk.written == sent


# Files that are read again.


def test_a_file_that_outlives_its_reader() -> None:
    """Whoever reads may close it, and it can be read again from where that began."""
    file = io.BytesIO(b"not this: content")
    file.seek(10)
    body = Unclosed(file)
    assert body.readable()
    assert body.tell() == 10
    with body:
        assert (body.read(3), body.read()) == (b"con", b"tent")
    assert not file.closed
    body.again()
    assert body.read() == b"content"
    assert body.error is None
    file.close()


def test_a_file_with_a_descriptor(tmp_path: Any) -> None:
    """The descriptor of a file is that of the file."""
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb", buffering=0) as file:
        assert Unclosed(file).fileno() == file.fileno()


class Torn(io.BytesIO):
    """A file of which the disk has lost a part."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_file_that_cannot_be_read() -> None:
    """That it cannot be read is told from that it cannot be kept."""
    body = Unclosed(Torn(b"content"))
    with pytest.raises(OSError, match="Input/output"):
        body.read()
    assert isinstance(body.error, OSError)
    body.again()
    with pytest.raises(OSError, match="Input/output"):
        body.read()


def test_a_file_that_was_closed() -> None:
    """One that its handler has closed cannot be read, nor gone back in."""
    file = io.BytesIO(b"content")
    file.close()
    body = Unclosed(file)
    with pytest.raises(ValueError, match="closed"):
        body.read()
    body.again()
    assert isinstance(body.error, ValueError)


def test_a_pipe() -> None:
    """What has no places to go back to cannot be recorded as a file."""
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading, "rb", buffering=0) as file:
        body = Unclosed(file)
        assert isinstance(body.error, OSError)
        with pytest.raises(OSError, match="seek"):
            body.read()
