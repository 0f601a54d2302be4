"""Starlette with its thread pool, for uvicorn."""

# It is not in the environment that mypy looks at.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor

from anyio import to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bench import jobs

processes = ProcessPoolExecutor(jobs.processes())


async def ping(request: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse("pong\n")


async def echo(request: Request) -> Response:
    """Give the body back, from a thread."""
    found = await run_in_threadpool(jobs.echo, await request.body())
    return Response(found, media_type="application/octet-stream")


async def hold(request: Request) -> Response:
    """Block a thread until the gate opens."""
    await request.body()
    await run_in_threadpool(jobs.hold)
    return Response(b"")


async def echo_by_process(request: Request) -> Response:
    """Give the body back, from a process."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(processes, jobs.echo, await request.body())
    return Response(found, media_type="application/octet-stream")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """As many threads as the other servers have."""
    to_thread.current_default_thread_limiter().total_tokens = jobs.threads()
    yield


app = Starlette(
    routes=[
        Route("/thread/echo", echo, methods=["POST"]),
        Route("/thread/hold", hold, methods=["POST"]),
        Route("/process/echo", echo_by_process, methods=["POST"]),
        Route("/ping", ping),
    ],
    lifespan=lifespan,
)
