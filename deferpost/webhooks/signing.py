"""Signatures of webhooks, by the Standard Webhooks scheme.

Decides only.  A notification has an id, which stays the same however often it is sent, the time at
which it is sent, and a signature for each secret: while secrets are being changed, a receiver finds
one that it knows.  Receivers have :func:`deferpost.verify_webhook`.  This module needs neither
Twisted nor a store.

https://www.standardwebhooks.com/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence

from deferpost.errors import ConfigurationError
from deferpost.records import JobRecord

__all__ = ["TOLERANCE_SECONDS", "HookSecret", "hook_id", "parse_secrets", "sign", "verify"]

#: Seconds by which the clocks of sender and receiver may differ, the way between them included.
TOLERANCE_SECONDS = 300.0

#: Bytes of a secret.
_SHORTEST, _LONGEST = 24, 64

#: Secrets that are used at once: each adds to every notification.
_MOST_SECRETS = 8

#: Signatures of a notification that a receiver looks at.
_MOST_SIGNATURES = 32

_PREFIX = "whsec_"
_VERSION = "v1,"
_TIMESTAMP = re.compile("[0-9]{1,12}")
_ID = re.compile(r"[!-\-/-~]{1,512}")  # a full stop parts it from the time


class HookSecret:
    """A secret that sender and receivers share.

    :param text: ``whsec_`` and its bytes in base64, 24 to 64 of them.
    :raises ValueError: it is none.

    :ivar key: the bytes.
    """

    __slots__ = ("key",)

    def __init__(self, text: str) -> None:
        if not text.startswith(_PREFIX):
            raise ValueError("a secret begins with whsec_")
        try:
            self.key = base64.b64decode(text.removeprefix(_PREFIX).encode(), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ is not base64") from None
        if not _SHORTEST <= len(self.key) <= _LONGEST:
            raise ValueError(f"a secret has {_SHORTEST} to {_LONGEST} bytes, in base64")

    def __repr__(self) -> str:
        return "<HookSecret>"

    def signature(self, id: str, timestamp: int, body: bytes) -> str:
        """What a notification is signed with."""
        signed = hmac.new(self.key, f"{id}.{timestamp}.".encode(), hashlib.sha256)
        signed.update(body)
        return _VERSION + base64.b64encode(signed.digest()).decode("ascii")


def parse_secrets(text: str, place: str) -> tuple[HookSecret, ...]:
    """Read a file of secrets.

    :param text: one secret a line, the newest first.  What follows a ``#`` at the start of a line
        or after a space is for people.
    :param place: what to call the file in errors.
    :raises deferpost.errors.ConfigurationError: a line is wrong, there is none, or there are too
        many.  A line is named by its number alone.
    """
    problems: list[str] = []
    found: dict[bytes, HookSecret] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        where = f"{place}, line {number}"
        try:
            if len(words) > 1:
                raise ValueError("a line has one secret and nothing else")
            secret = HookSecret(words[0])
            if secret.key in found:
                raise ValueError("this secret stands on an earlier line, too")
        except ValueError as error:
            problems.append(f"{where}: {error}")
        else:
            found[secret.key] = secret
    if not problems and not found:
        problems.append(f"{place}: there is no secret in this file")
    if len(found) > _MOST_SECRETS:
        problems.append(f"{place}: there are {len(found)} secrets, and {_MOST_SECRETS} at most")
    if problems:
        raise ConfigurationError(problems)
    return tuple(found.values())


def hook_id(record: JobRecord) -> str:
    """The id of the notification of a job's end.

    It has the job's number beside its id, which a client may choose again when the job is gone,
    and no full stop.
    """
    return f"job_{record.number}_{record.id.replace('~', '~t').replace('.', '~d')}"


def sign(secrets: Iterable[HookSecret], id: str, at: float, body: bytes) -> dict[str, str]:
    """The header fields of a notification.

    :param secrets: each makes a signature.
    :param id: of the notification: up to 512 visible characters of ASCII, without full stops.
    :param at: when it is sent, in seconds since the epoch.
    :param body: as it is sent.
    :raises ValueError: the id cannot be sent.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"{id!r} is not the id of a webhook")
    timestamp = int(at)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(each.signature(id, timestamp, body) for each in secrets),
    }


def verify(
    secrets: Sequence[HookSecret],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    tolerance: float = TOLERANCE_SECONDS,
) -> str:
    """Check a notification that was received.

    How long this takes says nothing about the secrets.

    :param secrets: those that the sender may have used.
    :param headers: the header fields, by names in any case.
    :param body: as it was received.
    :param now: the time, in seconds since the epoch.
    :param tolerance: seconds that the time of the notification may be away from that.
    :returns: its id, by which one that comes again is recognized.
    :raises ValueError: it is not to be trusted, and the sentence says why.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    try:
        id = fields["webhook-id"]
        timestamp = fields["webhook-timestamp"]
        signatures = fields["webhook-signature"].split(" ")[:_MOST_SIGNATURES]
    except KeyError as error:
        raise ValueError(f"there is no {error.args[0]}") from None
    if not _ID.fullmatch(id):
        raise ValueError("webhook-id is malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ValueError("webhook-timestamp is not a number of seconds")
    if abs(now - int(timestamp)) > tolerance:
        raise ValueError("webhook-timestamp is too far from now")
    agrees = False
    for secret in secrets:
        expected = secret.signature(id, int(timestamp), body).encode()
        for signature in signatures:
            agrees |= hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
    if not agrees:
        raise ValueError("no signature in webhook-signature is right")
    return id
