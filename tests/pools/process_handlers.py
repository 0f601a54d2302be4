"""Handlers that do to their worker process what handlers should not; workers find them by name."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deferpost import Call
from deferpost.pools.frames import RepliedFile, encode_frame
from deferpost.testing.handlers import folder_of, gate_of, hold, note, number

#: The environment variable that names the file without which :class:`Picky` cannot be built.
FLAG = "DEFERPOST_TEST_FLAG"


def _socket() -> int:
    """The descriptor of the worker's socket."""
    links = ((fd, Path(f"/proc/self/fd/{fd}")) for fd in os.listdir("/proc/self/fd"))
    return next(int(fd) for fd, link in links if link.exists() and link.is_socket())


def leave(call: Call) -> None:
    """Ends the process at once, with an exit code."""
    os._exit(number(call, "number"))


def leave_politely(call: Call) -> None:
    """Ends the process as scripts do."""
    sys.exit(number(call, "number"))


def signal_itself(call: Call) -> None:
    """Sends its process a signal."""
    os.kill(os.getpid(), number(call, "number"))
    hold(call)


def pid(call: Call) -> int:
    """The number of the process."""
    return os.getpid()


def deaf(call: Call) -> None:
    """Does not hear SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(call, "deaf", call.id)
    hold(call)


class _Interrupted:
    """Waits while it is deleted, where Python swallows whatever is raised."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        note(self._call, "deleting")
        time.sleep(1000)


def swallow(call: Call) -> None:
    """Is told to stop at a moment at which nothing of that gets to it, and goes on."""
    kept = _Interrupted(call)
    del kept
    note(call, "swallowed")
    try:
        time.sleep(1000)
    finally:
        note(call, "cleaned")


def swallow_in_loop(call: Call) -> None:
    """Is told to stop inside a callback of asyncio, which logs that and goes on."""

    async def work() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 1000)
        note(call, "deleting")
        await asyncio.sleep(0.001)
        note(call, "swallowed")
        await asyncio.sleep(1000)

    try:
        asyncio.run(work())
    finally:
        note(call, "cleaned")


def clean_slowly(call: Call) -> None:
    """Takes its time to clean up, after it was told to stop."""
    try:
        hold(call)
    finally:
        note(call, "cleaning")
        while not gate_of(call).exists():
            time.sleep(0.002)
        note(call, "cleaned")


def lose(call: Call) -> dict[str, object]:
    """Ends the process until it has been tried often enough, and then says what the body was."""
    body = call.body.read()
    note(call, "tries", str(os.getpid()))
    if len((folder_of(call) / "tries").read_text().split()) < number(call, "tries"):
        os._exit(9)
    return {"body": body.decode(), "pid": os.getpid(), "tries": number(call, "tries")}


def lose_stream(call: Call) -> Iterator[bytes]:
    """Ends the process in the middle of its stream."""
    note(call, "tries")
    yield b"one"
    yield b"two" * 100_000
    os._exit(9)


def fork(call: Call) -> str:
    """Forks a process that comes back from this handler later, as if it were the worker."""
    if os.fork():
        return "worker"
    while not (folder_of(call) / "fork").exists():
        time.sleep(0.002)
    return "copy"


def fork_stream(call: Call) -> Iterator[bytes]:
    """Forks a process that goes on with the same stream."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    yield b"worker" if child else b"copy"


def end_a_child(call: Call) -> int:
    """Ends a process of its own by SIGTERM, as multiprocessing does, and gives its status."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            note(call, "forked")
            time.sleep(60)
        os._exit(5)
    while not (folder_of(call) / "forked").exists():
        time.sleep(0.002)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def strip(call: Call) -> str:
    """Closes all descriptors, as programs do that want to be daemons."""
    os.closerange(3, 4096)
    return "without"


def hoard(call: Call) -> int:
    """Asks for more memory than there may be, and says how much it got."""
    return len(bytearray(number(call, "bytes")))


def burn(call: Call) -> None:
    """Uses CPU time for ever."""
    note(call, "started", call.id)
    while True:
        pass


def hang_in_c(call: Call) -> None:
    """Never comes to its next line."""
    note(call, "started", call.id)
    sum(itertools.repeat(0))


def dive(call: Call) -> None:
    """Waits below many calls."""
    _dive(call, number(call, "depth"))


def _dive(call: Call, depth: int) -> None:
    if depth:
        _dive(call, depth - 1)
    else:
        hold(call)


def deaf_to_questions(call: Call) -> None:
    """Does not say where it stands."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    hold(call)


def asked_for(call: Call) -> list[str]:
    """Those modules that are loaded, of the ones that are named."""
    return sorted(name for name in call.args["module"] if name in sys.modules)


def garble(call: Call) -> str:
    """Writes what is no frame into the socket, and then answers as if nothing were the matter."""
    os.write(_socket(), b"This is not a frame.\n" * 10)
    time.sleep(number(call, "milliseconds") / 1000)  # so that both arrive apart
    return "answered"


def promise_a_file(call: Call) -> None:
    """Sends a frame that announces a file, without one."""
    os.write(_socket(), encode_frame(RepliedFile(200, (), 5)))
    hold(call)


def hang_up(call: Call) -> None:
    """Closes the socket, and goes on."""
    os.close(_socket())
    note(call, "closed")
    hold(call)


def talk(call: Call) -> str:
    """Prints in every way there is."""
    print("a printed line")
    print("to standard error", file=sys.stderr)
    os.write(1, b"written \xff\xfe raw\n")
    subprocess.run(["/bin/echo", "by a subprocess"], check=True)
    subprocess.run(["/bin/sh", "-c", "printf 'no end of line'"], check=True)
    return "said"


def close_output(call: Call) -> str:
    """Closes what it could print to."""
    sys.stdout.close()
    return "closed"


def start_subprocess(call: Call) -> None:
    """Starts a process that lives long, and tells which."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    note(call, "subprocess", str(process.pid))
    hold(call)


def leave_a_child(call: Call) -> None:
    """Ends, and leaves a child that has the socket, too; in another session if it is to."""
    left, told = os.pipe()
    child = os.fork()
    if child == 0:
        if call.args["session"] == ["own"]:
            os.setsid()
        os.write(told, b"x")
        time.sleep(1000)
    os.read(left, 1)
    note(call, "child", str(child))
    os._exit(3)


def where(call: Call) -> dict[str, int]:
    """At which place of the body it begins, and how much there is to read."""
    return {"begins": call.body.tell(), "bytes": len(call.body.read())}


def report_often(call: Call) -> None:
    """Says how far it is, many times in a row, and lastly from another thread."""
    for done in range(10_000):
        call.progress(done, 10_000)
    last = threading.Thread(target=call.progress, args=(10_000, 10_000, "all"))
    last.start()
    last.join()


def kept_file(call: Call) -> BinaryIO:
    """A file that is gone from its folder when it is answered."""
    path = folder_of(call) / "kept"
    path.write_bytes(b"kept")
    file = open(path, "rb")  # noqa: SIM115 (it is the answer)
    path.unlink()
    return file


class Picky:
    """Cannot be built while a file is missing."""

    def __init__(self) -> None:
        if not Path(os.environ[FLAG]).exists():
            raise RuntimeError("this worker cannot be set up")

    def __call__(self, call: Call) -> str:
        """An answer."""
        return "set up"


class NeverReady:
    """Takes for ever to be built, and does not hear SIGTERM."""

    def __init__(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(os.environ[FLAG]).touch()
        time.sleep(1000)

    def __call__(self, call: Call) -> None:
        """Never called."""


class Slow:
    """Takes long to be built, while a file is missing."""

    def __init__(self) -> None:
        if not Path(os.environ[FLAG]).exists():
            time.sleep(1000)

    def __call__(self, call: Call) -> str:
        """An answer."""
        return "set up"


#: The handlers by the names of their routes, those of classes apart.
HANDLERS = {
    "asked_for": asked_for,
    "burn": burn,
    "deaf_to_questions": deaf_to_questions,
    "dive": dive,
    "end_a_child": end_a_child,
    "fork": fork,
    "fork_stream": fork_stream,
    "hang_in_c": hang_in_c,
    "hoard": hoard,
    "lose": lose,
    "lose_stream": lose_stream,
    "clean_slowly": clean_slowly,
    "close_output": close_output,
    "deaf": deaf,
    "garble": garble,
    "hang_up": hang_up,
    "kept_file": kept_file,
    "leave": leave,
    "leave_a_child": leave_a_child,
    "leave_politely": leave_politely,
    "pid": pid,
    "promise_a_file": promise_a_file,
    "report_often": report_often,
    "signal_itself": signal_itself,
    "start_subprocess": start_subprocess,
    "strip": strip,
    "swallow": swallow,
    "swallow_in_loop": swallow_in_loop,
    "talk": talk,
    "where": where,
}
