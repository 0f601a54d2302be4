"""Where running code stands, as lines of text: of a thread, and of a coroutine that waits.

Only what is the handler's is shown: without the frames of the pool that has called it.  The
frames are looked at where they are; nothing is stopped for that.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

__all__ = ["FRAMES_MOST", "coroutine_stack", "thread_stack"]

#: How many calls are shown, the most recent ones.
FRAMES_MOST = 100

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Folders of what stands between a pool and a handler.
_OURS = tuple(os.path.join(_PACKAGE, name, "") for name in ("handlers", "pools"))

_Place = tuple[FrameType, int]


def thread_stack(ident: int, run: CodeType) -> str | None:
    """The stack of a thread, from the handler on, the most recent call last.

    :param ident: of the thread.
    :param run: the code of ours that runs a job; what called it is not shown.
    :returns: the lines; None if the thread does not run a job.
    """
    frame: FrameType | None = sys._current_frames().get(ident)
    places: list[_Place] = []
    while frame is not None and frame.f_code is not run:
        places.append((frame, frame.f_lineno))
        frame = frame.f_back
    return None if frame is None else _lines(_without_ours(places[::-1]))


def coroutine_stack(coroutine: Any) -> str:
    """The calls of a coroutine that waits, from the handler on, the innermost last.

    :param coroutine: the coroutine of ours that awaits the handler's.
    """
    return _lines(_without_ours(list(_awaited(coroutine))))


def _awaited(coroutine: Any) -> Iterator[_Place]:
    """What waits for what: coroutines and generators, as far as they tell."""
    awaited = coroutine
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame, frame.f_lineno
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _without_ours(places: list[_Place]) -> list[_Place]:
    """Without our own frames at the top, unless there are no others."""
    first = 0
    while first < len(places) and places[first][0].f_code.co_filename.startswith(_OURS):
        first += 1
    return places[first:] or places


def _lines(places: list[_Place]) -> str:
    shown = places[-FRAMES_MOST:]
    summary = traceback.StackSummary.extract(iter(shown), limit=FRAMES_MOST, lookup_lines=False)
    left_out = len(places) - len(shown)
    first = f"  ... {left_out} more calls\n" if left_out else ""
    # Without the surrogates that stand in names of files: no encoder takes them.
    return (first + "".join(summary.format())).encode("utf-8", "backslashreplace").decode()
