"""The page about life-cycles says what the tables say, and its diagrams show it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from docutils.core import publish_doctree

from deferpost.exchanges import TABLE as EXCHANGES
from deferpost.exchanges import Act, ExchangeEvent, ExchangeState
from deferpost.lifecycle import TABLE, Event
from deferpost.model import State
from tests.endings import ENDINGS
from tests.lifecycle_figures import (
    EXCHANGE,
    FIGURES,
    FONT_SIZE,
    JOB,
    Figure,
    svg,
    transitions_of,
)
from tests.lifecycle_page import COMMAND, PAGE, page

_SVG = "{http://www.w3.org/2000/svg}"

figures = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.path.stem)


def test_the_page_is_up_to_date() -> None:
    """It has every transition, as it is now."""
    assert PAGE.read_text(encoding="utf-8") == page(), f"out of date; write it again: {COMMAND}"


def test_the_page_can_be_read() -> None:
    """It is sound markup, and shows every event, everything that is done, and every ending."""
    document = publish_doctree(page(), settings_overrides={"halt_level": 2, "report_level": 2})
    text = document.astext()
    assert [event for event in Event if event not in text] == []
    assert [act for act in Act if act.value not in text] == []
    assert [row.name for row in ENDINGS if row.name not in text] == []
    assert [figure for figure in FIGURES if f"figures/{figure.path.name}" not in page()] == []


@figures
def test_the_diagrams_are_up_to_date(figure: Figure) -> None:
    """They are those of the tables, as they are now."""
    written = figure.path.read_text(encoding="utf-8")
    assert written == svg(figure), f"out of date; write it again: {COMMAND}"


def drawn(figure: Figure) -> set[tuple[str, str, str]]:
    """The transitions of which a diagram has the arrow with its event."""
    found = set()
    for group in ElementTree.fromstring(svg(figure)).iter(f"{_SVG}g"):
        if group.get("class") == "transition":
            for text in group.iter(f"{_SVG}text"):
                event = (text.text or "").partition(" ")[0]
                found.add((group.attrib["data-from"], event, group.attrib["data-to"]))
    return found


def test_all_of_a_job_is_drawn() -> None:
    """Each state and transition of the table is in the diagram; and that time can be up."""
    of_table = {(str(a), str(event), str(b)) for (a, event), b in TABLE.items()}
    assert drawn(JOB) == of_table | {(State.CANCELING, Event.STOP, State.EXPIRED)}
    assert set(JOB.states) == set(State)


def test_all_of_an_exchange_is_drawn() -> None:
    """Each state and transition of the table is in the diagram."""
    assert drawn(EXCHANGE) == {
        (str(a), str(event), str(step.state)) for (a, event), step in EXCHANGES.items()
    }
    assert set(EXCHANGE.states) == set(ExchangeState)
    assert {event for _, event, _ in drawn(EXCHANGE)} == set(ExchangeEvent)


@figures
def test_no_arrow_is_left_over(figure: Figure) -> None:
    """A transition that the table has no more is not drawn any more."""
    assert set(figure.routes) == set(transitions_of(figure))
    root = ElementTree.fromstring(svg(figure))
    arrows = [path for path in root.iter(f"{_SVG}path") if path.get("class") == "arrow"]
    assert len(arrows) == len(figure.routes)


class Box(NamedTuple):
    """What a text or a state takes of a diagram."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether two lie on each other."""
        aside = self.right <= other.left or other.right <= self.left
        return not (aside or self.bottom <= other.top or other.bottom <= self.top)


def boxes(figure: Figure) -> Iterator[Box]:
    """The boxes of states, and of labels in a font that is rather wide."""
    width, height = figure.box
    for name, (x, y) in figure.states.items():
        yield Box(name, x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    for text in ElementTree.fromstring(svg(figure)).iter(f"{_SVG}text"):
        if text.get("class") == "label":
            written = text.text or ""
            length = 0.62 * FONT_SIZE * len(written)
            x, y = float(text.attrib["x"]), float(text.attrib["y"])
            left = (
                x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]] * length
            )
            yield Box(written, left, y - 0.8 * FONT_SIZE, left + length, y + 0.25 * FONT_SIZE)


@figures
def test_nothing_lies_on_a_label(figure: Figure) -> None:
    """Labels can be read: none is on a state, on another label or over the edge."""
    of_all = list(boxes(figure))
    assert [(a, b) for a, b in itertools.combinations(of_all, 2) if a.meets(b)] == []
    width, height = figure.size
    paper = Box("paper", 0, 0, width, height)
    assert [
        box
        for box in of_all
        if box.left < paper.left
        or box.top < paper.top
        or box.right > paper.right
        or box.bottom > paper.bottom
    ] == []


@figures
def test_arrows_begin_and_end_at_their_states(figure: Figure) -> None:
    """Each arrow leads from the edge of its state to the edge of the next."""
    width, height = figure.box
    for (source, target), route in figure.routes.items():
        for state, (x, y) in ((source, route.points[0]), (target, route.points[-1])):
            across, along = (abs(a - b) for a, b in zip((x, y), figure.states[state], strict=True))
            on_side = across == width / 2 and along < height / 2
            on_top = along == height / 2 and across < width / 2
            assert on_side or on_top, (source, target, state)
