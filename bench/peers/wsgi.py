"""A bare WSGI application, for the servers that call one in their threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench import jobs

__all__ = ["app"]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Give the body back."""
    found = b"pong\n"
    if environ["REQUEST_METHOD"] == "POST":
        found = jobs.echo(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(found)))]
    start_response("200 OK", fields)
    return [found]
