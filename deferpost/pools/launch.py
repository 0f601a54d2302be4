"""Starting a worker with all that connects it to the reactor: its socket and its pipes.

All of it is there afterwards, or nothing: a process that could not be connected is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typed

import attrs
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.pools.frames import FrameError, FrameReader
from deferpost.pools.spawn import WorkerProcess, spawn_worker

__all__ = ["Launched", "Listener", "WorkerProtocol", "launch"]


class Listener(Typed):
    """Hears what comes through the socket of a worker."""

    def received(self, payload: bytes) -> None:
        """A frame has arrived."""

    def received_descriptor(self, descriptor: int) -> None:
        """A descriptor has arrived; the frame that it belongs to follows."""

    def broken(self, error: FrameError) -> None:
        """What has arrived is no frame."""

    def disconnected(self) -> None:
        """The other end of the socket is closed: all that was sent has been read."""


@implementer(IFileDescriptorReceiver)
class WorkerProtocol(Protocol):
    """The reactor's end of the socket.

    :param listener: is told what arrives.
    """

    transport: Any

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reader = FrameReader()

    def dataReceived(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._listener.received(payload)
        except FrameError as error:
            self._listener.broken(error)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._listener.received_descriptor(descriptor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._listener.disconnected()


@attrs.frozen
class Launched:
    """A worker process that was started, and our ends of its pipes, for the caller to close.

    :ivar process: the process.
    :ivar lifeline: the pipe at whose end it is killed: the writing end, and the reading end.
    :ivar output: the reading end of that into which it prints.
    :ivar stack: the reading end of that into which it says where it stands.
    """

    process: WorkerProcess
    lifeline: tuple[int, int]
    output: int
    stack: int


def launch(reactor: Any, protocol: WorkerProtocol, exited: Callable[[int], None]) -> Launched:
    """Start a worker process.  On the reactor thread.

    :param reactor: the reactor (:class:`IReactorSocket`, :class:`IReactorFDSet`,
        :class:`IReactorTime`).
    :param protocol: gets the socket as its transport.
    :param exited: called with the exit code, also of a process that could not be connected.
    :raises OSError: the system cannot start one more process, or has no more descriptors.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
        ours, its = socket.socketpair()
        undo.callback(ours.close)
        theirs.callback(its.close)
        lifeline_read, lifeline_write = os.pipe()
        # The worker has the kernel watch the reading end, which stays open with us too: a handler
        # that closes all descriptors does not end the watch.  When we are killed, Linux (since 4.3)
        # is done with what has the higher number first, and that is the writing end.
        undo.callback(os.close, lifeline_read)
        undo.callback(os.close, lifeline_write)
        output_read, output_write = os.pipe()
        undo.callback(os.close, output_read)
        theirs.callback(os.close, output_write)
        stack_read, stack_write = os.pipe()
        undo.callback(os.close, stack_read)
        theirs.callback(os.close, stack_write)
        os.set_blocking(stack_write, False)  # a full pipe does not hold up the worker
        process = spawn_worker(
            reactor,
            socket_fd=its.fileno(),
            lifeline_fd=lifeline_read,
            output_fd=output_write,
            stack_fd=stack_write,
            exited=exited,
        )
        undo.callback(process.signal, signal.SIGKILL)
        ours.setblocking(False)
        # The reactor takes a copy of the descriptor.
        reactor.adoptStreamConnection(
            ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: protocol)
        )
        undo.pop_all()
        ours.close()
    return Launched(process, (lifeline_write, lifeline_read), output_read, stack_read)
