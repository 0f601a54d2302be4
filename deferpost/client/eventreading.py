"""Reading Server-Sent Events (HTML standard, section 9.2.6), wherever the bytes are cut.

Decides only: it is given bytes and gives events; it knows no connection and no job.
"""

from __future__ import annotations

from typing import NamedTuple

from deferpost.client.errors import BadAnswer

__all__ = ["MOST_BYTES", "EventReader", "ServerEvent"]

#: Bytes that one event may have, its names and line ends included.
MOST_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event.

    :ivar kind: its type, ``message`` where it has none.
    :ivar data: what it says.
    :ivar id: the last id that the stream has had; empty where it has had none.
    """

    kind: str
    data: str
    id: str


class EventReader:
    """Makes events of the bytes of one stream.

    :param most_bytes: that one event, or a comment, may have.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._partial: list[bytes] = []  # of a line that has not ended
        self._bytes = 0  # of the event that has not ended
        self._after_cr = False
        self._at_start = True
        self._kind = ""
        self._data: list[str] = []
        self._id = ""
        #: Milliseconds to wait before connecting again, as the stream last said; None if not.
        self.retry_milliseconds: int | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Take more bytes.

        :returns: the events that they make whole, in order.
        :raises BadAnswer: an event is too long.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        events: list[ServerEvent] = []
        for piece in data.splitlines(keepends=True):
            self._bytes += len(piece)
            if self._bytes > self._most_bytes:
                raise BadAnswer(f"an event of the server has more than {self._most_bytes} bytes")
            self._partial.append(piece)
            if piece.endswith((b"\n", b"\r")):
                line = b"".join(self._partial).rstrip(b"\r\n")
                self._partial.clear()
                self._take(line, events)
        self._after_cr = data.endswith(b"\r")
        return events

    def _take(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._bytes = 0
            if self._data:
                kind = self._kind or "message"
                events.append(ServerEvent(kind, "\n".join(self._data), self._id))
            self._kind, self._data = "", []
            return
        if line.startswith(b":"):
            if not self._data and not self._kind:
                self._bytes = 0
            return
        field, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._kind = value
        elif field == "id":
            if "\0" not in value:
                self._id = value
        elif field == "retry" and value.isascii() and value.isdecimal() and len(value) <= 10:
            self.retry_milliseconds = int(value)
