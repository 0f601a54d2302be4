"""The apps that the daemon serves, and that :mod:`bench.servers.mounted` mounts.

Each has the routes of some workloads only, so that no pool is started that they do not use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import jobs
from deferpost import App, Call, ProcessPool, ThreadPool

__all__ = ["STREAMS", "both", "large", "processes", "threads"]

#: Whether a route can have its body streamed to the handler while it arrives.
STREAMS = "stream" in inspect.signature(App.post).parameters


def echo(call: Call) -> bytes:
    """Give the body back."""
    return jobs.echo(call.body.read())


def burn(call: Call) -> str:
    """Compute as many steps as the body says."""
    return str(jobs.burn(int(call.body.read())))


def hold(call: Call) -> None:
    """Block until the gate opens."""
    jobs.hold()


def spin(call: Call) -> None:
    """Compute until the gate opens."""
    jobs.spin()


def count(call: Call) -> str:
    """How many bytes the body has."""
    return str(jobs.count(call.body.read))


def file(call: Call) -> Path:
    """The large body, as a file."""
    return Path(jobs.large_file())


def generator(call: Call) -> Iterator[bytes]:
    """The large body, as a generator."""
    return jobs.pieces()


def whole(call: Call) -> bytes:
    """The large body, at once."""
    return b"x" * jobs.large_size()


_THREAD = {"/thread/echo": echo, "/thread/hold": hold, "/thread/spin": spin}
_PROCESS = {"/process/echo": echo, "/process/burn": burn, "/process/spin": spin}
_LARGE: dict[str, Callable[[Call], Any]] = {
    "/thread/count": count,
    "/process/count": count,
    "/thread/file": file,
    "/process/file": file,
    "/thread/generator": generator,
    "/process/generator": generator,
    "/process/bytes": whole,
}


def _app(routes: Mapping[str, Callable[[Call], Any]]) -> App:
    """An app of these routes; the daemon's options take precedence over its pools."""
    app = App(
        pools={
            "thread": ThreadPool(size=jobs.threads(), max_waiting=20_000),
            "process": ProcessPool(size=jobs.processes(), max_waiting=20_000),
        }
    )
    for path, handler in routes.items():
        app.post(path, pool=path.split("/")[1])(handler)
    return app


threads = _app(_THREAD)
processes = _app(_PROCESS)
both = _app({**_THREAD, **_PROCESS})
large = _app(_LARGE)
if STREAMS:
    options: dict[str, Any] = {"stream": True}
    large.post("/thread/stream", pool="thread", **options)(count)
    large.post("/process/stream", pool="process", **options)(count)
