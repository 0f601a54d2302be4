"""Where in a form something is wrong, and how the client is told.

It decides the words and the extensions that a place puts into an error.  It never finds a place,
and it repeats what the client sent in short and harmless form only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from deferpost.errors import BadRequest, HTTPError

__all__ = ["Place", "shown"]


def shown(text: str) -> str:
    """A client's word in an error: short, and without line breaks or the like."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


class Place(NamedTuple):
    """Where in the body something is wrong.

    :param noun: what is counted, and the name of the extension: ``"field"`` or ``"part"``.
    :param number: counted from 1.
    :param offset: bytes from where the body stood.
    """

    noun: str
    number: int
    offset: int

    def __str__(self) -> str:
        return f"{self.noun} {self.number}, at byte {self.offset} of the body"

    def extensions(self) -> dict[str, Any]:
        """The place, for programs."""
        return {self.noun: self.number, "offset": self.offset}

    def bad(self, reason: str) -> BadRequest:
        """The 400 for something malformed here."""
        return BadRequest(f"{self}: {reason}", **self.extensions())

    def too_large(self, reason: str, **extensions: int) -> HTTPError:
        """The 413 for what goes over a bound here."""
        return HTTPError(413, f"{self}: {reason}", extensions=self.extensions() | extensions)
