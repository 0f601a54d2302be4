"""Kept jobs that wait to be given to a pool, and which of them is next.

As :mod:`deferpost.pools.line` has it for those that a pool has: the next one is that with the least
``created + urgency * ageing``.  What any of it costs does not grow with the number that waits.

Decides only; it knows neither store nor clock.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush

import msgspec

__all__ = ["Backlog", "Waiting"]

_URGENCIES = 8

#: Points in time that are kept before those of jobs that have gone are looked for.
_KEPT_LEAST = 64


class Waiting(msgspec.Struct, frozen=True):
    """A job that waits.

    :ivar id: its id.
    :ivar created: when it was accepted, in seconds since the epoch.
    :ivar urgency: 0 for the most urgent to 7 for the least.
    :ivar start_by: when it must have started, on the same clock; None for no limit.
    """

    id: str
    created: float
    urgency: int
    start_by: float | None = None


class Backlog:
    """The kept jobs of one pool that wait.

    :param ageing: seconds that a step of urgency is worth.
    """

    __slots__ = ("_ageing", "_deadlines", "_lines", "_tickets")

    def __init__(self, ageing: float = 0.0) -> None:
        self._ageing = ageing
        self._lines: tuple[OrderedDict[str, tuple[int, Waiting]], ...] = tuple(
            OrderedDict() for _ in range(_URGENCIES)
        )
        self._tickets = [0] * _URGENCIES
        self._deadlines: list[tuple[float, str, int]] = []

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __bool__(self) -> bool:
        return any(self._lines)

    def put(self, waiting: Waiting) -> None:
        """Add a job behind those of its urgency."""
        urgency = waiting.urgency
        self._tickets[urgency] += 1
        self._lines[urgency][waiting.id] = self._tickets[urgency], waiting
        self._expect(waiting)

    def put_first(self, waiting: Waiting) -> None:
        """Add a job before those of its urgency: it was taken before, or ran already."""
        line = self._lines[waiting.urgency]
        first = next(iter(line.values()), None)
        ticket = self._tickets[waiting.urgency] if first is None else first[0] - 1
        line[waiting.id] = ticket, waiting
        line.move_to_end(waiting.id, last=False)
        self._expect(waiting)

    def _expect(self, waiting: Waiting) -> None:
        if waiting.start_by is None:
            return
        if len(self._deadlines) > 2 * len(self) + _KEPT_LEAST:  # most are of jobs that have gone
            self._deadlines = [
                (each.start_by, each.id, each.urgency)
                for line in self._lines
                for _, each in line.values()
                if each.start_by is not None and each is not waiting
            ]
            heapify(self._deadlines)
        heappush(self._deadlines, (waiting.start_by, waiting.id, waiting.urgency))

    def remove(self, id: str, urgency: int) -> bool:
        """Take this job out.

        :returns: whether it was here.
        """
        return self._lines[urgency].pop(id, None) is not None

    def take(self) -> Waiting | None:
        """Take the next job out; None where there is none."""
        best: Waiting | None = None
        least = 0.0
        for line in self._lines:
            head = next(iter(line.values()), None)
            if head is not None:
                rank = head[1].created + head[1].urgency * self._ageing
                if best is None or rank < least:
                    best, least = head[1], rank
        if best is not None:
            del self._lines[best.urgency][best.id]
        return best

    def position(self, id: str, urgency: int) -> int | None:
        """The place of a job in its line, from 1; those of other urgencies do not count.

        Where some have left from the middle of the line, it is the most that it can be.

        :returns: None where it is not here.
        """
        line = self._lines[urgency]
        own = line.get(id)
        if own is None:
            return None
        return min(len(line), own[0] - next(iter(line.values()))[0] + 1)

    @property
    def next_deadline(self) -> float | None:
        """When a job is next over its time, or may be; None where none has a limit."""
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now: float) -> list[Waiting]:
        """Take out those that had to start by now.

        :param now: in seconds since the epoch.
        """
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            start_by, id, urgency = heappop(self._deadlines)
            found = self._lines[urgency].get(id)
            if found is not None and found[1].start_by == start_by:
                del self._lines[urgency][id]
                late.append(found[1])
        return late
