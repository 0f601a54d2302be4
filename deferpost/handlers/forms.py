"""A POSTed form: its fields as text, its uploaded files on disk.

It decides what a handler gets of a form, and leaves the reading to ``urlencoded`` and
``multiparts``.  It runs where the handler runs, in a worker thread or process and never on the
reactor thread; it never holds a file in memory and never imports Twisted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Self

from deferpost.errors import BadRequest
from deferpost.handlers.formbounds import Bounds, Held
from deferpost.handlers.formtypes import (
    FORM_TYPES,
    MULTIPART,
    boundary_of,
    codec_of,
    read_form_type,
)
from deferpost.handlers.multiparts import read_multipart
from deferpost.handlers.uploads import UploadedFile
from deferpost.handlers.urlencoded import read_urlencoded

__all__ = ["FORM_TYPES", "Form", "MissingField", "UploadedFile", "parse_form"]


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
    media_type, parameters = read_form_type(content_type or "")
    codec = codec_of(parameters.get("charset", "utf-8"))
    held = Held(Bounds(max_fields, max_files, max_field_bytes, max_text_bytes), directory)
    try:
        if media_type == MULTIPART:
            read_multipart(body, boundary_of(parameters), codec, held)
        else:
            read_urlencoded(body, codec, held)
        return Form(held.fields(), held.files())
    except BaseException:
        held.close()
        raise
