"""What the operator decides, as values: each setting, with what holds where nobody set it.

This module decides the defaults, and what a pool's size of ``"auto"`` comes to on a machine.  It
knows no text, no key and no range: how settings are written is in :mod:`deferpost.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "KINDS",
    "PoolKind",
    "PoolSettings",
    "PoolSize",
    "Settings",
    "default_pool",
    "resolve_size",
]

PoolKind: TypeAlias = Literal["thread", "process", "reactor"]
PoolSize: TypeAlias = int | Literal["auto"]

#: The kinds of pools; a pool that is named like a kind is of that kind.
KINDS: tuple[PoolKind, ...] = ("thread", "process", "reactor")

_REACTOR_SIZE = 1000


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One pool.

    :param kind: what runs the work.
    :param size: how many calls run at once; see :func:`resolve_size` for ``"auto"``.
    :param max_waiting: how many calls may wait for their turn.
    :param kill_grace: seconds between SIGTERM and SIGKILL; of meaning to processes only.
    """

    kind: PoolKind
    size: PoolSize = "auto"
    max_waiting: int = 1000
    kill_grace: float = 5.0


def default_pool(kind: PoolKind) -> PoolSettings:
    """Return the settings of a pool of which nothing but the kind is set."""
    return PoolSettings(kind=kind, size=_REACTOR_SIZE if kind == "reactor" else "auto")


def _default_pools() -> Mapping[str, PoolSettings]:
    return MappingProxyType({"thread": default_pool("thread"), "process": default_pool("process")})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the operator decides, with its default.

    :param app: the app to serve, as ``"module:attribute"``.
    :param listen: Twisted endpoint strings, at least one.
    :param max_body: largest request body in bytes, for routes that set none.
    :param body_memory: bodies up to this many bytes stay in memory, larger ones are files.
    :param temporary_directory: where those files go; ``None`` is the system's own place.
    :param timeout: seconds that a call may run, for routes that set none.
    :param grace: seconds that running work gets at shutdown.
    :param access_log: whether each request is logged.
    :param pools: the pools by name; ``thread`` and ``process`` are always there.
    """

    app: str | None = None
    listen: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)
    max_body: int = 16 * 2**20
    body_memory: int = 64 * 2**10
    temporary_directory: str | None = None
    timeout: float = 300.0
    grace: float = 30.0
    access_log: bool = True
    pools: Mapping[str, PoolSettings] = msgspec.field(default_factory=_default_pools)


def resolve_size(size: PoolSize, kind: PoolKind, cpus: int) -> int:
    """Return how many calls a pool runs at once.

    :param size: as set.  ``"auto"`` is one process for each CPU, four threads more than CPUs
        but no more than 32, or 1000 coroutines.
    :param cpus: how many CPUs this process may use.
    """
    if size != "auto":
        return size
    return {"thread": min(32, cpus + 4), "process": cpus, "reactor": _REACTOR_SIZE}[kind]
