"""The store in memory: when it tells, and how it fails where a test wants it to."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from deferpost.errors import StoreFailed
from deferpost.records import NewJob
from deferpost.store.memory import MemoryStore
from deferpost.testing.storesuite import head_of


def _new(store: MemoryStore) -> NewJob:
    return NewJob(
        id=store.new_id(),
        head=head_of("request"),
        pool="thread",
        created=0.0,
        urgency=3,
        retries=0,
        ttl=1.0,
    )


def _result(clock: Clock, asked: Deferred[Any]) -> Any:
    """What a Deferred fires with in the next turn."""
    told: list[Any] = []
    asked.addBoth(told.append)
    assert told == []
    clock.advance(0)
    return told[0]


def test_later() -> None:
    """It tells in a later turn what it has done, so that nobody relies on less."""
    clock = Clock()
    store = MemoryStore(clock)
    assert _result(clock, store.open()) == []
    job = _new(store)
    assert _result(clock, store.accept(job, io.BytesIO())).is_new
    assert _result(clock, store.get(job.id)).id == job.id
    assert _result(clock, store.close()) is None


def test_failure() -> None:
    """While it is told to fail it does so, and nothing else; then it goes on."""
    clock = Clock()
    store = MemoryStore(clock)
    _result(clock, store.open())
    job = _new(store)
    store.failure = StoreFailed("no space is left on its disk")
    body = io.BytesIO()
    assert _result(clock, store.accept(job, body)).value is store.failure
    assert body.closed
    store.failure = None
    assert _result(clock, store.get(job.id)) is None
    assert _result(clock, store.accept(job, io.BytesIO())).is_new


def test_failure_at_its_opening() -> None:
    """One that does not open does nothing."""
    clock = Clock()
    store = MemoryStore(clock)
    with pytest.raises(StoreFailed):
        store.new_id()
    store.failure = StoreFailed("it is damaged", fatal=True)
    assert _result(clock, store.open()).value is store.failure
    store.get("a").addErrback(lambda failure: failure.trap(StoreFailed) and None)
