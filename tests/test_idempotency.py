"""The keys by which clients recognize their calls, and the fingerprints of these."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import HTTPError
from deferpost.idempotency import LONGEST_KEY, Fingerprint, key_of
from deferpost.model import CallHead
from deferpost.structured import Item, item_text

UUID = "8e03978e-40d5-43e8-bc93-6894a57f9324"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        ([b'"' + UUID.encode() + b'"'], UUID),  # the example of the draft, section 2.1
        ([UUID.encode()], UUID),
        ([b" \tabc "], "abc"),
        ([b' "abc"\t'], "abc"),
        ([b'"a \\"b\\" \\\\ c, d;e"'], 'a "b" \\ c, d;e'),
        ([b'"abc";for=you'], "abc"),  # parameters mean nothing (RFC 9651, section 1.2)
        ([b'"abc"', b"abc"], "abc"),
        ([b"KG5LxwFBepaKHyUD"], "KG5LxwFBepaKHyUD"),
        ([b"order/12=34+5:6"], "order/12=34+5:6"),
        ([b"x" * LONGEST_KEY], "x" * LONGEST_KEY),
        ([b'"' + b'\\"' * LONGEST_KEY + b'"'], '"' * LONGEST_KEY),
    ],
)
def test_keys(values: list[bytes], key: str | None) -> None:
    """A key may have quotes or none, and may come again as long as it is the same."""
    assert key_of(values) == key


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([b""], "is empty"),
        ([b"  "], "is empty"),
        ([b'""'], "is empty"),
        ([b"a", b""], "is empty"),
        ([b"a", b"b"], "comes more than once, with different keys"),
        ([b"a", b'"A"'], "comes more than once, with different keys"),
        ([b"x" * 256], "is longer than 255 characters"),
        ([b'"' + b"x" * 256 + b'"'], "is longer than 255 characters"),
        ([b"x" * 100_000], "is longer than 255 characters"),
        ([b'"a'], "is malformed: a value is expected at character 1"),
        ([b'"a"b'], "is malformed: the end is expected at character 4"),
        ([b'"a", "a"'], "is malformed: the end is expected at character 4"),
        ([b'"\xe4"'], "is malformed"),
        ([b'"a\tb"'], "is malformed"),
        ([b"a, b"], "in double quotes"),
        ([b"a,a"], "in double quotes"),
        ([b"a;b"], "in double quotes"),
        ([b'a"b'], "in double quotes"),
        ([b"a b"], "in double quotes"),
        ([b"a\\b"], "in double quotes"),
        ([b"\xe4"], "in double quotes"),
        ([b"a\0"], "in double quotes"),
    ],
)
def test_no_keys(values: list[bytes], words: str) -> None:
    """Anything but one key is a mistake of the client, which is told of it."""
    with pytest.raises(HTTPError) as caught:
        key_of(values)
    assert caught.value.status == 400
    assert words in caught.value.detail
    assert caught.value.extensions == {"reason": "idempotency_key_unusable"}


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_every_printable_key(key: str) -> None:
    """Whatever can be written as a string is a key."""
    assert key_of([item_text(Item(key)).encode()]) == key


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_any_bytes(values: list[bytes]) -> None:
    """Any bytes are a key or an error of the one kind."""
    try:
        key = key_of(values)
    except HTTPError:
        return
    assert (key is None) == (not values)
    assert key is None or (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable())


HEAD = CallHead("id", "/a", "POST", "/a/b", b"q=1", ((b"Content-Type", b"text/plain"),), None, None)


def _fingerprint(head: CallHead, *pieces: Any) -> bytes:
    made = Fingerprint(head)
    for piece in pieces:
        made.update(piece)
    return made.digest()


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_pieces(body: bytes, cuts: list[int]) -> None:
    """However a body is cut, its call has the same fingerprint."""
    edges = [0, *sorted(cuts), len(body)]
    pieces = [memoryview(body)[start:end] for start, end in itertools.pairwise(edges)]
    assert _fingerprint(HEAD, *pieces) == _fingerprint(HEAD, body)
    assert _fingerprint(HEAD, body, b"x") != _fingerprint(HEAD, body)


@pytest.mark.parametrize(
    "change",
    [
        {"route": "/b"},
        {"method": "PUT"},
        {"path": "/a/c"},
        {"query": b"q=2"},
        {"query": b""},
        {"headers": ()},
        {"headers": ((b"content-type", b"text/html"),)},
        {"path": "/a/bq", "query": b"=1"},
    ],
)
def test_another_call(change: dict[str, Any]) -> None:
    """A call that says something else to its route has another fingerprint."""
    assert _fingerprint(msgspec.structs.replace(HEAD, **change), b"x") != _fingerprint(HEAD, b"x")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "another"},
        {"client": ("192.0.2.1", 1)},
        {"timeout": 5.0},
        {"finish_by": 5.0},
        {"principal": "ann"},
        {"headers": ((b"X-Request-ID", b"7"), (b"CONTENT-TYPE", b"text/plain"))},
    ],
)
def test_the_same_call(change: dict[str, Any]) -> None:
    """What changes from one attempt to the next is not part of it."""
    assert _fingerprint(msgspec.structs.replace(HEAD, **change), b"x") == _fingerprint(HEAD, b"x")


def test_a_path_that_is_no_text() -> None:
    """A path with surrogates has a fingerprint, too."""
    assert len(_fingerprint(msgspec.structs.replace(HEAD, path="/\udc80\ud800"))) == 32
