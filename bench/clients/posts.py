"""Posts from many connections, none of which is ever idle: what takes the place of wrk.

``python -m bench.clients.posts PORT PATH CONNECTIONS SECONDS BODY`` prints how many requests were
answered, and in how many seconds, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time

from bench.clients.exchange import Responses, post

__all__ = ["main", "post_for"]


def post_for(
    port: int, path: str, connections: int, seconds: float, body: bytes
) -> tuple[int, float]:
    """Post for a time.

    :returns: how many requests were answered, and in how many seconds.
    :raises RuntimeError: an answer was not 200, or did not come.
    """
    request = post(path, body)
    answered = 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20.0))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(client, selectors.EVENT_READ, (client, Responses()))
        began = time.monotonic()
        for key in list(selector.get_map().values()):
            key.data[0].sendall(request)
        while (now := time.monotonic()) - began < seconds:
            ready = selector.select(20.0)
            if not ready:
                raise RuntimeError("no answer within 20 s")
            for key, _ in ready:
                client, responses = key.data
                status = responses.feed(client.recv(65536))
                if status is None:
                    continue
                if status != 200:
                    raise RuntimeError(f"an answer was {status}")
                answered += 1
                client.sendall(request)
        return answered, now - began


def main() -> None:
    """Post, and print the figures."""
    port, path, connections, seconds, body = sys.argv[1:]
    figures = post_for(int(port), path, int(connections), float(seconds), body.encode())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
