"""Runs test cases that Twisted ships for its own channel against ours, and keeps the list of what
differs true.

Twisted's modules are left as they are: what takes the place of theirs does so while a test runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest import TestLoader

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import FailTest, SkipTest, SynchronousTestCase

__all__ = ["against_ours", "names_of"]

#: What the name of a test has at its end when what ours says otherwise is translated for it.
_TRANSLATED = "_translated"


def names_of(case: type[SynchronousTestCase]) -> list[str]:
    """The names of the tests of a case, as its table has them."""
    return [f"{case.__name__}.{name}" for name in TestLoader().getTestCaseNames(case)]


def against_ours(
    module: str,
    case: type[SynchronousTestCase],
    put: Callable[[Any], None],
    translate: Callable[[Any], None],
    differences: Mapping[str, str],
    said_otherwise: Mapping[str, str],
) -> type[SynchronousTestCase]:
    """A test case of Twisted's as one of ours.

    :param module: the name of the module that it becomes a part of.
    :param case: Twisted's.
    :param put: puts ours in the place of Twisted's, by ``patch`` of the test that it is given.
    :param translate: has the test hear in Twisted's words what ours says in other ones.
    :param differences: reasons by the names of the tests that are to fail.
    :param said_otherwise: the same of tests that are to fail, but to pass when translated.
    """

    def set_up(self: Any) -> Any:
        put(self)
        if self._testMethodName.endswith(_TRANSLATED):
            translate(self)
        return case.setUp(self)

    body: dict[str, Any] = {"__doc__": case.__doc__, "__module__": module, "setUp": set_up}
    for name in TestLoader().getTestCaseNames(case):
        test = getattr(case, name)
        reason = differences.get(f"{case.__name__}.{name}")
        otherwise = said_otherwise.get(f"{case.__name__}.{name}")
        if reason is not None:
            body[name] = _differs(test, reason)
        elif otherwise is not None:
            body[name] = _differs(test, otherwise)
            body[name + _TRANSLATED] = test
    return type(case.__name__, (case,), body)


def _differs(test: Callable[[Any], Any], reason: str) -> Callable[[Any], Any]:
    """A test that fails if another passes."""

    def differing(self: Any) -> Any:
        def passed(_: object) -> None:
            raise FailTest(f"it passes, and is to be taken off the list: {reason}")

        def failed(failure: Failure) -> None:
            failure.trap(Exception)
            if failure.check(SkipTest):
                failure.raiseException()
            self.flushLoggedErrors()

        return maybeDeferred(test, self).addCallbacks(passed, failed)

    return differing
