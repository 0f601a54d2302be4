"""How a job's end is told, alike for every kind of pool."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from deferpost.errors import BodyBroken, Canceled, DeadlineExceeded, HandlerFailed, ShuttingDown
from deferpost.jobs import Job
from deferpost.lifecycle import DEADLINES, Event
from deferpost.model import Reason
from deferpost.pools.deadlines import limit_seconds

__all__ = [
    "answer_stopped",
    "failure_of",
    "log_late",
    "stop_error",
    "stop_event",
    "without_cause",
]

_log = Logger(namespace="deferpost.pools")


def stop_event(reason: Reason) -> Event:
    """The event of the life-cycle that a reason to stop is."""
    return Event.EXPIRE if reason in DEADLINES else Event.CANCEL


def stop_error(job: Job, reason: Reason) -> Exception:
    """What whoever still waits for a stopped job is told."""
    if reason in DEADLINES:
        return DeadlineExceeded(limit_seconds(job, reason), reason)
    if reason is Reason.SHUTDOWN:
        return ShuttingDown("the service is stopping")
    return CancelledError()


def answer_stopped(job: Job, reason: Reason) -> None:
    """Tell whoever waits for the job's answer that there will be none.

    :param job: the job, whose answer may have been given already.
    :param reason: why it is stopped.
    """
    answer, job.answer = job.answer, None
    if answer is not None and not answer.called:
        answer.errback(stop_error(job, reason))


def without_cause(error: BaseException) -> Exception:
    """The error of a job that nobody stopped.

    A handler that raises :class:`Canceled` by itself has failed like any other.
    """
    if isinstance(error, Canceled):
        return HandlerFailed("deferpost.Canceled: raised by the handler, though nobody canceled it")
    assert isinstance(error, Exception)
    return error


def failure_of(job: Job, error: BaseException) -> tuple[Exception, Reason]:
    """The error of a job that nobody stopped, and the reason that it has failed for.

    A handler that could not read its body whole has failed with what broke the body.
    """
    if isinstance(error, BodyBroken):
        broken: Exception = getattr(job.body, "error", None) or error
        left = isinstance(broken, BodyBroken)
        return broken, Reason.CLIENT_DISCONNECTED if left else Reason.ERROR
    return without_cause(error), Reason.ERROR


def log_late(job: Job, error: BaseException | None) -> None:
    """Log what a handler raised after it was told to stop, unless that is how it stopped."""
    if isinstance(error, HandlerFailed):
        _log.warn(
            "[{job}] {route} failed after it was told to stop:\n{traceback}",
            job=job.head.id,
            route=job.head.route,
            traceback=error.traceback,
        )
