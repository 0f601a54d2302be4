"""The program that measures the store: the jobs that it makes up, and what it reports."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from bench.control.store import Latency, fill, report
from deferpost.model import State
from deferpost.store import queries, rows
from deferpost.store.directory import take


def test_fill(tmp_path: Path) -> None:
    """Jobs that are made up are jobs like others."""
    place = take(tmp_path / "store", durable=False)
    place.connection.close()
    place.lock.release()
    fill(place.database, 70)
    place = take(tmp_path / "store", durable=False)
    with closing(place.connection) as connection:
        assert place.unended == []
        page = queries.page(connection, "principal-3", frozenset({State.FAILED}), None, 10)
        assert [record.number for record in page.records] == [59]
        result = queries.result(connection, place.files, "bench-1")
        assert result is not None
        assert (result.status, result.length, len(result.body)) == (200, 1000, 1000)
        assert len(queries.events(connection, "bench-70", 0, 10)) == 3
        found = rows.find_key(connection, "scope", "key-70")
        assert found is not None
        assert found.number == 70
    place.lock.release()


def test_report() -> None:
    """It tells what is usual, and what is not."""
    lines = report(7, [Latency("get", [0.001] * 8 + [0.002, 0.1])])
    assert lines == [
        "beside 7 jobs that have ended:",
        "  get: 1.00 ms, 100.00 ms of one in ten, 100.00 ms at most",
    ]
