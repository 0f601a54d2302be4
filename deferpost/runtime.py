"""The runtime: routes, their pools and their dispatcher, from their start to their orderly end.

It decides what becomes of jobs when it is to stop.  It never listens, and knows no site.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.logger import Logger

from deferpost.admission import AdmissionRules
from deferpost.app import App, check_kind
from deferpost.credentials import Gate
from deferpost.dispatch import Dispatcher
from deferpost.errors import DeclarationError
from deferpost.handlers.running import Handlers
from deferpost.interfaces import PoolContext
from deferpost.jobs import Job
from deferpost.model import PoolStatus, Reason, Route
from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool, usable_cpus
from deferpost.settings import PoolSettings, Settings, default_pool, resolve_size
from deferpost.web.events import Beat
from deferpost.web.exchange import OpenExchanges
from deferpost.web.kept import Keeping
from deferpost.web.post import PostContext

__all__ = ["Runtime", "RuntimeService", "plan_of", "plans_of"]

_log = Logger(namespace="deferpost")

#: Seconds that workers get to end, once their jobs were canceled at the end of the grace.
STOP_PATIENCE = 0.5

#: Seconds that responses get to leave meanwhile, and connections to close after that.
FLUSH_PATIENCE = 0.5

_NO_RULES = AdmissionRules()


def plan_of(pool: PoolSettings) -> Any:
    """The plan of a pool that is described by settings."""
    size = resolve_size(pool.size, pool.kind, usable_cpus())
    if pool.kind == "process":
        return ProcessPool(
            size=size,
            max_waiting=pool.max_waiting,
            max_held=pool.max_held,
            kill_grace=pool.kill_grace,
            max_jobs=pool.max_jobs,
            max_age=pool.max_age,
            max_memory=pool.max_memory,
            memory_limit=pool.memory_limit,
            cpu_limit=pool.cpu_limit,
            set_up_timeout=pool.set_up_timeout,
            warm=pool.warm,
        )
    if pool.kind == "thread":
        return ThreadPool(
            size=size,
            max_waiting=pool.max_waiting,
            max_held=pool.max_held,
            interrupt_grace=pool.interrupt_grace,
        )
    return ReactorPool(size=size, max_waiting=pool.max_waiting, max_held=pool.max_held)


def plans_of(settings: Settings, app: App) -> dict[str, Any]:
    """The plans that an app's routes can name.

    What is configured other than by default takes the place of what the app says of a pool.
    """
    configured = {
        name: plan_of(pool)
        for name, pool in settings.pools.items()
        if name not in app.pools or pool != default_pool(pool.kind)
    }
    return {"reactor": plan_of(default_pool("reactor")), **app.pools, **configured}


class Runtime:
    """Routes, their pools and their dispatcher; started at most once.

    :param routes: the routes.
    :param plans: the plans of pools, by name; only those that a route names are started.
    :param reactor: the reactor.
    :param timeout: seconds for routes that set none; None for no limit.
    :param max_body: bytes for routes that set none.
    :param directory: where large bodies are kept; None for the system's choice.
    :param gate: refuses calls; see :class:`deferpost.web.post.PostContext`.
    :param observer: hears of jobs that are over and of calls that are turned away
        (:class:`deferpost.interfaces.IJobObserver`).
    :param rules: for whom there is room, and until when.
    :param keeping: what keeps jobs; None where none are kept.
    :param now: the monotonic clock, in seconds.
    :raises deferpost.errors.DeclarationError: a route names a pool that is not there, or one
        that cannot run its handler.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        plans: Mapping[str, Any],
        *,
        reactor: Any,
        timeout: float | None,
        max_body: int,
        directory: str | None = None,
        gate: Gate | None = None,
        observer: Any = None,
        rules: AdmissionRules = _NO_RULES,
        keeping: Keeping | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._directory = directory
        self._observer = observer
        self._rules = rules
        # Workers are started from whichever folder is current then.
        sys.path[:] = [os.path.abspath(entry) for entry in sys.path]
        self.routes = tuple(routes)
        self._sources: dict[str, Handlers] = {}
        self._plans: dict[str, Any] = {}
        by_pool: dict[str, list[Route]] = {}
        for route in self.routes:
            if route.needs_store and keeping is None:
                raise DeclarationError(
                    f"route {route.path} wants its jobs to be kept, by delivery='async', "
                    "fallback, require_key or coalesce; the daemon keeps jobs where the setting "
                    "store names a directory"
                )
            plan = plans.get(route.pool)
            if plan is None:
                raise DeclarationError(
                    f"route {route.path} wants the pool {route.pool!r}, which is not there; "
                    f"there are {', '.join(sorted(plans))}.  Define [pools.{route.pool}] in the "
                    f"configuration or App(pools={{{route.pool!r}: ...}})"
                )
            check_kind(route, plan)
            self._plans[route.pool] = plan
            by_pool.setdefault(route.pool, []).append(route)
        for name, its_routes in by_pool.items():
            self._sources[name] = Handlers(its_routes, directory)
            if self._plans[name].kind == "process":
                self._sources[name].refs()  # so that what has no name is said now
        self._pools: dict[str, Any] = {}
        self._dispatcher: Dispatcher | None = None
        self._hurry: Deferred[None] = Deferred()
        self._stopped = False
        self.open_exchanges = OpenExchanges()
        self.context = PostContext(
            dispatcher=self.dispatcher,
            now=now,
            open_exchanges=self.open_exchanges,
            timeout=timeout,
            max_body=max_body,
            gate=gate,
            queue_timeout=rules.queue_timeout,
            total_timeout=rules.total_timeout,
            observer=observer,
            most_urgent=rules.most_urgent,
            tells_quota=rules.max_jobs_per_client > 0,
            beat=Beat(reactor),
            keeping=keeping,
        )

    @property
    def accepting(self) -> bool:
        """Whether it is started and takes calls."""
        return self._dispatcher is not None and not self._stopped

    @property
    def pools(self) -> Mapping[str, Any]:
        """The started pools by name (:class:`deferpost.interfaces.IWorkerPool`)."""
        return self._pools

    def find(self, key: int) -> Job | None:
        """A job that has not ended, by its key; None where there is none."""
        return None if self._dispatcher is None else self._dispatcher.find(key)

    def statuses(self) -> list[PoolStatus]:
        """How every started pool is."""
        return [pool.status() for pool in self._pools.values()]

    @property
    def unended(self) -> int:
        """How many jobs and exchanges have not ended."""
        jobs = 0 if self._dispatcher is None else self._dispatcher.unended
        return jobs + len(self.open_exchanges)

    def start(self) -> None:
        """Start the pools."""
        if self._dispatcher is None:
            for name, plan in self._plans.items():
                self._pools[name] = plan.start(
                    PoolContext(
                        name=name,
                        reactor=self._reactor,
                        source=self._sources[name],
                        now=self._now,
                        directory=self._directory,
                        ageing=self._rules.ageing,
                    )
                )
            self._dispatcher = Dispatcher(
                self._pools,
                self._now,
                self._observer,
                max_held={name: getattr(plan, "max_held", 0) for name, plan in self._plans.items()},
                max_jobs_per_client=self._rules.max_jobs_per_client,
            )
            if self._stopped:
                self._dispatcher.close()

    def dispatcher(self) -> Dispatcher:
        """The dispatcher; the pools are started if they are not."""
        if self._dispatcher is None:
            self.start()
            assert self._dispatcher is not None
        return self._dispatcher

    def hurry(self) -> None:
        """Do not wait any longer for jobs that run: cancel them now."""
        if not self._hurry.called:
            self._hurry.callback(None)

    async def shut_down(self, grace: float | None) -> None:
        """Accept nothing, let what was accepted end, cancel the rest, stop the pools.

        :param grace: seconds that jobs and their responses get; None for as long as they take, or
            until :meth:`hurry`.
        """
        self._stopped = True
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        dispatcher.close()
        if dispatcher.unended or len(self.open_exchanges):
            ends: list[Deferred[Any]] = [self._hurry]
            if grace is not None:
                _log.info(
                    "draining for at most {grace:g} s; jobs that have not ended: {jobs}",
                    jobs=dispatcher.unended,
                    grace=grace,
                )
                ends.append(self._after(grace))
            done = gatherResults([dispatcher.drained(), self.open_exchanges.closed()])
            await self._first_of(done, *ends)
            canceled = dispatcher.cancel_all(Reason.SHUTDOWN)
            if canceled:
                _log.info("canceled the jobs that had not ended: {jobs}", jobs=canceled)
        flushed = self._first_of(self.open_exchanges.closed(), self._after(FLUSH_PATIENCE))
        flushing = Deferred.fromCoroutine(flushed)
        stopping = [pool.stop(STOP_PATIENCE) for pool in self._pools.values()]
        for _, left in await DeferredList(stopping):
            if left:
                _log.error("threads that run on and are left behind: {count}", count=left)
        await flushing

    async def _first_of(self, *deferreds: Deferred[Any]) -> None:
        """Wait for the first; the others are left as they are, but for our timers."""
        first: Deferred[None] = Deferred()

        def fired(_: object) -> None:
            if not first.called:
                first.callback(None)

        for deferred in deferreds:
            deferred.addBoth(fired)
        await first
        for deferred in deferreds:
            timer = getattr(deferred, "timer", None)
            if timer is not None and timer.active():
                timer.cancel()

    def _after(self, seconds: float) -> Deferred[None]:
        """A Deferred that fires after a time, with its timer on it."""
        later: Deferred[None] = Deferred()
        later.timer = self._reactor.callLater(seconds, later.callback, None)  # type: ignore[attr-defined]  # read above
        return later


class RuntimeService(Service):
    """A runtime that starts and stops with the service that owns it.

    :param runtime: the runtime.
    :param grace: seconds that jobs get to end.
    """

    name = None

    def __init__(self, runtime: Runtime, grace: float) -> None:
        self._runtime = runtime
        self._grace = grace

    def startService(self) -> None:
        """Start the pools."""
        super().startService()
        self._runtime.start()

    def stopService(self) -> Deferred[None]:
        """Drain and stop."""
        super().stopService()
        return Deferred.fromCoroutine(self._runtime.shut_down(self._grace))
