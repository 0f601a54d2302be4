"""What clients were told about kept jobs, held against what ran and what a store says at the end.

Decides only: it sends nothing and starts nothing.  What it reads are a log of runs, and the
directory of a store whose daemon has ended.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from bench.control.killed import KEY_BYTES, RETRIES, expected
from deferpost.lifecycle import ENDED
from deferpost.model import Reason, State
from deferpost.records import JobRecord
from deferpost.store import queries
from deferpost.store.files import BodyFiles
from deferpost.store.rows import find

__all__ = ["Findings", "Sent", "Stored", "check", "read_runs", "read_store", "unended"]

#: Statuses that say that a call was not taken, by the reasons that go with them.
_REFUSALS = {
    (503, "store_failed"),
    (503, "shutdown"),
    (503, "pool_full"),
    (429, "pool_full"),
    (429, "too_many_jobs"),
}


class Sent:
    """A call, as its client knows it.  For any thread.

    :param name: 24 characters, with which its body begins; also its request id.
    :param path: of its route.
    :param size: bytes of its body.
    :param is_keyed: whether its name is its ``Idempotency-Key``.

    :ivar job: the id of its job, where its client was told.
    :ivar is_promised: whether the client was told that it is kept.
    :ivar is_unwanted: whether the client has left on purpose, or had it canceled.
    :ivar seen: status and digest of its result; None where the client has seen none.
    :ivar wrong: what the client was told that cannot be.
    :ivar refused: how often it was not taken.
    """

    def __init__(self, name: str, path: str, size: int, is_keyed: bool) -> None:
        self.name = name
        self.path = path
        self.size = size
        self.is_keyed = is_keyed
        self.job: str | None = None
        self.is_promised = False
        self.is_unwanted = False
        self.seen: tuple[int, str] | None = None
        self.wrong: list[str] = []
        self.refused = 0
        self._lock = threading.Lock()

    @property
    def body(self) -> bytes:
        """What it sends: what follows from its name, and is that of no other."""
        name = self.name.encode("ascii")
        return (name * (self.size // len(name) + 1))[: max(self.size, KEY_BYTES)]

    @property
    def is_accepted(self) -> bool:
        """Whether its client may rely on it."""
        return self.is_promised or self.seen is not None

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Note an answer to its POST, or one with its result.

        :param headers: with names in lower case.
        """
        with self._lock:
            if status == 202:
                self.is_promised = True
                self._told_job(json.loads(body)["id"])
            elif status == 200:
                if body != expected(self.path, self.body):
                    self.wrong.append(f"a result of something else: {body[:80]!r}")
                self._told_result(status, body)
            elif (status, reason := _reason(body)) in _REFUSALS:
                self.refused += 1
            elif reason == Reason.WORKER_LOST or (
                self.is_unwanted and reason == Reason.CLIENT_DISCONNECTED
            ):
                self._told_result(status, body)
            else:
                self.wrong.append(f"answered by {status} {body[:200]!r}")

    def _told_job(self, job: str) -> None:
        if self.job not in (None, job):
            self.wrong.append(f"its job was {self.job}, and then {job}")
        self.job = job

    def _told_result(self, status: int, body: bytes) -> None:
        seen = status, hashlib.sha256(body).hexdigest()
        if self.seen not in (None, seen):
            self.wrong.append(f"its result was {self.seen}, and then {seen}: {body[:200]!r}")
        self.seen = seen


def _reason(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    reason = document.get("reason") if isinstance(document, dict) else None
    return reason if isinstance(reason, str) else None


@attrs.frozen
class Stored:
    """A job as its store has it.

    :ivar record: the job.
    :ivar result: the body of its result; None where there is none.
    """

    record: JobRecord
    result: bytes | None


def read_store(directory: Path) -> list[Stored]:
    """All jobs of a store that no process has open.

    :raises sqlite3.DatabaseError: the database is damaged.
    """
    connection = sqlite3.connect(directory / "jobs.sqlite3")
    try:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise sqlite3.DatabaseError(f"the database is damaged: {found[:5]}")
        files = BodyFiles(directory / "bodies", durable=False)
        jobs = []
        for record in find(connection, "true ORDER BY number", ()):
            result = queries.result(connection, files, record.id)
            body = None
            if result is not None:
                body = result.body
                if not isinstance(body, bytes):
                    with body:
                        body = body.read()
            jobs.append(Stored(record, body))
        return jobs
    finally:
        connection.close()


def unended(directory: Path) -> int:
    """How many jobs of a store have not ended, while a daemon may have it open."""
    uri = f"file:{directory / 'jobs.sqlite3'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        count: int = connection.execute(
            "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'canceling')"
        ).fetchone()[0]
        return count


def read_runs(log: Path) -> dict[str, list[str]]:
    """What ran, as ``begin`` and ``end``, by the names of the calls.

    :param log: as :mod:`bench.control.killed` writes it.
    """
    runs: dict[str, list[str]] = collections.defaultdict(list)
    for line in log.read_text(encoding="ascii").splitlines() if log.exists() else ():
        word, name, _ = line.split(" ")
        runs[name].append(word)
    return runs


@attrs.define
class Findings:
    """What is wrong, each as a line; and how much there was.

    :ivar accepted: calls whose clients may rely on them.
    :ivar ran: runs that began.
    :ivar states: how many jobs ended how, by state and reason.
    :ivar lost: jobs that were accepted and are not there, or have not ended.
    :ivar doubled: jobs that ran more often than they may, or are there twice.
    :ivar wrong: clients and results that do not belong together.
    """

    accepted: int = 0
    ran: int = 0
    states: collections.Counter[str] = attrs.field(factory=collections.Counter)
    lost: list[str] = attrs.field(factory=list)
    doubled: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.wrong)


def check(
    calls: Iterable[Sent],
    stored: Sequence[Stored],
    runs: Mapping[str, Sequence[str]],
    *,
    disk_failed: bool = False,
) -> Findings:
    """Hold what clients were told against what ran and what is stored.

    :param disk_failed: whether the disk did: what was streamed to it then may be lost, and its job
        says so.
    """
    found = Findings(ran=sum(words.count("begin") for words in runs.values()))
    by_name: dict[str, list[Stored]] = collections.defaultdict(list)
    for job in stored:
        by_name[job.record.request_id].append(job)
        found.states[" ".join(filter(None, (job.record.state, job.record.reason)))] += 1
    sent = {call.name: call for call in calls}
    for call in sent.values():
        jobs = by_name.pop(call.name, [])
        found.accepted += call.is_accepted
        found.wrong.extend(f"{call.name} {call.path}: {text}" for text in call.wrong)
        if len(jobs) > 1:
            found.doubled.append(f"{call.name} {call.path}: {len(jobs)} jobs")
        begun = runs.get(call.name, ()).count("begin")
        if begun > 1 + RETRIES[call.path]:
            found.doubled.append(f"{call.name} {call.path}: it ran {begun} times")
        if jobs:
            _check_job(call, jobs[0], runs.get(call.name, ()), found, disk_failed)
        elif call.is_accepted:
            found.lost.append(f"{call.name} {call.path}: it was accepted and is not there")
    found.wrong.extend(f"{name}: a job that nobody sent" for name in by_name)
    return found


def _check_job(
    call: Sent, job: Stored, words: Sequence[str], found: Findings, disk_failed: bool
) -> None:
    """Check a job that is there."""
    record, result = job.record, job.result
    name = f"{call.name} {call.path} {record.id}"
    if record.state not in ENDED:
        found.lost.append(f"{name}: it is {record.state}, after {record.attempt} runs")
        return
    if result is None:
        found.lost.append(f"{name}: it has {record.state}, and no result")
        return
    if call.job not in (None, record.id):
        found.wrong.append(f"{name}: its client was told of the job {call.job}")
    if call.seen not in (None, (record.status, hashlib.sha256(result).hexdigest())):
        found.wrong.append(
            f"{name}: its client has seen {call.seen}; it is {record.status} {result[:200]!r}"
        )
    begun, ended = words.count("begin"), words.count("end")
    if begun > record.attempt:
        found.wrong.append(f"{name}: {begun} runs began, and {record.attempt} are recorded")
    most = 1 + RETRIES[call.path]
    if record.state is State.SUCCEEDED:
        if result != expected(call.path, call.body):
            found.wrong.append(f"{name}: a result of something else: {result[:80]!r}")
        if not ended:
            found.wrong.append(f"{name}: it succeeded, and did not run to its end")
    elif record.state is State.FAILED and record.reason is Reason.WORKER_LOST:
        if record.attempt != most:
            found.wrong.append(
                f"{name}: it failed after {record.attempt} runs of {most}, its worker was lost"
            )
    elif disk_failed and record.state is State.FAILED and _reason(result) == "store_failed":
        return
    elif record.state is not State.CANCELED or not (
        # One who was told nothing, or that the daemon stops, has left without a promise.
        call.is_unwanted or (record.reason is Reason.CLIENT_DISCONNECTED and not call.is_accepted)
    ):
        found.wrong.append(
            f"{name}: {record.state} {record.reason} {record.status} {result[:200]!r}"
        )
