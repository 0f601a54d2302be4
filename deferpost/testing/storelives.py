"""From a kept job's beginning to its end: a part of the stores' behaviour suite."""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009, PT027

from __future__ import annotations

import io
import json

from twisted.internet.defer import gatherResults

from deferpost.model import Progress, Reason, Rung, State
from deferpost.testing.storesuite import LARGE, StoreSuite

__all__ = ["LifeBehaviour"]


class LifeBehaviour(StoreSuite):
    """From a job's beginning to its end, which is never replaced."""

    async def test_whole_life(self) -> None:
        """A job that runs and succeeds has a result, and an event for each step."""
        await self.open_store()
        record = await self.accepted()
        self.time += 1
        started = await self.store.start(record.id, self.time)
        self.assertEqual(
            (started.state, started.attempt, started.started), (State.RUNNING, 1, self.time)
        )
        await self.store.tell(record.id, Progress(1, 3, "one"))
        self.assertEqual((await self.store.get(record.id)).progress, Progress(1, 3, "one"))
        self.assertIsNone(await self.store.result(record.id))
        self.time += 1.5
        outcome = self.outcome(
            status=201, headers=((b"X-A", b"\xff"), (b"X-A", b"2")), content_type="text/html"
        )
        done = await self.store.finish(record.id, outcome, b"<p>")
        self.assertEqual(done, await self.store.get(record.id))
        self.assertEqual((done.state, done.status), (State.SUCCEEDED, 201))
        self.assertEqual((done.finished, done.expires), (self.time, self.time + 60))
        self.assertEqual((done.content_type, done.result_bytes), ("text/html", 3))
        result = await self.store.result(record.id)
        self.assertEqual((result.status, result.headers), (201, outcome.headers))
        self.assertEqual(await self.result_of(record.id), b"<p>")
        self.assertIsNone(await self.store.call(record.id))
        events = await self.store.events(record.id, 0, 100)
        self.assertEqual(done.events, len(events))
        self.assertEqual([event.number for event in events], [1, 2, 3, 4])
        self.assertEqual(
            [(event.kind, json.loads(event.data)) for event in events],
            [
                ("state", _state("queued", 0, "2023-11-14T22:13:20.000Z")),
                ("state", _state("running", 1, "2023-11-14T22:13:21.000Z")),
                ("progress", {"done": 1, "total": 3, "message": "one"}),
                (
                    "end",
                    {
                        "state": "succeeded",
                        "reason": None,
                        "at": "2023-11-14T22:13:22.500Z",
                        "status": 201,
                    },
                ),
            ],
        )
        self.assertEqual(await self.store.events(record.id, 1, 2), events[1:3])
        self.assertEqual(list(await self.store.events(record.id, 4, 100)), [])
        self.assertEqual(list(await self.store.events("other", 0, 100)), [])

    async def test_results(self) -> None:
        """A result of any size, in whatever form it comes, is kept as it is."""
        await self.open_store()
        for data in (b"", b"a", LARGE[:16385], LARGE * 2):
            for body in (data, io.BytesIO(data), self.file(b"skipped" + data)):
                if not isinstance(body, (bytes, io.BytesIO)):
                    body.seek(7)
                record = await self.running()
                done = await self.store.finish(record.id, self.outcome(), body)
                self.assertEqual(done.result_bytes, len(data))
                self.assertEqual(await self.result_of(record.id), data)
                if not isinstance(body, bytes):
                    self.assertTrue(body.closed)

    async def test_written_results(self) -> None:
        """A result that is written piece by piece is kept; what a lost run wrote is not."""
        await self.open_store()
        for piece in (b"piece", LARGE):
            record = await self.running()
            await self.store.write(record.id, b"lost" + LARGE)
            self.assertEqual((await self.store.requeue(record.id)).state, State.QUEUED)
            await self.store.start(record.id, self.time)
            await gatherResults([self.store.write(record.id, piece) for _ in range(3)])
            await self.store.finish(record.id, self.outcome(), None)
            self.assertEqual(await self.result_of(record.id), piece * 3)
            self.assertEqual(await self.kinds(record.id), ["state"] * 4 + ["end"])
        record = await self.running()
        await self.store.finish(record.id, self.outcome(status=204), None)
        self.assertEqual(await self.result_of(record.id), b"")
        record = await self.running()
        await self.store.write(record.id, LARGE)
        await self.store.finish(record.id, self.outcome(State.FAILED, status=500), b"failed")
        self.assertEqual(await self.result_of(record.id), b"failed")

    async def test_end_stays(self) -> None:
        """What is said of a job that has ended changes nothing."""
        await self.open_store()
        outcome = self.outcome(
            State.FAILED,
            status=500,
            reason=Reason.WORKER_LOST,
            rung=Rung.KILLED,
            problem=b'{"status":500}',
        )
        record = await self.running()
        done = await self.store.finish(record.id, outcome, b"first")
        self.assertEqual(
            (done.reason, done.rung, done.problem),
            (Reason.WORKER_LOST, Rung.KILLED, b'{"status":500}'),
        )
        self.time += 5
        again = await self.store.finish(record.id, self.outcome(), self.file(LARGE))
        self.assertEqual(again, done)
        await self.store.write(record.id, b"written")
        self.assertEqual(await self.store.finish(record.id, self.outcome(), None), done)
        self.assertIsNone(await self.store.start(record.id, self.time))
        self.assertIsNone(await self.store.requeue(record.id))
        self.assertIsNone(await self.store.cancel(record.id, Reason.REQUESTED))
        self.assertIsNone(await self.store.tell(record.id, Progress(1)))
        self.assertEqual(await self.store.get(record.id), done)
        self.assertEqual(await self.result_of(record.id), b"first")
        self.assertEqual(await self.kinds(record.id), ["state", "state", "end"])

    async def test_two_ends_at_once(self) -> None:
        """Of two ends that come at once, the first is the one."""
        await self.open_store()
        record = await self.running()
        first, second = await gatherResults(
            [
                self.store.finish(record.id, self.outcome(), self.file(LARGE)),
                self.store.finish(record.id, self.outcome(State.FAILED), b"second"),
            ]
        )
        self.assertEqual(first, second)
        self.assertEqual(first.state, State.SUCCEEDED)
        self.assertEqual(await self.result_of(record.id), LARGE)

    async def test_no_such_end(self) -> None:
        """A job that is not there does not end, and none ends in a state that is not final."""
        await self.open_store()
        body = self.file(LARGE)
        with self.assertRaises(LookupError):
            await self.store.finish("none", self.outcome(), body)
        self.assertTrue(body.closed)
        with self.assertRaises(ValueError):
            self.store.finish("none", self.outcome(State.RUNNING), b"")
        for asked in (
            self.store.start("none", self.time),
            self.store.requeue("none"),
            self.store.cancel("none", Reason.REQUESTED),
            self.store.tell("none", Progress(1)),
            self.store.call("none"),
            self.store.result("none"),
        ):
            self.assertIsNone(await asked)

    async def test_requeued(self) -> None:
        """A job runs again as often as it may."""
        await self.open_store()
        record = await self.accepted(retries=2)
        self.assertIsNone(await self.store.requeue(record.id))  # it does not run
        for attempt in (1, 2):
            self.assertEqual((await self.store.start(record.id, self.time)).attempt, attempt)
            self.assertIsNone(await self.store.start(record.id, self.time))
            again = await self.store.requeue(record.id)
            self.assertEqual((again.state, again.retries), (State.QUEUED, 2 - attempt))
        self.assertEqual((await self.store.start(record.id, self.time)).attempt, 3)
        self.assertIsNone(await self.store.requeue(record.id))
        self.assertEqual((await self.store.get(record.id)).state, State.RUNNING)
        events = await self.store.events(record.id, 2, 1)
        self.assertEqual(json.loads(events[0].data)["reason"], "worker_lost")

    async def test_canceled(self) -> None:
        """A job that runs is to end from then on; a queued one stays until it is ended."""
        await self.open_store()
        queued = await self.accepted()
        self.assertEqual(await self.store.cancel(queued.id, Reason.REQUESTED), queued)
        self.assertEqual(await self.store.get(queued.id), queued)
        record = await self.running()
        told = await self.store.cancel(record.id, Reason.REQUESTED)
        self.assertEqual((told.state, told.reason), (State.CANCELING, Reason.REQUESTED))
        self.assertEqual(await self.store.cancel(record.id, Reason.SHUTDOWN), told)
        self.assertIsNone(await self.store.start(record.id, self.time))
        self.assertIsNone(await self.store.requeue(record.id))
        outcome = self.outcome(State.CANCELED, status=499, reason=told.reason, rung=Rung.TOLD)
        done = await self.store.finish(record.id, outcome, b"")
        self.assertEqual((done.state, done.rung), (State.CANCELED, Rung.TOLD))
        self.assertEqual(await self.kinds(record.id), ["state", "state", "state", "end"])


def _state(state: str, attempt: int, at: str) -> dict[str, object]:
    return {"state": state, "reason": None, "attempt": attempt, "at": at}
