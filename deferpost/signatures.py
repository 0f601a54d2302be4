"""Signatures of requests (RFC 9421) with ``hmac-sha256``: what is signed, and whether it holds.

This module builds the base that a signature covers, makes signatures, and judges one that a
request brings, by the profile of ``docs/authentication.rst``.  It reads no clock, keeps no
signature (:mod:`deferpost.replays` does) and does not see the body: the signature covers its
``Content-Digest``, and :mod:`deferpost.digests` holds the body to that.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from deferpost.credentials import HmacKey
from deferpost.digests import content_digest
from deferpost.errors import HTTPError
from deferpost.model import CallHead
from deferpost.structured import Bare, InnerList, Item, inner_list_text, item_text, parse_dictionary

__all__ = [
    "CHALLENGES",
    "WINDOW",
    "Signature",
    "sign",
    "signature_base",
    "values_of",
    "verify",
]

#: Seconds that a signature is good for, after the time at which it says it was made; and before
#: that time, for clients whose clock is ahead.
WINDOW = 300

#: Header fields of a 401, which say what a client has to sign (RFC 9421, section 5.1).
CHALLENGES = (
    ("WWW-Authenticate", 'Signature realm="deferpost"'),
    (
        "Accept-Signature",
        'sig=("@method" "@path" "@query" "content-digest");created;nonce;keyid;alg="hmac-sha256"',
    ),
)

#: Bytes of the fields of a signature: anybody can have them read, before it is known to be right.
_LONGEST = 1024

_ALG = "hmac-sha256"
_DERIVED = frozenset({"@method", "@path", "@query", "@authority", "@request-target"})
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")

#: The ports that schemes do without (RFC 9421, section 2.2.3).
_DEFAULT_PORT = re.compile(rb":(80|443)?$")


class Signature(msgspec.Struct, frozen=True):
    """A signature that holds.

    :ivar key: the key that it was made with.
    :ivar value: its bytes.
    :ivar created: when it says it was made, in seconds since 1970.
    """

    key: HmacKey
    value: bytes
    created: int


def values_of(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of all fields of a name, in order.

    :param fields: names and values, as they came.
    :param name: in lower case.
    """
    return [value for each, value in fields if each.lower() == name]


def _component(
    name: str, method: str, path: str, query: bytes, fields: Mapping[bytes, Sequence[bytes]]
) -> bytes:
    """The value of a component (RFC 9421, section 2).

    :param fields: the values of the header fields, by their names in lower case.
    :raises ValueError: there is none of that name.
    """
    if name == "@method":
        return method.encode("latin-1")
    if name == "@path":
        return path.encode("latin-1") or b"/"
    if name == "@query":
        return b"?" + query
    if name == "@request-target":
        return path.encode("latin-1") + (b"?" + query if query else b"")
    values = fields.get(b"host" if name == "@authority" else name.encode("ascii"))
    if not values:
        raise ValueError(f"the request has no {name}")
    if name == "@authority":
        return _DEFAULT_PORT.sub(b"", values[0].strip().lower())
    return b", ".join(value.strip(b" \t") for value in values)


def signature_base(
    covered: InnerList,
    method: str,
    path: str,
    query: bytes,
    fields: Iterable[tuple[bytes, bytes]],
) -> bytes:
    """What a signature is made over (RFC 9421, section 2.5).

    :param covered: the names of the components, with the parameters of the signature.
    :param method: the HTTP method.
    :param path: as it is sent, without the query.
    :param query: without the question mark.
    :param fields: the header fields of the request.
    :raises ValueError: a component that it covers is not there.
    """
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        by_name.setdefault(name.lower(), []).append(value)
    lines = [
        b"%b: %b"
        % (item_text(item).encode(), _component(str(item.value), method, path, query, by_name))
        for item in covered.items
    ]
    lines.append(b'"@signature-params": ' + inner_list_text(covered).encode())
    return b"\n".join(lines)


def sign(
    url: str,
    body: bytes,
    *,
    key: str,
    secret: bytes,
    created: int,
    nonce: str | None,
    method: str = "POST",
    fields: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The header fields that sign a request.

    :param url: the URL, of which path and query are signed, as they are sent.
    :param body: the whole body.
    :param key: the id of the key.
    :param secret: its secret.
    :param created: the time, in seconds since 1970.
    :param nonce: makes this signature another than those of requests that are the same; None for
        none.
    :param method: the HTTP method.
    :param fields: further header fields of the request, which are signed too.
    :returns: ``Content-Digest``, ``Signature-Input`` and ``Signature``; of ``fields`` nothing.
    :raises ValueError: something of it cannot be signed.
    """
    parts = urlsplit(url)
    digest = content_digest(body)
    sent = {name.lower(): value for name, value in (fields or {}).items()}
    names = ("@method", "@path", "@query", "content-digest", *sent)
    parameters: dict[str, Bare] = {"created": created}
    if nonce is not None:
        parameters["nonce"] = nonce
    parameters |= {"keyid": key, "alg": _ALG}
    covered = InnerList(tuple(Item(name) for name in names), parameters)
    pairs = [(name.encode("ascii"), value.encode("latin-1")) for name, value in sent.items()]
    pairs.append((b"content-digest", digest.encode("ascii")))
    base = signature_base(covered, method, parts.path or "/", parts.query.encode("ascii"), pairs)
    value = hmac.digest(secret, base, hashlib.sha256)
    return {
        "Content-Digest": digest,
        "Signature-Input": f"sig={inner_list_text(covered)}",
        "Signature": f"sig={item_text(Item(value))}",
    }


def _refuse(reason: str, detail: str, status: int = 401) -> NoReturn:
    headers = CHALLENGES if status == 401 else ()
    raise HTTPError(status, detail, headers=headers, extensions={"reason": reason})


def _read(head: CallHead) -> tuple[InnerList, bytes]:
    """What a request says is signed, and the signature."""
    said = values_of(head.headers, b"signature-input")
    given = values_of(head.headers, b"signature")
    if sum(map(len, said)) > _LONGEST or sum(map(len, given)) > _LONGEST:
        _refuse(
            "signature_malformed", f"Signature-Input and Signature have at most {_LONGEST} bytes."
        )
    try:
        inputs, values = parse_dictionary(said), parse_dictionary(given)
    except ValueError as error:
        _refuse("signature_malformed", f"Signature or Signature-Input is malformed: {error}.")
    if len(inputs) != 1 or len(values) != 1 or inputs.keys() != values.keys():
        _refuse(
            "signature_malformed",
            "One signature is expected, with the same label in Signature and Signature-Input.",
        )
    ((covered,), (value,)) = inputs.values(), values.values()
    if not isinstance(covered, InnerList) or not isinstance(value, Item):
        _refuse("signature_malformed", "Signature-Input is a list of components, Signature is not.")
    if not isinstance(value.value, bytes):
        _refuse("signature_malformed", "The signature is not bytes between colons.")
    return covered, value.value


def _check_covered(covered: InnerList, query: bytes) -> None:
    """Whether a signature covers what it has to, and nothing that is not understood."""
    names = set()
    for item in covered.items:
        name = item.value
        known = type(name) is str and (name in _DERIVED or _FIELD_NAME.fullmatch(name))
        if not known or item.parameters:
            _refuse("signature_unsupported", "The signature covers a component of another kind.")
        if name in names:
            _refuse("signature_malformed", "The signature covers a component twice.")
        names.add(name)
    needed = {"@method", "content-digest"}
    if "@request-target" not in names:
        needed |= {"@path", "@query"} if query else {"@path"}
    missing = sorted(needed - names)
    if missing:
        _refuse("signature_incomplete", f"The signature does not cover {' and '.join(missing)}.")


def verify(head: CallHead, keys: Mapping[str, HmacKey], now: float) -> Signature:
    """Judge the signature of a request.

    Whether it may use the route, was seen before or has the body that it says is not asked here.

    :param head: the request, which has a signature or half of one.
    :param keys: the keys by their ids.
    :param now: the time, in seconds since 1970.
    :raises deferpost.errors.HTTPError: 401, or 403 where the signature is right but too old; the
        ``reason`` says which rule was broken.
    """
    covered, value = _read(head)
    _check_covered(covered, head.query)
    parameters = covered.parameters
    created, id = parameters.get("created"), parameters.get("keyid")
    expires = parameters.get("expires", created)
    if type(created) is not int or type(id) is not str or type(expires) is not int:
        _refuse(
            "signature_incomplete", "The signature has no created and keyid, as they should be."
        )
    if parameters.get("alg", _ALG) != _ALG:
        _refuse("signature_unsupported", f"The algorithm of the signature is not {_ALG}.")
    key = keys.get(id)
    if key is None:
        _refuse("signature_key_unknown", "The key of the signature is not known.")
    try:
        base = signature_base(covered, head.method, head.path, head.query, head.headers)
    except ValueError as error:
        _refuse("signature_incomplete", f"The signature covers what is not there: {error}.")
    # In constant time: an attacker chooses the value, and is not to learn how far it is right.
    if not hmac.compare_digest(hmac.digest(key.secret, base, hashlib.sha256), value):
        _refuse("signature_wrong", "The signature is not that of this request with this key.")
    if not now - WINDOW <= created <= now + WINDOW:
        _refuse("signature_stale", f"The signature was not made within {WINDOW} seconds.", 403)
    if "expires" in parameters and expires < now:
        _refuse("signature_stale", "The signature has expired.", 403)
    return Signature(key, value, created)
