"""The Call: one POST as its handler sees it."""

from __future__ import annotations

import io
import json
import re
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, overload
from urllib.parse import parse_qs

import msgspec

from deferpost.errors import BadRequest, Canceled
from deferpost.model import CallHead, Control, Headers

if TYPE_CHECKING:
    from deferpost.handlers.forms import Form
    from deferpost.tracing import Trace

__all__ = ["Call"]

T = TypeVar("T")

_AT_BYTE = re.compile(r"\(byte (\d+)\)")


class Call:
    """One POST, as its handler sees it.  For the handler's thread only.

    :param head: the call without its body.
    :param body: the body, at its beginning.
    :param control: the connection to the job.
    :param directory: where uploaded files are kept; None for the system's choice.

    :ivar body: the request's body, a binary file: in memory while small, else a temporary file.
        On a route with ``stream=True`` it may still be arriving: it is read once, from front to
        back, ``read``, ``readinto``, ``readline`` and iteration wait for what has not come yet,
        ``read1`` gives what is there, and all of them raise
        :class:`~deferpost.errors.BodyBroken` where the rest will not come, and
        :class:`~deferpost.Canceled` where nobody wants the result any more.
    :ivar deadline: the time at which the run will be ended, on the clock of
        :func:`time.monotonic`; None where it has no limit.  It is the earlier one of what the run
        and what waiting and running together may take.
    """

    __slots__ = (
        "_args",
        "_control",
        "_data",
        "_directory",
        "_form",
        "_head",
        "_headers",
        "_trace",
        "body",
        "deadline",
    )

    def __init__(
        self, head: CallHead, body: BinaryIO, control: Control, directory: str | None = None
    ) -> None:
        self._head = head
        self._directory = directory
        self._control = control
        self.body = body
        deadline = head.finish_by
        if head.timeout is not None:
            run_by = time.monotonic() + head.timeout
            deadline = run_by if deadline is None else min(run_by, deadline)
        self.deadline = deadline
        self._args: dict[str, list[str]] | None = None
        self._headers: Headers | None = None
        self._trace: Trace | Literal[False] | None = None  # False for a call in no trace
        self._form: Form | None = None
        self._data: bytes | None = None  # of a body that cannot be read twice

    def __repr__(self) -> str:
        return f"<Call {self.id} {self.method} {self.path}>"

    @property
    def id(self) -> str:
        """The id of the request, as in ``X-Request-ID`` and in the log."""
        return self._head.id

    @property
    def route(self) -> str:
        """The path of the route, below its app."""
        return self._head.route

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self._head.method

    @property
    def path(self) -> str:
        """The path of the request as it was sent, without the query."""
        return self._head.path

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the peer; None on a Unix socket."""
        return self._head.client

    @property
    def principal(self) -> str | None:
        """Who calls, as authentication has found; None where nobody was asked."""
        return self._head.principal

    @property
    def headers(self) -> Headers:
        """The header fields of the request."""
        if self._headers is None:
            self._headers = Headers(self._head.headers)
        return self._headers

    @property
    def args(self) -> dict[str, list[str]]:
        """The arguments of the query, decoded: each name with its values in order."""
        if self._args is None:
            self._args = parse_qs(self._head.query.decode("latin-1"), keep_blank_values=True)
        return self._args

    @property
    def traceparent(self) -> str | None:
        """What a client of this handler's sends as ``traceparent`` (W3C Trace Context, level 1).

        It names the trace that the call came with, and the call as the parent of what follows.
        None where the call came with none, or with one that is not valid.
        """
        trace = self._traced()
        return None if trace is None else trace.traceparent

    @property
    def tracestate(self) -> str | None:
        """What goes with :attr:`traceparent` as ``tracestate``, as it came; None for nothing."""
        return None if self._traced() is None else self.headers.get("tracestate") or None

    def _traced(self) -> Trace | None:
        if self._trace is None:
            from deferpost.tracing import trace_of

            self._trace = trace_of(self._head) or False
        return self._trace or None

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """The body, read as JSON.

        :param type: the type to read it as: anything that msgspec can decode to, such as a
            Struct, a dataclass or ``list[int]``.
        :raises deferpost.BadRequest: it is not JSON, or not of that type; the answer is 400 and
            says where.
        """
        try:
            self.body.seek(0)
        except io.UnsupportedOperation:  # it arrives, and can be read only once
            if self._data is None:
                self._data = self.body.read()
            data = self._data
        else:
            data = self.body.read()
        try:
            return msgspec.json.decode(data, type=type)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the JSON body does not fit: {error}") from None
        except RecursionError:
            raise BadRequest("the JSON body is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed_json(data, error) from None

    def form(self) -> Form:
        """The body, read as a form: urlencoded or multipart.

        It is read once; later calls give the same form.  Uploaded files are on disk.

        :raises deferpost.BadRequest: it is malformed; the answer is 400 and says where.
        :raises deferpost.HTTPError: 415 for a body that is no form, 413 for too many fields.
        """
        if self._form is None:
            from deferpost.handlers.forms import parse_form

            content_type = self.headers.get("content-type")
            self._form = parse_form(content_type, self.body, directory=self._directory)
        return self._form

    @property
    def canceled(self) -> bool:
        """True from the moment at which nobody wants the result any more.

        The client has left, the time is up, or the service stops.  A handler in a thread looks
        at it now and then: nothing else can end it.
        """
        return self._control.canceled

    def check(self) -> None:
        """End this handler here if nobody wants its result any more.

        :raises deferpost.Canceled: the job is canceled; let it pass.
        """
        if self._control.canceled:
            raise Canceled

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the job is: on any thread, as often as you like.

        It is kept, and looked at later: where ``done`` is no finite number nothing is shown.

        :param done: units done.
        :param total: units in all, where known.
        :param message: words for a person; the first 1000 characters are shown.
        """
        self._control.report(done, total, message)

    def release(self) -> None:
        """Let go of what :meth:`form` opened.  The worker calls it when the run has ended."""
        if self._form is not None:
            self._form.close()


def _malformed_json(data: bytes, error: Exception) -> BadRequest:
    """The 400 for bytes that are not JSON, with the place as offset, line and column."""
    if not data.strip():
        return BadRequest("the body is empty; JSON was expected", offset=0, line=1, column=1)
    if isinstance(error, UnicodeDecodeError):
        reason, offset = f"invalid UTF-8: {error.reason}", _offset_of_non_utf8(data)
    else:
        found = _AT_BYTE.search(str(error))
        reason = _AT_BYTE.sub("", str(error)).strip().removeprefix("JSON is malformed: ")
        offset = int(found[1]) if found else _offset_by_stdlib(data)
    line = data.count(b"\n", 0, offset) + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return BadRequest(
        f"the body is not JSON: {reason} at line {line}, column {column} (byte {offset})",
        offset=offset,
        line=line,
        column=column,
    )


def _offset_of_non_utf8(data: bytes) -> int:
    """The first byte that is not UTF-8; msgspec counts from the beginning of the string."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("it is UTF-8")


def _offset_by_stdlib(data: bytes) -> int:
    """The byte at which the standard library gives up, for errors of msgspec without a place."""
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))
    except UnicodeDecodeError as error:
        return error.start
    except RecursionError:
        pass
    return len(data)
