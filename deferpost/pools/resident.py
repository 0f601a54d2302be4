"""How much memory a process has."""

from __future__ import annotations

import os

__all__ = ["resident_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int | None:
    """The resident set of a process, without its children: what it has in memory, shared or not.

    :param pid: of the process.
    :returns: bytes; None where the process is gone, or the system does not say.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
