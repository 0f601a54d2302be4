"""The page about life-cycles says what the tables say."""

from __future__ import annotations

from docutils.core import publish_doctree

from deferpost.exchanges import Act
from deferpost.lifecycle import Event
from tests.lifecycle_page import COMMAND, PAGE, page


def test_the_page_is_up_to_date() -> None:
    """It has every transition, as it is now."""
    assert PAGE.read_text(encoding="utf-8") == page(), f"out of date; write it again: {COMMAND}"


def test_the_page_can_be_read() -> None:
    """It is sound markup, and shows every event and everything that is done."""
    document = publish_doctree(page(), settings_overrides={"halt_level": 2, "report_level": 2})
    text = document.astext()
    assert [event for event in Event if event not in text] == []
    assert [act for act in Act if act.value not in text] == []
