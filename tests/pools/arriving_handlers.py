"""Handlers of the tests of arriving bodies, which worker processes import, too."""

from __future__ import annotations

import os
import resource
import sys
import threading

from deferpost import Call
from deferpost.testing.handlers import note

__all__ = ["HANDLERS"]


def closes(call: Call) -> str:
    """Closes its body when it has read a little, and goes on until its gate is open."""
    from deferpost.testing.handlers import hold

    call.body.read(10)
    call.body.close()
    return hold(call)


def leaves_a_reader(call: Call) -> str:
    """Returns while a thread of its own still reads."""

    def read() -> None:
        begun.set()
        try:
            call.body.read()
        except BaseException as error:
            note(call, "reader", type(error).__name__)

    begun = threading.Event()
    threading.Thread(target=read, daemon=True).start()
    begun.wait()
    return "answered"


def dies(call: Call) -> None:
    """Ends its process in the middle of its body."""
    call.body.read(10)
    os._exit(3)


def swallows(call: Call) -> str:
    """Answers although its body is broken."""
    try:
        call.body.read()
    except OSError as error:
        return f"{error}"
    return "whole"


def cleans_up_badly(call: Call) -> None:
    """Fails by its own fault when its body breaks."""
    try:
        call.body.read()
    finally:
        raise LookupError("a defect of the handler's own")


def count(call: Call) -> dict[str, int]:
    """How many bytes come, and how much memory its process has needed at most."""
    size, room = 0, bytearray(64 * 1024)
    while got := call.body.readinto(room):  # type: ignore[attr-defined]  # a buffered file has it
        size += got
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"size": size, "peak": peak if sys.platform == "darwin" else peak * 1024}


def descriptors(call: Call) -> int:
    """How many descriptors are open in its process."""
    return len(os.listdir("/proc/self/fd"))


#: The handlers by the names of their routes.
HANDLERS = {
    "cleans_up_badly": cleans_up_badly,
    "closes": closes,
    "count": count,
    "descriptors": descriptors,
    "dies": dies,
    "leaves_a_reader": leaves_a_reader,
    "swallows": swallows,
}
