"""The values that the parts of deferpost hand to each other.

All are plain values: nothing here does I/O, knows a clock or imports Twisted, because both the
reactor's side and the worker processes use them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import msgspec

__all__ = [
    "Answer",
    "CallHead",
    "Control",
    "Delivery",
    "HandlerRef",
    "Headers",
    "OnDisconnect",
    "PoolStatus",
    "Progress",
    "Quota",
    "Reason",
    "Reply",
    "Route",
    "Rung",
    "State",
    "Work",
    "WorkSource",
    "WorkerStatus",
]


class State(enum.StrEnum):
    """Where a job stands; :mod:`deferpost.lifecycle` says what follows what."""

    __hash__ = str.__hash__  # an Enum's own is a function in Python, and the table is asked often

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Reason(enum.StrEnum):
    """Why a job failed, was canceled or expired."""

    CLIENT_DISCONNECTED = "client_disconnected"
    REQUESTED = "requested"
    DEADLINE_QUEUE = "deadline_queue"  #: it was not started in time
    DEADLINE_RUN = "deadline_run"  #: it ran longer than it may
    DEADLINE_TOTAL = "deadline_total"  #: waiting and running together took longer than they may
    WORKER_LOST = "worker_lost"
    SHUTDOWN = "shutdown"
    ERROR = "error"


class Rung(enum.StrEnum):
    """How far up the cancel ladder a job had to be taken."""

    REMOVED = "removed"  #: it was still queued and never ran
    TOLD = "told"  #: ``call.canceled`` became true
    INTERRUPTED = "interrupted"  #: :exc:`deferpost.Interrupted` was raised in its thread
    TERMINATED = "terminated"  #: its process got SIGTERM
    KILLED = "killed"  #: its process got SIGKILL


class OnDisconnect(enum.StrEnum):
    """What becomes of a running job whose client has left."""

    CANCEL = "cancel"
    FINISH = "finish"


class Delivery(enum.StrEnum):
    """How the calls of a route may be answered, where jobs are kept."""

    SYNC = "sync"  #: on the connection of the call
    ALLOW = "allow"  #: so, or by 202 where the client prefers that
    ASYNC = "async"  #: by 202


class Headers(Mapping[str, str]):
    """Header fields of a request: case-insensitive, in order, repeated ones kept.

    As a mapping it gives each name, in lower case, with its values joined by ``", "``
    (RFC 9110, section 5.3); :meth:`get_all` gives them apart.

    :param raw: the fields as they came, names and values as bytes (decoded as ISO-8859-1).
    """

    __slots__ = ("_index", "_raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._raw = raw if isinstance(raw, tuple) else tuple(raw)
        self._index: dict[str, list[str]] | None = None

    @property
    def raw(self) -> Sequence[tuple[bytes, bytes]]:
        """The fields as they came, in order."""
        return self._raw

    def _values(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self._raw:
                index.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
            self._index = index
        return index

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values()[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values()

    def get_all(self, name: str) -> list[str]:
        """The values of one field, in order.

        :param name: the field's name, in any case.
        :returns: a new list, empty where the field is absent.
        """
        return list(self._values().get(name.lower(), ()))

    def __repr__(self) -> str:
        return f"Headers({self._raw!r})"


class CallHead(msgspec.Struct, frozen=True, array_like=True):
    """A POST without its body: what crosses to a worker.

    :ivar id: the request's id, from ``X-Request-ID`` or made here.
    :ivar route: the name of the route, which names the handler too.
    :ivar method: the HTTP method.
    :ivar path: the path as it was sent, without the query, percent-encoding kept.
    :ivar query: the query as it was sent, without the question mark.
    :ivar headers: name and value pairs, in order.
    :ivar client: address and port of the peer, where it has them.
    :ivar timeout: seconds that the run may take.
    :ivar finish_by: when waiting and running must be over, in seconds of the monotonic clock; None
        for no limit.
    :ivar principal: who calls, as authentication has found; None where nothing asked.
    """

    id: str
    route: str
    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: tuple[str, int] | None
    timeout: float | None
    finish_by: float | None = None
    principal: str | None = None


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a job says that it is.

    :ivar done: units done.
    :ivar total: units in all, where known.
    :ivar message: words for a person.
    """

    done: float
    total: float | None = None
    message: str = ""


class Control(Protocol):
    """What connects a running handler with its job, in whatever worker it runs."""

    @property
    def canceled(self) -> bool:
        """True from the moment at which nobody wants the result any more."""

    def report(self, done: Any, total: Any, message: Any) -> None:
        """Keep how far the job is.  Called on any thread of the handler, and often.

        What is said is looked at later, by :func:`deferpost.progress.progress_of`.
        """


class Reply:
    """What a handler may return to choose status and headers beside the body.

    :param body: anything that a handler may return by itself, another :class:`Reply` excepted.
    :param status: HTTP status, 200 to 599; 204 is the default where there is no body.
    :param headers: a mapping, or pairs where a name occurs more than once.
    :param content_type: the ``Content-Type``; if not given, from ``headers`` or from the body's
        type.
    :raises ValueError: a status outside 200 to 599.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        status: int | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        if status is None:
            status = 204 if body is None else 200
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"a Reply has a status from 200 to 599, not {status!r}")
        self.body = body
        self.status = status
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.headers: tuple[tuple[str, str], ...] = tuple((str(k), str(v)) for k, v in pairs)
        self.content_type = content_type

    def __repr__(self) -> str:
        return f"<Reply {self.status} {type(self.body).__name__}>"


class Answer:
    """A :class:`Reply` after it was encoded in the worker: ready for the wire.

    :ivar status: HTTP status.
    :ivar headers: name and value pairs, checked, without those that frame the message.
    :ivar body: ``bytes``; or a real binary file at the position from which ``length`` bytes are
        the body; or, in the worker, an iterator of ``bytes``, which on the reactor's side is an
        :class:`deferpost.interfaces.IChunkSource`.
    :ivar length: bytes of the body, or None where that is not known before it ends.
    """

    __slots__ = ("body", "headers", "length", "status")

    def __init__(
        self,
        status: int,
        headers: tuple[tuple[bytes, bytes], ...],
        body: Any,
        length: int | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body: Any = body
        self.length = length

    def __repr__(self) -> str:
        return f"<Answer {self.status} {type(self.body).__name__} {self.length}>"

    def close(self) -> None:
        """Let go of a body that nobody is going to read."""
        body = self.body
        if not isinstance(body, bytes):
            (body.abandon if hasattr(body, "abandon") else body.close)()


class HandlerRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a fresh interpreter finds a handler.

    :ivar route: the name of the route that it serves.
    :ivar module: the module's name.
    :ivar qualname: the handler's name in the module, with dots.
    :ivar path: the file to import where the module is not importable by name (a script).
    """

    route: str
    module: str
    qualname: str
    path: str | None = None


#: Runs one call in a worker and encodes what it gave.  Called on the worker's thread.  Raises
#: HTTPError, HandlerFailed or Canceled.
Work = Callable[[CallHead, BinaryIO, Control], Answer]


class WorkSource(Protocol):
    """The handlers of one pool, for whichever way its workers need them."""

    @property
    def interruptible(self) -> frozenset[str]:
        """The routes whose handlers may be interrupted by force, where threads run them."""

    def work(self, around: Callable[..., Any] | None = None) -> Work:
        """The work of one more worker in this process; classes are built once for each.

        :param around: calls what it is given, with further arguments, for what is the handler's
            own of :attr:`interruptible` routes; None to call it directly.
        """

    def coroutine(self, head: CallHead, body: BinaryIO, control: Control) -> Any:
        """The coroutine of a call to an ``async def`` handler, which gives a Reply or a value."""

    def encode(self, result: Any) -> Answer:
        """Turn what a handler returned into an answer; may take long, for large results."""

    def refs(self) -> tuple[HandlerRef, ...]:
        """Where worker processes find the handlers.

        :raises deferpost.errors.DeclarationError: one cannot be found again by name.
        """


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A path, its handler and the policy of its calls.

    :ivar path: the path below the app, starting with a slash.
    :ivar handler: the user's callable.
    :ivar pool: the name of the pool that runs it.
    :ivar timeout: seconds that a run may take; None takes the configured default.
    :ivar max_body: bytes that a body may have; None takes the configured default.
    :ivar on_disconnect: what becomes of a running job whose client has left.
    :ivar stream: whether the handler starts when the headers are in, and reads the body while it
        arrives.
    :ivar queue_timeout: seconds that a call may wait for its start; None takes the configured
        default.
    :ivar total_timeout: seconds that waiting and running may take together; None takes the
        configured default.
    :ivar interrupt: whether a handler in a thread that goes on after it was told to stop gets
        :exc:`deferpost.Interrupted` raised in it.
    :ivar retries: how often a call is run again whose worker process was lost.
    :ivar delivery: how its calls may be answered.
    :ivar fallback: seconds after which a call that has no answer yet is answered by 202; None for
        as long as it takes.
    :ivar result_ttl: seconds that a kept job is kept when it has ended; None takes the configured
        default.
    :ivar require_key: whether a call has to have an ``Idempotency-Key``.
    :ivar coalesce: whether calls that are the same run once while one of them is under way.
    """

    path: str
    handler: Any
    pool: str
    timeout: float | None = None
    queue_timeout: float | None = None
    total_timeout: float | None = None
    interrupt: bool = False
    retries: int = 0
    max_body: int | None = None
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    stream: bool = False
    delivery: Delivery = Delivery.ALLOW
    fallback: float | None = None
    result_ttl: float | None = None
    require_key: bool = False
    coalesce: bool = False

    @property
    def needs_store(self) -> bool:
        """Whether its calls cannot be served where no jobs are kept."""
        return (
            self.delivery is Delivery.ASYNC
            or self.fallback is not None
            or self.require_key
            or self.coalesce
        )


class Quota(msgspec.Struct, frozen=True):
    """A bound on what is under way at once, as clients are told of it.

    :ivar name: ``pool`` or ``client``: whose bound it is.
    :ivar most: how much there may be.
    :ivar left: how much more there may be now.
    :ivar unit: ``concurrent-requests`` or ``content-bytes``.
    """

    name: str
    most: int
    left: int
    unit: str = "concurrent-requests"


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of a pool at one moment.

    :ivar name: by which it is restarted; no other worker of its pool has it.
    :ivar pid: the number of its process; None where it is not a process of its own.
    :ivar stage: ``starting``, ``idle``, ``busy`` or ``leaving``.
    :ivar job: the key of the job that it runs (:attr:`deferpost.jobs.Job.key`); None without one.
    :ivar job_id: the id of that job's request.
    :ivar route: that job's route.
    :ivar run_seconds: how long it has been running that job.
    :ivar canceling: whether that job was told to stop.
    :ivar jobs_done: jobs that it has ended.
    :ivar age: seconds since it was started.
    :ivar memory: bytes of resident memory of its process; None where that is not known.
    """

    name: str
    pid: int | None
    stage: str
    job: int | None
    job_id: str | None
    route: str | None
    run_seconds: float
    canceling: bool
    jobs_done: int
    age: float
    memory: int | None


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at one moment.

    :ivar name: the pool's name.
    :ivar kind: ``thread``, ``process`` or ``reactor``.
    :ivar size: how many jobs it runs at once.
    :ivar max_waiting: how many more may wait.
    :ivar running: jobs whose code runs.
    :ivar waiting: jobs that wait.
    :ivar stuck: of those running, jobs that were told to stop and have not yet.
    :ivar ready: whether a job submitted now would be run.
    :ivar restarts: workers replaced since the start.
    :ivar hung: whether every worker has a job that was told to stop some time ago and goes on.
    :ivar oldest_waiting: seconds that the job has waited that has waited longest; None where none
        waits.
    """

    name: str
    kind: str
    size: int
    max_waiting: int
    running: int
    waiting: int
    stuck: int
    ready: bool
    restarts: int = 0
    hung: bool = False
    oldest_waiting: float | None = None
