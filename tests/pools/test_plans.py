"""Pools that are not started: what can be asked for, and how they start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
import pytest

from deferpost.defaults import PoolSettings
from deferpost.interfaces import PoolContext
from deferpost.model import WorkSource
from deferpost.pools.plans import ProcessPool, ReactorPool, ThreadPool, usable_cpus
from deferpost.runtime import plan_of

NO_SOURCE: Any = object()
CONTEXT = PoolContext(name="mine", reactor=None, source=NO_SOURCE, now=lambda: 0.0)


class FakeStart:
    """Stands for the module of a pool: remembers how it was started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, function: str) -> None:
        self.calls: list[tuple[PoolContext, dict[str, Any]]] = []
        fake = ModuleType(module)
        setattr(fake, function, self.start)
        monkeypatch.setitem(sys.modules, module, fake)

    def start(self, context: PoolContext, **options: Any) -> str:
        self.calls.append((context, options))
        return "started"


def test_source_is_no_matter_here() -> None:
    """A plan is started with whatever handlers its routes have, and hands them on unseen."""
    source: WorkSource = CONTEXT.source
    assert source is NO_SOURCE
    assert CONTEXT.directory is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ThreadPool(size=0), "a size of at least 1, not 0"),
        (lambda: ThreadPool(size=-1), "a size of at least 1, not -1"),
        (lambda: ThreadPool(max_waiting=-1), "max_waiting is at least 0, not -1"),
        (lambda: ProcessPool(size=0), "a size of at least 1"),
        (lambda: ProcessPool(max_waiting=-1), "max_waiting is at least 0"),
        (
            lambda: ThreadPool(interrupt_grace=0),
            "interrupt_grace is above 0 and up to 3600 seconds, not 0",
        ),
        (lambda: ProcessPool(kill_grace=-0.1), "kill_grace is from 0 to 3600 seconds, not -0.1"),
        (lambda: ProcessPool(kill_grace=3601), "kill_grace is from 0 to 3600 seconds"),
        (lambda: ProcessPool(kill_grace=float("nan")), "kill_grace is from 0 to 3600 seconds"),
        (lambda: ProcessPool(max_jobs=-1), "max_jobs is from 0 to 1000000000, not -1"),
        (lambda: ProcessPool(max_age=-0.5), "max_age is from 0 to 2592000 seconds, not -0.5"),
        (lambda: ProcessPool(max_memory=-1), "max_memory is from 0 to 1125899906842624 bytes"),
        (lambda: ProcessPool(memory_limit=-1), "memory_limit is from 0 to 1125899906842624 bytes"),
        (lambda: ProcessPool(memory_limit=2**20), "memory_limit is 0 or at least 67108864 bytes"),
        (lambda: ProcessPool(cpu_limit=float("nan")), "cpu_limit is from 0 to 2592000 seconds"),
        (lambda: ProcessPool(set_up_timeout=-1), "set_up_timeout is from 0 to 2592000 seconds"),
        (lambda: ProcessPool(set_up_timeout=0), "set_up_timeout is more than 0 seconds"),
        (lambda: ProcessPool(warm=-1), "warm is from 0 to 1024, not -1"),
        (lambda: ProcessPool(warm=1025), "warm is from 0 to 1024, not 1025"),
        (lambda: ReactorPool(size=0), "a size of at least 1"),
        (lambda: ReactorPool(max_waiting=-1), "max_waiting is at least 0"),
    ],
)
def test_no_such_pool(make: Callable[[], object], words: str) -> None:
    """A pool that could not work is refused where it is written."""
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (ThreadPool(size=1, max_waiting=0), "thread"),
        (ProcessPool(size=1, max_waiting=0, kill_grace=0), "process"),
        (ReactorPool(size=1, max_waiting=0), "reactor"),
    ],
)
def test_smallest_pools(plan: Any, kind: str) -> None:
    """A pool of one worker where nobody waits is a pool."""
    assert plan.kind == kind


def test_plans_are_values() -> None:
    """Two equal descriptions are equal, and none can be changed."""
    assert ThreadPool(size=2) == ThreadPool(size=2) != ThreadPool(size=3)
    with pytest.raises(AttributeError):
        ThreadPool().size = 3  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("cpus", "size", "expected"), [(4, None, 8), (100, None, 32), (4, 50, 50), (1, 1, 1)]
)
def test_start_threads(
    monkeypatch: pytest.MonkeyPatch, cpus: int, size: int | None, expected: int
) -> None:
    """Where no size is given there are a few more threads than CPUs, and not too many."""
    fake = FakeStart(monkeypatch, "deferpost.pools.threads", "start_thread_pool")
    monkeypatch.setattr("deferpost.pools.plans.usable_cpus", lambda: cpus)
    plan = ThreadPool(size=size, max_waiting=7, interrupt_grace=0.5)
    started: object = plan.start(CONTEXT)
    assert started == "started"
    options = {"size": expected, "max_waiting": 7, "interrupt_grace": 0.5}
    assert fake.calls == [(CONTEXT, options)]


@pytest.mark.parametrize(("size", "expected"), [(None, 6), (2, 2)])
def test_start_processes(monkeypatch: pytest.MonkeyPatch, size: int | None, expected: int) -> None:
    """Where no size is given there is one process for each CPU."""
    fake = FakeStart(monkeypatch, "deferpost.pools.processes", "start_process_pool")
    monkeypatch.setattr("deferpost.pools.plans.usable_cpus", lambda: 6)
    plan = ProcessPool(size=size, max_waiting=7, kill_grace=1.5)
    plan.start(CONTEXT)
    assert fake.calls == [(CONTEXT, {"plan": plan, "size": expected})]


def test_settings_reach_the_plan() -> None:
    """All that can be configured of a pool of processes is what its plan then says."""
    values: dict[str, Any] = {
        "size": 3,
        "max_waiting": 7,
        "max_held": 8,
        "kill_grace": 1.5,
        "max_jobs": 9,
        "max_age": 10.0,
        "max_memory": 11,
        "memory_limit": 2**30,
        "cpu_limit": 12.0,
        "set_up_timeout": 13.0,
        "warm": 14,
    }
    assert set(values) == {field.name for field in msgspec.structs.fields(ProcessPool)}
    assert plan_of(PoolSettings(kind="process", **values)) == ProcessPool(**values)


def test_start_coroutines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coroutines are many."""
    fake = FakeStart(monkeypatch, "deferpost.pools.reactor", "start_reactor_pool")
    ReactorPool().start(CONTEXT)
    assert fake.calls == [(CONTEXT, {"size": 1000, "max_waiting": 1000})]


def test_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPUs that count are those that this process may use, where the system tells."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert usable_cpus() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert usable_cpus() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1
