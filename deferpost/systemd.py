"""What systemd is told: that the daemon is ready, reloads, stops, and is alive (sd_notify(3)).

The protocol is a datagram of assignments to the socket that ``NOTIFY_SOCKET`` names.  This decides
how they are sent; when, is for the service.  Where there is no such socket, nothing is.
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping

from twisted.logger import Logger

__all__ = ["Notifier"]

_log = Logger(namespace="deferpost")

#: What systemd sets for the daemon alone.  A worker process, or a program that a handler starts,
#: that found them could speak for the daemon, or take its sockets for its own.
_OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)

#: Characters of a status that are sent; ``systemctl status`` shows one line.
_LONGEST_STATUS = 400


class Notifier:
    """Tells systemd.  Sending never waits and never raises.

    :param address: the path of the socket, or its abstract name after ``@``; None for nobody.
    :param watchdog: seconds within which systemd wants to hear that the daemon is alive; None
        where it does not.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self._address = address
        self.watchdog = watchdog
        self._failed = False

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], pid: int) -> Notifier:
        """Take what systemd says to this process out of its environment.

        :param environ: the environment, from which it is removed, so that nobody inherits it.
        :param pid: the number of this process.
        """
        said = {name: environ.pop(name) for name in _OURS if name in environ}
        address = said.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@") or len(address) < 2:
            return cls()
        microseconds = said.get("WATCHDOG_USEC", "")
        is_ours = said.get("WATCHDOG_PID", str(pid)) == str(pid)
        if is_ours and microseconds.isascii() and microseconds.isdigit() and int(microseconds):
            return cls(address, int(microseconds) / 1e6)
        return cls(address)

    @property
    def is_there(self) -> bool:
        """Whether anybody is told."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """It is ready, at first or again."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """It reads its configuration again; :meth:`ready` is to follow in any case."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reloading")

    def stopping(self) -> None:
        """It begins to stop."""
        self._send("STOPPING=1", "STATUS=stopping")

    def status(self, status: str) -> None:
        """What it does, in a line for people."""
        self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """It is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        address = self._address
        if address is None:
            return
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        message = "\n".join(assignments).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message, address)
        except OSError as error:
            if not self._failed:  # once, not with every sign of life
                self._failed = True
                _log.warn("systemd cannot be told: {error}", error=error)
        else:
            self._failed = False


def _line(text: str) -> str:
    """A text as one line that is not too long."""
    return " ".join(text.split())[:_LONGEST_STATUS]
