"""One of our apps in a stock ``Site``: ``python -m bench.servers.mounted PORT APP``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.web.server import Site

reactor: Any = installed_reactor


class QuietSite(Site):
    """A stock site that writes no access log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Write nothing."""


def main() -> None:
    """Serve until a signal comes."""
    # Workers import that module by its name.
    from bench.servers import ours

    app = getattr(ours, sys.argv[2])
    # Forms are read in the workers; here it would be done on the reactor thread.
    site = QuietSite(app.resource(max_body="2GiB"), parsePOSTFormSubmission=False)
    reactor.listenTCP(int(sys.argv[1]), site, backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
