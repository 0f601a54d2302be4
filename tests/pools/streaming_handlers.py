"""Handlers that stream more than anybody reads; workers find them by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from deferpost import Call
from deferpost.testing.handlers import gate_of, note, number

PIECE = bytes(64 * 1024)


def flood(call: Call) -> Iterator[bytes]:
    """Yields for ever, and tells with each piece how many there were."""
    count = 0
    try:
        while True:
            count += 1
            call.progress(count)
            yield PIECE
    finally:
        note(call, "closed")


def flood_and_tell(call: Call) -> Iterator[bytes]:
    """The same, with a thread beside it that tells when the gate is open."""
    count = 0

    def tell() -> None:
        while not gate_of(call).exists():
            time.sleep(0.005)
        call.progress(count, None, "from beside")

    threading.Thread(target=tell, daemon=True).start()
    while True:
        count += 1
        call.progress(count)
        yield PIECE


def crumbs(call: Call) -> Iterator[str]:
    """Yields many tiny chunks."""
    for count in range(number(call, "count")):
        yield f"{count}\n"


def two_and_wait(call: Call) -> Iterator[str]:
    """Yields two chunks, and a third when the gate is open."""
    yield "one"
    yield "two"
    while not gate_of(call).exists():
        time.sleep(0.005)
    yield "three"


def report_a_lot(call: Call) -> str:
    """Tells its progress very often, and waits."""
    for count in range(number(call, "count")):
        call.progress(count, None, "not yet")
    call.progress(number(call, "count"), None, "all")
    while not gate_of(call).exists():
        time.sleep(0.005)
    return "done"


HANDLERS = {
    each.__name__: each for each in (flood, flood_and_tell, crumbs, two_and_wait, report_a_lot)
}
