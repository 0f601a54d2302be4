"""Reading ``multipart/form-data`` (RFC 7578), each file straight to disk.

It decides what is a field and what a file, and where a malformed part goes wrong.  It never holds
a file in memory, and imports the parser when the first multipart form comes, because a worker's
start-up time counts.

The parser is :class:`multipart.PushMultipartParser`, not in its strict mode: that one refuses a
body whose closing line is cut between two reads.  What strict mode is wanted for is checked here
instead, the same wherever the body is cut.
"""

from __future__ import annotations

import re
import threading
from typing import Any, BinaryIO, Protocol

from deferpost.errors import BadRequest
from deferpost.handlers.formbounds import CHUNK_BYTES, Held, read_up_to
from deferpost.handlers.formplaces import Place, shown
from deferpost.handlers.formtypes import codec_of
from deferpost.handlers.uploads import UploadedFile

__all__ = ["read_multipart"]

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_EXTENDED_FILENAME = re.compile(r";\s*filename\*", re.IGNORECASE)
_BARE_LINE_BREAK = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_SEPARATOR = re.compile(r"[/\\]")


class _Segment(Protocol):
    """What we use of :class:`multipart.MultipartSegment`."""

    name: str
    filename: str | None
    content_type: str | None
    charset: str | None

    def header(self, name: str, default: str) -> str: ...


class _FieldPart:
    """A field while its part is read."""

    def __init__(self, segment: _Segment, codec: str, place: Place, held: Held) -> None:
        held.begin_field(place)
        self._name = segment.name
        self._codec = codec if segment.charset is None else codec_of(segment.charset, place)
        self._place = place
        self._held = held
        self._data = bytearray()

    def write(self, chunk: bytes) -> None:
        if len(self._data) + len(chunk) > self._held.bounds.field_bytes:
            raise self._held.field_too_large(self._name, self._place)
        self._held.keep(len(chunk), self._place)
        self._data += chunk

    def end(self, start: int) -> None:
        """:param start: where in the body the content began."""
        try:
            value = self._data.decode(self._codec)
        except UnicodeDecodeError as error:
            place = self._place._replace(offset=start + error.start)
            reason = f"the field {shown(self._name)} is not {self._codec} text"
            raise place.bad(reason) from None
        self._held.add_field(self._name, value)


class _FilePart:
    """A file while its part is read and written to disk."""

    def __init__(self, segment: _Segment, filename: str, place: Place, held: Held) -> None:
        content_type = segment.content_type or "application/octet-stream"
        held.keep(len(filename.encode()) + len(content_type.encode()), place)
        self._name = segment.name
        self._filename = filename
        self._content_type = content_type
        self._held = held
        self._file = held.begin_file(place)
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._size += len(chunk)

    def end(self, start: int) -> None:
        if not self._filename and not self._size:
            self._file.close()  # a file input that was left empty (HTML, section 4.10.21.4)
            return
        self._file.seek(0)  # which flushes
        base_name = _SEPARATOR.split(self._filename.replace("\0", ""))[-1]
        if base_name in (".", ".."):
            base_name = ""
        self._held.add_file(
            UploadedFile(self._name, base_name, self._content_type, self._size, self._file)
        )


def _begin_part(segment: _Segment, codec: str, place: Place, held: Held) -> _FieldPart | _FilePart:
    if not segment.name:
        raise place.bad("the part's Content-Disposition names no field")
    transfer_encoding = segment.header("Content-Transfer-Encoding", "binary").strip().lower()
    if transfer_encoding not in ("7bit", "8bit", "binary"):
        reason = f"the Content-Transfer-Encoding {shown(transfer_encoding)} is not decoded"
        raise place.bad(f"{reason} (RFC 7578, section 4.7)")
    held.keep(len(segment.name.encode()), place)
    if segment.filename is not None:
        return _FilePart(segment, segment.filename, place, held)
    if _EXTENDED_FILENAME.search(_QUOTED.sub('""', segment.header("Content-Disposition", ""))):
        raise place.bad('the file is named by "filename*" alone (RFC 7578, section 4.2)')
    return _FieldPart(segment, codec, place, held)


class _Places:
    """Where in the body the parser stands, which it does not tell.

    Its events say how far it is: content is as long as the event, and the header of a part ends
    at the first empty line after its boundary.  So only the bytes that it has not yielded yet are
    kept: less than a chunk, a header and a boundary.

    :param boundary: as the ``Content-Type`` names it.
    """

    def __init__(self, boundary: bytes) -> None:
        self._dashed = b"--" + boundary
        self._window = b""
        self._start = 0  # of the window in the body
        self._position = 0  # of the parser in the body
        self._content = 0  # where the content of the part begins
        self._part = Place("part", 0, 0)  # the latest
        self._in_content = False

    def feed(self, chunk: bytes) -> None:
        """These bytes are about to be parsed."""
        consumed = self._position - self._start
        self._window = self._window[consumed:] + chunk
        self._start = self._position

    def begin(self) -> tuple[Place, bytes]:
        """The header of the next part was parsed.

        :returns: where the part begins, and its header.
        """
        boundary = self._window.index(self._dashed, self._position - self._start)
        header = boundary + len(self._dashed)
        end = self._window.index(b"\r\n\r\n", header) + 4
        self._position = self._content = self._start + end
        self._part = Place("part", self._part.number + 1, self._start + boundary)
        self._in_content = True
        return self._part, self._window[header:end]

    def skip(self, size: int) -> None:
        """So much content was yielded."""
        self._position += size

    def end(self) -> int:
        """The part is complete.

        :returns: where in the body its content began.
        """
        self._in_content = False
        return self._content

    def final(self) -> bool:
        """Whether the boundary at the end of a part, or of no part at all, is the final one."""
        boundary = self._window.index(self._dashed, self._position - self._start)
        return self._window.startswith(b"--", boundary + len(self._dashed))

    def here(self) -> Place:
        """Where the part begins in which the parser gave up.

        How far into the content it was would depend on how the body is cut.
        """
        if self._in_content:
            return self._part
        boundary = self._window.index(self._dashed, self._position - self._start)
        return Place("part", self._part.number + 1, self._start + boundary)

    def end_of_body(self) -> Place:
        """The place behind the last byte."""
        number = self._part.number if self._in_content else self._part.number + 1
        return Place("part", number, self._start + len(self._window))


def read_multipart(body: BinaryIO, boundary: bytes, codec: str, held: Held) -> None:
    """Read all fields and files; what follows the final boundary is not read.

    :param body: read from where it stands.
    :param boundary: as the ``Content-Type`` names it.
    :param codec: of the text, one of those of ``formtypes``.
    :param held: takes the fields and files.
    :raises HTTPError: 400 for a malformed form, 413 for one over a bound, 415 for a part in an
        unknown charset.
    """
    library = _import_multipart()
    parser = library.PushMultipartParser(boundary, header_charset=codec)
    places = _Places(boundary)
    # The first boundary is checked here because the parser would skip anything before it.
    chunk = read_up_to(body, len(b"\r\n--" + boundary + b"\r\n"))
    if not chunk.startswith((b"--" + boundary, b"\r\n--" + boundary)):
        raise BadRequest(
            "the body does not begin with the boundary that its Content-Type names", offset=0
        )
    places.feed(chunk)
    if places.final():
        return
    part: Any = None  # a _FieldPart or a _FilePart between their first event and their last
    try:
        while chunk:
            for event in parser.parse(chunk):
                if event is None:
                    part.end(places.end())
                    if places.final():
                        return
                elif isinstance(event, (bytes, bytearray)):
                    part.write(event)
                    places.skip(len(event))
                else:
                    place, header = places.begin()
                    if _BARE_LINE_BREAK.search(header):
                        # The parser refuses some of these, if a cut lets it see them.
                        raise place.bad("the part's header has a line break other than CR LF")
                    part = _begin_part(event, codec, place, held)
            chunk = body.read(CHUNK_BYTES)
            places.feed(chunk)
    except library.ParserLimitReached as error:
        raise places.here().too_large(_words(error)) from None
    except library.MultipartError as error:
        raise places.here().bad(_words(error)) from None
    raise places.end_of_body().bad("the body ends before its final boundary")


def _words(error: Exception) -> str:
    """What the parser says, in our words.

    Of its arguments only the first: a second one can hold bytes of the body.
    """
    words = str(error.args[0]).replace("segment", "part").replace("Segment", "Part")
    return words[:1].lower() + words[1:]


_IMPORTING = threading.Lock()


def _import_multipart() -> Any:
    """The multipart library, imported when the first form needs it.

    Under a lock: where python-multipart is installed too, ``import multipart`` runs a shim of
    that one, which puts the real module into :data:`sys.modules` before it has run, outside the
    lock that keeps threads from seeing half a module.
    """
    with _IMPORTING:
        import multipart  # type: ignore[import-untyped]
    return multipart
