"""Reading a POSTed form: its fields as text, its uploaded files on disk.

It decides what is a form, where a malformed one goes wrong and how much of one is kept.  It runs
where the handler runs, in a worker thread or process and never on the reactor thread; it never
holds a file in memory, never imports Twisted, and imports what only forms need when the first
form comes, because a worker's start-up time counts.

The multipart parser is :class:`multipart.PushMultipartParser`, not in its strict mode: that one
refuses a body whose closing line is cut between two reads.  What strict mode is wanted for is
checked here instead, the same wherever the body is cut.
"""

from __future__ import annotations

import codecs
import io
import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, Self
from urllib.parse import unquote_to_bytes

from deferpost.errors import BadRequest, HTTPError

__all__ = ["FORM_TYPES", "Form", "MissingField", "UploadedFile", "parse_form"]

#: The media types that are read as a form, in the order in which errors name them.
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")

_CHUNK_BYTES = 64 * 1024

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
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_EXTENDED_FILENAME = re.compile(r";\s*filename\*", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED_BYTE = re.compile(rb"%..|.", re.DOTALL)
_BARE_LINE_BREAK = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_SEPARATOR = re.compile(r"[/\\]")


class MissingField(BadRequest, KeyError):
    """A handler asked for a field or file that the form does not have.

    It answers 400 where the handler does not catch it, and is a :class:`KeyError` for a handler
    that treats the form as the mapping it is.

    :param name: the field's name.
    :param kind: what was asked for, for the client: ``"field"`` or ``"file"``.
    """

    def __init__(self, name: str, kind: str = "field") -> None:
        super().__init__(f'the form has no {kind} "{name}"', field=name)
        self.name = name


class UploadedFile:
    """One uploaded file.  Its content is on disk and goes when :attr:`file` is closed.

    To be used by one thread at a time.

    :param name: the name of the form's field.
    :param filename: the client's name of the file.
    :param content_type: the client's idea of the media type.
    :param size: bytes of content.
    :param file: the content.
    """

    __slots__ = ("_content_type", "_file", "_filename", "_name", "_size")

    def __init__(
        self, name: str, filename: str, content_type: str, size: int, file: BinaryIO
    ) -> None:
        self._name = name
        self._filename = filename
        self._content_type = content_type
        self._size = size
        self._file = file

    def __repr__(self) -> str:
        return f"<UploadedFile {self._name!r} {self._filename!r} {self._size} bytes>"

    @property
    def name(self) -> str:
        """The name of the form's field; several files may share it."""
        return self._name

    @property
    def filename(self) -> str:
        """The last component of the client's name of the file; do not trust it.

        There is no ``/``, no ``\\`` and no NUL in it, and it is neither ``.`` nor ``..``.  It can
        still be empty, begin with a dot, hold line breaks, name a device or be the name of
        another upload: show it, but choose the names on your disk yourself.
        """
        return self._filename

    @property
    def content_type(self) -> str:
        """The media type that the client claims, in lower case and without parameters.

        ``application/octet-stream`` where it claims none.  Do not trust it either.
        """
        return self._content_type

    @property
    def size(self) -> int:
        """How many bytes the client sent."""
        return self._size

    @property
    def file(self) -> BinaryIO:
        """The content: an open temporary file, seekable, with a ``fileno()``, at position 0."""
        return self._file

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Copy the content to a file; :attr:`file` keeps its position.

        :param path: where to.  Never derive it from :attr:`filename` alone.
        :param overwrite: replace the content of a file that is there, following a symbolic link,
            instead of refusing.
        :raises FileExistsError: there is something at ``path`` and ``overwrite`` is false.
        :raises OSError: the file cannot be written; one that was created for it is removed again.
        :raises ValueError: the form was closed.
        """
        position = self._file.tell()
        try:
            with open(path, "wb" if overwrite else "xb") as target:
                try:
                    self._file.seek(0)
                    while chunk := self._file.read(_CHUNK_BYTES):
                        target.write(chunk)
                    target.flush()
                except BaseException:
                    if not overwrite:
                        os.unlink(path)
                    raise
        finally:
            self._file.seek(position)


class Form(Mapping[str, str]):
    """A form as it was POSTed, read-only.

    As a mapping it gives each field's first value: ``form["title"]``,
    ``form.get("title", "untitled")``, ``"title" in form``, ``for name in form``.  Fields are
    text; files are apart, in :attr:`files` and by :meth:`file`.

    The files are deleted by :meth:`close`, at the end of a ``with`` block or when nothing refers
    to them any more.  To be used by one thread at a time.

    :param fields: the values of each field, in the order in which they were sent.
    :param files: the files of each field, in the order in which they were sent.
    """

    __slots__ = ("__weakref__", "_fields", "_files")

    def __init__(
        self,
        fields: Mapping[str, tuple[str, ...]],
        files: Mapping[str, tuple[UploadedFile, ...]],
    ) -> None:
        self._fields = MappingProxyType(dict(fields))
        self._files = MappingProxyType(dict(files))

    def __repr__(self) -> str:
        return f"<Form fields={list(self._fields)!r} files={list(self._files)!r}>"

    @property
    def fields(self) -> Mapping[str, tuple[str, ...]]:
        """Every value of every field, in order; never an empty tuple."""
        return self._fields

    @property
    def files(self) -> Mapping[str, tuple[UploadedFile, ...]]:
        """Every uploaded file by the name of its field, in order; never an empty tuple.

        A file input that the user left empty is not here.
        """
        return self._files

    def __getitem__(self, name: str) -> str:
        """A field's first value.

        :param name: the field's name.
        :raises MissingField: the form has no such field; answers 400 where it is not caught.
        """
        try:
            return self._fields[name][0]
        except KeyError:
            raise MissingField(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def get_all(self, name: str) -> list[str]:
        """The values of one field, in order.

        :param name: the field's name.
        :returns: a new list, empty where the field is absent.
        """
        return list(self._fields.get(name, ()))

    def file(self, name: str) -> UploadedFile:
        """The first file of a field.

        :param name: the field's name.
        :raises MissingField: the form has no such file; answers 400 where it is not caught.
        """
        try:
            return self._files[name][0]
        except KeyError:
            raise MissingField(name, "file") from None

    def close(self) -> None:
        """Close the files, which deletes them; the fields stay.  Again is no error."""
        for uploads in self._files.values():
            for upload in uploads:
                upload.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def parse_form(
    content_type: str | None,
    body: BinaryIO,
    *,
    directory: str | None = None,
    max_fields: int = 1000,
    max_files: int = 100,
    max_field_bytes: int = 1024 * 1024,
    max_text_bytes: int = 8 * 1024 * 1024,
) -> Form:
    """Read a form from a request's body.

    Blocks while it reads and writes: for a worker's thread, never the reactor's.  Any number of
    threads may each read a form at a time.

    In ``application/x-www-form-urlencoded`` a name without ``=`` has the empty value and nothing
    between two ``&`` is nothing, as browsers read it.  In ``multipart/form-data`` (RFC 7578) a
    part with a ``filename`` is a file, any other is a field; what follows the final boundary is
    not read.

    :param content_type: the request's ``Content-Type``.  Its ``charset`` is that of the text;
        UTF-8 where it names none.
    :param body: the body, read from where it stands; it is not closed.
    :param directory: where temporary files go; the system's own place where it is ``None``.
    :param max_fields: how many fields there may be.
    :param max_files: how many files there may be; each is an open file descriptor.
    :param max_field_bytes: bytes that one field's value may have.
    :param max_text_bytes: bytes that are kept in memory at most: all fields, and the names of the
        fields and files.  In the urlencoded form, bytes of the body.
    :raises BadRequest: the form is malformed.  Its ``detail`` and extensions say where: ``part``
        or ``field`` count from 1, ``offset`` is in bytes from where the body stood.
    :raises HTTPError: 413 where the form is over one of the bounds, with the ``limit`` as an
        extension; 415 where the body is no form, or its charset is unknown.
    :raises OSError: a file cannot be written, or the body cannot be read.  No fault of the
        client.
    """
    media_type, parameters = _read_content_type(content_type or "")
    if media_type not in FORM_TYPES:
        raise HTTPError(
            415,
            "a form is sent as " + " or as ".join(FORM_TYPES),
            headers={"Accept-Post": ", ".join(FORM_TYPES)},
        )
    codec = _codec(parameters.get("charset", "utf-8"))
    held = _Held(_Bounds(max_fields, max_files, max_field_bytes, max_text_bytes), directory)
    try:
        if media_type == "multipart/form-data":
            _read_multipart(body, _boundary(parameters), codec, held)
        else:
            _read_urlencoded(body, codec, held)
        return held.form()
    except BaseException:
        held.close()
        raise


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


def _codec(label: str, place: _Place | None = None) -> str:
    """Python's name of a charset, or 415."""
    if _LABEL.fullmatch(label):
        with suppress(LookupError):
            name = codecs.lookup(label).name
            if name in _CODECS:
                return name
    where = "" if place is None else f"{place}: "
    raise HTTPError(
        415,
        f"{where}the charset {_shown(label)} is not one that forms are read in",
        extensions={} if place is None else place.extensions(),
    )


def _boundary(parameters: Mapping[str, str]) -> bytes:
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise BadRequest("the Content-Type multipart/form-data names no boundary")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(
            "the boundary that the Content-Type names is longer than 200 characters, ends in a "
            "space or is not of printable ASCII characters"
        )
    return boundary.encode("ascii")


def _shown(text: str) -> str:
    """A client's word in an error: short, and without line breaks or the like."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


class _Place(NamedTuple):
    """Where in the body something is wrong."""

    noun: str
    number: int
    offset: int

    def __str__(self) -> str:
        return f"{self.noun} {self.number}, at byte {self.offset} of the body"

    def extensions(self) -> dict[str, Any]:
        return {self.noun: self.number, "offset": self.offset}

    def bad(self, reason: str) -> BadRequest:
        return BadRequest(f"{self}: {reason}", **self.extensions())

    def too_large(self, reason: str, **extensions: int) -> HTTPError:
        return HTTPError(413, f"{self}: {reason}", extensions=self.extensions() | extensions)


class _Bounds(NamedTuple):
    """How much a form may have; see :func:`parse_form`."""

    fields: int
    files: int
    field_bytes: int
    text_bytes: int


class _TemporaryFile(io.BufferedRandom):
    """A file that may be forgotten: it then closes without a :class:`ResourceWarning`.

    Handlers need not close a form, and the system deletes the file with its descriptor.
    """

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()


class _Held:
    """What was read of a form so far, within the bounds; owns the files until there is a form."""

    def __init__(self, bounds: _Bounds, directory: str | None) -> None:
        self.bounds = bounds
        self._directory = directory
        self._fields: dict[str, list[str]] = {}
        self._files: dict[str, list[UploadedFile]] = {}
        self._open: list[_TemporaryFile] = []
        self._field_count = 0
        self._text_bytes = 0

    def begin_field(self, place: _Place) -> None:
        self._field_count += 1
        if self._field_count > self.bounds.fields:
            limit = self.bounds.fields
            raise place.too_large(f"the form has more than {limit} fields", limit=limit)

    def begin_file(self, place: _Place) -> _TemporaryFile:
        if len(self._open) >= self.bounds.files:
            limit = self.bounds.files
            raise place.too_large(f"the form has more than {limit} files", limit=limit)
        import tempfile

        file = _TemporaryFile(tempfile.TemporaryFile(dir=self._directory, buffering=0))  # noqa: SIM115
        self._open.append(file)
        return file

    def keep(self, size: int, place: _Place) -> None:
        """Count bytes that stay in memory."""
        self._text_bytes += size
        if self._text_bytes > self.bounds.text_bytes:
            limit = self.bounds.text_bytes
            raise place.too_large(f"the form has more than {limit} bytes of text", limit=limit)

    def field_too_large(self, name: str, place: _Place) -> HTTPError:
        limit = self.bounds.field_bytes
        return place.too_large(f"the field {_shown(name)} has more than {limit} bytes", limit=limit)

    def add_field(self, name: str, value: str) -> None:
        self._fields.setdefault(name, []).append(value)

    def add_file(self, upload: UploadedFile) -> None:
        self._files.setdefault(upload.name, []).append(upload)

    def form(self) -> Form:
        return Form(
            {name: tuple(values) for name, values in self._fields.items()},
            {name: tuple(uploads) for name, uploads in self._files.items()},
        )

    def close(self) -> None:
        for file in self._open:
            # What cannot be written any more is not wanted any more.
            with suppress(OSError):
                file.close()


def _read_urlencoded(body: BinaryIO, codec: str, held: _Held) -> None:
    limit = held.bounds.text_bytes
    data = _read_up_to(body, limit + 1)
    if len(data) > limit:
        raise HTTPError(
            413,
            f"a form of the type {FORM_TYPES[0]} may have {limit} bytes",
            extensions={"limit": limit},
        )
    for number, match in enumerate(re.finditer(rb"[^&]+", data), 1):
        place = _Place("field", number, match.start())
        held.begin_field(place)
        raw_name, separator, raw_value = match.group().partition(b"=")
        name = _unquote(raw_name, codec, place)
        place = place._replace(offset=match.start() + len(raw_name) + len(separator))
        if len(raw_value) - 2 * raw_value.count(b"%") > held.bounds.field_bytes:
            raise held.field_too_large(name, place)
        held.add_field(name, _unquote(raw_value, codec, place))


def _read_up_to(body: BinaryIO, size: int) -> bytes:
    """The next bytes of the body; fewer only where it ends."""
    pieces = []
    while size and (piece := body.read(min(size, _CHUNK_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _unquote(raw: bytes, codec: str, place: _Place) -> str:
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


class _Segment(Protocol):
    """What we use of :class:`multipart.MultipartSegment`."""

    name: str
    filename: str | None
    content_type: str | None
    charset: str | None

    def header(self, name: str, default: str) -> str: ...


class _FieldPart:
    """A field while its part is read."""

    def __init__(self, segment: _Segment, codec: str, place: _Place, held: _Held) -> None:
        held.begin_field(place)
        self._name = segment.name
        self._codec = codec if segment.charset is None else _codec(segment.charset, place)
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
            reason = f"the field {_shown(self._name)} is not {self._codec} text"
            raise place.bad(reason) from None
        self._held.add_field(self._name, value)


class _FilePart:
    """A file while its part is read and written to disk."""

    def __init__(self, segment: _Segment, filename: str, place: _Place, held: _Held) -> None:
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


def _begin_part(
    segment: _Segment, codec: str, place: _Place, held: _Held
) -> _FieldPart | _FilePart:
    if not segment.name:
        raise place.bad("the part's Content-Disposition names no field")
    transfer_encoding = segment.header("Content-Transfer-Encoding", "binary").strip().lower()
    if transfer_encoding not in ("7bit", "8bit", "binary"):
        reason = f"the Content-Transfer-Encoding {_shown(transfer_encoding)} is not decoded"
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
        self._part = _Place("part", 0, 0)  # the latest
        self._in_content = False

    def feed(self, chunk: bytes) -> None:
        """These bytes are about to be parsed."""
        consumed = self._position - self._start
        self._window = self._window[consumed:] + chunk
        self._start = self._position

    def begin(self) -> tuple[_Place, bytes]:
        """The header of the next part was parsed.

        :returns: where the part begins, and its header.
        """
        boundary = self._window.index(self._dashed, self._position - self._start)
        header = boundary + len(self._dashed)
        end = self._window.index(b"\r\n\r\n", header) + 4
        self._position = self._content = self._start + end
        self._part = _Place("part", self._part.number + 1, self._start + boundary)
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

    def here(self) -> _Place:
        """Where the part begins in which the parser gave up.

        How far into the content it was would depend on how the body is cut.
        """
        if self._in_content:
            return self._part
        boundary = self._window.index(self._dashed, self._position - self._start)
        return _Place("part", self._part.number + 1, self._start + boundary)

    def end_of_body(self) -> _Place:
        """The place behind the last byte."""
        number = self._part.number if self._in_content else self._part.number + 1
        return _Place("part", number, self._start + len(self._window))


def _read_multipart(body: BinaryIO, boundary: bytes, codec: str, held: _Held) -> None:
    library = _import_multipart()
    parser = library.PushMultipartParser(boundary, header_charset=codec)
    places = _Places(boundary)
    # The first boundary is checked here because the parser would skip anything before it.
    chunk = _read_up_to(body, len(b"\r\n--" + boundary + b"\r\n"))
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
            chunk = body.read(_CHUNK_BYTES)
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
