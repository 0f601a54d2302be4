"""The worker processes of a pool: how many there are, and which is replaced when.

A worker that is gone is replaced at once if it ever did its work, and after a growing pause if it
could not be set up.  One that has served for long enough is replaced too: one at a time, and only
when the one that takes its place is ready, so that nobody waits for it.  This gives out no jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.pools.plans import ProcessPool
from deferpost.pools.resident import resident_bytes
from deferpost.pools.worker import Stage, Worker
from deferpost.recycling import Bounds

__all__ = ["Crew"]

_log = Logger(namespace="deferpost.pools.processes")

#: Seconds before a worker is started again whose set-up failed: first, and at most.
_PAUSE_FIRST, _PAUSE_MOST = 0.5, 30.0

#: Workers in a row that end before they are ready, without a word, until nobody is let wait.
_ATTEMPTS = 3


class Crew:
    """The workers of one pool.  For the reactor thread.

    :param pool: the name of the pool.
    :param plan: what is asked for.
    :param size: how many workers have a job at once.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param start: starts a worker, which gets the name that it is called with.
    :param broken: called when there is no worker and none can be started for now.

    :ivar restarts: workers that were replaced.
    """

    def __init__(
        self,
        pool: str,
        plan: ProcessPool,
        size: int,
        reactor: Any,
        start: Callable[[str], Worker],
        broken: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._size = size
        self._warm = plan.warm
        self._reactor = reactor
        self._start = start
        self._broken = broken
        self._bounds = Bounds(
            max_jobs=plan.max_jobs, max_age=plan.max_age, max_memory=plan.max_memory
        )
        self._recycles = bool(self._bounds)
        self._workers: dict[str, Worker] = {}
        self._bounds_of: dict[str, Bounds] = {}
        self._idle: list[Worker] = []
        self._number = 0
        self._due: deque[Worker] = deque()  # those to be replaced, the next one first
        self._old: Worker | None = None  # the one that is being replaced
        self._failures = 0  # workers in a row that came to nothing
        self._hopeless = False  # so that none of those that wait would be run
        self._refill: Any = None
        self._look_timer: Any = None
        self._stopped: Deferred[int] | None = None
        self.restarts = 0

    def __iter__(self) -> Iterator[Worker]:
        """The workers that there are now, oldest first."""
        return iter(list(self._workers.values()))

    @property
    def has_ready(self) -> bool:
        """Whether there is a worker whose set-up has succeeded."""
        return any(worker.was_ready for worker in self._workers.values())

    @property
    def is_broken(self) -> bool:
        """Whether there is no worker, and the next that is started will fare as the last did."""
        return self._hopeless and not self.has_ready

    @property
    def pause(self) -> float:
        """Seconds from an attempt that came to nothing to the next."""
        return min(_PAUSE_MOST, _PAUSE_FIRST * 2.0 ** min(self._failures - 1, 16))

    def fill(self) -> None:
        """Start workers until there are as many as there are to be."""
        refill, self._refill = self._refill, None
        if refill is not None and refill.active():
            refill.cancel()
        if self._recycles and self._look_timer is None and self._stopped is None:
            self._look_timer = self._reactor.callLater(self._bounds.look_pause, self._look)
        most = self._size + self._warm
        while self._stopped is None and len(self._workers) < most + (self._old is not None):
            self._number += 1
            try:
                worker = self._start(str(self._number))
            except OSError as error:
                _log.error(
                    "pool {pool} cannot start a worker process: {error}",
                    pool=self._pool,
                    error=error,
                )
                self._failed(certain=False)
                return
            self._workers[worker.name] = worker
            if self._recycles:
                self._bounds_of[worker.name] = self._bounds.drawn(self._number)

    def take(self) -> Worker | None:
        """A worker without a job, which is then no longer among the idle."""
        while self._idle:
            worker = self._idle.pop()
            if worker.stage is Stage.IDLE:  # one that has just ended is none
                return worker
        return None

    def rest(self, worker: Worker) -> None:
        """There is no job for this worker."""
        self._idle.append(worker)

    def stop(self, patience: float) -> Deferred[int]:
        """Let all workers go; their jobs were told to stop.

        :param patience: seconds until those are killed that have not ended.
        :returns: a Deferred that fires with 0 when they are gone.
        """
        self._stopped = stopped = Deferred[int]()
        for timer in (self._refill, self._look_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._idle.clear()
        self._due.clear()
        for worker in self:
            worker.terminate() if worker.stage is Stage.STARTING else worker.dismiss()
            worker.hurry(patience)
        self._fire_if_empty()
        return stopped

    def restart(self, name: str) -> bool:
        """See :meth:`deferpost.interfaces.IInspectable.restart`."""
        worker = self._workers.get(name)
        if worker is None or worker.stage in (Stage.LEAVING, Stage.GONE) or self._stopped:
            return False
        if worker.stage is Stage.STARTING:
            worker.terminate()  # nobody has to take its place first
        else:
            self._replace(worker, "on request", first=True)
        return True

    # What workers tell.

    def ready(self, worker: Worker) -> bool:
        """A worker has been set up, or has ended a job.

        :returns: whether it can be given a job, or a rest; if not, it is leaving.
        """
        if worker.jobs_done == 0:  # it was set up: others that did their jobs prove nothing
            self._failures = 0
            self._hopeless = False
        if self._stopped is not None:
            worker.dismiss()
            return False
        if self._recycles:
            self._judge(worker)
        if self._old is not None:
            self._hand_over()
        return worker.stage is Stage.IDLE

    def gone(self, worker: Worker, how: str) -> None:
        """The process of a worker has ended.

        :param how: it did, in words.
        """
        self._workers.pop(worker.name, None)
        self._bounds_of.pop(worker.name, None)
        if worker in self._idle:
            self._idle.remove(worker)
        if self._stopped is not None:
            self._fire_if_empty()
            return
        self.restarts += 1
        self._log_end(worker, how)
        if worker is self._old:
            self._old = None
        if not worker.was_ready and not worker.was_told_to_go:
            self._failed(certain=worker.set_up_error is not None)
        elif worker.jobs_done == 0 and not worker.was_told_to_go:
            self._fill_after(_PAUSE_FIRST)  # so that one that cannot live is not started all day
        else:
            self.fill()
        self._next_old()

    def _log_end(self, worker: Worker, how: str) -> None:
        if worker.set_up_error is not None:
            _log.error(
                "a worker of pool {pool} could not be set up:\n{traceback}",
                pool=self._pool,
                traceback=worker.set_up_error,
            )
        elif not worker.was_told_to_go:
            _log.error(
                "worker {pid} of pool {pool} was lost: {how}",
                pid=worker.pid,
                pool=self._pool,
                how=how,
            )

    # Workers that came to nothing.

    def _failed(self, *, certain: bool) -> None:
        """A worker came to nothing: try again after a pause, and let nobody wait for ever.

        :param certain: whether the next will fare alike: its set-up raised.  One that was killed
            from outside costs those that wait only the pause.
        """
        self._failures += 1
        self._hopeless = self._hopeless or certain or self._failures >= _ATTEMPTS
        self._fill_after(self.pause)
        _log.warn(
            "pool {pool}: workers in a row that came to nothing: {count}; the next one is started "
            "in {pause:.1f} s",
            pool=self._pool,
            count=self._failures,
            pause=self._refill.getTime() - self._reactor.seconds(),
        )
        if self.is_broken:
            self._broken()

    def _fill_after(self, pause: float) -> None:
        if self._refill is None:
            self._refill = self._reactor.callLater(pause, self.fill)

    # Workers that have served for long enough.

    def _judge(self, worker: Worker) -> None:
        """Have a worker replaced that has come to one of its bounds."""
        if worker.is_due:
            return
        # One that is too large before its first job would only be followed by another such.
        weighs = self._bounds.max_memory and worker.jobs_done
        memory = resident_bytes(worker.pid) if weighs else None
        reached = self._bounds_of[worker.name].reached(worker.jobs_done, worker.age, memory)
        if reached is not None:
            self._replace(worker, reached)

    def _look(self) -> None:
        """Look at those that have nothing to do; the others are looked at after their jobs."""
        self._look_timer = self._reactor.callLater(self._bounds.look_pause, self._look)
        for worker in self:
            if worker.stage is Stage.IDLE:
                self._judge(worker)

    def _replace(self, worker: Worker, why: str, *, first: bool = False) -> None:
        if worker.is_due and not (first and worker in self._due):
            return
        if worker.is_due:
            self._due.remove(worker)
        worker.is_due = True
        _log.info(
            "worker {pid} of pool {pool} is to be replaced: {why}",
            pid=worker.pid,
            pool=self._pool,
            why=why,
        )
        (self._due.appendleft if first else self._due.append)(worker)
        self._next_old()

    def _next_old(self) -> None:
        """Begin to replace the next worker, if none is being replaced."""
        while self._old is None and self._due and self._stopped is None:
            worker = self._due.popleft()
            if worker.stage in (Stage.IDLE, Stage.BUSY):
                self._old = worker
                if self._refill is None:
                    self.fill()
                self._hand_over()

    def _hand_over(self) -> None:
        """Let a worker go that is due and has no job, if the others are enough without it.

        The one that is being replaced may have a job that takes hours: then another one that is
        due goes first.
        """
        old = self._old
        if old is None or old.stage is Stage.LEAVING:
            return
        idle = next((each for each in (old, *self._due) if each.stage is Stage.IDLE), None)
        if idle is None:
            return
        able = sum(
            each.stage in (Stage.IDLE, Stage.BUSY)
            for each in self._workers.values()
            if each is not idle
        )
        if able >= self._size:
            if idle is not old:
                self._due.remove(idle)
                self._due.appendleft(old)
                self._old = idle
            if idle in self._idle:
                self._idle.remove(idle)
            idle.dismiss()

    def _fire_if_empty(self) -> None:
        stopped = self._stopped
        if stopped is not None and not self._workers and not stopped.called:
            stopped.callback(0)
