"""A pytest plugin: trial's test cases beside pytest-twisted's tests.

``pytest_plugins = ["deferpost.testing.trialcases"]`` in the topmost ``conftest.py``.  Without it,
an asynchronous test of a :class:`twisted.trial.unittest.TestCase`, as those of the behaviour suite
are, wants to run the reactor for itself, which fails in a process in which pytest-twisted has it
running.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

__all__ = ["trial_on_the_running_reactor"]


@pytest.fixture(scope="session", autouse=True)
def trial_on_the_running_reactor(twisted_greenlet: object) -> Iterator[None]:
    """Have test cases of trial wait as pytest-twisted does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestCase, "_wait", _wait)
        yield


def _wait(case: TestCase, deferred: Deferred[Any]) -> None:
    """Wait for a Deferred that never fails.

    Not straight in its callback: the test case then has the reactor look for what is left over,
    which must not happen inside of just any call that the reactor makes.
    """
    fired: list[object] = []
    deferred.addBoth(fired.append)
    if not fired:
        reactor = sys.modules["twisted.internet.reactor"]  # installed by pytest-twisted
        turned: Deferred[None] = Deferred()
        deferred.addBoth(lambda _: reactor.callLater(0, turned.callback, None))
        pytest_twisted.blockon(turned)
