"""What each command does.  Errors are left to :mod:`deferpost.client.commands.performing`."""

from __future__ import annotations

import base64
import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import msgspec
from twisted.internet.defer import Deferred

from deferpost.client.client import Client
from deferpost.client.commands.bar import Following, Sending, View
from deferpost.client.commands.endings import Ending
from deferpost.client.commands.output import Output
from deferpost.client.commands.screen import Screen
from deferpost.client.commands.watching import watch
from deferpost.client.commands.words import one_line, seconds_words, size_words, table
from deferpost.client.documents import Answer, JobDocument
from deferpost.client.errors import Problem
from deferpost.client.job import Job

__all__ = ["ACTS", "Session", "print_json"]

#: Seconds for which the server waits for the answer before it makes a job of the call.
_USUAL_WAIT = 1.0


class Session:
    """One command, while it runs.

    :ivar given: the command line.
    :ivar reactor: for the time.
    :ivar screen: for what is said.
    :ivar client: of the origin of the URL.
    :ivar path: path and query of the URL.
    :ivar body: the file to be posted; None where none is.
    :ivar job: the job, from when it is known on.
    :ivar document: the job as it was last seen.
    """

    def __init__(
        self,
        given: Namespace,
        reactor: Any,
        screen: Screen,
        client: Client,
        path: str,
        body: BinaryIO | None,
    ) -> None:
        self.given = given
        self.reactor = reactor
        self.screen = screen
        self.client = client
        self.path = path
        self.body = body
        self.job: Job | None = None
        self.document: JobDocument | None = None

    def attach(self) -> Job:
        """The job whose URL, or the URL of a part of which, was given."""
        path = urlsplit(self.path).path.rstrip("/")
        head, _, last = path.rpartition("/")
        if last in ("result", "events", "cancel") and head.count("/") >= 2:
            path = head
        self.job = self.client.attach(path)
        return self.job


def print_json(document: Any) -> None:
    """Print a JSON document on standard output."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    sys.stdout.buffer.flush()


async def post(session: Session) -> int:
    """``deferpost post``."""
    given, screen = session.given, session.screen
    with Output(given.output) as output:
        submitted = await _send(session, None if _in_memory(given) else output.file)
        if isinstance(submitted, Answer):
            screen.clear()
            return _answered(session, submitted, output)
        job = session.job = submitted
        session.document = job.accepted
        if given.detach:
            screen.clear()
            if given.json:
                members = {} if job.accepted is None else job.accepted.members
                print_json({"url": job.url, "job": members, "answer": None, "problem": None})
            else:
                print(job.url)
            return Ending.SUCCESS
        screen.say(f"the job is {job.url}")
        return await _finish(session, job, output)


async def _send(session: Session, to: BinaryIO | None) -> Answer | Job:
    """Post the file, and show how far that is."""
    given, screen, body = session.given, session.screen, session.body
    assert body is not None
    now = session.reactor.seconds
    began = now()
    sent = [0, -1, began]  # bytes, of how many, and when the last were sent

    def progress(done: int, total: int) -> None:
        sent[:] = [done, total, now()]

    def view() -> View:
        if sent[1] < 0:
            return Following("connecting", now() - began)
        if sent[0] < sent[1]:
            return Sending(int(sent[0]), int(sent[1]), now() - began)
        return Following("waiting for the answer", now() - sent[2])

    if not screen.is_live:
        name = "standard input" if given.file == "-" else given.file
        screen.say(f"posting {name} to {given.url}")
    screen.show(view)
    wait = _USUAL_WAIT if given.wait is None else given.wait
    if given.at_once or given.detach or given.sync:
        wait = None if given.wait is None else given.wait
    return await session.client.post(
        session.path,
        body,
        prefer_async=not given.sync,
        wait=wait,
        idempotency_key=given.key,
        content_type=given.content_type,
        headers=given.header,
        webhook=given.webhook,
        deadline=given.deadline,
        progress=progress,
        to=to,
    )


async def result(session: Session) -> int:
    """``deferpost result``."""
    job = session.attach()
    with Output(session.given.output) as output:
        return await _finish(session, job, output)


async def _finish(session: Session, job: Job, output: Output) -> int:
    """Follow a job to its end, and print its result."""
    document = session.document = await watch(session.reactor, session.screen, job)
    if document.state in ("canceled", "expired"):
        raise _ended_otherwise(document)
    to = None if _in_memory(session.given) else output.file
    answer = await job.result(to=to)
    _say_end(session.screen, document)
    return _answered(session, answer, output)


def _ended_otherwise(document: JobDocument) -> Problem:
    members = document.error or {}
    status = members.get("status")
    return Problem(
        status if isinstance(status, int) else 0,
        f"the job is {document.state}",
        str(members.get("detail") or ""),
        reason=document.reason,
        members=members,
    )


def _in_memory(given: Namespace) -> bool:
    """Whether the answer is to be part of a JSON document."""
    return bool(given.json and given.output is None)


def _answered(session: Session, answer: Answer, output: Output) -> int:
    given = session.given
    output.keep()
    if session.job is None:
        session.screen.say(f"answered {answer.status}, {size_words(answer.length)}")
    if output.path is not None:
        session.screen.say(f"{size_words(answer.length)} in {output.path}")
    if given.json:
        job, document = session.job, session.document
        members: dict[str, Any] = {
            "status": answer.status,
            "headers": [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in answer.headers.raw
            ],
            "length": answer.length,
            "output": given.output,
        }
        if given.output is None:
            try:
                members["body"] = answer.body.decode()
            except UnicodeDecodeError:
                members["body"] = base64.b64encode(answer.body).decode()
                members["encoding"] = "base64"
        print_json(
            {
                "url": None if job is None else job.url,
                "job": None if document is None else document.members,
                "answer": members,
                "problem": None,
            }
        )
    return Ending.SUCCESS


def _say_end(screen: Screen, document: JobDocument) -> None:
    words = document.state
    if document.run_seconds is not None:
        words += f" after {seconds_words(document.run_seconds)}"
    if document.queue_seconds is not None and document.queue_seconds >= 0.05:
        words += f", having waited {seconds_words(document.queue_seconds)}"
    screen.say(f"{words}")


async def wait(session: Session) -> int:
    """``deferpost wait``."""
    job = session.attach()
    document = session.document = await watch(session.reactor, session.screen, job)
    if session.given.json:
        print_json(document.members)
    else:
        print(one_line(document.state))
    if document.state == "succeeded":
        return Ending.SUCCESS
    if document.state == "failed":
        error = document.error or {}
        if error:
            detail = error.get("detail") or error.get("title") or ""
            session.screen.tell(f"the job failed: {detail} ({document.reason})")
        return Ending.FAILED
    return Ending.CANCELED


async def events(session: Session) -> int:
    """``deferpost events``."""
    job = session.attach()
    state = ""
    async with contextlib.aclosing(job.events(session.given.after)) as happening:
        async for event in happening:
            if session.given.json:
                members = {"id": event.number, "event": event.kind, "data": event.data}
                print(msgspec.json.encode(members).decode(), flush=True)
            else:
                print(_event_words(event.number, event.kind, event.data), flush=True)
            if event.kind == "end" and isinstance(event.data, dict):
                state = str(event.data.get("state", ""))
    return {"succeeded": Ending.SUCCESS, "failed": Ending.FAILED}.get(state, Ending.CANCELED)


def _event_words(number: int, kind: str, data: Any) -> str:
    members = data if isinstance(data, dict) else {}
    if kind == "progress":
        told = [members.get("done"), members.get("total")]
        words = " of ".join(f"{value:g}" for value in told if isinstance(value, (int, float)))
        words = ", ".join(filter(None, (words, str(members.get("message") or ""))))
    else:
        words = str(members.get("state", ""))
        if members.get("reason"):
            words += f" ({members['reason']})"
    return f"{number:4}  {one_line(f'{kind:8}  {words}')}"


async def jobs(session: Session) -> int:
    """``deferpost jobs``."""
    given = session.given
    path = urlsplit(session.path).path.rstrip("/")
    path = path if path.endswith("/jobs") else f"{path}/jobs"
    found = []
    listing = session.client.jobs(state=given.state, limit=given.limit, path=path)
    async with contextlib.aclosing(listing) as documents:
        async for document in documents:
            found.append(document)
    if given.json:
        print_json({"jobs": [document.members for document in found]})
    elif found:
        print("\n".join(table(found, datetime.fromtimestamp(time.time(), UTC))))
    else:
        session.screen.say("there are no such jobs")
    return Ending.SUCCESS


async def cancel(session: Session) -> int:
    """``deferpost cancel``."""
    job = session.attach()
    document = session.document = await job.cancel()
    if session.given.json:
        print_json(document.members)
    else:
        print(one_line(document.state))
    return Ending.SUCCESS


#: What each command does; the value is the exit status.
ACTS: dict[str, Callable[[Session], Coroutine[Deferred[Any], Any, int]]] = {
    "post": post,
    "jobs": jobs,
    "wait": wait,
    "events": events,
    "result": result,
    "cancel": cancel,
}
