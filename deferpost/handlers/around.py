"""Handlers each of whose steps goes through a function of the pool's.

So that a pool knows when a thread is in the handler's own code, and when it is in ours: a handler
that returns an iterator runs on when it has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from deferpost.handlers.call import Call
from deferpost.model import Reply

__all__ = ["Around"]


class Around:
    """A handler, and the steps of the iterator that it may return, called by another function.

    For one worker.

    :param handler: the handler.
    :param run: called with a function and its arguments; gives what the function gives.
    """

    __slots__ = ("_handler", "_run")

    def __init__(self, handler: Callable[[Call], Any], run: Callable[..., Any]) -> None:
        self._handler = handler
        self._run = run

    def __call__(self, call: Call) -> Any:
        """Run the handler."""
        result = self._run(self._handler, call)
        if isinstance(result, Reply):
            if _has_steps(result.body):
                result.body = _Steps(result.body, self._run)
        elif _has_steps(result):
            return _Steps(result, self._run)
        return result


def _has_steps(value: Any) -> bool:
    """Whether it is an iterator, and not a file, which is one too."""
    return isinstance(value, Iterator) and not hasattr(value, "read")


class _Steps:
    """An iterator whose steps, and whose end, go through a function."""

    __slots__ = ("_rest", "_run")

    def __init__(self, rest: Iterator[Any], run: Callable[..., Any]) -> None:
        self._rest = rest
        self._run = run

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._run(next, self._rest)

    def close(self) -> None:
        """End it where it stands; its ``finally`` clauses run."""
        if hasattr(self._rest, "close"):
            self._run(self._rest.close)
