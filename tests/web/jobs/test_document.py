"""What the document of a job says that no life of a job shows by itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from deferpost.model import Progress, State
from deferpost.records import Hook, HookAttempt, HookState, JobRecord
from deferpost.web.jobs import base_of, job_document, mount_of
from deferpost.web.jobs.listing import Wanted, cursor_of, wanted_of

RECORD = JobRecord(
    number=7,
    id="a",
    request_id="r",
    route="/rst",
    pool="fake",
    principal=None,
    state=State.QUEUED,
    created=1e9,
    ttl=60.0,
    urgency=3,
    retries=0,
)


def document(queue: tuple[int, float | None] | None = None, **fields: Any) -> Any:
    record = msgspec.structs.replace(RECORD, **fields)
    return json.loads(job_document(record, "http://h", queue, 1e9 + 10))


def test_webhook() -> None:
    """Who is told of the end, and how that went."""
    attempts = (HookAttempt(at=1e9, status=503), HookAttempt(at=1e9 + 1, error="refused"))
    hook = Hook(url="https://x/", state=HookState.PENDING, attempts=attempts, due=1e9 + 60)
    assert document(hook=hook)["webhook"] == {
        "url": "https://x/",
        "state": "pending",
        "attempts": [
            {"at": "2001-09-09T01:46:40.000Z", "status": 503, "error": None},
            {"at": "2001-09-09T01:46:41.000Z", "status": None, "error": "refused"},
        ],
        "next": "2001-09-09T01:47:40.000Z",
    }


def test_queue() -> None:
    """Where it waits is said while it does."""
    assert document((2, 1e9 + 30))["queue"] == {
        "position": 2,
        "estimated_start": "2001-09-09T01:47:10.000Z",
    }
    assert document((2, None), state=State.RUNNING)["queue"] is None


def test_runs_again() -> None:
    """One that waits to run again has waited since it came, and does not run."""
    found = document(state=State.QUEUED, started=1e9 + 2, attempt=1)
    assert (found["queue_seconds"], found["run_seconds"], found["attempt"]) == (10.0, 0.0, 1)


def test_never_ran() -> None:
    """One that ended before it ran has only waited."""
    found = document(state=State.EXPIRED, finished=1e9 + 4, status=504)
    assert (found["queue_seconds"], found["run_seconds"]) == (4.0, 0.0)


def test_clock_set_back() -> None:
    """No time is less than none."""
    found = document(state=State.RUNNING, started=1e9 - 5)
    assert found["queue_seconds"] == 0.0


def test_progress() -> None:
    """Numbers are written as people write them."""
    assert document(progress=Progress(2.0, 2.5, ""))["progress"] == {
        "done": 2,
        "total": 2.5,
        "message": "",
    }


class Asking:
    """As much of a request as links are made of."""

    def __init__(self, host: bytes | None = None, path: bytes = b"/", **fields: Any) -> None:
        self.requestHeaders = Headers({} if host is None else {b"Host": [host]})
        self.path = path
        self._secure = fields.get("secure", False)
        self._address = fields.get("address", IPv4Address("TCP", "192.0.2.1", 8080))

    def isSecure(self) -> bool:
        return bool(self._secure)

    def getHost(self) -> Any:
        return self._address


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Asking(b"a.example"), "http://a.example"),
        (Asking(b"a.example", secure=True), "https://a.example"),
        (Asking(b""), "http://192.0.2.1:8080"),
        (Asking(b":80"), "http://192.0.2.1:8080"),
        (Asking(b"[::g]"), "http://192.0.2.1:8080"),
        (Asking(b"\xff"), "http://192.0.2.1:8080"),
        (Asking(address=IPv4Address("TCP", "192.0.2.1", 80)), "http://192.0.2.1"),
        (
            Asking(address=IPv6Address("TCP", "fe80::1%eth0", 443), secure=True),
            "https://[fe80::1]",
        ),
        (Asking(address=UNIXAddress(b"/run/x")), "http://localhost"),
    ],
)
def test_base(request_: Any, expected: str) -> None:
    """Links lead to where a request has come, as far as it says so properly."""
    assert base_of(request_, "", None) == expected
    assert base_of(request_, "/app", None) == f"{expected}/app"
    assert base_of(request_, "/app", "https://p/x/") == "https://p/x"


@pytest.mark.parametrize(
    ("path", "below", "expected"),
    [
        (b"/jobs", 1, ""),
        (b"/api/jobs/x", 2, "/api"),
        (b"/a%20b/c/jobs/x/result", 3, "/a%20b/c"),
        (b'/"<\xff/jobs', 1, "/%22%3C%FF"),
        (b"/api/", 0, "/api"),
    ],
)
def test_mount(path: bytes, below: int, expected: str) -> None:
    """An app is mounted where the path has what is not the app's."""
    request: Any = Asking(path=path)
    assert mount_of(request, below) == expected


def test_cursor() -> None:
    """A cursor comes back as it was given, and means where the next page begins."""
    for number in (1, 12, 10**17):
        assert wanted_of(b"cursor=" + cursor_of(number).encode()) == Wanted(before=number)
