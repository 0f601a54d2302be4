"""The page of the documentation that shows a run: ``docs/figures.rst``, written whole."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from bench.results import Results
from bench.tables import as_rst, described, machine_line
from bench.targets import verdicts

__all__ = ["page"]

_INTRODUCTION = """\
Figures
=======

``make bench`` starts each server in turn, interleaved, measures it, and writes this page: nothing
here was typed.  The figures are there to be compared with each other; another machine gives others,
and one that others use too gives other ones every time, which is why each comes with the least and
the most of its rounds.  Ratios are of medians.
"""


def page(results: Results) -> str:
    """The page, as reStructuredText."""
    return "\n".join(_blocks(results))


def _blocks(results: Results) -> Iterator[str]:
    yield _INTRODUCTION
    yield _wrapped(f"{machine_line(results.machine)}.  {described(results)}.".replace("*", ""))
    versions = (f"{name} {version}" for name, version in results.machine.versions.items())
    yield _wrapped(f"Versions: {', '.join(versions)}.")
    found = verdicts(results)
    if found:
        yield _heading("Against the targets")
        for each in found:
            yield _wrapped(
                f"* {each.target}: **{each.reached}**{'' if each.is_met else ', not met'}", "  "
            ).rstrip("\n")
        yield ""
    for table in results.tables:
        yield _heading(table.title)
        yield _wrapped(table.setting)
        yield f".. image:: figures/{table.name}.svg\n   :alt: {table.title}\n"
        yield as_rst(table) + "\n"
    if results.failures:
        yield _heading("Not measured")
        for failure in results.failures:
            yield _wrapped(f"* {failure.splitlines()[0]}", "  ")


def _heading(text: str) -> str:
    return f"\n{text}\n{'-' * len(text)}\n"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False) + "\n"
