"""The examples and what README and docs show, run as a reader would run them."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import importlib
import io
import json
import pkgutil
import random
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from docutils import nodes
from docutils.core import publish_doctree, publish_string
from treq.client import HTTPClient
from twisted.scripts._twistd_unix import ServerOptions
from twisted.web.resource import Resource
from twisted.web.server import Site

from deferpost.client.commands import NAMES
from deferpost.client.commands.line import read_line
from deferpost.errors import ConfigurationError
from deferpost.settings import FLAGS, load_settings
from deferpost.tap import Options
from examples.documents import DOCUTILS
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import ANY_PORT, DEFERPOST, TWISTD, Daemon, clean_environment

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]
README = CHECKOUT / "README.rst"
PAGES = [README, CHECKOUT / "CHANGELOG.rst", *sorted((CHECKOUT / "docs").glob("*.rst"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

#: Programs run in folders of their own, and are to find these examples all the same.
FIND_EXAMPLES = {"PYTHONPATH": str(CHECKOUT)}


class Program(Daemon):
    """A program with a plain site in it."""

    def places(self) -> list[str]:
        """The ports on which it listens."""
        return re.findall(r"\bSite starting on (\d+)", self.log())


def running(daemon: Daemon) -> Iterator[Daemon]:
    """Wait until it listens, and end it when the tests have done with it."""
    try:
        daemon.wait_listening()
        yield daemon
    finally:
        left = daemon.end()
    assert not left, daemon.log()


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The app of examples/documents.py in a daemon with one worker process."""
    directory = tmp_path_factory.mktemp("documents")
    options = ["--process-size=1"]
    yield from running(
        Daemon(directory, "examples.documents:app", options, environment=FIND_EXAMPLES)
    )


async def post(
    http: HTTPClient, url: str, body: Any = b"", **more: Any
) -> tuple[int, str | None, bytes]:
    """POST, and return the status, the content type and the body of the answer."""
    response = await http.post(url, data=body, **more)
    content_type = response.headers.getRawHeaders("content-type", [None])[0]
    return response.code, content_type, await response.content()


def problem(answer: tuple[int, str | None, bytes]) -> dict[str, Any]:
    """The problem document of an answer."""
    status, content_type, body = answer
    assert content_type == "application/problem+json", answer
    document: dict[str, Any] = json.loads(body)
    assert document["status"] == status
    return document


# examples/documents.py: /rst


def by_docutils(source: bytes) -> bytes:
    """What docutils itself makes of a document, with the settings of the example."""
    html = publish_string(source, writer="html5", settings_overrides=DOCUTILS)
    assert isinstance(html, bytes)
    return html


WRONG = b"""Title
====

A `link without end, an :unknown:`role`, |nothing|_.

.. nonsense:: x

.. include:: /etc/passwd

.. csv-table::
   :file: /etc/passwd

.. raw:: html

   <script>alert(1)</script>
"""


@pytest_twisted.ensureDeferred
async def test_rst_is_what_docutils_gives(documents: Daemon, http: HTTPClient) -> None:
    """The HTML of every document, good or bad, is byte for byte that of docutils."""
    sources = [page.read_bytes() for page in PAGES]
    sources += [WRONG, b"   Severe\n   ======\n", b"", "Ω\n".encode(), b"x\n" * 50_000]
    sources += [b"\xef\xbb\xbfmarked\r\n======\r\n"]
    for source in sources:
        status, content_type, html = await post(http, documents.url("/rst"), source)
        assert (status, content_type) == (200, "text/html; charset=utf-8")
        assert html == by_docutils(source)


@pytest_twisted.ensureDeferred
async def test_rst_reads_no_file_and_passes_no_html(documents: Daemon, http: HTTPClient) -> None:
    """A document gets neither files of the server nor scripts into its HTML."""
    secret = documents.directory / "secret.svg"
    secret.write_text("<svg>do not tell</svg>")
    source = WRONG.replace(b"/etc/passwd", bytes(secret)) + b"".join(
        b"\n.. image:: %s\n   :loading: embed\n" % uri
        for uri in (bytes(secret), b"secret.svg", f"file://{secret}".encode())
    )
    status, _, html = await post(http, documents.url("/rst"), source)
    assert status == 200
    assert b"do not tell" not in html
    assert b"base64" not in html
    assert b"<script" not in html


@pytest_twisted.ensureDeferred
async def test_rst_forgets_the_document_before(documents: Daemon, http: HTTPClient) -> None:
    """A role that one client defines is unknown in the next client's document."""
    url = documents.url("/rst")
    status, _, html = await post(http, url, b".. role:: shared\n\n:shared:`x`\n")
    assert status == 200
    assert b'<span class="shared">' in html
    after = b":shared:`x`\n"
    assert (await post(http, url, after))[2] == by_docutils(after)


@pytest_twisted.ensureDeferred
async def test_rst_survives_documents_that_docutils_does_not(
    documents: Daemon, http: HTTPClient
) -> None:
    """What docutils fails on is a 422, the worker lives on, and nothing is in the log of it."""
    url = documents.url("/rst")
    for source in (b"- " * 2000 + b"x", b"\xff\xfe\xfd"):
        document = problem(await post(http, url, source))
        assert document["status"] == 422
        assert "docutils" in document["detail"]
    for source in (b".. math:: ^\n", b".. math:: &\n"):  # mistakes of docutils, of some versions
        assert (await post(http, url, source))[0] in (200, 422)
    assert (await post(http, url, WRONG))[0] == 200
    for trace in ("was lost", "Traceback", "<string>", "Unknown directive", "nonsense"):
        assert not documents.log_lines(trace)


# examples/documents.py: the others

LARGE = random.Random(0).randbytes(1_000_000) * 3


@pytest.mark.parametrize("body", [b"", b"abc", LARGE], ids=["nothing", "little", "much"])
@pytest_twisted.ensureDeferred
async def test_checksums(documents: Daemon, http: HTTPClient, body: bytes) -> None:
    """The checksums are those of hashlib, whether the body was kept in memory or in a file."""
    status, content_type, answer = await post(http, documents.url("/sha256"), body)
    assert (status, content_type) == (200, "application/json")
    assert json.loads(answer) == {
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "blake2b": hashlib.blake2b(body).hexdigest(),
    }


@pytest.mark.parametrize("body", [b"", b"abc", LARGE], ids=["nothing", "little", "much"])
@pytest_twisted.ensureDeferred
async def test_gzip(documents: Daemon, http: HTTPClient, body: bytes) -> None:
    """The answer is the body, packed."""
    status, content_type, packed = await post(http, documents.url("/gzip"), body)
    assert (status, content_type) == (200, "application/gzip")
    assert gzip.decompress(packed) == body


@pytest_twisted.ensureDeferred
async def test_packing_stops_when_the_client_leaves(documents: Daemon, http: HTTPClient) -> None:
    """A thread whose client has left stops at its next check, and is free again."""

    async def threads_at_work() -> int:
        pools = json.loads(await (await http.get(documents.url("/readyz"))).content())["pools"]
        return int(next(pool["running"] for pool in pools if pool["name"] == "thread"))

    slow = bytes(random.Random(0).choices(b"ab", k=1_000_000)) * 20  # most of a minute of work
    with documents.connect() as client:
        client.post("/gzip", slow)
        while not await threads_at_work():
            pass
    await documents.logged("/gzip canceled (client_disconnected): told")
    assert not await threads_at_work()


@pytest_twisted.ensureDeferred
async def test_numbered_lines(documents: Daemon, http: HTTPClient) -> None:
    """Each line of the text is numbered; what is no UTF-8 is replaced."""
    body = b"one\ntwo \xff\r\nthree"
    status, content_type, lines = await post(http, documents.url("/lines"), body)
    assert (status, content_type) == (200, "text/plain; charset=utf-8")
    assert lines.decode() == "     1  one\n     2  two \ufffd\n     3  three"


@pytest_twisted.ensureDeferred
async def test_numbered_lines_of_a_large_text(documents: Daemon, http: HTTPClient) -> None:
    """A text that is kept in a file is numbered to its last line."""
    status, _, lines = await post(http, documents.url("/lines"), b"x\n" * 100_000)
    assert status == 200
    assert lines.splitlines() == [b"%6d  x" % number for number in range(1, 100_001)]


@pytest_twisted.ensureDeferred
async def test_characters(documents: Daemon, http: HTTPClient) -> None:
    """Characters are found by words of their names, in any case and order."""
    url = documents.url("/characters")
    status, content_type, found = await post(http, url, b"Face cat SMILING grinning")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(found) == [
        {
            "character": "\N{GRINNING CAT FACE WITH SMILING EYES}",
            "code": "U+1F638",
            "name": "GRINNING CAT FACE WITH SMILING EYES",
        }
    ]
    assert len(json.loads((await post(http, url, b"letter"))[2])) == 100
    assert json.loads((await post(http, url, b"cat nosuchword"))[2]) == []
    assert problem(await post(http, url, b" \n"))["status"] == 400
    assert problem(await post(http, url, b"x" * 1001))["status"] == 413


@pytest_twisted.ensureDeferred
async def test_form(documents: Daemon, http: HTTPClient) -> None:
    """The fields, and the names and sizes of the files, come back as JSON."""
    files = {"upload": ("notes.txt", io.BytesIO(LARGE))}
    _, _, form = await post(http, documents.url("/form"), {"title": "Ω"}, files=files)
    assert json.loads(form) == {
        "fields": {"title": ["Ω"]},
        "files": [{"field": "upload", "filename": "notes.txt", "size": len(LARGE)}],
    }
    assert problem(await post(http, documents.url("/form"), b"no form"))["status"] == 415


# examples/documents.py: /fetch


class Upstream(Resource):
    """A server with good pages and bad ones."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Answer by the path."""
        request.setHeader("content-type", "text/x-page")
        if request.path == b"/redirect":
            request.redirect(b"/page")
        elif request.path == b"/missing":
            request.setResponseCode(404)
        elif request.path == b"/large":
            return b"x" * (1024 * 1024 + 1)
        return b"a page"


@pytest_twisted.async_yield_fixture
async def upstream() -> AsyncIterator[str]:
    """The URL of a server in this process."""
    from twisted.internet import reactor

    site: Any = Site(Upstream())
    port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await port.stopListening()


async def fetch(http: HTTPClient, daemon: Daemon, url: object) -> tuple[int, str | None, bytes]:
    """Have a daemon fetch a URL."""
    return await post(http, daemon.url("/fetch"), json.dumps({"url": url}).encode())


@pytest_twisted.ensureDeferred
async def test_fetch(documents: Daemon, http: HTTPClient, upstream: str) -> None:
    """A page of another server comes back with its content type."""
    answer = await fetch(http, documents, f"{upstream}/page")
    assert answer == (200, "text/x-page", b"a page")


@pytest.mark.parametrize("path", ["/redirect", "/missing", "/large"])
@pytest_twisted.ensureDeferred
async def test_fetch_of_a_bad_page(
    documents: Daemon, http: HTTPClient, upstream: str, path: str
) -> None:
    """What is not there, elsewhere or too large is a 502."""
    assert problem(await fetch(http, documents, upstream + path))["status"] == 502


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:1/", 502),  # nobody listens there
        ("http://192.0.2.1/", 403),
        ("http://127.0.0.1.example.com/", 403),
        ("http://127.0.0.1@example.com/", 400),
        ("ftp://127.0.0.1/", 400),
        ("file:///etc/passwd", 400),
        ("//127.0.0.1/", 400),
        ("http://[::1", 400),
        ("http://127.0.0.1:port/", 400),
        ("", 400),
        (7, 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_fetch_refuses(documents: Daemon, http: HTTPClient, url: object, status: int) -> None:
    """It fetches by HTTP, from the hosts that are allowed, and nothing else."""
    assert problem(await fetch(http, documents, url))["status"] == status


@pytest_twisted.ensureDeferred
async def test_the_operator_says_where_to_fetch_from(daemon: StartDaemon, http: HTTPClient) -> None:
    """FETCH_HOSTS in the environment takes the place of the hosts that are allowed by default."""
    environment = {**FIND_EXAMPLES, "FETCH_HOSTS": "somewhere.invalid"}
    started = daemon("examples.documents:app", ["--process-size=1"], environment=environment)
    assert problem(await fetch(http, started, "http://127.0.0.1/"))["status"] == 403
    assert problem(await fetch(http, started, "http://somewhere.invalid/"))["status"] == 502


# examples/mounted.py and examples/klein_app.py


@pytest.fixture(scope="module", params=["examples.mounted", "examples.klein_app"])
def mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """Each of the programs that mount deferpost in a site of another kind."""
    yield from running(
        Program(
            tmp_path_factory.mktemp("mounted"),
            None,
            [ANY_PORT],
            listen=(),
            command=[sys.executable, "-m", request.param],
            environment=FIND_EXAMPLES,
        )
    )


@pytest_twisted.ensureDeferred
async def test_mounted(mounted: Daemon, http: HTTPClient) -> None:
    """The pages of the site, one handler and a whole app are each at their place."""
    home = await http.get(mounted.url())
    assert home.code == 200
    assert b"POST to /rst" in await home.content()
    assert (await post(http, mounted.url("/rst"), WRONG))[2] == by_docutils(WRONG)
    status, _, checksums = await post(http, mounted.url("/api/sha256"), b"abc")
    assert (status, json.loads(checksums)["size"]) == (200, 3)
    assert (await post(http, mounted.url("/api/characters"), b"cat face"))[0] == 200
    assert problem(await post(http, mounted.url("/api/nowhere")))["status"] == 404
    assert (await http.get(mounted.url("/rst"))).code == 405
    files = {"upload": ("notes.txt", io.BytesIO(b"notes"))}
    _, _, form = await post(http, mounted.url("/api/form"), {"title": "x"}, files=files)
    assert json.loads(form)["files"][0]["size"] == 5


@pytest.mark.parametrize("mounted", ["examples.mounted"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_mounted_on_a_virtual_host(mounted: Daemon, http: HTTPClient) -> None:
    """Who asks for the host of the app gets the app, and anybody else the site."""
    url = mounted.url("/sha256")
    status, _, checksums = await post(http, url, b"abc", headers={"Host": "api.localhost"})
    assert (status, json.loads(checksums)["size"]) == (200, 3)
    assert (await post(http, url, b"abc"))[0] == 404
    assert (await http.get(mounted.url("/examples/mounted.py"))).code == 200


# README.rst and docs


def doctree(page: Path) -> nodes.document:
    """A page as docutils reads it; a warning is an error."""
    return publish_doctree(
        page.read_text(encoding="utf-8"),
        source_path=str(page),
        settings_overrides={"halt_level": 2, "_disable_config": True},
    )


def blocks(page: Path, language: str) -> list[nodes.literal_block]:
    """The blocks of a page that are in a language."""
    found = doctree(page).findall(nodes.literal_block)
    return [block for block in found if language in block["classes"]]


def named(page: Path, name: str) -> str:
    """The text of the block with this name."""
    (text,) = (
        block.astext()
        for block in doctree(page).findall(nodes.literal_block)
        if name in block["names"]
    )
    return text


def is_variable(name: str) -> bool:
    """Whether the daemon looks at a variable of the environment."""
    try:
        load_settings(toml_text=None, environ={name: ""}, flags=[])
    except ConfigurationError as error:
        return "unknown variable" not in str(error)
    return True


def options_of_the_client() -> set[str]:
    """The long options of all commands that are a client, without the hyphens."""
    texts = []
    for name in NAMES:
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
            read_line([name, "--help"], {})
        texts.append(printed.getvalue())
    return set(re.findall(r"--([a-z][a-z-]*)", " ".join(texts)))


@every_page
def test_docutils_reads_the_page_without_a_warning(page: Path) -> None:
    """Every page is good reStructuredText."""
    assert doctree(page).astext()


@every_page
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A link to a file of the project is to one that exists."""
    for link in doctree(page).findall(nodes.reference):
        target = link.get("refuri", "").partition("#")[0]
        if target and ":" not in target:
            assert (page.parent / target).exists(), target


@every_page
def test_options_that_are_mentioned_exist(page: Path) -> None:
    """Each option, variable and configuration that a page shows is one that the daemon takes."""
    text = page.read_text(encoding="utf-8")
    known = {option.rstrip("=") for option in (*Options().longOpt, *ServerOptions().longOpt)}
    known |= {"data-binary", "unix-socket"}  # of curl
    known |= options_of_the_client()
    assert set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)) <= known
    for variable in re.findall(r"\bDEFERPOST_[A-Z_]+[A-Z]\b", text):
        assert is_variable(variable), variable
    for block in blocks(page, "toml"):
        load_settings(toml_text=block.astext(), environ={}, flags=[])


@every_page
def test_targets_of_make_that_are_mentioned_exist(page: Path) -> None:
    """Each ``make`` that a page shows is a target of the Makefile."""
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:``|\$ )make ([a-z]+)", text)) <= targets


@every_page
def test_names_of_the_code_that_are_mentioned_exist(page: Path) -> None:
    """Each dotted name of deferpost's that a page mentions leads to something."""
    for literal in doctree(page).findall(nodes.literal):
        if re.fullmatch(r"deferpost(\.\w+)+", literal.astext()):
            assert pkgutil.resolve_name(literal.astext())


# Importing twisted.web.static warns of deprecations of Twisted's own.
@pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")
@every_page
def test_the_python_of_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block of Python is a module that can be imported, and its tests pass."""
    (tmp_path / "hello.py").write_text(named(README, "hello.py"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hello", raising=False)
    for number, block in enumerate(blocks(page, "python")):
        name = f"block_{number}_of_{page.stem}"
        (tmp_path / f"{name}.py").write_text(block.astext(), encoding="utf-8")
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            if attribute.startswith("test_"):
                value()


def test_every_option_is_in_the_readme() -> None:
    """The README has a row for each option, with its default."""
    rows = {}
    for row in doctree(README).findall(nodes.row):
        cells = [cell.astext() for cell in row.findall(nodes.entry)]
        if cells[0].startswith("--"):
            rows[cells[0].removeprefix("--")] = cells[1]
    wanted = {flag.name: flag.default for flag in FLAGS if flag.name != "app"}
    assert {name: rows[name] for name in wanted if name in rows} == wanted
    assert set(rows) <= {option.rstrip("=") for option in Options().longOpt}


def commands(page: Path, name: str) -> list[tuple[list[str], str]]:
    """The commands in a block, each with the output that is shown."""
    found = []
    for part in re.split(r"^\$ ", named(page, name), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append((shlex.split(command), output.rstrip("\n")))
    return found


async def curl(http: HTTPClient, daemon: Daemon, command: list[str]) -> str:
    """Do what a command of curl does, at the port of a daemon."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", "--data-binary")
    parser.add_argument("--unix-socket")
    parser.add_argument("url")
    given = parser.parse_args(command[1:])
    headers = dict(field.split(": ", 1) for field in given.H)
    url = daemon.url(urlsplit(given.url).path)
    if given.data_binary is None:
        response = await http.get(url, headers=headers)
    else:
        response = await http.post(url, data=given.data_binary.encode(), headers=headers)
    return (await response.content()).decode().rstrip("\n")


@pytest.mark.parametrize("command", [DEFERPOST, TWISTD], ids=["deferpost", "twistd"])
@pytest_twisted.ensureDeferred
async def test_the_five_lines_of_the_readme(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The first handler of the README answers as the README shows."""
    (tmp_path / "daemon0").mkdir()
    (tmp_path / "daemon0" / "hello.py").write_text(named(README, "hello.py"), encoding="utf-8")
    started = daemon("hello:app", command=command)
    ((line, shown),) = commands(README, "hello-answer")
    assert await curl(http, started, line) == shown


@pytest_twisted.ensureDeferred
async def test_the_answers_of_the_readme(documents: Daemon, http: HTTPClient) -> None:
    """The example app answers as the README shows."""
    (printf, _), (rst, html), (lines, numbered), (cat, found) = commands(README, "try-it")
    source = printf[1].encode().decode("unicode_escape").encode()
    assert rst[1:3] == ["-s", "--data-binary"]
    page = (await post(http, documents.url("/rst"), source))[2].decode()
    assert "\n".join(page.splitlines()[-8:]) == html
    assert lines[1] == "--data-binary"
    answer = (await post(http, documents.url("/lines"), source))[2].decode()
    assert [line.rstrip() for line in answer.splitlines()] == numbered.splitlines()
    assert await curl(http, documents, cat) == found


@pytest_twisted.ensureDeferred
async def test_the_answers_of_the_page_about_handlers(
    daemon: StartDaemon, http: HTTPClient
) -> None:
    """The handler that takes an order answers as the page shows."""
    page = CHECKOUT / "docs" / "handlers.rst"
    (source,) = (block.astext() for block in blocks(page, "python") if "/order" in block.astext())
    started = daemon(source)
    for line, shown in commands(page, "order-answer"):
        assert await curl(http, started, line) == shown


@pytest_twisted.ensureDeferred
async def test_the_streamed_answers_of_the_page_about_handlers(
    daemon: StartDaemon, http: HTTPClient
) -> None:
    """The handlers whose bodies stream in answer as the page shows."""
    page = CHECKOUT / "docs" / "handlers.rst"
    (source,) = (b.astext() for b in blocks(page, "python") if "/shout" in b.astext())
    started = daemon(source)
    for line, shown in commands(page, "stream-answer"):
        assert await curl(http, started, line) == shown


@pytest.mark.parametrize("mounted", ["examples.mounted"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_the_answers_of_the_page_about_mounting(mounted: Daemon, http: HTTPClient) -> None:
    """The mounted site answers as the page shows."""
    (start, _), *others = commands(CHECKOUT / "docs" / "mounting.rst", "mounted-answers")
    assert start == ["python", "-m", "examples.mounted"]
    for line, shown in others:
        assert await curl(http, mounted, line) == shown


@pytest_twisted.ensureDeferred
async def test_the_health_of_the_page_about_operating(
    daemon: StartDaemon, http: HTTPClient, tmp_path: Path
) -> None:
    """Readiness has the members that the page shows and explains."""
    ((line, shown),) = commands(CHECKOUT / "docs" / "operating.rst", "ready")
    (tmp_path / "daemon0").mkdir()
    (tmp_path / "daemon0" / "hello.py").write_text(named(README, "hello.py"), encoding="utf-8")
    started = daemon("hello:app", ["--thread-size=6"])
    assert await curl(http, started, line) == shown


def test_wrong_settings_are_told_as_the_page_about_operating_shows(tmp_path: Path) -> None:
    """The messages about wrong settings are those that the page shows."""
    ((line, shown),) = commands(CHECKOUT / "docs" / "operating.rst", "wrong")
    variable, value = line[0].split("=")
    assert line[1] == "deferpost"
    told = subprocess.run(
        [*DEFERPOST, *line[2:]],
        cwd=tmp_path,
        env=clean_environment({variable: value}),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr.rstrip()) == (1, shown)


def test_the_five_lines_are_five() -> None:
    """The first handler of the README has five lines of code."""
    assert len([line for line in named(README, "hello.py").splitlines() if line]) == 5
