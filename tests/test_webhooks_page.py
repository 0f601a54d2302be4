"""The page about webhooks says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from twisted.internet.task import Clock

from deferpost.model import State
from deferpost.notifying import AT_ONCE, Notifier
from deferpost.records import Hook, HookState, JobRecord
from deferpost.units import format_duration
from deferpost.web.jobs.document import job_document
from deferpost.webhooks.delivery import CONNECT_SECONDS, TIMEOUT_SECONDS
from deferpost.webhooks.rules import LONGEST_URL
from deferpost.webhooks.schedule import GIVE_UP_SECONDS, LONGEST_PAUSE, MOST_ATTEMPTS, PAUSES
from deferpost.webhooks.signing import TOLERANCE_SECONDS, HookSecret, hook_id, sign
from tests.hookworld import FakeSender

PAGE = Path(__file__).resolve().parents[1] / "docs" / "webhooks.rst"

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

RECORD = JobRecord(
    number=7,
    id="AZrN2Vw0e3mXq5Yt9bKc",
    request_id="4f1c0f6d2b9a",
    route="/rst",
    pool="process",
    principal="alice",
    state=State.SUCCEEDED,
    created=1_795_862_400.25,
    started=1_795_862_400.5,
    finished=1_795_862_403.0,
    expires=1_795_948_803.0,
    ttl=86400.0,
    urgency=3,
    retries=0,
    attempt=1,
    status=200,
    content_type="text/html; charset=utf-8",
    result_bytes=51807,
    hook=Hook(url="https://hooks.example.com/done", state=HookState.PENDING, due=1_795_862_403.0),
)


@pytest.fixture(scope="module")
def page() -> nodes.document:
    """The page as docutils reads it."""
    return publish_doctree(
        PAGE.read_text(encoding="utf-8"),
        settings_overrides={"halt_level": 2, "_disable_config": True},
    )


def named(page: nodes.document, name: str) -> str:
    """The text of the block with this name."""
    (text,) = (
        block.astext() for block in page.findall(nodes.literal_block) if name in block["names"]
    )
    return text


def rows(page: nodes.document, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this head."""
    for table in page.findall(nodes.table):
        found = [
            [cell.astext().replace("\n", " ") for cell in row.findall(nodes.entry)]
            for row in table.findall(nodes.row)
        ]
        if found[0][0] == first:
            return found[1:]
    raise AssertionError(f"no table begins with {first}")


def test_the_request(page: nodes.document) -> None:
    """The request that is shown is the one that is sent; the signature is that of its one line."""
    sender = FakeSender()

    class Store:
        """Has one job that is due."""

        async def next_hook(self) -> float:
            return 0.0

        async def hooks_due(self, now: float, most: int) -> list[JobRecord]:
            return [RECORD]

    document = lambda record: job_document(  # noqa: E731 (it is one call)
        record, "https://jobs.example.com", None, 0.0
    )
    notifier = Notifier(Store, Clock(), document, wall=lambda: 1_795_862_403.25)
    notifier.use(sender.send, lambda url: url)
    notifier.close()
    (sending,) = sender.sendings
    assert sending.id == hook_id(RECORD)
    fields = sign([HookSecret(SECRET)], sending.id, sending.at, sending.body)
    head, _, body = named(page, "request").partition("\n\n")
    first, *lines = head.split("\n")
    assert first == "POST /done HTTP/1.1"
    shown = dict(line.split(": ", 1) for line in lines)
    assert shown == {
        "Host": "hooks.example.com",
        "Content-Type": "application/json",
        "User-Agent": shown["User-Agent"],
        "Accept-Encoding": "identity",
        "Content-Length": str(len(sending.body)),
        **fields,
    }
    assert json.loads(body) == json.loads(sending.body)
    assert list(json.loads(body)["data"]) == list(json.loads(sending.body)["data"])


def test_the_schedule(page: nodes.document) -> None:
    """The table has each attempt with its pause, and the time since the end of the job."""
    since = 0.0
    expected = [["1", "at once", "0s"]]
    for number, pause in enumerate(PAUSES, 2):
        since += pause
        expected.append([str(number), format_duration(pause), format_duration(since)])
    assert rows(page, "Attempt") == expected
    assert len(expected) == MOST_ATTEMPTS


def test_the_numbers(page: nodes.document) -> None:
    """The bounds that are mentioned are those of the code."""
    text = re.sub(r"\s+", " ", page.astext())
    for words in (
        f"within {TIMEOUT_SECONDS:g} seconds",
        f"{CONNECT_SECONDS:g} of them to connect",
        f"up to {LONGEST_PAUSE / 3600:g} hours",
        f"{GIVE_UP_SECONDS / 3600:g} hours after the end of the job",
        f"{TOLERANCE_SECONDS / 60:g} minutes",
        f"{LONGEST_URL} characters",
        f"{AT_ONCE} at a time",
    ):
        assert words in text
