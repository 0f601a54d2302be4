"""To which IP addresses a webhook may be sent.

Decides only.  A client chooses the URL, and the daemon stands where the client does not: in a
private network, beside services that trust their neighbours.  So an address is let in only if it is
one of the public internet, by the registries of special addresses of the IANA (RFC 6890) as they
are written out here: what the standard library counts as private differs between its versions.
"""

from __future__ import annotations

import ipaddress
from typing import Literal, TypeAlias

__all__ = ["Refusal", "refusal"]

#: What an address is that nothing is sent to.
Refusal: TypeAlias = Literal[
    "not an IP address",
    "unspecified",
    "loopback",
    "private",
    "shared",
    "link-local",
    "multicast",
    "reserved",
    "for documentation",
]

#: What is let in where an operator allows private addresses.  Link-local ones never are: there,
#: clouds hand out the credentials of their machines.
_ALLOWABLE: frozenset[Refusal] = frozenset({"loopback", "private", "shared"})

_IPv4: tuple[tuple[str, Refusal], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "private"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)

_IPv6: tuple[tuple[str, Refusal], ...] = (
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("2001::/23", "reserved"),  # Teredo (2001::/32) among others
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)

_NETWORKS = tuple((ipaddress.ip_network(network), kind) for network, kind in (*_IPv4, *_IPv6))

#: All of IPv6 that is public at all.
_PUBLIC_IPv6 = ipaddress.IPv6Network("2000::/3")

#: Networks whose addresses stand for one of IPv4, and by how many bits that is above the end.
_EMBEDDED = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped (RFC 4291)
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)


def refusal(address: str, *, allow_private: bool = False) -> Refusal | None:
    """Why nothing is sent to an address.

    :param address: of IPv4 or IPv6, as text.  One of IPv6 that stands for one of IPv4 is what that
        is.
    :param allow_private: whether loopback, private and shared (RFC 6598) ones are allowed.
    :returns: what it is; None if it is allowed.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "not an IP address"
    kind = _kind(parsed)
    return None if allow_private and kind in _ALLOWABLE else kind


def _kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Refusal | None:
    if isinstance(address, ipaddress.IPv6Address):
        for embedding, shift in _EMBEDDED:
            if address in embedding:
                return _kind(ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    for network, kind in _NETWORKS:
        if address in network:  # a network has no address of the other version
            return kind
    is_public = isinstance(address, ipaddress.IPv4Address) or address in _PUBLIC_IPv6
    return None if is_public else "reserved"
