"""Authentication on real sockets: who is refused before the upload, and what is never written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deferpost import sign_post
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, Daemon, Response, clean_environment, wait_until
from tests.integration.hostile import request
from tests.integration.test_hostile import no_error

# In one process, so that one daemon serves them all.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("authentication")]

CHECKOUT = Path(__file__).resolve().parents[2]

APP = """
from pathlib import Path

from deferpost import App

app = App()


def answer(call, size):
    seen = sorted(name for name in call.headers if name in ("authorization", "signature"))
    return {"principal": call.principal, "size": size, "seen": seen}


@app.post("/size")
def size(call):
    return answer(call, len(call.body.read()))


@app.post("/process", pool="process")
def process(call):
    return answer(call, len(call.body.read()))


@app.post("/stream", stream=True)
def stream(call):
    try:
        return answer(call, len(call.body.read()))
    except OSError as error:
        Path(f"{call.id}.broken").write_text(str(error))
        raise
"""

ALICE, BOB, OLD = "alice-token-1234567890", "bob-token-1234567890", "old-token-1234567890"
SECRET = "a-secret-of-ci-1234567890"
SECRETS = (ALICE, BOB, OLD, SECRET)

EXPECTED = "Expect: 100-continue"


def files(directory: Path) -> list[str]:
    """Write the files of a daemon, and return the options that name them."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "tokens": f"alice sha256:{hashlib.sha256(ALICE.encode()).hexdigest()}\nbob {BOB} /process",
        "hmac-keys": f"ci {SECRET}",
        "operator-tokens": f"root {OLD}",
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
        (directory / name).chmod(0o600)
    return [f"--{name}={name}" for name in texts]


def nothing_told(daemon: Daemon) -> None:
    """Check that no secret is in the log, and nothing in it is worse than information."""
    no_error(daemon)
    log = daemon.log()
    for secret in SECRETS:
        assert secret not in log
        assert hashlib.sha256(secret.encode()).hexdigest() not in log
        assert base64.b64encode(secret.encode()).decode() not in log


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks for a token or a signature."""
    directory = tmp_path_factory.mktemp("guarded")
    options = [*files(directory), "--max-body=1MB", "--process-size=1"]
    served = Daemon(directory, APP, options)
    try:
        served.wait_listening()
        yield served
        nothing_told(served)
    finally:
        left = served.end()
    assert not left


def announced(path: str, size: int, *headers: str) -> bytes:
    """The head of a request whose body has so many bytes."""
    head = request(path, b"", *headers)
    return head.replace(b"Content-Length: 0\r\n", b"Content-Length: %d\r\n" % size)


def bearer(token: str) -> str:
    """The header field with a token."""
    return f"Authorization: Bearer {token}"


def signed(path: str, body: bytes, **how: str) -> list[str]:
    """The header fields that sign a body."""
    options = {"key": "ci", "secret": SECRET, **how}
    fields = sign_post(f"http://test{path}", body, **options)  # type: ignore[arg-type]
    return [f"{name}: {value}" for name, value in fields.items()]


REFUSED: list[tuple[str, Callable[[], list[str]], int, str]] = [
    ("nothing", lambda: [], 401, "token_missing"),
    ("unknown", lambda: [bearer("unknown-token-123456")], 401, "invalid_token"),
    ("operator", lambda: [bearer(OLD)], 401, "invalid_token"),
    ("route", lambda: [bearer(BOB)], 403, "insufficient_scope"),
    ("twice", lambda: [bearer(ALICE), bearer(ALICE)], 400, "invalid_request"),
    ("secret", lambda: signed("/size", b"x", secret="x" * 20), 401, "signature_wrong"),
    ("path", lambda: signed("/stream", b"x"), 401, "signature_wrong"),
    ("half", lambda: signed("/size", b"x")[:2], 401, "signature_malformed"),
]


@pytest.mark.parametrize(
    ("fields", "status", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused_before_the_upload(
    guarded: Daemon, fields: Callable[[], list[str]], status: int, reason: str
) -> None:
    """Who may not call is told so at the head; no 100 Continue is sent, and no body is read."""
    with guarded.connect() as client:
        client.send(announced("/size", 900_000, EXPECTED, *fields()))
        response = client.response()
        assert (response.status, json.loads(response.body)["reason"]) == (status, reason)
        assert response.headers["connection"] == "close"
        assert response.headers["content-type"] == "application/problem+json"
        if status == 401:
            assert "www-authenticate" in response.headers
        assert client.is_closed()


@pytest.mark.parametrize("path", ["/size", "/stream", "/process"])
def test_who_is_asked_for_the_body(guarded: Daemon, path: str) -> None:
    """Who may call is asked for the body; the handler knows who it is, and sees no token."""
    body = bytes(200_000)
    for fields, principal, seen in (
        ([bearer(ALICE)], "alice", []),
        (signed(path, body), "ci", ["signature"]),
    ):
        with guarded.connect() as client:
            client.send(announced(path, len(body), EXPECTED, *fields))
            assert client.head().status == 100
            client.send(body)
            assert json.loads(client.response().body) == {
                "principal": principal,
                "size": len(body),
                "seen": seen,
            }


@pytest.mark.parametrize("path", ["/size", "/stream"])
def test_another_body_than_was_signed(guarded: Daemon, path: str) -> None:
    """A body that is not the signed one is refused when it is there, and a reader is told."""
    body = bytes(200_000)
    with guarded.connect() as client:
        fields = [*signed(path, body), f"X-Request-ID: wrong{path[1:]}"]
        client.send(announced(path, len(body), *fields))
        client.send(body[:-1] + b"x")
        response = client.response()
        assert (response.status, json.loads(response.body)["reason"]) == (400, "digest_mismatch")
    broken = guarded.directory / f"wrong{path[1:]}.broken"
    assert broken.exists() is (path == "/stream")
    if path == "/stream":
        assert "Content-Digest" in broken.read_text()


def test_the_connection_goes_on(guarded: Daemon) -> None:
    """After a refusal whose body was small, the connection serves the next request."""
    with guarded.connect() as client:
        for _ in range(3):
            client.post("/size", b"body")
            assert client.response().status == 401
            client.post("/size", b"body", bearer(ALICE))
            assert json.loads(client.response().body)["size"] == 4
        client.send(request("/size", b"1") + request("/size", b"22", bearer(ALICE)))
        assert client.response().status == 401
        assert json.loads(client.response().body)["size"] == 2


def test_a_signature_passes_once(guarded: Daemon) -> None:
    """A request that was recorded on its way is of no use a second time."""
    recorded = request("/size", b"body", *signed("/size", b"body"))
    with guarded.connect() as client:
        client.send(recorded)
        assert client.response().status == 200
        client.send(recorded)
        response = client.response()
        assert json.loads(response.body)["reason"] == "signature_replayed"
        assert response.status == 403


@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        ([b"Authorization: Bearer " + b"x" * 15_000], {401}),
        ([b"Authorization: Bearer " + b"x" * 20_000], {431}),
        ([b"Authorization: Bearer \xff\xfe\x80"], {400}),
        ([b"Authorization: \x80" * 1], {401}),
        ([b"Authorization: Bearer " + ALICE.encode() + b"\x00"], {400}),
        ([b"Authorization: Bearer a"] * 90, {400}),
        ([b"Authorization: Bearer a"] * 200, {431}),
        ([b"Signature: " + b"a=:AA==:," * 1500], {401}),
        ([b'Signature-Input: s=("@method";' + b"a;" * 5000], {401}),
        ([b"Signature-Input: s=" + b"(" * 10_000, b"Signature: s=::"], {401}),
        ([b'Signature-Input: s=();created=1;keyid="ci"', b"Signature: s=:AA==:"], {401}),
        ([b"Content-Digest: " + b"\xff" * 10_000], {401}),
    ],
)
def test_hostile_headers(guarded: Daemon, lines: list[bytes], statuses: set[int]) -> None:
    """Headers of any size, number and content are refused, and the next client is served."""
    with guarded.connect() as client:
        head = request("/size", b"", "X-Here: 1").replace(b"X-Here: 1", b"\r\n".join(lines))
        client.send(head)
        assert client.response().status in statuses
    with guarded.connect() as client:
        client.post("/size", b"body", bearer(ALICE))
        assert client.response().status == 200


def test_the_daemons_own_paths_stay_open(guarded: Daemon) -> None:
    """Who watches over the daemon needs no token."""
    with guarded.connect() as client:
        client.request("GET", "/livez")
        assert client.response("GET").status == 200
        client.request("GET", "/readyz")  # its worker process may not be there yet
        assert json.loads(client.response("GET").body)["accepting"] is True


def test_the_example(guarded: Daemon) -> None:
    """The program in examples signs what it sends, and is refused with another secret."""
    for secret, status, shown in ((SECRET, 0, '200 {"principal":"ci"'), ("x" * 20, 1, "401 {")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "examples.signed_post"),
                *(guarded.url("/size?a=1"), "README.rst", "ci"),
            ],
            cwd=CHECKOUT,
            env=clean_environment({"SIGNING_SECRET": secret}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.startswith(shown), done.stderr
        assert done.returncode == status


def ask(connection: Connection, path: str, body: bytes, *fields: str) -> Response:
    """POST, and read the response."""
    connection.post(path, body, *fields)
    return connection.response()


class JSONDaemon(Daemon):
    """A daemon that logs as JSON."""

    def places(self) -> list[str]:
        """The ports on which it listens."""
        return re.findall(r"Site starting on (\d+)", self.log())


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with Twisted's channel, which logs as JSON."""
    options = [*files(tmp_path), "--wire=stock", "--log-format=json"]
    served = JSONDaemon(tmp_path, APP, options)
    try:
        served.wait_listening()
        yield served
        nothing_told(served)
        assert '"principal":"ci"' in served.log()
    finally:
        left = served.end()
    assert not left


def test_twisteds_own_channel(stock: Daemon) -> None:
    """With Twisted's channel the same is asked, when the body has come."""
    large = bytes(2_000_000)
    with stock.connect() as client:
        assert ask(client, "/size", large).status == 401
        assert ask(client, "/size", large, bearer(ALICE)).status == 200
        for path in ("/size", "/stream"):
            fields = signed(path, large)
            assert json.loads(ask(client, path, large, *fields).body)["principal"] == "ci"
            assert ask(client, path, large, *fields).status == 403
            wrong = ask(client, path, large[1:], *signed(path, large))
            assert json.loads(wrong.body)["reason"] == "digest_mismatch"
        assert ask(client, "/size", b"", *signed("/size", b"")).status == 200


def test_a_reload_reads_the_files_anew(daemon: StartDaemon, tmp_path: Path) -> None:
    """With SIGHUP new tokens count at once; a broken file is reported, and the old ones stay."""
    directory = tmp_path / "reloaded"
    served = daemon(APP, files(directory), directory=directory)
    recorded = request("/size", b"body", *signed("/size", b"body"))
    with served.connect() as client:
        client.send(recorded)
        assert client.response().status == 200
    tokens = directory / "tokens"
    tokens.write_text("alice not-a-token")
    served.send_signal(signal.SIGHUP)
    wait_until(
        lambda: served.log_lines("tokens, line 1: a token has at least 16"), 20.0, served.log
    )
    with served.connect() as client:
        assert ask(client, "/size", b"", bearer(ALICE)).status == 200
    tokens.write_text(f"bob {BOB}")
    served.send_signal(signal.SIGHUP)
    wait_until(lambda: served.log_lines("reloaded in"), 20.0, served.log)
    with served.connect() as client:
        assert ask(client, "/size", b"", bearer(ALICE)).status == 401
        assert ask(client, "/size", b"", bearer(BOB)).status == 200
        client.send(recorded)
        assert client.response().status == 403
    log = served.log()
    assert not any(secret in log for secret in SECRETS)
    assert "not-a-token" not in log


def test_a_wrong_file_at_the_start(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon whose files cannot be used does not start, and says where it is wrong."""
    directory = tmp_path / "wrong"
    options = files(directory)
    (directory / "hmac-keys").write_text("ci short-secret")
    os.unlink(directory / "tokens")
    served = daemon(APP, [*options, "--check-config"], directory=directory, listening=False)
    assert served.process.wait(30) == 1
    assert served.log() == (
        "deferpost: the configuration has 2 problems:\n"
        "  tokens: cannot be read: No such file or directory\n"
        "  hmac-keys, line 1: a secret has at least 16 bytes\n"
    )
