"""Turning what a handler returned into an :class:`~deferpost.model.Answer`.

Runs in the worker, so that a large JSON document is never encoded on the reactor thread.
"""

from __future__ import annotations

import dataclasses
import io
import mimetypes
import numbers
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import msgspec

from deferpost.fields import check_field, field_bytes
from deferpost.model import Answer, Reply

__all__ = ["CHUNK_BYTES", "encode", "file_pieces"]

#: Bytes of a file that are read at once where it has to be read piece by piece.
CHUNK_BYTES = 64 * 1024

_BINARY = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"

_BINARY_HEADERS = ((b"Content-Type", _BINARY.encode()),)
_TEXT_HEADERS = ((b"Content-Type", _TEXT.encode()),)
_JSON_HEADERS = ((b"Content-Type", _JSON.encode()),)

#: Statuses whose responses have no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
_NO_CONTENT = frozenset({204, 205, 304})


def encode(value: Any) -> Answer:
    """Encode what a handler returned.

    :param value: None, bytes, text, something that JSON can express, a path, an open binary
        file, an iterator of bytes or text, or a :class:`~deferpost.model.Reply` around one.
    :returns: the answer.  Where the body is an iterator, its first chunk has been made.
    :raises TypeError: it is something else.
    :raises ValueError: a header that HTTP does not permit, or a body with a status that has none.
    :raises OSError: a path that cannot be opened.
    """
    if type(value) is bytes:  # the common cases first
        return Answer(200, _BINARY_HEADERS, value, len(value))
    if type(value) is str:
        data = value.encode()
        return Answer(200, _TEXT_HEADERS, data, len(data))
    if isinstance(value, Reply):
        return _encode_reply(value)
    if value is None:
        return Answer(204, (), b"", 0)
    content_type, body, length = _body_of(value)
    headers = (
        _JSON_HEADERS if content_type == _JSON else ((b"Content-Type", content_type.encode()),)
    )
    return Answer(200, headers, body, length)


def _encode_reply(reply: Reply) -> Answer:
    headers = _checked(reply.headers)
    own_type = any(name.lower() == b"content-type" for name, _ in headers)
    chosen: tuple[tuple[bytes, bytes], ...] = ()
    if reply.content_type is not None:
        chosen = _checked((("Content-Type", reply.content_type),))
        headers = tuple(pair for pair in headers if pair[0].lower() != b"content-type")
        own_type = False
    content_type, body, length = _body_of(reply.body)  # last, because it may open a file
    if reply.status in _NO_CONTENT:
        if body != b"":
            _close(body)
            raise ValueError(f"a reply with status {reply.status} cannot have a body")
    elif not own_type and (reply.body is not None or chosen):
        headers += chosen or ((b"Content-Type", content_type.encode()),)
    return Answer(reply.status, headers, body, length)


def _close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def _checked(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    for name, value in pairs:
        check_field(name, value)
    return tuple((name.encode("ascii"), field_bytes(value)) for name, value in pairs)


def _body_of(value: Any) -> tuple[str, Any, int | None]:
    """Content type, body and length of a value that is not a Reply."""
    if value is None:
        return _BINARY, b"", 0
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return _BINARY, data, len(data)
    if isinstance(value, str):
        data = value.encode()
        return _TEXT, data, len(data)
    if _is_json(value):
        data = msgspec.json.encode(value, enc_hook=_plain)
        return _JSON, data, len(data)
    if isinstance(value, os.PathLike):
        guessed, coding = mimetypes.guess_type(os.fspath(value))
        content_type = guessed if guessed is not None and coding is None else _BINARY
        return content_type, *_file_body(open(value, "rb"))
    if hasattr(value, "read"):
        # A temporary file in text mode is no TextIOBase, but it has an encoding.
        if isinstance(value, io.TextIOBase) or hasattr(value, "encoding"):
            raise TypeError("the handler returned a file in text mode; open it in binary mode")
        return _BINARY, *_file_body(value)
    if isinstance(value, Iterator):
        return _stream(value)
    raise TypeError(
        f"the handler returned {type(value).__module__}.{type(value).__qualname__}, which is "
        "neither bytes, text, JSON, a file, a path, an iterator nor a Reply"
    )


#: What is JSON by its type; the abstract ones are last, because they are slower to look at.
_JSON_TYPES = (dict, list, tuple, set, frozenset, msgspec.Struct, numbers.Real, Mapping)


def _is_json(value: Any) -> bool:
    return (
        isinstance(value, _JSON_TYPES)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
        or (hasattr(type(value), "__attrs_attrs__"))
    )


def _plain(value: Any) -> Any:
    """What msgspec does not know by itself and JSON can still express."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is not JSON")


def _file_body(file: BinaryIO) -> tuple[Any, int | None]:
    """A file as a body: by a descriptor where it is a real one, else by what it gives."""
    if isinstance(file, io.BytesIO):
        data = file.read()
        return data, len(data)
    if not _is_plain(file) or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file_pieces(file), None
    # A descriptor of its own: the call's body and uploaded files are closed when the run ends,
    # and the place of a buffered file is not that of its descriptor.
    with file:
        position = file.tell()
        # Whoever sends the body closes it.
        own = open(os.dup(file.fileno()), "rb", buffering=0)  # noqa: SIM115
    own.seek(position)
    return own, max(0, os.fstat(own.fileno()).st_size - position)


def _is_plain(file: Any) -> bool:
    """Whether it gives what its descriptor gives; one that decompresses does not."""
    buffered = getattr(file, "file", file)  # which a named temporary file wraps
    return isinstance(getattr(buffered, "raw", buffered), io.FileIO)


def file_pieces(file: BinaryIO) -> Iterator[bytes]:
    """What a file gives, piece by piece; it is closed at the end."""
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _stream(chunks: Iterator[Any]) -> tuple[str, Any, int | None]:
    """A stream, with its first chunk made.

    An error before the first chunk is thus still answered with a status of its own.
    """
    for first in chunks:
        content_type = _TEXT if isinstance(first, str) else _BINARY
        try:
            chunk = _to_chunk(first)
        except TypeError:
            _close(chunks)
            raise
        return content_type, _ChunkStream(chunk, chunks), None
    return _BINARY, b"", 0


def _to_chunk(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"the handler yielded {type(value).__qualname__}; a chunk is bytes or text")


class _ChunkStream:
    """The chunks of an iterator as bytes; closing it closes the iterator."""

    def __init__(self, first: bytes, rest: Iterator[Any]) -> None:
        self._first = first
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, self._first = self._first, b""
        while not chunk:
            chunk = _to_chunk(next(self._rest))
        return chunk

    def close(self) -> None:
        """End the iterator where it stands; its ``finally`` clauses run."""
        self._first = b""
        if hasattr(self._rest, "close"):
            self._rest.close()
