"""The resources of kept jobs: what is at each path below ``/jobs``, and for which methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.errors import HTTPError
from deferpost.eventstream import EventFormat, format_of
from deferpost.interfaces import BodyWanted, IEarlyTree
from deferpost.lifecycle import ENDED
from deferpost.web.jobs.document import list_document
from deferpost.web.jobs.feed import Feed
from deferpost.web.jobs.listing import cursor_of, wanted_of
from deferpost.web.jobs.page import prefers_page, send_page
from deferpost.web.jobs.parts import MAX_BODY, Answering, JobsContext, Part, is_job_id
from deferpost.web.jobs.replying import ClientLeft, LateReply, begin
from deferpost.web.jobs.result import let_go, send_result
from deferpost.web.jobs.visitors import check_act
from deferpost.web.problems import not_found
from deferpost.web.respond import respond, respond_problem

__all__ = ["JOBS", "JobTree"]

#: The first segment of the paths of jobs.
JOBS = b"jobs"

_JSON = b"application/json"
_NUMBER = re.compile(rb"[0-9]{1,18}")


class _Nothing(Part):
    """What is at a path that means nothing."""

    depth = 0

    def methods(self) -> dict[bytes, Answering]:
        """None."""
        return {}

    def render(self, request: Any) -> int:
        """Answer 404."""
        respond_problem(request, not_found(), begin(request))
        return NOT_DONE_YET


class _List(Part):
    """The jobs, newest first."""

    depth = 1

    def methods(self) -> dict[bytes, Answering]:
        """GET and HEAD."""
        return {b"GET": self.look, b"HEAD": self.look}

    async def look(self, reply: LateReply) -> None:
        """Answer with a page of them."""
        request, context = reply.request, self._context
        visitor = self.visitor(reply)
        wanted = wanted_of(request.uri.partition(b"?")[2])
        page = await reply.given(
            context.keeper.page(visitor.principal, wanted.states, wanted.before, wanted.most)
        )
        base = self.base(request)
        # The store takes nobody for everybody; so a page may have less than was asked for.
        documents = [context.document(each, base) for each in page.records if visitor.sees(each)]
        cursor = None if page.next is None else cursor_of(page.next)
        respond(request, 200, _JSON, list_document(documents, cursor) + b"\n")


class _Document(Part):
    """One job."""

    depth = 2

    def __init__(self, context: JobsContext, job: str) -> None:
        super().__init__(context, job)
        self._put = None if context.put is None or not is_job_id(job) else context.put(job)

    def methods(self) -> dict[bytes, Answering]:
        """GET, HEAD and DELETE; PUT as well where there is something that takes it."""
        found: dict[bytes, Answering] = {b"GET": self.look, b"HEAD": self.look}
        found[b"DELETE"] = self.delete
        if self._context.put is not None:
            found[b"PUT"] = self.misput
        return found

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """See :meth:`deferpost.interfaces.IEarlyResource.head_received`."""
        if request.method == b"PUT":
            if self._put is not None:
                wanted: BodyWanted | None = self._put.head_received(request, length, whole)
                return wanted
            self.render(request)
            return None
        return super().head_received(request, length, whole)

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        if request.method == b"PUT" and self._put is not None:
            rendered: int = self._put.render(request)
            return rendered
        return super().render(request)

    async def misput(self, reply: LateReply) -> None:
        """Refuse a job with an id that it cannot have."""
        raise HTTPError(400, "The id of a job has 1 to 128 of A-Z, a-z, 0-9 and . _ - ~.")

    async def look(self, reply: LateReply) -> None:
        """Answer with its document, when it has ended if the client waits for that; or the page."""
        request = reply.request
        record = await self.found(reply, self.visitor(reply))
        request.setHeader(b"Vary", b"Accept")
        if prefers_page(b",".join(request.requestHeaders.getRawHeaders(b"accept", ()))):
            send_page(request)
            return
        self.tell(reply, await self.ended(reply, record))

    async def delete(self, reply: LateReply) -> None:
        """Forget it if it has ended; else end it."""
        check_act(reply.request)
        record = await self.found(reply, self.visitor(reply))
        if record.state not in ENDED:
            await self.cancel(reply)
        elif await reply.given(self._context.keeper.delete(self._job)):
            respond(reply.request, 204, b"", b"")
        else:
            raise self.gone()


class _Cancel(Part):
    """Ends a job."""

    depth = 3

    def methods(self) -> dict[bytes, Answering]:
        """POST."""
        return {b"POST": self.post}

    async def post(self, reply: LateReply) -> None:
        """End it; one that has ended stays as it is."""
        check_act(reply.request)
        await self.found(reply, self.visitor(reply))
        await self.cancel(reply)


class _Result(Part):
    """What has come of a job."""

    depth = 3

    def methods(self) -> dict[bytes, Answering]:
        """GET and HEAD."""
        return {b"GET": self.look, b"HEAD": self.look}

    async def look(self, reply: LateReply) -> None:
        """Answer with the result, or with the document where there is none yet."""
        record = await self.found(reply, self.visitor(reply))
        record = await self.ended(reply, record)
        if record.state not in ENDED:
            self.tell(reply, record, 202)
            return
        result = await self._context.keeper.result(self._job)
        if result is None:
            raise self.gone()
        if reply.left:
            let_go(result)
            raise ClientLeft
        self.tell_times(reply, record)
        send_result(reply, record, result)


class _Events(Part):
    """What happens to a job."""

    depth = 3

    def methods(self) -> dict[bytes, Answering]:
        """GET and HEAD."""
        return {b"GET": self.look, b"HEAD": self.look}

    async def look(self, reply: LateReply) -> None:
        """Answer with its events, as long as there are more to come."""
        request, context = reply.request, self._context
        visitor = self.visitor(reply)
        after = _after(request)
        record = await self.found(reply, visitor)
        if after > record.events:
            raise HTTPError(400, "There is no event of that number yet.")
        if after == record.events and record.state in ENDED:
            respond(request, 204, b"", b"")  # which tells a browser not to come again
            return
        accept = b",".join(request.requestHeaders.getRawHeaders(b"accept", ()))
        format = format_of(accept) or EventFormat.SSE
        self.tell_times(reply, record)
        if request.method == b"HEAD":
            request.setHeader(b"Content-Type", format.value)
            request.finish()
            return
        base = self.base(request)
        Feed(
            reply,
            self._job,
            after,
            format,
            context.keeper,
            context.clock,
            lambda record: context.document(record, base),
        ).start()


def _after(request: Any) -> int:
    """The number of the last event that a client has.

    :raises deferpost.errors.HTTPError: 400.
    """
    said = request.requestHeaders.getRawHeaders(b"last-event-id") or []
    if not any(said):  # a browser that comes again has the query of the first time, too
        query = request.uri.partition(b"?")[2]
        said = [
            unquote_to_bytes(value)
            for name, _, value in (pair.partition(b"=") for pair in query.split(b"&"))
            if name == b"after"
        ]
    if not said:
        return 0
    if len(said) > 1 or not _NUMBER.fullmatch(said[0]):
        raise HTTPError(400, "Events have numbers: say once after which one to begin.")
    return int(said[0])


_BELOW_A_JOB: dict[bytes, type[Part]] = {
    b"result": _Result,
    b"events": _Events,
    b"cancel": _Cancel,
}


@implementer(IEarlyTree)
class JobTree:
    """All that is below ``/jobs``, for :class:`deferpost.web.tree.AppResource`.

    :param context: what the resources share.
    """

    #: Bytes of the largest body that is read here.
    max_body = MAX_BODY

    def __init__(self, context: JobsContext) -> None:
        self._context = context
        self._list = _List(context)
        self._nothing = _Nothing(context)

    def early_resource(self, segments: Sequence[bytes]) -> Any:
        """The resource of a path; see :meth:`deferpost.interfaces.IEarlyTree.early_resource`."""
        if not segments:
            return self._list
        job, *rest = (unquote_to_bytes(segment) for segment in segments)
        id = job.decode("utf-8", "replace")
        if not rest:
            return _Document(self._context, id)
        kind = _BELOW_A_JOB.get(rest[0]) if len(rest) == 1 else None
        return self._nothing if kind is None else kind(self._context, id)

    @property
    def open_replies(self) -> int:
        """How many requests are being answered."""
        return len(self._context.open_replies)

    def close(self) -> None:
        """The service stops: end streams of events, and tell those who wait to come again."""
        self._context.open_replies.close()
