"""The assembly: an app with its runtime and its site as one service, and the order of its end."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost._version import __version__
from deferpost.app import App
from deferpost.errors import DeclarationError
from deferpost.listening import CannotListen, Entrance, Ports, endpoints_of
from deferpost.observing import Observing
from deferpost.reload import Loaded, Succession, until_ready, what_failed
from deferpost.replays import UsedSignatures
from deferpost.runtime import Runtime, RuntimeService, plan_of, plans_of
from deferpost.settings import Settings
from deferpost.storage import Storage
from deferpost.systemd import Notifier
from deferpost.versions import Sites, Version

__all__ = ["DaemonService", "Runtime", "RuntimeService", "plan_of", "plans_of"]

_log = Logger(namespace="deferpost")

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


class DaemonService(Service):
    """The daemon: an app on its listening ports, how it reloads, and the order in which it ends.

    :param app: the app.
    :param settings: the settings.
    :param reactor: the reactor.
    :param own_signals: whether SIGTERM, SIGINT and SIGHUP are this service's to handle.
    :param load: reads and imports everything again, for SIGHUP; see
        :class:`deferpost.reload.Succession`.  None where there is nothing to read.
    :param environ: where systemd says what it wants, which is taken out of it.
    :raises deferpost.errors.DeclarationError: the app cannot be served.
    :raises deferpost.errors.ConfigurationError: what it is to listen on makes no sense.
    """

    name = "deferpost"

    def __init__(
        self,
        app: App,
        settings: Settings,
        reactor: Any,
        *,
        own_signals: bool = False,
        load: Callable[[], Loaded] | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._own_signals = own_signals
        self._can_reload = load is not None
        self._environ = os.environ if environ is None else environ
        self.observing = Observing(reactor, job_events=settings.log_format == "json")
        self._used_signatures: dict[str, UsedSignatures] = {}
        self._storage = None if settings.store is None else Storage(settings, reactor)
        version = self._version(app, settings)
        self._sites = Sites(version)
        self.observing.connections = lambda: self._sites.open_connections
        self._endpoints = endpoints_of(reactor, settings.listen)
        entrance = Entrance(self._sites.current)
        self._ports = Ports(entrance)
        self._succession = Succession(
            version, self._sites, entrance, self._ports, reactor, self._version, load or _nothing
        )
        self._systemd = Notifier()
        self._alive: LoopingCall | None = None
        self._becoming: Deferred[None] | None = None
        self._reloading: Deferred[None] | None = None
        self._again = False
        self._hurry: Deferred[None] = Deferred()

    def _version(self, app: App, settings: Settings) -> Version:
        return Version(
            app,
            settings,
            self._reactor,
            accepting=lambda: bool(self.running),
            observing=self.observing,
            used_signatures=self._used_signatures,
            storage=self._storage,
        )

    @property
    def version(self) -> Version:
        """The version that is served."""
        return self._succession.current

    @property
    def runtime(self) -> Runtime:
        """The runtime of the version that is served."""
        return self.version.runtime

    @property
    def _settings(self) -> Settings:
        return self.version.settings

    # The start.

    def privilegedStartService(self) -> None:
        """Listen, while ports below 1024 are permitted.

        :raises twisted.internet.error.CannotListenError: a port cannot be had.
        """
        super().privilegedStartService()
        self._ports.open(self._endpoints)

    def startService(self) -> None:
        """Start the pools; connections are accepted from the next turn of the reactor."""
        super().startService()
        if not self._ports:  # nobody called privilegedStartService
            self.privilegedStartService()
        self._systemd = Notifier.taken_from(self._environ, os.getpid())
        _allow_descriptors(self._settings.max_connections + OTHER_DESCRIPTORS)
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is loaded stays: a collector that looks at it again and again costs a POST through a
        # thread 12 % of its CPU time, and one that starts every 700 objects some 6 % more (measured
        # on the way of a request through a stock channel, Python 3.11).
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        self.runtime.start()
        if self._storage is not None:
            self.version.run_kept_jobs()
            self._storage.open()
        _log.info("deferpost {version} serves {app}", version=__version__, app=self._settings.app)
        if self._systemd.is_there:
            self._becoming = Deferred.fromCoroutine(self._say_when_ready())
            self._becoming.addErrback(lambda failure: failure.trap(CancelledError))
        if self._systemd.watchdog is not None:
            self._alive = LoopingCall(self._systemd.alive)
            self._alive.clock = self._reactor
            self._alive.start(self._systemd.watchdog / 2).addErrback(
                lambda failure: _log.failure("systemd hears no more", failure=failure)
            )
        if self._own_signals:
            self._reactor.callWhenRunning(self._take_signals)

    async def _say_when_ready(self) -> None:
        self._systemd.status("setting up workers")
        await until_ready(self.runtime, self._reactor)
        self._systemd.ready(f"serving {self._settings.app}")

    # Another version.

    def reload(self) -> None:
        """Read and import everything again, and serve that if it is good.

        One that comes while another is under way begins after it.
        """
        if not self.running or not self._can_reload:
            return
        if self._reloading is not None:
            _log.info("told to reload while it reloads: once more after that")
            self._again = True
            return
        self._reloading = Deferred.fromCoroutine(self._reload())
        self._reloading.addErrback(lambda failure: _log.failure("not reloaded", failure=failure))
        self._reloading.addCallback(self._reloaded)

    async def _reload(self) -> None:
        start = self._reactor.seconds()
        _log.info("reloading: the version that is served goes on until the new one is ready")
        was_ready = self._becoming is None or self._becoming.called
        if was_ready:
            self._systemd.reloading()
        try:
            await self._succession.reload()
        except (Exception, CannotListen):
            why = what_failed(Failure())
            _log.error("not reloaded, what was served before still is: {why}", why=why)
            # One that is not ready yet goes on to become so.
            tell = self._systemd.ready if was_ready else self._systemd.status
            tell(f"serving as before, since the reload failed: {why}")
        else:
            if self._becoming is not None:
                self._becoming.cancel()  # it looks at the version before
            self.version.run_kept_jobs()
            _allow_descriptors(self._settings.max_connections + OTHER_DESCRIPTORS)
            _log.info(
                "reloaded in {seconds:.3f} s: deferpost {version} serves {app}",
                seconds=self._reactor.seconds() - start,
                version=__version__,
                app=self._settings.app,
            )
            self._systemd.ready(f"serving {self._settings.app}, reloaded")

    def _reloaded(self, _: object) -> None:
        self._reloading = None
        again, self._again = self._again, False
        if again:
            self.reload()

    # The end.

    async def _stop(self) -> None:
        self._systemd.stopping()
        if self._becoming is not None:
            self._becoming.cancel()
        if self._reloading is not None:
            self._reloading.cancel()
            await self._reloading
        settings = self._settings
        self._sites.announce_end()
        if settings.drain_delay and not self._hurry.called:
            _log.info("accepting calls for {delay:g} s more", delay=settings.drain_delay)
            delay: Deferred[None] = deferLater(self._reactor, settings.drain_delay)
            delay.addErrback(lambda failure: failure.trap(CancelledError))
            self._hurry.addCallback(lambda _: delay.cancel())
            await delay
        await self._ports.close()
        self._sites.close_idle()
        if self._storage is not None:
            self._storage.stop_feeding()
        retired = self._succession.end_retired(settings.grace)
        await self.runtime.shut_down(settings.grace)
        await retired
        if self._storage is not None:
            await self._storage.close()
        self.version.dismiss_watchers()
        closed = self._sites.close_connections()
        timer = self._reactor.callLater(CLOSE_PATIENCE, self._sites.abort_connections)
        await closed
        if timer.active():
            timer.cancel()
        if self._alive is not None:
            self._alive.stop()

    def stopService(self) -> Deferred[None]:
        """Stop listening after ``drain_delay``, drain until the grace, cancel the rest, close."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Do not wait for calls any longer, neither for new ones nor for those that run."""
        if not self._hurry.called:
            self._hurry.callback(None)
        self._succession.hurry()
        self.runtime.hurry()

    def _take_signals(self) -> None:
        """SIGTERM drains, a second one and SIGINT do not wait; the exit status is 0.

        The reactor's own handlers would end the process by the signal.  SIGHUP reloads, but for one
        that says that the terminal is gone in which the daemon runs: nobody would end it then.
        """
        # One that was started by nohup is to outlive its terminal.
        in_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

        def terminated(signum: int, frame: object) -> None:
            self._reactor.callFromThread(self._stop_reactor, signum == signal.SIGINT)

        def hung_up(signum: int, frame: object) -> None:
            if in_terminal and not _has_terminal():
                self._reactor.callFromThread(self._stop_reactor, False)
            else:
                self._reactor.callFromThread(self.reload)

        with contextlib.suppress(ValueError):  # the reactor runs in another thread than the main
            signal.signal(signal.SIGTERM, terminated)
            signal.signal(signal.SIGINT, terminated)
            signal.signal(signal.SIGHUP, hung_up)

    def _stop_reactor(self, quick: bool) -> None:
        if quick or not self.running:
            _log.info("told to stop at once: jobs that have not ended are canceled")
            self.hurry()
        if self.running:
            self._reactor.stop()


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _nothing() -> Loaded:
    raise DeclarationError("there is nothing to reload")


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
