"""Handing jobs from the reactor to threads, and deciding which thread is woken when.

Threads share the interpreter's lock with the reactor, so that waking one for each job costs more
than a short job does.  Here one sleeping thread at a time is woken, the one that slept last; it
takes job after job, and where more are waiting it wakes the next before it runs its own.  With
jobs that are short one thread does them all in one go; with jobs that block every thread is awake
after as many steps.

No thread holds a lock of Python's while it looks at the jobs: each operation on the mappings and
the list is a single one, and a thread announces that it is going to sleep before it looks for the
last time.  Which job is next is decided by :mod:`deferpost.pools.line`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from deferpost.jobs import Job
from deferpost.pools.line import Line

__all__ = ["Handoff"]


class Handoff:
    """The jobs that wait for a thread.

    :param ageing: seconds that a step of urgency is worth (:class:`deferpost.pools.line.Line`).
    """

    def __init__(self, ageing: float = 0.0) -> None:
        self._line = Line(ageing)
        self._asleep: list[threading.Lock] = []
        self._rousing = False  # one was woken and has not looked yet
        self._closed = False

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, job: Job) -> bool:
        return job in self._line

    def __iter__(self) -> Iterator[Job]:
        return iter(self._line)

    @property
    def line(self) -> Line:
        """The jobs."""
        return self._line

    # The reactor's side.

    def put(self, job: Job) -> None:
        """Add a job; :meth:`rouse` is to follow, for one job or for several."""
        self._line.put(job)

    def remove(self, job: Job) -> bool:
        """Take a job back.

        :returns: whether it was still here: if not, a thread has it.
        """
        return self._line.remove(job)

    def rouse(self) -> None:
        """Wake a thread, unless one is waking.  On any thread."""
        if self._rousing:
            return
        try:
            bed = self._asleep.pop()
        except IndexError:
            return  # all are awake, and look here before they sleep
        self._rousing = True
        bed.release()

    def close(self) -> None:
        """Send the threads home when there are no more jobs."""
        self._closed = True
        for _ in range(len(self._asleep)):
            try:
                self._asleep.pop().release()
            except IndexError:
                break

    # The threads' side.

    def take(self, bed: threading.Lock) -> Job | None:
        """Wait for a job.

        :param bed: a lock of this thread's own, which it has acquired.
        :returns: the next job, or None when there is no more work.
        """
        line, usual = self._line, self._line.usual
        while True:
            try:
                job = line.take() if line.mixed else usual.popitem(last=False)[1]
            except KeyError:
                if self._closed:
                    return None
                self._asleep.append(bed)
                if line or self._closed:
                    try:
                        self._asleep.remove(bed)
                    except ValueError:
                        pass  # somebody is waking us at this moment
                    else:
                        continue
                bed.acquire()
                self._rousing = False
            else:
                if usual or (line.mixed and line):
                    self.rouse()
                return job
