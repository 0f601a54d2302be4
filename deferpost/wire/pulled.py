"""Pull producers, which are asked for each piece, on a connection that pauses and resumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import cooperate
from twisted.logger import Logger
from zope.interface import implementer

__all__ = ["PulledProducer"]

_log = Logger(namespace="deferpost.wire")


@implementer(IPushProducer)
class PulledProducer:
    """Asks a pull producer for pieces for as long as it is not paused.  For the reactor thread.

    :param producer: an IPullProducer.
    :param consumer: where it writes to; it is unregistered there when it fails.
    """

    def __init__(self, producer: Any, consumer: Any) -> None:
        self._producer = producer
        self._consumer = consumer
        self._paused = False
        self._over = False
        self._task: Any = None

    def start(self) -> None:
        """Begin to ask."""
        self._task = cooperate(self._ask())

    def _ask(self) -> Iterator[None]:
        while not self._over:
            try:
                self._producer.resumeProducing()
            except Exception:
                _log.failure("a pull producer failed; its response is broken off")
                self._over = True
                self._consumer.loseConnection()
                return
            yield None

    def end(self) -> None:
        """It was unregistered: ask no more."""
        if not self._over:
            self._over = True
            if self._task is not None and not self._paused:
                self._task.stop()

    def pauseProducing(self) -> None:
        """Ask for nothing until :meth:`resumeProducing`."""
        if not self._paused and not self._over:
            self._paused = True
            self._task.pause()

    def resumeProducing(self) -> None:
        """Ask again."""
        if self._paused and not self._over:
            self._paused = False
            self._task.resume()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.end()
        self._producer.stopProducing()
