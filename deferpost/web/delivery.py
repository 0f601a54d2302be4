"""How a call is to be answered: on its connection, later, or as it was before.

Decides only, by what the client prefers (``Prefer``, RFC 7240), by its ``Idempotency-Key``, and by
what the route permits.  It asks no store and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from deferpost.errors import HTTPError
from deferpost.idempotency import key_of
from deferpost.model import Delivery, Route
from deferpost.prefer import Prefer, applied, check_strict, prefer_of

__all__ = ["PLAIN", "Manner", "manner_of"]

_PREFER, _KEY, _HOOK = b"prefer", b"idempotency-key", b"webhook-url"

#: Seconds that a client may ask to wait for, at most.
LONGEST_WAIT = 3600.0


class Manner(msgspec.Struct, frozen=True):
    """In which manner a call is answered.

    :ivar is_kept: whether it becomes a job that is kept.
    :ivar promise_after: seconds after which it is answered by 202 if it has no answer yet; None
        where the client waits for as long as it takes.
    :ivar key: by which the client will know it again; None without one.
    :ivar webhook: where its end is told; None for nowhere.
    :ivar applied: the value of ``Preference-Applied`` with a 202; None without one.
    :ivar job: the id that its client has chosen for the job, by which it will know it again, and
        which is answered by the job's document; None for one of ours.
    """

    is_kept: bool = False
    promise_after: float | None = None
    key: str | None = None
    webhook: str | None = None
    applied: str | None = None
    job: str | None = None


#: That of a call that asks for nothing, on a route that does not either.
PLAIN = Manner()


def manner_of(request: Any, route: Route, check_hook: Callable[[str], str]) -> Manner:
    """Decide how a call is answered.

    :param request: of our own wire or of a site of Twisted's; its head is there.
    :param route: its route.
    :param check_hook: gives the URL of a webhook as it is used, and refuses one that may not be
        told, by raising :class:`~deferpost.errors.HTTPError`.
    :raises deferpost.errors.HTTPError: 400.
    """
    framing = getattr(request, "framing", None)
    if framing is not None and not framing.keeps:
        return _decide(Prefer(), None, None, route, check_hook)
    prefers, keys, hooks = _values(request)
    if len(set(hooks)) > 1:
        raise _hook_refused("Webhook-URL comes more than once, with different URLs.")
    hook = hooks[0].decode("utf-8", "backslashreplace").strip(" \t") if hooks else None
    return _decide(_preferences(tuple(prefers)), key_of(keys), hook, route, check_hook)


@lru_cache(maxsize=256)
def _preferences(values: tuple[bytes, ...]) -> Prefer:
    """What a client prefers; most send the same."""
    return prefer_of(values)


def _values(request: Any) -> tuple[list[bytes], list[bytes], list[bytes]]:
    fields: Iterable[tuple[bytes, bytes]] | None = getattr(request, "fields", None)
    if fields is None:
        get = request.requestHeaders.getRawHeaders
        return get(_PREFER, []), get(_KEY, []), get(_HOOK, [])
    found: dict[bytes, list[bytes]] = {_PREFER: [], _KEY: [], _HOOK: []}
    for name, value in fields:
        values = found.get(name.lower())
        if values is not None:
            values.append(value)
    return found[_PREFER], found[_KEY], found[_HOOK]


def _decide(
    prefer: Prefer,
    key: str | None,
    hook: str | None,
    route: Route,
    check_hook: Callable[[str], str],
) -> Manner:
    check_strict(prefer)
    if route.require_key and key is None:
        raise HTTPError(
            400,
            "This route wants an Idempotency-Key.",
            extensions={"reason": "idempotency_key_missing"},
        )
    wait = None if prefer.wait is None else min(prefer.wait, LONGEST_WAIT)
    asked = prefer.respond_async and route.delivery is not Delivery.SYNC
    promise_after: float | None = None
    if route.delivery is Delivery.ASYNC or asked:
        promise_after = wait or 0.0
        if route.fallback is not None:
            promise_after = min(promise_after, route.fallback)
    elif route.fallback is not None:
        promise_after = route.fallback if wait is None else min(wait, route.fallback)
    elif prefer.handling == "strict" and (prefer.respond_async or prefer.wait is not None):
        raise HTTPError(
            400,
            "Prefer has handling=strict, and this route answers on the connection, for as long "
            "as it takes.",
            extensions={"reason": "preference_not_honoured"},
        )
    if hook is not None:
        if promise_after is None:
            raise _hook_refused("Webhook-URL is for calls that prefer respond-async.")
        hook = check_hook(hook)
    return Manner(
        promise_after is not None or key is not None or route.coalesce,
        promise_after,
        key,
        hook,
        applied(
            prefer,
            respond_async=promise_after is not None,
            wait=promise_after is not None,
            handling=True,
        ),
    )


def _hook_refused(detail: str) -> HTTPError:
    return HTTPError(400, detail, extensions={"reason": "webhook_refused"})
