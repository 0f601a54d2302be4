"""Waiting in tests for something to become true, with a deadline: the one place that sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

__all__ = ["LOOK_SECONDS", "until"]

#: Seconds between two looks.
LOOK_SECONDS = 0.01


async def until(
    reactor: Any, condition: Callable[[], object], seconds: float = 30.0, what: str = ""
) -> None:
    """Wait until a condition is true.  On the reactor thread.

    :param reactor: the reactor that runs the test (:class:`IReactorTime`).
    :param condition: looked at now and then; true when there is nothing to wait for any more.
    :param seconds: how long it is worth waiting for.
    :param what: what is waited for, for the message.
    :raises AssertionError: it was not true in time.
    """
    deadline = reactor.seconds() + seconds
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"{what or 'what the test waits for'}: not within {seconds:g} s")
        await deferLater(reactor, LOOK_SECONDS)
