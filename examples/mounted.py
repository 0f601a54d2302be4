"""deferpost inside a site that is there already: plain twisted.web, no daemon of ours.

Run it, and look around::

    python -m examples.mounted
    curl http://127.0.0.1:8081/
    curl --data-binary @README.rst http://127.0.0.1:8081/rst
    curl --data-binary @README.rst http://127.0.0.1:8081/api/sha256
    curl --data-binary @README.rst -H 'Host: api.localhost' http://127.0.0.1:8081/sha256
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.static import Data, File
from twisted.web.vhost import NameVirtualHost

from deferpost import DeferPost, ProcessPool
from examples import documents

HOME = b"<!DOCTYPE html><title>Home</title><p>POST to /rst, and below /api."


def tree(api: IResource) -> Resource:
    """A site with static pages, one handler at ``/rst`` and an app below ``/api``.

    :param api: the app.
    """
    root = Resource()
    root.putChild(b"", Data(HOME, "text/html; charset=utf-8"))
    root.putChild(b"examples", File(str(Path(__file__).parent)))
    # This one has a pool of its own, with its own queue: /api cannot fill it.
    root.putChild(b"rst", DeferPost(documents.render, pool=ProcessPool(size=1), max_body="1MB"))
    root.putChild(b"api", api)
    return root


def hosts() -> NameVirtualHost:
    """That site, and the app alone for those who come to ``api.localhost``."""
    api = documents.app.resource()
    by_name = NameVirtualHost()
    by_name.default = tree(api)  # type: ignore[assignment]  # declared as None, without a type
    by_name.addHost(b"api.localhost", api)
    return by_name


def main() -> None:
    """Serve it on the endpoint that the command line names."""
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp:8081:interface=127.0.0.1"
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    # Forms are read in the workers; Twisted would read them here, on the reactor's thread.
    site = Site(hosts(), parsePOSTFormSubmission=False)
    serverFromString(reactor, endpoint).listen(site)
    reactor.run()


if __name__ == "__main__":
    main()
