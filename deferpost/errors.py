"""The errors of deferpost: one tree, and each says who can act.

* The client: :class:`HTTPError` and what derives from it, :class:`BodyTooLarge`,
  :class:`BodyBroken`.
* The author of a handler: :class:`DeclarationError`, :class:`HandlerFailed`.
* The operator: :class:`ConfigurationError`, :class:`PoolFull`, :class:`PoolBroken`,
  :class:`ShuttingDown`, :class:`WorkerLost`, :class:`DeadlineExceeded`, :class:`StorageFailed`,
  :class:`StoreFailed`.

This module chooses no HTTP status but the one that a handler names itself;
:mod:`deferpost.web.problems` holds the table.  Nothing here imports Twisted, because workers
import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deferpost.fields import check_field, printable
from deferpost.model import Quota, Reason

__all__ = [
    "BadRequest",
    "BodyBroken",
    "BodyTooLarge",
    "Canceled",
    "ClientQuota",
    "ConfigurationError",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "DeclarationError",
    "DeferPostError",
    "HTTPError",
    "HandlerFailed",
    "Interrupted",
    "NotStarted",
    "PoolBroken",
    "PoolFull",
    "ShuttingDown",
    "StorageFailed",
    "StoreFailed",
    "WorkerLost",
]


class Canceled(BaseException):
    """Raised inside a handler whose job is no longer wanted.

    By :meth:`deferpost.Call.check` in a thread, and by the SIGTERM of the cancel ladder in a
    worker process.  It is a :class:`BaseException`, as :class:`asyncio.CancelledError` is, so
    that a handler's ``except Exception`` does not swallow it.
    """


class Interrupted(Canceled):
    """Raised by force inside a handler that runs in a thread and did not stop when it was told to.

    Only on routes with ``interrupt=True``.  It comes between two bytecodes, wherever the handler
    is: code that holds resources in a state that must not be left half-way is not for such routes.
    It cannot interrupt a call into C.
    """


class DeferPostError(Exception):
    """The root of the tree."""


class HTTPError(DeferPostError):
    """Raised by a handler to answer with an error of its choice (RFC 9457).

    :param status: HTTP status, 400 to 599.
    :param detail: one sentence for the client about this occurrence.
    :param title: a short name of the kind of problem; the status phrase if not given.
    :param type: a URI that names the kind of problem.
    :param headers: further response headers, as a mapping or as pairs.
    :param extensions: further members of the problem document.
    :raises ValueError: a status outside 400 to 599, or a header that HTTP does not permit or
        that is for the server to decide.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        title: str | None = None,
        type: str = "about:blank",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"an HTTPError has a status from 400 to 599, not {status!r}")
        super().__init__(status, detail)
        self.status = status
        self.detail = printable(detail)
        self.title = None if title is None else printable(title)
        self.type = printable(type)
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.headers: tuple[tuple[str, str], ...] = tuple((str(k), str(v)) for k, v in pairs)
        for name, value in self.headers:
            check_field(name, value)
        self.extensions: dict[str, Any] = dict(extensions or {})

    def __str__(self) -> str:
        return f"{self.status} {self.detail}".rstrip()


class BadRequest(HTTPError):
    """What the client sent cannot be read: 400, and ``detail`` says where.

    :param detail: what is wrong, and at which place of the body.
    :param extensions: the place as members, for example ``line`` and ``column``.
    """

    def __init__(self, detail: str, **extensions: Any) -> None:
        super().__init__(400, detail, extensions=extensions)


class BodyTooLarge(DeferPostError):
    """The request's body is over the route's ``max_body``.

    :param limit: the limit, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the {limit} bytes that this route accepts")
        self.limit = limit


class BodyBroken(DeferPostError, OSError):
    """The request's body, which a handler reads while it arrives, will never be whole.

    Raised by reading ``call.body`` of a route with ``stream=True``: the client left in the middle,
    or its body broke a rule or a limit.  It is an :class:`OSError` because it is raised where
    files raise these.  A handler lets it pass: nothing of it is the handler's fault.

    :param reason: why, in one sentence for the client and the log.
    """

    def __init__(self, reason: str = "the client left before the body was whole") -> None:
        super().__init__(reason)
        self.reason = reason


class StorageFailed(DeferPostError):
    """The request's body could not be kept (a full disk, for example): the operator can act.

    :param reason: the operating system's words, for the log and never for the client.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreFailed(DeferPostError):
    """The store of accepted jobs could not do what it was asked for: the operator can act.

    :param reason: what is wrong, for the log and never for the client.
    :param fatal: whether it will not become better by itself: what is on the disk is damaged, or
        belongs to another process or a later version.
    """

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal


class NotStarted(DeferPostError):
    """A worker had the job, but its code was not permitted to begin.

    Nobody outside is told of it: whoever refused knows what becomes of the job.

    :param reason: why, for the log.
    """


class PoolFull(DeferPostError):
    """Every worker is busy and the pool's queue is at its bound, or too many bytes wait with it.

    :param pool: the pool's name.
    :param retry_after: seconds after which there is likely to be room.
    :param quota: the bound that is reached, where that is known.
    """

    def __init__(self, pool: str, retry_after: int = 1, quota: Quota | None = None) -> None:
        super().__init__(f"pool {pool!r} is full")
        self.pool = pool
        self.retry_after = retry_after
        self.quota = quota


class DeadlineUnmeetable(DeferPostError):
    """By what was measured, the job would not be in time: it is not even begun.

    :param retry_after: seconds after which it is likely to be.
    """

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("the work could not be done in time: too much of it waits already")
        self.retry_after = retry_after


class ClientQuota(DeferPostError):
    """The client has as many calls under way as one may have.

    :param most: how many that are.
    :param retry_after: seconds after which one of them is likely to be over.
    """

    def __init__(self, most: int, retry_after: int = 1) -> None:
        super().__init__(f"a client has at most {most} calls under way at once here")
        self.retry_after = retry_after
        self.quota = Quota("client", most, 0)


class PoolBroken(DeferPostError):
    """The pool has no worker and its workers do not start: the operator can act.

    :param pool: the pool's name.
    :param retry_after: seconds until the next attempt to start one.
    """

    def __init__(self, pool: str, retry_after: int = 1) -> None:
        super().__init__(f"the workers of pool {pool!r} do not start")
        self.pool = pool
        self.retry_after = retry_after


class ShuttingDown(DeferPostError):
    """The service takes no new work because it is stopping."""


class WorkerLost(DeferPostError):
    """The worker process ended by itself in the middle of the job, exit code 0 included.

    :param how: how it ended, for the log: ``"exit code 1"``, ``"signal 9"``.
    """

    def __init__(self, how: str) -> None:
        super().__init__(f"the worker process ended ({how}) before the job was done")
        self.how = how


class DeadlineExceeded(DeferPostError):
    """The job's time was up.

    :param seconds: the limit that ended it.
    :param reason: which of its limits that was.
    """

    def __init__(self, seconds: float, reason: Reason = Reason.DEADLINE_RUN) -> None:
        did = "start" if reason is Reason.DEADLINE_QUEUE else "end"
        super().__init__(f"the work did not {did} within {seconds:g} seconds")
        self.seconds = seconds
        self.reason = reason


class HandlerFailed(DeferPostError):
    """The handler raised something that is not an answer.

    :param traceback: the handler's own traceback as text, for the log and never for the client.
    """

    def __init__(self, traceback: str) -> None:
        last = traceback.rstrip().rsplit("\n", 1)[-1]
        super().__init__(last)
        self.traceback = traceback


class DeclarationError(DeferPostError):
    """An app, a route or a handler is declared in a way that cannot work.

    Raised where it is declared or loaded, before anything is served.

    :param message: one sentence that says what to change.
    :param traceback: the traceback of the user's own code, where that is what failed.
    """

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class ConfigurationError(DeferPostError):
    """The daemon's settings are wrong; all that is wrong is reported at once.

    :param problems: one line each, starting with the place: file and line, environment variable
        or option.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
