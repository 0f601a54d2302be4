"""Who is let in, how fast jobs leave, and how long a client is asked to wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from deferpost.admission import (
    ENOUGH,
    RETRY_AFTER_MOST,
    Clients,
    Departures,
    PoolBooks,
    RunTimes,
    ServiceTime,
    client_of,
    lateness,
    whole_seconds,
)
from deferpost.model import CallHead

SECONDS = st.floats(0, 1e6)
LIMIT = st.none() | st.floats(0, 1000)


def _head(client: str | None = "192.0.2.1", principal: str | None = None) -> CallHead:
    peer = None if client is None else (client, 4711)
    return CallHead("id", "/a", "POST", "/a", b"", (), peer, None, None, principal)


def _busy(size: int, waiting: int, interval: float, count: int = ENOUGH + 1) -> PoolBooks:
    """A pool whose workers are all busy, from which jobs leave at a steady pace."""
    books = PoolBooks(size, 10_000)
    for _ in range(size + waiting + count):
        books.enter(0)
    for number in range(count):
        books.leave(0, number * interval, ran=True)
    assert books.jobs == size + waiting
    return books


# Pauses.


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 1), (0.2, 1), (1.0, 1), (1.001, 2), (5.5, 6), (1e9, RETRY_AFTER_MOST)],
)
def test_whole_seconds(seconds: float, expected: int) -> None:
    """A pause is a whole number of seconds, rounded up, from one to an hour."""
    assert whole_seconds(seconds) == expected


@pytest.mark.parametrize(
    ("waiting", "size", "mean", "expected"),
    [
        (0, 1, 1.0, 1),
        (9, 1, 2.0, 20),
        (9, 4, 2.0, 5),
        (10, 4, 2.0, 6),  # 5.5, rounded up
        (1000, 10, 0.001, 1),
        (1000, 1, 60.0, RETRY_AFTER_MOST),
        (5, 0, 1.0, 6),  # a pool that is just losing its workers
        (1000, 1, None, 1),
    ],
)
def test_pause_by_run_times(waiting: int, size: int, mean: float | None, expected: int) -> None:
    """Until the pace is known, a client is told from how long jobs run when the queue is empty."""
    books = PoolBooks(size, 1000)
    if mean is not None:
        books.measured("/a", mean)
    assert books.retry_after(waiting, 0.0) == expected


def test_pause_by_departures() -> None:
    """What counts is how fast jobs really leave, not how fast they would if alone."""
    books = _busy(4, 20, interval=1.0)
    books.measured("/a", 1.0)  # which would make four in a second
    now = float(ENOUGH)
    assert books.interval(now) == pytest.approx(1.0)
    assert books.retry_after(20, now) == 21


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.none() | SECONDS, st.integers(1, 100))
def test_pause_is_whole_and_bounded(
    waiting: int, size: int, mean: float | None, share: int
) -> None:
    """The pause is always a whole number of seconds, at least one and at most an hour."""
    books = PoolBooks(size, 10)
    if mean is not None:
        books.measured("/a", mean)
    seconds = books.retry_after(waiting, 0.0, share)
    assert type(seconds) is int
    assert 1 <= seconds <= RETRY_AFTER_MOST


@given(st.integers(0, 1000), st.integers(1, 100), SECONDS)
def test_longer_queues_ask_for_longer_pauses(waiting: int, size: int, mean: float) -> None:
    """More that waits never shortens the pause, and more workers never lengthen it."""
    few, many = PoolBooks(size, 10), PoolBooks(size + 1, 10)
    few.measured("/a", mean)
    many.measured("/a", mean)
    seconds = few.retry_after(waiting, 0.0)
    assert few.retry_after(waiting + 1, 0.0) >= seconds
    assert many.retry_after(waiting, 0.0) <= seconds


def test_pause_of_a_client() -> None:
    """A client over its own bound waits for one of its calls, not for the whole queue."""
    books = _busy(2, 38, interval=1.0)
    now = float(ENOUGH)
    assert books.retry_after(38, now) == 39
    assert books.retry_after(38, now, share=8) == 5


# Measures.


def test_no_mean_before_the_first_job() -> None:
    """As long as no job has ended, nobody claims to know how long one takes."""
    assert ServiceTime().mean is None


def test_first_job_is_the_mean() -> None:
    """After one job its time is all that is known."""
    service_time = ServiceTime()
    service_time.add(3.0)
    assert service_time.mean == 3.0


def test_one_slow_job_counts_little() -> None:
    """A single slow job among quick ones moves the mean a little, not to its own time."""
    service_time = ServiceTime()
    for seconds in (1.0, 1.0, 1.0, 101.0):
        service_time.add(seconds)
    assert service_time.mean == pytest.approx(6.0)


def test_mean_follows_a_change() -> None:
    """When jobs have become slower for good, the mean is theirs after a while."""
    service_time = ServiceTime()
    for seconds in [1.0] * 50 + [10.0] * 100:
        service_time.add(seconds)
    assert service_time.mean == pytest.approx(10.0, rel=0.01)


@given(st.lists(SECONDS, min_size=1))
def test_mean_is_among_the_times(times: list[float]) -> None:
    """The mean is never outside the times that went into it."""
    service_time = ServiceTime()
    for seconds in times:
        service_time.add(seconds)
    assert service_time.mean is not None
    assert min(times) - 1e-6 <= service_time.mean <= max(times) + 1e-6


def test_least_run_time() -> None:
    """The shortest of the last runs is known when there are enough, and forgotten in time."""
    times = RunTimes()
    for _ in range(ENOUGH - 1):
        times.add(2.0)
    assert times.least is None
    times.add(1.0)
    assert times.least == 1.0
    for _ in range(100):
        times.add(3.0)
    assert times.least == 3.0


def test_pace_needs_enough_departures() -> None:
    """A few departures are no measure of speed."""
    departures = Departures()
    for number in range(ENOUGH):
        departures.add(float(number))
        assert departures.interval(float(number)) is None
    departures.add(float(ENOUGH))
    assert departures.interval(float(ENOUGH)) == pytest.approx(1.0)


def test_pace_in_batches() -> None:
    """Where several leave at the same moment, the pace is that of all of them."""
    departures = Departures()
    for number in range(64):
        departures.add(float(number // 4))
    assert departures.interval(15.0) == pytest.approx(0.25, rel=0.1)


def test_pace_when_nothing_leaves_any_more() -> None:
    """If all workers hang, the pace slows down with every second."""
    departures = Departures()
    for number in range(20):
        departures.add(number * 0.1)
    assert departures.interval(2.0) == pytest.approx(0.1)
    assert departures.interval(62.0) == pytest.approx(3.1)


def test_pace_is_that_of_a_full_pool() -> None:
    """What leaves while a worker is idle says nothing about how fast the pool can be."""
    books = _busy(2, 0, interval=1.0)
    assert books.interval(20.0) is not None
    books.leave(0, 20.0, ran=True)
    assert books.interval(20.0) is None


def test_removed_jobs_are_no_departures() -> None:
    """A crowd that gives up waiting does not make the pool look fast."""
    books = _busy(2, 100, interval=1.0)
    for _ in range(90):
        books.leave(0, float(ENOUGH), ran=False)
    assert books.interval(float(ENOUGH)) == pytest.approx(1.0)


# The door.


def test_never_late_while_a_worker_is_free() -> None:
    """A call that can start at once is never turned away for its deadline."""
    books = _busy(2, 0, interval=1.0)
    for _ in range(ENOUGH):
        books.measured("/a", 100.0)
    books.leave(0, 20.0, ran=True)
    assert books.lateness("/a", 0, 0.001, 0.001, 20.0) == 0.0


def test_never_late_without_measurements() -> None:
    """As long as too little was measured, nobody is turned away for a deadline."""
    books = PoolBooks(1, 100)
    for _ in range(50):
        books.enter(0)
    for _ in range(ENOUGH - 1):
        books.measured("/a", 10.0)
        assert books.lateness("/a", 49, 1.0, 1.0, 0.0) == 0.0
    books.measured("/a", 10.0)
    assert books.lateness("/a", 49, 1.0, None, 0.0) == pytest.approx(489.0)
    assert books.lateness("/b", 49, 1.0, None, 0.0) == 0.0


def test_late_by_the_pace() -> None:
    """Where the pace is known, it says how long a call would wait; its own run is added."""
    books = _busy(2, 30, interval=1.0)
    now = float(ENOUGH)
    assert books.lateness("/a", 30, 31.0, None, now) == 0.0
    assert books.lateness("/a", 30, 20.0, None, now) == pytest.approx(10.0)
    assert books.lateness("/a", 30, None, 30.0, now) == 0.0
    for _ in range(ENOUGH):
        books.measured("/a", 2.0)
    assert books.lateness("/a", 30, None, 30.0, now) == pytest.approx(2.0)
    assert books.lateness("/a", 30, None, None, now) == 0.0


@given(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 100), LIMIT, LIMIT, st.floats(0, 50))
def test_the_door_is_monotone(
    ahead: int,
    interval: float,
    run: float,
    queue: float | None,
    total: float | None,
    more: float,
) -> None:
    """More ahead, slower workers or less time never make a call that was late be in time."""
    late = lateness(ahead, interval, run, queue, total)
    assert late >= 0
    assert lateness(ahead + 1, interval, run, queue, total) >= late
    assert lateness(ahead, interval + more, run, queue, total) >= late
    assert lateness(ahead, interval, run + more, queue, total) >= late
    longer_queue = None if queue is None else queue + more
    longer_total = None if total is None else total + more
    assert lateness(ahead, interval, run, longer_queue, longer_total) <= late
    assert lateness(ahead, interval, run, None, None) == 0


# Places, bytes and clients.


def test_places() -> None:
    """As many calls are let in as run and may wait, reserved places included."""
    books = PoolBooks(1, 2)
    assert books.has_place
    books.enter(0)
    books.reserve(0)
    assert books.is_open(0)
    books.enter(0)
    assert not books.has_place
    assert not books.is_open(0)
    books.give_back(0)
    assert books.is_open(0)


def test_bytes() -> None:
    """What bodies take together is bounded, but one is always let in where nothing is held."""
    books = PoolBooks(4, 4, max_held=100)
    assert books.is_open(1000)
    books.enter(1000)
    assert books.is_open(0)
    assert not books.is_open(1)
    books.leave(1000, 1.0, ran=True)
    books.reserve(60)
    assert books.has_room(40)
    assert not books.is_open(41)
    books.give_back(60)
    assert books.is_open(100)
    assert PoolBooks(4, 4).is_open(2**60)


def test_clients() -> None:
    """Each client has its own count, and nothing is kept of one that has no calls."""
    clients = Clients(2)
    clients.enter("a")
    clients.enter("a")
    clients.enter("b")
    clients.enter(None)
    assert [clients.left(client) for client in ("a", "b", "c", None)] == [0, 1, 2, 2]
    for client in ("a", "a", "b", None):
        clients.leave(client)
    assert [clients.left(client) for client in ("a", "b")] == [2, 2]
    assert len(clients) == 0


def test_who_a_client_is() -> None:
    """A client is who it has proved to be, or else its address; on a Unix socket it is neither."""
    assert client_of(_head()) == "192.0.2.1"
    assert client_of(_head(None)) is None
    assert client_of(_head(principal="ann")) == client_of(_head("192.0.2.9", "ann"))
    assert client_of(_head(None, "192.0.2.1")) != client_of(_head())


class Admissions(RuleBasedStateMachine):
    """Calls that reserve, enter and leave in any order."""

    @initialize(size=st.integers(1, 3), waiting=st.integers(0, 3), most=st.integers(0, 50))
    def start(self, size: int, waiting: int, most: int) -> None:
        self.books = PoolBooks(size, waiting, most)
        self.clients = Clients(2)
        self.now = 0.0
        self.places: list[tuple[int, str | None]] = []
        self.jobs: list[tuple[int, str | None, bool]] = []

    def _may(self, size: int, client: str | None) -> bool:
        return self.books.is_open(size) and self.clients.left(client) > 0

    @rule(size=st.integers(0, 60), client=st.sampled_from(["a", "b", None]))
    def reserve(self, size: int, client: str | None) -> None:
        if self._may(size, client):
            self.books.reserve(size)
            self.clients.enter(client)
            self.places.append((size, client))

    @rule(number=st.integers(0, 9), becomes_job=st.booleans(), smaller=st.integers(0, 60))
    def give_back(self, number: int, becomes_job: bool, smaller: int) -> None:
        if self.places:
            size, client = self.places.pop(number % len(self.places))
            self.books.give_back(size)
            self.clients.leave(client)
            if becomes_job:
                self._enter(min(size, smaller), client)

    @rule(size=st.integers(0, 60), client=st.sampled_from(["a", "b", None]))
    def enter(self, size: int, client: str | None) -> None:
        if self._may(size, client):
            self._enter(size, client)

    def _enter(self, size: int, client: str | None) -> None:
        self.books.enter(size)
        self.clients.enter(client)
        self.jobs.append((size, client, len(self.jobs) < self.books.size))

    @rule(number=st.integers(0, 9), seconds=st.floats(0, 5))
    def leave(self, number: int, seconds: float) -> None:
        if self.jobs:
            self.now += seconds
            size, client, ran = self.jobs.pop(number % len(self.jobs))
            self.books.leave(size, self.now, ran=ran)
            self.clients.leave(client)
            if ran:
                self.books.measured("/a", seconds)

    @invariant()
    def what_is_taken_is_what_is_there(self) -> None:
        if not hasattr(self, "books"):
            return
        books = self.books
        sizes = [size for size, _ in self.places] + [size for size, _, _ in self.jobs]
        assert (books.jobs, books.reserved) == (len(self.jobs), len(self.places))
        assert books.held == sum(sizes)
        assert books.jobs + books.reserved <= books.places
        if books.max_held and len([size for size in sizes if size]) > 1:
            assert books.held <= max(books.max_held, *sizes)
        named = [client for _, client in self.places if client]
        named += [client for _, client, _ in self.jobs if client]
        for client in ("a", "b"):
            assert self.clients.left(client) == 2 - named.count(client) >= 0
        assert len(self.clients) == len(set(named))
        assert 1 <= books.retry_after(3, self.now) <= RETRY_AFTER_MOST


AdmissionsTest = Admissions.TestCase
AdmissionsTest.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
AdmissionsTest.__doc__ = "Places, bytes and calls that were taken are given back, in any order."
