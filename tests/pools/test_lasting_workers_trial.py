"""Worker processes that last: replaced in time, held to limits, tried again, looked into."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from deferpost import App, ProcessPool
from deferpost.errors import HandlerFailed, PoolBroken, WorkerLost
from deferpost.interfaces import IInspectable
from deferpost.model import Answer, CallHead, Reason, Rung, State, WorkerStatus
from deferpost.pools.stackpipe import ANSWER_SECONDS
from deferpost.runtime import Runtime
from deferpost.testing.handlers import large_body
from deferpost.testing.suite import Reader, Sent
from tests.pools import arriving_handlers, process_handlers
from tests.pools.process_suite import ProcessSuite, is_alive

MIB = 2**20


class RecyclingTests(ProcessSuite, TestCase):
    """A worker is replaced when it has served for long enough, and nobody notices."""

    options: Mapping[str, Any] = MappingProxyType({"max_jobs": 5})

    async def test_by_jobs(self) -> None:
        """Jobs go on without a break while worker after worker is replaced."""
        self.start_with(size=2)
        pids: set[bytes] = set()
        give_up = time.monotonic() + 20.0  # a new worker takes its time on a busy machine
        while len(pids) < 4 and time.monotonic() < give_up:
            jobs = [self.submit("pid") for _ in range(3)]
            pids |= {await self.content_of(sent) for sent in jobs}
            self.assertEqual({sent.state for sent in jobs}, {State.SUCCEEDED})
        self.assertEqual(len(pids), 4)
        await self.until(lambda: len(self.pool.worker_pids()) == 2, "the old ones are gone")
        self.assertTrue(any("is to be replaced: after 5 jobs" in line for line in self.log))
        self.assertFalse(any("was lost" in line for line in self.log))

    async def test_never_more_jobs_than_places(self) -> None:
        """The worker that follows gets no job before the place of the old one is free."""
        self.options = {"max_jobs": 1}
        self.start_with(size=1)
        await self.answer_of(self.submit("echo"))
        held = self.submit("hold")
        await self.until(lambda: len(self._stages()) == 2 and "idle" in self._stages())
        waiting = self.submit("echo")
        self.assertEqual((waiting.state, self.pool.status().running), (State.QUEUED, 1))
        self.open_gate()
        await self.answer_of(held)
        await self.answer_of(waiting)

    def _stages(self) -> list[str]:
        return [worker.stage for worker in self.pool.workers()]


class WarmTests(ProcessSuite, TestCase):
    """A spare worker takes the place of one that has to go."""

    options: Mapping[str, Any] = MappingProxyType({"warm": 1})

    async def test_a_kill_costs_no_wait(self) -> None:
        """When a job is canceled, the next has begun before the worker of the first has ended."""
        self.start_with()
        await self.until(lambda: self._idle() == 2, "the spare is set up")
        stuck = self.submit("clean_slowly", gate="clean")
        await self.begun(stuck)
        waiting = self.submit("hold")
        self.assertEqual(self.pool.status().size, 1)
        self.assertEqual(waiting.state, State.QUEUED)
        stuck.job.cancel(Reason.REQUESTED)
        self.assertEqual(waiting.state, State.RUNNING)
        self.assertEqual(stuck.state, State.CANCELING)
        self.open_gate("clean")
        await self.end_of(stuck, State.CANCELED, Reason.REQUESTED)
        self.open_gate()
        await self.end_of(waiting, State.SUCCEEDED)
        await self.until(lambda: self._idle() == 2, "there is a spare again")

    async def test_a_loss_costs_no_wait(self) -> None:
        """When a worker is lost, the next job begins in the spare one, and runs alone."""
        self.start_with()
        await self.until(lambda: self._idle() == 2, "the spare is set up")
        lost, held = self.submit("leave", number=3), self.submit("hold")
        waiting = self.submit("pid")
        await self.lost(lost)
        await self.begun(held)
        await self.until(lambda: self._idle() == 1, "there is a spare again")
        self.assertEqual(waiting.state, State.QUEUED)
        self.open_gate()
        await self.answer_of(waiting)

    def _idle(self) -> int:
        return sum(worker.stage == "idle" for worker in self.pool.workers())


class LimitTests(ProcessSuite, TestCase):
    """The kernel holds a worker to its limits."""

    async def test_memory(self) -> None:
        """A handler that wants too much memory gets MemoryError, and its worker goes on."""
        self.options = {"memory_limit": 512 * MIB}
        self.start_with()
        pid = await self.pid_of_worker()
        error = await self.error_of(self.submit("hoard", bytes=1024 * MIB), HandlerFailed)
        self.assertIn("MemoryError", error.traceback)
        self.assertEqual(await self.content_of(self.submit("hoard", bytes=16 * MIB)), b"16777216")
        self.assertEqual(self.pool.worker_pids(), [pid])

    async def test_cpu(self) -> None:
        """A call that uses too much CPU time costs its worker, and the log says why."""
        self.options = {"cpu_limit": 0.2}
        self.start_with()
        how = await self.lost(self.submit("burn"))
        self.assertEqual(how, "signal 24 (SIGXCPU): it has used up its CPU time")
        self.assertTrue(any(f"was lost: {how}" in line for line in self.log))
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")

    async def test_set_up_in_time(self) -> None:
        """A worker whose set-up does not end in time is killed, and counts as failed."""
        self.options = {"set_up_timeout": 5.0}
        self.set_flag(self.folder / "flag")
        self.start_clocked_pool_with({"slow": process_handlers.Slow})
        waiting = self.submit("slow")
        (pid,) = self.pool.worker_pids()
        self.pass_time(4.9)
        self.assertTrue(is_alive(pid))
        self.pass_time(0.2)
        self.assertEqual(await self.lost(waiting), "no worker could be set up")
        self.assertFalse(is_alive(pid))
        self.assertFalse(self.pool.status().ready)
        with self.assertRaises(PoolBroken):
            self.submit("slow")
        self.assertTrue(any("set-up took longer than 5 s" in line for line in self.log))
        told = "came to nothing: 1; the next one is started in 0.5 s"
        self.assertTrue(any(told in line for line in self.log))
        (self.folder / "flag").touch()
        self.pass_time(0.6)
        await self.until(lambda: self.pool.status().ready, "a worker is ready")
        self.pass_time(10.0)
        self.assertEqual(await self.content_of(self.submit("slow")), b"set up")


class RetryTests(ProcessSuite, TestCase):
    """A job whose worker was lost runs again, where its route says so."""

    async def test_until_it_works(self) -> None:
        """The job runs again in another worker, with its whole body; there is one answer."""
        self.start_with()
        for body in (b"in memory", large_body(300_000)):
            kind: Any = body if len(body) < 1000 else self._file(body)
            sent = self.submit("lose", kind, retries=2, tries=3)
            content = await self.content_of(sent)
            self.assertIn(b'"body":"' + body + b'"', content)
            await self.end_of(sent, State.SUCCEEDED)
            self.assertEqual(len(set(self.lines("tries"))), 3)
            self.assertEqual((sent.job.retries, sent.job.body.closed), (0, True))
            lines = [x for x in self.log if x.startswith(f"[{sent.job.head.id}] /lose: its worker")]
            self.assertEqual([line[-15:] for line in lines], ["retries left: 1", "retries left: 0"])
            (self.folder / "tries").unlink()

    def _file(self, body: bytes) -> Any:
        path = self.folder / "body"
        path.write_bytes(body)
        return open(path, "rb", buffering=0)

    async def test_until_there_are_none_left(self) -> None:
        """When it was tried often enough, the job has failed."""
        self.start_with()
        sent = self.submit("lose", retries=1, tries=100)
        self.assertEqual(await self.lost(sent), "exit code 9")
        self.assertEqual(len(self.lines("tries")), 2)

    async def test_before_all_others(self) -> None:
        """The job that runs again comes before those that have waited meanwhile."""
        self.start_with()
        first = self.submit("lose", retries=1, tries=2)
        second = self.submit("lose", tries=3)
        await self.content_of(first)
        self.assertIn(b'"tries":3', await self.content_of(second))

    async def test_not_after_its_answer_began(self) -> None:
        """A job of whose answer something has left is not run again."""
        self.start_with()
        sent = self.submit("lose_stream", retries=5, reader=Reader)
        reader = await self.reader_of(sent)
        await self.end_of(sent, State.FAILED, Reason.WORKER_LOST)
        self.assertEqual(len(self.lines("tries")), 1)
        self.assertIsInstance(reader.error, WorkerLost)

    async def test_not_what_was_canceled_or_raised(self) -> None:
        """What was canceled, or has raised something, is not run again."""
        self.kill_grace = 0.0
        self.start_with()
        sent = self.submit("deaf", retries=5)
        await self.until(lambda: self.lines("deaf"), "it does not hear")
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(len(self.lines("deaf")), 1)
        failed = self.submit("fail", retries=5)
        await self.error_of(failed, HandlerFailed)
        self.assertEqual(failed.job.retries, 5)

    async def test_total_time_counts_on(self) -> None:
        """A job that waits to run again expires when its whole time is up."""
        self.start_clocked_pool_with()
        sent = self.submit("lose", retries=5, tries=100, start_by=1.0, finish_by=20.0)
        await self.until(lambda: sent.job.retries == 4, "its worker was lost")
        self.assertEqual((sent.state, sent.job.started), (State.QUEUED, None))
        # The worker was lost before its first job: the next one is started in a moment.
        self.pass_time(25.0)
        await self.end_of(sent, State.EXPIRED, Reason.DEADLINE_TOTAL)

    async def test_a_stop_waits_for_no_retry(self) -> None:
        """A job whose worker is lost while the pool stops does not run again."""
        self.start_with()
        sent = self.submit("hold", retries=5)
        await self.begun(sent)
        await self.stop_pool()
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)


class LookTests(ProcessSuite, TestCase):
    """An operator looks into a pool."""

    async def _stack(self, sent: Sent) -> str:
        stacks: list[Any] = []
        self.pool.stack(sent.job.key).addBoth(stacks.append)
        await self.until(lambda: stacks, "the stack has come")
        self.assertIsInstance(stacks[0], str, repr(stacks[0]))
        return str(stacks[0])

    async def _no_stack(self, waiting: Any) -> str:
        outcomes: list[Any] = []
        waiting.addBoth(outcomes.append)
        await self.until(lambda: outcomes, "the request for the stack is answered")
        outcomes[0].trap(LookupError)
        return str(outcomes[0].value)

    async def test_workers(self) -> None:
        """Each worker is shown with what it does, in an order that stays."""
        self.start_with(size=2)
        self.assertTrue(IInspectable.providedBy(self.pool))
        self.assertEqual({worker.stage for worker in self.pool.workers()}, {"starting"})
        await self.until(self._all_idle, "all are ready")
        await self.answer_of(self.submit("echo"))
        held = self.submit("hold")
        await self.begun(held)
        workers: list[WorkerStatus] = self.pool.workers()
        self.assertEqual([worker.name for worker in workers], ["1", "2"])
        self.assertEqual(sorted(w.pid or 0 for w in workers), self.pool.worker_pids())
        (busy,) = (worker for worker in workers if worker.stage == "busy")
        self.assertEqual(
            (busy.job, busy.job_id, busy.route, busy.canceling),
            (held.job.key, held.job.head.id, "/hold", False),
        )
        self.assertEqual(held.job.worker, busy.name)
        self.assertGreaterEqual(busy.age, busy.run_seconds)
        self.assertEqual(sum(worker.jobs_done for worker in workers), 1)
        self.assertTrue(all(10 * MIB < (w.memory or 0) < 200 * MIB for w in workers))
        held.job.cancel(Reason.REQUESTED)
        (leaving,) = (worker for worker in self.pool.workers() if worker.stage == "leaving")
        self.assertEqual((leaving.job, leaving.canceling), (held.job.key, True))

    def _all_idle(self) -> bool:
        return {worker.stage for worker in self.pool.workers()} == {"idle"}

    async def test_restart(self) -> None:
        """A worker that is restarted is replaced by another; one that is unknown is not."""
        self.start_with()
        pid = await self.pid_of_worker()
        self.assertFalse(self.pool.restart("17"))
        self.assertTrue(self.pool.restart("1"))
        await self.until(
            lambda: [worker.name for worker in self.pool.workers()] == ["2"], "it is replaced"
        )
        self.assertNotEqual(await self.content_of(self.submit("pid")), b"%d" % pid)
        self.assertTrue(any("is to be replaced: on request" in line for line in self.log))

    async def test_stack_of_a_loop(self) -> None:
        """The stack of a job shows the handler's lines, the most recent call last."""
        self.start_with()
        sent = self.submit("dive", depth=3)
        await self.begun(sent)
        lines = (await self._stack(sent)).splitlines()
        self.assertRegex(lines[0], r'^  File ".*/process_handlers\.py", line \d+, in dive$')
        self.assertEqual(lines[1], '    _dive(call, number(call, "depth"))')
        self.assertEqual(sum(line.endswith("in _dive") for line in lines), 4)
        self.assertRegex("\n".join(lines), r'testing/handlers\.py", line \d+, in hold\n')

    async def test_stack_of_a_hang(self) -> None:
        """A handler that never comes to its next line shows where it hangs, again and again."""
        self.start_clocked_pool_with()
        sent = self.submit("hang_in_c")
        await self.begun(sent)
        for _ in range(3):
            self.assertTrue((await self._stack(sent)).endswith("    sum(itertools.repeat(0))\n"))
        sent.job.cancel(Reason.REQUESTED)
        self.assertTrue((await self._stack(sent)).endswith("    sum(itertools.repeat(0))\n"))
        self.pass_time(self.kill_grace + 1.0)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(sent.job.rung, Rung.KILLED)

    async def test_deep_stack(self) -> None:
        """Of a stack that is very deep, the most recent calls are shown."""
        self.start_with()
        sent = self.submit("dive", depth=500)
        await self.begun(sent)
        stack = await self._stack(sent)
        self.assertTrue(stack.startswith("  ...\n"))
        self.assertEqual(stack.count("  File "), 100)

    async def test_many_ask(self) -> None:
        """All who ask at once get the stack, and the job goes on undisturbed."""
        self.start_with(size=2)
        jobs = [self.submit("hold"), self.submit("dive", depth=1)]
        for sent in jobs:
            await self.begun(sent)
        stacks: list[Any] = []
        for sent in jobs * 20:
            self.pool.stack(sent.job.key).addBoth(stacks.append)
        await self.until(lambda: len(stacks) == 40, "all have it")
        self.assertTrue(all("in hold" in stack for stack in stacks))
        self.open_gate()
        for sent in jobs:
            await self.end_of(sent, State.SUCCEEDED)

    async def test_no_stack(self) -> None:
        """Who asks about a job that is not there, or ends meanwhile, is told at once."""
        self.start_with()
        ended = self.submit("echo")
        await self.answer_of(ended)
        self.assertIn("no such job", await self._no_stack(self.pool.stack(ended.job.key)))
        waiting = self.submit("hold"), self.submit("echo")
        self.assertIn("no such job", await self._no_stack(self.pool.stack(waiting[1].job.key)))
        await self.begun(waiting[0])
        (pid,) = self.pool.worker_pids()
        os.kill(pid, signal.SIGSTOP)  # so that it says nothing any more
        asking = self.pool.stack(waiting[0].job.key)
        os.kill(pid, signal.SIGKILL)
        self.assertIn("ended", await self._no_stack(asking))
        await self.error_of(waiting[0], WorkerLost)

    async def test_job_that_ends(self) -> None:
        """Who asks about a job that ends before its process has answered is told."""
        self.start_with()
        sent = self.submit("deaf_to_questions")
        await self.begun(sent)
        asking = self.pool.stack(sent.job.key)
        self.open_gate()
        self.assertEqual(await self._no_stack(asking), "the job has ended")

    async def test_no_answer(self) -> None:
        """A process that does not say where it stands is not waited for."""
        self.start_clocked_pool_with()
        sent = self.submit("deaf_to_questions")
        await self.begun(sent)
        asking = self.pool.stack(sent.job.key)
        self.pass_time(ANSWER_SECONDS + 0.1)
        self.assertIn("does not say", await self._no_stack(asking))


class _NoMore:
    """The real reactor, which cannot take a socket when it is told so."""

    def __init__(self) -> None:
        self.full = False

    def adoptStreamConnection(self, *args: Any) -> None:
        """As the reactor's, where it can."""
        if self.full:
            raise OSError(errno.EMFILE, "Too many open files")
        reactor.adoptStreamConnection(*args)  # type: ignore[attr-defined]  # the module stands for it

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class LaunchTests(ProcessSuite, TestCase):
    """A worker that cannot be started leaves nothing behind."""

    async def test_socket_that_is_not_taken(self) -> None:
        """Where the reactor takes no more sockets, neither process nor descriptor is left."""
        full = _NoMore()
        self.start_with(reactor=full)
        await self.pid_of_worker()
        await self.answer_of(self.submit("echo"))
        children = self._children()
        descriptors = len(os.listdir("/proc/self/fd"))
        full.full = True
        await self.lost(self.submit("leave", number=1))
        await self.until(
            lambda: any("cannot start a worker process" in line for line in self.log), "it is tried"
        )
        await self.until(lambda: not children & self._children(), "the process is gone")
        await self.until(lambda: len(os.listdir("/proc/self/fd")) < descriptors, "all are closed")
        # One more may be there for the moment until it is seen that it cannot be had.
        await self.until(lambda: not self._children() - children, "none is left of the others")
        full.full = False
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")
        self.assertEqual(len(os.listdir("/proc/self/fd")), descriptors)

    def _children(self) -> set[int]:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return set(map(int, file.read().split()))

    async def test_no_descriptors(self) -> None:
        """Where there are no descriptors, those that there were are closed again."""
        made = socket.socketpair

        def refuse() -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socketpair", refuse)
        self.start_with()
        self.assertEqual(self.pool.worker_pids(), [])
        self.patch(socket, "socketpair", made)
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")


class OwnPoolTests(TestCase):
    """A route with a plan of its own has workers of its own."""

    async def _loaded(self, app: App) -> list[str]:
        """Which of two modules of handlers the worker of one of them has loaded."""
        runtime = Runtime(app.routes, app.pools, reactor=reactor, timeout=None, max_body=1000)
        runtime.start()
        route = app.routes[0]
        names = (process_handlers.__name__, arriving_handlers.__name__)
        query = urlencode({"module": names}, doseq=True).encode()
        head = CallHead("id", route.path, "POST", route.path, query, (), None, None)
        _, answered = runtime.dispatcher().submit(route.pool, head, io.BytesIO())
        answer: Answer = await answered
        await runtime.shut_down(0.0)
        loaded: list[str] = json.loads(answer.body)
        return loaded

    async def test_only_its_handlers(self) -> None:
        """Such a worker imports the handlers of its route, and no others."""
        app = App()
        app.post("/asked", pool=ProcessPool(size=1))(process_handlers.asked_for)
        app.post("/other", pool=ProcessPool(size=1))(arriving_handlers.closes)
        self.assertEqual(await self._loaded(app), [process_handlers.__name__])

    async def test_those_of_a_pool(self) -> None:
        """The workers of a pool that routes share import the handlers of all of them."""
        app = App(pools={"both": ProcessPool(size=1)})
        app.post("/asked", pool="both")(process_handlers.asked_for)
        app.post("/other", pool="both")(arriving_handlers.closes)
        self.assertEqual(
            await self._loaded(app), [arriving_handlers.__name__, process_handlers.__name__]
        )
