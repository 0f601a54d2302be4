"""One worker process, as the reactor sees it.

Knows its socket, its process and the one job that it runs; tells its owner, the pool, when it can
take a job and when it is gone.  It never takes a second job before the first has ended, and never
another one after it was told to go.
"""

from __future__ import annotations

import enum
import io
import os
import signal
from collections import deque
from functools import partial
from typing import Any
from typing import Protocol as Typed

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.errors import (
    BodyBroken,
    HandlerFailed,
    HTTPError,
    NotStarted,
    StorageFailed,
    WorkerLost,
)
from deferpost.interfaces import IArrivingBody
from deferpost.jobs import Job
from deferpost.lifecycle import Event
from deferpost.model import Answer, Reason, Rung, State, WorkerStatus
from deferpost.pools.endings import failure_of, log_late
from deferpost.pools.frames import (
    Broke,
    Chunks,
    Credit,
    End,
    FrameError,
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
from deferpost.pools.launch import WorkerProtocol, launch
from deferpost.pools.output import OutputReader
from deferpost.pools.pipebody import PipeBody
from deferpost.pools.resident import resident_bytes
from deferpost.pools.spawn import describe_exit
from deferpost.pools.stackpipe import StackReader
from deferpost.pools.streams import ChunkBuffer, CreditGiver

__all__ = ["Owner", "Stage", "Worker"]

_log = Logger(namespace="deferpost.worker")

#: Seconds that a worker's socket may stay open after the worker has ended.
_END_PATIENCE = 1.0

#: Seconds between two SIGTERM to a worker that is to go: one can come at a moment at which Python
#: swallows what it raises.
_REMINDER_PAUSE = 1.0


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

    def worker_leaving(self, worker: Worker) -> None:
        """It takes no job any more; the one that it may have goes on."""

    def worker_gone(self, worker: Worker, how: str) -> None:
        """Its process has ended; its job, if it had one, has been ended."""

    def job_ended(self, job: Job, event: Event, reason: Reason | None = None) -> None:
        """The code of its job has ended."""

    def job_lost(self, job: Job, how: str) -> None:
        """It is lost, with a job of whose answer nothing was given away: the job may run again."""


class Worker:
    """A worker process and its socket.  For the reactor thread.

    :param reactor: the reactor (:class:`IReactorSocket`, :class:`IReactorFDSet`,
        :class:`IReactorTime`).
    :param owner: the pool.
    :param name: by which it is told from the other workers of its pool.
    :param set_up: the first message to it.
    :param kill_grace: seconds between SIGTERM and SIGKILL.
    :param set_up_timeout: seconds that its set-up may take.
    :raises OSError: the system cannot start one more process.

    :ivar stage: where it stands.
    :ivar jobs_done: jobs that it has ended.
    :ivar was_ready: whether its set-up ever succeeded.
    :ivar was_told_to_go: whether its end was asked for.
    :ivar set_up_error: the traceback of its set-up, if that failed, or why it was given up.
    :ivar is_due: whether its pool is going to replace it.
    :ivar has_place: whether its job counts among those that its pool runs at once.
    """

    def __init__(
        self,
        reactor: Any,
        owner: Owner,
        name: str,
        set_up: SetUp,
        *,
        kill_grace: float,
        set_up_timeout: float,
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self.name = name
        self._kill_grace = kill_grace
        self._set_up_timeout = set_up_timeout
        self._started = reactor.seconds()
        self.is_due = False
        self.has_place = False
        self.stage = Stage.STARTING
        self.job: Job | None = None
        self.jobs_done = 0
        self.was_ready = False
        self.was_told_to_go = False
        self.set_up_error: str | None = None
        self._asking: Deferred[None] | None = None  # whether its job may begin
        self._has_begun = False  # its job
        self._stream: ChunkBuffer | None = None
        self._arriving: PipeBody | None = None
        self._descriptors: deque[int] = deque()
        self._kill_timer: Any = None
        self._end_timer: Any = None
        self._reminder: Any = None
        self._exit: int | None = None
        self._protocol = WorkerProtocol(self)
        try:
            launched = launch(reactor, self._protocol, self._exited)
        except BaseException:
            self.stage = Stage.GONE  # so that the end of its process is nobody's concern
            raise
        self._connected = True
        self._process = process = launched.process
        self._lifeline = launched.lifeline
        self._output = OutputReader(reactor, launched.output, self._printed)
        self._stacks = StackReader(reactor, launched.stack, lambda: process.signal(signal.SIGUSR1))
        self._set_up_timer: Any = reactor.callLater(set_up_timeout, self._too_slow)
        self._protocol.transport.write(encode_frame(set_up))

    def _too_slow(self) -> None:
        """Its set-up has taken too long."""
        if self.stage is Stage.STARTING:
            self.set_up_error = f"its set-up took longer than {self._set_up_timeout:g} s"
            self._leave(0.0)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return float(self._reactor.seconds() - self._started)

    def status(self, now: float) -> WorkerStatus:
        """How it is.

        :param now: the time, in seconds of the monotonic clock.
        """
        job = self.job
        return WorkerStatus(
            name=self.name,
            pid=self.pid,
            stage=self.stage.value,
            job=None if job is None else job.key,
            job_id=None if job is None else job.head.id,
            route=None if job is None else job.head.route,
            run_seconds=0.0 if job is None else job.run_so_far(now),
            canceling=job is not None and job.canceled,
            jobs_done=self.jobs_done,
            age=self.age,
            memory=resident_bytes(self.pid),
        )

    def stack(self) -> Deferred[str]:
        """Where its job stands; see :meth:`deferpost.interfaces.IInspectable.stack`."""
        return self._stacks.request()

    # What the pool asks.

    def run(self, job: Job, now: float) -> None:
        """Run a job; it is idle."""
        self.stage = Stage.BUSY
        self.job = job
        job.worker = self.name
        job.started = now
        job.happened(Event.START)
        self._has_begun = False
        if job.permit is None:
            self._begin(job)
        else:
            self._asking = asking = job.permit(job)
            asking.addCallbacks(
                self._permitted, self._refused, callbackArgs=(job,), errbackArgs=(job,)
            )

    def _permitted(self, _: object, job: Job) -> None:
        """Begin with its job, unless that was stopped, or the process lost, while it waited."""
        if self.job is not job:
            return
        self._asking = None
        if job.state is not State.RUNNING:
            error = NotStarted("it was stopped before its code began")
            self._reactor.callLater(0, self._not_sent, job, error)
        elif self.stage is Stage.BUSY:
            self._begin(job)

    def _refused(self, failure: Failure, job: Job) -> None:
        """Its job may not begin."""
        if self.job is job:
            self._asking = None
            # In a turn of its own: the pool is about to hear that this worker is busy.
            self._reactor.callLater(0, self._not_sent, job, failure.value)

    def withdraw(self) -> bool:
        """Let go of its job, which is to end, if its code has not begun; it ends in a later turn.

        :returns: whether that is so: else the process has to go.
        """
        asking, self._asking = self._asking, None
        if asking is None:
            return False
        if self.job is not None:
            self.job.rung = Rung.REMOVED
        asking.cancel()
        return True

    def _begin(self, job: Job) -> None:
        """Send its job."""
        self._has_begun = True
        body = job.body
        transport = self._protocol.transport
        if type(body) is io.BytesIO:
            self._send(encode_frame(Run(job.head, body.read())))
            if job.retries:
                body.seek(0)  # it may be needed again
            else:
                body.close()
        elif IArrivingBody.providedBy(body):
            self._run_arriving(job)
        else:
            transport.sendFileDescriptor(body.fileno())
            transport.write(encode_frame(Run(job.head, None)))

    def _send(self, frame: bytes) -> None:
        """Send a frame at once; the transport holds nothing.

        An idle worker has read all, and one that streams has, but for credit.  By the transport it
        would leave in the next turn of the reactor.
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
            # In a turn of its own, as above.
            self._reactor.callLater(0, self._not_sent, job, StorageFailed(str(error)))
            return
        transport = self._protocol.transport
        transport.sendFileDescriptor(arriving.reading_end)
        transport.write(encode_frame(Run(job.head, None, True)))
        arriving.begin()

    def _not_sent(self, job: Job, error: Exception) -> None:
        if self.job is job:
            self._ended(job, error)

    def terminate(self) -> None:
        """SIGTERM now and SIGKILL after the grace; it takes no job any more."""
        if self._leave(self._kill_grace):
            self.was_told_to_go = True
            if self.job is not None:
                self.job.rung = Rung.TERMINATED
            self._remind()

    def _remind(self) -> None:
        """SIGTERM, now and each second until it has ended."""
        if self._exit is None:
            self._process.signal(signal.SIGTERM)
            self._reminder = self._reactor.callLater(_REMINDER_PAUSE, self._remind)

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
        self._owner.worker_leaving(self)
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
        elif isinstance(message, Chunks):
            if self._stream is not None and job.state is State.RUNNING:
                self._stream.deliver_all(message.pieces)
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
            told = message.progress
            job.report(told.done, told.total, told.message)
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
            self._set_up_timer.cancel()
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
        giver = CreditGiver(partial(self._give_credit, job))
        self._stream = ChunkBuffer(taken=giver.taken, abandoned=job.cancel)
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
        if self._stacks.asked:
            self._stacks.fail("the job has ended")
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

    def _give_credit(self, job: Job, amount: int) -> None:
        """The reader of a job's stream has taken so much; the job may have ended meanwhile."""
        if self.job is job and self._connected:
            # Of these, few can be unread: what is used up is waited for.
            self._send(encode_frame(Credit(amount)))

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
        if self.stage is Stage.GONE:
            return  # it was given up while it was started
        self._exit = code
        if self.stage is Stage.IDLE:
            self.stage = Stage.LEAVING
        if self._connected:
            # What it sent at last may still be unread.
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
        for timer in (self._set_up_timer, self._kill_timer, self._end_timer, self._reminder):
            if timer is not None and timer.active():
                timer.cancel()
        how = describe_exit(code)
        for descriptor in self._lifeline:
            os.close(descriptor)
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._output.drain()
        self._output.close()
        self._stacks.close()
        if self.job is not None and not self._has_begun:
            self._asking = None
            self._ended(self.job, NotStarted(f"its worker was lost before: {how}"))
        elif self.job is not None and not self._runs_again(self.job, how):
            self._ended(self.job, WorkerLost(how))
        self._owner.worker_gone(self, how)

    def _runs_again(self, job: Job, how: str) -> bool:
        """Whether its job goes back to the pool: nothing was given away, and its body is there."""
        if (
            job.retries == 0
            or job.state is not State.RUNNING
            or job.answer is None
            or self._arriving is not None
        ):
            return False
        self.job = None
        self.jobs_done += 1
        self._owner.job_lost(job, how)
        return True


def _http_error(message: Refused) -> HTTPError:
    return HTTPError(
        message.status,
        message.detail,
        title=message.title,
        type=message.problem_type,
        headers=message.headers,
        extensions=msgspec.json.decode(message.extensions),
    )
