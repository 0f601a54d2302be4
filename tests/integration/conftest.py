"""Daemons for tests, which are always ended, and an HTTP client that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from treq.client import HTTPClient
from twisted.web.client import Agent

from tests.integration.daemon import Daemon

#: Starts a daemon, which listens when this returns unless it is told ``listening=False``; takes
#: what :class:`Daemon` does, the directory by name and only where it matters.
StartDaemon = Callable[..., Daemon]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Starts daemons, each in a folder of its own, and ends them after the test.

    A test fails whose daemon does not end, or leaves a process behind.
    """
    started: list[Daemon] = []

    def start(
        *args: Any, directory: Path | None = None, listening: bool = True, **kwargs: Any
    ) -> Daemon:
        made = Daemon(directory or tmp_path / f"daemon{len(started)}", *args, **kwargs)
        started.append(made)
        if listening:
            made.wait_listening()
        return made

    yield start
    left = {each: alive for each in started if (alive := each.end())}
    for each, pids in left.items():
        pytest.fail(f"processes of a daemon did not end with it: {pids}\n{each.log()}")


@pytest.fixture
def http() -> HTTPClient:
    """A client of treq whose connections are closed after each response."""
    from twisted.internet import reactor

    return HTTPClient(Agent(reactor))
