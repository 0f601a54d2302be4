"""The one line that shows how far an upload or a job is.  Decides only: it gives a text."""

from __future__ import annotations

import msgspec

from deferpost.client.commands.words import (
    amount_words,
    cut,
    one_line,
    seconds_words,
    size_words,
    width_of,
)

__all__ = ["Following", "Look", "Sending", "View", "line_of"]

#: Columns of a bar, at least and at most.
_LEAST, _MOST = 8, 40

_RESET = "\x1b[0m"
_GREEN = "\x1b[32m"
_DIM = "\x1b[2m"


class Look(msgspec.Struct, frozen=True):
    """How it is drawn.

    :ivar columns: of the terminal.
    :ivar color: whether with colors.
    :ivar full: for what is done.
    :ivar empty: for what is not.
    """

    columns: int
    color: bool = False
    full: str = "#"
    empty: str = "-"


class Sending(msgspec.Struct, frozen=True):
    """A body that is sent.

    :ivar sent: bytes that were.
    :ivar total: bytes that it has.
    :ivar seconds: since it began.
    """

    sent: int
    total: int
    seconds: float


class Following(msgspec.Struct, frozen=True):
    """A call whose body was sent, or a job.

    :ivar state: of the job, or what is going on.
    :ivar seconds: since that began.
    :ivar position: in the queue, where it waits.
    :ivar done: what is done, in units of the job's own.
    :ivar total: of how much.
    :ivar message: what it is doing.
    """

    state: str
    seconds: float
    position: int | None = None
    done: float | None = None
    total: float | None = None
    message: str = ""


View = Sending | Following


def line_of(view: View, look: Look) -> str:
    """The line, which fits into the terminal.

    :param view: what there is to see.
    :param look: how it is drawn.
    """
    share: float | None = None
    if isinstance(view, Sending):
        head = "sending"
        share = view.sent / view.total if view.total else 1.0
        tail = f"{size_words(view.sent)} of {size_words(view.total)}"
        if view.seconds >= 1.0 and view.sent:
            speed = view.sent / view.seconds
            tail += f", {size_words(speed)}/s"
            if 0 < view.sent < view.total:
                tail += f", {seconds_words((view.total - view.sent) / speed)} left"
    else:
        head = one_line(view.state)
        parts = []
        if view.position is not None:
            parts.append(f"place {view.position} in the queue")
        if view.done is not None and view.total:
            share = view.done / view.total
            parts.append(f"{amount_words(view.done)} of {amount_words(view.total)}")
        elif view.done is not None:
            parts.append(f"{amount_words(view.done)} done")
        parts.append(f"{int(view.seconds) // 60}:{int(view.seconds) % 60:02}")
        if view.message:
            parts.append(one_line(view.message))
        tail = ", ".join(parts)
    return _composed(head, share, tail, look)


def _composed(head: str, share: float | None, tail: str, look: Look) -> str:
    # The last column stays free: some terminals begin a new line when it is written.
    columns = max(look.columns - 1, 0)
    if share is None:
        return cut(f"{head}  {tail}", columns)
    share = min(max(share, 0.0), 1.0)
    percent = f"{int(share * 100):3}%"
    room = columns - width_of(f"{head}  [] {percent}  ") - min(width_of(tail), columns * 2 // 5)
    if room < _LEAST:
        return cut(f"{head} {percent}  {tail}", columns)
    size = min(room, _MOST)
    full = int(size * share)
    filled, blank = look.full * full, look.empty * (size - full)
    left = columns - width_of(f"{head}  [{filled}{blank}] {percent}  ")
    if look.color:
        filled, blank = f"{_GREEN}{filled}{_RESET}", f"{_DIM}{blank}{_RESET}"
    return f"{head}  [{filled}{blank}] {percent}  {cut(tail, left)}"
