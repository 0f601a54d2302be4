"""At which line of a TOML text each key is defined, for error messages.

:mod:`tomllib` forgets the lines.  This module does not parse TOML itself: it asks
:mod:`tomllib` where each statement ends, since a statement is complete exactly when its lines
parse.  It judges nothing; the text is expected to have been parsed as a whole already.
"""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["MAX_LINES", "line_of_keys"]

#: Longer texts are not looked at.
MAX_LINES = 2000


def line_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """Find the line at which each key of a TOML text is first defined.

    Tables count as keys, the implied ones included: ``[a.b]`` defines ``("a",)`` and
    ``("a", "b")``.  What is inside arrays is left out, and the keys of all tables of an array
    of tables share the line of the first.

    :param text: TOML; of a text that does not parse, the keys up to the faulty statement.
    :returns: path to line, counted from 1; empty for a text of more than :data:`MAX_LINES`.
    """
    # Not splitlines(), which also splits at characters that are no line ends to TOML.
    lines = text.split("\n")
    found: dict[tuple[str, ...], int] = {}
    if len(lines) > MAX_LINES:
        return found
    table: tuple[str, ...] = ()
    statement = ""
    first = 0
    for number, line in enumerate(lines, start=1):
        if not statement:
            if _is_empty(line):
                continue
            first = number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except (ValueError, RecursionError):  # not complete yet
            continue
        is_header = statement.lstrip().startswith("[")
        paths = _paths(() if is_header else table, parsed)
        if is_header:
            table = paths[-1]
        for path in paths:
            found.setdefault(path, first)
        statement = ""
    return found


def _is_empty(line: str) -> bool:
    content = line.strip()
    return not content or content.startswith("#")


def _paths(table: tuple[str, ...], parsed: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of all keys of a parsed statement, outer before inner."""
    paths: list[tuple[str, ...]] = []
    pending = [(table, parsed)]
    for path, content in pending:
        for key, value in content.items():
            paths.append((*path, key))
            if isinstance(value, dict):
                pending.append(((*path, key), value))
    return paths
