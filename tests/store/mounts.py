"""Small disks for tests: which can be filled, and be made read-only."""

from __future__ import annotations

import os
import subprocess
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["remount", "small_disk"]


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A disk in memory at a directory; the test is skipped for who may not mount one.

    :param place: the directory.
    :param size: of the disk, as ``mount`` takes it.
    """
    if os.geteuid() != 0:
        raise unittest.SkipTest("only root may mount a disk to fill it")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise unittest.SkipTest(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    """Have such a disk be ``ro`` or ``rw``."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)
