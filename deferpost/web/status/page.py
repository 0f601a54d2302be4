"""The page, as each kind of visitor sees it."""

from __future__ import annotations

import attrs

from deferpost.web.onepage import assemble
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


def load_page() -> Page:
    """Put the page together."""
    return Page(*assemble(__package__))
