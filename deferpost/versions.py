"""One version of what the daemon serves: an app and its settings, with what comes of them.

A reload makes another one beside it.  This decides which resources there are and what a site is
asked for; it never listens, and never ends anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.web.resource import IResource

from deferpost.admission import AdmissionRules
from deferpost.app import App
from deferpost.authentication import authentication_of
from deferpost.errors import DeclarationError
from deferpost.observing import Observing
from deferpost.overseeing import check_paths, status_page
from deferpost.replays import UsedSignatures
from deferpost.runtime import Runtime, plans_of
from deferpost.settings import Settings
from deferpost.storage import Storage, check_job_paths, hooks_of, jobs_of, keeping_of
from deferpost.web.health import Livez, Readyz
from deferpost.web.jobs import JOBS, JobTree
from deferpost.web.put import JobPuts
from deferpost.web.site import DaemonSite, DaemonWireSite
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits

__all__ = ["Sites", "Version"]

#: Paths of the daemon's own.
_LIVEZ, _READYZ, _METRICS = "/livez", "/readyz", "/metrics"


class Version:
    """An app and its settings, with their pools and their tree of resources.

    :param app: the app.
    :param settings: the settings.
    :param reactor: the reactor.
    :param accepting: whether the daemon accepts calls, beside this version's own readiness.
    :param observing: counts what becomes of calls, beyond the life of this version.
    :param used_signatures: what signed calls have used, beyond the life of this version.
    :param storage: keeps jobs, beyond the life of this version; None where none are kept.
    :raises deferpost.errors.DeclarationError: the app cannot be served.
    :raises deferpost.errors.ConfigurationError: a file of tokens or keys cannot be used.

    :ivar settings: the settings.
    :ivar operators: who may look into the daemon; None where nobody has a token.
    :ivar runtime: the pools and their dispatcher.
    :ivar status_page: shows what it is doing; None where it is off.
    :ivar root: the tree.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        reactor: Any,
        *,
        accepting: Callable[[], bool],
        observing: Observing,
        used_signatures: dict[str, UsedSignatures],
        storage: Storage | None = None,
    ) -> None:
        for route in app.routes:
            if route.path in (_LIVEZ, _READYZ):
                raise DeclarationError(f"the route {route.path} is the daemon's own")
            if route.path == _METRICS and settings.metrics:
                raise DeclarationError(
                    f"the route {route.path} is the daemon's own unless metrics is false"
                )
        check_paths(app.routes, settings)
        check_job_paths(app.routes, settings)
        self._reactor = reactor
        self._accepting = accepting
        self._observing = observing
        self._routes = app.routes
        self.settings = settings
        authentication = authentication_of(settings, used_signatures)
        self.operators = authentication.operators
        self.hooks = hooks_of(settings, reactor)
        self._storage = storage
        self.runtime = Runtime(
            app.routes,
            plans_of(settings, app),
            reactor=reactor,
            timeout=settings.timeout,
            max_body=settings.max_body,
            directory=settings.temporary_directory,
            gate=authentication.gate,
            observer=observing.observer,
            keeping=keeping_of(settings, storage, self.hooks),
            rules=AdmissionRules(
                queue_timeout=settings.queue_timeout or None,
                total_timeout=settings.total_timeout or None,
                most_urgent=settings.most_urgent,
                ageing=settings.priority_ageing,
                max_jobs_per_client=settings.max_jobs_per_client,
            ),
        )
        observing.declare(app.routes)
        own: list[tuple[bytes, IResource]] = [
            (_LIVEZ[1:].encode(), Livez()),
            (_READYZ[1:].encode(), Readyz(self._is_ready, self.runtime.statuses)),
        ]
        if settings.metrics:
            metrics = observing.metrics(self.runtime, self._takes_calls)
            own.append((_METRICS[1:].encode(), metrics))
        self.status_page = status_page(
            settings,
            self.runtime,
            observing,
            self.operators,
            reactor,
            accepting=self._takes_calls,
        )
        if self.status_page is not None:
            own.extend(self.status_page.resources())
        puts = JobPuts(app.routes, self.runtime.context)
        self._jobs = jobs_of(settings, storage, authentication.gate, puts, reactor)
        trees = [] if self._jobs is None else [(JOBS, JobTree(self._jobs))]
        self.root = AppResource(app.routes, self.runtime.context, own, trees)

    def _is_ready(self) -> bool:
        """Whether it takes calls, and has tried to open the store of those that are kept."""
        return self._takes_calls() and (self._storage is None or self._storage.was_tried)

    def _takes_calls(self) -> bool:
        return self._accepting() and self.runtime.accepting

    def site(self) -> DaemonSite | DaemonWireSite:
        """A site for this version, of the kind that the settings ask for."""
        common = self._habits()
        if self.settings.wire == "stock":
            return DaemonSite(self.root, **common)
        site = DaemonWireSite(self.root, limits=self._limits(), reactor=self._reactor, **common)
        site.refused = self._observing.observer.refused
        return site

    def take_over(self, site: DaemonSite | DaemonWireSite) -> None:
        """Have a site serve this version from now on, to connections that are there too."""
        habits = self._habits()
        del habits["now"], habits["log_json"]  # which are as at the start
        site.take_habits(**habits)
        if isinstance(site, DaemonWireSite):
            site.change(self.root, self._limits())
        else:
            site.change(self.root)

    def run_kept_jobs(self) -> None:
        """Have the jobs that are kept run by this version from now on; its pools are started."""
        if self._storage is not None:
            self._storage.serve(self.runtime, self.hooks, self.settings.public_url)

    def dismiss_watchers(self) -> None:
        """End the responses to those who watch this version; they come back to what is served."""
        if self.status_page is not None:
            self.status_page.close()
        if self._jobs is not None:
            self._jobs.open_replies.close()

    @property
    def patience(self) -> float:
        """Seconds within which one of its jobs has to end, if any of them is to end by itself."""
        times = [route.timeout or self.settings.timeout for route in self._routes]
        return max(self.settings.timeout, *times) + max(self.settings.grace, 1.0)

    def _habits(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "body_memory": settings.body_memory,
            "largest_body": self.root.largest_body,
            "directory": settings.temporary_directory,
            "access_log": settings.access_log,
            "log_json": settings.log_format == "json",
            "now": time.monotonic,
        }

    def _limits(self) -> Limits:
        settings = self.settings
        return Limits(
            max_head=settings.max_head,
            max_target=min(settings.max_head, Limits().max_target),
            max_headers=settings.max_headers,
            max_body=self.root.largest_body,
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


class Sites:
    """The sites: one for each wire that was ever asked for, so that no connection is lost.

    :param version: what is served first.
    """

    def __init__(self, version: Version) -> None:
        self.current = version.site()
        self._all = {version.settings.wire: self.current}

    def serve(self, version: Version) -> DaemonSite | DaemonWireSite:
        """Serve another version from now on.

        :returns: the site for connections that are made from now on.
        """
        for site in self._all.values():
            version.take_over(site)
        wire = version.settings.wire
        if wire not in self._all:
            self._all[wire] = version.site()
        self.current = self._all[wire]
        return self.current

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return sum(site.open_connections for site in self._all.values())

    def requests(self) -> list[Any]:
        """The requests whose head has come and whose response is not whole."""
        return [request for site in self._all.values() for request in site.requests()]

    def announce_end(self) -> None:
        """Have each response from now on be the last of its connection, and say so."""
        for site in self._all.values():
            site.announce_end()

    def close_idle(self) -> None:
        """Close each connection as soon as no request is under way on it."""
        for site in self._all.values():
            site.close_idle()

    def close_connections(self) -> Deferred[Any]:
        """Close every connection; the Deferred fires when none is left."""
        return gatherResults([site.close_connections() for site in self._all.values()])

    def abort_connections(self) -> None:
        """Close every connection now."""
        for site in self._all.values():
            site.abort_connections()
