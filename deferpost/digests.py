"""Digests of bodies (RFC 9530): whether a body is the one that its ``Content-Digest`` says.

This module reads the field and hashes what it is given, piece by piece.  It never reads a body by
itself, and does not know whether it is trusted: a signature that covers the field makes it so.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from deferpost.errors import HTTPError
from deferpost.structured import Item, item_text, parse_dictionary

__all__ = ["BodyDigest", "content_digest", "expected_digest"]

#: The algorithms that are understood, with the names of hashlib and the bytes of a digest.
_ALGORITHMS = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64)}

#: Bytes of the field.
_LONGEST = 1024


class BodyDigest:
    """Hashes a body as it comes.

    :param expected: digests by algorithm, of which all have to agree; at least one.
    """

    __slots__ = ("_expected", "_hashes")

    def __init__(self, expected: Mapping[str, bytes]) -> None:
        self._expected = dict(expected)
        self._hashes: dict[str, Any] = {
            name: hashlib.new(_ALGORITHMS[name][0]) for name in expected
        }

    def update(self, data: Any) -> None:
        """Take the next piece of the body."""
        for hash in self._hashes.values():
            hash.update(data)

    def check(self) -> None:
        """Judge the whole body.

        :raises deferpost.errors.HTTPError: 400: it is another than its digest says.
        """
        for name, hash in self._hashes.items():
            if not hmac.compare_digest(hash.digest(), self._expected[name]):
                raise HTTPError(
                    400,
                    f"The body is not the one whose {name} the Content-Digest says.",
                    extensions={"reason": "digest_mismatch"},
                )


def expected_digest(lines: Iterable[bytes]) -> BodyDigest:
    """What the ``Content-Digest`` of a request says of its body.

    Algorithms that are not known are passed over (RFC 9530, section 2).

    :param lines: the values of all fields of that name, in order.
    :raises deferpost.errors.HTTPError: 400: it is malformed, or has no algorithm that is known.
    """
    lines = list(lines)
    if sum(map(len, lines)) > _LONGEST:
        raise _unusable(f"has more than {_LONGEST} bytes")
    try:
        members = parse_dictionary(lines)
    except ValueError as error:
        raise _unusable(f"is malformed: {error}") from None
    expected = {}
    for name, (_, size) in _ALGORITHMS.items():
        member = members.get(name)
        if member is None:
            continue
        value = member.value if isinstance(member, Item) else None
        if not isinstance(value, bytes) or len(value) != size:
            raise _unusable(f"has for {name} something else than {size} bytes between colons")
        expected[name] = value
    if not expected:
        raise _unusable("has neither sha-256 nor sha-512")
    return BodyDigest(expected)


def content_digest(body: bytes, algorithm: str = "sha-256") -> str:
    """The value of ``Content-Digest`` for a body.

    :param body: the whole body.
    :param algorithm: ``sha-256`` or ``sha-512``.
    """
    digest = hashlib.new(_ALGORITHMS[algorithm][0], body).digest()
    return f"{algorithm}={item_text(Item(digest))}"


def _unusable(what: str) -> HTTPError:
    return HTTPError(400, f"The Content-Digest {what}.", extensions={"reason": "digest_unusable"})
