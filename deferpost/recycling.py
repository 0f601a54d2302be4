"""When a worker process has served for long enough: after so many jobs, so long, or so large.

Decides only: it measures nothing and ends nothing.  Each worker gets bounds of its own, spread
around those of its pool, so that workers that were started together do not all leave together.
"""

from __future__ import annotations

import msgspec

__all__ = ["Bounds"]

#: How far the bounds of workers are apart from those of the pool, up and down, as a share.
SPREAD = 0.1

#: The golden ratio's fraction: of its multiples, no two that follow each other are near.
_GOLDEN = 0.6180339887498949

#: Seconds between two looks at workers that have nothing to do: at least and at most.
_LOOK_LEAST, _LOOK_MOST = 0.1, 10.0


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker may come to; 0 is no bound.

    :ivar max_jobs: jobs that it runs.
    :ivar max_age: seconds since it was started.
    :ivar max_memory: bytes of its resident memory.
    """

    max_jobs: int = 0
    max_age: float = 0.0
    max_memory: int = 0

    def __bool__(self) -> bool:
        return bool(self.max_jobs or self.max_age or self.max_memory)

    def drawn(self, number: int) -> Bounds:
        """The bounds of one worker.

        :param number: of the worker, counted from the start of its pool.
        :returns: these, each up to a tenth less or more; the same for the same number.
        """
        factor = 1 - SPREAD + 2 * SPREAD * (number * _GOLDEN % 1.0)
        return Bounds(
            max_jobs=max(1, round(self.max_jobs * factor)) if self.max_jobs else 0,
            max_age=self.max_age * factor,
            max_memory=round(self.max_memory * factor),
        )

    def reached(self, jobs: int, age: float, memory: int | None) -> str | None:
        """Whether a worker has come to one of its bounds.

        :param jobs: that it has run.
        :param age: seconds since it was started.
        :param memory: bytes of its resident memory; None where that is not known.
        :returns: which bound, in words for the log; None if it goes on.
        """
        if self.max_jobs and jobs >= self.max_jobs:
            return f"after {jobs} jobs"
        if self.max_age and age >= self.max_age:
            return f"at the age of {age:.0f} s"
        if self.max_memory and memory is not None and memory >= self.max_memory:
            return f"at {memory / 2**20:.0f} MiB of memory"
        return None

    @property
    def look_pause(self) -> float:
        """Seconds between two looks at workers that have nothing to do."""
        if not self.max_age:
            return _LOOK_MOST
        return min(_LOOK_MOST, max(_LOOK_LEAST, self.max_age / 20))
