"""The language between the reactor and a worker process, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deferpost.model import CallHead, HandlerRef, Progress
from deferpost.pools.frames import (
    FRAME_MOST,
    Broke,
    Chunks,
    Credit,
    End,
    FrameError,
    FrameReader,
    FromWorker,
    Moved,
    Raised,
    Ready,
    Refused,
    Replied,
    RepliedFile,
    Run,
    SetUp,
    SetUpFailed,
    Streams,
    Taken,
    ToWorker,
    chunk_prefix,
    decode_from_worker,
    decode_to_worker,
    encode_frame,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
BYTES = st.binary(max_size=20)
STATUS = st.integers(200, 599)
PAIRS: st.SearchStrategy[tuple[tuple[bytes, bytes], ...]] = st.lists(
    st.tuples(BYTES, BYTES), max_size=3
).map(tuple)
HEADS = st.builds(
    CallHead,
    id=TEXT,
    route=TEXT,
    method=TEXT,
    path=TEXT,
    query=BYTES,
    headers=PAIRS,
    client=st.none() | st.tuples(TEXT, st.integers(0, 65535)),
    timeout=st.none() | st.floats(0, 1e9),
)
REFS = st.builds(HandlerRef, route=TEXT, module=TEXT, qualname=TEXT, path=st.none() | TEXT)

TO_WORKER: st.SearchStrategy[ToWorker] = st.one_of(
    st.builds(
        SetUp,
        handlers=st.lists(REFS, max_size=2).map(tuple),
        sys_path=st.lists(TEXT, max_size=2).map(tuple),
        directory=st.none() | TEXT,
    ),
    st.builds(Run, head=HEADS, body=st.none() | BYTES, arriving=st.booleans()),
    st.builds(Credit, amount=st.integers(0, 2**40)),
)
FROM_WORKER: st.SearchStrategy[FromWorker] = st.one_of(
    st.just(Ready()),
    st.just(End()),
    st.just(Taken()),
    st.builds(Broke, reason=TEXT),
    st.builds(SetUpFailed, traceback=TEXT),
    st.builds(Replied, status=STATUS, headers=PAIRS, body=BYTES),
    st.builds(RepliedFile, status=STATUS, headers=PAIRS, length=st.integers(0, 2**40)),
    st.builds(Streams, status=STATUS, headers=PAIRS),
    st.builds(Chunks, pieces=st.lists(BYTES, max_size=5)),
    st.builds(Raised, traceback=TEXT),
    st.builds(
        Refused,
        status=STATUS,
        detail=TEXT,
        title=st.none() | TEXT,
        problem_type=TEXT,
        headers=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        extensions=BYTES,
    ),
    st.builds(
        Moved,
        progress=st.builds(
            Progress, done=st.floats(0, 9), total=st.none() | st.floats(0, 9), message=TEXT
        ),
    ),
)

#: Messages of several kinds in one stream of bytes, and where to cut it.
STREAMS = st.lists(FROM_WORKER, max_size=6).map(
    lambda messages: b"".join(map(encode_frame, messages))
)


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, the rest in one."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return [*pieces, data[start:]]


def payloads_of(data: bytes) -> list[bytes]:
    """What a reader gives for bytes that come all at once."""
    return list(FrameReader().feed(data))


@given(TO_WORKER)
def test_to_the_worker_and_back(message: ToWorker) -> None:
    """What a worker is sent is what it reads."""
    (payload,) = payloads_of(encode_frame(message))
    assert decode_to_worker(payload) == message


@given(FROM_WORKER)
def test_from_the_worker_and_back(message: FromWorker) -> None:
    """What a worker sends is what is read of it."""
    (payload,) = payloads_of(encode_frame(message))
    assert decode_from_worker(payload) == message


def test_frame() -> None:
    """A frame is the length in four bytes, in network order, and that many bytes."""
    frame = encode_frame(Chunks([b"x" * 300]))
    assert frame[:4] == struct.pack("!I", len(frame) - 4)
    assert payloads_of(b"\0\0\0\2ab\0\0\0\0\0\0\0\1c") == [b"ab", b"", b"c"]
    assert payloads_of(b"\0\0\0\0") == [b""]


@given(STREAMS, st.lists(st.integers(0, 12), max_size=30))
@example(encode_frame(End()) * 2, [1] * 20)
@example(encode_frame(End()), [4])
def test_cut_anywhere(data: bytes, sizes: list[int]) -> None:
    """However the bytes are cut on their way, the frames are the same, each as soon as may be."""
    reader = FrameReader()
    arrived = b""
    payloads: list[bytes] = []
    for piece in pieces_of(data, sizes):
        arrived += piece
        payloads += reader.feed(piece)
        assert payloads == payloads_of(arrived)
    assert b"".join(struct.pack("!I", len(payload)) + payload for payload in payloads) == data


@pytest.mark.parametrize("cut", range(10))
def test_frame_that_is_too_large(cut: int) -> None:
    """A frame that claims more than any of ours has is refused before it is waited for."""
    good = b"\0\0\0\1a"
    data = good + struct.pack("!I", FRAME_MOST + 1) + b"x"
    reader = FrameReader()
    payloads = chain.from_iterable(reader.feed(piece) for piece in (data[:cut], data[cut:]))
    assert next(payloads) == b"a"
    with pytest.raises(FrameError, match=f"a frame claims {FRAME_MOST + 1} bytes"):
        next(payloads)


def test_largest_frame() -> None:
    """The largest frame is waited for."""
    reader = FrameReader()
    assert list(reader.feed(struct.pack("!I", FRAME_MOST) + b"x")) == []
    assert list(reader.feed(b"x")) == []


def test_text_is_no_frame() -> None:
    """What a handler writes into its worker's socket by mistake is not waited for."""
    with pytest.raises(FrameError):
        list(FrameReader().feed(b"hello"))


@pytest.mark.parametrize("decode", [decode_to_worker, decode_from_worker])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91\xa4nope",
        b"\x91\xa3\xff\xff\xff",
        b"\x92\xa6raised\xa1\xff",  # a traceback that is not UTF-8
        b"\x92\xa6raised\x05",
        b"\x93\xa7streams\xcc\xc8",
        b"\x92\xa3end" + b"\x91" * 100_000,
        b"\x80",
        b"text",
    ],
)
def test_garbage(decode: Callable[[bytes], Any], payload: bytes) -> None:
    """Bytes that are no message are refused as such, whatever is wrong with them."""
    with pytest.raises(FrameError):
        decode(payload)


@given(
    st.binary(max_size=40)
    | st.tuples(FROM_WORKER | TO_WORKER, st.integers(0, 60), st.binary(max_size=3)).map(
        lambda made: (
            encode_frame(made[0])[4 : 4 + made[1]] + made[2] + encode_frame(made[0])[5 + made[1] :]
        )
    )
)
def test_any_garbage(payload: bytes) -> None:
    """A worker that is out of its mind is told by FrameError alone."""
    for decode in (decode_to_worker, decode_from_worker):
        with suppress(FrameError):
            decode(payload)


@given(st.binary(max_size=70_000))
def test_piece_that_is_not_copied(piece: bytes) -> None:
    """A large piece behind its prefix is a frame like any other."""
    (payload,) = FrameReader().feed(chunk_prefix(len(piece)) + piece)
    assert decode_from_worker(payload) == Chunks([piece])


@pytest.mark.parametrize("message", [Ready(), Chunks([b"x"])])
def test_messages_have_a_direction(message: FromWorker) -> None:
    """What a worker says is not taken for what it is told."""
    (payload,) = payloads_of(encode_frame(message))
    with pytest.raises(FrameError):
        decode_to_worker(payload)
