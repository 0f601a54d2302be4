"""A client of deferpost: posts calls, follows their jobs, and survives lost connections.

:class:`Client` is where to start; the command ``deferpost post`` is built on it.

This is a face, and nothing else: each name is imported from its home when it is first asked for
(:pep:`562`), so that the help of a command does not wait for Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "Answer",
    "BadAnswer",
    "Client",
    "ClientError",
    "Job",
    "JobDocument",
    "JobEvent",
    "JobGone",
    "NotEnded",
    "Problem",
    "Retries",
    "Submitted",
    "Unreachable",
]

if TYPE_CHECKING:
    from deferpost.client.client import Client, Submitted
    from deferpost.client.documents import Answer, JobDocument, JobEvent
    from deferpost.client.errors import (
        BadAnswer,
        ClientError,
        JobGone,
        NotEnded,
        Problem,
        Unreachable,
    )
    from deferpost.client.job import Job
    from deferpost.client.retrying import Retries
else:
    # Hidden from type checkers: to them, a module with __getattr__ has every name there is.
    from importlib import import_module

    _HOMES = {
        "Answer": "documents",
        "BadAnswer": "errors",
        "Client": "client",
        "ClientError": "errors",
        "Job": "job",
        "JobDocument": "documents",
        "JobEvent": "documents",
        "JobGone": "errors",
        "NotEnded": "errors",
        "Problem": "errors",
        "Retries": "retrying",
        "Submitted": "client",
        "Unreachable": "errors",
    }

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
