"""Twisted's own tests of its channel, run against ours; and the list of what differs."""

from __future__ import annotations

import re
import warnings
from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http

from deferpost.wire.channel import WireChannel
from deferpost.wire.limits import Limits
from tests.wire.twistedcases import against_ours, names_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it has a subclass of HTTPClient
    from twisted.web.test import test_http

# The tests call what is deprecated, of Twisted and of hamcrest.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

#: The classes that say something about a channel, or about requests on one.  Those that are left
#: out are about dates, the client, and the decoders of Twisted's own parser.
CLASSES: tuple[type[SynchronousTestCase], ...] = (
    test_http.HTTP1_0Tests,
    test_http.HTTP1_1Tests,
    test_http.HTTP1_1_close_Tests,
    test_http.HTTP0_9Tests,
    test_http.PipeliningBodyTests,
    test_http.ShutdownTests,
    test_http.SecurityTests,
    test_http.GenericHTTPChannelTests,
    test_http.HTTPLoopbackTests,
    test_http.PersistenceTests,
    test_http.ChunkingTests,
    test_http.ParsingTests,
    test_http.QueryArgumentsTests,
    test_http.RequestTests,
    test_http.MultilineHeadersTests,
    test_http.Expect100ContinueServerTests,
    test_http.DeprecatedRequestAttributesTests,
    test_http.ChannelProductionTests,
    test_http.HTTPChannelSanitizationTests,
)


def _of_each_version(name: str, reason: str) -> dict[str, str]:
    """A difference in a test that four classes have."""
    classes = ("HTTP1_0Tests", "HTTP1_1Tests", "HTTP1_1_close_Tests", "HTTP0_9Tests")
    return {f"{each}.{name}": reason for each in classes}


_PRODUCER = "the transport is given an object of its own as producer, not the channel itself"
_CLOSE = "the last response says so: Connection: close (RFC 9112, 9.6), also in HTTP/1.0"
_DOCUMENT = "a refusal has its own status, Date and a problem document (RFC 9457)"
_CODING = "HTTP/1.0 with Transfer-Encoding has faulty framing, and is refused (RFC 9112, 6.1)"

#: Tests that fail on our channel, as is meant, with the reasons.
DIFFERENCES = {
    **_of_each_version(
        "test_transportForciblyClosed",
        "a body that does not come is answered 408, which the site logs with the id of the answer;"
        " the channel does not log it in Twisted's words",
    ),
    **_of_each_version(
        "test_transportNotAbortedWithZeroAbortTimeout",
        "there is no abortTimeout that could be None: each connection that is closed has an end",
    ),
    "PipeliningBodyTests.test_immediateABiggerTruck": (
        "of many requests at once some are handled in each turn of the reactor, so that other"
        " connections have theirs; the test does not wait"
    ),
    "SecurityTests.test_notSecureAfterFinish": "it appends to requests, which is a copy here",
    "GenericHTTPChannelTests.test_unregistersProducer": _PRODUCER,
    "HTTPLoopbackTests.testLoopback": _CLOSE,
    "ChunkingTests.test_multipartFormData": _CODING,
    "ParsingTests.test_chunkedEncoding": _CODING,
    "ParsingTests.test_headerStripWhitespace": "a value with VT or FF is refused (RFC 9110, 5.5)",
    "ParsingTests.test_headersMultiline": "obs-fold is refused (RFC 9112, 5.2)",
    "ParsingTests.test_transferEncodingIdentity": (
        "identity is no transfer coding any more, and not beside Content-Length (RFC 9112, 6.3, 7)"
    ),
    "ChannelProductionTests.test_HTTPChannelIsAProducer": _PRODUCER,
    "ChannelProductionTests.test_HTTPChannelUnregistersSelfWhenTimingOut": _PRODUCER,
    "ChannelProductionTests.test_HTTPChannelPropagatesProducingFromTransportToTransport": (
        "of a client that takes nothing as much is read as of one that waits: up to max_pipelined,"
        " so that its leaving is seen"
    ),
    "ChannelProductionTests.test_HTTPChannelToleratesDataWhenTransportPaused": (
        "a client that does not take an answer gets no further one: its next request waits"
    ),
}

#: Tests that fail by the words of our answers alone, and pass when these are translated.
SAID_OTHERWISE = {
    "HTTP1_0Tests.test_buffer": _CLOSE,
    "HTTP1_0Tests.test_noPipelining": _CLOSE,
    "HTTP1_0Tests.test_noPipeliningApi": _CLOSE,
    "Expect100ContinueServerTests.test_HTTP10": _CLOSE,
    **{
        f"ParsingTests.{name}": _CLOSE
        for name in (
            "test_multipartEmptyHeaderProcessingFailure",
            "test_multipartFilesData",
            "test_multipartFormData",
        )
    },
    "HTTP0_9Tests.test_buffer": _DOCUMENT,
    "HTTP0_9Tests.test_noPipeliningApi": _DOCUMENT,
    **{
        f"ParsingTests.{name}": _DOCUMENT
        for name in (
            "test_contentLengthAndTransferEncoding",
            "test_contentLengthAndTransferEncodingWithPipelinedRequests",
            "test_contentLengthMalformed",
            "test_contentLengthNegative",
            "test_contentLengthTooPositive",
            "test_duplicateContentLengths",
            "test_duplicateContentLengthsWithPipelinedRequests",
            "test_headersTooBigInitialCommand",
            "test_headersTooBigOtherHeaders",
            "test_invalidContentLengthHeader",
            "test_invalidHeaderNameChars",
            "test_invalidHeaderNoColon",
            "test_invalidHeaderOnlyColon",
            "test_invalidHeaderValueControlChars",
            "test_invalidHeaderWhitespaceBeforeColon",
            "test_invalidMethodEmpty",
            "test_invalidMethodNUL",
            "test_invalidMethodNonAscii",
            "test_invalidRequestLineExtraSpaces",
            "test_invalidRequestTargetEmpty",
            "test_invalidRequestTargetNUL",
            "test_invalidRequestTargetWhitespace",
            "test_invalidVersion",
            "test_malformedChunkedEncoding",
            "test_multipartProcessingFailure",
            "test_tooManyHeaders",
            "test_unknownTransferEncoding",
        )
    },
}


class ChannelUnderTest(WireChannel):
    """Our channel by the names that the tests reach for.

    Its limits are Twisted's, as far as ours can say them: a Host may be missing, and a body has to
    go on, if only by a byte.
    """

    requestFactory: Any = http.Request
    limits = Limits(
        require_host=False, min_body_rate=1, write_timeout=15.0, max_pipelined=16 * 1024
    )

    maxHeaders = limits.max_headers
    totalHeadersSize = limits.max_head
    _transferDecoder = None

    def connectionMade(self) -> None:
        """Begin, within the bounds that the test has set."""
        if self.timeOut is None:  # Twisted has no timer then; neither has a clock that stands still
            self.callLater = Clock().callLater
        self.limits = attrs.evolve(
            self.limits, max_headers=self.maxHeaders, max_head=self.totalHeadersSize
        )
        super().connectionMade()
        self.limits = attrs.evolve(
            self.limits,
            min_body_rate=1 / self.limits.body_window,  # type: ignore[arg-type]  # a byte
        )

    @property
    def _optimisticEagerReadSize(self) -> int:
        return self.limits.max_pipelined

    @_optimisticEagerReadSize.setter
    def _optimisticEagerReadSize(self, size: int) -> None:
        self.limits = attrs.evolve(self.limits, max_pipelined=size)

    @property
    def _requestProducer(self) -> Any:
        return self._producer

    @property
    def _networkProducer(self) -> Any:
        return self.transport


class TranslatingTransport(StringTransport):
    """A transport on which what ours says in other words is heard in Twisted's."""

    _REFUSAL = re.compile(
        rb"HTTP/1\.[01] [45]\d\d [^\r]*\r\n(?:[^\r]+\r\n)*Content-Type: application/problem\+json"
        rb"\r\n(?:[^\r]+\r\n)*Connection: close\r\n\r\n\{[^}]*\}$"
    )
    _LAST_OF_HTTP_1_0 = re.compile(rb"^(HTTP/1\.0 [^\r]*\r\n(?:[^\r]+\r\n)*?)Connection: close\r\n")

    def value(self) -> bytes:
        """What was written."""
        value = self._REFUSAL.sub(b"HTTP/1.1 400 Bad Request\r\n\r\n", super().value())
        return self._LAST_OF_HTTP_1_0.sub(rb"\1", value)


def _put(test: Any) -> None:
    test.patch(http, "HTTPChannel", ChannelUnderTest)


def _translate(test: Any) -> None:
    test.patch(test_http, "StringTransport", TranslatingTransport)


for _case in CLASSES:
    globals()[_case.__name__] = against_ours(
        __name__, _case, _put, _translate, DIFFERENCES, SAID_OTHERWISE
    )


class ListTests(SynchronousTestCase):
    """The list of differences."""

    def test_it_is_of_tests(self) -> None:
        """It names tests that there are, each once; and a new Twisted has not taken some away."""
        names = {name for case in CLASSES for name in names_of(case)}
        listed = {*DIFFERENCES, *SAID_OTHERWISE}
        self.assertEqual(listed - names, set())
        self.assertEqual(DIFFERENCES.keys() & SAID_OTHERWISE.keys(), set())
        self.assertGreaterEqual(len(names), LEAST_RUN)
        self.assertGreaterEqual(len(names - listed), LEAST_AS_THEY_ARE)
        self.assertGreaterEqual(len(names) - len(DIFFERENCES), LEAST_PASSED)


#: How many tests run, pass as they are, and pass as they are or translated.
LEAST_RUN, LEAST_AS_THEY_ARE, LEAST_PASSED = 205, 148, 184
