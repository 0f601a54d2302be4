"""What the log tells of a job that is over."""

from __future__ import annotations

import io
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from deferpost.interfaces import IJobObserver
from deferpost.joblog import JobLog
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import CallHead, Reason, Rung

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def job_of(*fields: tuple[bytes, bytes], **head: Any) -> Job:
    """A job that was just submitted."""
    given = {"client": ("192.0.2.1", 4711), "timeout": 1.0, **head}
    call = CallHead("id-1", "/rst", "POST", "/rst", b"", fields, **given)
    return Job(1, call, io.BytesIO(), 10.0, lambda job: None)


def logged(job: Job) -> tuple[str, dict[str, Any]]:
    """The words and the members of the event of a job."""
    observer = JobLog({"/rst": "heavy"}, lambda moment: f"at {moment}", "more")
    with capturedLogs() as events:
        observer.job_done(job)
    (event,) = events
    members: dict[str, Any] = event["more"]
    return formatEvent(event), members


def test_it_is_an_observer_of_jobs() -> None:
    """It can be given wherever somebody is to hear of jobs."""
    assert verifyObject(IJobObserver, JobLog({}, str, "more"))


def test_a_job_that_succeeded() -> None:
    """It tells whose call it was, how long it waited and ran, and what came of it."""
    job = job_of((b"Traceparent", TRACEPARENT), principal="ann")
    job.started = 10.5
    job.happened(Event.START)
    job.end(Event.SUCCEED, 12.75)
    job.status, job.body_bytes, job.sent_bytes, job.worker = 201, 7, 99, "worker 3"
    text, members = logged(job)
    assert text == "[id-1] /rst succeeded: 201"
    span_id = members.pop("span_id")
    assert len(span_id) == 16
    assert members == {
        "event": "job",
        "id": "id-1",
        "route": "/rst",
        "pool": "heavy",
        "worker": "worker 3",
        "client": "192.0.2.1",
        "principal": "ann",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "parent_id": "b7ad6b7169203331",
        "state": "succeeded",
        "reason": None,
        "rung": None,
        "status": 201,
        "queue_seconds": 0.5,
        "run_seconds": 2.25,
        "body_bytes": 7,
        "sent_bytes": 99,
        "created": "at 10.0",
    }


def test_a_job_that_never_started() -> None:
    """What left the queue has no time of running, and says why and by which rung."""
    job = job_of(client=None)
    job.rung = Rung.REMOVED
    job.end(Event.CANCEL, 13.0, Reason.CLIENT_DISCONNECTED)
    job.status = 499
    _, members = logged(job)
    assert (members["queue_seconds"], members["run_seconds"]) == (3.0, None)
    assert (members["state"], members["reason"]) == ("canceled", "client_disconnected")
    assert (members["rung"], members["status"]) == ("removed", 499)
    assert members["client"] is members["principal"] is members["trace_id"] is None


def test_a_call_that_was_turned_away_is_no_job() -> None:
    """Of what never became a job there is no event of a job."""
    with capturedLogs() as events:
        JobLog({}, str, "more").refused("/rst", 503, "pool_full")
    assert events == []
