"""Signatures of requests: those of the RFC, those of our clients, and those that do not hold."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.credentials import Grant, HmacKey
from deferpost.errors import HTTPError
from deferpost.model import CallHead
from deferpost.signatures import CHALLENGES, sign, signature_base, verify
from deferpost.structured import InnerList, Item, inner_list_text, item_text, parse_dictionary

NOW = 1_618_884_473.5
KEY = HmacKey("ci", b"a-secret-of-ci-1234567890", Grant("ci"))
KEYS = {"ci": KEY}

#: RFC 9421, appendix B.1.5 and B.2.5.
RFC_SECRET = base64.b64decode(
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)
RFC_FIELDS = (
    (b"Host", b"example.com"),
    (b"Date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
    (b"Content-Type", b"application/json"),
    (b"Content-Digest", b"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm==:"),
    (b"Content-Length", b"18"),
)
RFC_INPUT = (
    b'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
)
RFC_SIGNATURE = "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


def test_the_signature_of_the_rfc() -> None:
    """The example of RFC 9421, appendix B.2.5, has our base and our signature."""
    covered = parse_dictionary([RFC_INPUT])["sig-b25"]
    assert isinstance(covered, InnerList)
    base = signature_base(covered, "POST", "/foo", b"param=Value&Pet=dog", RFC_FIELDS)
    assert base == (
        b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        b'"@authority": example.com\n'
        b'"content-type": application/json\n'
        b'"@signature-params": ("date" "@authority" "content-type")'
        b';created=1618884473;keyid="test-shared-secret"'
    )
    value = hmac.digest(RFC_SECRET, base, hashlib.sha256)
    assert base64.b64encode(value).decode() == RFC_SIGNATURE


def test_components() -> None:
    """Each component has the value that RFC 9421, section 2, gives it."""
    names = ("@method", "@path", "@query", "@request-target", "@authority", "x-a")
    fields = ((b"HOST", b" Example.COM:443"), (b"X-A", b" 1 "), (b"x-a", b"2,  3"))
    base = signature_base(InnerList(tuple(map(Item, names))), "POST", "/a%20b", b"q=%2F", fields)
    assert base.decode().split("\n") == [
        '"@method": POST',
        '"@path": /a%20b',
        '"@query": ?q=%2F',
        '"@request-target": /a%20b?q=%2F',
        '"@authority": example.com',
        '"x-a": 1, 2,  3',
        '"@signature-params": ("@method" "@path" "@query" "@request-target" "@authority" "x-a")',
    ]
    bare = signature_base(
        InnerList(tuple(map(Item, names[1:5]))), "POST", "", b"", ((b"Host", b"[::1]:8080"),)
    )
    assert bare.decode().split("\n")[:4] == [
        '"@path": /',
        '"@query": ?',
        '"@request-target": ',
        '"@authority": [::1]:8080',
    ]


def head(target: str, fields: dict[str, str], *more: tuple[bytes, bytes]) -> CallHead:
    """A call with these fields."""
    path, _, query = target.partition("?")
    pairs = tuple((name.encode(), value.encode("latin-1")) for name, value in fields.items())
    return CallHead("id", "/r", "POST", path, query.encode(), (*pairs, *more), None, None)


def signed(target: str = "/r?a=1", body: bytes = b"body", **how: object) -> dict[str, str]:
    """The fields of a signed call."""
    options: dict[str, object] = {"key": "ci", "secret": KEY.secret, "created": int(NOW)}
    options |= {"nonce": "n-1", **how}
    return sign(f"http://example.com{target}", body, **options)  # type: ignore[arg-type]


def test_what_is_signed_holds() -> None:
    """A call that our client signed passes, whatever the daemon is called."""
    found = verify(head("/r?a=1", signed()), KEYS, NOW)
    assert (found.key, found.created, len(found.value)) == (KEY, int(NOW), 32)
    verify(head("/r", signed("/r", nonce=None)), KEYS, NOW)
    verify(head("/", signed("")), KEYS, NOW)
    fields = {"Content-Type": "text/plain", "Date": "today "}
    verify(head("/r", {**signed("/r", fields=fields), **fields}), KEYS, NOW)


@given(
    st.from_regex(r"/[a-z0-9%/.~-]{0,20}(\?[a-z0-9%=&+]{0,20})?", fullmatch=True),
    st.binary(max_size=50),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)
def test_any_call(target: str, body: bytes, nonce: str) -> None:
    """Any path, query, body and nonce can be signed."""
    verify(head(target, signed(target, body, nonce=nonce)), KEYS, NOW)


def refusal(call: CallHead, now: float = NOW) -> tuple[int, object]:
    """Status and reason with which a call is refused."""
    with pytest.raises(HTTPError) as caught:
        verify(call, KEYS, now)
    error = caught.value
    assert error.headers == (CHALLENGES if error.status == 401 else ())
    assert error.detail.endswith(".")
    return error.status, error.extensions["reason"]


@pytest.mark.parametrize(
    "call",
    [
        head("/r?a=2", signed()),
        head("/r?a=1&", signed()),
        head("/R?a=1", signed()),
        head("/r?a=1", {**signed(), "Content-Digest": signed(body=b"other")["Content-Digest"]}),
        head("/r?a=1", {**signed(), "Signature": signed(nonce="n-2")["Signature"]}),
        head("/r?a=1", signed(secret=b"another-secret-1234567890")),
        head("/r?a=1", {**signed(), "Signature": "sig=:AAAA:"}),
        head("/r?a=1", {**signed(), "Signature": "sig=::"}),
        head("/r", {**signed("/r", fields={"X-A": "1"}), "X-A": "2"}),
        head("/r", {**signed("/r", fields={"X-A": "1"}), "X-A": "1"}, (b"x-a", b"1")),
    ],
)
def test_what_was_changed_does_not_hold(call: CallHead) -> None:
    """A signature is of one call: with another path, query, digest, field or key it is wrong."""
    assert refusal(call) == (401, "signature_wrong")


def made(covered: str, parameters: str) -> CallHead:
    """A call that is signed with the right key, over what the test says."""
    text = f"({covered}){parameters}"
    inner = parse_dictionary([f"s={text}".encode()])["s"]
    assert isinstance(inner, InnerList)
    fields = {"Content-Digest": "sha-256=:AA==:", "Host": "a", "X-A": "1"}
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    try:
        base = signature_base(inner, "POST", "/r", b"a=1", pairs)
    except (ValueError, TypeError):
        base = b""
    value = item_text(Item(hmac.digest(KEY.secret, base, hashlib.sha256)))
    lines = {"Signature-Input": f"s={inner_list_text(inner)}", "Signature": f"s={value}"}
    return head("/r?a=1", {**fields, **lines})


ALL = '"@method" "@path" "@query" "content-digest"'
GOOD = f';created={int(NOW)};keyid="ci"'


@pytest.mark.parametrize(
    ("covered", "parameters"),
    [
        (ALL, GOOD),
        ('"content-digest" "@request-target" "@method"', GOOD),
        (f'{ALL} "@authority" "x-a"', GOOD),
        (ALL, f'{GOOD};alg="hmac-sha256";tag="x y";expires={int(NOW) + 1};other=?0;t=a/b;u=:AA==:'),
    ],
)
def test_other_clients(covered: str, parameters: str) -> None:
    """What else another client covers and says is no matter, if all that is needed is there."""
    verify(made(covered, parameters), KEYS, NOW)


@pytest.mark.parametrize(
    ("covered", "parameters", "reason"),
    [
        ("", GOOD, "incomplete"),
        ('"@path" "@query" "content-digest"', GOOD, "incomplete"),
        ('"@method" "@query" "content-digest"', GOOD, "incomplete"),
        ('"@method" "@path" "content-digest"', GOOD, "incomplete"),
        ('"@method" "@path" "@query"', GOOD, "incomplete"),
        (f'{ALL} "x-b"', GOOD, "incomplete"),
        (ALL, ';keyid="ci"', "incomplete"),
        (ALL, f";created={int(NOW)}", "incomplete"),
        (ALL, f";created={int(NOW)};keyid=ci", "incomplete"),
        (ALL, ';created="now";keyid="ci"', "incomplete"),
        (ALL, ';created;keyid="ci"', "incomplete"),
        (ALL, f'{GOOD};expires="never"', "incomplete"),
        (ALL, f';created={int(NOW)};keyid="cd"', "key_unknown"),
        (ALL, f'{GOOD};alg="none"', "unsupported"),
        (ALL, f'{GOOD};alg="rsa-pss-sha512"', "unsupported"),
        (f'{ALL} "@scheme"', GOOD, "unsupported"),
        (f'{ALL} "@status"', GOOD, "unsupported"),
        (f'{ALL} "@query-param";name="a"', GOOD, "unsupported"),
        (f'{ALL} "x-a";bs', GOOD, "unsupported"),
        (f'{ALL} "X-A"', GOOD, "unsupported"),
        (f"{ALL} x-a", GOOD, "unsupported"),
        (f"{ALL} 7", GOOD, "unsupported"),
        (f'{ALL} "@method"', GOOD, "malformed"),
    ],
)
def test_what_a_signature_has_to_cover(covered: str, parameters: str, reason: str) -> None:
    """A signature over less than the profile asks for, or over something else, is refused."""
    assert refusal(made(covered, parameters)) == (401, f"signature_{reason}")


@pytest.mark.parametrize(
    "lines",
    [
        {"Signature": None},
        {"Signature-Input": None},
        {"Signature": "sig"},
        {"Signature": "sig=7"},
        {"Signature": "sig=(:AA==:)"},
        {"Signature": "other=:AA==:"},
        {"Signature": "sig=:AA==:, other=:AA==:"},
        {"Signature": "sig=:AA"},
        {"Signature-Input": "sig"},
        {"Signature-Input": "sig=("},
        {"Signature-Input": "sig=()" * 150},
        {"Signature-Input": "sig=()" + ";a" * 1000},
        {"Signature": "sig=:" + "A" * 5000 + ":"},
        {"Signature-Input": "\xff\x00"},
        {"Signature-Input": ""},
    ],
)
def test_malformed(lines: dict[str, str | None]) -> None:
    """One signature is expected, in both of its fields, and well-formed."""
    fields = {**signed(), **lines}
    call = head("/r?a=1", {name: value for name, value in fields.items() if value is not None})
    assert refusal(call) == (401, "signature_malformed")


def test_repeated_fields() -> None:
    """A second signature beside the first is refused, on a line of its own too."""
    for name in (b"Signature", b"signature-input"):
        value = signed()["Signature" if name == b"Signature" else "Signature-Input"].encode()
        call = head("/r?a=1", signed(), (name, value))
        assert refusal(call) == (401, "signature_malformed")


@pytest.mark.parametrize("age", [-301, -300, 0, 300, 301])
def test_freshness(age: int) -> None:
    """A signature is good for five minutes, before and after the time that it says."""
    call = head("/r?a=1", signed(created=int(NOW) - age))
    if abs(age) <= 300:
        verify(call, KEYS, int(NOW))
    else:
        assert refusal(call, int(NOW)) == (403, "signature_stale")


def test_expired() -> None:
    """A client may say that a signature is good for less."""
    call = made(ALL, f"{GOOD};expires={int(NOW) + 5}")
    verify(call, KEYS, NOW + 4)
    assert refusal(call, NOW + 6) == (403, "signature_stale")


def test_the_secret_decides_before_the_age() -> None:
    """Who does not know the secret does not learn whether the time was right."""
    call = head("/r?a=1", signed(secret=b"another-secret-1234567890", created=0))
    assert refusal(call) == (401, "signature_wrong")
