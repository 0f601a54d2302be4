"""Tests of what happens around a user's code: calls without a worker, and whom they report to."""

from __future__ import annotations

import io
from typing import Any

from deferpost.handlers.call import Call
from deferpost.model import CallHead


class FakeControl:
    """The connection to a job: can be canceled, and remembers what was reported."""

    def __init__(self) -> None:
        self.canceled = False
        self.reports: list[Any] = []

    def report(self, done: Any, total: Any, message: Any) -> None:
        self.reports.append((done, total, message))


def call_head(**changes: Any) -> CallHead:
    """A call without its body."""
    fields: dict[str, Any] = {
        "id": "id-1",
        "route": "/rst",
        "method": "POST",
        "path": "/api/rst",
        "query": b"",
        "headers": (),
        "client": ("192.0.2.1", 4711),
        "timeout": None,
    }
    return CallHead(**{**fields, **changes})


def make_call(body: bytes = b"", control: FakeControl | None = None, **changes: Any) -> Call:
    """A call with a body in memory."""
    return Call(call_head(**changes), io.BytesIO(body), control or FakeControl())
