"""Values of jobs that outlive a connection: what a store is given, and what it gives back.

All are plain values.  Times are seconds since the epoch, since those of a monotonic clock mean
nothing to the next process.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from deferpost.model import CallHead, Progress, Reason, Rung, State

__all__ = [
    "Accepted",
    "Hook",
    "HookAttempt",
    "HookState",
    "JobPage",
    "JobRecord",
    "KeyOf",
    "NewJob",
    "Outcome",
    "StoredCall",
    "StoredEvent",
    "StoredResult",
]


class HookState(enum.StrEnum):
    """Where the notification of a job's end stands."""

    WAITING = "waiting"  #: the job has not ended
    PENDING = "pending"  #: it is to be sent, or sent again
    DELIVERED = "delivered"
    FAILED = "failed"  #: it is not tried any more


class HookAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to tell a webhook of a job's end.

    :ivar at: when it was made.
    :ivar status: the status of the response; None where there was none.
    :ivar error: why there was none, in words for people; None where there was one.
    """

    at: float
    status: int | None = None
    error: str | None = None


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told when a job has ended.

    :ivar url: where to.
    :ivar state: how far that is.
    :ivar attempts: those that were made, oldest first.
    :ivar due: when the next one is to be made; None where none is.
    """

    url: str
    state: HookState = HookState.WAITING
    attempts: tuple[HookAttempt, ...] = ()
    due: float | None = None


class KeyOf(msgspec.Struct, frozen=True):
    """The key by which a client recognizes a call of its own.

    :ivar scope: whose key it is: no key of one scope is that of another.
    :ivar key: what the client has chosen.
    :ivar fingerprint: a digest of what it came with; another one is a mistake of the client's.
    """

    scope: str
    key: str
    fingerprint: bytes


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is to be kept.

    :ivar id: its id, which no other job has.
    :ivar head: its call without the body.  Its times of the monotonic clock mean nothing later.
    :ivar pool: the name of the pool that is to run it.
    :ivar created: when it came.
    :ivar urgency: 0 for the most urgent to 7 for the least.
    :ivar retries: how often it may run again when its worker was lost.
    :ivar start_by: when it must have started; None for no limit.
    :ivar finish_by: when it must have ended; None for no limit.
    :ivar ttl: seconds that it is kept when it has ended.
    :ivar key: by which it is recognized; None without one.
    :ivar webhook: the URL that is told of its end; None without one.
    :ivar body_bytes: the size of its body.
    """

    id: str
    head: CallHead
    pool: str
    created: float
    urgency: int
    retries: int
    ttl: float
    start_by: float | None = None
    finish_by: float | None = None
    key: KeyOf | None = None
    webhook: str | None = None
    body_bytes: int = 0


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands in a store; without call, body and result, which are read by themselves.

    :ivar number: its place in the order in which jobs were accepted, from 1; none is used twice.
    :ivar id: its id.
    :ivar request_id: the id of the request that brought it, which is in the log.
    :ivar route: the name of its route.
    :ivar pool: the name of its pool.
    :ivar principal: whose it is; None where nobody asked.
    :ivar state: where it stands.
    :ivar reason: why it is not a success.
    :ivar rung: how far up the cancel ladder it was taken.
    :ivar created: when it was accepted.
    :ivar started: when its last run began.
    :ivar finished: when it ended.
    :ivar expires: when it is to be forgotten; None while it has not ended.
    :ivar ttl: seconds from its end to that.
    :ivar urgency: 0 for the most urgent to 7 for the least.
    :ivar retries: how often it may run again when its worker is lost.
    :ivar start_by: when it must have started.
    :ivar finish_by: when it must have ended.
    :ivar attempt: how many runs have begun.
    :ivar progress: how far it last said that it is.
    :ivar body_bytes: the size of its body.
    :ivar status: of its result; None where there is none yet.
    :ivar content_type: of its result; None where it has none.
    :ivar result_bytes: the size of its result's body.
    :ivar problem: the problem document of a result that is an error of ours, as JSON.
    :ivar key: by which its client recognizes it.
    :ivar hook: who is told of its end.
    :ivar events: how many events of it there are.
    """

    number: int
    id: str
    request_id: str
    route: str
    pool: str
    principal: str | None
    state: State
    created: float
    ttl: float
    urgency: int
    retries: int
    reason: Reason | None = None
    rung: Rung | None = None
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    start_by: float | None = None
    finish_by: float | None = None
    attempt: int = 0
    progress: Progress | None = None
    body_bytes: int = 0
    status: int | None = None
    content_type: str | None = None
    result_bytes: int | None = None
    problem: bytes | None = None
    key: KeyOf | None = None
    hook: Hook | None = None
    events: int = 0


class Accepted(msgspec.Struct, frozen=True):
    """The answer of a store to a new job.

    :ivar record: the job, or the one that was there with the same key or id.
    :ivar is_new: whether it is new.
    :ivar is_same: of one that was there, whether it came with the same fingerprint.
    """

    record: JobRecord
    is_new: bool = True
    is_same: bool = True


class StoredCall(msgspec.Struct, frozen=True):
    """What it takes to run a job.

    :ivar head: the call without its body.
    :ivar body: a binary file at its beginning, for reading; whoever takes it closes it.
    """

    head: CallHead
    body: Any


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job has ended.

    :ivar state: one that is final.
    :ivar at: when.
    :ivar status: of its result.
    :ivar headers: of its result, as name and value pairs.
    :ivar reason: why it is no success.
    :ivar rung: how far up the cancel ladder it was taken.
    :ivar content_type: of its result, for its document.
    :ivar problem: the problem document of an error of ours, as JSON, which is its body too.
    """

    state: State
    at: float
    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    reason: Reason | None = None
    rung: Rung | None = None
    content_type: str | None = None
    problem: bytes | None = None


class StoredResult(msgspec.Struct, frozen=True):
    """The result of a job, as it would have been sent.

    :ivar status: its status.
    :ivar headers: name and value pairs.
    :ivar body: bytes, or a binary file at its beginning, which whoever takes it closes.
    :ivar length: bytes of the body.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: Any
    length: int


class StoredEvent(msgspec.Struct, frozen=True):
    """An event of a job.

    :ivar number: from 1, without gaps.
    :ivar kind: ``state``, ``progress`` or ``end``.
    :ivar data: a JSON document.
    """

    number: int
    kind: str
    data: bytes


class JobPage(msgspec.Struct, frozen=True):
    """A piece of a list of jobs, newest first.

    :ivar records: the jobs.
    :ivar next: where the next piece begins; None where this was the last.
    """

    records: tuple[JobRecord, ...]
    next: int | None
