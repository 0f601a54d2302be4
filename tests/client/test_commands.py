"""The commands as people and scripts run them: as processes, with and without a terminal."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from twisted.internet import threads
from twisted.internet.defer import Deferred

from deferpost.client.commands import NAMES
from deferpost.client.commands.line import read_line
from deferpost.client.commands.main import opened, run_command
from deferpost.client.commands.performing import perform
from deferpost.client.commands.running import Stopped
from tests.client.site import FakeJob, JobSite, abort, problem
from tests.integration.daemon import clean_environment

COMMAND = (sys.executable, "-m", "deferpost.command")


class Ran(NamedTuple):
    """A command that has ended.

    :ivar status: its exit status.
    :ivar out: what it printed.
    :ivar error: what it printed on standard error.
    """

    status: int
    out: bytes
    error: str


class Running:
    """Commands that run beside the site, in a folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str, environment: dict[str, str] | None = None, **more: Any) -> Any:
        """Start a command."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.directory,
            env=clean_environment({"PYTHONPATH": os.getcwd(), **(environment or {})}),
            **{**given, **more},
        )
        self.processes.append(process)
        return process

    def __call__(self, *words: str, input: bytes | None = None, **more: Any) -> Deferred[Ran]:
        """Run a command to its end, while the reactor turns."""
        if input is not None:
            more["stdin"] = subprocess.PIPE
        process = self.start(*words, **more)

        def end() -> Ran:
            out, error = process.communicate(input, timeout=30)
            return Ran(process.returncode, out or b"", (error or b"").decode())

        return threads.deferToThread(end)

    def in_terminal(
        self, *words: str, columns: int = 80, environment: dict[str, str] | None = None
    ) -> tuple[Any, Deferred[Ran]]:
        """Run a command whose standard error is a terminal, to its end."""
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {"TERM": "xterm", "LC_ALL": "C.UTF-8", **(environment or {})}
        process = self.start(*words, environment=environment, stderr=slave)
        os.close(slave)

        def end() -> Ran:
            shown = b""
            with contextlib.suppress(OSError):  # as a terminal says that it is over
                while piece := os.read(master, 65536):
                    shown += piece
            os.close(master)
            out, _ = process.communicate(timeout=30)
            return Ran(process.returncode, out, shown.decode().replace("\r\n", "\n"))

        return process, threads.deferToThread(end)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    """Runs commands, and ends those that have not ended."""
    (tmp_path / "file").write_bytes(b"the file")
    running = Running(tmp_path)
    yield running
    for process in running.processes:
        if process.poll() is None:
            process.kill()
            process.wait()


class Performed:
    """Commands that are performed in this process, which is quicker; all but the signals are there.

    :ivar directory: the current folder.
    """

    def __init__(self, directory: Path, captured: pytest.CaptureFixture[bytes]) -> None:
        self.directory = directory
        self._captured = captured

    async def __call__(self, *words: str) -> Ran:
        """Perform a command to its end."""
        from twisted.internet import reactor

        given = read_line(words, os.environ)
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(opened(given.file)) if given.command == "post" else None
            status = await perform(given, body, reactor, Stopped())
        out, error = self._captured.readouterr()
        return Ran(status, out, error.decode())


@pytest.fixture
def do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Performed:
    """Performs commands."""
    (tmp_path / "file").write_bytes(b"the file")
    monkeypatch.chdir(tmp_path)
    return Performed(tmp_path, capsysbinary)


def done_soon(body: bytes = b"done\n", **more: Any) -> Callable[[FakeJob], object]:
    """What has each new job end soon."""
    from twisted.internet import reactor

    clock: Any = reactor

    def made(job: FakeJob) -> None:
        clock.callLater(0.05, job.begin)
        clock.callLater(0.1, job.end, body, **more)

    return made


# deferpost post.


@pytest_twisted.ensureDeferred
async def test_an_answer_at_once(site: JobSite, run: Running) -> None:
    """The answer is all that is on standard output."""
    site.made = lambda job: job.end(b"got " + job.body)
    ran = await run("post", f"{site.url}/work?x=1", "file")
    assert (ran.status, ran.out) == (0, b"got the file")
    assert ran.error == (
        f"deferpost: posting file to {site.url}/work?x=1\ndeferpost: answered 200, 12 B\n"
    )
    assert site.headers("prefer") == ["respond-async, wait=1"]


@pytest_twisted.ensureDeferred
async def test_a_job_is_followed(site: JobSite, run: Running) -> None:
    """What becomes a job is followed to its result; without a terminal there is no bar."""
    site.made = done_soon()
    ran = await run("post", f"{site.url}/work", "-", "--async", input=b"from a pipe")
    assert (ran.status, ran.out) == (0, b"done\n")
    assert site.jobs["job-1"].body == b"from a pipe"
    first, second, third = ran.error.splitlines()
    assert first == f"deferpost: posting standard input to {site.url}/work"
    assert second == f"deferpost: the job is {site.url}/jobs/job-1"
    assert re.fullmatch(r"deferpost: succeeded after 0\.\ds(, having waited 0\.\ds)?", third)
    assert "\x1b" not in ran.error
    assert site.headers("prefer")[0] == "respond-async"


@pytest_twisted.ensureDeferred
async def test_options_of_post(
    site: JobSite, do: Performed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the options say is in the request; the token comes from the first place that has one."""
    site.made = lambda job: job.end(b"x" * 100)
    (do.directory / "token").write_text("from-a-file\n")
    options = [
        *("--wait", "5s", "--key", "my key", "--content-type", "text/x", "-H", "X-Mine: 1"),
        *("--webhook", "https://a.example/", "--deadline", "1m", "--token-file", "token"),
        *("--output", "out", "--quiet"),
    ]
    monkeypatch.setenv("DEFERPOST_TOKEN", "from-the-environment")
    ran = await do("post", f"{site.url}/work", "file", *options)
    assert ran == (0, b"", "")
    _, _, headers = site.requests[0]
    names = "prefer idempotency-key content-type x-mine webhook-url x-timeout authorization"
    assert [headers.getRawHeaders(name)[0] for name in names.split()] == [
        *("respond-async, wait=5", '"my key"', "text/x", "1", "https://a.example/", "1m"),
        "Bearer from-a-file",
    ]
    assert (do.directory / "out").read_bytes() == b"x" * 100
    assert sorted(path.name for path in do.directory.iterdir()) == ["file", "out", "token"]
    await do("post", f"{site.url}/work", "file", "--sync")
    assert site.headers("authorization")[1] == "Bearer from-the-environment"
    assert site.headers("prefer")[1] is None


@pytest_twisted.ensureDeferred
async def test_detach(site: JobSite, do: Performed) -> None:
    """A script gets the URL of the job, and goes on."""
    ran = await do("post", f"{site.url}/work", "file", "--detach", "-q")
    assert ran == (0, f"{site.url}/jobs/job-1\n".encode(), "")
    ran = await do("post", f"{site.url}/work", "file", "--detach", "-q", "--json")
    document = json.loads(ran.out)
    assert (document["url"], document["job"]["id"]) == (f"{site.url}/jobs/job-2", "job-2")


@pytest_twisted.ensureDeferred
async def test_json(site: JobSite, do: Performed) -> None:
    """--json prints one document, with the answer, as text or in Base64, or the problem."""
    site.made = done_soon(b"text")
    post = ("post", f"{site.url}/work", "file", "--json", "-q")
    document = json.loads((await do(*post)).out)
    assert document["answer"]["status"] == 200
    assert document["answer"]["body"] == "text"
    site.made = done_soon(b"\xff\xfe")
    document = json.loads((await do(*post, "--async")).out)
    assert document["url"] == f"{site.url}/jobs/job-2"
    assert (document["job"]["state"], document["problem"]) == ("succeeded", None)
    assert document["answer"]["encoding"] == "base64"
    assert base64.b64decode(document["answer"]["body"]) == b"\xff\xfe"
    site.instead = [problem(422, "unusable", "It is no good.")]
    ran = await do(*post)
    document = json.loads(ran.out)
    assert (ran.status, document["answer"], document["problem"]["reason"]) == (1, None, "unusable")


# Exit statuses.


@pytest_twisted.ensureDeferred
async def test_a_job_that_failed(site: JobSite, do: Performed) -> None:
    """A failed job is told readably, with exit status 1, and leaves no file."""
    from twisted.internet import reactor

    clock: Any = reactor
    site.made = lambda job: clock.callLater(
        0.05, job.fail, 502, "worker_lost", "The process ended.\x1b[31m"
    )
    ran = await do("post", f"{site.url}/work", "file", "--async", "--output", "out")
    assert (ran.status, ran.out) == (1, b"")
    assert ran.error.splitlines()[-1] == (
        "deferpost: the job failed: 502 It failed: The process ended. [31m (worker_lost, id job-1)"
    )
    assert not (do.directory / "out").exists()
    ran = await do("wait", f"{site.url}/jobs/job-1", "-q")
    assert (ran.status, ran.out) == (1, b"failed\n")
    assert "The process ended." in ran.error


@pytest_twisted.ensureDeferred
async def test_a_job_that_was_canceled(site: JobSite, do: Performed) -> None:
    """A canceled job, and one that has expired, are exit status 4."""
    url = f"{site.url}/jobs/{site.new_job().id}"
    ran = await do("cancel", url)
    assert ran == (0, b"canceled\n", "")
    ran = await do("result", url)
    assert (ran.status, ran.out) == (4, b"")
    assert ran.error == "deferpost: the job is canceled: It was canceled. (requested)\n"
    site.instead = [problem(410, detail="The job has expired.")]
    ran = await do("result", f"{url}/result")
    assert ran.status == 4
    assert "410" in ran.error
    assert (await do("wait", url)).status == 4


@pytest_twisted.ensureDeferred
async def test_nobody_there(site: JobSite, run: Running) -> None:
    """A server that cannot be reached is exit status 3, and a refusal is 1."""
    site.instead = [abort] * 100
    ran = await run("jobs", site.url, "--timeout", "1.0")
    assert ran.status == 3
    assert "trying again" in ran.error
    assert ran.error.endswith("deferpost: the time is over\n")
    site.instead = [problem(404, detail="There is nothing.")]
    ran = await run("jobs", site.url)
    assert (ran.status, ran.error) == (
        1,
        "deferpost: 404 A problem: There is nothing. (id req-1)\n",
    )


@pytest_twisted.ensureDeferred
async def test_the_time_is_over(site: JobSite, run: Running) -> None:
    """When the time is over, the job goes on, and it is said how to get at it."""
    ran = await run("post", f"{site.url}/work", "file", "--async", "--timeout", "1.5")
    assert ran.status == 3
    url = f"{site.url}/jobs/job-1"
    assert ran.error.splitlines()[-3:] == [
        "deferpost: the time is over; the job goes on",
        f"deferpost: to get its result: deferpost result {url}",
        f"deferpost: to cancel it: deferpost cancel {url}",
    ]
    assert site.jobs["job-1"].state == "queued"


USAGE = [
    (["post"], "required: URL, FILE"),
    (["post", "ftp://a/", "file"], "is no URL of a server"),
    (["post", "http://a/", "file", "--wait", "x"], "is not a duration"),
    (["post", "http://a/", "file", "--async", "--sync"], "not allowed with"),
    (["post", "http://a/", "file", "--detach", "--sync"], "--sync is to wait"),
    (["post", "http://a/", "file", "-H", "nothing"], "no header field"),
    (["jobs", "http://a/", "--limit", "0"], "at least one"),
    (["events", "http://a/", "--after", "-1"], "is no whole number"),
    (["jobs", "http://a/", "--token", "a", "--token-file", "b"], "two places"),
    (["jobs", "http://a/", "--token-file", "nowhere"], "cannot read the token in nowhere"),
    (["wait", "http://u:p@a/"], "give a token instead"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line is told, with exit status 2, before anything is done."""
    with pytest.raises(SystemExit) as raised:
        run_command(words)
    out, error = capsys.readouterr()
    assert (raised.value.code, out) == (2, "")
    assert message in error


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "cannot read nowhere: No such file"), (".", "cannot read .: Is a directory")],
)
def test_a_file_that_cannot_be_read(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is a file that is none."""
    assert run_command(["post", "http://127.0.0.1:1/", name]) == 2
    assert message in capsys.readouterr().err


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_sent(do: Performed) -> None:
    """So are a header field and a token that cannot be sent."""
    post = ("post", "http://127.0.0.1:1/", "file")
    for option, value, message in [
        ("-H", "a b: c", "not the name of a header field"),
        ("--token", "a b", "a token is"),
    ]:
        status, out, error = await do(*post, option, value)
        assert (status, out) == (2, b"")
        assert message in error


@pytest_twisted.ensureDeferred
async def test_an_output_that_cannot_be_written(site: JobSite, do: Performed) -> None:
    """A result that has no place is an error before anything is sent."""
    ran = await do("post", f"{site.url}/work", "file", "-o", "nowhere/out")
    assert ran.status == 1
    assert ran.error == "deferpost: cannot write the output: No such file or directory\n"
    assert site.requests == []


@pytest_twisted.ensureDeferred
async def test_a_reader_that_leaves(site: JobSite, run: Running) -> None:
    """Whoever reads only the beginning of a result ends the command, without a traceback."""
    job = site.new_job()
    job.end(b"x" * 5_000_000)
    reading, writing = os.pipe()
    process = run("result", f"{site.url}/jobs/{job.id}", stdout=writing)
    os.close(writing)
    os.close(reading)
    ran = await process
    assert (ran.status, ran.error.count("Traceback")) == (141, 0)


# The terminal.


@pytest_twisted.ensureDeferred
async def test_the_bar(site: JobSite, run: Running) -> None:
    """On a terminal there is a bar for the upload, the queue and the job, which fits and goes."""
    from twisted.internet import reactor

    clock: Any = reactor

    def made(job: FakeJob) -> None:
        job.position = 7
        clock.callLater(0.4, job.begin)
        for number in (1, 2, 3):
            clock.callLater(0.4 + number * 0.15, job.advance, number, 4, f"part {number} \x1b[2J")
        clock.callLater(1.1, job.end, b"done\n")

    site.made = made
    (run.directory / "large").write_bytes(bytes(100_000_000))
    began = time.monotonic()
    process, ended = run.in_terminal("post", f"{site.url}/work", "large", "--async", columns=72)
    ran = await ended
    assert (ran.status, ran.out) == (0, b"done\n")
    colored = re.compile(r"\x1b\[[0-9]*m")
    assert colored.search(ran.error)
    drawn = [colored.sub("", line) for line in re.findall(r"\r\x1b\[K([^\r\n]*)", ran.error)]
    bars = [line for line in drawn if line and not line.startswith("deferpost:")]
    assert max(map(len, bars)) <= 71
    assert len(bars) <= 10 * (time.monotonic() - began) + 2
    text = "\n".join(bars)
    assert re.search(r"^sending  \[[━─]+\] +\d+%  .*MB of 100\.0 MB", text, re.MULTILINE)
    assert "queued  place 7 in the queue" in text
    assert re.search(r"^running  \[[━─]+\]  50%  2 of 4, 0:0\d, part 2  \[2J$", text, re.MULTILINE)
    assert "\x1b[2J" not in ran.error
    assert f"deferpost: the job is {site.url}/jobs/job-1\n" in ran.error
    last = ran.error.rpartition("\r\x1b[K")[2]
    assert re.fullmatch(r"deferpost: succeeded after \d\.\ds, having waited \d\.\ds\n", last)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("environment", "bar"),
    [
        (
            {"NO_COLOR": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            True,
        ),
        ({"TERM": "dumb"}, False),
    ],
    ids=["plain", "dumb"],
)
@pytest_twisted.ensureDeferred
async def test_terminals(
    site: JobSite,
    run: Running,
    environment: dict[str, str],
    bar: bool,
) -> None:
    """NO_COLOR is honoured, ASCII will do, and a dumb terminal has lines alone."""
    job = site.new_job()
    job.begin()
    job.advance(1, 2)
    from twisted.internet import reactor

    clock: Any = reactor

    def soon(request: Any) -> None:
        clock.callLater(0.3, job.end)
        site._job(request, *request.path.decode().split("/")[2:])

    site.instead = [soon]
    _, ended = run.in_terminal("wait", job_url(site, job), environment=environment)
    ran = await ended
    assert (ran.status, ran.out) == (0, b"succeeded\n")
    assert ("50%" in ran.error) is bar
    assert "\x1b[3" not in ran.error
    if "PYTHONUTF8" in environment:
        assert ran.error.isascii()
        assert "####" in ran.error


def job_url(site: JobSite, job: FakeJob) -> str:
    """The URL of a job."""
    return f"{site.url}/jobs/{job.id}"


@pytest_twisted.ensureDeferred
async def test_ctrl_c(site: JobSite, run: Running) -> None:
    """Ctrl-C leaves the job, cleans the line, says how to go on, and is exit status 130."""
    process, ended = run.in_terminal("post", f"{site.url}/work", "file", "--async", "-o", "out")
    while not any(job.readers for job in site.jobs.values()):
        await threads.deferToThread(time.sleep, 0.02)
    process.send_signal(signal.SIGINT)
    ran = await ended
    assert (ran.status, ran.out) == (130, b"")
    url = f"{site.url}/jobs/job-1"
    assert ran.error.endswith(
        "deferpost: interrupted; the job goes on\n"
        f"deferpost: to get its result: deferpost result {url}\n"
        f"deferpost: to cancel it: deferpost cancel {url}\n"
    )
    assert site.jobs["job-1"].state == "queued"
    assert sorted(path.name for path in run.directory.iterdir()) == ["file"]


@pytest_twisted.ensureDeferred
async def test_sigterm(site: JobSite, run: Running) -> None:
    """SIGTERM does the same, with a status of its own, and before there is a job too."""
    site.instead = [lambda request: None]
    process = run.start("post", f"{site.url}/work", "file", "-q")
    while not site.requests:
        await threads.deferToThread(time.sleep, 0.02)
    process.send_signal(signal.SIGTERM)
    out, error = await threads.deferToThread(process.communicate)
    assert (process.returncode, out, error) == (143, b"", b"deferpost: interrupted\n")


# The others.


@pytest_twisted.ensureDeferred
async def test_jobs(site: JobSite, do: Performed) -> None:
    """Jobs are listed as a table, or as JSON."""
    running, queued = site.new_job("/rst"), site.new_job("/pdf")
    running.begin()
    running.advance(1, 4, "part one")
    ran = await do("jobs", site.url)
    head, first, second = ran.out.decode().splitlines()
    assert head == "ID     ROUTE  STATE    AGE   RUN TIME  PROGRESS"
    assert re.fullmatch(r"job-2  /pdf   queued   \d\.\ds", first)
    assert re.fullmatch(
        r"job-1  /rst   running  \d\.\ds  \d\.\ds      1 of 4 \(25%\), part one", second
    )
    ran = await do("jobs", f"{site.url}/jobs/", "--state", "queued", "--limit", "1", "--json")
    assert [job["id"] for job in json.loads(ran.out)["jobs"]] == [queued.id]
    ran = await do("jobs", site.url, "--state=failed")
    assert ran == (0, b"", "deferpost: there are no such jobs\n")


@pytest_twisted.ensureDeferred
async def test_wait_events_and_result(site: JobSite, do: Performed) -> None:
    """A job that was left can be waited for, watched and fetched."""
    job = site.new_job()
    job.begin()
    job.advance(1, 2, "half\x1b[0m")
    job.end(b"all of it\n")
    url = job_url(site, job)
    site.cuts = [3]
    ran = await do("result", url)
    assert (ran.status, ran.out) == (0, b"all of it\n")
    assert (await do("wait", url, "-q")) == (0, b"succeeded\n", "")
    assert json.loads((await do("wait", url, "--json")).out)["state"] == "succeeded"
    ran = await do("events", url)
    assert (ran.status, ran.out.decode().splitlines()) == (
        0,
        [
            "   1  state     queued",
            "   2  state     running",
            "   3  progress  1 of 2, half [0m",
            "   4  state     succeeded",
            "   5  end       succeeded",
        ],
    )
    ran = await do("events", f"{url}/events", "--after=3", "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [(event["id"], event["event"]) for event in events] == [(4, "state"), (5, "end")]


@pytest_twisted.ensureDeferred
async def test_cancel(site: JobSite, do: Performed) -> None:
    """A running job is told; that it has not ended yet is said."""
    job = site.new_job()
    job.begin()
    assert await do("cancel", job_url(site, job)) == (0, b"canceling\n", "")
    ran = await do("cancel", job_url(site, job), "--json")
    assert json.loads(ran.out)["state"] == "canceling"


# The command itself.


@pytest_twisted.ensureDeferred
async def test_help(run: Running) -> None:
    """Every command explains itself and its exit statuses, without loading Twisted."""
    program = (
        "import sys\n"
        "sys.argv = ['deferpost', 'post', '--help']\n"
        "from deferpost.command import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*[n for n in sys.modules if n.split('.')[0] in ('twisted', 'treq')])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await threads.deferToThread(process.communicate)
    assert (process.returncode, error) == (0, b"")
    assert out.splitlines()[-1] == b""
    assert b"exit status:" in out
    assert b"--detach" in out


@pytest_twisted.ensureDeferred
async def test_the_first_word_decides(run: Running) -> None:
    """What is no word of the client's is for the daemon, whose help tells of the client."""
    ran = await run("--help")
    assert (ran.status, ran.error) == (0, "")
    assert ran.out.startswith(b"Usage: deferpost [options] module:app\n")
    words = " ".join(ran.out.decode().split())
    assert "deferpost post URL FILE" in words
    for name in NAMES:
        assert name in words
    ran = await run("--print-config", environment={"DEFERPOST_TOKEN": "s3cret"})
    assert (ran.status, ran.error) == (0, ""), "the client's variable is none of the daemon's"
    assert b"s3cret" not in ran.out
