"""The ids of requests: taken up from the client, or made here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

__all__ = ["id_of"]

_SENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def _ids() -> Iterator[str]:
    """Ids that cannot be guessed, of 24 hexadecimal digits.

    Random bytes are asked of the system for many at once: each time is a system call, which gives
    the interpreter's lock away in the middle of a request.
    """
    while True:
        digits = secrets.token_hex(12 * 256)
        for start in range(0, len(digits), 24):
            yield digits[start : start + 24]


_new_ids = _ids()


def id_of(sent: Sequence[bytes] | None) -> str:
    """The id of a request: the ``X-Request-ID`` that it came with, or a new one.

    :param sent: the values of that field.  One with spaces, control characters or over 128
        characters is not taken up, nor is one of several.
    """
    if sent is not None and len(sent) == 1 and _SENT_ID.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return next(_new_ids)
