"""Every way a call can end: the rows that are run against a daemon, and that the page shows.

Data only.  What is done for each row is in :mod:`tests.integration.test_endings`, which checks that
it ends as the row says.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from deferpost.model import Reason, Rung, State

__all__ = ["ENDINGS", "Ending", "Sees"]

_ALL = ("thread", "process", "reactor")
_CODE = ("thread", "process")  #: kinds whose handlers are plain functions
_THREAD, _PROCESS, _REACTOR = ("thread",), ("process",), ("reactor",)


class Sees(enum.StrEnum):
    """What a client gets to see of a response."""

    WHOLE = "whole"  #: a response that is whole
    PART = "part"  #: one that broke off
    NOTHING = "nothing"  #: the client has left before


class Ending(NamedTuple):
    """One way.

    :ivar name: by which the test and the routes of it are called.
    :ivar way: what happens, for people.
    :ivar kinds: the kinds of pools with which it is run.
    :ivar state: of the job, when it is over; None where there is no job.
    :ivar reason: of the job.
    :ivar rung: of the job.
    :ivar status: that was sent, or 499 where the client left first.
    :ivar problem: the ``reason`` of the problem document; None where it has none.
    :ivar lines: what is logged under the call's id, beside its line in the access log, in order:
        the beginnings of first lines, with ``…`` for anything.
    :ivar sees: what the client gets to see of it.
    :ivar noted: the status that the job has; None for the one that was sent.
    """

    name: str
    way: str
    kinds: tuple[str, ...]
    state: State | None
    reason: Reason | None
    rung: Rung | None
    status: int
    problem: str | None = None
    lines: tuple[str, ...] = ()
    sees: Sees = Sees.WHOLE
    noted: int | None = None


_S, _R = State, Reason

_FAILED = "{route} failed:"
_LOST = "{route}: the worker process ended ({how}) before the job was done"
_INTERRUPTED = "{route} is interrupted"
_STOPPING = "{route}: the service is stopping"
_REQUESTED = "{route}: the operator boss cancels it"


def _stopped(state: State, reason: Reason, rung: Rung) -> str:
    return f"{{route}} {state} ({reason}): {rung} after … s in the queue and … s of running"


def _lost(how: str) -> str:
    return _LOST.replace("{how}", how)


def _again(how: str, left: int) -> str:
    return f"{{route}}: its worker was lost ({how}); it runs again, retries left: {left}"


def _late(did: str, limit: str) -> str:
    return f"{{route}}: the work did not {did} within {limit} seconds"


def _over(
    name: str,
    way: str,
    kinds: tuple[str, ...],
    reason: Reason,
    rung: Rung,
    *lines: str,
    status: int | None = None,
    sees: Sees | None = None,
    last: str | None = None,
) -> Ending:
    """A job that was stopped: its state, its status and its last line follow from the reason."""
    state = _S.EXPIRED if str(reason).startswith("deadline") else _S.CANCELED
    left = reason is _R.CLIENT_DISCONNECTED
    if status is None:
        status = 499 if left else 504 if state is _S.EXPIRED else 503
    if sees is None:
        sees = Sees.NOTHING if left else Sees.WHOLE
    problem = str(reason) if sees is Sees.WHOLE else None
    told = (_STOPPING,) if reason is _R.SHUTDOWN else ()
    ending = (*told, last or _stopped(state, reason, rung))
    return Ending(name, way, kinds, state, reason, rung, status, problem, (*lines, *ending), sees)


ENDINGS = (
    # The handler has its say.
    Ending("success", "it returns", _ALL, _S.SUCCEEDED, None, None, 200),
    Ending("stream", "it yields to the end", _CODE, _S.SUCCEEDED, None, None, 200),
    Ending("http_error", "it raises ``HTTPError(409)``", _ALL, _S.FAILED, _R.ERROR, None, 409),
    Ending(
        "bad_request", "``call.json()`` cannot read the body", _ALL, _S.FAILED, _R.ERROR, None, 400
    ),
    Ending(
        "error",
        "it raises anything else",
        _ALL,
        _S.FAILED,
        _R.ERROR,
        None,
        500,
        "error",
        (_FAILED,),
    ),
    Ending(
        "unencodable",
        "it returns what cannot be sent",
        _ALL,
        _S.FAILED,
        _R.ERROR,
        None,
        500,
        "error",
        (_FAILED,),
    ),
    Ending(
        "stream_breaks",
        "it raises in the middle of its reply",
        _CODE,
        _S.FAILED,
        _R.ERROR,
        None,
        200,
        None,
        (_FAILED, "{route}: the reply broke off: …"),
        Sees.PART,
    ),
    Ending(
        "events_end",
        "it raises; the client takes Server-Sent Events, of which the last tells it",
        _CODE,
        _S.FAILED,
        _R.ERROR,
        None,
        200,
        None,
        (_FAILED,),
    ),
    # Its process is lost.
    Ending(
        "exits_0",
        "its process ends by itself, with exit code 0",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        502,
        "worker_lost",
        (_lost("exit code 0"),),
    ),
    Ending(
        "exits_1",
        "its process ends by itself, with exit code 1",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        502,
        "worker_lost",
        (_lost("exit code 1"),),
    ),
    Ending(
        "is_killed",
        "its process is killed by somebody else",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        502,
        "worker_lost",
        (_lost("signal 9 (SIGKILL)"),),
    ),
    Ending(
        "stream_is_killed",
        "its process is killed in the middle of its reply",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        200,
        None,
        (_lost("signal 9 (SIGKILL)"), "{route}: the reply broke off: …"),
        Sees.PART,
    ),
    Ending(
        "retried",
        "its process is lost; it runs again (``retries=1``) and returns",
        _PROCESS,
        _S.SUCCEEDED,
        None,
        None,
        200,
        None,
        (_again("exit code 1", 0),),
    ),
    Ending(
        "out_of_retries",
        "its process is lost, and again when it runs again (``retries=1``)",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        502,
        "worker_lost",
        (_again("exit code 1", 0), _lost("exit code 1")),
    ),
    Ending(
        "set_up_fails",
        "it waits for a process, and none can be set up",
        _PROCESS,
        _S.FAILED,
        _R.WORKER_LOST,
        None,
        502,
        "worker_lost",
        (_lost("no worker could be set up"),),
    ),
    # The client leaves.
    _over(
        "left_queued",
        "the client leaves while it waits",
        _ALL,
        _R.CLIENT_DISCONNECTED,
        Rung.REMOVED,
    ),
    _over(
        "left_told",
        "the client leaves; the handler looks at ``call.check()``",
        _THREAD,
        _R.CLIENT_DISCONNECTED,
        Rung.TOLD,
    ),
    _over(
        "left_interrupted",
        "the client leaves; the handler does not look (``interrupt=True``)",
        _THREAD,
        _R.CLIENT_DISCONNECTED,
        Rung.INTERRUPTED,
        _INTERRUPTED,
    ),
    _over(
        "left_terminated",
        "the client leaves; the handler lets ``Canceled`` pass",
        _PROCESS,
        _R.CLIENT_DISCONNECTED,
        Rung.TERMINATED,
    ),
    _over(
        "left_killed",
        "the client leaves; the handler ignores SIGTERM",
        _PROCESS,
        _R.CLIENT_DISCONNECTED,
        Rung.KILLED,
    ),
    _over(
        "left_awaiting",
        "the client leaves; the coroutine is canceled where it awaits",
        _REACTOR,
        _R.CLIENT_DISCONNECTED,
        Rung.TOLD,
    ),
    _over(
        "left_stream",
        "the client leaves in the middle of the reply",
        _THREAD,
        _R.CLIENT_DISCONNECTED,
        Rung.TOLD,
    ),
    _over(
        "left_stream_terminated",
        "the client leaves in the middle of the reply",
        _PROCESS,
        _R.CLIENT_DISCONNECTED,
        Rung.TERMINATED,
    ),
    Ending(
        "left_finish",
        'the client leaves; the route has ``on_disconnect="finish"``',
        _ALL,
        _S.SUCCEEDED,
        None,
        None,
        499,
        None,
        (),
        Sees.NOTHING,
    ),
    Ending(
        "left_finish_error",
        'the client leaves; the route has ``on_disconnect="finish"``, and it raises',
        _ALL,
        _S.FAILED,
        _R.ERROR,
        None,
        499,
        None,
        (_FAILED,),
        Sees.NOTHING,
    ),
    # Its time is up.
    _over(
        "queue_deadline",
        "it waits longer than ``queue_timeout``",
        _ALL,
        _R.DEADLINE_QUEUE,
        Rung.REMOVED,
        _late("start", "0.2"),
    ),
    _over(
        "total_queued",
        "it waits longer than ``total_timeout``",
        _ALL,
        _R.DEADLINE_TOTAL,
        Rung.REMOVED,
        _late("end", "0.2"),
    ),
    _over(
        "asked_queued",
        "it waits longer than the client's ``X-Timeout``",
        _ALL,
        _R.DEADLINE_TOTAL,
        Rung.REMOVED,
        _late("end", "0.2"),
    ),
    _over(
        "run_told",
        "it runs longer than ``timeout``; the handler looks at ``call.check()``",
        _THREAD,
        _R.DEADLINE_RUN,
        Rung.TOLD,
        _late("end", "0.6"),
    ),
    _over(
        "run_interrupted",
        "it runs longer than ``timeout``; the handler does not look (``interrupt=True``)",
        _THREAD,
        _R.DEADLINE_RUN,
        Rung.INTERRUPTED,
        _late("end", "0.6"),
        _INTERRUPTED,
    ),
    _over(
        "run_terminated",
        "it runs longer than ``timeout``; the handler lets ``Canceled`` pass",
        _PROCESS,
        _R.DEADLINE_RUN,
        Rung.TERMINATED,
        _late("end", "0.6"),
    ),
    _over(
        "run_killed",
        "it runs longer than ``timeout``; the handler ignores SIGTERM",
        _PROCESS,
        _R.DEADLINE_RUN,
        Rung.KILLED,
        _late("end", "0.6"),
    ),
    _over(
        "run_awaiting",
        "it runs longer than ``timeout``; the coroutine is canceled where it awaits",
        _REACTOR,
        _R.DEADLINE_RUN,
        Rung.TOLD,
        _late("end", "0.6"),
    ),
    _over(
        "total_running",
        "it waits and runs longer than ``total_timeout``",
        ("thread", "reactor"),
        _R.DEADLINE_TOTAL,
        Rung.TOLD,
        _late("end", "1.5"),
    ),
    _over(
        "total_terminated",
        "it waits and runs longer than ``total_timeout``",
        _PROCESS,
        _R.DEADLINE_TOTAL,
        Rung.TERMINATED,
        _late("end", "1.5"),
    ),
    _over(
        "asked_running",
        "it waits and runs longer than the client's ``X-Timeout``",
        ("thread", "reactor"),
        _R.DEADLINE_TOTAL,
        Rung.TOLD,
        _late("end", "1.5"),
    ),
    _over(
        "asked_terminated",
        "it waits and runs longer than the client's ``X-Timeout``",
        _PROCESS,
        _R.DEADLINE_TOTAL,
        Rung.TERMINATED,
        _late("end", "1.5"),
    ),
    # An operator cancels it.
    _over(
        "requested_queued",
        "an operator cancels it while it waits",
        _ALL,
        _R.REQUESTED,
        Rung.REMOVED,
        _REQUESTED,
    ),
    _over(
        "requested_told",
        "an operator cancels it while it runs",
        ("thread", "reactor"),
        _R.REQUESTED,
        Rung.TOLD,
        _REQUESTED,
    ),
    _over(
        "requested_terminated",
        "an operator cancels it while it runs",
        _PROCESS,
        _R.REQUESTED,
        Rung.TERMINATED,
        _REQUESTED,
    ),
    # The daemon stops.
    _over(
        "shutdown_queued",
        "the daemon stops while it waits, and its grace is over",
        _ALL,
        _R.SHUTDOWN,
        Rung.REMOVED,
    ),
    _over(
        "shutdown_told",
        "the daemon stops while it runs, and its grace is over",
        ("thread", "reactor"),
        _R.SHUTDOWN,
        Rung.TOLD,
    ),
    _over(
        "shutdown_terminated",
        "the daemon stops while it runs, and its grace is over",
        _PROCESS,
        _R.SHUTDOWN,
        Rung.TERMINATED,
    ),
    _over(
        "shutdown_killed",
        "the daemon stops while it runs; the handler ignores SIGTERM",
        _PROCESS,
        _R.SHUTDOWN,
        Rung.KILLED,
    ),
    Ending(
        "shutdown_left_behind",
        "the daemon stops while it runs; the handler goes on, and ends with the daemon",
        _THREAD,
        _S.CANCELING,
        _R.SHUTDOWN,
        Rung.TOLD,
        503,
        "shutdown",
        (
            _STOPPING,
            "{route} did not return when it was told to stop; its thread of pool thread is left "
            "behind",
        ),
    ),
    Ending(
        "shutdown_success",
        "the daemon stops while it runs, and it returns within the grace",
        _ALL,
        _S.SUCCEEDED,
        None,
        None,
        200,
    ),
    # The body of the request.
    _over(
        "body_left",
        "it reads the body while it arrives (``stream=True``), and the client leaves",
        _THREAD,
        _R.CLIENT_DISCONNECTED,
        Rung.TOLD,
    ),
    _over(
        "body_left_terminated",
        "it reads the body while it arrives (``stream=True``), and the client leaves",
        _PROCESS,
        _R.CLIENT_DISCONNECTED,
        Rung.TERMINATED,
    ),
    Ending(
        "body_left_finish",
        'as before, and the route has ``on_disconnect="finish"``',
        _CODE,
        _S.FAILED,
        _R.CLIENT_DISCONNECTED,
        None,
        499,
        None,
        ("{route}: the client left before the body was whole",),
        Sees.NOTHING,
    ),
    Ending(
        "body_too_large",
        "it reads the body while it arrives, and that is larger than ``max_body``",
        _CODE,
        _S.FAILED,
        _R.ERROR,
        None,
        413,
        "body_too_large",
        ("{route}: the body is larger than the 5 bytes that this route accepts",),
    ),
    Ending(
        "body_broken",
        "it reads the body while it arrives, and that breaks the rules of HTTP",
        _THREAD,
        _S.CANCELED,
        _R.CLIENT_DISCONNECTED,
        Rung.TOLD,
        400,
        None,
        (_stopped(_S.CANCELED, _R.CLIENT_DISCONNECTED, Rung.TOLD),),
        noted=499,
    ),
    Ending(
        "body_broken_terminated",
        "it reads the body while it arrives, and that breaks the rules of HTTP",
        _PROCESS,
        _S.CANCELED,
        _R.CLIENT_DISCONNECTED,
        Rung.TERMINATED,
        400,
        None,
        (_stopped(_S.CANCELED, _R.CLIENT_DISCONNECTED, Rung.TERMINATED),),
        noted=499,
    ),
    # There is no job.
    Ending("refused_timeout", "``X-Timeout`` makes no sense", (), None, None, None, 400),
    Ending(
        "refused_unknown",
        "the client shows a token that nobody has",
        (),
        None,
        None,
        None,
        401,
        "invalid_token",
    ),
    Ending(
        "refused_route",
        "the client's token is not for this route",
        (),
        None,
        None,
        None,
        403,
        "insufficient_scope",
    ),
    Ending(
        "refused_large",
        "the body is larger than ``max_body``",
        (),
        None,
        None,
        None,
        413,
        "body_too_large",
    ),
    Ending(
        "refused_quota",
        "the client has as many calls as it may have",
        (),
        None,
        None,
        None,
        429,
        "client_quota",
    ),
    Ending("refused_full", "the pool is full", (), None, None, None, 503, "pool_full"),
    Ending(
        "refused_late",
        "by what was measured it cannot be in time",
        (),
        None,
        None,
        None,
        503,
        "deadline_unmeetable",
    ),
    Ending(
        "refused_broken",
        "no worker of the pool can be set up",
        (),
        None,
        None,
        None,
        503,
        "pool_broken",
    ),
    Ending(
        "refused_storage",
        "the body cannot be kept on disk",
        (),
        None,
        None,
        None,
        503,
        "storage_failed",
        ("the body could not be kept: …",),
    ),
    Ending(
        "refused_shutdown",
        "the daemon stops before its body has come",
        (),
        None,
        None,
        None,
        503,
        "shutdown",
    ),
    Ending(
        "refused_left",
        "the client leaves before its body is whole",
        (),
        None,
        None,
        None,
        499,
        None,
        (),
        Sees.NOTHING,
    ),
)
