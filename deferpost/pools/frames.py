"""The language between the reactor and a worker process.

A frame is its length, four bytes in network order, and one msgpack value of a tagged union; no
pickle.  Large bodies do not travel in frames: a file descriptor is sent with the frame that
announces it, and so is the pipe of a body that arrives (see ``bodyframes``).  Both sides import
this; it does no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from deferpost.model import CallHead, HandlerRef, Progress

__all__ = [
    "CHUNK_COST",
    "FRAME_MOST",
    "INLINE_MOST",
    "WINDOW_BYTES",
    "Broke",
    "Chunks",
    "Credit",
    "End",
    "FrameError",
    "FrameReader",
    "FromWorker",
    "Moved",
    "Raised",
    "Ready",
    "Refused",
    "Replied",
    "RepliedFile",
    "Run",
    "SetUp",
    "SetUpFailed",
    "Streams",
    "Taken",
    "chunk_prefix",
    "decode_from_worker",
    "decode_to_worker",
    "encode_frame",
]

#: Bytes of a body that travel in a frame; what is larger travels as a file.
INLINE_MOST = 256 * 1024

#: Bytes of a frame; one that claims more is not ours.
FRAME_MOST = 256 * 1024 * 1024

#: Bytes of a stream that may be between a handler and whoever reads it.
WINDOW_BYTES = 256 * 1024

#: Bytes that each chunk counts beside its own, for what keeping it costs.
CHUNK_COST = 64

Pairs = tuple[tuple[bytes, bytes], ...]


class FrameError(Exception):
    """The bytes are not frames of this language: the other side is not to be trusted further."""


class SetUp(msgspec.Struct, frozen=True, tag="setup", array_like=True):
    """To the worker, first: where to find the handlers.

    :ivar handlers: the handlers to import.
    :ivar sys_path: the parent's ``sys.path``.
    :ivar directory: where to put temporary files; None for the system's choice.
    :ivar memory_limit: bytes of its address space; 0 for no limit.
    :ivar cpu_limit: seconds of CPU time for the set-up, and for each run; 0 for no limit.
    """

    handlers: tuple[HandlerRef, ...]
    sys_path: tuple[str, ...]
    directory: str | None
    memory_limit: int = 0
    cpu_limit: float = 0.0


class Run(msgspec.Struct, frozen=True, tag="run", array_like=True):
    """To the worker: run this call.

    :ivar head: the call without its body.
    :ivar body: the body; None where its descriptor comes with this frame.
    :ivar arriving: whether the descriptor is the pipe of a body that arrives.
    """

    head: CallHead
    body: bytes | None
    arriving: bool = False


class Credit(msgspec.Struct, frozen=True, tag="credit", array_like=True):
    """To the worker: the reader of its stream has taken so much more.

    The worker begins each stream with :data:`WINDOW_BYTES` to send, and spends of it the bytes of
    each chunk and :data:`CHUNK_COST` beside.  Credit that comes when the stream has ended is void.

    :ivar amount: bytes, with the cost of their chunks.
    """

    amount: int


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    """From the worker: the handlers are imported and their set-up is done."""


class SetUpFailed(msgspec.Struct, frozen=True, tag="setup-failed", array_like=True):
    """From the worker, which ends then: the set-up raised."""

    traceback: str


class Taken(msgspec.Struct, frozen=True, tag="taken", array_like=True):
    """From the worker: it has the pipe of the body that arrives."""


class Replied(msgspec.Struct, frozen=True, tag="replied", array_like=True):
    """From the worker: the run has ended with this answer."""

    status: int
    headers: Pairs
    body: bytes


class RepliedFile(msgspec.Struct, frozen=True, tag="replied-file", array_like=True):
    """From the worker: the run has ended; the body is in the file that comes with this frame.

    :ivar length: bytes of the body, from the file's position.
    """

    status: int
    headers: Pairs
    length: int


class Streams(msgspec.Struct, frozen=True, tag="streams", array_like=True):
    """From the worker: the answer begins; its body follows in chunks."""

    status: int
    headers: Pairs


class Chunks(msgspec.Struct, frozen=True, tag="chunks", array_like=True):
    """From the worker: the next pieces of the body."""

    pieces: list[bytes]


class End(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """From the worker: the body is whole and the run has ended."""


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """From the worker: the handler raised an HTTPError.

    :ivar extensions: the further members of the problem, as JSON.
    """

    status: int
    detail: str
    title: str | None
    problem_type: str
    headers: tuple[tuple[str, str], ...]
    extensions: bytes


class Raised(msgspec.Struct, frozen=True, tag="raised", array_like=True):
    """From the worker: the handler raised something else."""

    traceback: str


class Broke(msgspec.Struct, frozen=True, tag="broke", array_like=True):
    """From the worker: the handler has let pass that its body broke.

    :ivar reason: as it was told.
    """

    reason: str


class Moved(msgspec.Struct, frozen=True, tag="moved", array_like=True):
    """From the worker: how far the job is."""

    progress: Progress


ToWorker = SetUp | Run | Credit
FromWorker = (
    Ready
    | SetUpFailed
    | Taken
    | Replied
    | RepliedFile
    | Streams
    | Chunks
    | End
    | Refused
    | Raised
    | Broke
    | Moved
)

_LENGTH = struct.Struct("!I")

#: An array of the tag and an array of one binary string, as msgpack, up to its length.
_CHUNKS_OF_ONE = b"\x92\xa6chunks\x91\xc6"
_CHUNK_PREFIX = struct.Struct(f"!I{len(_CHUNKS_OF_ONE)}sI")
_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)

#: What decoding raises for bytes that no encoder of ours has made.
_NOT_OURS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_frame(message: ToWorker | FromWorker) -> bytes:
    """A message as the bytes of its frame."""
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(message, frame, _LENGTH.size)
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return bytes(frame)


def chunk_prefix(size: int) -> bytes:
    """What comes before the bytes of one piece, in a frame of :class:`Chunks` with that piece.

    A large piece is sent without being copied into a frame.

    :param size: bytes of the piece.
    """
    return _CHUNK_PREFIX.pack(len(_CHUNKS_OF_ONE) + 4 + size, _CHUNKS_OF_ONE, size)


def decode_to_worker(payload: bytes | memoryview) -> ToWorker:
    """The message in a frame's payload.

    :raises FrameError: it is not one that a worker is sent.
    """
    try:
        message: ToWorker = _to_worker.decode(payload)
    except _NOT_OURS as error:
        raise FrameError(str(error)) from None
    return message


def decode_from_worker(payload: bytes | memoryview) -> FromWorker:
    """The message in a frame's payload.

    :raises FrameError: it is not one that a worker sends.
    """
    try:
        message: FromWorker = _from_worker.decode(payload)
    except _NOT_OURS as error:
        raise FrameError(str(error)) from None
    return message


class FrameReader:
    """Cuts a stream of bytes into the payloads of its frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what has arrived, and give the payloads that are whole now.

        :raises FrameError: a frame claims to be larger than :data:`FRAME_MOST`.
        """
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._is_whole() else b""
            if not data:
                return
            self._rest.clear()
        start, end = 0, len(data)
        while end - start >= 4:
            size = _size_at(data, start)
            if end - start - 4 < size:
                break
            payload = data[start + 4 : start + 4 + size]
            start += 4 + size
            yield payload
        if start < end:
            self._rest += data[start:]

    def _is_whole(self) -> bool:
        """Whether what has arrived holds at least one frame."""
        rest = self._rest
        if len(rest) < 4:
            return False
        return len(rest) - 4 >= _size_at(rest, 0)


def _size_at(data: bytes | bytearray, start: int) -> int:
    """The bytes that the frame claims whose length begins there."""
    size: int = _LENGTH.unpack_from(data, start)[0]
    if size > FRAME_MOST:
        raise FrameError(f"a frame claims {size} bytes")
    return size
