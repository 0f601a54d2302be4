"""The behaviour suite that every :class:`deferpost.interfaces.IJobStore` passes.

For a store of your own, derive a test case from the mixins and :class:`twisted.trial.unittest.
TestCase`, and set what :class:`deferpost.testing.storesuite.StoreSuite` says::

    class StoreTests(StoreBehaviour, LastingBehaviour, TestCase):
        reactor = reactor

        def make_store(self):
            return MyStore(self.folder / "store", self.reactor, now=self.now)
"""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009, PT027

from __future__ import annotations

import io

from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from deferpost.errors import StoreFailed
from deferpost.interfaces import IJobStore
from deferpost.model import Progress, Reason, State
from deferpost.testing.storelists import ExpiryBehaviour, HookBehaviour, ListBehaviour
from deferpost.testing.storelives import LifeBehaviour
from deferpost.testing.storesuite import LARGE, StoreSuite

__all__ = ["AcceptBehaviour", "LastingBehaviour", "StoreBehaviour"]


class AcceptBehaviour(StoreSuite):
    """New jobs: each is kept once, with its body."""

    async def test_interface(self) -> None:
        """It has all that the interface names, and answers no call before its caller goes on."""
        self.assertEqual(await self.open_store(), [])
        verifyObject(IJobStore, self.store)
        asked = self.store.get("a")
        self.assertFalse(asked.called)
        self.assertIsNone(await asked)

    async def test_accepted(self) -> None:
        """A new job is queued, and has what it came with."""
        await self.open_store()
        job = self.new_job(
            principal="alice",
            route="/rst",
            urgency=1,
            retries=4,
            start_by=self.time + 1,
            finish_by=self.time + 2,
            key=self.key(),
            webhook="https://example.com/hook",
            body_bytes=4,
        )
        body = io.BytesIO(b"body")
        answer = await self.store.accept(job, body)
        self.assertTrue(body.closed)
        self.assertEqual((answer.is_new, answer.is_same), (True, True))
        record = answer.record
        self.assertEqual(record, await self.store.get(job.id))
        self.assertEqual(record, await self.store.keyed("scope", "key"))
        self.assertEqual(
            (record.id, record.request_id, record.route, record.pool, record.principal),
            (job.id, job.head.id, "/rst", "thread", "alice"),
        )
        self.assertEqual((record.state, record.number, record.events), (State.QUEUED, 1, 1))
        self.assertEqual((record.urgency, record.retries, record.ttl), (1, 4, 60.0))
        self.assertEqual(
            (record.created, record.start_by, record.finish_by),
            (self.time, self.time + 1, self.time + 2),
        )
        self.assertEqual((record.key, record.body_bytes), (self.key(), 4))
        assert record.hook is not None
        self.assertEqual((record.hook.url, record.hook.state), (job.webhook, "waiting"))
        call = await self.store.call(job.id)
        self.assertEqual((call.head, call.body.read()), (job.head, b"body"))
        call.body.close()

    async def test_bodies(self) -> None:
        """A body of any size, in memory or in a file, is kept as it is, and closed."""
        await self.open_store()
        for data in (b"", b"a", LARGE[:16384], LARGE[:16385], LARGE, LARGE * 2):
            for body in (io.BytesIO(data), self.file(data)):
                job = self.new_job(body_bytes=len(data))
                answer = await self.store.accept(job, body)
                self.assertTrue(body.closed)
                self.assertEqual(answer.record.body_bytes, len(data))
                self.assertEqual(await self.body_of(job.id), data)

    async def test_same_key(self) -> None:
        """A second job with a key is not kept; whether it is the same, its fingerprint says."""
        await self.open_store()
        first = await self.accepted(key=self.key())
        for fingerprint, same in ((b"digest", True), (b"other", False)):
            job = self.new_job(key=self.key(fingerprint=fingerprint))
            body = self.file(LARGE)
            answer = await self.store.accept(job, body)
            self.assertTrue(body.closed)
            self.assertEqual((answer.is_new, answer.is_same), (False, same))
            self.assertEqual(answer.record, first)
            self.assertIsNone(await self.store.get(job.id))
        other = await self.accepted(key=self.key(scope="other"))
        self.assertEqual(await self.store.keyed("other", "key"), other)
        self.assertIsNone(await self.store.keyed("none", "key"))

    async def test_same_id(self) -> None:
        """A second job with an id is not kept."""
        await self.open_store()
        first = await self.accepted(id="mine", key=self.key("mine"))
        keyless = await self.accepted(id="keyless")
        for job, same, there in (
            (self.new_job("mine", key=self.key("mine")), True, first),
            (self.new_job("mine", key=self.key("mine", fingerprint=b"other")), False, first),
            (self.new_job("mine"), False, first),
            (self.new_job("keyless"), False, keyless),
        ):
            answer = await self.store.accept(job, io.BytesIO(b"again"))
            self.assertEqual((answer.is_new, answer.is_same), (False, same))
            self.assertEqual(answer.record, there)
        self.assertEqual(await self.body_of("mine"), b"body")

    async def test_at_once(self) -> None:
        """Of jobs that come at once each key and each id gets one; numbers go up without a twin."""
        await self.open_store()
        jobs = [self.new_job(key=self.key(str(number % 7))) for number in range(100)]
        jobs += [self.new_job(f"id-{number % 5}") for number in range(50)]
        answers = await gatherResults(
            [
                self.store.accept(job, self.file(LARGE) if number % 10 == 0 else io.BytesIO(b"b"))
                for number, job in enumerate(jobs)
            ]
        )
        new = [answer.record for answer in answers if answer.is_new]
        self.assertEqual(len(new), 12)
        self.assertEqual(len({record.number for record in new}), 12)
        for job, answer in zip(jobs, answers, strict=True):
            self.assertEqual(answer.record.key, job.key)
            if job.key is None:
                self.assertEqual(answer.record.id, job.id)
        page = await self.store.page(None, frozenset(), None, 100)
        numbers = [record.number for record in page.records]
        self.assertEqual(numbers, sorted((record.number for record in new), reverse=True))

    async def test_in_order(self) -> None:
        """What is asked of one job without waiting takes effect in order, reading included."""
        await self.open_store()
        for body in (io.BytesIO(b"small"), self.file(LARGE)):
            job = self.new_job(key=self.key("in order" + str(body)), body_bytes=len(LARGE))
            assert job.key is not None
            asked = [
                self.store.accept(job, body),
                self.store.get(job.id),
                self.store.keyed(job.key.scope, job.key.key),
                self.store.start(job.id, self.time),
                self.store.write(job.id, LARGE),
                self.store.tell(job.id, Progress(1, 2, "half")),
                self.store.get(job.id),
                self.store.finish(job.id, self.outcome(), None),
                self.store.events(job.id, 0, 10),
                self.store.delete(job.id),
                self.store.get(job.id),
            ]
            answers = await gatherResults(asked)
            states = [getattr(answer, "state", None) for answer in answers]
            self.assertEqual(states[1:4], ["queued", "queued", "running"])
            self.assertEqual(answers[6].progress, Progress(1, 2, "half"))
            self.assertEqual((answers[7].state, answers[7].result_bytes), ("succeeded", len(LARGE)))
            kinds = [event.kind for event in answers[8]]
            self.assertEqual(kinds, ["state", "state", "progress", "end"])
            self.assertEqual(answers[9:], [True, None])

    async def test_canceled_deferred(self) -> None:
        """Whoever cancels a Deferred is not told; the operation is done all the same."""
        await self.open_store()
        job = self.new_job()
        asked = self.store.accept(job, self.file(LARGE))
        seen: list[object] = []
        asked.addErrback(seen.append)
        asked.cancel()
        self.assertEqual(len(seen), 1)
        self.assertEqual((await self.store.get(job.id)).state, State.QUEUED)
        call = self.store.call(job.id)
        call.addErrback(seen.append)
        call.cancel()
        self.assertEqual(await self.body_of(job.id), LARGE)

    async def test_ids(self) -> None:
        """Ids are its own and no two are the same; no other text is taken for one."""
        await self.open_store()
        ids = {self.store.new_id() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        for id in ids:
            self.assertRegex(id, r"\A[A-Za-z0-9_.~-]{20,128}\Z")
            self.assertTrue(self.store.authentic(id))
        flipped = "".join("B" if letter == "A" else "A" for letter in id)
        for other in ("", "a", "é" * len(id), "=" * len(id), id + "A", id[:-1], id[::-1], flipped):
            self.assertFalse(self.store.authentic(other))
        for place, letter in enumerate(id):
            other = id[:place] + ("B" if letter == "A" else "A") + id[place + 1 :]
            self.assertFalse(self.store.authentic(other))

    async def test_closed(self) -> None:
        """What was asked for is done before it closes; after that, and before, nothing is."""
        store = self.make_store()
        early = io.BytesIO(b"early")
        await self.open_store()
        job = self.new_job()
        with self.assertRaises(StoreFailed):
            await store.get("a")
        with self.assertRaises(StoreFailed):
            await store.accept(job, early)
        self.assertTrue(early.closed)
        asked = self.store.accept(job, self.file(LARGE))
        await self.store.close()
        self.assertTrue((await asked).is_new)
        late = self.file(LARGE)
        for asked in (self.store.get(job.id), self.store.accept(job, late), self.store.open()):
            with self.assertRaises(StoreFailed):
                await asked
        self.assertTrue(late.closed)
        await self.store.close()
        await store.close()


class LastingBehaviour(StoreSuite):
    """What outlives a store that was closed; for those whose :meth:`make_store` gives it again."""

    async def _reopen(self) -> list[str]:
        await self.store.close()
        return [record.id for record in await self.open_store()]

    async def test_reopened(self) -> None:
        """All is there when it is opened again; jobs that have not ended are told, oldest first."""
        await self.open_store()
        queued = await self.accepted(LARGE, key=self.key())
        running = await self.running()
        canceling = await self.running()
        canceling = await self.store.cancel(canceling.id, Reason.REQUESTED)
        await self.store.write(running.id, LARGE)
        done = await self.ended(LARGE)
        self.assertEqual(await self._reopen(), [queued.id, running.id, canceling.id])
        for record in (queued, running, canceling, done):
            self.assertEqual(await self.store.get(record.id), record)
            self.assertTrue(self.store.authentic(record.id))
        self.assertEqual(await self.body_of(queued.id), LARGE)
        self.assertEqual(await self.body_of(running.id), b"body")
        self.assertEqual(await self.result_of(done.id), LARGE)
        self.assertEqual(await self.kinds(done.id), ["state", "end"])
        self.assertEqual(await self.store.keyed("scope", "key"), queued)
        # What was written for a run that is over is not there any more.
        await self.store.finish(running.id, self.outcome(), None)
        self.assertEqual(await self.result_of(running.id), b"")

    async def test_numbers_after_deletion(self) -> None:
        """No number is used twice, not even that of a job that was deleted before it was closed."""
        await self.open_store()
        record = await self.ended()
        self.assertTrue(await self.store.delete(record.id))
        await self._reopen()
        self.assertEqual((await self.accepted()).number, record.number + 1)

    async def test_opened_once(self) -> None:
        """While one has it, nobody else gets it; then somebody does."""
        await self.open_store()
        second = self.make_store()
        with self.assertRaises(StoreFailed) as raised:
            await second.open()
        self.assertTrue(raised.exception.fatal)
        await second.close()
        self.assertEqual((await self.accepted()).number, 1)
        self.assertEqual(len(await self._reopen()), 1)


class StoreBehaviour(AcceptBehaviour, LifeBehaviour, ListBehaviour, ExpiryBehaviour, HookBehaviour):
    """All that is true of every store."""
