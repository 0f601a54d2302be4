"""What a handler says of its progress: kept as it was said, and judged when somebody looks.

A handler may say it a million times, so saying it is one tuple.  This decides what of it is shown;
it keeps nothing and sends nothing.
"""

from __future__ import annotations

import math
from typing import Any

from deferpost.model import Progress

__all__ = ["MESSAGE_MOST", "Noted", "progress_of"]

#: Characters of a message that are shown.
MESSAGE_MOST = 1000

#: Units done, units in all, and words, as the handler gave them.
Noted = tuple[Any, Any, Any]


def progress_of(noted: Noted) -> Progress | None:
    """What is shown of what a handler has said.

    :param noted: what it said.
    :returns: the progress; None where ``done`` is no finite number.  A ``total`` that is none is
        left out, and a long message is cut.
    """
    done, total, message = noted
    shown = _number(done)
    if shown is None:
        return None
    return Progress(shown, None if total is None else _number(total), _words(message))


def _number(value: Any) -> float | None:
    if isinstance(value, (str, bytes, bytearray)):  # which float() would read
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _words(message: Any) -> str:
    if not isinstance(message, str):
        return ""
    # Without lone surrogates, which no encoder takes.
    return message[:MESSAGE_MOST].encode("utf-8", "replace").decode()
