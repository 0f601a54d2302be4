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


def usable_cpus() -> int:
    """How many CPUs this process may use, at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ThreadPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for threads of this process.

    :ivar size: how many jobs run at once; None for four more than there are CPUs, at most 32.
    :ivar max_waiting: how many more may wait.
    """

    size: int | None = None
    max_waiting: int = 1000

    kind: ClassVar[str] = "thread"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting)

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.threads import start_thread_pool

        size = self.size or min(32, usable_cpus() + 4)
        return start_thread_pool(context, size=size, max_waiting=self.max_waiting)


class ProcessPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for worker processes.

    :ivar size: how many jobs run at once; None for one for each CPU.
    :ivar max_waiting: how many more may wait.
    :ivar kill_grace: seconds between SIGTERM and SIGKILL for a worker whose job is canceled.
    """

    size: int | None = None
    max_waiting: int = 1000
    kill_grace: float = 5.0

    kind: ClassVar[str] = "process"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting)
        if not 0 <= self.kill_grace <= 3600:
            raise ValueError(f"kill_grace is from 0 to 3600 seconds, not {self.kill_grace!r}")

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.processes import start_process_pool

        return start_process_pool(
            context,
            size=self.size or usable_cpus(),
            max_waiting=self.max_waiting,
            kill_grace=self.kill_grace,
        )


class ReactorPool(msgspec.Struct, frozen=True, kw_only=True):
    """A plan for coroutine handlers, which run on the reactor.

    :ivar size: how many run at once.
    :ivar max_waiting: how many more may wait.
    """

    size: int = 1000
    max_waiting: int = 1000

    kind: ClassVar[str] = "reactor"

    def __post_init__(self) -> None:
        _check(self.size, self.max_waiting)

    def start(self, context: PoolContext) -> IWorkerPool:
        """Start it; see :meth:`deferpost.interfaces.IPoolPlan.start`."""
        from deferpost.pools.reactor import start_reactor_pool

        return start_reactor_pool(context, size=self.size, max_waiting=self.max_waiting)


def _check(size: int | None, max_waiting: int) -> None:
    if size is not None and size < 1:
        raise ValueError(f"a pool has a size of at least 1, not {size!r}")
    if max_waiting < 0:
        raise ValueError(f"max_waiting is at least 0, not {max_waiting!r}")
