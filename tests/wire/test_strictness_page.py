"""The page about strictness says what the tests show."""

from __future__ import annotations

import re

import pytest
from docutils.core import publish_doctree

from tests.wire.cases import CASES, Case
from tests.wire.smuggling import SMUGGLING
from tests.wire.strictness_page import COMMAND, PAGE, SECTIONS, page


def test_the_page_is_up_to_date() -> None:
    """It has every case, as it is tested now."""
    assert PAGE.read_text(encoding="utf-8") == page(), f"out of date; write it again: {COMMAND}"


def test_every_case_is_in_one_section() -> None:
    """None is left out, and none comes twice."""
    shown = [case.name for _, cases in SECTIONS for case in cases]
    assert sorted(shown) == sorted(case.name for case in (*CASES, *SMUGGLING))
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("case", SMUGGLING, ids=[case.name for case in SMUGGLING])
def test_a_case_can_be_understood(case: Case) -> None:
    """It has a name on one line, the place in an RFC, and a reason in one short sentence."""
    assert re.fullmatch("[!-~]+( [!-~]+)*", case.name)
    assert re.fullmatch(r"RFC (3986|6585|9110|9112), [1-9]\d*(\.[1-9]\d*)*", case.rfc)
    assert re.fullmatch(r"[A-Z][^\n]{8,90}[^.\n]\.", case.why)


def test_the_page_can_be_read() -> None:
    """No name of a case is taken for markup."""
    document = publish_doctree(page(), settings_overrides={"halt_level": 2, "report_level": 2})
    text = document.astext()
    for case in (*CASES, *SMUGGLING):
        assert case.name in text
