"""How the tests run under pytest: trial's test cases first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from twisted.trial.unittest import TestCase

# How long an example takes depends on what else the machine does.
settings.register_profile("deferpost", deadline=None)
settings.load_profile("deferpost")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put trial's test cases before the others, in whatever order each kind is otherwise.

    A test case runs the reactor for itself, which it cannot any more when pytest-twisted has it
    running, as it has from its first test on.
    """
    items.sort(key=lambda item: not _is_of_trial(item))


def _is_of_trial(item: pytest.Item) -> bool:
    case = getattr(item, "cls", None)
    return isinstance(case, type) and issubclass(case, TestCase)
