"""Servers that are started and ended, and the order in which they are measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import usable_cores
from bench.plan import Figures, Plan, interleaved
from bench.processes import PeakMemory, cpu_seconds, descendants, is_alive, memory
from bench.programs import Program, Setting
from bench.running import ServerFailed, environment, running

SERVER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(text: str, name: str = "small") -> Program:
    """A server that is a few lines of Python."""

    def command(setting: Setting) -> list[str]:
        return [sys.executable, "-c", text, str(setting.port)]

    return Program(name, f"the {name}", command)


def plan(failures: list[str], chosen: frozenset[str] | None = None, quick: bool = False) -> Plan:
    """A plan of two rounds."""
    servers = {name: python("", name) for name in ("ours", "klein", "recipe")}
    return Plan(
        rounds=2,
        seconds=1.0,
        is_quick=quick,
        programs=servers,
        chosen=chosen,
        cores=usable_cores(),
        files=1000,
        say=lambda text: None,
        failed=failures.append,
    )


def test_a_server_and_its_processes_end_with_the_block(tmp_path: Path) -> None:
    """Nothing that a server started outlives it."""
    with running(python(SERVER), "threads", tmp_path, cores=usable_cores().server) as up:
        family = descendants(up.pid)
        assert [each.pid for each in family] == up.family()
        assert len(family) == 1
        assert 0 < up.seconds < 30
        assert os.sched_getaffinity(up.pid) == usable_cores().server
    assert not any(map(is_alive, family))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error has what it printed."""
    broken = python("raise SystemExit('no such thing')")
    with (
        pytest.raises(ServerFailed, match="no such thing"),
        running(broken, "threads", tmp_path, cores=usable_cores().server),
    ):
        raise AssertionError


def test_settings_of_this_shell_do_not_reach_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would configure a server is left out."""
    monkeypatch.setenv("DEFERPOST_MAX_BODY", "1KiB")
    found = environment({"BENCH_GATE": "gate"})
    assert "DEFERPOST_MAX_BODY" not in found
    assert found["BENCH_GATE"] == "gate"


def test_rounds_go_over_all_servers() -> None:
    """Servers take turns, and one that fails once is told and keeps its other rounds."""
    failures: list[str] = []
    made = plan(failures)
    order: list[str] = []

    def measure(server: Program) -> Figures:
        order.append(server.name)
        if order == ["ours", "recipe"]:
            raise ServerFailed("it did not answer")
        return {"": {"rate": float(len(order))}}

    rows = interleaved(made, "thread", made.among("ours", "recipe"), 2, measure)
    assert order == ["ours", "recipe", "ours", "recipe"]
    assert [(each.server, each.runs["rate"]) for each in rows] == [
        ("ours", (1.0, 3.0)),
        ("recipe", (4.0,)),
    ]
    assert failures == ["thread, the recipe: it did not answer"]


@pytest.mark.parametrize(
    ("chosen", "quick", "names"),
    [
        (None, False, ["ours", "klein"]),
        (None, True, ["ours"]),
        (frozenset({"klein"}), True, ["klein"]),
    ],
)
def test_servers_are_left_out_as_told(
    chosen: frozenset[str] | None, quick: bool, names: list[str]
) -> None:
    """Those that are named are measured; a quick run leaves some out that are not."""
    made = plan([], chosen, quick)
    assert [each.name for each in made.among("ours", "klein", "granian")] == names


def test_memory_and_time_of_a_process_are_seen() -> None:
    """A process that takes memory and computes is seen to have done so."""
    text = "input(); data = b'x' * 30_000_000; del data; sum(range(3_000_000)); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        peak, before = PeakMemory(process.pid), cpu_seconds([process.pid])
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert peak.growth() >= 25_000_000
        assert memory(process.pid) > 0
        assert cpu_seconds([process.pid]) > before
        process.communicate(b"\n", 20)
    assert cpu_seconds([process.pid]) == 0
