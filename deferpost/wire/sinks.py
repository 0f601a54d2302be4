"""Between a connection and who takes a body from it as it comes."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from deferpost.interfaces import IBodySink

__all__ = ["FOR_SINK", "Flow", "Nowhere"]

#: Why nothing is read of a connection: whoever takes the body has enough for now.
FOR_SINK = 1


@implementer(IPushProducer)
class Flow:
    """What a body sink holds its client back with.

    :param channel: the connection, which has ``pause`` and ``resume``.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def pauseProducing(self) -> None:
        """Read nothing until :meth:`resumeProducing`."""
        self._channel.pause(FOR_SINK)

    def resumeProducing(self) -> None:
        """Read again."""
        self._channel.resume(FOR_SINK)

    def stopProducing(self) -> None:
        """There is nothing to stop."""


@implementer(IBodySink)
class Nowhere:
    """Where the rest of a body goes that has broken a limit."""

    __slots__ = ()

    def open(self, flow: IPushProducer) -> None:
        """It is not held back."""

    def receive(self, data: bytes) -> None:
        """Drop it."""

    def complete(self) -> None:
        """Nothing follows."""

    def broken(self, error: Exception) -> None:
        """It was so before."""
