"""The handlers of the behaviour suite that are coroutines, for pools on the reactor.

They are those of ``handlers``, but for streams, which coroutines do not give.  One that waits at a
gate is let on by :func:`opened`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import CancelledError, Deferred

from deferpost.handlers.call import Call
from deferpost.testing import handlers

__all__ = ["COROUTINES", "opened"]

_at_gates: dict[Path, list[Deferred[None]]] = defaultdict(list)


def opened(gate: Path) -> None:
    """A gate was opened: let on those who wait at it.

    :param gate: the file for which they wait, which is there now.
    """
    for waiting in _at_gates.pop(gate, []):
        if not waiting.called:
            waiting.callback(None)


async def _wait(call: Call) -> None:
    gate = handlers.gate_of(call)
    if not gate.exists():
        waiting: Deferred[None] = Deferred()
        _at_gates[gate].append(waiting)
        await waiting


async def echo(call: Call) -> bytes:
    """See ``handlers``."""
    return handlers.echo(call)


async def own_body(call: Call) -> BinaryIO:
    """See ``handlers``."""
    return handlers.own_body(call)


async def describe(call: Call) -> dict[str, object]:
    """See ``handlers``."""
    return handlers.describe(call)


async def empty(call: Call) -> None:
    """See ``handlers``."""


async def large(call: Call) -> bytes:
    """See ``handlers``."""
    return handlers.large(call)


async def file(call: Call) -> BinaryIO:
    """See ``handlers``."""
    return handlers.file(call)


async def refuse(call: Call) -> None:
    """See ``handlers``."""
    handlers.refuse(call)


async def fail(call: Call) -> None:
    """See ``handlers``."""
    handlers.fail(call)


async def cancel_itself(call: Call) -> None:
    """See ``handlers``."""
    handlers.cancel_itself(call)


async def hold(call: Call) -> str:
    """See ``handlers``."""
    handlers.note(call, "started", call.id)
    await _wait(call)
    return call.id


async def hold_on(call: Call) -> str:
    """See ``handlers``."""
    handlers.note(call, "started", call.id)
    try:
        await _wait(call)
    except CancelledError:
        await _wait(call)
    return call.id


async def report(call: Call) -> str:
    """See ``handlers``."""
    call.progress(1, 4, "one of four")
    await hold(call)
    call.progress(4, 4, "all")
    return call.id


async def stream(call: Call) -> object:
    """Returns a generator, which a coroutine cannot."""
    return handlers.break_off(call)


class Calls:
    """See ``handlers``."""

    def __init__(self) -> None:
        self._calls = 0

    async def __call__(self, call: Call) -> int:
        """How many calls it has had."""
        self._calls += 1
        return self._calls


#: The handlers by the names of their routes.
COROUTINES = {
    "calls": Calls,
    "cancel_itself": cancel_itself,
    "describe": describe,
    "echo": echo,
    "empty": empty,
    "fail": fail,
    "file": file,
    "hold": hold,
    "hold_on": hold_on,
    "large": large,
    "own_body": own_body,
    "refuse": refuse,
    "report": report,
    "stream": stream,
}
