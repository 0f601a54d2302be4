"""What a client asks for by ``X-Timeout`` and ``Priority``, and what it gets of that.

Decides only.  ``X-Timeout`` says how long waiting and running may take together; it never makes a
limit of the server's longer.  ``Priority`` is that of RFC 9218, of which ``u`` counts; a malformed
one is ignored, as that RFC wants it, while a malformed ``X-Timeout`` is an error: a client that
sets a limit relies on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from deferpost.errors import HTTPError
from deferpost.jobs import DEFAULT_URGENCY
from deferpost.units import parse_duration

__all__ = ["USUAL", "Asked", "Terms", "asked_of", "terms_of", "timeout_of", "urgency_of"]

_TIMEOUT, _PRIORITY = b"x-timeout", b"priority"

_KEY = r"[a-z*][a-z0-9_\-.*]*"
# The bare items of RFC 9651, each with a first character of its own but for the numbers.
_BARE = (
    r"(?:\"(?:[ !#-\[\]-~]|\\[\"\\])*\""
    r"|-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}(?![0-9.])"
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*"
    r"|:[A-Za-z0-9+/]*={0,2}:|\?[01]|@-?[0-9]{1,15}|%\"[ !#-~]*\")"
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_INNER_LIST = rf"\( *(?:{_BARE}{_PARAMETERS}(?: +|(?=\))))*\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_INNER_LIST}|{_BARE}))?{_PARAMETERS}")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


class Asked(msgspec.Struct, frozen=True):
    """What a request asks for.

    :ivar timeout: seconds for waiting and running together; None where it does not say.
    :ivar urgency: 0 for the most urgent to 7 for the least; None where it does not say.
    """

    timeout: float | None = None
    urgency: int | None = None


class Terms(msgspec.Struct, frozen=True):
    """On what terms a call is taken; the times are in seconds of the monotonic clock.

    :ivar created: when it came.
    :ivar start_by: when it must have started; None for no limit.
    :ivar finish_by: when all of it must be over; None for no limit.
    :ivar urgency: 0 for the most urgent to 7 for the least.
    """

    created: float | None = None
    start_by: float | None = None
    finish_by: float | None = None
    urgency: int = DEFAULT_URGENCY


_NOTHING = Asked()

#: The terms of a call without limits that asks for nothing.
USUAL = Terms()


def asked_of(request: Any) -> Asked:
    """Read what a request asks for.

    :param request: of our own wire or of a site of Twisted's; its head is there.
    :raises deferpost.errors.HTTPError: 400.
    """
    framing = getattr(request, "framing", None)
    if framing is None:
        headers = request.requestHeaders
        timeouts = headers.getRawHeaders(_TIMEOUT, [])
        priorities = headers.getRawHeaders(_PRIORITY, [])
    elif framing.asks:
        fields = [(name.lower(), value) for name, value in request.fields]
        timeouts = [value for name, value in fields if name == _TIMEOUT]
        priorities = [value for name, value in fields if name == _PRIORITY]
    else:
        return _NOTHING
    if not timeouts and not priorities:
        return _NOTHING
    return Asked(timeout_of(timeouts), urgency_of(priorities))


def timeout_of(values: Iterable[bytes]) -> float | None:
    """Read ``X-Timeout``.

    :param values: of all the fields of that name.
    :returns: seconds, more than none; None where there is no such field.
    :raises deferpost.errors.HTTPError: 400, for anything but one duration: text such as ``30s``,
        or a number of seconds.
    """
    seconds: set[float] = set()
    for value in values:
        for text in value.decode("latin-1").split(","):
            try:
                duration = parse_duration(text)
                if not duration:
                    raise ValueError("it is no time at all")
            except ValueError:
                raise HTTPError(
                    400, "X-Timeout is a duration of more than nothing, such as 30s, 500ms or 2.5."
                ) from None
            seconds.add(duration)
    if len(seconds) > 1:
        raise HTTPError(400, "X-Timeout comes more than once, with different durations.")
    return seconds.pop() if seconds else None


def urgency_of(values: Iterable[bytes]) -> int | None:
    """Read the urgency of ``Priority`` (RFC 9218, section 4.1).

    :param values: of all the fields of that name.
    :returns: 0 to 7; None where it is missing, out of range or malformed (section 4).
    """
    text = ", ".join(value.decode("latin-1").strip(" \t") for value in values).strip(" ")
    urgency: int | None = None
    at = 0
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        if member[1] == "u":  # the last one counts (RFC 9651, section 4.2.2)
            said = member[2] or ""
            urgency = int(said) if re.fullmatch("-?0*[0-7]", said) else None
            if urgency is not None and said.startswith("-") and urgency:
                urgency = None
        at = member.end()
        if at == len(text):
            break
        comma = _COMMA.match(text, at)
        if comma is None or comma.end() == len(text):
            return None
        at = comma.end()
    return urgency


def terms_of(
    asked: Asked, queue: float | None, total: float | None, most_urgent: int, now: float
) -> Terms:
    """On what terms a call is taken.

    :param asked: what its client asks for.
    :param queue: seconds that it may wait by the server's word; None for no limit.
    :param total: seconds that it may wait and run by the server's word; None for no limit.
    :param most_urgent: the least number that a client gets of what is more urgent than usual.
    :param now: the time.
    """
    if asked.timeout is not None and (total is None or asked.timeout < total):
        total = asked.timeout
    urgency = asked.urgency
    if urgency is None:
        urgency = DEFAULT_URGENCY
    elif urgency < DEFAULT_URGENCY:
        urgency = min(DEFAULT_URGENCY, max(urgency, most_urgent))
    return Terms(
        now,
        None if queue is None else now + queue,
        None if total is None else now + total,
        urgency,
    )
