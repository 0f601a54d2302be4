"""A call that becomes a kept job, or finds one: from its whole body to a result, or to a promise.

The call is in the store before anything else.  Then its client waits for the result for as long as
it wants to, and gets it as it was recorded, or is told by 202 where it will be.  In which manner a
call is answered was decided before (:mod:`deferpost.web.delivery`).  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import cooperate
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.bodies import PIECE_BYTES, BodyWriter
from deferpost.errors import DeferPostError, HTTPError
from deferpost.fields import field_bytes
from deferpost.idempotency import Fingerprint
from deferpost.keeping import Keeper
from deferpost.lifecycle import ENDED
from deferpost.model import Answer, CallHead, OnDisconnect, Route
from deferpost.records import Accepted, JobRecord, KeyOf, NewJob, StoredResult
from deferpost.web.delivery import Manner
from deferpost.web.exchange import OpenExchanges, problem_for
from deferpost.web.problems import PROBLEM_TYPE
from deferpost.web.respond import respond, set_common

__all__ = ["ErrorResponse", "Keeping", "KeptExchange", "fingerprint_of", "response_of", "scope_of"]

_log = Logger(namespace="deferpost.web")

#: Bytes of a body that are hashed at once, in less than a millisecond.
AT_ONCE = 4 * PIECE_BYTES

_JSON = b"application/json"

#: Fields that every response has once, of which a recorded one takes the place.
_ONE_ONLY = frozenset({b"date", b"server", b"x-request-id"})


@attrs.frozen
class ErrorResponse:
    """An error as the recorded result of a job; see :class:`deferpost.keeping.Response`.

    :ivar status: HTTP status.
    :ivar headers: header fields.
    :ivar body: a problem document.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def response_of(error: BaseException, id: str) -> ErrorResponse:
    """What an error is as the result of a kept job.

    :param id: of the request that brought the job.
    """
    problem = problem_for(error)
    fields = tuple((name.encode("ascii"), field_bytes(value)) for name, value in problem.headers)
    return ErrorResponse(
        problem.status, ((b"Content-Type", PROBLEM_TYPE), *fields), problem.document(id)
    )


@attrs.frozen(kw_only=True)
class Keeping:
    """What the resources of one app share where jobs are kept.

    :ivar keeper: keeps them.
    :ivar ttl: seconds that jobs of routes that set none are kept when they have ended.
    :ivar document: makes the document of a job, for a request.
    :ivar url: makes the absolute URL of a job, for a request and by its id.
    :ivar check_hook: gives the URL of a webhook as it is used, or refuses it by
        :class:`~deferpost.errors.HTTPError`.
    :ivar wall: seconds since the epoch.
    """

    keeper: Keeper
    ttl: float
    document: Callable[[Any, JobRecord], bytes]
    url: Callable[[Any, str], str]
    check_hook: Callable[[str], str]
    wall: Callable[[], float]


def scope_of(principal: str | None, route: str) -> str:
    """Whose keys are told from those of others: by who calls, and by the route."""
    return f"{route}\n{'' if principal is None else principal}"


def fingerprint_of(head: CallHead, body: BinaryIO, size: int) -> Deferred[bytes]:
    """The fingerprint of a call with its body, which is at its beginning before and after.

    A small one is hashed at once, a large one piece by piece in turns of the reactor.

    :param size: bytes of the body.
    :returns: a Deferred of the fingerprint; it fails where the body cannot be read.
    """
    fingerprint = Fingerprint(head)
    done: Deferred[bytes] = Deferred()

    def pieces() -> Iterator[None]:
        while piece := body.read(AT_ONCE):
            fingerprint.update(piece)
            yield

    def hashed(_: object) -> None:
        body.seek(0)
        done.callback(fingerprint.digest())

    if size <= AT_ONCE:
        for _ in pieces():
            pass
        hashed(None)
    else:
        cooperate(pieces()).whenDone().addCallback(hashed).addErrback(done.errback)
    return done


class KeptExchange:
    """A request whose call is kept.  Ends in a response, or in a client that left.

    :param request: the request, of which nothing has been written.
    :param id: its id.
    :param route: the route of the call.
    :param manner: in which it is answered.
    :param keeping: what keeps it.
    :param open_exchanges: where this counts until it ends.
    :param refuse: answers a request with an error.
    """

    def __init__(
        self,
        request: Any,
        id: str,
        route: Route,
        manner: Manner,
        keeping: Keeping,
        open_exchanges: OpenExchanges,
        refuse: Callable[[Exception], None],
    ) -> None:
        self._request = request
        self._id = id
        self._route = route
        self._manner = manner
        self._keeping = keeping
        self._open = open_exchanges
        self._refuse_request = refuse
        self._over = False
        self._waiting: Deferred[JobRecord | None] | None = None
        self._writer: BodyWriter | None = None

    def begin(self, new: NewJob, body: BinaryIO) -> None:
        """Watch the client, keep the call, and answer it.

        :param new: the job, without a key.
        :param body: its body, at its beginning; closed in any case.
        """
        self._open.add(self)
        request = self._request
        watch = getattr(request, "watch", None)
        if watch is not None:
            watch(lambda failure: self._written() if failure is None else self._left(failure))
        else:
            request.notifyFinish().addCallbacks(lambda _: self._written(), self._left)
        going = Deferred.fromCoroutine(self._go(new, body))
        going.addErrback(self._defect)

    # What the request tells.

    def _written(self) -> None:
        self._end()

    def _left(self, _: Failure) -> None:
        """The connection is gone."""
        if self._over:
            return
        self._end()
        if self._writer is not None:
            self._writer.stop(finish=True)
        if self._waiting is not None:
            self._waiting.cancel()

    def _end(self) -> None:
        self._over = True
        self._open.discard(self)

    # From the call to its answer.

    async def _go(self, new: NewJob, body: BinaryIO) -> None:
        keeper, manner = self._keeping.keeper, self._manner
        try:
            accepted = await self._accepted(new, body)
        except DeferPostError as error:
            self._refuse(error)
            return
        record = accepted.record
        # The id that a client has chosen may be that of another client's job.
        is_own = manner.job is None or record.principal == new.head.principal
        if not accepted.is_same or not is_own:
            self._refuse(_other_call(manner.key is not None))
            return
        keeper.attach(record.id)
        promised = False
        try:
            ended = await self._ended(record)
            if self._over:
                return
            if ended is not None and manner.job is not None:
                self._common(ended)
                document = self._keeping.document(self._request, ended)
                respond(self._request, 200, _JSON, document)
            elif ended is not None:
                await self._deliver(ended, replayed=manner.key is not None and not accepted.is_new)
            else:
                promised = await self._promise(record, is_new=accepted.is_new)
        except DeferPostError as error:
            self._refuse(error)
        finally:
            keeper.detach(
                record.id,
                promised=promised,
                cancel=self._route.on_disconnect is OnDisconnect.CANCEL,
                keyed=manner.key is not None,
            )

    async def _accepted(self, new: NewJob, body: BinaryIO) -> Accepted:
        """Have the call in the store."""
        keeper, manner, route = self._keeping.keeper, self._manner, self._route
        try:
            if manner.key is not None or manner.job is not None or route.coalesce:
                fingerprint = await fingerprint_of(new.head, body, new.body_bytes)
                if manner.job is not None:
                    scope = scope_of(new.head.principal, "")
                    new = msgspec.structs.replace(new, key=KeyOf(scope, manner.job, fingerprint))
                elif manner.key is not None:
                    scope = scope_of(new.head.principal, route.path)
                    new = msgspec.structs.replace(new, key=KeyOf(scope, manner.key, fingerprint))
                elif route.coalesce:
                    return await keeper.accept_one_of(
                        (scope_of(new.head.principal, route.path), fingerprint), new, body
                    )
        except BaseException:
            body.close()
            raise
        return await keeper.accept(new, body)

    async def _ended(self, record: JobRecord) -> JobRecord | None:
        """Wait for the job as long as its client does; None where it is not over then."""
        if record.state in ENDED:
            return record
        seconds = self._manner.promise_after
        if self._over or (seconds is not None and seconds <= 0):
            return None
        self._waiting = Deferred.fromCoroutine(self._keeping.keeper.ended(record.id, seconds))
        try:
            found = await self._waiting
        except CancelledError:
            return None  # the client has left
        finally:
            self._waiting = None
        return found if found is not None and found.state in ENDED else None

    # Writing.

    def _common(self, record: JobRecord | None = None) -> None:
        queue = run = 0.0
        if record is not None:
            begun = record.started if record.started is not None else record.finished
            queue = 0.0 if begun is None else begun - record.created
            if record.started is not None and record.finished is not None:
                run = record.finished - record.started
        set_common(self._request, self._id, max(0.0, queue), max(0.0, run))

    def _refuse(self, error: Exception) -> None:
        if not self._over:
            self._refuse_request(error)

    async def _promise(self, record: JobRecord, *, is_new: bool) -> bool:
        """Answer 202: the job is on disk, and this is where it is.

        :returns: whether the client was told so.
        """
        keeping, id = self._keeping, record.id
        if not is_new or self._manner.promise_after:  # else it was accepted a moment ago
            found = await keeping.keeper.get(id)
            if self._over:
                return False
            if found is None:  # somebody has deleted it meanwhile
                self._refuse(HTTPError(410, "The job has been deleted."))
                return False
            record = found
        self._common()
        headers = self._request.responseHeaders
        headers.setRawHeaders(b"Location", [keeping.url(self._request, id).encode("ascii")])
        headers.setRawHeaders(b"Retry-After", [b"%d" % keeping.keeper.retry_after(id)])
        headers.setRawHeaders(b"Vary", [b"Prefer"])
        if self._manner.applied is not None:
            headers.setRawHeaders(b"Preference-Applied", [self._manner.applied.encode("ascii")])
        respond(self._request, 202, _JSON, keeping.document(self._request, record))
        return True

    async def _deliver(self, record: JobRecord, *, replayed: bool) -> None:
        """Write the result as it was recorded."""
        result = await self._keeping.keeper.result(record.id)
        if result is None:
            self._refuse(HTTPError(410, "The job has been deleted."))
            return
        if self._over:
            _close(result)
            return
        request = self._request
        self._common(record)
        headers = request.responseHeaders
        if replayed:
            headers.setRawHeaders(b"Idempotency-Replayed", [b"true"])
        headers.setRawHeaders(b"Vary", [b"Prefer"])
        request.setResponseCode(result.status)
        for name, value in result.headers:
            if name.lower() in _ONE_ONLY:
                continue  # that of the request before is in the record
            headers.addRawHeader(name, value)
        if result.status not in (204, 304):
            headers.setRawHeaders(b"Content-Length", [b"%d" % result.length])
        if isinstance(result.body, bytes) and len(result.body) <= PIECE_BYTES:
            cork = getattr(request, "cork", None)
            if cork is not None:
                cork()
            if result.body:
                request.write(result.body)
            request.finish()
            return
        answer = Answer(result.status, result.headers, result.body, result.length)
        self._writer = BodyWriter(request, answer, request.finish, self._broken)
        self._writer.start()

    def _broken(self, error: Exception) -> None:
        _log.error("[{job}] its result could not be read: {error}", job=self._id, error=str(error))
        self._request.loseConnection()

    def _defect(self, failure: Failure) -> None:
        _log.failure("[{job}] could not be answered", failure=failure, job=self._id)
        if not self._over:
            if self._request.startedWriting:
                self._request.loseConnection()
            else:
                self._refuse_request(HTTPError(500, "The server failed; its log tells more."))


def _other_call(has_key: bool) -> HTTPError:
    if has_key:
        return HTTPError(
            422,
            "This Idempotency-Key came before, with another call.",
            extensions={"reason": "idempotency_key_reused"},
        )
    return HTTPError(
        422,
        "There is a job with this id already, of another call.",
        extensions={"reason": "job_id_reused"},
    )


def _close(result: StoredResult) -> None:
    if not isinstance(result.body, bytes):
        result.body.close()
