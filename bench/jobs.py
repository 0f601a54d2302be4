"""What the handlers of every server do, ours and the others'.

Only the standard library is imported: this runs in both environments.  The gate is a file, named by
``BENCH_GATE``: work that lasts ends when it is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

__all__ = [
    "PIECE",
    "burn",
    "count",
    "echo",
    "hold",
    "large_file",
    "large_size",
    "pieces",
    "processes",
    "spin",
    "threads",
]

#: Bytes of each piece of a large body.
PIECE = 64 * 1024

_SPINS = 2_000_000


def threads() -> int:
    """How many threads a server has for its handlers."""
    return int(os.environ.get("BENCH_THREADS", "10"))


def processes() -> int:
    """How many processes a server has for its handlers."""
    return int(os.environ.get("BENCH_PROCESSES", "2"))


def large_size() -> int:
    """Bytes of the large body that is answered."""
    return int(os.environ["BENCH_SIZE"])


def large_file() -> str:
    """The file of that body."""
    return os.environ["BENCH_FILE"]


def echo(body: bytes) -> bytes:
    """Give the body back."""
    return body


def burn(steps: int) -> int:
    """Compute in pure Python, for a time that goes with the number of steps."""
    total = 0
    for step in range(steps):
        total += step * step % 7
    return total


def hold() -> None:
    """Block without computing until the gate opens."""
    while not _is_open():
        time.sleep(0.05)


def spin() -> None:
    """Compute in pure Python until the gate opens, and hardly ever release the interpreter.

    It looks at the gate, which releases it, some times in a second at most.
    """
    while not _is_open():
        for _ in range(_SPINS):
            pass


def count(read: Callable[[int], bytes]) -> int:
    """Read a body to its end, piece by piece; returns how many bytes there were."""
    size = 0
    while piece := read(PIECE):
        size += len(piece)
    return size


def pieces() -> Iterator[bytes]:
    """The large body, piece by piece."""
    piece, left = bytes(PIECE), large_size()
    while left:
        part = piece[:left]
        left -= len(part)
        yield part


def _is_open() -> bool:
    return os.path.exists(os.environ["BENCH_GATE"])
