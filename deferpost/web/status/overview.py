"""Collects the state of the daemon from those who have it.

Asks pools and counters and computes nothing by itself; what is made of their answers is decided in
:mod:`deferpost.web.status.document`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from deferpost.interfaces import IInspectable
from deferpost.jobs import Job
from deferpost.model import PoolStatus
from deferpost.tally import Tally
from deferpost.web.status.document import (
    MAX_RECENT,
    PoolState,
    StateDocument,
    pool_state,
    refusals_by_reason,
)

__all__ = ["Overseen", "Overview"]


class Overseen(Protocol):
    """The work that the page is about.  For the reactor thread."""

    @property
    def pools(self) -> Mapping[str, Any]:
        """The started pools by name (:class:`deferpost.interfaces.IWorkerPool`)."""

    def find(self, key: int) -> Job | None:
        """A job that has not ended, by its key."""


class Overview:
    """The state of one daemon.  For the reactor thread.

    :param overseen: the work that there is now.
    :param tally: what was counted of the work that is over.
    :param accepting: whether calls are accepted.
    :param now: the monotonic clock, in seconds.
    :param wall_clock: seconds since 1970.
    :param version: of deferpost.
    :param since: when the daemon was started, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        overseen: Overseen,
        tally: Tally,
        *,
        accepting: Callable[[], bool],
        now: Callable[[], float],
        wall_clock: Callable[[], float],
        version: str,
        since: float,
    ) -> None:
        self._overseen = overseen
        self._tally = tally
        self._now = now
        self._wall_clock = wall_clock
        self._version = version
        self._since = since
        self._accepting = accepting

    def build(self) -> StateDocument:
        """The state at this moment."""
        tally, now = self._tally, self._now()
        pools = tuple(_state_of(pool) for pool in self._overseen.pools.values())
        accepting = self._accepting()
        return StateDocument(
            time=round(self._wall_clock(), 3),
            version=self._version,
            accepting=accepting,
            ready=accepting and all(pool.ready for pool in pools),
            uptime=round(now - self._since, 1),
            pools=pools,
            percentiles=tally.percentiles(now),
            refusals=refusals_by_reason(tally.refusals()),
            recent=tuple(tally.recent()[-MAX_RECENT:]),
        )

    def find(self, pool: str, key: int) -> Job:
        """A job that has not ended.

        :raises LookupError: there is none, or no such pool.
        """
        job = self._overseen.find(key) if pool in self._overseen.pools else None
        if job is None:
            raise LookupError("There is no such job, or it has ended.")
        return job

    def inspectable(self, pool: str) -> Any:
        """A pool that can be looked into (:class:`deferpost.interfaces.IInspectable`).

        :raises LookupError: there is none of that name.
        """
        found = self._overseen.pools.get(pool)
        if found is None or not IInspectable.providedBy(found):
            raise LookupError("There is no such pool, or it lets nobody look.")
        return found


def _state_of(pool: Any) -> PoolState:
    status: PoolStatus = pool.status()
    return pool_state(status, pool.workers() if IInspectable.providedBy(pool) else None)
