"""The events of a job as they happen, over as many connections as it takes.

A connection that is lost is made again from behind the last event that was got
(``Last-Event-ID``), so none is missed and none comes twice.  For the reactor thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from deferpost.client.asking import Asker
from deferpost.client.connecting import Response
from deferpost.client.documents import JobEvent
from deferpost.client.errors import BadAnswer, ClientError, Unreachable
from deferpost.client.eventreading import EventReader, ServerEvent

__all__ = ["follow"]

_END = "end"


async def follow(asker: Asker, url: str, after: int) -> AsyncGenerator[JobEvent, None]:
    """The events of a job, to its end.

    :param url: of the job's events.
    :param after: the number of the last one that is not wanted; 0 for all.
    :raises JobGone: there is no such job, or no longer.
    :raises Unreachable: the server could not be reached for longer than the client is patient.
    :raises BadAnswer: the server left one out.
    """
    last = after
    trying = asker.trying(patient=True)
    while True:
        fields = [("Accept", "text/event-stream"), ("Cache-Control", "no-store")]
        if last:
            fields.append(("Last-Event-ID", str(last)))
        response = await asker.ask("GET", url, fields, trying=trying)
        lost: ClientError = Unreachable("the stream of events ended early", was_sent=True)
        try:
            _check(response)
            reader = EventReader()
            while data := await response.body.read():
                trying = asker.trying(patient=True)  # there is life
                for event in reader.feed(data):
                    found = _read(event, last)
                    if found is None:
                        continue
                    last = found.number
                    yield found
                    if found.kind == _END:
                        return
        except Unreachable as error:
            lost = error
        finally:
            response.body.abandon()
        await asker.pause(trying, lost)


def _check(response: Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status != 200 or kind != "text/event-stream":
        raise BadAnswer(
            f"the server answered {response.status} {kind or 'without a type'} instead of events"
        )


def _read(event: ServerEvent, last: int) -> JobEvent | None:
    """An event of a job; None for one that was there before."""
    if not (event.id.isascii() and event.id.isdecimal()) or len(event.id) > 18:
        raise BadAnswer(f"an event of the server has no number: {event.id[:40]!r}")
    number = int(event.id)
    if number <= last:
        return None
    if number > last + 1:
        raise BadAnswer(f"the server left out events {last + 1} to {number - 1} of the job")
    try:
        return JobEvent(number, event.kind, msgspec.json.decode(event.data))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"event {number} of the job is no JSON: {error}") from None
