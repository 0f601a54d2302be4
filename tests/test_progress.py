"""What is shown of what handlers say of their progress."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.model import Progress
from deferpost.progress import MESSAGE_MOST, progress_of


@pytest.mark.parametrize("done", [3, 3.0, True + 2, Decimal(3), Fraction(3)])
def test_numbers(done: Any) -> None:
    """Any number of Python's is one."""
    assert progress_of((done, 4, "words")) == Progress(3.0, 4.0, "words")


@pytest.mark.parametrize(
    "done", [None, "3", b"3", bytearray(b"3"), [], math.nan, math.inf, -math.inf, 10**400, 1j]
)
def test_no_numbers(done: Any) -> None:
    """What is no finite number is not shown, and as a total it is left out."""
    assert progress_of((done, 4, "words")) is None
    assert progress_of((3, done, "words")) == Progress(3.0, None, "words")


@pytest.mark.parametrize("message", [None, 3, b"words"])
def test_no_words(message: Any) -> None:
    """A message that is no text is left out."""
    assert progress_of((1, None, message)) == Progress(1.0)


def test_long_message() -> None:
    """A long message is cut."""
    progress = progress_of((1, None, "ü" * 10_000_000))
    assert progress is not None
    assert progress.message == "ü" * MESSAGE_MOST


@given(st.text(st.characters(codec=None)))
def test_any_message(message: str) -> None:
    """Whatever text a handler gives can be sent."""
    assert msgspec.json.encode(progress_of((1, None, message)))
