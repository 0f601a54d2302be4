"""Load on a server: wrk where it is installed, else a client of our own."""

from __future__ import annotations

import math
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

__all__ = ["requests_per_second"]

CONNECTIONS = 64
BODY = b"x" * 100

_WRK_SCRIPT = Path(__file__).with_name("post.lua")


def requests_per_second(port: int, seconds: float, cpu: int | None) -> float:
    """Post from 64 kept-alive connections for a time.

    :param port: the server's port on 127.0.0.1.
    :param seconds: how long.
    :param cpu: the CPU for the client, where one is set aside.
    :returns: answered requests for each second.
    :raises RuntimeError: an answer was not 200.
    """
    if shutil.which("wrk"):
        return _by_wrk(port, seconds, cpu)
    return _by_threads(port, seconds)


def _by_wrk(port: int, seconds: float, cpu: int | None) -> float:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s", "-s", str(_WRK_SCRIPT)]
    if cpu is not None and shutil.which("taskset"):
        command = ["taskset", "-c", str(cpu), *command]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def _by_threads(port: int, seconds: float) -> float:
    """One thread, which writes to every connection and then reads from every one."""
    request = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    answered = 0
    deadline = time.monotonic() + seconds
    started = time.monotonic()
    try:
        while time.monotonic() < deadline:
            for connection in sockets:
                connection.sendall(request)
            for connection in sockets:
                data = b""
                while not data.endswith(BODY):
                    piece = connection.recv(4096)
                    if not piece:
                        raise RuntimeError("the server closed a connection")
                    data += piece
                if not data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(data[:200].decode("latin-1"))
                answered += 1
    finally:
        for connection in sockets:
            connection.close()
    return answered / (time.monotonic() - started)
