"""The page about life-cycles, made from the tables; run this module to write it.

``python -m tests.lifecycle_page``
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from deferpost.exchanges import OVER
from deferpost.exchanges import TABLE as EXCHANGES
from deferpost.lifecycle import ENDED, REASONS, TABLE
from deferpost.model import Rung

__all__ = ["COMMAND", "PAGE", "page"]

COMMAND = "python -m tests.lifecycle_page"
PAGE = Path(__file__).parents[1] / "docs" / "lifecycle.rst"

_INTRODUCTION = f"""\
.. Made by: {COMMAND}

Life-cycles
===========

What can happen to a job and to its exchange with the client, as the tables in
``deferpost/lifecycle.py`` and ``deferpost/exchanges.py`` have it.  An event that is not listed for
a state cannot happen in it.

"""

_INTERRUPTS = """\
Handlers that do not stop
-------------------------

A handler in a thread is told to stop by ``call.canceled`` and ``call.check()``.  A route with
``interrupt=True`` permits more: when ``interrupt_grace`` of its pool has passed
(``--thread-interrupt-grace``, 5 seconds), ``deferpost.Interrupted`` is raised in the handler, and
again after each further grace until its code has ended.  It is never raised in deferpost's own code
around the handler, nor in the next job of the thread.

It has limits:

* It cannot interrupt a call into C: ``time.sleep``, a regular expression, a lock without a timeout.
  It comes when that call has returned.
* It comes between any two steps of Python code, also inside a ``finally``, an import, a finalizer
  that the garbage collector runs, or a library that holds a lock.  Code that must not be left
  half-way does not belong on such a route, but in a process.
* What makes bytes of the handler's result is not interrupted.

A job that goes on for 10 seconds after it was told to stop is logged as a warning, once.  When each
thread of a pool has such a job, that is logged as an error, and ``/readyz`` answers 503 and names
the pool, until one of them ends.
"""


def page() -> str:
    """The page as the tables give it."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield from _heading("The job")
    yield from _table(
        ("State", "Event", "Next state"),
        ((str(state), str(event), str(following)) for (state, event), following in TABLE.items()),
    )
    yield f"It has ended when it is {_listed(sorted(map(str, ENDED)))}.  A job that is canceling"
    yield "because its time was up ends as expired, any other as canceled; and not before"
    yield "its code has ended.  It keeps the first reason that it gets:"
    yield ""
    yield from _table(
        ("Event", "Reasons"),
        ((str(event), _listed(sorted(map(str, reasons)))) for event, reasons in REASONS.items()),
    )
    yield f"How far it had to be taken is its rung: {_listed(map(str, Rung))}."
    yield ""
    yield ""
    yield from _heading("The exchange")
    yield from _table(
        ("State", "Event", "Next state", "What is done"),
        (
            (str(state), str(event), str(step.state), step.act.value)
            for (state, event), step in EXCHANGES.items()
        ),
    )
    yield f"It is over when it is {_listed(sorted(map(str, OVER)))}."
    yield ""
    yield ""
    yield _INTERRUPTS.rstrip()


def _heading(title: str) -> Iterator[str]:
    yield from (title, "-" * len(title), "")


def _listed(words: Iterable[str]) -> str:
    *others, last = [f"``{word}``" for word in words]
    return f"{', '.join(others)} or {last}" if others else last


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield ".. csv-table::"
    yield "   :header: " + ", ".join(f'"{cell}"' for cell in header)
    yield ""
    for row in rows:
        yield "   " + ", ".join(f'"{cell}"' for cell in row)
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
