"""Connections that go to allowed addresses only, and take no more than a bound.

A name that is looked up twice may be two addresses: one that is looked at, and another that is
connected to.  So what is looked at is what a name resolves to for the connection itself, and then
the peer of the connection, before a byte is written to it.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from deferpost.webhooks.addresses import Refusal, refusal

__all__ = ["AddressRefused", "Connections"]

#: Addresses of a name that are tried.
_MOST_ADDRESSES = 8


class AddressRefused(Exception):
    """A connection would go, or has gone, to an address that is not allowed.

    :param kind: what that address is.
    """

    def __init__(self, kind: Refusal) -> None:
        super().__init__(kind)
        self.kind = kind


@implementer(IAgentEndpointFactory)
class Connections:
    """The connections of one attempt.

    :param reactor: the reactor.
    :param resolver: looks names up.
    :param policy: says what certificates are trusted.
    :param allow_private: whether loopback, private and shared addresses are allowed.
    :param connect_timeout: seconds that connecting to one address may take.
    :param most_bytes: that are read from one connection, those of TLS included; then it is cut.

    :ivar refused: what an address was that was refused; None where none was.
    :ivar overflowed: whether a connection was cut for all that it brought.
    """

    def __init__(
        self,
        reactor: Any,
        resolver: IHostnameResolver,
        policy: IPolicyForHTTPS,
        *,
        allow_private: bool,
        connect_timeout: float,
        most_bytes: int,
    ) -> None:
        self._reactor = _CheckedReactor(reactor, _CheckedResolver(resolver, self._allows))
        self._policy = policy
        self._allow_private = allow_private
        self._connect_timeout = connect_timeout
        self._most_bytes = most_bytes
        self._open: set[_Counted] = set()
        self.refused: Refusal | None = None
        self.overflowed = False

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """Where a request for a URI goes (:class:`twisted.web.iweb.IAgentEndpointFactory`)."""
        by_name = HostnameEndpoint(
            self._reactor, uri.host.decode("ascii"), uri.port, self._connect_timeout
        )
        checked = _CheckedEndpoint(by_name, self)
        if uri.scheme == b"http":
            return checked
        # The check is below TLS, whose first bytes would be bytes, too.
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), checked)

    def abort(self) -> None:
        """Cut what is open."""
        for each in list(self._open):
            each.abortConnection()

    def _allows(self, address: object) -> bool:
        """Whether an address may be connected to; if not, that is remembered."""
        kind: Refusal | None = "not an IP address"
        if isinstance(address, (IPv4Address, IPv6Address)):
            kind = refusal(address.host, allow_private=self._allow_private)
        if kind is not None:
            self.refused = kind
        return kind is None

    # For the protocols and factories of this module.

    def check_peer(self, address: object) -> None:
        """Refuse the peer of a connection that was just made.

        :raises AddressRefused: it is not allowed.
        """
        if not self._allows(address):
            raise AddressRefused(self.refused or "not an IP address")

    def opened(self, connection: _Counted) -> None:
        """A connection is made."""
        self._open.add(connection)

    def closed(self, connection: _Counted) -> None:
        """A connection is lost."""
        self._open.discard(connection)

    def is_too_much(self, count: int) -> bool:
        """Whether a connection has brought more bytes than may be; if so, that is remembered."""
        self.overflowed = self.overflowed or count > self._most_bytes
        return count > self._most_bytes


@implementer(IReactorPluggableNameResolver)
class _CheckedReactor:
    """As much of a reactor as an endpoint for names needs, with a resolver of its own."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self.nameResolver = resolver
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Use another resolver, and return the one before."""
        before, self.nameResolver = self.nameResolver, resolver
        return before


@implementer(IHostnameResolver)
class _CheckedResolver:
    """Passes on the addresses that are allowed."""

    def __init__(self, resolver: IHostnameResolver, allows: Any) -> None:
        self._resolver = resolver
        self._allows = allows

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._resolver.resolveHostName(
            _CheckedReceiver(resolutionReceiver, self._allows),
            hostName,
            portNumber,
            addressTypes,
            transportSemantics,
        )


@implementer(IResolutionReceiver)
class _CheckedReceiver:
    def __init__(self, receiver: IResolutionReceiver, allows: Any) -> None:
        self._receiver = receiver
        self._allows = allows
        self._left = _MOST_ADDRESSES

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._left and self._allows(address):
            self._left -= 1
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IStreamClientEndpoint)
class _CheckedEndpoint:
    """An endpoint whose connections are checked and counted."""

    def __init__(self, endpoint: IStreamClientEndpoint, connections: Connections) -> None:
        self._endpoint = endpoint
        self._connections = connections

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _CheckedFactory(protocolFactory, self._connections)
        )
        return connecting.addCallback(lambda counted: counted.wrappedProtocol)


class _CheckedFactory(WrappingFactory):
    noisy = False

    def __init__(self, factory: Any, connections: Connections) -> None:
        super().__init__(factory)
        self._connections = connections

    def buildProtocol(self, addr: Any) -> Any:
        """Called with the address of the peer, when it is connected.

        What this raises is what the endpoint fails with, and the connection is closed.
        """
        self._connections.check_peer(addr)
        return _Counted(self, self.wrappedFactory.buildProtocol(addr), self._connections)


class _Counted(ProtocolWrapper):
    """Counts what a connection brings."""

    transport: Any

    def __init__(self, factory: Any, wrapped: Any, connections: Connections) -> None:
        super().__init__(factory, wrapped)
        self._connections = connections
        self._count = 0

    def abortConnection(self) -> None:
        """Cut it at once, whatever is still to be written."""
        self.transport.abortConnection()

    def makeConnection(self, transport: Any) -> None:
        self._connections.opened(self)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._count += len(data)
        if self._connections.is_too_much(self._count):
            self.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connections.closed(self)
        super().connectionLost(reason)
