"""For programs that receive webhooks: whether a notification is what it says.

Needs neither Twisted nor a daemon.  On any thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from deferpost.webhooks.signing import TOLERANCE_SECONDS, HookSecret, verify

__all__ = ["verify_webhook"]


def verify_webhook(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance: float = TOLERANCE_SECONDS,
) -> str:
    """Check a notification that was received, before anything in it is believed.

    How long this takes says nothing about the secrets.

    :param secrets: one, or all those that the sender may have used, as in the file of the daemon:
        ``whsec_`` and base64.
    :param headers: the header fields, by names in any case.
    :param body: as it was received, byte for byte.
    :param now: the time, in seconds since the epoch; that of this machine if not given.
    :param tolerance: seconds that the time of the notification may be away from that.
    :returns: the id of the notification, by which one that comes again is recognized.
    :raises ValueError: it is not to be trusted, and the sentence says why; or a secret is none.
    """
    texts = [secrets] if isinstance(secrets, str) else secrets
    return verify(
        [HookSecret(text) for text in texts],
        headers,
        body,
        time.time() if now is None else now,
        tolerance,
    )
