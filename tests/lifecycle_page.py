"""The page about life-cycles and its diagrams, made from the tables; run this module to write them.

``python -m tests.lifecycle_page``
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from deferpost.exchanges import OVER
from deferpost.exchanges import TABLE as EXCHANGES
from deferpost.lifecycle import ENDED, REASONS, TABLE
from deferpost.model import Rung
from tests.endings import ENDINGS, Ending, Sees
from tests.lifecycle_figures import EXCHANGE, FIGURES, JOB, Figure, svg

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

.. contents::
   :local:

"""

_ENDINGS = """\
``tests/integration/test_endings.py`` has each of these happen to a daemon, in every kind of pool
that is named, and compares what the client saw, what the log says and what the event of the job in
the log as JSON has.  The last column names the test, without the kind of pool:
``test_ending[left_queued.thread]``.

The job has its state, with the reason in parentheses, and its rung.  A status of 499 is that of the
log: the client has left before there was one for it.  A reply that broke off has sent its status
before; the access log has 499 for it, too.  The lines have the call's id in brackets before them,
and "…" is for what differs.  The cell is empty where nothing is logged but the line of the access
log and, with ``--log-format json``, the event of the job.

"""

_REFUSALS = """\
These calls become no job: nothing of them is run, and there is no event of a job.  The access log
has a line of each, and ``deferpost_rejections_total`` counts those that were turned away.

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
* While a thread is in C with an interrupt pending, CPython 3.11 stands still if it is traced, as by
  coverage or a debugger: keep such handlers short, or do without ``interrupt=True`` there.
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
    yield from _image(JOB)
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
    yield from _image(EXCHANGE)
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
    yield from _heading("Every way a call can end")
    yield _ENDINGS
    yield from _table(
        ("What happens", "Pool", "The job", "The client sees", "The log", "Test"),
        map(_ended, (row for row in ENDINGS if row.state is not None)),
    )
    yield _REFUSALS
    yield from _table(
        ("What happens", "The client sees", "The log", "Test"),
        map(_refused, (row for row in ENDINGS if row.state is None)),
    )
    yield ""
    yield _INTERRUPTS.rstrip()


def _ended(row: Ending) -> tuple[str, ...]:
    job = str(row.state)
    if row.reason is not None:
        job += f" ({row.reason})"
    if row.rung is not None:
        job += f": {row.rung}"
    return (row.way, ", ".join(row.kinds), job, *_seen(row))


def _refused(row: Ending) -> tuple[str, ...]:
    return (row.way, *_seen(row))


def _seen(row: Ending) -> tuple[str, str, str]:
    """What the client and the log say, and the name of the test."""
    status = f"{row.status} {row.problem or ''}".rstrip()
    if row.sees is Sees.PART:
        status = f"{row.status}, and then the connection ends"
    elif row.sees is Sees.NOTHING:
        status = f"({row.status})"
    lines = "; ".join(f"``{_shortened(line)}``" for line in row.lines)
    return status, lines, f"``{row.name}``"


def _shortened(line: str) -> str:
    """A line of the log without what differs each time."""
    line = line.replace("{route}", "/route").replace(" … s in the queue and … s of running", " …")
    return re.sub(r"within [0-9.]+ seconds", "within … seconds", line)


def _image(figure: Figure) -> Iterator[str]:
    yield f".. image:: {figure.path.relative_to(PAGE.parent)}"
    yield f"   :alt: {figure.title}; the table below has the same"
    yield f"   :width: {figure.size[0]:g}"
    yield ""


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
        yield "   " + ", ".join('"' + cell.replace('"', '""') + '"' for cell in row)
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for figure in FIGURES:
        figure.path.write_text(svg(figure), encoding="utf-8")
