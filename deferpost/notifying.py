"""Telling webhooks of the end of kept jobs, until each has been told or is given up.

What is due is in the store, so that a restart loses none.  Each attempt is noted there before the
same webhook is told again; an attempt that the end of the process cuts off is not noted, and made
again by the next one, so that each is told at least once.  Which hosts may be told is looked at
again before each.  For the reactor thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from deferpost.errors import HTTPError, StoreFailed
from deferpost.records import Hook, HookAttempt, HookState, JobRecord
from deferpost.store.changes import rfc3339
from deferpost.webhooks.delivery import Sent
from deferpost.webhooks.schedule import hook_after
from deferpost.webhooks.signing import hook_id

__all__ = ["AGAIN_SECONDS", "AT_ONCE", "LATEST_SECONDS", "LEAST_SECONDS", "Notifier", "Send"]

_log = Logger(namespace="deferpost.webhooks")

#: How many are told at the same time.
AT_ONCE = 16

#: Seconds after which a store is asked again that has failed.
AGAIN_SECONDS = 5.0

#: Seconds between two looks that nothing has asked for, at the least and at the latest.
LEAST_SECONDS, LATEST_SECONDS = 0.05, 3600.0

#: Makes one attempt; see :meth:`deferpost.webhooks.delivery.HookSender.send`.
Send: TypeAlias = Callable[[str, str, bytes, float], Deferred[Sent]]


class Notifier:
    """Tells webhooks.

    A look at the store begins to tell those that are due, as far as there is room.  The next look
    is when a job has ended, when one has been told, or when the next one is due.

    :param store: gives the open store (:class:`deferpost.interfaces.IJobStore`); it raises
        :class:`~deferpost.errors.StoreFailed` where there is none.
    :param reactor: the reactor (:class:`IReactorTime`).
    :param document: makes the document of a job.
    :param wall: seconds since the epoch.
    :param chance: gives a number from 0 to 1, so that those that are due together part.
    """

    def __init__(
        self,
        store: Callable[[], Any],
        reactor: Any,
        document: Callable[[JobRecord], bytes],
        *,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._document = document
        self._wall = wall
        self._chance = chance
        self._send: Send | None = None
        self._check: Callable[[str], str] | None = None
        self._under_way: dict[str, Deferred[None]] = {}
        self._told: set[str] = set()  # since the look that is under way has begun
        self._timer: Any = None
        self._looking = False
        self._again = False
        self._closed = False

    def use(self, send: Send | None, check: Callable[[str], str]) -> None:
        """Tell them in this way from now on, and begin.

        :param send: makes one attempt; None where ``check`` refuses every URL.
        :param check: gives the URL as it is used, or refuses it by
            :class:`~deferpost.errors.HTTPError`.
        """
        self._send = send
        self._check = check
        self.look()

    def look(self) -> None:
        """Look what is due: a job has ended, or the time for another attempt has come."""
        if self._closed or self._check is None:
            return
        if self._looking:
            self._again = True
            return
        self._looking = True
        self._stop_timer()
        Deferred.fromCoroutine(self._look()).addBoth(self._looked)

    async def _look(self) -> float:
        """Begin to tell those that are due.

        :returns: seconds until something is due again that is not under way.
        """
        self._told.clear()
        store = self._store()
        first: float | None = await store.next_hook()
        if first is None:
            return LATEST_SECONDS
        if first > self._wall():
            return first - self._wall()
        # Those that are under way are due as well, and are fewer than that.
        records: Sequence[JobRecord] = await store.hooks_due(self._wall() + LATEST_SECONDS, AT_ONCE)
        for record in records:
            if self._closed or len(self._under_way) >= AT_ONCE:
                break  # the end of one is the next look
            # What was told a moment ago may have been read before that was noted.
            if record.id in self._under_way or record.id in self._told:
                continue
            assert record.hook is not None
            assert record.hook.due is not None
            seconds = record.hook.due - self._wall()
            if seconds > 0:
                return seconds
            self._begin(record)
        return LATEST_SECONDS

    def _looked(self, result: Any) -> None:
        self._looking = False
        again, self._again = self._again, False
        if isinstance(result, Failure):
            if result.check(StoreFailed) is None:
                _log.failure("it is not known which webhooks are due", failure=result)
            result = AGAIN_SECONDS
        if self._closed:
            return
        seconds = min(max(result, LEAST_SECONDS), LATEST_SECONDS)
        self._timer = self._reactor.callLater(seconds, self.look)
        if again:
            self.look()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _begin(self, record: JobRecord) -> None:
        telling = Deferred.fromCoroutine(self._tell(record))
        self._under_way[record.id] = telling

        def told(_: None) -> None:
            del self._under_way[record.id]
            self._told.add(record.id)
            self.look()

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) is None or not self._closed:
                # It stays where it is: one that is not noted would be told without end.
                _log.failure(
                    "[{job}] its webhook is not told before the next start",
                    failure=failure,
                    job=record.request_id,
                )

        telling.addCallbacks(told, failed)

    async def _tell(self, record: JobRecord) -> None:
        """Make one attempt, and note what came of it."""
        hook, ended_at = record.hook, record.finished
        assert hook is not None
        assert ended_at is not None
        sent = await self._attempt(record, hook)
        attempt = sent.attempt
        after = hook_after(hook, attempt, ended_at, self._wall(), self._chance(), sent.retry_after)
        await self._note(record, attempt, after)
        said = attempt.status if attempt.status is not None else attempt.error
        if after.state is HookState.DELIVERED:
            _log.info("[{job}] its webhook was told: {said}", job=record.request_id, said=said)
        else:
            _log.warn(
                "[{job}] its webhook was not told: {said}; {then}",
                job=record.request_id,
                said=said,
                then="it is tried again" if after.due is not None else "it is not tried any more",
            )

    async def _attempt(self, record: JobRecord, hook: Hook) -> Sent:
        at = self._wall()
        assert self._check is not None
        try:
            url = self._check(hook.url)
            assert self._send is not None
            return await self._send(url, hook_id(record), self._body(record), at)
        except HTTPError as error:
            return Sent(HookAttempt(at=at, error=error.detail))
        except CancelledError:
            raise
        except Exception:
            _log.failure("[{job}] its webhook could not be told", job=record.request_id)
            words = "it could not be sent; the log of the server says why"
            return Sent(HookAttempt(at=at, error=words))

    async def _note(self, record: JobRecord, attempt: HookAttempt, after: Hook) -> None:
        """Have the store know; it is tried until the store can, and nothing is sent for that."""
        said = False
        while True:
            try:
                store = self._store()
                found: JobRecord | None = await store.get(record.id)
                if found is not None and found.number == record.number:  # else it was deleted
                    await store.hook_tried(record.id, attempt, after.state, after.due)
            except StoreFailed as error:
                if not said:
                    said = True
                    _log.error(
                        "[{job}] what became of its webhook could not be noted: {error}; that is "
                        "tried again each {seconds:g} s",
                        job=record.request_id,
                        error=error.reason,
                        seconds=AGAIN_SECONDS,
                    )
            else:
                return
            await deferLater(self._reactor, AGAIN_SECONDS)

    def _body(self, record: JobRecord) -> bytes:
        """The notification, by the Standard Webhooks scheme."""
        assert record.finished is not None
        return msgspec.json.encode(
            {
                "type": f"job.{record.state}",
                "timestamp": rfc3339(record.finished),
                "data": msgspec.Raw(self._document(record)),
            }
        )

    def close(self) -> None:
        """Tell no more; what is under way is broken off, and made again after the next start."""
        self._closed = True
        self._stop_timer()
        for telling in list(self._under_way.values()):
            telling.cancel()
