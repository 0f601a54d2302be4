"""The kept jobs of a daemon: their store, opened when the daemon starts and closed at its end.

A store that cannot be opened, because another daemon has it or because it is damaged, is tried
again: calls that need none are served all the same.  One that is served here outlives versions:
a reload gives its jobs to the new one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.authentication import read_secrets_file
from deferpost.credentials import Gate
from deferpost.errors import ConfigurationError, DeclarationError, StoreFailed
from deferpost.jobs import Job
from deferpost.keeping import Keeper
from deferpost.model import Route
from deferpost.notifying import Notifier
from deferpost.records import JobRecord
from deferpost.runtime import Runtime
from deferpost.settings import Settings
from deferpost.store.sqlite import SQLiteStore
from deferpost.web.exchange import log_failure
from deferpost.web.jobs import JOBS, JobsContext, base_of, job_document, url_of
from deferpost.web.kept import Keeping, response_of
from deferpost.web.put import JobPuts
from deferpost.webhooks.delivery import HookSender
from deferpost.webhooks.rules import HookHosts
from deferpost.webhooks.signing import parse_secrets

__all__ = ["Hooks", "Storage", "check_job_paths", "hooks_of", "jobs_of", "keeping_of"]

_log = Logger(namespace="deferpost.kept")

#: Seconds between two attempts to open the store.
AGAIN_SECONDS = 5.0


class Storage:
    """The store of a daemon, and the keeper of what is in it.

    :param settings: the settings that the daemon starts with; they name a store.
    :param reactor: the reactor.

    :ivar keeper: the keeper.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        assert settings.store is not None
        self._path = settings.store
        self._reactor = reactor
        self.keeper = Keeper(
            lambda: SQLiteStore(self._path, reactor, durable=settings.store_durable),
            reactor,
            response_of,
            _report,
            max_kept=settings.max_kept,
            grace=settings.idempotency_grace,
            ageing=settings.priority_ageing,
        )
        self._notifier = Notifier(
            lambda: self.keeper.store,
            reactor,
            lambda record: job_document(record, self._public_url or "", None, time.time()),
        )
        self.keeper.hook_due = self._notifier.look
        self._public_url = settings.public_url
        self._retry: Any = None
        self._said: str | None = None
        self._opening: Deferred[None] | None = None
        self._closed = False
        #: Whether it has been tried once to open the store, whatever came of it.
        self.was_tried = False

    def check(self, settings: Settings) -> None:
        """Check that other settings keep jobs where these do.

        :raises deferpost.errors.ConfigurationError: they do not.
        """
        if settings.store != self._path:
            raise ConfigurationError(
                [f"store is {self._path!r} since the start; another one takes a restart"]
            )

    def open(self) -> None:
        """Begin to open the store."""
        self._retry = None
        self._opening = Deferred.fromCoroutine(self._open())
        self._opening.addErrback(
            lambda failure: _log.failure("the store of jobs is not opened", failure=failure)
        )

    async def _open(self) -> None:
        try:
            unended = await self.keeper.open()
        except StoreFailed as error:
            self.was_tried = True
            if error.reason != self._said:
                self._said = error.reason
                _log.error(
                    "calls that are to be kept are refused: {error}; it is tried again each "
                    "{seconds:g} s",
                    error=error.reason,
                    seconds=AGAIN_SECONDS,
                )
            if not self._closed:
                self._retry = self._reactor.callLater(AGAIN_SECONDS, self.open)
        else:
            self.was_tried = True
            self._notifier.look()
            _log.info(
                "jobs are kept in {path}; jobs that have not ended: {count}",
                path=self._path,
                count=unended,
            )

    def serve(self, runtime: Runtime, hooks: Hooks | None, public_url: str | None) -> None:
        """Have jobs run by a version from now on.

        :param runtime: of the version.
        :param hooks: how webhooks are told; None where none are.
        :param public_url: where clients find the daemon.
        """
        self._public_url = public_url
        self.keeper.serve(runtime.dispatcher(), {route.path: route for route in runtime.routes})
        # Where none are told any more, those that are due end as refused: they keep their jobs.
        if hooks is None:
            self._notifier.use(None, HookHosts().check)
        else:
            self._notifier.use(hooks.sender.send, hooks.hosts.check)

    def stop_feeding(self) -> None:
        """Begin no more jobs: the daemon is to end."""
        self.keeper.stop_feeding()

    async def close(self) -> None:
        """End, after all that runs has ended."""
        self._closed = True
        self._notifier.close()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._opening is not None:
            await self._opening
        await self.keeper.close()


class Hooks(NamedTuple):
    """How webhooks are told.

    :ivar hosts: which may be.
    :ivar sender: makes one attempt.
    """

    hosts: HookHosts
    sender: HookSender


def hooks_of(settings: Settings, reactor: Any) -> Hooks | None:
    """How webhooks are told, as settings say; None where none are.

    :raises deferpost.errors.ConfigurationError: something of the settings makes no sense.
    """
    if not settings.webhook_hosts:
        return None
    if settings.store is None:
        raise ConfigurationError(["webhook_hosts is for kept jobs, and store names no directory"])
    if settings.webhook_secrets is None:
        raise ConfigurationError(
            ["webhooks are signed: webhook_hosts names some, and webhook_secrets no file"]
        )
    try:
        hosts = HookHosts(settings.webhook_hosts)
    except ValueError as error:
        raise ConfigurationError([f"webhook_hosts: {error}"]) from None
    path = settings.webhook_secrets
    sender = HookSender(
        reactor,
        parse_secrets(read_secrets_file(path), path),
        allow_private=settings.webhook_private,
    )
    return Hooks(hosts, sender)


def keeping_of(settings: Settings, storage: Storage | None, hooks: Hooks | None) -> Keeping | None:
    """What the resources of a version share about kept jobs.

    :param settings: of the version.
    :param storage: keeps them; None where none are kept.
    :param hooks: how webhooks are told; None where none are.
    :raises deferpost.errors.ConfigurationError: something of the settings makes no sense.
    """
    if storage is None:
        if settings.store is not None:
            raise ConfigurationError(["store was not set at the start: that takes a restart"])
        return None
    storage.check(settings)
    hosts = HookHosts() if hooks is None else hooks.hosts
    keeper, public_url = storage.keeper, settings.public_url

    def document(request: Any, record: JobRecord) -> bytes:
        base = base_of(request, "", public_url)
        return job_document(record, base, keeper.queue_of(record.id), time.time())

    def url(request: Any, id: str) -> str:
        return url_of(base_of(request, "", public_url), id)

    return Keeping(
        keeper=keeper,
        ttl=settings.result_ttl,
        document=document,
        url=url,
        check_hook=hosts.check,
        wall=time.time,
    )


def jobs_of(
    settings: Settings, storage: Storage | None, gate: Gate | None, puts: JobPuts, reactor: Any
) -> JobsContext | None:
    """What the resources of kept jobs share; None where none are kept.

    :param settings: of the version.
    :param storage: keeps them.
    :param gate: is asked who sends each request.
    :param puts: takes calls as jobs whose ids clients have chosen.
    :param reactor: the reactor.
    """
    if storage is None:
        return None
    return JobsContext(
        keeper=storage.keeper,
        clock=reactor,
        wall=time.time,
        gate=gate,
        public_url=settings.public_url,
        put=puts,
    )


def check_job_paths(routes: Iterable[Route], settings: Settings) -> None:
    """Check that no route is where the kept jobs are.

    :raises deferpost.errors.DeclarationError: one is.
    """
    if settings.store is None:
        return
    own = f"/{JOBS.decode()}"
    for route in routes:
        if route.path == own or route.path.startswith(f"{own}/"):
            raise DeclarationError(
                f"the route {route.path} is the daemon's own where jobs are kept"
            )


def _report(error: BaseException, job: Job) -> None:
    log_failure(error, job)
