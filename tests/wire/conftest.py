"""Twisted's own tests make directories where they run: here that is a temporary one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _directory(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.module.__name__.rpartition(".")[2].startswith("test_twisted_"):
        monkeypatch.chdir(tmp_path)
