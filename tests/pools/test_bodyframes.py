"""Reading an arriving body from a pipe, wherever it is cut."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import BodyBroken
from deferpost.pools.bodyframes import READ_BYTES, WHOLE, PipeReader, broken_frame, piece_header


def framed(*pieces: bytes) -> bytes:
    """Pieces as they go through the pipe."""
    return b"".join(piece_header(len(piece)) + piece for piece in pieces)


@contextlib.contextmanager
def pipe_with(*writes: bytes) -> Iterator[PipeReader]:
    """The reader of a pipe into which each write goes when the last was read, and its end."""
    reading_end, writing_end = os.pipe()
    watching_end = os.dup(reading_end)

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing_end, "wb", buffering=0) as file:
            for data in writes:
                file.write(data)
                while select.select([watching_end], [], [], 0)[0]:
                    time.sleep(0)  # until it was read

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with PipeReader(reading_end) as reader:
            yield reader
    finally:
        while os.read(watching_end, READ_BYTES):
            pass  # what the test has left unread
        writer.join()
        os.close(watching_end)


PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(PIECES, st.lists(st.integers(1, 50), min_size=1))
def test_any_room(pieces: list[bytes], rooms: list[int]) -> None:
    """However the reader's room and the pieces fit, the bytes are the same."""
    read = bytearray()
    with pipe_with(framed(*pieces) + WHOLE) as reader:
        turn = 0
        while True:
            room = bytearray(rooms[turn % len(rooms)])
            turn += 1
            size = reader.readinto(room)
            if not size:
                break
            read += room[:size]
        assert reader.readinto(bytearray(5)) == 0
    assert bytes(read) == b"".join(pieces)


@given(PIECES, st.lists(st.integers(0, 400), max_size=5))
def test_any_cut(pieces: list[bytes], cuts: list[int]) -> None:
    """Wherever the writes are cut, in a header too, the bytes are the same."""
    data = framed(*pieces) + WHOLE
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    writes = [data[start:end] for start, end in itertools.pairwise(places)]
    with pipe_with(*writes) as reader:
        assert io.BufferedReader(reader, 16).read() == b"".join(pieces)


@given(PIECES, st.integers(0, 400), st.booleans())
def test_any_end(pieces: list[bytes], end: int, told: bool) -> None:
    """A pipe that ends before the body does is a broken body, which stays broken."""
    data = framed(*pieces)
    data = data + broken_frame("it is too large") if told else (data + WHOLE)[: min(end, len(data))]
    with pipe_with(data) as reader:
        read = bytearray()

        def read_on() -> None:
            while piece := reader.read(7):
                read.extend(piece)

        with pytest.raises(BodyBroken) as caught:
            read_on()
        assert str(caught.value) == (
            "it is too large" if told else "the body ended before it was whole"
        )
        assert b"".join(pieces).startswith(bytes(read))
        with pytest.raises(BodyBroken):
            reader.readall()


def test_is_a_buffered_file() -> None:
    """Under a BufferedReader it is a binary file, read from front to back."""
    lines = b"one\ntwo\n" * 10_000
    pieces = [lines[start : start + 999] for start in range(0, 30_000, 999)]
    with pipe_with(framed(*pieces) + WHOLE) as reader:
        file = io.BufferedReader(reader, READ_BYTES)
        assert file.readable()
        assert not file.seekable()
        assert file.readline() == b"one\n"
        assert file.peek(1)[:1] == b"t"
        assert file.read1(10) == b"two\none\ntw"
        assert next(file) == b"o\n"
        assert file.readinto(bytearray(0)) == 0
        assert file.read() == b"".join(pieces)[16:]
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()


def test_text_over_it() -> None:
    """Text can be read over it."""
    with pipe_with(framed("Ωne\ntwo\n".encode()) + WHOLE) as reader:
        assert list(io.TextIOWrapper(io.BufferedReader(reader))) == ["Ωne\n", "two\n"]


def test_closed() -> None:
    """When it is closed its descriptor is, once, and it cannot be read."""
    with pipe_with(framed(b"one") + WHOLE) as reader:
        descriptor = reader._descriptor
        reader.close()
        reader.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        with pytest.raises(ValueError, match="closed file"):
            reader.readinto(bytearray(1))


def test_reason_of_any_length() -> None:
    """A reason that is too long is cut, wherever that is."""
    with pipe_with(broken_frame("Ω" * 1000)) as reader, pytest.raises(BodyBroken) as caught:
        reader.readall()
    assert 200 < len(str(caught.value)) <= 500
