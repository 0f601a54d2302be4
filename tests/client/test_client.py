"""Posting calls, and what comes of them."""

from __future__ import annotations

import pytest_twisted

from deferpost.client import Answer, Job
from tests.client.conftest import MakeClient
from tests.client.site import JobSite


@pytest_twisted.ensureDeferred
async def test_an_answer_at_once(site: JobSite, client: MakeClient) -> None:
    """A call that is answered while the server waits is an answer."""
    site.made = lambda job: job.end(b"got " + job.body)
    answer = await client().post("/work", b"this", wait=5)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.text, answer.length) == (200, "got this", 8)
    assert await answer.result() is answer


@pytest_twisted.ensureDeferred
async def test_a_job(site: JobSite, client: MakeClient) -> None:
    """A call that takes longer is a job, which is waited for and has a result."""
    job = await client().post("/work", b"this")
    assert isinstance(job, Job)
    assert job.id == "job-1"
    assert (await job.document()).state == "queued"
    waiting = job.wait()
    site.jobs["job-1"].begin()
    assert not waiting.called
    site.jobs["job-1"].end(b"done")
    assert (await waiting).state == "succeeded"
    assert (await job.result()).body == b"done"
