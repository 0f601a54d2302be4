"""A reactor whose timers a test moves by hand, and which is the real one in all else."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

__all__ = ["ClockedReactor"]


class ClockedReactor:
    """For a pool whose deadlines are tested with real threads or processes.

    :param reactor: the real reactor, for everything but :class:`IReactorTime`.

    :ivar clock: what the timers go by.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.clock = Clock()
        self.seconds = self.clock.seconds
        self.callLater = self.clock.callLater
        self.getDelayedCalls = self.clock.getDelayedCalls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
