"""What the system holds a worker process to: its memory, and its CPU time for each job.

For the worker's side.  The bounds are the kernel's, so that no handler can go past them, whatever
it does; they are those of the process alone, not of what it starts.
"""

from __future__ import annotations

import math
import resource

__all__ = ["limit_cpu", "limit_memory"]


def limit_memory(most: int) -> None:
    """Have what asks for more memory fail, in Python with :exc:`MemoryError`.

    :param most: bytes of the address space (``RLIMIT_AS``).
    """
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_cpu(seconds: float) -> None:
    """Have the kernel end this process when it has used so much more CPU time.

    :param seconds: from now on (``RLIMIT_CPU``, which counts whole seconds: it is up to a second
        more).  The signal is SIGXCPU.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
