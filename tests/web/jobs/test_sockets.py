"""What a connection in memory cannot show: real sockets, and the store on disk."""

from __future__ import annotations

import io
import json
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from deferpost.dispatch import Dispatcher
from deferpost.keeping import Keeper
from deferpost.model import CallHead, Progress
from deferpost.records import JobRecord, NewJob
from deferpost.store.sqlite import SQLiteStore
from deferpost.web.exchange import OpenExchanges
from deferpost.web.jobs import JOBS, JobsContext, JobTree
from deferpost.web.post import PostContext
from deferpost.web.tree import AppResource
from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.eventparsing import parse_sse
from tests.waiting import until
from tests.web import Response, answer_of, parse, route
from tests.web.jobs import PermittedPool, explain, unreported
from tests.web.jobs.test_feed import RETRY

#: More than the buffers of two sockets hold.
LARGE = 16 * 1024 * 1024


class Daemon:
    """An app with kept jobs that listens, with its store on disk."""

    def __init__(self, directory: Path) -> None:
        self.pool = PermittedPool(time.monotonic)
        self.dispatcher = Dispatcher({"fake": self.pool}, time.monotonic)
        self.store = SQLiteStore(directory / "store", reactor, durable=False)
        self.keeper = Keeper(lambda: self.store, reactor, explain, unreported)
        self.tree = JobTree(JobsContext(keeper=self.keeper, clock=reactor, wall=time.time))
        context = PostContext(
            dispatcher=lambda: self.dispatcher,
            now=time.monotonic,
            open_exchanges=OpenExchanges(),
            timeout=30.0,
            max_body=100,
        )
        root = AppResource([route()], context, trees=[(JOBS, self.tree)])
        self.site = DeferPostSite(root, limits=Limits())
        self.port: Any = None

    async def start(self) -> None:
        await self.keeper.open()
        self.keeper.serve(self.dispatcher, {"/rst": route()})
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await endpoint.listen(self.site)

    async def stop(self) -> None:
        await self.port.stopListening()
        await until(lambda: self.tree.open_replies == 0, "replies end")
        assert not self.keeper._watchers
        assert not self.keeper._waiters
        await self.site.close_connections()
        await self.keeper.close()

    async def job(self) -> JobRecord:
        """A job that runs."""
        id = self.keeper.new_id()
        head = CallHead("r", "/rst", "POST", "/rst", b"", (), None, None)
        new = NewJob(
            id=id, head=head, pool="fake", created=time.time(), urgency=3, retries=0, ttl=3600.0
        )
        record = (await self.keeper.accept(new, io.BytesIO(b"body"))).record
        await until(lambda: self.pool.jobs, "the pool has it")
        job = self.pool.start()
        await until(lambda: job.started is not None, "it runs")
        return record

    async def end(self, id: str, data: bytes = b"done") -> None:
        """The code of the job has ended."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the keeper closes it)
        file.write(data)
        file.seek(0)
        self.pool.give(answer_of(file, len(data)))
        await self.keeper.ended(id, 30.0)

    @contextmanager
    def client(self, path: str, *fields: str) -> Iterator[socket.socket]:
        """A client that has sent a request, and reads when the test does."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.settimeout(30)
            client.connect(("127.0.0.1", self.port.getHost().port))
            lines = (f"GET {path} HTTP/1.1", "Host: h", "Connection: close", *fields, "", "")
            client.sendall("\r\n".join(lines).encode())
            yield client

    async def get(self, path: str, *fields: str) -> Response:
        with self.client(path, *fields) as client:
            return await read(client)


async def read(client: socket.socket) -> Response:
    """Read to the end, in a thread."""

    def reading() -> bytes:
        pieces = []
        while piece := client.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    return parse(await deferToThread(reading))[0]


@asynccontextmanager
async def daemon(directory: Path) -> AsyncIterator[Daemon]:
    """Serve, and see that nothing is left."""
    served = Daemon(directory)
    await served.start()
    yield served
    await served.stop()


@ensureDeferred
async def test_large_result(tmp_path: Path) -> None:
    """A large result leaves at the pace of its reader, whole or in parts."""
    data = bytes(range(256)) * (LARGE // 256)
    async with daemon(tmp_path) as served:
        record = await served.job()
        path = f"/jobs/{record.id}/result"
        with served.client(path, "Prefer: wait=30") as client:
            await until(lambda: served.keeper._waiters, "it waits")
            await served.end(record.id, data)
            (request,) = served.site.requests()
            await until(lambda: request.sentLength > 0, "it is sent")
            await deferLater(reactor, 0.2, lambda: None)
            assert request.sentLength < LARGE / 2
            response = await read(client)
        assert (response.status, response.is_whole) == (200, True)
        assert response.body == data
        tag = response.header("etag")
        part = await served.get(path, f"Range: bytes=70000-{LARGE - 2}", f"If-Range: {tag}")
        assert (part.status, part.body) == (206, data[70_000:-1])
        assert (await served.get(path, f"If-None-Match: {tag}")).status == 304
        document = (await served.get(f"/jobs/{record.id}")).json
        assert document["result"]["length"] == LARGE
        assert [job["id"] for job in (await served.get("/jobs")).json["jobs"]] == [record.id]


@ensureDeferred
async def test_many_events(tmp_path: Path) -> None:
    """Events wait in the store for a client that does not read, and none is missed."""
    count = 900
    async with daemon(tmp_path) as served:
        record = await served.job()
        path = f"/jobs/{record.id}/events"
        asked: list[int] = []
        events = served.keeper.events

        def counted(id: str, after: int, most: int) -> Any:
            asked.append(after)
            return events(id, after, most)

        served.keeper.events = counted  # type: ignore[method-assign]  # to see what is read
        with served.client(path) as client:
            for number in range(count):
                await served.store.tell(record.id, Progress(number, None, "m" * 10_000))
                served.keeper._changed(record.id)
            await deferLater(reactor, 0.2, lambda: None)
            assert max(asked) < count * 0.9
            await served.end(record.id)
            response = await read(client)
        assert response.is_whole
        found = parse_sse(response.body.removeprefix(RETRY))
        assert [int(event.id) for event in found] == list(range(1, count + 4))
        assert json.loads(found[-1].data)["state"] == "succeeded"
        assert (await served.get(path, f"Last-Event-ID: {count + 3}")).status == 204


@pytest.mark.parametrize("part", ["/events", "", "/result"])
@ensureDeferred
async def test_client_resets(tmp_path: Path, part: str) -> None:
    """A client that is gone is not waited for."""
    async with daemon(tmp_path) as served:
        record = await served.job()
        with served.client(f"/jobs/{record.id}{part}", "Prefer: wait=60") as client:
            await until(lambda: served.keeper._waiters or served.keeper._watchers, "it waits")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: served.tree.open_replies == 0, "its end is seen")
        await served.end(record.id)


@ensureDeferred
async def test_client_resets_amid_a_result(tmp_path: Path) -> None:
    """A client that leaves before it has all of a result leaves nothing behind."""
    async with daemon(tmp_path) as served:
        record = await served.job()
        await served.end(record.id, b"x" * LARGE)
        with served.client(f"/jobs/{record.id}/result") as client:
            await until(served.site.requests, "it is asked")
            (request,) = served.site.requests()
            await until(lambda: request.sentLength > 0, "it is sent")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: served.tree.open_replies == 0, "its end is seen")
