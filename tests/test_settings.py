"""Reading and writing the daemon's settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deferpost.defaults import LOG_FORMATS, STATUS_PAGES, WIRES
from deferpost.errors import ConfigurationError
from deferpost.keys import FLAGS, KEYS, TOPICS
from deferpost.settings import (
    KINDS,
    PoolKind,
    PoolSettings,
    PoolSize,
    Settings,
    default_pool,
    dump_toml,
    load_settings,
    resolve_size,
)
from deferpost.tomlplaces import MAX_LINES

EXAMPLE = Path(__file__).resolve().parents[1] / "etc" / "deferpost.toml"


def load(
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[tuple[str, str]] = (),
) -> Settings:
    return load_settings(toml_text=toml, environ=environ or {}, flags=flags)


def problems(
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[tuple[str, str]] = (),
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(toml, environ, flags)
    return list(caught.value.problems)


def problem(
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Sequence[tuple[str, str]] = (),
) -> str:
    (only,) = problems(toml, environ, flags)
    return only


def test_without_sources_the_defaults_hold() -> None:
    """Nothing has to be configured."""
    settings = load()
    assert settings == Settings()
    assert settings.listen == ("tcp:8080:interface=127.0.0.1",)
    assert (settings.max_body, settings.body_memory) == (16 * 1024**2, 64 * 1024)
    assert (settings.timeout, settings.grace, settings.access_log) == (300, 30, True)
    assert (settings.queue_timeout, settings.total_timeout) == (0, 0)
    assert (settings.most_urgent, settings.priority_ageing) == (0, 10)
    assert settings.max_jobs_per_client == 0
    assert settings.pools["thread"].max_held == 2**30
    assert (settings.app, settings.temporary_directory) == (None, None)
    assert settings.wire == "deferpost"
    assert (settings.max_head, settings.max_headers) == (16 * 1024, 100)
    assert (settings.max_pipelined, settings.min_body_rate) == (64 * 1024, 240)
    assert (settings.head_timeout, settings.idle_timeout, settings.write_timeout) == (15, 60, 30)
    assert (settings.tcp_keepalive, settings.tcp_user_timeout, settings.linger) == (60, 30, 5)
    assert (settings.max_connections, settings.max_connections_per_client) == (10_000, 0)
    assert settings.pools == {
        "thread": PoolSettings(kind="thread", size="auto", max_waiting=1000, kill_grace=5),
        "process": PoolSettings(kind="process", size="auto", max_waiting=1000, kill_grace=5),
    }


def test_settings_cannot_be_changed() -> None:
    """Neither the settings nor their pools are open to assignment."""
    settings = load()
    with pytest.raises(AttributeError):
        settings.timeout = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.pools["more"] = default_pool("thread")  # type: ignore[index]


def test_a_file_sets_every_key() -> None:
    """All keys can be written in the TOML file."""
    settings = load(
        """
        app = "examples.documents:app"
        listen = ["tcp:80", "tcp6:80"]
        max_body = "4MB"
        body_memory = 0
        temporary_directory = "/var/tmp"
        timeout = 0.5
        queue_timeout = "30d"
        total_timeout = "1m"
        grace = "1m"
        drain_delay = 5
        reload_timeout = "1h"
        most_urgent = 7
        priority_ageing = 0
        max_jobs_per_client = 1000000
        access_log = false
        status_page = "open"
        wire = "stock"
        max_head = "1MiB"
        max_headers = 10000
        max_pipelined = "16MiB"
        head_timeout = "1h"
        idle_timeout = "1d"
        min_body_rate = "1GiB"
        write_timeout = "1d"
        tcp_keepalive = "1d"
        tcp_user_timeout = "1d"
        max_connections = 1000000
        max_connections_per_client = 1000000
        linger = "1m"
        [pools.process]
        size = 2
        max_waiting = 0
        max_held = 0
        kill_grace = "500ms"
        [pools.heavy-work]
        kind = "process"
        size = "auto"
        [pools.reactor]
        """
    )
    process = PoolSettings(kind="process", size=2, max_waiting=0, max_held=0, kill_grace=0.5)
    assert settings == Settings(
        app="examples.documents:app",
        listen=("tcp:80", "tcp6:80"),
        max_body=4_000_000,
        body_memory=0,
        temporary_directory="/var/tmp",
        timeout=0.5,
        queue_timeout=30 * 86_400.0,
        total_timeout=60.0,
        grace=60.0,
        drain_delay=5.0,
        reload_timeout=3600.0,
        most_urgent=7,
        priority_ageing=0.0,
        max_jobs_per_client=1_000_000,
        access_log=False,
        status_page="open",
        wire="stock",
        max_head=2**20,
        max_headers=10_000,
        max_pipelined=16 * 2**20,
        head_timeout=3600.0,
        idle_timeout=86_400.0,
        min_body_rate=2**30,
        write_timeout=86_400.0,
        tcp_keepalive=86_400.0,
        tcp_user_timeout=86_400.0,
        max_connections=1_000_000,
        max_connections_per_client=1_000_000,
        linger=60.0,
        pools={
            "thread": default_pool("thread"),
            "process": process,
            "heavy-work": default_pool("process"),
            "reactor": default_pool("reactor"),
        },
    )


def test_the_environment_sets_every_key() -> None:
    """All keys can be set by environment variables, endpoints with spaces between."""
    settings = load(
        environ={
            "DEFERPOST_APP": "a.b:c.d",
            "DEFERPOST_LISTEN": "tcp:80  tcp6:80",
            "DEFERPOST_MAX_BODY": "4MB",
            "DEFERPOST_BODY_MEMORY": "4096",
            "DEFERPOST_TEMPORARY_DIRECTORY": "/tmp/with space",
            "DEFERPOST_TIMEOUT": "90",
            "DEFERPOST_QUEUE_TIMEOUT": "1500ms",
            "DEFERPOST_TOTAL_TIMEOUT": "2m",
            "DEFERPOST_GRACE": "0",
            "DEFERPOST_MOST_URGENT": "2",
            "DEFERPOST_PRIORITY_AGEING": "1",
            "DEFERPOST_MAX_JOBS_PER_CLIENT": "9",
            "DEFERPOST_ACCESS_LOG": "off",
            "DEFERPOST_WIRE": "stock",
            "DEFERPOST_MAX_HEAD": "1KiB",
            "DEFERPOST_MAX_HEADERS": "1",
            "DEFERPOST_MAX_PIPELINED": "4096",
            "DEFERPOST_HEAD_TIMEOUT": "1ms",
            "DEFERPOST_IDLE_TIMEOUT": "2ms",
            "DEFERPOST_MIN_BODY_RATE": "0",
            "DEFERPOST_WRITE_TIMEOUT": "3ms",
            "DEFERPOST_TCP_KEEPALIVE": "0",
            "DEFERPOST_TCP_USER_TIMEOUT": "0s",
            "DEFERPOST_MAX_CONNECTIONS": "1",
            "DEFERPOST_MAX_CONNECTIONS_PER_CLIENT": "2",
            "DEFERPOST_LINGER": "0",
            "DEFERPOST_POOLS_THREAD_SIZE": "8",
            "DEFERPOST_POOLS_PROCESS_SIZE": "auto",
            "DEFERPOST_POOLS_PROCESS_MAX_WAITING": " 10 ",
            "DEFERPOST_POOLS_PROCESS_MAX_HELD": "1TiB",
            "DEFERPOST_POOLS_PROCESS_KILL_GRACE": "1h",
            "HOME": "/root",
        }
    )
    assert settings == Settings(
        app="a.b:c.d",
        listen=("tcp:80", "tcp6:80"),
        max_body=4_000_000,
        body_memory=4096,
        temporary_directory="/tmp/with space",
        timeout=90.0,
        queue_timeout=1.5,
        total_timeout=120.0,
        grace=0.0,
        most_urgent=2,
        priority_ageing=1.0,
        max_jobs_per_client=9,
        access_log=False,
        wire="stock",
        max_head=1024,
        max_headers=1,
        max_pipelined=4096,
        head_timeout=0.001,
        idle_timeout=0.002,
        min_body_rate=0,
        write_timeout=0.003,
        tcp_keepalive=0.0,
        tcp_user_timeout=0.0,
        max_connections=1,
        max_connections_per_client=2,
        linger=0.0,
        pools={
            "thread": PoolSettings(kind="thread", size=8),
            "process": PoolSettings(
                kind="process", max_waiting=10, max_held=2**40, kill_grace=3600.0
            ),
        },
    )


def test_options_set_every_key() -> None:
    """All keys of the top level and of the usual pools have options."""
    settings = load(
        flags=[
            ("app", "m:a"),
            ("listen", "tcp:80"),
            ("listen", "unix:/run/my socket"),
            ("max-body", "1GiB"),
            ("body-memory", "0B"),
            ("temporary-directory", "/t"),
            ("timeout", "1d"),
            ("queue-timeout", "5s"),
            ("total-timeout", "0"),
            ("grace", "1d"),
            ("most-urgent", "3"),
            ("priority-ageing", "1m"),
            ("max-jobs-per-client", "20"),
            ("access-log", "no"),
            ("wire", "stock"),
            ("max-head", "8KiB"),
            ("max-headers", "50"),
            ("max-pipelined", "1MiB"),
            ("head-timeout", "5s"),
            ("idle-timeout", "5m"),
            ("min-body-rate", "1kB"),
            ("write-timeout", "1m"),
            ("tcp-keepalive", "90s"),
            ("tcp-user-timeout", "20s"),
            ("max-connections", "500"),
            ("max-connections-per-client", "10"),
            ("linger", "500ms"),
            ("thread-size", "4"),
            ("thread-max-waiting", "10"),
            ("thread-max-held", "64MiB"),
            ("process-size", "2"),
            ("process-max-waiting", "20"),
            ("process-kill-grace", "0"),
            ("reactor-size", "auto"),
            ("reactor-max-waiting", "30"),
        ]
    )
    assert settings == Settings(
        app="m:a",
        listen=("tcp:80", "unix:/run/my socket"),
        max_body=2**30,
        body_memory=0,
        temporary_directory="/t",
        timeout=86_400.0,
        queue_timeout=5.0,
        total_timeout=0.0,
        grace=86_400.0,
        most_urgent=3,
        priority_ageing=60.0,
        max_jobs_per_client=20,
        access_log=False,
        wire="stock",
        max_head=8192,
        max_headers=50,
        max_pipelined=2**20,
        head_timeout=5.0,
        idle_timeout=300.0,
        min_body_rate=1000,
        write_timeout=60.0,
        tcp_keepalive=90.0,
        tcp_user_timeout=20.0,
        max_connections=500,
        max_connections_per_client=10,
        linger=0.5,
        pools={
            "thread": PoolSettings(kind="thread", size=4, max_waiting=10, max_held=2**26),
            "process": PoolSettings(kind="process", size=2, max_waiting=20, kill_grace=0.0),
            "reactor": PoolSettings(kind="reactor", size="auto", max_waiting=30),
        },
    )


def test_later_sources_win_key_by_key() -> None:
    """Options go before the environment, that before the file, and that before the defaults."""
    settings = load(
        'timeout = 1\ngrace = 1\nmax_body = 1\nlisten = ["tcp:1"]\npools.thread.size = 1\n'
        "pools.thread.max_waiting = 1",
        {"DEFERPOST_TIMEOUT": "2", "DEFERPOST_GRACE": "2", "DEFERPOST_POOLS_THREAD_SIZE": "2"},
        [("timeout", "3"), ("listen", "tcp:3"), ("timeout", "4")],
    )
    assert (settings.timeout, settings.grace, settings.max_body) == (4, 2, 1)
    assert settings.listen == ("tcp:3",)
    assert settings.pools["thread"] == PoolSettings(kind="thread", size=2, max_waiting=1)
    assert settings.body_memory == Settings().body_memory


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, True) for word in ("true", "yes", "on", "1", "YES", " True ")],
        *[(word, False) for word in ("false", "no", "off", "0", "Off")],
    ],
)
def test_yes_and_no_have_many_words(text: str, value: bool) -> None:
    """The usual words for true and false are understood in options and the environment."""
    assert load(flags=[("access-log", text)]).access_log is value
    assert load(environ={"DEFERPOST_ACCESS_LOG": text}).access_log is value


def test_an_empty_text_takes_a_path_or_app_back() -> None:
    """An app or directory that a lower source sets can be taken back."""
    settings = load(
        'app = "m:a"\ntemporary_directory = "/t"',
        {"DEFERPOST_APP": ""},
        [("temporary-directory", "")],
    )
    assert (settings.app, settings.temporary_directory) == (None, None)


def test_the_variable_for_the_file_is_left_alone() -> None:
    """DEFERPOST_CONFIG is not a setting and no problem."""
    assert load(environ={"DEFERPOST_CONFIG": "/etc/deferpost.toml"}) == Settings()


def test_the_environment_finds_a_pool_of_the_file_by_its_name() -> None:
    """A dash in a pool's name is an underscore in the environment."""
    settings = load(
        '[pools.heavy-work]\nkind = "process"', {"DEFERPOST_POOLS_HEAVY_WORK_SIZE": "3"}
    )
    assert settings.pools["heavy-work"] == PoolSettings(kind="process", size=3)
    assert "heavy_work" not in settings.pools


def test_the_environment_can_add_a_pool_with_a_kind() -> None:
    """A pool that only the environment knows needs a kind, and then is one."""
    environ = {"DEFERPOST_POOLS_MAX_SIZE_KIND": "reactor", "DEFERPOST_POOLS_MAX_SIZE_SIZE": "2000"}
    assert load(environ=environ).pools["max_size"] == PoolSettings(kind="reactor", size=2000)
    assert problem(environ={"DEFERPOST_POOLS_THREDA_MAX_WAITING": "4"}) == (
        "environment DEFERPOST_POOLS_THREDA_MAX_WAITING: the pool 'threda' needs a kind: "
        '"thread", "process" or "reactor"; did you mean thread?'
    )


def test_a_variable_that_fits_two_pools_is_refused() -> None:
    """Names that differ by dash and underscore only cannot be told apart in the environment."""
    toml = '[pools.a-b]\nkind = "thread"\n[pools.a_b]\nkind = "thread"'
    assert problem(toml, {"DEFERPOST_POOLS_A_B_SIZE": "1"}) == (
        "environment DEFERPOST_POOLS_A_B_SIZE: could mean each of pools.a-b.size and pools.a_b.size"
    )


def test_a_pool_of_ones_own_needs_a_kind() -> None:
    """A pool whose name is no kind has to say its kind, and near names are suggested."""
    toml = '[pools.heavy]\nkind = "thread"\n[pools.haevy]\nsize = 4'
    assert problem(toml) == (
        "deferpost.toml:3: pools.haevy: the pool 'haevy' needs a kind: "
        '"thread", "process" or "reactor"; did you mean heavy?'
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_pool_named_like_a_kind_is_of_that_kind(name: PoolKind) -> None:
    """The name settles the kind, and saying another one is a mistake."""
    assert load(f'[pools.{name}]\nkind = "{name}"').pools[name] == default_pool(name)
    other = next(kind for kind in KINDS if kind != name)
    assert problem(f'[pools.{name}]\nkind = "{other}"') == (
        f"deferpost.toml:2: pools.{name}.kind: '{other}' is not \"{name}\""
    )


def test_an_unknown_kind_is_refused_beside_the_other_values() -> None:
    """With a wrong kind, the other keys are still checked, as generously as any kind does."""
    toml = '[pools.x]\nkind = "cluster"\nsize = 100001\nmax_waiting = 1\n[pools.y]\nsize = 100000'
    assert problems(toml) == [
        'deferpost.toml:2: pools.x.kind: \'cluster\' is not "thread", "process" or "reactor"',
        'deferpost.toml:3: pools.x.size: 100001 is not a whole number from 1 to 100000 or "auto"',
        'deferpost.toml:5: pools.y: the pool \'y\' needs a kind: "thread", "process" or "reactor"',
    ]


def test_a_key_of_another_kind_is_refused() -> None:
    """The time before a kill is for processes, since nothing else can be killed."""
    assert problem("[pools.thread]\nkill_grace = 1") == (
        "deferpost.toml:2: pools.thread.kill_grace: "
        'kill_grace is for pools of kind "process", this one is "thread"'
    )


def test_reactor_pools_may_be_larger() -> None:
    """How many run at once depends on the kind."""
    assert load("pools.reactor.size = 100000").pools["reactor"].size == 100_000
    assert "from 1 to 100000" in problem("pools.reactor.size = 100001")
    assert "from 1 to 1024" in problem("pools.thread.size = 1025")


@pytest.mark.parametrize("name", ["Heavy", "1st", "-x", '""', '"a b"', '"a.b"', '"x\\n"'])
def test_pool_names_are_plain(name: str) -> None:
    """A pool's name is made of small letters, digits, dash and underscore."""
    only = problem(f'[pools.{name}]\nkind = "thread"')
    assert "a pool's name is a letter from a to z" in only
    assert len(only.splitlines()) == 1


@pytest.mark.parametrize(
    ("size", "kind", "cpus", "resolved"),
    [
        (7, "process", 4, 7),
        ("auto", "process", 4, 4),
        ("auto", "thread", 4, 8),
        ("auto", "thread", 64, 32),
        ("auto", "reactor", 4, 1000),
    ],
)
def test_auto_follows_the_machine(size: PoolSize, kind: PoolKind, cpus: int, resolved: int) -> None:
    """A size of auto becomes a number that suits the kind of pool and the CPUs."""
    assert resolve_size(size, kind, cpus) == resolved


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("app = 1", '1 is not an app as "module:attribute", or "" for none'),
        ('app = "module"', "'module' is not an app"),
        ('app = "a b:c"', "'a b:c' is not an app"),
        ('listen = "tcp:80"', "'tcp:80' is not a list of one or more endpoint strings"),
        ("listen = []", "[] is not a list"),
        ("listen = [80]", "[80] is not a list"),
        ('listen = ["tcp:80", " "]', "['tcp:80', ' '] is not a list"),
        (
            "max_body = '2TiB'",
            '\'2TiB\' is not a size from 0B to 1TiB, such as "4MB" or "64KiB"',
        ),
        ("max_body = true", "true is not a size"),
        ("max_body = 2020-01-01", "datetime.date(2020, 1, 1) is not a size"),
        ("body_memory = '65MiB'", "'65MiB' is not a size from 0B to 64MiB"),
        ("temporary_directory = 1", "1 is not the path of a directory"),
        ('temporary_directory = "\\u0000"', "is not the path of a directory"),
        (
            "timeout = 0",
            '0 is not a duration above 0s and up to 30d, such as "30s" or "1m30s"',
        ),
        ("timeout = '31d'", "'31d' is not a duration"),
        ("timeout = nan", "nan is not a duration"),
        ("grace = '25h'", "'25h' is not a duration from 0s to 1d"),
        ("access_log = 'yes'", "'yes' is not true or false"),
        ("access_log = 1", "1 is not true or false"),
        ("wire = 'fast'", '\'fast\' is not "deferpost" or "stock"'),
        ("wire = true", 'true is not "deferpost" or "stock"'),
        (
            "max_head = '1023B'",
            '\'1023B\' is not a size from 1KiB to 1MiB, such as "16KiB" or "32kB"',
        ),
        ("max_head = '2MiB'", "'2MiB' is not a size from 1KiB to 1MiB"),
        ("max_headers = 0", "0 is not a whole number from 1 to 10000"),
        ("max_headers = 10001", "10001 is not a whole number"),
        ("max_pipelined = '3KiB'", "'3KiB' is not a size from 4KiB to 16MiB"),
        ("max_pipelined = '17MiB'", "'17MiB' is not a size from 4KiB to 16MiB"),
        ("head_timeout = 0", "0 is not a duration above 0s and up to 1h"),
        ("head_timeout = '61m'", "'61m' is not a duration above 0s and up to 1h"),
        ("idle_timeout = 0", "0 is not a duration above 0s and up to 1d"),
        ("idle_timeout = '25h'", "'25h' is not a duration above 0s and up to 1d"),
        ("min_body_rate = -1", "-1 is not a size from 0B to 1GiB"),
        ("min_body_rate = '2GiB'", "'2GiB' is not a size from 0B to 1GiB"),
        ("write_timeout = 0", "0 is not a duration above 0s and up to 1d"),
        ("write_timeout = '25h'", "'25h' is not a duration above 0s and up to 1d"),
        ("tcp_keepalive = '25h'", "'25h' is not a duration from 0s to 1d"),
        ("tcp_user_timeout = '25h'", "'25h' is not a duration from 0s to 1d"),
        ("max_connections = 0", "0 is not a whole number from 1 to 1000000"),
        ("max_connections = 1000001", "1000001 is not a whole number from 1 to 1000000"),
        ("max_connections_per_client = -1", "-1 is not a whole number from 0 to 1000000"),
        ("max_connections_per_client = 1000001", "is not a whole number from 0 to 1000000"),
        (
            "linger = '61s'",
            '\'61s\' is not a duration from 0s to 1m, such as "5s" or "500ms"',
        ),
        ("max_header = 1", "unknown key; did you mean max_headers?"),
        ("pools = 1", "1 is not a table of pools, such as [pools.thread]"),
        ("pools.x = 1", "1 is not a table, such as [pools.thread]"),
        ("pools.thread.size = 0", '0 is not a whole number from 1 to 1024 or "auto"'),
        ("pools.thread.size = '2'", "'2' is not a whole number"),
        ("pools.thread.size = true", "true is not a whole number"),
        ("pools.thread.max_waiting = 'auto'", "'auto' is not a whole number from 0 to 1000000"),
        ("pools.process.kill_grace = '2h'", "'2h' is not a duration from 0s to 1h"),
        (
            "pools.process.memory_limit = '1MB'",
            '\'1MB\' is not 0 or a size from 64MiB to 1TiB, such as "2GB" or "4GiB"',
        ),
        ("pools.process.set_up_timeout = '0s'", "'0s' is not a duration above 0s and up to 1h"),
        ("pools.process.warm = 2000", "2000 is not a whole number from 0 to 1024"),
        ("maxbody = 1", "unknown key; did you mean max_body?"),
        ("pool = 1", "unknown key; did you mean pools?"),
        ("zzz = 1", "unknown key"),
        ("pools.thread.max_wait = 1", "unknown key; did you mean max_waiting?"),
        ("pools.thread.timeout = 1", "not a key of a pool; it belongs above the first [table]"),
    ],
)
def test_the_file_is_checked(toml: str, message: str) -> None:
    """A wrong value or key of the file is reported with its line, its key and what is expected."""
    key = toml.partition(" =")[0]
    only = problem("# comment\n\n" + toml)
    assert only.startswith(f"deferpost.toml:3: {key}: ")
    assert message in only
    assert len(only.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("TIMEOUT", "soon", "'soon' is not a duration above 0s and up to 30d"),
        ("LISTEN", " ", "[] is not a list of one or more endpoint strings"),
        ("ACCESS_LOG", "maybe", "'maybe' is not true or false"),
        ("POOLS_THREAD_SIZE", "-1", "'-1' is not a whole number from 1 to 1024"),
        ("POOLS_THREAD_SIZE", "9" * 99, "9… is not a whole number from 1 to 1024"),
        ("TIMEUOT", "1", "unknown variable; did you mean DEFERPOST_TIMEOUT?"),
        ("timeout", "1", "unknown variable; did you mean DEFERPOST_TIMEOUT?"),
        ("POOLS_THREAD_SIZES", "1", "unknown variable; did you mean DEFERPOST_POOLS_THREAD_SIZE?"),
        ("POOLS__SIZE", "1", "unknown variable"),
        ("POOLS_THREAD", "1", "unknown variable"),
    ],
)
def test_the_environment_is_checked(variable: str, text: str, message: str) -> None:
    """A wrong value or name in the environment is reported with the variable's name."""
    only = problem(environ={f"DEFERPOST_{variable}": text})
    assert only.startswith(f"environment DEFERPOST_{variable}: ")
    assert message in only


def test_a_strange_variable_is_reported_on_one_line() -> None:
    """A name with control characters does not break the report."""
    assert problem(environ={"DEFERPOST_\n": ""}) == r"environment 'DEFERPOST_\n': unknown variable"


def test_options_are_checked() -> None:
    """A wrong option is reported with its name, each time that it is given."""
    assert problems(
        flags=[
            ("timeout", "-1"),
            ("timeout", "nan"),
            ("timeuot", "1"),
            ("zzz", "1"),
            ("listen", ""),
        ]
    ) == [
        "option --listen: [''] is not a list of one or more endpoint strings, "
        'such as ["tcp:8080"]',
        "option --timeout: '-1' is not a duration above 0s and up to 30d, "
        'such as "30s" or "1m30s"',
        "option --timeout: 'nan' is not a duration above 0s and up to 30d, "
        'such as "30s" or "1m30s"',
        "option --timeuot: unknown option; did you mean --timeout?",
        "option --zzz: unknown option",
    ]


def test_all_problems_of_all_sources_come_at_once() -> None:
    """The operator sees everything that is wrong, file first, by line."""
    found = problems(
        'timeout = 0\n[pools.thread]\nsize = 0\n[pools.process]\nkind = "thread"\n[more]\n',
        {"DEFERPOST_GRACE": "x", "DEFERPOST_BODY_MEMORY": "x"},
        [("max-body", "x"), ("thread-size", "x")],
    )
    assert [line.split(": ")[0] for line in found] == [
        "deferpost.toml:1",
        "deferpost.toml:3",
        "deferpost.toml:5",
        "deferpost.toml:6",
        "environment DEFERPOST_BODY_MEMORY",
        "environment DEFERPOST_GRACE",
        "option --max-body",
        "option --thread-size",
    ]


def test_a_wrong_value_counts_even_if_a_later_source_overrides_it() -> None:
    """What a higher source hides is reported all the same."""
    assert problem("timeout = 0", flags=[("timeout", "1s")]).startswith("deferpost.toml:1: timeout")


def test_keys_are_shown_as_toml_writes_them() -> None:
    """A key with odd characters is quoted, on one line."""
    assert problem('[pools.thread]\n"a b\\n" = 1') == (
        r"deferpost.toml:2: pools.thread.'a b\n': unknown key"
    )


def test_a_file_too_long_for_line_numbers_is_reported_without() -> None:
    """In an enormous file the key alone has to do."""
    assert problem("\n" * MAX_LINES + "zzz = 1") == "deferpost.toml: zzz: unknown key"


def test_a_file_that_is_no_toml_is_one_problem() -> None:
    """A syntax error is reported with its place, beside the problems of other sources only."""
    found = problems(
        "zzz = 1\ntimeout =\n",
        {"DEFERPOST_GRACE": "x", "DEFERPOST_POOLS_OF_THE_FILE_SIZE": "3"},
    )
    assert found == [
        "deferpost.toml:2:10: Invalid value",
        "environment DEFERPOST_GRACE: 'x' is not a duration from 0s to 1d, "
        'such as "30s" or "1m30s"',
    ]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('a = "', "(at end of document)"),
        pytest.param(f"a = {'9' * 5000}", "4300 digits", id="number"),
        pytest.param(f"a = {'[' * 100_000}", "nested too deeply", id="nesting"),
    ],
)
def test_a_file_that_cannot_be_parsed_has_no_traceback(toml: str, message: str) -> None:
    """Whatever the parser stumbles over becomes a problem of the file."""
    only = problem(toml)
    assert only.startswith("deferpost.toml: ")
    assert message in only


ANY_TEXT = st.text() | st.sampled_from(
    ["1", "auto", "4MB", "30s", "yes", "thread", "m:a", "\ud800"]
)
ANY_NAME = st.sampled_from([flag.path for flag in FLAGS] + [("pools", "x-y", "kind"), ("zzz",)])
ANY_TOML = st.sampled_from(
    ["1", "-1", "nan", "true", "'auto'", "'5s'", "[[]]", "{a = {}}", "1979-05-27"]
)


@given(
    st.dictionaries(ANY_NAME, ANY_TOML),
    st.dictionaries(ANY_NAME.map("_".join) | st.text(), ANY_TEXT),
    st.lists(st.tuples(st.sampled_from([flag.name for flag in FLAGS]) | st.text(), ANY_TEXT)),
)
def test_nothing_but_settings_or_problems_comes_out(
    toml: dict[tuple[str, ...], str], environ: dict[str, str], flags: list[tuple[str, str]]
) -> None:
    """Whatever the sources say, it is taken or reported, in lines that start with their source."""
    text = "\n".join(f"{'.'.join(path)} = {value}" for path, value in toml.items())
    variables = {f"DEFERPOST_{name.upper().replace('-', '_')}": v for name, v in environ.items()}
    try:
        settings = load(text, variables, flags)
    except ConfigurationError as error:
        for line in error.problems:
            assert re.match(r"deferpost\.toml:\d+: |environment |option ['\"]?--", line)
            assert len(line.splitlines()) == 1
            line.encode()
    else:
        assert load(dump_toml(settings)) == settings


def test_the_file_is_called_by_its_name() -> None:
    """Messages name the file that was read."""
    with pytest.raises(ConfigurationError, match=r"^/etc/x\.toml:1: zzz: unknown key$"):
        load_settings(toml_text="zzz = 1", toml_name="/etc/x.toml", environ={}, flags=[])


def test_every_option_reads_its_own_default() -> None:
    """The default that the list of options shows, given as an option, changes nothing."""
    for flag in FLAGS:
        settings = load(flags=[(flag.name, flag.default)])
        pools = {"reactor": default_pool("reactor")} if flag.path[1:2] == ("reactor",) else {}
        assert settings == Settings(pools={**Settings().pools, **pools})


def test_hosts_of_webhooks_add_up() -> None:
    """Hosts that may be told are given one by one, or listed; a variable parts them by spaces."""
    assert load(flags=[("webhook-hosts", "a.example"), ("webhook-hosts", "*.b.example")]) == (
        load('webhook_hosts = ["a.example", "*.b.example"]')
    )
    environ = {"DEFERPOST_WEBHOOK_HOSTS": "a.example  *.b.example"}
    assert load("", environ).webhook_hosts == ("a.example", "*.b.example")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("store = 3", 'store: 3 is not the path of a directory, or "" for none'),
        ('result_ttl = "0s"', "result_ttl: '0s' is not a duration above 0s and up to 365d"),
        ("max_kept = 0", "max_kept: 0 is not a whole number from 1 to 10000000"),
        ('idempotency_grace = "2d"', "idempotency_grace: '2d' is not a duration from 0s to 1d"),
        ('public_url = "jobs.example.com"', "'jobs.example.com' is not a URL such as"),
        ('public_url = "https://a.example/?x y"', "'https://a.example/?x y' is not a URL such as"),
        ('public_url = "https://a.example/?x"', "'https://a.example/?x' is not a URL such as"),
        ('webhook_hosts = "a.example"', "'a.example' is not a list of hosts such as"),
        ("webhook_hosts = [1]", "[1] is not a list of hosts such as"),
        ('webhook_private = "maybe"', "webhook_private: 'maybe' is not"),
    ],
)
def test_settings_of_kept_jobs_that_make_no_sense(toml: str, message: str) -> None:
    """What is said of kept jobs is checked where it is read."""
    assert message in problem(toml)


@pytest.mark.parametrize(
    ("text", "url"), [("https://a.example/", "https://a.example"), ("http://[::1]:80/x", None)]
)
def test_public_url(text: str, url: str | None) -> None:
    """The URL is one to which paths can be added."""
    assert load(f'public_url = "{text}"').public_url == (url or text)


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NAMES = st.from_regex("[a-z_]+", fullmatch=True).filter(str.isidentifier)
DOTTED = st.lists(NAMES, min_size=1, max_size=3).map(".".join)


def pools_of(kind: PoolKind) -> st.SearchStrategy[PoolSettings]:
    """All pools of a kind."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "size": st.just("auto") | st.integers(1, 100_000 if kind == "reactor" else 1024),
        "max_waiting": st.integers(0, 1_000_000),
    }
    if kind == "thread":
        fields["interrupt_grace"] = st.floats(0, 3600, exclude_min=True)
    if kind == "process":
        fields["kill_grace"] = st.floats(0, 3600)
        fields["max_jobs"] = st.integers(0, 10**9)
        fields["max_age"] = st.floats(0, 30 * 86_400)
        fields["max_memory"] = st.integers(0, 2**40)
        fields["memory_limit"] = st.just(0) | st.integers(2**26, 2**40)
        fields["cpu_limit"] = st.floats(0, 30 * 86_400)
        fields["set_up_timeout"] = st.floats(0, 3600, exclude_min=True)
        fields["warm"] = st.integers(0, 1024)
    return st.builds(PoolSettings, kind=st.just(kind), **fields)


OWN_POOLS = st.dictionaries(
    st.from_regex("[a-z][a-z0-9_-]*", fullmatch=True).filter(lambda name: name not in KINDS),
    st.sampled_from(KINDS).flatmap(pools_of),
    max_size=3,
)
USUAL_POOLS = st.fixed_dictionaries(
    {"thread": pools_of("thread"), "process": pools_of("process")},
    optional={"reactor": pools_of("reactor")},
)
ALL_SETTINGS = st.builds(
    Settings,
    app=st.none() | st.builds("{}:{}".format, DOTTED, DOTTED),
    listen=st.lists(TEXTS.filter(str.strip), min_size=1).map(tuple),
    max_body=st.integers(0, 2**40),
    body_memory=st.integers(0, 64 * 2**20),
    temporary_directory=st.none() | TEXTS.filter(bool),
    timeout=st.floats(0, 30 * 86_400, exclude_min=True),
    grace=st.floats(0, 86_400),
    access_log=st.booleans(),
    store=st.none() | TEXTS.filter(bool),
    store_durable=st.booleans(),
    result_ttl=st.floats(0, 365 * 86_400, exclude_min=True),
    max_kept=st.integers(1, 10_000_000),
    idempotency_grace=st.floats(0, 86_400),
    public_url=st.none()
    | st.from_regex(r"https?://[a-z0-9.-]+(:[0-9]+)?(/[a-z]+)?", fullmatch=True),
    webhook_hosts=st.lists(st.from_regex(r"(\*\.)?[a-z0-9.-]+", fullmatch=True)).map(tuple),
    webhook_secrets=st.none() | TEXTS.filter(bool),
    webhook_private=st.booleans(),
    metrics=st.booleans(),
    log_format=st.sampled_from(LOG_FORMATS),
    status_page=st.sampled_from(STATUS_PAGES),
    wire=st.sampled_from(WIRES),
    max_head=st.integers(2**10, 2**20),
    max_headers=st.integers(1, 10_000),
    max_pipelined=st.integers(4 * 2**10, 16 * 2**20),
    head_timeout=st.floats(0, 3600, exclude_min=True),
    idle_timeout=st.floats(0, 86_400, exclude_min=True),
    min_body_rate=st.integers(0, 2**30),
    write_timeout=st.floats(0, 86_400, exclude_min=True),
    tcp_keepalive=st.floats(0, 86_400),
    tcp_user_timeout=st.floats(0, 86_400),
    max_connections=st.integers(1, 1_000_000),
    max_connections_per_client=st.integers(0, 1_000_000),
    linger=st.floats(0, 60),
    tokens=st.none() | TEXTS.filter(bool),
    hmac_keys=st.none() | TEXTS.filter(bool),
    operator_tokens=st.none() | TEXTS.filter(bool),
    pools=st.builds(lambda usual, own: MappingProxyType({**usual, **own}), USUAL_POOLS, OWN_POOLS),
)


@given(ALL_SETTINGS)
@example(Settings(temporary_directory='"\\\x7f\x1f\r\n\t\u2028€😀'))
def test_printed_settings_read_back_equal(settings: Settings) -> None:
    """What is printed is a file that has the very same effect."""
    assert load(dump_toml(settings)) == settings


def test_printed_settings_are_what_one_would_write() -> None:
    """Units are used, and what is not set is empty."""
    settings = msgspec.structs.replace(Settings(), listen=("tcp:80", "tcp6:80"), timeout=90.0)
    assert dump_toml(settings) == (
        'app = ""\n'
        'listen = ["tcp:80", "tcp6:80"]\n'
        "access_log = true\n"
        'max_body = "16MiB"\n'
        'body_memory = "64KiB"\n'
        'temporary_directory = ""\n'
        'timeout = "1m30s"\n'
        'queue_timeout = "0s"\n'
        'total_timeout = "0s"\n'
        'grace = "30s"\n'
        'drain_delay = "0s"\n'
        'reload_timeout = "2m"\n'
        "most_urgent = 0\n"
        'priority_ageing = "10s"\n'
        "max_jobs_per_client = 0\n"
        'store = ""\n'
        "store_durable = true\n"
        'result_ttl = "1d"\n'
        "max_kept = 100000\n"
        'idempotency_grace = "1m"\n'
        'public_url = ""\n'
        "webhook_hosts = []\n"
        'webhook_secrets = ""\n'
        "webhook_private = false\n"
        "metrics = true\n"
        'log_format = "text"\n'
        'status_page = "off"\n'
        'wire = "deferpost"\n'
        'max_head = "16KiB"\n'
        "max_headers = 100\n"
        'max_pipelined = "64KiB"\n'
        'head_timeout = "15s"\n'
        'idle_timeout = "1m"\n'
        'min_body_rate = "240B"\n'
        'write_timeout = "30s"\n'
        'tcp_keepalive = "1m"\n'
        'tcp_user_timeout = "30s"\n'
        "max_connections = 10000\n"
        "max_connections_per_client = 0\n"
        'linger = "5s"\n'
        'tokens = ""\n'
        'hmac_keys = ""\n'
        'operator_tokens = ""\n'
        "\n"
        "[pools.thread]\n"
        'kind = "thread"\n'
        'size = "auto"\n'
        "max_waiting = 1000\n"
        'max_held = "1GiB"\n'
        'interrupt_grace = "5s"\n'
        "\n"
        "[pools.process]\n"
        'kind = "process"\n'
        'size = "auto"\n'
        "max_waiting = 1000\n"
        'max_held = "1GiB"\n'
        'kill_grace = "5s"\n'
        "max_jobs = 0\n"
        'max_age = "0s"\n'
        'max_memory = "0B"\n'
        'memory_limit = "0B"\n'
        'cpu_limit = "0s"\n'
        'set_up_timeout = "1m"\n'
        "warm = 0\n"
    )


def _uncommented() -> str:
    return re.sub(r"^#(?=[^ \n])", "", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("text", [EXAMPLE.read_text("utf-8"), _uncommented()])
def test_the_example_file_shows_the_defaults(text: str) -> None:
    """The example file, as it is or with all keys active, says what holds anyway."""
    expected = Settings(pools={**Settings().pools, "reactor": default_pool("reactor")})
    assert load(text) == expected


def test_the_example_file_has_every_key_once() -> None:
    """Each key stands in the example file, under its topic and in its order, explained."""
    document = tomllib.loads(_uncommented())  # which refuses a key that is there twice
    pools = document.pop("pools")
    assert set(pools) == set(KINDS)
    for kind, table in pools.items():
        assert set(table) == {key.name for key in KEYS if kind in key.kinds}
    assert list(document) == [key.name for key in KEYS if not key.kinds]
    lines = EXAMPLE.read_text("utf-8").splitlines()
    assert [line[2:] for line in lines if line[2:] in TOPICS] == list(TOPICS)
    before = re.findall(r"^(.*)\n#[^ \n]", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    assert len(before) == len(FLAGS) + len(KINDS)
    assert all(line.startswith("# ") for line in before)
