"""Twisted's own tests that put resources on a site, with ours in the place of Twisted's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import server

from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.wire.twistedcases import against_ours, names_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.test import (
        test_cgi,
        test_distrib,
        test_proxy,
        test_vhost,
        test_web,
        test_websocket,
        test_wsgi,
        test_xmlrpc,
    )

# The tests call what is deprecated, and leave connections to be collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MODULES = (
    test_cgi,
    test_distrib,
    test_proxy,
    test_vhost,
    test_web,
    test_websocket,
    test_wsgi,
    test_xmlrpc,
)

#: Tests that fail with our site, as is meant, with the reasons.
DIFFERENCES = {
    "SiteTest.test_defaultRequestFactory": "it has another one: WireRequest, a server.Request",
}


class SiteUnderTest(DeferPostSite):
    """Our site; only a Host may be missing."""

    def __init__(self, *args: Any, **further: Any) -> None:
        super().__init__(*args, limits=Limits(require_host=False), **further)


class StillSite(SiteUnderTest):
    """The same, on a clock: of tests that leave connections open, whose idleness is timed here."""

    def __init__(self, resource: Any) -> None:
        super().__init__(resource, reactor=Clock())


def _put(test: Any) -> None:
    still = isinstance(test, test_web.TestRFC9112Section932)
    for module in (server, *MODULES):
        if "Site" in vars(module):
            test.patch(module, "Site", StillSite if still else SiteUnderTest)


def _nothing(test: Any) -> None:
    """Nothing is said otherwise."""


CLASSES: tuple[type[SynchronousTestCase], ...] = tuple(
    case
    for module in MODULES
    for case in vars(module).values()
    if isinstance(case, type)
    and issubclass(case, SynchronousTestCase)
    and case.__module__ == module.__name__
)

for _case in CLASSES:
    globals()[_case.__name__] = against_ours(__name__, _case, _put, _nothing, DIFFERENCES, {})


class ListTests(SynchronousTestCase):
    """The list of differences."""

    def test_it_is_of_tests(self) -> None:
        """It names tests that there are; and a new Twisted has not taken some away."""
        names = {name for case in CLASSES for name in names_of(case)}
        self.assertEqual(DIFFERENCES.keys() - names, set())
        self.assertGreaterEqual(len(names), LEAST_RUN)


#: How many tests run.
LEAST_RUN = 341
