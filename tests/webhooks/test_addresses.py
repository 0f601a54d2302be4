"""To which addresses a webhook may be sent."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.webhooks.addresses import refusal

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2a00:1450:4001::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]

REFUSED = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "private"),
    ("198.19.255.255", "private"),
    ("100.64.0.0", "shared"),
    ("100.127.255.255", "shared"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.169.254", "link-local"),
    ("192.0.0.8", "reserved"),
    ("192.88.99.1", "reserved"),
    ("192.0.2.1", "for documentation"),
    ("198.51.100.1", "for documentation"),
    ("203.0.113.1", "for documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("0:0:0:0:0:0:0:1", "loopback"),
    ("fc00::1", "private"),
    ("fd12:3456::1", "private"),
    ("fec0::1", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("ff02::1", "multicast"),
    ("2001:db8::1", "for documentation"),
    ("3fff:fff::1", "for documentation"),
    ("100::1", "reserved"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    ("2001:20::1", "reserved"),
    ("2001:0:808:808::1", "reserved"),  # Teredo
    ("64:ff9b:1::a00:1", "reserved"),
    # What stands for an address of IPv4 is what that is.
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:a9fe:a9fe", "link-local"),
    ("64:ff9b::a00:1", "private"),
    ("2002:7f00:1::1", "loopback"),
    ("2002:c0a8:101:ffff::1", "private"),
    ("::127.0.0.1", "reserved"),  # IPv4-compatible, which nothing uses
    ("", "not an IP address"),
    ("localhost", "not an IP address"),
    ("127.1", "not an IP address"),
    ("0x7f000001", "not an IP address"),
    ("2130706433", "not an IP address"),
    ("127.0.0.01", "not an IP address"),
    ("[::1]", "not an IP address"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """What is of the public internet is allowed, up to the edges of what is not."""
    assert refusal(address) is None


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_refused(address: str, kind: str) -> None:
    """What is not of the public internet is refused, by any name."""
    assert refusal(address) == kind


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_where_private_ones_are_allowed(address: str, kind: str) -> None:
    """An operator may allow private networks; what is nobody's address stays refused."""
    allowed = kind in ("loopback", "private", "shared")
    assert refusal(address, allow_private=True) == (None if allowed else kind)


@given(st.ip_addresses())
def test_the_standard_library_lets_in_no_more(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """What is let in is global by the standard library, too, where that is up to date."""
    if refusal(str(address)) is None and not (
        address.version == 6 and (address.ipv4_mapped or address.sixtofour)
    ):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_embedded_ones_are_what_they_stand_for(address: ipaddress.IPv4Address) -> None:
    """No form of an address says something else of it."""
    kind = refusal(str(address))
    number = int(address)
    for embedded in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert refusal(str(ipaddress.IPv6Address(embedded))) == kind
