"""The client as a pytest fixture: ``pytest_plugins = ["deferpost.testing.fixtures"]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from deferpost.testing.client import PostClient

__all__ = ["deferpost_client"]


@pytest.fixture
def deferpost_client() -> Iterator[Callable[..., PostClient]]:
    """Makes clients, ``client = deferpost_client(app)``, and closes them when the test has ended.

    It takes what :class:`deferpost.testing.PostClient` takes.
    """
    with ExitStack() as clients:

        def client(*args: object, **options: object) -> PostClient:
            made = PostClient(*args, **options)  # type: ignore[arg-type]  # as the user gives them
            return clients.enter_context(made)

        yield client
