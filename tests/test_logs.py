"""Where the JSON log goes: to where twistd's options send the log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService, MultiService, Service
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogPublisher

from deferpost.jsonlog import JSONLogObserver
from deferpost.logs import LoggedAsJSON


class Reactor(Clock):
    """A reactor that calls what threads ask for when the test says so."""

    def callFromThread(self, function: Any) -> None:
        """Call it in the next turn."""
        self.callLater(0, function)


@pytest.fixture(autouse=True)
def rotation() -> Iterator[None]:
    """SIGUSR1 is as it was after each test."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


def observer_of(**config: Any) -> Any:
    """The observer that twistd finds in the application, with these options of its."""
    application = Application("deferpost")
    LoggedAsJSON(Service(), config, Reactor()).setServiceParent(application)
    return application.getComponent(ILogObserver, None)


def messages(path: Path) -> list[str]:
    """What a log tells."""
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_a_file(tmp_path: Path) -> None:
    """With --logfile the log is in that file, whether twistd goes to the background or not."""
    for nodaemon in (False, True):
        path = tmp_path / f"log{nodaemon}"
        observer = observer_of(logfile=str(path), nodaemon=nodaemon)
        assert isinstance(observer, JSONLogObserver)
        Logger(observer=LogPublisher(observer)).info("one")
        observer.file.close()
        assert messages(path) == ["one"]


def test_the_file_of_twistd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background and without --logfile it is twistd.log, as for text."""
    monkeypatch.chdir(tmp_path)
    observer = observer_of()
    Logger(observer=LogPublisher(observer)).info("one")
    observer.file.close()
    assert messages(tmp_path / "twistd.log") == ["one"]


def test_sigusr1_begins_a_new_file(tmp_path: Path) -> None:
    """SIGUSR1 has the file put aside and a new one begun, as twistd's own does."""
    application, reactor = Application("deferpost"), Reactor()
    path = tmp_path / "log"
    config = {"logfile": str(path)}
    LoggedAsJSON(Service(), config, reactor).setServiceParent(application)
    observer = application.getComponent(ILogObserver)
    logger = Logger(observer=LogPublisher(observer))
    logger.info("one")
    signal.raise_signal(signal.SIGUSR1)
    reactor.advance(0)
    logger.info("two")
    observer.file.close()
    assert messages(tmp_path / "log.1") == ["one"]
    assert messages(path) == ["two"]


def test_a_handler_of_sigusr1_is_left(tmp_path: Path) -> None:
    """Who has an own use for SIGUSR1 keeps it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    observer_of(logfile=str(tmp_path / "log")).file.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


@pytest.mark.parametrize("option", ["logger", "syslog"])
def test_what_twistd_is_told_comes_first(option: str, tmp_path: Path) -> None:
    """--logger and --syslog are as they are without a JSON log, and no file is made."""
    path = tmp_path / "log"
    assert observer_of(**{option: True, "logfile": str(path)}) is None
    assert not path.exists()


def test_an_observer_of_the_application_is_left() -> None:
    """An application that has an observer already keeps it."""
    application = Application("deferpost")
    application.setComponent(ILogObserver, own := JSONLogObserver(None))
    LoggedAsJSON(Service(), {}, Reactor()).setServiceParent(application)
    assert application.getComponent(ILogObserver) is own


def test_a_service_of_another_service() -> None:
    """As a part of somebody's service it runs what it is given, and leaves the log alone."""
    parent, service = MultiService(), Service()
    LoggedAsJSON(service, {}, Reactor()).setServiceParent(parent)
    parent.startService()
    assert service.running
    parent.stopService()
    assert not service.running


def test_the_background_has_no_standard_output() -> None:
    """A daemon that is to log to standard output does not start, in twistd's own words."""
    with pytest.raises(SystemExit, match="cannot log to stdout"):
        observer_of(logfile="-")


PROGRAM = """
import os, subprocess, sys
from twisted.application.service import Application, Service
from twisted.logger import ILogObserver, Logger, LogPublisher
from deferpost.logs import LoggedAsJSON

application = Application("deferpost")
config = {"nodaemon": True, "logfile": sys.argv[1]}
LoggedAsJSON(Service(), config, None).setServiceParent(application)
logger = Logger(observer=LogPublisher(application.getComponent(ILogObserver)))
logger.info("\\N{SNOWMAN} one")
subprocess.run(["printf", "half a line"], check=True)
logger.info("two")
"""


@pytest.mark.parametrize("logfile", ["", "-"])
def test_standard_output_is_the_logs_alone(logfile: str) -> None:
    """What programs print that a handler starts does not get between the documents."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, logfile],
        capture_output=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"},
        cwd=Path(__file__).resolve().parents[1],
    )
    documents = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [document["message"] for document in documents] == ["\N{SNOWMAN} one", "two"]
    assert done.stderr == b"half a line"


def test_without_standard_error() -> None:
    """A daemon whose standard error was closed starts and logs all the same."""
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    done = subprocess.run(
        [*closed, sys.executable, "-c", PROGRAM, "-"],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert b'"message":"two"' in done.stdout


def test_it_is_a_service() -> None:
    """twistd takes it as it takes any service."""
    assert IService.providedBy(LoggedAsJSON(Service(), {}, Reactor()))
