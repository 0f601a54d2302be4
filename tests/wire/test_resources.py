"""Any tree of twisted.web's resources answers on our site as it does on Twisted's.

Each request goes to both, over real sockets, and the responses are compared: status, fields, body.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import warnings
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool
from twisted.web import http, pages
from twisted.web.guard import (
    BasicCredentialFactory,
    DigestCredentialFactory,
    HTTPAuthSessionWrapper,
)
from twisted.web.iweb import INonQueuedRequestFactory, IRequest
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request, Site
from twisted.web.util import DeferredResource, Redirect
from twisted.web.wsgi import WSGIResource
from zope.interface import implementer, provider
from zope.interface.verify import verifyObject

from deferpost.wire.request import WireRequest
from deferpost.wire.site import DeferPostSite
from tests.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of what they themselves still use
    from twisted.web.proxy import ReverseProxyResource
    from twisted.web.static import Data, File
    from twisted.web.vhost import NameVirtualHost
    from twisted.web.xmlrpc import XMLRPC

pytestmark = [
    pytest.mark.timeout(60),
    # Twisted's resources call what Twisted has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@attrs.frozen
class Response:
    """A response, without what differs from one to the next."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def field(self, name: bytes) -> bytes | None:
        """The value of a field, if it has one."""
        return next((value for each, value in self.fields if each == name), None)


class Client(Protocol):
    """Sends a request, and keeps what comes."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep."""
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        """It is all there."""
        self.over.callback(None)


class Server:
    """A site that listens."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.port: Any = None

    async def start(self) -> int:
        """Listen.

        :returns: the port.
        """
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await endpoint.listen(self.site)
        return int(self.port.getHost().port)

    async def connect(self, request: bytes) -> Client:
        """Connect and send a request."""
        port = self.port.getHost().port if self.port else await self.start()
        client: Client = await connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client()
        )
        client.transport.write(request)  # type: ignore[union-attr]
        return client

    async def ask(self, request: bytes) -> list[Response]:
        """Send a request, the last of a connection, and get the responses."""
        client = await self.connect(request)
        await client.over
        return _responses(
            bytes(client.received), re.findall(rb"([A-Z]+) [*/][^ ]* HTTP/1", request)
        )

    async def stop(self) -> None:
        """Listen no more."""
        if self.port is not None:
            await self.port.stopListening()


def _responses(received: bytes, methods: list[bytes]) -> list[Response]:
    responses = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line, *rest = head.split(b"\r\n")
        status = int(line.split(b" ")[1])
        fields = []
        for field in rest:
            name, _, value = field.partition(b": ")
            if name == b"Date":
                value = b"now"
            if name == b"Set-Cookie":
                value = re.sub(rb"=[0-9a-f]{30,}", b"=id", value)
            if name == b"WWW-Authenticate":
                value = re.sub(rb'(nonce|opaque)="[^"]*"', rb"\1", value)
            fields.append((name, value))
        named = {name.lower(): value for name, value in fields}
        body = b""
        if methods.pop(0) == b"HEAD" or status in (204, 304):
            pass
        elif b"content-length" in named:
            length = int(named[b"content-length"])
            body, received = received[:length], received[length:]
        elif named.get(b"transfer-encoding") == b"chunked":
            body, received = _dechunked(received)
        else:
            body, received = received, b""
        fields.sort()
        responses.append(Response(status, tuple(fields), body))
    return responses


def _dechunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        chunk, data = http.fromChunk(data)
        if not chunk:
            return body, data
        body += chunk


async def both(make: Callable[[], IResource], request: bytes, **further: Any) -> list[Response]:
    """Ask both sites the same, and find the same answers.

    :returns: those of ours.
    """
    answers = []
    for kind in (Site, DeferPostSite):
        server = Server(kind(make(), **further))
        try:
            answers.append(await server.ask(request))
        finally:
            await server.stop()
    stocks, ours = answers
    # Twisted's answers to HTTP/1.1 end in the way that the client asked for; ours say so as well.
    assert ours == stocks
    return ours


def get(path: bytes, *fields: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    """A request that is the last of its connection."""
    if body:
        fields = (*fields, b"Content-Length: %d" % len(body))
    lines = (b"%b %b HTTP/1.1" % (method, path), b"Host: here.test", b"Connection: close", *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def under(name: bytes, child: IResource) -> Resource:
    """A root with one child."""
    root = Resource()
    root.putChild(name, child)
    return root


@pytest.fixture
def files(tmp_path: Path) -> File:
    """A directory that is served."""
    (tmp_path / "small.txt").write_bytes(b"0123456789")
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 4096)
    return File(str(tmp_path))


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Range: bytes=2-5",),
        (b"Range: bytes=-3",),
        (b"Range: bytes=7-",),
        (b"Range: bytes=90-99",),
        (b"Range: nonsense",),
        (b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",),
        (b"If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@ensureDeferred
async def test_a_file(files: File, method: bytes, fields: tuple[bytes, ...]) -> None:
    """A file is served whole, in ranges, as not modified, and its head alone."""
    [response] = await both(lambda: files, get(b"/small.txt", *fields, method=method))
    assert response.status in (200, 206, 304, 416)


@ensureDeferred
async def test_several_ranges(files: File) -> None:
    """Several ranges of a file come as parts; their boundary is Twisted's secret."""
    server = Server(DeferPostSite(files))
    [response] = await server.ask(get(b"/small.txt", b"Range: bytes=0-1,4-5"))
    await server.stop()
    assert response.status == 206
    assert response.body.count(b"Content-range: bytes ") == 2
    assert len(response.body) == int(response.field(b"Content-Length") or b"0")


@pytest.mark.parametrize("path", [b"/", b"/none", b"/large.bin", b"/small.txt/below", b"/../x"])
@ensureDeferred
async def test_what_is_in_a_directory(files: File, path: bytes) -> None:
    """A listing, a file that is not there, and a large one."""
    await both(lambda: files, get(path))


@ensureDeferred
async def test_a_reader_that_is_slow(files: File) -> None:
    """A large file goes to a client at its pace, by a pull producer, and comes as a whole."""
    directory = Path(files.path)
    (directory / "huge.bin").write_bytes(b"deferpost" * 2_000_000)
    server = Server(DeferPostSite(files))
    client = await server.connect(get(b"/huge.bin"))
    transport: Any = client.transport
    transport.pauseProducing()
    await deferLater(reactor, 0.3, lambda: None)
    channel: Any = next(iter(server.site.channels))
    assert channel.outgoing.full
    assert len(channel.transport.dataBuffer) + len(channel.transport._tempDataBuffer) < 1_000_000
    transport.resumeProducing()
    await client.over
    body = bytes(client.received).partition(b"\r\n\r\n")[2]
    assert hashlib.sha256(body).digest() == hashlib.sha256(b"deferpost" * 2_000_000).digest()
    await server.stop()


class _Producing(Resource):
    """Registers a producer that never has anything.

    :param streaming: whether it is a push producer.
    """

    isLeaf = True

    def __init__(self, streaming: bool) -> None:
        super().__init__()
        self.streaming = streaming
        self.stopped = 0
        self.asked = 0

    def render_GET(self, request: Any) -> int:
        request.registerProducer(self, self.streaming)
        return NOT_DONE_YET

    def resumeProducing(self) -> None:
        """Not yet."""
        self.asked += 1

    def pauseProducing(self) -> None:
        """As ever."""

    def stopProducing(self) -> None:
        """The client is gone."""
        self.stopped += 1


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", [Site, DeferPostSite])
@ensureDeferred
async def test_a_producer_hears_that_its_client_is_gone(kind: Any, streaming: bool) -> None:
    """``stopProducing`` is called once, so that it can close what it reads from."""
    resource = _Producing(streaming)
    server = Server(kind(resource))
    client = await server.connect(get(b"/"))
    await until(lambda: resource.asked or streaming)
    await deferLater(reactor, 0.05, lambda: None)
    client.transport.abortConnection()  # type: ignore[union-attr]
    await until(lambda: resource.stopped)
    assert resource.stopped == 1
    await server.stop()


@ensureDeferred
async def test_redirects_and_late_resources() -> None:
    """A redirect; a resource that is found later; one that is never found."""

    def late() -> IResource:
        found: Deferred[Any] = Deferred()
        reactor.callLater(0.01, found.callback, under(b"", Data(b"late", "text/plain")))
        return DeferredResource(found)

    def lost() -> IResource:
        found: Deferred[Any] = Deferred()
        found.callback(pages.errorPage(503, "Not now", "Come back"))
        return DeferredResource(found)

    [response] = await both(lambda: under(b"a", Redirect(b"/b?c=d")), get(b"/a"))
    assert (response.status, response.field(b"Location")) == (302, b"/b?c=d")
    [response] = await both(late, get(b"/"))
    assert response.body == b"late"
    [response] = await both(lost, get(b"/"))
    assert response.status == 503


@pytest.mark.parametrize("host", [b"one.test", b"two.test:80", b"three.test", b"[::1]:8080"])
@ensureDeferred
async def test_virtual_hosts(host: bytes) -> None:
    """The host of a request finds its resource."""

    def hosts() -> IResource:
        root = NameVirtualHost()
        root.addHost(b"one.test", Data(b"1", "text/plain"))
        root.addHost(b"two.test", Data(b"2", "text/plain"))
        root.default = pages.notFound()  # type: ignore[assignment]
        return root

    await both(hosts, b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)


@implementer(IRealm)
class _Realm:
    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        """The same for everybody."""
        return IResource, under(b"", Data(b"secret of " + avatar, "text/plain")), lambda: None


def _guarded() -> IResource:
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    checker.addUser(b"ada", b"pw")
    factories = [BasicCredentialFactory(b"here"), DigestCredentialFactory(b"md5", b"here")]
    return HTTPAuthSessionWrapper(Portal(_Realm(), [checker]), factories)


@pytest.mark.parametrize(("password", "status"), [(b"pw", 200), (b"no", 401), (None, 401)])
@ensureDeferred
async def test_basic_authentication(password: bytes | None, status: int) -> None:
    """The guard lets in who knows the password."""
    fields = ()
    if password is not None:
        fields = (b"Authorization: Basic " + base64.b64encode(b"ada:" + password),)  # type: ignore[assignment]
    [response] = await both(_guarded, get(b"/", *fields))
    assert response.status == status


@ensureDeferred
async def test_digest_authentication() -> None:
    """The same, with an answer to the challenge of the connection before."""
    server = Server(DeferPostSite(_guarded()))
    client = await server.connect(get(b"/"))
    await client.over
    [challenge] = re.findall(rb"WWW-Authenticate: (?i:digest) ([^\r]*)", client.received)
    parts = dict(re.findall(rb'(\w+)="?([^",]*)"?', challenge))

    def md5(*words: bytes) -> bytes:
        return hashlib.md5(b":".join(words)).hexdigest().encode()

    proof = md5(
        md5(b"ada", parts[b"realm"], b"pw"), parts[b"nonce"], b"00000001", b"c", b"auth",
        md5(b"GET", b"/"),
    )  # fmt: skip
    fields = (
        b'Authorization: Digest username="ada", realm="%b", nonce="%b", uri="/", response="%b",'
        b' opaque="%b", qop=auth, nc=00000001, cnonce="c", algorithm=md5'
    ) % (parts[b"realm"], parts[b"nonce"], proof, parts[b"opaque"])
    [response] = await server.ask(get(b"/", fields))
    assert (response.status, response.body) == (200, b"secret of ada")
    await server.stop()


class _Counting(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """How often the session has been here."""
        session = request.getSession()
        session.visits = getattr(session, "visits", 0) + 1
        if request.args.get(b"end"):
            session.expire()
        return b"%d" % session.visits


@ensureDeferred
async def test_sessions() -> None:
    """A cookie finds its session; one that has expired is begun anew."""
    server = Server(DeferPostSite(_Counting()))
    client = await server.connect(get(b"/"))
    await client.over
    [cookie] = re.findall(rb"Set-Cookie: (TWISTED_SESSION=[0-9a-f]+)", client.received)
    visits = []
    for path in (b"/", b"/?end=1", b"/?end=1"):
        [response] = await server.ask(get(path, b"Cookie: " + cookie))
        visits.append(response.body)
    assert visits == [b"2", b"3", b"1"]
    for session in list(server.site.sessions.values()):
        session.expire()
    await server.stop()
    [response] = await both(
        lambda: under(b"x", Data(b"", "text/plain")), get(b"/x", b"Cookie: a=b; c")
    )
    assert response.status == 200


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    """A pool for WSGI."""
    pool = ThreadPool(1, 2)
    pool.start()
    yield pool
    pool.stop()


@pytest.mark.parametrize("size", [0, 5, 300_000])
@ensureDeferred
async def test_wsgi(threads: ThreadPool, size: int) -> None:
    """An application reads an upload in its thread and answers."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH", "HTTP_X_Y")
        said = repr([environ.get(name) for name in names]).encode()
        start_response("201 Created", [("Content-Type", "text/plain"), ("X-Z", "z")])
        return [said, hashlib.sha256(body).hexdigest().encode()]

    request = get(b"/app/a%20b?c=d", b"X-Y: y", method=b"POST", body=b"w" * size)
    [response] = await both(
        lambda: under(b"app", WSGIResource(reactor, threads, application)), request
    )
    assert response.status == 201
    assert response.body.endswith(hashlib.sha256(b"w" * size).hexdigest().encode())


@pytest.mark.parametrize("path", [b"/", b"/hello/ada", b"/later", b"/form", b"/none", b"/fail"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@ensureDeferred
async def test_klein(path: bytes, method: bytes) -> None:
    """An app of Klein's works, with its routes, Deferreds and errors."""
    app = Klein()

    @app.route("/")
    def root(request: Any) -> bytes:
        return b"root"

    @app.route("/hello/<name>")
    def hello(request: Any, name: str) -> str:
        return f"hello {name}"

    @app.route("/later")
    def later(request: Any) -> Any:
        return deferLater(reactor, 0.01, lambda: "later")

    @app.route("/form", methods=["POST"])
    def form(request: Any) -> bytes:
        return repr(sorted(request.args.items())).encode()

    @app.handle_errors(LookupError)
    def sorry(request: Any, failure: Any) -> bytes:
        request.setResponseCode(418)
        return b"sorry"

    @app.route("/fail")
    def fail(request: Any) -> bytes:
        raise LookupError

    body = b"a=1&b=2&a=3" if method == b"POST" else b""
    kind = b"Content-Type: application/x-www-form-urlencoded"
    await both(app.resource, get(path, kind, method=method, body=body))


@pytest.mark.parametrize("accepted", [b"gzip", b"identity", b"br, gzip;q=0.5"])
@ensureDeferred
async def test_compression(accepted: bytes) -> None:
    """An encoder stands before a resource."""
    page = b"deferpost " * 1000
    [response] = await both(
        lambda: under(
            b"p", EncodingResourceWrapper(Data(page, "text/html"), [GzipEncoderFactory()])
        ),
        get(b"/p", b"Accept-Encoding: " + accepted),
    )
    packed = response.field(b"Content-Encoding") == b"gzip"
    assert (gzip.decompress(response.body) if packed else response.body) == page


@ensureDeferred
async def test_pages() -> None:
    """What is not there, is forbidden, or has another method, is said in Twisted's pages."""
    [response] = await both(Resource, get(b"/none"))
    assert response.status == 404
    [response] = await both(lambda: under(b"f", pages.forbidden()), get(b"/f"))
    assert response.status == 403
    [response] = await both(lambda: _Counting(), get(b"/", method=b"PUT"))
    assert response.status == 501
    [response] = await both(Resource, get(b"/", method=b"OPTIONS"))
    assert response.status in (200, 404, 405)
    star = b"OPTIONS * HTTP/1.1\r\nHost: here.test\r\nConnection: close\r\n\r\n"
    await both(Resource, star)


@ensureDeferred
async def test_reverse_proxy() -> None:
    """A proxy in front of another server passes on what is asked and answered."""
    behind = Server(Site(under(b"down", _Echo())))
    port = await behind.start()
    [response] = await both(
        lambda: ReverseProxyResource("127.0.0.1", port, b"/down"),
        get(b"?q=1".join((b"/", b"")), b"X-Y: y", method=b"POST", body=b"through"),
    )
    assert b"through" in response.body
    await behind.stop()


@ensureDeferred
async def test_xmlrpc() -> None:
    """A method is called, and fails, over XML-RPC."""

    class Adder(XMLRPC):
        def xmlrpc_add(self, a: int, b: int) -> int:
            """Their sum."""
            return a + b

    for method, expected in (("add", b"<int>3</int>"), ("none", b"<name>faultCode</name>")):
        call = xmlrpc.client.dumps((1, 2), method).encode()
        request = get(b"/x", b"Content-Type: text/xml", method=b"POST", body=call)
        [response] = await both(lambda: under(b"x", Adder()), request)
        assert expected in response.body


class _Echo(Resource):
    """Says what it sees of a request."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        """All that does not depend on the connection."""
        verifyObject(IRequest, request)
        seen = {
            "method": request.method,
            "uri": request.uri,
            "path": request.path,
            "args": request.args,
            "version": request.clientproto,
            "headers": sorted(request.getAllHeaders().items()),
            "raw": sorted(request.requestHeaders.getAllRawHeaders()),
            "one": request.getHeader("x-y"),
            "cookies": request.received_cookies,
            "cookie": request.getCookie(b"a"),
            "prepath": request.prepath,
            "postpath": request.postpath,
            "url": request.prePathURL(),
            "urlpath": str(request.URLPath()),
            "hostname": request.getRequestHostname(),
            "secure": request.isSecure(),
            "user": request.getUser(),
            "password": request.getPassword(),
            "address": request.getClientAddress().host,
            "body": request.content.read(),
        }
        request.addCookie(b"k", b"v", path=b"/", httpOnly=True)
        request.setHeader(b"X-Order", b"1")
        request.responseHeaders.addRawHeader(b"X-Order", b"2")
        if request.setETag(b"tag") or request.setLastModified(1_000_000_000):
            return b""
        return repr(seen).encode()


_FORM = b"Content-Type: application/x-www-form-urlencoded"
_MULTIPART = b"Content-Type: multipart/form-data; boundary=b"
_PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\nfile\r\n'
    b'--b\r\nContent-Disposition: form-data; name="t"\r\n\r\ntext\r\n--b--\r\n'
)


@pytest.mark.parametrize("parse", [True, False])
@pytest.mark.parametrize(
    "request_",
    [
        get(b"/a/b%2Fc?d=e&d=f&g=", b"X-Y: 1", b"x-y: 2", b"Cookie: a=b; c=d"),
        get(b"/", b"Authorization: Basic " + base64.b64encode(b"u:p")),
        get(b"/?d=q", _FORM, method=b"POST", body=b"d=e+f&d=%20&g"),
        get(b"/", _MULTIPART, method=b"POST", body=_PARTS),
        get(b"/", _FORM, method=b"PUT", body=b"d=e"),
        get(b"/", b"If-None-Match: tag"),
        get(b"/", b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT"),
        get(b"/", method=b"HEAD"),
        b"GET / HTTP/1.0\r\nHost: here.test\r\nConnection: x\r\n\r\n",
        b"POST /c HTTP/1.1\r\nHost: here.test\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n",
        b"POST /1 HTTP/1.1\r\nHost: here.test\r\nContent-Length: 2\r\n\r\nab"
        b"GET /2 HTTP/1.1\r\nHost: here.test\r\n\r\nHEAD /3 HTTP/1.1\r\nHost: here.test\r\n"
        b"Connection: close\r\n\r\n",
        get(b"/", b"Upgrade: websocket", b"X-Y: u", method=b"POST", body=b"not upgraded"),
    ],
)
@ensureDeferred
async def test_what_a_resource_sees(request_: bytes, parse: bool) -> None:
    """Each part of IRequest says the same on both; forms are read unless a site is told not to."""
    answers = []
    for kind in (Site, DeferPostSite):
        server = Server(kind(_Echo(), parsePOSTFormSubmission=parse))
        port = await server.start()
        there = await server.ask(request_.replace(b"here.test", b"here.test:%d" % port))
        answers.append(
            [
                attrs.evolve(
                    response,
                    body=response.body.replace(b":%d" % port, b""),
                    fields=tuple(
                        (name, value)
                        for name, value in response.fields
                        if name not in (b"Content-Length", b"Connection")
                    ),
                )
                for response in there
            ]
        )
        await server.stop()
    assert answers[0] == answers[1]


@ensureDeferred
async def test_a_form_that_cannot_be_read() -> None:
    """It is refused, with 400, as on a stock site."""
    body = b"--\xe2\x98\x83\r\nContent-Type: text/plain\r\n\r\na\r\n--\xe2\x98\x83--\r\n"
    request = get(
        b"/", b"Content-Type: multipart/form-data; boundary=\xe2\x98\x83", method=b"POST", body=body
    )
    for kind in (Site, DeferPostSite):
        server = Server(kind(_Echo()))
        client = await server.connect(request)
        await client.over
        assert client.received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        await server.stop()


@ensureDeferred
async def test_a_defect_of_a_resource(caplog: pytest.LogCaptureFixture) -> None:
    """It is Twisted's page of a 500, and the connection goes on."""

    class Broken(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            """Fail."""
            raise LookupError("broken")

    for kind in (Site, DeferPostSite):
        site = kind(Broken())
        site.displayTracebacks = False
        server = Server(site)
        first = b"GET /1 HTTP/1.1\r\nHost: here.test\r\n\r\n"
        responses = await server.ask(first + get(b"/2"))
        assert [response.status for response in responses] == [500, 500]
        await server.stop()


class _Foreign(Request):
    """A request of the user's own."""

    def render(self, resource: Any) -> None:
        """Say so."""
        self.setHeader(b"X-Foreign", type(self).__name__.encode())
        super().render(resource)


class _OwnWire(WireRequest):
    """One that is a WireRequest."""

    def render(self, resource: Any) -> None:
        """Say so."""
        self.setHeader(b"X-Foreign", b"wire")
        super().render(resource)


@provider(INonQueuedRequestFactory)
class _NonQueued(_Foreign):
    def __init__(self, channel: Any) -> None:
        super().__init__(channel)


def _function(channel: Any, queued: Any) -> Request:
    return _Foreign(channel, queued)


@pytest.mark.parametrize("factory", [_Foreign, _NonQueued, _function, _OwnWire])
@ensureDeferred
async def test_requests_of_ones_own(factory: Any) -> None:
    """A site makes its requests by the factory that it is given, of either signature."""
    answers = []
    for kind in (Site, DeferPostSite):
        if kind is Site and factory is _OwnWire:
            continue  # it needs our channel
        server = Server(kind(_Echo(), requestFactory=factory))
        await server.start()
        request = get(b"/a?b=c", _FORM, b"Cookie: a=b", method=b"POST", body=b"d=e")
        [response] = await server.ask(request)
        answers.append(response)
        assert response.field(b"X-Foreign") is not None
        await server.stop()
    assert len({answer.fields for answer in answers}) == 1


@ensureDeferred
async def test_the_end_of_a_request() -> None:
    """``notifyFinish`` fires when the response is written, and fails when the client has left."""
    ends: list[object] = []

    class Watched(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> Any:
            """Answer, or not."""
            request.notifyFinish().addCallbacks(ends.append, lambda failure: ends.append("left"))
            return b"answered" if request.path == b"/now" else NOT_DONE_YET

    server = Server(DeferPostSite(Watched()))
    await server.ask(get(b"/now"))
    assert ends == [None]
    client = await server.connect(get(b"/never"))
    await deferLater(reactor, 0.05, lambda: None)
    client.transport.abortConnection()  # type: ignore[union-attr]
    await until(lambda: len(ends) == 2)
    assert ends == [None, "left"]
    await server.stop()


def test_twice_finished(recwarn: pytest.WarningsRecorder) -> None:
    """As on a stock channel, that is warned of; and to write after the end is an error."""
    from twisted.internet.testing import StringTransport

    seen: list[Any] = []

    class Late(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> Any:
            """Keep it."""
            seen.append(request)
            return NOT_DONE_YET

    from twisted.internet.task import Clock

    channel = DeferPostSite(Late(), reactor=Clock()).buildProtocol(None)
    channel.makeConnection(StringTransport())
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    [request] = seen
    request.finish()
    with pytest.warns(UserWarning, match="finish called twice"):
        request.finish()
    with pytest.raises(RuntimeError, match="finish"):
        request.write(b"more")
