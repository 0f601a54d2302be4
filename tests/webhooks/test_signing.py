"""Signatures of webhooks, by the Standard Webhooks scheme."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import ConfigurationError
from deferpost.model import State
from deferpost.records import JobRecord
from deferpost.webhooks.signing import HookSecret, hook_id, parse_secrets, sign, verify

#: The example of the Standard Webhooks specification and of its libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330.0
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def _secret(number: int) -> HookSecret:
    return HookSecret("whsec_" + base64.b64encode(bytes([number]) * 32).decode())


def test_the_example() -> None:
    """The example that all libraries share is signed as they sign it."""
    headers = sign([HookSecret(SECRET)], ID, AT, BODY)
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }
    assert verify([HookSecret(SECRET)], headers, BODY, AT) == ID


def test_rotation() -> None:
    """While secrets change, a receiver that knows one of them is content."""
    old, new, other = map(_secret, range(3))
    headers = sign([new, old], "a", AT, BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for known in ([old], [new], [other, old]):
        assert verify(known, headers, BODY, AT) == "a"
    with pytest.raises(ValueError, match="no signature"):
        verify([other], headers, BODY, AT)
    with pytest.raises(ValueError, match="no signature"):
        verify([], headers, BODY, AT)


def test_any_case_of_names() -> None:
    """Names of header fields have no case."""
    headers = {name.title(): value for name, value in sign([_secret(1)], "a", AT, BODY).items()}
    assert verify([_secret(1)], headers, BODY, AT) == "a"


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 10**11))
def test_any_body(body: bytes, other: bytes, at: int) -> None:
    """A body is signed as it is, and no other passes for it."""
    headers = sign([_secret(1)], "a", at, body)
    assert verify([_secret(1)], headers, body, at) == "a"
    if other != body:
        with pytest.raises(ValueError, match="no signature"):
            verify([_secret(1)], headers, other, at)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"webhook-id": None}, "there is no webhook-id"),
        ({"webhook-timestamp": None}, "there is no webhook-timestamp"),
        ({"webhook-signature": None}, "there is no webhook-signature"),
        ({"webhook-id": ""}, "webhook-id is malformed"),
        ({"webhook-id": "a.1"}, "webhook-id is malformed"),
        ({"webhook-id": "b"}, "no signature"),
        ({"webhook-timestamp": "1614265331"}, "no signature"),
        ({"webhook-timestamp": "-1"}, "not a number"),
        ({"webhook-timestamp": "1614265330.0"}, "not a number"),
        ({"webhook-timestamp": "\u0661"}, "not a number"),
        ({"webhook-timestamp": "1614265029"}, "too far from now"),
        ({"webhook-timestamp": "1614265631"}, "too far from now"),
        ({"webhook-signature": ""}, "no signature"),
        ({"webhook-signature": "v1a," + SIGNATURE[3:]}, "no signature"),
        ({"webhook-signature": "\udc80\u00e4"}, "no signature"),
        ({"webhook-signature": "v1,x " * 32 + SIGNATURE}, "no signature"),
    ],
)
def test_not_to_be_trusted(changes: dict[str, str | None], words: str) -> None:
    """A notification that was changed, or is too old, is refused."""
    secrets = [HookSecret(SECRET)]
    fields: dict[str, str | None] = {**sign(secrets, "a", AT, BODY), **changes}
    headers = {name: value for name, value in fields.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        verify(secrets, headers, BODY, AT)


def test_tolerance() -> None:
    """How far clocks may differ is for the receiver to say."""
    headers = sign([_secret(1)], "a", AT, BODY)
    assert verify([_secret(1)], headers, BODY, AT + 300) == "a"
    assert verify([_secret(1)], headers, BODY, AT - 1000, tolerance=1000) == "a"
    with pytest.raises(ValueError, match="too far"):
        verify([_secret(1)], headers, BODY, AT + 2, tolerance=1)


@pytest.mark.parametrize("id", ["", "a.b", "a b", "\u00e4", "a" * 513])
def test_ids_that_cannot_be_sent(id: str) -> None:
    """An id that could pass for another, or is no header field, is refused."""
    with pytest.raises(ValueError, match="not the id"):
        sign([_secret(1)], id, AT, BODY)


def _record(number: int, id: str) -> JobRecord:
    return JobRecord(
        number=number,
        id=id,
        request_id="r",
        route="/a",
        pool="thread",
        principal=None,
        state=State.SUCCEEDED,
        created=AT,
        ttl=1.0,
        urgency=3,
        retries=0,
    )


IDS = st.text("ab.~_-01", min_size=1, max_size=128)


@given(IDS, IDS, st.integers(1, 10**9))
def test_ids_of_jobs(id: str, other: str, number: int) -> None:
    """Whatever id a client has chosen can be sent, and two jobs are two."""
    made = hook_id(_record(number, id))
    assert sign([_secret(1)], made, AT, BODY)["webhook-id"] == made
    assert (hook_id(_record(number, other)) == made) == (other == id)
    assert hook_id(_record(number + 1, id)) != made


def test_a_file_of_secrets() -> None:
    """A file has a secret a line, and words for people."""
    text = f"# The newest first.\n{SECRET}  # since May\n\n\t{_text(24)}\r\n{_text(64)}"
    secrets = parse_secrets(text, "file")
    assert [len(secret.key) for secret in secrets] == [24, 24, 64]
    assert secrets[0].signature(ID, int(AT), BODY) == SIGNATURE


def _text(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["file: there is no secret in this file"]),
        ("# none\n", ["file: there is no secret in this file"]),
        ("secret", ["file, line 1: a secret begins with whsec_"]),
        ("\nwhsec_!", ["file, line 2: what follows whsec_ is not base64"]),
        ("whsec_\u00e4", ["file, line 1: what follows whsec_ is not base64"]),
        (_text(23), ["file, line 1: a secret has 24 to 64 bytes, in base64"]),
        (_text(65), ["file, line 1: a secret has 24 to 64 bytes, in base64"]),
        (f"name {SECRET}", ["file, line 1: a line has one secret and nothing else"]),
        (
            f"x\n{SECRET}\n{SECRET}",
            [
                "file, line 1: a secret begins with whsec_",
                "file, line 3: this secret stands on an earlier line, too",
            ],
        ),
        (
            "\n".join(_text(size) for size in range(24, 33)),
            ["file: there are 9 secrets, and 8 at most"],
        ),
    ],
)
def test_a_file_that_is_wrong(text: str, problems: list[str]) -> None:
    """All that is wrong is said at once, by line, and no secret is in it."""
    with pytest.raises(ConfigurationError) as caught:
        parse_secrets(text, "file")
    assert list(caught.value.problems) == problems


def test_no_secret_is_printed() -> None:
    """A secret that gets into a log by accident says nothing."""
    assert repr(HookSecret(SECRET)) == "<HookSecret>"
