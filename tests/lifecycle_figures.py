"""Diagrams of life-cycles: which states and transitions there are is taken from the tables.

Where they are is decided here, by hand.  A state or a transition without a place is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from deferpost.exchanges import OVER
from deferpost.exchanges import TABLE as EXCHANGES
from deferpost.lifecycle import ENDED, REASONS, TABLE, Event, advance

__all__ = ["EXCHANGE", "FIGURES", "FONT_SIZE", "JOB", "Figure", "Route", "svg", "transitions_of"]

FONT_SIZE = 14

#: Pixels from one line of a label to the next.
LEADING = 18

_DOCS = Path(__file__).parents[1] / "docs"

Point = tuple[float, float]

_STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --line: #59636e; --box: #f0f3f6; --over: #dbe9fb; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #e6edf3; --line: #9198a1; --box: #1d242d; --over: #1c3a5e; }
}
.paper { fill: var(--paper); }
text { font: 14px ui-sans-serif, "DejaVu Sans", Helvetica, Arial, sans-serif; fill: var(--ink); }
.label { paint-order: stroke; stroke: var(--paper); stroke-width: 6px; stroke-linejoin: round; }
.state text { font-weight: 600; text-anchor: middle; }
.box { fill: var(--box); stroke: var(--line); stroke-width: 1.5px; }
.over .box { fill: var(--over); stroke-width: 3px; }
.gap { fill: none; stroke: var(--paper); stroke-width: 7px; }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.5px; }
.head { fill: var(--line); }
"""


class Route(NamedTuple):
    """The arrow from a state to another, or to itself.

    :ivar points: of its corners, from the edge of a state to that of another; of a loop, the
        beginning and the end.
    :ivar label: the beginning of the line of the first label, or its middle or end.
    :ivar anchor: which of them: ``start``, ``middle`` or ``end``.
    :ivar when: in which case, where the events do not say it.
    """

    points: tuple[Point, ...]
    label: Point
    anchor: str = "middle"
    when: str = ""


class Figure(NamedTuple):
    """What is drawn.

    :ivar title: what it is, in words.
    :ivar path: the file.
    :ivar size: width and height.
    :ivar states: the states by the middles of their boxes.
    :ivar box: width and height of these.
    :ivar over: the states that are final.
    :ivar transitions: state, event and following state.
    :ivar routes: the arrows, by the states from which and to which they lead.
    """

    title: str
    path: Path
    size: Point
    states: Mapping[str, Point]
    box: Point
    over: Collection[str]
    transitions: tuple[tuple[str, str, str], ...]
    routes: Mapping[tuple[str, str], Route]


def _job_transitions() -> Iterator[tuple[str, str, str]]:
    """What there is, by the events' own reasons; and for stop, by those that a job may have."""
    for state, event in TABLE:
        reasons = REASONS.get(event) or (REASONS[Event.CANCEL] | REASONS[Event.EXPIRE])
        for following in sorted({advance(state, event, reason) for reason in reasons}):
            yield str(state), str(event), str(following)


JOB = Figure(
    title="The life of a job",
    path=_DOCS / "figures" / "job-life.svg",
    size=(900, 410),
    states={
        "queued": (90, 150),
        "running": (360, 150),
        "canceling": (360, 250),
        "failed": (790, 58),
        "succeeded": (790, 150),
        "canceled": (790, 270),
        "expired": (790, 358),
    },
    box=(130, 52),
    over=frozenset(map(str, ENDED)),
    transitions=tuple(_job_transitions()),
    routes={
        ("queued", "running"): Route(((155, 140), (295, 140)), (225, 132)),
        ("running", "queued"): Route(((295, 160), (155, 160)), (225, 179)),
        ("queued", "failed"): Route(((90, 124), (90, 48), (725, 48)), (225, 40)),
        ("running", "failed"): Route(((360, 124), (360, 70), (725, 70)), (560, 89)),
        ("running", "succeeded"): Route(((425, 150), (725, 150)), (560, 142)),
        ("running", "canceling"): Route(((360, 176), (360, 224)), (370, 196), "start"),
        ("canceling", "canceled"): Route(((425, 254), (725, 254)), (560, 246)),
        ("canceling", "expired"): Route(
            ((400, 276), (400, 348), (725, 348)), (410, 340), "start", "its time was up"
        ),
        ("queued", "canceled"): Route(((110, 176), (110, 290), (725, 290)), (225, 282)),
        ("queued", "expired"): Route(((70, 176), (70, 370), (725, 370)), (225, 362)),
    },
)

EXCHANGE = Figure(
    title="The life of an exchange",
    path=_DOCS / "figures" / "exchange-life.svg",
    size=(900, 480),
    states={
        "waiting": (90, 190),
        "writing": (390, 190),
        "answered": (790, 190),
        "breaking": (540, 80),
        "broken": (790, 80),
        "left": (390, 320),
    },
    box=(130, 52),
    over=frozenset(map(str, OVER)),
    transitions=tuple(
        (str(state), str(event), str(step.state)) for (state, event), step in EXCHANGES.items()
    ),
    routes={
        ("waiting", "writing"): Route(((155, 190), (325, 190)), (240, 164)),
        ("waiting", "left"): Route(((90, 216), (90, 320), (325, 320)), (200, 312)),
        ("writing", "answered"): Route(((455, 190), (725, 190)), (600, 182)),
        ("writing", "left"): Route(((390, 216), (390, 294)), (400, 260), "start"),
        ("writing", "breaking"): Route(((400, 164), (400, 80), (475, 80)), (390, 92), "end"),
        ("writing", "writing"): Route(((340, 164), (375, 164)), (332, 150), "end"),
        ("breaking", "broken"): Route(((605, 80), (725, 80)), (665, 72)),
        ("breaking", "breaking"): Route(((522, 54), (558, 54)), (540, 18)),
        ("broken", "broken"): Route(((772, 54), (808, 54)), (790, 18)),
        ("answered", "answered"): Route(((772, 216), (808, 216)), (790, 264)),
        ("left", "left"): Route(((372, 346), (408, 346)), (390, 394)),
    },
)

FIGURES = (JOB, EXCHANGE)


def transitions_of(figure: Figure) -> dict[tuple[str, str], list[str]]:
    """The events of each arrow, by the states from which and to which it leads."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, event, following in figure.transitions:
        arrows.setdefault((state, following), []).append(event)
    return arrows


def svg(figure: Figure) -> str:
    """The diagram as a document."""
    return "\n".join(_lines(figure)) + "\n"


def _lines(figure: Figure) -> Iterator[str]:
    width, height = figure.size
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="title desc">'
    )
    yield f'<title id="title">{escape(figure.title)}</title>'
    said = (f"{event}: from {a} to {b}" for a, event, b in figure.transitions)
    yield f'<desc id="desc">{escape("; ".join(said))}.</desc>'
    yield f"<style>{_STYLE}</style>"
    yield '<marker id="head" markerWidth="10" markerHeight="8" refX="10" refY="4" orient="auto"'
    yield 'markerUnits="userSpaceOnUse"><path class="head" d="M0 0 L10 4 L0 8 z"/></marker>'
    yield f'<rect class="paper" width="{width:g}" height="{height:g}"/>'
    arrows = transitions_of(figure)
    for ends in arrows:
        yield _path("gap", figure.routes[ends])
        yield _path("arrow", figure.routes[ends], 'marker-end="url(#head)"')
    for name in figure.states:
        yield from _state(figure, name)
    for ends, events in arrows.items():
        yield from _label(ends, events, figure.routes[ends])
    yield "</svg>"


def _state(figure: Figure, name: str) -> Iterator[str]:
    x, y = figure.states[name]
    width, height = figure.box
    kind = "state over" if name in figure.over else "state"
    yield f'<g class="{kind}" data-state={quoteattr(name)}>'
    yield (
        f'<rect class="box" x="{x - width / 2:g}" y="{y - height / 2:g}" '
        f'width="{width:g}" height="{height:g}" rx="10"/>'
    )
    yield f'<text x="{x:g}" y="{y + FONT_SIZE * 0.35:g}">{escape(name)}</text></g>'


def _path(kind: str, route: Route, more: str = "") -> str:
    return f'<path class="{kind}" d="{_way(route.points)}" {more}/>'.replace(" />", "/>")


def _way(points: tuple[Point, ...]) -> str:
    """Straight lines with round corners; to a state itself, a loop."""
    (x, y), *between, (to_x, to_y) = points
    if not between and y == to_y and abs(to_x - x) < 40:  # a loop above or below
        away = -30 if _is_above(points) else 30
        return f"M{x:g} {y:g} C{x - 8:g} {y + away:g} {to_x + 8:g} {y + away:g} {to_x:g} {to_y:g}"
    way = f"M{x:g} {y:g}"
    previous = (x, y)
    for index, corner in enumerate(between):
        following = points[index + 2]
        before, after = _towards(corner, previous), _towards(corner, following)
        way += f" L{before[0]:g} {before[1]:g} Q{corner[0]:g} {corner[1]:g}"
        way += f" {after[0]:g} {after[1]:g}"
        previous = corner
    return f"{way} L{to_x:g} {to_y:g}"


def _is_above(points: Iterable[Point]) -> bool:
    """Whether a loop is at the upper edge of a state."""
    edges = {y - figure.box[1] / 2 for figure in FIGURES for _, y in figure.states.values()}
    return all(y in edges for _, y in points)


def _towards(corner: Point, other: Point, radius: float = 12) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = (dx * dx + dy * dy) ** 0.5
    return corner[0] + dx / length * radius, corner[1] + dy / length * radius


def _label(ends: tuple[str, str], events: list[str], route: Route) -> Iterator[str]:
    x, y = route.label
    source, target = map(quoteattr, ends)
    when = f" ({route.when})" if route.when else ""
    yield f'<g class="transition" data-from={source} data-to={target}>'
    for line, event in enumerate(events):
        yield (
            f'<text class="label" text-anchor="{route.anchor}" x="{x:g}" '
            f'y="{y + line * LEADING:g}">{escape(event + when)}</text>'
        )
    yield "</g>"
