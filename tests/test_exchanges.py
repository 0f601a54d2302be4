"""The life of an HTTP exchange: what can follow what, and that every life ends once."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.exchanges import (
    OVER,
    TABLE,
    Act,
    ExchangeEvent,
    ExchangeState,
    ImpossibleExchange,
    advance,
    job_goes_on,
)
from deferpost.model import OnDisconnect

#: Acts by which an exchange is counted as over.
CLOSING = {Act.CLOSE, Act.RELEASE, Act.STOP}


@pytest.mark.parametrize(("state", "event"), list(product(ExchangeState, ExchangeEvent)))
def test_listed_or_refused(state: ExchangeState, event: ExchangeEvent) -> None:
    """An event that cannot happen in a state is refused, and the refusal names both."""
    if (state, event) in TABLE:
        assert advance(state, event) == TABLE[state, event]
    else:
        with pytest.raises(
            ImpossibleExchange, match=f"^an exchange that is {state} cannot {event}"
        ):
            advance(state, event)


def test_what_is_over_stays_over() -> None:
    """Nothing leads out of an end, and every other state can still end."""
    assert all(step.state is state for (state, _), step in TABLE.items() if state in OVER)
    ending = set(OVER)
    for _ in ExchangeState:
        ending |= {state for (state, _), step in TABLE.items() if step.state in ending}
    assert ending == set(ExchangeState)


@pytest.mark.parametrize("state", ExchangeState)
def test_a_client_may_leave_at_any_time(state: ExchangeState) -> None:
    """A departure is expected in every state, also a second one and one after the end."""
    step = advance(state, ExchangeEvent.LEAVE)
    assert step.state in OVER
    if state in OVER:
        assert step == (state, Act.NOTHING)


@given(st.lists(st.sampled_from(ExchangeEvent), max_size=12))
def test_one_end_in_any_order(events: list[ExchangeEvent]) -> None:
    """In whatever order things happen, it begins one response at most, and is over once."""
    state, acts, ends = ExchangeState.WAITING, [], 0
    for event in events:
        try:
            step = advance(state, event)
        except ImpossibleExchange:
            continue
        ends += step.state in OVER and state not in OVER
        assert (step.act in CLOSING) == (step.state in OVER and state not in OVER)
        acts.append(step.act)
        state = step.state
    assert sum(act in (Act.WRITE, Act.EXPLAIN) for act in acts) <= 1
    assert sum(act in CLOSING for act in acts) == ends == (state in OVER)
    assert acts.count(Act.DISCONNECT) <= 1


@pytest.mark.parametrize(
    ("on_disconnect", "has_started", "expected"),
    [
        ("cancel", True, False),
        ("cancel", False, False),
        ("finish", True, True),
        ("finish", False, False),
    ],
)
def test_job_goes_on(on_disconnect: str, has_started: bool, expected: bool) -> None:
    """Only a job that has started goes on without its client, and only where its route says so."""
    assert job_goes_on(OnDisconnect(on_disconnect), has_started) is expected
