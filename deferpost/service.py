"""The assembly: routes, pools, dispatcher and site as services, and the order of their end."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.web.resource import IResource

from deferpost._version import __version__
from deferpost.app import App, check_kind
from deferpost.dispatch import Dispatcher
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.handlers.running import Handlers
from deferpost.interfaces import PoolContext
from deferpost.model import CallHead, PoolStatus, Reason, Route
from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool, usable_cpus
from deferpost.settings import PoolSettings, Settings, default_pool, resolve_size
from deferpost.web.exchange import OpenExchanges
from deferpost.web.health import Livez, Readyz
from deferpost.web.post import PostContext
from deferpost.web.site import DaemonSite, DaemonWireSite
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits

__all__ = ["DaemonService", "Runtime", "RuntimeService", "plan_of", "plans_of"]

_log = Logger(namespace="deferpost")

#: Seconds that workers get to end, once their jobs were canceled at the end of the grace.
STOP_PATIENCE = 0.5

#: Seconds that responses get to leave meanwhile, and connections to close after that.
FLUSH_PATIENCE = 0.5

#: Seconds after which a handler's thread that computes gives the interpreter's lock to another
#: that waits for it, such as the reactor's.  With four threads that never pause, /livez then took
#: 3 ms in the median and 31 ms at the 99th percentile, against 20 ms and 249 ms with Python's own
#: 5 ms (two busy cores, Python 3.11).
SWITCH_SECONDS = 0.0002

#: Seconds that connections get to close after that.  What is left of the two seconds after the
#: grace is for the interpreter's own end, which a handler's thread that computes can delay.
CLOSE_PATIENCE = 0.25

#: Objects after which the collector looks at the youngest.
COLLECT_AFTER = 10_000

#: Descriptors beside those of connections: bodies in files, pipes, workers, the log.
OTHER_DESCRIPTORS = 2_000

#: Paths of the daemon's own.
_LIVEZ, _READYZ = "/livez", "/readyz"


def plan_of(pool: PoolSettings) -> Any:
    """The plan of a pool that is described by settings."""
    size = resolve_size(pool.size, pool.kind, usable_cpus())
    if pool.kind == "process":
        return ProcessPool(size=size, max_waiting=pool.max_waiting, kill_grace=pool.kill_grace)
    kind = ThreadPool if pool.kind == "thread" else ReactorPool
    return kind(size=size, max_waiting=pool.max_waiting)


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
        gate: Callable[[CallHead], None] | None = None,
        observer: Any = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._directory = directory
        self._observer = observer
        # Workers are started from whichever folder is current then.
        sys.path[:] = [os.path.abspath(entry) for entry in sys.path]
        self._sources: dict[str, Handlers] = {}
        self._plans: dict[str, Any] = {}
        by_pool: dict[str, list[Route]] = {}
        for route in routes:
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
            observer=observer,
        )

    @property
    def accepting(self) -> bool:
        """Whether it is started and takes calls."""
        return self._dispatcher is not None and not self._stopped

    def statuses(self) -> list[PoolStatus]:
        """How every started pool is."""
        return [pool.status() for pool in self._pools.values()]

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
                    )
                )
            self._dispatcher = Dispatcher(self._pools, self._now, self._observer)
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

    async def shut_down(self, grace: float) -> None:
        """Accept nothing, let what was accepted end, cancel the rest, stop the pools.

        :param grace: seconds that jobs and their responses get.
        """
        self._stopped = True
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        dispatcher.close()
        if dispatcher.unended or len(self.open_exchanges):
            _log.info(
                "draining for at most {grace:g} s; jobs that have not ended: {jobs}",
                jobs=dispatcher.unended,
                grace=grace,
            )
            done = gatherResults([dispatcher.drained(), self.open_exchanges.closed()])
            await self._first_of(done, self._after(grace), self._hurry)
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


class DaemonService(Service):
    """The daemon: an app on its listening ports, and the order in which it ends.

    :param app: the app.
    :param settings: the settings.
    :param reactor: the reactor.
    :param own_signals: whether SIGTERM and SIGINT are this service's to handle.
    :raises deferpost.errors.DeclarationError: the app cannot be served.
    :raises deferpost.errors.ConfigurationError: what it is to listen on makes no sense.
    """

    name = "deferpost"

    def __init__(
        self, app: App, settings: Settings, reactor: Any, *, own_signals: bool = False
    ) -> None:
        for route in app.routes:
            if route.path in (_LIVEZ, _READYZ):
                raise DeclarationError(f"the route {route.path} is the daemon's own")
        self._settings = settings
        self._reactor = reactor
        self._own_signals = own_signals
        self.runtime = Runtime(
            app.routes,
            plans_of(settings, app),
            reactor=reactor,
            timeout=settings.timeout,
            max_body=settings.max_body,
            directory=settings.temporary_directory,
        )
        health: list[tuple[bytes, IResource]] = [
            (_LIVEZ[1:].encode(), Livez()),
            (_READYZ[1:].encode(), Readyz(self._accepting, self.runtime.statuses)),
        ]
        root = AppResource(app.routes, self.runtime.context, health)
        self.site = _site(root, settings, reactor)
        self._endpoints = _endpoints(reactor, settings.listen)
        self._ports: list[Any] = []

    def _accepting(self) -> bool:
        return bool(self.running) and self.runtime.accepting

    def privilegedStartService(self) -> None:
        """Listen, while ports below 1024 are permitted.

        :raises twisted.internet.error.CannotListenError: a port cannot be had.
        """
        super().privilegedStartService()
        for text, endpoint in self._endpoints:
            problem: list[Any] = []
            listening = endpoint.listen(self.site)
            listening.addCallbacks(self._ports.append, problem.append)
            if problem:
                error = problem[0].value
                reason = getattr(error, "socketError", error)
                reason = getattr(reason, "strerror", None) or reason
                raise CannotListen(f"cannot listen on {text}: {reason}")

    def startService(self) -> None:
        """Start the pools; connections are accepted from the next turn of the reactor."""
        super().startService()
        if not self._ports:  # nobody called privilegedStartService
            self.privilegedStartService()
        _allow_descriptors(self._settings.max_connections + OTHER_DESCRIPTORS)
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is loaded stays: a collector that looks at it again and again costs a POST through a
        # thread 12 % of its CPU time, and one that starts every 700 objects some 6 % more (measured
        # on the way of a request through a stock channel, Python 3.11).
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        self.runtime.start()
        _log.info("deferpost {version} serves {app}", version=__version__, app=self._settings.app)
        if self._own_signals:
            self._reactor.callWhenRunning(self._take_signals)

    async def _stop(self) -> None:
        await gatherResults([_stop_listening(port) for port in self._ports])
        await self.runtime.shut_down(self._settings.grace)
        closed = self.site.close_connections()
        timer = self._reactor.callLater(CLOSE_PATIENCE, self.site.abort_connections)
        await closed
        if timer.active():
            timer.cancel()

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain until the grace, cancel the rest, close."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _take_signals(self) -> None:
        """SIGTERM drains, a second one and SIGINT do not wait; the exit status is 0.

        The reactor's own handlers would end the process by the signal.
        """

        def terminated(signum: int, frame: object) -> None:
            self._reactor.callFromThread(self._stop_reactor, signum == signal.SIGINT)

        with contextlib.suppress(ValueError):  # the reactor runs in another thread than the main
            signal.signal(signal.SIGTERM, terminated)
            signal.signal(signal.SIGINT, terminated)

    def _stop_reactor(self, quick: bool) -> None:
        if quick or not self.running:
            _log.info("told to stop at once: jobs that have not ended are canceled")
            self.runtime.hurry()
        if self.running:
            self._reactor.stop()


def _allow_descriptors(wanted: int) -> None:
    """Raise this process's soft limit of open files, as far as its hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _log.warn(
            "the limit of open files, {soft}, permits fewer connections than max_connections",
            soft=soft,
        )


def _site(root: AppResource, settings: Settings, reactor: Any) -> DaemonSite | DaemonWireSite:
    """The site that the settings ask for."""
    common: dict[str, Any] = {
        "body_memory": settings.body_memory,
        "largest_body": root.largest_body,
        "directory": settings.temporary_directory,
        "access_log": settings.access_log,
        "now": time.monotonic,
    }
    if settings.wire == "stock":
        return DaemonSite(root, **common)
    limits = Limits(
        max_head=settings.max_head,
        max_target=min(settings.max_head, Limits().max_target),
        max_headers=settings.max_headers,
        max_body=root.largest_body,
        max_pipelined=settings.max_pipelined,
        head_timeout=settings.head_timeout,
        idle_timeout=settings.idle_timeout,
        min_body_rate=settings.min_body_rate,
        write_timeout=settings.write_timeout,
        linger=settings.linger,
        max_connections=settings.max_connections,
        max_connections_per_client=settings.max_connections_per_client,
        tcp_keepalive=settings.tcp_keepalive,
        tcp_user_timeout=settings.tcp_user_timeout,
    )
    return DaemonWireSite(root, limits=limits, reactor=reactor, **common)


def _endpoints(reactor: Any, descriptions: Iterable[str]) -> list[tuple[str, Any]]:
    """The endpoints that are described, each with its description."""
    endpoints, problems = [], []
    for text in descriptions:
        try:
            endpoints.append((text, serverFromString(reactor, text)))
        except Exception as error:  # of the parsers, and of the files that they read
            why = str(error) or type(error).__name__
            problems.append(f"listen: {text!r} is not an endpoint: {why}")
    if problems:
        raise ConfigurationError(problems)
    return endpoints


class CannotListen(CannotListenError, SystemExit):
    """A port cannot be had: one line that says which and why.

    twistd cleans up for any :class:`Exception` and lets it pass; as a :class:`SystemExit` it ends
    the program with that line and status 1, without a traceback.
    """

    def __init__(self, message: str) -> None:
        SystemExit.__init__(self, f"deferpost: {message}")

    def __str__(self) -> str:
        return str(self.code)


def _stop_listening(port: Any) -> Deferred[None]:
    stopped = port.stopListening()
    if isinstance(stopped, Deferred):
        return stopped
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
