"""What Twisted's users write: a resource that calls ``deferToThread``, in a stock ``Site``.

``python -m bench.peers.recipe PORT``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import File

from bench import jobs

reactor: Any = installed_reactor


class QuietSite(Site):
    """A stock site that writes no access log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Write nothing."""


class InThread(Resource):
    """Calls a function in a thread with the request's body, and answers with what it returns.

    :param function: takes the body, a binary file.
    """

    isLeaf = True

    def __init__(self, function: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._function = function

    def render_POST(self, request: Any) -> int:
        """Answer from a thread."""
        deferred = deferToThread(self._function, request.content)

        def write(data: bytes) -> None:
            request.setHeader(b"content-type", b"application/octet-stream")
            request.setHeader(b"content-length", b"%d" % len(data))
            request.write(data)
            request.finish()

        deferred.addCallback(write)
        request.notifyFinish().addErrback(lambda _: deferred.cancel())
        deferred.addErrback(lambda _: None)
        return NOT_DONE_YET


class Ping(Resource):
    """Answers at once."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """A few bytes."""
        return b"pong\n"


class LargeFile(Resource):
    """Answers a POST with the large file, as ``File`` does a GET."""

    isLeaf = True

    def render_POST(self, request: Any) -> Any:
        """The file."""
        request.method = b"GET"
        return File(jobs.large_file(), defaultType="application/octet-stream").render_GET(request)


def _hold(body: Any) -> bytes:
    jobs.hold()
    return b""


def main() -> None:
    """Serve until a signal comes."""
    thread, root = Resource(), Resource()
    thread.putChild(b"echo", InThread(lambda body: jobs.echo(body.read())))
    thread.putChild(b"hold", InThread(_hold))
    thread.putChild(b"count", InThread(lambda body: b"%d" % jobs.count(body.read)))
    thread.putChild(b"file", LargeFile())
    root.putChild(b"thread", thread)
    root.putChild(b"ping", Ping())
    reactor.suggestThreadPoolSize(jobs.threads())
    reactor.listenTCP(int(sys.argv[1]), QuietSite(root), backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
