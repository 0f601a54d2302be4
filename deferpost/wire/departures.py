"""Whether a client is still there, where reading does not tell.

While nothing is read of a connection, and after its client has ended its side of it, the end of
file says nothing more: a client that is gone and one that waits look alike.  Then two things help.
The system reports by epoll that the peer has closed, or has reset, without a read; and the first
bytes of the status line, which every answer begins with, are sent one by one beforehand: a client
that is gone resets the connection when it gets one, and one that waits will have needed it anyway.
Between the chunks of an answer it is zeros in front of the next chunk's size (RFC 9112, section
7.1).  Where the rest of an answer has no chunks and is long in coming, only the system's own probes
find out, a minute or two later.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

__all__ = ["PAUSES", "ZEROS", "HangupWatch"]

#: Seconds before each byte of the status line that is sent ahead: as many as "HTTP/1.1 " has.
PAUSES = (0.0, 0.5, 2.0, 8.0, 30.0, 120.0, 600.0, 3_600.0, 14_400.0)

#: What is sent ahead in an answer in chunks: few, as some clients read a size of 16 digits at most.
ZEROS = b"0000"


@implementer(IReadDescriptor)
class HangupWatch(FileDescriptor):
    """Tells when the peers of sockets that are not read have hung up.  For the reactor thread.

    :param reactor: an IReactorFDSet.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._epoll: select.epoll | None = None
        self._called: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, hung_up: Callable[[], None], *, half: bool) -> None:
        """Begin to watch a socket.

        :param fd: its descriptor.
        :param hung_up: called once, from the reactor.
        :param half: whether the end of the peer's side alone counts.
        """
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
            # A reset is reported without being asked for.
            self._epoll.register(fd, (select.EPOLLRDHUP if half else 0) | select.EPOLLONESHOT)
        except OSError:  # there are no descriptors left; the bytes sent ahead tell, if later
            return
        if not self._called:
            self.connected = 1
            self.reactor.addReader(self)
        self._called[fd] = hung_up

    def unwatch(self, fd: int) -> None:
        """Watch it no more."""
        if self._called.pop(fd, None) is not None and self._epoll is not None:
            with contextlib.suppress(OSError):  # it is closed, and so out of the set already
                self._epoll.unregister(fd)
            if not self._called:
                self.reactor.removeReader(self)

    def fileno(self) -> int:
        """The descriptor of the set."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def doRead(self) -> None:
        """Some have hung up; called by the reactor."""
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            hung_up = self._called.get(fd)
            if hung_up is not None:
                self.unwatch(fd)
                hung_up()

    def logPrefix(self) -> str:
        """For the log."""
        return "HangupWatch"

    def connectionLost(self, reason: Any) -> None:
        """The reactor has stopped."""
        for fd in list(self._called):
            self.unwatch(fd)
