"""Where settings come from: the TOML document, the environment and the options.

This module decides which key a name in each source means, and keeps with every value the place
it came from, for what is said if something is wrong.  It never judges the value itself, and it
opens nothing: the file's text and the environment are handed to it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from deferpost.errors import ConfigurationError
from deferpost.keys import FLAGS, POOL_KEYS, TOP_KEYS, KeyPath, shape_of
from deferpost.tomlplaces import line_of_keys
from deferpost.units import shown

__all__ = [
    "Given",
    "Place",
    "Problems",
    "from_document",
    "from_environ",
    "from_flags",
    "nearest",
    "parse_document",
]

_ENVIRONMENT = "DEFERPOST_"
# The path of the file, for whoever opens it; and the token of the commands that are a client.
_RESERVED = {"DEFERPOST_CONFIG", "DEFERPOST_TOKEN"}
_SOURCES = ("file", "environment", "option")


class Place(msgspec.Struct, frozen=True):
    """Where a value comes from.

    :param source: as messages call it.
    :param name: of the variable or the option; of the file, a place like ``":3:5"`` if known.
    :param path: of the key, for a value of the file.
    """

    source: Literal["file", "environment", "option"]
    name: str = ""
    path: KeyPath = ()


class Given(msgspec.Struct, frozen=True):
    """A value that a source gives for a known key; the bare path of a pool declares it."""

    place: Place
    path: KeyPath
    value: object


class Problems:
    """Collects what is wrong.

    :param toml_name: what to call the file.
    :param toml_text: its text, in which to look for lines.
    """

    def __init__(self, toml_name: str, toml_text: str) -> None:
        self._toml_name = toml_name
        self._toml_text = toml_text
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, message: str) -> None:
        """Note what is wrong, without the place in its words."""
        self._found.append((place, message))

    def raise_if_any(self) -> None:
        """Raise all that was found, source by source, the file's by line.

        :raises ConfigurationError: anything was found.
        """
        if not self._found:
            return
        in_file = any(place.path for place, _ in self._found)
        lines = line_of_keys(self._toml_text) if in_file else {}

        def position(found: tuple[Place, str]) -> tuple[int, int, str]:
            place, _ = found
            return _SOURCES.index(place.source), lines.get(place.path, 0), place.name

        raise ConfigurationError(
            [
                f"{self._words(place, lines)}: {message}"
                for place, message in sorted(self._found, key=position)
            ]
        )

    def _words(self, place: Place, lines: Mapping[KeyPath, int]) -> str:
        if place.source != "file":
            return f"{place.source} {place.name if place.name.isprintable() else shown(place.name)}"
        if not place.path:
            return self._toml_name + place.name
        line = f":{lines[place.path]}" if place.path in lines else ""
        key = ".".join(p if re.fullmatch(r"[\w-]+", p, re.ASCII) else shown(p) for p in place.path)
        return f"{self._toml_name}{line}: {key}"


def parse_document(text: str, problems: Problems) -> dict[str, Any] | None:
    """Return the content of the file, or ``None`` if its text is no TOML."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        message = str(error)
        if match := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message):
            problems.add(Place("file", f":{match[2]}:{match[3]}"), match[1])
        else:
            problems.add(Place("file"), message)
    except RecursionError:
        problems.add(Place("file"), "arrays or tables are nested too deeply")
    return None


def from_document(document: dict[str, Any], problems: Problems) -> Iterator[Given]:
    """Find what the file says, key by key, in its order."""
    for name, value in document.items():
        place = Place("file", path=(name,))
        if name in TOP_KEYS:
            yield Given(place, (name,), value)
        elif name != "pools":
            problems.add(place, "unknown key" + nearest(name, [*TOP_KEYS, "pools"]))
        elif isinstance(value, dict):
            for pool, content in value.items():
                yield from _from_pool_table(pool, content, problems)
        else:
            problems.add(place, f"{shown(value)} is not a table of pools, such as [pools.thread]")


def _from_pool_table(pool: str, content: object, problems: Problems) -> Iterator[Given]:
    place = Place("file", path=("pools", pool))
    if not re.fullmatch("[a-z][a-z0-9_-]*", pool):
        problems.add(place, "a pool's name is a letter from a to z, then a to z, 0 to 9, - or _")
    if not isinstance(content, dict):
        problems.add(place, f"{shown(content)} is not a table, such as [pools.thread]")
        return
    yield Given(place, ("pools", pool), None)
    for name, value in content.items():
        path = ("pools", pool, name)
        place = Place("file", path=path)
        if name in POOL_KEYS:
            yield Given(place, path, value)
        elif name in TOP_KEYS:
            problems.add(place, "not a key of a pool; it belongs above the first [table]")
        else:
            problems.add(place, "unknown key" + nearest(name, POOL_KEYS))


def from_environ(
    environ: Mapping[str, str], pool_names: Sequence[str], problems: Problems
) -> Iterator[Given]:
    """Find what the environment says, in the order of the variables' names.

    :param environ: of which ``DEFERPOST_*`` is looked at.
    :param pool_names: the pools that are known; a variable can name one that is not.
    :param problems: takes what cannot be understood.
    """
    known: dict[str, list[KeyPath]] = {_variable((name,)): [(name,)] for name in TOP_KEYS}
    for pool in pool_names:
        for name in POOL_KEYS:
            path = ("pools", pool, name)
            known.setdefault(_variable(path), []).append(path)
    new_pool = re.compile(f"{_ENVIRONMENT}POOLS_([A-Z][A-Z0-9_]*)_({'|'.join(POOL_KEYS)})".upper())

    for variable in sorted(environ):
        if not variable.startswith(_ENVIRONMENT) or variable in _RESERVED:
            continue
        place = Place("environment", variable)
        paths = known.get(variable, [])
        if not paths and (match := new_pool.fullmatch(variable)):
            paths = [("pools", match[1].lower(), match[2].lower())]
        if not paths:
            # Compared without the prefix, which would make all of them near.
            rest, *others = (v.removeprefix(_ENVIRONMENT).upper() for v in (variable, *known))
            problems.add(place, "unknown variable" + nearest(rest, others, _ENVIRONMENT))
        elif len(paths) > 1:
            problems.add(place, "could mean each of " + " and ".join(map(".".join, paths)))
        else:
            shape = shape_of(paths[0])
            text = environ[variable]
            value = shape.from_texts(text.split() if shape.repeated else [text])
            yield Given(place, paths[0], value)


def _variable(path: KeyPath) -> str:
    return _ENVIRONMENT + "_".join(path).replace("-", "_").upper()


def from_flags(flags: Sequence[tuple[str, str]], problems: Problems) -> Iterator[Given]:
    """Find what the options say; one that is given again comes again, but for lists."""
    known = {flag.name: flag for flag in FLAGS}
    texts: dict[str, list[str]] = {}
    for name, text in flags:
        texts.setdefault(name, []).append(text)
    for name, given in texts.items():
        place = Place("option", f"--{name}")
        if name not in known:
            problems.add(place, "unknown option" + nearest(name, known, "--"))
            continue
        flag = known[name]
        for part in [given] if flag.repeated else [[text] for text in given]:
            yield Given(place, flag.path, shape_of(flag.path).from_texts(part))


def nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """Return the end of a message, with the known name that may have been meant, or nothing."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
