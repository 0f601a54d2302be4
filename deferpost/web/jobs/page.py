"""The page of a job for people, and who gets it instead of the document.

It is the same for every job: what it shows, it asks for itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from deferpost.eventstream import weight_of
from deferpost.web.onepage import assemble
from deferpost.web.respond import respond

__all__ = ["prefers_page", "send_page"]

#: Media ranges of a client that are looked at.
_RANGES_MOST = 50

#: Media ranges that a document of JSON is in, those that say most last.
_OF_DOCUMENTS = (b"*/*", b"application/*", b"application/json")


def prefers_page(accept: bytes) -> bool:
    """Whether a client would rather have HTML than JSON, and names it (RFC 9110, section 12.5.1).

    :param accept: the value of ``Accept``; that of several fields joined by commas.
    """
    if b"text/html" not in accept.lower():
        return False
    weights: dict[bytes, float] = {}
    for part in accept.lower().split(b",", _RANGES_MOST)[:_RANGES_MOST]:
        kind, *parameters = (piece.strip(b" \t") for piece in part.split(b";"))
        weight = weight_of(parameters)
        if weight is not None:
            weights[kind] = max(weight, weights.get(kind, 0.0))
    document = 0.0
    for kind in _OF_DOCUMENTS:
        document = weights.get(kind, document)
    return weights.get(b"text/html", 0.0) > document


@cache
def _page() -> tuple[bytes, bytes]:
    text, policy = assemble(__package__)
    return text.encode(), policy


def send_page(request: Any) -> None:
    """Answer with the page; the common header fields are set."""
    page, policy = _page()
    request.setHeader(b"Content-Security-Policy", policy)
    request.setHeader(b"Cross-Origin-Opener-Policy", b"same-origin")
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    respond(request, 200, b"text/html; charset=utf-8", page)
