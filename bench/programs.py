"""The servers by name, and the command that starts each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

__all__ = ["ROOT", "Program", "Setting", "programs"]

#: Where the modules of all programs are found.
ROOT = Path(__file__).resolve().parent.parent

_DEFERPOST = Path(sys.executable).with_name("deferpost")


@attrs.frozen
class Setting:
    """What a server is told.

    :ivar port: where it listens, on 127.0.0.1.
    :ivar app: which of the apps of :mod:`bench.servers.ours`; the others serve all they have.
    :ivar threads: how many threads it has for handlers.
    :ivar processes: how many processes it has for handlers.
    """

    port: int
    app: str
    threads: int = 10
    processes: int = 2


@attrs.frozen
class Program:
    """A server that can be started.

    :ivar name: its name in options and results.
    :ivar label: its name for a reader.
    :ivar command: makes the command.
    :ivar ping: what it answers at once to a GET.
    :ivar is_ours: whether it is ours.
    :ivar ready: what it answers to a GET when it is ready, if not the same.
    """

    name: str
    label: str
    command: Callable[[Setting], list[str]]
    ping: str = "/ping"
    is_ours: bool = False
    ready: str | None = None


def programs(peers: Path | None) -> dict[str, Program]:
    """All servers that can be started here, by name.

    :param peers: the interpreter of the peers' environment; None for ours alone.
    """
    found = list(_ours())
    if peers is not None:
        found += _peers(str(peers))
    return {each.name: each for each in found}


def _ours() -> list[Program]:
    said = subprocess.run(
        [*_deferpost(), "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found = [Program("ours", "deferpost", lambda s: _daemon(s), "/livez", True, "/readyz")]
    if "--wire" in said:
        found.append(
            Program(
                "ours-wire-stock",
                "deferpost --wire=stock",
                lambda s: _daemon(s, "--wire=stock"),
                "/livez",
                True,
                "/readyz",
            )
        )
    found.append(
        Program(
            "ours-mounted",
            "deferpost in a stock Site",
            lambda s: [sys.executable, "-m", "bench.servers.mounted", str(s.port), s.app],
            is_ours=True,
        )
    )
    return found


def _deferpost() -> list[str]:
    """The command ``deferpost``, before its options."""
    if _DEFERPOST.exists():
        return [str(_DEFERPOST)]
    return [sys.executable, "-c", "from deferpost.tap import main; main()"]


def _daemon(setting: Setting, *options: str) -> list[str]:
    return [
        *_deferpost(),
        f"--listen=tcp:{setting.port}:interface=127.0.0.1:backlog=1024",
        "--access-log=no",
        f"--thread-size={setting.threads}",
        f"--process-size={setting.processes}",
        "--thread-max-waiting=20000",
        "--process-max-waiting=20000",
        "--max-body=2GiB",
        "--timeout=1h",
        "--grace=1s",
        *options,
        f"bench.servers.ours:{setting.app}",
    ]


def _peers(python: str) -> Sequence[Program]:
    def module(name: str, *words: str) -> Callable[[Setting], list[str]]:
        return lambda s: [python, "-m", f"bench.peers.{name}", str(s.port), *words]

    return [
        Program("recipe", "twisted.web, deferToThread", module("recipe")),
        Program("klein", "Klein, deferToThread", module("klein_site")),
        Program("aiohttp", "aiohttp", module("aiohttp_app", "asyncio")),
        Program("aiohttp-uvloop", "aiohttp, uvloop", module("aiohttp_app", "uvloop")),
        Program(
            "starlette",
            "Starlette on uvicorn",
            lambda s: [
                *(python, "-m", "uvicorn", "bench.peers.starlette_app:app"),
                *("--host=127.0.0.1", f"--port={s.port}", "--http=httptools", "--loop=uvloop"),
                *("--no-access-log", "--log-level=warning"),
            ],
        ),
        Program(
            "waitress",
            "waitress, bare WSGI",
            lambda s: [
                *(python, "-m", "waitress", f"--listen=127.0.0.1:{s.port}"),
                *(f"--threads={s.threads}", "bench.peers.wsgi:app"),
            ],
        ),
        Program(
            "gunicorn",
            "gunicorn gthread, bare WSGI",
            lambda s: [
                *(python, "-m", "gunicorn", f"--bind=127.0.0.1:{s.port}", "--workers=1"),
                *("--worker-class=gthread", f"--threads={s.threads}", "--keep-alive=60"),
                *("--no-control-socket", "--log-level=warning", "bench.peers.wsgi:app"),
            ],
        ),
        Program("granian", "granian, ten threads", lambda s: _granian(python, s, s.threads)),
        Program("granian-one", "granian, one thread", lambda s: _granian(python, s, 1)),
    ]


def _granian(python: str, setting: Setting, threads: int) -> list[str]:
    return [
        *(python, "-m", "granian", "--host=127.0.0.1", f"--port={setting.port}"),
        *("--interface=wsgi", "--workers=1", f"--blocking-threads={threads}"),
        *("--http=1", "--no-ws", "--no-access-log", "--log-level=warning"),
        "bench.peers.wsgi:app",
    ]
