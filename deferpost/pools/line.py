"""The jobs of a pool that wait, and which of them is next.

The next one is the one with the least ``created + urgency * ageing``: of two calls that came at
the same time the more urgent is first, and each step of urgency is worth as much as having come
``ageing`` seconds earlier.  So nobody starves: a job waits for those that came within ``urgency *
ageing`` seconds behind it, and for none that came later.

Jobs of one urgency are in the order in which they came, so that there are eight lines at most and
only their heads are compared: what it costs does not grow with the number that waits.  While all
are of the usual urgency there is one line, and taking from it is a single operation.

One thread puts jobs in; any may take them.  No lock of Python's is held: a mapping is changed by
one operation at a time, and a job belongs to whoever got it out of there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from deferpost.jobs import DEFAULT_URGENCY, Job

__all__ = ["LEAST_URGENT", "Line"]

#: The urgencies are 0 to this (RFC 9218, section 4.1).
LEAST_URGENT = 7


class Line:
    """Jobs that wait.

    :param ageing: seconds that a step of urgency is worth.

    :ivar usual: those of the usual urgency, oldest first, by their keys.  While :attr:`mixed` is
        false there are no others, and ``usual.popitem(last=False)`` is all that :meth:`take` does.
    :ivar mixed: whether there may be others.
    """

    __slots__ = ("_ageing", "_lines", "_others", "mixed", "usual")

    def __init__(self, ageing: float) -> None:
        self._ageing = ageing
        self._lines: tuple[OrderedDict[int, Job], ...] = tuple(
            OrderedDict() for _ in range(LEAST_URGENT + 1)
        )
        self.usual = self._lines[DEFAULT_URGENCY]
        self._others = tuple(line for line in self._lines if line is not self.usual)
        self.mixed = False

    def __len__(self) -> int:
        return sum(map(len, self._lines)) if self.mixed else len(self.usual)

    def __bool__(self) -> bool:
        return bool(self.usual) or (self.mixed and any(self._others))

    def __contains__(self, job: Job) -> bool:
        return job.key in self._lines[job.urgency]

    def __iter__(self) -> Iterator[Job]:
        """Those that wait at this moment, the more urgent first, and of these the oldest."""
        return iter([job for line in self._lines for job in list(line.values())])

    def put(self, job: Job) -> None:
        """Add a job.  On the one thread that adds."""
        if job.urgency == DEFAULT_URGENCY:
            if self.mixed and not any(self._others):
                self.mixed = False  # nobody else adds, so they stay empty
            self.usual[job.key] = job
        else:
            self.mixed = True  # before it is there to be taken
            self._lines[job.urgency][job.key] = job

    def put_first(self, job: Job) -> None:
        """Add a job that was taken before, in front of those of its urgency."""
        self.put(job)
        self._lines[job.urgency].move_to_end(job.key, last=False)

    def remove(self, job: Job) -> bool:
        """Take this job out.

        :returns: whether it was still here: if not, somebody else has it.
        """
        return self._lines[job.urgency].pop(job.key, None) is not None

    def take(self) -> Job:
        """Take the next job.  On any thread.

        :raises KeyError: there is none.
        """
        while self.mixed:
            first = self._first()
            if first is None:
                break
            if self._lines[first.urgency].pop(first.key, None) is not None:
                return first
            # Another thread was quicker: look again.
        return self.usual.popitem(last=False)[1]

    def ahead_of(self, urgency: int) -> int:
        """How many jobs are sure to be taken before one that comes now.

        :param urgency: of that one.
        """
        if not self.mixed:
            return len(self.usual) if urgency >= DEFAULT_URGENCY else 0
        return sum(map(len, self._lines[: urgency + 1]))

    @property
    def oldest(self) -> float | None:
        """When the job came that has waited longest, in seconds of the monotonic clock."""
        heads = filter(None, map(_head, self._lines))
        return min((job.created for job in heads), default=None)

    def longest_wait(self, now: float) -> float | None:
        """Seconds that the job has waited that has waited longest; None where none waits.

        :param now: the time, in seconds of the monotonic clock.
        """
        oldest = self.oldest
        return None if oldest is None else now - oldest

    def _first(self) -> Job | None:
        """The head that is next; None where no line has one."""
        ageing = self._ageing
        first: Job | None = None
        least = 0.0
        for urgency, line in enumerate(self._lines):
            if line:
                job = _head(line)
                if job is not None:
                    rank = job.created + urgency * ageing
                    if first is None or rank < least:
                        first, least = job, rank
        return first


def _head(line: OrderedDict[int, Job]) -> Job | None:
    while True:
        try:
            return next(iter(line.values()), None)
        except RuntimeError:  # another thread has changed it between the two steps
            pass
