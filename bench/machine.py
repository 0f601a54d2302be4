"""What a run was made on: the machine, its CPUs, and the versions of what was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import attrs

from bench.results import Machine

__all__ = ["Cores", "machine", "raise_file_limit", "usable_cores"]

_PEERS = (
    "Twisted",
    "klein",
    "aiohttp",
    "uvloop",
    "httptools",
    "starlette",
    "uvicorn",
    "waitress",
    "gunicorn",
    "granian",
)

_VERSIONS = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


@attrs.frozen
class Cores:
    """Which CPUs a server and its client are held to; all of them where there is only one.

    :ivar server: the server's.
    :ivar client: the client's.
    :ivar every: all that may be used.
    """

    server: frozenset[int]
    client: frozenset[int]
    every: frozenset[int]

    @property
    def is_split(self) -> bool:
        """Whether server and client have one each."""
        return self.server != self.client


def usable_cores() -> Cores:
    """The first two of the CPUs that this process may use."""
    every = sorted(os.sched_getaffinity(0))
    if len(every) == 1:
        return Cores(frozenset(every), frozenset(every), frozenset(every))
    return Cores(frozenset(every[:1]), frozenset(every[1:2]), frozenset(every))


def raise_file_limit() -> int:
    """Let this process and its children have as many open files as they may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _wrk() -> str | None:
    if shutil.which("wrk") is None:
        return None
    # It has no option that prints this and ends well.
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    return found[0] if found else "of an unknown version"


def machine(peers: Path | None) -> Machine:
    """What this is.

    :param peers: the interpreter of the peers' environment, where there is one.
    """
    versions = {"deferpost": version("deferpost"), "Twisted of deferpost": version("Twisted")}
    if peers is not None:
        command = [str(peers), "-c", _VERSIONS, *_PEERS]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        versions.update(json.loads(done.stdout))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    release = re.match(r"\d+\.\d+", platform.release())
    return Machine(
        date=time.strftime("%Y-%m-%d"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(pages / 2**30),
        system=f"{platform.system()} {release[0] if release else ''}".strip(),
        python=platform.python_version(),
        load_before=round(os.getloadavg()[0], 2),
        wrk=_wrk(),
        versions=versions,
    )
