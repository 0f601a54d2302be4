"""Where the parts of a chunked body end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.wire.chunks import ChunkCutter
from deferpost.wire.refusals import Refused


def cut(cutter: ChunkCutter, data: bytes) -> list[bytes]:
    """The pieces that a parser would get of bytes, all of which it accepts."""
    pieces = []
    taken = 0
    while taken < len(data):
        end = cutter.end(data, taken)
        pieces.append(data[taken:end])
        cutter.accepted(memoryview(data)[taken:end])
        taken = end
    return pieces


def test_lines_and_chunks() -> None:
    """Each line is a piece, each chunk with its CRLF, and each line of the trailers."""
    cutter = ChunkCutter(100, 100)
    pieces = cut(cutter, b'3\r\na\nb\r\nA;x=y;z="\\""\r\n0123456789\r\n0\r\nT: u\r\n\r\n')
    assert pieces == [
        b"3\r\n",
        b"a\nb\r\n",
        b'A;x=y;z="\\""\r\n',
        b"0123456789\r\n",
        b"0\r\n",
        b"T: u\r\n",
        b"\r\n",
    ]
    assert cutter.announced == 13


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.data())
def test_cut_anywhere(chunks: list[bytes], data: st.DataObject) -> None:
    """However the bytes come, the same length is announced, and the end is where it is."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    cutter = ChunkCutter(100, 100)
    left = body
    while left:
        size = data.draw(st.integers(1, len(left)))
        cut(cutter, left[:size])
        left = left[size:]
    assert cutter.announced == sum(map(len, chunks))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"0" * 20, 400),
        (b"1;" + b"x" * 20, 400),
        (b"1;\r\n", 400),
        (b"1;a=\r\n", 400),
        (b"0\r\nX: " + b"a" * 40, 431),
        (b"0\r\nA: b\r\nC: d\r\nE: f\r\n", 431),
    ],
)
def test_bounds(data: bytes, status: int) -> None:
    """Lines, extensions and trailers that are too long, too many or not whole are refused."""
    with pytest.raises(Refused) as refused:
        cut(ChunkCutter(16, 32, 1), data)
    assert refused.value.status == status
