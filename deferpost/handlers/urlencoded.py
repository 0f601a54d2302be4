"""Reading ``application/x-www-form-urlencoded``.

It decides what is a field, and where a malformed one goes wrong.  It never reads more of a body
than a form may have, and never guesses at a broken escape.
"""

from __future__ import annotations

import itertools
import re
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from deferpost.errors import HTTPError
from deferpost.handlers.formbounds import Held, read_up_to
from deferpost.handlers.formplaces import Place
from deferpost.handlers.formtypes import URLENCODED

__all__ = ["read_urlencoded"]

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED_BYTE = re.compile(rb"%..|.", re.DOTALL)


def read_urlencoded(body: BinaryIO, codec: str, held: Held) -> None:
    """Read all fields.

    :param body: read from where it stands.
    :param codec: of the text, one of those of ``formtypes``.
    :param held: takes the fields.
    :raises HTTPError: 400 for a malformed form, 413 for one over a bound.
    """
    limit = held.bounds.text_bytes
    data = read_up_to(body, limit + 1)
    if len(data) > limit:
        raise HTTPError(
            413,
            f"a form of the type {URLENCODED} may have {limit} bytes",
            extensions={"limit": limit},
        )
    for number, match in enumerate(re.finditer(rb"[^&]+", data), 1):
        place = Place("field", number, match.start())
        held.begin_field(place)
        raw_name, separator, raw_value = match.group().partition(b"=")
        name = _unquote(raw_name, codec, place)
        place = place._replace(offset=match.start() + len(raw_name) + len(separator))
        if len(raw_value) - 2 * raw_value.count(b"%") > held.bounds.field_bytes:
            raise held.field_too_large(name, place)
        held.add_field(name, _unquote(raw_value, codec, place))


def _unquote(raw: bytes, codec: str, place: Place) -> str:
    """The text of a percent-encoded name or value.

    :func:`urllib.parse.parse_qsl` lets a broken escape pass and does not say where text cannot be
    decoded.
    """
    if broken := _BAD_ESCAPE.search(raw):
        place = place._replace(offset=place.offset + broken.start())
        raise place.bad('"%" is not followed by two hexadecimal digits')
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode(codec)
    except UnicodeDecodeError as error:
        byte = next(itertools.islice(_ESCAPED_BYTE.finditer(raw), error.start, None))
        place = place._replace(offset=place.offset + byte.start())
        raise place.bad(f"the text is not {codec}") from None
