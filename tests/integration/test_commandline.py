"""The command line: what it prints, what it refuses and in which words, and what it serves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from treq.client import HTTPClient

from deferpost import __version__
from deferpost.keys import FLAGS, TOPICS
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import ANY_PORT, DEFERPOST, TWISTD, clean_environment

pytestmark = pytest.mark.integration

APP = """
from deferpost import App

app = App()


@app.post("/")
def handler(call):
    return "hello"
"""


class Ran(NamedTuple):
    """A command that has ended.

    :ivar status: its exit status.
    :ivar out: what it printed.
    :ivar error: what it printed on standard error.
    """

    status: int
    out: str
    error: str


def run_all(
    commands: Sequence[Sequence[str]],
    options: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> list[Ran]:
    """Run commands side by side with the same options, each to its end."""
    running = [
        subprocess.Popen(
            [*command, *options],
            cwd=directory,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        return [
            Ran(process.returncode, *printed)
            for process in running
            for printed in [process.communicate(timeout=60)]
        ]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def run(directory: Path, *options: str, environment: Mapping[str, str] | None = None) -> Ran:
    """Run ``deferpost`` to its end."""
    (ran,) = run_all([DEFERPOST], options, directory, environment)
    return ran


def write(directory: Path, name: str, text: str) -> None:
    """Write a file of text."""
    (directory / name).write_text(text, encoding="utf-8")


# What it prints.


def test_help(tmp_path: Path) -> None:
    """--help names every option with its default, and fits a terminal."""
    as_command, under_twistd = run_all([DEFERPOST, TWISTD], ["--help"], tmp_path)
    assert (as_command.status, as_command.error) == (0, "")
    assert (under_twistd.status, under_twistd.error) == (0, "")
    first, rest = as_command.out.split("\n", 1)
    assert first == "Usage: deferpost [options] module:app"
    first, same = under_twistd.out.split("\n", 1)
    assert first.startswith("Usage: ")
    assert first.endswith(" deferpost [options] module:app")
    assert same == rest
    assert max(map(len, rest.splitlines())) <= 80
    words = " ".join(rest.split())
    options = [f"--{flag.name}=" for flag in FLAGS if flag.name != "app"]
    for option in (*options, "--check-config"):
        assert option in words
    assert re.search(r"^  --max-head= +Largest request line", rest, re.MULTILINE)
    assert re.search(r"^  --max-connections-per-client=\n +Most connections", rest, re.MULTILINE)
    assert re.search(r"^  -c, --config= +Read ", rest, re.MULTILINE)
    topics = re.findall(r"^(\S.*):$", rest, re.MULTILINE)
    assert topics == [*TOPICS, "This command"]
    assert "[default: tcp:8080:interface=127.0.0.1]" in words
    assert "module:app" in words
    assert "DEFERPOST_" in words


def test_version(tmp_path: Path) -> None:
    """--version says the version of deferpost, not that of Twisted."""
    for ran in run_all([DEFERPOST, TWISTD], ["--version"], tmp_path):
        assert ran == (0, f"deferpost {__version__}\n", "")


def test_settings_that_are_printed_can_be_read(tmp_path: Path) -> None:
    """--print-config prints what --config reads to the same settings."""
    options = [
        "--listen=tcp:1234:interface=\\:\\:1",
        "--listen=unix:/run/deferpost/socket",
        "--max-body=3MB",
        "--body-memory=100",
        "--temporary-directory=/var/tmp/with space \u00e9",
        "--timeout=1m30s",
        "--grace=250ms",
        "--access-log=no",
        "--wire=stock",
        "--max-head=8KiB",
        "--head-timeout=1500ms",
        "--max-connections-per-client=20",
        "--thread-size=7",
        "--process-kill-grace=0",
        "--reactor-max-waiting=5",
    ]
    for given in ([], [*options, "package.module:Class.method"]):
        printed = run(tmp_path, "--print-config", *given)
        assert (printed.status, printed.error) == (0, "")
        write(tmp_path, "printed.toml", printed.out)
        assert run(tmp_path, "--print-config", "--config", "printed.toml") == printed
    document = tomllib.loads(printed.out)
    assert document["listen"] == ["tcp:1234:interface=\\:\\:1", "unix:/run/deferpost/socket"]
    assert document["temporary_directory"] == "/var/tmp/with space \u00e9"
    assert (document["wire"], document["max_head"]) == ("stock", "8KiB")
    assert (document["head_timeout"], document["max_connections_per_client"]) == ("1.5s", 20)
    assert document["pools"]["thread"]["size"] == 7
    assert document["pools"]["reactor"]["max_waiting"] == 5


def test_order_of_the_sources(tmp_path: Path) -> None:
    """An option wins over the environment, and the environment over the file."""
    write(
        tmp_path,
        "deferpost.toml",
        'timeout = "1s"\ngrace = "1s"\nmax_body = "1kB"\n[pools.thread]\nsize = 1\n'
        '[pools.gpu]\nkind = "process"\nsize = 1\n',
    )
    environment = {
        "DEFERPOST_CONFIG": "deferpost.toml",
        "DEFERPOST_GRACE": "2s",
        "DEFERPOST_MAX_BODY": "2kB",
        "DEFERPOST_POOLS_THREAD_SIZE": "2",
        "DEFERPOST_POOLS_GPU_SIZE": "2",
        "DEFERPOST_LISTEN": "tcp:1 tcp:2",
    }
    ran = run(
        tmp_path, "--print-config", "--max-body=3kB", "--thread-size=3", environment=environment
    )
    assert (ran.status, ran.error) == (0, "")
    document = tomllib.loads(ran.out)
    assert (document["timeout"], document["grace"], document["max_body"]) == ("1s", "2s", "3kB")
    assert document["pools"]["thread"]["size"] == 3
    assert document["pools"]["gpu"]["size"] == 2
    assert document["listen"] == ["tcp:1", "tcp:2"]
    write(tmp_path, "other.toml", 'timeout = "5s"\n')
    environment = {"DEFERPOST_CONFIG": "deferpost.toml"}
    ran = run(tmp_path, "--print-config", "-c", "other.toml", environment=environment)
    assert tomllib.loads(ran.out)["timeout"] == "5s", "--config wins over DEFERPOST_CONFIG"


def test_check(tmp_path: Path) -> None:
    """--check-config loads the app and starts nothing; its status says whether all is well."""
    write(tmp_path, "served.py", APP)
    write(tmp_path, "broken.py", "1 / 0\n")
    write(tmp_path, "free.toml", f'app = "served:app"\nlisten = ["{ANY_PORT}"]\n')
    ran = run(tmp_path, "--check-config", "--config=free.toml")
    assert ran == (0, "deferpost: the configuration is correct\n", "")
    ran = run(tmp_path, "--check-config")
    assert ran == (0, "deferpost: the configuration is correct, but names no app\n", "")
    ran = run(tmp_path, "--check-config", "--config=free.toml", "broken:app")
    assert (ran.status, ran.out) == (1, "")
    assert "ZeroDivisionError" in ran.error
    ran = run(tmp_path, "--check-config", "--config=free.toml", "--listen=tcp:many")
    assert (ran.status, ran.out) == (1, "")
    assert "listen: 'tcp:many' is not an endpoint: " in ran.error


# What it refuses.


def refused(
    directory: Path, *options: str, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run both commands, which refuse in the same words; returns the lines."""
    as_command, under_twistd = run_all([DEFERPOST, TWISTD], options, directory, environment)
    assert under_twistd == as_command
    assert (as_command.status, as_command.out) == (1, "")
    first, *others = as_command.error.splitlines()
    assert first.startswith("deferpost: ")
    assert "site-packages" not in as_command.error
    assert "/deferpost/" not in as_command.error, "no line of ours"
    assert as_command.error.count("Traceback") <= 1
    return [first.removeprefix("deferpost: "), *others]


def test_configuration_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A configuration that is missing, a folder, not UTF-8 or not TOML is one clear line."""
    assert refused(tmp_path, "--config=missing.toml") == [
        "cannot read the configuration missing.toml: No such file or directory"
    ]
    assert refused(tmp_path, f"--config={tmp_path}") == [
        f"cannot read the configuration {tmp_path}: Is a directory"
    ]
    (tmp_path / "latin.toml").write_bytes('# caf\u00e9\napp = ""\n'.encode("latin-1"))
    assert refused(tmp_path, "--config=latin.toml") == [
        "the configuration latin.toml is not UTF-8: byte 5 is wrong"
    ]
    write(tmp_path, "broken.toml", 'app = ""\ngrace = 30 seconds\n')
    assert refused(tmp_path, environment={"DEFERPOST_CONFIG": "broken.toml"}) == [
        "the configuration has 1 problem:",
        "  broken.toml:2:12: Expected newline or end of document after a statement",
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Whatever is wrong in file, environment and options is said at once, each with its place."""
    write(
        tmp_path,
        "bad.toml",
        'timeout = "soon"\nmax_bdy = 3\n\n[pools.gpu]\nsize = 2\n\n'
        "[pools.thread]\nkill_grace = 3\n",
    )
    lines = refused(
        tmp_path,
        "--config=bad.toml",
        "--max-body=much",
        "./served.py:app",
        environment={"DEFERPOST_GRACE": "long", "DEFERPOST_TIMOUT": "3s"},
    )
    assert lines[0] == "the configuration has 8 problems:"
    for line, beginning in zip(
        lines[1:],
        [
            "  bad.toml:1: timeout: 'soon' is not a duration",
            "  bad.toml:2: max_bdy: unknown key; did you mean max_body?",
            "  bad.toml:4: pools.gpu: the pool 'gpu' needs a kind",
            "  bad.toml:8: pools.thread.kill_grace: ",
            "  environment DEFERPOST_GRACE: 'long' is not a duration",
            "  environment DEFERPOST_TIMOUT: unknown variable; did you mean DEFERPOST_TIMEOUT?",
            "  argument: './served.py:app' is not an app as \"module:attribute\"",
            "  option --max-body: 'much' is not a size",
        ],
        strict=True,
    ):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--colour=red", "served:app"], "option --colour not recognized"),
        (["--timeout"], "option --timeout requires argument"),
        (["served:app", "other:app"], "one app is served, not 2: served:app other:app"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: Sequence[str], message: str) -> None:
    """An unknown option, one without its value and a second app are said, with a way to help."""
    assert refused(tmp_path, *options) == [message, "Try deferpost --help."]


def test_no_app(tmp_path: Path) -> None:
    """Without an app it says how to name one."""
    (line,) = refused(tmp_path)
    assert line.startswith("no app is named; give one as module:app")


def test_endpoints_that_make_no_sense(tmp_path: Path) -> None:
    """Every endpoint that is none is named, and why."""
    write(tmp_path, "served.py", APP)
    lines = refused(
        tmp_path,
        "--listen=tcp:many",
        f"--listen={ANY_PORT}",
        "--listen=8080",
        "--listen=ssl:0:privateKey=missing.pem",
        "served:app",
    )
    assert lines[0] == "the configuration has 3 problems:"
    assert re.match(r"  listen: 'tcp:many' is not an endpoint: .*'many'", lines[1])
    assert re.match(r"  listen: '8080' is not an endpoint: Unknown endpoint type", lines[2])
    assert re.match(r"  listen: 'ssl:.*' is not an endpoint: .*No such file", lines[3])


HANDLER = """
def handler(call):
    return "hello"
"""

#: Two lines.
EMPTY = "from deferpost import App\napp = App()\n"

USERS_TRACEBACK = "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("text", "name", "message", "more"),
    [
        pytest.param(
            None,
            "missing:app",
            r"there is no module 'missing' in \S+ nor on Python's path",
            [],
            id="no module",
        ),
        pytest.param(
            "import missing\n",
            "served:app",
            "the module served does not import: ModuleNotFoundError: No module named 'missing'",
            [USERS_TRACEBACK, 'served.py", line 1, in <module>', "import missing"],
            id="module missing in the module",
        ),
        pytest.param(
            "def divide():\n    return 1 / 0\n\ndivide()\n",
            "served:app",
            "the module served does not import: ZeroDivisionError: division by zero",
            [
                USERS_TRACEBACK,
                'served.py", line 4, in <module>',
                'served.py", line 2, in divide',
                "ZeroDivisionError: division by zero",
            ],
            id="module raises",
        ),
        pytest.param(
            "def divide(:\n",
            "served:app",
            "the module served does not import: SyntaxError: invalid syntax",
            ['served.py", line 1', "def divide(:", "SyntaxError: invalid syntax"],
            id="syntax error",
        ),
        pytest.param(
            "import sys\nsys.exit(0)\n",
            "served:app",
            "the module served does not import: SystemExit: 0",
            [USERS_TRACEBACK, 'served.py", line 2, in <module>', "sys.exit(0)"],
            id="module exits",
        ),
        pytest.param(
            APP + "service = app\n",
            "served:application",
            "the module served has no 'application'; it has the App app, service",
            [],
            id="no name",
        ),
        pytest.param(
            "number = 5\n",
            "served:number",
            "served:number is neither an App nor a handler, but of the type int",
            [],
            id="not an app",
        ),
        pytest.param(
            EMPTY,
            "served:app",
            r"served:app has no routes; declare one with @app.post\(path\)",
            [],
            id="no routes",
        ),
        pytest.param(
            APP + '\n\n@app.post("/")\ndef second(call):\n    return "again"\n',
            "served:app",
            "the route / is declared twice: for served.handler and for served.second",
            ['served.py", line 12, in <module>', '@app.post("/")'],
            id="route twice",
        ),
        pytest.param(
            EMPTY + '@app.post("/x", pool="gpu")' + HANDLER,
            "served:app",
            "route /x wants the pool 'gpu', which is not there; there are process, reactor, thread",
            [],
            id="unknown pool",
        ),
        pytest.param(
            EMPTY + 'app.post("/x", pool="process")(lambda call: 1)\n',
            "served:app",
            "served.<lambda> cannot run in a process pool: it is a lambda, .* use pool='thread'",
            ['served.py", line 3, in <module>'],
            id="lambda for processes",
        ),
        pytest.param(
            EMPTY + 'def make():\n    @app.post("/x", pool="process")\n'
            "    def inner(call):\n        return 1\n\nmake()\n",
            "served:app",
            "served.make.<locals>.inner cannot run in a process pool: it is defined inside a "
            "function, .* use pool='thread'",
            ['served.py", line 8, in <module>', 'served.py", line 4, in make'],
            id="closure for processes",
        ),
        pytest.param(
            EMPTY + '@app.post("/x", pool="thread")\nasync def handler(call):\n    return 1\n',
            "served:app",
            "route /x: served.handler is an async function, which runs on the reactor; "
            "leave pool='thread' out, or make it a plain function",
            ['served.py", line 3, in <module>'],
            id="async in threads",
        ),
        pytest.param(
            APP.replace('"/"', '"/livez"'),
            "served:app",
            "the route /livez is the daemon's own",
            [],
            id="path of the daemon's own",
        ),
    ],
)
def test_apps_that_cannot_be_served(
    tmp_path: Path, text: str | None, name: str, message: str, more: Sequence[str]
) -> None:
    """What is wrong with the app is one message, with the user's own lines where they matter."""
    if text is not None:
        write(tmp_path, "served.py", text)
    first, *others = refused(tmp_path, f"--listen={ANY_PORT}", name)
    assert re.match(message, first)
    traceback = "\n".join(others)
    for part in more:
        assert part in traceback
    assert bool(others) is bool(more)
    assert (USERS_TRACEBACK in traceback) is (USERS_TRACEBACK in more)
    assert "importlib" not in traceback


# What it serves.


@pytest_twisted.ensureDeferred
async def test_serves_a_handler(daemon: StartDaemon, http: HTTPClient) -> None:
    """module:function is served at /, in a thread."""
    served = daemon(HANDLER, attribute="handler")
    response = await http.post(served.url("/"))
    assert (response.code, await response.text()) == (200, "hello")
    response = await http.post(served.url("/handler"))
    assert response.code == 404
    await response.content()


@pytest_twisted.ensureDeferred
async def test_serves_a_class_and_a_coroutine(daemon: StartDaemon, http: HTTPClient) -> None:
    """A class is built by the worker, and an async def is run on the reactor."""
    text = """
class Counting:
    def __init__(self):
        self.count = 0

    def __call__(self, call):
        self.count += 1
        return self.count


async def waiting(call):
    return "waited"
"""
    served = daemon(text, ["--thread-size=1"], attribute="Counting")
    for count in (1, 2):
        response = await http.post(served.url("/"))
        assert await response.json() == count
    served = daemon(text, attribute="waiting")
    response = await http.post(served.url("/"))
    assert await response.text() == "waited"


@pytest.mark.parametrize("command", ["deferpost", "twistd"])
@pytest_twisted.ensureDeferred
async def test_loads_from_the_current_folder(
    daemon: StartDaemon, http: HTTPClient, command: str
) -> None:
    """The installed commands find a module of the current folder, and so do its workers."""
    program = Path(sys.executable).with_name(command)
    if not program.exists():
        pytest.skip(f"{command} is not installed beside this Python")
    text = APP.replace('app.post("/")', 'app.post("/", pool="process")')
    options = [] if command == "deferpost" else ["--nodaemon", "--pidfile=", "deferpost"]
    served = daemon(text, command=[str(program), *options])
    response = await http.post(served.url("/"))
    assert (response.code, await response.text()) == (200, "hello")
    assert await served.stop() == 0


@pytest_twisted.ensureDeferred
async def test_configuration_file_serves(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path
) -> None:
    """A file alone says what is served, where, and by which pools."""
    directory = tmp_path / "configured"
    directory.mkdir()
    write(
        directory,
        "configured.py",
        APP.replace('app.post("/")', 'app.post("/where", pool="own")').replace(
            'return "hello"', "import os\n    return os.getpid()"
        ),
    )
    write(
        directory,
        "deferpost.toml",
        f'app = "configured:app"\nlisten = ["{ANY_PORT}"]\n'
        '[pools.own]\nkind = "process"\nsize = 3\n',
    )
    served = daemon(None, ["--config=deferpost.toml"], listen=(), directory=directory)
    response = await http.post(served.url("/where"))
    assert response.code == 200
    assert await response.json() in served.worker_pids()
    response = await http.get(served.url("/readyz"))
    (pool,) = (await response.json())["pools"]
    assert (pool["name"], pool["kind"], pool["size"]) == ("own", "process", 3)


SCRIPT = '''
"""A script that serves its own handler from worker processes."""

import os
import sys

from twisted.internet import reactor
from twisted.python import log
from twisted.web.resource import Resource
from twisted.web.server import Site

from deferpost import Call, DeferPost, ProcessPool


def describe(call: Call) -> dict[str, object]:
    return {"pid": os.getpid(), "name": __name__, "body": call.body.read().decode()}


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    root = Resource()
    root.putChild(b"describe", DeferPost(describe, pool=ProcessPool(size=1)))
    reactor.listenTCP(0, Site(root), interface="127.0.0.1")
    reactor.run()
'''


@pytest_twisted.ensureDeferred
async def test_handler_of_a_script(daemon: StartDaemon, http: HTTPClient, tmp_path: Path) -> None:
    """A handler that is defined in the script itself runs in processes, under another name."""
    directory = tmp_path / "script"
    directory.mkdir()
    write(directory, "script.py", SCRIPT)
    served = daemon(None, command=[sys.executable, "script.py"], listen=(), directory=directory)
    assert served.worker_pids() == [], "they start with the first call"
    response = await http.post(served.url("/describe"), data=b"something")
    document: dict[str, Any] = json.loads(await response.content())
    assert (response.code, document["body"]) == (200, "something")
    assert document["name"] != "__main__"
    assert served.worker_pids() == [document["pid"]]
    await served.stop()
    await served.gone()
