"""What a handler gets from :meth:`deferpost.Call.form`, and what a client is told instead."""

from __future__ import annotations

import gc
import io
import os
import resource
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deferpost.errors import BadRequest, HTTPError
from deferpost.handlers.forms import FORM_TYPES, Form, MissingField, UploadedFile, parse_form

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=cut"


class Entry(NamedTuple):
    """One part of a multipart form, as a browser would send it."""

    name: str
    content: bytes
    filename: str | None = None
    headers: tuple[str, ...] = ()


def multipart_body(entries: Iterable[Entry], boundary: bytes = b"cut") -> bytes:
    """Encode a form as the HTML Standard says, independently of any library."""

    def quoted(text: str) -> str:
        return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

    body = b""
    for entry in entries:
        header = f'Content-Disposition: form-data; name="{quoted(entry.name)}"'
        if entry.filename is not None:
            header += f'; filename="{quoted(entry.filename)}"'
        lines = "\r\n".join((header, *entry.headers)).encode()
        body += b"--" + boundary + b"\r\n" + lines + b"\r\n\r\n" + entry.content + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


def part(content: str | bytes = "", disposition: str = 'form-data; name="a"', *more: str) -> bytes:
    """One part with its own Content-Disposition, from its boundary to the end of its content."""
    lines = "\r\n".join(("--cut", "Content-Disposition: " + disposition, *more))
    data = content.encode() if isinstance(content, str) else content
    return lines.encode() + b"\r\n\r\n" + data + b"\r\n"


END = b"--cut--\r\n"


class CutBody(io.BytesIO):
    """A body that comes in pieces of the given sizes, over and over."""

    def __init__(self, data: bytes, sizes: Iterable[int]) -> None:
        super().__init__(data)
        self._sizes = list(sizes)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= 64 * 1024, "a body is read in bounded pieces"
        piece = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        return super().read(min(size, piece))


class Limits(NamedTuple):
    """The bounds of :func:`parse_form`, wide for the small forms of these tests."""

    max_fields: int = 10
    max_files: int = 10
    max_field_bytes: int = 1000
    max_text_bytes: int = 10_000


def read(content_type: str | None, data: bytes, limits: Limits | None = None) -> Form:
    """Parse a form that is in memory."""
    if limits is None:
        return parse_form(content_type, io.BytesIO(data))
    return parse_form(content_type, io.BytesIO(data), **limits._asdict())


def open_descriptors() -> set[str]:
    """The file descriptors that this process has open."""
    gc.collect()
    return set(os.listdir("/dev/fd"))


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Make writing fail behind so many bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def only_file(content: bytes = b"text", filename: str = "a.txt", *headers: str) -> UploadedFile:
    """The one file of a form that is nothing else."""
    form = read(MULTIPART, multipart_body([Entry("doc", content, filename, headers)]))
    return form.file("doc")


# A form and its values


def test_first_value() -> None:
    """A field reads as its first value, and get_all gives every one in order."""
    form = read(URLENCODED, b"a=1&b=2&a=3")
    assert form["a"] == "1"
    assert form.get_all("a") == ["1", "3"]
    assert form.get_all("c") == []


def test_mapping() -> None:
    """A form is a read-only mapping of its field names in the order in which they came."""
    form = read(URLENCODED, b"b=2&a=1&b=3")
    assert list(form) == ["b", "a"]
    assert len(form) == 2
    assert "a" in form
    assert "c" not in form
    assert dict(form.fields) == {"b": ("2", "3"), "a": ("1",)}
    assert not hasattr(form, "__setitem__")
    assert not hasattr(form.fields, "__setitem__")
    assert not hasattr(form.files, "__setitem__")


def test_get() -> None:
    """A field that may be missing is read with a default."""
    form = read(URLENCODED, b"a=1")
    assert form.get("a", "x") == "1"
    assert form.get("b", "x") == "x"
    assert form.get("b") is None


def test_missing_field_answers_400() -> None:
    """A handler that asks for a field that was not sent answers 400 and names the field."""
    form = read(URLENCODED, b"a=1")
    with pytest.raises(BadRequest) as caught:
        form["title"]
    assert caught.value.status == 400
    assert caught.value.detail == 'the form has no field "title"'
    assert caught.value.extensions == {"field": "title"}


def test_missing_field_is_a_key_error() -> None:
    """A handler that treats the form as a mapping catches a KeyError, as from any other."""
    with pytest.raises(KeyError):
        read(URLENCODED, b"")["title"]


def test_missing_file_answers_400() -> None:
    """A handler that asks for a file that was not sent answers 400 and names it."""
    form = read(URLENCODED, b"doc=1")
    with pytest.raises(MissingField) as caught:
        form.file("doc")
    assert caught.value.detail == 'the form has no file "doc"'
    assert caught.value.name == "doc"


def test_fields_and_files_are_apart() -> None:
    """A file is no field and a field no file, even under one name."""
    form = read(MULTIPART, multipart_body([Entry("a", b"1"), Entry("a", b"2", "f")]))
    assert dict(form) == {"a": "1"}
    assert [upload.file.read() for upload in form.files["a"]] == [b"2"]
    assert form.file("a") is form.files["a"][0]


def test_repr_tells_no_values() -> None:
    """What a form's repr puts into a log are names, not what the user typed."""
    form = read(MULTIPART, multipart_body([Entry("a", b"secret"), Entry("doc", b"x", "f.txt")]))
    assert repr(form) == "<Form fields=['a'] files=['doc']>"
    assert repr(form.file("doc")) == "<UploadedFile 'doc' 'f.txt' 1 bytes>"


def test_close() -> None:
    """A closed form has lost its files and kept its fields, and may be closed again."""
    with read(MULTIPART, multipart_body([Entry("a", b"1"), Entry("doc", b"x", "f")])) as form:
        file = form.file("doc").file
        assert not file.closed
    assert file.closed
    assert form["a"] == "1"
    form.close()


def test_forgotten_form() -> None:
    """A form that nobody closes gives its descriptors back, without a warning."""
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        form = read(MULTIPART, multipart_body([Entry("doc", b"x", "f")]))
        assert len(open_descriptors()) == len(before) + 1
        del form
        assert open_descriptors() == before
    assert seen == []


def test_file_outlives_its_form() -> None:
    """A file that is still in use stays open when the form is forgotten."""
    file = read(MULTIPART, multipart_body([Entry("doc", b"x", "f")])).file("doc").file
    gc.collect()
    assert file.read() == b"x"


# What is a form


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "text/plain; a=multipart/form-data", "multipart"]
)
def test_not_a_form(content_type: str | None) -> None:
    """A body of another type is answered 415, with the types that would do."""
    with pytest.raises(HTTPError) as caught:
        read(content_type, b"a=1")
    assert caught.value.status == 415
    assert all(media_type in caught.value.detail for media_type in FORM_TYPES)
    accept = "application/x-www-form-urlencoded, multipart/form-data"
    assert caught.value.headers == (("Accept-Post", accept),)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=c/u=t",
        'Multipart/Form-Data;charset=utf-8;  BOUNDARY="c/u=t"; boundary=other',
        'multipart/form-data; note="; boundary=other"; boundary = "c\\/u=t" ;',
    ],
)
def test_boundary_spellings(content_type: str) -> None:
    """The boundary is found however a client writes the header."""
    assert read(content_type, multipart_body([Entry("a", b"1")], b"c/u=t"))["a"] == "1"


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("multipart/form-data", "names no boundary"),
        ('multipart/form-data; boundary=""', "names no boundary"),
        ("multipart/form-data; boundary=" + 201 * "x", "printable ASCII"),
        ('multipart/form-data; boundary="x "', "printable ASCII"),
        ("multipart/form-data; boundary=é", "printable ASCII"),
    ],
)
def test_bad_boundary(content_type: str, words: str) -> None:
    """A multipart form without a usable boundary is a bad request."""
    with pytest.raises(BadRequest, match=words):
        read(content_type, END)


def test_body_is_read_from_where_it_stands() -> None:
    """The form begins where the body stands, and the body is left open."""
    body = io.BytesIO(b"skipped;a=1")
    body.seek(8)
    assert parse_form(URLENCODED, body)["a"] == "1"
    assert not body.closed


# Charsets


@pytest.mark.parametrize("label", ["utf-8", "ISO-8859-1", "windows-1252", "UTF8", "latin1"])
def test_urlencoded_charset(label: str) -> None:
    """The text of a urlencoded form is in the charset that its Content-Type names."""
    data = urlencode({"é": "aé+b"}, encoding=label).encode()
    assert dict(read(f'{URLENCODED}; charset="{label}"', data)) == {"é": "aé+b"}


def test_multipart_charset() -> None:
    """The charset of a multipart form is that of its names and text, unless a part has its own."""
    data = part("ü".encode("latin-1"), 'form-data; name="a"')
    data += part("ü", 'form-data; name="b"', "Content-Type: text/plain; charset=utf-8")
    form = read(MULTIPART + "; charset=iso-8859-1", data + part("", 'form-data; name="Ã"') + END)
    assert dict(form) == {"a": "ü", "b": "ü", "Ã\x83": ""}


@pytest.mark.parametrize(
    "label", ["klingon", "utf-16", "utf-7", "rot13", "idna", "iso-2022-jp", "x\0", 41 * "x", ""]
)
def test_unknown_charset(label: str) -> None:
    """A charset that is unknown, or no extension of ASCII, is answered 415."""
    with pytest.raises(HTTPError, match="charset") as caught:
        read(f"{URLENCODED}; charset={label}", b"a=1")
    assert caught.value.status == 415
    assert caught.value.extensions == {}


def test_unknown_charset_of_a_part() -> None:
    """A part in an unknown charset is answered 415, with its place."""
    before = part("x")
    after = part("x", 'form-data; name="b"', "Content-Type: text/plain; charset=nope")
    with pytest.raises(HTTPError, match=r"part 2, at byte .*'nope'") as caught:
        read(MULTIPART, before + after + END)
    assert caught.value.status == 415
    assert caught.value.extensions == {"part": 2, "offset": len(before)}


# application/x-www-form-urlencoded


@given(
    st.lists(st.tuples(st.text(), st.text()), max_size=10),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_urlencoded_round_trip(pairs: list[tuple[str, str]], sizes: list[int]) -> None:
    """Any names and values come back as they were encoded, however the body is cut."""
    expected: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        expected[name] = (*expected.get(name, ()), value)
    form = parse_form(URLENCODED, CutBody(urlencode(pairs).encode(), sizes))
    assert dict(form.fields) == expected
    assert dict(form.files) == {}


def test_urlencoded_as_browsers_read_it() -> None:
    """Blank values stay, a lone name has the blank value, and nothing between two & is nothing."""
    form = read(URLENCODED, b"a=&b&&=c&d=e=f&\xc3\xa9=+")
    assert dict(form) == {"a": "", "b": "", "": "c", "d": "e=f", "é": " "}


@pytest.mark.parametrize(
    ("data", "field", "offset", "words"),
    [
        (b"a=1&b=x%4", 2, 7, "two hexadecimal digits"),
        (b"a=1&b=%zz", 2, 6, "two hexadecimal digits"),
        (b"a=1&&%=x", 2, 5, "two hexadecimal digits"),
        (b"a=1&b=%41%41+%ff", 2, 13, "not utf-8"),
        (b"a=1&%41\xff=1", 2, 7, "not utf-8"),
    ],
)
def test_malformed_urlencoded(data: bytes, field: int, offset: int, words: str) -> None:
    """A urlencoded form that cannot be read is a bad request that says where."""
    with pytest.raises(BadRequest, match=words) as caught:
        read(URLENCODED, data)
    assert caught.value.extensions == {"field": field, "offset": offset}
    assert caught.value.detail.startswith(f"field {field}, at byte {offset} of the body: ")


@pytest.mark.parametrize(
    ("limits", "data", "extensions"),
    [
        (Limits(max_fields=2), b"a&b&c=1", {"field": 3, "offset": 4, "limit": 2}),
        (Limits(max_field_bytes=2), b"a=%20%20%20", {"field": 1, "offset": 2, "limit": 2}),
        (Limits(max_text_bytes=4), b"a=%20", {"limit": 4}),
    ],
)
def test_urlencoded_bounds(limits: Limits, data: bytes, extensions: dict[str, int]) -> None:
    """A urlencoded form over a bound is answered 413, with the bound."""
    with pytest.raises(HTTPError) as caught:
        read(URLENCODED, data, limits)
    assert caught.value.status == 413
    assert caught.value.extensions == extensions


def test_urlencoded_at_its_bounds() -> None:
    """A urlencoded form that just fits is read."""
    limits = Limits(max_fields=2, max_field_bytes=2, max_text_bytes=len(b"a=%20%20&b=12"))
    assert dict(read(URLENCODED, b"a=%20%20&b=12", limits)) == {"a": "  ", "b": "12"}


# multipart/form-data

# Browsers do not escape "%" and leave backslashes alone, which nobody can read back for sure.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="%\\"), max_size=20)
filenames = names.map(lambda name: name.replace("/", "").replace("\0", "")).filter(
    lambda name: name not in ("", ".", "..")
)
boundaries = st.text("abcXYZ019'()+_,-./:=?", min_size=1, max_size=70)


def contents(boundary: bytes) -> st.SearchStrategy[bytes]:
    """Content with pieces of boundaries in it, but no whole one."""
    pieces = [b"\r", b"\n", b"\r\n", b"\r\n--", b"--", b"--" + boundary, boundary[:-1]]
    piece = st.one_of(st.sampled_from(pieces), st.binary(max_size=30))
    return st.lists(piece, max_size=8).map(b"".join)


@given(st.data(), boundaries, st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_multipart_round_trip(data: st.DataObject, boundary: str, sizes: list[int]) -> None:
    """Any fields and files come back as they were encoded, however the body is cut."""
    text = st.text().map(str.encode)
    content = contents(boundary.encode())
    entry = st.one_of(
        st.builds(Entry, names.filter(bool), text, st.none(), st.just(())),
        st.builds(Entry, names.filter(bool), content, filenames, st.just(())),
    )
    entries = data.draw(st.lists(entry, max_size=6))
    delimiter = b"\r\n--" + boundary.encode()
    for each in entries:
        assume(delimiter not in b"\r\n" + each.content + b"\r\n--" + boundary.encode()[:-1])
    body = CutBody(multipart_body(entries, boundary.encode()), sizes)

    with parse_form(f'multipart/form-data; boundary="{boundary}"', body) as form:
        assert [(name, value.encode()) for name in form for value in form.get_all(name)] == [
            (name, each.content)
            for name in dict.fromkeys(each.name for each in entries if each.filename is None)
            for each in entries
            if each.name == name and each.filename is None
        ]
        files = [upload for uploads in form.files.values() for upload in uploads]
        assert [(each.name, each.filename, each.file.read(), each.size) for each in files] == [
            (name, each.filename, each.content, len(each.content))
            for name in dict.fromkeys(each.name for each in entries if each.filename is not None)
            for each in entries
            if each.name == name and each.filename is not None
        ]


@pytest.mark.parametrize("cut", range(1, 120))
def test_same_error_wherever_cut(cut: int) -> None:
    """What is wrong and where does not depend on how the body is cut."""
    data = b"\r\n" + part("1") + part("2", 'form-data; name="b"', "Bad header") + END
    with pytest.raises(BadRequest) as caught:
        parse_form(MULTIPART, CutBody(data, [cut]))
    assert caught.value.extensions == {"part": 2, "offset": 2 + len(part("1"))}


def outcome(body: io.BytesIO) -> object:
    """What comes of a body: the form, or the status of its error."""
    try:
        with parse_form(MULTIPART, body) as form:
            return dict(form.fields), [upload.file.read() for upload in form.files.get("doc", ())]
    except HTTPError as error:
        return error.status


@given(
    st.lists(
        st.tuples(
            st.integers(0, 200),
            st.integers(0, 3),
            st.sampled_from(
                [b"\r\n", b"\r", b"\n", b"--cut", b"--cut--", b'"', b";", b":", b" ", b"\xff", b"x"]
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_same_outcome_wherever_cut(edits: list[tuple[int, int, bytes]], sizes: list[int]) -> None:
    """A damaged form is read or refused the same, however the body is cut."""
    data = multipart_body(
        [Entry("a", b"abc", None, ("Content-Length: 3",)), Entry("doc", b"x", "f")]
    )
    for position, length, piece in edits:
        data = data[:position] + piece + data[position + length :]
    assert outcome(CutBody(data, sizes)) == outcome(io.BytesIO(data))


@pytest.mark.parametrize("data", [END, END.rstrip(), b"\r\n" + END, END + b"what follows"])
def test_empty_multipart(data: bytes) -> None:
    """A form may have no parts at all."""
    assert dict(read(MULTIPART, data)) == {}


def test_after_the_final_boundary() -> None:
    """What follows the final boundary is not read."""
    body = CutBody(part("1") + END + 200_000 * b"x", [64 * 1024])
    assert parse_form(MULTIPART, body)["a"] == "1"
    assert body.tell() < 100_000


def test_large_file() -> None:
    """A file of many chunks comes back whole, and a descriptor to it shows it all."""
    content = os.urandom(300_000)
    upload = only_file(content)
    assert upload.size == os.fstat(upload.file.fileno()).st_size == 300_000
    assert upload.file.read() == content


def test_file_is_seekable_from_its_start() -> None:
    """A file stands at its beginning and can be read again."""
    file = only_file(b"text").file
    assert file.tell() == 0
    assert file.read() == b"text"
    file.seek(1)
    assert file.read() == b"ext"


def test_files_have_no_names_on_disk(tmp_path: Path) -> None:
    """The directory for uploaded files shows no names of them."""
    body = io.BytesIO(multipart_body([Entry("doc", b"x", "f")]))
    with parse_form(MULTIPART, body, directory=str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("../../x", "x"),
        ("C:\\Users\\me\\résumé.doc", "résumé.doc"),
        ("a/b\\c", "c"),
        ("a\0b/\0.\0.", ""),
        (".", ""),
        ("dir/", ""),
        (".bashrc", ".bashrc"),
    ],
)
def test_filename_has_no_path(sent: str, filename: str) -> None:
    """A file's name never leads out of a directory, whatever the client sent."""
    assert only_file(b"x", sent).filename == filename


def test_content_type() -> None:
    """A file has the client's media type without its parameters, or that of mere bytes."""
    assert only_file(b"x", "f", "Content-Type: Text/CSV; charset=utf-8").content_type == "text/csv"
    assert only_file(b"x", "f").content_type == "application/octet-stream"


def test_empty_file() -> None:
    """A file without content is a file."""
    upload = only_file(b"", "empty.txt")
    assert (upload.size, upload.file.read()) == (0, b"")


def test_empty_file_input() -> None:
    """A file input that the user left empty gives no file and leaves nothing open."""
    before = open_descriptors()
    entry = Entry("doc", b"", "", ("Content-Type: application/octet-stream",))
    form = read(MULTIPART, multipart_body([entry]))
    assert dict(form.files) == {}
    assert open_descriptors() == before


def test_file_without_a_name() -> None:
    """Content that was sent without a file name is still a file."""
    upload = only_file(b"x", "")
    assert (upload.filename, upload.size) == ("", 1)


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "BINARY "])
def test_transfer_encodings_that_change_nothing(encoding: str) -> None:
    """A part may say that its content is as it is."""
    data = part("x", 'form-data; name="a"', "Content-Transfer-Encoding: " + encoding) + END
    assert read(MULTIPART, data)["a"] == "x"


@pytest.mark.parametrize(
    "disposition",
    ['form-data; name="a"; filename="f"; filename*=utf-8\'\'g', "form-data; name=a; filename=f"],
)
def test_plain_filename_wins(disposition: str) -> None:
    """A part with a plain filename is a file, whatever else its header says."""
    assert read(MULTIPART, part("x", disposition) + END).file("a").filename == "f"


def test_quoted_filename_is_no_parameter() -> None:
    """A field may be called like a parameter."""
    data = part("x", 'form-data; name="; filename*=a"') + END
    assert read(MULTIPART, data)["; filename*=a"] == "x"


FIRST = part("1")
A, B = 'form-data; name="a"', 'form-data; name="b"'


@pytest.mark.parametrize(
    ("before", "after", "number", "words"),
    [
        # cut short: in the first boundary's line, a header, a content, the final boundary
        (b"--cut", b"", 1, "ends before its final boundary"),
        (FIRST[:20], b"", 1, "ends before its final boundary"),
        (FIRST, b"", 1, "ends before its final boundary"),
        (FIRST + b"--cut-", b"", 1, "ends before its final boundary"),
        (FIRST + b"--cut\r\n", b"", 2, "ends before its final boundary"),
        (FIRST + part("2", B)[:-3], b"", 2, "ends before its final boundary"),
        # boundaries
        (b"", b"--cute\r\n" + END, 1, "after first boundary"),
        (b"", FIRST.replace(b"\r\n", b"\n") + END, 1, "line break after first boundary"),
        (b"", FIRST + b"--cute\r\n" + END, 1, "after boundary"),
        # headers
        (FIRST, b"--cut\r\n\r\n2\r\n" + END, 2, "missing Content-Disposition"),
        (FIRST, b"--cut\r\n: x\r\n\r\n2\r\n" + END, 2, "part header"),
        (FIRST, b"--cut\r\nContent\r\n\r\n2\r\n" + END, 2, "malformed part header"),
        (FIRST, part("2", B, "A: b\nC: d") + END, 2, "line break other than CR LF"),
        (FIRST, part("2", B, "A: b\rC: d") + END, 2, "line break other than CR LF"),
        (FIRST, b"--cut\r\nA: b\n", 2, "line break in part header"),
        (FIRST, b"--cut\r\nA: \xff\r\n\r\n2\r\n" + END, 2, "failed to decode"),
        (FIRST, b"--cut\r\n A: b\r\n\r\n2\r\n" + END, 2, "header continuation"),
        (FIRST, part("2", 'attachment; name="b"') + END, 2, "wrong type"),
        (FIRST, part("2", "form-data") + END, 2, "names no field"),
        (FIRST, part("2", 'form-data; name=""; filename="f"') + END, 2, "names no field"),
        (FIRST, part("2", B + "; filename*=utf-8''f") + END, 2, "filename"),
        (FIRST, part("2", B, "Content-Transfer-Encoding: base64") + END, 2, "'base64'"),
        # content
        (FIRST, part("2", B, "Content-Length: 2") + END, 2, "does not match Content-Length"),
        (FIRST, part("2", B, "Content-Length: 0") + END, 2, "Content-Length exceeded"),
        (FIRST + part("2", B)[:-2], b"\xff3\r\n" + END, 2, "'b' is not utf-8 text"),
    ],
)
def test_malformed_multipart(before: bytes, after: bytes, number: int, words: str) -> None:
    """A multipart form that cannot be read is a bad request that says where."""
    with pytest.raises(BadRequest) as caught:
        read(MULTIPART, before + after)
    assert words.lower() in caught.value.detail.lower()
    assert caught.value.extensions == {"part": number, "offset": len(before)}
    assert caught.value.detail.startswith(f"part {number}, at byte {len(before)} of the body: ")


@pytest.mark.parametrize("data", [b"", b"--cu", b"a=1", b"preamble\r\n" + FIRST + END])
def test_body_does_not_begin_with_its_boundary(data: bytes) -> None:
    """A body that does not begin with the boundary of its Content-Type is a bad request."""
    with pytest.raises(BadRequest, match="does not begin with the boundary") as caught:
        read(MULTIPART, data)
    assert caught.value.extensions == {"offset": 0}


def test_errors_tell_no_content() -> None:
    """An error repeats a field's name in short and harmless form, and nothing of its content."""
    name = "line\u2028break" + 100 * "x"
    for content in (b"secret\xff", 2000 * b"secret"):
        with pytest.raises(HTTPError) as caught:
            read(MULTIPART, multipart_body([Entry(name, content)]), Limits())
        assert "secret" not in repr(caught.value)
        assert f"the field 'line\\u2028break{30 * 'x'}...'" in caught.value.detail
    with pytest.raises(BadRequest) as caught:
        read(MULTIPART, b"--cut\r\nA: secret\xff\r\n\r\n\r\n" + END)
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize(
    ("limits", "before", "after", "number", "limit"),
    [
        (Limits(max_fields=1), FIRST, part("2", B), 2, 1),
        (
            Limits(max_files=1),
            part("1", A + '; filename="f"'),
            part("2", A + '; filename="f"'),
            2,
            1,
        ),
        (Limits(max_field_bytes=3), FIRST, part("2222", B), 2, 3),
        (Limits(max_text_bytes=4), FIRST, part("222", B), 2, 4),
        (Limits(max_text_bytes=4), FIRST, part("2", 'form-data; name="bbb"'), 2, 4),
        (Limits(max_text_bytes=27), b"", part("1", A + '; filename="fff"'), 1, 27),
    ],
)
def test_multipart_bounds(
    limits: Limits, before: bytes, after: bytes, number: int, limit: int
) -> None:
    """A multipart form over a bound is answered 413, with its place and the bound."""
    with pytest.raises(HTTPError) as caught:
        read(MULTIPART, before + after + END, limits)
    assert caught.value.status == 413
    place = {"part": number, "offset": len(before)}
    assert caught.value.extensions == place | {"limit": limit}


def test_multipart_at_its_bounds() -> None:
    """A multipart form that just fits is read."""
    limits = Limits(max_fields=1, max_files=1, max_field_bytes=3, max_text_bytes=4 + 26)
    data = part("111") + part(2000 * "2", A + '; filename="f"') + END
    assert read(MULTIPART, data, limits)["a"] == "111"
    assert read(MULTIPART, data, limits).file("a").size == 2000


@pytest.mark.parametrize(
    "headers", [["X-Long: " + 5000 * "x"], [f"X-{number}: x" for number in range(9)]]
)
def test_part_headers_are_bounded(headers: list[str]) -> None:
    """A part with too long a header, or too many, is answered 413."""
    with pytest.raises(HTTPError, match="maximum part header") as caught:
        read(MULTIPART, FIRST + part("2", B, *headers) + END)
    assert caught.value.status == 413
    assert caught.value.extensions == {"part": 2, "offset": len(FIRST)}


# Resources


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A large upload goes to disk piece by piece and is never in memory."""
    path = tmp_path / "body"
    head = part("", 'form-data; name="doc"; filename="large"')[:-2]
    size = 64 * 1024 * 1024
    with open(path, "wb") as target:
        target.write(head)
        target.seek(size, os.SEEK_CUR)  # leaves a hole of zeros
        target.write(b"\r\n" + END)
    only_file()  # imports what it takes

    tracemalloc.start()
    try:
        with open(path, "rb") as body, parse_form(MULTIPART, body) as form:
            _, peak = tracemalloc.get_traced_memory()
            assert form.file("doc").size == size
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("files", "after", "status"),
    [(2, b"", 400), (2, b"\r\n--cut\r\nbad\r\n\r\n", 400), (20, b"", 413)],
)
def test_failure_leaves_nothing_open(files: int, after: bytes, status: int) -> None:
    """A form that fails half-way has its temporary files closed at once."""
    data = files * part(100_000 * "x", A + '; filename="f"') + after
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(HTTPError) as caught:
            read(MULTIPART, data, Limits())
        assert open_descriptors() == before
    assert caught.value.status == status
    assert seen == []


def test_unusable_directory(tmp_path: Path) -> None:
    """A directory that cannot be written to is the operator's fault and not the client's."""
    body = io.BytesIO(multipart_body([Entry("doc", b"x", "f")]))
    with pytest.raises(FileNotFoundError):
        parse_form(MULTIPART, body, directory=str(tmp_path / "missing"))


@pytest.mark.parametrize("size", [1_000, 300_000])
def test_full_disk(size: int) -> None:
    """A disk that fills up while a file is written is no fault of the client's either."""
    data = multipart_body([Entry("doc", b"y", "g"), Entry("doc", size * b"x", "f")])
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with small_disk(500), pytest.raises(OSError, match="File too large") as caught:
            read(MULTIPART, data)
        assert open_descriptors() == before
    assert not isinstance(caught.value, HTTPError)
    assert seen == []


def test_unreadable_body() -> None:
    """An error of the body's own file reaches the caller as it is."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("I/O error")

    for content_type in (URLENCODED, MULTIPART):
        with pytest.raises(OSError, match="I/O error"):
            parse_form(content_type, Failing())


# Saving


def test_save(tmp_path: Path) -> None:
    """A file is saved whole, and reading it goes on where it was."""
    upload = only_file(100_000 * b"xy")
    upload.file.seek(3)
    upload.save(tmp_path / "saved")
    upload.save(str(tmp_path / "again"))
    assert (tmp_path / "saved").read_bytes() == 100_000 * b"xy"
    assert (tmp_path / "again").read_bytes() == 100_000 * b"xy"
    assert upload.file.tell() == 3


def test_save_does_not_overwrite(tmp_path: Path) -> None:
    """Saving refuses to replace what is there, a dangling link included."""
    path, link = tmp_path / "there", tmp_path / "link"
    path.write_bytes(b"old")
    link.symlink_to(tmp_path / "nowhere")
    for target in (path, link):
        with pytest.raises(FileExistsError):
            only_file().save(target)
    assert path.read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


def test_save_overwrites_if_told(tmp_path: Path) -> None:
    """Saving replaces what is there if the handler says so."""
    path = tmp_path / "there"
    path.write_bytes(b"much older")
    only_file(b"new").save(path, overwrite=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_save_to_a_full_disk(tmp_path: Path, overwrite: bool) -> None:
    """A save that fails leaves no half file that it created itself."""
    upload = only_file(1000 * b"x")
    upload.file.seek(3)
    path = tmp_path / "saved"
    if overwrite:
        path.touch()
    with small_disk(500), pytest.raises(OSError, match="File too large"):
        upload.save(path, overwrite=overwrite)
    assert path.exists() == overwrite
    assert upload.file.tell() == 3


def test_save_after_close(tmp_path: Path) -> None:
    """A file of a closed form is gone and cannot be saved."""
    upload = only_file()
    upload.file.close()
    with pytest.raises(ValueError, match="closed"):
        upload.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


# Workers


def run_python(script: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_start_up_imports() -> None:
    """A worker pays for the multipart parser only when the first multipart form comes."""
    script = """
import io, sys
from deferpost.handlers.forms import parse_form
parse_form("application/x-www-form-urlencoded", io.BytesIO(b"a=1"))
print(sorted({"multipart", "tempfile", "twisted"} & set(sys.modules)))
parse_form("multipart/form-data; boundary=x", io.BytesIO(b"--x--"))
print("multipart" in sys.modules)
"""
    assert run_python(script) == "[]\nTrue\n"


def test_first_forms_at_once() -> None:
    """The first forms of a worker may come on many threads at a time."""
    script = """
import io, sys, threading
from deferpost.handlers.forms import parse_form
sys.setswitchinterval(1e-6)
barrier, done = threading.Barrier(8), []
def run():
    barrier.wait()
    done.append(parse_form("multipart/form-data; boundary=x", io.BytesIO(b"--x--")))
threads = [threading.Thread(target=run) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(done))
"""
    assert run_python(script) == "8\n"
