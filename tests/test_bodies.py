"""Keeping a body that arrives, and writing one that leaves at the pace of the client."""

from __future__ import annotations

import errno
import gc
import io
import os
import resource
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from deferpost import bodies
from deferpost.bodies import PIECE_BYTES, BodyWriter, SpooledBody, body_size, take_body
from deferpost.interfaces import IChunkSink
from deferpost.model import Answer, Reason
from deferpost.pools.frames import CHUNK_COST
from deferpost.pools.streams import ChunkBuffer

# A body that arrives


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Make writing fail behind so many bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def spooled(*pieces: bytes, memory: int = 10, limit: int = 100) -> SpooledBody:
    """A body that has arrived in these pieces."""
    body = SpooledBody(memory, limit)
    for piece in pieces:
        assert body.write(piece) == len(piece)
    return body


@pytest.mark.parametrize("pieces", [[], [b""], [b"12345"], [b"12345", b"67890"]])
def test_small_body_stays_in_memory(pieces: list[bytes]) -> None:
    """A small body never touches the disk."""
    body = spooled(*pieces)
    taken = body.take()
    assert isinstance(taken, io.BytesIO)
    assert taken.tell() == 0
    assert taken.read() == b"".join(pieces)


@pytest.mark.parametrize("pieces", [[b"12345678901"], [b"12345", b"67890", b"1"], [b"1"] * 11])
def test_large_body_is_in_a_file(pieces: list[bytes]) -> None:
    """A larger one is in a file, whole, at its beginning; it is read line by line quickly."""
    with spooled(*pieces).take() as taken:
        assert os.fstat(taken.fileno()).st_size == 11
        assert taken.tell() == 0
        assert isinstance(taken, io.BufferedReader)
        assert taken.read() == b"".join(pieces)


def test_file_is_where_the_operator_wants_it(tmp_path: Path) -> None:
    """The file is made in the given directory, and has no name there."""
    body = SpooledBody(1, 100, str(tmp_path))
    body.write(b"12345")
    with body.take() as taken:
        assert os.fstat(taken.fileno()).st_dev == os.stat(tmp_path).st_dev
        assert list(tmp_path.iterdir()) == []


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(0, 40), st.integers(0, 120))
def test_any_pieces(pieces: list[bytes], memory: int, limit: int) -> None:
    """However a body comes, it is kept whole, or known to be too large; its size is known."""
    body = spooled(*pieces, memory=memory, limit=limit)
    whole = b"".join(pieces)
    assert body.tell() == body_size(body) == len(whole)
    assert body.too_large == (len(whole) > limit)
    assert body.failure is None
    with body.take() as taken:
        assert taken.read() == (b"" if body.too_large else whole)


@pytest.mark.parametrize("memory", [1, 1000])
def test_too_large(memory: int) -> None:
    """What is over the limit is dropped with all that came before, and counted."""
    body = spooled(b"1" * 60, b"2" * 41, b"3", memory=memory)
    assert body.too_large
    assert body.tell() == 102
    assert body.read() == b""
    assert body.seek(0) == 0
    assert body.take().read() == b""


def test_limit_itself_is_not_too_large() -> None:
    """A body may be as large as the limit."""
    assert not spooled(b"1" * 100).too_large


def test_no_directory(tmp_path: Path) -> None:
    """A directory that is gone is no error for whoever writes; it is remembered."""
    body = SpooledBody(10, 100, str(tmp_path / "gone"))
    body.write(b"12345")
    assert body.failure is None
    body.write(b"1234567890")
    assert isinstance(body.failure, FileNotFoundError)
    body.write(b"more")
    assert body.tell() == 19
    assert body.take().read() == b""
    assert not body.too_large


@pytest.mark.parametrize(
    "pieces",
    [
        [b"1" * 9, b"2" * 9],  # while what was in memory is written
        [b"1" * 9, b"2" * 2, b"3" * 40],  # afterwards
        [b"1" * 60],
    ],
)
def test_full_disk(pieces: list[bytes]) -> None:
    """A full disk is no error for whoever writes; it is remembered, and nothing is kept."""
    with small_disk(8 if len(pieces) == 2 else 20):
        body = spooled(*pieces, b"more")
    assert body.failure is not None
    assert body.failure.errno == errno.EFBIG
    assert body.tell() == sum(map(len, pieces)) + 4
    assert body.take().read() == b""


def test_full_disk_lets_go_of_the_data() -> None:
    """The error that is remembered does not hold on to what could not be written."""
    body = SpooledBody(0, 10**9)
    data = memoryview(bytearray(b"1" * 100))
    gone = weakref.ref(data)
    with small_disk(10):
        body.write(data)
    del data
    gc.collect()
    assert body.failure is not None
    assert gone() is None


def test_what_was_taken_is_gone() -> None:
    """A body is taken once: it is not closed with the request, nor written any more."""
    body = spooled(b"12345")
    taken = body.take()
    body.write(b"67890")
    body.close()
    assert taken.read() == b"12345"
    assert body.take().read() == b""


def test_what_was_not_taken_is_closed() -> None:
    """A body that nobody took goes with its request."""
    body = spooled(b"1" * 50)
    file = body.take()
    again = SpooledBody(1, 100)
    again.write(b"12345")
    again.close()
    assert again.closed
    file.close()


def test_other_resources_read_it() -> None:
    """To a resource that is not ours, it is the content of a request like any other."""
    body = spooled(b"first\nsecond")
    assert body.readable()
    assert body.seek(0) == 0
    assert body.read(3) == b"fir"
    assert body.readline() == b"st\n"
    assert body.read() == b"second"


@pytest.mark.parametrize(
    "make",
    [
        io.BytesIO,
        tempfile.TemporaryFile,
        partial(tempfile.SpooledTemporaryFile, max_size=100),
        partial(tempfile.SpooledTemporaryFile, max_size=2),
        partial(SpooledBody, 100, 1000),
        partial(SpooledBody, 2, 1000),
    ],
)
def test_take_a_body(make: Callable[[], Any]) -> None:
    """Whatever a site keeps bodies in, its size is known and it can be taken from its request."""
    content = make()
    content.write(b"content")
    content.seek(0, 0)  # as Twisted does when the body is complete
    assert body_size(content) == 7
    request = SimpleNamespace(content=content)
    with take_body(request) as body:
        assert request.content.read() == b""
        request.content.close()  # as Twisted does when the client leaves
        assert body.read() == b"content"
    content.close()


def test_take_a_body_that_was_read() -> None:
    """A body that somebody has read before is taken at its beginning."""
    request = SimpleNamespace(content=io.BytesIO(b"content"))
    request.content.read()
    assert take_body(request).read() == b"content"


# A body that leaves


class FakeRequest:
    """A request on a transport whose buffer the test fills and empties.

    Like Twisted's, it pauses the producer at every write that finds the buffer full, and tells
    nobody who registers while it is.
    """

    def __init__(self, *, is_full: Callable[[int], bool] = lambda count: False) -> None:
        self.pieces: list[bytes] = []
        self.producer: Any = None
        self.registrations = 0
        self.is_paused = False
        self._is_full = is_full
        self.at_write: Callable[[], None] | None = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert verifyObject(IPushProducer, producer)
        assert streaming
        assert self.producer is None
        self.producer = producer
        self.registrations += 1

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert not self.is_paused, "nothing is written while the transport has enough"
        self.pieces.append(data)
        if self.at_write is not None:
            self.at_write()
        if self._is_full(len(self.pieces)):
            self.is_paused = True
            self.producer.pauseProducing()

    def resume(self) -> None:
        """The client has read what there was."""
        self.is_paused = False
        if self.producer is not None:
            self.producer.resumeProducing()

    @property
    def written(self) -> bytes:
        return b"".join(self.pieces)


class CountedFile(io.BytesIO):
    """A file that counts how often it was closed, and reads in bounded pieces."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.closings = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= bodies.PIECE_BYTES
        return super().read(size)

    def close(self) -> None:
        self.closings += 1
        super().close()


class Writing:
    """A body that is written, and what its writer said at last."""

    def __init__(self, request: FakeRequest, body: Any, length: int | None) -> None:
        self.request = request
        self.body = body
        self.said: list[Exception | None] = []
        self.writer = BodyWriter(
            request,
            Answer(200, (), body, length),
            lambda: self.said.append(None),
            self.said.append,
        )


class Worker:
    """The worker's end of a stream: what it was told."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.abandoned: list[Reason] = []
        self.buffer = ChunkBuffer(taken=self.taken.append, abandoned=self.abandoned.append)

    @property
    def taken_bytes(self) -> int:
        """Bytes of the chunks that it heard were taken, which came one by one."""
        return sum(self.taken) - CHUNK_COST * len(self.taken)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the bodies of these tests are large ones."""
    monkeypatch.setattr(bodies, "PIECE_BYTES", 4)


def of_bytes(data: bytes, request: FakeRequest) -> Writing:
    return Writing(request, data, len(data))


def of_file(data: bytes, request: FakeRequest) -> Writing:
    return Writing(request, CountedFile(data), len(data))


def of_part_of_a_file(data: bytes, request: FakeRequest) -> Writing:
    return Writing(request, CountedFile(data + b"grown since"), len(data))


def of_finished_stream(data: bytes, request: FakeRequest) -> Writing:
    worker = Worker()
    for start in range(0, len(data), 3):
        worker.buffer.deliver(data[start : start + 3])
    worker.buffer.finish()
    return Writing(request, worker.buffer, None)


def of_large_chunks(data: bytes, request: FakeRequest) -> Writing:
    worker = Worker()
    for start in range(0, len(data), 11):
        worker.buffer.deliver(data[start : start + 11])
    worker.buffer.finish()
    return Writing(request, worker.buffer, None)


KINDS = [of_bytes, of_file, of_part_of_a_file, of_finished_stream, of_large_chunks]
DATA = bytes(range(64, 64 + 25))


def closings(writing: Writing) -> int:
    """How often the file of a body was closed; 1 for what has none."""
    return writing.body.closings if isinstance(writing.body, CountedFile) else 1


def test_it_is_a_producer_and_a_sink() -> None:
    """The writer is what the transport and the stream expect."""
    writer = of_bytes(DATA, FakeRequest()).writer
    assert verifyObject(IPushProducer, writer)
    assert verifyObject(IChunkSink, writer)
    assert PIECE_BYTES == 64 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_to_a_client_that_reads(kind: Callable[[bytes, FakeRequest], Writing]) -> None:
    """A client that reads gets all of it at once, in bounded pieces."""
    data = DATA * 300
    writing = kind(data, FakeRequest())
    writing.writer.start()
    assert writing.request.written == data
    assert max(map(len, writing.request.pieces)) <= 4
    assert writing.said == [None]
    assert writing.request.producer is None
    assert closings(writing) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", [{count} for count in range(1, 12)] + [set(range(99))])
def test_to_a_client_that_is_slow(
    kind: Callable[[bytes, FakeRequest], Writing], when: set[int]
) -> None:
    """Wherever the client stops reading, the writer stops, and goes on when it reads again."""
    request = FakeRequest(is_full=lambda count: count in when)
    writing = kind(DATA, request)
    writing.writer.start()
    pauses = 0
    while request.is_paused:
        pauses += 1
        assert writing.said == []
        request.resume()
    assert pauses <= len(request.pieces)
    assert request.written == DATA
    assert writing.said == [None]
    assert closings(writing) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_transport_that_pauses_and_resumes_at_once(
    kind: Callable[[bytes, FakeRequest], Writing],
) -> None:
    """A transport that changes its mind in every write neither loses nor doubles anything."""
    request = FakeRequest()
    writing = kind(DATA * 300, request)

    def blink() -> None:
        request.producer.pauseProducing()
        request.producer.resumeProducing()

    request.at_write = blink
    writing.writer.start()
    assert request.written == DATA * 300
    assert writing.said == [None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", range(9))
@pytest.mark.parametrize("finish", [True, False])
def test_client_that_leaves(
    kind: Callable[[bytes, FakeRequest], Writing], moment: int, finish: bool
) -> None:
    """Whenever the client leaves, nothing more is written and the file is closed, once."""
    request = FakeRequest(is_full=lambda count: True)
    writing = kind(DATA, request)
    writing.writer.start()
    for _ in range(moment):
        request.resume()
    had = list(request.pieces)
    was_over = bool(writing.said)
    writing.writer.stopProducing()
    for _ in range(2):
        writing.writer.stop(finish=finish)
    writing.writer.resumeProducing()
    writing.writer.pauseProducing()
    writing.writer.resumeProducing()
    assert request.pieces == had
    assert writing.said == ([None] if was_over else [])
    assert closings(writing) == 1


@pytest.mark.parametrize("is_full", [True, False])
def test_file_that_has_shrunk(is_full: bool) -> None:
    """A file that is shorter than it was breaks the answer off, rather than to end it."""
    request = FakeRequest(is_full=lambda count: is_full)
    file = CountedFile(DATA)
    writing = Writing(request, file, len(DATA) + 5)
    writing.writer.start()
    while request.is_paused:
        request.resume()
    (error,) = writing.said
    assert isinstance(error, OSError)
    assert "shorter than it was" in str(error)
    assert request.written == DATA
    assert request.producer is None
    writing.writer.stop(finish=False)
    assert file.closings == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), ValueError("read of closed file")])
def test_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A file that fails in the middle, or that somebody has closed, breaks the answer off."""
    request = FakeRequest(is_full=lambda count: True)
    file = CountedFile(DATA)
    writing = Writing(request, file, len(DATA))
    writing.writer.start()

    def read(size: int) -> bytes:
        raise error

    monkeypatch.setattr(file, "read", read)
    request.resume()
    assert writing.said == [error]
    assert request.written == DATA[:4]
    assert file.closings == 1


@pytest.mark.parametrize("data", [b"", b"x", b"1234", b"12345", b"12345678"])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_around_a_piece(kind: Callable[[bytes, FakeRequest], Writing], data: bytes) -> None:
    """Bodies of no bytes, of just one piece and of one byte more are whole, too."""
    writing = kind(data, FakeRequest(is_full=lambda count: True))
    writing.writer.start()
    while writing.request.is_paused:
        writing.request.resume()
    assert writing.request.written == data
    assert writing.said == [None]


def test_transport_that_is_full_already() -> None:
    """Where the transport still has enough of an earlier response, one piece is written at most."""
    request = FakeRequest(is_full=lambda count: True)
    writing = of_file(DATA, request)
    writing.writer.start()
    assert len(request.pieces) == 1
    assert writing.said == []


# Streams


def streaming(request: FakeRequest) -> tuple[Worker, Writing]:
    """A stream whose worker has given nothing yet."""
    worker = Worker()
    writing = Writing(request, worker.buffer, None)
    writing.writer.start()
    return worker, writing


def test_stream_sends_its_headers_first() -> None:
    """The headers leave before the worker has given anything."""
    _, writing = streaming(FakeRequest())
    assert writing.request.pieces == [b""]
    assert writing.said == []


def test_chunk_by_chunk() -> None:
    """Each chunk leaves as it comes."""
    worker, writing = streaming(FakeRequest())
    for chunk in (b"a", b"bc", b"d"):
        worker.buffer.deliver(chunk)
    assert writing.request.pieces == [b"", b"a", b"bc", b"d"]
    worker.buffer.finish()
    assert writing.said == [None]


def test_slow_client_holds_the_worker() -> None:
    """A client that does not read holds the worker back, until it reads again."""
    worker, writing = streaming(FakeRequest(is_full=lambda count: count == 2))
    worker.buffer.deliver(b"a")
    worker.buffer.deliver(b"b")
    assert worker.taken_bytes == 1
    assert writing.request.written == b"a"
    writing.request.resume()
    assert worker.taken_bytes == 2
    assert writing.request.written == b"ab"


def test_large_chunk_holds_the_worker_until_it_has_left() -> None:
    """Of a large chunk one piece after the other leaves; the worker waits for the last."""
    worker, writing = streaming(FakeRequest(is_full=lambda count: count > 1))
    worker.buffer.deliver(b"123456789")
    worker.buffer.deliver(b"!")
    assert writing.request.pieces == [b"", b"1234"]
    for pieces in ([b"5678"], [b"5678", b"9"]):
        writing.request.resume()
        assert writing.request.pieces[2:] == pieces
        assert worker.taken_bytes == 9
    writing.request.resume()
    assert worker.taken_bytes == 10
    assert writing.request.pieces[4:] == [b"!"]


def test_large_chunks_to_a_transport_that_changes_its_mind() -> None:
    """What waits behind a large chunk waits until it has left, also where writing wakes it."""
    request = FakeRequest(is_full=lambda count: count == 2)
    worker, writing = streaming(request)
    chunks = [b"123456789", b"abcdefghi", b"ABCDEFGHI"]
    for chunk in chunks:
        worker.buffer.deliver(chunk)
    assert request.written == b"1234"

    def blink() -> None:
        request.producer.pauseProducing()
        request.producer.resumeProducing()

    request.at_write = blink
    request.resume()
    assert request.written == b"".join(chunks)
    worker.buffer.finish()
    assert writing.said == [None]


def test_end_while_the_client_is_slow() -> None:
    """A stream whose worker is done ends when the client has read, and not before."""
    worker, writing = streaming(FakeRequest(is_full=lambda count: count == 2))
    worker.buffer.deliver(b"a")
    worker.buffer.finish()
    assert writing.said == []
    writing.request.resume()
    assert writing.said == [None]


@pytest.mark.parametrize("chunk", [b"", b"a", b"123456789"])
@pytest.mark.parametrize("is_full", [True, False])
def test_stream_that_breaks_off(chunk: bytes, is_full: bool) -> None:
    """A stream that breaks off says so at once, whatever is still to be written."""
    worker, writing = streaming(FakeRequest(is_full=lambda count: is_full))
    if not is_full or not writing.request.is_paused:
        worker.buffer.deliver(chunk)
    error = ValueError("no")
    worker.buffer.finish(error)
    assert writing.said == [error]
    assert writing.request.producer is None
    writing.writer.stop(finish=False)
    writing.writer.resumeProducing()
    assert writing.said == [error]
    assert worker.abandoned == []


@pytest.mark.parametrize("chunks", [[], [b"a"], [b"123456789"], [b"a", b"123456789", b"b"]])
@pytest.mark.parametrize("is_full", [True, False])
@pytest.mark.parametrize("finish", [True, False])
def test_client_leaves_a_stream(chunks: list[bytes], is_full: bool, finish: bool) -> None:
    """When the client leaves a stream, its worker is canceled, or goes on and is told to."""
    worker, writing = streaming(FakeRequest(is_full=lambda count: is_full))
    for chunk in chunks:
        worker.buffer.deliver(chunk)
    had = list(writing.request.pieces)
    writing.writer.stopProducing()
    writing.writer.stop(finish=finish)
    writing.writer.pauseProducing()
    worker.buffer.deliver(b"more")
    worker.buffer.finish()
    writing.writer.resumeProducing()
    assert writing.request.pieces == had
    assert writing.said == []
    assert worker.abandoned == ([] if finish else [Reason.CLIENT_DISCONNECTED])
    if finish:
        assert sum(worker.taken) >= sum(len(chunk) + CHUNK_COST for chunk in [*chunks, b"more"])


def test_failure_after_the_client_left() -> None:
    """A stream that breaks off after its client has left breaks nothing."""
    _, writing = streaming(FakeRequest())
    writing.writer.stop(finish=True)
    writing.writer.fail(ValueError("no"))
    assert writing.said == []


def test_source_that_ends_though_it_is_paused() -> None:
    """Where a source ends in the middle of a pause, the answer ends when the client has read."""
    _, writing = streaming(FakeRequest(is_full=lambda count: True))
    writing.writer.end()
    assert writing.said == []
    writing.request.resume()
    assert writing.said == [None]


EVENTS = st.one_of(
    st.tuples(st.just("deliver"), st.integers(1, 15)),
    st.tuples(st.just("resume"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("break"), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 1)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=25), st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
@example([("deliver", 15), ("resume", 0), ("end", 0), ("resume", 0)], {1, 2, 3}, set())
def test_streams_in_any_order(
    events: list[tuple[str, int]], full: set[int], blinks: set[int]
) -> None:
    """Whatever the worker, the transport and the client do in any order, one end comes of it.

    The client has a beginning of what was delivered; all of it, if the answer was finished.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "PIECE_BYTES", 4)
        request = FakeRequest(is_full=lambda count: count in full)

        def blink() -> None:
            if len(request.pieces) in blinks and request.producer is not None:
                request.producer.pauseProducing()
                request.producer.resumeProducing()

        request.at_write = blink
        worker, writing = streaming(request)
        delivered, count = b"", 0
        ended = left = False
        for event, number in events:
            if event == "deliver" and not ended:
                chunk = bytes([len(delivered) % 256]) * number
                delivered += chunk
                count += 1
                worker.buffer.deliver(chunk)
            elif event == "resume" and request.is_paused:
                request.resume()
            elif event in ("end", "break") and not ended:
                ended = True
                worker.buffer.finish(None if event == "end" else ValueError("no"))
            elif event == "leave" and not left and not writing.said:
                left = True
                had = request.written
                writing.writer.stop(finish=bool(number))
            assert delivered.startswith(request.written)
            assert not (left and request.written != had)
            assert len(writing.said) + left <= 1
            if writing.said == [None]:
                assert request.written == delivered
            if not left and not ended and not request.is_paused:
                assert request.written == delivered
                assert sum(worker.taken) == len(delivered) + count * CHUNK_COST
            if ended and not left and not request.is_paused:
                assert len(writing.said) == 1
            assert (request.producer is None) == bool(writing.said)
