"""Mounting in an existing site: one route, or a whole app.

The pools start at the first call and stop with the reactor, unless the owner hands over a service
of theirs: then they start and stop with it.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from deferpost.admission import AdmissionRules
from deferpost.app import DEFAULT_PLANS, App
from deferpost.credentials import Gate
from deferpost.dispatch import Dispatcher
from deferpost.service import Runtime, RuntimeService
from deferpost.settings import Settings
from deferpost.units import parse_duration, parse_size
from deferpost.web.post import PostResource
from deferpost.web.tree import AppResource

__all__ = ["DeferPost", "mount_app"]

_SETTINGS = Settings()


def mount_app(
    app: App,
    *,
    service: IServiceCollection | None = None,
    reactor: Any = None,
    timeout: str | float | None = _SETTINGS.timeout,
    max_body: str | int = _SETTINGS.max_body,
    grace: str | float = 5.0,
    directory: str | None = None,
    gate: Gate | None = None,
    queue_timeout: str | float | None = None,
    total_timeout: str | float | None = None,
    max_jobs_per_client: int = 0,
) -> Resource:
    """An app as a resource.  On the reactor thread.

    :param app: the app; routes that are declared later are not served.
    :param service: the service that starts and stops the pools, such as the application's
        MultiService; if not given, the first call starts them and the reactor's end stops them.
    :param reactor: the reactor; the installed one if not given.
    :param timeout: for routes that set none: seconds, or text such as ``"30s"``; None for none.
    :param max_body: for routes that set none: bytes, or text such as ``"4MB"``.
    :param grace: how long jobs get to end when the pools are stopped.
    :param directory: where large bodies and replies are kept; None for the system's choice.
    :param gate: looks at each call before it is accepted, and refuses it by raising
        :class:`deferpost.HTTPError`, with 401, 403 or 429 for example.  It may return who calls,
        for ``call.principal``.  On a :class:`deferpost.DeferPostSite` that is before its body is
        uploaded.  It is called on the reactor thread, and is to answer at once.
        :class:`deferpost.BearerTokens` and :class:`deferpost.SignedCalls` are gates.
    :param queue_timeout: how long calls of routes that set none may wait for their start; None
        for no limit.
    :param total_timeout: how long waiting and running may take together, likewise.
    :param max_jobs_per_client: how many calls one client may have under way; 0 for no bound.
    :raises deferpost.errors.DeclarationError: a route names a pool that is not there.
    """
    rules = AdmissionRules(
        queue_timeout=None if queue_timeout is None else parse_duration(queue_timeout),
        total_timeout=None if total_timeout is None else parse_duration(total_timeout),
        max_jobs_per_client=max_jobs_per_client,
    )
    runtime = _runtime(app, service, reactor, timeout, max_body, grace, directory, gate, rules)
    return AppResource(app.routes, runtime.context)


class DeferPost(PostResource):
    """One handler as a resource: every POST to it is a call.

    On the reactor thread.  The path below which it is put does not matter.

    :param handler: the handler.
    :param pool: a plan such as ``ProcessPool(size=2)``, or ``"thread"``, ``"process"`` or
        ``"reactor"``.  If not given: the reactor for an ``async def``, else threads.
    :param timeout: how long a run may take: seconds, or text such as ``"30s"``.
    :param max_body: how large a body may be: bytes, or text such as ``"4MB"``.
    :param on_disconnect: ``"cancel"`` or ``"finish"``: what becomes of a running job whose
        client has left.
    :param stream: whether the handler starts when the headers are in and reads ``call.body``
        while it arrives, where the site can do that; see :meth:`deferpost.App.post`.
    :param queue_timeout: how long a call may wait for its start: seconds, or text.
    :param total_timeout: how long waiting and running may take together: seconds, or text.
    :param interrupt: see :meth:`deferpost.App.post`.
    :param retries: see :meth:`deferpost.App.post`.
    :param service: see :func:`mount_app`.
    :param reactor: see :func:`mount_app`.
    :param grace: see :func:`mount_app`.
    :param directory: see :func:`mount_app`.
    :param gate: see :func:`mount_app`.
    :param max_jobs_per_client: see :func:`mount_app`.
    :raises deferpost.errors.DeclarationError: something of it cannot work.
    """

    def __init__(
        self,
        handler: Any,
        *,
        pool: Any = None,
        timeout: str | float | None = _SETTINGS.timeout,
        max_body: str | int = _SETTINGS.max_body,
        on_disconnect: str = "cancel",
        stream: bool = False,
        queue_timeout: str | float | None = None,
        total_timeout: str | float | None = None,
        interrupt: bool = False,
        retries: int = 0,
        service: IServiceCollection | None = None,
        reactor: Any = None,
        grace: str | float = 5.0,
        directory: str | None = None,
        gate: Gate | None = None,
        max_jobs_per_client: int = 0,
    ) -> None:
        app = App()
        app.post(
            "/",
            pool=pool,
            on_disconnect=on_disconnect,
            stream=stream,
            queue_timeout=queue_timeout,
            total_timeout=total_timeout,
            interrupt=interrupt,
            retries=retries,
        )(handler)
        rules = AdmissionRules(max_jobs_per_client=max_jobs_per_client)
        runtime = _runtime(app, service, reactor, timeout, max_body, grace, directory, gate, rules)
        super().__init__(app.routes[0], runtime.context)


class _MountedRuntime(Runtime):
    """A runtime that starts at the first call and stops with the reactor."""

    grace = 0.0

    def dispatcher(self) -> Dispatcher:
        """The dispatcher; the first call starts it."""
        if self._dispatcher is None:
            self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        return super().dispatcher()

    def _stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.shut_down(self.grace))


def _runtime(
    app: App,
    service: IServiceCollection | None,
    reactor: Any,
    timeout: str | float | None,
    max_body: str | int,
    grace: str | float,
    directory: str | None,
    gate: Gate | None,
    rules: AdmissionRules,
) -> Runtime:
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    kind = _MountedRuntime if service is None else Runtime
    runtime = kind(
        app.routes,
        {**DEFAULT_PLANS, **app.pools},
        reactor=reactor,
        timeout=None if timeout is None else parse_duration(timeout),
        max_body=parse_size(max_body),
        directory=directory,
        gate=gate,
        rules=rules,
    )
    if isinstance(runtime, _MountedRuntime):
        runtime.grace = parse_duration(grace)
    elif service is not None:
        RuntimeService(runtime, parse_duration(grace)).setServiceParent(service)
    return runtime
