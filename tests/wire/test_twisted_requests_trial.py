"""Twisted's own tests of requests, with ours in the place of Twisted's."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http, server

from deferpost.wire.request import WireRequest
from tests.wire.twistedcases import against_ours, names_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.test import test_http, test_web

# The tests call what is deprecated, and leave files to be collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CLASSES: tuple[tuple[ModuleType, type[SynchronousTestCase]], ...] = (
    (test_http, test_http.RequestTests),
    (test_http, test_http.QueryArgumentsTests),
    (test_http, test_http.MultilineHeadersTests),
    (test_http, test_http.DeprecatedRequestAttributesTests),
    (test_web, test_web.RequestTests),
    (test_web, test_web.ConditionalTests),
    (test_web, test_web.RememberURLTests),
    (test_web, test_web.GzipEncoderTests),
    (test_web, test_web.NewRenderTests),
    (test_web, test_web.AllowedMethodsTests),
)

_A_SERVERS = "it is a server.Request, of which each has Server, Date and Content-Type"

#: Tests that fail with our request, as is meant, with the reasons.
DIFFERENCES = {
    "RequestTests.test_firstWrite": _A_SERVERS,
    "RequestTests.test_firstWriteHTTP11Chunked": _A_SERVERS,
    "RequestTests.test_firstWriteLastModified": _A_SERVERS,
    "RequestTests.test_lastModifiedAlreadyWritten": _A_SERVERS,
}


class _NoOutgoing:
    """Of a channel that writes at once."""

    def cork(self) -> None:
        """Do nothing."""

    def uncork(self) -> None:
        """Do nothing."""


class RequestUnderTest(WireRequest):
    """Our request, on a channel that has not what ours has."""

    def __init__(self, channel: Any, queued: object = False, **further: Any) -> None:
        if not hasattr(channel, "outgoing"):
            channel.peer, channel.host = channel.getPeer(), channel.getHost()
            channel.outgoing = _NoOutgoing()
        super().__init__(channel, queued, **further)


RequestUnderTest.__name__ = "Request"  # which its repr() has to have


def _put(test: Any) -> None:
    test.patch(server, "Request", RequestUnderTest)
    test.patch(http, "Request", RequestUnderTest)


def _nothing(test: Any) -> None:
    """Nothing is said otherwise."""


for _module, _case in CLASSES:
    _differences = DIFFERENCES if _module is test_http else {}
    _name = _case.__name__.removesuffix("Tests")
    _name += "OfHTTPTests" if _module is test_http else "OfServerTests"
    globals()[_name] = against_ours(__name__, _case, _put, _nothing, _differences, {})


class ListTests(SynchronousTestCase):
    """The list of differences."""

    def test_it_is_of_tests(self) -> None:
        """It names tests that there are; and a new Twisted has not taken some away."""
        names = [name for _, case in CLASSES for name in names_of(case)]
        self.assertEqual(DIFFERENCES.keys() - set(names), set())
        self.assertGreaterEqual(len(names), LEAST_RUN)


#: How many tests run.
LEAST_RUN = 140
