"""How the tests run under pytest: trial's test cases first, and examples without a deadline."""

from __future__ import annotations

from hypothesis import settings

from deferpost.testing.trialcases import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]

# How long an example takes depends on what else the machine does.
settings.register_profile("deferpost", deadline=None)
settings.load_profile("deferpost")
