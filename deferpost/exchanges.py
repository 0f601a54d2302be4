"""The life of an HTTP exchange, as a table: what follows from what, and what is to be done then.

An exchange is a request whose job was submitted, and its response.  It ends once: with a whole
response, with a client that has left, or with a response that broke off.  This module decides
only; :mod:`deferpost.web.exchange` does what it says.  It knows neither clock nor reactor.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from deferpost.model import OnDisconnect

__all__ = [
    "OVER",
    "TABLE",
    "Act",
    "ExchangeEvent",
    "ExchangeState",
    "ImpossibleExchange",
    "Step",
    "advance",
    "job_goes_on",
]


class ExchangeState(enum.StrEnum):
    """Where an exchange stands."""

    __hash__ = str.__hash__  # an Enum's own is a function in Python, and the table is asked often

    WAITING = "waiting"  #: nothing of a response is written
    WRITING = "writing"  #: the response is being written
    BREAKING = "breaking"  #: the response broke off, and its connection is being closed
    ANSWERED = "answered"  #: the response is written whole
    LEFT = "left"  #: the client had left before its response was whole
    BROKEN = "broken"  #: the connection has ended before the response, by our doing


class ExchangeEvent(enum.StrEnum):
    """What can happen to an exchange."""

    __hash__ = str.__hash__

    ANSWER = "answer"  #: the job has an answer
    FAIL = "fail"  #: the job will have none
    WRITTEN = "written"  #: the response is finished
    LEAVE = "leave"  #: the client's connection is gone
    BREAK = "break"  #: the body of the answer broke off
    DEFECT = "defect"  #: an error of our own, with nothing written yet
    DEFECT_MIDWAY = "defect_midway"  #: an error of our own, with a part of the response written


class Act(enum.Enum):
    """What an exchange has to do after an event."""

    NOTHING = "nothing"
    WRITE = "write the answer"
    EXPLAIN = "log the error where others can act, and write it"
    LOG = "log the error where others can act"
    DROP = "let the answer go, unread"
    RELEASE = "cancel the job, or let it finish"
    STOP = "stop writing; cancel the job of a stream, or let it finish"
    APOLOGIZE = "log the defect, and write a 500"
    DISCONNECT = "close the connection, so that the client sees no end of the response"
    CLOSE = "count it as over"


class Step(NamedTuple):
    """What follows an event.

    :ivar state: the next state.
    :ivar act: what is to be done.
    """

    state: ExchangeState
    act: Act


_S, _E = ExchangeState, ExchangeEvent

#: (state, event) → what follows.  A pair that is not listed cannot happen, and says so.
TABLE: dict[tuple[ExchangeState, ExchangeEvent], Step] = {
    (_S.WAITING, _E.ANSWER): Step(_S.WRITING, Act.WRITE),
    (_S.WAITING, _E.FAIL): Step(_S.WRITING, Act.EXPLAIN),
    (_S.WAITING, _E.LEAVE): Step(_S.LEFT, Act.RELEASE),
    (_S.WRITING, _E.WRITTEN): Step(_S.ANSWERED, Act.CLOSE),
    (_S.WRITING, _E.LEAVE): Step(_S.LEFT, Act.STOP),
    (_S.WRITING, _E.BREAK): Step(_S.BREAKING, Act.DISCONNECT),
    (_S.WRITING, _E.DEFECT): Step(_S.WRITING, Act.APOLOGIZE),
    (_S.WRITING, _E.DEFECT_MIDWAY): Step(_S.BREAKING, Act.DISCONNECT),
    (_S.BREAKING, _E.LEAVE): Step(_S.BROKEN, Act.CLOSE),
    # What the job still says after its client has left.
    (_S.LEFT, _E.ANSWER): Step(_S.LEFT, Act.DROP),
    (_S.LEFT, _E.FAIL): Step(_S.LEFT, Act.LOG),
    # Errors of ours in whatever is left to do.
    (_S.BREAKING, _E.DEFECT_MIDWAY): Step(_S.BREAKING, Act.NOTHING),
    (_S.ANSWERED, _E.DEFECT_MIDWAY): Step(_S.ANSWERED, Act.NOTHING),
    (_S.LEFT, _E.DEFECT): Step(_S.LEFT, Act.NOTHING),
    (_S.LEFT, _E.DEFECT_MIDWAY): Step(_S.LEFT, Act.NOTHING),
    # A departure that is told a second time, or after the end.
    (_S.ANSWERED, _E.LEAVE): Step(_S.ANSWERED, Act.NOTHING),
    (_S.LEFT, _E.LEAVE): Step(_S.LEFT, Act.NOTHING),
    (_S.BROKEN, _E.LEAVE): Step(_S.BROKEN, Act.NOTHING),
}

#: States in which it is over for the client and for whoever counts.
OVER = frozenset({_S.ANSWERED, _S.LEFT, _S.BROKEN})


class ImpossibleExchange(AssertionError):
    """An event that the table does not have: a defect of ours."""


def advance(state: ExchangeState, event: ExchangeEvent) -> Step:
    """What follows an event.

    :param state: the state now.
    :param event: what happened.
    :returns: the next state, and what is to be done.
    :raises ImpossibleExchange: the table has no such pair.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise ImpossibleExchange(f"an exchange that is {state} cannot {event}") from None


def job_goes_on(on_disconnect: OnDisconnect, has_started: bool) -> bool:
    """Whether the job of a client that has left goes on to its end.

    One that has not started is removed in any case: nothing would be lost with it.

    :param on_disconnect: what its route says.
    :param has_started: whether a worker has taken it.
    """
    return has_started and on_disconnect is OnDisconnect.FINISH
