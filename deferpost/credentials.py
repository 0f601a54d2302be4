"""Who may call, as files of names and secrets say it.

This module decides what a line of such a file means, whom a token belongs to and which routes that
one may use.  It opens no file, and knows neither requests nor statuses.  No secret is in what it
prints: not in an error, not in a ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from deferpost.digests import BodyDigest
from deferpost.errors import ConfigurationError
from deferpost.model import CallHead

__all__ = [
    "BEARER",
    "OWN_JOBS",
    "SHORTEST_SECRET",
    "SHORTEST_TOKEN",
    "Admitted",
    "Gate",
    "Grant",
    "Grants",
    "HmacKey",
    "OperatorTokens",
    "parse_keys",
    "parse_tokens",
    "secret_of",
]

#: Characters that a token in plain text has at least: 16 of 64 kinds are 96 bits.
SHORTEST_TOKEN = 16

#: Bytes that a secret of signatures has at least.
SHORTEST_SECRET = 16

#: In place of the route of a request that is not a call, but about jobs of its client: whoever may
#: use any route at all may see what has come of that.  No route is called so.
OWN_JOBS = "*"

#: An ``Authorization`` of the scheme Bearer (RFC 6750, section 2.1).
BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*) *", re.IGNORECASE)

_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+=*) *", re.IGNORECASE)
_NAME = re.compile(r"[!-~]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ROUTE = re.compile(r"/[^\x00-\x20?#*,\x7f]*\*?")


class Admitted(msgspec.Struct, frozen=True):
    """What a gate lets a call pass with.

    :ivar principal: who calls; None where nobody was asked.
    :ivar digest: what the body has to agree with before it counts as whole; None for any body.
    :ivar hidden: header fields, in lower case, that are not shown to the handler.
    """

    principal: str | None = None
    digest: BodyDigest | None = None
    hidden: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, verdict: str | Admitted | None) -> Admitted:
        """What a gate has returned, in full."""
        return verdict if isinstance(verdict, Admitted) else cls(verdict)

    def shown(self, head: CallHead) -> CallHead:
        """The call as it goes on from here."""
        fields = head.headers
        if self.hidden:
            fields = tuple(field for field in fields if field[0].lower() not in self.hidden)
        return msgspec.structs.replace(head, headers=fields, principal=self.principal)


#: Looks at a call before its body, and raises :class:`deferpost.HTTPError` to refuse it.  It
#: returns who calls, if it has found that out.  A request about jobs is shown to it too, with
#: :data:`OWN_JOBS` as its route.  On the reactor thread; it answers at once.
Gate: TypeAlias = Callable[[CallHead], str | Admitted | None]


class Grant(msgspec.Struct, frozen=True):
    """What somebody may do.

    :ivar name: who it is.
    :ivar routes: paths of routes; one that ends in ``*`` stands for all that begin so.  Empty for
        every route.
    """

    name: str
    routes: tuple[str, ...] = ()

    def covers(self, route: str) -> bool:
        """Whether a route may be used.

        :param route: its path, as it was declared; or :data:`OWN_JOBS`.
        """
        return (
            not self.routes
            or route == OWN_JOBS
            or any(
                route.startswith(each[:-1]) if each.endswith("*") else route == each
                for each in self.routes
            )
        )


class Grants:
    """Tokens, and what each of them grants.

    The tokens themselves are not kept, only what is made of them with a key that is drawn anew for
    each table.  By that they are found in a dictionary, in a time that does not depend on their
    number.  The time of such a look-up tells how far two of these values agree, which is of no use
    to somebody who cannot compute the value of a guess.  The one entry that is found is then
    compared as a whole, in constant time.

    :param grants: by the SHA-256 of the token.
    :param key: 16 to 64 random bytes.
    """

    __slots__ = ("_found", "_key")

    def __init__(self, grants: Mapping[bytes, Grant], key: bytes) -> None:
        self._key = key
        self._found = {self._hidden(digest): (digest, grant) for digest, grant in grants.items()}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._found)} tokens>"

    def _hidden(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=32, key=self._key).digest()

    def find(self, token: bytes) -> Grant | None:
        """What a token grants; None if it is not known.

        :param token: as it was sent.
        """
        digest = hashlib.sha256(token).digest()
        found = self._found.get(self._hidden(digest))
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]


class OperatorTokens(Grants):
    """The tokens of those who may look into the daemon and stop what runs there."""

    __slots__ = ()

    #: For ``WWW-Authenticate``, one field each; browsers ask their user for the password of Basic.
    CHALLENGES = ('Basic realm="deferpost", charset="UTF-8"', 'Bearer realm="deferpost"')

    @classmethod
    def parse(cls, text: str, place: str, key: bytes) -> OperatorTokens:
        """Read the text of a file.

        :param text: lines of a name and a token.
        :param place: what to call the file in errors.
        :param key: see :class:`Grants`.
        :raises deferpost.errors.ConfigurationError: a line is wrong, or there is none.
        """
        return cls(parse_tokens(text, place, routes=False), key)

    def name(self, authorization: bytes | None) -> str | None:
        """Who asks; None if it is nobody who may.

        :param authorization: the value of the header: the token as ``Bearer``, or as the password
            of ``Basic`` with any user name (RFC 7617).  None where there is none.
        """
        if authorization is None:
            return None
        bearer = BEARER.fullmatch(authorization)
        if bearer is not None:
            token = bearer[1]
        else:
            basic = _BASIC.fullmatch(authorization)
            if basic is None:
                return None
            try:
                _, _, token = base64.b64decode(basic[1], validate=True).partition(b":")
            except binascii.Error:
                return None
        grant = self.find(token)
        return None if grant is None else grant.name

    def allows(self, authorization: bytes | None) -> bool:
        """Whether somebody who asks may; see :meth:`name`."""
        return self.name(authorization) is not None


class HmacKey:
    """A secret that two sides share, and what a signature made with it grants.

    :ivar id: by which signatures name it.
    :ivar secret: the bytes.
    :ivar grant: what it grants.
    """

    __slots__ = ("grant", "id", "secret")

    def __init__(self, id: str, secret: bytes, grant: Grant) -> None:
        self.id = id
        self.secret = secret
        self.grant = grant

    def __repr__(self) -> str:
        return f"<HmacKey {self.id}>"


def parse_tokens(text: str, place: str, *, routes: bool = True) -> dict[bytes, Grant]:
    """Read a file of tokens.

    :param text: lines of a name, a token or ``sha256:`` and its SHA-256 in hexadecimal, and if
        need be the routes, with commas.  What follows a ``#`` at the start of a line or after a
        space is for people.  A name may have several tokens.
    :param place: what to call the file in errors.
    :param routes: whether a line may have routes.
    :returns: what each token grants, by its SHA-256.
    :raises deferpost.errors.ConfigurationError: a line is wrong, or there is none.  A line is named
        by its number alone: it may have a secret at any place.
    """
    problems: list[str] = []
    found: dict[bytes, Grant] = {}
    for where, words in _lines(text, place):
        grant = _grant(where, words, "a token", problems, routes=routes)
        digest = _digest(where, words[1], problems) if len(words) > 1 else None
        if digest is not None and digest in found:
            problems.append(f"{where}: this token stands on an earlier line, too")
        elif grant is not None and digest is not None:
            found[digest] = grant
    _check_some(found, place, "token", problems)
    return found


def parse_keys(text: str, place: str) -> dict[str, HmacKey]:
    """Read a file of secrets for signatures.

    :param text: lines of a key's id, its secret as text or as ``base64:`` and its bytes, and if
        need be the routes, with commas.
    :param place: what to call the file in errors.
    :returns: the keys by their ids.
    :raises deferpost.errors.ConfigurationError: see :func:`parse_tokens`.
    """
    problems: list[str] = []
    found: dict[str, HmacKey] = {}
    for where, words in _lines(text, place):
        grant = _grant(where, words, "a secret", problems)
        secret = _secret(where, words[1], problems) if len(words) > 1 else None
        if grant is not None and grant.name in found:
            problems.append(f"{where}: this key's id stands on an earlier line, too")
        elif grant is not None and secret is not None:
            found[grant.name] = HmacKey(grant.name, secret, grant)
    _check_some(found, place, "key", problems)
    return found


def _lines(text: str, place: str) -> Iterator[tuple[str, list[str]]]:
    """The lines that say something, each with its place and its words."""
    for number, line in enumerate(text.split("\n"), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if words:
            yield f"{place}, line {number}", words


def _check_some(found: object, place: str, what: str, problems: list[str]) -> None:
    if problems:
        raise ConfigurationError(problems)
    if not found:
        raise ConfigurationError([f"{place}: there is no {what} in this file"])


def _grant(
    where: str, words: list[str], what: str, problems: list[str], *, routes: bool = True
) -> Grant | None:
    """The name and the routes of a line."""
    if not 2 <= len(words) <= 2 + routes:
        more = ", and if need be routes with commas and no spaces" if routes else ""
        problems.append(f"{where}: a line has a name and {what}{more}")
        return None
    if not _NAME.fullmatch(words[0]):
        problems.append(f"{where}: a name has at most 64 characters, of ASCII and without controls")
        return None
    paths = tuple(words[2].split(",")) if len(words) > 2 else ()
    if not all(map(_ROUTE.fullmatch, paths)):
        problems.append(f"{where}: the routes are not paths such as /rst,/reports/*")
        return None
    return Grant(words[0], paths)


def _digest(where: str, word: str, problems: list[str]) -> bytes | None:
    """The SHA-256 of the token that a word says."""
    hashed = _DIGEST.fullmatch(word)
    if hashed is not None:
        return bytes.fromhex(hashed[1])
    if word.lower().startswith("sha256:"):
        problems.append(f"{where}: sha256: is followed by 64 hexadecimal digits")
    elif not _TOKEN.fullmatch(word):
        problems.append(f"{where}: a token has letters, digits and -._~+/ alone, and = at its end")
    elif len(word) < SHORTEST_TOKEN:
        problems.append(f"{where}: a token has at least {SHORTEST_TOKEN} characters")
    else:
        return hashlib.sha256(word.encode("ascii")).digest()
    return None


def _secret(where: str, word: str, problems: list[str]) -> bytes | None:
    """The bytes of the secret that a word says."""
    try:
        secret = secret_of(word)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None
    if len(secret) < SHORTEST_SECRET:
        problems.append(f"{where}: a secret has at least {SHORTEST_SECRET} bytes")
        return None
    return secret


def secret_of(word: str) -> bytes:
    """The bytes of a secret as it is written in a file.

    :param word: text, or ``base64:`` and the bytes.
    :raises ValueError: that is no base64.
    """
    if not word.startswith("base64:"):
        return word.encode()
    try:
        return base64.b64decode(word.removeprefix("base64:"), validate=True)
    except ValueError:
        raise ValueError("what follows base64: is not base64") from None
