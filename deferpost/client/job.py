"""The handle of a job that a server has accepted.  For the reactor thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import BinaryIO
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from deferpost.client.asking import Asker
from deferpost.client.documents import Answer, JobDocument, JobEvent
from deferpost.client.downloading import download
from deferpost.client.errors import JobGone, NotEnded, Problem, Unreachable
from deferpost.client.following import follow
from deferpost.client.receiving import Receiver
from deferpost.client.retrying import worth_repeating
from deferpost.model import Headers

__all__ = ["Job"]

#: Seconds for which one request waits for the end of a job; proxies seldom allow a minute.
_POLL_SECONDS = 30.0

#: Seconds between two requests, where the server does not wait.
_PAUSES = (0.5, 1.0, 2.0, 5.0)


class Job:
    """A job: look at it, wait for it, get its result, follow it, end it.

    Made by :meth:`deferpost.client.Client.post` and :meth:`deferpost.client.Client.attach`.  A
    server that is being started again is waited for, as its jobs outlive it.  All methods return
    Deferreds, which can be canceled, but :meth:`events`.

    :ivar url: of the job, at the server's origin as the client knows it.
    :ivar accepted: the job as it was when it was accepted; None where it was attached to.
    :ivar was_replayed: whether it is that of an earlier call with the same key.
    """

    def __init__(
        self,
        asker: Asker,
        url: str,
        accepted: JobDocument | None = None,
        *,
        was_replayed: bool = False,
    ) -> None:
        self._asker = asker
        self.url = url.rstrip("/")
        self.accepted = accepted
        self.was_replayed = was_replayed

    def __repr__(self) -> str:
        return f"<Job {self.url}>"

    @property
    def id(self) -> str:
        """Its id."""
        if self.accepted is not None:
            return self.accepted.id
        return urlsplit(self.url).path.rpartition("/")[2]

    def document(self) -> Deferred[JobDocument]:
        """The job as it is now.

        Fails with :class:`JobGone`, :class:`Problem` or :class:`Unreachable`.
        """
        return Deferred.fromCoroutine(self._asker.document("GET", self.url))

    def wait(self, timeout: float | None = None) -> Deferred[JobDocument]:
        """Wait until it has ended, in whatever way.

        :param timeout: seconds after which to fail with :class:`NotEnded`; None for no limit.
        :returns: a Deferred of the job as it then is; it fails as :meth:`document` does, too.
        """
        return Deferred.fromCoroutine(self._wait(timeout))

    def result(self, to: BinaryIO | None = None, timeout: float | None = None) -> Deferred[Answer]:
        """Wait until it has ended, and get its result.

        :param to: a file that gets the body, open for writing in binary mode; by default it is in
            the answer, and has a bound.
        :param timeout: seconds to wait for its end, as :meth:`wait` has it.
        :returns: a Deferred of the answer.  It fails with :class:`Problem` where the job failed or
            was canceled, and as :meth:`wait` does.
        """
        return Deferred.fromCoroutine(self._result(to, timeout))

    def events(self, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """What happens to it, as it happens, to its end.

        To be used with ``async for``, in a coroutine.  Whoever leaves the loop early closes it
        (:func:`contextlib.aclosing`), or the connection stays until it is collected.

        :param after: the number of the last event that is not wanted; 0 for all.
        """
        return follow(self._asker, f"{self.url}/events", after)

    def cancel(self) -> Deferred[JobDocument]:
        """Ask for its end; nothing if it has ended.

        :returns: a Deferred of the job as it then is: it may still be ``canceling``.
        """
        return Deferred.fromCoroutine(self._asker.document("POST", f"{self.url}/cancel"))

    def delete(self) -> Deferred[bool]:
        """Have it forgotten, with its result; one that has not ended is canceled instead.

        :returns: a Deferred of whether it is forgotten.
        """
        return Deferred.fromCoroutine(self._delete())

    async def _wait(self, timeout: float | None) -> JobDocument:
        asker = self._asker
        until = None if timeout is None else asker.now() + timeout
        document = self.accepted
        pauses = iter(_PAUSES)
        while True:
            began = asker.now()
            left = _POLL_SECONDS if until is None else until - began
            if left < 0.0:
                raise NotEnded(f"the job has not ended within {timeout:g} seconds", document)
            # What is waited for is a whole number of seconds.
            wait = float(int(min(left, _POLL_SECONDS)))
            try:
                document = await asker.document("GET", self.url, wait=wait, until=until)
            except Unreachable as error:
                if until is None or asker.now() + 1.0 < until:
                    raise
                raise NotEnded(f"{error}; the job may go on", document) from error
            if document.ended:
                return document
            if asker.now() - began < wait / 2 or not wait:
                pause = next(pauses, _PAUSES[-1])
                if until is not None:
                    pause = max(min(pause, until - asker.now()), 0.01)
                await asker.sleep(pause)

    async def _result(self, to: BinaryIO | None, timeout: float | None) -> Answer:
        document = await self._wait(timeout)
        status = document.result.status if document.result else None
        error = document.error or {}
        if status is None and isinstance(error.get("status"), int):
            status = error["status"]
        receiver = Receiver(to, self._asker.memory_bytes)
        try:
            return await download(self._asker, f"{self.url}/result", status, receiver)
        except JobGone:
            raise
        except Problem as problem:
            if problem.reason is None and document.reason is not None and not problem.members:
                raise _problem_of(document, problem) from problem
            raise

    async def _delete(self) -> bool:
        asker = self._asker
        trying = asker.trying(patient=True)
        sent_before = False
        while True:
            try:
                response = await asker.connector.send("DELETE", self.url)
                if response.status >= 400:
                    raise await asker.error(response, JobGone)
                response.body.abandon()
                return response.status == 204
            except (Unreachable, Problem) as error:
                if sent_before and isinstance(error, JobGone):
                    return True
                if not worth_repeating(error, harmless=True):
                    raise
                sent_before = sent_before or isinstance(error, Unreachable)
                await asker.pause(trying, error)


def _problem_of(document: JobDocument, problem: Problem) -> Problem:
    """The error of a job whose result has none of its own to tell."""
    error = document.error or {}
    return Problem(
        problem.status,
        str(error.get("title") or problem.title),
        str(error.get("detail") or problem.detail or f"the job is {document.state}"),
        reason=document.reason,
        id=document.id,
        members=error,
        headers=Headers(problem.headers.raw),
        body=problem.body,
    )
