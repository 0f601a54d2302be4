"""Where the server is, and which URLs are its own.

All requests of a client go to one origin: scheme, host and port.  What the server says in a
``Location`` is taken as a path there, whatever its host is: so no token gets to another origin, and
a proxy that the server knows nothing of does no harm.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import msgspec

__all__ = ["Base", "base_of"]

_PORTS = {"http": 80, "https": 443}

#: Characters of a path and a query that are sent as they are (RFC 3986); a percent sign too, since
#: what is escaped already is not escaped again.
_KEPT = "/%:@!$&'()*+,;=-._~"


class Base(msgspec.Struct, frozen=True):
    """The place where an app is mounted.

    :ivar origin: scheme, host and port, such as ``http://127.0.0.1:8080``.
    :ivar path: of the app, with a slash at its end.
    """

    origin: str
    path: str

    def url(self, path: str) -> str:
        """The URL of a path of the app.

        :param path: below the app, with or without a slash at its beginning; it may have a query.
        """
        return self.origin + self.path + _escaped(path.lstrip("/"))

    def own(self, url: str) -> str:
        """The URL of what the server has named: its path and query, at our origin.

        :param url: absolute, or a path.
        :raises ValueError: it is malformed.
        """
        parts = urlsplit(url)
        path = parts.path if parts.path.startswith("/") else f"/{parts.path}"
        return self.origin + _escaped(f"{path}?{parts.query}" if parts.query else path)

    def is_own(self, url: str) -> bool:
        """Whether an absolute URL is one of this origin."""
        try:
            return base_of(url).origin == self.origin
        except ValueError:
            return False


def base_of(url: str) -> Base:
    """Read the URL of an app.

    :param url: absolute, ``http`` or ``https``.
    :raises ValueError: it is not, or it has a user's name in it, which is not sent.
    """
    parts = urlsplit(url.strip())
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a server: write for example http://127.0.0.1:8080")
    if "@" in parts.netloc:
        raise ValueError("a name or password in a URL is not sent: give a token instead")
    host = parts.hostname.encode("idna").decode("ascii") if ":" not in parts.hostname else ""
    host = host or f"[{parts.hostname}]"
    port = parts.port  # a ValueError where it is none
    place = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return Base(f"{scheme}://{place}", _escaped(parts.path.rstrip("/") + "/"))


def _escaped(path: str) -> str:
    plain, mark, query = path.partition("?")
    return quote(plain, safe=_KEPT) + mark + quote(query, safe=_KEPT + "?")
