"""A pytest plugin: trial's test cases beside pytest-twisted's tests.

``pytest_plugins = ["deferpost.testing.trialcases"]`` in the topmost ``conftest.py``.  A
:class:`twisted.trial.unittest.TestCase`, as those of the behaviour suite are, runs the reactor for
itself and stops it.  It cannot any more when pytest-twisted has it running, as it has from its
first test that waits until the end of the session.
"""

from __future__ import annotations

import pytest
from twisted.trial.unittest import TestCase

__all__ = ["pytest_collection_modifyitems"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put trial's test cases before the others, in whatever order each kind is otherwise."""
    items.sort(key=lambda item: not _is_of_trial(item))


def _is_of_trial(item: pytest.Item) -> bool:
    case = getattr(item, "cls", None)
    return isinstance(case, type) and issubclass(case, TestCase)
