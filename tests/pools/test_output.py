"""Reading what worker processes print, line by line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from deferpost.pools.output import LINE_MOST, OutputReader


class FakeReactor:
    """A reactor that only knows who reads; the tests say when there is something."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Printing:
    """A worker that prints, and what is read of it."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.reactor = FakeReactor()
        self.lines: list[str] = []
        self.reader = OutputReader(self.reactor, reading, self.lines.append)

    def prints(self, data: bytes) -> None:
        assert os.write(self.writing, data) == len(data)

    def exits(self) -> None:
        if self.writing != -1:
            os.close(self.writing)
            self.writing = -1


@pytest.fixture
def printing() -> Iterator[Printing]:
    """A worker that prints."""
    printing = Printing()
    yield printing
    printing.exits()
    printing.reader.close()


def test_it_is_read_by_the_reactor(printing: Printing) -> None:
    """The reactor reads the pipe, and is never blocked by it."""
    assert verifyObject(IReadDescriptor, printing.reader)
    assert printing.reactor.readers == [printing.reader]
    assert not os.get_blocking(printing.reader.fileno())
    assert printing.reader.logPrefix() == "deferpost worker output"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\n", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"\n\n", ["", ""]),
        (b"\xc3\xa9\n", ["é"]),
        (b"a\xffb\n", ["a\\xffb"]),
        (b"unfinished", []),
        (b"one\nunfinished", ["one"]),
    ],
)
def test_lines(printing: Printing, data: bytes, lines: list[str]) -> None:
    """Each line is given as text without its end, the empty ones and those of no encoding too."""
    printing.prints(data)
    printing.reader.doRead()
    assert printing.lines == lines


def test_line_in_parts(printing: Printing) -> None:
    """A line that is printed in parts is one line."""
    for part in (b"on", b"e\ntw", b"o", b"\n"):
        printing.prints(part)
        printing.reader.doRead()
    assert printing.lines == ["one", "two"]


def test_character_in_parts(printing: Printing) -> None:
    """A character that is cut in the middle is one character."""
    for part in (b"caf\xc3", b"\xa9\n"):
        printing.prints(part)
        printing.reader.doRead()
    assert printing.lines == ["café"]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_long_line(printing: Printing, end: bytes) -> None:
    """A line that is longer than the log wants is given in pieces, as soon as there is one."""
    printing.prints(b"x" * (2 * LINE_MOST + 5) + end)
    printing.reader.doRead()
    whole = ["x" * LINE_MOST] * 2
    assert printing.lines == ([*whole, "x" * 5] if end else whole)
    printing.reader.drain()
    assert printing.lines == [*whole, "x" * 5]


def test_line_of_the_longest_length(printing: Printing) -> None:
    """A line that is just as long as the log wants is whole."""
    printing.prints(b"x" * LINE_MOST)
    printing.reader.doRead()
    assert printing.lines == []
    printing.prints(b"\n")
    printing.reader.doRead()
    assert printing.lines == ["x" * LINE_MOST]


def test_nothing_there(printing: Printing) -> None:
    """A reading for nothing changes nothing."""
    printing.reader.doRead()
    assert printing.lines == []
    assert printing.reactor.readers == [printing.reader]


def test_drain(printing: Printing) -> None:
    """At the end of a job all that it printed is given, an unfinished line included."""
    printing.prints(b"one\ntwo")
    printing.reader.drain()
    assert printing.lines == ["one", "two"]
    printing.prints(b" more\n")
    printing.reader.drain()
    assert printing.lines == ["one", "two", " more"]


def test_drain_of_nothing(printing: Printing) -> None:
    """A job that printed nothing is given no line."""
    printing.reader.drain()
    assert printing.lines == []


def test_drain_is_bounded(printing: Printing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that prints without end does not hold the reactor."""
    reads = []

    def read(descriptor: int, size: int) -> bytes:
        reads.append(size)
        return b"y\n"

    printing.prints(b"y\n")
    monkeypatch.setattr(os, "read", read)
    printing.reader.drain()
    assert len(reads) == 16


def test_end(printing: Printing) -> None:
    """When the worker is gone, its last words are given and the pipe is closed."""
    printing.prints(b"one\nlast words")
    printing.exits()
    printing.reader.doRead()
    assert printing.lines == ["one"]
    descriptor = printing.reader.fileno()
    printing.reader.doRead()
    assert printing.lines == ["one", "last words"]
    assert printing.reactor.readers == []
    assert printing.reader.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_drain_after_the_end(printing: Printing) -> None:
    """What is over is over: nothing is given twice, and another's descriptor is not touched."""
    printing.prints(b"one")
    printing.exits()
    printing.reader.drain()
    printing.reader.close()
    printing.reader.close()
    printing.reader.drain()
    printing.reader.doRead()
    assert printing.lines == ["one"]


def test_reactor_stops(printing: Printing) -> None:
    """When the reactor gives it up, what was read is given and the pipe is closed."""
    printing.prints(b"one")
    printing.reader.doRead()
    printing.reader.connectionLost(Failure(ConnectionDone()))
    assert printing.lines == ["one"]
    assert printing.reader.fileno() == -1


@given(
    st.lists(
        st.sampled_from([b"a", b"\n", b"", b"\xff", b"\xc3", b"\xa9", b"b" * (LINE_MOST - 1)]),
        max_size=20,
    )
)
def test_nothing_is_lost(parts: list[bytes]) -> None:
    """However the output comes, all of it is given, in order and in lines that are not too long."""
    printing = Printing()
    for part in parts:
        printing.prints(part)
        printing.reader.doRead()
    printing.exits()
    printing.reader.doRead()
    data = b"".join(parts)
    given_lines = "".join(printing.lines)
    assert given_lines.count("\\xff") == data.count(b"\xff")
    assert given_lines.count("a") >= data.count(b"a")
    assert given_lines.count("b") == data.count(b"b")
    assert all(len(line.encode()) <= 4 * LINE_MOST for line in printing.lines)
    assert len(printing.lines) >= data.count(b"\n")
