"""By what a client recognizes a call of its own: ``Idempotency-Key``, and what came with it.

Decides only: it reads the field and hashes what it is given.  Whose key it is, and what becomes of
a call whose key is known, is for others.

The field is that of draft-ietf-httpapi-idempotency-key-header-07: a string of RFC 9651, in quotes.
Many clients send the key without them; that is the same key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from deferpost.errors import HTTPError
from deferpost.model import CallHead
from deferpost.structured import Token, parse_item

__all__ = ["LONGEST_KEY", "Fingerprint", "key_of"]

#: Characters of a key.
LONGEST_KEY = 255

#: Bytes of the field: every character may be written with a backslash, and there are quotes.
_LONGEST_FIELD = 2 * LONGEST_KEY + 2

#: A key without quotes.  Commas and semicolons would part it where fields are read as lists or
#: have parameters.
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+")


def key_of(values: Iterable[bytes]) -> str | None:
    """Read ``Idempotency-Key``.

    :param values: of all the fields of that name, in order.
    :returns: 1 to 255 printable characters of ASCII; None where there is no such field.
    :raises deferpost.errors.HTTPError: 400, for anything but one key.
    """
    keys = {_key(value) for value in values}
    if len(keys) > 1:
        raise _unusable("comes more than once, with different keys")
    return keys.pop() if keys else None


def _key(value: bytes) -> str:
    text = value.decode("latin-1").strip(" \t")
    if len(text) > _LONGEST_FIELD:
        raise _unusable(f"is longer than {LONGEST_KEY} characters")
    if not text:
        raise _unusable("is empty")
    if text.startswith('"'):
        try:
            key = parse_item([value]).value
        except ValueError as error:
            raise _unusable(f"is malformed: {error}") from None
        if not isinstance(key, str) or isinstance(key, Token):
            raise AssertionError("what begins with a quote is a string")
    elif _BARE.fullmatch(text):
        key = text
    else:
        raise _unusable(
            'is malformed: it is a string in double quotes, such as "8e03978e-40d5-43e8-bc93", '
            "or one without spaces, commas, semicolons, quotes and backslashes"
        )
    if not key:
        raise _unusable("is empty")
    if len(key) > LONGEST_KEY:
        raise _unusable(f"is longer than {LONGEST_KEY} characters")
    return key


class Fingerprint:
    """Tells calls apart that come with the same key: all that is the client's word to a route.

    That is the method, the route, the path, the query, the ``Content-Type`` and the body.  Other
    header fields may change when a call is sent again.  It is a SHA-256, which takes about a
    millisecond for a megabyte: large bodies are for a thread.

    :param head: the call without its body.
    """

    __slots__ = ("_hash",)

    def __init__(self, head: CallHead) -> None:
        self._hash = hashlib.sha256()
        types = [value for name, value in head.headers if name.lower() == b"content-type"]
        for part in (
            head.method.encode("utf-8", "surrogatepass"),
            head.route.encode("utf-8", "surrogatepass"),
            head.path.encode("utf-8", "surrogatepass"),
            head.query,
            b", ".join(types),
        ):
            # Sizes before the parts, so that no part can pass for the end of another.
            self._hash.update(len(part).to_bytes(8, "big"))
            self._hash.update(part)

    def update(self, data: Any) -> None:
        """Take the next piece of the body.

        :param data: bytes, or what else has their buffer.
        """
        self._hash.update(data)

    def digest(self) -> bytes:
        """The fingerprint of what there was so far; 32 bytes."""
        return self._hash.digest()


def _unusable(what: str) -> HTTPError:
    return HTTPError(
        400, f"The Idempotency-Key {what}.", extensions={"reason": "idempotency_key_unusable"}
    )
