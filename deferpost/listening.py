"""Where the daemon listens: endpoints of descriptions, and ports that are opened, kept and closed.

It decides which ports stay when the descriptions change, and what is said of one that cannot be
had.  It never looks at what a connection sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port as TCPPort
from twisted.internet.unix import Port as UnixPort
from zope.interface import implementer

from deferpost.errors import ConfigurationError

__all__ = ["CannotListen", "Endpoint", "Entrance", "Ports", "endpoints_of"]

#: A description, and the endpoint that it describes.
Endpoint = tuple[str, Any]


class CannotListen(CannotListenError, SystemExit):
    """A port cannot be had: one line that says which and why.

    twistd cleans up for any :class:`Exception` and lets it pass; as a :class:`SystemExit` it ends
    the program with that line and status 1, without a traceback.
    """

    def __init__(self, message: str) -> None:
        SystemExit.__init__(self, f"deferpost: {message}")

    def __str__(self) -> str:
        return str(self.code)


@implementer(IProtocolNegotiationFactory)
class Entrance(Factory):
    """The factory of every port: gives each new connection to the site that is served now.

    :param site: the site.
    """

    noisy = False

    def __init__(self, site: Any) -> None:
        self.site = site

    def logPrefix(self) -> str:
        """What the log calls a port of it."""
        return type(self.site).__name__

    def startFactory(self) -> None:
        """The first port is open."""
        self.site.doStart()

    def stopFactory(self) -> None:
        """The last port is closed."""
        self.site.doStop()

    def lead_to(self, site: Any) -> None:
        """Give connections to another site from now on."""
        if site is not self.site:
            before, self.site = self.site, site
            if self.numPorts:
                site.doStart()
                before.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        """What talks to a new connection."""
        return self.site.buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """For TLS: what the site speaks."""
        protocols: list[bytes] = self.site.acceptableProtocols()
        return protocols


class _Context:
    """Stands for a reactor that is asked to listen with TLS, and keeps with which certificate."""

    context: Any = None

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> None:
        """Listen on nothing."""
        self.context = contextFactory


class Ports:
    """The ports that are open, by their descriptions.  For the reactor thread.

    :param entrance: the factory of their connections.
    """

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._open: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(self._open)

    def open(self, endpoints: Iterable[Endpoint]) -> None:
        """Open a port for each.

        :raises CannotListen: one cannot be had; those before it are open.
        """
        for text, endpoint in endpoints:
            opened: list[Any] = []
            problem: list[Any] = []
            endpoint.listen(self._entrance).addCallbacks(opened.append, problem.append)
            if problem:
                error = problem[0].value
                reason = getattr(error, "socketError", error)
                reason = getattr(reason, "strerror", None) or reason
                raise CannotListen(f"cannot listen on {text}: {reason}")
            if text.startswith("systemd:"):
                for port in opened:
                    _leave_file(port)
            self._open += [(text, port) for port in opened]

    async def change(self, endpoints: Sequence[Endpoint]) -> Ports:
        """Open what is described and is not open yet; what is open stays as it is.

        :returns: the ports that are not described any more, to be closed.
        :raises CannotListen: one cannot be had; then everything is as it was before.
        """
        rest = list(self._open)
        kept: list[tuple[str, Any]] = []
        new: list[Endpoint] = []
        for text, endpoint in endpoints:
            found = next((item for item in rest if item[0] == text), None)
            if found is not None:
                rest.remove(found)
                kept.append(found)
            elif text.startswith("systemd:"):
                # Its number may be that of another descriptor by now.
                raise CannotListen(f"{text}: a socket of systemd can be taken only at the start")
            else:
                new.append((text, endpoint))
        opened, unwanted = Ports(self._entrance), Ports(self._entrance)
        unwanted._open = rest
        try:
            opened.open(new)
        except CannotListen:
            await opened.close()
            raise
        for text, port in kept:
            if text.startswith("ssl:"):
                _renew_certificate(text, port, self._entrance)
        self._open = kept + opened._open
        return unwanted

    def close(self) -> Deferred[Any]:
        """Close all; connections that were accepted stay.  The Deferred fires when it is done."""
        ports, self._open = self._open, []
        return gatherResults([_stop_listening(port) for _, port in ports])


def _leave_file(port: Any) -> None:
    """Have a port that is closed leave the file of its Unix socket, which is systemd's.

    Twisted's would remove it, and clients would not find the socket when the daemon restarts.
    """
    if isinstance(port, UnixPort):
        port.connectionLost = partial(TCPPort.connectionLost, port)  # type: ignore[method-assign]


def _renew_certificate(text: str, port: Any, entrance: Entrance) -> None:
    """Have new connections to a port use the certificate that is in the files now."""
    from twisted.protocols.tls import TLSMemoryBIOFactory

    recorder = _Context()
    serverFromString(recorder, text).listen(entrance)
    before = port.factory
    port.factory = TLSMemoryBIOFactory(recorder.context, False, entrance)
    port.factory.doStart()
    before.doStop()


def endpoints_of(reactor: Any, descriptions: Iterable[str]) -> list[Endpoint]:
    """The endpoints that are described, each with its description.

    :raises deferpost.errors.ConfigurationError: one makes no sense, or a file of it is not good.
    """
    endpoints, problems = [], []
    for text in descriptions:
        try:
            endpoints.append((text, serverFromString(reactor, text)))
        except Exception as error:  # of the parsers, and of the files that they read
            why = str(error) or type(error).__name__
            if isinstance(error, LookupError) and text.startswith("systemd:"):
                why = "systemd has handed over no such socket"
            problems.append(f"listen: {text!r} is not an endpoint: {why}")
    if problems:
        raise ConfigurationError(problems)
    return endpoints


def _stop_listening(port: Any) -> Deferred[None]:
    stopped = port.stopListening()
    return stopped if isinstance(stopped, Deferred) else succeed(None)
