"""The thread that writes a database: all that waits for it is one transaction, and one fsync.

It knows neither jobs nor tables.  What it is given is done in order, and told when it is durable;
what fails takes nothing else with it, and leaves no trace.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.store.lanes import Answers, Said

__all__ = ["MOST_IN_GROUP", "Transaction", "Write", "Writer"]

_log = Logger(namespace="deferpost.store")

#: How many things are done in one transaction at most.
MOST_IN_GROUP = 512


class Transaction:
    """What a change is made with.

    :ivar connection: to the database, in a transaction.
    :ivar forgotten: names of files that nothing refers to any more when this is committed.
    """

    __slots__ = ("connection", "forgotten")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.forgotten: list[str] = []


@attrs.define(eq=False)
class Write:
    """Something to write.

    :ivar work: makes the changes of one or several of its kind that came in a row, of what each
        was ``given``, and gives one answer for each.  It is called again where the transaction
        failed, so that all it changes is in the database.
    :ivar given: what ``work`` needs to know.
    :ivar said: is told on the reactor thread what came of it, when it is durable.
    """

    work: Callable[[Transaction, Sequence[Any]], Sequence[Any]]
    given: Any
    said: Said


class Writer:
    """The thread.

    :param connect: opens the database; called on the thread, and again where a transaction could
        not be taken back.
    :param answers: the way back.
    :param translate: what is told of an error.
    :param forget: is given, on the thread, the names of files that nothing refers to any more.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        answers: Answers,
        translate: Callable[[BaseException], BaseException],
        forget: Callable[[Sequence[str]], None],
    ) -> None:
        self._connect = connect
        self._answers = answers
        self._translate = translate
        self._forget = forget
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._ended: Deferred[None] = Deferred()
        threading.Thread(target=self._live, name="store-writer", daemon=True).start()

    def put(self, write: Write) -> None:
        """Have something written.  On any thread."""
        self._queue.put(write)

    def stop(self) -> Deferred[None]:
        """End, when all is written.  On the reactor thread, once.

        :returns: a Deferred that fires when the database is closed.
        """
        self._queue.put(None)
        return self._ended

    def _live(self) -> None:
        last = False
        while not last:
            group, last = self._take()
            if group:
                self._write(group)
                del group  # and what it holds on to, until the next one comes
        self._disconnect()
        self._answers.post(lambda *_: self._ended.callback(None), None)

    def _take(self) -> tuple[list[Write], bool]:
        """All that waits, at least one; and whether that was the last."""
        group: list[Write] = []
        write = self._queue.get()
        while write is not None:
            group.append(write)
            if len(group) == MOST_IN_GROUP:
                return group, False
            try:
                write = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _write(self, group: list[Write]) -> None:
        try:
            answers = self._commit(group)
        except Exception as error:
            if len(group) > 1:
                # One of them may be at fault, or too large for what is left of the disk.
                for write in group:
                    self._write([write])
                return
            failed = self._translate(error)
            self._answers.post(group[0].said, failed, True)
            return
        self._answers.post_all(
            [(write.said, value, False) for write, value in zip(group, answers, strict=True)]
        )

    def _commit(self, group: list[Write]) -> list[Any]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        transaction = Transaction(connection)
        answers: list[Any] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, writes in itertools.groupby(group, lambda write: write.work):
                answers.extend(work(transaction, [write.given for write in writes]))
            connection.execute("COMMIT")
        except BaseException:
            self._take_back()
            raise
        if transaction.forgotten:
            self._forget(transaction.forgotten)
        return answers

    def _take_back(self) -> None:
        connection = self._connection
        assert connection is not None
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite takes back what is not committed when the connection is closed.
            _log.failure("a transaction could not be taken back; the database is opened anew")
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                _log.failure("the database could not be closed")
