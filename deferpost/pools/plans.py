"""Pools that are not started: descriptions, for apps, mounts and settings.

Importing this does not import Twisted, because the modules of handlers may name pools.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import msgspec

if TYPE_CHECKING:
    from deferpost.interfaces import IWorkerPool, PoolContext

__all__ = ["ProcessPool", "ReactorPool", "ThreadPool", "usable_cpus"]


#: Bytes of request bodies that a pool may hold unless it is said: sixty-four of the largest that
#: are accepted by default, and less than the memory or the temporary disk of any server.
MAX_HELD = 2**30


#: Seconds that are long enough for anything: thirty days.
_LONG = 30 * 86_400

#: Bytes of address space below which no worker starts.
_LEAST_MEMORY = 64 * 2**20


def usable_cpus() -> int:
    """How many CPUs this process may use, at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ThreadPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for threads of this process.

    :ivar size: how many jobs run at once; None for four more than there are CPUs, at most 32.
    :ivar max_waiting: how many more may wait.
    :ivar max_held: bytes of request bodies that they may hold together; 0 for no bound.
    :ivar interrupt_grace: seconds from telling a job to stop to raising
        :exc:`deferpost.Interrupted` in its handler, and to doing so again, where its route has
        ``interrupt=True``.
    """

    size: int | None = None
    max_waiting: int = 1000
    max_held: int = MAX_HELD
    interrupt_grace: float = 5.0

    kind: ClassVar[str] = "thread"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting, self.max_held)
        if not 0 < self.interrupt_grace <= 3600:
            raise ValueError(
                f"interrupt_grace is above 0 and up to 3600 seconds, not {self.interrupt_grace!r}"
            )

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.threads import start_thread_pool

        size = self.size or min(32, usable_cpus() + 4)
        return start_thread_pool(
            context,
            size=size,
            max_waiting=self.max_waiting,
            interrupt_grace=self.interrupt_grace,
        )


class ProcessPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for worker processes.

    :ivar size: how many jobs run at once; None for one for each CPU.
    :ivar max_waiting: how many more may wait.
    :ivar max_held: bytes of request bodies that they may hold together; 0 for no bound.
    :ivar kill_grace: seconds between SIGTERM and SIGKILL for a worker whose job is canceled.
    :ivar max_jobs: jobs after which a worker is replaced, a tenth more or less; 0 for never.
    :ivar max_age: seconds after which a worker is replaced, a tenth more or less; 0 for never.
    :ivar max_memory: bytes of resident memory from which on a worker is replaced after its job, a
        tenth more or less; 0 for never.
    :ivar memory_limit: bytes of memory that a worker can have at all, in its address space; 0 for
        no limit.
    :ivar cpu_limit: seconds of CPU time after which a worker is killed in the middle of a job, or
        of its set-up; 0 for no limit.
    :ivar set_up_timeout: seconds after which a worker is killed whose set-up has not ended.
    :ivar warm: workers beyond ``size`` that are set up and wait to take the place of one that has
        to go.
    """

    size: int | None = None
    max_waiting: int = 1000
    max_held: int = MAX_HELD
    kill_grace: float = 5.0
    max_jobs: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    memory_limit: int = 0
    cpu_limit: float = 0.0
    set_up_timeout: float = 60.0
    warm: int = 0

    kind: ClassVar[str] = "process"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting, self.max_held)
        _check_range("kill_grace", self.kill_grace, 0, 3600, " seconds")
        _check_range("max_jobs", self.max_jobs, 0, 10**9)
        _check_range("max_age", self.max_age, 0, _LONG, " seconds")
        _check_range("max_memory", self.max_memory, 0, 2**50, " bytes")
        _check_range("memory_limit", self.memory_limit, 0, 2**50, " bytes")
        if 0 < self.memory_limit < _LEAST_MEMORY:
            raise ValueError(
                f"memory_limit is 0 or at least {_LEAST_MEMORY} bytes, which a worker needs, "
                f"not {self.memory_limit!r}"
            )
        _check_range("cpu_limit", self.cpu_limit, 0, _LONG, " seconds")
        _check_range("set_up_timeout", self.set_up_timeout, 0, _LONG, " seconds")
        if self.set_up_timeout == 0:
            raise ValueError("set_up_timeout is more than 0 seconds")
        _check_range("warm", self.warm, 0, 1024)

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.processes import start_process_pool

        return start_process_pool(context, plan=self, size=self.size or usable_cpus())


class ReactorPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for coroutine handlers, which run on the reactor.

    :ivar size: how many run at once.
    :ivar max_waiting: how many more may wait.
    :ivar max_held: bytes of request bodies that they may hold together; 0 for no bound.
    """

    size: int = 1000
    max_waiting: int = 1000
    max_held: int = MAX_HELD

    kind: ClassVar[str] = "reactor"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting, self.max_held)

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.reactor import start_reactor_pool

        return start_reactor_pool(context, size=self.size, max_waiting=self.max_waiting)


def _check_range(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is from {low:.0f} to {high:.0f}{unit}, not {value!r}")


def _check(size: int | None, max_waiting: int, max_held: int) -> None:
    if size is not None and size < 1:
        raise ValueError(f"a pool has a size of at least 1, not {size!r}")
    if max_waiting < 0:
        raise ValueError(f"max_waiting is at least 0, not {max_waiting!r}")
    if max_held < 0:
        raise ValueError(f"max_held is at least 0, not {max_held!r}")
