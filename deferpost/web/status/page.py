"""The page: one document with its style and script inside, and the policy that lets only those in.

It is put together once, from the three files beside this module.  Nothing of a client is in it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

import attrs

from deferpost.web.status.access import Role

__all__ = ["Page", "load_page"]

_ROLE = "%role%"


@attrs.frozen
class Page:
    """The page, ready to send.

    :ivar policy: its Content-Security-Policy.
    """

    _text: str
    policy: bytes

    def for_role(self, role: Role) -> bytes:
        """The page for one kind of visitor."""
        return self._text.replace(_ROLE, role, 1).encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def load_page() -> Page:
    """Put the page together."""
    parts = files(__package__)
    html, style, script = (
        (parts / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    text = html.replace("/*style*/", style, 1).replace("/*script*/", script, 1)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",  # the icon, which is in the page
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # In browsers that know it, text of clients cannot become HTML even by mistake.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return Page(text, policy.encode("ascii"))
