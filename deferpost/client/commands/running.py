"""The reactor of a command, and the signals that end it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Stopped", "run"]


class Stopped:
    """Why a command was stopped from outside.

    :ivar by: the number of a signal; 0 for the time limit; None where it was not.
    """

    def __init__(self) -> None:
        self.by: int | None = None


def run(
    act: Callable[[Any, Stopped], Coroutine[Deferred[Any], Any, int]], seconds: float | None
) -> int:
    """Run a coroutine to its end.

    SIGINT, SIGTERM and the time limit cancel it.  A second signal ends the process at once.

    :param act: takes the reactor, and what says why it was canceled; its value is the exit status.
    :param seconds: that it may take; None for any.
    :returns: the exit status.
    """
    from twisted.internet import reactor as chosen

    reactor: Any = chosen
    stopped = Stopped()
    outcome: list[int | Failure] = []
    doing: list[Deferred[int]] = []

    def end(result: int | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    def start() -> None:
        deferred = Deferred.fromCoroutine(act(reactor, stopped))
        doing.append(deferred)
        if seconds is not None:
            limit = reactor.callLater(seconds, stop, 0)
            deferred.addBoth(lambda result: (limit.active() and limit.cancel(), result)[1])
        deferred.addBoth(end)

    def stop(by: int) -> None:
        if stopped.by is None:
            stopped.by = by
            for deferred in doing:
                deferred.cancel()

    def on_signal(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        reactor.callFromThread(stop, number)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    assert isinstance(result, int)
    return result
