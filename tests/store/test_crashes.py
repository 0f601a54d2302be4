"""Jobs that were accepted are there, however the process that accepted them has ended."""

from __future__ import annotations

import collections
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from deferpost.model import State
from deferpost.store import queries, rows
from deferpost.store.directory import take
from tests.required import required
from tests.store.acceptor import content_of

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]

#: Sizes of bodies: some in the database, some beside it.
SIZES = ("100", "100", "5000", "40000")

#: How often a process is killed at some moment.
ROUNDS = 20

#: What follows what in the life of a job, as the process says it.
_STATES = {"accepted": State.QUEUED, "started": State.RUNNING, "ended": State.SUCCEEDED}


def _command(directory: Path, clients: int, count: int, sizes: Iterable[str]) -> list[str]:
    return [
        *(sys.executable, "-m", "tests.store.acceptor"),
        *(str(directory), str(clients), str(count), *sizes),
    ]


def _said(output: bytes) -> dict[str, str]:
    """What was last said of each job; a last line that was cut short was not said."""
    said = {}
    for line in output.decode().split("\n")[:-1]:
        *words, id = line.split()
        if id != "closed":
            said[id] = words[-1]
    return said


def _check(directory: Path, said: dict[str, str], all_said: bool = False) -> int:
    """All that was said is there, whole.

    :param all_said: whether there is nothing else.
    :returns: how many jobs there are.
    """
    place = take(directory, durable=True)
    try:
        with closing(place.connection) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            order = list(_STATES.values())
            for id, word in said.items():
                record = rows.find_record(connection, id)
                assert record is not None, f"{id} was {word}, and is not there"
                # What was under way when the process ended may have been done, too.
                assert order.index(record.state) >= order.index(_STATES[word])
                if record.state is State.SUCCEEDED:
                    result = queries.result(connection, place.files, id)
                    assert result is not None
                    body = result.body
                    if not isinstance(body, bytes):
                        with body:
                            body = body.read()
                else:
                    call = queries.call(connection, place.files, id)
                    assert call is not None
                    with call.body as file:
                        body = file.read()
                assert body == content_of(id, record.body_bytes)
                events = queries.events(connection, id, 0, 10)
                assert [event.number for event in events] == list(range(1, record.events + 1))
            files = {path.name for path in (directory / "bodies").iterdir()}
            assert all(queries.wanted(connection, name) for name in files)
            count: int = connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
            assert count == len(said) or (not all_said and count > len(said))
            return count
    finally:
        place.lock.release()


def test_closed_by_itself(tmp_path: Path) -> None:
    """A process that ends as it should leaves all there, and a database without a log."""
    directory = tmp_path / "store"
    done = subprocess.run(
        _command(directory, 8, 100, SIZES), cwd=CHECKOUT, capture_output=True, check=True
    )
    said = _said(done.stdout)
    assert collections.Counter(said.values()) == {"accepted": 67, "started": 22, "ended": 11}
    assert _check(directory, said, all_said=True) == 100
    assert {path.name for path in directory.iterdir()} == {"bodies", "jobs.sqlite3", "lock"}


@pytest.mark.timeout(300)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """What a process has called durable is there when it was killed, round after round."""
    directory = tmp_path / "store"
    said: dict[str, str] = {}
    for _ in range(ROUNDS):
        with subprocess.Popen(
            _command(directory, 16, 0, SIZES), cwd=CHECKOUT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            # At random, so that it is killed wherever it is.
            time.sleep(random.uniform(0.0, 0.1))
            process.kill()
            new = _said(first + process.stdout.read())
        assert process.returncode == -signal.SIGKILL
        assert new
        said.update(new)
        _check(directory, said)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("fdatasync", number) for number in (1, 2, 3, 5, 8)),
        *(("fsync", number) for number in (1, 2, 3, 5, 8)),
        *(("pwrite64", number) for number in (1, 3, 10, 30, 80)),
        ("unlink", 1),
    ],
)
def test_killed_at_a_call(tmp_path: Path, call: str, number: int) -> None:
    """Nothing was called durable that was not, whichever call of the system was the last."""
    strace = required("strace", "strace")
    directory = tmp_path / "store"
    done = subprocess.run(
        [
            *(strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"),
            *("-e", f"inject={call}:signal=KILL:when={number}"),
            *_command(directory, 8, 80, SIZES),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    said = _said(done.stdout)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    _check(directory, said)


@pytest.mark.parametrize(
    ("call", "error", "when"),
    [
        ("fdatasync", "EIO", "3..5"),
        ("fdatasync", "ENOSPC", "2+3"),
        ("fsync", "EIO", "3+2"),
        ("pwrite64", "ENOSPC", "20..40"),
        ("pwrite64", "EIO", "9+100"),
    ],
)
def test_errors_of_the_disk(tmp_path: Path, call: str, error: str, when: str) -> None:
    """What fails because of the disk has not happened, what does not has, and it goes on."""
    strace = required("strace", "strace")
    directory = tmp_path / "store"
    # Made before, so that it is not the beginning that fails.
    subprocess.run(_command(directory, 1, 1, SIZES), cwd=CHECKOUT, check=True, capture_output=True)
    done = subprocess.run(
        [
            *(strace, "-f", "-qq", "-o", "/dev/null", "-P", str(directory)),
            *(f"-P{directory / name}" for name in ("jobs.sqlite3", "jobs.sqlite3-wal", "bodies")),
            *("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"),
            *_command(directory, 8, 200, SIZES),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    said = _said(done.stdout)
    assert len(said) == 200
    assert done.stdout.endswith(b"closed\n")
    counts = collections.Counter(said.values())
    assert counts["refused"]
    assert counts["accepted"]
    assert counts["ended"]
    place = take(directory, durable=True)
    with closing(place.connection) as connection:
        for id, word in said.items():
            record = rows.find_record(connection, id)
            assert (None if record is None else record.state) == _STATES.get(word)
    place.lock.release()
    _check(directory, {id: word for id, word in said.items() if word != "refused"})


def _synced(tmp_path: Path, clients: int, count: int, size: str) -> list[str]:
    """The files that were made durable, in order, by what comes behind the directory."""
    strace = required("strace", "strace")
    directory = tmp_path / "store"
    log = tmp_path / "log"
    subprocess.run(
        [
            *(strace, "-f", "-qq", "-y", "-o", str(log), "-e", "trace=fsync,fdatasync"),
            *_command(directory, clients, count, [size]),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    place = re.escape(str(directory))
    return re.findall(rf"sync\(\d+<{place}/?([^>]*)>", log.read_text())


def test_a_file_before_its_name(tmp_path: Path) -> None:
    """A large body and its directory are durable before the transaction that names it."""
    synced = _synced(tmp_path, 1, 1, "100000")
    at = next(place for place, name in enumerate(synced) if name.startswith("bodies/"))
    assert synced[at + 1 : at + 3] == ["bodies", "jobs.sqlite3-wal"]


def test_one_for_many(tmp_path: Path) -> None:
    """Jobs that come at the same time are made durable together."""
    synced = _synced(tmp_path, 64, 640, "100")
    # 640 jobs, 213 starts and 71 ends, one by one, would be 924; never are more than 64 under way.
    assert 924 / 64 <= synced.count("jobs.sqlite3-wal") < 924 / 8
