"""The program that streams to a slow reader: its pace, and what it reports."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from bench.control.stream import Seen, paced, report


def test_pace() -> None:
    """It reads as many bytes in a second as it was told, and ends in time."""
    clock = Clock()
    asked: list[int] = []

    def read(most: int) -> int:
        asked.append(most)
        return most

    passed, total = 0.0, 0
    for passed, total in paced(read, 100_000, 3.0, clock.seconds):
        assert total <= 100_000 * passed + asked[0]
        clock.advance(0.01)
    assert passed == pytest.approx(3.0, abs=0.02)
    assert total == pytest.approx(300_000, abs=2 * asked[0])


def test_stream_that_ends() -> None:
    """A stream that ends too soon is an error."""
    with pytest.raises(RuntimeError, match="after 0 bytes"):
        list(paced(lambda most: 0, 1.0, 1.0, Clock().seconds))


def test_report() -> None:
    """It tells of the memory of each process, and when the next job was answered."""
    memory = [(0.0, {"daemon": 2**20, "worker": 2**21}), (1.0, {"daemon": 2**22, "worker": 2**21})]
    lines = report(Seen("process", 10**6, 1.0, memory, 0.1, 0.001))
    assert lines[0].startswith("process: 1.0 MB read in 1.0 s")
    assert "daemon, MiB: 1.0 before, 4.0 at last, 4.0 at most; each second: 1.0 4.0" in lines[1]
    assert "worker, MiB: 2.0 before" in lines[2]
    assert "after 100.0 ms (1.0 ms on a free worker)" in lines[3]
