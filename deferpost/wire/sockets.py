"""What is below a transport: the connection of the system, which TLS may wrap."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection

__all__ = ["connection_below", "socket_of"]


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
