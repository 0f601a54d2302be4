"""What holds for any bytes that a client sends, and what shows that it does not.

Each check sends them to channels in memory and raises AssertionError, or whatever came out of the
channel.  The properties and the fuzzer use the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.web.http import HTTPChannel
from twisted.web.server import Site

from deferpost.wire.limits import Limits
from tests.wire.answers import Response, Unfinished, responses, shape
from tests.wire.memory import Connection, MemoryTransport, site_of
from tests.wire.recorders import (
    EarlyRecorder,
    HastyRecorder,
    LateRecorder,
    Recorder,
    Seen,
    StreamRecorder,
)

__all__ = ["KINDS", "LIMITS", "Outcome", "check", "outcome", "twisted_sees"]

#: The kinds of resources, and the bounds, that bytes are tried with.
KINDS: tuple[type[Recorder], ...] = (
    Recorder,
    EarlyRecorder,
    StreamRecorder,
    HastyRecorder,
    LateRecorder,
)
LIMITS = (
    Limits(),
    Limits(max_head=200, max_target=60, max_headers=6, max_chunk_line=12, max_body=40),
)

#: What another client sends meanwhile.
_OTHER = (
    b"POST /other HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
)

_CUT_BY_US = 100  # the status of a refusal that only says that there was one


@attrs.frozen
class Outcome:
    """What came of some bytes.

    :ivar seen: the requests.
    :ivar answers: the responses, without what differs each time.
    :ivar ended: whether the connection has ended.
    """

    seen: tuple[Seen, ...]
    answers: tuple[Response, ...]
    ended: bool


def outcome(
    pieces: Sequence[bytes], kind: type[Recorder] = Recorder, limits: Limits | None = None
) -> Outcome:
    """Send pieces, and look at what comes of them before anything else happens.

    Then the client waits for longer than any time limit, on one connection, and leaves.

    :raises AssertionError: something was answered twice, or not at all, or after the end.
    """
    recorder = kind()
    connection = Connection(site_of(recorder, limits))
    before = _beside(connection, limits)
    before.send(_OTHER[:30])
    for piece in pieces:
        connection.send(piece)
        _answer_late(connection, recorder)
    answers = _answers(connection, recorder)
    ended = connection.transport.ended
    assert ended == bool(answers and answers[-1].last), "the end does not match the last answer"
    result = Outcome(tuple(recorder.seen), tuple(answers), ended)
    _wait(connection)
    later = _answers(connection, recorder)
    assert later[: len(answers)] == answers
    assert len(later) <= len(answers) + 1
    assert all(answer.status == 408 for answer in later[len(answers) :])
    assert connection.transport.over, "a client that does nothing keeps its connection"
    _check_closed(recorder)
    before.send(_OTHER[30:])
    after = _beside(connection, limits)
    after.send(_OTHER, _OTHER)
    for other, number in ((before, 1), (after, 2)):
        assert [answer.body for answer in responses(other.received)] == [
            b"POST /other\nhello"
        ] * number
        other.leave()
    return result


def _beside(connection: Connection, limits: Limits | None) -> Connection:
    """A connection that shares with another what connections share: the parsers."""
    other = Connection(site_of(Recorder(), limits))
    other.channel.parsers = connection.channel.parsers
    return other


def _answer_late(connection: Connection, recorder: Recorder) -> None:
    if isinstance(recorder, LateRecorder):
        while recorder.pending:
            assert len(recorder.pending) == 1, "a second request began before the first ended"
            recorder.answer()
            connection.settle()


def _answers(connection: Connection, recorder: Recorder) -> list[Response]:
    """The responses so far: one for each request, then at most one refusal, which is the last."""
    site, data = connection.site, connection.received
    try:
        found = responses(data, site.answered)
    except Unfinished:
        found = responses(data, [*site.answered, b"HEAD"])  # refused, which has no body either
    answers = [shape(answer) for answer in found]
    refused = [answer for answer in answers if answer.status != 200]
    assert [answer.status for answer in refused] == site.refused
    assert len(refused) <= 1
    assert len(answers) == len(site.answered) + len(refused)
    assert len(recorder.seen) <= len(site.answered)  # others were for the server as a whole
    for answer in answers[:-1]:
        assert not answer.last, "something follows the last answer"
        assert answer.status == 200
    assert all(answer.last for answer in refused)
    for answer in answers:
        assert answer.interim in ((), (100,))
    return [attrs.evolve(answer, interim=()) for answer in answers]


def _wait(connection: Connection) -> None:
    for _ in range(100):
        connection.settle()
        if connection.transport.over:
            return
        connection.clock.advance(5)


def _check_closed(recorder: Recorder) -> None:
    if isinstance(recorder, LateRecorder):
        assert recorder.opened == recorder.closed
        assert not recorder.pending


def half_closed(pieces: Sequence[bytes], kind: type[Recorder]) -> None:
    """Send pieces, and no more: the connection ends when all that was asked is answered."""
    recorder = kind()
    connection = Connection(site_of(recorder))
    connection.send(*pieces)
    connection.half_close()
    _answer_late(connection, recorder)
    _answers(connection, recorder)
    assert connection.transport.ended, "a client that sends no more keeps its connection"
    connection.leave()
    _check_closed(recorder)


class _TwistedChannel(HTTPChannel):
    """Twisted's own, without the adapters of its factory."""

    timeOut = None


def twisted_sees(data: bytes) -> tuple[Seen, ...]:
    """The requests that Twisted's own channel finds in the same bytes."""
    recorder = Recorder()
    clock = Clock()
    site = Site(recorder, reactor=clock, parsePOSTFormSubmission=False)
    site.displayTracebacks = False
    channel: Any = _TwistedChannel()
    channel.factory = channel.site = site
    channel.requestFactory = site.requestFactory
    channel.callLater = clock.callLater
    transport = MemoryTransport(clock)
    transport.protocol = channel
    channel.makeConnection(transport)
    with suppress(ValueError):  # it knows no bound on the digits of a length
        transport.bring(data)
    clock.advance(0)
    transport.reset()
    return tuple(recorder.seen)


def _refused_alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes differ in nothing but the status of a refusal.

    With two faults in one head it depends on the cut which of them is found first.
    """

    def without(outcome: Outcome) -> Outcome:
        answers = tuple(
            answer
            if answer.status == 200
            else attrs.evolve(answer, status=_CUT_BY_US, fields=(), body=b"")
            for answer in outcome.answers
        )
        return attrs.evolve(outcome, answers=answers)

    return without(one) == without(other)


def check(data: bytes, cuts: Sequence[int], *, kind: int = 0, limits: int = 0) -> None:
    """Check all that has to hold for any bytes.

    :param data: what the client sends.
    :param cuts: places where it is cut.
    :param kind: which of :data:`KINDS`.
    :param limits: which of :data:`LIMITS`.
    """
    places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    resource = KINDS[kind]
    bounds = LIMITS[limits]
    whole = outcome([data], resource, bounds)
    cut = outcome(pieces, resource, bounds)
    expecting = resource is HastyRecorder and b"xpect" in data.lower()
    if not expecting:  # what was answered before its body decides by how much of it has come
        assert _refused_alike(whole, cut), f"cut at {places}: {cut} in place of {whole}"
    half_closed(pieces, resource)
    if resource is Recorder:
        _check_against_twisted(data, whole)


def _for_the_server(seen: Seen) -> bool:
    """Whether Twisted gives a resource what is of the server as a whole (RFC 9112, 3.2.4)."""
    target = seen.target.lower()
    return seen.method == b"OPTIONS" and target.startswith(b"http") and target.count(b"/") == 2


def _check_against_twisted(data: bytes, ours: Outcome) -> None:
    """Twisted finds the same requests, as far as it goes."""
    theirs = [seen for seen in twisted_sees(data) if not _for_the_server(seen)]
    for index, (one, other) in enumerate(zip(ours.seen, theirs, strict=False)):
        assert one.method == other.method, f"request {index}: {one} and {other}"
        assert one.body == other.body, f"request {index}: {one} and {other}"
        assert other.target.endswith(one.target.lstrip(b"/")), f"request {index}: {other}"
