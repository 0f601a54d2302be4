"""Which jobs a list is asked for, by the query of its URL.

Decides only.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import parse_qsl

import msgspec

from deferpost.errors import HTTPError
from deferpost.model import State

__all__ = ["MOST", "USUAL", "Wanted", "cursor_of", "wanted_of"]

#: Jobs of a page at most, and where nobody says how many.
MOST, USUAL = 500, 50

#: Parameters of a query that are looked at: each state, a cursor, a limit, and some of no meaning.
_MOST_PARAMETERS = 32

_MARK = b"n"
_NUMBER = re.compile(rb"n([1-9][0-9]{0,17})")
_LIMIT = re.compile(r"[0-9]{1,4}")


class Wanted(msgspec.Struct, frozen=True):
    """What a list is asked for.

    :ivar states: those of the jobs; empty for all.
    :ivar before: where it begins; None for the newest job.
    :ivar most: how many jobs.
    """

    states: frozenset[State] = frozenset()
    before: int | None = None
    most: int = USUAL


def cursor_of(number: int) -> str:
    """Where a page begins, as its client is to send it back."""
    return base64.urlsafe_b64encode(_MARK + b"%d" % number).rstrip(b"=").decode("ascii")


def wanted_of(query: bytes) -> Wanted:
    """Read a query.

    :param query: without the question mark.  Parameters that are not known are passed over.
    :raises deferpost.errors.HTTPError: 400.
    """
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise HTTPError(400, f"A query has at most {_MOST_PARAMETERS} parameters here.") from None
    states: set[State] = set()
    once: dict[str, str] = {}
    for name, value in pairs:
        if name == "state":
            try:
                states.add(State(value))
            except ValueError:
                raise HTTPError(400, f"The states of jobs are {', '.join(State)}.") from None
        elif name in ("cursor", "limit") and once.setdefault(name, value) != value:
            raise HTTPError(400, f"The parameter {name} comes more than once.")
    return Wanted(
        frozenset(states),
        _before(once["cursor"]) if "cursor" in once else None,
        _most(once["limit"]) if "limit" in once else USUAL,
    )


def _before(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("latin-1") + b"=" * (-len(cursor) % 4))
    except (binascii.Error, UnicodeEncodeError):
        text = b""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise HTTPError(400, "The cursor is not the one of a page before.")
    return int(found[1])


def _most(limit: str) -> int:
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MOST:
        raise HTTPError(400, f"The limit is a number from 1 to {MOST}.")
    return int(limit)
