"""The servers that are measured, each a program of its own: ``python -m bench.servers NAME``.

Every one answers a POST with its own body, from a thread or a process, with the access log off,
and prints its port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from deferpost import Call, DeferPost, ProcessPool, ThreadPool

reactor: Any = installed_reactor


class QuietSite(Site):
    """A stock site that writes no access log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Write nothing."""


def echo(call: Call) -> bytes:
    """The handler that every server runs."""
    return call.body.read()


class Recipe(Resource):
    """What Twisted's users write: ``deferToThread``, then write and finish."""

    isLeaf = True

    def render_POST(self, request: Any) -> int:
        """Answer with the body, from a thread."""
        body = request.content.read()
        deferred = deferToThread(lambda: body)

        def write(data: bytes) -> None:
            request.setHeader(b"content-type", b"application/octet-stream")
            request.setHeader(b"content-length", b"%d" % len(data))
            request.write(data)
            request.finish()

        deferred.addCallback(write)
        left = request.notifyFinish()
        left.addErrback(lambda _: deferred.cancel())
        deferred.addErrback(lambda _: None)
        return NOT_DONE_YET


class Direct(Resource):
    """Answers on the reactor thread: what the site costs alone, which bounds all the others."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        """Answer with the body."""
        body: bytes = request.content.read()
        request.setHeader(b"content-type", b"application/octet-stream")
        return body


SERVERS: dict[str, Callable[[], Site]] = {
    "no thread at all": lambda: QuietSite(Direct()),
    "recipe": lambda: QuietSite(Recipe()),
    "thread": lambda: QuietSite(DeferPost(echo, pool=ThreadPool(size=10))),
    "process": lambda: QuietSite(DeferPost(echo, pool=ProcessPool(size=2))),
    "recipe, forms off": lambda: QuietSite(Recipe(), parsePOSTFormSubmission=False),
    "thread, forms off": lambda: QuietSite(
        DeferPost(echo, pool=ThreadPool(size=10)), parsePOSTFormSubmission=False
    ),
    "process, forms off": lambda: QuietSite(
        DeferPost(echo, pool=ProcessPool(size=2)), parsePOSTFormSubmission=False
    ),
}


def main() -> None:
    """Serve until the parent closes standard input."""
    # Workers import this module by its name.
    from bench import servers

    site = servers.SERVERS[sys.argv[1]]()
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
