"""What the system says of running processes: their children, memory, and time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

__all__ = [
    "Identity",
    "PeakMemory",
    "cpu_seconds",
    "descendants",
    "is_alive",
    "kill",
    "memory",
    "until",
    "until_idle",
]

_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Identity:
    """A process that is not mistaken for a later one of the same number.

    :ivar pid: its number.
    :ivar started: when it was started, in ticks since the system was.
    """

    pid: int
    started: int


def _stat(pid: int) -> list[str] | None:
    """The fields of a process from its state on, if it is there and has not ended."""
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def descendants(pid: int) -> list[Identity]:
    """The processes that a process has started, directly or not, and that have not ended."""
    by_parent: dict[int, list[Identity]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            found = Identity(int(entry), int(fields[19]))
            by_parent.setdefault(int(fields[1]), []).append(found)
    family = list(by_parent.get(pid, ()))
    for each in family:
        family.extend(by_parent.get(each.pid, ()))
    return family


def kill(process: Identity) -> None:
    """SIGKILL to a process, if it still is there."""
    fields = _stat(process.pid)
    if fields is not None and int(fields[19]) == process.started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def is_alive(process: Identity) -> bool:
    """Whether it is there and has not ended."""
    fields = _stat(process.pid)
    return fields is not None and int(fields[19]) == process.started


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes of resident memory of a process; its peak as ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"the process {pid} has no {field}")


class PeakMemory:
    """By how much the memory of a process grows at most, from now on.

    :param pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = memory(pid)
        # proc(5): the peak is now's.  Where that is not allowed, it is the one since the start.
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def growth(self) -> int:
        """Bytes, until now."""
        return memory(self._pid, "VmHWM") - self._before


def cpu_seconds(pids: Sequence[int]) -> float:
    """The time that these processes have computed, in all."""
    found = [fields for pid in pids if (fields := _stat(pid)) is not None]
    return sum(int(fields[11]) + int(fields[12]) for fields in found) / _TICKS


def until(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.01) -> None:
    """Wait until a condition holds.

    :param seconds: the most that it may take.
    :raises RuntimeError: it took longer.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


def until_idle(pid: int, seconds: float = 60.0) -> None:
    """Wait until a process hardly computes and its memory stays as it is."""

    def is_idle() -> bool:
        before, size = cpu_seconds([pid]), memory(pid)
        time.sleep(0.25)
        return cpu_seconds([pid]) - before <= 0.02 and memory(pid) == size

    until(is_idle, seconds, f"the process {pid} is idle")
