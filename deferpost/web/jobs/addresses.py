"""Where the jobs are, as absolute URLs: from the settings, or from what a request says.

The host of a request is its client's word.  It gets into links of the response to that client
alone, and only where it is a host by its syntax.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes

from deferpost.web.status.access import only_field
from deferpost.wire.refusals import Refused
from deferpost.wire.rules import check_host

__all__ = ["base_of", "mount_of"]

#: What a path keeps as it is, escapes included (RFC 3986, section 3.3).
_PATH = "/%:@!$&'()*+,;=~"

_DEFAULT_PORTS = {"http": 80, "https": 443}


def mount_of(request: Any, below: int) -> str:
    """The path below which an app is mounted, without a slash at its end; empty for the root.

    :param request: a request for something in the app.
    :param below: how many segments of its path are the app's.
    """
    segments = request.path.split(b"/")
    above = segments[: len(segments) - below] if below else segments
    return quote_from_bytes(b"/".join(above), _PATH).rstrip("/")


def base_of(request: Any, mount: str, public_url: str | None) -> str:
    """The URL of the place where an app is mounted, without a slash at its end.

    :param request: a request for something in the app.
    :param mount: see :func:`mount_of`.
    :param public_url: what the operator says that it is; None for no word.
    """
    if public_url is not None:
        return public_url.rstrip("/")
    scheme = "https" if request.isSecure() else "http"
    return f"{scheme}://{_asked_host(request) or _own_host(request, scheme)}{mount}"


def _asked_host(request: Any) -> str | None:
    """The host and port that a request is for; None where it does not say so properly."""
    host = only_field(request, b"host")
    if not host or not host.isascii():
        return None
    try:
        check_host(host)
    except Refused:
        return None
    return host.decode("ascii").lower()


def _own_host(request: Any, scheme: str) -> str:
    """The address at which a request has come."""
    address = request.getHost()
    host = getattr(address, "host", None)
    port = getattr(address, "port", None)
    if not isinstance(host, str) or not isinstance(port, int):
        return "localhost"  # by a socket of the file system
    name = f"[{host.partition('%')[0]}]" if ":" in host else host
    return name if port == _DEFAULT_PORTS[scheme] else f"{name}:{port}"
