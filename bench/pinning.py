"""Holds new processes to CPUs: they get what the thread has that starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

__all__ = ["held_to"]


@contextlib.contextmanager
def held_to(cores: Collection[int]) -> Iterator[None]:
    """Hold this thread, and what it starts within the block, to some CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
