"""What an input of the fuzzer means, and those that it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.wire.cases import CASES
from tests.wire.invariants import KINDS, LIMITS, check
from tests.wire.smuggling import SMUGGLING

__all__ = ["Input", "read", "seeds", "try_input", "write_seeds"]

_CUTS = 4
_HEAD = 2 + _CUTS

#: Bytes of a seed: longer ones are slow, and say little more.
_MOST = 1200

_SECOND = b"POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


@attrs.frozen
class Input:
    """Bytes for a channel, and how to try them.

    :ivar kind: the kind of resource, as an index.
    :ivar limits: the bounds, as an index.
    :ivar cuts: where the bytes are cut.
    :ivar data: the bytes.
    """

    kind: int
    limits: int
    cuts: tuple[int, ...]
    data: bytes


def read(data: bytes) -> Input | None:
    """What the fuzzer's bytes mean; None if they are too few.

    Two bytes choose resource and bounds, four say where to cut in 256ths of the rest, which is
    what the client sends; it is cut everywhere if the second byte is odd in its upper half.
    """
    if len(data) <= _HEAD:
        return None
    rest = data[_HEAD:]
    cuts = tuple(cut * len(rest) // 256 for cut in data[2:_HEAD])
    if data[1] & 0x10:
        cuts = tuple(range(len(rest)))
    return Input(data[0] % len(KINDS), data[1] % len(LIMITS), cuts, rest)


def try_input(data: bytes) -> None:
    """Check an input of the fuzzer.

    :raises Exception: it shows something that must not be.
    """
    given = read(data)
    if given is not None:
        check(given.data, given.cuts, kind=given.kind, limits=given.limits)


def seeds() -> Iterator[bytes]:
    """Inputs to start from: the cases, alone and with another request behind them."""
    for number, case in enumerate((*CASES, *SMUGGLING)):
        if len(case.request) > _MOST:
            continue
        head = bytes([number % len(KINDS), number // len(KINDS) % len(LIMITS), 40, 90, 130, 200])
        yield head + case.request
        if case.status == 200:
            yield head + case.request + _SECOND


def write_seeds(directory: Path) -> None:
    """Write each of the seeds into a file of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (directory / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
