"""Jobs that were told to stop and go on: when they are interrupted, and when a pool has hung.

A thread cannot be ended from outside.  What can be done is to interrupt the handler, where its
route permits it, and to say so: once for a job that goes on for long, and once when a pool has no
worker left that does anything else.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from deferpost.jobs import Job
from deferpost.model import Rung

__all__ = ["HANG_SECONDS", "Stragglers"]

_log = Logger(namespace="deferpost.pools")

#: Seconds after which a job that was told to stop and goes on is said to hang.
HANG_SECONDS = 10.0


class _Straggler:
    """One job that was told to stop."""

    __slots__ = ("hangs", "interrupt", "interrupts", "job", "told", "watch")

    def __init__(self, job: Job, told: float) -> None:
        self.job = job
        self.told = told
        self.hangs = False
        self.interrupts = 0
        self.watch: Any = None  # the timer after which it hangs
        self.interrupt: Any = None  # the timer of its next interrupt


class Stragglers:
    """The jobs of one pool whose code goes on after they were told to stop.

    There are no more of them than the pool has workers.

    :param reactor: where timers come from (:class:`IReactorTime`).
    :param now: the monotonic clock, in seconds.
    :param pool: the pool's name.
    :param size: how many jobs it runs at once.
    :param interrupt: interrupts the handler of a job; tells whether it was in its own code.
    :param interrupt_grace: seconds from telling a job to its interrupt, and to each further one.
    :param hang_seconds: seconds after which it is said to hang.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        pool: str,
        size: int,
        *,
        interrupt: Callable[[Job], bool],
        interrupt_grace: float,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._pool = pool
        self._size = size
        self._interrupt = interrupt
        self._grace = interrupt_grace
        self._hang_seconds = hang_seconds
        self._found: dict[int, _Straggler] = {}
        self._hanging = 0
        self._hung = False

    @property
    def hanging(self) -> int:
        """How many were told to stop so long ago that they are said to hang."""
        return self._hanging

    @property
    def hung(self) -> bool:
        """Whether every worker of the pool has one that hangs."""
        return self._hung

    def told(self, job: Job, *, interruptible: bool) -> None:
        """A job that runs was told to stop.

        :param job: the job.
        :param interruptible: whether its handler may be interrupted.
        """
        straggler = self._found[job.key] = _Straggler(job, self._now())
        later = self._reactor.callLater
        straggler.watch = later(self._hang_seconds, self._hangs, straggler)
        if interruptible:
            straggler.interrupt = later(self._grace, self._strike, straggler)

    def ended(self, job: Job) -> None:
        """The code of a job has ended, whether it was told to or not."""
        straggler = self._found.pop(job.key, None)
        if straggler is None:
            return
        for timer in (straggler.watch, straggler.interrupt):
            if timer is not None and timer.active():
                timer.cancel()
        if straggler.hangs:
            self._hanging -= 1
            _log.info(
                "[{job}] {route} has ended, {seconds:.1f} s after it was told to stop",
                job=job.head.id,
                route=job.head.route,
                seconds=self._now() - straggler.told,
            )
        if self._hung:
            self._hung = False
            _log.info("pool {pool} works again", pool=self._pool)

    def hurry(self, patience: float) -> None:
        """The pool is being stopped: interrupt sooner, so that it is of use.

        :param patience: seconds that are left.
        """
        self._grace = min(self._grace, patience / 2)
        for straggler in self._found.values():
            timer = straggler.interrupt
            if timer is not None and timer.getTime() - self._reactor.seconds() > self._grace:
                timer.reset(self._grace)

    def leave(self) -> None:
        """They are left behind: neither interrupt them nor speak of them any more."""
        found, self._found = self._found, {}
        for straggler in found.values():
            for timer in (straggler.watch, straggler.interrupt):
                if timer is not None and timer.active():
                    timer.cancel()

    def _hangs(self, straggler: _Straggler) -> None:
        straggler.hangs = True
        self._hanging += 1
        job = straggler.job
        _log.warn(
            "[{job}] {route} goes on {seconds:.1f} s after it was told to stop ({reason})",
            job=job.head.id,
            route=job.head.route,
            seconds=self._now() - straggler.told,
            reason=str(job.reason),
        )
        if self._hanging >= self._size and not self._hung:
            self._hung = True
            _log.error(
                "pool {pool} hangs: each of its workers ({size}) has a job that was told to stop "
                "and goes on; what waits for it is not run until one ends",
                pool=self._pool,
                size=self._size,
            )

    def _strike(self, straggler: _Straggler) -> None:
        job = straggler.job
        if self._interrupt(job):
            if not straggler.interrupts:
                job.rung = Rung.INTERRUPTED
                _log.info("[{job}] {route} is interrupted", job=job.head.id, route=job.head.route)
            straggler.interrupts += 1
        straggler.interrupt = self._reactor.callLater(self._grace, self._strike, straggler)
