"""Interrupting a thread: in its handler's code, and never anywhere else."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from deferpost.errors import Canceled, Interrupted
from deferpost.pools.interrupts import HandlerPart

#: Seconds after which something that is waited for will not come any more.
PATIENCE = 30.0


class Runner:
    """A thread with a part of its own, which does what a test says.

    :ivar ended: how it ended: what the function gave, or raised.
    """

    def __init__(self, body: Callable[[HandlerPart], Any]) -> None:
        self.part: Any = None
        self.ended: list[Any] = []
        self._ready = threading.Event()
        self._body = body
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self) -> None:
        self.part = HandlerPart()
        self.part.key = 1
        self._ready.set()
        try:
            self.ended.append(self._body(self.part))
        except BaseException as error:
            self.ended.append(error)

    def interrupt(self, key: int = 1) -> None:
        """Interrupt it as soon as it is in its handler."""
        deadline = time.monotonic() + PATIENCE
        while not self.part.interrupt(key):
            assert self.thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0)

    def end(self) -> Any:
        """Wait for its end; gives how it ended."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        (ended,) = self.ended
        return ended


def forever() -> None:
    """A handler that ignores what it is told."""
    while True:
        time.sleep(0)


def test_interrupts_what_goes_on() -> None:
    """A handler that goes on for ever is ended."""
    runner = Runner(lambda part: part.run(forever))
    runner.interrupt()
    error = runner.end()
    assert type(error) is Interrupted
    assert isinstance(error, Canceled)
    assert not isinstance(error, Exception)


def test_interrupts_again() -> None:
    """A handler that swallows one interrupt is ended by the next."""
    caught: list[str] = []

    def stubborn() -> None:
        try:
            forever()
        except Interrupted:
            caught.append("first")
        forever()

    runner = Runner(lambda part: part.run(stubborn))
    runner.interrupt()
    while not caught:
        time.sleep(0)
    runner.interrupt()
    assert type(runner.end()) is Interrupted


def test_not_another_job() -> None:
    """An interrupt that is meant for another job does nothing."""
    gate = threading.Event()
    runner = Runner(lambda part: part.run(gate.wait, PATIENCE))
    assert not runner.part.interrupt(2)
    gate.set()
    assert runner.end() is True


def test_not_outside_of_the_handler() -> None:
    """A thread that is not in a handler is not interrupted, before it and after it."""
    before, after = threading.Event(), threading.Event()

    def body(part: HandlerPart) -> str:
        before.wait(PATIENCE)
        result = part.run(lambda: "well")
        after.wait(PATIENCE)
        return result

    runner = Runner(body)
    assert not runner.part.interrupt(1)
    before.set()
    for _ in range(100):
        runner.part.interrupt(1) and pytest.skip("it was met in the handler")
    after.set()
    assert runner.end() == "well"


def test_taken_back() -> None:
    """An interrupt that comes while a handler is in C code, and then returns, is taken back."""
    inside, gate = threading.Event(), threading.Lock()
    gate.acquire()

    def body(part: HandlerPart) -> list[Any]:
        # The lock's own method is the handler: its return is the end of the handler's part.
        inside.set()
        got: list[Any] = [part.run(gate.acquire)]
        got.append(part.run(len, "four"))
        for number in range(1000):
            got[1:] = [got[1] + number - number]
        return got

    runner = Runner(body)
    assert inside.wait(PATIENCE)
    runner.interrupt()
    gate.release()
    ended = runner.end()
    # Where the call into C is the handler's last act, the interpreter may raise right behind it.
    assert type(ended) is Interrupted or ended == [True, 4]


def test_ours_inside_the_handler() -> None:
    """Code of ours that a handler calls is not interrupted; the handler is, behind it."""
    inside, gate, done = threading.Event(), threading.Event(), threading.Event()
    reached: list[str] = []

    def ours() -> None:
        inside.set()
        gate.wait(PATIENCE)
        reached.append("whole")
        done.set()

    def handler(part: HandlerPart) -> None:
        part.outside(ours)
        reached.append("behind")
        forever()

    runner = Runner(lambda part: part.run(handler, part))
    assert inside.wait(PATIENCE)
    assert not runner.part.interrupt(1)
    gate.set()
    assert done.wait(PATIENCE)
    runner.interrupt()
    assert type(runner.end()) is Interrupted
    assert reached[0] == "whole"


def test_ours_on_another_thread() -> None:
    """Code of ours on a thread that the handler has started runs as it is."""
    calls: list[object] = []

    def handler(part: HandlerPart) -> None:
        helper = threading.Thread(target=part.outside, args=(calls.append, 1))
        helper.start()
        helper.join(PATIENCE)
        forever()

    runner = Runner(lambda part: part.run(handler, part))
    while not calls:
        time.sleep(0)
    runner.interrupt()
    assert type(runner.end()) is Interrupted
    part = HandlerPart()
    part.outside(calls.append, 2)
    assert calls == [1, 2]


class Loop:
    """A thread that runs short handlers one after another, and counts whatever goes wrong.

    :ivar ran: handlers that have returned.
    :ivar hit: handlers that were interrupted.
    :ivar wrong: handlers that were interrupted for another job.
    :ivar ours: interrupts that have met code that is not a handler's.
    """

    def __init__(self, handler: Callable[[HandlerPart, random.Random], Any]) -> None:
        self.ran = self.hit = self.wrong = self.ours = 0
        self.over = False
        self.wanted = -1  # the key of the job that is told to stop
        self.lock = threading.Lock()
        self.part: Any = None
        self._handler = handler
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        part = self.part = HandlerPart()
        chance = random.Random(7)
        key = 0
        while not self.over:
            try:
                key += 1
                part.key = key
                told = False
                try:
                    part.run(self._handler, part, chance)
                    self.ran += 1
                except Interrupted:
                    told = True
                if told:
                    self.hit += 1
                    self.wrong += key > self.wanted
                # What would come late would come here: calls, jumps, and a lock that is taken.
                for _ in range(chance.randrange(4)):
                    with self.lock:
                        len("ours")
            except Interrupted:
                self.ours += 1


def spin(part: HandlerPart, chance: random.Random) -> None:
    """A handler that ends at any moment."""
    for _ in range(chance.randrange(60)):
        chance.random()


def read(part: HandlerPart, chance: random.Random) -> None:
    """A handler that calls code of ours, which takes a lock."""
    for _ in range(chance.randrange(6)):
        part.outside(_locked, chance)


_LOCK = threading.Condition()


def _locked(chance: random.Random) -> None:
    with _LOCK:
        _LOCK.notify()
        chance.random()


def step(part: HandlerPart, chance: random.Random) -> None:
    """A handler that is a generator, with an end of its own."""

    def chunks() -> Any:
        try:
            for _ in range(3):
                yield chance.random()
        finally:
            chance.random()

    made = chunks()
    for _ in made:
        chance.random()
    made.close()


@pytest.mark.parametrize("handler", [spin, read, step])
def test_never_ours_and_never_the_next(handler: Any, request: pytest.FixtureRequest) -> None:
    """Thousands of interrupts at handlers that end at that moment meet nothing but these."""
    before = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(before))
    sys.setswitchinterval(1e-6)  # so that the threads meet at as many places as they can
    loop = Loop(handler)
    asked = 0
    deadline = time.monotonic() + PATIENCE
    while loop.part is None:
        time.sleep(0)
    while loop.hit < 1000 and time.monotonic() < deadline:
        key = loop.part.key
        if key is not None:
            loop.wanted = key
            asked += loop.part.interrupt(key)
        time.sleep(0)
    loop.over = True
    loop.thread.join(PATIENCE)
    assert not loop.thread.is_alive()
    assert (loop.wrong, loop.ours) == (0, 0)
    assert not loop.lock.locked()
    assert _LOCK.acquire(blocking=False)
    _LOCK.release()
    assert asked >= loop.hit >= 1000
    assert loop.ran > 0
