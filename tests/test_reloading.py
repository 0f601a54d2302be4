"""How one version takes the place of another: what is waited for, undone, kept and freed."""

from __future__ import annotations

import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from deferpost.app import App
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.listening import CannotListen, Entrance, Ports
from deferpost.model import CallHead, PoolStatus
from deferpost.observing import Observing
from deferpost.reload import Loaded, NotReady, Retired, Succession, until_ready, what_failed
from deferpost.service import DaemonService
from deferpost.settings import Settings
from deferpost.versions import Sites, Version
from tests.waiting import until

HEAD = CallHead("id", "/", "POST", "/", b"", (), None, None)


def make(app: App, settings: Settings, reactor: Any) -> Version:
    """A version, as the daemon makes it."""
    return Version(
        app,
        settings,
        reactor,
        accepting=lambda: True,
        observing=Observing(reactor, job_events=False),
        used_signatures={},
    )


def waiting_app() -> tuple[App, list[Deferred[str]]]:
    """An app whose coroutine waits for a Deferred, which is in the list."""
    app = App()
    waiting: list[Deferred[str]] = []

    @app.post("/")
    async def wait(call: object) -> str:
        waiting.append(Deferred())
        return await waiting[-1]

    return app, waiting


class Request:
    """A request that is under way."""

    def __init__(self) -> None:
        self.finished: Deferred[None] = Deferred()

    def notifyFinish(self) -> Deferred[None]:
        return self.finished


class Old:
    """A version that was served, with jobs of its."""

    def __init__(self, jobs: int = 0, requests: int = 0) -> None:
        self.clock = Clock()
        app, self.waiting = waiting_app()
        self.version = make(app, Settings(timeout=60.0, grace=5.0), self.clock)
        self.version.runtime.start()
        self.answers: list[Any] = []
        for _ in range(jobs):
            self.submit()
        self.requests = [Request() for _ in range(requests)]
        self.retired = Retired(self.version, self.requests, self.clock, self.version.patience)

    def submit(self) -> None:
        """Give it one more job, as a request does that is whole now."""
        dispatcher = self.version.runtime.dispatcher()
        _, answer = dispatcher.submit("reactor", HEAD, io.BytesIO())
        answer.addBoth(self.answers.append)


def test_nothing_left() -> None:
    """A version that has nothing to do is gone at once, and leaves no timer."""
    old = Old()
    assert old.retired.gone.called
    assert old.clock.getDelayedCalls() == []


def test_what_was_begun() -> None:
    """A version is there until its jobs and requests have ended; a late request still gets in."""
    old = Old(jobs=1, requests=2)
    assert old.version.patience == 65
    old.requests[0].finished.callback(None)
    old.clock.advance(64)
    old.submit()  # its body is whole now
    old.requests[1].finished.errback(Failure(CancelledError()))
    assert not old.version.runtime.accepting
    old.clock.advance(64)
    assert not old.retired.gone.called
    old.waiting[0].callback("one")
    old.clock.advance(64)
    old.waiting[1].callback("two")
    old.clock.advance(2)
    assert old.retired.gone.called
    assert [answer.body for answer in old.answers] == [b"one", b"two"]
    assert old.clock.getDelayedCalls() == []


def test_a_job_that_hangs() -> None:
    """Where nothing ends within the longest time limit and the grace, the rest is canceled."""
    old = Old(jobs=2, requests=1)
    old.clock.advance(64)
    old.waiting[0].callback("one")
    old.clock.advance(1)
    assert not old.retired.gone.called
    old.clock.advance(64)
    assert len(old.answers) == 1
    old.clock.advance(1)
    old.clock.advance(1)
    assert isinstance(old.answers[1], Failure)
    assert old.retired.gone.called
    assert old.clock.getDelayedCalls() == []


def test_told_to_hurry() -> None:
    """At the end of the daemon the rest of an old version is canceled too."""
    old = Old(jobs=1, requests=1)
    old.retired.hurry()
    old.retired.hurry()
    old.clock.advance(1)
    assert old.retired.gone.called
    assert len(old.answers) == 1


class Statuses:
    """A runtime of which only the states of pools matter."""

    def __init__(self) -> None:
        self.ready = False
        self.restarts = 0

    def statuses(self) -> list[PoolStatus]:
        calm = PoolStatus(
            name="calm",
            kind="thread",
            size=2,
            max_waiting=0,
            running=0,
            waiting=0,
            stuck=0,
            ready=True,
        )
        return [
            calm,
            msgspec.structs.replace(calm, name="p", ready=self.ready, restarts=self.restarts),
        ]


def readiness(pools: Statuses, clock: Clock, seconds: float | None) -> list[Any]:
    """What waiting for it comes to, when it does."""
    results: list[Any] = []
    runtime: Any = pools
    Deferred.fromCoroutine(until_ready(runtime, clock, seconds)).addBoth(results.append)
    return results


def test_ready_in_time() -> None:
    """A version is ready when each pool is, though as many workers were lost as it has."""
    pools, clock = Statuses(), Clock()
    results = readiness(pools, clock, 10)
    pools.restarts = 2
    clock.pump([0.1] * 50)
    assert results == []
    pools.ready = True
    clock.advance(0.1)
    assert results == [None]
    assert clock.getDelayedCalls() == []


def test_not_ready() -> None:
    """A version is given up when workers fail one after the other, or take too long."""
    pools, clock = Statuses(), Clock()
    results = readiness(pools, clock, 10)
    forever = readiness(pools, clock, None)
    clock.pump([0.1] * 99)
    assert results == []
    clock.advance(0.2)
    assert results[0].check(NotReady)
    assert str(results[0].value) == "no worker of the pool p was set up within 10s"
    results = readiness(pools, clock, 10)
    pools.restarts = 3
    clock.advance(0.1)
    assert str(results[0].value) == "no worker of the pool p could be set up"
    clock.pump([1.0] * 1000)
    assert forever == [], "the first version of a daemon has no limit"


class Serving:
    """A succession of versions on the real reactor, on a port of its own."""

    def __init__(
        self, app: App, load: Callable[[], Loaded], *, reload_timeout: float = 30.0
    ) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        settings = Settings(listen=("tcp:0:interface=127.0.0.1",), reload_timeout=reload_timeout)
        self.settings = settings
        version = make(app, settings, reactor)
        version.runtime.start()
        sites = Sites(version)
        entrance = Entrance(sites.current)
        self.ports = Ports(entrance)
        self.succession = Succession(
            version,
            sites,
            entrance,
            self.ports,
            reactor,
            lambda app, settings: make(app, settings, reactor),
            load,
        )

    def reload(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.succession.reload())

    async def close(self) -> None:
        await self.ports.close()
        await self.succession.current.runtime.shut_down(0)
        await self.succession.end_retired(0)


@pytest_twisted.ensureDeferred
async def test_what_nobody_uses_is_freed() -> None:
    """An old version leaves nothing behind in memory, reload after reload."""
    undone: list[str] = []
    apps: list[weakref.ref[App]] = []

    def load() -> Loaded:
        app, _ = waiting_app()
        apps.append(weakref.ref(app.routes[0].handler))
        return Loaded(app, serving.settings, lambda: undone.append("undone"))

    serving = Serving(waiting_app()[0], load)
    gc.freeze()
    for _ in range(3):
        await serving.reload()
    await until(lambda: [app() is None for app in apps] == [True, True, False])
    assert not serving.succession.retired
    assert undone == []
    await serving.close()


@pytest_twisted.ensureDeferred
async def test_an_import_that_hangs() -> None:
    """A reload whose import hangs is given up, and undone at its end; no other begins before."""
    go_on = threading.Event()
    undone = threading.Event()

    def load() -> Loaded:
        assert go_on.wait(10)
        return Loaded(waiting_app()[0], serving.settings, undone.set)

    serving = Serving(waiting_app()[0], load)
    before = serving.succession.current
    hanging = serving.reload()
    hanging.cancel()
    with pytest.raises(CancelledError):
        await hanging
    with pytest.raises(DeclarationError, match="begun before has not ended"):
        await serving.reload()
    go_on.set()
    await until(undone.is_set)
    assert serving.succession.end_retired(10).called, "there is nothing to wait for"
    assert serving.succession.current is before
    await serving.reload()
    assert serving.succession.current is not before
    await serving.close()


@pytest_twisted.ensureDeferred
async def test_an_import_that_takes_too_long() -> None:
    """An import that is not over in the time that a reload may take is undone when it is."""
    go_on = threading.Event()
    undone = threading.Event()

    def load() -> Loaded:
        assert go_on.wait(10)
        return Loaded(waiting_app()[0], serving.settings, undone.set)

    serving = Serving(waiting_app()[0], load, reload_timeout=0.02)
    before = serving.succession.current
    with pytest.raises(TimeoutError):
        await serving.reload()
    go_on.set()
    await until(undone.is_set)
    assert serving.succession.current is before
    await serving.close()


@pytest_twisted.ensureDeferred
async def test_too_many_old_versions() -> None:
    """A fifth old version is not begun before one of the four has ended."""
    apps: list[list[Deferred[str]]] = []

    def load() -> Loaded:
        app, waiting = waiting_app()
        apps.append(waiting)
        return Loaded(app, serving.settings, lambda: None)

    first, waiting = waiting_app()
    apps.append(waiting)
    serving = Serving(first, load)
    answers = []
    for count in range(5):
        runtime = serving.succession.current.runtime
        _, answer = runtime.dispatcher().submit("reactor", HEAD, io.BytesIO())
        answers.append(answer)
        reloading = serving.reload()
        if count < 4:
            await reloading
    assert not reloading.called
    assert len(serving.succession.retired) == 4
    apps[2][0].callback("done")
    await reloading
    assert (await answers[2]).body == b"done"
    # What is left is canceled in time.
    ended = serving.succession.end_retired(0.01)
    for answer in answers:
        answer.addErrback(lambda failure: None)
    await ended
    await serving.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigurationError(["one", "two"]), "the configuration is wrong:\n  one\n  two"),
        (DeclarationError("no route"), "no route"),
        (DeclarationError("no route", "the traceback\n"), "no route\nthe traceback"),
        (CannotListen("cannot listen on tcp:1"), "cannot listen on tcp:1"),
        (TimeoutError(5, "Deferred"), "the app was not imported in time"),
        (NotReady("no worker"), "no worker"),
        (CancelledError(), "the daemon is told to stop"),
    ],
)
def test_what_is_said(error: BaseException, words: str) -> None:
    """Each way in which a reload fails has its words."""
    assert what_failed(Failure(error)) == words


def test_what_is_said_of_a_defect() -> None:
    """What nobody has thought of is shown with its traceback."""
    try:
        raise KeyError("defect")
    except KeyError:
        said = what_failed(Failure())
    assert said.startswith("this is a defect:\nTraceback")
    assert "KeyError: 'defect'" in said


@pytest_twisted.ensureDeferred
async def test_a_service_that_cannot_reload() -> None:
    """A service of somebody's own program opens its ports at its start, and reloads nothing."""
    from twisted.internet import reactor

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    settings = Settings(listen=("tcp:0:interface=127.0.0.1",))
    service = DaemonService(waiting_app()[0], settings, reactor, environ={})
    try:
        service.startService()
        version = service.version
        service.reload()
        assert service.version is version
        assert service.runtime.accepting
        await service.stopService()
        assert not service.runtime.accepting
        service.reload()
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
        gc.unfreeze()
