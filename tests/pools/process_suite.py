"""What the tests of the pool of worker processes are built on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from deferpost import ProcessPool
from deferpost.errors import WorkerLost
from deferpost.handlers.running import Handlers
from deferpost.model import Reason, Route, State
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.handlers import HANDLERS
from deferpost.testing.suite import PoolSuite, Sent
from tests.pools import process_handlers
from tests.pools.process_handlers import FLAG


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


class ProcessSuite(PoolSuite):
    """Pools of processes, with the handlers of these tests beside those of the suite."""

    reactor = reactor
    kill_grace = 60.0
    #: What else is asked for.
    options: Mapping[str, Any] = MappingProxyType({})

    def setUp(self) -> None:
        """See :class:`PoolSuite`; the log is kept."""
        super().setUp()
        self.log: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if str(event.get("log_namespace")).startswith("deferpost"):
                self.log.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def make_plan(self, *, size: int, max_waiting: int) -> ProcessPool:
        """See :class:`PoolSuite`."""
        return ProcessPool(
            size=size, max_waiting=max_waiting, kill_grace=self.kill_grace, **self.options
        )

    def start_with(
        self, handlers: Mapping[str, Any] | None = None, *, size: int = 1, **context: Any
    ) -> None:
        """Start a pool with the handlers of these tests, or with given ones."""
        named = {**HANDLERS, **process_handlers.HANDLERS} if handlers is None else handlers
        source = Handlers(
            [
                Route(path=f"/{name}", handler=handler, pool="tested")
                for name, handler in named.items()
            ]
        )
        self.start_pool(size=size, source=source, **context)

    def start_clocked_pool_with(
        self, handlers: Mapping[str, Any] | None = None, *, size: int = 1
    ) -> None:
        """Start such a pool with a clock that :meth:`pass_time` moves."""
        self._clocked = ClockedReactor(reactor)
        self.now = self._clocked.seconds
        self.start_with(handlers, size=size, reactor=self._clocked)

    def set_flag(self, path: Path) -> None:
        """Tell the workers that are started in this test of a file."""
        os.environ[FLAG] = str(path)
        self.addCleanup(os.environ.pop, FLAG)

    async def lost(self, sent: Sent) -> str:
        """Wait for a job whose worker is lost.

        :returns: how it was.
        """
        error = await self.error_of(sent, WorkerLost)
        await self.end_of(sent, State.FAILED, Reason.WORKER_LOST)
        return error.how

    async def pid_of_worker(self) -> int:
        """The process of the one worker, when it is ready."""
        await self.until(lambda: self.pool.status().ready, "the worker is ready")
        (pid,) = self.pool.worker_pids()
        assert isinstance(pid, int)
        return pid
