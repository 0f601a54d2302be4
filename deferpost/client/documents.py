"""What a server says of a job, as a value, and what came of a call."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from deferpost.client.errors import BadAnswer
from deferpost.model import Headers

__all__ = ["Answer", "JobDocument", "JobEvent", "document_of", "read_document", "read_page"]

_ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})


class Queue(msgspec.Struct, frozen=True):
    """Where a job waits.

    :ivar position: its place, from 1; None where it is not known.
    :ivar estimated_start: when it is likely to start; None where that is not known.
    """

    position: int | None = None
    estimated_start: datetime | None = None


class Progress(msgspec.Struct, frozen=True):
    """How far a job says that it is.

    :ivar done: what is done, in units of its own.
    :ivar total: of how much; None where it does not know.
    :ivar message: what it is doing.
    """

    done: float | None = None
    total: float | None = None
    message: str | None = None


class Result(msgspec.Struct, frozen=True):
    """What there is to fetch.

    :ivar status: the HTTP status.
    :ivar content_type: the media type; None where it has none.
    :ivar length: bytes of the body; None where that is not known.
    """

    status: int
    content_type: str | None = None
    length: int | None = None


class JobDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its server tells of it.

    :ivar id: its id.
    :ivar route: the path of its route.
    :ivar state: ``queued``, ``running``, ``canceling``, ``succeeded``, ``failed``, ``canceled`` or
        ``expired``.
    :ivar reason: one word for why it is no success; None where it is one, or may become one.
    :ivar created: when it was accepted.
    :ivar started: when its last run began.
    :ivar finished: when it ended.
    :ivar expires: when it is forgotten.
    :ivar queue: where it waits, while it does.
    :ivar progress: how far it last said that it is.
    :ivar attempt: how many runs have begun.
    :ivar queue_seconds: how long it has waited.
    :ivar run_seconds: how long it has run.
    :ivar result: what there is to fetch, when it has ended.
    :ivar error: the problem document of an error.
    :ivar webhook: what became of telling the webhook.
    :ivar links: URLs of its parts.
    :ivar members: the whole document as it came.
    """

    id: str
    state: str
    route: str = ""
    reason: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    expires: datetime | None = None
    queue: Queue | None = None
    progress: Progress | None = None
    attempt: int = 0
    queue_seconds: float | None = None
    run_seconds: float | None = None
    result: Result | None = None
    error: dict[str, Any] | None = None
    webhook: dict[str, Any] | None = None
    links: dict[str, str] = {}
    members: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether it is over, in whatever way."""
        return self.state in _ENDED


class JobEvent(msgspec.Struct, frozen=True):
    """Something that happened to a job.

    :ivar number: from 1, without gaps.
    :ivar kind: ``state``, ``progress``, or ``end``, which is the last.
    :ivar data: what it says; of ``end``, the members of the job's document.
    """

    number: int
    kind: str
    data: Any


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a call, as its handler made it.

    :ivar status: the HTTP status, below 400.
    :ivar headers: the header fields.
    :ivar body: the body; empty where it was written to a file.
    :ivar length: the bytes of the body, wherever it is.
    """

    status: int
    headers: Headers
    body: bytes
    length: int

    @property
    def was_replayed(self) -> bool:
        """Whether it is that of an earlier call with the same key."""
        return self.headers.get("idempotency-replayed", "").lower() == "true"

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode()

    def json(self, type: Any = Any) -> Any:
        """The body, read as JSON.

        :param type: the type to read it as: anything that msgspec can decode to.
        :raises msgspec.DecodeError: it is not JSON, or not of that type.
        """
        return msgspec.json.decode(self.body, type=type)

    def result(self) -> Deferred[Answer]:
        """Itself, at once: so an answer can be treated as a job that has ended."""
        return succeed(self)


def read_document(data: bytes) -> JobDocument:
    """Read the document of a job.

    :raises BadAnswer: it is none.
    """
    return document_of(_read(data))


def document_of(members: Any) -> JobDocument:
    """Make the value of a document's members.

    :raises BadAnswer: they are not those of a job.
    """
    try:
        document = msgspec.convert(members, JobDocument)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"this is no document of a job: {error}") from None
    return msgspec.structs.replace(document, members=members)


def read_page(data: bytes) -> tuple[list[JobDocument], str | None]:
    """Read a page of jobs.

    :returns: the jobs, and the cursor of the next page, if there is one.
    :raises BadAnswer: it is no such page.
    """
    members = _read(data)
    jobs = members.get("jobs") if isinstance(members, dict) else None
    cursor = members.get("next") if isinstance(members, dict) else None
    if not isinstance(jobs, list) or not (cursor is None or isinstance(cursor, str)):
        raise BadAnswer("this is no list of jobs")
    return [document_of(job) for job in jobs], cursor


def _read(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the server's answer is no JSON: {error}") from None
