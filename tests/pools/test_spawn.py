"""What the system says and enforces of worker processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from deferpost.pools.resident import resident_bytes
from deferpost.pools.spawn import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGKILL, "signal 9 (SIGKILL)"),
        (-signal.SIGXCPU, "signal 24 (SIGXCPU): it has used up its CPU time"),
        (-40, "signal 40"),
    ],
)
def test_describe_exit(code: int, words: str) -> None:
    """The log says how a process ended in words."""
    assert describe_exit(code) == words


def test_resident_bytes() -> None:
    """The memory of a process is known while it is there."""
    mine = resident_bytes(os.getpid())
    assert mine is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 10 * 2**20 < mine <= peak + 2**20
    assert resident_bytes(2**22 + 1) is None  # above the highest number of a process


def test_limits_are_not_above_those_there_are() -> None:
    """Where the system sets lower limits already, these stay."""
    program = """
        import resource
        from deferpost.pools.limits import limit_cpu, limit_memory
        memory, cpu = 3 * 2**30, 50
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        limit_memory(2**40)
        limit_cpu(1000.0)
        assert resource.getrlimit(resource.RLIMIT_AS) == (memory, memory)
        assert resource.getrlimit(resource.RLIMIT_CPU) == (cpu, cpu)
        limit_memory(2**30)
        limit_cpu(3.0)
        assert resource.getrlimit(resource.RLIMIT_AS) == (2**30, 2**30)
        assert resource.getrlimit(resource.RLIMIT_CPU)[0] in (4, 5), "up to a second more"
        print("limited")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("limited\n", "")
