"""The log as JSON: one document in each line, whatever is logged."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from deferpost.jsonlog import MEMBERS, JSONLogObserver, json_line, rfc3339


class Log:
    """A log whose lines are kept."""

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.publisher = LogPublisher(JSONLogObserver(self.file))
        self.logger = Logger(namespace="tests", observer=self.publisher)

    @property
    def lines(self) -> list[bytes]:
        """What was written."""
        return self.file.getvalue().splitlines(keepends=True)

    def document(self) -> dict[str, Any]:
        """The only line, read as strictly as JSON can be."""
        (line,) = self.lines
        return read(line)


def read(line: bytes) -> dict[str, Any]:
    """A line as a document; it is valid JSON in UTF-8, and one line."""
    assert line.endswith(b"\n")
    assert len(line.decode("utf-8").splitlines()) == 1

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    document = json.loads(line.decode("utf-8"), parse_constant=refuse)
    assert isinstance(document, dict)
    return document


class Unwilling:
    """A value of a handler's that cannot be written."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class UnwillingError(Exception):
    """An error of a handler's that cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_it_is_an_observer() -> None:
    """It can be given to Twisted as the observer of a log."""
    assert verifyObject(ILogObserver, JSONLogObserver(io.BytesIO()))


def test_an_event() -> None:
    """An event has its time, its level, its part of the daemon and its words."""
    log = Log()
    log.logger.warn("pool {pool} is {state}", pool="a", state="full")
    document = log.document()
    assert list(document) == ["time", "level", "namespace", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["time"])
    assert (document["level"], document["namespace"]) == ("warn", "tests")
    assert document["message"] == "pool a is full"


def test_times_are_rfc_3339() -> None:
    """A time has milliseconds and is in UTC, also at a full second."""
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


def test_a_failure_has_its_traceback_apart() -> None:
    """What was raised is a member of its own, and the words are still words."""
    log = Log()
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        log.logger.failure("[{job}] could not be answered", job="id-1")
    document = log.document()
    assert document["message"] == "[id-1] could not be answered"
    assert document["id"] == "id-1"
    assert document["level"] == "critical"
    assert "ValueError: bad\nvalue" in document["traceback"]


def test_a_traceback_that_came_as_text() -> None:
    """What a handler raised in a worker is a member too, and is not twice in the line."""
    log = Log()
    log.logger.error(
        "[{job}] {route} failed:\n{traceback}", job="id-1", route="/a", traceback="Trace…\nError"
    )
    document = log.document()
    assert document["message"] == "[id-1] /a failed:"
    assert (document["id"], document["route"]) == ("id-1", "/a")
    assert document["traceback"] == "Trace…\nError"
    assert log.lines[0].count(b"Trace") == 1


def test_a_failure_without_words() -> None:
    """A failure of which nothing is said is logged all the same."""
    line = json_line({"log_failure": Failure(ValueError("lost")), "log_level": LogLevel.critical})
    assert line is not None
    assert "ValueError: lost" in read(line)["traceback"]


def test_a_failure_that_breaks_when_it_is_written() -> None:
    """An exception whose own words fail leaves a line that says so."""
    log = Log()
    log.logger.failure("odd", failure=Failure(UnwillingError()))
    document = log.document()
    assert document["message"] == "odd"
    assert "UnwillingError" in document["traceback"]


def test_a_value_that_cannot_be_written() -> None:
    """An event with a value that breaks is one line of JSON too."""
    log = Log()
    log.logger.info("{value}", value=Unwilling())
    assert "value" in log.document()["message"] or "could not" in log.document()["message"]
    line = json_line({"log_format": "x", "log_level": LogLevel.info, MEMBERS: {"a": object()}})
    assert line is not None
    assert read(line)["message"] == "an event could not be written as JSON"


def test_what_says_nothing_is_no_line() -> None:
    """An event without words, failure and members is left out, as in the log of lines."""
    assert json_line({"log_level": LogLevel.info}) is None
    log = Log()
    log.publisher({"log_format": ""})
    assert log.lines == []


def test_events_of_the_old_log() -> None:
    """What is logged with twisted.python.log, as Twisted itself does, is there."""
    log = Log()
    old = legacy_log.LogPublisher(log.publisher, log.publisher)
    old.msg("Site starting on 8080")
    document = log.document()
    assert (document["message"], document["level"]) == ("Site starting on 8080", "info")


def test_members() -> None:
    """An event brings members of its own, which are beside the common ones."""
    log = Log()
    members = {"event": "job", "status": 200, "rung": None, "queue_seconds": float("nan")}
    log.logger.info("done", **{MEMBERS: members})
    document = log.document()
    assert document["message"] == "done"
    assert {name: document[name] for name in members} == {**members, "queue_seconds": None}


@given(
    where=st.sampled_from(["message", "member", "nested", "traceback"]),
    text=st.text(st.characters(codec=None) | st.sampled_from("\x85\u2028\u2029\n"), max_size=40),
)
def test_any_text(where: str, text: str) -> None:
    """Whatever a client or a handler says, quotes, line ends, halves of characters: one line."""
    event: dict[str, Any] = {"log_format": "x{text}", "text": text, "log_level": LogLevel.info}
    if where == "member":
        event[MEMBERS] = {"agent": text, "status": 200}
    elif where == "nested":
        event[MEMBERS] = {"more": {text: text}}
    elif where == "traceback":
        event["traceback"] = text
    line = json_line(event)
    assert line is not None
    document = read(line)
    shown = text.encode("utf-8", "backslashreplace").decode()
    assert document["message"] == ("x" + shown).rstrip("\n")
    if where == "member":
        assert (document["agent"], document["status"]) == (shown, 200)
    elif where == "nested":
        assert document["more"] == {shown: shown}
    elif where == "traceback":
        assert document["traceback"] == shown
