"""Reading streams of events as a client would, by the standards and not by our own code."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Event", "body_of", "parse_ndjson", "parse_sse"]


class Event(NamedTuple):
    """An event as a client sees it.

    :ivar kind: its type.
    :ivar id: its id, as text.
    :ivar data: what it says.
    """

    kind: str
    id: str
    data: Any


def parse_sse(stream: bytes) -> list[Event]:
    """The events of a stream (HTML standard, section 9.2.6); one that is not whole is dropped."""
    events: list[Event] = []
    kind, last_id = "", ""
    data: list[str] = []
    lines = re.split("\r\n|\r|\n", stream.decode())
    for line in lines[:-1]:
        if not line:
            if data:
                events.append(Event(kind or "message", last_id, "\n".join(data)))
            kind, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
        else:
            assert not field, f"not a field of the format: {field}"
    return events


def parse_ndjson(stream: bytes) -> list[Event]:
    """The events of a stream of JSON lines; heartbeats are no events."""
    assert not stream or stream.endswith(b"\n")
    values = [json.loads(line) for line in stream.decode().split("\n")[:-1]]
    return [
        Event(value.pop("type"), str(value.pop("id")), value)
        for value in values
        if value["type"] != "heartbeat"
    ]


def body_of(events: Sequence[Event]) -> bytes:
    """The body that was sent by chunks."""
    body = b""
    for event in events:
        if event.kind == "chunk":
            data = event.data
            if isinstance(data, str) and data.startswith('{"data":'):
                data = json.loads(data)
            if isinstance(data, str):
                body += data.encode()
            elif "encoding" in data:
                body += base64.b64decode(data["data"], validate=True)
            else:
                body += data["data"].encode()
    return body
