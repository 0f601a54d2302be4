"""What webhooks are sent to in tests: receivers on the loopback, names for them, certificates."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLContextFactory,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Authority", "Names", "Receiver", "response"]

REACTOR: Any = reactor


def response(status: str = "200 OK", *fields: str, body: bytes = b"") -> bytes:
    """A response as it is sent."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


class Receiver(Factory):
    """Listens on the loopback, and answers each request in the same way.

    :param answer: what to send when a request is there; or what to call with the transport then.
    :param secure: for https.
    :param interface: where to listen.
    :param port: on which port; 0 for any that is free.

    :ivar connected: how many connections there were.
    :ivar lost: how many of them are closed.
    :ivar requests: the requests that came as a whole: head and body.
    """

    noisy = False

    def __init__(
        self,
        answer: bytes | Callable[[Any], object],
        secure: Any = None,
        interface: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.answer = answer
        self.connected = 0
        self.lost = 0
        self.received = b""
        self.requests: list[tuple[bytes, bytes]] = []
        if secure is None:
            self._port = REACTOR.listenTCP(port, self, interface=interface)
        else:
            self._port = REACTOR.listenSSL(port, self, secure, interface=interface)
        self.number: int = self._port.getHost().port

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Receiving(self)

    def url(self, host: str = "hooks.example.com", scheme: str = "http") -> str:
        """A URL of it."""
        return f"{scheme}://{host}:{self.number}/done?a=b%20c"

    async def stop(self) -> None:
        """Listen no more."""
        await maybeDeferred(self._port.stopListening)


class _Receiving(Protocol):
    transport: Any

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""

    def connectionMade(self) -> None:
        self._receiver.connected += 1

    def dataReceived(self, data: bytes) -> None:
        self._receiver.received += data
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        lengths = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        if separator and len(body) == sum(lengths):
            self._buffer = b""
            self._receiver.requests.append((head, body))
            if isinstance(self._receiver.answer, bytes):
                self.transport.write(self._receiver.answer)
            else:
                self._receiver.answer(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._receiver.lost += 1


@implementer(IHostnameResolver)
class Names:
    """Knows names.

    :param addresses: by name, what each look-up finds, one after the other; the last again and
        again.

    :ivar asked: the names that were looked up.
    """

    def __init__(self, addresses: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._addresses = {name: list(found) for name, found in addresses.items()}
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append(hostName)
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        known = self._addresses.get(hostName, [[]])
        for address in known.pop(0) if len(known) > 1 else known[0]:
            kind = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class Authority:
    """Makes certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority")])
        self._certificate = self._sign(
            self._name, self._key, x509.BasicConstraints(ca=True, path_length=None)
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate, by which it is trusted."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name: str) -> Any:
        """The options of a server of a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")]),
            key,
            x509.SubjectAlternativeName([x509.DNSName(name)]),
        )
        # The classes of Twisted for this use classes of OpenSSL that are to go.
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        return _Server(context)

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


@implementer(IOpenSSLContextFactory)
class _Server:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context
