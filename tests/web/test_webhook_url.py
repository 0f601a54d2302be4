"""The field Webhook-URL: when it may come, how often, and in which letters."""

from __future__ import annotations

from typing import Any

import pytest

from deferpost.app import App
from deferpost.errors import HTTPError
from deferpost.model import Route
from deferpost.web.delivery import Manner, manner_of
from deferpost.webhooks.rules import HookHosts

CHECK = HookHosts(["hooks.example.com", "bücher.example.com", "*.example.org"]).check

URL = b"https://hooks.example.com/"


class Request:
    """A request whose head is there."""

    def __init__(self, *fields: tuple[bytes, bytes]) -> None:
        self.fields = fields


def route(**policy: Any) -> Route:
    """A route."""
    app = App()

    @app.post("/a", **policy)
    def handler(call: object) -> None:
        """Do nothing."""

    (only,) = app.routes
    return only


def manner(*fields: tuple[bytes, bytes], **policy: Any) -> Manner:
    """How a call with these fields is answered."""
    return manner_of(Request(*fields), route(**policy), CHECK)


def refusal(*fields: tuple[bytes, bytes], **policy: Any) -> str:
    """Why a call with these fields is refused."""
    with pytest.raises(HTTPError) as caught:
        manner(*fields, **policy)
    assert caught.value.status == 400
    assert caught.value.extensions == {"reason": "webhook_refused"}
    return caught.value.detail


LATER = (b"Prefer", b"respond-async")


@pytest.mark.parametrize(
    ("written", "used"),
    [
        (b"https://Hooks.Example.com", "https://hooks.example.com/"),
        (b" \thttps://hooks.example.com/a?b ", "https://hooks.example.com/a?b"),
        ("https://b\u00fccher.example.com/".encode(), "https://xn--bcher-kva.example.com/"),
        ("https://b\u00fccher.example.org/".encode(), "https://xn--bcher-kva.example.org/"),
    ],
)
def test_taken(written: bytes, used: str) -> None:
    """The URL is taken in the form in which it is used; other letters are those of UTF-8."""
    found = manner(LATER, (b"Webhook-URL", written))
    assert (found.is_kept, found.webhook) == (True, used)


def test_twice() -> None:
    """It may come twice if it says the same."""
    fields = ((b"Webhook-URL", URL), (b"webhook-url", URL))
    assert manner(LATER, *fields).webhook == URL.decode()
    assert "more than once" in refusal(LATER, fields[0], (b"Webhook-URL", URL + b"b"))


def test_no_utf8() -> None:
    """A host that is not UTF-8 is no other host."""
    refusal(LATER, (b"Webhook-URL", b"https://b\xfccher.example.org/"))


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ((), {}),
        (((b"Prefer", b"wait=1"),), {}),
        (((b"Idempotency-Key", b"a"),), {}),
        ((LATER,), {"delivery": "sync"}),
    ],
)
def test_calls_that_are_answered_in_place(
    fields: tuple[tuple[bytes, bytes], ...], policy: dict[str, Any]
) -> None:
    """Who waits for the answer on the connection is told by that, and not by a webhook."""
    words = refusal(*fields, (b"Webhook-URL", URL), **policy)
    assert words == "Webhook-URL is for calls that prefer respond-async."


@pytest.mark.parametrize("policy", [{"delivery": "async"}, {"fallback": "1s"}])
def test_routes_that_answer_later_by_themselves(policy: dict[str, Any]) -> None:
    """On a route that promises the result without being asked, the field will do."""
    assert manner((b"Webhook-URL", URL), **policy).webhook == URL.decode()
