"""The client: posts calls, safely more than once, and knows the jobs that come of them.

For the reactor thread.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, BinaryIO, Literal
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.web.iweb import IAgent

from deferpost import __version__
from deferpost.client.addresses import base_of
from deferpost.client.asking import DOCUMENT_BYTES, Asker, Notice
from deferpost.client.connecting import Connector, Response, read_all
from deferpost.client.documents import Answer, JobDocument, read_document, read_page
from deferpost.client.downloading import answer_of, take
from deferpost.client.errors import BadAnswer, Problem, Unreachable
from deferpost.client.job import Job
from deferpost.client.receiving import Receiver
from deferpost.client.retrying import Retries, worth_repeating
from deferpost.client.uploads import BodySource, Progress
from deferpost.fields import check_field
from deferpost.units import format_duration

__all__ = ["Client", "Submitted"]

#: What comes of a call: its answer, or a job.
Submitted = Answer | Job

_RETRIES = Retries()

_TOKEN = re.compile(r"[\x21-\x7e]+")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_JOB_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")

#: Jobs that are asked for at once.
_PAGE = 50


class Client:
    """A client of one app of one server.

    Methods return Deferreds, which can be canceled, but :meth:`jobs`, which is for ``async for``,
    and :meth:`attach`, which asks nobody.  All that is said to be raised by a method that returns a
    Deferred is what that fails with.

    :param base_url: where the app is mounted: for a daemon, the root, such as
        ``http://127.0.0.1:8080``.
    :param token: sent as a bearer token, to the origin of ``base_url`` and to no other; None for
        none.
    :param reactor: None for Twisted's.
    :param agent: what connects (:class:`~twisted.web.iweb.IAgent`), such as one with a pool of
        connections; by default each request has a connection of its own.
    :param timeout: seconds without a sign of life after which a connection is taken to be lost.
    :param retries: how patient it is.
    :param memory_bytes: the most that the body of an answer may have which is kept in memory.
    :param notice: called with why an attempt has failed, and the seconds until the next one.
    :raises ValueError: the URL is none of a server, or the token cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        reactor: Any = None,
        agent: IAgent | None = None,
        timeout: float = 60.0,
        retries: Retries = _RETRIES,
        memory_bytes: int = 64 * 1024 * 1024,
        notice: Notice | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        fields = [("User-Agent", f"deferpost/{__version__}")]
        if token is not None:
            if not _TOKEN.fullmatch(token):
                raise ValueError("a token is made of printable ASCII characters without spaces")
            fields.append(("Authorization", f"Bearer {token}"))
        self._asker = Asker(
            Connector(reactor, agent, fields, timeout),
            base_of(base_url),
            retries,
            random.random,
            notice,
            memory_bytes,
        )

    def post(
        self,
        path: str,
        body: bytes | BinaryIO = b"",
        *,
        prefer_async: bool = True,
        wait: float | None = None,
        idempotency_key: str | Literal[False] | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        webhook: str | None = None,
        deadline: float | None = None,
        progress: Progress | None = None,
        to: BinaryIO | None = None,
    ) -> Deferred[Submitted]:
        """Post a call.

        It is sent again where it was not answered, or the server has no room for it.  With a key
        that does no harm: a server that keeps jobs runs it once.  Without one, it is sent again
        only where the server cannot have begun with it.

        :param path: of the route, below the app; it may have a query.
        :param body: bytes, or a binary file that can be sought; of a file, what follows the place
            where it stands.
        :param prefer_async: whether a job may come of it; if not, or if the route allows none, the
            answer is waited for.
        :param wait: seconds for which the server may wait for the answer before it makes a job of
            the call; None for none.
        :param idempotency_key: by which the server knows the call again, 1 to 255 characters of
            ASCII; None to have one made, False for none.
        :param content_type: of the body.
        :param headers: further header fields.
        :param webhook: a URL that is to be told when the job has ended.
        :param deadline: seconds that waiting and running may take together.
        :param progress: called with the bytes of the body that have been sent, and their number;
            from 0 again at each attempt.
        :param to: a file that gets the body of an answer that comes at once.
        :returns: a Deferred of an :class:`Answer`, or of a :class:`Job`; ``result()`` of either is
            the answer.
        :raises Problem: the server refused the call, or it failed.
        :raises Unreachable: there was no answer, in as many attempts as could be made.
        :raises ValueError: an argument cannot be sent.
        """
        return Deferred.fromCoroutine(
            self._post(
                self._asker.base.url(path),
                BodySource(body, progress),
                _fields(
                    prefer_async, wait, idempotency_key, content_type, headers, webhook, deadline
                ),
                Receiver(to, self._asker.memory_bytes),
                has_key=idempotency_key is not False,
                work_seconds=_work_seconds(prefer_async, wait, deadline),
            )
        )

    def attach(self, job: str) -> Job:
        """The handle of a job that exists.

        :param job: its URL, or its id.
        :raises ValueError: it is the URL of another server, to which nothing is sent, or no id.
        """
        base = self._asker.base
        if "/" in job:
            if "://" in job and not base.is_own(job):
                raise ValueError(f"{job!r} is not at {base.origin}")
            return Job(self._asker, base.own(job))
        if not _JOB_ID.fullmatch(job):
            raise ValueError(f"{job!r} is not the id of a job")
        return Job(self._asker, base.url(f"jobs/{job}"))

    async def jobs(
        self,
        *,
        state: str | Iterable[str] = (),
        limit: int | None = None,
        path: str = "jobs",
    ) -> AsyncGenerator[JobDocument, None]:
        """The jobs that may be seen, newest first.  To be used with ``async for``.

        They are asked for page by page, as they are taken.

        :param state: one, or several of which any counts; empty for all.
        :param limit: the most that are wanted; None for all.
        :param path: of the list, below the app.
        :raises Problem: the server does not tell.
        :raises Unreachable: there was no answer for longer than the client is patient.
        """
        states = [state] if isinstance(state, str) else list(state)
        left = limit
        cursor: str | None = None
        while left is None or left > 0:
            page = _PAGE if left is None else min(left, _PAGE)
            query = [*(("state", one) for one in states), ("limit", str(page))]
            if cursor is not None:
                query.append(("cursor", cursor))
            url = self._asker.base.url(f"{path}?{urlencode(query)}")
            accept = [("Accept", "application/json")]
            response, body = await self._asker.read("GET", url, accept, until=None)
            if response.status != 200:
                raise BadAnswer(f"the server answered {response.status} instead of a list of jobs")
            documents, cursor = read_page(body)
            for document in documents[:left]:
                yield document
            if left is not None:
                left -= len(documents)
            if cursor is None:
                return

    async def _post(
        self,
        url: str,
        source: BodySource,
        fields: list[tuple[str, str]],
        receiver: Receiver,
        *,
        has_key: bool,
        work_seconds: float | None,
    ) -> Submitted:
        asker = self._asker
        trying = asker.trying(patient=False)
        has_begun = False
        while True:
            try:
                response = await asker.connector.send(
                    "POST", url, fields, body=source, work_seconds=work_seconds
                )
                if response.status >= 400:
                    raise await asker.error(response)
                try:
                    if response.status == 202 and "location" in response.headers:
                        return await self._accepted(response, receiver)
                    if has_begun:
                        replayed = response.headers.get("idempotency-replayed") == "true"
                        receiver.again(same=replayed)
                    has_begun = True
                    await take(response, receiver)
                    return answer_of(response, receiver)
                finally:
                    response.body.abandon()
            except (Unreachable, Problem) as error:
                if not worth_repeating(error, harmless=has_key):
                    raise
                await asker.pause(trying, error)

    async def _accepted(self, response: Response, receiver: Receiver) -> Submitted:
        """The job of a 202; or the answer, where that is of the handler's own making."""
        body = await read_all(response, DOCUMENT_BYTES)
        try:
            document = read_document(body)
            url = self._asker.base.own(response.headers["location"])
        except (BadAnswer, ValueError):
            receiver.write(body)
            return answer_of(response, receiver)
        replayed = response.headers.get("idempotency-replayed") == "true"
        return Job(self._asker, url, document, was_replayed=replayed)


def _fields(
    prefer_async: bool,
    wait: float | None,
    idempotency_key: str | Literal[False] | None,
    content_type: str | None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    webhook: str | None,
    deadline: float | None,
) -> list[tuple[str, str]]:
    """The header fields of a call."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    fields = [(str(name), str(value)) for name, value in pairs]
    prefer = ["respond-async"] if prefer_async else []
    if wait is not None:
        if wait < 0:
            raise ValueError(f"one cannot wait for {wait:g} seconds")
        prefer.append(f"wait={int(wait)}")
    if prefer:
        fields.append(("Prefer", ", ".join(prefer)))
    if idempotency_key is None:
        idempotency_key = str(uuid.uuid4())
    if idempotency_key is not False:
        if not _KEY.fullmatch(idempotency_key):
            raise ValueError("an idempotency key has 1 to 255 printable characters of ASCII")
        escaped = idempotency_key.replace("\\", "\\\\").replace('"', '\\"')
        fields.append(("Idempotency-Key", f'"{escaped}"'))
    if content_type is not None:
        fields.append(("Content-Type", content_type))
    if webhook is not None:
        fields.append(("Webhook-URL", webhook))
    if deadline is not None:
        fields.append(("X-Timeout", format_duration(deadline)))
    for name, value in fields:
        check_field(name, value)
        if not value.isascii():
            raise ValueError(f"the value of the header field {name} is not ASCII")
    return fields


def _work_seconds(prefer_async: bool, wait: float | None, deadline: float | None) -> float | None:
    """For how long the server may be silent while it works; None for any time."""
    if prefer_async:
        # A route that allows no jobs answers when it is done, however long that takes.
        return None if deadline is None else max(deadline, wait or 0.0)
    return deadline
