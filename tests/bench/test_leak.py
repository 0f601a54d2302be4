"""What the program says that shows how a leak is kept in bounds."""

from __future__ import annotations

from bench.control.leak import Seen, report


def test_report() -> None:
    """It says how calls were answered, what it cost, and how much memory there was when."""
    mb = 10**6
    seen = Seen(
        statuses={200: 99, 502: 1},
        seconds=[n / 1000 for n in range(100)],
        daemon=[60 * mb, 70 * mb, 65 * mb],
        workers=[n * 10 * mb for n in range(20)],
        largest=[n * 5 * mb for n in range(20)],
        processes=[2, 3, 2],
        restarts=7,
    )
    assert report(seen) == [
        "answers: 99 of 200, 1 of 502",
        "time of a call, ms: 50 in the median, 99 at the 99th percentile, 99 at most",
        "workers: 7 replaced, 3 at once at most; the daemon: 60 MB at first, 65 MB at last, 70 MB "
        "at most",
        "memory of the workers, MB: 95 the largest, 190 all together at most",
        "  all together, at each tenth of the time: 0 20 40 60 80 100 120 140 160 180 190",
    ]
