"""Bodies that have to agree with a digest: hashed while they come, and given on only if they do.

In three ways, as the site and the route have it: kept until it is whole, given to the handler while
it arrives, and already whole when anybody is asked.  For the reactor thread, which hashes one piece
after another and never a large body at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.task import TaskFinished, TaskStopped, cooperate
from twisted.python.failure import Failure
from zope.interface import implementer

from deferpost.arriving import ArrivingBody
from deferpost.bodies import PIECE_BYTES, body_size
from deferpost.digests import BodyDigest
from deferpost.errors import BodyTooLarge, StorageFailed
from deferpost.interfaces import IBodySink

__all__ = ["CheckedBody", "CheckedUpload", "check_kept"]

#: Bytes of a body that are hashed at once, in less than a millisecond.
AT_ONCE = 4 * PIECE_BYTES


class CheckedBody(ArrivingBody):
    """A body that its handler reads while it arrives, and that breaks at its end if it is wrong.

    :param digest: what it has to agree with.
    """

    __slots__ = ("_digest",)

    def __init__(self, digest: BodyDigest) -> None:
        super().__init__()
        self._digest = digest

    def receive(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.receive`."""
        if not self.closed:
            self._digest.update(data)
        super().receive(data)

    def complete(self) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.complete`."""
        if not self.closed:
            try:
                self._digest.check()
            except Exception as error:
                self.broken(error)
                return
        super().complete()


@implementer(IBodySink)
class CheckedUpload:
    """A body that is kept by its request until it is whole, and right.

    :param request: the request, of our own wire.
    :param length: of the body, in bytes; None where it is chunked.
    :param digest: what it has to agree with.
    :param whole: called when the body is whole and right.
    :param refuse: called instead with why it will not be.
    """

    __slots__ = ("_digest", "_length", "_over", "_refuse", "_request", "_whole")

    def __init__(
        self,
        request: Any,
        length: int | None,
        digest: BodyDigest,
        whole: Callable[[], None],
        refuse: Callable[[Exception], None],
    ) -> None:
        self._request = request
        self._length = length
        self._digest = digest
        self._whole = whole
        self._refuse = refuse
        self._over = False

    def open(self, flow: Any) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.open`; it is taken as fast as it comes."""
        self._request.gotLength(self._length)

    def receive(self, data: bytes) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.receive`."""
        if self._over:
            return
        self._digest.update(data)
        try:
            self._request.handleContentChunk(data)
        except OSError as error:
            self._over = True
            self._refuse(StorageFailed(str(error)))

    def complete(self) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.complete`."""
        if self._over:
            return
        self._over = True
        try:
            self._digest.check()
        except Exception as error:
            self._refuse(error)
            return
        self._request.content.seek(0)
        self._whole()

    def broken(self, error: Exception) -> None:
        """See :meth:`deferpost.interfaces.IBodySink.broken`."""
        if not self._over:
            self._over = True
            if isinstance(error, BodyTooLarge):
                self._refuse(error)
            # Else the wire has answered, or nobody is there any more.


def check_kept(
    request: Any,
    digest: BodyDigest,
    whole: Callable[[], None],
    refuse: Callable[[Exception], None],
) -> None:
    """Check the body of a request that is whole already, as on a site that asks only then.

    A small one is checked at once, a large one piece by piece in turns of the reactor.

    :param request: the request.
    :param digest: what its body has to agree with.
    :param whole: called when the body is right, at its beginning.
    :param refuse: called instead with why it is not.
    """
    content = request.content

    def pieces() -> Iterator[None]:
        content.seek(0)
        while piece := content.read(AT_ONCE):
            digest.update(piece)
            yield

    def hashed(_: object) -> None:
        digest.check()
        content.seek(0)

    def failed(failure: Failure) -> None:
        error: Any = failure.value
        if not isinstance(error, TaskStopped):  # because nobody is there any more
            refuse(StorageFailed(str(error)) if isinstance(error, OSError) else error)

    def left(_: Failure) -> None:
        with contextlib.suppress(TaskFinished):
            task.stop()

    if body_size(content) <= AT_ONCE:
        try:
            for _ in pieces():
                pass
            hashed(None)
        except Exception:
            failed(Failure())
        else:
            whole()
        return
    task = cooperate(pieces())
    request.notifyFinish().addErrback(left)
    task.whenDone().addCallback(hashed).addCallbacks(lambda _: whole(), failed)
