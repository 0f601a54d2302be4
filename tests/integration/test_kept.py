"""Kept jobs on real daemons: how calls are answered, and what outlives which end of a daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.control.kill import report, run
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Daemon, kill, wait_until
from tests.integration.kept import (
    APP,
    SOON,
    Place,
    ask,
    digest,
    key,
    keyed,
    promise,
    result_of,
    wait_open,
)
from tests.required import required

pytestmark = pytest.mark.integration

WORKER_LOST = "worker_lost"


def _end(daemon: Daemon, number: int = signal.SIGTERM) -> int:
    daemon.send_signal(number)
    return daemon.process.wait(SOON)


def _reason(body: bytes) -> object:
    return json.loads(body).get("reason")


def test_deliveries(daemon: StartDaemon, tmp_path: Path) -> None:
    """A call is answered as its client prefers and its route permits."""
    place = Place(tmp_path, daemon)
    served = place.start()
    async_, waits = "Prefer: respond-async", "Prefer: respond-async, wait=10"

    for path in ("/quick", "/quick-process", "/always", "/stream"):
        response = ask(served, path, b"promised" + path[1:].encode(), async_)
        assert response.status == 202, (path, response)
        assert response.headers["location"].startswith("http://test/jobs/")
        assert response.headers["preference-applied"] == "respond-async"
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert json.loads(response.body)["id"] in response.headers["location"]
    assert ask(served, "/always", b"always").status == 202
    assert ask(served, "/never", b"never", async_).status == 200
    assert ask(served, "/needs-key", b"no key").status == 400
    assert ask(served, "/needs-key", b"a key", key("a key")).body == digest(b"a key")
    assert ask(served, "/quick", b"waits", waits).body == digest(b"waits")
    large = b"large" * 60_000
    assert ask(served, "/quick", large, waits).body == digest(large)
    streamed = ask(served, "/stream", b"streamed", key("streamed"))
    assert (streamed.status, streamed.body) == (200, digest(b"streamed") * 40 * 50)

    first = ask(served, "/quick", large, key("large"))
    again = ask(served, "/quick", large, key("large"), name="again")
    assert first.body == again.body == digest(large)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] == "again"
    other = ask(served, "/quick", b"another", key("large"))
    assert (other.status, _reason(other.body)) == (422, "idempotency_key_reused")

    # Nobody waits longer than they want to.
    began = time.monotonic()
    assert ask(served, "/thread", b"short", "Prefer: respond-async, wait=1").status == 202
    assert ask(served, "/falls-back", b"falls back").status == 202
    assert ask(served, "/falls-back", b"falls back once more", "Prefer: wait=0").status == 202
    assert time.monotonic() - began < SOON
    # Two that are the same are one, and who comes with a key gets what runs already.
    with served.connect(SOON) as one, served.connect(SOON) as two, served.connect(SOON) as three:
        one.post("/coalesced", b"same")
        two.post("/coalesced", b"same")
        three.post("/thread", b"attached", key("attached"))
        place.wait_running("same", "attached")
        promised = ask(served, "/thread", b"attached", async_, key("attached"))
        place.open_gate()
        assert one.response().body == two.response().body == digest(b"same")
        assert three.response().body == digest(b"attached")
    assert promised.status == 202
    assert place.runs().count("same") == place.runs().count("attached") == 1


def test_hostile(daemon: StartDaemon, tmp_path: Path) -> None:
    """Fields that make no sense are refused, and who leaves while a call is taken harms nobody."""
    place = Place(tmp_path, daemon)
    served = place.start("--idempotency-grace=0s")
    for rubbish in ('"', '""', '"a" "b"', "a,b", "x" * 600, '"\x01"', "(1 2)", "\u00e9", ""):
        response = ask(served, "/quick", b"x", f"Idempotency-Key: {rubbish}")
        assert response.status == 400, (rubbish, response)
    twice = ask(served, "/quick", b"x", key("one"), key("two"))
    assert twice.status == 400
    strict = ask(served, "/quick", b"x", "Prefer: handling=strict, gzip-me")
    assert strict.status == 400
    with served.connect(SOON) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.post("/quick", b"x", f"Prefer: {'respond-async, ' * 70_000}")
        assert connection.response().status == 431
    for number in range(40):
        with served.connect(SOON) as connection:
            connection.post("/thread", b"left", "Prefer: respond-async, wait=9")
            if number % 2:
                time.sleep(0.002 * (number % 5))
    assert ask(served, "/quick", b"unharmed", key("unharmed")).body == digest(b"unharmed")
    assert served.process.poll() is None
    assert not served.log_lines("Traceback")
    assert _end(served) == 0
    left = [job for job in place.jobs().values() if job.record.request_id == "left"]
    assert all(job.record.reason == "client_disconnected" for job in left)


def test_killed(daemon: StartDaemon, tmp_path: Path) -> None:
    """After SIGKILL what waited runs, what ran does so by its retries, and results are the same."""
    place = Place(tmp_path, daemon)
    served = place.start()
    before = keyed(served, "/stream", "before")
    promise(served, "/one", "thread", "waits1", "waits2")
    promise(served, "/process", "process")
    promise(served, "/retried", "retried")
    promise(served, "/coroutine", "coroutine")
    place.wait_running("thread", "process", "retried", "coroutine")
    served.process.kill()
    served.process.wait()

    place.open_gate()
    served = place.start()
    lost = keyed(served, "/one", "thread")
    assert (lost.status, _reason(lost.body)) == (502, WORKER_LOST)
    assert json.loads(lost.body)["id"] == "thread"
    assert _reason(keyed(served, "/process", "process").body) == WORKER_LOST
    assert _reason(keyed(served, "/coroutine", "coroutine").body) == WORKER_LOST
    for path, body in (("/one", "waits1"), ("/one", "waits2"), ("/retried", "retried")):
        assert keyed(served, path, body).body == digest(body.encode())
    assert place.runs().count("retried") == 2
    assert place.runs().count("thread") == place.runs().count("waits1") == 1
    assert place.runs().index("waits1") < place.runs().index("waits2")
    assert keyed(served, "/stream", "before").body == before.body
    served.process.kill()
    served.process.wait()

    served = place.start()
    again = keyed(served, "/one", "thread")
    assert (again.status, again.body) == (lost.status, lost.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(place.runs()) == 8


def test_code_that_is_gone(daemon: StartDaemon, tmp_path: Path) -> None:
    """What waited for a route that is not there after a restart, nor its pool, ends in 404."""
    place = Place(tmp_path, daemon)
    served = place.start()
    promise(served, "/one", "runs", "waits")
    place.wait_running("runs")
    served.process.kill()
    served.process.wait()
    other = "from deferpost import App\napp = App()\napp.post('/other')(lambda call: 'other')\n"
    served = place.start(app=other)
    time.sleep(0.2)
    assert _end(served) == 0
    assert {name: (job.record.state, job.record.status) for name, job in place.jobs().items()} == {
        "runs": ("failed", 502),
        "waits": ("failed", 404),
    }


def test_sigterm(daemon: StartDaemon, tmp_path: Path) -> None:
    """SIGTERM leaves what waits to the next daemon, and lets what runs end within the grace."""
    place = Place(tmp_path, daemon)
    served = place.start("--grace=15s")
    promise(served, "/one", "runs")
    place.wait_running("runs")
    waiting = [f"waits{number}" for number in range(6)]
    promise(served, "/one", *waiting)
    promise(served, "/retried", "retried")
    place.wait_running("retried")
    with served.connect(SOON) as patient, served.connect(SOON) as impatient:
        patient.post("/one", b"patient", key("patient"), "X-Request-ID: patient")
        impatient.post(
            "/one", b"impatient", "Prefer: respond-async, wait=60", "X-Request-ID: impatient"
        )
        time.sleep(0.3)
        began = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert impatient.response().status == 202
        refused = patient.response()
        assert (refused.status, _reason(refused.body)) == (503, "shutdown")
        assert time.monotonic() - began < 10, "who waits is told at once"
    place.open_gate()
    assert served.process.wait(SOON) == 0
    assert time.monotonic() - began < 14, served.log()
    jobs = place.jobs()
    assert result_of(jobs["runs"]) == ("succeeded", None, digest(b"runs"))
    assert result_of(jobs["retried"]) == ("succeeded", None, digest(b"retried"))
    states = {str(jobs[name].record.state) for name in waiting}
    assert states <= {"queued", "succeeded"}
    assert jobs["waits5"].record.state == "queued"

    served = place.start()
    for body in [*waiting, "patient"]:
        assert keyed(served, "/one", body).body == digest(body.encode())
    assert _end(served) == 0
    jobs = place.jobs()
    assert {job.record.state for job in jobs.values()} == {"succeeded"}
    assert sorted(place.runs()) == sorted([*waiting, "runs", "retried", "patient", "impatient"])


def test_no_grace(daemon: StartDaemon, tmp_path: Path) -> None:
    """What runs on beyond the grace is canceled, but for what may run again: that does."""
    place = Place(tmp_path, daemon)
    served = place.start("--grace=0s")
    promise(served, "/one", "runs", "waits")
    promise(served, "/retried", "retried")
    place.wait_running("runs", "retried")
    assert _end(served) == 0
    jobs = place.jobs()
    assert result_of(jobs["runs"])[:2] == ("canceled", "shutdown")
    assert jobs["waits"].record.state == "queued"
    place.open_gate()
    served = place.start()
    assert keyed(served, "/one", "waits").body == digest(b"waits")
    assert keyed(served, "/retried", "retried").body == digest(b"retried")
    assert keyed(served, "/one", "runs").status == 503
    assert sorted(place.runs()) == ["retried", "retried", "runs", "waits"]


def test_reload(daemon: StartDaemon, tmp_path: Path) -> None:
    """What waits while another version comes is run by that one."""
    place = Place(tmp_path, daemon)
    served = place.start()
    promise(served, "/one", "runs", "next", "waits1", "waits2")
    place.wait_running("runs")
    (tmp_path / "served.py").write_text(APP.replace("VERSION = 1", "VERSION = 2"))
    served.send_signal(signal.SIGHUP)
    wait_until(lambda: served.log_lines("reloaded in"), SOON, served.log)
    promise(served, "/one", "waits3")
    place.open_gate()
    assert keyed(served, "/one", "runs").body == digest(b"runs", 1)
    for body in ("waits1", "waits2", "waits3"):
        assert keyed(served, "/one", body).body == digest(body.encode(), 2)
    assert keyed(served, "/one", "next").status == 200
    assert sorted(place.runs()) == ["next", "runs", "waits1", "waits2", "waits3"]


def test_two_daemons(daemon: StartDaemon, tmp_path: Path) -> None:
    """A second daemon on a store serves what is not kept, and takes over when the first ends."""
    place = Place(tmp_path / "one", daemon)
    first = place.start()
    promise(first, "/one", "runs", "waits")
    place.wait_running("runs")
    second = Place(tmp_path / "two", daemon, place.store).start(is_open=False)
    line = wait_until(lambda: second.log_lines("calls that are to be kept"), SOON, second.log)[0]
    assert f"in use by process {first.pid}" in line
    assert ask(second, "/quick", b"plain").body == digest(b"plain")
    refused = ask(second, "/quick", b"kept", key("kept"))
    assert (refused.status, _reason(refused.body)) == (503, "store_failed")
    assert int(refused.headers["retry-after"]) > 0
    (tmp_path / "two" / "gate").touch()
    assert _end(first, signal.SIGKILL) == -signal.SIGKILL
    wait_open(second)
    assert keyed(second, "/one", "waits").body == digest(b"waits")
    assert _reason(keyed(second, "/one", "runs").body) == WORKER_LOST
    assert len(second.log_lines("calls that are to be kept")) == 1


def test_worker_lost(daemon: StartDaemon, tmp_path: Path) -> None:
    """A worker that is killed in a kept job costs that job, unless it may run again."""
    place = Place(tmp_path, daemon)
    served = place.start()
    promise(served, "/process", "process")
    promise(served, "/retried", "retried")
    place.wait_running("process", "retried")
    lines = (tmp_path / "runs").read_text().splitlines()
    for pid in {int(line.split()[2]) for line in lines}:
        kill(pid)
    wait_until(lambda: place.runs().count("retried") == 2, SOON, served.log)
    place.open_gate()
    assert _reason(keyed(served, "/process", "process").body) == WORKER_LOST
    assert keyed(served, "/retried", "retried").body == digest(b"retried")
    assert _end(served) == 0
    jobs = place.jobs()
    assert (jobs["process"].record.attempt, jobs["retried"].record.attempt) == (1, 2)


def test_damaged(daemon: StartDaemon, tmp_path: Path) -> None:
    """A daemon whose store is damaged says so, and serves what is not kept."""
    place = Place(tmp_path, daemon)
    place.store.mkdir()
    (place.store / "jobs.sqlite3").write_bytes(b"this is no database" * 1000)
    served = place.start(is_open=False)
    line = wait_until(lambda: served.log_lines("calls that are to be kept"), SOON, served.log)[0]
    assert "damaged or none of SQLite" in line
    refused = ask(served, "/quick", b"kept", "Prefer: respond-async")
    assert (refused.status, _reason(refused.body)) == (503, "store_failed")
    assert ask(served, "/quick", b"plain").body == digest(b"plain")
    assert _end(served) == 0


def test_lost_body(daemon: StartDaemon, tmp_path: Path) -> None:
    """A job whose body somebody has removed keeps no others from running."""
    place = Place(tmp_path, daemon)
    served = place.start()
    large = b"large" * 10_000
    promise(served, "/one", "runs")
    place.wait_running("runs")
    assert ask(served, "/one", large, key("large"), "Prefer: respond-async").status == 202
    promise(served, "/one", "other")
    served.process.kill()
    served.process.wait()
    files = list((place.store / "bodies").iterdir())
    assert len(files) == 1
    files[0].unlink()
    place.open_gate()
    served = place.start()
    assert keyed(served, "/one", "other").body == digest(b"other")
    assert keyed(served, "/one", "new").body == digest(b"new")
    assert ask(served, "/one", large, key("large"), "Prefer: respond-async").status == 202
    assert _end(served) == 0
    assert place.runs() == ["runs", "other", "new"]


def test_one_that_is_canceled_before_it_runs(daemon: StartDaemon, tmp_path: Path) -> None:
    """A job that is canceled while it is the next one makes room for the one behind it."""
    place = Place(tmp_path, daemon)
    served = place.start("--idempotency-grace=0s")
    promise(served, "/one", "runs")
    place.wait_running("runs")
    with served.connect(SOON) as connection:
        connection.post("/one", b"next", "Prefer: respond-async, wait=60")
        promise(served, "/one", "waits")
    wait_until(lambda: served.log_lines("client_disconnected"), SOON, served.log)
    place.open_gate()
    assert keyed(served, "/one", "waits").body == digest(b"waits")
    assert place.runs() == ["runs", "waits"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount, umount = required("mount", "mount"), required("umount", "mount")
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run([umount, "--lazy", folder], check=True)


def _fill(disk: Path) -> Path:
    """Write a file until no space is left."""
    path = disk / "filling"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_full_disk(daemon: StartDaemon, small_disk: Path, tmp_path: Path) -> None:
    """A full disk refuses calls that are to be kept; nothing that was promised is lost by it."""
    place = Place(tmp_path / "daemon", daemon, small_disk / "store")
    served = place.start()
    promise(served, "/one", "runs", "waits")
    promise(served, "/retried", "retried")
    place.wait_running("runs", "retried")
    filling = _fill(small_disk)
    bodies = [f"{number:03}" + "x" * 3000 for number in range(200)]
    promised = []
    for body in bodies:
        response = ask(served, "/one", body.encode(), "Prefer: respond-async", key(body[:3]))
        if response.status != 202:
            break
        promised.append(body)
    assert (response.status, _reason(response.body)) == (503, "store_failed")
    assert "no space is left on its disk" in served.log()
    assert ask(served, "/quick", b"plain").body == digest(b"plain")
    # What ends now cannot be recorded; it does not keep the daemon from ending.
    place.open_gate()
    wait_until(lambda: "runs" in place.runs("end"), SOON, served.log)
    assert _end(served) == 0
    # One that is started there serves what needs no disk.
    served = place.start(is_open=False)
    assert ask(served, "/quick", b"plain").body == digest(b"plain")
    time.sleep(0.5)
    filling.unlink()
    wait_open(served)
    wait_until(
        lambda: ask(served, "/quick", b"later", key("later")).status == 200, SOON, served.log
    )
    for body in promised:
        again = ask(served, "/one", body.encode(), key(body[:3]))
        assert again.status == 200, (again, served.log())
        assert again.body == digest(body.encode())
    assert keyed(served, "/one", "waits").body == digest(b"waits")
    assert keyed(served, "/retried", "retried").body == digest(b"retried")
    assert keyed(served, "/one", "runs").status in (200, 502)
    assert _end(served) == 0
    assert place.runs().count("runs") == place.runs().count("waits") == 1


def test_read_only_disk(daemon: StartDaemon, small_disk: Path, tmp_path: Path) -> None:
    """A disk that becomes read-only is one that is full."""
    mount = required("mount", "mount")
    place = Place(tmp_path / "daemon", daemon, small_disk / "store")
    served = place.start()
    promise(served, "/one", "runs", "waits")
    place.wait_running("runs")
    made = subprocess.run([mount, "-o", "remount,ro", small_disk], capture_output=True, text=True)
    if made.returncode:  # files are open for writing there
        served.process.kill()
        served.process.wait()
        subprocess.run([mount, "-o", "remount,ro", small_disk], check=True)
        served = place.start(is_open=False)
        wait_until(lambda: served.log_lines("calls that are to be kept"), SOON, served.log)
    refused = ask(served, "/quick", b"kept", key("kept"))
    assert (refused.status, _reason(refused.body)) == (503, "store_failed")
    assert ask(served, "/quick", b"plain").body == digest(b"plain")
    place.open_gate()
    subprocess.run([mount, "-o", "remount,rw", small_disk], check=True)
    wait_open(served)
    wait_until(
        lambda: ask(served, "/quick", b"later", key("later")).status == 200, SOON, served.log
    )
    assert keyed(served, "/one", "waits").body == digest(b"waits")
    assert keyed(served, "/one", "runs").status == 502


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Nothing is lost, run too often, answered wrongly or left behind, whenever it is killed."""
    seen = run(tmp_path, rounds=20, seconds=8.0, clients=4)
    assert seen.is_good, "\n".join(report(seen))
    assert seen.findings.accepted
