"""The daemon's settings: what there is to set, and how they are read and written.

One table, :data:`KEYS`, describes every key; the options, the names in the environment, the
checks of the TOML file and the printed settings derive from it, and the defaults are those of
:class:`Settings` and :func:`default_pool`.  This module decides what values mean; it reads no
file and no environment, and touches no reactor.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from deferpost.errors import ConfigurationError
from deferpost.tomlplaces import line_of_keys
from deferpost.units import format_duration, format_size, parse_duration, parse_size, shown

__all__ = [
    "FLAGS",
    "KEYS",
    "KINDS",
    "Flag",
    "Form",
    "Key",
    "PoolKind",
    "PoolSettings",
    "PoolSize",
    "Settings",
    "default_pool",
    "dump_toml",
    "load_settings",
    "resolve_size",
]

PoolKind: TypeAlias = Literal["thread", "process", "reactor"]
PoolSize: TypeAlias = int | Literal["auto"]

#: The kinds of pools; a pool that is named like a kind is of that kind.
KINDS: tuple[PoolKind, ...] = ("thread", "process", "reactor")

_REACTOR_SIZE = 1000
_ENVIRONMENT = "DEFERPOST_"
_RESERVED = {"DEFERPOST_CONFIG"}  # the file's own path, for whoever opens the file
_HOUR = 3_600
_DAY = 86_400


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One pool.

    :param kind: what runs the work.
    :param size: how many calls run at once; see :func:`resolve_size` for ``"auto"``.
    :param max_waiting: how many calls may wait for their turn.
    :param kill_grace: seconds between SIGTERM and SIGKILL; of meaning to processes only.
    """

    kind: PoolKind
    size: PoolSize = "auto"
    max_waiting: int = 1000
    kill_grace: float = 5.0


def default_pool(kind: PoolKind) -> PoolSettings:
    """Return the settings of a pool of which nothing but the kind is set."""
    return PoolSettings(kind=kind, size=_REACTOR_SIZE if kind == "reactor" else "auto")


def _default_pools() -> Mapping[str, PoolSettings]:
    return MappingProxyType({"thread": default_pool("thread"), "process": default_pool("process")})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the operator decides, with its default.

    :param app: the app to serve, as ``"module:attribute"``.
    :param listen: Twisted endpoint strings, at least one.
    :param max_body: largest request body in bytes, for routes that set none.
    :param body_memory: bodies up to this many bytes stay in memory, larger ones are files.
    :param temporary_directory: where those files go; ``None`` is the system's own place.
    :param timeout: seconds that a call may run, for routes that set none.
    :param grace: seconds that running work gets at shutdown.
    :param access_log: whether each request is logged.
    :param pools: the pools by name; ``thread`` and ``process`` are always there.
    """

    app: str | None = None
    listen: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)
    max_body: int = 16 * 2**20
    body_memory: int = 64 * 2**10
    temporary_directory: str | None = None
    timeout: float = 300.0
    grace: float = 30.0
    access_log: bool = True
    pools: Mapping[str, PoolSettings] = msgspec.field(default_factory=_default_pools)


def resolve_size(size: PoolSize, kind: PoolKind, cpus: int) -> int:
    """Return how many calls a pool runs at once.

    :param size: as set.  ``"auto"`` is one process for each CPU, four threads more than CPUs
        but no more than 32, or 1000 coroutines.
    :param cpus: how many CPUs this process may use.
    """
    if size != "auto":
        return size
    return {"thread": min(32, cpus + 4), "process": cpus, "reactor": _REACTOR_SIZE}[kind]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of a key look.

    :param expected: what a good value is, with its range, to follow "… is not".
    :param metavar: stands for the value in the list of options.
    :param read: takes a TOML value to the setting; raises :exc:`ValueError`.
    :param write: takes the setting back to a TOML value.
    :param from_text: takes an option or environment variable to a TOML value, or leaves the
        text as it is where it makes no sense, for ``read`` to refuse.
    :param repeated: whether the value is a list, an option given several times.
    """

    expected: str
    metavar: str
    read: Callable[[object], Any]
    write: Callable[[Any], object] = lambda setting: setting
    from_text: Callable[[str], object] = lambda text: text
    repeated: bool = False

    def from_texts(self, texts: Sequence[str]) -> object:
        """Take what an option or environment variable says to a TOML value."""
        return list(texts) if self.repeated else self.from_text(texts[-1])


_T = TypeVar("_T")


def _checked(read: Callable[[object], _T], fits: Callable[[_T], bool]) -> Callable[[object], _T]:
    def checked(value: object) -> _T:
        setting = read(value)
        if not fits(setting):
            raise ValueError(value)
        return setting

    return checked


def _duration(low: int, high: int, *, open_start: bool = False) -> Form:
    start = f"above {format_duration(low)} and up" if open_start else f"from {format_duration(low)}"
    return Form(
        expected=f'a duration {start} to {format_duration(high)}, such as "30s" or "1m30s"',
        metavar="DURATION",
        read=_checked(parse_duration, lambda s: low <= s <= high and not (open_start and s == low)),
        write=format_duration,
    )


def _size(low: int, high: int) -> Form:
    return Form(
        expected=f'a size from {format_size(low)} to {format_size(high)}, such as "4MB" or "64KiB"',
        metavar="SIZE",
        read=_checked(parse_size, lambda size: low <= size <= high),
        write=format_size,
    )


def _count(low: int, high: int, *, auto: bool = False) -> Form:
    def read(value: object) -> PoolSize:
        if auto and value == "auto":
            return "auto"
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(value)

    def from_text(text: str) -> object:
        digits = text.strip()
        return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else text

    return Form(
        expected=f"a whole number from {low} to {high}" + (' or "auto"' if auto else ""),
        metavar="NUMBER",
        read=read,
        from_text=from_text,
    )


def _choice(*choices: str) -> Form:
    def read(value: object) -> object:
        if value not in choices:
            raise ValueError(value)
        return value

    return Form(expected=_either(choices), metavar="|".join(choices), read=read)


def _either(choices: Sequence[str]) -> str:
    *others, last = [f'"{choice}"' for choice in choices]
    return f"{', '.join(others)} or {last}" if others else last


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _boolean_from_text(text: str) -> object:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    return words.get(text.strip().lower(), text)


def _read_application(value: object) -> str | None:
    if value == "":
        return None
    if isinstance(value, str):
        module, _, attribute = value.partition(":")
        if all(name.isidentifier() for name in f"{module}.{attribute}".split(".")):
            return value
    raise ValueError(value)


def _read_directory(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    return value or None


def _read_endpoints(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    if not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(value)
    return tuple(value)


class Key(msgspec.Struct, frozen=True):
    """One key: a row of the table.

    :param name: as in the TOML file, and the name of the field of the settings.
    :param help: what it decides, as one line of the list of options.
    :param form: how its values look.
    :param kinds: the kinds of pools that have this key; empty for a key outside of pools.
    """

    name: str
    help: str
    form: Form
    kinds: tuple[PoolKind, ...] = ()


KEYS: tuple[Key, ...] = (
    Key(
        "app",
        "The app to serve.",
        Form(
            expected='an app as "module:attribute", or "" for none',
            metavar="MODULE:ATTRIBUTE",
            read=_read_application,
            write=lambda app: app or "",
        ),
    ),
    Key(
        "listen",
        "Twisted endpoint to listen on; may be given several times.",
        Form(
            expected='a list of one or more endpoint strings, such as ["tcp:8080"]',
            metavar="ENDPOINT",
            read=_read_endpoints,
            repeated=True,
        ),
    ),
    Key("max_body", "Largest request body, for routes that set none.", _size(0, 2**40)),
    Key(
        "body_memory",
        "Bodies up to this size stay in memory, larger ones go to a temporary file.",
        _size(0, 64 * 2**20),
    ),
    Key(
        "temporary_directory",
        "Directory for the temporary files.",
        Form(
            expected='the path of a directory, or "" for the system\'s own',
            metavar="PATH",
            read=_read_directory,
            write=lambda path: path or "",
        ),
    ),
    Key(
        "timeout",
        "How long a call may run, for routes that set none.",
        _duration(0, 30 * _DAY, open_start=True),
    ),
    Key("grace", "How long running work may go on at shutdown.", _duration(0, _DAY)),
    Key(
        "access_log",
        "Whether each request is logged.",
        Form(
            expected="true or false",
            metavar="yes|no",
            read=_read_boolean,
            from_text=_boolean_from_text,
        ),
    ),
    Key("kind", "What runs the work.", _choice(*KINDS), KINDS),
    Key("size", "How many calls run at once.", _count(1, 1024, auto=True), ("thread", "process")),
    Key("size", "How many calls run at once.", _count(1, 100_000, auto=True), ("reactor",)),
    Key("max_waiting", "How many calls may wait for their turn.", _count(0, 1_000_000), KINDS),
    Key(
        "kill_grace",
        "Time between SIGTERM and SIGKILL for a process that is to stop.",
        _duration(0, _HOUR),
        ("process",),
    ),
)

_TOP_KEYS = {key.name: key for key in KEYS if not key.kinds}
_POOL_KEYS = {key.name: [row for row in KEYS if row.name == key.name] for key in KEYS if key.kinds}

_Path: TypeAlias = tuple[str, ...]


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A command-line option, one for each key of the top level and of the three usual pools.

    :param name: without the dashes in front, such as ``"max-body"``.
    :param metavar: stands for the value.
    :param help: one line.
    :param default: as it could be written on the command line; empty for none.
    :param repeated: whether each further use adds to the list.
    :param path: the key in the TOML file.
    """

    name: str
    metavar: str
    help: str
    default: str
    repeated: bool
    path: _Path


def _flag(key: Key, settings: Settings | PoolSettings, pool: PoolKind | None = None) -> Flag:
    name, help_text = key.name.replace("_", "-"), key.help
    path: _Path = (key.name,)
    if pool is not None:
        name = f"{pool}-{name}"
        help_text = f"{pool.capitalize()} pool: {key.help[0].lower()}{key.help[1:]}"
        path = ("pools", pool, key.name)
    return Flag(
        name=name,
        metavar=key.form.metavar,
        help=help_text,
        default=_default_text(key.form.write(getattr(settings, key.name))),
        repeated=key.form.repeated,
        path=path,
    )


def _default_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _flags() -> Iterator[Flag]:
    for key in _TOP_KEYS.values():
        yield _flag(key, Settings())
    for kind in KINDS:
        for key in KEYS:
            if kind in key.kinds and key.name != "kind":
                yield _flag(key, default_pool(kind), kind)


#: The options, in the order of the table.
FLAGS: tuple[Flag, ...] = tuple(_flags())

_SOURCES = ("file", "environment", "option")


class _Place(msgspec.Struct, frozen=True):
    """Where a value comes from.

    :param source: as messages call it.
    :param name: of the variable or the option; of the file, a place like ``":3:5"`` if known.
    :param path: of the key, for a value of the file.
    """

    source: Literal["file", "environment", "option"]
    name: str = ""
    path: _Path = ()


class _Given(msgspec.Struct, frozen=True):
    """A value that a source gives for a known key; the bare path of a pool declares it."""

    place: _Place
    path: _Path
    value: object


class _Problems:
    """Collects what is wrong.

    :param toml_name: what to call the file.
    :param toml_text: its text, in which to look for lines.
    """

    def __init__(self, toml_name: str, toml_text: str) -> None:
        self._toml_name = toml_name
        self._toml_text = toml_text
        self._found: list[tuple[_Place, str]] = []

    def add(self, place: _Place, message: str) -> None:
        self._found.append((place, message))

    def raise_if_any(self) -> None:
        """Raise all that was found, source by source, the file's by line."""
        if not self._found:
            return
        in_file = any(place.path for place, _ in self._found)
        lines = line_of_keys(self._toml_text) if in_file else {}

        def position(found: tuple[_Place, str]) -> tuple[int, int, str]:
            place, _ = found
            return _SOURCES.index(place.source), lines.get(place.path, 0), place.name

        raise ConfigurationError(
            [
                f"{self._words(place, lines)}: {message}"
                for place, message in sorted(self._found, key=position)
            ]
        )

    def _words(self, place: _Place, lines: Mapping[_Path, int]) -> str:
        if place.source != "file":
            return f"{place.source} {place.name if place.name.isprintable() else shown(place.name)}"
        if not place.path:
            return self._toml_name + place.name
        line = f":{lines[place.path]}" if place.path in lines else ""
        key = ".".join(p if re.fullmatch(r"[\w-]+", p, re.ASCII) else shown(p) for p in place.path)
        return f"{self._toml_name}{line}: {key}"


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
    problems = _Problems(toml_name, toml_text or "")
    document = _document(toml_text or "", problems)
    given = [] if document is None else list(_from_document(document, problems))
    pool_names = {item.path[1] for item in given if item.path[0] == "pools"}
    given += _from_environ(environ, [*KINDS, *sorted(pool_names.difference(KINDS))], problems)
    given += _from_flags(flags, problems)

    values: dict[str, Any] = {}
    by_pool: dict[str, list[_Given]] = {name: [] for name in Settings().pools}
    for item in given:
        if item.path[0] == "pools":
            by_pool.setdefault(item.path[1], []).append(item)
        else:
            values[item.path[0]] = _read([_TOP_KEYS[item.path[0]].form], item, problems)
    pools = {}
    for name, items in by_pool.items():
        kind = _kind(name, by_pool, problems, is_file_known=document is not None)
        pool_values = _pool_values(kind, items, problems)
        if kind is not None:
            pools[name] = msgspec.structs.replace(default_pool(kind), **pool_values)
    problems.raise_if_any()
    return Settings(pools=MappingProxyType(pools), **values)


def _document(text: str, problems: _Problems) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        message = str(error)
        if match := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message):
            problems.add(_Place("file", f":{match[2]}:{match[3]}"), match[1])
        else:
            problems.add(_Place("file"), message)
    except RecursionError:
        problems.add(_Place("file"), "arrays or tables are nested too deeply")
    return None


def _from_document(document: dict[str, Any], problems: _Problems) -> Iterator[_Given]:
    for name, value in document.items():
        place = _Place("file", path=(name,))
        if name in _TOP_KEYS:
            yield _Given(place, (name,), value)
        elif name != "pools":
            problems.add(place, "unknown key" + _nearest(name, [*_TOP_KEYS, "pools"]))
        elif isinstance(value, dict):
            for pool, content in value.items():
                yield from _from_pool_table(pool, content, problems)
        else:
            problems.add(place, f"{shown(value)} is not a table of pools, such as [pools.thread]")


def _from_pool_table(pool: str, content: object, problems: _Problems) -> Iterator[_Given]:
    place = _Place("file", path=("pools", pool))
    if not re.fullmatch("[a-z][a-z0-9_-]*", pool):
        problems.add(place, "a pool's name is a letter from a to z, then a to z, 0 to 9, - or _")
    if not isinstance(content, dict):
        problems.add(place, f"{shown(content)} is not a table, such as [pools.thread]")
        return
    yield _Given(place, ("pools", pool), None)
    for name, value in content.items():
        path = ("pools", pool, name)
        place = _Place("file", path=path)
        if name in _POOL_KEYS:
            yield _Given(place, path, value)
        elif name in _TOP_KEYS:
            problems.add(place, "not a key of a pool; it belongs above the first [table]")
        else:
            problems.add(place, "unknown key" + _nearest(name, _POOL_KEYS))


def _from_environ(
    environ: Mapping[str, str], pool_names: Sequence[str], problems: _Problems
) -> Iterator[_Given]:
    known: dict[str, list[_Path]] = {_variable((name,)): [(name,)] for name in _TOP_KEYS}
    for pool in pool_names:
        for name in _POOL_KEYS:
            path = ("pools", pool, name)
            known.setdefault(_variable(path), []).append(path)
    new_pool = re.compile(f"{_ENVIRONMENT}POOLS_([A-Z][A-Z0-9_]*)_({'|'.join(_POOL_KEYS)})".upper())

    for variable in sorted(environ):
        if not variable.startswith(_ENVIRONMENT) or variable in _RESERVED:
            continue
        place = _Place("environment", variable)
        paths = known.get(variable, [])
        if not paths and (match := new_pool.fullmatch(variable)):
            paths = [("pools", match[1].lower(), match[2].lower())]
        if not paths:
            # Compared without the prefix, which would make all of them near.
            rest, *others = (v.removeprefix(_ENVIRONMENT).upper() for v in (variable, *known))
            problems.add(place, "unknown variable" + _nearest(rest, others, _ENVIRONMENT))
        elif len(paths) > 1:
            problems.add(place, "could mean each of " + " and ".join(map(".".join, paths)))
        else:
            form = _form(paths[0])
            text = environ[variable]
            value = form.from_texts(text.split() if form.repeated else [text])
            yield _Given(place, paths[0], value)


def _variable(path: _Path) -> str:
    return _ENVIRONMENT + "_".join(path).replace("-", "_").upper()


def _from_flags(flags: Sequence[tuple[str, str]], problems: _Problems) -> Iterator[_Given]:
    known = {flag.name: flag for flag in FLAGS}
    texts: dict[str, list[str]] = {}
    for name, text in flags:
        texts.setdefault(name, []).append(text)
    for name, given in texts.items():
        place = _Place("option", f"--{name}")
        if name not in known:
            problems.add(place, "unknown option" + _nearest(name, known, "--"))
            continue
        flag = known[name]
        for part in [given] if flag.repeated else [[text] for text in given]:
            yield _Given(place, flag.path, _form(flag.path).from_texts(part))


def _form(path: _Path) -> Form:
    return (_TOP_KEYS[path[0]] if len(path) == 1 else _POOL_KEYS[path[2]][0]).form


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _read(forms: Sequence[Form], item: _Given, problems: _Problems) -> Any:
    """Read a value in the first of the forms that it has; report it if it has none."""
    for form in forms:
        with suppress(ValueError):
            return form.read(item.value)
    problems.add(item.place, f"{shown(item.value)} is not {forms[-1].expected}")
    return None


def _kind(
    name: str,
    by_pool: Mapping[str, Sequence[_Given]],
    problems: _Problems,
    *,
    is_file_known: bool,
) -> PoolKind | None:
    """Find the kind of a pool, or return ``None`` if there is none or it is wrong."""
    named = next((kind for kind in KINDS if kind == name), None)
    form = _choice(*([named] if named else KINDS))
    given = [item for item in by_pool[name] if item.path[2:] == ("kind",)]
    kind: PoolKind | None = None
    for item in given:
        kind = _read([form], item, problems)
    if named:
        return named
    # A file that cannot be read may well say the kind, so then nothing is said of it here.
    if kind is None and not given and is_file_known:
        others = {*by_pool, *KINDS} - {name}
        message = f"the pool {shown(name)} needs a kind: {_choice(*KINDS).expected}"
        problems.add(by_pool[name][0].place, message + _nearest(name, sorted(others)))
    return kind


def _pool_values(
    kind: PoolKind | None, items: Sequence[_Given], problems: _Problems
) -> dict[str, Any]:
    """Read all of a pool but its kind; with no kind, anything goes that some kind allows."""
    values = {}
    for item in items:
        name = item.path[-1]
        if len(item.path) == 2 or name == "kind":
            continue
        rows = _POOL_KEYS[name]
        forms = [row.form for row in rows if kind is None or kind in row.kinds]
        if forms:
            values[name] = _read(forms, item, problems)
        else:
            owners = _either([owner for row in rows for owner in row.kinds])
            problems.add(item.place, f'{name} is for pools of kind {owners}, this one is "{kind}"')
    return values


def dump_toml(settings: Settings) -> str:
    """Write settings as TOML that :func:`load_settings` reads back to an equal value.

    :param settings: as :func:`load_settings` returns them.
    """
    lines = [_line(key, settings) for key in _TOP_KEYS.values()]
    for name, pool in settings.pools.items():
        rows = [key for key in KEYS if pool.kind in key.kinds]
        lines += ["", f"[pools.{name}]", *(_line(key, pool) for key in rows)]
    return "\n".join(lines) + "\n"


def _line(key: Key, settings: Settings | PoolSettings) -> str:
    return f"{key.name} = {_toml(key.form.write(getattr(settings, key.name)))}"


def _toml(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON writes strings, integers and booleans as TOML does, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
