"""Whatever happens to kept jobs, in whichever order: each runs as often as it may, and ends."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from deferpost.errors import DeferPostError, HandlerFailed
from deferpost.lifecycle import ENDED
from deferpost.model import State
from tests.keeping import OPERATIONS, Bench, WorkerPool, route

ROUTES = (route("/a", "a"), route("/b", "b"))

#: What a disk may fail at; that it is well again is told by the probe.
FAILING = ("accept", "start", "requeue", "cancel", "tell", "write", "finish", "get", "call")


class KeeperMachine(RuleBasedStateMachine):
    """A keeper between clients, workers and a disk, of which each does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(size=2, routes=ROUTES, grace=5.0, ageing=1.0)
        self.pools: list[WorkerPool] = list(self.bench.pools.values())
        self.clients: list[tuple[str, bool]] = []  # who waits on a connection, and for what
        self.retries: dict[str, int] = {}  # of jobs, by the ids of their requests
        self.accepted: set[str] = set()
        self.waiting: list[Deferred[Any]] = []
        self.failures: list[str] = []
        self.count = 0
        self.all_pools: list[WorkerPool] = list(self.pools)
        self.begun_before: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if "log_failure" in event:
                self.failures.append(event["log_failure"].getTraceback())

        globalLogPublisher.addObserver(observe)
        self._unobserve = lambda: globalLogPublisher.removeObserver(observe)

    # Clients.

    @rule(
        path=st.sampled_from(["/a", "/b"]),
        retries=st.integers(0, 2),
        urgency=st.integers(0, 7),
        start_in=st.none() | st.integers(1, 9),
        finish_in=st.none() | st.integers(1, 20),
        key=st.none() | st.sampled_from("xyz"),
        manner=st.sampled_from(["promised", "waits", "same"]),
    )
    def post(
        self,
        path: str,
        retries: int,
        urgency: int,
        start_in: int | None,
        finish_in: int | None,
        key: str | None,
        manner: str,
    ) -> None:
        bench, keeper = self.bench, self.bench.keeper
        self.count += 1
        self.retries[f"request-{self.count}"] = retries
        bench._count = self.count - 1
        wall = bench.wall()
        job = bench.new(
            route=path,
            pool=path[1:],
            retries=retries,
            urgency=urgency,
            ttl=1e9,
            start_by=None if start_in is None else wall + start_in,
            finish_by=None if finish_in is None else wall + finish_in,
            key=None if key is None or manner == "same" else bench.key(key),
        )
        body = io.BytesIO(b"body")
        if manner == "same":
            accepting = bench.start(keeper.accept_one_of((path, b"print"), job, body))
        else:
            accepting = bench.start(keeper.accept(job, body))

        def accepted(result: Any) -> None:
            id = result.record.id
            self.accepted.add(id)
            keeper.attach(id)
            if manner == "promised":
                keeper.detach(id, promised=True, cancel=True, keyed=key is not None)
            elif bench is self.bench:
                self.clients.append((id, key is not None))
                waiting = bench.start(keeper.ended(id, None))
                waiting.addErrback(lambda failure: failure.trap(DeferPostError))
                self.waiting.append(waiting)

        accepting.addCallback(accepted)
        accepting.addErrback(lambda failure: failure.trap(DeferPostError))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        id, keyed = self.clients.pop(data.draw(st.integers(0, len(self.clients) - 1)))
        self.bench.keeper.detach(id, promised=False, cancel=True, keyed=keyed)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        id = data.draw(st.sampled_from(sorted(self.accepted)))
        canceling = self.bench.start(self.bench.keeper.cancel(id))
        canceling.addErrback(lambda failure: failure.trap(DeferPostError))

    # Workers.

    def _worker(self, data: Any) -> WorkerPool | None:
        pools = [pool for pool in self.pools if pool.running]
        return None if not pools else pools[data.draw(st.integers(0, len(pools) - 1))]

    @rule(data=st.data(), what=st.sampled_from(["give", "fail", "lose", "report", "stream"]))
    def work(self, data: Any, what: str) -> None:
        pool = self._worker(data)
        if pool is None:
            return
        job = pool.running[0]
        if what == "give":
            pool.give(b"result")
        elif what == "fail":
            pool.fail(HandlerFailed("words"))
        elif what == "report":
            job.report(1, 2, "half")
        elif what == "lose":
            pool.lose()
        elif job.state is State.RUNNING:
            buffer = pool.stream()
            buffer.deliver(b"result")
            pool.end_stream(buffer)

    @rule()
    def lose_one_that_asks(self) -> None:
        for pool in self.pools:
            if pool.asking and not pool.running:
                pool.lose()
                return

    @rule()
    def code_ends_that_was_told_to(self) -> None:
        for pool in self.pools:
            pool.end_canceled()

    # The disk and the clock.

    @rule(names=st.sets(st.sampled_from(FAILING), max_size=4), probe=st.booleans())
    def disk_fails(self, names: set[str], probe: bool) -> None:
        self.bench.store.failing = names | ({"probe"} if probe else set())

    @rule()
    def disk_is_well(self) -> None:
        self.bench.store.failing = set()

    @rule(names=st.sets(st.sampled_from(OPERATIONS), min_size=1))
    def disk_is_slow(self, names: set[str]) -> None:
        self.bench.store.hold(*sorted(names))

    @rule()
    def disk_goes_on(self) -> None:
        self.bench.store.go_on()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.turn(seconds)

    # Versions and processes.

    @rule()
    def reload(self) -> None:
        self.bench.serve()
        self.pools.extend(self.bench.pools.values())

    @rule()
    def old_versions_end(self) -> None:
        for pool in self.pools:
            if pool not in self.bench.pools.values():
                pool.stop()

    def _next(self) -> None:
        clock = Clock()
        clock.advance(self.bench.clock.seconds())
        store = self.bench.store.reopened(clock)
        self.bench = Bench(
            store=store, clock=clock, size=2, routes=ROUTES, grace=5.0, ageing=1.0, is_open=False
        )
        self.clients.clear()
        self.waiting.clear()
        self.pools = list(self.bench.pools.values())
        self.begun_before += [id for pool in self.all_pools for id in pool.begun]
        self.all_pools = list(self.pools)
        self.bench.run(self.bench.keeper.open())

    @rule()
    def crash(self) -> None:
        self._next()

    @rule()
    def restart(self) -> None:
        """The daemon ends in its order, and begins again."""
        bench = self.bench
        bench.store.go_on()
        bench.keeper.stop_feeding()
        bench.turn()
        for pool in self.pools:
            pool.stop()
            pool.end_canceled()
        bench.turn()
        closing = bench.start(bench.keeper.close())
        bench.turn(3.0)
        assert closing.called, "it does not end"
        assert all(waiting.called for waiting in self.waiting), "somebody still waits"
        assert bench.clock.getDelayedCalls() == []
        self._next()

    # What is always true.

    @property
    def begun(self) -> list[str]:
        return self.begun_before + [id for pool in self.all_pools for id in pool.begun]

    @invariant()
    def no_defects(self) -> None:
        assert self.failures == []

    @invariant()
    def nothing_runs_too_often(self) -> None:
        for pool in self.pools:
            if pool not in self.all_pools:
                self.all_pools.append(pool)
        begun = self.begun
        for kept in self.bench.store._jobs.values():
            record = kept.record
            times = begun.count(record.request_id)
            assert times <= record.attempt, f"it was not noted that {record} begins"
            assert times <= 1 + self.retries[record.request_id], f"{record} ran too often"
            assert len([event for event in kept.events if event.kind == "end"]) <= 1

    @invariant()
    def lanes_are_right(self) -> None:
        for lane in self.bench.keeper._lanes.values():
            assert 0 <= lane.ahead <= len(self.accepted)

    def teardown(self) -> None:
        """In the end the disk is well, the workers work, and all that was accepted has ended."""
        try:
            self._drain()
        finally:
            self._unobserve()

    def _drain(self) -> None:
        bench = self.bench
        bench.store.failing = set()
        bench.store.go_on()
        for _ in range(60 + 4 * self.count):
            bench.turn(1.0)
            for pool in self.pools:
                while pool.running:
                    pool.give(b"result")
            if not bench.keeper.unended:
                break
        bench.turn(10.0)
        states = {id: kept.record.state for id, kept in bench.store._jobs.items()}
        assert self.accepted <= set(states)
        assert set(states.values()) <= ENDED, states
        assert all(waiting.called for waiting in self.waiting), "somebody still waits"
        self.nothing_runs_too_often()
        self.no_defects()
        bench.judge()
        begun = self.begun
        for id, state in states.items():
            if state is State.SUCCEEDED:
                assert bench.record(id).request_id in begun
                assert bench.result(id).body == b"result"
        bench.close()


KeeperMachine.TestCase.settings = settings(stateful_step_count=40, max_examples=60, deadline=None)
TestKeeperMachine = KeeperMachine.TestCase
