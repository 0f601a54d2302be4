"""Resources that keep what they get, and answer with it: at once, later, or from the head on."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import attrs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.interfaces import BodyWanted, IBodySink, IEarlyResource

__all__ = [
    "EarlyRecorder",
    "HastyRecorder",
    "LateRecorder",
    "Recorder",
    "Seen",
    "StreamRecorder",
]


@attrs.frozen
class Seen:
    """A request as its resource saw it.

    :ivar fields: the names in lower case, in order.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _seen(request: Any) -> Seen:
    fields = tuple(
        sorted(
            (name.lower(), value)
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        )
    )
    return Seen(request.method, request.uri, request.clientproto, fields, request.content.read())


class Recorder(Resource):
    """Answers every request at once, with its target and body.

    :ivar seen: the requests so far.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def render(self, request: Any) -> Any:
        """Answer."""
        seen = _seen(request)
        self.seen.append(seen)
        return self.respond(request, seen)

    def respond(self, request: Any, seen: Seen) -> Any:
        """Answer, as the kind of recorder does it."""
        _answer(request, seen)
        return NOT_DONE_YET


def _answer(request: Any, seen: Seen) -> None:
    body = seen.method + b" " + seen.target + b"\n" + seen.body
    request.setHeader(b"Content-Type", b"application/octet-stream")
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.write(b"" if seen.method == b"HEAD" else body)
    request.finish()


@implementer(IEarlyResource)
class EarlyRecorder(Recorder):
    """The same, on a path that is found by the head alone.

    :param max_body: bytes that a body may have; None for any.
    """

    def __init__(self, max_body: int | None = None) -> None:
        super().__init__()
        self._max_body = max_body

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Want every body."""
        return BodyWanted(self._max_body)


class HastyRecorder(EarlyRecorder):
    """Answers before the body, which it does not want."""

    def head_received(self, request: Any, length: int | None, whole: bool) -> None:
        """Answer."""
        request.content = BytesIO()
        self.render(request)


@implementer(IBodySink)
class _Kept:
    """A body as it comes, and what to do when it has come."""

    def __init__(self, complete: Callable[[bytes], None]) -> None:
        self._complete = complete
        self._pieces: list[bytes] = []
        self._over = False

    def open(self, flow: Any) -> None:
        """It begins."""

    def receive(self, data: bytes) -> None:
        """A piece."""
        assert data
        assert not self._over
        self._pieces.append(bytes(data))

    def complete(self) -> None:
        """Its end."""
        assert not self._over
        self._over = True
        self._complete(b"".join(self._pieces))

    def broken(self, error: Exception) -> None:
        """It has none."""
        assert not self._over
        self._over = True


class StreamRecorder(EarlyRecorder):
    """Takes each body as it comes, and answers at its end."""

    def head_received(self, request: Any, length: int | None, whole: bool) -> BodyWanted | None:
        """Want every body, piece by piece."""

        def complete(body: bytes) -> None:
            request.content = BytesIO(body)
            self.render(request)

        return BodyWanted(self._max_body, _Kept(complete))


class LateRecorder(Recorder):
    """Answers when the test says so.

    :ivar pending: requests without an answer, and what was seen of them.
    :ivar opened: requests so far.
    :ivar closed: of those, how many have come to an end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Any, Seen]] = []
        self.opened = 0
        self.closed = 0

    def respond(self, request: Any, seen: Seen) -> Any:
        """Answer later."""
        self.opened += 1
        request.notifyFinish().addBoth(self._ended, request)
        self.pending.append((request, seen))
        return NOT_DONE_YET

    def _ended(self, _: object, request: Any) -> None:
        self.closed += 1
        self.pending = [entry for entry in self.pending if entry[0] is not request]

    def answer(self) -> None:
        """Answer the first of those that wait."""
        _answer(*self.pending[0])
