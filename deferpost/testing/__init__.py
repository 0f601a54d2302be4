"""What a user needs to test their own handlers, and their own pools.

``client`` posts to an app in memory, ``pools`` has the pools that it does so with, ``runs`` is what
they run jobs by, ``fixtures`` brings the client to pytest.  ``behaviour`` is the suite that every
:class:`~deferpost.interfaces.IWorkerPool` passes, with its ``handlers`` and ``coroutines``, and
``stores`` that of every :class:`~deferpost.interfaces.IJobStore`;
``guard`` catches whoever touches a Request off the reactor thread; ``waiting`` waits.

This is a face, and nothing else: each name is imported from its home when it is first asked for
(:pep:`562`), so that a worker process that imports ``handlers`` does not load Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "InlinePool",
    "ManualPool",
    "NoResponse",
    "OffReactorThread",
    "Pending",
    "PoolBehaviour",
    "PostClient",
    "ReactorOnlyRequest",
    "Response",
    "Run",
    "StoreBehaviour",
    "until",
]

if TYPE_CHECKING:
    from deferpost.testing.behaviour import PoolBehaviour
    from deferpost.testing.client import NoResponse, Pending, PostClient, Response
    from deferpost.testing.guard import OffReactorThread, ReactorOnlyRequest
    from deferpost.testing.pools import InlinePool, ManualPool
    from deferpost.testing.runs import Run
    from deferpost.testing.stores import StoreBehaviour
    from deferpost.testing.waiting import until
else:
    # Hidden from type checkers: to them, a module with __getattr__ has every name there is.
    from importlib import import_module

    _HOMES = {
        "InlinePool": "pools",
        "ManualPool": "pools",
        "NoResponse": "client",
        "OffReactorThread": "guard",
        "Pending": "client",
        "PoolBehaviour": "behaviour",
        "PostClient": "client",
        "ReactorOnlyRequest": "guard",
        "Response": "client",
        "Run": "runs",
        "StoreBehaviour": "stores",
        "until": "waiting",
    }

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
