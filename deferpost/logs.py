"""Where the daemon's log goes when it is written as JSON: to where twistd would write its lines.

twistd's options decide, as they do for text: ``--logger`` names another observer, which twistd
prefers to ours; ``--syslog`` is for text, and twistd keeps it; else ``--logfile`` names a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python.logfile import LogFile

from deferpost.jsonlog import JSONLogObserver

__all__ = ["LoggedAsJSON"]


class LoggedAsJSON(MultiService):
    """A service that has the log of its application written as JSON.

    twistd asks the application for an observer before it starts its log.

    :param service: the service that does all else.
    :param config: twistd's options.
    :param reactor: the reactor.
    """

    def __init__(self, service: IService, config: Mapping[str, Any], reactor: Any) -> None:
        super().__init__()
        self._config = config
        self._reactor = reactor
        service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Become part of an application, while :data:`sys.stdout` is still the program's own.

        :param parent: the application, or a service of one, whose log is left as it is.
        :raises SystemExit: twistd is to run in the background and to log to standard output.
        """
        super().setServiceParent(parent)
        config = self._config
        if not hasattr(parent, "setComponent") or config.get("syslog") or config.get("logger"):
            return
        if parent.getComponent(ILogObserver, None) is None:
            file = _file_of(config, self._reactor)
            parent.setComponent(ILogObserver, JSONLogObserver(file))


def _file_of(config: Mapping[str, Any], reactor: Any) -> Any:
    """Where lines go, chosen as :class:`twisted.scripts._twistd_unix.UnixAppLogger` does."""
    name = config.get("logfile")
    if name == "-" and not config.get("nodaemon"):
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (not name and config.get("nodaemon")):
        return _standard_output()
    file = LogFile.fromFullPath(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return file


def _standard_output() -> Any:
    """Standard output for the log alone.

    What programs print that handlers in threads have started goes to standard error from now on:
    they write to the descriptor, past :data:`sys.stdout`, and would break a line of ours in two.
    """
    stream = sys.stdout
    stream.flush()
    output = os.fdopen(os.dup(stream.fileno()), "wb")
    with contextlib.suppress(OSError):  # it has no standard error
        os.dup2(2, stream.fileno())
    return output
