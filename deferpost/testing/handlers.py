"""The handlers of the behaviour suite, plain ones; a worker process finds them by name.

Where one has to wait, or has something to show, that goes through the folder which the query names
as ``dir``: the one way that reaches every kind of worker.  ``coroutines`` has the same ones for
pools on the reactor.  Nothing here imports Twisted, because worker processes import this.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from deferpost.errors import Canceled, HTTPError
from deferpost.handlers.call import Call

__all__ = ["HANDLERS", "Calls", "folder_of", "gate_of", "large_body", "note", "numbered_chunk"]

#: Seconds between two looks at a gate, in a worker.
_LOOK_SECONDS = 0.002


def folder_of(call: Call) -> Path:
    """Where the test looks."""
    return Path(call.args["dir"][0])


def gate_of(call: Call) -> Path:
    """The file for which a call waits."""
    return folder_of(call) / call.args.get("gate", ["gate"])[0]


def note(call: Call, name: str, line: str = "") -> None:
    """Add a line to a file that the test reads."""
    with open(folder_of(call) / name, "a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


def number(call: Call, name: str) -> int:
    """An argument that is a number."""
    return int(call.args[name][0])


def large_body(size: int) -> bytes:
    """As many bytes, of which no two stretches are alike."""
    pattern = b"".join(b"%08x" % n for n in range(8192))
    return (pattern * (size // len(pattern) + 1))[:size]


def numbered_chunk(index: int, size: int) -> bytes:
    """The chunk of a stream."""
    return (b"%08d" % index).ljust(size, b".")


def echo(call: Call) -> bytes:
    """The body as it came."""
    return call.body.read()


def own_body(call: Call) -> BinaryIO:
    """The body as it came, by handing on its file."""
    return call.body


def describe(call: Call) -> dict[str, object]:
    """What the call is."""
    return {"id": call.id, "route": call.route, "path": call.path, "args": call.args["word"]}


def empty(call: Call) -> None:
    """Nothing."""


def large(call: Call) -> bytes:
    """A body of any size."""
    return large_body(number(call, "size"))


def file(call: Call) -> BinaryIO:
    """A file, from a position inside what was read ahead."""
    path = folder_of(call) / f"file-{call.id}"
    path.write_bytes(large_body(100_000))
    opened = open(path, "rb")  # noqa: SIM115 (it is the answer)
    opened.read(10)
    opened.seek(5)
    return opened


def refuse(call: Call) -> None:
    """Answers with an error of its choice."""
    raise HTTPError(
        422,
        "There are too many words.",
        title="Too Wordy",
        type="https://example.org/wordy",
        headers=(("X-Words", "7"), ("X-Words", "8")),
        extensions={"words": 7},
    )


def fail(call: Call) -> None:
    """Raises something that is no answer."""
    raise LookupError("the handler's own words")


def cancel_itself(call: Call) -> None:
    """Raises Canceled, though nobody has canceled it."""
    raise Canceled


def hold(call: Call) -> str:
    """Runs until its gate is open or nobody wants it any more."""
    note(call, "started", call.id)
    while not gate_of(call).exists():
        call.check()
        time.sleep(_LOOK_SECONDS)
    return call.id


def hold_on(call: Call) -> str:
    """Runs until its gate is open, whatever it is told."""
    try:
        note(call, "started", call.id)
        _wait(call)
    except Canceled:  # as a process is told
        _wait(call)
    return call.id


def _wait(call: Call) -> None:
    while not gate_of(call).exists():
        time.sleep(_LOOK_SECONDS)


def report(call: Call) -> str:
    """Says how far it is, waits for its gate, and says it again."""
    call.progress(1, 4, "one of four")
    hold(call)
    call.progress(4, 4, "all")
    return call.id


def count(call: Call) -> Iterator[bytes]:
    """Streams numbered chunks, and notes each, and its end."""
    try:
        for index in range(number(call, "chunks")):
            note(call, "made")
            yield numbered_chunk(index, number(call, "size"))
    finally:
        note(call, "closed", call.id)


def break_off(call: Call) -> Iterator[bytes]:
    """Streams two chunks, and fails."""
    yield b"one"
    yield b"two"
    raise LookupError("the handler's own words")


def fail_first(call: Call) -> Iterator[bytes]:
    """Fails before the first chunk of its stream."""
    refuse(call)
    yield b"never"


def drip(call: Call) -> Iterator[bytes]:
    """Streams a chunk, waits for its gate, and streams another."""
    yield b"first"
    hold(call)
    yield b"second"


def measure(call: Call) -> dict[str, object]:
    """How long the body is, and its digest; read piece by piece."""
    size, digest = 0, hashlib.sha256()
    while piece := call.body.read(60_000):
        size += len(piece)
        digest.update(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def measure_later(call: Call) -> dict[str, object]:
    """The same, when its gate is open."""
    hold(call)
    return measure(call)


def first_word(call: Call) -> bytes:
    """Notes the first five bytes of the body before it reads others, which it returns."""
    note(call, "first", call.body.read(5).decode())
    return call.body.read(int(call.args.get("most", ["-1"])[0]))


def longest_line(call: Call) -> int:
    """How long the longest line of the body is."""
    return max((len(line) for line in call.body), default=0)


def shout(call: Call) -> Iterator[bytes]:
    """Streams the body in capitals, each piece as it comes."""
    while piece := call.body.read1(60_000):  # type: ignore[attr-defined]  # a buffered file has it
        yield piece.upper()


def interrupted(call: Call) -> int:
    """Reads the body, and notes why it could not."""
    note(call, "started", call.id)
    try:
        return len(call.body.read())
    except BaseException as error:
        note(call, "interrupted", type(error).__name__)
        raise


def wrapped(call: Call) -> int:
    """Reads the body, and says in its own words why it could not, as libraries do."""
    try:
        return len(call.body.read())
    except OSError as error:
        raise ValueError("this cannot be read") from error


def numbers(call: Call) -> int:
    """The sum of numbers that the body has as JSON, looked at twice."""
    return sum(call.json(list[int])) + len(call.json())


def title(call: Call) -> dict[str, object]:
    """A field of a form, and how large its file is."""
    form = call.form()
    return {"title": form["title"], "size": form.file("file").size}


class Calls:
    """Counts its calls, and so shows when another one was built."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, call: Call) -> int:
        """How many calls it has had."""
        self._calls += 1
        return self._calls


#: The handlers by the names of their routes.
HANDLERS = {
    "break_off": break_off,
    "calls": Calls,
    "cancel_itself": cancel_itself,
    "count": count,
    "describe": describe,
    "drip": drip,
    "echo": echo,
    "empty": empty,
    "fail": fail,
    "fail_first": fail_first,
    "file": file,
    "first_word": first_word,
    "hold": hold,
    "hold_on": hold_on,
    "interrupted": interrupted,
    "large": large,
    "longest_line": longest_line,
    "measure": measure,
    "measure_later": measure_later,
    "numbers": numbers,
    "own_body": own_body,
    "refuse": refuse,
    "report": report,
    "shout": shout,
    "title": title,
    "wrapped": wrapped,
}
