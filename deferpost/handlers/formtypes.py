"""What a form's ``Content-Type`` says: whether it is one, its boundary and its charset.

It decides which media types and which charsets are read.  It never looks at the body.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from contextlib import suppress

from deferpost.errors import BadRequest, HTTPError
from deferpost.handlers.formplaces import Place, shown

__all__ = ["FORM_TYPES", "MULTIPART", "URLENCODED", "boundary_of", "codec_of", "read_form_type"]

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

#: The media types that are read as a form, in the order in which errors name them.
FORM_TYPES = (URLENCODED, MULTIPART)

#: Codecs in which ASCII bytes mean what they say, so that names, escapes and boundaries can be
#: found before the text is decoded: those of the WHATWG Encoding Standard that Python has, without
#: UTF-16 and ISO-2022-JP.
_CODECS = frozenset(
    ["utf-8", "ascii", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic"]
    + ["gbk", "gb2312", "gb18030", "big5", "big5hkscs", "euc_kr", "cp949"]
    + ["euc_jp", "shift_jis", "cp932", "cp866", "cp874"]
    + [f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))]
    + [f"cp{page}" for page in range(1250, 1259)]
)

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,39}")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))')
#: RFC 2046, section 5.1.1 asks for fewer characters and no more than 70; clients do not.
_BOUNDARY = re.compile(r"[ -~]{0,199}[!-~]")


def read_form_type(content_type: str) -> tuple[str, dict[str, str]]:
    """The media type of a form, one of :data:`FORM_TYPES`, and its parameters.

    :raises HTTPError: 415 where it is another type.
    """
    media_type, parameters = _read_content_type(content_type)
    if media_type not in FORM_TYPES:
        raise HTTPError(
            415,
            "a form is sent as " + " or as ".join(FORM_TYPES),
            headers={"Accept-Post": ", ".join(FORM_TYPES)},
        )
    return media_type, parameters


def _read_content_type(value: str) -> tuple[str, dict[str, str]]:
    """The media type in lower case, and its parameters; of a repeated one, the first.

    An unquoted value may have characters that RFC 9110 wants quoted: some clients send their
    boundary like that.
    """
    media_type = value.partition(";")[0]
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(value, len(media_type)):
        name, quoted, plain = match.groups()
        parameters.setdefault(
            name.lower(), plain.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        )
    return media_type.strip().lower(), parameters


def codec_of(label: str, place: Place | None = None) -> str:
    """Python's name of a charset, or 415.

    :param label: the charset as the client names it.
    :param place: the part that names it; ``None`` for the form itself.
    """
    if _LABEL.fullmatch(label):
        with suppress(LookupError):
            name = codecs.lookup(label).name
            if name in _CODECS:
                return name
    where = "" if place is None else f"{place}: "
    raise HTTPError(
        415,
        f"{where}the charset {shown(label)} is not one that forms are read in",
        extensions={} if place is None else place.extensions(),
    )


def boundary_of(parameters: Mapping[str, str]) -> bytes:
    """The boundary of a multipart form, or 400."""
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise BadRequest("the Content-Type multipart/form-data names no boundary")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(
            "the boundary that the Content-Type names is longer than 200 characters, ends in a "
            "space or is not of printable ASCII characters"
        )
    return boundary.encode("ascii")
