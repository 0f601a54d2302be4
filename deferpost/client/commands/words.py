"""Sizes, times and texts as people read them in a terminal."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from deferpost.client.documents import JobDocument, Progress

__all__ = [
    "amount_words",
    "cut",
    "one_line",
    "progress_words",
    "seconds_words",
    "size_words",
    "table",
    "width_of",
]

_UNITS = ("B", "kB", "MB", "GB", "TB")

#: The columns of the list of jobs.
_COLUMNS = ("ID", "ROUTE", "STATE", "AGE", "RUN TIME", "PROGRESS")


def one_line(text: str) -> str:
    """A text without line ends and without what a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def width_of(text: str) -> int:
    """The columns that a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def cut(text: str, columns: int) -> str:
    """As much of a text as fits, with an ellipsis where there is more."""
    if width_of(text) <= columns:
        return text
    kept, used = [], 1
    for char in text:
        used += width_of(char)
        if used > columns:
            break
        kept.append(char)
    return "".join(kept) + "…" if columns > 0 else ""


def size_words(size: float) -> str:
    """A number of bytes, such as ``51.8 kB``."""
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def seconds_words(seconds: float) -> str:
    """A duration, such as ``2.5s``, ``1m30s`` or ``3h05m``."""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def amount_words(number: float) -> str:
    """A number as people write it."""
    return f"{number:.0f}" if float(number).is_integer() else f"{number:.4g}"


def progress_words(progress: Progress | None) -> str:
    """How far a job says that it is, such as ``1 of 3 (33%), packing``."""
    if progress is None:
        return ""
    parts = []
    if progress.done is not None:
        if progress.total:
            share = min(max(progress.done / progress.total, 0.0), 1.0)
            done, total = amount_words(progress.done), amount_words(progress.total)
            parts.append(f"{done} of {total} ({share:.0%})")
        else:
            parts.append(amount_words(progress.done))
    if progress.message:
        parts.append(one_line(progress.message))
    return ", ".join(parts)


def table(jobs: list[JobDocument], now: datetime) -> list[str]:
    """The lines of a list of jobs.

    :param now: the time, of which the age is counted.
    """
    rows = [_COLUMNS]
    for job in jobs:
        age = "" if job.created is None else seconds_words((now - job.created).total_seconds())
        ran = job.started is not None and job.run_seconds is not None
        rows.append(
            (
                one_line(job.id),
                one_line(job.route),
                one_line(job.state),
                age,
                seconds_words(job.run_seconds or 0.0) if ran else "",
                progress_words(job.progress),
            )
        )
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
