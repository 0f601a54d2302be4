"""Gates that ask who calls: bearer tokens (RFC 6750) and signed calls (RFC 9421, RFC 9530).

This module reads the files that hold the secrets, and turns what their rules say of a request into
refusals.  It never logs or keeps a token that was sent.  Gates are called on the reactor thread,
and answer at once.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from twisted.logger import Logger

from deferpost.credentials import (
    BEARER,
    Admitted,
    Gate,
    Grants,
    HmacKey,
    OperatorTokens,
    parse_keys,
    parse_tokens,
    secret_of,
)
from deferpost.digests import expected_digest
from deferpost.errors import ConfigurationError, HTTPError
from deferpost.model import CallHead
from deferpost.replays import UsedSignatures
from deferpost.settings import Settings
from deferpost.signatures import CHALLENGES, WINDOW, sign, values_of, verify

__all__ = [
    "Authentication",
    "BearerTokens",
    "EitherOf",
    "SignedCalls",
    "authentication_of",
    "read_secrets_file",
    "sign_post",
]

_log = Logger(namespace="deferpost")

#: Bytes of the largest file of secrets: some 10,000 lines.
_LARGEST_FILE = 2**20

_BEARER = 'Bearer realm="deferpost"'
_AUTHORIZATION = frozenset({b"authorization"})


class BearerTokens:
    """A gate for those who have a token.

    The ``Authorization`` of a call that passes is not shown to its handler, who has
    ``call.principal`` instead.

    :param grants: the tokens.
    """

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> BearerTokens:
        """Read the tokens from a file, once.

        :param path: of the file; ``docs/authentication.rst`` says what it looks like.
        :raises deferpost.errors.ConfigurationError: it cannot be read, or a line is wrong.
        """
        return cls(Grants(parse_tokens(read_secrets_file(path), os.fspath(path)), _new_key()))

    def __repr__(self) -> str:
        return f"<BearerTokens {self._grants!r}>"

    def __call__(self, head: CallHead) -> Admitted:
        """Admit a call or refuse it; see :data:`deferpost.credentials.Gate`."""
        values = values_of(head.headers, b"authorization")
        if len(values) > 1:
            raise _refusal(400, "invalid_request", "There is more than one Authorization.")
        if not values or values[0][:7].lower() not in (b"bearer", b"bearer "):
            # Without an error code, as nothing was tried (RFC 6750, section 3.1).
            raise _refusal(401, None, "A bearer token is needed.")
        found = BEARER.fullmatch(values[0])
        if found is None:
            raise _refusal(400, "invalid_request", "What follows Bearer is not a token.")
        grant = self._grants.find(found[1])
        if grant is None:
            raise _refusal(401, "invalid_token", "The token is not known.")
        if not grant.covers(head.route):
            raise _refusal(403, "insufficient_scope", "The token is not for this route.")
        return Admitted(grant.name, hidden=_AUTHORIZATION)


def _refusal(status: int, error: str | None, detail: str) -> HTTPError:
    """A refusal as RFC 6750, section 3, has it."""
    challenge = _BEARER if error is None else f'{_BEARER}, error="{error}"'
    return HTTPError(
        status,
        detail,
        headers={"WWW-Authenticate": challenge},
        extensions={"reason": error or "token_missing"},
    )


class SignedCalls:
    """A gate for those who sign their calls.

    The body of a call that passes is held to its ``Content-Digest`` as it comes.

    :param keys: the keys by their ids.
    :param now: the time, in seconds since 1970.
    :param used: the signatures that were used, by the ids of keys, where another gate had them
        before; those of this one are added.
    """

    def __init__(
        self,
        keys: Mapping[str, HmacKey],
        now: Callable[[], float] = time.time,
        used: dict[str, UsedSignatures] | None = None,
    ) -> None:
        self._keys = keys
        self._now = now
        self._used = {} if used is None else used
        for id in keys:
            self._used.setdefault(id, UsedSignatures(WINDOW))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        now: Callable[[], float] = time.time,
        used: dict[str, UsedSignatures] | None = None,
    ) -> SignedCalls:
        """Read the keys from a file, once.

        :param path: of the file; ``docs/authentication.rst`` says what it looks like.
        :param now: the time, in seconds since 1970.
        :param used: the signatures that were used, where another gate had them before.
        :raises deferpost.errors.ConfigurationError: it cannot be read, or a line is wrong.
        """
        return cls(parse_keys(read_secrets_file(path), os.fspath(path)), now, used)

    def __repr__(self) -> str:
        return f"<SignedCalls of {len(self._keys)} keys>"

    def __call__(self, head: CallHead) -> Admitted:
        """Admit a call or refuse it; see :data:`deferpost.credentials.Gate`."""
        if not is_signed(head):
            raise _missing(CHALLENGES, "The request is not signed.", "signature_missing")
        now = self._now()
        signature = verify(head, self._keys, now)
        grant = signature.key.grant
        if not grant.covers(head.route):
            raise HTTPError(
                403,
                "The key of the signature is not for this route.",
                extensions={"reason": "insufficient_scope"},
            )
        digest = expected_digest(values_of(head.headers, b"content-digest"))
        self._used[signature.key.id].use(signature.value, signature.created, now)
        return Admitted(grant.name, digest)


def is_signed(head: CallHead) -> bool:
    """Whether a call has a signature, or half of one."""
    return any(name.lower() in (b"signature", b"signature-input") for name, _ in head.headers)


class EitherOf:
    """A gate for those who have a token and those who sign.

    A call that is signed is judged by its signature, and every other one by its token.

    :param tokens: for those who have a token.
    :param signed: for those who sign.
    """

    def __init__(self, tokens: BearerTokens, signed: SignedCalls) -> None:
        self._tokens = tokens
        self._signed = signed

    def __call__(self, head: CallHead) -> Admitted:
        """Admit a call or refuse it; see :data:`deferpost.credentials.Gate`."""
        if is_signed(head):
            return self._signed(head)
        if values_of(head.headers, b"authorization"):
            return self._tokens(head)
        challenges = (("WWW-Authenticate", _BEARER), *CHALLENGES)
        raise _missing(challenges, "A bearer token or a signature is needed.", "token_missing")


def _missing(challenges: tuple[tuple[str, str], ...], detail: str, reason: str) -> HTTPError:
    return HTTPError(401, detail, headers=challenges, extensions={"reason": reason})


class Authentication(NamedTuple):
    """Who may do what with the daemon.

    :ivar gate: asks who calls; None where everybody may.
    :ivar operators: who may look into the daemon and stop what runs; None where nobody has a token.
    """

    gate: Gate | None
    operators: OperatorTokens | None


def authentication_of(
    settings: Settings, used: dict[str, UsedSignatures] | None = None
) -> Authentication:
    """Read the files that the settings name.

    :param settings: the settings.
    :param used: the signatures that were used, where a reload is not to forget them.
    :raises deferpost.errors.ConfigurationError: with all that is wrong in them.
    """
    problems: list[str] = []
    tokens: BearerTokens | None = None
    signed: SignedCalls | None = None
    operators: OperatorTokens | None = None
    if settings.tokens is not None:
        with _collected(problems):
            tokens = BearerTokens.from_file(settings.tokens)
    if settings.hmac_keys is not None:
        with _collected(problems):
            signed = SignedCalls.from_file(settings.hmac_keys, used=used)
    if settings.operator_tokens is not None:
        with _collected(problems):
            path = settings.operator_tokens
            operators = OperatorTokens.parse(read_secrets_file(path), path, _new_key())
    if problems:
        raise ConfigurationError(problems)
    if tokens is not None and signed is not None:
        return Authentication(EitherOf(tokens, signed), operators)
    return Authentication(tokens or signed, operators)


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        problems += error.problems


def _new_key() -> bytes:
    return secrets.token_bytes(32)


def read_secrets_file(path: str | os.PathLike[str]) -> str:
    """The text of a file of secrets.

    :param path: of the file.
    :raises deferpost.errors.ConfigurationError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError([f"{name}: cannot be read: {error.strerror}"]) from None
    if len(data) > _LARGEST_FILE:
        raise ConfigurationError([f"{name}: the file is larger than {_LARGEST_FILE} bytes"])
    if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
        _log.warn("{path} holds secrets and is open to everybody here: chmod 600", path=name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{name}: the file is not UTF-8: byte {error.start} is wrong"
        raise ConfigurationError([problem]) from None


def sign_post(
    url: str,
    body: bytes,
    *,
    key: str,
    secret: str | bytes,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The header fields that sign a POST, for a client.  On any thread.

    Each is good for one request: sign anew to send it again.

    :param url: where it goes.
    :param body: all of the body.
    :param key: the id of the key.
    :param secret: its secret: bytes, or text as in the file of the daemon.
    :param headers: further fields of the request that are signed too; they must be sent as here.
    :returns: ``Content-Digest``, ``Signature-Input`` and ``Signature``.
    :raises ValueError: something of it cannot be signed.
    """
    return sign(
        url,
        body,
        key=key,
        secret=secret_of(secret) if isinstance(secret, str) else secret,
        created=int(time.time()),
        nonce=secrets.token_urlsafe(12),
        fields=headers,
    )
