"""The App: a set of routes, which the daemon loads and which an existing site mounts.

The modules of handlers import this, and worker processes import those: so this imports Twisted
only when an app is mounted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from deferpost.errors import DeclarationError
from deferpost.handlers.declared import calls_for_reactor, display_name, require_handler
from deferpost.handlers.named import reference
from deferpost.model import Delivery, OnDisconnect, Route
from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool
from deferpost.units import parse_duration, parse_size

if TYPE_CHECKING:
    from twisted.web.resource import Resource

__all__ = ["DEFAULT_PLANS", "App", "declare"]

H = TypeVar("H")

#: The pools that are there without being named anywhere.
DEFAULT_PLANS: Mapping[str, Any] = {
    "thread": ThreadPool(),
    "process": ProcessPool(),
    "reactor": ReactorPool(),
}

_PATH = re.compile(r"/[^\x00-\x20?#\x7f]*")


class App:
    """A set of routes.

    :param pools: pools beside ``thread``, ``process`` and ``reactor``, or in their place, by
        name; each a plan such as ``ProcessPool(size=1)``.
    """

    def __init__(self, *, pools: Mapping[str, Any] | None = None) -> None:
        self._pools: dict[str, Any] = {}
        self._routes: dict[str, Route] = {}
        for name, plan in (pools or {}).items():
            self._add_pool(name, plan)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes, in the order in which they were declared."""
        return tuple(self._routes.values())

    @property
    def pools(self) -> Mapping[str, Any]:
        """The plans of the app's own pools, by name."""
        return dict(self._pools)

    def post(
        self,
        path: str,
        *,
        pool: Any = None,
        timeout: str | float | None = None,
        max_body: str | int | None = None,
        on_disconnect: str = "cancel",
        stream: bool = False,
        queue_timeout: str | float | None = None,
        total_timeout: str | float | None = None,
        interrupt: bool = False,
        retries: int = 0,
        delivery: str = "allow",
        fallback: str | float | None = None,
        result_ttl: str | float | None = None,
        require_key: bool = False,
        coalesce: bool = False,
    ) -> Callable[[H], H]:
        """Declare the handler of a path, as a decorator; the handler itself stays as it is.

        :param path: the path below the app, starting with a slash; it is matched whole.
        :param pool: a pool's name, or a plan for a pool of this route's own.  If not given:
            ``reactor`` for an ``async def``, else ``thread``.
        :param timeout: how long a run may take: seconds, or text such as ``"30s"``.  If not
            given, as the daemon or the mount is configured.
        :param max_body: how large a body may be: bytes, or text such as ``"4MB"``.  If not
            given, as the daemon or the mount is configured.
        :param on_disconnect: what becomes of a running job whose client has left: ``"cancel"``
            or ``"finish"``.  A queued one is removed in either case where nobody waits for it.
        :param stream: whether the handler starts as soon as the request's headers are in.
            ``call.body`` then reads what arrives: a read waits for the client, and the client is
            held back while nothing is read.  Reading raises
            :class:`~deferpost.errors.BodyBroken` where the client leaves in the middle.  For
            threads and processes.  On a site that keeps the whole body first, the handler starts
            when it is there.
        :param queue_timeout: how long a call may wait for its start: seconds, or text.  If not
            given, as the daemon or the mount is configured.
        :param total_timeout: how long waiting and running may take together: seconds, or text.
            If not given, as the daemon or the mount is configured.
        :param interrupt: for threads: whether :class:`~deferpost.Interrupted` is raised in a
            handler that goes on after it was told to stop.  It can hit any line of Python, and
            does not interrupt calls into C.
        :param retries: for processes: how often a call is run again whose worker process was
            lost.  What the handler raises is an answer, and is not tried again.  A kept job is
            also run again that ran when the daemon ended.
        :param delivery: how calls may be answered where jobs are kept (``--store``): ``"sync"``
            on their connection only; ``"allow"`` by 202 where the client prefers that; or
            ``"async"``, always by 202.
        :param fallback: how long a client waits on its connection at most, until it is answered
            by 202: seconds, or text.  If not given, for as long as the call takes.
        :param result_ttl: how long a kept job and its result are there when it has ended:
            seconds, or text.  If not given, as the daemon is configured.
        :param require_key: whether each call has to have an ``Idempotency-Key``.
        :param coalesce: whether a call waits for another one that is under way and the same, in
            place of running too.  It is canceled when the last client that waits has left.
        :raises deferpost.errors.DeclarationError: something of it cannot work.
        """

        def add(handler: H) -> H:
            if path in self._routes:
                raise DeclarationError(
                    f"the route {path} is declared twice: for "
                    f"{display_name(self._routes[path].handler)} and for {display_name(handler)}"
                )
            name = pool
            if pool is not None and not isinstance(pool, str):
                name = f"{getattr(pool, 'kind', 'pool')}:{path}"
                self._add_pool(name, pool)
            route = declare(
                path,
                handler,
                name,
                timeout=timeout,
                queue_timeout=queue_timeout,
                total_timeout=total_timeout,
                max_body=max_body,
                on_disconnect=on_disconnect,
                stream=stream,
                interrupt=interrupt,
                retries=retries,
                delivery=delivery,
                fallback=fallback,
                result_ttl=result_ttl,
                require_key=require_key,
                coalesce=coalesce,
            )
            plan = self._pools.get(route.pool, DEFAULT_PLANS.get(route.pool))
            if plan is not None:
                check_kind(route, plan)
            self._routes[path] = route
            return handler

        return add

    def resource(self, **options: Any) -> Resource:
        """The app as a resource, to be put into an existing site.

        :param options: see :func:`deferpost.mount.mount_app`.
        """
        from deferpost.mount import mount_app

        return mount_app(self, **options)

    def _add_pool(self, name: str, plan: Any) -> None:
        if isinstance(plan, type) or not callable(getattr(plan, "start", None)):
            raise DeclarationError(
                f"the pool {name!r} is {plan!r}, which is no plan of a pool; give one such as "
                "ThreadPool(size=4) or ProcessPool(size=2)"
            )
        self._pools[name] = plan


def declare(
    path: str,
    handler: Any,
    pool: str | None,
    *,
    timeout: str | float | None = None,
    queue_timeout: str | float | None = None,
    total_timeout: str | float | None = None,
    max_body: str | int | None = None,
    on_disconnect: str = "cancel",
    stream: bool = False,
    interrupt: bool = False,
    retries: int = 0,
    delivery: str = "allow",
    fallback: str | float | None = None,
    result_ttl: str | float | None = None,
    require_key: bool = False,
    coalesce: bool = False,
) -> Route:
    """Make a route of what a user declared; see :meth:`App.post`.

    :raises deferpost.errors.DeclarationError: something of it cannot work.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise DeclarationError(
            f"{path!r} is no path of a route: it starts with a slash and has neither spaces, "
            "nor a query, nor a fragment"
        )
    require_handler(handler)
    try:
        disconnect = OnDisconnect(on_disconnect)
    except ValueError:
        raise DeclarationError(
            f"route {path}: on_disconnect is 'cancel' or 'finish', not {on_disconnect!r}"
        ) from None
    try:
        size = None if max_body is None else parse_size(max_body)
    except ValueError as error:
        raise DeclarationError(f"route {path}: max_body: {error}") from None
    if stream and calls_for_reactor(handler):
        raise DeclarationError(
            f"route {path}: stream=True is not for {display_name(handler)}: a coroutine cannot "
            "wait for call.body without holding up the reactor; make it a plain function in a "
            "thread or process pool, or leave stream out"
        )
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        raise DeclarationError(f"route {path}: retries is from 0 to 100, not {retries!r}")
    if retries and stream:
        raise DeclarationError(
            f"route {path}: retries={retries} is not for stream=True: a body that was read while "
            "it arrived is not there a second time"
        )
    try:
        delivered = Delivery(delivery)
    except ValueError:
        raise DeclarationError(
            f"route {path}: delivery is 'sync', 'allow' or 'async', not {delivery!r}"
        ) from None
    if fallback is not None and delivered is not Delivery.ALLOW:
        raise DeclarationError(
            f"route {path}: fallback={fallback!r} is not for delivery={delivery!r}, which leaves "
            "nothing to fall back to; leave one of them out"
        )
    if pool is None:
        pool = "reactor" if calls_for_reactor(handler) else "thread"
    return Route(
        path=path,
        handler=handler,
        pool=pool,
        timeout=_duration(path, "timeout", timeout),
        queue_timeout=_duration(path, "queue_timeout", queue_timeout),
        total_timeout=_duration(path, "total_timeout", total_timeout),
        max_body=size,
        on_disconnect=disconnect,
        stream=bool(stream),
        interrupt=bool(interrupt),
        retries=retries,
        delivery=delivered,
        fallback=_duration(path, "fallback", fallback),
        result_ttl=_duration(path, "result_ttl", result_ttl),
        require_key=bool(require_key),
        coalesce=bool(coalesce),
    )


def _duration(path: str, name: str, value: str | float | None) -> float | None:
    """Seconds of an option that is more than nothing, or None where it is not given."""
    try:
        seconds = None if value is None else parse_duration(value)
        if seconds is not None and seconds <= 0:
            raise ValueError(f"{value!r} is not more than nothing")
    except ValueError as error:
        raise DeclarationError(f"route {path}: {name}: {error}") from None
    return seconds


def check_kind(route: Route, plan: Any) -> None:
    """Check that a kind of pool can run the handler of a route.

    :raises deferpost.errors.DeclarationError: it cannot.
    """
    name = display_name(route.handler)
    if route.interrupt and plan.kind != "thread":
        raise DeclarationError(
            f"route {route.path}: interrupt=True is for threads; {name} runs in pool "
            f"{route.pool!r} of kind {plan.kind!r}, which ends what it runs by itself"
        )
    if route.retries and plan.kind != "process":
        raise DeclarationError(
            f"route {route.path}: retries={route.retries} is for processes, of which one can be "
            f"lost; {name} runs in pool {route.pool!r} of kind {plan.kind!r}"
        )
    if calls_for_reactor(route.handler):
        if plan.kind != "reactor":
            raise DeclarationError(
                f"route {route.path}: {name} is an async function, which runs on the reactor; "
                f"leave pool={route.pool!r} out, or make it a plain function"
            )
    elif plan.kind == "reactor":
        raise DeclarationError(
            f"route {route.path}: {name} is a plain function and would block the reactor; "
            "use pool='thread' or pool='process', or make it an async function"
        )
    elif plan.kind == "process":
        reference(route.path, route.handler)
