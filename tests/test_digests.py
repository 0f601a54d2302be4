"""The digest of a body against what Content-Digest says of it."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.digests import content_digest, expected_digest
from deferpost.errors import HTTPError

#: RFC 9530, appendix B.1 and further: the body and its digest.
HELLO = b'{"hello": "world"}\n'
SHA_256 = b"sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_the_digest_of_the_rfc() -> None:
    """The example of RFC 9530 holds, and is what we write."""
    digest = expected_digest([SHA_256])
    digest.update(HELLO)
    digest.check()
    assert content_digest(HELLO).encode() == SHA_256


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)), st.sampled_from([256, 512]))
def test_any_pieces(body: bytes, cuts: list[int], size: int) -> None:
    """However a body is cut, it has its digest; with a byte more it has not."""
    digest = expected_digest([content_digest(body, f"sha-{size}").encode()])
    edges = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        digest.update(body[start:end])
    digest.check()
    digest.update(b"x")
    with pytest.raises(HTTPError) as caught:
        digest.check()
    assert caught.value.status == 400
    assert caught.value.extensions == {"reason": "digest_mismatch"}


def test_several_digests() -> None:
    """All that are known have to agree, and others are passed over."""
    other = base64.b64encode(hashlib.sha512(b"other").digest())
    digest = expected_digest([b"md5=:AAAA:", SHA_256, b"sha-512=:" + other + b":"])
    digest.update(HELLO)
    with pytest.raises(HTTPError, match="sha-512"):
        digest.check()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b""],
        [b"md5=:AAAA:"],
        [b"sha-256=:AAAA:"],
        [b"sha-256"],
        [b"sha-256=(:AAAA:)"],
        [b"sha-256=" + b"a" * 64],
        [SHA_256, SHA_256],
        [b"\xff" * 1000],
        [SHA_256, b"x=?1," * 1000 + b"y"],
    ],
)
def test_no_digest(lines: list[bytes]) -> None:
    """A field that says no digest, or two, is a mistake of the client."""
    with pytest.raises(HTTPError) as caught:
        expected_digest(lines)
    assert caught.value.status == 400
    assert caught.value.extensions == {"reason": "digest_unusable"}
