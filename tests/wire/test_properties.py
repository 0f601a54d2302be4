"""Any cut of the same bytes is the same requests and responses, in any order of events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.answers import responses
from tests.wire.cases import CASES
from tests.wire.invariants import KINDS, LIMITS, check, half_closed, outcome, twisted_sees
from tests.wire.memory import Connection, site_of
from tests.wire.recorders import LateRecorder, Recorder, Seen
from tests.wire.smuggling import SMUGGLING


@attrs.frozen
class Sent:
    """A valid request, and what a resource has to see of it.

    :ivar last: whether the client wants the connection closed behind it.
    """

    data: bytes
    seen: Seen
    last: bool


METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"QUERY")
_TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PCHAR = "abcXYZ019-._~!$&'()*+,;=:@/"

tokens = st.text(_TCHAR, min_size=1, max_size=12).map(str.encode)
names = tokens.map(lambda token: b"X-" + token)
values = st.one_of(
    st.just(b""),
    st.binary(max_size=20)
    .map(lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F))
    .map(lambda data: data.strip(b" ")),
    st.sampled_from([b"close", b"chunked", b"5", b"a\tb", b"GET / HTTP/1.1", b"100-continue"]),
)
spaces = st.sampled_from([b"", b" ", b"\t", b"  \t"])
paths = st.lists(
    st.one_of(st.text(_PCHAR, max_size=5), st.sampled_from(["%41", "%2F", "%00", "%e9"])),
    max_size=4,
).map(lambda parts: b"/" + "".join(parts).encode())
queries = st.one_of(
    st.just(b""), st.text(_PCHAR + "?", max_size=8).map(lambda q: b"?" + q.encode())
)
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=60),
    st.sampled_from([b"\r\n", b"0\r\n\r\n", b"GET /in-the-body HTTP/1.1\r\nHost: h\r\n\r\n"]),
)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b;c"', b';a="\\"";b', b";a=1;b=2"])
trailers = st.lists(
    st.sampled_from(
        [b"X: y", b"X:", b"Connection: close", b"Host: other", b"Expect: x", b"Upgrade: h2c"]
    ),
    max_size=3,
)


def spelled(name: bytes, how: int) -> bytes:
    """The name of a field in one of its spellings."""
    return (name, name.lower(), name.upper())[how]


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks."""
    pieces = []
    while body:
        size = draw(st.integers(1, len(body)))
        digits = (b"%x", b"%X", b"0%x")[draw(st.integers(0, 2))] % size
        pieces += [digits, draw(extensions), b"\r\n", body[:size], b"\r\n"]
        body = body[size:]
    pieces += [draw(st.sampled_from([b"0", b"000"])), draw(extensions), b"\r\n"]
    pieces += [trailer + b"\r\n" for trailer in draw(trailers)]
    return b"".join([*pieces, b"\r\n"])


@st.composite
def requests(draw: st.DrawFn, *, last: bool | None = None) -> Sent:
    """Valid requests.

    :param last: whether they close the connection; as it comes, if not given.
    """
    how = draw(st.integers(0, 2))
    close = draw(st.booleans()) if last is None else last
    old = draw(st.integers(0, 3)) == 0
    version = b"HTTP/1.0" if old else b"HTTP/1.1"
    method = draw(st.sampled_from(METHODS))
    target = draw(paths) + draw(queries)
    fields = draw(st.lists(st.tuples(names, values), max_size=4))
    if not old or draw(st.booleans()):
        fields.append((spelled(b"Host", how), draw(st.sampled_from([b"h", b"", b"[::1]:80"]))))
    body = draw(bodies)
    rest = body
    if not old and draw(st.booleans()):
        fields.append((spelled(b"Transfer-Encoding", how), b"Chunked"))
        rest = draw(chunked(body))
    elif body or draw(st.booleans()):
        zeros = draw(st.sampled_from([b"", b"00"]))
        fields.append((spelled(b"Content-Length", how), zeros + b"%d" % len(body)))
    if close and not old:
        fields.append((spelled(b"Connection", how), draw(st.sampled_from([b"close", b"x, Close"]))))
    elif old and not close:
        fields.append((b"Connection", b"keep-alive"))
    elif draw(st.integers(0, 9)) == 0:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")]
        close = close or old
    if draw(st.integers(0, 5)) == 0:
        fields.append((b"Expect", b"100-continue"))
    fields = draw(st.permutations(fields))
    lines = []
    for name, value in fields:
        behind = draw(spaces)
        if value == b"Chunked":  # a tab is refused there, which the table of cases shows
            behind = behind.replace(b"\t", b" ")
        lines.append(name + b":" + draw(spaces) + value + behind + b"\r\n")
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    head = blank + method + b" " + target + b" " + version + b"\r\n" + b"".join(lines) + b"\r\n"
    kept = tuple(sorted((name.lower(), value) for name, value in fields))
    return Sent(head + rest, Seen(method, target, version, kept, body), close)


@st.composite
def conversations(draw: st.DrawFn) -> list[Sent]:
    """Requests one behind the other; only the last one may close the connection."""
    before = draw(st.lists(requests(last=False), max_size=3))
    return [*before, draw(requests())]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Pieces of some bytes."""
    if draw(st.integers(0, 7)) == 0:
        return [data[place : place + 1] for place in range(len(data))]
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)) | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def sent(conversation: Sequence[Sent]) -> bytes:
    """All bytes of a client."""
    return b"".join(request.data for request in conversation)


@settings(max_examples=120)
@given(conversation=conversations(), data=st.data(), kind=st.sampled_from(KINDS))
def test_any_cut_is_the_same_requests(
    conversation: list[Sent], data: st.DataObject, kind: type[Recorder]
) -> None:
    """Valid requests reach their resources as they are meant, and are answered in order."""
    raw = sent(conversation)
    pieces = data.draw(cut(raw))
    whole, parts = outcome([raw], kind), outcome(pieces, kind)
    hasty = kind.__name__ == "HastyRecorder"
    if not hasty:
        assert parts == whole
        assert list(parts.seen) == [request.seen for request in conversation]
        assert len(parts.answers) == len(conversation)
        assert parts.ended == conversation[-1].last
        for request, answer in zip(conversation, parts.answers, strict=True):
            said = request.seen.method + b" " + request.seen.target + b"\n" + request.seen.body
            assert answer.body == (b"" if request.seen.method == b"HEAD" else said)
    half_closed(pieces, kind)


@settings(max_examples=60)
@given(conversation=conversations())
def test_twisted_sees_the_same_requests(conversation: list[Sent]) -> None:
    """Our channel and Twisted's own agree on valid requests, as far as that one goes on."""
    ours = outcome([sent(conversation)]).seen
    theirs = twisted_sees(sent(conversation))
    end = len(conversation)
    for place, request in enumerate(conversation):
        if request.seen.version == b"HTTP/1.0":
            end = place + 1  # Twisted keeps no connection of that version
            break
    if rb"\"" in sent(conversation):
        end = len(theirs)  # it does not know this in an extension, and refuses
    assert theirs == ours[:end]


@settings(max_examples=100)
@given(
    conversation=conversations(),
    data=st.data(),
    events=st.lists(st.sampled_from(["answer", "answer", "send", "stop", "take"]), max_size=30),
)
def test_any_order_of_events_answers_each_request_once(
    conversation: list[Sent], data: st.DataObject, events: list[str]
) -> None:
    """Resources that answer later, and clients that read later, change nothing but the time."""
    recorder = LateRecorder()
    connection = Connection(site_of(recorder))
    pieces = data.draw(cut(sent(conversation)))
    for event in events:
        if event == "send" and pieces:
            connection.send(pieces.pop(0))
        elif event == "answer" and recorder.pending:
            recorder.answer()
            connection.settle()
        elif event == "stop":
            connection.transport.taking = False
        elif event == "take":
            connection.take()
        assert len(recorder.pending) <= 1
        assert recorder.opened == recorder.closed + len(recorder.pending)
    if data.draw(st.booleans()):
        connection.take()
        for piece in pieces:
            connection.send(piece)
        while recorder.pending:
            recorder.answer()
            connection.settle()
        answers = responses(connection.received, [r.seen.method for r in conversation])
        assert [answer.status for answer in answers] == [200] * len(conversation)
        assert recorder.seen == [request.seen for request in conversation]
        assert connection.transport.ended == conversation[-1].last
    connection.leave()
    assert recorder.opened == recorder.closed
    assert not recorder.pending


MUTATIONS = st.one_of(
    st.sampled_from([b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\v", b":", b";", b",", b"\xff"]),
    st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 5\r\n", b"HTTP/1.1", b"-", b"9"]),
    st.sampled_from([b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Host: h\r\n"]),
    st.binary(max_size=4),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Bytes that were valid requests, or cases, before some of them were changed."""
    data = draw(
        st.one_of(
            conversations().map(sent),
            st.sampled_from((*CASES, *SMUGGLING))
            .map(lambda case: case.request)
            .filter(lambda request: len(request) < 600),
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = start + draw(st.sampled_from([0, 0, 1, 2, 5]))
        data = data[:start] + draw(MUTATIONS) + data[stop:]
    return data


@settings(max_examples=250)
@given(
    data=st.one_of(mutated(), st.binary(max_size=200)),
    cuts=st.lists(st.integers(0, 600), max_size=5),
    kind=st.integers(0, len(KINDS) - 1),
    limits=st.integers(0, len(LIMITS) - 1),
)
@example(data=b"", cuts=[], kind=0, limits=0)
def test_any_bytes_end_in_an_answer_a_refusal_or_patience(
    data: bytes, cuts: list[int], kind: int, limits: int
) -> None:
    """Whatever comes, nothing is raised or answered twice, and no connection is kept for ever."""
    check(data, cuts, kind=kind, limits=limits)


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_what_is_read_ahead_has_a_bound(size: int) -> None:
    """While an answer is pending a client can send no more than the limit and one read."""
    recorder = LateRecorder()
    site = site_of(recorder)
    connection = Connection(site)
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    connection.send(request)
    flood = request * 8000
    for start in range(0, len(flood), size):
        connection.transport.bring(flood[start : start + size])
        if connection.transport.held:
            break
    assert connection.transport.given <= len(request) + site.limits.max_pipelined + size
    assert connection.transport.held
    for _ in range(3):
        recorder.answer()
        connection.settle()
    assert connection.transport.given <= 4 * len(request) + site.limits.max_pipelined + size
    connection.leave()
    assert recorder.opened == recorder.closed == 4


def test_a_client_that_takes_nothing_is_answered_no_further() -> None:
    """Answers do not pile up for a client that sends requests and takes no answers."""
    recorder = Recorder()
    connection = Connection(site_of(recorder))
    connection.transport.taking = False
    body = b"x" * 30_000
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for _ in range(100):
        connection.send(request)
    assert connection.transport.untaken < 4 * len(request) + 64 * 1024
    assert len(recorder.seen) < 10
    connection.take()
    assert len(recorder.seen) == 100
    assert len(responses(connection.received)) == 100
    connection.leave()
