"""Lists of jobs, webhooks, and what is forgotten when: a part of the stores' behaviour suite."""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009

from __future__ import annotations

from deferpost.model import State
from deferpost.records import HookAttempt, HookState
from deferpost.testing.storesuite import LARGE, StoreSuite

__all__ = ["ExpiryBehaviour", "HookBehaviour", "ListBehaviour"]


class ListBehaviour(StoreSuite):
    """Pages of jobs."""

    async def _numbers(
        self, principal: str | None, states: frozenset[State], most: int
    ) -> list[int]:
        """Those of all pages."""
        found: list[int] = []
        before = None
        while True:
            page = await self.store.page(principal, states, before, most)
            self.assertLessEqual(len(page.records), most)
            found += [record.number for record in page.records]
            before = page.next
            if before is None:
                return found
            self.assertEqual(len(page.records), most)

    async def test_pages(self) -> None:
        """Page by page, jobs are listed newest first, those that are wanted and no others."""
        await self.open_store()
        jobs = []
        for number in range(24):
            principal = (None, "alice", "bob")[number % 3]
            if number % 4 == 0:
                record = await self.running(principal=principal)
            elif number % 4 == 1:
                record = await self.ended(principal=principal)
            else:
                record = await self.accepted(principal=principal)
            jobs.append(record)
        jobs.reverse()
        some = frozenset({State.QUEUED, State.SUCCEEDED})
        for states in (frozenset[State](), frozenset({State.RUNNING}), some, frozenset(State)):
            for principal in (None, "alice", "nobody"):
                expected = [
                    record.number
                    for record in jobs
                    if (not states or record.state in states)
                    and principal in (None, record.principal)
                ]
                for most in (1, 4, 24, 100):
                    self.assertEqual(await self._numbers(principal, states, most), expected)
        page = await self.store.page(None, frozenset(), None, 24)
        self.assertEqual((list(page.records), page.next), (jobs, None))


class ExpiryBehaviour(StoreSuite):
    """What is forgotten, and when."""

    async def test_deleted(self) -> None:
        """A job that has ended can be deleted, with all that belongs to it; another cannot."""
        await self.open_store()
        record = await self.running(key=self.key())
        self.assertFalse(await self.store.delete(record.id))
        self.assertFalse(await self.store.delete("none"))
        await self.store.finish(record.id, self.outcome(), LARGE)
        self.assertTrue(await self.store.delete(record.id))
        self.assertFalse(await self.store.delete(record.id))
        for asked in (
            self.store.get(record.id),
            self.store.result(record.id),
            self.store.keyed("scope", "key"),
        ):
            self.assertIsNone(await asked)
        self.assertEqual(await self.kinds(record.id), [])
        self.assertTrue(self.store.authentic(record.id))
        again = await self.accepted(id=record.id, key=self.key())
        self.assertGreater(again.number, record.number)
        self.assertEqual(await self.kinds(record.id), ["state"])

    async def test_expired(self) -> None:
        """Jobs whose time is over are forgotten, first those that expired first."""
        await self.open_store()
        jobs = [await self.ended(ttl=float(ttl), key=self.key(str(ttl))) for ttl in (30, 10, 20)]
        queued = await self.accepted(ttl=0.0)
        self.assertEqual(await self.store.clean(self.time + 9.9, 10), 0)
        self.assertEqual(await self.store.keyed("scope", "10"), jobs[1])
        self.assertEqual(await self.store.clean(self.time + 100, 1), 1)
        self.assertIsNone(await self.store.keyed("scope", "10"))
        self.assertEqual(await self.store.get(jobs[2].id), jobs[2])
        self.assertEqual(await self.store.clean(self.time + 20, 10), 1)
        self.assertIsNone(await self.store.get(jobs[2].id))
        self.assertEqual(await self.store.clean(self.time + 100, 0), 0)
        self.assertEqual(await self.store.clean(self.time + 100, 10), 1)
        self.assertEqual(await self.store.get(queued.id), queued)

    async def test_expired_but_not_told(self) -> None:
        """A job whose webhook is still to be told is not forgotten, whatever its time."""
        await self.open_store()
        jobs = [await self.ended(ttl=1.0, webhook="https://example.com/") for _ in range(3)]
        plain = await self.ended(ttl=2.0)
        over = self.time + 100
        self.assertEqual(await self.store.clean(over, 10), 1)
        self.assertIsNone(await self.store.get(plain.id))
        attempt = HookAttempt(at=self.time, error="refused")
        for record, state, due in (
            (jobs[0], HookState.PENDING, over + 60),
            (jobs[1], HookState.FAILED, None),
            (jobs[2], HookState.DELIVERED, None),
        ):
            await self.store.hook_tried(record.id, attempt, state, due)
        self.assertEqual(await self.store.clean(over, 10), 2)
        self.assertIsNone(await self.store.get(jobs[1].id))
        self.assertIsNone(await self.store.get(jobs[2].id))
        self.assertEqual(await self.store.clean(over + 100, 10), 0)
        await self.store.hook_tried(jobs[0].id, attempt, HookState.FAILED, None)
        self.assertEqual(await self.store.clean(over, 10), 1)

    async def test_many_expired(self) -> None:
        """However many are to be forgotten, they are, and no more than was asked for."""
        await self.open_store()
        for _ in range(500):
            await self.ended(ttl=1.0)
        self.assertEqual(await self.store.clean(self.time + 2, 450), 450)
        self.assertEqual(await self.store.clean(self.time + 2, 1000), 50)


class HookBehaviour(StoreSuite):
    """Webhooks: what is to be told, and what came of it."""

    async def test_hooks(self) -> None:
        """A webhook is due when its job has ended, and as often as it is said to be after that."""
        await self.open_store()
        await self.ended()
        waiting = await self.accepted(webhook="https://example.com/1")
        self.assertIsNone(await self.store.next_hook())
        done = await self.ended(webhook="https://example.com/2")
        self.time += 5
        later = await self.ended(webhook="https://example.com/3")
        assert done.hook is not None
        self.assertEqual((done.hook.state, done.hook.due), (HookState.PENDING, self.time - 5))
        self.assertEqual(await self.store.next_hook(), self.time - 5)
        self.assertEqual(list(await self.store.hooks_due(self.time - 6, 10)), [])
        self.assertEqual(list(await self.store.hooks_due(self.time, 10)), [done, later])
        self.assertEqual(list(await self.store.hooks_due(self.time, 1)), [done])
        first = HookAttempt(at=self.time, error="refused")
        await self.store.hook_tried(done.id, first, HookState.PENDING, self.time + 60)
        self.assertEqual(list(await self.store.hooks_due(self.time + 1, 10)), [later])
        due = await self.store.hooks_due(self.time + 60, 10)
        self.assertEqual([record.id for record in due], [later.id, done.id])
        second = HookAttempt(at=self.time + 60, status=204)
        await self.store.hook_tried(done.id, second, HookState.DELIVERED, None)
        await self.store.hook_tried(later.id, first, HookState.FAILED, None)
        hook = (await self.store.get(done.id)).hook
        self.assertEqual(
            (hook.state, hook.attempts, hook.due), (HookState.DELIVERED, (first, second), None)
        )
        self.assertEqual((await self.store.get(later.id)).hook.state, HookState.FAILED)
        self.assertEqual((await self.store.get(waiting.id)).hook.state, HookState.WAITING)
        self.assertIsNone(await self.store.next_hook())
        await self.store.hook_tried("none", first, HookState.FAILED, None)
