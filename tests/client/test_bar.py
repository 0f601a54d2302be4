"""What a terminal shows: it fits, it is one line, and it obeys nobody."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.client.commands.bar import Following, Look, Sending, View, line_of
from deferpost.client.commands.words import (
    cut,
    one_line,
    progress_words,
    seconds_words,
    size_words,
    table,
    width_of,
)
from deferpost.client.documents import JobDocument, Progress

SECONDS = st.floats(0, 1e6)
AMOUNT = st.none() | st.floats(-1e6, 1e12) | st.integers(0, 10**12)
VIEWS: st.SearchStrategy[View] = st.one_of(
    st.builds(Sending, st.integers(0, 10**13), st.integers(0, 10**13), SECONDS),
    st.builds(
        Following, st.text(max_size=20), SECONDS, st.none() | st.integers(1, 10**6), AMOUNT, AMOUNT
    ),
    st.builds(Following, st.just("running"), SECONDS, message=st.text()),
)
COLORS = re.compile(r"\x1b\[[0-9]*m")


@given(VIEWS, st.integers(0, 300), st.booleans())
def test_the_line_fits(view: View, columns: int, color: bool) -> None:
    """Whatever there is to see, it takes less than a line, and is all that is printed."""
    line = line_of(view, Look(columns, color))
    plain = COLORS.sub("", line) if color else line
    assert width_of(plain) <= max(columns - 1, 0)
    assert plain.isprintable()


LINES: list[tuple[View, str]] = [
    (Sending(0, 1000, 0.1), "sending  [----------------]   0%  0 B of 1.0 kB"),
    (Sending(500, 1000, 0.1), "sending  [#######-------]  50%  500 B of 1.0 kB"),
    (Sending(5 * 10**8, 10**9, 5.0), "sending  [#####------]  50%  500.0 MB of 1.0 G…"),
    (Following("queued", 4.9, position=3), "queued  place 3 in the queue, 0:04"),
    (Following("running", 65.0), "running  1:05"),
    (Following("running", 1.0, done=7), "running  7 done, 0:01"),
    (Following("running", 0.0, done=9, total=3), "running  [#################] 100%  9 of 3, 0:00"),
    (Following("running", 0.0, message="a\nb"), "running  0:00, a b"),
]


@pytest.mark.parametrize(("view", "line"), LINES, ids=[line for _, line in LINES])
def test_lines(view: View, line: str) -> None:
    """A bar where it is known how far it is, and words where it is not."""
    assert line_of(view, Look(48)) == line


def test_a_bar_in_words() -> None:
    """A narrow terminal has no room for a bar."""
    assert line_of(Sending(1, 4, 0.0), Look(20)) == "sending  25%  1 B …"
    wide = line_of(Sending(1, 4, 0.0), Look(80, color=True, full="=", empty=" "))
    assert wide.startswith(f"sending  [\x1b[32m{'=' * 10}\x1b[0m\x1b[2m{' ' * 30}\x1b[0m]  25%")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0.0s"), (2.46, "2.5s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"), (-5, "0.0s")),
        *((90, "1m30s"), (3600, "1h00m"), (7_380, "2h03m"), (90_000, "1d01h")),
    ],
)
def test_seconds(seconds: float, words: str) -> None:
    """Durations are short."""
    assert seconds_words(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (51_807, "51.8 kB"), (999_600, "1.0 MB")),
        *((10**9, "1.0 GB"), (10**16, "10000.0 TB")),
    ],
)
def test_sizes(size: int, words: str) -> None:
    """Sizes have powers of 1000, as those of the configuration do."""
    assert size_words(size) == words


def test_texts() -> None:
    """What a server says is one line without what a terminal would obey, cut by its width."""
    assert one_line("a\nb\x1b[2Jc\u202e") == "a b [2Jc"
    assert cut("\u65e5\u672c\u8a9e", 6) == "\u65e5\u672c\u8a9e"
    assert cut("\u65e5\u672c\u8a9e", 5) == "\u65e5\u672c…"
    assert width_of("e\u0301\u65e5") == 3


def test_progress() -> None:
    """Progress is told in the units of the job."""
    assert progress_words(None) == ""
    assert progress_words(Progress(1, 3, "a\nb")) == "1 of 3 (33%), a b"
    assert progress_words(Progress(2.5, None, "")) == "2.5"
    assert progress_words(Progress(None, None, "going")) == "going"


def test_the_table() -> None:
    """The list of jobs is aligned, and has nothing behind its lines."""
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    jobs = [
        JobDocument(
            id="a",
            state="running",
            route="/rst",
            created=now - timedelta(seconds=90),
            started=now,
            run_seconds=2.5,
            progress=Progress(1, 2, "half"),
        ),
        JobDocument(id="longer", state="queued", route="/\u65e5"),
    ]
    assert table(jobs, now) == [
        "ID      ROUTE  STATE    AGE    RUN TIME  PROGRESS",
        "a       /rst   running  1m30s  2.5s      1 of 2 (50%), half",
        "longer  /\u65e5    queued",
    ]
