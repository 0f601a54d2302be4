"""One large body, up or down.

``python -m bench.clients.bulk up|down PORT PATH SIZE RATE`` prints the seconds that it took, as
JSON.  RATE is how many bytes the reader of an answer takes in a second; going up, there is no
bound.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection

__all__ = ["down", "main", "up"]

_PIECE = 256 * 1024

#: Seconds that any step may take.
_PATIENCE = 120.0


def up(port: int, path: str, size: int) -> float:
    """Post a body, and read how many bytes the server counted; returns the seconds.

    :raises RuntimeError: the answer was another.
    """
    piece = bytes(_PIECE)

    def pieces() -> Iterator[bytes]:
        for begin in range(0, size, _PIECE):
            yield piece[: size - begin]

    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    began = time.perf_counter()
    connection.request("POST", path, body=pieces(), headers={"Content-Length": str(size)})
    response = connection.getresponse()
    text = response.read()
    seconds = time.perf_counter() - began
    connection.close()
    if response.status != 200 or int(text) != size:
        raise RuntimeError(f"the answer was {response.status}: {text[:200]!r}")
    return seconds


def down(port: int, path: str, size: int, rate: float) -> float:
    """Post nothing, and read a large answer slowly; returns the seconds.

    :raises RuntimeError: the answer was not 200, or not of that size.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    began = time.perf_counter()
    connection.request("POST", path, body=b"")
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"the answer was {response.status}: {response.read(200)!r}")
    buffer, done, first = bytearray(_PIECE), 0, time.perf_counter()
    while got := response.readinto(buffer):
        done += got
        time.sleep(max(0.0, first + done / rate - time.perf_counter()))
    seconds = time.perf_counter() - began
    connection.close()
    if done != size:
        raise RuntimeError(f"the answer had {done} bytes, not {size}")
    return seconds


def main() -> None:
    """Send or read it, and print the seconds."""
    way, port, path, size, rate = sys.argv[1:]
    if way == "up":
        print(json.dumps(up(int(port), path, int(size))))
    else:
        print(json.dumps(down(int(port), path, int(size), float(rate))))


if __name__ == "__main__":
    main()
