"""One connection: which bytes are of which request, in which order answers leave, when it ends.

It asks the other modules of this package what the bytes mean, and bounds what it keeps: the head of
a request, and what is read ahead of one whose answer is pending.  A body goes on as it comes.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Iterable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from deferpost.errors import BodyBroken, BodyTooLarge
from deferpost.ids import id_of
from deferpost.wire.departures import PAUSES
from deferpost.wire.familiar import FamiliarChannel
from deferpost.wire.limits import Limits
from deferpost.wire.outgoing import Outgoing, outgoing_for
from deferpost.wire.parsing import Parsers
from deferpost.wire.presence import Presence
from deferpost.wire.pulled import PulledProducer
from deferpost.wire.refusals import PROBLEM_TYPE, Refused, RequestRefused, problem_document
from deferpost.wire.request import WireRequest
from deferpost.wire.responses import CLOSE, CONTINUE, KEEP, head_bytes, whole_response
from deferpost.wire.rules import Framing, RequestLine, framing, request_line
from deferpost.wire.sinks import FOR_SINK, Flow, Nowhere
from deferpost.wire.sockets import connection_below, set_options, socket_of

__all__ = ["Reading", "WireChannel"]

_log = Logger(namespace="deferpost.wire")

_END = b"\r\n\r\n"

#: Requests of one connection that are begun in one turn of the reactor, where each is answered
#: at once and the next has come with it.
_AT_ONCE = 4

#: Bytes of a body that is not wanted any more, up to which it is read so that the connection lives.
_WORTH_READING = 64 * 1024

#: Bytes that are read at once of a body that is larger.
_LARGE_READ = 256 * 1024


class Reading(enum.Enum):
    """What the next bytes of a connection are."""

    HEAD = enum.auto()  #: of a head, or the start of one
    BODY = enum.auto()  #: of the body of the current request
    AHEAD = enum.auto()  #: of a further request, while an answer is pending
    LINGER = enum.auto()  #: of nothing any more: the answer was the last, and they are dropped
    LOST = enum.auto()  #: none will come


#: Why nothing is read of a connection, beside FOR_SINK: enough was read ahead.  Bits of a plain
#: number, since one is looked at with each request.
_AHEAD = 2


@implementer(ITransport, IConsumer, IHalfCloseableProtocol)
class WireChannel(FamiliarChannel, Protocol):
    """The server's end of one HTTP/1.1 connection; to its request it is transport and consumer.

    For the reactor thread.  The factory sets what follows before the connection is made.

    :ivar site: the site whose resources answer; None for a request factory that needs none.
    :ivar requestFactory: makes a request of a channel.
    :ivar limits: the bounds.
    :ivar deadlines: watches this connection's deadline; None for a timer of its own.
    :ivar parsers: where a parser is taken from for each message; None for some of its own.
    :ivar hangups: watches for peers that hang up unread; None where there is no epoll.
    """

    #: There are thousands of these, and without slots each would have a table of its own.
    __slots__ = (
        "_advancing",
        "_blank",
        "_closing",
        "_continue_due",
        "_current",
        "_dropped",
        "_early",
        "_eof",
        "_fed",
        "_keep_alive",
        "_kept",
        "_last",
        "_length",
        "_limit",
        "_line",
        "_own",
        "_parser",
        "_partial",
        "_paused",
        "_presence",
        "_producer",
        "_reading",
        "_reads_more",
        "_received",
        "_request",
        "_sink",
        "_unsent",
        "_window",
        "client",
        "deadline",
        "held_until",
        "host",
        "outgoing",
        "peer",
    )

    site: Any = None
    factory: Any = None
    requestFactory: Any = WireRequest
    limits: Limits = Limits()
    deadlines: Any = None
    hangups: Any = None
    parsers: Any = None

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.held_until: int | None = None
        self._reading = Reading.HEAD
        self._partial = bytearray()  # of a head, until it is complete
        self._fed = 0  # of those, to the parser
        self._blank = False  # whether an empty line came before
        self._line: RequestLine | None = None
        self._kept = bytearray()  # that came behind a request whose answer is pending
        self._advancing = False
        self._paused = 0
        self._reads_more = False
        self._presence: Presence | None = None  # there is reason for one of few connections
        self._eof = False
        self._request: Any = None
        self._early: Any = None
        self._sink: Any = None
        self._limit: int | None = None
        self._received = 0
        self._length: int | None = 0
        self._keep_alive = True
        self._continue_due = False
        self._last = False
        self._closing = False
        self._producer: Any = None
        self._window = 0
        self._unsent: object = None
        self._dropped = 0
        self._parser: Any = None  # a MessageParser, while there is a message to read

    # The connection.

    def connectionMade(self) -> None:
        """Called by the transport."""
        transport: Any = self.transport
        if self.deadlines is None:
            self._for_itself()
        limits = self.limits
        self.peer = transport.getPeer()
        self.host = transport.getHost()
        if self.parsers is None:
            self.parsers = Parsers(limits.max_chunk_line, limits.max_head, limits.max_headers)
        self.outgoing: Outgoing = outgoing_for(transport, self._filled, self._drained)
        self.outgoing.start()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            set_options(socket_of(transport), limits)
        self._hold(limits.idle_timeout)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called by the transport: the connection has gone."""
        self._reading = Reading.LOST
        self.deadlines.drop(self)
        self._unwatch()
        self._presence = None
        self._kept.clear()
        if self._producer is not None:
            producer, self._producer = self._producer, None
            producer.stopProducing()
        self._break_off(reason)
        self.outgoing.close()
        if self._parser is not None:
            self._parser.close()
        if self.site is not None and hasattr(self.site, "channel_lost"):
            self.site.channel_lost(self)

    def _break_off(self, reason: Failure) -> None:
        """The client of the current request, if there is one, has left."""
        sink, self._sink = self._sink, None
        request, self._request = self._request, None
        self._early = None
        if sink is not None:
            why = reason.value
            sink.broken(
                BodyBroken(why.args[1]) if isinstance(why, RequestRefused) else BodyBroken()
            )
        if request is not None:
            request.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """Called by the transport: the client sends no more, but may still read."""
        self._eof = True
        if self._reading is Reading.AHEAD:
            self._look_for_client()
        elif self._between and (self.outgoing.full or self._kept):
            pass  # it still takes what was written, or has asked for
        elif self._reading is not Reading.LOST:
            self._abandon()

    def writeConnectionLost(self) -> None:
        """Called by the transport: our side is closed, as :meth:`_linger` wants it."""

    def _abandon(self) -> None:
        """Nobody is there any more, or is to be served any more."""
        self._break_off(Failure(ConnectionDone("the client has left")))
        self.loseConnection()

    # What comes in.

    def dataReceived(self, data: bytes) -> None:
        """Called by the transport."""
        reading = self._reading
        if self._kept or reading is Reading.AHEAD or (self.outgoing.full and self._between):
            if reading is Reading.LINGER:
                self._drop(data)
            else:
                self._keep(data)
        else:
            self._advance(data)

    @property
    def _between(self) -> bool:
        """Whether no request has begun."""
        return self._reading is Reading.HEAD and not self._partial

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > self.limits.max_pipelined:
            self.pause(_AHEAD)
            if self._reading is Reading.AHEAD:
                self._look().watch(half=True)
                if not self.outgoing.full:  # else it has its time to take what was written
                    self._hold(PAUSES[1])

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > self.limits.linger_bytes:
            self._abort()

    def _advance(self, data: bytes) -> None:
        """Go on with bytes, to the end of them or of what may be looked at now."""
        self._advancing = True
        begun = 0
        try:
            while data:
                reading = self._reading
                if reading is Reading.HEAD:
                    if not self._partial:
                        if self.outgoing.full:
                            self._keep(data)
                            return
                        if begun == _AT_ONCE:  # the other connections are to have their turn
                            self._keep(data)
                            self.deadlines.soon(self._take_turn)
                            return
                        begun += 1
                    data = self._head(data)
                elif reading is Reading.BODY:
                    data = self._body(data)
                elif reading is Reading.AHEAD:
                    self._keep(data)
                    return
                else:
                    self._drop(data)
                    return
        except Refused as refused:
            self._refuse(refused.status, refused.detail, refused.reason)
        finally:
            self._advancing = False

    def _head(self, data: bytes) -> bytes:
        """Take bytes of a head.

        :returns: what follows it.
        """
        if self._parser is None:
            self._parser = self.parsers.take()
        if not self._partial:
            if data.startswith(b"\r\n") and not self._blank:  # one passes (RFC 9112, section 2.2)
                data = data[2:]
                self._blank = True
            stop = data.find(_END) + len(_END)
            if len(_END) <= stop <= self.limits.max_head:
                line = self._first_line(data, data.find(b"\r\n"))
                try:
                    self._parser.head(data[:stop])
                    return self._head_complete(line, data[stop:])
                except Refused:
                    self._line = line  # for the answer
                    raise
            self._hold(self.limits.head_timeout)
        return self._head_in_pieces(data)

    def _first_line(self, data: bytes | bytearray, end: int) -> RequestLine:
        if end > self.limits.max_target:
            raise Refused(414, f"A request line has at most {self.limits.max_target} bytes here.")
        return request_line(bytes(data[:end]))

    def _head_in_pieces(self, data: bytes) -> bytes:
        limits = self.limits
        partial = self._partial
        start = len(partial)
        partial += data
        if self._line is None:
            if start < 2 and partial.startswith(b"\r\n") and not self._blank:
                del partial[:2]
                start = 0
                self._blank = True
            end = partial.find(b"\r\n", max(0, start - 1))
            if end < 0:
                self._check_start(partial)
                return b""
            self._line = self._first_line(partial, end)
            start = end
        stop = partial.find(_END, max(0, start - 3)) + len(_END)
        if stop < len(_END):
            stop = len(partial)
            whole = False
        else:
            whole = True
        if stop > limits.max_head:
            raise Refused(431, f"A head has at most {limits.max_head} bytes here.")
        fed, self._fed = self._fed, stop
        self._parser.head(bytes(partial[fed:stop]))
        if len(self._parser.fields) > limits.max_headers:
            raise Refused(431, f"A request has at most {limits.max_headers} header fields here.")
        if not whole:
            return b""
        rest = bytes(partial[stop:])
        line = self._line
        self._fed = 0
        partial.clear()
        rest = self._head_complete(line, rest)
        self._line = None
        return rest

    def _check_start(self, partial: bytearray) -> None:
        """Refuse at once what cannot become a request line."""
        if len(partial) - partial.endswith(b"\r") > self.limits.max_target:
            raise Refused(414, f"A request line has at most {self.limits.max_target} bytes here.")
        if b"\n" in partial or not (partial[:1].isalnum() or partial[:1] in b"!#$%&'*+-.^_`|~\r"):
            raise Refused(400, "The request line is not one of HTTP/1.1.")

    def _head_complete(self, line: RequestLine, rest: bytes) -> bytes:
        """Decide what becomes of a request whose head has come.

        :param rest: what came behind it.
        :returns: the same, or what is left of it.
        """
        limits = self.limits
        parser = self._parser
        fields = parser.fields
        if len(fields) > limits.max_headers:
            raise Refused(431, f"A request has at most {limits.max_headers} header fields here.")
        frame = framing(line, fields, require_host=limits.require_host)
        if line.authority is not None:
            fields = [field for field in fields if field[0].lower() != b"host"]
            fields.append((b"Host", line.authority))
        length = frame.length
        parser.expect(length)
        self._blank = False
        self._current = line
        self._keep_alive = frame.keep_alive
        self._last = False
        self._length = length
        self._received = 0
        if self._presence is not None:
            self._presence.sent = 0
        self._reading = Reading.BODY
        whole = length is not None and len(rest) >= length
        self._continue_due = frame.expects_continue and not whole
        request = self._make_request(line, fields, frame)
        early = None
        if self._own:
            request.begin(line, fields, frame)
            if self.site is not None:
                early = self.site.early_resource(line.path)
        self._early = early
        if early is None:
            self._limit = limits.max_body
            if length is not None and self._limit is not None and length > self._limit:
                raise Refused(
                    413, f"A body has at most {self._limit} bytes here.", "body_too_large"
                )
            request.gotLength(length)
        else:
            try:
                wanted = early.head_received(request, length, whole)
            except Exception:
                wanted = None
                request.site = self.site
                request.processingFailed(Failure())
            if wanted is None:  # it is answered, or will be
                if self._request is not None:  # whatever its body says
                    self._early = None
                    self._sink = Nowhere()
                    self._limit = limits.max_body
                if parser.complete and self._reading is Reading.BODY:
                    self._message_complete()
                return rest
            self._limit = wanted.limit
            self._sink = sink = wanted.sink
            if sink is not None:
                sink.open(Flow(self))
            elif whole:
                return self._whole_body(rest, length)
            else:
                request.gotLength(length)
        if length == 0:
            self._message_complete()
        else:
            if self._continue_due and self._request is not None:
                self._continue_due = False
                self.outgoing.write(CONTINUE)
            self._window = 0
            self._hold(limits.body_window)
            if length is None or length > _LARGE_READ:
                self._read_at_once(_LARGE_READ)
        return rest

    def _make_request(
        self, line: RequestLine, fields: list[tuple[bytes, bytes]], frame: Framing
    ) -> Any:
        factory = self.requestFactory
        self._own = own = getattr(factory, "begins", False)
        if own or INonQueuedRequestFactory.providedBy(factory):
            request = factory(self)
        else:
            request = factory(self, 0)
        self._request = request
        if not own:
            for name, value in fields:
                request.requestHeaders.addRawHeader(name, value)
            request.parseCookies()
        return request

    def _whole_body(self, rest: bytes, length: int | None) -> bytes:
        """The body is here as a whole: keep it in memory and render."""
        assert length is not None
        if len(rest) == length:
            body, rest = rest, b""
        else:
            body, rest = rest[:length], rest[length:]
        if body:
            self._parser.whole_body(body)
        self._request.content = io.BytesIO(body)
        self._message_complete()
        return rest

    def _body(self, data: bytes) -> bytes:
        """Take bytes of a body.

        :returns: what follows it.
        """
        taken, pieces = self._parser.body(data)
        limit = self._limit
        self._window += taken
        sink, request = self._sink, self._request
        if limit is not None and self._parser.announced > limit:
            self._too_large(limit)
            return data[taken:]
        for piece in pieces:
            self._received += len(piece)
            if sink is not None:
                sink.receive(piece)
            elif request is not None:
                try:
                    request.handleContentChunk(piece)
                except OSError as error:
                    _log.error("a body could not be kept: {error}", error=error)
                    raise Refused(503, "The server could not keep the body.") from None
        if self._parser.complete and self._reading is Reading.BODY:
            self._message_complete()
        return data if taken == 0 else data[taken:]

    def _message_complete(self) -> None:
        """The request is whole."""
        self.deadline = None
        self._continue_due = False
        if self._reads_more:
            self._read_at_once(FileDescriptor.bufferSize)
        parser, self._parser = self._parser, None
        if parser is not None:
            if self._keep_alive:
                self.parsers.give_back(parser)
            else:
                parser.close()
        sink, request = self._sink, self._request
        if request is None:  # it was answered before
            self._next()
            return
        self._reading = Reading.AHEAD
        if sink is not None:
            self._sink = None
            sink.complete()
        elif self._early is not None:
            early, self._early = self._early, None
            if self._received:  # piece by piece
                request.content.seek(0)
            try:
                body = early.render(request)
                if body is not NOT_DONE_YET:
                    request.setHeader(b"Content-Length", b"%d" % len(body))
                    request.write(body)
                    request.finish()
            except Exception:
                request.site = self.site
                request.processingFailed(Failure())
        else:
            line = self._current
            request.requestReceived(line.method, line.target, line.version)

    def _read_at_once(self, size: int) -> None:
        """Have the transport read up to so many bytes in a turn of the reactor.

        A large body takes half the time with reads of four times the size.
        """
        below = connection_below(self.transport)
        if below is not None:
            below.bufferSize = size
            self._reads_more = size == _LARGE_READ

    def _too_large(self, limit: int) -> None:
        """The chunks of the body are more than the limit."""
        sink = self._sink
        if sink is None:
            raise Refused(413, f"A body has at most {limit} bytes here.", "body_too_large")
        self._limit = None
        self._sink = Nowhere()
        sink.broken(BodyTooLarge(limit))  # whose handler ends with it, and answers

    # What goes out.

    def _closes(self) -> bool:
        """Whether the response that is about to begin is the last."""
        if not self._keep_alive or self._closing:
            self._last = True
        elif self._reading is Reading.BODY:
            left = None if self._length is None else self._length - self._received
            if self._continue_due or left is None or left > _WORTH_READING:
                self._last = True
        return self._last

    def _write_head(self, head: bytes) -> None:
        """Send a head, but for what of it was sent ahead."""
        presence = self._presence
        if presence is not None:
            ahead, presence.sent = presence.sent, 0
            head = head[ahead:]
        self.outgoing.write(head)

    def write_answer(
        self, request: WireRequest, fields: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Write a whole response; see :meth:`deferpost.wire.request.WireRequest.answer`."""
        version = request.clientproto
        connection = b""
        if self._closes():
            connection = CLOSE
        elif version == b"HTTP/1.0":
            connection = KEEP
        self._write_head(whole_response(version, request.code, fields, connection, body))

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """Write the head of a response; called by the request.

        :param version: of HTTP.
        :param code: the status, as text.
        :param reason: the phrase beside it.
        :param headers: a Headers, or pairs of name and value.
        """
        if not isinstance(headers, Headers):
            checked = Headers()
            for name, value in headers:
                checked.addRawHeader(name, value)
            headers = checked
        for value in headers.getRawHeaders(b"Connection", ()):
            if b"close" in {option.strip().lower() for option in value.split(b",")}:
                self._last = True
        if version == b"HTTP/1.0" and not (
            headers.hasHeader(b"Content-Length")
            or code in (b"204", b"304")
            or getattr(self._request, "method", b"") == b"HEAD"
        ):
            self._last = True  # the end of the connection is the end of the body
        said = headers.hasHeader(b"Connection")
        line = b"%b %b %b\r\n" % (version, code, reason)
        if self._closes() and not said:
            line += CLOSE
        elif version == b"HTTP/1.0" and not self._last and not said:
            line += KEEP
        self._write_head(head_bytes(line, headers.getAllRawHeaders()))

    def write(self, data: bytes) -> None:
        """Write of the response's body; called by the request."""
        self.outgoing.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write pieces of the response's body; called by the request."""
        self.outgoing.write(b"".join(iovec))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a producer of the response's body (:class:`IConsumer`).

        :raises RuntimeError: there is one.
        """
        if self._producer is not None:
            raise RuntimeError(f"{producer} cannot be registered beside {self._producer}")
        if streaming:
            self._producer = producer
            if self.outgoing.full:
                producer.pauseProducing()
        else:
            pulled = PulledProducer(producer, self)
            self._producer = pulled
            pulled.start()
            if self.outgoing.full:
                pulled.pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PulledProducer):
            producer.end()

    def _filled(self) -> None:
        """The client takes no more for now."""
        self._unsent = self.outgoing.unsent()
        self._hold(self.limits.write_timeout)
        if self._producer is not None:
            self._producer.pauseProducing()

    def _drained(self) -> None:
        """The client has taken all."""
        if self._reading is Reading.LOST:
            return
        self.deadline = None
        if self._producer is not None:
            self._producer.resumeProducing()
            if self.outgoing.full:
                return  # again, and it has its time to take that
        reading = self._reading
        if reading is Reading.LINGER:
            self._end_our_side()
        elif reading is Reading.BODY:
            self._window = 0
            self._hold(self.limits.body_window)
        elif reading is Reading.HEAD and not self._partial:
            self._hold(self.limits.idle_timeout)
            self._go_on()
        elif reading is Reading.AHEAD and self._is_watched:
            self._hold(PAUSES[1])

    def requestDone(self, request: Any) -> None:
        """The response is whole; called by the request.

        :raises TypeError: it is another than the one that is answered now.
        """
        if request is not self._request and request != self._request:  # it may be wrapped
            raise TypeError(f"{request!r} is not the request that is answered now")
        self.outgoing.flush()
        self._request = self._early = None
        self._sink = None  # whoever answered wants no more of the body
        if self._paused:
            self.resume(FOR_SINK)
        if self._last:
            self._finish()
        elif self._reading is Reading.AHEAD:
            self._next()

    def _next(self) -> None:
        """What was asked is answered: go on with the next request."""
        if self._last:
            self._finish()
            return
        self._reading = Reading.HEAD
        self._unwatch()
        if not self.outgoing.full:
            self._hold(self.limits.idle_timeout)
        if not self._advancing and (self._kept or self._eof):
            self._go_on()

    def _take_turn(self) -> None:
        """The other connections have had theirs."""
        if self._between:
            self._go_on()

    def _go_on(self) -> None:
        """Look at what was kept."""
        if self._kept and not self.outgoing.full:
            kept = bytes(self._kept)
            self._kept.clear()
            self._advance(kept)
        if len(self._kept) <= self.limits.max_pipelined:
            self.resume(_AHEAD)
        if self._eof and self._between and not self._kept and not self.outgoing.full:
            self._abandon()
        elif self._eof and (self._partial or self._reading is Reading.BODY):
            self._abandon()  # the rest will not come

    # Refusals and ends.

    def _refuse(self, status: int, detail: str, reason: str | None = None) -> None:
        """Answer for a request that breaks a rule or a bound; it is the last."""
        request = self._request
        begun = request is not None and getattr(request, "startedWriting", False)
        line = self._current if self._reading is Reading.BODY else self._line
        method, version = (b"-", b"HTTP/1.1") if line is None else (line.method, line.version)
        self._last = True
        if request is None and self._reading is Reading.BODY:  # its answer left before its body
            self._finish()
            return
        self._break_off(Failure(RequestRefused(status, detail)))
        if begun:  # the only honest sign left is a connection that ends before the body
            self._abort()
            return
        frame = getattr(request, "framing", None)
        id = getattr(request, "id", None)
        if id is None:
            id = id_of(None if frame is None or frame.id is None else (frame.id,))
        body = problem_document(status, detail, id, reason)
        fields = [(b"X-Request-ID", id.encode("ascii")), (b"Content-Type", PROBLEM_TYPE)]
        if status == 503:
            fields.append((b"Retry-After", b"5"))
        response = whole_response(version, status, fields, CLOSE, body)
        self._write_head(response[: -len(body)] if method == b"HEAD" else response)
        if self.site is not None and hasattr(self.site, "log_refused"):
            self.site.log_refused(self.peer, line, status, detail, id)
        self._finish()

    def _finish(self) -> None:
        """Nothing more is answered: close, so that the client gets what was written."""
        if self._eof or (self._reading is Reading.AHEAD and not self._kept):
            self.loseConnection()
        else:
            self._linger()

    def _linger(self) -> None:
        """Read and drop what still comes: unread, it would reset the connection."""
        self._reading = Reading.LINGER
        self._partial.clear()
        self._kept.clear()
        self._unwatch()
        self._paused = 0
        in_memory = not hasattr(self.transport, "loseWriteConnection")
        if self.limits.linger <= 0 or (in_memory and socket_of(self.transport) is None):
            self.loseConnection()
            return
        self.transport.resumeProducing()
        if not self.outgoing.full:
            self._end_our_side()

    def _end_our_side(self) -> None:
        """The answer is sent; the client has a time to close."""
        self._hold(self.limits.linger)
        if self.isSecure():  # TLS has an end of its own, and reads on until the client agrees
            self.outgoing.stop()
            self.transport.loseConnection()
            return
        end = getattr(self.transport, "loseWriteConnection", None)
        if end is not None:
            end()

    def loseConnection(self) -> None:
        """Close when what was written has been taken."""
        self.outgoing.flush()
        self.outgoing.stop()
        self._reading = Reading.LOST if self._reading is Reading.LOST else Reading.LINGER
        if not self.outgoing.full and self._reading is not Reading.LOST:
            self._hold(self.limits.write_timeout)  # TLS waits for the client to agree
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Close now."""
        self._abort()

    forceAbortClient = abortConnection

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse a form that cannot be read; called by a request that reads forms."""
        self._refuse(400, "The body is not what its Content-Type says.")

    def _abort(self) -> None:
        self.deadline = None
        abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        abort()

    def announce_end(self) -> None:
        """Have the next response that begins be the last of this connection."""
        self._closing = True

    def close_when_idle(self) -> None:
        """Close now if no request is under way, else after its response."""
        self.announce_end()
        if self._between and not self.outgoing.full:
            self._abandon()

    # Deadlines, and clients that are not read.

    def _hold(self, seconds: float) -> None:
        deadlines = self.deadlines
        deadlines.hold(self, deadlines.now() + seconds)

    def expired(self, now: float) -> None:
        """The deadline has passed; called by :class:`Deadlines`."""
        reading = self._reading
        if self.outgoing.full:
            unsent = self.outgoing.unsent()
            if unsent != self._unsent:
                self._unsent = unsent
                self._hold(self.limits.write_timeout)
            else:
                self._gone("takes nothing of what is written to it")
        elif reading is Reading.BODY:
            self._check_rate()
        elif reading is Reading.AHEAD:
            self._send_ahead()
        elif reading is Reading.HEAD and self._partial:
            self._refuse(408, "The head of the request took too long.")
        elif reading is Reading.HEAD:
            self._abandon()
        elif reading is Reading.LINGER:
            self._abort()

    def _check_rate(self) -> None:
        limits = self.limits
        least = limits.min_body_rate * limits.body_window
        if self._paused:  # whoever takes the body has enough; the client may have left meanwhile
            if not self._is_watched:
                self._look().watch(half=False)
            self._hold(limits.body_window)
            self._send_ahead()
        elif self._window < least:
            self._refuse(408, f"A body comes with {limits.min_body_rate} bytes a second, or more.")
        else:
            self._window = 0
            self._hold(limits.body_window)

    def _gone(self, why: str) -> None:
        _log.info("{peer} {why}; its connection is closed", peer=self.peer, why=why)
        self._abort()

    def pause(self, reason: int) -> None:
        """Read nothing, for one reason more."""
        if not self._paused and not self._eof:
            self.transport.pauseProducing()
        self._paused |= reason

    def resume(self, reason: int) -> None:
        """Read again, as far as this reason is concerned."""
        if self._paused & reason:
            self._paused &= ~reason
            if not self._paused and not self._eof and self._reading is not Reading.LOST:
                if self._reading is Reading.BODY:
                    self._unwatch()
                    if not self.outgoing.full:
                        self._window = 0
                        self._hold(self.limits.body_window)
                self.transport.resumeProducing()

    def _look(self) -> Presence:
        """Who looks for the client, from now on."""
        if self._presence is None:
            self._presence = Presence(self.transport, self.hangups, self._half_hung_up, self._abort)
        return self._presence

    def _look_for_client(self) -> None:
        """The client has ended its side: has it left, or does it wait for its answer?"""
        self._look().watch(half=False)
        self._send_ahead()

    def _send_ahead(self) -> None:
        """A client that left will reset when it gets what its answer goes on with."""
        if self._request is not None:
            pause = self._look().send_ahead(self._request, self._current.version, self.outgoing)
            if pause is not None:
                self._hold(pause)

    @property
    def _is_watched(self) -> bool:
        return self._presence is not None and self._presence.watching

    def _unwatch(self) -> None:
        if self._presence is not None:
            self._presence.unwatch()

    def _half_hung_up(self) -> None:
        """The client has ended its side behind what is not read."""
        if self._reading is Reading.AHEAD:
            self._look_for_client()

    # What requests ask of their transport.

    def getPeer(self) -> Any:
        """The client's address."""
        return self.peer

    def getHost(self) -> Any:
        """The address of this end."""
        return self.host

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        return ISSLTransport(self.transport, None) is not None
