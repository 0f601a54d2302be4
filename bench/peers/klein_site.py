"""Klein with ``deferToThread``, in a stock ``Site``: ``python -m bench.peers.klein_site PORT``."""

from __future__ import annotations

import sys
from typing import Any

from klein import Klein
from twisted.internet import reactor as installed_reactor
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from bench import jobs

reactor: Any = installed_reactor
app = Klein()


class QuietSite(Site):
    """A stock site that writes no access log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Write nothing."""


@app.route("/ping")
def ping(request: Any) -> bytes:
    """Answer at once."""
    request.setHeader(b"content-length", b"5")
    return b"pong\n"


@app.route("/thread/echo", methods=["POST"])
def echo(request: Any) -> Any:
    """Give the body back, from a thread."""
    body = request.content.read()
    request.setHeader(b"content-type", b"application/octet-stream")
    request.setHeader(b"content-length", b"%d" % len(body))
    return deferToThread(jobs.echo, body)


def main() -> None:
    """Serve until a signal comes."""
    reactor.suggestThreadPoolSize(jobs.threads())
    site = QuietSite(app.resource())
    reactor.listenTCP(int(sys.argv[1]), site, backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
