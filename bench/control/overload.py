"""Offer a daemon many times as much work as it can do: ``python -m bench.control.overload``.

A real daemon with a pool of worker processes, whose handler takes a known time.  Requests are sent
by the clock, whatever comes of those before (an open loop), each on a connection of its own, on
the loopback.  It prints what the accepted ones waited, what share was refused, how good
``Retry-After`` was, whether every request got exactly one answer and every accepted one ran exactly
once, and how the memory of the daemon went.  It ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.processes import memory as resident
from bench.running import environment, free_port

__all__ = ["Answered", "Load", "drained", "main", "percentile", "report"]

#: Seconds that a request may take before it counts as lost.
_LOST = 60.0

#: How many of the last that were turned away come back.
_COME_BACK = 40

#: Seconds that the daemon may take to start, and to end.
_START, _END = 30.0, 15.0


@attrs.frozen
class Load:
    """What is offered.

    :ivar seconds: for how long.
    :ivar factor: how many times as much as can be done.
    :ivar work: seconds that a call takes.
    :ivar size: worker processes.
    :ivar waiting: how many calls may wait.
    :ivar timeout: ``X-Timeout`` of the requests; empty for none.
    """

    seconds: float = 30.0
    factor: float = 10.0
    work: float = 0.05
    size: int = 2
    waiting: int = 100
    timeout: str = ""

    @property
    def capacity(self) -> float:
        """Calls that can be done in a second."""
        return self.size / self.work


@attrs.frozen
class Answered:
    """A request and its answer.

    :ivar name: of the request; no other has it.
    :ivar sent: when it was sent, in seconds.
    :ivar ended: when its answer was whole.
    :ivar status: of the answer; 0 where none came.
    :ivar reason: of a problem.
    :ivar retry_after: seconds that it was asked to wait.
    :ivar is_right: whether the answer was its own, and the only one.
    """

    name: str
    sent: float
    ended: float
    status: int
    reason: str = ""
    retry_after: int | None = None
    is_right: bool = True


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share is not above; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def drained(answers: Sequence[Answered]) -> list[tuple[int, float]]:
    """What was promised to those turned away, and how long it really took.

    :returns: for each of them ``Retry-After``, and the seconds until the last of the calls that
        had been accepted before it was done.
    """
    accepted = sorted((each for each in answers if each.status == 200), key=lambda each: each.sent)
    found = []
    for each in answers:
        if each.status == 503 and each.retry_after is not None:
            before = [other.ended for other in accepted if other.sent <= each.sent]
            left = max(before, default=each.ended) - each.ended
            found.append((each.retry_after, max(0.0, left)))
    return found


def report(
    load: Load, answers: Sequence[Answered], ran: Sequence[str], memory: Sequence[float]
) -> list[str]:
    """What was seen, as lines.

    :param ran: the names of the calls that have run, as their handler has noted them.
    :param memory: of the daemon, in MiB, each second.
    """
    statuses = Counter((each.status, each.reason) for each in answers)
    accepted = [each for each in answers if each.status == 200]
    waits = [each.ended - each.sent for each in accepted]
    refusals = [each.ended - each.sent for each in answers if each.status in (429, 503)]
    pauses = drained(answers)
    errors = [promised - real for promised, real in pauses]
    runs = Counter(ran)
    twice = sum(count > 1 for count in runs.values())
    unanswered = sum(each.status == 0 for each in answers)
    wrong = sum(not each.is_right for each in answers)
    unrun = sum(runs[each.name] != 1 for each in accepted)
    tenth = max(1, len(memory) // 10)
    lines = [
        f"offered: {len(answers)} requests in {load.seconds:g} s, {load.factor:g} times what "
        f"{load.size} workers do at {load.work * 1e3:g} ms each; {load.waiting} may wait"
    ]
    for (status, reason), count in sorted(statuses.items()):
        lines.append(f"  {status} {reason or '-'}: {count} ({100 * count / len(answers):.1f} %)")
    took = max(each.ended for each in answers) - min(each.sent for each in answers)
    lines.append(f"done: {len(accepted) / took:.1f} a second, of {load.capacity:g} possible")
    for title, values in (("accepted, seconds", waits), ("refused, seconds", refusals)):
        shown = ", ".join(
            f"p{share * 100:g} {percentile(values, share):.3f}" for share in (0.5, 0.9, 0.99, 1.0)
        )
        lines.append(f"{title}: {shown}")
    if pauses:
        promised = Counter(promise for promise, _ in pauses)
        lines.append(f"Retry-After, how often: {dict(sorted(promised.items()))}")
        shown = ", ".join(
            f"p{share * 100:g} {percentile(errors, share):+.2f}"
            for share in (0.01, 0.1, 0.5, 0.9, 0.99)
        )
        lines.append(f"promised minus real time until the queue was worked off, seconds: {shown}")
        near = sum(-0.5 <= error <= 1.5 for error in errors)
        lines.append(
            f"  {100 * near / len(errors):.1f} % from half a second short to one and a half long "
            "(a whole second is what rounding up alone costs)"
        )
    lines.append(
        f"unanswered: {unanswered}; answered wrongly: {wrong}; accepted but not run exactly once: "
        f"{unrun}; run twice: {twice}"
    )
    if memory:
        lines.append(
            f"memory of the daemon, MiB: {memory[0]:.1f} at first, "
            f"{max(memory[:tenth]):.1f} in the first tenth, {max(memory):.1f} at most, "
            f"{memory[-1]:.1f} at last"
        )
    return lines


async def _post(port: int, name: str, timeout: str, began: float) -> Answered:
    """Send one request on a connection of its own, and read until that is closed."""
    sent = time.monotonic() - began
    body = name.encode()
    asked = f"X-Timeout: {timeout}\r\n" if timeout else ""
    head = (
        f"POST /work HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{asked}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    data = b""
    try:
        async with asyncio.timeout(_LOST):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head.encode() + body)
                data = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        pass
    ended = time.monotonic() - began
    if not data:
        return Answered(name, sent, ended, 0)
    top, _, content = data.partition(b"\r\n\r\n")
    status_line, *lines = top.decode("latin-1").split("\r\n")
    fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    status = int(status_line.split(" ")[1])
    reason = ""
    is_right = int(fields["content-length"]) == len(content)  # one answer, and all of it
    if status == 200:
        is_right = is_right and content == body
    elif is_right:
        reason = json.loads(content).get("reason", "")
    pause = fields.get("retry-after")
    return Answered(name, sent, ended, status, reason, pause and int(pause), is_right)  # type: ignore[arg-type]  # no empty ones


async def _offer(
    load: Load, port: int, pid: int
) -> tuple[list[Answered], list[Answered], list[float]]:
    """Send requests by the clock."""
    began = time.monotonic()
    memory: list[float] = []
    tasks: list[asyncio.Task[Answered]] = []
    pause = 1 / (load.capacity * load.factor)
    count = int(load.seconds / pause)
    for number in range(count):
        late = began + number * pause - time.monotonic()
        if late > 0:
            await asyncio.sleep(late)
        tasks.append(asyncio.create_task(_post(port, f"{number}", load.timeout, began)))
        if len(memory) <= number * pause:
            memory.append(resident(pid) / 2**20)
    back = await _come_back(load, port, began, tasks[-_COME_BACK:])
    answers = await asyncio.gather(*tasks)
    memory.append(resident(pid) / 2**20)
    return list(answers), back, memory


async def _come_back(
    load: Load, port: int, began: float, tasks: Sequence[asyncio.Task[Answered]]
) -> list[Answered]:
    """Have the last ones that were turned away try again when they were told to."""
    again = []
    for task in tasks:
        pause = None
        with contextlib.suppress(TimeoutError):
            answer = await asyncio.wait_for(asyncio.shield(task), 0.5)
            pause = answer.retry_after
        if pause is not None:
            late = began + answer.ended + pause - time.monotonic()
            await asyncio.sleep(max(0.0, late))
            name = f"{10**9 + int(answer.name)}"
            again.append(asyncio.create_task(_post(port, name, load.timeout, began)))
    return list(await asyncio.gather(*again))


def _run(load: Load, directory: Path) -> list[str]:
    port = free_port()
    ran = directory / "ran"
    command = [
        *(sys.executable, "-c", "from deferpost.tap import main; main()"),
        f"--listen=tcp:{port}:interface=127.0.0.1:backlog=1024",
        "--access-log=no",
        f"--process-size={load.size}",
        f"--process-max-waiting={load.waiting}",
        "bench.control.overloaded:app",
    ]
    more = {"BENCH_SECONDS": str(load.work), "BENCH_RAN": str(ran)}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[2],
            env=environment(more),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        asyncio.run(_until_answered(port, process))
        answers, back, memory = asyncio.run(_offer(load, port, process.pid))
    finally:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    names = [name for name in ran.read_text().splitlines() if name.isdigit()]
    accepted = sum(each.status == 200 for each in back)
    return [
        *report(load, answers, names, memory),
        f"of {len(back)} that came back after the load when they were told to, {accepted} were "
        "accepted",
    ]


async def _until_answered(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a call is answered, so that the workers are there."""
    deadline = time.monotonic() + _START
    while (await _post(port, "first", "", 0.0)).status != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the daemon does not answer")
        await asyncio.sleep(0.05)


def main(arguments: Sequence[str]) -> None:
    """Run, and print what was seen."""
    usual = Load()
    parser = argparse.ArgumentParser(prog="bench.control.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--factor", type=float, default=usual.factor)
    parser.add_argument("--work", type=float, default=usual.work, help="seconds of a call")
    parser.add_argument("--size", type=int, default=usual.size, help="worker processes")
    parser.add_argument("--waiting", type=int, default=usual.waiting, help="how many may wait")
    parser.add_argument("--timeout", default=usual.timeout, help="X-Timeout of the requests")
    load = Load(**vars(parser.parse_args(arguments)))
    with tempfile.TemporaryDirectory() as directory:
        print(f"on {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the beginning")
        print("\n".join(_run(load, Path(directory))))


if __name__ == "__main__":
    main(sys.argv[1:])
