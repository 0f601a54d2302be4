"""``python -m bench.control.reload``: SIGHUP and SIGTERM under load, and what clients saw of them.

The first part posts all the time while the daemon reloads again and again: how many calls failed,
when new code answers, and what stays behind.  The second has jobs of every kind run when SIGTERM
comes: how each of them ended, and when the daemon was gone.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["main"]

_APP = """
import signal, time
from deferpost import App, ProcessPool, ThreadPool

VERSION = {version}
app = App(pools={{"single": ThreadPool(size=1)}})

@app.post("/thread")
def in_thread(call):
    time.sleep(0.002)
    return str(VERSION)

@app.post("/process", pool="process")
def in_process(call):
    time.sleep(0.002)
    return str(VERSION)

@app.post("/ends")
def ends(call):
    time.sleep(1)
    return "done"

@app.post("/ends-process", pool=ProcessPool(size=1))
def ends_process(call):
    time.sleep(1)
    return "done"

@app.post("/asks")
def asks(call):
    while True:
        call.check()
        time.sleep(0.01)

@app.post("/sleeps-process", pool=ProcessPool(size=1))
def sleeps_process(call):
    time.sleep(1000)

@app.post("/ignores-process", pool=ProcessPool(size=1))
def ignores_process(call):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)

@app.post("/coroutine")
async def coroutine(call):
    from twisted.internet.defer import Deferred
    await Deferred()

@app.post("/stream")
def stream(call):
    while True:
        yield b"tick"
        time.sleep(0.01)

@app.post("/hangs", pool="single")
def hangs(call):
    while True:
        time.sleep(1)

@app.post("/waits", pool="single")
def waits(call):
    return "never"
"""


class Answer(NamedTuple):
    """One call.

    :ivar began: when it was sent, on the monotonic clock.
    :ivar seconds: until its answer was read.
    :ivar said: status and body, or the error.
    """

    began: float
    seconds: float
    said: str


class Daemon:
    """A daemon in a folder of its own.

    :param folder: where its app is.
    :param options: beside ``--listen``.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.write(1)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from deferpost.tap import main; main()"),
                    *("--listen=tcp:0:interface=127.0.0.1", "--access-log=no", *options),
                    "served:app",
                ],
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=log,
            )
        found = None
        while found is None:
            time.sleep(0.02)
            if self.process.poll() is not None:
                raise RuntimeError(self.log())
            found = re.search(r"Site starting on (\d+)$", self.log(), re.MULTILINE)
        self.port = int(found[1])
        while self.post("/process").said != "200 1":
            time.sleep(0.02)

    def write(self, version: int) -> None:
        """Write a version of the app."""
        (self.folder / "served.py").write_text(_APP.format(version=version))

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def post(self, path: str, connection: http.client.HTTPConnection | None = None) -> Answer:
        """Post, on a connection or one for this call alone."""
        began = time.monotonic()
        own = connection is None
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, b"x")
            response = connection.getresponse()
            said = f"{response.status} {response.read()[-200:].decode()}"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            connection.close()
        if own:
            connection.close()
        return Answer(began, time.monotonic() - began, said)

    def size(self) -> str:
        """Its processes, threads, descriptors and memory, in words."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return (
            f"{len(workers)} workers, {len(os.listdir(f'/proc/{pid}/task'))} threads, "
            f"{len(os.listdir(f'/proc/{pid}/fd'))} descriptors, "
            f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.1f} MiB"
        )

    def end(self) -> None:
        """End it, if it has not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)


@contextlib.contextmanager
def _clients(daemon: Daemon, count: int) -> Iterator[dict[str, list[Answer]]]:
    """Clients that post all the time, half of them with a new connection for each call."""
    ended = threading.Event()
    answers: dict[str, list[Answer]] = {}

    def client(path: str, keep: bool) -> None:
        mine: list[Answer] = []
        answers[f"{path} {threading.get_ident()}"] = mine
        kept = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60) if keep else None
        while not ended.is_set():
            mine.append(daemon.post(path, kept))
        if kept is not None:
            kept.close()

    threads = [
        threading.Thread(target=client, args=(("/thread", "/process")[each % 2], each % 4 < 2))
        for each in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def _reload(folder: Path, reloads: int, pause: float, count: int) -> bool:
    daemon = Daemon(folder)
    signals: list[float] = []
    try:
        with _clients(daemon, count) as answers:
            time.sleep(pause)
            before = daemon.size()
            for version in range(2, reloads + 2):
                daemon.write(version)
                signals.append(time.monotonic())
                daemon.process.send_signal(signal.SIGHUP)
                while daemon.log().count("reloaded in ") < version - 1:
                    time.sleep(0.02)
                time.sleep(pause)
            after = daemon.size()
    finally:
        daemon.end()
    print(f"SIGHUP under load: {reloads} reloads, {count} clients")
    failed = 0
    for path in ("/thread", "/process"):
        given = [a for name, mine in answers.items() if name.startswith(f"{path} ") for a in mine]
        bad = [answer for answer in given if not answer.said.startswith("200 ")]
        failed += len(bad)
        print(f"  {path}: {len(given)} calls, {len(bad)} failed {[a.said for a in bad[:3]]}")
        calm = [a.seconds for a in given if a.began < signals[0]]
        print(
            f"    before: median {_percentile(calm, 0.5):.1f} ms, p99 {_percentile(calm, 0.99):.1f}"
        )
        for version, sent in enumerate(signals, 2):
            ends = [(a.began + a.seconds - sent, a) for a in given]
            new = [end for end, a in ends if a.said == f"200 {version}"]
            old = [end for end, a in ends if a.said == f"200 {version - 1}"]
            near = [a.seconds for a in given if sent <= a.began < sent + 1]
            if not new:
                failed += 1
                print(f"    version {version}: never answered")
                continue
            print(
                f"    version {version}: first answer after {min(new) * 1000:.0f} ms, "
                f"last of the version before after {max(old) * 1000:.0f} ms; in the first second "
                f"median {_percentile(near, 0.5):.1f} ms, p99 {_percentile(near, 0.99):.1f}, "
                f"most {max(near) * 1000:.1f}"
            )
    print(f"  before: {before}\n  after:  {after}")
    for seconds in re.findall(r"reloaded in ([\d.]+) s", daemon.log()):
        print(f"  the daemon says: reloaded in {seconds} s")
    return not failed


_KINDS = (
    "/thread",
    "/process",
    "/ends",
    "/ends-process",
    "/asks",
    "/sleeps-process",
    "/ignores-process",
    "/coroutine",
    "/stream",
    "/hangs",
    "/waits",
)


def _terminate(folder: Path, grace: float, delay: float) -> bool:
    daemon = Daemon(folder, [f"--grace={grace}", f"--drain-delay={delay}"])
    ends: dict[str, Answer] = {}

    def client(path: str) -> None:
        ends[path] = daemon.post(path)

    try:
        with _clients(daemon, 4) as answers:
            time.sleep(0.5)
            threads = []
            for path in _KINDS[2:]:
                thread = threading.Thread(target=client, args=(path,))
                thread.start()
                threads.append(thread)
                time.sleep(0.05)
            sent = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join()
            status = daemon.process.wait(60)
            gone = time.monotonic() - sent
    finally:
        daemon.end()
    print(f"SIGTERM under load: grace {grace:g} s, drain_delay {delay:g} s")
    for path in _KINDS[2:]:
        answer = ends[path]
        said = answer.said if len(answer.said) < 60 else re.sub(r"\s*\{.*", "", answer.said)
        print(f"  {path:18} {said[:60]:40} {answer.began + answer.seconds - sent:6.2f} s after")
    refused = 0
    for mine in answers.values():
        early = [a for a in mine if a.began < sent + delay]
        refused += sum(not a.said.startswith("200 ") for a in early)
    print(f"  calls sent before the delay was over that were not answered 200: {refused}")
    print(f"  exit status {status} after {gone:.2f} s")
    return status == 0 and gone < grace + delay + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status, which is not 0 where a call failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.control.reload", description="SIGHUP and SIGTERM under load."
    )
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds after each")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--grace", type=float, default=3.0)
    parser.add_argument("--delay", type=float, default=1.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        reloaded = _reload(Path(first), options.reloads, options.pause, options.clients)
        ended = _terminate(Path(second), options.grace, options.delay)
    return 0 if reloaded and ended else 1


if __name__ == "__main__":
    sys.exit(main())
