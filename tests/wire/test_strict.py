"""The wire is as strict as the table of cases says, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from deferpost.wire.site import DeferPostSite
from tests.wire.answers import Response, problem, responses
from tests.wire.cases import CASES, Case
from tests.wire.memory import Connection, site_of
from tests.wire.reading import plain
from tests.wire.recorders import EarlyRecorder, Recorder
from tests.wire.smuggling import HIDDEN, SMUGGLING

ALL = (*CASES, *SMUGGLING)
SECOND = b"GET /second HTTP/1.1\r\nHost: h\r\n\r\n"

each_case = pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])


def bytewise(data: bytes) -> list[bytes]:
    """Each byte for itself."""
    return [data[place : place + 1] for place in range(len(data))]


def method_of(case: Case) -> bytes:
    """The method, as far as it matters to how the answer is read."""
    return case.request.removeprefix(b"\r\n").split(b" ")[0]


def check_refusal(case: Case, answers: Sequence[Response]) -> None:
    """A bad request has one answer, which says what was wrong and ends the connection."""
    (answer,) = answers
    assert answer.status == case.status
    assert answer.values(b"Connection") == [b"close"]
    assert len(answer.values(b"Date")) == 1
    if method_of(case) != b"HEAD":
        problem(answer)


def check_answer(case: Case, answer: Response, recorder: Recorder) -> None:
    """A good request has reached its resource as it is meant."""
    assert answer.status == 200
    request = plain(case.request)
    assert not request.rest
    if request.target == b"*":  # no resource's; Twisted answers for the server as a whole
        assert all(seen.target != b"*" for seen in recorder.seen)
        return
    seen = recorder.seen[0]
    assert (seen.method, seen.target, seen.version) == (
        request.method,
        request.target,
        request.version,
    )
    assert seen.body == request.body


def check(case: Case, pieces: Sequence[bytes], *, second: bool = False) -> None:
    """Send a case to both kinds of resources, in memory."""
    for recorder in (Recorder(), EarlyRecorder()):
        connection = Connection(site_of(recorder))
        connection.send(*pieces)
        answers = responses(connection.received, [method_of(case)])
        assert answers, "there is no answer"
        ended = connection.transport.ended
        assert ended == answers[-1].last
        connection.leave()
        targets = [seen.target for seen in recorder.seen]
        assert HIDDEN not in targets
        if case.status != 200:
            check_refusal(case, answers)
            assert not targets
        else:
            check_answer(case, answers[0], recorder)
            answered = second and not answers[0].last
            assert len(answers) == 1 + answered
            assert (b"/second" in targets) is answered


@each_case
def test_in_one_piece(case: Case) -> None:
    """A case that comes as a whole has its answer."""
    check(case, [case.request])


@each_case
def test_byte_by_byte(case: Case) -> None:
    """A case that comes in pieces of one byte has the same answer."""
    check(case, bytewise(case.request))


@each_case
def test_with_a_second_request_behind_it(case: Case) -> None:
    """What follows a good request is answered; what follows a bad one never is."""
    check(case, [case.request + SECOND], second=True)
    check(case, [case.request, SECOND], second=True)
    check(case, bytewise(case.request + SECOND), second=True)


class Client(Protocol):
    """Sends a case, and reads to the end.

    :ivar done: fires with all that came.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._received = bytearray()
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._case.request)
        if self._case.status == 200:  # the server has no other reason to end it
            transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(bytes(self._received))


@ensureDeferred
async def test_over_tcp() -> None:
    """Real sockets change nothing; a client that has closed its side gets its answer too."""
    site: Any = DeferPostSite(Recorder())
    port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        cases = ALL[::5]
        for start in range(0, len(cases), 32):
            batch = cases[start : start + 32]
            clients = await gatherResults(
                [connectProtocol(endpoint, Client(case)) for case in batch]
            )
            for case, data in zip(
                batch, await gatherResults([client.done for client in clients]), strict=True
            ):
                answers = responses(data, [method_of(case)])
                if case.status == 200:
                    assert [answer.status for answer in answers] == [200], case
                else:
                    check_refusal(case, answers)
    finally:
        await port.stopListening()
