"""The limit of a route counts below a resource that finds its children in a way of its own."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource

from deferpost import Call, DeferPost, DeferPostSite


class Finds(Resource):
    """Finds one resource, whatever the path."""

    def __init__(self, found: Resource) -> None:
        super().__init__()
        self._found = found

    def getChild(self, path: bytes, request: Any) -> Resource:
        """Find it."""
        return self._found


def echo(call: Call) -> bytes:
    """Answer with the body."""
    return call.body.read()


@pytest.mark.parametrize("path", [b"found", b"put"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 11\r\n\r\nhello there",
        b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello there\r\n0\r\n\r\n",
    ],
)
def test_the_limit_counts(path: bytes, framing: bytes) -> None:
    """What is over the limit of the route is answered 413, found early or not."""
    root = Finds(DeferPost(echo, max_body=10))
    root.putChild(b"put", DeferPost(echo, max_body=10))
    channel = DeferPostSite(root).buildProtocol(None)
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(b"POST /%b HTTP/1.1\r\nHost: a\r\n%b" % (path, framing))
    assert transport.value().startswith(b"HTTP/1.1 413 ")
    channel.connectionLost()
