"""The parts of stores that decide by themselves: turns, ids, changes, queries, failures."""

from __future__ import annotations

import errno
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import StoreFailed
from deferpost.lifecycle import ENDED, TABLE
from deferpost.model import Reason, State
from deferpost.records import JobRecord, Outcome
from deferpost.store import changes, queries, rows, schema
from deferpost.store.failures import store_failed
from deferpost.store.ids import IdMaker
from deferpost.store.turns import Turns

# Turns.

LANES = ("read", "write", None)


@given(
    asked=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(LANES)), max_size=30),
    data=st.data(),
)
def test_turns(asked: list[tuple[str, str | None]], data: st.DataObject) -> None:
    """Of each job things begin in order, and at once only what one thread does in order anyway."""
    turns = Turns()
    begun: dict[str, list[int]] = defaultdict(list)
    under_way: list[int] = []
    left = list(enumerate(asked))

    def begin(number: int) -> None:
        name, lane = asked[number]
        for other in under_way:
            if asked[other][0] == name:
                assert lane is not None
                assert asked[other][1] == lane
        begun[name].append(number)
        under_way.append(number)

    while left or under_way:
        if left and (not under_way or data.draw(st.booleans())):
            number, (name, lane) = left.pop(0)
            turns.enter(name, lane, lambda number=number: begin(number))  # type: ignore[misc]
        else:
            done = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            turns.leave(asked[done][0])
    for name in "ab":
        assert begun[name] == [number for number, (other, _) in enumerate(asked) if other == name]
    assert not turns._turns, "nothing is kept of a job of which all is done"


def test_jobs_do_not_wait_for_each_other() -> None:
    """A job that is held up holds up no other, and none of its own that one thread does."""
    turns = Turns()
    begun: list[str] = []
    for name, lane in (("a", None), ("a", "write"), ("b", "write"), ("a", "write"), ("a", "read")):
        turns.enter(name, lane, lambda what=f"{name} {lane}": begun.append(what))  # type: ignore[misc]
    assert begun == ["a None", "b write"]
    turns.leave("a")
    assert begun[2:] == ["a write", "a write"]
    turns.leave("a")
    assert len(begun) == 4
    turns.leave("a")
    assert begun[4:] == ["a read"]


# Ids.


def test_ids_of_another_secret() -> None:
    """Ids belong to the secret that they were made with."""
    one, other = IdMaker(bytes(32)), IdMaker(b"x" * 32)
    ids = [one.new() for _ in range(300)]
    assert len(set(ids)) == 300
    assert all(one.is_own(id) and not other.is_own(id) for id in ids)
    assert IdMaker(bytes(32)).is_own(ids[0])


@given(st.text(max_size=40))
def test_no_other_text_is_an_id(text: str) -> None:
    """What clients send is judged, whatever it is."""
    assert not IdMaker(b"secret").is_own(text)


def test_randomness() -> None:
    """Nobody can tell an id from those before: it has 96 bits that come from the system."""
    asked: list[int] = []

    def randomness(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    maker = IdMaker(b"secret", randomness)
    ids = {maker.new() for _ in range(128)}
    assert len(ids) == 1  # of so little randomness
    assert asked == [128 * 12]


# Changes.


def _record(state: State, retries: int = 1) -> JobRecord:
    return JobRecord(
        number=1,
        id="a",
        request_id="request",
        route="/a",
        pool="thread",
        principal=None,
        state=state,
        created=0.0,
        ttl=1.0,
        urgency=3,
        retries=retries,
        events=5,
    )


@pytest.mark.parametrize("state", State)
def test_changes_keep_the_table(state: State) -> None:
    """A record changes only as the table of life-cycles has it, or ends at once after a crash."""
    record = _record(state)
    for change in (
        changes.started(record, 1.0),
        changes.requeued(record, 1.0),
        changes.canceled(record, Reason.REQUESTED, 1.0),
    ):
        if change is not None:
            after, event = change
            assert after.state in {to for (before, _), to in TABLE.items() if before is state}
            assert (after.events, event.number, event.kind) == (6, 6, "state")
    ended = changes.ended(record, Outcome(state=State.FAILED, at=3.0, status=500), 7)
    assert (ended is None) == (state in ENDED)
    if ended is not None:
        assert (ended[0].finished, ended[0].expires, ended[0].result_bytes) == (3.0, 4.0, 7)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.0625, "2023-11-14T22:13:20.062Z"),
        (-0.5, "1969-12-31T23:59:59.500Z"),
    ],
)
def test_times(at: float, text: str) -> None:
    """Times in documents are of RFC 3339, with milliseconds."""
    assert changes.rfc3339(at) == text


# Queries.


def test_every_question_has_an_index(tmp_path: Path) -> None:
    """Nothing looks at all jobs, or sorts them."""
    database = tmp_path / "jobs"
    schema.create(database)
    plans: list[str] = []
    with closing(schema.connect(database)) as connection:
        schema.migrate(connection, tmp_path)

        def explain(statement: str) -> None:
            with closing(sqlite3.connect(database)) as asked:
                plan = asked.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            plans.extend(f"{step[3]}: {statement}" for step in plan)

        connection.set_trace_callback(explain)
        some = frozenset({State.FAILED, State.QUEUED})
        for principal in (None, "alice"):
            for states in (frozenset[State](), some):
                for before in (None, 5):
                    queries.page(connection, principal, states, before, 50)
        queries.unended(connection)
        queries.hooks_due(connection, 0.0, 10)
        queries.next_hook(connection)
        queries.events(connection, "a", 0, 10)
        queries.wanted(connection, "a")
        rows.find_record(connection, "a")
        rows.find_key(connection, "a", "b")
        connection.set_trace_callback(None)
    for plan in plans:
        if plan.startswith("SCAN jobs"):  # by their numbers, and only so many
            assert " WHERE true ORDER BY number DESC LIMIT " in plan
        if "TEMP B-TREE" in plan:  # of those that have not ended
            assert " WHERE state IN ('queued', 'running', 'canceling') ORDER BY number" in plan
    assert any("jobs_principal (principal=? AND state=?" in plan for plan in plans)
    assert any("jobs_hook" in plan for plan in plans)


# Failures.


@pytest.mark.parametrize(
    ("code", "fatal"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_READONLY_DBMOVED, False),
    ],
)
def test_failures_of_sqlite(code: int, fatal: bool) -> None:
    """Who operates it is told which store, what is wrong and whether waiting may help."""
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "NAME"
    failed = store_failed(error, Path("/var/lib/x"))
    assert isinstance(failed, StoreFailed)
    assert failed.fatal == fatal
    assert str(failed).startswith("the store in /var/lib/x failed: ")
    assert str(failed).endswith("(words, NAME)")


def test_other_failures() -> None:
    """Errors of the system are told with their file; a defect stays what it is."""
    failed = store_failed(OSError(errno.ENOSPC, "No space left", "/a/b"), Path("/a"))
    assert isinstance(failed, StoreFailed)
    assert str(failed) == "the store in /a failed: No space left (/a/b)"
    for defect in (ValueError("a"), sqlite3.ProgrammingError("b")):
        assert store_failed(defect, Path("/a")) is defect
