"""Signatures that were used: none passes a second time.

This module decides which signature is a new one, and which ones are forgotten.  It reads no clock,
and does not judge the signature itself.
"""

from __future__ import annotations

from deferpost.errors import HTTPError

__all__ = ["MOST_REMEMBERED", "UsedSignatures"]

#: Signatures of one key that are remembered, at some 100 bytes each.
MOST_REMEMBERED = 65_536

#: Bytes of a signature by which it is known: two of one key agree in them by chance never.
_KEPT = 16


class UsedSignatures:
    """The signatures of one key that were used.

    They are kept by the second at which they were made, for as long as they are fresh.  Where there
    are more than it remembers, those of the oldest second are forgotten, and what was made then or
    earlier is not taken any more: a flood shortens the time that signatures are good for, and
    never lets one pass twice.

    :param window: seconds for which signatures are fresh.
    :param most: signatures that are remembered.
    """

    __slots__ = ("_by_second", "_count", "_floor", "_looked", "_most", "_window")

    def __init__(self, window: int, most: int = MOST_REMEMBERED) -> None:
        self._window = window
        self._most = most
        self._by_second: dict[int, set[bytes]] = {}
        self._count = 0
        self._floor = -(10**15)  # before all times that a signature can say
        self._looked = 0

    def __len__(self) -> int:
        return self._count

    def use(self, value: bytes, created: int, now: float) -> None:
        """Use a signature that holds.

        :param value: its bytes.
        :param created: when it was made, in seconds since 1970; within the window.
        :param now: the time, in seconds since 1970.
        :raises deferpost.errors.HTTPError: 403: it was used, or may have been.
        """
        self._forget_stale(now)
        if created <= self._floor:
            raise HTTPError(
                403,
                "Too many signatures were made since this one; sign anew.",
                extensions={"reason": "signature_stale"},
            )
        used = self._by_second.setdefault(created, set())
        kept = value[:_KEPT]
        if kept in used:
            raise HTTPError(
                403,
                "This signature was used before; sign each request anew, with a nonce.",
                extensions={"reason": "signature_replayed"},
            )
        used.add(kept)
        self._count += 1
        while self._count > self._most:
            self._forget(min(self._by_second))

    def _forget(self, second: int) -> None:
        self._count -= len(self._by_second.pop(second))
        self._floor = max(self._floor, second)

    def _forget_stale(self, now: float) -> None:
        """Forget what is too old to be taken again; once a second is enough."""
        if int(now) == self._looked:
            return
        self._looked = int(now)
        for second in [each for each in self._by_second if each < now - self._window]:
            self._forget(second)
