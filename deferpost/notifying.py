"""Telling webhooks of the end of kept jobs, until each has been told or is given up.

What is due is in the store, so that a restart loses none.  Each attempt is noted there before the
next is planned.  Which hosts may be told is looked at again before each.  For the reactor thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from deferpost.errors import HTTPError, StoreFailed
from deferpost.records import HookAttempt, HookState, JobRecord
from deferpost.webhooks.delivery import HookSender
from deferpost.webhooks.schedule import hook_after
from deferpost.webhooks.signing import hook_id

__all__ = ["Notifier"]

_log = Logger(namespace="deferpost.webhooks")

#: How many are told at the same time.
AT_ONCE = 16

#: Seconds after which the store is asked again that could not say what is due, and at the latest.
AGAIN_SECONDS, LATEST_SECONDS = 5.0, 3600.0


class Notifier:
    """Tells webhooks.

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
        self._sender: HookSender | None = None
        self._check: Callable[[str], str] | None = None
        self._under_way: dict[str, Deferred[None]] = {}
        self._timer: Any = None
        self._looking = False
        self._again = False
        self._closed = False

    def use(self, sender: HookSender, check: Callable[[str], str]) -> None:
        """Tell them in this way from now on, and begin.

        :param sender: makes one attempt.
        :param check: gives the URL as it is used, or refuses it by
            :class:`~deferpost.errors.HTTPError`.
        """
        self._sender = sender
        self._check = check
        self.look()

    def look(self) -> None:
        """Look what is due: a job has ended, or the time for another attempt has come."""
        if self._closed or self._sender is None:
            return
        if self._looking:
            self._again = True
            return
        self._looking = True
        looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(lambda failure: _log.failure("webhooks are not told", failure=failure))
        looking.addBoth(self._looked)

    async def _look(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        pause = LATEST_SECONDS
        try:
            store = self._store()
            room = AT_ONCE - len(self._under_way)
            # Those that are under way are due as well.
            due: Sequence[JobRecord] = await store.hooks_due(self._wall(), AT_ONCE)
            for record in due:
                if room > 0 and record.id not in self._under_way:
                    room -= 1
                    self._begin(record)
            if room > 0:
                later = await store.next_hook()
                if later is not None and later > self._wall():
                    pause = min(pause, later - self._wall())
                elif later is not None and not self._under_way:
                    pause = 0.0
        except StoreFailed:
            pause = AGAIN_SECONDS
        if not self._closed:
            self._timer = self._reactor.callLater(pause, self.look)

    def _looked(self, _: object) -> None:
        self._looking = False
        again, self._again = self._again, False
        if again:
            self.look()

    def _begin(self, record: JobRecord) -> None:
        telling = Deferred.fromCoroutine(self._tell(record))
        self._under_way[record.id] = telling

        def told(result: Any) -> None:
            self._under_way.pop(record.id, None)
            self.look()

        telling.addErrback(
            lambda failure: _log.failure(
                "[{job}] its webhook is not told", failure=failure, job=record.request_id
            )
        ).addBoth(told)

    async def _tell(self, record: JobRecord) -> None:
        hook, ended_at = record.hook, record.finished
        assert hook is not None
        assert ended_at is not None
        assert self._sender is not None
        assert self._check is not None
        retry_after = None
        at = self._wall()
        try:
            url = self._check(hook.url)
        except HTTPError as error:
            attempt = HookAttempt(at=at, error=error.detail)
        else:
            sent = await self._sender.send(url, hook_id(record), self._body(record), at)
            attempt, retry_after = sent.attempt, sent.retry_after
        if self._closed and attempt.status is None:
            return  # it was broken off, and is made again by the process after this one
        after = hook_after(hook, attempt, ended_at, self._wall(), self._chance(), retry_after)
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
        await self._store().hook_tried(record.id, attempt, after.state, after.due)

    def _body(self, record: JobRecord) -> bytes:
        """The notification, by the Standard Webhooks scheme."""
        return msgspec.json.encode(
            {
                "type": f"job.{record.state}",
                "timestamp": msgspec.json.decode(self._document(record))["finished"],
                "data": msgspec.Raw(self._document(record)),
            }
        )

    def close(self) -> None:
        """Tell no more; what is under way is broken off, and made again after the next start."""
        self._closed = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for telling in list(self._under_way.values()):
            telling.cancel()
