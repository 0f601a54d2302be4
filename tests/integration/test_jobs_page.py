"""The page about kept jobs: its walk through every delivery, done as a reader would do it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import wait_until
from tests.integration.test_examples import CHECKOUT, named
from tests.required import required

pytestmark = pytest.mark.integration

PAGE = CHECKOUT / "docs" / "jobs.rst"

#: Between the outputs of two commands.
MARK = "--8<--"


def alike(text: str) -> str:
    """A text without what differs from time to time."""
    text = re.sub(r"[A-Za-z0-9_-]{28}", "JOB", text)
    text = re.sub(r'"id":"[0-9a-f]{24}"', '"id":"ID"', text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8080", text).strip()


def test_every_delivery(daemon: StartDaemon, tmp_path: Path) -> None:
    """Each command of the walk gives what the page shows."""
    required("curl", "curl")
    parts = re.split(r"^\$ ", named(PAGE, "deliveries"), flags=re.MULTILINE)[1:]
    commands, shown = zip(*(part.split("\n", 1) for part in parts), strict=True)
    app = named(PAGE, "kept.py")
    served = daemon(app, ["--store=jobs", "--process-size=2"])
    wait_until(lambda: served.log_lines("jobs are kept in"), 10.0, "the store is open")
    script = "\n".join(f"{command}\nprintf '%s\\n' '{MARK}'" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script.replace("127.0.0.1:8080", f"127.0.0.1:{served.port}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    said = done.stdout.split(f"{MARK}\n")[:-1]
    for command, page, output in zip(commands, shown, said, strict=True):
        assert alike(output) == alike(page), command
