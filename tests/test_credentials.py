"""Files of names and secrets: what a line grants, what is wrong with it, what is never told."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.credentials import (
    Admitted,
    Grant,
    Grants,
    OperatorTokens,
    parse_keys,
    parse_tokens,
)
from deferpost.errors import ConfigurationError
from deferpost.model import CallHead

KEY = b"k" * 32
ALICE, BOB = "alice-token-1234567890", "bob-token-1234567890~+/=="
FILE = f"""
# who may call
alice  {ALICE}
bob    sha256:{hashlib.sha256(BOB.encode()).hexdigest().upper()}   /rst,/reports/*  # for a while
alice\tsecond-token-1234567890\r
"""


def grants(text: str = FILE) -> Grants:
    """The tokens of a file."""
    return Grants(parse_tokens(text, "tokens"), KEY)


def problems_of(text: str, **how: bool) -> list[str]:
    """What is wrong with a file of tokens."""
    with pytest.raises(ConfigurationError) as caught:
        parse_tokens(text, "tokens", **how)
    return list(caught.value.problems)


def test_a_token_says_who_it_is() -> None:
    """A token is known by itself or by its hash, and one person may have several."""
    found = grants()
    assert found.find(ALICE.encode()) == Grant("alice")
    assert found.find(b"second-token-1234567890") == Grant("alice")
    assert found.find(BOB.encode()) == Grant("bob", ("/rst", "/reports/*"))


@given(st.binary(max_size=100))
def test_nothing_else_is_a_token(token: bytes) -> None:
    """Whatever else is sent is known as nobody's; the hash that stands in the file is, too."""
    found = grants()
    assert token in (ALICE.encode(), BOB.encode()) or found.find(token) is None
    assert found.find(hashlib.sha256(BOB.encode()).hexdigest().encode()) is None
    assert found.find(ALICE.encode()[:-1]) is None


@pytest.mark.parametrize(
    ("routes", "route", "covered"),
    [
        ((), "/any", True),
        (("/rst",), "/rst", True),
        (("/rst",), "/rst2", False),
        (("/rst", "/reports/*"), "/reports/7", True),
        (("/reports/*",), "/reports", False),
        (("/*",), "/", True),
    ],
)
def test_routes_of_a_grant(routes: tuple[str, ...], route: str, covered: bool) -> None:
    """A line without routes is for all of them, and a star stands for the rest of a path."""
    assert Grant("a", routes).covers(route) is covered


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("alice", "line 2: a line has a name and a token, and if need be routes"),
        ("alice token-1234567890 /a /b", "line 2: a line has a name and a token"),
        ("alice short", "line 2: a token has at least 16 characters"),
        ("alice token-1234567890\xe9", "line 2: a token has letters, digits and"),
        ("alice token=1234567890abc", "line 2: a token has letters, digits and"),
        ("alice sha256:12", "line 2: sha256: is followed by 64 hexadecimal digits"),
        ("alice SHA256:12", "line 2: sha256: is followed by 64 hexadecimal digits"),
        ("\xe9lice token-1234567890", "line 2: a name has at most 64 characters"),
        ("a" * 65 + " token-1234567890", "line 2: a name has at most 64 characters"),
        ("alice token-1234567890 rst", "line 2: the routes are not paths such as"),
        ("alice token-1234567890 /a,", "line 2: the routes are not paths such as"),
        ("alice token-1234567890 /a*b", "line 2: the routes are not paths such as"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line: str, problem: str) -> None:
    """What is wrong is said with file and line, and without a word that could be the secret."""
    (found,) = problems_of(f"good good-token-1234567890\n{line}\n")
    assert found.startswith(f"tokens, {problem}")
    for word in line.split():
        assert word not in found.split()


def test_all_that_is_wrong_is_said() -> None:
    """Each wrong line has its problem, a token that comes twice too, and nothing is granted."""
    assert problems_of("a b\nc\nd token-1234567890\ne token-1234567890") == [
        "tokens, line 1: a token has at least 16 characters",
        "tokens, line 2: a line has a name and a token, and if need be routes with commas and no "
        "spaces",
        "tokens, line 4: this token stands on an earlier line, too",
    ]
    assert problems_of(" \n# a b\n") == ["tokens: there is no token in this file"]
    assert problems_of("a token-1234567890 /a", routes=False) == [
        "tokens, line 1: a line has a name and a token"
    ]


def test_secrets_are_not_shown() -> None:
    """Neither tokens nor secrets are in what objects say of themselves, or kept as they are."""
    found = grants()
    assert repr(found) == "<Grants of 3 tokens>"
    kept = repr(found._found).encode() + b"".join(found._found)
    assert ALICE.encode() not in kept
    # A dictionary compares its keys in a time that depends on them: they are of no use to anybody.
    assert hashlib.sha256(ALICE.encode()).digest() not in found._found
    assert Grants(parse_tokens(FILE, "f"), b"another")._found.keys().isdisjoint(found._found)
    (key,) = parse_keys("ci a-secret-1234567890", "keys").values()
    assert repr(key) == "<HmacKey ci>"


# Operators


def operators() -> OperatorTokens:
    """Operators with one token."""
    return OperatorTokens.parse(f"root {ALICE}", "operators", KEY)


def basic(userpass: str) -> bytes:
    """An Authorization of the scheme Basic."""
    return b"Basic " + base64.b64encode(userpass.encode())


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {ALICE}".encode(),
        f"bEARER   {ALICE} ".encode(),
        basic(f"anybody:{ALICE}"),
        basic(f":{ALICE}").replace(b"Basic", b"basic"),
    ],
)
def test_an_operator(authorization: bytes) -> None:
    """An operator shows the token as a bearer, or as the password for which a browser asks."""
    assert operators().name(authorization) == "root"
    assert operators().allows(authorization)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong-token-1234567890",
        ALICE.encode(),
        f"Bearer {ALICE} x".encode(),
        f"Digest {ALICE}".encode(),
        b"Basic",
        b"Basic =",
        b"Basic A",
        b"Basic " + b"A" * 100_000,
        basic(ALICE),
        basic(f"{ALICE}:"),
        basic(f"root:{ALICE}x"),
        basic(f"root:x:{ALICE}"),
        bytes(range(256)),
    ],
)
def test_not_an_operator(authorization: bytes | None) -> None:
    """Nobody else is one, whatever the header holds."""
    assert operators().name(authorization) is None
    assert not operators().allows(authorization)


# Keys


def test_keys() -> None:
    """A secret is text or base64, and may be for some routes alone."""
    keys = parse_keys(
        "ci  a-secret-1234567890\n"
        "cd  base64:AAECAwQFBgcICQoLDA0ODw==  /a,/b*\n"
        "ce  sécret-1234567890\n",
        "keys",
    )
    assert [keys[id].secret for id in ("ci", "cd")] == [b"a-secret-1234567890", bytes(range(16))]
    assert keys["ce"].secret == "sécret-1234567890".encode()
    assert keys["ci"].grant == Grant("ci")
    assert keys["cd"].grant == Grant("cd", ("/a", "/b*"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ci", "keys, line 1: a line has a name and a secret"),
        ("ci tooshort", "keys, line 1: a secret has at least 16 bytes"),
        ("ci base64:AAEC", "keys, line 1: a secret has at least 16 bytes"),
        ("ci base64:A?", "keys, line 1: what follows base64: is not base64"),
        ("\x07 a-secret-1234567890", "keys, line 1: a name has at most 64 characters"),
        (
            "ci a-secret-1234567890\nci another-secret-1234567890",
            "keys, line 2: this key's id stands on an earlier line, too",
        ),
        ("", "keys: there is no key in this file"),
    ],
)
def test_wrong_keys(text: str, problem: str) -> None:
    """A file of keys is read as strictly as one of tokens."""
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text, "keys")
    (found,) = caught.value.problems
    assert found.startswith(problem)


# What a gate lets a call pass with


def test_what_a_gate_returns() -> None:
    """A gate may return nothing, a name, or more; the handler is shown what is left."""
    head = CallHead("i", "/", "POST", "/", b"", ((b"Secret", b"x"), (b"A", b"y")), None, None)
    assert Admitted.of(None).shown(head) == head
    assert Admitted.of("alice").shown(head).principal == "alice"
    shown = Admitted.of(Admitted("bob", hidden=frozenset({b"secret"}))).shown(head)
    assert (shown.principal, shown.headers) == ("bob", ((b"A", b"y"),))
