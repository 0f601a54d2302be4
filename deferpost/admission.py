"""Who is let in, and how long those had better wait who are not.

Decides only: it keeps numbers and is told of events with their times; it has no clock and no
reactor, refuses nobody itself and starts nothing.  :mod:`deferpost.dispatch` asks it.

What is counted: for each pool the places that are taken and the bytes of request bodies that are
held, for each client its calls, and how fast jobs leave.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from deferpost.model import CallHead

__all__ = [
    "ENOUGH",
    "RETRY_AFTER_MOST",
    "AdmissionRules",
    "Clients",
    "Departures",
    "PoolBooks",
    "RunTimes",
    "ServiceTime",
    "client_of",
    "lateness",
    "whole_seconds",
]

#: The longest pause that is asked of a client, in seconds.
RETRY_AFTER_MOST = 3600

#: Measurements from which on a call is turned away because of what was measured.
ENOUGH = 10

#: The weight of the newest job in the mean: the last twenty or so decide.
_WEIGHT = 0.05

#: How many departures, and how many run times of a route, are remembered.
_REMEMBERED = 64


class AdmissionRules(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the calls of all pools.

    :ivar queue_timeout: seconds that calls of routes that set none may wait; None for no limit.
    :ivar total_timeout: seconds that they may wait and run; None for no limit.
    :ivar most_urgent: the least number that a client gets which asks to be more urgent than usual.
    :ivar ageing: seconds in the queue that a step of urgency is worth.
    :ivar max_jobs_per_client: how many calls a client may have under way; 0 for no bound.
    """

    queue_timeout: float | None = None
    total_timeout: float | None = None
    most_urgent: int = 0
    ageing: float = 10.0
    max_jobs_per_client: int = 0


class ServiceTime:
    """A moving mean of how long jobs run, in seconds."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean: float | None = None

    def add(self, seconds: float) -> None:
        """Take one more job's run time into account."""
        if self.mean is None:
            self.mean = seconds
        else:
            self.mean += _WEIGHT * (seconds - self.mean)


class RunTimes:
    """The last run times of one route, in seconds."""

    __slots__ = ("_seconds", "add")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.add = self._seconds.append

    @property
    def least(self) -> float | None:
        """The shortest of them; None where there are not enough of them."""
        return min(self._seconds) if len(self._seconds) >= ENOUGH else None


class Departures:
    """How fast jobs leave the workers of a pool while others wait for their places.

    How long a job runs, divided by how many run at once, is what that would be if they did not
    hinder each other; here is what it is.
    """

    __slots__ = ("_times", "add")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        #: Called with the time when a job has left, and another one takes its place.
        self.add = self._times.append

    def stop(self) -> None:
        """A job has left, and none took its place: what follows is no measure of speed."""
        self._times.clear()

    def interval(self, now: float) -> float | None:
        """Seconds from one to the next; None where too few have left without a break.

        :param now: the time.  Where none has left for longer than usual, that counts, too.
        """
        times = self._times
        count = len(times) - 1
        if count < ENOUGH:
            return None
        first = times[0]
        return max((times[-1] - first) / count, (now - first) / (count + 1))


class PoolBooks:
    """What the calls of one pool have taken, and how fast it works.

    A call takes a place, and the bytes of its body, when it is submitted; one whose body is still
    to come reserves both before that.  Each is given back exactly once.

    :param size: how many jobs run at once.
    :param max_waiting: how many more may wait.
    :param max_held: bytes of request bodies that may be held at once; 0 for no bound.

    :ivar jobs: jobs that have not ended.
    :ivar reserved: places of calls whose bodies are still to come.
    :ivar held: bytes that both hold.
    """

    __slots__ = (
        "_departures",
        "_is_saturated",
        "_routes",
        "_times",
        "held",
        "jobs",
        "max_held",
        "places",
        "reserved",
        "size",
    )

    def __init__(self, size: int, max_waiting: int, max_held: int = 0) -> None:
        self.size = size
        self.places = size + max_waiting
        self.max_held = max_held
        self.jobs = 0
        self.reserved = 0
        self.held = 0
        self._times = ServiceTime()
        self._departures = Departures()
        self._is_saturated = False
        self._routes: dict[str, RunTimes] = {}

    @property
    def has_place(self) -> bool:
        """Whether one more call has a place."""
        return self.jobs + self.reserved < self.places

    def has_room(self, size: int) -> bool:
        """Whether the body of one more call may be held.

        One is always let in where nothing else is held, so that the bound never refuses for good.

        :param size: of the body, in bytes.
        """
        return not self.max_held or not self.held or self.held + size <= self.max_held

    def is_open(self, size: int) -> bool:
        """Whether one more call is let in: :attr:`has_place` and :meth:`has_room` at once."""
        if self.jobs + self.reserved >= self.places:
            return False
        # As has_room, which costs a call for each POST.
        return not self.max_held or not self.held or not size or self.held + size <= self.max_held

    def reserve(self, size: int) -> None:
        """A call takes a place before its body has come.

        :param size: of the body, in bytes, or the most that it may have.
        """
        self.reserved += 1
        self.held += size

    def give_back(self, size: int) -> None:
        """That call has become a job, or nothing.

        :param size: as it was reserved.
        """
        self.reserved -= 1
        self.held -= size

    def enter(self, size: int) -> None:
        """A call has become a job.

        :param size: of the body that it holds, in bytes.
        """
        self.jobs += 1
        self.held += size

    def leave(self, size: int, now: float, *, ran: bool) -> None:
        """A job has ended, or was not taken by its pool after all.

        :param size: of the body that it held.
        :param now: the time.
        :param ran: whether it had a worker.
        """
        self.jobs -= 1
        self.held -= size
        if ran:
            if self.jobs >= self.size:
                self._departures.add(now)
                self._is_saturated = True
            elif self._is_saturated:
                self._departures.stop()
                self._is_saturated = False

    def measured(self, route: str, seconds: float) -> None:
        """A job has succeeded.

        :param route: its route.
        :param seconds: how long it ran.
        """
        self._times.add(seconds)
        times = self._routes.get(route)
        if times is None:
            times = self._routes[route] = RunTimes()
        times.add(seconds)

    def interval(self, now: float) -> float | None:
        """Seconds from one departure to the next while all workers are busy; None if not known."""
        interval = self._departures.interval(now)
        if interval is None and self._times.mean is not None:
            interval = self._times.mean / max(1, self.size)
        return interval

    def lateness(
        self, route: str, ahead: int, queue: float | None, total: float | None, now: float
    ) -> float:
        """By how many seconds a call would be late; if nothing speaks against it, it is in time.

        :param route: its route.
        :param ahead: how many jobs are sure to start before it.
        :param queue: seconds that it may wait; None for no limit.
        :param total: seconds that it may wait and run; None for no limit.
        :param now: the time.
        :returns: 0 where it can be in time.
        """
        if self.jobs < self.size:  # a worker is free
            return 0.0
        interval = self._departures.interval(now)
        times = self._routes.get(route)
        least = None if times is None else times.least
        if interval is None:
            if least is None or self._times.mean is None:
                return 0.0
            interval = self._times.mean / max(1, self.size)
        return lateness(ahead, interval, least or 0.0, queue, total)

    def retry_after(self, waiting: int, now: float, share: int = 1) -> int:
        """Seconds after which one that was turned away had better try again.

        :param waiting: how many jobs wait.
        :param now: the time.
        :param share: of so many jobs one has to end, where it is not the queue that is full.
        """
        interval = self.interval(now)
        if interval is None:
            return 1
        if share > 1:
            return whole_seconds((waiting + min(self.jobs, self.size)) * interval / share)
        return whole_seconds((waiting + 1) * interval)


class Clients:
    """How many calls each client has, uploads that are under way included.

    :param most: how many one may have.
    """

    __slots__ = ("_calls", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._calls: dict[str, int] = {}

    def __len__(self) -> int:
        """How many clients have calls."""
        return len(self._calls)

    def left(self, client: str | None) -> int:
        """How many more calls a client may have.

        :param client: as :func:`client_of` says; None for one that is not told from others, and
            has no bound.
        """
        return self.most if client is None else self.most - self._calls.get(client, 0)

    def enter(self, client: str | None) -> None:
        """A client has one call more."""
        if client is not None:
            self._calls[client] = self._calls.get(client, 0) + 1

    def leave(self, client: str | None) -> None:
        """A client has one call less."""
        if client is not None:
            left = self._calls[client] - 1
            if left:
                self._calls[client] = left
            else:
                del self._calls[client]


def client_of(head: CallHead) -> str | None:
    """By what a client is told from others: who it has proved to be, else its address.

    :param head: of one of its calls.
    :returns: None on a Unix socket, where there is no address, and nobody asked who it is.
    """
    if head.principal is not None:
        return f"principal {head.principal}"
    return None if head.client is None else head.client[0]


def lateness(
    ahead: int, interval: float, run_seconds: float, queue: float | None, total: float | None
) -> float:
    """By how many seconds a call would be late that comes while all workers are busy.

    :param ahead: how many jobs are sure to start before it.
    :param interval: seconds from one departure to the next.
    :param run_seconds: how long a run of its route takes at least.
    :param queue: seconds that it may wait; None for no limit.
    :param total: seconds that it may wait and run; None for no limit.
    :returns: 0 where it would be in time.
    """
    wait = ahead * interval
    late = 0.0
    if queue is not None:
        late = max(late, wait - queue)
    if total is not None:
        late = max(late, wait + run_seconds - total)
    return late


def whole_seconds(seconds: float) -> int:
    """A pause as a client is asked for it: from 1 to :data:`RETRY_AFTER_MOST`, rounded up.

    :param seconds: of any size.
    """
    return max(1, math.ceil(min(RETRY_AFTER_MOST, seconds)))
