"""The status page of one version of the daemon, as its settings want it.

Decides whether there is one, and hands it what it shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from deferpost._version import __version__
from deferpost.credentials import OperatorTokens
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.model import Route
from deferpost.observing import Observing
from deferpost.runtime import Runtime
from deferpost.settings import Settings
from deferpost.web.status import PREFIX, Access, Looking, Overview, StatusPage

__all__ = ["check_paths", "status_page"]


def check_paths(routes: Iterable[Route], settings: Settings) -> None:
    """Check that no route is where the status page is.

    :raises DeclarationError: one is.
    """
    if settings.status_page == "off":
        return
    for route in routes:
        if route.path == PREFIX or route.path.startswith(f"{PREFIX}/"):
            raise DeclarationError(
                f"the route {route.path} is the daemon's own unless status_page is off"
            )


def status_page(
    settings: Settings,
    runtime: Runtime,
    observing: Observing,
    operators: OperatorTokens | None,
    reactor: Any,
    *,
    accepting: Callable[[], bool],
) -> StatusPage | None:
    """The status page of a runtime; None where it is off.

    :param settings: the settings.
    :param runtime: whose pools are shown.
    :param observing: has counted what is over.
    :param operators: who may act; None where nobody has a token.
    :param reactor: the reactor.
    :param accepting: whether calls are accepted.
    :raises ConfigurationError: it is for operators, and there are none.
    """
    if settings.status_page == "off":
        return None
    if settings.status_page == "operators" and operators is None:
        raise ConfigurationError(
            ['status_page is "operators", and there are none: operator_tokens names no file']
        )
    overview = Overview(
        runtime,
        observing.tally,
        accepting=accepting,
        now=time.monotonic,
        wall_clock=time.time,
        version=__version__,
        since=observing.since,
    )
    looking = Looking(settings.status_page)
    access = Access(looking, None if operators is None else operators.name)
    return StatusPage(overview, access, reactor)
