"""An app that does real jobs: documents come in by POST, something useful goes out.

Run it, and send it something::

    deferpost examples.documents:app
    curl --data-binary @README.rst http://127.0.0.1:8080/rst

There is a handler of every kind here: plain functions, a generator, a class with a slow set-up
and an ``async def``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec
from docutils.core import publish_string
from docutils.parsers.rst import roles
from docutils.writers import html5_polyglot

from deferpost import App, BadRequest, Call, HTTPError, Reply

app = App()


# A plain function in the process pool: pure Python that would keep the daemon's own interpreter
# busy, and that can be killed when it takes too long.

#: No file is read and no raw HTML passed through for the client.  What is wrong with a document
#: stands in the HTML, as docutils' system messages, and neither ends the work nor gets printed.
DOCUTILS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "halt_level": 5,  # above the gravest level: never
    "warning_stream": False,
    "_disable_config": True,  # whichever docutils.conf lies around
}


class _Translator(html5_polyglot.HTMLTranslator):
    """Reads no files for images with ``:loading: embed``, which ``DOCUTILS`` does not prevent."""

    def uri2path(self, *args: Any) -> Any:
        raise ValueError("Reading external files disabled.")


class _Writer(html5_polyglot.Writer):
    def __init__(self) -> None:
        super().__init__()
        self.translator_class = _Translator


@app.post("/rst", pool="process", timeout="30s", max_body="4MB")
def render(call: Call) -> Reply:
    """reStructuredText to HTML, exactly as docutils writes it.

    docutils does not clean links (``javascript:``), hence the sandbox for browsers.
    """
    # docutils keeps the roles that a document has defined; the next one is another client's.
    roles._roles.clear()  # type: ignore[attr-defined]  # there is no public way
    try:
        html = publish_string(call.body.read(), writer=_Writer(), settings_overrides=DOCUTILS)
    except Exception as error:  # it stumbles over some: nested too deeply, not UTF-8, bad formulas
        name = type(error).__name__
        raise HTTPError(422, f"docutils cannot process this document ({name})") from None
    return Reply(
        html,
        content_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": "sandbox"},
    )


# Plain functions in threads: reading, hashing and packing release the interpreter's lock.


def pieces(call: Call) -> Iterator[bytes]:
    """The body, piece by piece, until nobody wants the result any more."""
    while piece := call.body.read(256 * 1024):
        call.check()  # a thread cannot be killed: it has to look whether its client is still there
        yield piece


@app.post("/sha256", max_body="1GiB")
def checksums(call: Call) -> dict[str, str | int]:
    """The size and three checksums of the body; a dict becomes JSON."""
    digests = [hashlib.new(name) for name in ("sha256", "md5", "blake2b")]
    size = 0
    for piece in pieces(call):
        size += len(piece)
        for digest in digests:
            digest.update(piece)
    return {"size": size, **{digest.name: digest.hexdigest() for digest in digests}}


@app.post("/gzip", max_body="1GiB")
def pack(call: Call) -> Reply:
    """The body, packed.  A temporary file is the reply, so that it never is whole in memory.

    deferpost sends the file at the client's pace and closes it; the thread is free by then.
    """
    packed = tempfile.TemporaryFile()  # noqa: SIM115 (it outlives this function)
    try:
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as packer:
            for piece in pieces(call):
                packer.write(piece)
        packed.seek(0)
    except BaseException:  # Canceled is none of the Exceptions
        packed.close()
        raise
    return Reply(packed, content_type="application/gzip")


@app.post("/form")
def describe_form(call: Call) -> dict[str, Any]:
    """What a form has: its fields, and the names and sizes of its files."""
    form = call.form()
    files = [
        {"field": file.name, "filename": file.filename, "size": file.size}
        for several in form.files.values()
        for file in several
    ]
    return {"fields": form.fields, "files": files}


# A generator: each chunk is sent as soon as it is made, and no faster than the client reads.


@app.post("/lines", max_body="1GiB")
def number_lines(call: Call) -> Iterator[str]:
    """The lines of a text, numbered, much as ``cat -n`` does it."""
    for number, line in enumerate(io.TextIOWrapper(call.body, "utf-8", "replace"), 1):
        yield f"{number:6}  {line}"


# A class: it is built once in each worker, before the first call, and then called for each.


class Character(msgspec.Struct):
    """One character; a Struct becomes JSON, and so do dataclasses and attrs classes."""

    character: str
    code: str
    name: str


@app.post("/characters", pool="process", timeout="5s", max_body="1kB")
class Characters:
    """Find characters by words of their names: ``cat face`` finds 😸 and its kin."""

    most = 100

    def __init__(self) -> None:
        """Make an index of the names of all characters: slow, so it is done in advance."""
        self._by_word: dict[str, set[str]] = {}
        for character in map(chr, range(sys.maxunicode + 1)):
            name = unicodedata.name(character, "")
            if not name.startswith(("CJK ", "HANGUL ")):  # 100 000 names that are but numbers
                for word in name.replace("-", " ").split():
                    self._by_word.setdefault(word, set()).add(character)

    def __call__(self, call: Call) -> list[Character]:
        words = call.body.read().decode(errors="replace").upper().replace("-", " ").split()
        if not words:
            raise BadRequest("say one word of the name or more, such as: cat face")
        found = set.intersection(*(self._by_word.get(word, set()) for word in words))
        return [
            Character(character, f"U+{ord(character):04X}", unicodedata.name(character))
            for character in sorted(found)[: self.most]
        ]


# An async def: it runs on the reactor, where it may await but never compute for long.

#: The hosts that /fetch may be sent to, so that it is no open proxy.
FETCH_HOSTS = frozenset(os.environ.get("FETCH_HOSTS", "127.0.0.1 localhost").split())

#: The most that /fetch reads, in bytes.
FETCH_MOST = 1024 * 1024


class Wanted(msgspec.Struct):
    """What /fetch takes: ``{"url": "http://localhost:8000/"}``."""

    url: str


@app.post("/fetch", timeout="10s", max_body="8kB")
async def fetch(call: Call) -> Reply:
    """A page of another server, without a thread that waits for it."""
    # Not at the top: worker processes import this module too, and do without Twisted.
    import treq
    from hyperlink import URLParseError
    from hyperlink import parse as parse_url

    try:
        url = parse_url(call.json(Wanted).url)
    except (URLParseError, ValueError) as error:
        raise BadRequest(f"this is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or any(url.userinfo):
        raise BadRequest("the URL has to start with http:// or https:// and a host, no user")
    if url.host not in FETCH_HOSTS:
        raise HTTPError(403, f"the host {url.host} is not one of those to fetch from")

    content = bytearray()

    def keep(piece: bytes) -> None:
        content.extend(piece)
        if len(content) > FETCH_MOST:
            raise OverflowError

    try:
        # A redirection could lead to any host: it is an answer like others that are not 200.
        response = await treq.get(url, allow_redirects=False, unbuffered=True, timeout=5)
        await treq.collect(response, keep)
    except Exception as error:
        name = type(error).__name__
        raise HTTPError(502, f"{url.host} did not send the page ({name})") from None
    if response.code != 200:
        raise HTTPError(502, f"{url.host} answered {response.code}")
    content_type = response.headers.getRawHeaders("content-type", ["application/octet-stream"])[0]
    return Reply(bytes(content), content_type=content_type)
