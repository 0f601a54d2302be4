"""Mounted in sites that are not deferpost's own: with other resources, and at other paths."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_twisted
from klein import Klein
from treq.client import HTTPClient
from twisted.application.service import MultiService
from twisted.internet.threads import deferToThread
from twisted.web.client import ResponseFailed
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.vhost import NameVirtualHost

from deferpost import App, Call, DeferPost, ProcessPool, ThreadPool
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, Response, children, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of Twisted about itself, at the import
    from twisted.web.static import Data, File

pytestmark = pytest.mark.integration

#: Handlers for worker processes, in a module that imports nothing else.
HANDLERS = '''
import hashlib
import os
import time
from pathlib import Path


def name(call):
    return "process"


def digest(call):
    content = call.body.read()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def fields(call):
    with call.form() as form:
        files = {name: form.file(name).file.read().decode() for name in form.files}
        return {**form, **files}


def breaks(call):
    yield b"first"
    yield b"second"
    raise RuntimeError("it broke")


def breaks_hard(call):
    yield b"first"
    time.sleep(0.05)  # so that the chunk has left this process
    os._exit(0)


def gated(call):
    """Runs until the file exists whose path was sent, or it is canceled."""
    gate = Path(call.body.read().decode())
    gate.with_suffix(".begun").write_text(str(os.getpid()))
    while not gate.exists():
        time.sleep(0.01)
    return "done"
'''


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the handlers for worker processes."""
    (tmp_path / "mounted_handlers.py").write_text(HANDLERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mounted_handlers", raising=False)
    module = importlib.import_module("mounted_handlers")
    monkeypatch.setitem(sys.modules, "mounted_handlers", module)
    return module


@pytest_twisted.async_yield_fixture
async def service() -> AsyncIterator[MultiService]:
    """A service that runs, for the pools; when it has stopped, they have left no process."""
    before = set(children(os.getpid()))
    parent = MultiService()
    parent.startService()
    yield parent
    if parent.running:
        await parent.stopService()
    assert set(children(os.getpid())) <= before


Serve = Callable[[IResource], int]


@pytest_twisted.async_yield_fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a resource by a plain Site of Twisted, and tells its port."""
    from twisted.internet import reactor

    ports: list[Any] = []

    def start(root: IResource) -> int:
        site: Any = Site(root)
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        ports.append(port)
        return int(port.getHost().port)

    yield start
    for port in ports:
        await port.stopListening()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What handlers in threads wait for; open at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


def url(port: int, path: str) -> str:
    """The URL of a path on a port of this machine."""
    return f"http://127.0.0.1:{port}{path}"


async def text(http: HTTPClient, port: int, path: str, **options: Any) -> tuple[int, str]:
    """POST, and return the status and the body of the answer."""
    response = await http.post(url(port, path), **options)
    return response.code, await response.text()


async def answer(connection: Connection, method: str = "POST") -> Response:
    """The next response of a connection, while the reactor turns."""
    response: Response = await deferToThread(connection.response, method)
    return response


def thread_name(call: Call) -> str:
    """A handler for threads."""
    return "thread"


async def reactor_name(call: Call) -> str:
    """A handler for the reactor."""
    return "reactor"


# Places.


@pytest.mark.filterwarnings("ignore:twisted.web.resource._UnsafeNoResource")  # its own 404
@pytest_twisted.ensureDeferred
async def test_beside_other_resources(
    serve: Serve, service: MultiService, http: HTTPClient, handlers: ModuleType, tmp_path: Path
) -> None:
    """One handler, or an app, at any depth of a site whose other resources are as they were."""
    (tmp_path / "file.txt").write_text("a file")
    app = App()
    app.post("/")(thread_name)
    app.post("/digest", pool=ProcessPool(size=1))(handlers.digest)
    app.post("/deep/name")(reactor_name)
    root = Resource()
    root.putChild(b"", Data(b"home", "text/plain"))
    root.putChild(b"files", File(os.fspath(tmp_path)))
    root.putChild(b"thread", DeferPost(thread_name, service=service))
    root.putChild(b"api", app.resource(service=service))
    inner = Resource()
    root.putChild(b"inner", inner)
    inner.putChild(b"process", DeferPost(handlers.name, pool=ProcessPool(size=1), service=service))
    inner.putChild(b"reactor", DeferPost(reactor_name, service=service))
    port = serve(root)
    for path, content in (("/", b"home"), ("/files/file.txt", b"a file")):
        response = await http.get(url(port, path))
        assert (response.code, await response.content()) == (200, content)
    for path, name in (
        ("/thread", "thread"),
        ("/thread?query=1", "thread"),
        ("/inner/process", "process"),
        ("/inner/reactor", "reactor"),
        ("/api", "thread"),
        ("/api/", "thread"),
        ("/api/deep/name", "reactor"),
    ):
        assert await text(http, port, path) == (200, name)
    status, document = await text(http, port, "/api/digest", data=b"abc")
    assert (status, json.loads(document)["size"]) == (200, 3)
    for path in ("/api/nothing", "/api/deep", "/api/deep/", "/api/deep/name/more", "/api//"):
        response = await http.post(url(port, path))
        assert response.code == 404, path
        assert response.headers.getRawHeaders("content-type") == ["application/problem+json"]
        assert (await response.json())["status"] == 404
    response = await http.post(url(port, "/nothing"))
    assert response.code == 404
    assert b"html" in await response.content(), "what is not ours answers as ever"


@pytest_twisted.ensureDeferred
async def test_under_klein(serve: Serve, service: MultiService, http: HTTPClient) -> None:
    """A Klein route may return a DeferPost, and a branch the resource of an app."""
    app = App()
    app.post("/name")(thread_name)
    one = DeferPost(reactor_name, service=service)
    many = app.resource(service=service)
    site = Klein()

    @site.route("/")
    def home(request: object) -> str:
        return "home"

    @site.route("/one", methods=["POST"])
    def single(request: object) -> IResource:
        return one

    @site.route("/many/", branch=True)
    def branch(request: object) -> IResource:
        return many

    port = serve(site.resource())
    response = await http.get(url(port, "/"))
    assert await response.text() == "home"
    assert await text(http, port, "/one") == (200, "reactor")
    assert await text(http, port, "/many/name") == (200, "thread")
    response = await http.post(url(port, "/many/nothing"))
    assert response.code == 404
    assert (await response.json())["status"] == 404
    response = await http.get(url(port, "/many/name"))
    assert (response.code, response.headers.getRawHeaders("allow")) == (405, ["OPTIONS, POST"])
    await response.content()


@pytest_twisted.ensureDeferred
async def test_under_virtual_hosts(serve: Serve, service: MultiService) -> None:
    """Each virtual host has its own."""
    hosts = NameVirtualHost()
    for name, handler in ((b"one.example", thread_name), (b"two.example", reactor_name)):
        root = Resource()
        root.putChild(b"name", DeferPost(handler, service=service))
        hosts.addHost(name, root)
    port = serve(hosts)
    with Connection.tcp(port) as connection:
        for host, body in (("one.example", b"thread"), ("two.example", b"reactor")):
            connection.send(
                f"POST /name HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            response = await answer(connection)
            assert (response.status, response.body) == (200, body)


# The life of the pools.

SCRIPT = """
import sys

from mounted_handlers import gated, name
from twisted.internet import reactor
from twisted.python import log
from twisted.web.resource import Resource
from twisted.web.server import Site

from deferpost import App, DeferPost, ProcessPool


class Stop(Resource):
    isLeaf = True

    def render_POST(self, request):
        reactor.callLater(0, reactor.stop)
        return b"stopping"


app = App()
app.post("/name", pool=ProcessPool(size=2))(name)
app.post("/gated", pool=ProcessPool(size=1))(gated)
root = Resource()
root.putChild(b"api", app.resource(grace=sys.argv[1]))
root.putChild(b"other", DeferPost(name, pool=ProcessPool(size=1)))
root.putChild(b"stop", Stop())
log.startLogging(sys.stdout)
reactor.listenTCP(0, Site(root), interface="127.0.0.1")
reactor.run()
"""


def write_script(tmp_path: Path) -> Path:
    """A folder with the script and the handlers."""
    directory = tmp_path / "script"
    directory.mkdir()
    (directory / "script.py").write_text(SCRIPT, encoding="utf-8")
    (directory / "mounted_handlers.py").write_text(HANDLERS, encoding="utf-8")
    return directory


@pytest_twisted.ensureDeferred
async def test_pools_live_from_the_first_call_to_the_reactors_end(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path
) -> None:
    """Without a service, the first call starts the pools of its app, and reactor.stop ends them."""
    script = daemon(
        None,
        ["5s"],
        command=[sys.executable, "script.py"],
        listen=(),
        directory=write_script(tmp_path),
    )
    assert script.worker_pids() == []
    response = await http.get(script.url("/api/name"))
    assert response.code == 405
    await response.content()
    assert script.worker_pids() == [], "only a call starts them"
    assert await text(http, script.port, "/api/name") == (200, "process")
    assert len(script.worker_pids()) == 3, "those of the app, and not of the other mount"
    assert await text(http, script.port, "/stop") == (200, "stopping")
    assert await script.wait(5) == 0
    await script.gone()
    assert "Traceback" not in script.log()


@pytest.mark.parametrize("grace", ["20s", "200ms"])
@pytest_twisted.ensureDeferred
async def test_reactor_stops_while_a_job_runs(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path, grace: str
) -> None:
    """The end of the reactor waits for what runs, until the grace is over."""
    directory = write_script(tmp_path)
    script = daemon(
        None, [grace], command=[sys.executable, "script.py"], listen=(), directory=directory
    )
    gate = directory / "gate"
    running = http.post(script.url("/api/gated"), data=os.fsencode(gate))
    await until(gate.with_suffix(".begun").exists, 10, "the handler runs")
    assert await text(http, script.port, "/stop") == (200, "stopping")
    if grace == "20s":
        gate.touch()
    response = await running
    assert response.code == (200 if grace == "20s" else 503)
    await response.content()
    assert await script.wait(5) == 0
    await script.gone()
    assert "Traceback" not in script.log()


@pytest_twisted.ensureDeferred
async def test_pools_live_with_a_service(
    serve: Serve, http: HTTPClient, handlers: ModuleType
) -> None:
    """With a service, the pools start and stop with it."""
    before = set(children(os.getpid()))
    parent = MultiService()
    resource = DeferPost(handlers.name, pool=ProcessPool(size=2), service=parent)
    root = Resource()
    root.putChild(b"name", resource)
    port = serve(root)
    assert set(children(os.getpid())) == before
    parent.startService()
    assert len(set(children(os.getpid())) - before) == 2
    assert await text(http, port, "/name") == (200, "process")
    await parent.stopService()
    assert set(children(os.getpid())) == before
    status, document = await text(http, port, "/name")
    assert (status, json.loads(document)["reason"]) == (503, "shutdown")


# Bodies and connections.


@pytest_twisted.ensureDeferred
async def test_bodies_that_the_site_keeps(
    serve: Serve, service: MultiService, http: HTTPClient, handlers: ModuleType
) -> None:
    """A stock Site keeps large and chunked bodies in its own files: they reach every worker."""
    app = App(pools={"one": ProcessPool(size=1)})
    app.post("/process", pool="one", max_body="2MB")(handlers.digest)
    app.post("/thread", max_body="2MB")(handlers.digest)
    port = serve(app.resource(service=service))
    for path in ("/process", "/thread"):
        for size in (0, 1, 99_999, 100_000, 1_234_567):
            body = os.urandom(size)
            expected = {"sha256": hashlib.sha256(body).hexdigest(), "size": size}
            status, document = await text(http, port, path, data=body)
            assert (status, json.loads(document)) == (200, expected)
        with Connection.tcp(port) as connection:
            connection.request("POST", path, None, "Transfer-Encoding: chunked")
            connection.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            response = await answer(connection)
            assert json.loads(response.body)["sha256"] == hashlib.sha256(b"abcde").hexdigest()
        status, document = await text(http, port, path, data=bytes(2_000_001))
        assert (status, json.loads(document)["reason"]) == (413, "body_too_large")


@pytest_twisted.ensureDeferred
async def test_forms_that_the_site_has_read(
    serve: Serve, service: MultiService, http: HTTPClient, handlers: ModuleType
) -> None:
    """A stock Site reads forms itself: the handler can read them all the same."""
    app = App(pools={"one": ProcessPool(size=1)})
    app.post("/process", pool="one")(handlers.fields)
    app.post("/thread")(handlers.fields)
    port = serve(app.resource(service=service))
    sent = {"a": "1", "b": "two words"}
    for path in ("/process", "/thread"):
        status, document = await text(http, port, path, data=sent)
        assert (status, json.loads(document)) == (200, sent)
        status, document = await text(
            http, port, path, data={"a": "1"}, files={"b": ("b.txt", io.BytesIO(b"two words"))}
        )
        assert (status, json.loads(document)) == (200, sent)


@pytest_twisted.ensureDeferred
async def test_http_1_0(serve: Serve, service: MultiService, handlers: ModuleType) -> None:
    """A client of HTTP/1.0 gets its answer, streams without chunks, and a closed connection."""

    def stream(call: Call) -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    app = App()
    app.post("/name")(thread_name)
    app.post("/stream")(stream)
    port = serve(app.resource(service=service))
    for path, body in (("/name", b"thread"), ("/stream", b"one two")):
        with Connection.tcp(port) as connection:
            connection.request("POST", path, b"", version="1.0")
            response = await answer(connection)
            assert (response.status, response.body) == (200, body)
            assert "transfer-encoding" not in response.headers
            assert await deferToThread(connection.is_closed)


@pytest_twisted.ensureDeferred
async def test_head(serve: Serve, service: MultiService) -> None:
    """HEAD is refused as GET is, without a body, and the connection goes on."""
    port = serve(DeferPost(thread_name, service=service))
    with Connection.tcp(port) as connection:
        connection.request("HEAD", "/")
        response = await answer(connection, "HEAD")
        assert (response.status, response.headers["allow"]) == (405, "OPTIONS, POST")
        connection.post("/")
        assert (await answer(connection)).body == b"thread"


@pytest_twisted.ensureDeferred
async def test_pipelining(serve: Serve, service: MultiService, gate: threading.Event) -> None:
    """Calls that are sent without waiting are answered in the order in which they came."""

    def slow(call: Call) -> str:
        assert gate.wait(20)
        return "slow"

    app = App()
    app.post("/slow")(slow)
    app.post("/quick")(thread_name)
    port = serve(app.resource(service=service))
    with Connection.tcp(port) as connection:
        connection.post("/slow")
        connection.post("/quick", b"body")
        connection.post("/nothing")
        gate.set()
        responses = [await answer(connection) for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 404]
    assert [response.body for response in responses[:2]] == [b"slow", b"thread"]


class Gated:
    """A handler in a thread that tells what becomes of it."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate
        self.begun: list[str] = []
        self.canceled: list[str] = []
        self.done: list[str] = []

    def __call__(self, call: Call) -> str:
        name = call.body.read().decode()
        self.begun.append(name)
        while not self._gate.wait(0.01):
            if call.canceled:
                self.canceled.append(name)
                call.check()
        self.done.append(name)
        return name


@pytest.mark.parametrize("how", ["closes", "shuts down its half"])
@pytest_twisted.ensureDeferred
async def test_client_leaves(
    serve: Serve, service: MultiService, gate: threading.Event, how: str
) -> None:
    """The job of a client that leaves is canceled when it runs, and never runs when it waits."""
    handler = Gated(gate)
    resource = DeferPost(handler, pool=ThreadPool(size=1), service=service)
    port = serve(resource)

    def waiting() -> int:
        (pool,) = resource._context.dispatcher().statuses()
        return pool.waiting

    with Connection.tcp(port) as runs, Connection.tcp(port) as waits:
        runs.post("/", b"runs")
        await until(lambda: handler.begun, 5, "the first runs")
        waits.post("/", b"waits")
        await until(waiting, 5, "the second waits")
        for leaving in (waits, runs):
            if how == "closes":
                leaving.close()
            else:
                # As for every Site of Twisted, this is the end of the connection.
                leaving.socket.shutdown(socket.SHUT_WR)
                assert await deferToThread(leaving.is_closed)
            # Else the second may run, for the moment until it is seen that its client has left.
            await until(lambda: not waiting(), 5, "none waits")
        await until(lambda: handler.canceled, 5, "the first is canceled")
    with Connection.tcp(port) as last:
        last.post("/", b"last")
        gate.set()
        assert (await answer(last)).body == b"last"
    assert (handler.begun, handler.canceled, handler.done) == (
        ["runs", "last"],
        ["runs"],
        ["last"],
    )


@pytest_twisted.ensureDeferred
async def test_client_leaves_and_the_job_goes_on(
    serve: Serve, service: MultiService, gate: threading.Event
) -> None:
    """With on_disconnect="finish", what runs goes on, and what waits is removed all the same."""
    handler = Gated(gate)
    port = serve(
        DeferPost(handler, pool=ThreadPool(size=1), on_disconnect="finish", service=service)
    )
    with Connection.tcp(port) as runs, Connection.tcp(port) as waits, Connection.tcp(port) as last:
        runs.post("/", b"runs")
        await until(lambda: handler.begun, 5, "the first runs")
        waits.post("/", b"waits")
        waits.socket.shutdown(socket.SHUT_WR)
        assert await deferToThread(waits.is_closed)
        runs.socket.shutdown(socket.SHUT_WR)
        assert await deferToThread(runs.is_closed)
        last.post("/", b"last")
        gate.set()
        assert (await answer(last)).body == b"last"
    assert (handler.canceled, handler.done) == ([], ["runs", "last"])


@pytest_twisted.ensureDeferred
async def test_client_leaves_a_process(
    serve: Serve, service: MultiService, handlers: ModuleType, http: HTTPClient, tmp_path: Path
) -> None:
    """The process of a client that leaves is ended, and another does the next job."""
    app = App(pools={"one": ProcessPool(size=1)})
    app.post("/gated", pool="one")(handlers.gated)
    app.post("/name", pool="one")(handlers.name)
    port = serve(app.resource(service=service))
    gate = tmp_path / "gate"
    begun = gate.with_suffix(".begun")
    with Connection.tcp(port) as leaving:
        leaving.post("/gated", os.fsencode(gate))
        await until(lambda: begun.exists() and begun.read_text(), 10, "the handler runs")
    worker = int(begun.read_text())
    await until(lambda: worker not in children(os.getpid()), 5, "the worker has ended")
    assert await text(http, port, "/name") == (200, "process")


@pytest.mark.parametrize(
    ("where", "name"), [("process", "breaks"), ("process", "breaks_hard"), ("thread", "breaks")]
)
@pytest_twisted.ensureDeferred
async def test_stream_breaks(
    serve: Serve,
    service: MultiService,
    handlers: ModuleType,
    http: HTTPClient,
    where: str,
    name: str,
) -> None:
    """A reply that breaks off ends the connection without its last chunk."""
    pool = ProcessPool(size=1) if where == "process" else ThreadPool(size=1)
    port = serve(DeferPost(getattr(handlers, name), pool=pool, service=service))
    with Connection.tcp(port) as connection:
        connection.post("/")
        response = await answer(connection)
        assert (response.status, response.is_whole) == (200, False)
        assert response.body == (b"first" if name == "breaks_hard" else b"firstsecond")
        assert connection.is_closed()
    response = await http.post(url(port, "/"))
    with pytest.raises(ResponseFailed):
        await response.content()


def test_signals_are_left_alone(daemon: StartDaemon, tmp_path: Path) -> None:
    """A program that mounts keeps its own way with signals: SIGTERM ends it as ever."""
    script = daemon(
        None,
        ["5s"],
        command=[sys.executable, "script.py"],
        listen=(),
        directory=write_script(tmp_path),
    )
    with script.connect() as connection:
        connection.post("/api/name")
        assert connection.response().body == b"process"
        script.send_signal(signal.SIGTERM)
        assert connection.is_closed()
    # Twisted's reactor stops in order and then ends by the signal that it was sent.
    assert script.process.wait(5) in (0, -signal.SIGTERM)
