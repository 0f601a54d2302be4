"""The errors: what each tells whoever can act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deferpost import errors
from deferpost.errors import (
    BadRequest,
    BodyBroken,
    BodyTooLarge,
    Canceled,
    ConfigurationError,
    DeadlineExceeded,
    DeclarationError,
    DeferPostError,
    HandlerFailed,
    HTTPError,
    Interrupted,
    PoolBroken,
    PoolFull,
    ShuttingDown,
    StorageFailed,
    WorkerLost,
)


def test_one_tree() -> None:
    """Every error can be caught by its root, but for the ones that nobody is to catch."""
    classes = {getattr(errors, name) for name in errors.__all__}
    assert {kind for kind in classes if not issubclass(kind, DeferPostError)} == {
        Canceled,
        Interrupted,
    }


def test_canceled_passes_by_except_exception() -> None:
    """A handler's ``except Exception`` does not swallow the end of its job."""
    assert issubclass(Canceled, BaseException)
    assert not issubclass(Canceled, Exception)


def test_broken_body_is_an_error_of_files() -> None:
    """Code that reads files, and knows their errors, knows a broken body."""
    assert issubclass(BodyBroken, OSError)


@pytest.mark.parametrize("status", [400, 404, 499, 500, 599])
def test_error_status(status: int) -> None:
    """A handler may answer with any status that is an error."""
    assert HTTPError(status).status == status


@pytest.mark.parametrize("status", [0, 100, 200, 302, 399, 600, -400, True, 404.0, "404", None])
def test_no_error_status(status: Any) -> None:
    """A status that is no error is refused where it is written, and shown."""
    with pytest.raises(ValueError, match="from 400 to 599, not ") as caught:
        HTTPError(status)
    assert repr(status) in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (HTTPError(404), "404"),
        (HTTPError(404, "no such document"), "404 no such document"),
        (BadRequest("line 3 is empty"), "400 line 3 is empty"),
        (BodyTooLarge(10), "the body is larger than the 10 bytes that this route accepts"),
        (BodyBroken(), "the client left before the body was whole"),
        (BodyBroken("it is cut wrongly"), "it is cut wrongly"),
        (StorageFailed("No space left on device"), "No space left on device"),
        (PoolFull("thread"), "pool 'thread' is full"),
        (PoolBroken("process"), "the workers of pool 'process' do not start"),
        (ShuttingDown("the service is stopping"), "the service is stopping"),
        (WorkerLost("signal 9"), "the worker process ended (signal 9) before the job was done"),
        (DeadlineExceeded(0.5), "the work did not end within 0.5 seconds"),
        (DeadlineExceeded(30.0), "the work did not end within 30 seconds"),
        (HandlerFailed("Traceback:\n  File x\nValueError: no\n"), "ValueError: no"),
        (HandlerFailed(""), ""),
        (DeclarationError("a route is wrong"), "a route is wrong"),
        (ConfigurationError(["a: no", "b: no"]), "a: no\nb: no"),
    ],
)
def test_message(error: Exception, text: str) -> None:
    """Each error says in one sentence what happened."""
    assert str(error) == text


def test_http_error_defaults() -> None:
    """Only the status has to be given."""
    error = HTTPError(409)
    assert (error.detail, error.title, error.type) == ("", None, "about:blank")
    assert (error.headers, error.extensions) == ((), {})


def test_http_error_in_full() -> None:
    """A handler can give every member of a problem document, and headers beside it."""
    extensions = {"field": "title"}
    error = HTTPError(422, "no title", title="Invalid", type="urn:x:invalid", extensions=extensions)
    extensions["field"] = "changed afterwards"
    assert (error.detail, error.title, error.type) == ("no title", "Invalid", "urn:x:invalid")
    assert error.extensions == {"field": "title"}


@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        ({"Allow": "GET", "Retry-After": 3}, (("Allow", "GET"), ("Retry-After", "3"))),
        ([("Link", "a"), ("Link", "b")], (("Link", "a"), ("Link", "b"))),
        ((), ()),
    ],
)
def test_http_error_headers(
    headers: Mapping[str, str] | Sequence[tuple[str, str]], pairs: tuple[tuple[str, str], ...]
) -> None:
    """Headers are given as a mapping, or as pairs where a name occurs more than once."""
    assert HTTPError(400, headers=headers).headers == pairs


@pytest.mark.parametrize(
    "headers",
    [
        {"no name": "a"},
        {"X-A": "a\r\nX-B: b"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": "0"},
        {"Connection": "close"},
    ],
)
def test_http_error_headers_that_are_refused(headers: dict[str, str]) -> None:
    """What would break the response, or is for the server to decide, is refused to the handler."""
    with pytest.raises(ValueError, match=r"header field|for the server"):
        HTTPError(400, headers=headers)


def test_http_error_of_any_text() -> None:
    """Words that UTF-8 cannot express are escaped, and what is no text is made one."""
    error = HTTPError(404, "caf\udce9", title="a\udce9", type="urn:\udce9")
    assert (error.detail, error.title, error.type) == ("caf\\udce9", "a\\udce9", "urn:\\udce9")
    assert HTTPError(404, KeyError("x")).detail == "'x'"  # type: ignore[arg-type]  # as users do


def test_bad_request_has_a_place() -> None:
    """What is wrong with a body is said with its place, for programs too."""
    error = BadRequest("a comma is missing", line=3, column=7)
    assert isinstance(error, HTTPError)
    assert error.status == 400
    assert error.extensions == {"line": 3, "column": 7}


def test_what_programs_read() -> None:
    """The numbers and names in the messages are there to be read without parsing them."""
    assert BodyTooLarge(10).limit == 10
    assert StorageFailed("full").reason == "full"
    assert BodyBroken("cut").reason == "cut"
    assert (PoolFull("a").pool, PoolFull("a").retry_after, PoolFull("a", 7).retry_after) == (
        "a",
        1,
        7,
    )
    assert (PoolBroken("a").pool, PoolBroken("a", 7).retry_after) == ("a", 7)
    assert WorkerLost("exit code 1").how == "exit code 1"
    assert DeadlineExceeded(2.5).seconds == 2.5
    assert HandlerFailed("Traceback\nError: x").traceback == "Traceback\nError: x"
    assert DeclarationError("x").traceback is None
    assert DeclarationError("x", "Traceback").traceback == "Traceback"
    assert ConfigurationError(["a", "b"]).problems == ("a", "b")
