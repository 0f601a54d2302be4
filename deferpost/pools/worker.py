"""One worker process, as the reactor sees it.

Knows its socket, its process and the one job that it runs; tells its owner, the pool, when it can
take a job and when it is gone.  It never takes a second job before the first has ended, and never
another one after it was told to go.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import signal
import socket
from collections import deque
from typing import Any
from typing import Protocol as Typed

import msgspec
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.errors import BodyBroken, HandlerFailed, HTTPError, StorageFailed, WorkerLost
from deferpost.interfaces import IArrivingBody
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, Reason, Rung, State
from deferpost.pools.endings import failure_of, log_late
from deferpost.pools.frames import (
    Broke,
    Chunk,
    End,
    FrameError,
    FrameReader,
    Moved,
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
    decode_from_worker,
    encode_frame,
)
from deferpost.pools.output import OutputReader
from deferpost.pools.pipebody import PipeBody
from deferpost.pools.spawn import WorkerProcess, describe_exit, spawn_worker
from deferpost.pools.streams import ChunkBuffer

__all__ = ["Owner", "Stage", "Worker"]

_log = Logger(namespace="deferpost.worker")

#: Seconds that a worker's socket may stay open after the worker has ended.
_END_PATIENCE = 1.0


class Stage(enum.Enum):
    """Where a worker stands."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"  # it was told to go, or has said goodbye
    GONE = "gone"


class Owner(Typed):
    """What a worker tells its pool."""

    def worker_ready(self, worker: Worker) -> None:
        """It can take a job: after its set-up, and after each job."""

    def worker_gone(self, worker: Worker, how: str) -> None:
        """Its process has ended; its job, if it had one, has been ended."""

    def job_ended(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        """The code of its job has ended."""


class Worker:
    """A worker process and its socket.  For the reactor thread.

    :param reactor: the reactor (:class:`IReactorSocket`, :class:`IReactorFDSet`,
        :class:`IReactorTime`).
    :param owner: the pool.
    :param set_up: the first message to it.
    :param kill_grace: seconds between SIGTERM and SIGKILL.
    :raises OSError: the system cannot start one more process.

    :ivar stage: where it stands.
    :ivar jobs_done: jobs that it has ended.
    :ivar was_ready: whether its set-up ever succeeded.
    :ivar was_told_to_go: whether its end was asked for.
    :ivar set_up_error: the traceback of its set-up, if that failed.
    """

    def __init__(self, reactor: Any, owner: Owner, set_up: SetUp, kill_grace: float) -> None:
        self._reactor = reactor
        self._owner = owner
        self._kill_grace = kill_grace
        self.stage = Stage.STARTING
        self.job: Job | None = None
        self.jobs_done = 0
        self.was_ready = False
        self.was_told_to_go = False
        self.set_up_error: str | None = None
        self._stream: ChunkBuffer | None = None
        self._arriving: PipeBody | None = None
        self._held = False
        self._descriptors: deque[int] = deque()
        self._kill_timer: Any = None
        self._end_timer: Any = None
        self._exit: int | None = None
        self._connected = True
        self._process, self._output, self._lifeline = self._launch()
        self._protocol.transport.write(encode_frame(set_up))

    def _launch(self) -> tuple[WorkerProcess, OutputReader, int]:
        """Start the process, with a socket, a pipe for what it prints and one for its life."""
        ours, theirs = socket.socketpair()
        with ours, theirs, contextlib.ExitStack() as undo:
            lifeline_read, lifeline_write = os.pipe()
            undo.callback(os.close, lifeline_write)
            try:
                output_read, output_write = os.pipe()
                undo.callback(os.close, output_read)
                try:
                    process = spawn_worker(
                        self._reactor,
                        socket_fd=theirs.fileno(),
                        lifeline_fd=lifeline_read,
                        output_fd=output_write,
                        exited=self._exited,
                    )
                finally:
                    os.close(output_write)
            finally:
                os.close(lifeline_read)
            undo.pop_all()
            output = OutputReader(self._reactor, output_read, self._printed)
            ours.setblocking(False)
            self._protocol = _WorkerProtocol(self)
            # The reactor takes a copy of the descriptor.
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: self._protocol)
            )
        return process, output, lifeline_write

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    # What the pool asks.

    def run(self, job: Job, now: float) -> None:
        """Run a job; it is idle."""
        self.stage = Stage.BUSY
        self.job = job
        job.started = now
        job.happened(Event.START)
        body = job.body
        transport = self._protocol.transport
        if type(body) is io.BytesIO:
            self._send(encode_frame(Run(job.head, body.read())))
            body.close()
        elif IArrivingBody.providedBy(body):
            self._run_arriving(job)
        else:
            transport.sendFileDescriptor(body.fileno())
            transport.write(encode_frame(Run(job.head, None)))

    def _send(self, frame: bytes) -> None:
        """Send a frame at once; the transport holds nothing, since an idle worker has read all.

        By the transport it would leave in the next turn of the reactor.
        """
        transport = self._protocol.transport
        try:
            sent = transport.socket.send(frame)
        except OSError:  # it would block; or the worker is gone, which the transport finds
            sent = 0
        if sent < len(frame):
            transport.write(frame[sent:])

    def _run_arriving(self, job: Job) -> None:
        """Send a job whose body still arrives, and the body after it."""
        try:
            self._arriving = arriving = PipeBody(self._reactor, job.body)
        except OSError as error:
            # In a turn of its own: the pool is about to hear that this worker is busy.
            self._reactor.callLater(0, self._not_sent, job, StorageFailed(str(error)))
            return
        transport = self._protocol.transport
        transport.sendFileDescriptor(arriving.reading_end)
        transport.write(encode_frame(Run(job.head, None, True)))
        arriving.begin()

    def _not_sent(self, job: Job, error: StorageFailed) -> None:
        if self.job is job:
            self._ended(job, error)

    def terminate(self) -> None:
        """SIGTERM now and SIGKILL after the grace; it takes no job any more."""
        if self._leave(self._kill_grace):
            self.was_told_to_go = True
            if self.job is not None:
                self.job.rung = Rung.TERMINATED
            self._process.signal(signal.SIGTERM)

    def dismiss(self) -> None:
        """It has no job: let it end by itself, and kill it after the grace."""
        if self._leave(self._kill_grace):
            self.was_told_to_go = True
            self._protocol.transport.loseConnection()

    def hurry(self, patience: float) -> None:
        """SIGKILL after this time, if that is sooner than planned.

        :param patience: seconds.
        """
        timer = self._kill_timer
        if (
            timer is not None
            and timer.active()
            and timer.getTime() > (self._reactor.seconds() + patience)
        ):
            timer.reset(patience)

    def _leave(self, grace: float) -> bool:
        if self.stage in (Stage.LEAVING, Stage.GONE):
            return False
        self.stage = Stage.LEAVING
        self._kill_timer = self._reactor.callLater(grace, self._kill)
        self._hold(False)  # it may be waiting for us to read
        return True

    def _kill(self) -> None:
        if self._exit is None:
            if self.job is not None:
                self.job.rung = Rung.KILLED
            self._process.signal(signal.SIGKILL)

    # What the worker says.

    def received(self, payload: bytes) -> None:
        """A frame has arrived."""
        message = decode_from_worker(payload)
        job = self.job
        if job is None:
            self._about_set_up(message)
        elif isinstance(message, Replied):
            self._replied(
                job, Answer(message.status, message.headers, message.body, len(message.body))
            )
        elif isinstance(message, Chunk):
            if self._stream is not None and job.state is State.RUNNING:
                self._stream.deliver(message.data)
        elif isinstance(message, RepliedFile):
            if not self._descriptors:
                raise FrameError("the file of a reply did not come with it")
            # Unbuffered: it is read in large pieces.
            file = open(self._descriptors.popleft(), "rb", buffering=0)  # noqa: SIM115
            self._replied(job, Answer(message.status, message.headers, file, message.length))
        elif isinstance(message, Streams):
            self._streams(job, message)
        elif isinstance(message, End):
            self._ended(job, None)
        elif isinstance(message, Refused):
            self._ended(job, _http_error(message))
        elif isinstance(message, Raised):
            self._ended(job, HandlerFailed(message.traceback))
        elif isinstance(message, Moved):
            job.report(message.progress)
        elif isinstance(message, Broke):
            self._ended(job, BodyBroken(message.reason))
        elif isinstance(message, Taken) and self._arriving is not None:
            self._arriving.sent()
        else:
            raise FrameError(f"a worker with a job sent {type(message).__name__}")

    def received_descriptor(self, descriptor: int) -> None:
        """A descriptor has arrived; the frame that it belongs to follows."""
        os.set_inheritable(descriptor, False)
        self._descriptors.append(descriptor)

    def _about_set_up(self, message: Any) -> None:
        if isinstance(message, SetUpFailed):
            self.set_up_error = message.traceback
        elif not isinstance(message, Ready):
            raise FrameError(f"a worker without a job sent {type(message).__name__}")
        elif self.stage is Stage.STARTING:
            self.stage = Stage.IDLE
            self.was_ready = True
            self._output.drain()
            self._owner.worker_ready(self)

    def _replied(self, job: Job, answer: Answer) -> None:
        waiter = job.answer
        if job.state is State.CANCELING:
            answer.close()
            self._finish(job, Event.STOP)
            return
        self._finish(job, Event.SUCCEED)
        if waiter is None:
            answer.close()
        else:
            waiter.callback(answer)

    def _streams(self, job: Job, message: Streams) -> None:
        if job.state is State.CANCELING:
            return
        self._stream = ChunkBuffer(held=self._hold, abandoned=job.cancel)
        waiter, job.answer = job.answer, None
        if waiter is not None:
            waiter.callback(Answer(message.status, message.headers, self._stream, None))

    def _ended(self, job: Job, error: Exception | None) -> None:
        """The run has ended without an answer that is still to be given."""
        waiter, stream = job.answer, self._stream
        if job.state is State.CANCELING:
            log_late(job, error)
            self._finish(job, Event.STOP)
            return
        if error is None:
            self._finish(job, Event.SUCCEED)
        elif isinstance(error, WorkerLost):
            self._finish(job, Event.FAIL, Reason.WORKER_LOST)
        else:
            error, reason = failure_of(job, error)
            self._finish(job, Event.FAIL, reason)
        if stream is not None:
            stream.finish(error)
        elif waiter is not None and error is not None:
            waiter.errback(error)

    def _finish(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        self._output.drain()  # what it printed is in the pipe before its outcome was sent
        self._hold(False)
        self.job = self._stream = None
        self.jobs_done += 1
        if self._arriving is not None:
            self._arriving.close()
            self._arriving = None
        job.body.close()
        if self.stage is Stage.BUSY:
            self.stage = Stage.IDLE
        self._owner.job_ended(job, event, reason)
        if self.stage is Stage.IDLE:
            self._owner.worker_ready(self)

    def break_stream(self, error: Exception) -> None:
        """Tell whoever reads the stream of the job that it breaks off."""
        if self._stream is not None:
            self._stream.finish(error)

    def _hold(self, hold: bool) -> None:
        """Read nothing from it, or read again: it waits when the socket is full."""
        if hold != self._held and self._connected:
            self._held = hold
            transport = self._protocol.transport
            (transport.pauseProducing if hold else transport.resumeProducing)()

    def _printed(self, line: str) -> None:
        job = self.job
        if job is None:
            _log.info("[worker {pid}] {line}", pid=self.pid, line=line)
        else:
            _log.info("[{job}] {line}", job=job.head.id, pid=self.pid, line=line)

    # Its end.

    def broken(self, error: FrameError) -> None:
        """It sends what is no frame: a handler has written into its socket, or worse."""
        _log.error("worker {pid} is not understood: {error}", pid=self.pid, error=error)
        if self._leave(0.0):
            self._process.signal(signal.SIGKILL)
        self._protocol.transport.abortConnection()  # nothing that follows is believed

    def disconnected(self) -> None:
        """Its end of the socket is closed: all that it sent has been read."""
        self._connected = False
        if self._exit is None:
            self._leave(self._kill_grace)
        self._go_if_over()

    def _exited(self, code: int) -> None:
        self._exit = code
        if self.stage is Stage.IDLE:
            self.stage = Stage.LEAVING
        if self._connected:
            # What it sent at last may still be unread.
            self._hold(False)
            self._end_timer = self._reactor.callLater(
                _END_PATIENCE, lambda: self._protocol.transport.abortConnection()
            )
        self._go_if_over()

    def _go_if_over(self) -> None:
        if self._exit is not None and not self._connected:
            # In a turn of its own: of a descriptor that is closed while the reactor goes through
            # what is ready, an event may still be to come, and would be taken for one of the
            # next that gets its number, such as the socket of the worker that follows.
            self._reactor.callLater(0, self._go, self._exit)

    def _go(self, code: int) -> None:
        self.stage = Stage.GONE
        for timer in (self._kill_timer, self._end_timer):
            if timer is not None and timer.active():
                timer.cancel()
        how = describe_exit(code)
        os.close(self._lifeline)
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._output.drain()
        self._output.close()
        if self.job is not None:
            self._ended(self.job, WorkerLost(how))
        self._owner.worker_gone(self, how)


@implementer(IFileDescriptorReceiver)
class _WorkerProtocol(Protocol):
    """The reactor's end of the socket."""

    transport: Any

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reader = FrameReader()

    def dataReceived(self, data: bytes) -> None:
        try:
            for payload in self._reader.feed(data):
                self._worker.received(payload)
        except FrameError as error:
            self._worker.broken(error)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._worker.received_descriptor(descriptor)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._worker.disconnected()


def _http_error(message: Refused) -> HTTPError:
    return HTTPError(
        message.status,
        message.detail,
        title=message.title,
        type=message.problem_type,
        headers=message.headers,
        extensions=msgspec.json.decode(message.extensions),
    )
