"""How long a client that was turned away had better wait.

Decides only: it takes numbers and gives a number, without clock or reactor.
"""

from __future__ import annotations

import math

__all__ = ["RETRY_AFTER_MOST", "ServiceTime", "retry_after"]

#: The longest pause that is asked of a client, in seconds.
RETRY_AFTER_MOST = 3600

#: The weight of the newest job in the mean: the last twenty or so decide.
_WEIGHT = 0.05


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


def retry_after(waiting: int, size: int, mean_seconds: float | None) -> int:
    """Seconds until the queue that is full now is likely to have been worked off.

    :param waiting: how many jobs wait.
    :param size: how many run at once.
    :param mean_seconds: how long one runs, None where none has ended yet.
    :returns: whole seconds, from 1 to :data:`RETRY_AFTER_MOST`.
    """
    if mean_seconds is None:
        return 1
    seconds = (waiting + 1) * mean_seconds / max(1, size)
    return max(1, min(RETRY_AFTER_MOST, math.ceil(seconds)))
