"""What a command says on its standard error: lines, and a bar below them on a terminal.

The bar is drawn at most ten times in a second, and only where its text is another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from twisted.internet.task import LoopingCall

from deferpost.client.commands.bar import Look, View, line_of
from deferpost.client.commands.words import one_line

__all__ = ["Screen"]

#: Seconds between two looks at what there is to draw.
_BEAT_SECONDS = 0.1

#: Back to the first column, and clear the line.
_CLEAR = "\r\x1b[K"


class Screen:
    """Standard error.

    :param stream: it.
    :param reactor: for the time.
    :param environ: of which ``NO_COLOR`` and ``TERM`` count.
    :param quiet: whether only errors are said.
    """

    def __init__(
        self, stream: TextIO, reactor: Any, environ: Mapping[str, str], *, quiet: bool
    ) -> None:
        self._stream = stream
        self._quiet = quiet
        #: Whether there is a bar.
        self.is_live = not quiet and _is_terminal(stream) and environ.get("TERM") != "dumb"
        self._color = not environ.get("NO_COLOR")
        self._glyphs = _glyphs(stream)
        self._view: Callable[[], View] | None = None
        self._drawn = ""
        self._beat = LoopingCall(self._draw)
        self._beat.clock = reactor

    def show(self, view: Callable[[], View]) -> None:
        """Show something from now on, until something else is shown.

        :param view: asked for it again and again.
        """
        self._view = view
        if self.is_live and not self._beat.running:
            self._beat.start(_BEAT_SECONDS).addErrback(lambda _: None)

    def clear(self) -> None:
        """Show nothing more."""
        self._view = None
        if self._beat.running:
            self._beat.stop()
        if self._drawn:
            self._drawn = ""
            self._write(_CLEAR)

    def say(self, text: str) -> None:
        """A line for people, unless there are to be none."""
        if not self._quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """A line for people in any case, such as an error."""
        begin = _CLEAR if self._drawn else ""
        self._drawn = ""
        self._write(f"{begin}deferpost: {one_line(text)}\n")

    def _draw(self) -> None:
        if self._view is None:
            return
        look = Look(_columns(self._stream), self._color, *self._glyphs)
        line = line_of(self._view(), look)
        if line != self._drawn:
            self._drawn = line
            self._write(_CLEAR + line)

    def _write(self, text: str) -> None:
        try:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except OSError:
            # Nobody reads it any more: the work goes on without.
            self.is_live = False
            self._quiet = True
            if self._beat.running:
                self._beat.stop()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _glyphs(stream: TextIO) -> tuple[str, str]:
    try:
        "━─".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#", "-"
    return "━", "─"
