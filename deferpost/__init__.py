"""Slow Python work behind an HTTP POST, without ever blocking Twisted's reactor.

This is the public face, and nothing else: every name is defined elsewhere and is imported from
there when it is first asked for (:pep:`562`).  So a worker process, which imports this package for
the sake of a handler, does not load Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferpost._version import __version__

__all__ = [
    "App",
    "BadRequest",
    "BearerTokens",
    "Call",
    "Canceled",
    "DeferPost",
    "DeferPostSite",
    "HTTPError",
    "Headers",
    "Interrupted",
    "Limits",
    "ProcessPool",
    "ReactorPool",
    "Reply",
    "SignedCalls",
    "ThreadPool",
    "__version__",
    "sign_post",
    "verify_webhook",
]

if TYPE_CHECKING:
    from deferpost.app import App
    from deferpost.authentication import BearerTokens, SignedCalls, sign_post
    from deferpost.errors import BadRequest, Canceled, HTTPError, Interrupted
    from deferpost.handlers.call import Call
    from deferpost.model import Headers, Reply
    from deferpost.mount import DeferPost
    from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool
    from deferpost.webhooks.receiving import verify_webhook
    from deferpost.wire.limits import Limits
    from deferpost.wire.site import DeferPostSite
else:
    # Hidden from type checkers: to them, a module with __getattr__ has every name there is.
    from importlib import import_module

    _HOMES = {
        "App": "deferpost.app",
        "BadRequest": "deferpost.errors",
        "BearerTokens": "deferpost.authentication",
        "Call": "deferpost.handlers.call",
        "Canceled": "deferpost.errors",
        "DeferPost": "deferpost.mount",
        "DeferPostSite": "deferpost.wire.site",
        "HTTPError": "deferpost.errors",
        "Headers": "deferpost.model",
        "Interrupted": "deferpost.errors",
        "Limits": "deferpost.wire.limits",
        "ProcessPool": "deferpost.pools.plans",
        "ReactorPool": "deferpost.pools.plans",
        "Reply": "deferpost.model",
        "SignedCalls": "deferpost.authentication",
        "ThreadPool": "deferpost.pools.plans",
        "sign_post": "deferpost.authentication",
        "verify_webhook": "deferpost.webhooks.receiving",
    }

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
