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
    "LOG_FORMATS",
    "STATUS_PAGES",
    "WIRES",
    "LogFormat",
    "PoolKind",
    "PoolSettings",
    "PoolSize",
    "Settings",
    "StatusPageFor",
    "Wire",
    "default_pool",
    "resolve_size",
]

PoolKind: TypeAlias = Literal["thread", "process", "reactor"]
PoolSize: TypeAlias = int | Literal["auto"]
Wire: TypeAlias = Literal["deferpost", "stock"]
LogFormat: TypeAlias = Literal["text", "json"]
StatusPageFor: TypeAlias = Literal["off", "operators", "open"]

#: The HTTP/1.1 channels: deferpost's own, and Twisted's.
WIRES: tuple[Wire, ...] = ("deferpost", "stock")

#: The forms of the log: lines for people, and a JSON document in each line.
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")

#: For whom the status page can be: nobody, those with a token, all who reach it.
STATUS_PAGES: tuple[StatusPageFor, ...] = ("off", "operators", "open")

#: The kinds of pools; a pool that is named like a kind is of that kind.
KINDS: tuple[PoolKind, ...] = ("thread", "process", "reactor")

_REACTOR_SIZE = 1000


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One pool.

    :param kind: what runs the work.
    :param size: how many calls run at once; see :func:`resolve_size` for ``"auto"``.
    :param max_waiting: how many calls may wait for their turn.
    :param max_held: bytes of request bodies that its calls may hold together; 0 for no bound.
    :param interrupt_grace: seconds from telling a thread to stop to its first interrupt, and to
        each further one; of meaning to threads only.
    :param kill_grace: seconds between SIGTERM and SIGKILL; of meaning to processes only, as all
        that follows.
    :param max_jobs: calls after which a process is replaced; 0 for never.
    :param max_age: seconds after which a process is replaced; 0 for never.
    :param max_memory: bytes in memory from which on a process is replaced; 0 for never.
    :param memory_limit: bytes of address space that a process may have; 0 for no limit.
    :param cpu_limit: seconds of CPU time that a call may use; 0 for no limit.
    :param set_up_timeout: seconds that setting up a process may take.
    :param warm: how many more processes than calls at once are kept ready.
    """

    kind: PoolKind
    size: PoolSize = "auto"
    max_waiting: int = 1000
    max_held: int = 2**30
    interrupt_grace: float = 5.0
    kill_grace: float = 5.0
    max_jobs: int = 0
    max_age: float = 0.0
    max_memory: int = 0
    memory_limit: int = 0
    cpu_limit: float = 0.0
    set_up_timeout: float = 60.0
    warm: int = 0


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
    :param queue_timeout: seconds that it may wait for its start, likewise; 0 for no limit.
    :param total_timeout: seconds that waiting and running may take together, likewise; 0 for no
        limit.
    :param grace: seconds that running work gets at shutdown.
    :param most_urgent: the least number that a client gets which asks to be more urgent than
        usual, which is 3.
    :param priority_ageing: seconds in the queue that a step of urgency is worth.
    :param max_jobs_per_client: how many calls one client may have under way; 0 for no bound.
    :param drain_delay: seconds for which calls are still accepted after it was told to stop.
    :param reload_timeout: seconds for the app to be imported, and again for its workers to be
        set up, at a reload.
    :param store: the directory in which accepted jobs are kept; ``None`` to keep none, so that
        every call is answered on its connection.
    :param store_durable: whether what it has promised outlives a loss of power, and not only the
        end of the daemon.
    :param result_ttl: seconds that a kept job is there when it has ended, for routes that set
        none.
    :param max_kept: how many kept jobs there may be that have not ended.
    :param idempotency_grace: seconds that a client who left has to come back with its key.
    :param public_url: where clients find the daemon, for the links in documents of jobs; ``None``
        to go by what each request says.
    :param webhook_hosts: the hosts that may be told of the end of jobs; none if empty.
    :param webhook_secrets: the file of the secrets with which that is signed.
    :param webhook_private: whether they may be at addresses that are private.
    :param access_log: whether each request is logged.
    :param metrics: whether ``/metrics`` shows figures for Prometheus.
    :param log_format: ``"text"`` for lines as twistd writes them; ``"json"`` for a JSON document
        in each line, and one for each job.
    :param status_page: who may look at ``/_deferpost/``: nobody, operators with a token, or all
        who reach it; what acts there is for operators in any case.
    :param wire: which HTTP/1.1 channel reads requests: deferpost's own or, as ``"stock"``,
        Twisted's, for which what follows has no effect, down to ``tcp_user_timeout``.
    :param max_head: largest request line and header fields together, in bytes.
    :param max_headers: most header fields of a request.
    :param max_pipelined: bytes that a connection reads ahead of a response that is pending.
    :param head_timeout: seconds for a whole request head, from its first byte.
    :param idle_timeout: seconds that a connection may stay open without a request.
    :param min_body_rate: bytes that a body must at least arrive with each second, on the
        average of any 10 seconds; 0 for no minimum.
    :param write_timeout: seconds for which a client may take nothing of what is to be written.
    :param max_connections: most connections at once.
    :param max_connections_per_client: most connections at once from one address; 0 for no bound.
    :param linger: seconds for which, after an early refusal, what still arrives is read and
        dropped.
    :param tcp_keepalive: seconds of silence after which the system probes whether the client is
        there; 0 for never.
    :param tcp_user_timeout: seconds for which sent data may go unacknowledged; 0 for the
        system's own bound.
    :param tokens: the file of the bearer tokens with which clients may call; ``None`` for none.
    :param hmac_keys: the file of the secrets with which they may sign instead; ``None`` for none.
    :param operator_tokens: the file of the tokens of those who may look into the daemon; ``None``
        for none.
    :param pools: the pools by name; ``thread`` and ``process`` are always there.
    """

    app: str | None = None
    listen: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)
    max_body: int = 16 * 2**20
    body_memory: int = 64 * 2**10
    temporary_directory: str | None = None
    timeout: float = 300.0
    queue_timeout: float = 0.0
    total_timeout: float = 0.0
    grace: float = 30.0
    most_urgent: int = 0
    priority_ageing: float = 10.0
    max_jobs_per_client: int = 0
    drain_delay: float = 0.0
    reload_timeout: float = 120.0
    store: str | None = None
    store_durable: bool = True
    result_ttl: float = 86_400.0
    max_kept: int = 100_000
    idempotency_grace: float = 60.0
    public_url: str | None = None
    webhook_hosts: tuple[str, ...] = ()
    webhook_secrets: str | None = None
    webhook_private: bool = False
    access_log: bool = True
    metrics: bool = True
    log_format: LogFormat = "text"
    status_page: StatusPageFor = "off"
    wire: Wire = "deferpost"
    max_head: int = 16 * 2**10
    max_headers: int = 100
    max_pipelined: int = 64 * 2**10
    head_timeout: float = 15.0
    idle_timeout: float = 60.0
    min_body_rate: int = 240
    write_timeout: float = 30.0
    max_connections: int = 10_000
    max_connections_per_client: int = 0
    linger: float = 5.0
    tcp_keepalive: float = 60.0
    tcp_user_timeout: float = 30.0
    tokens: str | None = None
    hmac_keys: str | None = None
    operator_tokens: str | None = None
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
