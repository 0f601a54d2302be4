"""aiohttp with executors: ``python -m bench.peers.aiohttp_app PORT asyncio|uvloop``."""

# It is not in the environment that mypy looks at.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import uvloop
from aiohttp import web

from bench import jobs

threads = ThreadPoolExecutor(jobs.threads())
processes = ProcessPoolExecutor(jobs.processes())


async def ping(request: web.Request) -> web.Response:
    """Answer at once."""
    return web.Response(text="pong\n")


def calling(executor: Any, function: Callable[[bytes], Any]) -> Callable[[Any], Awaitable[Any]]:
    """A handler that calls a function with the request's body, by an executor."""

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(executor, function, body)
        return web.Response(body=found, content_type="application/octet-stream")

    return handler


def hold(body: bytes) -> bytes:
    """Block until the gate opens."""
    jobs.hold()
    return b""


def spin(body: bytes) -> bytes:
    """Compute until the gate opens."""
    jobs.spin()
    return b""


def burn(body: bytes) -> bytes:
    """Compute as many steps as the body says."""
    return b"%d" % jobs.burn(int(body))


async def count(request: web.Request) -> web.Response:
    """How many bytes the body has, seen while they come."""
    size = 0
    async for piece in request.content.iter_chunked(jobs.PIECE):
        size += len(piece)
    return web.Response(text=str(size))


async def file(request: web.Request) -> web.FileResponse:
    """The large body, as a file."""
    return web.FileResponse(jobs.large_file())


def main() -> None:
    """Serve until a signal comes."""
    app = web.Application()
    app.router.add_get("/ping", ping)
    app.router.add_post("/thread/echo", calling(threads, jobs.echo))
    app.router.add_post("/thread/hold", calling(threads, hold))
    app.router.add_post("/thread/spin", calling(threads, spin))
    app.router.add_post("/process/echo", calling(processes, jobs.echo))
    app.router.add_post("/process/burn", calling(processes, burn))
    app.router.add_post("/process/spin", calling(processes, spin))
    app.router.add_post("/thread/count", count)
    app.router.add_post("/thread/file", file)
    loop = uvloop.new_event_loop() if sys.argv[2] == "uvloop" else asyncio.new_event_loop()
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        backlog=1024,
        access_log=None,
        print=None,
        loop=loop,
    )


if __name__ == "__main__":
    # By its name, so that the processes of the executor find the functions again.
    from bench.peers import aiohttp_app

    aiohttp_app.main()
