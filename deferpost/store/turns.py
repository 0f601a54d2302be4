"""Whose turn it is: what is asked of one job is done in the order in which it was asked.

Several threads do it, each of which keeps the order of what it was given.  So what goes to the same
thread as what is under way for that job may go at once, and everything else waits until that is
done.  Jobs do not wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

__all__ = ["Turns"]

_Go = Callable[[], None]


class _Turn:
    __slots__ = ("held", "lane", "under_way")

    def __init__(self, lane: Hashable) -> None:
        self.lane = lane
        self.under_way = 1
        self.held: deque[tuple[Hashable, _Go]] = deque()


class Turns:
    """What is under way, and what waits, by the names of jobs.  For one thread."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def enter(self, name: str, lane: Hashable, go: _Go) -> None:
        """Have something done: now or when it is its turn.

        :param name: of the job.
        :param lane: which thread does it; None for something that several do in turns.
        :param go: begins it.
        """
        turn = self._turns.get(name)
        if turn is None:
            self._turns[name] = _Turn(lane)
        elif lane is not None and lane is turn.lane and not turn.held:
            turn.under_way += 1
        else:
            turn.held.append((lane, go))
            return
        go()

    def leave(self, name: str) -> None:
        """One that was begun is done."""
        turn = self._turns[name]
        turn.under_way -= 1
        if turn.under_way:
            return
        held = turn.held
        if not held:
            del self._turns[name]
            return
        turn.lane = held[0][0]
        able = [held.popleft()[1]]
        while turn.lane is not None and held and held[0][0] is turn.lane:
            able.append(held.popleft()[1])
        turn.under_way = len(able)
        for go in able:
            go()
