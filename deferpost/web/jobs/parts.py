"""What the resources of kept jobs have in common: how one finds its job, waits for it and tells.

Who sees which job is decided in :mod:`deferpost.web.jobs.visitors`; all that is known of jobs comes
from the keeper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import attrs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.bodies import body_size, take_body
from deferpost.credentials import Gate
from deferpost.errors import BodyTooLarge, HTTPError
from deferpost.fields import field_bytes
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.keeping import Keeper
from deferpost.lifecycle import ENDED
from deferpost.prefer import Prefer, applied, check_strict, prefer_of
from deferpost.records import JobRecord
from deferpost.web.jobs.addresses import base_of, mount_of
from deferpost.web.jobs.document import (
    job_document,
    queue_seconds,
    run_seconds,
    url_of,
)
from deferpost.web.jobs.replying import LateReply, OpenReplies, begin, other_method
from deferpost.web.jobs.visitors import Visitor, visitor_of
from deferpost.web.respond import respond, set_common

__all__ = ["LONGEST_WAIT", "MAX_BODY", "Answering", "JobsContext", "Part", "is_job_id"]

#: Seconds that a client may wait for the end of a job on one connection.
LONGEST_WAIT = 60.0

#: Bytes of a body that nothing here reads, but for its digest.
MAX_BODY = 4096

_JSON = b"application/json"
_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")

#: Answers a request by one of its methods.
Answering = Callable[[LateReply], Coroutine[Any, Any, None]]


@attrs.frozen(kw_only=True)
class JobsContext:
    """What the resources of kept jobs share.

    :ivar keeper: has the jobs.
    :ivar clock: of the reactor (:class:`IReactorTime`).
    :ivar wall: gives seconds since the epoch.
    :ivar gate: is asked who sends each request, which then sees jobs of its own only; None where
        everybody sees all.
    :ivar public_url: the URL of the place where the app is mounted; None to go by the request.
    :ivar longest_wait: seconds that a client may wait for the end of a job.
    :ivar put: gives the resource that takes a PUT for a job's id, which is one by
        :func:`is_job_id`; it provides :class:`deferpost.interfaces.IEarlyResource`, and is used for
        many requests.  None where jobs cannot be put.
    :ivar open_replies: where replies count until they end.
    """

    keeper: Keeper
    clock: Any
    wall: Callable[[], float]
    gate: Gate | None = None
    public_url: str | None = None
    longest_wait: float = LONGEST_WAIT
    put: Callable[[str], Any] | None = None
    open_replies: OpenReplies = attrs.field(factory=OpenReplies)

    def document(self, record: JobRecord, base: str) -> bytes:
        """The document of a job."""
        return job_document(record, base, self.keeper.queue_of(record.id), self.wall())


def is_job_id(text: str) -> bool:
    """Whether this may be the id of a job."""
    return _ID.fullmatch(text) is not None


@implementer(IEarlyResource)
class Part(Resource):
    """What is at one path below ``/jobs``.

    :cvar depth: how many segments its path has.
    """

    isLeaf = True
    depth: ClassVar[int]

    def __init__(self, context: JobsContext, job: str = "") -> None:
        super().__init__()
        self._context = context
        self._job = job
        self._answering: dict[bytes, Answering] = self.methods()

    def methods(self) -> dict[bytes, Answering]:
        """What answers which method; HEAD is answered as GET, by whom that is known."""
        raise NotImplementedError

    @property
    def allow(self) -> str:
        """The methods that it has."""
        return ", ".join(sorted(name.decode("ascii") for name in (*self._answering, b"OPTIONS")))

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Have the whole request first: only of one that is whole is it known that it is left."""
        if request.method not in self._answering:
            self.render(request)
            return None
        return BodyWanted(MAX_BODY)

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        id = begin(request)
        answering = self._answering.get(request.method)
        if answering is None:
            other_method(request, self.allow, id)
        else:
            reply = LateReply(request, id, self._context.open_replies)
            reply.begin(answering(reply))
        return NOT_DONE_YET

    # What the parts have in common.

    def base(self, request: Any) -> str:
        """The URL of the place where the jobs are."""
        return base_of(request, mount_of(request, self.depth), self._context.public_url)

    def visitor(self, reply: LateReply) -> Visitor:
        """Who asks.

        :raises deferpost.errors.HTTPError: somebody who is not let in.
        """
        request = reply.request
        if getattr(request.content, "too_large", False) or body_size(request.content) > MAX_BODY:
            raise BodyTooLarge(MAX_BODY)
        with take_body(request) as body:
            return visitor_of(request, reply.id, self._context.gate, body.read())

    async def found(self, reply: LateReply, visitor: Visitor) -> JobRecord:
        """The job.

        :raises deferpost.errors.HTTPError: 404 or 410: there is none that the visitor sees.
        """
        record = None
        if is_job_id(self._job):
            record = await reply.given(self._context.keeper.get(self._job))
            if record is None:
                raise self.gone()
        if record is None or not visitor.sees(record):
            raise HTTPError(404, "There is no such job.", extensions={"reason": "no_such_job"})
        return record

    def gone(self) -> HTTPError:
        """What is said of a job that is not there."""
        if self._context.keeper.authentic(self._job):
            detail = "This job was deleted, or its time is over."
            return HTTPError(410, detail, extensions={"reason": "job_gone"})
        return HTTPError(404, "There is no such job.", extensions={"reason": "no_such_job"})

    async def ended(self, reply: LateReply, record: JobRecord) -> JobRecord:
        """Wait for the end of a job, as long as the client prefers to.

        :returns: the job as it is then.
        """
        prefer: Prefer = prefer_of(reply.request.requestHeaders.getRawHeaders(b"prefer", ()))
        check_strict(prefer)
        if not prefer.wait:
            return record
        longest = self._context.longest_wait
        said = applied(prefer, wait=prefer.wait <= longest)
        if said is not None:
            reply.request.setHeader(b"Preference-Applied", said.encode("ascii"))
        if record.state in ENDED:
            return record
        seconds = min(prefer.wait, longest)
        found = await reply.until(self._context.keeper.ended(self._job, seconds))
        if found is None:
            raise self.gone()
        return found

    def tell_times(self, reply: LateReply, record: JobRecord) -> None:
        """Have the response say how long the job has waited and run."""
        now = self._context.wall()
        set_common(reply.request, reply.id, queue_seconds(record, now), run_seconds(record, now))

    def tell(self, reply: LateReply, record: JobRecord, status: int = 200) -> None:
        """Answer with the document of the job."""
        request = reply.request
        base = self.base(request)
        self.tell_times(reply, record)
        if status == 202:
            request.setHeader(b"Location", field_bytes(url_of(base, record.id)))
            retry = self._context.keeper.retry_after(record.id)
            request.setHeader(b"Retry-After", b"%d" % retry)
        respond(request, status, _JSON, self._context.document(record, base) + b"\n")

    async def cancel(self, reply: LateReply) -> None:
        """End the job, and answer with what has become of it."""
        record = await reply.given(self._context.keeper.cancel(self._job))
        if record is None:
            raise self.gone()
        self.tell(reply, record, 200 if record.state in ENDED else 202)
