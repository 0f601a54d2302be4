"""One request and its response, on treq.  Nothing here knows what is asked, or tries again.

What Twisted and treq raise becomes :class:`~deferpost.client.errors.Unreachable` here, with whether
the server may have got the request.  For the reactor thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from deferpost.client.errors import BadAnswer, ClientError, Unreachable
from deferpost.client.uploads import BodySource
from deferpost.model import Headers

__all__ = ["Connector", "Response", "read_all"]

#: The longest that it may take to connect, in seconds.
_CONNECT_SECONDS = 30.0

#: Bytes of a body that are kept until they are asked for; more is left in the connection.
_KEPT_BYTES = 256 * 1024

_NOT_CONNECTED = (
    error.ConnectError,
    error.ConnectingCancelledError,
    error.DNSLookupError,
    error.TimeoutError,
)


class Silence:
    """Calls something when nothing was heard for a time.

    :param seconds: None for never.
    """

    def __init__(self, reactor: Any, seconds: float | None, then: Callable[[], object]) -> None:
        self.is_over = False
        self.seconds: float | None = None
        self._reactor = reactor
        self._then = then
        self._timer: Any = None
        self.allow(seconds)

    def heard(self) -> None:
        """There is life."""
        if self._timer is not None:
            self._timer.reset(self.seconds)

    def allow(self, seconds: float | None) -> None:
        """From now on it may be silent for another time."""
        self.stop()
        self.seconds = seconds
        if seconds is not None:
            self._timer = self._reactor.callLater(seconds, self._over)

    def stop(self) -> None:
        """It does not matter any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _over(self) -> None:
        self._timer = None
        self.is_over = True
        self._then()


class Body(Protocol):
    """The body of a response, which is read as it comes; the server is held back meanwhile.

    :param seconds: of silence after which the connection is taken to be lost; None for never.
    """

    def __init__(self, reactor: Any, seconds: float | None) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._end: Failure | None = None
        self._waiter: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        """Some of it has come."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= _KEPT_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport().pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is whole, or it was cut off."""
        self._end = reason
        self._wake()

    async def read(self) -> bytes:
        """The next piece; empty at the end.

        :raises Unreachable: it was cut off.
        """
        while not self._pieces:
            if self._end is not None:
                if self._end.check(ResponseDone, PotentialDataLoss):
                    return b""
                raise Unreachable(_words(self._end), was_sent=True)
            await self._more()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._is_paused and self._size < _KEPT_BYTES:
            self._is_paused = False
            self._transport().resumeProducing()
        return piece

    def abandon(self) -> None:
        """Nobody wants the rest: close the connection, if it still is open."""
        if self._end is None and self.transport is not None:
            self._transport().loseConnection()

    async def _more(self) -> None:
        waiter: Deferred[None] = Deferred()
        self._waiter = waiter
        silence = Silence(self._reactor, self._seconds, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            silence.stop()
        if silence.is_over and not self._pieces and self._end is None:
            self.abandon()
            raise Unreachable(_silent(self._seconds), was_sent=True)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _transport(self) -> Any:
        return self.transport


class Response:
    """The head of a response, whose body is still to be read or abandoned.

    :ivar status: the status.
    :ivar headers: the header fields.
    :ivar body: the body.
    """

    def __init__(self, status: int, headers: Headers, body: Body) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connector:
    """Sends requests.

    :param reactor: for TCP, TLS and time.
    :param agent: what connects (:class:`IAgent`); None for one of Twisted's whose connections are
        closed after each response.
    :param fields: header fields that every request has.
    :param seconds: of silence after which a connection is taken to be lost.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent | None,
        fields: Iterable[tuple[str, str]],
        seconds: float,
    ) -> None:
        self.reactor = reactor
        self._agent: Any = agent or Agent(reactor, connectTimeout=min(seconds, _CONNECT_SECONDS))
        self._fields = tuple(fields)
        self._seconds = seconds

    async def send(
        self,
        method: str,
        url: str,
        fields: Iterable[tuple[str, str]] = (),
        *,
        body: BodySource | None = None,
        work_seconds: float | None = 0.0,
    ) -> Response:
        """Send a request, and return when the head of its response is there.

        :param work_seconds: for which the server may be silent beside the usual time, as it works
            or waits; None for any.
        :raises Unreachable: there was no response.
        :raises ClientError: the URL needs TLS, for which something is not installed.
        """
        headers = WebHeaders()
        for name, value in (*self._fields, *fields):
            headers.addRawHeader(name.encode("ascii"), value.encode("latin-1"))
        upload = None if body is None else body.upload(self.reactor)
        agent = _AsItIs(self._agent)
        seconds = None if work_seconds is None else self._seconds + work_seconds
        asked: Deferred[Any] = HTTPClient(agent).request(
            method,
            url,
            headers=headers,
            data=upload,
            allow_redirects=False,
            unbuffered=True,
            reactor=self.reactor,
        )
        silence = Silence(self.reactor, seconds, asked.cancel)
        if upload is not None and upload.length:
            # While it is sent, there is nothing that the server could be working at.
            silence.allow(self._seconds)
            upload.heard = silence.heard
            upload.all_sent = lambda: silence.allow(seconds)
        try:
            response = await asked
        except Exception as failed:
            raise self._translated(failed, silence) from failed
        finally:
            silence.stop()
            if upload is not None:
                # An early answer: the rest of the body is not sent.
                upload.stopProducing()
        reading = Body(self.reactor, self._seconds)
        response.deliverBody(reading)
        return Response(response.code, agent.headers, reading)

    def _translated(self, failed: Exception, silence: Silence) -> Exception:
        if silence.is_over:
            was_sent = not isinstance(failed, _NOT_CONNECTED)
            return Unreachable(_silent(silence.seconds), was_sent=was_sent)
        if isinstance(failed, error.ConnectingCancelledError):
            return CancelledError()
        if isinstance(failed, _NOT_CONNECTED):
            return Unreachable(_sentence(failed), was_sent=False)
        if isinstance(failed, NotImplementedError):
            return ClientError("https needs TLS: install deferpost with its extra, deferpost[tls]")
        reasons: list[Failure] = getattr(failed, "reasons", [])
        if isinstance(failed, RequestGenerationFailed):
            first = reasons[0].value if reasons else failed
            return first if isinstance(first, Exception) else failed
        if isinstance(failed, (ResponseFailed, RequestTransmissionFailed)):
            if any(reason.check(CancelledError) for reason in reasons):
                return CancelledError()
            module = type(reasons[0].value).__module__ if reasons else ""
            if module.startswith(("OpenSSL", "service_identity")):
                return Unreachable(_distrust(reasons[0].value), was_sent=False, again=False)
            return Unreachable(_words(reasons[0] if reasons else Failure(failed)), was_sent=True)
        if isinstance(failed, (error.ConnectionLost, error.ConnectionDone)):
            return Unreachable(_sentence(failed), was_sent=True)
        return failed


async def read_all(response: Response, most_bytes: int, *, cut: bool = False) -> bytes:
    """Read a body into memory.

    :param most_bytes: that it may have.
    :param cut: whether what is longer is cut off, and no error.
    :raises BadAnswer: it is longer.
    :raises Unreachable: it was cut off by the server, or the network.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await response.body.read():
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                if cut:
                    break
                raise BadAnswer(f"the answer has more than {most_bytes} bytes")
    finally:
        response.body.abandon()
    return b"".join(pieces)[:most_bytes]


@implementer(IAgent)
class _AsItIs:
    """Keeps treq from asking for packed bodies and from unpacking them.

    What a job has made is passed on as it is, and ranges are those of its bytes.

    :ivar headers: of the response, all of them.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self.headers = Headers()

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: WebHeaders | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Pass a request on."""
        plain = WebHeaders() if headers is None else headers.copy()
        plain.removeHeader(b"accept-encoding")
        answered: Deferred[Any] = self._agent.request(method, uri, plain, bodyProducer)
        return answered.addCallback(self._keep)

    def _keep(self, response: Any) -> Any:
        pairs = [
            (name, value)
            for name, values in response.headers.getAllRawHeaders()
            for value in values
        ]
        if response.length is not None and isinstance(response.length, int):
            # Twisted keeps the fields of the connection, this among them, to itself.
            pairs.append((b"content-length", b"%d" % response.length))
        self.headers = Headers(pairs)
        response.headers.removeHeader(b"content-encoding")
        return response


def _distrust(failed: BaseException | None) -> str:
    """Why there is no TLS, in the words of OpenSSL: a list, each with library, place and word."""
    told = failed.args[0] if failed is not None and failed.args else None
    if isinstance(told, list):
        told = ", ".join(str(each[-1]) for each in told if isinstance(each, tuple) and each)
    return f"TLS with the server failed: {told or type(failed).__name__}"


def _silent(seconds: float | None) -> str:
    return f"nothing came from the server for {seconds or 0:g} seconds"


def _words(failure: Failure) -> str:
    return _sentence(failure.value)


def _sentence(failed: BaseException | None) -> str:
    """What happened, in few words."""
    if isinstance(failed, (error.ConnectionRefusedError,)):
        return "the server refuses connections"
    if isinstance(failed, (error.TimeoutError, error.TCPTimedOutError)):
        return "the server does not answer"
    if isinstance(failed, error.DNSLookupError):
        return f"the name of the server is not known: {failed}"
    reasons: list[Failure] = getattr(failed, "reasons", [])
    if reasons:
        return _words(reasons[0])
    if isinstance(failed, (error.ConnectionLost, error.ConnectionDone)):
        return "the connection was lost"
    return str(failed).rstrip(".") or type(failed).__name__
