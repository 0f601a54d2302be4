"""Notifications that are sent to receivers on the loopback."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver, IResolutionReceiver
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import alsoProvides, implementer

from deferpost.records import HookAttempt
from deferpost.webhooks.delivery import HookSender, Sent
from deferpost.webhooks.signing import HookSecret, verify
from tests.waiting import until
from tests.webhooks.receivers import REACTOR, Authority, Names, Receiver, response

SECRETS = [
    HookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    HookSecret("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
]
HOST = "hooks.example.com"
PUBLIC = "8.8.8.8"  # nothing is ever sent there
BODY = b'{"id": "a", "state": "succeeded"}'
AT = 1_700_000_000.5

Listen = Callable[..., Receiver]


def sender(reactor: Any = REACTOR, **options: Any) -> HookSender:
    """A sender that finds its host on the loopback."""
    settings: dict[str, Any] = {
        "allow_private": True,
        "timeout": 20.0,
        "resolver": Names({HOST: [["127.0.0.1"]]}),
        **options,
    }
    return HookSender(reactor, SECRETS, **settings)


@pytest_twisted.async_yield_fixture
async def listen() -> AsyncIterator[Listen]:
    """Makes receivers, which are stopped behind the test."""
    receivers: list[Receiver] = []

    def start(*arguments: Any, **options: Any) -> Receiver:
        receivers.append(Receiver(*arguments, **options))
        return receivers[-1]

    yield start
    for receiver in receivers:
        await receiver.stop()
        await until(lambda r=receiver: r.lost == r.connected, "no connection that is left")  # type: ignore[misc]


def _send(to: HookSender, url: str) -> Deferred[Sent]:
    return to.send(url, "job_1_a", BODY, AT)


@pytest_twisted.ensureDeferred
async def test_delivered(listen: Listen) -> None:
    """A receiver gets one POST with the body as it is, and finds the signature right."""
    receiver = listen(response())
    assert await _send(sender(), receiver.url()) == Sent(HookAttempt(at=AT, status=200))
    [(head, body)] = receiver.requests
    first, *lines = head.decode().split("\r\n")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert first == "POST /done?a=b%20c HTTP/1.1"
    assert body == BODY
    assert headers["Host"] == f"{HOST}:{receiver.number}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("deferpost/")
    assert headers["Accept-Encoding"] == "identity"
    for secret in SECRETS:
        assert verify([secret], headers, body, AT) == "job_1_a"
    assert receiver.connected == 1


@pytest.mark.parametrize("status", [201, 204, 400, 404, 410, 500])
@pytest_twisted.ensureDeferred
async def test_statuses(listen: Listen, status: int) -> None:
    """Whatever status there is, it is the outcome."""
    receiver = listen(response(f"{status} Words", body=b"" if status == 204 else b"words"))
    assert await _send(sender(), receiver.url()) == Sent(HookAttempt(at=AT, status=status))


@pytest.mark.parametrize(("status", "pause"), [(503, 120.0), (429, 120.0), (500, None)])
@pytest_twisted.ensureDeferred
async def test_retry_after(listen: Listen, status: int, pause: float | None) -> None:
    """A receiver that is overloaded may ask for a pause."""
    receiver = listen(response(f"{status} Busy", "Retry-After: 120"))
    assert await _send(sender(), receiver.url()) == Sent(HookAttempt(at=AT, status=status), pause)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest_twisted.ensureDeferred
async def test_redirects_are_not_followed(listen: Listen, status: int) -> None:
    """A redirect is the outcome, and nobody is connected to for it."""
    other = listen(response())
    receiver = listen(response(f"{status} There", f"Location: {other.url()}"))
    assert await _send(sender(), receiver.url()) == Sent(HookAttempt(at=AT, status=status))
    assert other.connected == 0


@pytest_twisted.ensureDeferred
async def test_no_cookies_and_no_unpacking(listen: Listen) -> None:
    """What a receiver sends beside its status is not looked into."""
    receiver = listen(
        response("200 OK", "Content-Encoding: gzip", "Set-Cookie: a=b", body=b"not packed")
    )
    to = sender()
    for _ in range(2):
        assert (await _send(to, receiver.url())).attempt.status == 200
    assert all(b"cookie" not in head.lower() for head, _ in receiver.requests)


@pytest_twisted.ensureDeferred
async def test_interim_responses(listen: Listen) -> None:
    """A response that comes before the response is no response."""
    receiver = listen(b"HTTP/1.1 100 Continue\r\n\r\n" + response("202 Accepted"))
    assert (await _send(sender(), receiver.url())).attempt.status == 202


# What the network does.


async def _words(to: HookSender, url: str) -> str:
    sent = await _send(to, url)
    assert (sent.attempt.at, sent.attempt.status, sent.retry_after) == (AT, None, None)
    assert sent.attempt.error is not None
    return sent.attempt.error


@pytest_twisted.ensureDeferred
async def test_timeout(listen: Listen) -> None:
    """A receiver that does not answer is left in time, and its connection is closed."""
    receiver = listen(lambda transport: None)
    words = await _words(sender(timeout=0.3), receiver.url())
    assert words == "there was no response within 0.3 seconds"
    assert len(receiver.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_response_that_comes_drop_by_drop(listen: Listen) -> None:
    """A receiver that never comes to its status is left in time, however busy it is."""

    def drip(transport: Any) -> None:
        if transport.connected:
            transport.write(b"x")
            REACTOR.callLater(0.02, drip, transport)

    receiver = listen(drip)
    words = await _words(sender(timeout=0.3), receiver.url())
    assert words == "there was no response within 0.3 seconds"


@pytest_twisted.ensureDeferred
async def test_refused(listen: Listen) -> None:
    """Where nobody listens, that is said."""
    receiver = listen(b"")
    await receiver.stop()
    assert await _words(sender(), receiver.url()) == "the connection was refused"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the response was not understood"),
        (response("-200 OK"), "the response was not understood"),
        (response("2000 OK"), "the response was not understood"),
        (b"HTTP/1.1 two OK\r\n\r\n", "the response was not understood"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
            "the response was not understood",
        ),
        (
            lambda transport: transport.loseConnection(),
            "the connection was closed before there was a response",
        ),
        (
            lambda transport: transport.abortConnection(),
            "the connection was lost before there was a response",
        ),
        (
            lambda transport: (transport.write(b"HTTP/1.1 2"), transport.loseConnection()),
            "the connection was closed before there was a response",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_response(listen: Listen, answer: Any, words: str) -> None:
    """A receiver that speaks no HTTP, or leaves, has not responded."""
    assert await _words(sender(), listen(answer).url()) == words


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_found() -> None:
    """A name that is not known is said to be so."""
    words = await _words(sender(resolver=Names({})), "http://hooks.example.com/")
    assert words == "the name of the host was not found"


class Redirecting:
    """A reactor whose connections go elsewhere than to where they were to go."""

    def __init__(self, host: str) -> None:
        self._host = host
        alsoProvides(self, IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(REACTOR, name)

    def connectTCP(self, host: str, *arguments: Any, **options: Any) -> Any:
        return REACTOR.connectTCP(self._host, *arguments, **options)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (error.TimeoutError(), "there was no connection in time"),
        (error.TCPTimedOutError(), "there was no connection in time"),
        (error.NoRouteError(), "there is no way to the host"),
        (error.ConnectError(), "there was no connection to the host"),
    ],
)
def test_no_connection(failure: Exception, words: str) -> None:
    """Why there was no connection is said in words without the system's."""
    clock = MemoryReactorClock()
    sending = _send(sender(clock), "http://hooks.example.com/")
    [(host, port, factory, timeout, _)] = clock.tcpClients
    assert (host, port, timeout) == ("127.0.0.1", 80, 10.0)
    factory.clientConnectionFailed(clock.connectors[0], Failure(failure))
    clock.advance(0.3)
    assert _result(sending).attempt == HookAttempt(at=AT, error=words)


def _result(deferred: Deferred[Sent]) -> Sent:
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert len(found) == 1
    assert isinstance(found[0], Sent)
    return found[0]


def test_connecting_takes_too_long() -> None:
    """Connecting to one address after the other has an end."""
    clock = MemoryReactorClock()
    names = Names({HOST: [[f"10.0.0.{number}" for number in range(100)]]})
    sending = _send(sender(clock, resolver=names), "http://hooks.example.com/")
    for _ in range(190):
        clock.advance(0.1)
    assert not sending.called
    assert len(clock.tcpClients) == 8
    clock.advance(1.0)
    assert _result(sending).attempt.error == "there was no response within 20 seconds"
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("url", "logged"),
    [
        ("http://hooks.example.com/", "secret of the inside"),
        ("ftp://hooks.example.com/", "webhooks are not sent by b'ftp'"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_expected_is_logged(url: str, logged: str) -> None:
    """An error of our own is no news for clients, but for the log."""

    class Broken(Redirecting):
        def connectTCP(self, host: str, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("secret of the inside")

    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    try:
        words = await _words(sender(Broken("")), url)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert words == "the request could not be sent; the log of the server says why"
    failures = [event["log_failure"].value for event in events if "log_failure" in event]
    assert [str(failure) for failure in failures] == [logged]


# Addresses.


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["127.0.0.1"], "loopback"),
        (["::ffff:127.0.0.1"], "loopback"),
        (["10.0.0.1", "127.0.0.1"], "loopback"),
        (["169.254.169.254"], "link-local"),
        (["0.0.0.0"], "unspecified"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_private_addresses(listen: Listen, addresses: list[str], kind: str) -> None:
    """A name that stands for addresses that are not public is not connected to."""
    receiver = listen(response())
    to = sender(allow_private=False, resolver=Names({HOST: [addresses]}))
    words = await _words(to, receiver.url())
    assert words == f"the host has an address to which webhooks are not sent ({kind})"
    assert receiver.connected == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]"])
@pytest_twisted.ensureDeferred
async def test_private_addresses_in_urls(listen: Listen, host: str) -> None:
    """An address in the URL is checked as a name is, with the resolver of the reactor, too."""
    receiver = listen(response())
    words = await _words(sender(allow_private=False, resolver=None), receiver.url(host))
    assert words == "the host has an address to which webhooks are not sent (loopback)"
    assert receiver.connected == 0


@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_private_addresses_that_are_allowed(listen: Listen, interface: str) -> None:
    """Where private addresses are allowed, they are connected to, of both kinds."""
    receiver = listen(response(), interface=interface)
    host = f"[{interface}]" if ":" in interface else interface
    assert (await _send(sender(resolver=None), receiver.url(host))).attempt.status == 200
    assert f"Host: {host}:{receiver.number}".encode() in receiver.requests[0][0].split(b"\r\n")


def test_addresses_of_other_kinds() -> None:
    """What a resolver finds that is no IP address is not connected to."""

    class Local(Names):
        def resolveHostName(
            self, resolutionReceiver: IResolutionReceiver, *arguments: Any, **options: Any
        ) -> Any:
            resolutionReceiver.addressResolved(UNIXAddress("/socket"))
            return super().resolveHostName(resolutionReceiver, *arguments, **options)

    clock = MemoryReactorClock()
    sending = _send(sender(clock, resolver=Local({})), "http://hooks.example.com/")
    words = "the host has an address to which webhooks are not sent (not an IP address)"
    assert _result(sending).attempt.error == words
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_link_local_is_never_allowed() -> None:
    """The addresses where clouds hand out credentials are not for webhooks, whoever asks."""
    to = sender(resolver=Names({HOST: [["169.254.169.254"]]}))
    assert "(link-local)" in await _words(to, "http://hooks.example.com/")


def test_only_what_is_allowed_is_connected_to() -> None:
    """Of several addresses, only those that are allowed are tried."""
    clock = MemoryReactorClock()
    names = Names({HOST: [["10.0.0.1", PUBLIC, "127.0.0.1", "2606:4700::1111", "fd00::1"]]})
    sending = _send(sender(clock, allow_private=False, resolver=names), "http://hooks.example.com/")
    clock.pump([0.3] * 10)
    assert [client[0] for client in clock.tcpClients] == [PUBLIC, "2606:4700::1111"]
    sending.cancel()
    sending.addErrback(lambda failure: failure.trap(CancelledError))


def test_rebinding() -> None:
    """A name is looked up once for each attempt: what was looked at is what is connected to."""
    clock = MemoryReactorClock()
    names = Names({HOST: [[PUBLIC], ["127.0.0.1"]]})
    to = sender(clock, allow_private=False, resolver=names)
    first = _send(to, "http://hooks.example.com/")
    assert names.asked == [HOST]
    assert [client[0] for client in clock.tcpClients] == [PUBLIC]
    second = _send(to, "http://hooks.example.com/")
    assert names.asked == [HOST, HOST]
    assert len(clock.tcpClients) == 1
    assert "(loopback)" in str(_result(second).attempt.error)
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest_twisted.ensureDeferred
async def test_the_peer_counts(listen: Listen, scheme: str) -> None:
    """A connection that has come out somewhere else is closed before a byte is written."""
    receiver = listen(response())
    to = sender(Redirecting("127.0.0.1"), allow_private=False, resolver=Names({HOST: [[PUBLIC]]}))
    words = await _words(to, receiver.url(scheme=scheme))
    assert words == "the host has an address to which webhooks are not sent (loopback)"
    await until(lambda: receiver.lost == 1, "the connection is closed")
    assert receiver.received == b""


# Bodies.


@pytest.mark.parametrize(
    "fields", ["Content-Length: 1000", "Transfer-Encoding: chunked", "Connection: close"]
)
@pytest_twisted.ensureDeferred
async def test_a_slow_body(listen: Listen, fields: str) -> None:
    """A body that does not end is left in time, and changes nothing of the status."""
    receiver = listen(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n1\r\nx".encode())
    started = time.monotonic()
    sent = await _send(sender(timeout=0.3), receiver.url())
    assert sent.attempt == HookAttempt(at=AT, status=200)
    assert time.monotonic() - started < 5


def test_a_slow_body_does_not_take_all_the_time() -> None:
    """Where there is a status, the body is waited for some seconds only."""
    clock = MemoryReactorClock()
    sending = _send(sender(clock), "http://hooks.example.com/")
    factory: Any = clock.tcpClients[0][2]
    protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80))
    transport = StringTransport()
    protocol.makeConnection(transport)
    clock.advance(2.0)
    protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
    clock.advance(4.9)
    assert not sending.called
    clock.advance(0.2)
    assert _result(sending).attempt.status == 200
    assert transport.disconnecting or transport.disconnected
    assert clock.getDelayedCalls() == []


def test_a_body_that_is_longer_than_what_is_read() -> None:
    """A connection is closed when 64 KiB of the body have come, and not before."""
    clock = MemoryReactorClock()
    sending = _send(sender(clock), "http://hooks.example.com/")
    factory: Any = clock.tcpClients[0][2]
    protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80))
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    protocol.dataReceived(b"x" * 65536)
    assert not transport.disconnected
    protocol.dataReceived(b"x")
    assert transport.disconnected
    protocol.connectionLost(Failure(error.ConnectionAborted()))
    assert _result(sending).attempt.status == 200


class Flood:
    """Sends without an end, and counts."""

    def __init__(self, start: bytes, piece: bytes) -> None:
        self._start = start
        self._piece = piece
        self.written = 0
        self._transport: Any = None

    def __call__(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._start)
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self._transport.write(self._piece)
        self.written += len(self._piece)

    def stopProducing(self) -> None:
        """The connection is lost."""


@pytest.mark.parametrize(
    "fields", ["Content-Length: 99999999999", "Transfer-Encoding: chunked", "Connection: close"]
)
@pytest_twisted.ensureDeferred
async def test_a_huge_body(listen: Listen, fields: str) -> None:
    """Of a body, a bounded part is read."""
    flood = Flood(
        f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode(), b"400\r\n" + b"x" * 1024 + b"\r\n"
    )
    receiver = listen(flood)
    sent = await _send(sender(), receiver.url())
    assert sent.attempt == HookAttempt(at=AT, status=200)
    await until(lambda: receiver.lost == 1, "the connection is closed")
    assert flood.written < 16 * 1024 * 1024  # what fits into the buffers of two sockets


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 10_000 + b"\r\n\r\n"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_huge_head(listen: Listen, start: bytes, piece: bytes) -> None:
    """A head that does not end is cut."""
    words = await _words(sender(), listen(Flood(start, piece)).url())
    assert words == "the head of the response was too long"


# TLS.


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One that makes certificates."""
    return Authority()


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that the system trusts."""
    (tmp_path / "trusted.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    return authority


@pytest_twisted.ensureDeferred
async def test_a_trusted_certificate(listen: Listen, trusted: Authority) -> None:
    """A receiver with a certificate that is trusted, and is for its name, gets what is sent."""
    receiver = listen(response(body=b"words"), trusted.server(HOST))
    to = sender()
    for _ in range(2):
        sent = await _send(to, receiver.url(scheme="https"))
        assert sent == Sent(HookAttempt(at=AT, status=200))
    assert [body for _, body in receiver.requests] == [BODY, BODY]


@pytest_twisted.ensureDeferred
async def test_an_untrusted_certificate(listen: Listen, authority: Authority) -> None:
    """By default what the system trusts is trusted, and nobody else gets anything."""
    receiver = listen(response(), authority.server(HOST))
    words = await _words(sender(), receiver.url(scheme="https"))
    assert words == "the certificate of the host is not trusted"
    assert receiver.received == b""


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_name(listen: Listen, trusted: Authority) -> None:
    """A certificate that is trusted for another name is not enough."""
    receiver = listen(response(), trusted.server("other.example.com"))
    to = sender()
    words = await _words(to, receiver.url(scheme="https"))
    assert words == "the certificate of the host is for another name"
    assert receiver.received == b""


class _Greeting(Protocol):
    """One who speaks first, and not TLS."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"220 hello\r\n")
        self.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_no_tls(listen: Listen) -> None:
    """A receiver without TLS has no connection with TLS."""
    receiver = listen(b"")
    receiver.buildProtocol = lambda addr: _Greeting()  # type: ignore[method-assign]
    words = await _words(sender(), receiver.url(scheme="https"))
    assert words == "there was no TLS connection with the host"


@pytest_twisted.ensureDeferred
async def test_a_huge_body_by_tls(listen: Listen, trusted: Authority) -> None:
    """Of a body that comes by TLS, a bounded part is read, too, and a silent one is left."""
    flood = Flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1024)
    receiver = listen(flood, trusted.server(HOST))
    to = sender(timeout=0.5)
    assert (await _send(to, receiver.url(scheme="https"))).attempt.status == 200
    await until(lambda: receiver.lost == 1, "the connection is closed")
    silent = listen(lambda transport: None, trusted.server(HOST))
    words = await _words(to, silent.url(scheme="https"))
    assert words == "there was no response within 0.5 seconds"
    await until(lambda: silent.lost == 1, "the connection is closed")


@pytest_twisted.ensureDeferred
async def test_a_server_without_tls() -> None:
    """Where TLS is not installed, that is said to both sides."""

    @implementer(IPolicyForHTTPS)
    class Missing:
        def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
            raise NotImplementedError

    words = await _words(sender(policy=Missing()), "https://hooks.example.com/")
    assert words == "the server that sends webhooks has no TLS"


# Cancellation.


@pytest_twisted.ensureDeferred
async def test_canceled_while_waiting(listen: Listen) -> None:
    """An attempt that is cancelled closes its connection, and has no outcome."""
    receiver = listen(lambda transport: None)
    sending = _send(sender(), receiver.url())
    await until(lambda: receiver.requests, "the request")
    sending.cancel()
    with pytest.raises(CancelledError):
        await sending
    await until(lambda: receiver.lost == 1, "the connection is closed")


@pytest_twisted.ensureDeferred
async def test_canceled_in_the_body(listen: Listen) -> None:
    """An attempt that is cancelled when there is a status has none."""
    receiver = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
    sending = _send(sender(), receiver.url())
    await until(lambda: receiver.requests, "the request")
    sending.cancel()
    with pytest.raises(CancelledError):
        await sending
    await until(lambda: receiver.lost == 1, "the connection is closed")


def test_canceled_while_connecting() -> None:
    """An attempt that is cancelled before there is a connection makes none."""
    clock = MemoryReactorClock()
    sending = _send(sender(clock), "http://hooks.example.com/")
    [connector] = clock.connectors
    sending.cancel()
    failures: list[Failure] = []
    sending.addErrback(failures.append)
    assert [failure.type for failure in failures] == [CancelledError]
    assert connector.stoppedConnecting
    assert clock.getDelayedCalls() == []


def test_a_sender_needs_a_secret() -> None:
    """Nothing is sent that is not signed."""
    with pytest.raises(ValueError, match="must be a secret"):
        HookSender(REACTOR, [])


def test_an_id_that_cannot_be_sent() -> None:
    """An id that could pass for another is refused before anything is done."""
    clock = MemoryReactorClock()
    with pytest.raises(ValueError, match="not the id"):
        sender(clock).send("http://hooks.example.com/", "a.b", BODY, AT)
    assert clock.getDelayedCalls() == []
