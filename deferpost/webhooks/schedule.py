"""When a webhook is tried again, and when no more.

Decides only.  A notification is delivered when its receiver has answered with a status of success.
One that says that it is gone for good (410) is left alone; anything else, a redirect included, is
tried again after pauses that grow.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterable, Sequence

import msgspec

from deferpost.records import Hook, HookAttempt, HookState

__all__ = [
    "GIVE_UP_SECONDS",
    "LONGEST_PAUSE",
    "MOST_ATTEMPTS",
    "PAUSES",
    "hook_after",
    "next_attempt",
    "retry_after_of",
]

#: Seconds between one attempt and the next.
PAUSES: Sequence[float] = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)

#: Attempts in all.
MOST_ATTEMPTS = len(PAUSES) + 1

#: Seconds that a receiver may ask for before the next one.
LONGEST_PAUSE = 24 * 3600.0

#: Seconds after the job's end from which on nothing is tried any more, whatever receivers ask for.
GIVE_UP_SECONDS = 72 * 3600.0

#: By what part a pause may be longer: many jobs may have ended together.
_JITTER = 0.2

#: Statuses whose ``Retry-After`` counts (RFC 9110, section 10.2.3, and RFC 6585, section 4).
_ASK_FOR_PAUSES = frozenset({429, 503})

_DIGITS = re.compile("[0-9]+")


def next_attempt(
    attempts: int, ended_at: float, now: float, chance: float, retry_after: float | None = None
) -> float | None:
    """When a notification that has failed is tried again.

    :param attempts: how many were made, of which the last has just failed.
    :param ended_at: when the job ended.
    :param now: the time.
    :param chance: from 0 to 1, drawn anew for each.
    :param retry_after: seconds that the receiver asks for; they count up to
        :data:`LONGEST_PAUSE`, and only if the usual pause is shorter.
    :returns: the time; None where nothing is tried any more.
    """
    if not 1 <= attempts < MOST_ATTEMPTS:
        return None
    pause = max(PAUSES[attempts - 1], min(retry_after or 0.0, LONGEST_PAUSE))
    due = now + pause * (1 + _JITTER * chance)
    return due if due <= ended_at + GIVE_UP_SECONDS else None


def hook_after(
    hook: Hook,
    attempt: HookAttempt,
    ended_at: float,
    now: float,
    chance: float,
    retry_after: float | None = None,
) -> Hook:
    """How a hook stands after an attempt.

    :param hook: as it stood before.
    :param attempt: what was made of it.
    :param ended_at: see :func:`next_attempt`, as for the rest.
    """
    attempts = (*hook.attempts, attempt)
    due = None
    if attempt.status is not None and 200 <= attempt.status < 300:
        state = HookState.DELIVERED
    else:
        if attempt.status != 410:
            due = next_attempt(len(attempts), ended_at, now, chance, retry_after)
        state = HookState.FAILED if due is None else HookState.PENDING
    return msgspec.structs.replace(hook, state=state, attempts=attempts, due=due)


def retry_after_of(status: int, values: Iterable[bytes], now: float) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3).

    :param status: of the response: with most of them it means nothing here.
    :param values: of all the fields of that name.
    :param now: the time, for a date.
    :returns: seconds, 0 to :data:`LONGEST_PAUSE`; None where it says nothing that counts.
    """
    texts = [value.decode("latin-1").strip() for value in values]
    if status not in _ASK_FOR_PAUSES or len(texts) != 1 or len(texts[0]) > 64:
        return None
    if _DIGITS.fullmatch(texts[0]):
        return min(float(texts[0]), LONGEST_PAUSE)
    try:
        then = email.utils.parsedate_to_datetime(texts[0])
        if then.tzinfo is None:  # it was said to be UTC, and nothing about any place
            then = then.replace(tzinfo=datetime.UTC)
        return min(max(then.timestamp() - now, 0.0), LONGEST_PAUSE)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
