"""What threads have to say to the reactor, in batches.

Waking the reactor is a system call, and a turn of it costs more than a short job does.  So what
threads post is collected, and one wake-up serves for all that has gathered by the time the reactor
turns.  What is said here, and what follows from it, is no matter of this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from deferpost.jobs import Job

__all__ = ["DRAIN_MOST", "Outbox"]

_log = Logger(namespace="deferpost.pools")

#: How many outcomes are handled in one turn of the reactor; the others wait for the next.
DRAIN_MOST = 128


class Outbox:
    """The way from the threads of a pool to the reactor; what one thread posts keeps its order.

    No more waits here than the threads have said: one outcome for each job that they were given,
    and one word of a stream until the reactor has heard it.

    :param reactor: which is woken (:class:`IReactorFromThreads` and :class:`IReactorTime`).
    :param handle: called on the reactor thread with a job and what was said of it.
    """

    def __init__(self, reactor: Any, handle: Callable[[Job, Any], None]) -> None:
        self._reactor = reactor
        self._handle = handle
        self._posted: deque[tuple[Job, Any]] = deque()
        self._waking = False

    def post(self, job: Job, what: Any) -> None:
        """Have the reactor hear of it; it is woken unless it is about to look.  On any thread.

        :param job: which it is about.
        :param what: what there is to be said of it.
        """
        self._posted.append((job, what))
        if not self._waking:
            self._waking = True
            self._reactor.callFromThread(self._drain)

    def _drain(self) -> None:
        """Handle what was posted, oldest first."""
        take, handle = self._posted.popleft, self._handle
        for _ in range(DRAIN_MOST):
            try:
                job, what = take()
            except IndexError:
                # Until here threads have posted without a wake-up; look once more after this.
                self._waking = False
                if not self._posted:
                    return
                continue
            try:
                handle(job, what)
            except Exception:  # a defect, of a reader for example, which is to stop no other job
                _log.failure("[{job}] was not told what its thread did", job=job.head.id)
        self._reactor.callLater(0, self._drain)
