"""The gates of the daemon and of mounted apps: whom they let pass, and what others are told."""

from __future__ import annotations

import contextlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

import deferpost
from deferpost import App, Call
from deferpost.authentication import (
    BearerTokens,
    EitherOf,
    SignedCalls,
    authentication_of,
    sign_post,
)
from deferpost.credentials import (
    OWN_JOBS,
    Admitted,
    Grant,
    Grants,
    HmacKey,
    parse_keys,
    parse_tokens,
)
from deferpost.errors import ConfigurationError, HTTPError
from deferpost.model import CallHead
from deferpost.replays import UsedSignatures
from deferpost.settings import Settings
from deferpost.signatures import CHALLENGES, WINDOW, sign
from deferpost.testing import PostClient

TOKEN, SECRET = "alice-token-1234567890", "a-secret-of-ci-1234567890"
TOKENS = f"alice {TOKEN}\nbob bob-token-1234567890 /other"
KEYS = f"ci {SECRET}\ncd {SECRET} /other"


def call(*fields: tuple[str, bytes | str], target: str = "/r") -> CallHead:
    """A call with these fields, of the route /r."""
    pairs = tuple(
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in fields
    )
    return CallHead("id", "/r", "POST", target, b"", pairs, None, None)


def bearer() -> BearerTokens:
    """A gate with two tokens."""
    return BearerTokens(Grants(parse_tokens(TOKENS, "tokens"), b"key"))


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def signed_fields(**how: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a call that a client signs now."""
    options = {"key": "ci", "secret": SECRET, **how}
    return tuple(sign_post("http://x/r", b"body", **options).items())


def signed_gate(**how: Any) -> SignedCalls:
    """A gate with two keys."""
    return SignedCalls(parse_keys(KEYS, "keys"), **how)


def refused(gate: Any, head: CallHead) -> HTTPError:
    """How a gate refuses a call."""
    with pytest.raises(HTTPError) as caught:
        gate(head)
    error = caught.value
    said = f"{error} {error!r} {error.headers} {error.extensions}"
    assert TOKEN not in said
    assert SECRET not in said
    return error


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_bearer(scheme: str) -> None:
    """Who shows a token is let pass by name, and the token goes no further."""
    head = call(("AUTHORIZATION", scheme + TOKEN), ("X-A", "1"))
    admitted = bearer()(head)
    assert (admitted.principal, admitted.digest) == ("alice", None)
    shown = admitted.shown(head)
    assert (shown.principal, shown.headers) == ("alice", ((b"X-A", b"1"),))


@pytest.mark.parametrize(
    ("values", "status", "error"),
    [
        ([], 401, None),
        (["Basic YTpi"], 401, None),
        (["Bearerx " + TOKEN], 401, None),
        ([TOKEN], 401, None),
        ([""], 401, None),
        (["Bearer wrong-token-1234567890"], 401, "invalid_token"),
        (["Bearer " + TOKEN + "="], 401, "invalid_token"),
        (["Bearer " + "x" * 100_000], 401, "invalid_token"),
        (["Bearer"], 400, "invalid_request"),
        (["Bearer "], 400, "invalid_request"),
        (["Bearer " + TOKEN + ", Basic YTpi"], 400, "invalid_request"),
        (["Bearer " + TOKEN + " " + TOKEN], 400, "invalid_request"),
        (["Bearer \xff\x01"], 400, "invalid_request"),
        (["Bearer " + TOKEN, "Bearer " + TOKEN], 400, "invalid_request"),
        (["Basic YTpi", "Bearer " + TOKEN], 400, "invalid_request"),
        (["Bearer bob-token-1234567890"], 403, "insufficient_scope"),
    ],
)
def test_refused_by_token(values: list[str], status: int, error: str | None) -> None:
    """RFC 6750, section 3: the status and the challenge say what is wrong."""
    fields = [("authorization", value.encode("latin-1")) for value in values]
    found = refused(bearer(), call(*fields))
    assert found.status == status
    challenge = 'Bearer realm="deferpost"' + (f', error="{error}"' if error else "")
    assert found.headers == (("WWW-Authenticate", challenge),)
    assert found.extensions == {"reason": error or "token_missing"}


@given(st.lists(st.tuples(st.sampled_from(["authorization", "signature"]), st.binary())))
def test_any_header(fields: list[tuple[str, bytes]]) -> None:
    """Whatever headers hold, a gate refuses them with a status and fails of nothing else."""
    error = refused(EitherOf(bearer(), signed_gate()), call(*fields))
    assert error.status in (400, 401)


def test_secrets_are_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is one comparison in constant time, of values of one length, right or wrong."""
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def recording(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recording)
    bearer()(call(("Authorization", f"Bearer {TOKEN}")))
    assert compared == [(32, 32)]
    for length in range(len(TOKEN)):  # however much of it is right, it is not even found
        guess = TOKEN[:length] + "x" * (len(TOKEN) - length)
        refused(bearer(), call(("Authorization", f"Bearer {guess}")))
    assert compared == [(32, 32)]
    head = call(*signed_fields())
    for secret in (SECRET, SECRET[:-1] + "x"):
        keys = {"ci": HmacKey("ci", secret.encode(), Grant("ci"))}
        with contextlib.suppress(HTTPError):
            SignedCalls(keys)(head)
    assert compared == [(32, 32)] * 3


def test_a_signed_call() -> None:
    """Who signs is let pass by the key's name, and the body is held to its digest."""
    head = call(*signed_fields())
    admitted = signed_gate()(head)
    assert admitted.principal == "ci"
    assert admitted.shown(head).headers == head.headers
    assert admitted.digest is not None
    admitted.digest.update(b"body")
    admitted.digest.check()


def test_refused_by_signature() -> None:
    """A call without a signature, with a wrong one or for another route is refused."""
    gate = signed_gate()
    missing = refused(gate, call())
    assert (missing.status, missing.headers) == (401, CHALLENGES)
    wrong = refused(gate, call(*signed_fields(secret="not-the-secret-of-ci")))
    assert (wrong.status, wrong.extensions["reason"]) == (401, "signature_wrong")
    half = refused(gate, call(*signed_fields()[:2]))
    assert (half.status, half.extensions["reason"]) == (401, "signature_malformed")
    other = refused(gate, call(*signed_fields(key="cd")))
    assert (other.status, other.extensions["reason"]) == (403, "insufficient_scope")


def test_a_signature_passes_once() -> None:
    """The same signature does not pass again, also not after a reload."""
    used: dict[str, UsedSignatures] = {}
    head = call(*signed_fields())
    gate = signed_gate(used=used)
    gate(head)
    assert refused(gate, head).extensions["reason"] == "signature_replayed"
    again = refused(signed_gate(used=used), head)
    assert (again.status, again.extensions["reason"]) == (403, "signature_replayed")
    gate(call(*signed_fields()))  # which has another nonce


def test_a_refused_call_can_be_tried_again() -> None:
    """A signature that was refused, because a field was lost on the way, is not used up."""
    gate = signed_gate()
    fields = dict(signed_fields(headers={"X-A": "1"}))
    error = refused(gate, call(*fields.items()))
    assert error.extensions["reason"] == "signature_incomplete"
    gate(call(*fields.items(), ("X-A", "1")))


def test_a_stale_signature() -> None:
    """The gate's clock decides how old a signature is."""
    time = Time()
    error = refused(signed_gate(now=time), call(*signed_fields()))
    assert (error.status, error.extensions["reason"]) == (403, "signature_stale")
    assert f"{WINDOW} seconds" in error.detail


def test_either() -> None:
    """With both, a token suffices and so does a signature; one that is there has to hold."""
    gate = EitherOf(bearer(), signed_gate())
    authorization = ("Authorization", f"Bearer {TOKEN}")
    assert gate(call(authorization)).principal == "alice"
    assert gate(call(*signed_fields())).principal == "ci"
    assert gate(call(*signed_fields(), authorization)).principal == "ci"
    bad = signed_fields(secret="not-the-secret-of-ci")
    assert refused(gate, call(*bad, authorization)).extensions["reason"] == "signature_wrong"
    assert refused(gate, call(("Authorization", "Bearer x"))).status == 401
    missing = refused(gate, call())
    assert missing.headers == (("WWW-Authenticate", 'Bearer realm="deferpost"'), *CHALLENGES)


# Files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good files, which only their owner may read."""
    texts = {"tokens": TOKENS, "keys": KEYS, "operators": "root operator-token-1234567890"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_the_settings_decide(files: Path) -> None:
    """Without files everybody may call; each file asks for what it holds."""
    tokens, keys, operators = (str(files / name) for name in ("tokens", "keys", "operators"))
    with capturedLogs() as logs:
        assert authentication_of(Settings()) == (None, None)
        by_token = authentication_of(Settings(tokens=tokens, operator_tokens=operators))
        by_key = authentication_of(Settings(hmac_keys=keys))
        both = authentication_of(Settings(tokens=tokens, hmac_keys=keys))
    assert isinstance(by_token.gate, BearerTokens)
    assert by_token.operators is not None
    assert by_token.operators.name(b"Bearer operator-token-1234567890") == "root"
    assert isinstance(by_key.gate, SignedCalls)
    assert by_key.operators is None
    assert isinstance(both.gate, EitherOf)
    assert repr((by_token, by_key.gate)).count("of 2") == 2
    assert TOKEN not in repr((by_token, by_key))
    assert logs == []


def test_for_mounted_apps(files: Path) -> None:
    """What mounts an app gets the same gates from the public face."""
    gate = deferpost.BearerTokens.from_file(files / "tokens")
    assert gate(call(("Authorization", f"Bearer {TOKEN}"))).principal == "alice"
    signed = deferpost.SignedCalls.from_file(files / "keys")
    fields = deferpost.sign_post("http://x/r", b"", key="ci", secret=SECRET.encode())
    admitted = signed(call(*fields.items()))
    assert isinstance(admitted, Admitted)
    assert admitted.principal == "ci"


def test_handlers_know_who_calls() -> None:
    """The handler of an app behind a gate has the name, and not the token."""
    app = App()

    @app.post("/r")
    def who(call: Call) -> dict[str, Any]:
        return {"principal": call.principal, "names": sorted(call.headers)}

    with PostClient(app, gate=bearer()) as client:
        response = client.post("/r", b"", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.json()["principal"] == "alice"
        assert "authorization" not in response.json()["names"]
        assert client.post("/r", b"").status == 401
    with PostClient(app) as client:
        response = client.post("/r", b"", headers={"Authorization": "Bearer x"})
        assert response.json()["principal"] is None
        assert "authorization" in response.json()["names"]


def test_all_files_are_judged_at_once(files: Path) -> None:
    """What is wrong with any of the files is said together, and no secret with it."""
    (files / "tokens").write_bytes(b"\xef\xbb\xbfalice \xff\n")
    (files / "keys").write_text("ci short-secret")
    (files / "operators").write_text("x" * (2**20 + 1))
    settings = Settings(
        tokens=str(files / "tokens"),
        hmac_keys=str(files / "keys"),
        operator_tokens=str(files / "operators"),
    )
    with pytest.raises(ConfigurationError) as caught:
        authentication_of(settings)
    assert list(caught.value.problems) == [
        f"{files}/tokens: the file is not UTF-8: byte 6 is wrong",
        f"{files}/keys, line 1: a secret has at least 16 bytes",
        f"{files}/operators: the file is larger than 1048576 bytes",
    ]


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read(files: Path, name: str, why: str) -> None:
    """A file that is not there is said with its name."""
    with pytest.raises(ConfigurationError) as caught:
        BearerTokens.from_file(os.path.join(files, name))
    assert caught.value.problems == (f"{os.path.join(files, name)}: cannot be read: {why}",)


@pytest.mark.parametrize("mode", [0o644, 0o602])
def test_a_file_that_is_open_to_all(files: Path, mode: int) -> None:
    """Secrets that everybody can read or change are worth a warning; a mark is passed over."""
    path = files / "tokens"
    path.write_text("\ufeff" + TOKENS, encoding="utf-8")
    path.chmod(mode)
    with capturedLogs() as logs:
        gate = BearerTokens.from_file(path)
    assert gate(call(("Authorization", f"Bearer {TOKEN}"))).principal == "alice"
    (line,) = (formatEvent(event) for event in logs)
    assert line == f"{path} holds secrets and is open to everybody here: chmod 600"


def about_jobs(fields: dict[str, str], method: str = "GET") -> CallHead:
    """A request about jobs."""
    pairs = tuple((name.encode(), value.encode()) for name, value in fields.items())
    return CallHead("id", OWN_JOBS, method, "/jobs/a", b"", pairs, None, None)


def test_jobs_of_tokens() -> None:
    """Whoever may use some routes only sees what has come of that, and nobody else does."""
    gate = bearer()
    for name in ("alice", "bob"):
        fields = {"Authorization": f"Bearer {name}-token-1234567890"}
        assert Admitted.of(gate(about_jobs(fields))).principal == name
    with pytest.raises(HTTPError) as caught:
        gate(about_jobs({"Authorization": "Bearer eve-token-1234567890"}))
    assert caught.value.status == 401


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_jobs_of_keys(method: str) -> None:
    """A request about jobs is signed like a call, with its own method and an empty body."""
    fields = sign(
        "http://x/jobs/a",
        b"",
        key="cd",
        secret=SECRET.encode(),
        created=int(time.time()),
        nonce=None,
        method=method,
    )
    gate = signed_gate()
    admitted = gate(about_jobs(fields, method))
    assert admitted.principal == "cd"
    assert admitted.digest is not None
    admitted.digest.check()
    with pytest.raises(HTTPError) as caught:
        signed_gate()(about_jobs(fields, "PUT"))
    assert caught.value.status == 401
