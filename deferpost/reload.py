"""Reloading: a new version beside the one that is served, and the swap once it is ready.

The new version is loaded, its pools are started and its workers set up while the old one goes on.
Only then does it take the place of the old one, in one turn of the reactor; what the old one has
begun, it ends.  Whatever fails before that is reported, and changes nothing.

This decides when versions change places and how long one lives that is served no more.  It never
reads a configuration and imports nothing: it is handed a function that does.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.app import App
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.listening import CannotListen, Entrance, Ports, endpoints_of
from deferpost.runtime import Runtime
from deferpost.settings import Settings
from deferpost.units import format_duration
from deferpost.versions import Sites, Version

__all__ = ["Loaded", "NotReady", "Retired", "Succession", "until_ready", "what_failed"]

_log = Logger(namespace="deferpost")

#: Seconds between two looks whether the workers of a version are ready.
_LOOK_PAUSE = 0.05

#: Versions that are served no more and have work left; a further reload waits until one is gone.
_MOST_RETIRED = 4


class NotReady(Exception):
    """The workers of a version do not become ready."""


@attrs.frozen
class Loaded:
    """What was read and imported for a new version.

    :ivar app: the app.
    :ivar settings: the settings.
    :ivar undo: puts back the modules of the version before.
    """

    app: App
    settings: Settings
    undo: Callable[[], None]


async def until_ready(runtime: Runtime, reactor: Any, seconds: float | None = None) -> None:
    """Wait until each pool of a started runtime can run calls.

    :param runtime: the runtime.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param seconds: the most that it may take, and no pool may fail; None to wait in any case.
    :raises NotReady: it takes longer, or more workers of a pool were lost than it is to have.
    """
    deadline = None if seconds is None else reactor.seconds() + seconds
    while True:
        pools = runtime.statuses()
        waiting = [pool.name for pool in pools if not pool.ready]
        if not waiting:
            return
        if deadline is not None:
            # As many may have been killed from outside; the next one failed as they did.
            broken = [p.name for p in pools if not p.ready and p.restarts > p.size]
            if broken:
                raise NotReady(f"no worker of {_pools(broken)} could be set up")
            if reactor.seconds() >= deadline:
                limit = format_duration(seconds or 0.0)
                raise NotReady(f"no worker of {_pools(waiting)} was set up within {limit}")
        await deferLater(reactor, _LOOK_PAUSE)


def _pools(names: list[str]) -> str:
    return f"the pool{'s' if len(names) > 1 else ''} {', '.join(names)}"


class Retired:
    """A version that is served no more: what it has begun ends, and then it is stopped.

    It may take its time as long as something of it ends at least every ``patience``.

    :param version: the version.
    :param requests: those that it has yet to answer, as far as they can be in its hands.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param patience: seconds without an end after which the rest is canceled.
    """

    def __init__(
        self, version: Version, requests: list[Any], reactor: Any, patience: float
    ) -> None:
        self._runtime = version.runtime
        self._patience = patience
        self._unanswered = len(requests)
        self._cut: Deferred[None] = Deferred()
        self._answered: Deferred[None] = Deferred()
        for request in requests:
            request.notifyFinish().addBoth(self._one_answered)
        if not requests:
            self._answered.callback(None)
        self._left = self._count()
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor
        self._watch.start(patience, now=False).addErrback(
            lambda failure: _log.failure("an old version is not watched", failure=failure)
        )
        #: Fires when it has ended.
        self.gone: Deferred[None] = Deferred.fromCoroutine(self._end())

    def hurry(self) -> None:
        """Cancel what it has not ended."""
        if not self._cut.called:
            self._cut.callback(None)
        self._runtime.hurry()

    def _one_answered(self, _: object) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered.callback(None)

    def _count(self) -> int:
        return self._unanswered + self._runtime.unended

    def _look(self) -> None:
        before, self._left = self._left, self._count()
        if self._left >= before:
            _log.warn(
                "nothing of the version before has ended for {seconds:g} s: its jobs are canceled",
                seconds=self._patience,
            )
            self._watch.stop()
            self.hurry()

    async def _end(self) -> None:
        # A request whose body is still on its way is given to this version when it is whole.
        await _first_of(self._answered, self._cut)
        await self._runtime.shut_down(None)
        if self._watch.running:
            self._watch.stop()


class Succession:
    """The version that is served, and how another takes its place.  For the reactor thread.

    :param version: the first version.
    :param sites: the sites, which serve it.
    :param entrance: the factory of the ports, which leads to them.
    :param ports: the ports.
    :param reactor: the reactor.
    :param make: makes a version.
    :param load: reads and imports everything again; called on a thread of its own.  It raises
        :class:`~deferpost.errors.ConfigurationError` or
        :class:`~deferpost.errors.DeclarationError`, and has undone what it did then.

    :ivar current: the version that is served.
    :ivar retired: those before it that have work left.
    """

    def __init__(
        self,
        version: Version,
        sites: Sites,
        entrance: Entrance,
        ports: Ports,
        reactor: Any,
        make: Callable[[App, Settings], Version],
        load: Callable[[], Loaded],
    ) -> None:
        self.current = version
        self.retired: set[Retired] = set()
        self._sites = sites
        self._entrance = entrance
        self._ports = ports
        self._reactor = reactor
        self._make = make
        self._load = load
        self._loading = False

    async def reload(self) -> None:
        """Put a new version in the place of the one that is served.

        It may be canceled, and then changes nothing.

        :raises ConfigurationError: the configuration is wrong.
        :raises DeclarationError: the app does not load, or cannot be served.
        :raises CannotListen: a port cannot be had.
        :raises NotReady: its workers do not become ready.
        :raises TimeoutError: the app is not imported in time.
        """
        if len(self.retired) >= _MOST_RETIRED:
            _log.info("{count} versions have work left: waiting", count=len(self.retired))
            await _first_of(*[retired.gone for retired in self.retired])
        if self._loading:
            raise DeclarationError("the import of the app that was begun before has not ended")
        loaded = await self._loaded(self.current.settings.reload_timeout)
        version: Version | None = None
        try:
            endpoints = endpoints_of(self._reactor, loaded.settings.listen)
            version = self._make(loaded.app, loaded.settings)
            version.runtime.start()
            await until_ready(version.runtime, self._reactor, loaded.settings.reload_timeout)
            unwanted = await self._ports.change(endpoints)
        except (Exception, CannotListen):
            loaded.undo()
            if version is not None:
                version.dismiss_watchers()
                version.runtime.hurry()
                await version.runtime.shut_down(0)
            raise
        self._swap(version)
        unwanted.close().addErrback(
            lambda failure: _log.failure("a port could not be closed", failure=failure)
        )

    def _swap(self, version: Version) -> None:
        """From here on, whatever begins, begins in the new version."""
        requests = self._sites.requests()
        before, self.current = self.current, version
        self._entrance.lead_to(self._sites.serve(version))
        retired = Retired(before, requests, self._reactor, before.patience)
        before.dismiss_watchers()  # whose requests are among those
        self.retired.add(retired)
        del before  # whose modules are let go of when it has ended

        def gone(result: object) -> None:
            self.retired.discard(retired)
            if isinstance(result, Failure):
                _log.failure("the version before could not be stopped", failure=result)
            _log.info("the version before has ended")
            self._reactor.callLater(0, _collect)

        retired.gone.addBoth(gone)

    def _loaded(self, seconds: float) -> Deferred[Loaded]:
        """What is read and imported, on a thread of its own: the reactor goes on meanwhile.

        One that comes too late is undone.
        """
        done: Deferred[Loaded] = Deferred()
        self._loading = True

        def load() -> None:
            result: Loaded | Failure
            try:
                result = self._load()
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(finish, result)

        def finish(result: Loaded | Failure) -> None:
            self._loading = False
            if not done.called:
                done.callback(result)
            elif isinstance(result, Loaded):
                result.undo()

        threading.Thread(target=load, name="deferpost reload", daemon=True).start()
        return done.addTimeout(seconds, self._reactor)

    def hurry(self) -> None:
        """Cancel what versions before have not ended."""
        for retired in list(self.retired):
            retired.hurry()

    def end_retired(self, grace: float) -> Deferred[Any]:
        """Let the versions before end within a time.

        :param grace: seconds.
        :returns: a Deferred that fires when all are gone.
        """
        if not self.retired:
            return gatherResults([])
        timer = self._reactor.callLater(grace, self.hurry)

        def ended(result: object) -> object:
            if timer.active():
                timer.cancel()
            return result

        return gatherResults([_also(retired.gone) for retired in self.retired]).addBoth(ended)


def _collect() -> None:
    """Free what the collector was told to leave alone, of which a version is gone now."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _also(deferred: Deferred[Any]) -> Deferred[None]:
    """A Deferred that fires, without a result, when another does."""
    fired: Deferred[None] = Deferred()

    def pass_on(result: object) -> object:
        if not fired.called:
            fired.callback(None)
        return result

    deferred.addBoth(pass_on)
    return fired


def _first_of(*deferreds: Deferred[Any]) -> Deferred[None]:
    """A Deferred that fires when the first of these does; they are left as they are."""
    first: Deferred[None] = Deferred()

    def fired(result: object) -> object:
        if not first.called:
            first.callback(None)
        return result

    for deferred in deferreds:
        deferred.addBoth(fired)
    return first


def what_failed(failure: Failure) -> str:
    """Why a reload has failed, in words for the operator."""
    error = failure.value
    if isinstance(error, ConfigurationError):
        return "the configuration is wrong:\n  " + "\n  ".join(error.problems)
    if isinstance(error, DeclarationError):
        return f"{error}\n{error.traceback}".rstrip() if error.traceback else str(error)
    if isinstance(error, CannotListen):
        return str(error).removeprefix("deferpost: ")
    if isinstance(error, TimeoutError):
        return "the app was not imported in time"
    if isinstance(error, NotReady):
        return str(error)
    if isinstance(error, CancelledError):
        return "the daemon is told to stop"
    return f"this is a defect:\n{failure.getTraceback()}"
