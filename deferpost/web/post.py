"""The resource of one route: makes a Call of a POST and gives it to the dispatcher."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, ClassVar

import attrs
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.arriving import ArrivingBody
from deferpost.bodies import SpooledBody, body_size, take_body
from deferpost.credentials import Admitted, Gate
from deferpost.dispatch import Dispatcher
from deferpost.errors import BodyTooLarge, DeferPostError, StorageFailed
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.model import Answer, CallHead, Route
from deferpost.records import NewJob
from deferpost.web.asked import USUAL, Terms, asked_of, terms_of
from deferpost.web.checked import CheckedBody, CheckedUpload, check_kept
from deferpost.web.delivery import PLAIN, Manner, manner_of
from deferpost.web.events import Beat, EventExchange, wanted_format
from deferpost.web.exchange import Exchange, OpenExchanges
from deferpost.web.kept import Keeping, KeptExchange
from deferpost.web.problems import method_not_allowed, problem_of, quota_fields
from deferpost.web.respond import request_id, respond, respond_problem, set_common

__all__ = ["PostContext", "PostResource"]

_log = Logger(namespace="deferpost.web")


@attrs.frozen(kw_only=True)
class PostContext:
    """What the resources of one app share.

    :ivar dispatcher: gives the dispatcher; starts the pools if they are not.
    :ivar now: the monotonic clock, in seconds.
    :ivar open_exchanges: where exchanges count until they end.
    :ivar timeout: seconds for routes that set none; None for no limit.
    :ivar max_body: bytes for routes that set none.
    :ivar gate: looks at each call, on our own wire before its body is read, and refuses it by
        raising :class:`~deferpost.errors.HTTPError`, with 401, 403 or 429 for example; it may
        return who calls.
    :ivar queue_timeout: seconds that calls of routes that set none may wait; None for no limit.
    :ivar total_timeout: seconds that calls of routes that set none may wait and run; None for no
        limit.
    :ivar observer: hears of calls that are turned away
        (:class:`deferpost.interfaces.IJobObserver`).
    :ivar most_urgent: the least number that a client gets which asks to be more urgent than usual.
    :ivar tells_quota: whether replies say how many more calls their client may have under way.
    :ivar beat: the timer of exchanges with events; None to answer without events.
    :ivar keeping: what keeps jobs; None where none are kept.
    """

    dispatcher: Callable[[], Dispatcher]
    now: Callable[[], float]
    open_exchanges: OpenExchanges
    timeout: float | None
    max_body: int
    gate: Gate | None = None
    queue_timeout: float | None = None
    total_timeout: float | None = None
    observer: Any = None
    most_urgent: int = 0
    tells_quota: bool = False
    beat: Beat | None = None
    keeping: Keeping | None = None


@implementer(IEarlyResource)
class PostResource(Resource):
    """One route as a resource.

    :param route: the route.
    :param context: what the resources of an app share.
    """

    isLeaf = True

    #: The method that makes calls, and all that there are.
    method: ClassVar[bytes] = b"POST"
    allowed: ClassVar[str] = "OPTIONS, POST"

    def __init__(self, route: Route, context: PostContext) -> None:
        super().__init__()
        self._route = route
        self._context = context
        self._max_body = context.max_body if route.max_body is None else route.max_body
        self._timeout = context.timeout if route.timeout is None else route.timeout
        queue, total = route.queue_timeout, route.total_timeout
        self._queue_timeout = context.queue_timeout if queue is None else queue
        self._total_timeout = context.total_timeout if total is None else total
        self._has_terms = self._queue_timeout is not None or self._total_timeout is not None
        self._wanted = BodyWanted(self._max_body)

    @property
    def max_body(self) -> int:
        """Bytes that a body may have."""
        return self._max_body

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Refuse a request before its body, or say how its body is wanted.

        See :meth:`deferpost.interfaces.IEarlyResource.head_received`.
        """
        if request.method != self.method:
            self.render(request)
            return None
        context = self._context
        if whole and length <= self._max_body and context.gate is None:  # type: ignore[operator]  # a whole one has a length
            return self._wanted  # at once: what can be refused is so by :meth:`render`
        id = request_id(request)
        try:
            if length is not None and length > self._max_body:
                raise BodyTooLarge(self._max_body)
            digest = None if context.gate is None else self._pass_gate(request, id).digest
            is_kept = self._manner(request).is_kept
            if whole:
                return self._wanted
            if is_kept:
                context.keeping.keeper.check()  # type: ignore[union-attr]  # else nothing is kept
            elif self._route.stream:
                body = ArrivingBody() if digest is None else CheckedBody(digest)
                self._run(request, id, body)
                return BodyWanted(self._max_body, body)
            else:
                self._reserve(request, id, self._max_body if length is None else length)
            if digest is None:
                return self._wanted
            take, refuse = partial(self._take, request, id), partial(self._refuse, request, id)
            return BodyWanted(self._max_body, CheckedUpload(request, length, digest, take, refuse))
        except Exception as error:
            self._refuse(request, id, error)
            return None

    def render(self, request: Any) -> int:
        """Answer a request of any method; see :meth:`render_POST` for the one that matters."""
        method = request.method
        if method == self.method:
            return self.render_POST(request)
        id = request_id(request)
        set_common(request, id)
        if method == b"OPTIONS":
            request.setHeader(b"Allow", self.allowed.encode())
            respond(request, 204, b"", b"")
        else:
            respond_problem(request, method_not_allowed(self.allowed), id)
        return NOT_DONE_YET

    def render_POST(self, request: Any) -> int:
        """Submit the call; the response is written when its Deferred fires."""
        id = request_id(request)
        try:
            if self._context.gate is not None:
                digest = self._pass_gate(request, id).digest
                if digest is not None:
                    self._check_kept(request.content)
                    take = partial(self._take, request, id)
                    check_kept(request, digest, take, partial(self._refuse, request, id))
                    return NOT_DONE_YET
            self._run(request, id, self._whole_body(request))
        except Exception as error:
            self._refuse(request, id, error)
        return NOT_DONE_YET

    def _take(self, request: Any, id: str) -> None:
        """Submit the call of a request whose body is whole and right."""
        try:
            self._run(request, id, self._whole_body(request))
        except Exception as error:
            self._refuse(request, id, error)

    def _pass_gate(self, request: Any, id: str) -> Admitted:
        """Ask the gate, once: when the head is in, where the site can do that."""
        admitted: Admitted | None = getattr(request, "deferpost_admitted", None)
        if admitted is None:
            gate = self._context.gate
            assert gate is not None
            admitted = Admitted.of(gate(self._head(request, id)))
            request.deferpost_admitted = admitted
        return admitted

    def _manner(self, request: Any) -> Manner:
        """In which manner the call of a request is answered; decided once."""
        keeping = self._context.keeping
        if keeping is None:
            return PLAIN
        manner: Manner | None = getattr(request, "deferpost_manner", None)
        if manner is None:
            manner = manner_of(request, self._route, keeping.check_hook)
            request.deferpost_manner = manner
        return manner

    def _keep(self, request: Any, id: str, body: BinaryIO, manner: Manner) -> None:
        """Have the call kept, and see to its answer."""
        keeping, route = self._context.keeping, self._route
        assert keeping is not None
        try:
            size = body_size(body)
            terms = self._terms(request)
            head = self._head(request, id)
            if self._context.gate is not None:
                head = self._pass_gate(request, id).shown(head)
            keeping.keeper.check()
        except BaseException:
            body.close()
            raise
        to_wall = keeping.wall() - self._context.now()
        start_by, finish_by = terms.start_by, terms.finish_by
        new = NewJob(
            id=keeping.keeper.new_id() if manner.job is None else manner.job,
            head=head,
            pool=route.pool,
            created=keeping.wall(),
            urgency=terms.urgency,
            retries=route.retries,
            start_by=None if start_by is None else start_by + to_wall,
            finish_by=None if finish_by is None else finish_by + to_wall,
            ttl=keeping.ttl if route.result_ttl is None else route.result_ttl,
            webhook=manner.webhook,
            body_bytes=size,
        )
        KeptExchange(
            request,
            id,
            route,
            manner,
            keeping,
            self._context.open_exchanges,
            partial(self._refuse, request, id),
        ).begin(new, body)

    def _terms(self, request: Any) -> Terms:
        """On what terms the call of a request is taken that comes now and asks for some."""
        context = self._context
        return terms_of(
            asked_of(request),
            self._queue_timeout,
            self._total_timeout,
            context.most_urgent,
            context.now(),
        )

    def _reserve(self, request: Any, id: str, size: int) -> None:
        """Keep a place for a call whose body is still to come, until it comes or will not.

        :param size: bytes of the body; the most that it may have where it is chunked.
        """
        terms = self._terms(request)
        head = self._head(request, id, terms.finish_by)
        if self._context.gate is not None:
            head = self._pass_gate(request, id).shown(head)
        place = self._context.dispatcher().reserve(
            self._route.pool,
            head,
            size,
            start_by=terms.start_by,
            urgency=terms.urgency,
        )
        request.kept = place
        # Whoever answers, the wire or this, and whenever the client leaves: until there is a job,
        # of which the exchange watches the request in place of this.
        request.watch(lambda _: place.give_back())

    def _refuse(self, request: Any, id: str, error: Exception) -> None:
        set_common(request, id)
        if isinstance(error, StorageFailed):
            _log.error("[{job}] the body could not be kept: {error}", job=id, error=error)
        elif not isinstance(error, DeferPostError):
            _log.failure("[{job}] could not be submitted", job=id)
        problem = problem_of(error)
        respond_problem(request, problem, id)
        observer = self._context.observer
        if observer is not None:
            try:
                observer.refused(
                    self._route.path, problem.status, problem.reason or str(problem.status)
                )
            except Exception:
                _log.failure("[{job}] its refusal was not observed", job=id)

    def _whole_body(self, request: Any) -> BinaryIO:
        """The body of a request that is complete, if it may be run."""
        content = request.content
        if type(content) is io.BytesIO:  # as most are
            framing = getattr(request, "framing", None)
            length = None if framing is None else framing.length
            if (content.getbuffer().nbytes if length is None else length) > self._max_body:
                raise BodyTooLarge(self._max_body)
            request.content = None
            return content
        self._check_kept(content)
        return take_body(request)

    def _check_kept(self, content: Any) -> None:
        """Whether all of a body was kept, and it is not too large."""
        if isinstance(content, SpooledBody):
            if content.too_large:
                raise BodyTooLarge(self._max_body)
            if content.failure is not None:
                raise StorageFailed(str(content.failure))
        if body_size(content) > self._max_body:
            raise BodyTooLarge(self._max_body)

    def _head(self, request: Any, id: str, finish_by: float | None = None) -> CallHead:
        """The call of a request, without its body."""
        path, _, query = request.uri.partition(b"?")
        client = request.client
        fields = getattr(request, "fields", None)
        if fields is None:  # a request of another site
            fields = [
                (name, value)
                for name, values in request.requestHeaders.getAllRawHeaders()
                for value in values
            ]
        return CallHead(
            id,
            self._route.path,
            self.method.decode(),
            path.decode("latin-1"),
            query,
            tuple(fields),
            (client.host, client.port) if hasattr(client, "port") else None,
            self._timeout,
            finish_by,
        )

    def _run(self, request: Any, id: str, body: BinaryIO | ArrivingBody) -> None:
        """Submit the call, and see to its answer."""
        route, context = self._route, self._context
        if context.keeping is not None and not isinstance(body, ArrivingBody):
            manner = self._manner(request)
            if manner.is_kept:
                self._keep(request, id, body, manner)
                return
        dispatcher = context.dispatcher()
        framing = getattr(request, "framing", None)
        is_usual = framing is not None and not framing.asks and not self._has_terms
        terms = USUAL if is_usual else self._terms(request)
        size = None if framing is None else framing.length
        if size is None and not isinstance(body, ArrivingBody):
            size = body_size(body)
        head = self._head(request, id, terms.finish_by)
        if context.gate is not None:
            head = self._pass_gate(request, id).shown(head)
        job, answer = dispatcher.submit(
            route.pool,
            head,
            body,
            # Of one that arrives, no more is held than its handler has not read yet.
            0 if size is None or (route.stream and isinstance(body, ArrivingBody)) else size,
            place=getattr(request, "kept", None),
            created=terms.created,
            start_by=terms.start_by,
            urgency=terms.urgency,
            retries=route.retries,
        )
        job.body_bytes = size
        if context.tells_quota:
            answer.addCallback(_with_quota, dispatcher, head)
        request.deferpost_job = job  # for an access log that wants its times
        beat = context.beat
        format = None
        if beat is not None and (framing is None or framing.accept is not None):
            format = wanted_format(request)
        if beat is None or format is None:
            exchange = Exchange(
                request,
                job,
                route.on_disconnect,
                context.now,
                context.open_exchanges,
                dispatcher.responded,
            )
        else:
            exchange = EventExchange(
                request,
                job,
                route.on_disconnect,
                context.now,
                context.open_exchanges,
                dispatcher.responded,
                beat=beat,
                format=format,
            )
            if not isinstance(body, ArrivingBody):
                exchange.open()
        exchange.begin(answer)


def _with_quota(answer: Answer, dispatcher: Dispatcher, head: CallHead) -> Answer:
    """A reply that says how many more calls its client may have under way."""
    quota = dispatcher.quota_of(head)
    if quota is not None:
        answer.headers += tuple(
            (name.encode("ascii"), value.encode("ascii")) for name, value in quota_fields(quota)
        )
    return answer
