"""What a store on disk has done by its threads: in order for each job, bounded, and answered.

On the reactor thread nothing is done here but to hand things over and to hear of them.  One thread
writes, and takes all that waits for it into one transaction; another one reads; further ones copy
bodies before the writer has to do with them, so that it never waits for one.  What is done is not
known here: that stands in :mod:`deferpost.store.sqlite`.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.errors import StoreFailed
from deferpost.store import schema
from deferpost.store.directory import StoreDirectory
from deferpost.store.failures import store_failed
from deferpost.store.files import Content
from deferpost.store.lanes import Answers, Lane, Said
from deferpost.store.turns import Turns
from deferpost.store.writer import Transaction, Write, Writer

__all__ = ["Errands", "Work"]

_log = Logger(namespace="deferpost.store")

T = TypeVar("T")

#: What the writer does; see :class:`deferpost.store.writer.Write`.
Work = Callable[[Transaction, Sequence[Any]], Sequence[Any]]

#: How many threads copy large bodies.
_LARGE_THREADS = 2


class _Stage(enum.Enum):
    NEW = "is not open"
    OPENING = "is not open yet"
    OPEN = "is open"
    CLOSED = "is closed"


class Errands:
    """The threads of one store, as the reactor thread sees them.

    :param directory: of the store.
    :param reactor: on whose thread this is.
    :param take: takes possession of the directory; called on a thread.
    :param durable: whether what is written has to outlive a loss of power.
    :param most_waiting: how many things may wait.

    :ivar place: the directory that was taken; once this is open.
    :ivar copier: copies bodies that are not large, and pieces of results, in order.
    :ivar large: copies large bodies, several at once.
    """

    place: StoreDirectory

    def __init__(
        self,
        directory: Path,
        reactor: Any,
        take: Callable[[], StoreDirectory],
        durable: bool,
        most_waiting: int,
    ) -> None:
        self._directory = directory
        self._take = take
        self._durable = durable
        self._most_waiting = most_waiting
        self._stage = _Stage.NEW
        self._answers = Answers(reactor)
        self._turns = Turns()
        self._asked = 0
        self._idle: Deferred[None] | None = None
        self._opened: Deferred[None] = Deferred()

    # Opening and closing.

    def open(self) -> Deferred[StoreDirectory]:
        """Take the directory, and start the threads; once.

        :returns: a Deferred of what was found; or of why there is nothing.
        """
        if self._stage is not _Stage.NEW:
            return fail(self.not_open())
        self._stage = _Stage.OPENING
        self.large = self._lane("store-copier", _LARGE_THREADS)
        answer: Deferred[StoreDirectory] = Deferred()

        def failed_for_good(error: BaseException) -> None:
            answer.errback(Failure(error))
            self._opened.callback(None)

        def said(value: Any, failed: bool) -> None:
            if failed:
                self._stage = _Stage.CLOSED
                self.large.stop().addCallback(lambda _: failed_for_good(value))
            else:
                self._start(value)
                answer.callback(value)
                self._opened.callback(None)

        self.large.put(self._take, said)
        return answer

    def _start(self, place: StoreDirectory) -> None:
        self.place = place
        self._reader = self._lane("store-reader")
        self.copier = self._lane("store-files")
        self._writer = Writer(
            lambda: schema.connect(place.database, durable=self._durable),
            self._answers,
            self._translate,
            self.remove,
        )
        self._stage = _Stage.OPEN

    def _lane(self, name: str, threads: int = 1) -> Lane:
        return Lane(name, self._answers, self._translate, threads)

    def _translate(self, error: BaseException) -> BaseException:
        return store_failed(error, self._directory)

    def not_open(self) -> StoreFailed:
        """Why nothing can be done."""
        return StoreFailed(f"the store in {self._directory} {self._stage.value}")

    async def close(self, last: Callable[[], None]) -> None:
        """End, when all that was asked for is done; once.

        :param last: called on a thread when that is so.
        """
        if self._stage is _Stage.NEW:
            self._stage = _Stage.CLOSED
            return
        await self._opened
        if self._stage is not _Stage.OPEN:
            return  # it could not be opened
        self._stage = _Stage.CLOSED
        if self._asked:
            self._idle = Deferred()
            await self._idle
        # The last connection of a database moves its log into it; that is the one that may write.
        self._reader.put(self.place.connection.close, _heard)
        await self._reader.stop()
        await self._writer.stop()
        await self.large.stop()  # which removes what the others have left behind
        self.copier.put(last, _heard)
        self.copier.put(self.place.lock.release, _heard)
        await self.copier.stop()

    # What is asked for.

    @property
    def is_open(self) -> bool:
        """Whether anything is done."""
        return self._stage is _Stage.OPEN

    def refusal(self) -> StoreFailed | None:
        """Why no more is taken of what comes from outside; None where it is."""
        if self._stage is not _Stage.OPEN:
            return self.not_open()
        if self._asked < self._most_waiting:
            return None
        return StoreFailed(
            f"the store in {self._directory} takes no more: {self._asked} things wait for its "
            "disk, which is too slow for what is asked of it"
        )

    def read(self, name: str | None, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Have something read, unless too much waits.

        :param name: the id of the job that it is about; None where it is about several.
        :param work: reads it.
        """

        def twice() -> T:
            try:
                return work(self.place.connection)
            except FileNotFoundError:
                # Its job has ended or was forgotten between the look into the database and that
                # into the directory.
                return work(self.place.connection)

        refusal = self.refusal()
        if refusal is not None:
            return fail(refusal)
        return self._ask(name, self._reader, lambda said: self._reader.put(twice, said))

    def write(
        self,
        name: str | None,
        work: Work,
        given: Any,
        settle: Callable[[Any], None] | None = None,
    ) -> Deferred[Any]:
        """Have something written, however much waits.

        :param name: as for :meth:`read`.
        :param work: as for :class:`~deferpost.store.writer.Write`.
        :param given: as well.
        :param settle: called with what it gave, before anything else is done for that job.
        """
        if self._stage is not _Stage.OPEN:
            return fail(self.not_open())
        writer = self._writer
        return self._ask(
            name, writer, lambda said: writer.put(Write(work, given, said)), settle=settle
        )

    def copy(self, name: str, lane: Lane, work: Callable[[], None]) -> Deferred[None]:
        """Have something copied, and nothing written, however much waits."""
        if self._stage is not _Stage.OPEN:
            return fail(self.not_open())
        return self._ask(name, lane, lambda said: lane.put(work, said))

    def copy_and_write(
        self,
        name: str,
        lane: Lane,
        copy: Callable[[], Content],
        work: Work,
        given: Callable[[Content], Any],
        settle: Callable[[Any], None] | None = None,
        keep: bool = False,
    ) -> Deferred[Any]:
        """Have a body kept, and then written what refers to it, however much waits.

        :param lane: which keeps it.
        :param copy: keeps it.
        :param given: what ``work`` is given, by the body.
        :param keep: whether the body stays where the writing has failed.
        """
        if self._stage is not _Stage.OPEN:
            return fail(self.not_open())

        def begin(said: Said) -> None:
            def copied(content: Any, failed: bool) -> None:
                if failed:
                    said(content, True)
                    return

                def written(value: Any, failed: bool) -> None:
                    if failed and content.file is not None and not keep:
                        self.remove([content.file])
                    said(value, failed)

                self._writer.put(Write(work, given(content), written))

            lane.put(copy, copied)

        # Several threads do it in turns: nothing else for that job may be under way.
        return self._ask(name, None, begin, settle=settle)

    def _ask(
        self,
        name: str | None,
        lane: Hashable,
        begin: Callable[[Said], None],
        settle: Callable[[Any], None] | None = None,
    ) -> Deferred[Any]:
        self._asked += 1
        answer: Deferred[Any] = Deferred()

        def said(value: Any, failed: bool) -> None:
            self._asked -= 1
            if settle is not None and not failed:
                settle(value)
            if name is not None:
                self._turns.leave(name)
            if answer.called:  # whoever has asked has canceled it
                self._let_go(value)
            elif failed:
                answer.errback(Failure(value))
            else:
                answer.callback(value)
            if not self._asked and self._idle is not None:
                idle, self._idle = self._idle, None
                idle.callback(None)

        if name is None:
            begin(said)
        else:
            self._turns.enter(name, lane, lambda: begin(said))
        return answer

    # What nobody waits for.

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that nothing refers to any more.  On any thread."""
        self.large.put(lambda: self.place.files.remove(names), _heard)

    def apart(self, work: Callable[[], None]) -> None:
        """Have something done that may take long, and that nothing depends on."""
        self.large.put(work, _heard)

    def _let_go(self, value: object) -> None:
        close = getattr(getattr(value, "body", None), "close", None)
        if close is not None:
            self.apart(close)


def _heard(value: Any, failed: bool) -> None:
    """Nobody waits for it; a failure is worth a line."""
    if failed:
        _log.warn("something that nothing depends on has failed: {error}", error=value)
