"""``python -m bench.control.kill``: a daemon that keeps jobs, killed again and again under load.

Clients post to it all the time, in every manner in which a call can be kept, come back with their
keys, leave, and look at results.  At any moment it gets SIGKILL, and is started again.  In the end
it is left alone until every job has ended; then what clients were told is held against what ran
and what was recorded.  The exit status is 1 if anything was lost, ran twice, was answered wrongly,
left a process behind, or took too long to come back.  Some times it is told to end by SIGTERM.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import os
import random
import secrets
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from bench.control.killed import LOG
from bench.control.ledger import Findings, Sent, check, read_runs, read_store, unended
from bench.running import environment

__all__ = ["Killed", "main", "report", "run"]

#: Seconds that a start, an answer, and the end of all jobs may take.
_START, _ANSWER, _END = 20.0, 15.0, 60.0

#: Seconds after which nothing of a killed daemon may be alive.
_ORPHAN = 5.0

#: Seconds between two looks.
_PAUSE = 0.01

_MARK = "BENCH_KILL_MARK"

_OPTIONS = (
    "--access-log=no",
    "--process-size=2",
    "--thread-size=4",
    "--idempotency-grace=500ms",
    "--grace=5s",
)

#: Bytes of bodies: most are small, some are in files.
_SIZES = (24, 24, 300, 300, 3000, 20_000, 300_000)


class _Daemon:
    """A daemon on a port that stays the same.

    :param folder: with its store, its log and the log of runs.
    :param port: where it listens.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.mark = secrets.token_hex(8)
        self._log = folder / "daemon.log"
        self._offset = self._log.stat().st_size if self._log.exists() else 0
        self._began = time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from deferpost.tap import main; main()"),
                    f"--listen=tcp:{port}:interface=127.0.0.1",
                    f"--store={folder / 'store'}",
                    *_OPTIONS,
                    "bench.control.killed:app",
                ],
                env=environment({LOG: str(folder / "runs.log"), _MARK: self.mark}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def wait_open(self) -> float:
        """Wait until it keeps jobs; returns the seconds since it was started.

        :raises RuntimeError: it has ended, or takes too long.
        """
        while True:
            with self._log.open("rb") as log:
                log.seek(self._offset)
                said = log.read()
            if b"jobs are kept in" in said:
                return time.monotonic() - self._began
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon has ended:\n{said.decode()}")
            if time.monotonic() - self._began > _START:
                raise RuntimeError(f"the daemon does not start:\n{said.decode()}")
            time.sleep(_PAUSE)

    def kill(self) -> None:
        """End it as a loss of power would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        self.process.terminate()
        return self.process.wait(_END)

    def alive(self) -> list[int]:
        """The processes that it has started, itself included, that live."""
        sought = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    if sought in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found


class _Client:
    """Calls of one thread.

    :param port: of the daemon.
    :param calls: gets each call.
    :param over: says that no new one is to be sent.
    :param seed: of its choices.
    """

    def __init__(self, port: int, calls: list[Sent], over: threading.Event, seed: str) -> None:
        self._port = port
        self._calls = calls
        self._over = over
        self._random = random.Random(seed)
        self._own: collections.deque[Sent] = collections.deque(maxlen=200)
        self._number = 0
        self._seed = seed
        self.defect: BaseException | None = None

    def live(self) -> None:
        """Post until it is over."""
        manners: Sequence[Callable[[], None]] = (
            self._promised,
            self._burst,
            self._keyed,
            self._keyed,
            self._keyed_promised,
            self._keyed_promised,
            self._patient,
            self._falls_back,
            self._always,
            self._leaves,
            self._canceled,
            self._plain,
            self._looks_again,
            self._looks_again,
        )
        try:
            while not self._over.is_set():
                self._random.choice(manners)()
        except BaseException as error:
            self.defect = error
            raise

    # One call in each manner.

    def _promised(self) -> None:
        self._post(self._new(), "respond-async")

    def _burst(self) -> None:
        for _ in range(10):  # so that some wait
            self._promised()

    def _keyed(self) -> None:
        self._again(self._new(is_keyed=True), None)

    def _keyed_promised(self) -> None:
        self._again(self._new(is_keyed=True), "respond-async")

    def _patient(self) -> None:
        self._post(self._new(), "respond-async, wait=1")

    def _falls_back(self) -> None:
        self._post(self._new("/falls-back"), self._random.choice([None, "wait=1"]))

    def _always(self) -> None:
        self._post(self._new("/always"), None)

    def _plain(self) -> None:
        call = Sent(self._name(), self._path(), 300, is_keyed=False)
        answer = self._ask("POST", call.path, call.body, {})
        if answer is not None and answer[0] == 200:
            call.answered(*answer)
            if call.wrong:
                self._calls.append(call)

    def _leaves(self) -> None:
        call = self._new(is_keyed=self._random.random() < 0.5)
        call.is_unwanted = True
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), _ANSWER) as connection,
        ):
            fields = {"X-Request-ID": call.name, "Content-Length": str(call.size)}
            fields["Prefer"] = "respond-async, wait=5"
            if call.is_keyed:
                fields["Idempotency-Key"] = call.name
            lines = [f"POST {call.path} HTTP/1.1", "Host: test"]
            lines += [f"{name}: {value}" for name, value in fields.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + call.body)
            time.sleep(self._random.random() * 0.02)

    def _canceled(self) -> None:
        call = self._new()
        self._post(call, "respond-async")
        if call.job is not None:
            call.is_unwanted = True
            self._ask("POST", f"/jobs/{call.job}/cancel", b"", {})

    def _looks_again(self) -> None:
        """A result is what it was, however often the daemon was killed."""
        if not self._own:
            return
        call = self._random.choice(self._own)
        if call.is_keyed and not call.is_unwanted:
            self._post(call, self._random.choice([None, "respond-async, wait=2"]))
        elif call.job is not None:
            answer = self._ask("GET", f"/jobs/{call.job}/result", None, {"Prefer": "wait=1"})
            if answer is not None:
                self._result(call, answer)

    def _result(self, call: Sent, answer: tuple[int, dict[str, str], bytes]) -> None:
        if answer[0] == 404 and b"nothing at this path" in answer[2]:
            return  # a daemon without resources of jobs
        if call.is_unwanted and answer[0] not in (200, 202):
            return  # it was canceled
        call.answered(*answer)

    # How they are sent.

    def _name(self) -> str:
        self._number += 1
        return f"{self._seed}-{self._number}".rjust(24, "x")

    def _path(self) -> str:
        return self._random.choice(
            ["/thread", "/large", "/process", "/retried", "/retried", "/coroutine", "/stream"]
        )

    def _new(self, path: str | None = None, is_keyed: bool = False) -> Sent:
        size = self._random.choice(_SIZES)
        if size > 100_000 and self._random.random() < 0.7:
            size = 300
        call = Sent(self._name(), path or self._path(), size, is_keyed)
        self._calls.append(call)
        self._own.append(call)
        return call

    def _again(self, call: Sent, prefer: str | None) -> None:
        """Send it until there is an answer, as one who has a key does."""
        for _ in range(20):
            self._post(call, prefer)
            if call.is_accepted or self._over.is_set():
                return
            time.sleep(0.05)

    def _post(self, call: Sent, prefer: str | None) -> None:
        fields = {"X-Request-ID": call.name}
        if call.is_keyed:
            fields["Idempotency-Key"] = f'"{call.name}"'
        if prefer is not None:
            fields["Prefer"] = prefer
        answer = self._ask("POST", call.path, call.body, fields)
        if answer is not None:
            call.answered(*answer)

    def _ask(
        self, method: str, path: str, body: bytes | None, fields: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes] | None:
        """Send a request; returns its answer, or None where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER)
        try:
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            data = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, data
        except TimeoutError as error:
            raise RuntimeError(f"no answer to {method} {path} within {_ANSWER:g} s") from error
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)  # it is being started again
            return None
        finally:
            connection.close()


@attrs.define
class Killed:
    """What was seen.

    :ivar rounds: how often the daemon was killed, or told to end.
    :ivar early: how often of these it was killed before it kept jobs.
    :ivar stopped: how often of these it was told to end.
    :ivar starts: seconds that each start took until jobs were kept.
    :ivar orphans: processes that outlived their daemon, each as a line.
    :ivar failed: other things that are wrong, each as a line.
    :ivar findings: what is wrong with the jobs.
    :ivar refused: calls that were not taken, of those that were sent.
    """

    rounds: int = 0
    early: int = 0
    stopped: int = 0
    starts: list[float] = attrs.field(factory=list)
    orphans: list[str] = attrs.field(factory=list)
    failed: list[str] = attrs.field(factory=list)
    findings: Findings = attrs.field(factory=Findings)
    sent: int = 0
    refused: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings.is_good and not self.orphans and not self.failed


def _free_port() -> int:
    """A port that no connection of a client gets by itself."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _stop(daemon: _Daemon, seen: Killed) -> None:
    """Have a daemon end by itself."""
    try:
        status = daemon.stop()
    except subprocess.TimeoutExpired:
        seen.failed.append(f"the daemon did not end within {_END:g} s of SIGTERM")
    else:
        if status:
            seen.failed.append(f"the daemon ended with status {status}")


def _check_orphans(dead: collections.deque[tuple[float, _Daemon]], seen: Killed) -> None:
    """Look for what is left of daemons that were killed long enough ago."""
    while dead and dead[0][0] + _ORPHAN < time.monotonic():
        _check_orphan(*dead.popleft(), seen)


def _check_orphan(since: float, daemon: _Daemon, seen: Killed) -> None:
    """Look for what is left of one, and end that, as soon as it should have ended by itself."""
    while (alive := daemon.alive()) and time.monotonic() < since + _ORPHAN:
        time.sleep(_PAUSE)
    for pid in alive:
        seen.orphans.append(f"process {pid} outlived its daemon {daemon.process.pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _clients(count: int, port: int, calls: list[Sent], seen: Killed, seed: str) -> Iterator[None]:
    over = threading.Event()
    clients = [_Client(port, calls, over, f"{seed}-{n}") for n in range(count)]
    threads = [threading.Thread(target=client.live, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(2 * _ANSWER)
        seen.failed.extend(
            f"a client has ended: {client.defect!r}" for client in clients if client.defect
        )
        if any(thread.is_alive() for thread in threads):
            seen.failed.append("a client hangs")


def run(
    folder: Path, rounds: int, seconds: float, clients: int = 6, seed: str = "", stops: float = 0.1
) -> Killed:
    """Kill a daemon so many times, or for so long.

    :param folder: an empty one.
    :param rounds: how often at most.
    :param seconds: after which no further round begins.
    :param clients: how many post at once.
    :param seed: of what is random but for the times of the machine.
    :param stops: the share of rounds in which it gets SIGTERM instead.
    """
    choice = random.Random(seed)
    seen = Killed()
    calls: list[Sent] = []
    dead: collections.deque[tuple[float, _Daemon]] = collections.deque()
    port = _free_port()
    end = time.monotonic() + seconds
    daemon: _Daemon | None = None
    try:
        with _clients(clients, port, calls, seen, seed or secrets.token_hex(3)):
            while seen.rounds < rounds and time.monotonic() < end:
                daemon = _Daemon(folder, port)
                if choice.random() < 0.1 and seen.starts:
                    time.sleep(choice.random() * statistics.median(seen.starts))
                    seen.early += 1
                else:
                    seen.starts.append(daemon.wait_open())
                    time.sleep(choice.random() ** 2)
                    if choice.random() < stops:
                        seen.stopped += 1
                        _stop(daemon, seen)
                daemon.kill()
                dead.append((time.monotonic(), daemon))
                seen.rounds += 1
                _check_orphans(dead, seen)
            daemon = _Daemon(folder, port)
            seen.starts.append(daemon.wait_open())
        deadline = time.monotonic() + _END
        while (left := unended(folder / "store")) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            seen.failed.append(f"jobs that do not end: {left}")
        _stop(daemon, seen)
        dead.append((time.monotonic(), daemon))
    except RuntimeError as error:
        seen.failed.append(str(error))
    finally:
        if daemon is not None:
            daemon.kill()
    for since, ended in dead:
        _check_orphan(since, ended, seen)
    seen.failed.extend(_defects(folder / "daemon.log"))
    seen.sent = len(calls)
    seen.refused = sum(call.refused for call in calls)
    try:
        stored = read_store(folder / "store")
        seen.findings = check(calls, stored, read_runs(folder / "runs.log"))
    except (sqlite3.Error, OSError) as error:
        seen.failed.append(f"the store cannot be read: {error}")
    return seen


def _defects(log: Path) -> list[str]:
    """What a daemon says of itself that it never should."""
    found = []
    for line in log.read_text(encoding="utf-8", errors="backslashreplace").splitlines():
        if any(word in line for word in ("Unhandled", "could not be seen to", "#critical")):
            found.append(f"the log says: {line}")
    return found


def report(seen: Killed) -> list[str]:
    """What was seen, as lines."""
    found = seen.findings
    starts = sorted(seen.starts) or [0.0]
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))
    lines = [
        f"rounds: {seen.rounds}, of which {seen.early} ended before jobs were kept and "
        f"{seen.stopped} by SIGTERM",
        f"calls: {seen.sent} sent, {found.accepted} accepted, {seen.refused} refusals; "
        f"{found.ran} runs began",
        f"jobs by their end: {states}",
        f"lost: {len(found.lost)}",
        f"run too often: {len(found.doubled)}",
        f"wrong: {len(found.wrong)}",
        f"processes left behind: {len(seen.orphans)}",
        f"starts, until jobs are kept: {statistics.median(starts):.2f} s in the median, "
        f"{starts[-1]:.2f} s at most",
    ]
    for text in (*found.lost, *found.doubled, *found.wrong, *seen.orphans, *seen.failed):
        lines.append(f"  {text}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, and print what was seen; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="how often it is killed")
    parser.add_argument("--seconds", type=float, default=900.0, help="at most, for all rounds")
    parser.add_argument("--clients", type=int, default=6, help="how many at once")
    parser.add_argument("--seed", default="", help="of what is random; else another each time")
    parser.add_argument("--stops", type=float, default=0.1, help="share of SIGTERM")
    parser.add_argument("--folder", type=Path, help="an empty one, which is kept")
    given = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = given.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        seen = run(folder, given.rounds, given.seconds, given.clients, given.seed, given.stops)
        print("\n".join(report(seen)))
    return 0 if seen.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
