"""The store on disk: what it does where the disk, or what is on it, is not as it should be."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from deferpost.errors import StoreFailed
from deferpost.model import Progress, Reason, State
from deferpost.store import schema
from deferpost.store.sqlite import SQLiteStore
from deferpost.testing.storesuite import LARGE, StoreSuite
from tests.store.mounts import remount, small_disk


class _OnDisk(StoreSuite, TestCase):
    reactor: Any = reactor

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.folder / "store"
        self.options: dict[str, Any] = {}

    def make_store(self) -> SQLiteStore:
        return SQLiteStore(self.directory, self.reactor, now=self.now, **self.options)

    async def reopen(self) -> None:
        await self.store.close()
        await self.open_store()

    async def refused(self, fatal: bool = True) -> str:
        """The store does not open; what it says."""
        store = self.make_store()
        with self.assertRaises(StoreFailed) as raised:
            await store.open()
        self.assertEqual(raised.exception.fatal, fatal)
        self.assertIn(str(self.directory), str(raised.exception))
        await store.close()
        return str(raised.exception)

    @property
    def database(self) -> Path:
        return self.directory / "jobs.sqlite3"

    def files(self) -> set[str]:
        return {path.name for path in (self.directory / "bodies").iterdir()}

    def execute(self, script: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(script)


class DirectoryTests(_OnDisk):
    """The directory, and what is found in it."""

    async def test_private(self) -> None:
        """What it keeps is for its owner alone, whatever the mask."""
        self.addCleanup(os.umask, os.umask(0))
        await self.open_store()
        await self.accepted(LARGE)
        modes = {
            path.relative_to(self.folder).parts[-1]: stat.S_IMODE(path.stat().st_mode)
            for path in self.folder.rglob("*")
        }
        folders = {name for name, mode in modes.items() if mode == 0o700}
        self.assertEqual(folders, {"store", "bodies"})
        self.assertEqual({mode for name, mode in modes.items() if name not in folders}, {0o600})
        self.assertGreaterEqual(set(modes), {"jobs.sqlite3", "jobs.sqlite3-wal", "lock"})

    async def test_another_process(self) -> None:
        """A second process is told which one has the directory."""
        await self.open_store()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import pathlib, sys\n"
                "from deferpost.store.directory import take\n"
                "take(pathlib.Path(sys.argv[1]), True)\n",
                str(self.directory),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        expected = f"the store in {self.directory} is in use by process {os.getpid()}"
        self.assertIn(expected, done.stderr)

    async def test_no_place(self) -> None:
        """A directory that cannot be made is said to be so."""
        self.directory = self.folder / "none" / "store"
        self.assertIn("No such file or directory", await self.refused(fatal=False))
        (self.folder / "none").write_text("")
        self.assertIn("Not a directory", await self.refused(fatal=False))

    async def test_no_database(self) -> None:
        """A file that is no database is left as it is, and said to be none."""
        self.directory.mkdir()
        self.database.write_bytes(LARGE)
        self.assertIn("damaged or none of SQLite", await self.refused())
        self.assertEqual(self.database.read_bytes(), LARGE)

    async def test_damaged(self) -> None:
        """A database that is damaged is said to be, when it is come upon."""
        await self.open_store()
        for _ in range(50):
            await self.accepted(b"x" * 3000)
        done = await self.ended()
        await self.store.close()
        data = self.database.read_bytes()
        head, rest = data[:8192], data[8192:]
        self.database.write_bytes(head + os.urandom(len(rest)))
        store = self.make_store()
        with self.assertRaises(StoreFailed) as raised:
            await store.open()
            self.addCleanup(store.close)
            await store.get(done.id)
        self.assertTrue(raised.exception.fatal)
        self.assertIn("its database is damaged", str(raised.exception))
        await store.close()

    async def test_another_program(self) -> None:
        """The database of another program is left alone."""
        self.directory.mkdir()
        self.execute("CREATE TABLE theirs (a)")
        self.assertIn("belongs to another program", await self.refused())

    async def test_later_version(self) -> None:
        """A store of a later release is left alone, and says which versions there are."""
        await self.open_store()
        await self.store.close()
        self.execute("PRAGMA user_version = 99")
        self.assertIn("is of version 99, made by a later release", await self.refused())

    async def test_earlier_version(self) -> None:
        """A store of an earlier release becomes one of this, with all that is in it."""
        await self.open_store()
        record = await self.accepted()
        await self.store.close()
        later = "ALTER TABLE jobs ADD COLUMN colour TEXT; UPDATE jobs SET colour = 'red'"
        self.options["migrations"] = (*schema.MIGRATIONS, later)
        await self.open_store()
        self.assertEqual(await self.store.get(record.id), record)
        await self.reopen()
        await self.store.close()
        with closing(sqlite3.connect(self.database)) as connection:
            self.assertEqual(connection.execute("SELECT colour FROM jobs").fetchall(), [("red",)])
            self.assertEqual(connection.execute("PRAGMA user_version").fetchone()[0], 2)

    async def test_a_broken_migration(self) -> None:
        """A migration that fails leaves the store as it was."""
        await self.open_store()
        record = await self.accepted()
        await self.store.close()
        self.options["migrations"] = (*schema.MIGRATIONS, "DELETE FROM jobs; INSERT INTO none")
        store = self.make_store()
        with self.assertRaises(sqlite3.OperationalError):
            await store.open()
        self.options.clear()
        self.assertEqual(await self.open_store(), [record])

    async def test_orphans(self) -> None:
        """Files that belong to no job are removed when it is opened, and only these."""
        await self.open_store()
        record = await self.accepted(LARGE)
        done = await self.ended(LARGE)
        await self.store.close()
        kept = self.files()
        for name in ("a" * 32, "b" * 32):
            (self.directory / "bodies" / name).write_bytes(LARGE)
        await self.open_store()
        self.assertEqual(self.files(), kept)
        self.assertEqual(await self.body_of(record.id), LARGE)
        self.assertEqual(await self.result_of(done.id), LARGE)

    async def test_no_file_stays(self) -> None:
        """Of what is not wanted any more no file is left."""
        await self.open_store()
        record = await self.running(body=LARGE, key=self.key())
        await self.store.write(record.id, LARGE)
        await self.store.accept(self.new_job(key=self.key()), self.file(LARGE))
        await self.store.finish(record.id, self.outcome(), LARGE)
        await self.store.finish(record.id, self.outcome(), self.file(LARGE))
        other = await self.running()
        await self.store.write(other.id, LARGE)
        await self.store.finish(other.id, self.outcome(), None)
        expired = await self.ended(LARGE, ttl=1.0)
        await self.store.clean(self.time + 1, 10)
        await self.store.delete(other.id)
        lost = await self.running()
        await self.store.write(lost.id, LARGE)
        self.assertIsNone(await self.store.get(expired.id))
        await self.store.close()  # when all is removed
        self.assertEqual(len(self.files()), 1)
        await self.open_store()
        self.assertEqual(await self.result_of(record.id), LARGE)

    async def test_a_file_is_gone(self) -> None:
        """A body that somebody has removed is said to be missing, and harms no other."""
        await self.open_store()
        record = await self.accepted(LARGE)
        for path in (self.directory / "bodies").iterdir():
            path.unlink()
        with self.assertRaises(StoreFailed) as raised:
            await self.store.call(record.id)
        self.assertIn("No such file", str(raised.exception))
        await self.accepted(LARGE)


class GroupTests(_OnDisk):
    """What is done in one transaction."""

    async def test_one_that_cannot_be_kept(self) -> None:
        """What fails takes nothing else with it that was to be written at the same time."""
        await self.open_store()
        jobs = [self.new_job() for _ in range(20)]
        jobs[7] = self.new_job("\ud800")  # which has no bytes
        asked = [self.store.accept(job, io.BytesIO(b"body")) for job in jobs]
        with self.assertRaises(UnicodeEncodeError):
            await asked.pop(7)
        answers = await gatherResults(asked)
        self.assertEqual([answer.is_new for answer in answers], [True] * 19)
        numbers = [answer.record.number for answer in answers]
        self.assertEqual(numbers, sorted(set(numbers)))

    async def test_answered_together(self) -> None:
        """Of what was written at once the reactor hears at once, in order."""
        woken: list[Any] = []
        real = self.reactor

        class Reactor:
            def callFromThread(self, function: Any) -> None:
                woken.append(function)
                real.callFromThread(function)

            callLater = real.callLater

        self.reactor = Reactor()
        await self.open_store()
        del woken[:]
        order: list[int] = []
        asked = [self.store.accept(self.new_job(), io.BytesIO(b"body")) for _ in range(200)]
        for each in asked:
            each.addCallback(lambda answer: order.append(answer.record.number))
        await gatherResults(asked)
        self.assertEqual(order, list(range(1, 201)))
        self.assertLess(len(woken), 20)


class BoundTests(_OnDisk):
    """How much may wait."""

    async def test_bound(self) -> None:
        """What comes from outside is refused when too much waits; what has begun is not."""
        self.options["most_waiting"] = 10
        await self.open_store()
        record = await self.running()
        asked = [self.store.get(record.id) for _ in range(10)]
        refused = [self.file(LARGE), io.BytesIO(b"small")]
        for body in refused:
            with self.assertRaises(StoreFailed) as raised:
                await self.store.accept(self.new_job(), body)
            self.assertFalse(raised.exception.fatal)
        for more in (self.store.get("a"), self.store.tell(record.id, Progress(1))):
            with self.assertRaises(StoreFailed):
                await more
        canceled = self.store.cancel(record.id, Reason.REQUESTED)
        done = self.store.finish(record.id, self.outcome(State.CANCELED), self.file(LARGE))
        self.assertEqual(len(await gatherResults(asked)), 10)
        self.assertEqual((await canceled).state, State.CANCELING)
        self.assertEqual((await done).state, State.CANCELED)
        await self.accepted()
        await self.store.close()
        self.assertTrue(all(body.closed for body in refused))


class DiskTests(_OnDisk):
    """A disk that is full, or cannot be written to, and then can again."""

    def setUp(self) -> None:
        super().setUp()
        disk = self.folder / "disk"
        disk.mkdir()
        mounted = small_disk(disk, "3m")
        mounted.__enter__()
        self.addCleanup(mounted.__exit__, None, None, None)
        self.disk = disk
        self.directory = disk / "store"

    def _fill(self) -> Path:
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        return ballast

    async def _fails(self, asked: Any, words: str) -> None:
        with self.assertRaises(StoreFailed) as raised:
            await asked
        self.assertFalse(raised.exception.fatal, raised.exception)
        self.assertIn(words, str(raised.exception))

    async def test_full(self) -> None:
        """Nothing is changed by what fails because the disk is full, and then all goes on."""
        await self.open_store()
        first = await self.accepted(key=self.key())
        running = await self.running()
        await self.store.write(running.id, LARGE[:100_000])
        ballast = self._fill()
        jobs = []
        full = "no space is left on its disk"
        for _ in range(1000):  # what is left of the last page of the log
            jobs.append(self.new_job())
            try:
                await self.store.accept(jobs[-1], io.BytesIO(b"x" * 4000))
            except StoreFailed as error:
                self.assertIn(full, str(error))
                self.assertFalse(error.fatal)
                break
        lost = jobs.pop()
        body = self.file(LARGE)
        await self._fails(self.store.accept(self.new_job(), body), "No space left on device")
        self.assertTrue(body.closed)
        many = [self.store.accept(self.new_job(), io.BytesIO(b"x" * 4000)) for _ in range(5)]
        for asked in many:
            await self._fails(asked, full)
        await self._fails(self.store.finish(first.id, self.outcome(), b"y" * 9000), full)
        await self._fails(self.store.finish(first.id, self.outcome(), LARGE), "No space left")
        await self._fails(self.store.write(running.id, LARGE), "No space left on device")
        await self._fails(self.store.finish(running.id, self.outcome(), None), "No space left")
        self.assertIsNone(await self.store.get(lost.id))
        self.assertEqual(await self.store.get(first.id), first)
        self.assertEqual(await self.kinds(first.id), ["state"])
        self.assertEqual((await self.store.get(running.id)).state, State.RUNNING)
        self.assertEqual(len(self.files()), 0)
        ballast.unlink()
        await self.store.finish(running.id, self.outcome(State.FAILED, status=500), b"lost")
        answer = await self.store.accept(lost, io.BytesIO(b"again"))
        self.assertTrue(answer.is_new)
        large = await self.accepted(LARGE)
        await self.reopen()
        self.assertEqual(await self.body_of(lost.id), b"again")
        self.assertEqual(await self.body_of(large.id), LARGE)
        self.assertEqual(await self.store.get(first.id), first)
        for job in jobs:
            self.assertEqual((await self.store.get(job.id)).state, State.QUEUED)

    async def test_written_before_it_is_full(self) -> None:
        """A result that was written stays until its end can be noted."""
        await self.open_store()
        record = await self.running()
        await self.store.write(record.id, LARGE[:500_000])
        ballast = self._fill()
        for _ in range(1000):
            try:
                await self.store.tell(record.id, Progress(1, 2, "x" * 1000))
            except StoreFailed:
                break
        await self._fails(self.store.finish(record.id, self.outcome(), None), "no space is left")
        ballast.unlink()
        await self.store.finish(record.id, self.outcome(), None)
        self.assertEqual(await self.result_of(record.id), LARGE[:500_000])

    async def test_full_at_its_opening(self) -> None:
        """A new store on a full disk does not open, and does when there is room."""
        ballast = self._fill()
        await self.refused(fatal=False)
        ballast.unlink()
        await self.open_store()
        await self.accepted()

    async def test_read_only(self) -> None:
        """A store on a disk that is read-only does not open, and does when it is not."""
        await self.open_store()
        record = await self.accepted()
        await self.store.close()
        remount(self.disk, "ro")
        self.assertIn("Read-only file system", await self.refused(fatal=False))
        remount(self.disk, "rw")
        self.assertEqual(await self.open_store(), [record])
