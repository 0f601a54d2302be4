"""The life of a job: what can follow what, and that every life ends once."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.lifecycle import (
    DEADLINES,
    ENDED,
    REASONS,
    TABLE,
    Event,
    ImpossibleEvent,
    advance,
)
from deferpost.model import Reason, State

#: What may happen, written down a second time: a transition is not changed by accident.
LIFE = {
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

PAIRS = list(product(State, Event))
EVENTS = st.lists(st.tuples(st.sampled_from(Event), st.sampled_from([None, *Reason])), max_size=12)


def life(events: list[tuple[Event, Reason | None]]) -> list[State]:
    """The states of a job to which these are reported, as far as they are possible."""
    state, first = State.QUEUED, None
    states = [state]
    for event, reason in events:
        try:
            state = advance(state, event, first or reason)
        except ImpossibleEvent:
            continue
        first = first or reason
        states.append(state)
    return states


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in LIFE])
def test_possible(state: State, event: Event) -> None:
    """Each event that is possible in a state leads to the state that the design says."""
    assert advance(state, event, Reason.REQUESTED) is LIFE[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in LIFE])
@pytest.mark.parametrize("reason", [None, *Reason])
def test_impossible(state: State, event: Event, reason: Reason | None) -> None:
    """An event that cannot happen in a state is refused, and the refusal names both."""
    with pytest.raises(ImpossibleEvent, match=rf"^a job that is {state} cannot {event}$"):
        advance(state, event, reason)


def test_table_is_the_whole_truth() -> None:
    """The table has these transitions and no others."""
    assert TABLE == LIFE


@pytest.mark.parametrize("reason", [None, *Reason])
@pytest.mark.parametrize(
    ("state", "event"), [(State.QUEUED, Event.CANCEL), (State.CANCELING, Event.STOP)]
)
def test_expired_or_canceled(state: State, event: Event, reason: Reason | None) -> None:
    """A job whose time was up ends as expired; one stopped for another reason, as canceled."""
    expected = State.EXPIRED if reason in DEADLINES else State.CANCELED
    assert advance(state, event, reason) is expected


@pytest.mark.parametrize("reason", [None, *Reason])
@pytest.mark.parametrize("event", [Event.SUCCEED, Event.FAIL, Event.CANCEL, Event.EXPIRE])
def test_reason_does_not_end_what_runs(event: Event, reason: Reason | None) -> None:
    """Whatever the reason, code that runs is canceling, and never canceled or expired, yet."""
    assert advance(State.RUNNING, event, reason) is LIFE[State.RUNNING, event]


def test_every_reason_has_its_event() -> None:
    """Each reason is given by an event, one that is about time by none but the expiry."""
    given = [reason for reasons in REASONS.values() for reason in reasons]
    assert set(given) == set(Reason)
    assert {reason for reason in DEADLINES if given.count(reason) > 1} == set()
    assert REASONS[Event.EXPIRE] == DEADLINES
    assert set(REASONS) <= {event for _, event in TABLE}
    assert Event.SUCCEED not in REASONS


def test_the_ended_are_final() -> None:
    """Nothing happens to a job any more that has ended, and every other can still end."""
    assert {state for state, _ in TABLE}.isdisjoint(ENDED)
    assert set(State) - ENDED == {state for state, _ in TABLE}
    ending = set(ENDED)
    for _ in State:
        ending |= {state for (state, _), following in TABLE.items() if following in ending}
    assert ending == set(State)


@given(EVENTS)
def test_any_order_ends_at_most_once(events: list[tuple[Event, Reason | None]]) -> None:
    """In whatever order things are reported, a job ends at most once, and stays ended."""
    states = life(events)
    assert [state for state in states[:-1] if state in ENDED] == []


@given(EVENTS)
def test_stop_comes_last(events: list[tuple[Event, Reason | None]]) -> None:
    """A job is canceled or expired only when its code has ended, or is to begin once more."""
    states = life(events)
    if states[-1] in (State.CANCELED, State.EXPIRED):
        assert states[-2] in (State.CANCELING, State.QUEUED)


@given(EVENTS)
def test_canceling_never_succeeds(events: list[tuple[Event, Reason | None]]) -> None:
    """What a job gives after it was told to stop does not make it succeed or fail."""
    states = life(events)
    if State.CANCELING in states:
        assert states[-1] in (State.CANCELING, State.CANCELED, State.EXPIRED)
