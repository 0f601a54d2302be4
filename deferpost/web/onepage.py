"""A page as one document, with its style and script inside, and the policy that lets only those in.

It is put together once, from three files of a package.  Nothing of a client is in it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

__all__ = ["assemble"]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def assemble(package: str) -> tuple[str, bytes]:
    """Put a page together from ``page.html``, ``page.css`` and ``page.js``.

    :param package: the name of the package that has them.
    :returns: the page, and its Content-Security-Policy.
    """
    parts = files(package)
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
    return text, policy.encode("ascii")
