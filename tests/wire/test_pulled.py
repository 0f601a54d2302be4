"""Pull producers on a connection that pauses."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock, Cooperator
from twisted.logger import globalLogPublisher

from deferpost.wire import pulled
from deferpost.wire.pulled import PulledProducer


class Pieces:
    """A pull producer that counts, and the consumer that is told when it fails."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.most = most
        self.asked = 0
        self.stopped = 0
        self.lost = 0
        self.ask_ends: PulledProducer | None = None

    def resumeProducing(self) -> None:
        """One more."""
        self.asked += 1
        if self.asked >= self.most:
            if self.ask_ends is not None:
                self.ask_ends.end()
            else:
                raise LookupError("no more")

    def stopProducing(self) -> None:
        """Let go."""
        self.stopped += 1

    def loseConnection(self) -> None:
        """Its response is broken off."""
        self.lost += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock whose turns are those of the reactor, with one piece in each."""
    clock = Clock()
    cooperator = Cooperator(
        terminationPredicateFactory=lambda: lambda: True,
        scheduler=lambda call: clock.callLater(1, call),
    )
    monkeypatch.setattr(pulled, "cooperate", cooperator.cooperate)
    return clock


def test_it_is_asked_until_it_pauses(clock: Clock) -> None:
    """One piece a turn, none while the connection has enough."""
    pieces = Pieces()
    producer = PulledProducer(pieces, pieces)
    producer.start()
    clock.pump([1, 1])
    assert pieces.asked == 2
    producer.pauseProducing()
    producer.pauseProducing()
    clock.pump([1, 1])
    assert pieces.asked == 2
    producer.resumeProducing()
    producer.resumeProducing()
    clock.advance(1)
    assert pieces.asked == 3
    producer.end()
    producer.end()
    clock.pump([1, 1])
    assert pieces.asked == 3
    producer.pauseProducing()
    producer.resumeProducing()


def test_it_ends_within_its_own_turn(clock: Clock) -> None:
    """One that unregisters itself with its last piece is asked no more."""
    pieces = Pieces(2)
    producer = pieces.ask_ends = PulledProducer(pieces, pieces)
    producer.start()
    clock.pump([1, 1, 1])
    assert (pieces.asked, pieces.lost) == (2, 0)


def test_it_ends_while_it_is_paused(clock: Clock) -> None:
    """A connection that is lost while it has enough asks no more, and tells it."""
    pieces = Pieces()
    producer = PulledProducer(pieces, pieces)
    producer.start()
    producer.pauseProducing()
    producer.stopProducing()
    clock.pump([1, 1])
    assert (pieces.asked, pieces.stopped) == (0, 1)
    PulledProducer(pieces, pieces).end()  # of one that has not begun


def test_a_defect(clock: Clock) -> None:
    """One that fails breaks the response off, and is logged."""
    pieces = Pieces(2)
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    PulledProducer(pieces, pieces).start()
    clock.pump([1, 1, 1])
    globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    assert (pieces.asked, pieces.lost) == (2, 1)
    assert [event for event in events if "log_failure" in event]
