"""What a request has to look like, by RFC 9110 and RFC 9112, where llhttp does not say it.

Pure: bytes in, a value or :class:`~deferpost.wire.refusals.Refused` out.  What llhttp refuses by
itself is not said again here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import msgspec

from deferpost.wire.refusals import Refused

__all__ = ["Framing", "RequestLine", "check_host", "framing", "request_line", "transfer_codings"]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([^ ]+) HTTP/([0-9])\.([0-9])")

_PCHAR = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2}"
_ORIGIN = re.compile(rb"/(?:" + _PCHAR + rb")*(?:\?(?:" + _PCHAR + rb"|\?)*)?")  # RFC 3986, 3.3
_CODING_NAME = re.compile(_TOKEN)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)

_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::([0-9]*))?"
)
_LARGEST_PORT = 65535

#: Digits of a length of which the number is sure to be one of 64 bits.
_LONGEST_LENGTH = 18

#: Entries that the memories of good lines and hosts have, before they are begun anew.
_REMEMBERED = 1024


class RequestLine(msgspec.Struct, frozen=True):
    """The first line of a request.

    :ivar method: as it was sent; methods are case-sensitive.
    :ivar target: in origin-form, or ``*``.
    :ivar version: ``HTTP/1.0`` or ``HTTP/1.1``.
    :ivar path: the target without its query.
    :ivar query: the target's query, without the question mark.
    :ivar authority: of a target in absolute-form, which counts in place of ``Host``.
    """

    method: bytes
    target: bytes
    version: bytes
    path: bytes
    query: bytes
    authority: bytes | None = None


class Framing(msgspec.Struct, frozen=True):
    """How long a request is, and what becomes of its connection.

    :ivar length: of the body, in bytes; None where it is chunked.
    :ivar keep_alive: whether the client wants the connection kept.
    :ivar expects_continue: whether the client waits for ``100 Continue``.
    :ivar id: the value of the one ``X-Request-ID``, if there is one.
    :ivar accept: the value of ``Accept``, that of several fields joined; None without one, and
        where it takes anything.
    :ivar asks: whether there is an ``X-Timeout`` or a ``Priority``, for whoever understands them.
    :ivar keeps: whether there is a ``Prefer``, an ``Idempotency-Key`` or a ``Webhook-URL``, so too.
    """

    length: int | None
    keep_alive: bool
    expects_continue: bool
    id: bytes | None = None
    asks: bool = False
    accept: bytes | None = None
    keeps: bool = False


_known_lines: dict[bytes, RequestLine] = {}
_known_hosts: set[bytes] = set()


def request_line(line: bytes) -> RequestLine:
    """Read the first line of a request (RFC 9112, section 3).

    :param line: without its CRLF.
    :raises Refused: 400, 501 or 505.
    """
    known = _known_lines.get(line)
    if known is None:
        known = _request_line(line)
        if len(line) <= 256:
            if len(_known_lines) >= _REMEMBERED:
                _known_lines.clear()
            _known_lines[line] = known
    return known


def _request_line(line: bytes) -> RequestLine:
    found = _LINE.fullmatch(line)
    if found is None:
        raise Refused(400, "The request line is not one of HTTP/1.1.")
    method, target, major, minor = found.groups()
    if (major, minor) not in ((b"1", b"1"), (b"1", b"0")):
        raise Refused(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    version = b"HTTP/1." + minor
    if method == b"CONNECT":
        raise Refused(501, "This server is no proxy: it has no CONNECT.")
    authority = None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, rest = absolute.groups()
        if not authority or b"@" in authority:
            raise Refused(400, "The authority of the request target is not a host.")
        check_host(authority)
        if not rest and method == b"OPTIONS":
            target = b"*"  # RFC 9112, section 3.2.4
        else:
            target = rest if rest.startswith(b"/") else b"/" + rest
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(400, "The request target * is for OPTIONS alone.")
    elif _ORIGIN.fullmatch(target) is None:
        raise Refused(400, "The request target has characters that RFC 3986 does not permit.")
    path, _, query = target.partition(b"?")
    return RequestLine(method, target, version, path, query, authority)


def check_host(value: bytes) -> None:
    """Check a host with an optional port (RFC 9110, section 7.2; RFC 3986, section 3.2.2).

    :param value: of ``Host``, without white space around it; it may be empty.
    :raises Refused: 400.
    """
    if value in _known_hosts:
        return
    found = _HOST.fullmatch(value)
    good = found is not None and not value.startswith(b":")
    if found is not None and found[2]:
        port = found[2].lstrip(b"0")
        good = good and len(port) <= 5 and int(port or b"0") <= _LARGEST_PORT
    if good and found is not None and found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1].decode("ascii"))
        except ValueError:
            good = False
    if not good:
        raise Refused(400, "The host is not one by RFC 3986, section 3.2.2.")
    if len(value) <= 256:
        if len(_known_hosts) >= _REMEMBERED:
            _known_hosts.clear()
        _known_hosts.add(value)


def transfer_codings(values: Sequence[bytes]) -> None:
    """Check ``Transfer-Encoding``: ``chunked`` once, and nothing else (RFC 9112, section 6.1).

    :param values: of all the fields of that name.
    :raises Refused: 400 or 501.
    """
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return
    chunked = codings.count(b"chunked")
    if not all(map(_CODING_NAME.fullmatch, codings)):
        raise Refused(400, "A transfer coding is a token, without parameters.")
    if chunked > 1 or (chunked and codings[-1] != b"chunked"):
        raise Refused(400, "The transfer codings are not a list that ends in one chunked.")
    raise Refused(501, "The only transfer coding that is understood here is chunked.")


#: Fields that matter to the connection, by each spelling that was seen.
_HOST_FIELD, _LENGTH, _CODING, _CONNECTION, _EXPECT, _ID, _ASKING, _ACCEPT = range(8)
_KEEPING, _OTHER = range(8, 10)
_FIELDS = {
    b"host": _HOST_FIELD,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"x-request-id": _ID,
    b"x-timeout": _ASKING,
    b"priority": _ASKING,
    b"prefer": _KEEPING,
    b"idempotency-key": _KEEPING,
    b"webhook-url": _KEEPING,
    b"accept": _ACCEPT,
}
_spellings: dict[bytes, int] = {}


def _field(name: bytes) -> int:
    field = _FIELDS.get(name.lower(), _OTHER)
    if len(_spellings) >= _REMEMBERED:
        _spellings.clear()
    if len(name) <= 64:
        _spellings[name] = field
    return field


def framing(
    line: RequestLine, fields: Sequence[tuple[bytes, bytes]], *, require_host: bool = True
) -> Framing:
    """Decide what follows a head, from its fields.

    :param line: the first line.
    :param fields: name and value pairs, which llhttp has accepted.
    :param require_host: whether HTTP/1.1 needs a ``Host``.
    :raises Refused: 400, 417 or 501.
    """
    length: int | None = 0
    hosts = 0
    codings: list[bytes] = []
    options: set[bytes] = set()
    expects = asks = keeps = False
    id = accept = None
    spellings = _spellings
    for name, value in fields:
        field = spellings.get(name)
        if field is None:
            field = _field(name)
        if field == _OTHER:
            continue
        if field == _HOST_FIELD:
            hosts += 1
            check_host(value)
        elif field == _LENGTH:
            if len(value) > _LONGEST_LENGTH and len(value.lstrip(b"0")) > _LONGEST_LENGTH:
                raise Refused(413, "A body of that length is more than anybody takes.")
            length = int(value)
        elif field == _ID:
            id = value if id is None else b""
        elif field == _ACCEPT:
            if value != b"*/*":
                accept = value if accept is None else accept + b"," + value
        elif field == _ASKING:
            asks = True
        elif field == _KEEPING:
            keeps = True
        elif field == _CODING:
            codings.append(value)
        elif field == _CONNECTION:
            options.update(option.strip(b" \t").lower() for option in value.split(b","))
        elif value.lower() == b"100-continue":
            expects = line.version == b"HTTP/1.1"  # RFC 9110, section 10.1.1
        elif line.version == b"HTTP/1.1":
            raise Refused(417, "The only expectation that can be met here is 100-continue.")
    if hosts != 1 and (hosts > 1 or (require_host and line.version == b"HTTP/1.1")):
        raise Refused(400, "A request has one Host.")
    if codings:
        if line.version == b"HTTP/1.0":
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding.")
        transfer_codings(codings)
        length = None
    keep_alive = line.version == b"HTTP/1.1" or b"keep-alive" in options
    keep_alive = keep_alive and b"close" not in options
    return Framing(length, keep_alive, expects, id or None, asks, accept, keeps)
