"""What the settings say of webhooks: whom they let in, and what in them makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from deferpost.errors import ConfigurationError
from deferpost.settings import Settings, load_settings
from deferpost.storage import hooks_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

HOST = ("webhook-hosts", "hooks.example.com")
STORE = ("store", "store")


def given(*flags: tuple[str, str]) -> Settings:
    """Settings by options."""
    return load_settings(toml_text=None, environ={}, flags=list(flags))


def problems(settings: Settings) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(ConfigurationError) as caught:
        hooks_of(settings, MemoryReactorClock())
    return list(caught.value.problems)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A file with a secret."""
    path = tmp_path / "secrets"
    path.write_text(f"# of the receivers\n{SECRET}\n")
    path.chmod(0o600)
    return path


def test_none() -> None:
    """Without hosts nobody is told, and no secrets are asked for."""
    assert hooks_of(given(STORE), MemoryReactorClock()) is None
    assert hooks_of(given(), MemoryReactorClock()) is None


def test_hosts(secrets: Path) -> None:
    """The hosts that are listed are let in."""
    file = ("webhook-secrets", str(secrets))
    hooks = hooks_of(given(HOST, STORE, file), MemoryReactorClock())
    assert hooks is not None
    assert hooks.hosts.check("https://Hooks.example.com") == "https://hooks.example.com/"


def test_what_is_lacking(secrets: Path) -> None:
    """Hosts without secrets, and hosts without a store, are refused."""
    assert problems(given(HOST, STORE)) == [
        "webhooks are signed: webhook_hosts names some, and webhook_secrets no file"
    ]
    assert problems(given(HOST, ("webhook-secrets", str(secrets)))) == [
        "webhook_hosts is for kept jobs, and store names no directory"
    ]


def test_no_host(secrets: Path) -> None:
    """What is no host is named."""
    file = ("webhook-secrets", str(secrets))
    (problem,) = problems(given(("webhook-hosts", "*.com"), STORE, file))
    assert problem.startswith('webhook_hosts: "*.com" is no host for webhooks')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ": cannot be read: No such file or directory"),
        ("# none yet\n", ": there is no secret in this file"),
        (f"{SECRET}\nwhsec_c2hvcnQ=\n", ", line 2: a secret has 24 to 64 bytes, in base64"),
        (f"{SECRET} {SECRET}\n", ", line 1: a line has one secret and nothing else"),
    ],
)
def test_the_file_of_secrets(tmp_path: Path, text: Any, words: str) -> None:
    """A file that is not there, or wrong in a line, is named with that; no secret is shown."""
    path = tmp_path / "secrets"
    if text is not None:
        path.write_text(text)
        path.chmod(0o600)
    assert problems(given(HOST, STORE, ("webhook-secrets", str(path)))) == [f"{path}{words}"]
