"""Load on a server: wrk where it is installed, else a client of our own."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bench.pinning import held_to
from bench.programs import ROOT

__all__ = [
    "BODY",
    "CONNECTIONS",
    "client",
    "requests_per_second",
    "requests_per_second_in_python",
    "requests_per_second_of_wrk",
]

CONNECTIONS = 64
BODY = "x" * 100

_WRK_SCRIPT = Path(__file__).with_name("post.lua")


def requests_per_second(
    port: int, path: str, seconds: float, cores: Collection[int], body: str = BODY
) -> float:
    """Post from 64 kept-alive connections for a time.

    :param port: the server's port on 127.0.0.1.
    :param path: where to post.
    :param seconds: how long; wrk knows whole seconds only.
    :param cores: the CPUs that the client is held to.
    :param body: what is posted.
    :returns: answered requests for each second.
    :raises RuntimeError: an answer was not 200, or did not come.
    """
    if shutil.which("wrk") is None:
        return requests_per_second_in_python(port, path, seconds, cores, body)
    done = _run(
        [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s", "--timeout=20s"),
            *("-s", str(_WRK_SCRIPT), f"http://127.0.0.1:{port}{path}"),
        ],
        cores,
        seconds + 60,
        {"BENCH_BODY": body},
    )
    return requests_per_second_of_wrk(done)


def requests_per_second_of_wrk(printed: str) -> float:
    """Read what wrk has printed.

    :raises RuntimeError: an answer was not 200, or did not come.
    """
    found = re.search(r"^Requests/sec:\s+([\d.]+)$", printed, re.MULTILINE)
    if found is None or "Non-2xx" in printed or "Socket errors" in printed or not float(found[1]):
        raise RuntimeError(f"wrk was not answered well:\n{printed}")
    return float(found[1])


def requests_per_second_in_python(
    port: int, path: str, seconds: float, cores: Collection[int], body: str = BODY
) -> float:
    """As :func:`requests_per_second`, without wrk."""
    arguments = [str(port), path, str(CONNECTIONS), str(seconds), body]
    answered, took = client("posts", arguments, cores, seconds + 60)
    return float(answered / took)


def client(name: str, arguments: Sequence[str], cores: Collection[int], seconds: float) -> Any:
    """Run one of the programs of :mod:`bench.clients`; returns what it prints.

    :param cores: the CPUs that it is held to.
    :param seconds: the most that it may take.
    :raises RuntimeError: it failed.
    """
    command = [sys.executable, "-m", f"bench.clients.{name}", *arguments]
    return json.loads(_run(command, cores, seconds, {}))


def _run(
    command: Sequence[str], cores: Collection[int], seconds: float, more: dict[str, str]
) -> str:
    with held_to(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **more},
        )
    with process:
        try:
            printed, complained = process.communicate(timeout=seconds)
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {complained[-2000:]}")
    return printed
