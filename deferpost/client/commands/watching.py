"""Following a job to its end, with what it tells shown meanwhile."""

from __future__ import annotations

import contextlib

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from deferpost.client.commands.bar import Following
from deferpost.client.commands.screen import Screen
from deferpost.client.documents import JobDocument, JobEvent
from deferpost.client.errors import BadAnswer, ClientError
from deferpost.client.job import Job

__all__ = ["watch"]

#: Seconds between two looks at the place in the queue.
_QUEUE_SECONDS = 2.0


class _Seen:
    """The job as it is shown."""

    def __init__(self, reactor: object, document: JobDocument | None) -> None:
        self._reactor = reactor
        self._now = reactor.seconds  # type: ignore[attr-defined]
        self._since = self._now()
        self._view = Following("job", 0.0)
        if document is not None:
            self.update(document)

    def view(self) -> Following:
        return msgspec.structs.replace(self._view, seconds=self._now() - self._since)

    def update(self, document: JobDocument) -> None:
        """Take what a document says."""
        self._change(document.state)
        position = None if document.queue is None else document.queue.position
        self._view = msgspec.structs.replace(self._view, position=position)
        if document.progress is not None:
            self._progress(msgspec.to_builtins(document.progress))

    def take(self, event: JobEvent) -> None:
        """Take what an event says."""
        if not isinstance(event.data, dict):
            return
        if event.kind == "state" and isinstance(event.data.get("state"), str):
            self._change(event.data["state"])
        elif event.kind == "progress":
            self._progress(event.data)

    @property
    def is_queued(self) -> bool:
        return self._view.state in ("job", "queued")

    def _change(self, state: str) -> None:
        if state != self._view.state:
            self._since = self._now()
            self._view = Following(state, 0.0)

    def _progress(self, members: dict[str, object]) -> None:
        done, total, message = (members.get(name) for name in ("done", "total", "message"))
        self._view = msgspec.structs.replace(
            self._view,
            done=done if isinstance(done, (int, float)) else None,
            total=total if isinstance(total, (int, float)) else None,
            message=message if isinstance(message, str) else "",
        )


async def watch(reactor: object, screen: Screen, job: Job) -> JobDocument:
    """Wait for the end of a job.

    :param reactor: for the time.
    :param screen: where it is shown, if that is live.
    :returns: the job as it then is.
    """
    if not screen.is_live:
        return await job.wait()
    seen = _Seen(reactor, job.accepted)
    screen.show(seen.view)
    queue = Deferred.fromCoroutine(_look_at_the_queue(reactor, job, seen))
    queue.addErrback(lambda failure: failure.trap(CancelledError, ClientError) and None)
    try:
        async with contextlib.aclosing(job.events()) as events:
            async for event in events:
                seen.take(event)
    except BadAnswer:
        pass  # something between here and the server does not pass events on
    finally:
        queue.cancel()
    try:
        return await job.wait()
    finally:
        screen.clear()


async def _look_at_the_queue(reactor: object, job: Job, seen: _Seen) -> None:
    """The place in the queue is in no event: ask for it while it waits."""
    while seen.is_queued:
        document = await job.document()
        if seen.is_queued:
            seen.update(document)
        pause: Deferred[None] = deferLater(reactor, _QUEUE_SECONDS)  # type: ignore[arg-type]
        await pause
