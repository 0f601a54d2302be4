"""Asking about jobs: requests that change nothing, or do no harm when they are done twice.

They are made again when a connection was lost or a server is being started again, for as long as
the client is patient.  For the reactor thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from deferpost.client.addresses import Base
from deferpost.client.connecting import Connector, Response, read_all
from deferpost.client.documents import JobDocument, read_document
from deferpost.client.errors import (
    BadAnswer,
    ClientError,
    JobGone,
    Problem,
    Unreachable,
    problem_of,
)
from deferpost.client.retrying import Retries, Trying, worth_repeating

__all__ = ["DOCUMENT_BYTES", "PROBLEM_BYTES", "Asker"]

#: The most that a document of a job, or a page of them, may have.
DOCUMENT_BYTES = 16 * 1024 * 1024

#: The most of an error that is read.
PROBLEM_BYTES = 1024 * 1024

Pairs = Iterable[tuple[str, str]]

#: Told why an attempt failed, and in how many seconds the next one is made.
Notice = Callable[[ClientError, float], None]


class Asker:
    """What a client and its jobs share.

    :param connector: sends requests.
    :param base: where the app is.
    :param retries: how patient the client is.
    :param random: gives numbers from 0 to 1.
    :param notice: told of each attempt that failed and is made again; None for nobody.
    :param memory_bytes: of an answer that are kept in memory.
    """

    def __init__(
        self,
        connector: Connector,
        base: Base,
        retries: Retries,
        random: Callable[[], float],
        notice: Notice | None,
        memory_bytes: int,
    ) -> None:
        self.connector = connector
        self.base = base
        self.memory_bytes = memory_bytes
        self._retries = retries
        self._random = random
        self._notice = notice

    @property
    def reactor(self) -> Any:
        """The reactor of the client."""
        return self.connector.reactor

    def now(self) -> float:
        """The time of the monotonic clock."""
        return float(self.reactor.seconds())

    def trying(self, *, patient: bool, until: float | None = None) -> Trying:
        """Begin an operation that may take several attempts; see :class:`Trying`."""
        return Trying(self._retries, self._random, patient=patient, until=until)

    async def pause(self, trying: Trying, error: ClientError) -> None:
        """Wait until the next attempt is due.

        :raises ClientError: the error itself, where there is none.
        """
        seconds = trying.pause_after(error, self.now(), time.time())
        if self._notice is not None:
            self._notice(error, seconds)
        await self.sleep(seconds)

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        waiting: Deferred[None] = deferLater(self.reactor, seconds)
        await waiting

    async def ask(
        self,
        method: str,
        url: str,
        fields: Pairs = (),
        *,
        wait: float = 0.0,
        until: float | None = None,
        expected: int | None = None,
        trying: Trying | None = None,
    ) -> Response:
        """Make a request until it is answered, and return the answer where it is no error.

        :param wait: seconds for which the server may wait before it answers.
        :param until: when to give up; None for when the patience ends.
        :param expected: a status that is no error, whatever it is.
        :param trying: an operation that this is part of.
        :raises JobGone: 404 or 410.
        :raises Problem: another error.
        :raises Unreachable: there was no answer.
        """
        trying = trying or self.trying(patient=True, until=until)
        fields = tuple(fields)
        while True:
            try:
                response = await self.connector.send(method, url, fields, work_seconds=wait)
                if response.status >= 400 and response.status != expected:
                    raise await self.error(response, JobGone)
                return response
            except (Unreachable, Problem) as error:
                if not worth_repeating(error, harmless=True):
                    raise
                await self.pause(trying, error)

    async def read(
        self, method: str, url: str, fields: Pairs = (), *, wait: float = 0.0, until: float | None
    ) -> tuple[Response, bytes]:
        """As :meth:`ask`, and read the body of the answer, which begins anew if it is cut off."""
        trying = self.trying(patient=True, until=until)
        while True:
            response = await self.ask(method, url, fields, wait=wait, until=until, trying=trying)
            try:
                return response, await read_all(response, DOCUMENT_BYTES)
            except Unreachable as error:
                await self.pause(trying, error)

    async def document(
        self,
        method: str,
        url: str,
        *,
        wait: float = 0.0,
        until: float | None = None,
    ) -> JobDocument:
        """Ask for the document of a job.

        :param wait: seconds that the server is to wait for the job's end.
        """
        fields = [("Accept", "application/json")]
        if wait:
            fields.append(("Prefer", f"wait={int(wait)}"))
        response, body = await self.read(method, url, fields, wait=wait, until=until)
        if response.status not in (200, 202):
            raise BadAnswer(f"the server answered {response.status} instead of the job's document")
        return read_document(body)

    async def error(self, response: Response, gone: type[Problem] = Problem) -> Problem:
        """The error that a response is.

        :param gone: its class, where it says that there is nothing.
        :raises Unreachable: it was cut off.
        """
        body = await read_all(response, PROBLEM_BYTES, cut=True)
        kind = gone if response.status in (404, 410) else Problem
        return problem_of(response.status, response.headers, body, kind)
