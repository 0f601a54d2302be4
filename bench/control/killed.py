"""The app that :mod:`bench.control.kill` has served: each run leaves two lines in a log.

The log outlives whoever wrote it: a line is on disk before the code goes on.  What a handler gives
follows from its body alone, so that everybody can tell whose result it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from deferpost import App, Call

__all__ = ["KEY_BYTES", "LOG", "RETRIES", "app", "expected"]

#: The variable with the path of the log.
LOG = "BENCH_KILL_LOG"

#: A body begins with the name of its job, of so many bytes.
KEY_BYTES = 24

#: How often a job of each route may run again.
RETRIES = {
    "/thread": 0,
    "/large": 0,
    "/process": 0,
    "/retried": 1,
    "/coroutine": 0,
    "/stream": 0,
    "/falls-back": 0,
    "/always": 0,
}

#: Digests that a large result has, and pieces of a stream, which is as large.
_REPEATED, _PIECES = 600, 8

app = App()


def expected(path: str, body: bytes) -> bytes:
    """What the route of a path gives for a body."""
    digest = hashlib.sha256(body).hexdigest().encode()
    if path in ("/large", "/stream"):
        return digest * _REPEATED
    return digest


def _note(word: str, body: bytes) -> None:
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        line = f"{word} {body[:KEY_BYTES].decode('ascii')} {os.getpid()}\n"
        os.write(descriptor, line.encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(path: str, file: BinaryIO) -> bytes:
    body = file.read()
    _note("begin", body)
    result = expected(path, body)
    time.sleep(result[0] % 8 / 200)
    _note("end", body)
    return result


@app.post("/thread")
def thread(call: Call) -> bytes:
    """In a thread."""
    return _run("/thread", call.body)


@app.post("/large")
def large(call: Call) -> bytes:
    """In a thread, with a result that does not fit into a database."""
    return _run("/large", call.body)


@app.post("/falls-back", fallback=0.02)
def falls_back(call: Call) -> bytes:
    """In a thread, for clients that do not wait long."""
    return _run("/falls-back", call.body)


@app.post("/always", delivery="async")
def always(call: Call) -> bytes:
    """In a thread, for clients that do not wait at all."""
    return _run("/always", call.body)


@app.post("/process", pool="process")
def process(call: Call) -> bytes:
    """In a process, once."""
    return _run("/process", call.body)


@app.post("/retried", pool="process", retries=1)
def retried(call: Call) -> bytes:
    """In a process, at most twice."""
    return _run("/retried", call.body)


@app.post("/coroutine")
async def coroutine(call: Call) -> bytes:
    """On the reactor."""
    return _run("/coroutine", io.BytesIO(call.body.read()))


@app.post("/stream")
def stream(call: Call) -> Iterator[bytes]:
    """In a thread, piece by piece."""
    body = call.body.read()
    _note("begin", body)
    digest = expected("/thread", body)
    for _ in range(_PIECES):
        yield digest * (_REPEATED // _PIECES)
        time.sleep(0.002)
    _note("end", body)
