"""The table of settings: each key with its help and its range, and the option that sets it.

One table, :data:`TOPICS`, describes every key; the options, the names in the environment, the
checks of the TOML file and the printed settings derive from it, and the defaults are those of
:mod:`deferpost.defaults`.  This module decides which single values are good and how they look in
TOML and as text; it never looks at where a value comes from, or at two values together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

from deferpost.defaults import (
    KINDS,
    LOG_FORMATS,
    STATUS_PAGES,
    WIRES,
    PoolKind,
    PoolSettings,
    PoolSize,
    Settings,
    default_pool,
)
from deferpost.units import format_duration, format_size, parse_duration, parse_size

__all__ = [
    "FLAGS",
    "KEYS",
    "POOL_KEYS",
    "TOPICS",
    "TOP_KEYS",
    "Flag",
    "Key",
    "KeyPath",
    "Shape",
    "choice",
    "either",
    "shape_of",
]

#: A key in the TOML file: ``("timeout",)``, or ``("pools", "thread", "size")``.
KeyPath: TypeAlias = tuple[str, ...]

_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400
_KIB = 2**10
_MIB = 2**20
_GIB = 2**30


class Shape(msgspec.Struct, frozen=True, kw_only=True):
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


def _duration(
    low: int, high: int, *, open_start: bool = False, such_as: str = '"30s" or "1m30s"'
) -> Shape:
    start = f"above {format_duration(low)} and up" if open_start else f"from {format_duration(low)}"
    return Shape(
        expected=f"a duration {start} to {format_duration(high)}, such as {such_as}",
        metavar="DURATION",
        read=_checked(parse_duration, lambda s: low <= s <= high and not (open_start and s == low)),
        write=format_duration,
    )


def _size(low: int, high: int, *, such_as: str = '"4MB" or "64KiB"') -> Shape:
    return Shape(
        expected=f"a size from {format_size(low)} to {format_size(high)}, such as {such_as}",
        metavar="SIZE",
        read=_checked(parse_size, lambda size: low <= size <= high),
        write=format_size,
    )


def _size_or_none(low: int, high: int, *, such_as: str) -> Shape:
    shape = _size(0, high, such_as=such_as)
    return msgspec.structs.replace(
        shape,
        expected=f"0 or a size from {format_size(low)} to {format_size(high)}, such as {such_as}",
        read=_checked(shape.read, lambda size: size == 0 or size >= low),
    )


def _count(low: int, high: int, *, auto: bool = False) -> Shape:
    def read(value: object) -> PoolSize:
        if auto and value == "auto":
            return "auto"
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(value)

    def from_text(text: str) -> object:
        digits = text.strip()
        return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else text

    return Shape(
        expected=f"a whole number from {low} to {high}" + (' or "auto"' if auto else ""),
        metavar="NUMBER",
        read=read,
        from_text=from_text,
    )


def choice(*choices: str) -> Shape:
    """Return the shape of a value that is one of these words."""

    def read(value: object) -> object:
        if value not in choices:
            raise ValueError(value)
        return value

    return Shape(expected=either(choices), metavar="|".join(choices), read=read)


def either(choices: Sequence[str]) -> str:
    """Put words as messages do: ``"one", "two" or "three"``."""
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


_YES_OR_NO = Shape(
    expected="true or false",
    metavar="yes|no",
    read=_read_boolean,
    from_text=_boolean_from_text,
)


def _read_application(value: object) -> str | None:
    if value == "":
        return None
    if isinstance(value, str):
        module, _, attribute = value.partition(":")
        if all(name.isidentifier() for name in f"{module}.{attribute}".split(".")):
            return value
    raise ValueError(value)


def _read_path(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(value)
    return value or None


_FILE = Shape(
    expected='the path of a file, or "" for none',
    metavar="PATH",
    read=_read_path,
    write=lambda path: path or "",
)


def _read_endpoints(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(value)
    if not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(value)
    return tuple(value)


def _read_words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(value)
    return tuple(item.strip() for item in value if item.strip())


def _read_url(value: object) -> str | None:
    if not isinstance(value, str):
        raise ValueError(value)
    if value and not re.fullmatch(r"https?://[A-Za-z0-9.\-:\[\]]+(?:/[!-\"$->@-~]*)?", value):
        raise ValueError(value)
    return value.rstrip("/") or None


class Key(msgspec.Struct, frozen=True):
    """One key: a row of the table.

    :param name: as in the TOML file, and the name of the field of the settings.
    :param help: what it decides, as one line of the list of options.
    :param shape: how its values look.
    :param kinds: the kinds of pools that have this key; empty for a key outside of pools.
    """

    name: str
    help: str
    shape: Shape
    kinds: tuple[PoolKind, ...] = ()


#: The table: the keys by topic, in the order in which the operator is shown them.
TOPICS: dict[str, tuple[Key, ...]] = {
    "What is served, and where": (
        Key(
            "app",
            "The app to serve.",
            Shape(
                expected='an app as "module:attribute", or "" for none',
                metavar="MODULE:ATTRIBUTE",
                read=_read_application,
                write=lambda app: app or "",
            ),
        ),
        Key(
            "listen",
            "Twisted endpoint to listen on; may be given several times.",
            Shape(
                expected='a list of one or more endpoint strings, such as ["tcp:8080"]',
                metavar="ENDPOINT",
                read=_read_endpoints,
                repeated=True,
            ),
        ),
        Key(
            "access_log",
            "Whether each request is logged.",
            _YES_OR_NO,
        ),
    ),
    "Request bodies": (
        Key("max_body", "Largest request body, for routes that set none.", _size(0, 1024 * _GIB)),
        Key(
            "body_memory",
            "Bodies up to this size stay in memory, larger ones go to a temporary file.",
            _size(0, 64 * _MIB),
        ),
        Key(
            "temporary_directory",
            "Directory for the temporary files.",
            Shape(
                expected='the path of a directory, or "" for the system\'s own',
                metavar="PATH",
                read=_read_path,
                write=lambda path: path or "",
            ),
        ),
    ),
    "Time": (
        Key(
            "timeout",
            "How long a call may run, for routes that set none.",
            _duration(0, 30 * _DAY, open_start=True),
        ),
        Key(
            "queue_timeout",
            "How long a call may wait for its start, likewise; 0 for no limit.",
            _duration(0, 30 * _DAY),
        ),
        Key(
            "total_timeout",
            "How long waiting and running may take together, likewise; 0 for no limit.",
            _duration(0, 30 * _DAY),
        ),
        Key("grace", "How long running work may go on at shutdown.", _duration(0, _DAY)),
        Key(
            "drain_delay",
            "How long calls are still accepted after SIGTERM, while /readyz says 503.",
            _duration(0, _HOUR, such_as='"5s" or "500ms"'),
        ),
        Key(
            "reload_timeout",
            "How long importing the app, and then setting up its workers, may take at a reload.",
            _duration(0, _HOUR, open_start=True),
        ),
    ),
    "Admission": (
        Key(
            "most_urgent",
            "Most urgent, of 0 to 7, that a client may be; with 3 or more none gets ahead.",
            _count(0, 7),
        ),
        Key(
            "priority_ageing",
            "Time in the queue that a step of urgency is worth.",
            _duration(0, 30 * _DAY, such_as='"10s" or "500ms"'),
        ),
        Key(
            "max_jobs_per_client",
            "Most calls that one client may have under way; 0 for no bound.",
            _count(0, 1_000_000),
        ),
    ),
    "Kept jobs": (
        Key(
            "store",
            "Directory in which accepted jobs are kept; none to answer every call at once.",
            Shape(
                expected='the path of a directory, or "" for none',
                metavar="PATH",
                read=_read_path,
                write=lambda path: path or "",
            ),
        ),
        Key(
            "store_durable",
            "Whether what was promised outlives a loss of power, and not only the daemon's end.",
            _YES_OR_NO,
        ),
        Key(
            "result_ttl",
            "How long a kept job is there when it has ended, for routes that set none.",
            _duration(0, 365 * _DAY, open_start=True, such_as='"24h" or "30m"'),
        ),
        Key("max_kept", "Most kept jobs that have not ended.", _count(1, 10_000_000)),
        Key(
            "idempotency_grace",
            "How long a client who left has to come back with its Idempotency-Key.",
            _duration(0, _DAY),
        ),
        Key(
            "public_url",
            "Where clients find the daemon, for links; none to go by each request.",
            Shape(
                expected='a URL such as "https://jobs.example.com", or "" for none',
                metavar="URL",
                read=_read_url,
                write=lambda url: url or "",
            ),
        ),
        Key(
            "webhook_hosts",
            "Host that may be told of the end of jobs; may be given several times.",
            Shape(
                expected='a list of hosts such as ["hooks.example.com", "*.example.org"]',
                metavar="HOST",
                read=_read_words,
                repeated=True,
            ),
        ),
        Key(
            "webhook_secrets",
            "File of the secrets with which that is signed.",
            _FILE,
        ),
        Key(
            "webhook_private",
            "Whether such a host may be at a private address.",
            _YES_OR_NO,
        ),
    ),
    "Looking in": (
        Key("metrics", "Whether /metrics shows figures for Prometheus.", _YES_OR_NO),
        Key(
            "log_format",
            "How the log is written: lines of text, or a JSON document in each line.",
            choice(*LOG_FORMATS),
        ),
        Key(
            "status_page",
            "Who may look at the page /_deferpost/; its buttons are for operators.",
            choice(*STATUS_PAGES),
        ),
    ),
    "HTTP/1.1: requests": (
        Key(
            "wire",
            "Channel that reads requests: deferpost's own, or Twisted's (stock), on which no other "
            "option of HTTP/1.1 has an effect.",
            choice(*WIRES),
        ),
        Key(
            "max_head",
            "Largest request line and header fields together.",
            _size(_KIB, _MIB, such_as='"16KiB" or "32kB"'),
        ),
        Key("max_headers", "Most header fields of a request.", _count(1, 10_000)),
        Key(
            "max_pipelined",
            "Most that a connection reads ahead of a response that is pending.",
            _size(4 * _KIB, 16 * _MIB),
        ),
    ),
    "HTTP/1.1: slow and silent clients": (
        Key(
            "head_timeout",
            "Time for a whole request head, from its first byte.",
            _duration(0, _HOUR, open_start=True),
        ),
        Key(
            "idle_timeout",
            "How long a connection may stay open without a request.",
            _duration(0, _DAY, open_start=True),
        ),
        Key(
            "min_body_rate",
            "Least that must arrive of a body each second, over any ten; 0 for no minimum.",
            _size(0, _GIB, such_as='"240B" or "4KiB"'),
        ),
        Key(
            "write_timeout",
            "How long a client may take nothing of what is to be written to it.",
            _duration(0, _DAY, open_start=True),
        ),
        Key(
            "tcp_keepalive",
            "Silence after which the system probes whether a client is there; 0 for never.",
            _duration(0, _DAY),
        ),
        Key(
            "tcp_user_timeout",
            "How long sent data may go unacknowledged; 0 for the system's own.",
            _duration(0, _DAY),
        ),
    ),
    "HTTP/1.1: connections": (
        Key("max_connections", "Most connections at once.", _count(1, 1_000_000)),
        Key(
            "max_connections_per_client",
            "Most connections at once from one address; 0 for no bound.",
            _count(0, 1_000_000),
        ),
        Key(
            "linger",
            "How long what still arrives after an early refusal is read and dropped.",
            _duration(0, _MINUTE, such_as='"5s" or "500ms"'),
        ),
    ),
    "Authentication": (
        Key(
            "tokens",
            "File of the bearer tokens with which clients may call; none for everybody.",
            _FILE,
        ),
        Key(
            "hmac_keys",
            "File of the secrets with which clients may sign their calls instead.",
            _FILE,
        ),
        Key(
            "operator_tokens",
            "File of the tokens of those who may look into the daemon.",
            _FILE,
        ),
    ),
    "Pools": (
        Key("kind", "What runs the work.", choice(*KINDS), KINDS),
        Key(
            "size", "How many calls run at once.", _count(1, 1024, auto=True), ("thread", "process")
        ),
        Key("size", "How many calls run at once.", _count(1, 100_000, auto=True), ("reactor",)),
        Key("max_waiting", "How many calls may wait for their turn.", _count(0, 1_000_000), KINDS),
        Key(
            "max_held",
            "Most that the bodies of its calls may take together; 0 for no bound.",
            _size(0, 1024 * _GIB, such_as='"1GiB" or "500MB"'),
            KINDS,
        ),
        Key(
            "interrupt_grace",
            "Time until a thread that is to stop is interrupted, where its route permits it.",
            _duration(0, _HOUR, open_start=True, such_as='"5s" or "500ms"'),
            ("thread",),
        ),
        Key(
            "kill_grace",
            "Time between SIGTERM and SIGKILL for a process that is to stop.",
            _duration(0, _HOUR),
            ("process",),
        ),
        Key(
            "max_jobs",
            "Calls after which a process is replaced; 0 for never.",
            _count(0, 1_000_000_000),
            ("process",),
        ),
        Key(
            "max_age",
            "Time after which a process is replaced; 0 for never.",
            _duration(0, 30 * _DAY, such_as='"1h" or "1d"'),
            ("process",),
        ),
        Key(
            "max_memory",
            "Memory from which on a process is replaced after its call; 0 for never.",
            _size(0, 1024 * _GIB, such_as='"500MB" or "2GiB"'),
            ("process",),
        ),
        Key(
            "memory_limit",
            "Address space that a process may have at all; 0 for no limit.",
            _size_or_none(64 * _MIB, 1024 * _GIB, such_as='"2GB" or "4GiB"'),
            ("process",),
        ),
        Key(
            "cpu_limit",
            "CPU time after which a process is killed in the middle of a call; 0 for no limit.",
            _duration(0, 30 * _DAY),
            ("process",),
        ),
        Key(
            "set_up_timeout",
            "How long setting up a process may take.",
            _duration(0, _HOUR, open_start=True),
            ("process",),
        ),
        Key(
            "warm",
            "Processes beyond those with a call that are kept ready to take a place.",
            _count(0, 1024),
            ("process",),
        ),
    ),
}

#: All keys, in the order of the table.
KEYS: tuple[Key, ...] = tuple(key for keys in TOPICS.values() for key in keys)
#: The keys outside of pools, by name.
TOP_KEYS = {key.name: key for key in KEYS if not key.kinds}
#: The keys of pools by name, each with a row for every range that it has.
POOL_KEYS = {key.name: [row for row in KEYS if row.name == key.name] for key in KEYS if key.kinds}


def shape_of(path: KeyPath) -> Shape:
    """Return how the values of a key look; of a pool's, the first row serves for any text.

    :param path: of a key that there is.
    """
    return (TOP_KEYS[path[0]] if len(path) == 1 else POOL_KEYS[path[2]][0]).shape


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A command-line option, one for each key of the top level and of the three usual pools.

    :param name: without the dashes in front, such as ``"max-body"``.
    :param metavar: stands for the value.
    :param help: one line.
    :param default: as it could be written on the command line; empty for none.
    :param repeated: whether each further use adds to the list.
    :param path: the key in the TOML file.
    :param topic: under which the list of options has it.
    """

    name: str
    metavar: str
    help: str
    default: str
    repeated: bool
    path: KeyPath
    topic: str


def _flag(key: Key, settings: Settings | PoolSettings, pool: PoolKind | None = None) -> Flag:
    name, help_text = key.name.replace("_", "-"), key.help
    path: KeyPath = (key.name,)
    if pool is not None:
        name = f"{pool}-{name}"
        help_text = f"{pool.capitalize()} pool: {key.help[0].lower()}{key.help[1:]}"
        path = ("pools", pool, key.name)
    return Flag(
        name=name,
        metavar=key.shape.metavar,
        help=help_text,
        default=_default_text(key.shape.write(getattr(settings, key.name))),
        repeated=key.shape.repeated,
        path=path,
        topic=next(topic for topic, keys in TOPICS.items() if key in keys),
    )


def _default_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _flags() -> Iterator[Flag]:
    for key in TOP_KEYS.values():
        yield _flag(key, Settings())
    for kind in KINDS:
        for key in KEYS:
            if kind in key.kinds and key.name != "kind":
                yield _flag(key, default_pool(kind), kind)


#: The options, in the order of the table.
FLAGS: tuple[Flag, ...] = tuple(_flags())
