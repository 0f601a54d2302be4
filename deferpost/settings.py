"""The daemon's settings: how they are put together, and how they are written.

This module decides which source wins, what kind each pool is of and which keys that kind allows.
It reads no file and no environment, and touches no reactor.  What there is to set is in
:mod:`deferpost.defaults`, how each value looks in :mod:`deferpost.keys`, and what each source says
in :mod:`deferpost.sources`; what other modules need of these is to be had here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import msgspec

from deferpost.defaults import (
    KINDS,
    PoolKind,
    PoolSettings,
    PoolSize,
    Settings,
    Wire,
    default_pool,
    resolve_size,
)
from deferpost.keys import FLAGS, KEYS, POOL_KEYS, TOP_KEYS, Flag, Key, Shape, choice, either
from deferpost.sources import (
    Given,
    Problems,
    from_document,
    from_environ,
    from_flags,
    nearest,
    parse_document,
)
from deferpost.units import shown

__all__ = [
    "FLAGS",
    "KINDS",
    "Flag",
    "PoolKind",
    "PoolSettings",
    "PoolSize",
    "Settings",
    "Wire",
    "default_pool",
    "dump_toml",
    "load_settings",
    "resolve_size",
]


def load_settings(
    *,
    toml_text: str | None,
    toml_name: str = "deferpost.toml",
    environ: Mapping[str, str],
    flags: Sequence[tuple[str, str]],
) -> Settings:
    """Put the settings together: defaults, then file, then environment, then options.

    A list from a later source replaces that of an earlier one.

    :param toml_text: the content of the file, if there is one.
    :param toml_name: what to call the file in messages.
    :param environ: the environment, of which ``DEFERPOST_*`` is looked at.
    :param flags: pairs of an option's name, without dashes, and its text; see :data:`FLAGS`.
    :raises ConfigurationError: with all that is wrong in all the sources.
    """
    problems = Problems(toml_name, toml_text or "")
    document = parse_document(toml_text or "", problems)
    given = [] if document is None else list(from_document(document, problems))
    pool_names = {item.path[1] for item in given if item.path[0] == "pools"}
    given += from_environ(environ, [*KINDS, *sorted(pool_names.difference(KINDS))], problems)
    given += from_flags(flags, problems)

    values: dict[str, Any] = {}
    by_pool: dict[str, list[Given]] = {name: [] for name in Settings().pools}
    for item in given:
        if item.path[0] == "pools":
            by_pool.setdefault(item.path[1], []).append(item)
        else:
            values[item.path[0]] = _read([TOP_KEYS[item.path[0]].shape], item, problems)
    pools = {}
    for name, items in by_pool.items():
        kind = _kind(name, by_pool, problems, is_file_known=document is not None)
        pool_values = _pool_values(kind, items, problems)
        if kind is not None:
            pools[name] = msgspec.structs.replace(default_pool(kind), **pool_values)
    problems.raise_if_any()
    return Settings(pools=MappingProxyType(pools), **values)


def _read(shapes: Sequence[Shape], item: Given, problems: Problems) -> Any:
    """Read a value in the first of the shapes that it has; report it if it has none."""
    for shape in shapes:
        with suppress(ValueError):
            return shape.read(item.value)
    problems.add(item.place, f"{shown(item.value)} is not {shapes[-1].expected}")
    return None


def _kind(
    name: str,
    by_pool: Mapping[str, Sequence[Given]],
    problems: Problems,
    *,
    is_file_known: bool,
) -> PoolKind | None:
    """Find the kind of a pool, or return ``None`` if there is none or it is wrong."""
    named = next((kind for kind in KINDS if kind == name), None)
    shape = choice(*([named] if named else KINDS))
    given = [item for item in by_pool[name] if item.path[2:] == ("kind",)]
    kind: PoolKind | None = None
    for item in given:
        kind = _read([shape], item, problems)
    if named:
        return named
    # A file that cannot be read may well say the kind, so then nothing is said of it here.
    if kind is None and not given and is_file_known:
        others = {*by_pool, *KINDS} - {name}
        message = f"the pool {shown(name)} needs a kind: {choice(*KINDS).expected}"
        problems.add(by_pool[name][0].place, message + nearest(name, sorted(others)))
    return kind


def _pool_values(
    kind: PoolKind | None, items: Sequence[Given], problems: Problems
) -> dict[str, Any]:
    """Read all of a pool but its kind; with no kind, anything goes that some kind allows."""
    values = {}
    for item in items:
        name = item.path[-1]
        if len(item.path) == 2 or name == "kind":
            continue
        rows = POOL_KEYS[name]
        shapes = [row.shape for row in rows if kind is None or kind in row.kinds]
        if shapes:
            values[name] = _read(shapes, item, problems)
        else:
            owners = either([owner for row in rows for owner in row.kinds])
            problems.add(item.place, f'{name} is for pools of kind {owners}, this one is "{kind}"')
    return values


def dump_toml(settings: Settings) -> str:
    """Write settings as TOML that :func:`load_settings` reads back to an equal value.

    :param settings: as :func:`load_settings` returns them.
    """
    lines = [_line(key, settings) for key in TOP_KEYS.values()]
    for name, pool in settings.pools.items():
        rows = [key for key in KEYS if pool.kind in key.kinds]
        lines += ["", f"[pools.{name}]", *(_line(key, pool) for key in rows)]
    return "\n".join(lines) + "\n"


def _line(key: Key, settings: Settings | PoolSettings) -> str:
    return f"{key.name} = {_toml(key.shape.write(getattr(settings, key.name)))}"


def _toml(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON writes strings, integers and booleans as TOML does, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
