"""Sends a notification once, and says what became of it.

One POST: no redirect is followed, no cookie kept, no content decoded, and the response counts by
its status alone.  Whatever the network does is an outcome and no exception.  Whether the URL is one
that an operator allows is asked before (:mod:`deferpost.webhooks.rules`), and what follows from the
outcome after (:mod:`deferpost.webhooks.schedule`).  For the reactor thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec
import treq
from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer, IHostnameResolver
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HostnameCachingHTTPSPolicy,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from deferpost._version import __version__
from deferpost.records import HookAttempt
from deferpost.webhooks.connecting import AddressRefused, Connections
from deferpost.webhooks.schedule import retry_after_of
from deferpost.webhooks.signing import HookSecret, sign

__all__ = ["BODY_SECONDS", "CONNECT_SECONDS", "TIMEOUT_SECONDS", "HookSender", "Sent"]

#: Seconds that a whole attempt may take until there is a status.
TIMEOUT_SECONDS = 30.0

#: Seconds that connecting to one address may take.
CONNECT_SECONDS = 10.0

#: Seconds that the body of a response is waited for, of which nothing depends.
BODY_SECONDS = 5.0

#: Bytes of a response's body that are read.
_BODY_BYTES = 64 * 1024

#: Bytes that a connection may bring: the body, the head, and what TLS adds.
_CONNECTION_BYTES = _BODY_BYTES + 64 * 1024

_log = Logger(namespace="deferpost.webhooks")


class Sent(msgspec.Struct, frozen=True):
    """What became of an attempt.

    :ivar attempt: for the hook's record.
    :ivar retry_after: seconds that the receiver asks for before the next one; None where it does
        not, or may not.
    """

    attempt: HookAttempt
    retry_after: float | None = None


class HookSender:
    """Sends notifications.

    :param reactor: the reactor.
    :param secrets: each makes a signature; at least one.
    :param allow_private: whether loopback, private and shared addresses are allowed.
    :param timeout: seconds until there must be a status.
    :param connect_timeout: seconds that connecting to one address may take.
    :param policy: says what certificates are trusted; if not given, those that the system trusts,
        for the name of the host.
    :param resolver: looks names up; if not given, the reactor's own.
    :raises ValueError: there is no secret.
    """

    def __init__(
        self,
        reactor: Any,
        secrets: Iterable[HookSecret],
        *,
        allow_private: bool = False,
        timeout: float = TIMEOUT_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        policy: IPolicyForHTTPS | None = None,
        resolver: IHostnameResolver | None = None,
    ) -> None:
        self._secrets = tuple(secrets)
        if not self._secrets:
            raise ValueError("webhooks are signed: there must be a secret")
        self._reactor = reactor
        self._allow_private = allow_private
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        # To read the certificates that the system trusts takes milliseconds; once for each host.
        self._policy = HostnameCachingHTTPSPolicy(policy or BrowserLikePolicyForHTTPS())
        self._resolver = resolver

    def send(self, url: str, id: str, body: bytes, at: float) -> Deferred[Sent]:
        """Make one attempt.

        :param url: as :meth:`deferpost.webhooks.rules.HookHosts.check` has returned it.
        :param id: of the notification, the same for each attempt; see
            :func:`deferpost.webhooks.signing.hook_id`.
        :param body: a JSON document.
        :param at: the time, in seconds since the epoch.
        :returns: fires with what became of it, in time, and does not fail but when it is cancelled.
            To cancel it cuts the connection; nobody knows then whether it was received.
        :raises ValueError: the id cannot be sent.
        """
        fields = {
            "content-type": "application/json",
            "user-agent": f"deferpost/{__version__}",
            **sign(self._secrets, id, at, body),
        }
        connections = Connections(
            self._reactor,
            self._resolver or self._reactor.nameResolver,
            self._policy,
            allow_private=self._allow_private,
            connect_timeout=self._connect_timeout,
            most_bytes=_CONNECTION_BYTES,
        )
        attempt = _Attempt(self._reactor, connections, self._timeout, self._connect_timeout, at)
        return attempt.make(url, fields, body)


class _Attempt:
    """One attempt.

    Its work may end by itself, be late, or be cancelled; the first of these decides.
    """

    def __init__(
        self,
        reactor: Any,
        connections: Connections,
        timeout: float,
        connect_timeout: float,
        at: float,
    ) -> None:
        self._reactor = reactor
        self._connections = connections
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._at = at
        self._started = reactor.seconds()
        self._response: IResponse | None = None
        self._body_bytes = 0
        self._late = False
        self._result: Deferred[Sent] = Deferred(self._canceled)
        self._timer = reactor.callLater(timeout, self._is_late)
        self._work: Deferred[None]

    def make(self, url: str, fields: dict[str, str], body: bytes) -> Deferred[Sent]:
        """Make it."""
        self._work = Deferred.fromCoroutine(self._exchange(url, fields, body))
        self._work.addBoth(self._done)
        return self._result

    async def _exchange(self, url: str, fields: dict[str, str], body: bytes) -> None:
        agent = Agent.usingEndpointFactory(self._reactor, self._connections)
        response = await HTTPClient(_Plain(agent)).request(
            "POST",
            url,
            headers=Headers({name: [value] for name, value in fields.items()}),
            data=_Bytes(body),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        self._response = response
        left = self._started + self._timeout - self._reactor.seconds()
        self._timer.reset(max(0.0, min(BODY_SECONDS, left)))
        # A body that is late, too long or broken does not change the status that there was.
        with contextlib.suppress(Exception):
            await treq.collect(response, self._drop)

    def _drop(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > _BODY_BYTES:
            self._connections.abort()

    def _is_late(self) -> None:
        self._late = True
        self._work.cancel()

    def _canceled(self, _result: Deferred[Sent]) -> None:
        self._work.cancel()

    def _done(self, outcome: Failure | None) -> None:
        """The work has ended, in whatever way."""
        if self._timer.active():
            self._timer.cancel()
        self._connections.abort()
        if self._response is not None:
            status = self._response.code
            now = self._at + self._reactor.seconds() - self._started
            values = self._response.headers.getRawHeaders(b"retry-after", ())
            sent = Sent(
                HookAttempt(at=self._at, status=status), retry_after_of(status, values, now)
            )
        else:
            sent = Sent(HookAttempt(at=self._at, error=self._words(outcome)))
        if not self._result.called:
            self._result.callback(sent)

    def _words(self, outcome: Failure | None) -> str:
        """Why there was no response, for people."""
        if self._late:
            return f"there was no response within {self._timeout:g} seconds"
        if self._connections.overflowed:
            return "the head of the response was too long"
        cause = _cause(outcome.value if outcome is not None else None)
        if self._connections.refused and isinstance(cause, (AddressRefused, error.DNSLookupError)):
            return (
                "the host has an address to which webhooks are not sent "
                f"({self._connections.refused})"
            )
        if isinstance(cause, error.TimeoutError):
            return f"there was no connection within {self._connect_timeout:g} seconds"
        for kind, words in _WORDS:
            if isinstance(cause, kind):
                return words
        if type(cause).__module__.split(".")[0] in ("OpenSSL", "service_identity"):
            return _tls_words(cause)
        if isinstance(cause, NotImplementedError):
            _log.error("Webhooks for https need TLS: install deferpost[tls].")
            return "the server that sends webhooks has no TLS"
        if outcome is not None and outcome.check(ResponseFailed):
            return "the response was not understood"
        _log.failure("A webhook could not be sent.", outcome or Failure(AssertionError()))
        return "the request could not be sent; the log of the server says why"


#: Why there was no response, by what was raised; the first that fits.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (error.DNSLookupError, "the name of the host was not found"),
    (error.ConnectionRefusedError, "the connection was refused"),
    (error.NoRouteError, "there is no way to the host"),
    (error.ConnectError, "there was no connection to the host"),
    (error.ConnectionLost, "the connection was lost before there was a response"),
    (error.ConnectionDone, "the connection was closed before there was a response"),
    (CancelledError, "the attempt was given up"),
)


def _cause(found: BaseException | None) -> BaseException | None:
    """What lies below an exception of the HTTP client, which has a list of reasons."""
    while isinstance(found, (ResponseFailed, RequestTransmissionFailed, RequestGenerationFailed)):
        reasons = [reason.value for reason in found.reasons]
        # The first is what happened, and what follows is what that has led to.
        found = reasons[0] if reasons else None
    return found


def _tls_words(cause: BaseException | None) -> str:
    if type(cause).__module__.startswith("service_identity"):
        return "the certificate of the host is for another name"
    if "certificate verify failed" in str(cause):
        return "the certificate of the host is not trusted"
    return "there was no TLS connection with the host"


@implementer(IAgent)
class _Plain:
    """An agent whose responses are what they are.

    The client above it would unpack what is compressed, of which a little can be a lot, and read
    cookies.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"accept-encoding", [b"identity"])
        requested = self._agent.request(method, uri, headers, bodyProducer)
        return requested.addCallback(self._plain)

    def _plain(self, response: IResponse) -> IResponse:
        for name in (b"content-encoding", b"set-cookie"):
            response.headers.removeHeader(name)
        return response


@implementer(IBodyProducer)
class _Bytes:
    """A body that is there as a whole."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing left to hold back."""

    def resumeProducing(self) -> None:
        """There is nothing left to go on with."""

    def stopProducing(self) -> None:
        """There is nothing left to stop."""
