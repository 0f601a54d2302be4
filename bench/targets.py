"""What the project wants to reach, and what a run says of it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from bench.results import Results

__all__ = ["Verdict", "as_lines", "verdicts"]


@attrs.frozen
class Verdict:
    """A target and what was reached.

    :ivar target: the target, in words.
    :ivar reached: the figure, with its unit.
    :ivar is_met: whether it is what was wanted.
    """

    target: str
    reached: str
    is_met: bool


def verdicts(results: Results) -> list[Verdict]:
    """What a run says of every target that it measured."""
    return [*_speed(results), *_freedom(results), *_scale(results)]


def as_lines(found: list[Verdict]) -> list[str]:
    """One line for each."""
    return [
        f"{'met    ' if each.is_met else 'NOT met'}  {each.target}: {each.reached}"
        for each in found
    ]


def _speed(results: Results) -> Iterator[Verdict]:
    for workload, server, words, base, theirs, least in (
        ("thread", "ours", "through a thread", "aiohttp-uvloop", "aiohttp with uvloop", 1.5),
        ("thread", "ours", "through a thread", "recipe", "the usual recipe", 4.0),
        ("thread", "ours-mounted", "in a stock Site", "recipe", "the usual recipe", 1.5),
        ("process", "ours", "through a process", "aiohttp-uvloop", "aiohttp with uvloop", 2.0),
    ):
        table = results.table(workload)
        if table is None:
            continue
        own, other = table.median(server, "rate"), table.median(base, "rate")
        if own is not None and other:
            ratio = own / other
            target = f"{words}, {least:g} times the requests/s of {theirs}"
            yield Verdict(target, f"{ratio:.2f} times", ratio >= least)
    compute = results.table("compute")
    if compute is not None and (share := compute.median("ours", "share")) is not None:
        yield Verdict("95 % of two bare processes, computing", f"{share:.1f} %", share >= 95)


def _freedom(results: Results) -> Iterator[Verdict]:
    table = results.table("livez")
    if table is None:
        return
    ratio = table.median("ours", "to_idle", "processes computing")
    if ratio is not None:
        target = "/livez while processes compute, p99 at most 2 times that of idle"
        yield Verdict(target, f"{ratio:.2f} times", ratio <= 2)
    own = table.median("ours", "p99", "threads computing")
    theirs = table.median("aiohttp-uvloop", "p99", "threads computing")
    if own is not None and theirs:
        target = "/livez while threads compute, p99 at most half of that of aiohttp with uvloop"
        yield Verdict(target, f"{own / theirs:.2f} times", own / theirs <= 0.5)


def _scale(results: Results) -> Iterator[Verdict]:
    pending = results.table("pending")
    if pending is not None and (each := pending.median("ours", "each")) is not None:
        yield Verdict("a pending POST, at most 6 KiB", f"{each:.1f} KiB", each <= 6)
        again = pending.median("ours", "again") or 0.0
        target = "as many again after the clients left, at most 0.5 KiB more for each"
        yield Verdict(target, f"{again:.2f} KiB", again <= 0.5)
    large = results.table("large")
    if large is not None:
        for case in ("up", "down"):
            grown = [
                (spread.median, row.label)
                for row in large.rows
                if row.ours and row.case == case and (spread := row.spread("main")) is not None
            ]
            if grown:
                most, label = max(grown)
                target = f"a large body {case}, in every mode, at most 16 MiB of memory"
                yield Verdict(target, f"{most:.1f} MiB ({label})", most <= 16)
        stock = large.median("recipe", "rate", "up")
        for server, words in (("ours", "spooled"), ("ours-stream", "streamed")):
            own = large.median(server, "rate", "up")
            if own is not None and stock:
                target = f"a large body up, {words}, 2 times as fast as stock twisted.web"
                yield Verdict(target, f"{own / stock:.2f} times", own / stock >= 2)
    startup = results.table("startup")
    if startup is not None and (seconds := startup.median("ours", "seconds")) is not None:
        yield Verdict("ready within 0.7 s of the command", f"{seconds:.2f} s", seconds <= 0.7)
