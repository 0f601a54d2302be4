"""Which URLs a webhook may have.

Decides only.  An operator lists the hosts, since whoever is let in makes the daemon send requests
to them; without a list there is none.  A URL is read strictly, so that no two readers of it can
mean different hosts, and is given on in one form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from deferpost.errors import HTTPError

__all__ = ["LONGEST_URL", "HookHosts"]

#: Characters of a URL.
LONGEST_URL = 2048

_PORTS = {"https": 443, "http": 80}

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?P<fragment>(?:#.*)?)",
    re.IGNORECASE | re.DOTALL,
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_ENTRY = re.compile(r"(?:(?P<scheme>https?)://)?(?P<wild>\*\.)?(?P<authority>[^/?#*]+)", re.I)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
#: What RFC 3986 has in a path and a query; a percent sign has two digits behind it.
_REST = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
#: A last label that some readers take for a number, and so the name for an address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Letters that the two versions of IDNA read differently, and characters that nobody sees.
_DEVIATIONS = re.compile("[\u00df\u03c2\u200c\u200d]")


class _Entry(NamedTuple):
    """A host of the list, or all hosts below one."""

    scheme: str
    host: str
    port: int
    wild: bool

    def covers(self, scheme: str, host: str, port: int) -> bool:
        if (scheme, port) != (self.scheme, self.port):
            return False
        return host.endswith(f".{self.host}") if self.wild else host == self.host


class HookHosts:
    """The hosts to which webhooks may be sent.

    :param entries: names such as ``hooks.example.com``; ``*.example.com`` stands for all names
        below that one, of any depth; ``hooks.example.com:8443`` is for that port and not for the
        usual one.  An address may take the place of a name.  All of this is for https; what has
        ``http://`` before it is for http, which lets anybody on the way read what is sent.
    :raises ValueError: an entry is none of these; the sentence shows it.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._entries = frozenset(map(_entry, entries))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._entries)

    def url_of(self, values: Iterable[bytes]) -> str | None:
        """Read ``Webhook-URL``.

        :param values: of all the fields of that name.
        :returns: see :meth:`check`; None where there is no such field.
        :raises deferpost.errors.HTTPError: 400, see :meth:`check`; also where the field comes more
            than once, with different URLs.
        """
        texts = {value.decode("utf-8", "backslashreplace").strip(" \t") for value in values}
        if len(texts) > 1:
            raise _refused("comes more than once, with different URLs")
        return self.check(texts.pop()) if texts else None

    def check(self, url: str) -> str:
        """Judge a URL.

        :param url: as the client has written it.
        :returns: the same in the form in which it is used: scheme and host in lower case, the
            host as it is in the DNS, and no port where it is the usual one.
        :raises deferpost.errors.HTTPError: 400, and the sentence says why.
        """
        if not self._entries:
            raise _refused("cannot be used: no hosts for webhooks are configured here")
        if len(url) > LONGEST_URL:
            raise _refused(f"is longer than {LONGEST_URL} characters")
        parts = _URL.fullmatch(url)
        if parts is None:
            raise _refused("is not a URL such as https://hooks.example.com/done")
        scheme = parts["scheme"].lower()
        if scheme not in _PORTS:
            raise _refused("does not begin with https://")
        if "@" in parts["authority"]:
            raise _refused("has a user name or a password, which is not allowed")
        if parts["fragment"]:
            raise _refused("has a fragment, which is not allowed")
        try:
            host, port = _host_and_port(parts["authority"], _PORTS[scheme])
        except ValueError as error:
            raise _refused(f"has a host that cannot be used: {error}") from None
        if not _REST.fullmatch(parts["rest"]):
            raise _refused("has characters behind its host that have to be percent-encoded")
        if not any(entry.covers(scheme, host, port) for entry in self._entries):
            raise _refused("has a host, with its scheme and port, that is not allowed here")
        rest = parts["rest"] if parts["rest"].startswith("/") else f"/{parts['rest']}"
        return f"{scheme}://{host}{'' if port == _PORTS[scheme] else f':{port}'}{rest}"


def _entry(text: str) -> _Entry:
    parts = _ENTRY.fullmatch(text.strip())
    try:
        if parts is None or "@" in parts["authority"]:
            raise ValueError("it is not a host, with a port if need be")
        scheme = (parts["scheme"] or "https").lower()
        host, port = _host_and_port(parts["authority"], _PORTS[scheme])
        wild = parts["wild"] is not None
        if wild and (_is_address(host) or "." not in host):
            raise ValueError("*. is followed by a name of at least two parts")
    except ValueError as error:
        shown = msgspec.json.encode(text[:100]).decode()
        raise ValueError(
            f"{shown} is no host for webhooks, such as hooks.example.com, *.example.com or "
            f"hooks.example.com:8443: {error}"
        ) from None
    return _Entry(scheme, host, port, wild)


def _host_and_port(authority: str, usual: int) -> tuple[str, int]:
    """Read what stands between the slashes.

    :raises ValueError: it is not that, and the words say why.
    """
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError("it is neither a name nor an address, with a port if need be")
    digits = parts["port"]
    port = int(digits) if digits and len(digits) < 6 else 0 if digits else usual
    if not 1 <= port <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return _host(parts["host"]), port


def _host(text: str) -> str:
    """A name or an address in its one form."""
    if text.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1]).compressed}]"
        except ValueError:
            raise ValueError("what is in brackets is not an address") from None
    if len(text) > 253 + 1:
        raise ValueError("a name has at most 253 characters")
    if _DEVIATIONS.search(text):
        raise ValueError("a name with these letters is written as xn--")
    try:
        name = text.encode("idna").decode("ascii").lower() if text else ""
    except UnicodeError:
        raise ValueError("the name is malformed") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("the name is malformed")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValueError("an address has four numbers, in decimal") from None
    return name


def _is_address(host: str) -> bool:
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


def _refused(what: str) -> HTTPError:
    return HTTPError(400, f"The Webhook-URL {what}.", extensions={"reason": "webhook_refused"})
