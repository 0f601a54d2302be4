"""What each error is in HTTP, and what no response ever says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost import errors
from deferpost.errors import (
    BadRequest,
    BodyBroken,
    BodyTooLarge,
    Canceled,
    ClientQuota,
    ConfigurationError,
    DeadlineExceeded,
    DeadlineUnmeetable,
    DeclarationError,
    DeferPostError,
    HandlerFailed,
    HTTPError,
    Interrupted,
    NotStarted,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StorageFailed,
    StoreFailed,
    WorkerLost,
)
from deferpost.model import Quota, Reason
from deferpost.web.problems import (
    Problem,
    method_not_allowed,
    not_found,
    problem_of,
    quota_fields,
    title_of,
)

#: Words that no response may have in it.
SECRET = "/srv/secret.py, line 3"

#: One error of each class, each with a secret wherever it can have one.
ERRORS: list[tuple[BaseException, int, str | None]] = [
    (BodyTooLarge(10), 413, "body_too_large"),
    (BodyBroken(SECRET), 400, "body_broken"),
    (PoolFull(SECRET, 7), 503, "pool_full"),
    (PoolBroken(SECRET, 7), 503, "pool_broken"),
    (ShuttingDown(SECRET), 503, "shutdown"),
    (StorageFailed(SECRET), 503, "storage_failed"),
    (StoreFailed(SECRET), 503, "store_failed"),
    (NotStarted(SECRET), 500, "error"),
    (WorkerLost(SECRET), 502, "worker_lost"),
    (DeadlineExceeded(2.0), 504, "deadline_run"),
    (DeadlineExceeded(2.0, Reason.DEADLINE_QUEUE), 504, "deadline_queue"),
    (DeadlineExceeded(2.0, Reason.DEADLINE_TOTAL), 504, "deadline_total"),
    (DeadlineUnmeetable(7), 503, "deadline_unmeetable"),
    (ClientQuota(8, 7), 429, "client_quota"),
    (HandlerFailed(f"Traceback\n  {SECRET}\nValueError: {SECRET}"), 500, "error"),
    (DeclarationError(SECRET, SECRET), 500, "error"),
    (ConfigurationError([SECRET]), 500, "error"),
    (DeferPostError(SECRET), 500, "error"),
    (Canceled(SECRET), 500, "error"),
    (Interrupted(SECRET), 500, "error"),
    (ValueError(SECRET), 500, "error"),
    (OSError(28, "No space left on device", SECRET), 500, "error"),
    (KeyboardInterrupt(SECRET), 500, "error"),
    (HTTPError(404), 404, None),
    (BadRequest("line 3 is empty"), 400, None),
]


def members(problem: Problem) -> dict[str, Any]:
    """The document of a problem."""
    found: dict[str, Any] = json.loads(problem.document("id-7"))
    return found


@pytest.mark.parametrize(("error", "status", "reason"), ERRORS)
def test_status_and_reason(error: BaseException, status: int, reason: str | None) -> None:
    """Each error has a status, and those of the server's making a word for programs."""
    problem = problem_of(error)
    assert problem.status == status
    document = members(problem)
    assert document["status"] == status
    assert document.get("reason") == reason
    assert document["title"] == title_of(status)
    assert document["type"] == "about:blank"
    assert document["id"] == "id-7"


def test_every_error_is_known() -> None:
    """Each class of errors was thought of here."""
    classes = {getattr(errors, name) for name in errors.__all__}
    assert classes <= {type(error) for error, _, _ in ERRORS}


@pytest.mark.parametrize("error", [error for error, _, _ in ERRORS])
def test_no_secrets(error: BaseException) -> None:
    """No traceback, path or word of the operating system gets into a response."""
    problem = problem_of(error)
    shown = problem.document("id-7") + repr(problem.headers).encode()
    assert SECRET.encode() not in shown
    assert b"Traceback" not in shown
    assert b"No space" not in shown
    assert not any(line.startswith(b"  ") for line in shown.splitlines())


@pytest.mark.parametrize("error", [error for error, _, _ in ERRORS])
def test_when_to_try_again(error: BaseException) -> None:
    """Whoever is turned away for now is told when to try again, and nobody else is."""
    problem = problem_of(error)
    expected = str(getattr(error, "retry_after", 5))
    is_for_now = problem.status in (429, 503)
    assert dict(problem.headers).get("Retry-After") == (expected if is_for_now else None)


@pytest.mark.parametrize(
    ("error", "policy", "left"),
    [
        (ClientQuota(8, 7), '"client";q=8;qu="concurrent-requests"', '"client";r=0;t=7'),
        (
            PoolFull("a", 3, Quota("pool", 10, 0)),
            '"pool";q=10;qu="concurrent-requests"',
            '"pool";r=0;t=3',
        ),
        (
            PoolFull("a", 3, Quota("pool", 4096, 96, "content-bytes")),
            '"pool";q=4096;qu="content-bytes"',
            '"pool";r=96;t=3',
        ),
        (PoolFull("a", 3), None, None),
        (DeadlineUnmeetable(3), None, None),
    ],
)
def test_which_bound(error: Exception, policy: str | None, left: str | None) -> None:
    """Whoever is turned away by a bound is told of it in structured fields."""
    fields = dict(problem_of(error).headers)
    assert fields.get("RateLimit-Policy") == policy
    assert fields.get("RateLimit") == left


def test_quota_without_a_time() -> None:
    """A bound that is not reached says nothing about when."""
    assert quota_fields(Quota("client", 8, 5))[1] == ("RateLimit", '"client";r=5')


def test_newer_statuses_have_their_titles() -> None:
    """Statuses that Twisted has no phrase for are called by their names all the same."""
    assert title_of(429) == "Too Many Requests"
    assert title_of(422).startswith("Unprocessable")
    assert title_of(499) == "Error"


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (BodyTooLarge(10), "the body is larger than the 10 bytes that this route accepts"),
        (DeadlineExceeded(0.5), "the work did not end within 0.5 seconds"),
        (HandlerFailed("x"), "The work failed; the server's log tells more under this id."),
        (ValueError("x"), "The server failed; its log tells more under this id."),
    ],
)
def test_detail(error: BaseException, detail: str) -> None:
    """The client is told in one sentence what it can do about it."""
    assert members(problem_of(error))["detail"] == detail


def test_errors_of_the_handler() -> None:
    """What a handler says by an HTTPError is said as it is."""
    error = HTTPError(
        422,
        "no title",
        title="Invalid",
        type="urn:x:invalid",
        headers={"X-A": "1"},
        extensions={"field": "title", "reason": "empty"},
    )
    problem = problem_of(error)
    assert problem.headers == (("X-A", "1"),)
    assert members(problem) == {
        "type": "urn:x:invalid",
        "title": "Invalid",
        "status": 422,
        "detail": "no title",
        "field": "title",
        "reason": "empty",
        "id": "id-7",
    }


def test_least_document() -> None:
    """Members that have nothing to say are left out."""
    assert members(problem_of(HTTPError(404))) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "id": "id-7",
    }


@given(
    st.dictionaries(
        st.sampled_from(["type", "title", "status", "id", "detail", "more"]), st.integers()
    )
)
def test_extensions_change_nothing_else(extensions: dict[str, int]) -> None:
    """An extension cannot take the place of a member that RFC 9457 or we define."""
    document = members(problem_of(HTTPError(404, "gone", extensions=extensions)))
    assert document.pop("more", None) == extensions.get("more")
    assert document == members(problem_of(HTTPError(404, "gone")))


@pytest.mark.parametrize(
    ("status", "title"), [(404, "Not Found"), (413, "Request Entity Too Large"), (599, "Error")]
)
def test_title(status: int, title: str) -> None:
    """A status has its usual phrase; one without a phrase is an error all the same."""
    assert title_of(status) == title


def test_not_found() -> None:
    """An unknown path is a 404."""
    assert not_found().status == 404


def test_method_not_allowed() -> None:
    """A method that is not there is refused with those that are."""
    problem = method_not_allowed("GET, HEAD")
    assert (problem.status, problem.headers) == (405, (("Allow", "GET, HEAD"),))
    assert members(problem)["detail"] == "This resource takes GET, HEAD."
