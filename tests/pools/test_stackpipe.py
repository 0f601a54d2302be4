"""Asking a worker process where it stands, without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from deferpost.pools import child
from deferpost.pools.stackpipe import ANSWER_SECONDS, StackReader, readable_stack

PROGRAM = (
    f'  File "{child.__file__}", line 200 in _run\n'
    f'  File "{child.__file__}", line 190 in main\n'
    '  File "<string>", line 1 in <module>\n'
)


class Asked:
    """A reader, its pipe, and what comes of it."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        self.clock = Clock()
        self.readers: list[Any] = []
        self.signals = 0
        self.reader = StackReader(self, reading, self._ask)
        self.callLater = self.clock.callLater

    def _ask(self) -> None:
        self.signals += 1

    def addReader(self, reader: Any) -> None:
        """As a reactor's."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """As a reactor's."""
        self.readers.remove(reader)

    def request(self) -> list[Any]:
        """Ask; what comes is in the list."""
        outcome: list[Any] = []
        self.reader.request().addBoth(outcome.append)
        return outcome

    def says(self, text: str) -> None:
        """The process writes, and the reactor reads."""
        os.write(self.writing, text.encode())
        for reader in list(self.readers):
            reader.doRead()

    def rests(self) -> bool:
        """Whether nothing is left that waits."""
        return not (self.readers or self.clock.getDelayedCalls() or self.reader.asked)


@pytest.fixture
def asked() -> Iterator[Asked]:
    """A reader whose process answers as the test says."""
    made = Asked()
    yield made
    made.reader.close()
    os.close(made.writing)


def why(outcome: list[Any]) -> str:
    """The words of a failed request."""
    (failure,) = outcome
    assert isinstance(failure, Failure)
    assert isinstance(failure.value, LookupError)
    return str(failure.value)


def test_readable(tmp_path: Path) -> None:
    """A stack reads like a traceback: most recent call last, with the lines of the source."""
    source = tmp_path / "handlers.py"
    source.write_text("def render(call):\n    wait()\n", encoding="utf-8")
    dump = (
        "Stack (most recent call first):\n"
        '  File "/nowhere.py", line 7 in wait\n'
        f'  File "{source}", line 2 in render\n'
        f'  File "{Path(child.__file__).parent.parent}/handlers/running.py", line 1 in __call__\n'
        + PROGRAM
    )
    assert readable_stack(dump) == (
        f'  File "{source}", line 2, in render\n    wait()\n  File "/nowhere.py", line 7, in wait\n'
    )


def test_too_deep() -> None:
    """Of a stack that is too deep the most recent calls are shown, and that there are more."""
    dump = 'Stack (most recent call first):\n  File "a.py", line ??? in b\n  ...\n'
    assert readable_stack(dump) == '  ...\n  File "a.py", line ???, in b\n'


def test_large_source(tmp_path: Path) -> None:
    """A file that is too large is not read for its line."""
    source = tmp_path / "large.py"
    source.write_text("x\n" * 1_500_000, encoding="utf-8")
    assert readable_stack(f'  File "{source}", line 1 in x\n' + PROGRAM) == (
        f'  File "{source}", line 1, in x\n'
    )


def test_only_ours() -> None:
    """While our own code runs for a job, that is shown."""
    stack = readable_stack(PROGRAM)
    assert stack is not None
    assert "in _run\n" in stack


def test_no_job() -> None:
    """A process without a job has no stack to show."""
    assert readable_stack(PROGRAM.split("\n", 1)[1]) is None


def test_in_pieces(asked: Asked) -> None:
    """An answer is given when it is whole, to everybody who has asked for it, by one signal."""
    outcomes = [asked.request(), asked.request()]
    asked.says('  File "a.py", line 1 in b\n' + PROGRAM[:-5])
    assert outcomes == [[], []]
    outcomes.append(asked.request())
    asked.says(PROGRAM[-5:])
    assert outcomes == [['  File "a.py", line 1, in b\n']] * 3
    assert asked.signals == 1
    assert asked.rests()


def test_one_after_another(asked: Asked) -> None:
    """What came too late for one request is not the answer to the next."""
    first = asked.request()
    asked.clock.advance(ANSWER_SECONDS + 0.1)
    assert "does not say" in why(first)
    asked.says('  File "late.py", line 1 in b\n' + PROGRAM)
    second = asked.request()
    asked.says('  File "a.py", line 1 in b\n' + PROGRAM)
    assert second == ['  File "a.py", line 1, in b\n']
    assert asked.signals == 2


def test_part_of_an_answer(asked: Asked) -> None:
    """An answer that is cut short is better than none, if a job is in it."""
    outcome = asked.request()
    asked.says('  File "a.py", line 1 in b\n' + PROGRAM.split("\n", 1)[0] + "\n")
    asked.clock.advance(ANSWER_SECONDS + 0.1)
    assert outcome == ['  File "a.py", line 1, in b\n']


def test_answer_without_a_job(asked: Asked) -> None:
    """A process that has just ended its job says so."""
    outcome = asked.request()
    asked.says(PROGRAM.split("\n", 1)[1])
    assert "no job" in why(outcome)
    assert asked.rests()


def test_endless_answer(asked: Asked) -> None:
    """An answer that does not end is cut."""
    outcome = asked.request()
    asked.says(f'  File "{child.__file__}", line 1 in _run\n')
    while not outcome:
        asked.says("x" * 40_000)
    assert len(outcome) == 1
    assert asked.rests()


def test_job_that_ends(asked: Asked) -> None:
    """Who asks about a job that ends meanwhile is told."""
    outcomes = [asked.request(), asked.request()]
    asked.reader.fail("the job has ended")
    assert [why(outcome) for outcome in outcomes] == ["the job has ended"] * 2
    assert asked.rests()


def test_process_that_ends(asked: Asked) -> None:
    """Who asks about a process that ends meanwhile, or has ended, is told."""
    outcome = asked.request()
    os.close(asked.writing)
    asked.reader.doRead()
    assert "has ended" in why(outcome)
    asked.writing = os.open(os.devnull, os.O_WRONLY)
    asked.reader.connectionLost(Failure(OSError()))
    assert "has ended" in why(asked.request())
    assert asked.rests()


def test_nobody_waits_any_more(asked: Asked) -> None:
    """Who has stopped waiting gets nothing, and the others get it."""
    given_up: Deferred[str] = asked.reader.request()
    outcome = asked.request()
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    asked.says(PROGRAM)
    assert len(outcome) == 1
    assert asked.rests()


def test_nothing_to_read(asked: Asked) -> None:
    """A reactor that sees more than there is does no harm."""
    outcome = asked.request()
    asked.reader.doRead()
    assert outcome == []
    assert asked.reader.logPrefix()
    assert asked.reader.fileno() > 0
