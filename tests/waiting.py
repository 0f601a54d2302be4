"""Waiting, in tests, on the reactor that runs them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor

from deferpost.testing import waiting

__all__ = ["until"]


async def until(condition: Callable[[], object], what: str = "", seconds: float = 60.0) -> None:
    """Wait until a condition is true.

    :param condition: looked at now and then.
    :param what: what is waited for, for the message.
    :param seconds: how long it is worth waiting for.
    :raises AssertionError: it was not true in time.
    """
    await waiting.until(reactor, condition, seconds, what)
