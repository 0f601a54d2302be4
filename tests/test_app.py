"""Declaring routes: what an app takes, what it refuses, and how it says so."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock

from deferpost.app import DEFAULT_PLANS, App, declare
from deferpost.errors import DeclarationError
from deferpost.model import Delivery, OnDisconnect
from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool
from deferpost.web.tree import AppResource


def render(call: Any) -> str:
    return ""


def render_another(call: Any) -> str:
    return ""


async def fetch(call: Any) -> str:
    return ""


async def stream(call: Any) -> AsyncIterator[bytes]:
    yield b""


class Model:
    """A handler that is built once per worker."""

    def __call__(self, call: Any) -> str:
        return ""


def refusal(act: Callable[[], object]) -> str:
    """What is said of a declaration that cannot work: one sentence, and nothing is left of it."""
    with pytest.raises(DeclarationError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


def test_route() -> None:
    """A route is a path and a handler; all else has a default."""
    app = App()
    app.post("/rst")(render)
    (route,) = app.routes
    assert (route.path, route.handler, route.pool) == ("/rst", render, "thread")
    assert (route.timeout, route.max_body) == (None, None)
    assert route.on_disconnect is OnDisconnect.CANCEL
    assert route.stream is False
    assert route.delivery is Delivery.ALLOW
    assert (route.fallback, route.result_ttl) == (None, None)
    assert (route.require_key, route.coalesce, route.needs_store) == (False, False, False)
    assert app.pools == {}


def test_route_whose_calls_are_kept() -> None:
    """How calls are answered is said in the words of the interface, times as people write them."""
    app = App()
    app.post("/a", fallback="30s", result_ttl="1h", require_key=True, coalesce=True)(render)
    app.post("/b", delivery="async", result_ttl=90)(render)
    first, second = app.routes
    assert (first.fallback, first.result_ttl) == (30.0, 3600.0)
    assert (first.require_key, first.coalesce) == (True, True)
    assert (second.delivery, second.result_ttl) == (Delivery.ASYNC, 90.0)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, False),
        ({"delivery": "sync"}, False),
        ({"result_ttl": "1h"}, False),
        ({"delivery": "async"}, True),
        ({"fallback": "1s"}, True),
        ({"require_key": True}, True),
        ({"coalesce": True}, True),
    ],
)
def test_route_that_needs_a_store(options: dict[str, Any], needs: bool) -> None:
    """A route whose calls cannot be served without kept jobs says so."""
    app = App()
    app.post("/a", **options)(render)
    assert app.routes[0].needs_store is needs


def test_route_in_full() -> None:
    """Times and sizes are numbers, or text as people write it."""
    app = App()
    app.post("/rst", pool="process", timeout="1m30s", max_body="4MB", on_disconnect="finish")(
        render
    )
    (route,) = app.routes
    assert (route.pool, route.timeout, route.max_body) == ("process", 90.0, 4_000_000)
    assert route.on_disconnect is OnDisconnect.FINISH


@pytest.mark.parametrize("pool", [None, "thread", "process", ProcessPool(size=1)])
def test_route_whose_body_streams_in(pool: Any) -> None:
    """A route may have its handler started when the headers are in, in a thread or a process."""
    app = App()
    app.post("/rst", pool=pool, stream=True)(render)
    assert app.routes[0].stream is True


@pytest.mark.parametrize("pool", [None, "reactor", "thread"])
def test_async_function_whose_body_streams_in(pool: Any) -> None:
    """A coroutine cannot wait for its body, and is told what to do instead."""
    message = refusal(lambda: App().post("/rst", pool=pool, stream=True)(fetch))
    assert "a coroutine cannot wait for call.body without holding up the reactor" in message
    assert "make it a plain function in a thread or process pool" in message


def test_decorator_leaves_the_handler_alone() -> None:
    """A handler can be called and tested as if it had not been declared."""
    app = App()
    assert app.post("/a")(render) is render
    assert app.post("/b")(Model) is Model


def test_routes_are_in_order() -> None:
    """Routes are in the order in which they were declared, and cannot be changed."""
    app = App()
    for path in ("/b", "/a", "/c"):
        app.post(path)(render)
    assert [route.path for route in app.routes] == ["/b", "/a", "/c"]
    assert isinstance(app.routes, tuple)


@pytest.mark.parametrize(
    ("handler", "pool"),
    [(render, "thread"), (Model, "thread"), (Model(), "thread"), (fetch, "reactor")],
)
def test_default_pool(handler: Any, pool: str) -> None:
    """An async function runs on the reactor, all else in a thread, unless it is said."""
    app = App()
    app.post("/")(handler)
    assert app.routes[0].pool == pool


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/b", "/a/", "/A.b-c_d~e", "/café", "/a%20b", "/a;b=1", "//"]
)
def test_paths(path: str) -> None:
    """A path is what may stand in a URL before the query."""
    app = App()
    app.post(path)(render)
    assert app.routes[0].path == path


@pytest.mark.parametrize(
    "path", ["", "a", "a/b", "/a b", "/a?b=1", "/a#b", "/a\n", "/\x7f", 3, None]
)
def test_no_paths(path: Any) -> None:
    """What is no path is refused, and shown."""
    message = refusal(lambda: App().post(path)(render))
    assert message == (
        f"{path!r} is no path of a route: it starts with a slash and has neither spaces, "
        "nor a query, nor a fragment"
    )


def test_route_twice() -> None:
    """A path has one handler: the second is refused, and both are named."""
    app = App()
    app.post("/rst")(render)
    assert refusal(lambda: app.post("/rst", pool=ThreadPool(size=1))(render_another)) == (
        "the route /rst is declared twice: for tests.test_app.render and for "
        "tests.test_app.render_another"
    )
    assert [route.handler for route in app.routes] == [render]
    assert app.pools == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": "soon"}, "route /a: timeout: 'soon' is not a duration: write for example"),
        ({"timeout": 0}, "route /a: timeout: 0 is not more than nothing"),
        ({"timeout": "0s"}, "route /a: timeout: '0s' is not more than nothing"),
        ({"timeout": -1}, "route /a: timeout: -1 is not a duration"),
        ({"timeout": True}, "route /a: timeout: true is not a duration"),
        ({"timeout": float("inf")}, "route /a: timeout: inf is not a duration"),
        ({"max_body": "much"}, "route /a: max_body: 'much' is not a size: write for example"),
        ({"max_body": -1}, "route /a: max_body: -1 is not a size"),
        ({"max_body": "1.5B"}, "route /a: max_body: '1.5B' is not a size"),
        (
            {"on_disconnect": "ignore"},
            "route /a: on_disconnect is 'cancel' or 'finish', not 'ignore'",
        ),
        ({"on_disconnect": None}, "route /a: on_disconnect is 'cancel' or 'finish', not None"),
        ({"delivery": "later"}, "route /a: delivery is 'sync', 'allow' or 'async', not 'later'"),
        (
            {"delivery": "async", "fallback": "1s"},
            "route /a: fallback='1s' is not for delivery='async', which leaves nothing to fall "
            "back to",
        ),
        ({"delivery": "sync", "fallback": 5}, "route /a: fallback=5 is not for delivery='sync'"),
        ({"fallback": 0}, "route /a: fallback: 0 is not more than nothing"),
        ({"fallback": "soon"}, "route /a: fallback: 'soon' is not a duration"),
        ({"result_ttl": "0s"}, "route /a: result_ttl: '0s' is not more than nothing"),
        ({"result_ttl": True}, "route /a: result_ttl: true is not a duration"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    """An option that makes no sense is refused with the route and what would."""
    app = App()
    assert words in refusal(lambda: app.post("/a", **options)(render))
    assert app.routes == ()


def test_smallest_body() -> None:
    """A route may take no body at all."""
    app = App()
    app.post("/a", max_body=0)(render)
    assert app.routes[0].max_body == 0


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (None, "None is not a handler"),
        (lambda: "", "is called with one argument, the call"),
        (object, "has no __call__"),
    ],
)
def test_wrong_handlers(handler: Any, words: str) -> None:
    """What cannot handle a call is refused where it is declared."""
    assert words in refusal(lambda: App().post("/a")(handler))


# Pools


def test_pools_of_the_app() -> None:
    """An app may have pools of its own, beside the usual ones or in their place."""
    plans = {"models": ProcessPool(size=1), "thread": ThreadPool(size=2)}
    app = App(pools=plans)
    assert app.pools == plans
    app.post("/a", pool="models")(render)
    assert app.routes[0].pool == "models"


def test_pools_cannot_be_changed_afterwards() -> None:
    """Changing the mapping that one gave or got changes no app."""
    plans: dict[str, Any] = {"models": ProcessPool(size=1)}
    app = App(pools=plans)
    plans.clear()
    dict(app.pools).clear()
    assert list(app.pools) == ["models"]


def test_pool_of_a_route() -> None:
    """A route may have a pool for itself alone."""
    app = App()
    plan = ProcessPool(size=1)
    app.post("/a", pool=plan)(render)
    assert app.routes[0].pool == "process:/a"
    assert app.pools == {"process:/a": plan}


def test_pool_that_is_configured_elsewhere() -> None:
    """A pool that the app does not know may be the daemon's; that is seen when it is served."""
    app = App()
    app.post("/a", pool="of the daemon")(render)
    app.post("/b", pool="of the daemon")(fetch)
    assert [route.pool for route in app.routes] == ["of the daemon"] * 2


@pytest.mark.parametrize("plan", [3, ProcessPool, {"size": 1}, object()])
def test_no_plan(plan: Any) -> None:
    """What is no plan of a pool is refused, with one that is."""
    words = "which is no plan of a pool; give one such as ThreadPool(size=4)"
    assert words in refusal(lambda: App(pools={"models": plan}))
    assert words in refusal(lambda: App().post("/a", pool=plan)(render))


@pytest.mark.parametrize("pool", ["reactor", ReactorPool(size=5)])
@pytest.mark.parametrize("handler", [render, Model, functools.partial(render)])
def test_plain_function_on_the_reactor(pool: Any, handler: Any) -> None:
    """A plain function would block the reactor, and is refused there."""
    message = refusal(lambda: App().post("/a", pool=pool)(handler))
    assert "is a plain function and would block the reactor" in message
    assert "use pool='thread' or pool='process', or make it an async function" in message


@pytest.mark.parametrize("pool", ["thread", "process", ThreadPool(size=1), ProcessPool(size=1)])
def test_async_function_in_a_worker(pool: Any) -> None:
    """An async function runs on the reactor, and is refused elsewhere."""
    message = refusal(lambda: App().post("/a", pool=pool)(fetch))
    assert "is an async function, which runs on the reactor; leave pool=" in message


@pytest.mark.parametrize("pool", [None, "thread", "process", "reactor"])
def test_async_generator_anywhere(pool: Any) -> None:
    """An asynchronous generator is refused in every pool."""
    message = refusal(lambda: App().post("/a", pool=pool)(stream))
    assert "tests.test_app.stream is an asynchronous generator" in message


@pytest.mark.parametrize("pool", ["process", ProcessPool(size=1)])
@pytest.mark.parametrize("handler", [lambda call: "", Model(), functools.partial(render)])
def test_nameless_in_a_process(pool: Any, handler: Any) -> None:
    """What a worker process could not find again is refused where it is declared."""
    message = refusal(lambda: App().post("/a", pool=pool)(handler))
    assert "cannot run in a process pool" in message


def test_default_plans() -> None:
    """Three pools are there without being named anywhere."""
    assert {name: plan.kind for name, plan in DEFAULT_PLANS.items()} == {
        "thread": "thread",
        "process": "process",
        "reactor": "reactor",
    }


@given(
    st.text() | st.none() | st.integers(),
    st.text() | st.floats() | st.none() | st.booleans(),
    st.text() | st.integers() | st.none() | st.booleans(),
    st.text() | st.none() | st.sampled_from(["cancel", "finish"]),
)
def test_whatever_is_declared(path: Any, timeout: Any, max_body: Any, on_disconnect: Any) -> None:
    """Whatever is declared is a route that can work, or is refused in a sentence."""
    try:
        route = declare(
            path, render, None, timeout=timeout, max_body=max_body, on_disconnect=on_disconnect
        )
    except DeclarationError as error:
        assert str(error)  # noqa: PT017 (either of two is right)
    else:
        assert route.path.startswith("/")
        assert route.timeout is None or 0 < route.timeout < float("inf")
        assert route.max_body is None or route.max_body >= 0


# Mounting


def test_resource() -> None:
    """An app is mounted as a resource; nothing is started for it."""
    app = App()
    app.post("/rst", max_body=10**9)(render)
    reactor = MemoryReactorClock()
    mounted = app.resource(reactor=reactor)
    assert isinstance(mounted, AppResource)
    assert mounted.largest_body == 10**9
    assert reactor.getDelayedCalls() == []
    assert reactor.triggers == {}


def test_resource_without_its_pool() -> None:
    """A route whose pool is nowhere is refused when it is mounted, with those that there are."""
    app = App(pools={"models": ThreadPool(size=1)})
    app.post("/rst", pool="of the daemon")(render)
    message = refusal(lambda: app.resource(reactor=MemoryReactorClock()))
    assert "route /rst wants the pool 'of the daemon', which is not there" in message
    assert "there are models, process, reactor, thread" in message


def test_resource_with_options_of_its_own() -> None:
    """Where it is mounted, it is said what routes take that set nothing."""
    app = App()
    app.post("/rst")(render)
    mounted = app.resource(reactor=MemoryReactorClock(), max_body="1kB", timeout=None)
    assert isinstance(mounted, AppResource)
    assert mounted.largest_body == 1000
