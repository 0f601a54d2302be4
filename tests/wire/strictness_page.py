"""The page about strictness, made from the cases; run this module to write it.

``python -m tests.wire.strictness_page``
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.wire import cases
from tests.wire.cases import Case
from tests.wire.smuggling import SMUGGLING

__all__ = ["COMMAND", "PAGE", "SECTIONS", "page"]

COMMAND = "python -m tests.wire.strictness_page"
PAGE = Path(__file__).parents[2] / "docs" / "strictness.rst"

SECTIONS: tuple[tuple[str, Sequence[Case]], ...] = (
    ("The request line", cases.REQUEST_LINES),
    ("Methods", cases.METHODS),
    ("Versions", cases.VERSIONS),
    ("Targets", cases.TARGETS),
    ("Targets in absolute-form", cases.ABSOLUTE_TARGETS),
    ("Fields", cases.FIELDS),
    ("Sizes of a head", cases.LIMITS),
    ("Host", cases.HOSTS),
    ("Content-Length", cases.LENGTHS),
    ("Transfer-Encoding", cases.TRANSFER_CODINGS),
    ("Chunks", cases.CHUNKS),
    ("Trailers", cases.TRAILERS),
    ("Expectations", cases.EXPECTATIONS),
    ("Known ways to smuggle a request", SMUGGLING),
)

_INTRODUCTION = f"""\
.. Made by: {COMMAND}

How strict the wire is
======================

Each row is a request that the tests send, in one piece, byte by byte, and with a second request
behind it, and the status that it has to be answered with by default.  The bytes themselves are in
``tests/wire/cases.py`` and ``tests/wire/smuggling.py``, under the same names.

A status other than 200 is a refusal by the wire itself: its body is ``application/problem+json``
with an ``id``, it has ``Connection: close``, the connection ends, and nothing that the client sent
behind it is answered.  Where an RFC leaves a choice, it is to refuse; where this is against what an
RFC recommends, for the sake of others who read the same bytes in another way, the reason says so.

``make fuzz`` looks for what the table lacks: it sends bytes made from these to channels in memory,
whole and cut, and beside Twisted's own channel, for ``SECONDS=60``.

Methods that no HTTP parser knows are answered 501.  Of those that one knows, resources decide.
"""

_MARKUP = re.compile(r"([\\*`|_])")
_RFC = re.compile(r"RFC (\d+), ([\d.]+)")


def page() -> str:
    """The page as the cases give it."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for title, rows in SECTIONS:
        yield from ("", title, "-" * len(title), "")
        yield from (".. csv-table::", '   :header: "Request", "Where", "Status", "Why"')
        yield from ("   :widths: 34, 16, 8, 42", "   :escape: ^", "")
        for case in rows:
            cells = (_text(case.name), _link(case.rfc), str(case.status), _text(case.why))
            yield "   " + ", ".join(f'"{cell}"' for cell in cells)
        yield ""


def _text(text: str) -> str:
    """Text in a cell: none of its characters is markup, of the page or of the table."""
    return re.sub(r'([\^"])', r"^\1", _MARKUP.sub(r"\\\1", text))


def _link(rfc: str) -> str:
    number, section = _RFC.fullmatch(rfc).groups()  # type: ignore[union-attr]  # a test sees to it
    address = f"https://www.rfc-editor.org/rfc/rfc{number}#section-{section}"
    return f"`{rfc} <{address}>`__"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
