"""Asks for something small again and again on one connection, with pauses.

``python -m bench.clients.gets PORT PATH COUNT PAUSE MOST`` prints the seconds of each exchange, as
JSON.  MOST is the time in seconds after which it is enough, if there were at least twenty.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time

from bench.clients.exchange import Responses, get

__all__ = ["ask", "main"]


def ask(port: int, path: str, count: int, pause: float, most: float) -> list[float]:
    """Ask so many times; returns the seconds of each exchange.

    :raises RuntimeError: an answer was not 200.
    """
    request, responses = get(path), Responses()
    found: list[float] = []
    deadline = time.monotonic() + most
    with socket.create_connection(("127.0.0.1", port), 60.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(found) < count and (len(found) < 20 or time.monotonic() < deadline):
            began = time.perf_counter()
            connection.sendall(request)
            status = responses.read(connection)
            found.append(time.perf_counter() - began)
            if status != 200:
                raise RuntimeError(f"an answer was {status}")
            time.sleep(pause)
    return found


def main() -> None:
    """Ask, and print the seconds."""
    port, path, count, pause, most = sys.argv[1:]
    # It waits for a CPU as little as the system allows: what it waits for is the server.
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    print(json.dumps(ask(int(port), path, int(count), float(pause), float(most))))


if __name__ == "__main__":
    main()
