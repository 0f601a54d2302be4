"""The program that a worker process runs.

A fresh interpreter that imports the handlers and not Twisted.  It reads a call, runs it, sends
what it gave, and reads the next: one at a time, so that a signal to it is never about another
call.  It ends when its socket does, at SIGTERM, and at once, with all that it has started, when
the daemon is gone for whatever cause.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import gc
import io
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections import deque
from functools import partial
from types import FrameType
from typing import Any, BinaryIO

import msgspec

from deferpost.errors import BodyBroken, Canceled, HandlerFailed, HTTPError
from deferpost.handlers.running import bind
from deferpost.model import Answer, Work
from deferpost.pools.bodyframes import READ_BYTES, PipeReader
from deferpost.pools.frames import (
    INLINE_MOST,
    Broke,
    Credit,
    End,
    FrameReader,
    FromWorker,
    Raised,
    Ready,
    Refused,
    Replied,
    RepliedFile,
    Run,
    SetUp,
    SetUpFailed,
    Streams,
    Taken,
    ToWorker,
    decode_to_worker,
)
from deferpost.pools.limits import limit_cpu, limit_memory
from deferpost.pools.sending import Sender

__all__ = ["main"]

#: How many exceptions are looked at that were raised while others were dealt with.
_CONTEXTS_MOST = 100

_READ_BYTES = 64 * 1024

#: What is printed where the handler's author can act.
_COPY_CAME_BACK = (
    b"a process that this handler has forked came back from it, and is ended: "
    b"let it end by os._exit\n"
)
_SOCKET_CLOSED = (
    b"this handler has closed descriptors that it had not opened, the worker's among them\n"
)

#: Room for what comes beside the bytes: eight descriptors.
_ANCILLARY_BYTES = socket.CMSG_SPACE(8 * struct.calcsize("i"))


class _Channel:
    """The worker's end of the socket: blocking, and for the main thread alone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = FrameReader()
        self._messages: deque[ToWorker] = deque()
        self._descriptors: deque[int] = deque()

    def receive(self) -> ToWorker | None:
        """Wait for the next message; None at the end."""
        while not self._messages:
            data, ancillary, _, _ = self._connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
            for level, kind, packed in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    for (descriptor,) in struct.iter_unpack("i", packed):
                        os.set_inheritable(descriptor, False)
                        self._descriptors.append(descriptor)
            if not data:
                return None
            self._messages.extend(decode_to_worker(payload) for payload in self._reader.feed(data))
        return self._messages.popleft()

    def descriptor(self) -> int:
        """The descriptor that came with the message."""
        return self._descriptors.popleft()

    def credit(self) -> int:
        """Wait for credit for the stream of the run.

        :raises BrokenPipeError: there will be none.
        """
        message = self.receive()
        if message is None:
            raise BrokenPipeError
        assert isinstance(message, Credit)
        return message.amount


class _Control:
    """Whether this worker was told to stop, by SIGTERM.

    :ivar forked: whether this is not the worker, but a copy of it that a handler has forked.
    """

    def __init__(self) -> None:
        self.canceled = False
        self.running = False
        self.leaving = False
        self.forked = False

    def terminated(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM: end the handler if one runs, by an exception, so that it can clean up.

        Another SIGTERM while an ``except`` or ``finally`` clause deals with that changes nothing.
        Where none does, the exception was swallowed, as Python does with what is raised in
        ``__del__`` and in callbacks of the collector, and asyncio in those of its loop: then it is
        raised once more.
        """
        if self.leaving or (self.canceled and _is_ending()):
            return
        self.canceled = True
        if self.running:
            raise Canceled
        raise _Exit(128 + signum)


def _is_ending() -> bool:
    """Whether the main thread deals with the exception of an earlier SIGTERM."""
    error = sys.exc_info()[1]
    for _ in range(_CONTEXTS_MOST):
        if error is None or isinstance(error, (Canceled, _Exit)):
            break
        error = error.__context__
    return error is not None


class _Exit(SystemExit):
    """Ends the program, where no handler runs."""


def main(socket_fd: int, lifeline_fd: int, stack_fd: int) -> None:
    """Be a worker until there is no more to do.

    :param socket_fd: the descriptor of the socket to the reactor.
    :param lifeline_fd: the reading end of a pipe that is closed when the daemon is gone.
    :param stack_fd: where SIGUSR1 has the stack of this thread written, whatever it does.
    """
    for descriptor in (socket_fd, lifeline_fd, stack_fd):
        os.set_inheritable(descriptor, False)
    _die_with_parent(lifeline_fd)
    faulthandler.register(signal.SIGUSR1, file=stack_fd, all_threads=False)
    connection = socket.socket(fileno=socket_fd)
    connection.setblocking(True)
    channel = _Channel(connection)
    sender = Sender(connection, channel.credit)
    set_up = channel.receive()
    if set_up is None:
        return
    assert isinstance(set_up, SetUp)
    sys.path[:] = set_up.sys_path
    del sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        # Lines of both appear in the order in which they were written.
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if set_up.memory_limit:
        limit_memory(set_up.memory_limit)
    if set_up.cpu_limit:
        limit_cpu(set_up.cpu_limit)
    try:
        work = bind(set_up.handlers, set_up.directory)
    except Exception:
        with contextlib.suppress(BrokenPipeError):
            sender.send(SetUpFailed(traceback.format_exc()))
        raise SystemExit(1) from None
    gc.freeze()  # what the set-up has loaded stays
    control = _Control()
    signal.signal(signal.SIGTERM, control.terminated)
    os.register_at_fork(after_in_child=partial(_cut_off, control, connection))
    try:
        sender.send(Ready())
        while (message := channel.receive()) is not None:
            if isinstance(message, Credit):
                continue  # for a stream that has ended
            assert isinstance(message, Run)
            if set_up.cpu_limit:
                limit_cpu(set_up.cpu_limit)
            _run(message, work, channel, sender, control, set_up.directory)
    except (ConnectionResetError, BrokenPipeError):
        pass  # the daemon does not want this worker any more
    except OSError as error:
        if not control.forked and error.errno not in (errno.EBADF, errno.ENOTSOCK):
            raise
        # What is registered for the end is the worker's, or cannot be relied upon.
        with contextlib.suppress(OSError):
            os.write(2, _COPY_CAME_BACK if control.forked else _SOCKET_CLOSED)
        os._exit(1)
    except Canceled:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        control.leaving = True  # what the interpreter does at its end is not disturbed


def _cut_off(control: _Control, connection: socket.socket) -> None:
    """In a process that a handler has forked: nothing that it does is the worker's doing.

    It may come back from the handler, as the worker does.  Only one of them may answer, and read
    the next call.
    """
    control.forked = True
    connection.close()
    if signal.getsignal(signal.SIGTERM) == control.terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it is no word from the daemon


def _run(
    message: Run,
    work: Work,
    channel: _Channel,
    sender: Sender,
    control: _Control,
    directory: str | None,
) -> None:
    """Run one call to its end, and send what it gave."""
    body: BinaryIO
    if message.arriving:
        body = io.BufferedReader(PipeReader(channel.descriptor()), READ_BYTES)
        sender.send(Taken())
    elif message.body is None:
        body = os.fdopen(channel.descriptor(), "rb")
        body.seek(0)
    else:
        body = io.BytesIO(message.body)
    control.running = True
    try:
        outcome: FromWorker
        file: Any = None
        try:
            answer = work(message.head, body, sender.begin(control))
            outcome, file = _outcome(answer, sender, directory)
        except HTTPError as error:
            outcome = _refused(error)
        except HandlerFailed as error:
            outcome = Raised(error.traceback)
        except BodyBroken as error:
            outcome = Broke(str(error))
        except Canceled:
            if control.canceled:
                raise
            outcome = Raised("deferpost.Canceled: raised by the handler, though nobody canceled it")
        if not message.arriving:
            body.close()
        # What the handler printed is in the pipe before its outcome is in the socket, so that it
        # is logged as this job's.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError):  # the handler has closed it
                stream.flush()
        if file is None:
            sender.end(outcome)
        else:
            with file:
                sender.end(outcome, file.fileno())
        # Now the other end is closed, so that a thread of the handler's that was left behind in a
        # read does not hold this up.
        body.close()
    finally:
        control.running = False
    if control.canceled:
        raise Canceled


def _refused(error: HTTPError) -> FromWorker:
    try:
        extensions = msgspec.json.encode(error.extensions)
    except TypeError:
        return Raised("".join(traceback.format_exception(error)))
    return Refused(error.status, error.detail, error.title, error.type, error.headers, extensions)


def _outcome(
    answer: Answer, sender: Sender, directory: str | None
) -> tuple[FromWorker, BinaryIO | None]:
    """The last message about an answer, and the file that goes with it; streams are sent here."""
    body = answer.body
    if isinstance(body, bytes):
        if len(body) <= INLINE_MOST:
            return Replied(answer.status, answer.headers, body), None
        try:
            # Sent as a file, a large body does not hold this worker while its reader is slow.
            file = _as_file(body, directory)
        except OSError:
            pass  # no room on the disk: send it through the socket, at the reader's pace
        else:
            return RepliedFile(answer.status, answer.headers, len(body)), file
        body = iter((body,))
    elif answer.length is not None:
        return RepliedFile(answer.status, answer.headers, answer.length), body
    try:
        sender.stream(Streams(answer.status, answer.headers), body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return End(), None


def _as_file(body: bytes, directory: str | None) -> BinaryIO:
    file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 (sent, then closed)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[file.write(rest) :]
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _die_with_parent(lifeline_fd: int) -> None:
    """Have this process, and all that it starts, end at once when the daemon is gone.

    The daemon holds the other end of the pipe, and nobody ever writes to it.  On Linux the kernel
    itself sends SIGKILL to the whole process group when that end is closed, as it is by
    ``kill -9`` too, and no Python code has to run for it: a handler that never gives up the
    interpreter's lock does not outlive the daemon, nor one that has closed this descriptor, since
    the daemon has it open too.  Elsewhere a thread waits for the end.
    """
    group = os.getpgrp()
    owner = -group if group == os.getpid() else os.getpid()
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, owner)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
        poll = select.poll()
        poll.register(lifeline_fd, select.POLLIN)
        if poll.poll(0):  # it was closed before the line above
            os.kill(owner, signal.SIGKILL)
    else:  # pragma: no cover (not Linux)

        def wait() -> None:
            os.read(lifeline_fd, 1)
            os.kill(owner, signal.SIGKILL)

        threading.Thread(target=wait, daemon=True).start()
