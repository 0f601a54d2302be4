"""Ids of kept jobs, by which a store knows later that it has made them.

An id is 96 random bits and a MAC of them, in letters that a URL takes as they are.  So a store can
tell a job that it has forgotten from one that never was, without keeping anything of either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator

__all__ = ["SECRET_BYTES", "IdMaker"]

#: Bytes of the secret of a store.
SECRET_BYTES = 32

_RANDOM_BYTES = 12
_MAC_BYTES = 9  # with the others a multiple of three: no bit of the text is without meaning
_LENGTH = (_RANDOM_BYTES + _MAC_BYTES) // 3 * 4

#: Ids for which random bytes are asked of the system at once; each time is a system call.
_AT_ONCE = 128


class IdMaker:
    """Makes ids, and knows its own.

    :param secret: which the MAC depends on.
    :param randomness: gives so many random bytes.
    """

    def __init__(
        self, secret: bytes, randomness: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._secret = secret
        self._randomness = randomness
        self._ids = self._make()

    def new(self) -> str:
        """One more id."""
        return next(self._ids)

    def is_own(self, id: str) -> bool:
        """Whether this, or another one with the same secret, has made an id."""
        if len(id) != _LENGTH or not id.isascii():
            return False
        try:
            data = base64.urlsafe_b64decode(id)
        except binascii.Error:
            return False
        return hmac.compare_digest(self._text(data[:_RANDOM_BYTES]), id)

    def _text(self, data: bytes) -> str:
        mac = hashlib.blake2b(data, digest_size=_MAC_BYTES, key=self._secret).digest()
        return base64.urlsafe_b64encode(data + mac).decode("ascii")

    def _make(self) -> Iterator[str]:
        while True:
            block = self._randomness(_RANDOM_BYTES * _AT_ONCE)
            for start in range(0, len(block), _RANDOM_BYTES):
                yield self._text(block[start : start + _RANDOM_BYTES])
