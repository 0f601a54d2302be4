"""deferpost inside a Klein app: a route returns the resource, and deferpost answers.

Run it, and look around::

    python -m examples.klein_app
    curl http://127.0.0.1:8082/
    curl --data-binary @README.rst http://127.0.0.1:8082/rst
    curl --data-binary @README.rst http://127.0.0.1:8082/api/sha256
"""

from __future__ import annotations

import sys

from klein import Klein
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from deferpost import DeferPost, ProcessPool
from examples import documents

klein = Klein()

# Made once, so that all requests share one pool.
rst = DeferPost(documents.render, pool=ProcessPool(size=1))
api = documents.app.resource()


@klein.route("/")
def home(request: IRequest) -> str:
    """A page of Klein's own."""
    return "POST to /rst, and below /api.\n"


@klein.route("/rst", branch=True)
def render(request: IRequest) -> IResource:
    """One handler of deferpost's."""
    return rst


@klein.route("/api", branch=True)
def documents_api(request: IRequest) -> IResource:
    """A whole app; ``branch`` leaves the rest of the path to it."""
    return api


def main() -> None:
    """Serve it on the endpoint that the command line names."""
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp:8082:interface=127.0.0.1"
    klein.run(endpoint_description=endpoint)


if __name__ == "__main__":
    main()
