"""Deadlines of many connections with one timer: what is due is looked at, nothing else is.

A deadline that moves on, as most do with each request, costs an assignment: its holder stays
where it was put, and is put further on when that time comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

__all__ = ["Deadlines", "Holder", "OwnDeadline"]

_log = Logger(namespace="deferpost.wire")


class Holder(Protocol):
    """Something that has a deadline.

    :ivar deadline: in seconds of the reactor's clock; None for none.  Move it back by
        :meth:`Deadlines.hold` alone; move it on, or drop it, by assignment too.
    :ivar held_until: for :class:`Deadlines` alone; None at first.
    """

    deadline: float | None
    held_until: int | None

    def expired(self, now: float) -> None:
        """The deadline has passed; it is None now, unless this sets another."""


class Deadlines:
    """Calls holders when their deadlines have passed, at most a tick late.

    For the reactor thread.

    :param clock: an IReactorTime.
    :param tick: seconds.
    """

    def __init__(self, clock: Any, tick: float = 0.25) -> None:
        self._clock = clock
        self._tick = tick
        self._holders: dict[int, dict[Holder, None]] = {}  # by the tick in which they are looked at
        self._ticks: list[int] = []
        self._timer: Any = None

    def now(self) -> float:
        """The time, in seconds of the reactor's clock."""
        return float(self._clock.seconds())

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the next turn of the reactor."""
        self._clock.callLater(0, call)

    def hold(self, holder: Holder, deadline: float) -> None:
        """Set a holder's deadline."""
        holder.deadline = deadline
        held = holder.held_until
        if held is not None:
            if deadline >= (held - 1) * self._tick:
                return  # it is looked at in time, or sooner
            self._take_from(holder, held)
        self._put(holder, int(deadline / self._tick) + 1)

    def _put(self, holder: Holder, tick: int) -> None:
        holder.held_until = tick
        holders = self._holders.get(tick)
        if holders is not None:
            holders[holder] = None
            return
        self._holders[tick] = {holder: None}
        heapq.heappush(self._ticks, tick)
        if self._ticks[0] == tick:
            self._set_timer()

    def drop(self, holder: Holder) -> None:
        """Forget a holder that is gone."""
        holder.deadline = None
        tick, holder.held_until = holder.held_until, None
        if tick is not None:
            self._take_from(holder, tick)

    def _take_from(self, holder: Holder, tick: int) -> None:
        holders = self._holders.get(tick)
        if holders is not None:  # else it is being looked at
            holders.pop(holder, None)
            if not holders:
                del self._holders[tick]
                self._ticks.remove(tick)
                heapq.heapify(self._ticks)
                self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._ticks:
            delay = self._ticks[0] * self._tick - self.now()
            self._timer = self._clock.callLater(max(0.0, delay), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self.now()
        while self._ticks and self._ticks[0] * self._tick <= now:
            tick = heapq.heappop(self._ticks)
            for holder in self._holders.pop(tick):
                if holder.held_until != tick:
                    continue  # another of them has moved or dropped it
                holder.held_until = None
                if holder.deadline is None:
                    continue
                if holder.deadline > now:
                    self._put(holder, int(holder.deadline / self._tick) + 1)
                    continue
                holder.deadline = None
                try:
                    holder.expired(now)
                except Exception:  # the others have deadlines all the same
                    _log.failure("a connection could not be ended at its deadline")
        if self._timer is None:
            self._set_timer()


class OwnDeadline:
    """A :class:`Deadlines` of one holder, which has nothing of a clock but its ``callLater``.

    :param call_later: of an IReactorTime.
    """

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self._timer: Any = None

    def now(self) -> float:
        """Zero: deadlines count from now."""
        return 0.0

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the next turn of the reactor."""
        self._call_later(0, call)

    def hold(self, holder: Holder, deadline: float) -> None:
        """Set the holder's deadline."""
        self.drop(holder)
        holder.deadline = deadline
        self._timer = self._call_later(deadline, self._due, holder)

    def drop(self, holder: Holder) -> None:
        """Forget the holder."""
        holder.deadline = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _due(self, holder: Holder) -> None:
        self._timer = None
        if holder.deadline is not None:
            holder.deadline = None
            holder.expired(0.0)
