"""What is below a transport: the connection of the system, which TLS may wrap, and its options."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection

from deferpost.wire.limits import Limits

__all__ = ["connection_below", "set_options", "socket_of"]

#: Bytes of an answer that the system holds beyond what is under way to the client.  Without a bound
#: it takes megabytes for each client that does not read.
_SYSTEM_HOLDS = 128 * 1024


def connection_below(transport: Any) -> Connection | None:
    """The connection below a transport that may wrap it, as TLS does; None where there is none."""
    while not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport


def socket_of(transport: Any) -> socket.socket | None:
    """The socket below a transport, where there is one."""
    return getattr(connection_below(transport), "socket", None)


def set_options(below: socket.socket | None, limits: Limits) -> None:
    """Have the system hold little, and find out when the client's machine is gone.

    :param below: the connection's socket; nothing is set on another than one of TCP.
    :param limits: the bounds of the site.
    """
    if below is None or below.family == socket.AF_UNIX:
        return
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _SYSTEM_HOLDS)
    if limits.tcp_keepalive:
        idle = max(1, round(limits.tcp_keepalive))
        below.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle // 6))
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)
    if limits.tcp_user_timeout:
        # It counts for a client that takes nothing, too, who has write_timeout for that.
        seconds = max(limits.tcp_user_timeout, limits.write_timeout)
        milliseconds = max(1, round(seconds * 1000))
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
