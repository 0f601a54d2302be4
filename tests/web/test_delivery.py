"""How a call is answered, by what its client prefers and its route permits (RFC 7240)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.web.http_headers import Headers

from deferpost.errors import HTTPError
from deferpost.model import Delivery
from deferpost.web.delivery import LONGEST_WAIT, PLAIN, Manner, manner_of
from tests.web import route

Fields = list[tuple[bytes, bytes]]


def on_our_wire(fields: Fields) -> Any:
    """A request as our own wire gives it."""
    return SimpleNamespace(fields=fields, framing=SimpleNamespace(keeps=True))


def on_twisteds(fields: Fields) -> Any:
    """A request as a site of Twisted's gives it."""
    headers = Headers()
    for name, value in fields:
        headers.addRawHeader(name, value)
    return SimpleNamespace(requestHeaders=headers)


def checked(url: str) -> str:
    if "evil" in url:
        raise HTTPError(400, "This host may not be told.")
    return url.lower()


def decided(*fields: str, make: Callable[[Fields], Any] = on_our_wire, **options: Any) -> Manner:
    """In which manner a call with these fields is answered."""
    parts = [line.partition(": ") for line in fields]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, _, value in parts]
    return manner_of(make(pairs), route(**options), checked)


def refused(*fields: str, **options: Any) -> HTTPError:
    with pytest.raises(HTTPError) as caught:
        decided(*fields, **options)
    assert caught.value.status == 400
    return caught.value


ALLOW: dict[str, Any] = {}
SYNC: dict[str, Any] = {"delivery": Delivery.SYNC}
ASYNC: dict[str, Any] = {"delivery": Delivery.ASYNC}
FALLBACK: dict[str, Any] = {"fallback": 30.0}


@pytest.mark.parametrize(
    ("prefer", "options", "is_kept", "promise_after", "applied"),
    [
        pytest.param(None, ALLOW, False, None, None, id="allow-nothing"),
        pytest.param(None, SYNC, False, None, None, id="sync-nothing"),
        pytest.param(None, ASYNC, True, 0.0, None, id="async-nothing"),
        pytest.param(None, FALLBACK, True, 30.0, None, id="fallback-nothing"),
        # RFC 7240, section 4.1.
        pytest.param("respond-async", ALLOW, True, 0.0, "respond-async", id="4.1-allow"),
        pytest.param("respond-async", SYNC, False, None, None, id="4.1-sync-ignores-it"),
        pytest.param("respond-async", ASYNC, True, 0.0, "respond-async", id="4.1-async"),
        pytest.param("respond-async", FALLBACK, True, 0.0, "respond-async", id="4.1-fallback"),
        # Section 4.3.
        pytest.param("wait=5", ALLOW, False, None, None, id="4.3-allow-ignores-it"),
        pytest.param("wait=5", SYNC, False, None, None, id="4.3-sync-ignores-it"),
        pytest.param("wait=5", ASYNC, True, 5.0, "wait=5", id="4.3-async"),
        pytest.param("wait=5", FALLBACK, True, 5.0, "wait=5", id="4.3-fallback-sooner"),
        pytest.param("wait=50", FALLBACK, True, 30.0, "wait=50", id="4.3-fallback-bounds-it"),
        pytest.param("wait=0", FALLBACK, True, 0.0, "wait=0", id="4.3-no-time-at-all"),
        pytest.param(
            f"respond-async, wait={10 * LONGEST_WAIT:.0f}",
            ALLOW,
            True,
            LONGEST_WAIT,
            f"respond-async, wait={10 * LONGEST_WAIT:.0f}",
            id="4.3-no-longer-than-we-wait",
        ),
        # Sections 4.1 and 4.3 together.
        pytest.param(
            "respond-async, wait=5", ALLOW, True, 5.0, "respond-async, wait=5", id="4.3-with-4.1"
        ),
        pytest.param(
            "respond-async; wait=5", ALLOW, True, 0.0, "respond-async", id="2-parameters-are-not"
        ),
        pytest.param("respond-async, wait=5", SYNC, False, None, None, id="4.3-with-4.1-sync"),
        pytest.param(
            "wait=50, respond-async",
            FALLBACK,
            True,
            30.0,
            "respond-async, wait=50",
            id="4.3-with-4.1-fallback",
        ),
        # Section 2: what is not known is ignored, names are of either case, the first one counts.
        pytest.param("return=minimal", ALLOW, False, None, None, id="2-unknown"),
        pytest.param("RESPOND-Async", ALLOW, True, 0.0, "respond-async", id="2-case"),
        pytest.param("wait=soon", FALLBACK, True, 30.0, None, id="2-malformed"),
        pytest.param(
            "respond-async, wait=5, wait=9",
            ALLOW,
            True,
            5.0,
            "respond-async, wait=5",
            id="2-first-counts",
        ),
        # Section 4.4.
        pytest.param(
            "respond-async, handling=lenient, x",
            ALLOW,
            True,
            0.0,
            "respond-async, handling=lenient",
            id="4.4-lenient",
        ),
        pytest.param(
            "respond-async, handling=strict",
            ALLOW,
            True,
            0.0,
            "respond-async, handling=strict",
            id="4.4-strict",
        ),
    ],
)
@pytest.mark.parametrize("make", [on_our_wire, on_twisteds])
def test_preferences(
    make: Callable[[Fields], Any],
    prefer: str | None,
    options: dict[str, Any],
    is_kept: bool,
    promise_after: float | None,
    applied: str | None,
) -> None:
    """A client gets what it prefers, as far as the route permits that."""
    fields = [] if prefer is None else [f"Prefer: {prefer}"]
    manner = decided(*fields, make=make, **options)
    assert (manner.is_kept, manner.promise_after) == (is_kept, promise_after)
    assert (manner.applied if is_kept else None) == applied
    assert (manner.key, manner.webhook) == (None, None)


def test_several_fields() -> None:
    """Fields of one name are one list (RFC 7240, section 2)."""
    manner = decided("Prefer: wait=7", "prefer: respond-async")
    assert (manner.promise_after, manner.applied) == (7.0, "respond-async, wait=7")


@pytest.mark.parametrize(
    ("prefer", "options"),
    [
        ("respond-async, handling=strict", SYNC),
        ("wait=5, handling=strict", ALLOW),
        ("wait=5, handling=strict", SYNC),
        ("respond-async, x, handling=strict", ALLOW),
        ("respond-async, wait=soon, handling=strict", ALLOW),
    ],
)
def test_strict(prefer: str, options: dict[str, Any]) -> None:
    """A client that is strict is told what it does not get (RFC 7240, section 4.4)."""
    error = refused(f"Prefer: {prefer}", **options)
    assert error.extensions == {"reason": "preference_not_honoured"}


@pytest.mark.parametrize(
    ("options", "promise_after"), [(ALLOW, None), (SYNC, None), (ASYNC, 0.0), (FALLBACK, 30.0)]
)
@pytest.mark.parametrize("value", ['"a key"', "a-key"])
def test_key(options: dict[str, Any], promise_after: float | None, value: str) -> None:
    """A call with a key is kept, however it is answered."""
    manner = decided(f"Idempotency-Key: {value}", **options)
    assert manner == Manner(True, promise_after, value.strip('"'), None, None)


@pytest.mark.parametrize(
    "fields", [("Idempotency-Key: ",), ("Idempotency-Key: a", "Idempotency-Key: b")]
)
def test_key_that_is_none(fields: tuple[str, ...]) -> None:
    """A key that cannot be one is refused, and not left out."""
    assert refused(*fields).extensions == {"reason": "idempotency_key_unusable"}


def test_key_that_is_required() -> None:
    """A route that requires a key refuses calls without one."""
    error = refused("Prefer: respond-async", require_key=True)
    assert error.extensions == {"reason": "idempotency_key_missing"}
    assert decided("Idempotency-Key: a", require_key=True).key == "a"


def test_coalescing() -> None:
    """Calls of a route that coalesces them are kept."""
    assert decided(coalesce=True) == Manner(is_kept=True)


def test_webhook() -> None:
    """The URL that is told is the one that was checked."""
    manner = decided("Prefer: respond-async", "Webhook-URL:  HTTPS://a.example/x ")
    assert manner.webhook == "https://a.example/x"
    twice = decided(*["Webhook-URL: https://a.example/x"] * 2, delivery=Delivery.ASYNC)
    assert twice.webhook == "https://a.example/x"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (("Webhook-URL: https://a.example/x",), ALLOW),
        (("Webhook-URL: https://a.example/x", "Prefer: respond-async"), SYNC),
        (("Webhook-URL: https://a.example/x", "Idempotency-Key: a"), ALLOW),
        (("Webhook-URL: https://evil.example/x", "Prefer: respond-async"), ALLOW),
        (
            ("Webhook-URL: https://a.example/x", "Webhook-URL: https://b.example/x"),
            ASYNC,
        ),
    ],
)
def test_webhook_that_may_not_be(fields: tuple[str, ...], options: dict[str, Any]) -> None:
    """A webhook is refused of a call that is answered in place, and one that may not be told."""
    refused(*fields, **options)


def test_nothing_is_looked_for_where_nothing_is() -> None:
    """Of a request whose head has none of the fields, these are not looked for."""
    request = SimpleNamespace(framing=SimpleNamespace(keeps=False))  # it has no fields to look at
    assert manner_of(request, route(), checked) == PLAIN
    assert manner_of(request, route(fallback=3.0), checked).promise_after == 3.0
