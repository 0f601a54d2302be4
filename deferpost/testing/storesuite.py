"""What the tests of the stores' behaviour suite are built on: a store, and jobs for it."""

# unittest's assertions say more under trial, which does not rewrite `assert`.
# ruff: noqa: PT009

from __future__ import annotations

import io
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from deferpost.model import CallHead, State
from deferpost.records import JobRecord, KeyOf, NewJob, Outcome

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

__all__ = ["LARGE", "StoreSuite", "head_of"]

#: A body that is too large to be kept like a small one, whatever the store.
LARGE = bytes(range(256)) * 4096


def head_of(id: str, principal: str | None = None, route: str = "/a") -> CallHead:
    """The head of a call that has something of everything.

    :param id: of the request.
    """
    fields = ((b"Content-Type", b"text/plain"), (b"X-Bytes", b"\xff\xfe"))
    return CallHead(
        id, route, "POST", route, b"a=%20&b", fields, ("192.0.2.1", 4711), 30.0, None, principal
    )


class StoreSuite(TestCase):
    """The ground of the suite's mixins; in them is described what to set.

    :cvar reactor: the reactor that runs the tests.
    """

    reactor: Any

    def make_store(self) -> Any:
        """One more store of the kind under test, not open, with :meth:`now` for its clock.

        Of those that last, each is the same store, in :attr:`folder`.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        """Prepare a folder; no store yet."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.time = 1_700_000_000.0
        self.store: Any = None
        self._counted = itertools.count(1)

    def now(self) -> float:
        """The time, which tests move by setting ``time``."""
        return self.time

    async def open_store(self) -> list[JobRecord]:
        """Make a store and open it.

        :returns: the jobs that have not ended.
        """
        store = self.make_store()
        records = list(await store.open())
        self.store = store
        self.addCleanup(store.close)
        return records

    def new_job(self, id: str | None = None, **more: Any) -> NewJob:
        """A new job.

        :param id: its id; made by the store if not given.
        :param more: more of it; ``principal`` and ``route`` go into its head.
        """
        head = head_of(
            f"request-{next(self._counted)}", more.pop("principal", None), more.pop("route", "/a")
        )
        known: dict[str, Any] = {
            "id": self.store.new_id() if id is None else id,
            "head": head,
            "pool": "thread",
            "created": self.time,
            "urgency": 3,
            "retries": 1,
            "ttl": 60.0,
        }
        return NewJob(**{**known, **more})

    @staticmethod
    def key(key: str = "key", scope: str = "scope", fingerprint: bytes = b"digest") -> KeyOf:
        """A key of a client."""
        return KeyOf(scope, key, fingerprint)

    def file(self, data: bytes) -> BinaryIO:
        """A body in an unlinked file, as a large one arrives."""
        file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 (the store closes it)
        file.write(data)
        file.seek(0)
        return io.BufferedReader(file)

    async def accepted(self, body: bytes = b"body", **more: Any) -> JobRecord:
        """A new job that was kept."""
        job = self.new_job(body_bytes=len(body), **more)
        answer = await self.store.accept(job, io.BytesIO(body))
        self.assertTrue(answer.is_new)
        record: JobRecord = answer.record
        return record

    async def running(self, **more: Any) -> JobRecord:
        """A new job that runs."""
        record = await self.accepted(**more)
        started: JobRecord | None = await self.store.start(record.id, self.time)
        assert started is not None
        return started

    async def ended(self, body: bytes = b"result", **more: Any) -> JobRecord:
        """A new job that has succeeded."""
        record = await self.accepted(**more)
        done: JobRecord = await self.store.finish(record.id, self.outcome(), body)
        return done

    def outcome(self, state: State = State.SUCCEEDED, **more: Any) -> Outcome:
        """How a job ends, now."""
        known: dict[str, Any] = {"at": self.time, "status": 200}
        return Outcome(state=state, **{**known, **more})

    async def result_of(self, id: str) -> bytes:
        """The body of the result of a job that has ended."""
        result = await self.store.result(id)
        body = result.body
        if not isinstance(body, bytes):
            with body:
                body = body.read()
        self.assertEqual(len(body), result.length)
        data: bytes = body
        return data

    async def body_of(self, id: str) -> bytes:
        """The body of the call of a job that has not ended."""
        call = await self.store.call(id)
        with call.body as body:
            data: bytes = body.read()
        return data

    async def kinds(self, id: str) -> list[str]:
        """The kinds of the events of a job, whose numbers have no gaps."""
        events = await self.store.events(id, 0, 1000)
        self.assertEqual([event.number for event in events], list(range(1, len(events) + 1)))
        return [event.kind for event in events]
