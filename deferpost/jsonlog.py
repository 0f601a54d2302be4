"""The log as JSON: one document in each line, whatever is logged.

Decides how an event of Twisted's logger looks as JSON.  It opens no file, and does not choose what
is logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.logger import ILogObserver, LogEvent, eventAsText
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["MEMBERS", "JSONLogObserver", "json_line", "rfc3339"]

#: The key of an event under which it may have a mapping of further members of its document.
MEMBERS = "deferpost_members"


_LINE_ENDS = [(end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029"]


def rfc3339(seconds: float) -> str:
    """A time as text, in UTC and with milliseconds.

    :param seconds: since 1970.
    """
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def json_line(event: LogEvent) -> bytes | None:
    """An event as one line with its end; None for one that says nothing.

    :param event: of Twisted's logger.
    """
    try:
        document = _document(event)
        if document is None:
            return None
        return _encoded(document)
    except Exception:
        # What makes an event unreadable is in the event: a value of a handler's, for example.
        return _encoded({**_stamp(event), "message": "an event could not be written as JSON"})


def _stamp(event: LogEvent) -> dict[str, Any]:
    level = event.get("log_level")
    return {
        "time": rfc3339(event.get("log_time", 0.0)),
        "level": getattr(level, "name", "info"),
        "namespace": str(event.get("log_namespace", "")),
    }


def _document(event: LogEvent) -> dict[str, Any] | None:
    failure = event.get("log_failure")
    trace = failure.getTraceback() if isinstance(failure, Failure) else None
    text = event.get("traceback")
    if trace is None and isinstance(text, str):  # a handler's, which came as text
        trace = text
        event = {**event, "traceback": ""}
    message = eventAsText(
        event, includeTraceback=False, includeTimestamp=False, includeSystem=False
    ).rstrip("\n")
    members = event.get(MEMBERS)
    if not message and trace is None and members is None:
        return None
    document = {**_stamp(event), "message": message}
    if isinstance(event.get("job"), str):
        document["id"] = event["job"]
    if isinstance(event.get("route"), str):
        document["route"] = event["route"]
    if isinstance(members, Mapping):
        document.update(members)
    if trace is not None:
        document["traceback"] = trace
    return document


def _encoded(document: dict[str, Any]) -> bytes:
    try:
        line = msgspec.json.encode(document)
    except UnicodeEncodeError:  # surrogates that stand alone, as in names of files that are no text
        line = msgspec.json.encode(_readable(document))
    # JSON permits these in strings, and much that reads text by lines takes them for line ends.
    for character, escaped in _LINE_ENDS:
        line = line.replace(character, escaped)
    return line + b"\n"


def _readable(value: Any) -> Any:
    """The same with ``\\udc80`` and its like written out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return value


@implementer(ILogObserver)
class JSONLogObserver:
    """Writes each event as one line.  On any thread on which something is logged.

    :param file: takes bytes (``write``, ``flush``).
    """

    def __init__(self, file: Any) -> None:
        self.file = file

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        line = json_line(event)
        if line is not None:
            self.file.write(line)
            self.file.flush()
