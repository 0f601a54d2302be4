"""What operators can do: the resources that cancel a job and replace a worker.

They take POSTs with what to act on as JSON; who may is decided in
:mod:`deferpost.web.status.access`.  Each act is logged with the operator's name.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.bodies import body_size, take_body
from deferpost.errors import BodyTooLarge, HTTPError
from deferpost.interfaces import BodyWanted, IEarlyResource
from deferpost.model import Reason
from deferpost.web.respond import respond
from deferpost.web.status.answers import Shared, begin, missing, other_method, refuse

__all__ = ["MAX_BODY", "Act", "Cancel", "Restart"]

_log = Logger(namespace="deferpost.web.status")

#: Bytes of what a button sends.
MAX_BODY = 4096


class _ToCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST to ``cancel``.

    ``id`` is that of the job's request, where the sender knows it: after a reload, another job may
    have the same key.
    """

    pool: str
    job: int
    id: str | None = None


class _ToRestart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST to ``restart``."""

    pool: str
    worker: str


@implementer(IEarlyResource)
class Act(Resource):
    """Takes POSTs of operators, with what to act on as JSON."""

    isLeaf = True
    max_body = MAX_BODY
    wants: ClassVar[type[Any]]

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Refuse a request before its body, or say how its body is wanted."""
        if request.method != b"POST":
            self.render(request)
            return None
        id = begin(request)
        try:
            self._shared.access.check_act(request)
            if length is not None and length > MAX_BODY:
                raise BodyTooLarge(MAX_BODY)
        except Exception as error:
            refuse(request, id, error)
            return None
        return BodyWanted(MAX_BODY)

    def render(self, request: Any) -> int:
        """Answer a request of any method."""
        id = begin(request)
        try:
            if request.method == b"POST":
                operator = self._shared.access.check_act(request)
                document = self.act(self._asked(request), operator)
                respond(request, 200, b"application/json", msgspec.json.encode(document) + b"\n")
            else:
                other_method(request, "OPTIONS, POST", id)
        except LookupError as error:
            refuse(request, id, missing(error))
        except Exception as error:
            refuse(request, id, error)
        return NOT_DONE_YET

    def _asked(self, request: Any) -> Any:
        if getattr(request.content, "too_large", False) or body_size(request.content) > MAX_BODY:
            raise BodyTooLarge(MAX_BODY)
        with take_body(request) as body:
            try:
                return msgspec.json.decode(body.read(), type=self.wants)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise HTTPError(400, f"The body is not what is wanted here: {error}.") from None

    def act(self, asked: Any, operator: str) -> dict[str, Any]:
        """Do it.

        :param asked: what was asked for.
        :param operator: who has asked.
        :returns: what is said of it.
        :raises LookupError: there is no such thing, in words for the client.
        """
        raise NotImplementedError


class Cancel(Act):
    """Cancels a job."""

    wants = _ToCancel

    def act(self, asked: _ToCancel, operator: str) -> dict[str, Any]:
        """Climb the cancel ladder; a job that runs may go on for a while."""
        job = self._shared.overview.find(asked.pool, asked.job)
        if asked.id is not None and asked.id != job.head.id:
            raise LookupError("There is no such job, or it has ended.")
        _log.info(
            "[{job}] {route}: the operator {operator} cancels it",
            job=job.head.id,
            route=job.head.route,
            operator=operator,
        )
        job.cancel(Reason.REQUESTED)
        return {"pool": asked.pool, "job": job.key, "id": job.head.id, "state": str(job.state)}


class Restart(Act):
    """Replaces a worker."""

    wants = _ToRestart

    def act(self, asked: _ToRestart, operator: str) -> dict[str, Any]:
        """Have a new worker take its place: at once if it is idle, else after its job."""
        if not self._shared.overview.inspectable(asked.pool).restart(asked.worker):
            raise LookupError("There is no such worker that can be restarted.")
        _log.info(
            "the operator {operator} restarts worker {worker} of pool {pool}",
            operator=operator,
            worker=asked.worker,
            pool=asked.pool,
        )
        return {"pool": asked.pool, "worker": asked.worker}
