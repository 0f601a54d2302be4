"""Which attempts are made again, and after which pause.

Decides only; the time and the chance are given.  A request whose effect may have taken place is
made again only where that does no harm: it has a key, or it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import msgspec

from deferpost.client.errors import ClientError, Problem, Unreachable

__all__ = ["Retries", "Trying", "retry_after_of", "worth_repeating"]

#: Why a deferpost turns a call away before any of it was done.
_TURNED_AWAY = frozenset(
    {"client_quota", "deadline_unmeetable", "pool_broken", "pool_full"}
    | {"storage_failed", "store_failed"}
)

_SECONDS = re.compile(r"[0-9]{1,9}")


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a client is.

    :ivar attempts: how often a call is sent before its failure is told, the first time included.
    :ivar first_pause_seconds: after the first failure; each one after that is twice as long.
    :ivar longest_pause_seconds: to which that grows.
    :ivar longest_asked_seconds: that the server may ask for by ``Retry-After``; if it asks for
        more, its answer is told at once.
    :ivar patience_seconds: for which a job, once accepted, is looked for without one answer, such
        as while its daemon is started again.
    """

    attempts: int = 6
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 15.0
    longest_asked_seconds: float = 300.0
    patience_seconds: float = 180.0


class Trying:
    """One operation that may take several attempts.

    :param retries: how patient the client is.
    :param random: gives numbers from 0 to 1.
    :param patient: whether the time since the first failure counts, and not the number of attempts:
        for jobs that were accepted.
    :param until: when there is no point in further attempts; None for no such time.
    """

    def __init__(
        self,
        retries: Retries,
        random: Callable[[], float],
        *,
        patient: bool,
        until: float | None = None,
    ) -> None:
        self._retries = retries
        self._random = random
        self._patient = patient
        self._until = until
        self._failed: float | None = None  # when it did for the first time
        self._failures = 0

    def pause_after(self, error: ClientError, now: float, wall: float) -> float:
        """The seconds until the next attempt.

        :param error: why this one failed; it is worth repeating.
        :param now: the time of the monotonic clock.
        :param wall: that of the wall clock, in seconds since the epoch.
        :raises ClientError: the error itself, where there is no next attempt.
        """
        retries = self._retries
        self._failures += 1
        if self._failed is None:
            self._failed = now
        if self._patient:
            is_over = now - self._failed >= retries.patience_seconds
        else:
            is_over = self._failures >= retries.attempts
        asked = None
        if isinstance(error, Problem):
            asked = retry_after_of(error.headers.get("retry-after"), wall)
        if is_over or (asked is not None and asked > retries.longest_asked_seconds):
            raise error
        doubled = retries.first_pause_seconds * 2.0 ** min(self._failures - 1, 30)
        pause = min(doubled, retries.longest_pause_seconds) * (0.5 + self._random() / 2)
        if asked is not None:
            # Never sooner than asked, and not all clients at the same moment.
            pause = max(pause, asked + self._random() * min(asked, 1.0 + asked / 10, 10.0))
        if self._until is not None and now + pause > self._until:
            raise error
        return pause


def retry_after_of(value: str | None, wall: float) -> float | None:
    """The seconds that ``Retry-After`` asks for (RFC 9110, section 10.2.3).

    :param value: of the field: seconds, or a date; None where it is absent.
    :param wall: the time, in seconds since the epoch.
    :returns: None where it is absent or malformed.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def worth_repeating(error: ClientError, *, harmless: bool) -> bool:
    """Whether another attempt may succeed, and can do no harm.

    :param error: why an attempt failed.
    :param harmless: whether it does no harm to have the request done twice, as it has a key or
        changes nothing.
    """
    if isinstance(error, Unreachable):
        return error.again and (harmless or not error.was_sent)
    if not isinstance(error, Problem) or "idempotency-replayed" in error.headers:
        return False
    if error.status == 429 or (error.status == 503 and error.reason in _TURNED_AWAY):
        return True
    if error.status == 503:
        return harmless
    # A deferpost tells what became of the work; a proxy in front of it does not know.
    return harmless and error.status in (502, 504) and error.reason is None
