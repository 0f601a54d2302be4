"""The life of a job, as a table: which event leads from which state to which.

Decides only; it does nothing and knows neither clock nor reactor.  "Canceled" and "expired" are
reached when the code has ended and not before: until then the job is "canceling".
"""

from __future__ import annotations

import enum

from deferpost.model import Reason, State

__all__ = ["DEADLINES", "ENDED", "REASONS", "TABLE", "Event", "ImpossibleEvent", "advance"]


class Event(enum.StrEnum):
    """What can happen to a job."""

    __hash__ = str.__hash__  # as in State

    START = "start"  #: a worker has taken it
    CANCEL = "cancel"  #: nobody wants it any more, or the service stops
    EXPIRE = "expire"  #: its time is up
    SUCCEED = "succeed"  #: its code has ended with an answer that was delivered
    FAIL = "fail"  #: its code has ended with an error, or its worker is lost
    RETRY = "retry"  #: its worker is lost, and it is to run again
    STOP = "stop"  #: its code has ended after a cancel or an expiry


#: (state, event) → state.  A pair that is not listed cannot happen, and says so.
TABLE: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.START): State.RUNNING,
    (State.QUEUED, Event.CANCEL): State.CANCELED,
    (State.QUEUED, Event.EXPIRE): State.EXPIRED,
    (State.QUEUED, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.RETRY): State.QUEUED,
    (State.RUNNING, Event.CANCEL): State.CANCELING,
    (State.RUNNING, Event.EXPIRE): State.CANCELING,
    (State.CANCELING, Event.STOP): State.CANCELED,
}

#: Reasons of a job whose time is up.
DEADLINES = frozenset({Reason.DEADLINE_QUEUE, Reason.DEADLINE_RUN, Reason.DEADLINE_TOTAL})

#: Event → the reasons that it can give a job; an event that is not listed gives none.  A job
#: keeps the first that it gets.
REASONS: dict[Event, frozenset[Reason]] = {
    Event.CANCEL: frozenset(
        {
            Reason.CLIENT_DISCONNECTED,
            Reason.REQUESTED,
            Reason.SHUTDOWN,
            Reason.ERROR,  # its answer could not be written
        }
    ),
    Event.EXPIRE: DEADLINES,
    Event.FAIL: frozenset({Reason.ERROR, Reason.WORKER_LOST, Reason.CLIENT_DISCONNECTED}),
}

#: States that are final.
ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED})


class ImpossibleEvent(AssertionError):
    """An event that the table does not have: a defect of the pool that reported it."""


def advance(state: State, event: Event, reason: Reason | None) -> State:
    """The state that follows.

    :param state: the state now.
    :param event: what happened.
    :param reason: the reason that the job has, of this event or of an earlier one: a job that is
        canceling because its time was up ends as expired.
    :returns: the next state.
    :raises ImpossibleEvent: the table has no such transition.
    """
    try:
        following = TABLE[state, event]
    except KeyError:
        raise ImpossibleEvent(f"a job that is {state} cannot {event}") from None
    if following is State.CANCELED and reason in DEADLINES:
        return State.EXPIRED
    return following
