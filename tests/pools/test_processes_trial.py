"""What is particular to the pool of worker processes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from deferpost.errors import DeclarationError, PoolBroken
from deferpost.model import Progress, Reason, Rung, State
from deferpost.testing.clocked import ClockedReactor
from deferpost.testing.handlers import large_body
from tests.pools import process_handlers
from tests.pools.process_suite import ProcessSuite, is_alive

#: The folder of the checkout, for programs that the tests start.
CHECKOUT = Path(__file__).resolve().parents[2]


class StartsReactor:
    """The real reactor, which notes of each worker whether it was started inside of an event."""

    def __init__(self) -> None:
        self.starts: list[bool] = []

    def adoptStreamConnection(self, *args: Any) -> None:
        """Note, and pass on."""
        frames = {frame.name for frame in traceback.extract_stack()}
        self.starts.append(not frames.isdisjoint({"doRead", "_doReadOrWrite"}))
        reactor.adoptStreamConnection(*args)  # type: ignore[attr-defined]  # the module stands for it

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class ForkingTests(ProcessSuite, TestCase):
    """A process that a handler forks is not the worker."""

    came_back = "a process that this handler has forked came back from it"

    async def test_answers_are_the_workers(self) -> None:
        """The process that comes back from the handler answers nobody, least of all another."""
        self.start_with()
        self.assertEqual(await self.content_of(self.submit("fork")), b"worker")
        held = self.submit("hold")
        await self.begun(held)
        self.open_gate("fork")
        await self.until(lambda: self._said(self.came_back), "the process is ended")
        self.assertEqual(held.outcomes, [])
        self.open_gate()
        self.assertEqual(await self.content_of(held), held.job.head.id.encode())
        self.assertEqual(self.pool.status().restarts, 0)

    async def test_streams_are_the_workers(self) -> None:
        """The process that goes on with the stream adds nothing to it."""
        self.start_with()
        self.assertEqual(await self.content_of(self.submit("fork_stream")), b"worker")
        self.assertTrue(self._said(self.came_back))
        self.assertEqual(self.pool.status().restarts, 0)

    async def test_sigterm_ends_it(self) -> None:
        """SIGTERM ends a forked process, as code expects that has never heard of workers."""
        self.start_with()
        self.assertEqual(await self.content_of(self.submit("end_a_child")), b"-15")

    def _said(self, text: str) -> bool:
        return any(text in line for line in self.log)


class LostWorkerTests(ProcessSuite, TestCase):
    """A worker that ends by itself loses its job, and nothing else."""

    async def test_exit_codes(self) -> None:
        """However a worker ends, exit code 0 included, its job was not done; it is replaced."""
        self.start_with()
        endings = [
            ("leave", 0, "exit code 0"),
            ("leave", 1, "exit code 1"),
            ("leave_politely", 0, "exit code 0"),
            ("leave_politely", 7, "exit code 7"),
            ("signal_itself", signal.SIGKILL, "signal 9 (SIGKILL)"),
            ("signal_itself", signal.SIGTERM, "exit code 143"),
        ]
        for restarts, (handler, number, how) in enumerate(endings, start=1):
            pid = await self.pid_of_worker()
            sent = self.submit(handler, number=int(number))
            self.assertEqual(await self.lost(sent), how)
            self.assertFalse(is_alive(pid))
            self.assertNotEqual(await self.content_of(self.submit("pid")), b"%d" % pid)
            self.assertEqual(self.pool.status().restarts, restarts)
            self.assertTrue(any(f"worker {pid} of pool tested was lost" in x for x in self.log))

    async def test_others_go_on(self) -> None:
        """The jobs of other workers, and those that wait, are not touched."""
        self.start_with(size=2)
        held = self.submit("hold")
        await self.running(1)
        lost = self.submit("leave", number=3)
        waiting = [self.submit("echo", b"%d" % n) for n in range(5)]
        await self.lost(lost)
        for n, sent in enumerate(waiting):
            self.assertEqual(await self.content_of(sent), b"%d" % n)
        self.open_gate()
        await self.end_of(held, State.SUCCEEDED)

    async def test_idle_worker(self) -> None:
        """A worker that ends while it has no job is replaced."""
        self.start_with()
        pid = await self.pid_of_worker()
        os.kill(pid, signal.SIGKILL)
        await self.until(lambda: self.pool.worker_pids() not in ([pid], []), "it is replaced")
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")
        self.assertEqual(self.pool.status().restarts, 1)

    async def test_subprocesses_end_with_it(self) -> None:
        """What a handler has started ends with its worker."""
        self.start_with()
        sent = self.submit("start_subprocess")
        await self.until(lambda: self.lines("subprocess"), "the subprocess was started")
        (pid,) = map(int, self.lines("subprocess"))
        self.assertTrue(is_alive(pid))
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        await self.until(lambda: not is_alive(pid), "the subprocess has ended")

    async def test_started_outside_of_events(self) -> None:
        """The worker that follows is started when no event is at hand that could be for it.

        Its descriptors have the numbers of those that were closed, and the reactor may have more
        events for these in the same turn.
        """
        noting = StartsReactor()
        self.start_with(reactor=noting)
        for _ in range(3):
            await self.lost(self.submit("leave", number=1))
        await self.content_of(self.submit("echo"))
        self.assertEqual(noting.starts, [False] * 4)

    async def test_child_that_stays(self) -> None:
        """A child that the handler has left behind ends with the worker, and harms no other."""
        self.start_with()
        for round in range(1, 7):
            sent = self.submit("leave_a_child", session="shared")
            self.assertEqual(await self.lost(sent), "exit code 3")
            self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")
            self.assertEqual(self.pool.status().restarts, round)
        await self.until(lambda: not any(map(is_alive, map(int, self.lines("child")))))

    async def test_socket_that_stays_open(self) -> None:
        """A child in a session of its own, which has the socket, does not hold up the end."""
        self.start_with()
        self.addCleanup(self._kill_child)
        sent = self.submit("leave_a_child", session="own")
        self.assertEqual(await self.lost(sent), "exit code 3")
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")

    def _kill_child(self) -> None:
        for pid in map(int, self.lines("child")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class MisunderstoodWorkerTests(ProcessSuite, TestCase):
    """A worker that does not speak the language is killed."""

    async def test_garbage(self) -> None:
        """Bytes that are no frame end the worker; nothing that follows them is believed."""
        self.start_with()
        for milliseconds in (0, 20, 0, 20):
            sent = self.submit("garble", milliseconds=milliseconds)
            self.assertEqual(await self.lost(sent), "signal 9 (SIGKILL)")
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")
        self.assertTrue(any("is not understood" in line for line in self.log))

    async def test_file_that_does_not_come(self) -> None:
        """A reply whose file is missing ends the worker."""
        self.start_with()
        self.assertEqual(await self.lost(self.submit("promise_a_file")), "signal 9 (SIGKILL)")
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")


class ToldAgainTests(ProcessSuite, TestCase):
    """A worker is told to stop until it does, and is left alone while it cleans up."""

    async def test_what_python_swallows(self) -> None:
        """SIGTERM that comes while Python swallows exceptions ends the handler all the same."""
        self.start_clocked_pool_with()
        for handler in ("swallow", "swallow_in_loop"):
            sent = self.submit(handler)
            await self.until(lambda: self.lines("deleting"), "nothing can be raised now")
            sent.job.cancel(Reason.REQUESTED)
            await self.until(lambda: self.lines("swallowed"), "it goes on")
            self.assertEqual(sent.state, State.CANCELING)
            self.pass_time(1.1)
            await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
            self.assertEqual(sent.job.rung, Rung.TERMINATED)
            self.assertEqual(self.lines("cleaned"), [""])
            for name in ("deleting", "swallowed", "cleaned"):
                (self.folder / name).unlink()

    async def test_while_it_cleans_up(self) -> None:
        """A handler that cleans up is not disturbed, however often it is told to stop."""
        self.start_clocked_pool_with()
        sent = self.submit("clean_slowly", gate="clean")
        await self.begun(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.until(lambda: self.lines("cleaning"), "it cleans up")
        for _ in range(5):
            self.pass_time(1.1)
        self.assertEqual(self.lines("cleaned"), [])
        self.open_gate("clean")
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual((sent.job.rung, self.lines("cleaned")), (Rung.TERMINATED, [""]))


class KillTests(ProcessSuite, TestCase):
    """A worker that does not end when it is told is killed after the grace."""

    kill_grace = 0.2

    async def test_deaf_worker(self) -> None:
        """A handler that does not hear SIGTERM gets SIGKILL; other jobs are not touched."""
        self.start_with(size=2)
        held, sent = self.submit("hold"), self.submit("deaf")
        await self.until(lambda: self.lines("deaf"), "it does not hear")
        pids = set(self.pool.worker_pids())
        sent.job.cancel(Reason.CLIENT_DISCONNECTED)
        self.assertEqual((sent.state, sent.job.rung), (State.CANCELING, Rung.TERMINATED))
        self.assertEqual(self.pool.status().stuck, 1)
        await self.end_of(sent, State.CANCELED, Reason.CLIENT_DISCONNECTED)
        self.assertEqual(sent.job.rung, Rung.KILLED)
        await self.until(lambda: len(self.pool.worker_pids()) == 2, "it is replaced")
        self.assertEqual(len(pids & set(self.pool.worker_pids())), 1)
        self.assertEqual(held.outcomes, [])
        self.open_gate()
        await self.end_of(held, State.SUCCEEDED)

    async def test_stubborn_handler(self) -> None:
        """A handler that goes on when it was told is killed, too."""
        self.start_with()
        sent = self.submit("hold_on")
        await self.begun(sent)
        sent.job.cancel(Reason.REQUESTED)
        await self.end_of(sent, State.CANCELED, Reason.REQUESTED)
        self.assertEqual(sent.job.rung, Rung.KILLED)

    async def test_closed_descriptors(self) -> None:
        """A handler that closes what it has not opened loses its worker; the log says why."""
        self.start_with()
        self.assertEqual(await self.lost(self.submit("strip")), "exit code 1")
        self.assertTrue(any("has closed descriptors that it had not opened" in x for x in self.log))
        self.assertFalse(any("Traceback" in line for line in self.log))
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")

    async def test_closed_socket(self) -> None:
        """A worker that has closed its socket is of no use any more."""
        self.start_with()
        sent = self.submit("hang_up")
        self.assertEqual(await self.lost(sent), "signal 9 (SIGKILL)")
        self.assertEqual(await self.content_of(self.submit("echo", b"well")), b"well")

    async def test_stop_is_in_a_hurry(self) -> None:
        """A stop waits for its patience and not for the grace."""
        self.kill_grace = 3600.0
        self.start_with()
        sent = self.submit("deaf")
        await self.until(lambda: self.lines("deaf"), "it does not hear")
        self.assertEqual(await self.stop_pool(patience=0.05), 0)
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        self.assertEqual(sent.job.rung, Rung.KILLED)

    async def test_stop_while_a_worker_starts(self) -> None:
        """A worker that is still being set up is ended by a stop, whatever it does."""
        self.set_flag(self.folder / "starts")
        self.start_with({"never": process_handlers.NeverReady})
        sent = self.submit("never")
        await self.until((self.folder / "starts").exists, "the worker starts")
        (pid,) = self.pool.worker_pids()
        self.assertFalse(self.pool.status().ready)
        self.assertEqual(await self.stop_pool(patience=0.05), 0)
        await self.end_of(sent, State.CANCELED, Reason.SHUTDOWN)
        self.assertFalse(is_alive(pid))

    async def test_no_process_is_left(self) -> None:
        """No worker is left of a pool that has stopped."""
        self.start_with(size=3)
        await self.until(lambda: self.pool.status().ready, "the pool is ready")
        pids = self.pool.worker_pids()
        self.assertEqual(len(pids), 3)
        await self.stop_pool()
        self.assertEqual([pid for pid in pids if is_alive(pid)], [])
        self.assertEqual(self.pool.worker_pids(), [])


class SetUpTests(ProcessSuite, TestCase):
    """Workers that cannot be set up are tried again, after a growing pause."""

    def setUp(self) -> None:
        """See :class:`PoolSuite`."""
        super().setUp()
        self.flag = self.folder / "flag"
        self.set_flag(self.flag)

    def _is_broken(self) -> bool:
        try:
            self.submit("picky").job.cancel(Reason.REQUESTED)
        except PoolBroken as error:
            self.assertGreaterEqual(error.retry_after, 1)
            return True
        return False

    async def test_broken_until_it_is_mended(self) -> None:
        """While no worker can be set up, jobs are refused; when one can, they run."""
        self.start_with({"picky": process_handlers.Picky}, size=2)
        waiting = self.submit("picky")
        self.assertEqual(await self.lost(waiting), "no worker could be set up")
        self.assertTrue(self._is_broken())
        self.assertFalse(self.pool.status().ready)
        self.assertTrue(any("this worker cannot be set up" in line for line in self.log))
        self.flag.touch()
        await self.until(lambda: self.pool.status().ready, "a worker is ready")
        self.assertEqual(await self.content_of(self.submit("picky")), b"set up")

    async def test_pause_grows(self) -> None:
        """Each attempt that comes to nothing doubles the pause before the next."""
        self._clocked = ClockedReactor(reactor)
        self.start_with({"picky": process_handlers.Picky}, reactor=self._clocked)
        for pause in (0.5, 1.0, 2.0):
            await self.until(lambda: not self.pool.worker_pids(), "the attempt has failed")
            self.pass_time(pause - 0.1)
            self.assertEqual(self.pool.worker_pids(), [])
            self.pass_time(0.2)
            self.assertEqual(len(self.pool.worker_pids()), 1)
        await self.until(lambda: not self.pool.worker_pids(), "the attempt has failed")
        self.flag.touch()
        self.pass_time(4.1)
        await self.until(lambda: self.pool.status().ready, "a worker is ready")
        self.assertFalse(self._is_broken())

    async def test_killed_while_it_starts(self) -> None:
        """A worker that is killed before it is ready costs those that wait a pause, and no more."""
        self.start_with({"picky": process_handlers.Picky})
        self.flag.touch()
        waiting = self.submit("picky")
        (pid,) = self.pool.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await self.until(lambda: self.pool.worker_pids() != [pid], "its end was heard")
        self.assertFalse(self._is_broken())
        self.assertEqual(await self.content_of(waiting), b"set up")

    def test_handler_without_a_name(self) -> None:
        """A handler that a worker could not find is refused before anything is started."""

        def local(call: object) -> None:
            """Inside of a function."""

        with self.assertRaises(DeclarationError):
            self.start_with({"local": local})


class OutputTests(ProcessSuite, TestCase):
    """What handlers print is in the log, with the ids of their jobs."""

    async def test_every_way_to_print(self) -> None:
        """Lines of every origin, unfinished and undecodable ones too, are logged with the id."""
        self.start_with()
        sent = self.submit("talk")
        self.assertEqual(await self.content_of(sent), b"said")
        said = [line for line in self.log if line.startswith("[talk-1] ")]
        self.assertEqual(
            said,
            [
                "[talk-1] a printed line",
                "[talk-1] to standard error",
                "[talk-1] written \\xff\\xfe raw",
                "[talk-1] by a subprocess",
                "[talk-1] no end of line",
            ],
        )

    async def test_one_job_after_another(self) -> None:
        """What is printed counts for the job that printed it."""
        self.start_with()
        jobs = [self.submit("talk") for _ in range(3)]
        for sent in jobs:
            await self.answer_of(sent)
        for sent in jobs:
            lines = [line for line in self.log if line.startswith(f"[{sent.job.head.id}] ")]
            self.assertEqual(len(lines), 5)

    async def test_closed_output(self) -> None:
        """A handler that closes what it prints to has answered all the same."""
        self.start_with()
        for _ in range(2):
            self.assertEqual(await self.content_of(self.submit("close_output")), b"closed")


class CrossingTests(ProcessSuite, TestCase):
    """Bodies and replies cross to a worker and back."""

    async def test_body_in_a_file(self) -> None:
        """A body in a file crosses as a descriptor, and is read from its beginning."""
        self.start_with()
        body = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the pool closes it)
        body.write(large_body(1_000_000))
        sent = self.submit("where", body)
        self.assertEqual(await self.content_of(sent), b'{"begins":0,"bytes":1000000}')

    async def test_large_reply_as_a_file(self) -> None:
        """A large reply comes as a file, so that its worker is free before it is read."""
        self.start_with()
        sent = self.submit("large", size=1_000_000)
        answer = await self.answer_of(sent)
        self.assertIsInstance(answer.body, io.FileIO)
        await self.end_of(sent, State.SUCCEEDED)
        self.assertEqual(await self.content_of(self.submit("echo", b"free")), b"free")
        await self.stop_pool()
        self.assertEqual(await self.content_of(sent), large_body(1_000_000))

    async def test_small_reply_in_memory(self) -> None:
        """A small reply comes in memory."""
        self.start_with()
        sent = self.submit("large", size=1000)
        self.assertIsInstance((await self.answer_of(sent)).body, bytes)

    async def test_file_that_is_gone(self) -> None:
        """A file that a handler returns may be gone from its folder by then."""
        self.start_with()
        self.assertEqual(await self.content_of(self.submit("kept_file")), b"kept")

    async def test_no_room_for_files(self) -> None:
        """Where no file can be made, a large reply comes as a stream."""
        self.start_with(directory=str(self.folder / "missing"))
        sent = self.submit("large", size=3_000_000)
        self.assertIsNone((await self.answer_of(sent)).length)
        self.assertEqual(await self.content_of(sent), large_body(3_000_000))
        await self.end_of(sent, State.SUCCEEDED)

    async def test_progress_in_a_hurry(self) -> None:
        """Of much progress in a row the last is kept, also when another thread told it."""
        self.start_with()
        sent = self.submit("report_often")
        await self.answer_of(sent)
        self.assertEqual(sent.job.progress, Progress(10_000.0, 10_000.0, "all"))


class ScriptTests(TestCase):
    """An app that is a script."""

    async def test_handler_in_a_script(self) -> None:
        """Handlers of the script that was started, which is ``__main__``, run in workers."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        script = Path(folder.name) / "script.py"
        script.write_text(textwrap.dedent(_SCRIPT), encoding="utf-8")
        out, err, code = await getProcessOutputAndValue(
            sys.executable, [str(script)], {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        )
        self.assertEqual(
            (out.decode(), err.decode(), code), ("200 __deferpost_main__ True\n", "", 0)
        )


_SCRIPT = """
    import os

    from twisted.internet import reactor

    from deferpost import DeferPost, ProcessPool
    from deferpost.testing import PostClient

    PARENT = os.getpid()


    def where(call):
        return f"{__name__} {os.getppid() == int(call.args['parent'][0])}"


    if __name__ == "__main__":
        client = PostClient(DeferPost(where, pool=ProcessPool(size=1)))

        def post():
            answered = client.start(f"/?parent={PARENT}").wait()
            answered.addCallback(lambda response: print(response.status, response.text))
            answered.addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(post)
        reactor.run()
"""
