"""A process that accepts jobs, and says of each when it is durable: to be killed by tests.

``python -m tests.store.acceptor DIRECTORY CLIENTS COUNT SIZE...`` has so many clients that each
accept one job after the other, with bodies of the given sizes in turns, until there were COUNT of
them; then it closes the store.  It writes a line with the id of each.  Of every third job it
notes that it was started, and of every ninth that it has ended, and writes ``started`` or ``ended``
before the id.  Where the store fails, it writes ``still`` and what it had written of the job
before, ``refused`` if that was nothing.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from deferpost.errors import StoreFailed
from deferpost.model import CallHead, State
from deferpost.records import NewJob, Outcome
from deferpost.store.sqlite import SQLiteStore

__all__ = ["content_of"]


def content_of(id: str, size: int) -> bytes:
    """The body, and the result, of a job."""
    return (id.encode() * (size // len(id) + 1))[:size]


def _say(*words: str) -> None:
    os.write(1, f"{' '.join(words)}\n".encode())


async def _client(store: SQLiteStore, numbers: Iterator[int], sizes: list[int]) -> None:
    for number in numbers:
        id = store.new_id()
        size = sizes[number % len(sizes)]
        head = CallHead(f"request-{number}", "/a", "POST", "/a", b"", (), None, None)
        job = NewJob(
            id=id,
            head=head,
            pool="thread",
            created=time.time(),
            urgency=3,
            retries=0,
            ttl=3600.0,
            body_bytes=size,
        )
        word = "refused"
        try:
            await store.accept(job, io.BytesIO(content_of(id, size)))
            _say(word := "accepted", id)
            if number % 3 == 0:
                await store.start(id, time.time())
                _say(word := "started", id)
            if number % 9 == 0:
                outcome = Outcome(state=State.SUCCEEDED, at=time.time(), status=200)
                await store.finish(id, outcome, content_of(id, size))
                _say("ended", id)
        except StoreFailed as error:
            if error.fatal:
                raise
            _say("still", word, id)


async def _accept(reactor: Any, directory: str, clients: str, count: str, *sizes: str) -> None:
    store = SQLiteStore(directory, reactor)
    await store.open()
    numbers = iter(range(1, int(count) + 1)) if int(count) else itertools.count(1)
    bodies = [int(size) for size in sizes]
    await gatherResults(
        [Deferred.fromCoroutine(_client(store, numbers, bodies)) for _ in range(int(clients))]
    )
    await store.close()
    _say("closed")


if __name__ == "__main__":
    react(_accept, sys.argv[1:])
