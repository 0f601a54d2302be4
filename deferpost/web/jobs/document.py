"""The document of a kept job, as JSON.

Decides only: it is given a record and what else is known, and gives bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from deferpost.eventstream import plain_number
from deferpost.lifecycle import ENDED
from deferpost.model import Progress, State
from deferpost.records import Hook, JobRecord
from deferpost.store.changes import rfc3339

__all__ = ["job_document", "list_document", "url_of"]

#: The place of a job in its queue, from 1, and when it is likely to start, in seconds since the
#: epoch.
Queue = tuple[int, float | None]

_encode = msgspec.json.encode


def url_of(base: str, id: str) -> str:
    """The absolute URL of a job.

    :param base: of the place where the jobs are, without a slash at its end.
    :param id: the job's id, whose characters a URL takes as they are.
    """
    return f"{base}/jobs/{id}"


def job_document(record: JobRecord, base: str, queue: Queue | None, now: float) -> bytes:
    """A job as its clients see it.

    :param record: the job.
    :param base: see :func:`url_of`.
    :param queue: where it waits; None where it does not.
    :param now: seconds since the epoch.
    """
    url = url_of(base, record.id)
    members: dict[str, Any] = {
        "id": record.id,
        "route": record.route,
        "state": record.state,
        "reason": record.reason,
        "created": rfc3339(record.created),
        "started": _time(record.started),
        "finished": _time(record.finished),
        "expires": _time(record.expires),
        "queue": None,
        "progress": _progress(record.progress),
        "attempt": record.attempt,
        "queue_seconds": queue_seconds(record, now),
        "run_seconds": run_seconds(record, now),
        "result": None,
        "error": None if record.problem is None else msgspec.Raw(record.problem),
        "webhook": _webhook(record.hook),
        "links": {
            "self": url,
            "result": f"{url}/result",
            "events": f"{url}/events",
            "cancel": f"{url}/cancel",
        },
    }
    if queue is not None and record.state is State.QUEUED:
        members["queue"] = {"position": queue[0], "estimated_start": _time(queue[1])}
    if record.state in ENDED and record.status is not None:
        members["result"] = {
            "status": record.status,
            "content_type": record.content_type,
            "length": record.result_bytes,
        }
    return _encode(members)


def list_document(documents: list[bytes], cursor: str | None) -> bytes:
    """A page of jobs.

    :param documents: of the jobs.
    :param cursor: by which the next page is asked for; None where this is the last.
    """
    return b'{"jobs":[%b],"next":%b}' % (b",".join(documents), _encode(cursor))


def queue_seconds(record: JobRecord, now: float) -> float:
    """How long a job has waited before its last run; until now where it waits."""
    if record.state is State.QUEUED or record.started is None:
        return _span(record.created, now if record.finished is None else record.finished)
    return _span(record.created, record.started)


def run_seconds(record: JobRecord, now: float) -> float:
    """How long the last run of a job has taken; until now where it runs."""
    if record.state is State.QUEUED or record.started is None:
        return 0.0
    return _span(record.started, now if record.finished is None else record.finished)


def _span(begin: float, end: float) -> float:
    """Seconds between two times of a clock that may have been set back."""
    return max(0.0, round(end - begin, 3))


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _progress(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "done": plain_number(progress.done),
        "total": None if progress.total is None else plain_number(progress.total),
        "message": progress.message,
    }


def _webhook(hook: Hook | None) -> dict[str, Any] | None:
    if hook is None:
        return None
    return {
        "url": hook.url,
        "state": hook.state,
        "attempts": [
            {"at": rfc3339(each.at), "status": each.status, "error": each.error}
            for each in hook.attempts
        ],
        "next": _time(hook.due),
    }
