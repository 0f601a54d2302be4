"""A body that arrives: what is kept, what is delivered, and when the client is held back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from deferpost.arriving import KEPT_BYTES, KEPT_PIECES, ArrivingBody
from deferpost.errors import BodyBroken, BodyTooLarge
from deferpost.interfaces import IArrivingBody, IChunkSink


@implementer(IPushProducer)
class Flow:
    """A client that can be held back, and may send in the moment in which it is let go on."""

    def __init__(self, resumed: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self._resumed = resumed

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.told.append("resume")
        self._resumed()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    @property
    def is_held(self) -> bool:
        """Whether the last word was to wait."""
        return self.told[-1:] == ["pause"]


@implementer(IChunkSink)
class Sink:
    """Notes what it is told, and may pause after each piece.

    :param body: the body that it pauses.
    :param pause_after: the numbers of the pieces after which it does.
    """

    def __init__(self, body: ArrivingBody, pause_after: tuple[int, ...] = ()) -> None:
        self.chunks: list[bytes] = []
        self.ends: list[Exception | None] = []
        self._body = body
        self._pause_after = pause_after
        self.paused = False

    def chunk(self, data: bytes) -> None:
        """See IChunkSink."""
        assert not self.paused
        assert not self.ends
        self.chunks.append(data)
        if len(self.chunks) in self._pause_after:
            self.paused = True
            self._body.pause()

    def resume(self) -> None:
        """Take more."""
        self.paused = False
        self._body.resume()

    def end(self) -> None:
        """See IChunkSink."""
        self.ends.append(None)

    def fail(self, error: Exception) -> None:
        """See IChunkSink."""
        self.ends.append(error)


def opened(body: ArrivingBody) -> Flow:
    """A flow of the body."""
    flow = Flow()
    body.open(flow)
    return flow


def test_is_what_pools_ask_for() -> None:
    """It has what the interface asks for."""
    verifyObject(IArrivingBody, ArrivingBody())


def test_repr() -> None:
    """It says how it stands."""
    body = ArrivingBody()
    body.receive(b"one")
    assert repr(body) == "<ArrivingBody arriving, 3 bytes kept>"
    body.complete()
    assert repr(body) == "<ArrivingBody over, 3 bytes kept>"
    body.close()
    assert repr(body) == "<ArrivingBody closed, 0 bytes kept>"


def test_many_small_pieces() -> None:
    """Pieces that need more memory than they have bytes are bounded in number, too."""
    body = ArrivingBody()
    flow = opened(body)
    for _ in range(KEPT_PIECES + 1):
        assert not flow.is_held
        body.receive(b"x")
    assert flow.is_held


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_sink_at_any_time(place: int) -> None:
    """Whenever the sink comes, it gets all, in order, and the end once."""
    body = ArrivingBody()
    sink = Sink(body)
    steps: list[Callable[[], None]] = [
        lambda: body.receive(b"one"),
        lambda: body.receive(b"two"),
        lambda: body.receive(b""),
        body.complete,
    ]
    steps.insert(place, lambda: body.deliver_to(sink))
    opened(body)
    for step in steps:
        step()
    assert (sink.chunks, sink.ends) == ([b"one", b"two"], [None])


def test_what_is_kept_is_bounded() -> None:
    """With nobody to take it, the client is held back when more than the bound is kept."""
    body = ArrivingBody()
    flow = opened(body)
    body.receive(bytes(KEPT_BYTES))
    assert flow.told == []
    body.receive(b"x")
    body.receive(b"what had been read")
    assert flow.told == ["pause"]
    sink = Sink(body)
    body.deliver_to(sink)
    assert flow.told == ["pause", "resume"]
    assert b"".join(sink.chunks) == bytes(KEPT_BYTES) + b"xwhat had been read"


def test_held_back_from_the_beginning() -> None:
    """A client that begins when nothing is taken any more is held back at once."""
    body = ArrivingBody()
    sink = Sink(body)
    body.deliver_to(sink)
    body.pause()
    assert opened(body).told == ["pause"]


def test_pause_and_resume() -> None:
    """While the sink has paused, what comes is kept and the client held back."""
    body = ArrivingBody()
    flow = opened(body)
    sink = Sink(body, pause_after=(1, 3))
    body.deliver_to(sink)
    for data in (b"1", b"2", b"3", b"4"):
        body.receive(data)
    assert (sink.chunks, flow.told) == ([b"1"], ["pause"])
    sink.resume()
    assert (sink.chunks, flow.told) == ([b"1", b"2", b"3"], ["pause"])
    sink.resume()
    assert (sink.chunks, flow.told) == ([b"1", b"2", b"3", b"4"], ["pause", "resume"])


def test_more_comes_while_it_is_resumed() -> None:
    """A flow may give what it has kept before it returns."""
    body = ArrivingBody()
    more = [b"2", b"3"]
    flow = Flow(lambda: body.receive(more.pop(0)))
    body.open(flow)
    sink = Sink(body, pause_after=(1, 2))
    body.deliver_to(sink)
    body.receive(b"1")
    sink.resume()
    assert (sink.chunks, flow.told) == ([b"1", b"2"], ["pause", "resume", "pause"])
    sink.resume()
    assert (sink.chunks, more) == ([b"1", b"2", b"3"], [])
    assert not flow.is_held


def test_end_while_paused() -> None:
    """The end comes after what is kept, and does not wait for a sink that has all."""
    body = ArrivingBody()
    flow = opened(body)
    sink = Sink(body, pause_after=(1, 2))
    body.deliver_to(sink)
    body.receive(b"1")
    body.receive(b"2")
    body.complete()
    assert (sink.ends, flow.is_held) == ([], False)
    sink.resume()
    assert (sink.chunks, sink.ends) == ([b"1", b"2"], [None])


def test_broken() -> None:
    """A broken body tells why at once, and what was kept is dropped."""
    body = ArrivingBody()
    flow = opened(body)
    sink = Sink(body, pause_after=(1,))
    body.deliver_to(sink)
    body.receive(b"1")
    body.receive(b"2")
    error = BodyTooLarge(1)
    body.broken(error)
    body.broken(BodyBroken())
    body.complete()
    body.receive(b"3")
    assert (sink.chunks, sink.ends, body.error) == ([b"1"], [error], error)
    assert not flow.is_held


def test_broken_because_the_client_left() -> None:
    """Without another cause it is the client that has left."""
    body = ArrivingBody()
    body.broken()
    sink = Sink(body)
    body.deliver_to(sink)
    (error,) = sink.ends
    assert isinstance(error, BodyBroken)
    assert str(error) == "the client left before the body was whole"


def test_closed() -> None:
    """When nobody reads any more, all is dropped, and the client is let go on."""
    body = ArrivingBody()
    flow = opened(body)
    sink = Sink(body, pause_after=(1,))
    body.deliver_to(sink)
    body.receive(b"1")
    body.receive(b"2")
    assert flow.is_held
    body.close()
    body.close()
    body.receive(bytes(KEPT_BYTES + 1))
    body.resume()
    body.complete()
    assert (body.closed, sink.chunks, sink.ends) == (True, [b"1"], [])
    assert flow.told == ["pause", "resume"]


def test_closed_before_it_began() -> None:
    """A job that was refused has a body that takes all and holds nobody back."""
    body = ArrivingBody()
    body.close()
    flow = opened(body)
    body.receive(bytes(KEPT_BYTES + 1))
    body.broken(BodyBroken())
    sink = Sink(body)
    body.deliver_to(sink)
    assert (flow.told, sink.chunks, sink.ends) == ([], [], [])


STEPS = ("receive", "pause", "resume", "deliver", "open", "complete", "broken", "close")


@given(st.lists(st.sampled_from((*STEPS, "receive", "receive", "resume")), max_size=30))
def test_any_order(steps: list[str]) -> None:
    """In any order of events: all in order or an error, one end, and turns of hold and go on."""
    body = ArrivingBody(bound=3)
    sink, flow = Sink(body), Flow()
    sent: list[bytes] = []
    done: set[str] = set()
    for step in steps:
        if step in ("deliver", "open") and step in done:
            continue
        if step in ("complete", "broken", "close") and "over" in done:
            continue
        done.add(step)
        if step == "receive" and "over" not in done:
            sent.append(b"%02d" % len(sent))
            body.receive(sent[-1])
        elif step == "pause":
            sink.paused = True
            body.pause()
        elif step == "resume":
            sink.resume()
        elif step == "deliver":
            body.deliver_to(sink)
        elif step == "open":
            body.open(flow)
        elif step == "close":
            body.close()
        elif step in ("complete", "broken"):
            done.add("over")
            getattr(body, step)()
        assert sink.chunks == sent[: len(sink.chunks)]
        assert len(sink.ends) <= 1
        if "over" in done or "close" in done:
            assert not flow.is_held
    assert flow.told == ["pause", "resume"] * (len(flow.told) // 2) + ["pause"] * (
        len(flow.told) % 2
    )
    if "deliver" in done and "close" not in done:
        sink.resume()
        if "broken" not in done:
            assert sink.chunks == sent
        assert len(sink.ends) == ("over" in done)
