"""Interrupting a thread: in its handler's code, and never anywhere else."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deferpost.errors import Canceled, Interrupted
from deferpost.pools import interrupts
from deferpost.pools.interrupts import HandlerPart

#: Seconds after which something that is waited for will not come any more.
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Nothing is traced, and no mark is left that something is pending in a thread.

    CPython 3.11 that is traced stands still while a thread that is in C has an exception pending.
    """
    tracers = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    remove_mark()
    threading.settrace(tracers[1])
    sys.settrace(tracers[0])


class Mark(BaseException):
    """What is raised to remove the mark."""


def remove_mark() -> None:
    """Have the interpreter forget that something is pending, as raising does."""
    try:
        while True:
            interrupts._set_async_exc(threading.get_ident(), id(Mark))
    except Mark:
        pass


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
    before, returned, after = threading.Event(), threading.Event(), threading.Event()

    def body(part: HandlerPart) -> str:
        before.wait(PATIENCE)
        result = part.run(lambda: "well")
        returned.set()
        after.wait(PATIENCE)
        return result

    runner = Runner(body)
    assert not runner.part.interrupt(1)
    before.set()
    assert returned.wait(PATIENCE)
    assert not runner.part.interrupt(1)
    after.set()
    assert runner.end() == "well"


def test_when_it_comes_back_from_c() -> None:
    """A handler that is in C code is interrupted when it has come back from there."""
    inside, gate = threading.Event(), threading.Lock()
    gate.acquire()

    def handler() -> None:
        inside.set()
        gate.acquire()
        forever()

    runner = Runner(lambda part: part.run(handler))
    assert inside.wait(PATIENCE)
    runner.interrupt()
    assert runner.thread.is_alive()
    gate.release()
    assert type(runner.end()) is Interrupted


LEAVES_NO_MARK = """
import sys
import threading

sys.settrace(None)
threading.settrace(None)

from tests.pools import test_interrupts as tests

tests.test_interrupts_what_goes_on()
tests.test_when_it_comes_back_from_c()
tests.test_taken_back()
tests.test_under_way_before_ours()

def called():
    print("called")

sys.settrace(lambda *_: None)
called()
"""


def test_leaves_no_mark() -> None:
    """What is taken back leaves nothing pending, which would stop an interpreter that is traced."""
    ran = subprocess.run(
        [sys.executable, "-c", LEAVES_NO_MARK],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.stdout, ran.stderr) == ("called\n", "")


class Slow:
    """A key that equals any, and something happens while it is compared.

    So the request of an interrupt is under way for as long as the test wants.

    :param meanwhile: what happens.
    """

    __hash__ = None  # type: ignore[assignment]  # it is only compared

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    def __eq__(self, other: object) -> bool:
        self._meanwhile()
        return True


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def test_taken_back() -> None:
    """An interrupt that is under way while the handler returns is taken back."""
    gate, asked = threading.Event(), threading.Event()

    def body(part: HandlerPart) -> Any:
        result = part.run(gate.wait, PATIENCE)
        while not asked.is_set():  # what would come late would come here
            time.sleep(0)
        return result

    runner = Runner(body)
    until(lambda: runner.part._open)

    def return_meanwhile() -> None:
        gate.set()
        until(lambda: not runner.part._open)

    assert runner.part.interrupt(Slow(return_meanwhile))
    asked.set()
    assert runner.end() is True


def test_under_way_before_ours() -> None:
    """An interrupt that is under way as the handler calls code of ours comes behind that."""
    gate, asked = threading.Event(), threading.Event()
    reached: list[str] = []

    def ours() -> None:
        until(asked.is_set)
        reached.append("whole")

    def handler(part: HandlerPart) -> None:
        gate.wait(PATIENCE)
        part.outside(ours)
        reached.append("behind")

    runner = Runner(lambda part: part.run(handler, part))
    until(lambda: runner.part._open)

    def call_meanwhile() -> None:
        gate.set()
        until(lambda: not runner.part._open)

    assert runner.part.interrupt(Slow(call_meanwhile))
    asked.set()
    assert type(runner.end()) is Interrupted
    assert reached == ["whole"]


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
    :ivar meant: interrupts that were asked for while the thread was in that handler.
    :ivar ours: interrupts that have met code that is not a handler's.
    """

    def __init__(self, handler: Callable[[HandlerPart, random.Random], Any]) -> None:
        self.ran = self.hit = self.wrong = self.ours = self.meant = 0
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


class Unhurried:
    """A key that takes its time to be compared: a handler that ends meanwhile meets the request.

    :param key: which it is.
    """

    __hash__ = None  # type: ignore[assignment]  # it is only compared

    def __init__(self, key: int) -> None:
        self._key = key

    def __eq__(self, other: object) -> bool:
        is_same = other == self._key
        time.sleep(0)
        return is_same


def stress(handler: Any, hits: int) -> Loop:
    """Interrupt handlers that end at any moment, until so many were hit or something went wrong."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads meet at as many places as they can
    try:
        loop, asked = Loop(handler), 0
        deadline = time.monotonic() + PATIENCE
        while loop.part is None:
            time.sleep(0)
        while loop.hit < hits and not (loop.wrong or loop.ours) and time.monotonic() < deadline:
            key = loop.part.key
            if key is not None:
                loop.wanted = key
                asked += 1
                loop.meant += loop.part.interrupt(Unhurried(key) if asked % 2 else key)
            time.sleep(0)
        loop.over = True
        loop.thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(before)
    return loop


@pytest.mark.parametrize("handler", [spin, read, step])
def test_never_ours_and_never_the_next(handler: Any) -> None:
    """A thousand interrupts at handlers that end at that moment meet nothing but these."""
    loop = stress(handler, 1000)
    assert not loop.thread.is_alive()
    assert (loop.wrong, loop.ours) == (0, 0)
    assert not loop.lock.locked()
    assert _LOCK.acquire(blocking=False)
    _LOCK.release()
    assert loop.meant >= loop.hit >= 1000
    assert loop.ran > 0
