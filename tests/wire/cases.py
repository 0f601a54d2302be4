"""Requests that are HTTP/1.1, or nearly, each with the status that it has to be answered.

They are for a channel with the default settings, in front of resources that answer every method
on every path with 200 and the body that they got.  A final response is meant: one with status 100
may come before it.

Each request is sent at once.  One that has to be refused has all that is needed for it: what
follows the fault ends in an empty line, so that nothing depends on how far a channel reads before
it judges, and one that takes the fault for good has a whole request to answer.  Only the answers
414 and 431, and 413 to a length that no body could have, come before their request has ended.

Where the RFC leaves a choice it is to refuse.  Where a choice is against a SHOULD or a MUST of the
RFC, for the sake of those who read the same bytes another way, ``why`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = ["CASES", "Case"]


@attrs.frozen
class Case:
    """A request, and its answer.

    :ivar name: unlike any other.
    :ivar rfc: where to read about it, such as ``"RFC 9112, 2.2"``.
    :ivar request: the bytes.
    :ivar status: of the final response.
    :ivar why: one sentence.
    """

    name: str
    rfc: str
    request: bytes
    status: int
    why: str


#: Over every bound that there is for a head, a chunk line or trailers by default.
_TOO_MUCH = 17 * 1024


def _request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *fields, b"", body])


def _line(line: bytes) -> bytes:
    """A request of which the first line matters."""
    return _request(line, b"Host: h")


def _target(target: bytes, method: bytes = b"GET") -> bytes:
    """A request of which the target matters."""
    return _line(method + b" " + target + b" HTTP/1.1")


def _field(*fields: bytes) -> bytes:
    """A request of which these fields matter."""
    return _request(b"GET / HTTP/1.1", b"Host: h", *fields)


def _host(*values: bytes) -> bytes:
    """A request of which the values of Host matter."""
    return _request(b"GET / HTTP/1.1", *(b"Host: " + value for value in values))


def _post(*fields: bytes, body: bytes) -> bytes:
    """A request with a body, of which the fields matter."""
    return _request(b"POST / HTTP/1.1", b"Host: h", *fields, body=body)


def _length(*values: bytes, body: bytes = b"hello\r\n\r\n") -> bytes:
    """A request of which the values of Content-Length matter."""
    return _post(*(b"Content-Length: " + value for value in values), body=body)


def _coding(*values: bytes) -> bytes:
    """A request of which the values of Transfer-Encoding matter."""
    fields = (b"Transfer-Encoding: " + value for value in values)
    return _post(*fields, body=b"5\r\nhello\r\n0\r\n\r\n")


def _chunked(body: bytes) -> bytes:
    """A request of which the chunked body matters."""
    return _post(b"Transfer-Encoding: chunked", body=body)


def _chunk(line: bytes) -> bytes:
    """A request of which the line of a chunk of five bytes matters."""
    return _chunked(line + b"\r\nhello\r\n0\r\n\r\n")


def _trailer(*fields: bytes) -> bytes:
    """A request of which the trailer fields matter."""
    return _chunked(b"\r\n".join([b"5", b"hello", b"0", *fields, b"", b""]))


def _characters(
    what: str, rfc: str, request: tuple[bytes, bytes], characters: dict[str, bytes], why: str
) -> Sequence[Case]:
    """The same request with each of some characters between its two parts, all wrong."""
    before, after = request
    return [
        Case(f"{what}: {name}", rfc, before + character + after, 400, why)
        for name, character in characters.items()
    ]


_CONTROLS = {
    "NUL": b"\0",
    "SOH": b"\1",
    "BEL": b"\a",
    "backspace": b"\b",
    "vertical tab": b"\v",
    "form feed": b"\f",
    "escape": b"\x1b",
    "DEL": b"\x7f",
}
_BARE_ENDS = {"CR": b"\r", "LF": b"\n"}
_NOT_ASCII = {"latin-1": b"\xe9", "UTF-8": b"\xc3\xa9"}


def _punctuation(characters: str) -> dict[str, bytes]:
    return {character: character.encode("ascii") for character in characters}


REQUEST_LINES = (
    Case(
        "request line", "RFC 9112, 3", _line(b"GET / HTTP/1.1"), 200, "It is as the grammar has it."
    ),
    Case(
        "all lines end with LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\nHost: h\n\n\r\n\r\n",
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "request line ends with LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "request line ends with CR",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\rHost: h\r\n\r\n",
        400,
        "A CR without LF makes an element invalid.",
    ),
    Case(
        "request line ends with CR CR LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
        400,
        "A CR without LF makes an element invalid.",
    ),
    Case(
        "request line ends with LF CR",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\n\rHost: h\r\n\r\n",
        400,
        "Neither is a line's end here.",
    ),
    *_characters(
        "method",
        "RFC 9112, 2.2",
        (b"GE", b"T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        _BARE_ENDS,
        "A line does not end within the method.",
    ),
    *_characters(
        "target",
        "RFC 9112, 2.2",
        (b"GET /a", b"b HTTP/1.1\r\nHost: h\r\n\r\n"),
        _BARE_ENDS,
        "A line does not end within the target.",
    ),
    *_characters(
        "version",
        "RFC 9112, 2.2",
        (b"GET / HTTP/1", b".1\r\nHost: h\r\n\r\n"),
        {**_BARE_ENDS, "NUL": b"\0"},
        "No character of the version may be replaced.",
    ),
    *_characters(
        "instead of the first space",
        "RFC 9112, 3",
        (b"GET", b"/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        {"tab": b"\t", "vertical tab": b"\v", "form feed": b"\f", "two spaces": b"  "},
        "One SP separates; a recipient may be lenient, and need not.",
    ),
    *_characters(
        "instead of the second space",
        "RFC 9112, 3",
        (b"GET /", b"HTTP/1.1\r\nHost: h\r\n\r\n"),
        {"tab": b"\t", "vertical tab": b"\v", "form feed": b"\f", "two spaces": b"  ", "CR": b"\r"},
        "One SP separates; a recipient may be lenient, and need not.",
    ),
    *_characters(
        "end of the request line",
        "RFC 9112, 3",
        (b"GET / HTTP/1.1", b"\r\nHost: h\r\n\r\n"),
        {"space": b" ", "tab": b"\t", "NUL": b"\0", "letter": b"x", "fourth word": b" HTTP/1.1"},
        "The line ends with the version.",
    ),
    *_characters(
        "before the request line",
        "RFC 9112, 2.2",
        (b"", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        {
            "space": b" ",
            "tab": b"\t",
            "NUL": b"\0",
            "CR": b"\r",
            "LF": b"\n",
            "CRLF and space": b"\r\n ",
            "byte order mark": b"\xef\xbb\xbf",
        },
        "Only an empty line may come before it.",
    ),
    Case(
        "one empty line before the request line",
        "RFC 9112, 2.2",
        b"\r\n" + _line(b"GET / HTTP/1.1"),
        200,
        "A server should ignore one, which old clients send after a body.",
    ),
    Case(
        "two empty lines before the request line",
        "RFC 9112, 2.2",
        b"\r\n\r\n" + _line(b"GET / HTTP/1.1"),
        400,
        "More than the one that has to be ignored need not be.",
    ),
    Case(
        "many empty lines before the request line",
        "RFC 9112, 2.2",
        b"\r\n" * 100 + _line(b"GET / HTTP/1.1"),
        400,
        "More than the one that has to be ignored need not be.",
    ),
    Case(
        "HTTP/0.9 request",
        "RFC 9112, 2.3",
        b"GET /\r\n\r\n",
        400,
        "Without a version it is no request line.",
    ),
    Case(
        "HTTP/0.9 request with a space",
        "RFC 9112, 3",
        b"GET / \r\n\r\n",
        400,
        "Without a version it is no request line.",
    ),
    Case("method alone", "RFC 9112, 3", b"GET\r\n\r\n", 400, "It has no target and no version."),
    Case(
        "method and version",
        "RFC 9112, 3",
        _line(b"GET HTTP/1.1"),
        400,
        "It has no target.",
    ),
    Case(
        "status line",
        "RFC 9112, 2.1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        400,
        "A server reads requests.",
    ),
    Case(
        "TLS",
        "RFC 9112, 3",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n",
        400,
        "It is no request line.",
    ),
)

METHODS = (
    *(
        Case(
            f"method {method}",
            "RFC 9110, 9.1",
            _line(f"{method} / HTTP/1.1".encode("ascii")),
            200,
            "Resources decide about it.",
        )
        for method in ("PUT", "DELETE", "OPTIONS")
    ),
    *(
        Case(f"method {what}", "RFC 9110, 9.1", _line(method + b" / HTTP/1.1"), 501, why)
        for what, method, why in (
            ("unknown", b"BREW", "It is a token, but no method that is known here."),
            ("in lower case", b"get", "Methods are case-sensitive, so this is another one."),
            ("in mixed case", b"Post", "Methods are case-sensitive, so this is another one."),
            ("known with one letter more", b"GETS", "It is a token, but no method known here."),
            ("of one letter", b"G", "It is a token, but no method that is known here."),
            ("of digits", b"123", "It is a token, but no method that is known here."),
            ("of signs", b"!#$%&'*+-.^_`|~", "All of these may be in a token."),
            ("of 100 letters", b"A" * 100, "One longer than all that are known is not known."),
        )
    ),
    Case(
        "method CONNECT",
        "RFC 9110, 9.3.6",
        _request(b"CONNECT h:80 HTTP/1.1", b"Host: h:80"),
        501,
        "A server that is no proxy does not implement it.",
    ),
    Case(
        "method empty",
        "RFC 9112, 3.1",
        _line(b" / HTTP/1.1"),
        400,
        "A token has at least one character.",
    ),
    *_characters(
        "in a method",
        "RFC 9110, 5.6.2",
        (b"GE", b"T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        {**_punctuation('"(),/:;<=>?@[\\]{}'), **_CONTROLS, **_NOT_ASCII},
        "It may not be in a token.",
    ),
)

VERSIONS = (
    Case(
        "HTTP/1.0",
        "RFC 9112, 2.3",
        _line(b"GET / HTTP/1.0"),
        200,
        "It is the older of the two versions that are spoken here.",
    ),
    *(
        Case(f"version {version}", "RFC 9110, 2.5", _line(b"GET / " + version.encode()), 505, why)
        for version, why in (
            ("HTTP/0.9", "It is well-formed, and another major version."),
            ("HTTP/2.0", "It is well-formed, and another major version."),
            ("HTTP/3.0", "It is well-formed, and another major version."),
            ("HTTP/9.9", "It is well-formed, and another major version."),
            ("HTTP/1.2", "There is none; a server should take it for 1.1, this one refuses."),
            ("HTTP/1.9", "There is none; a server should take it for 1.1, this one refuses."),
        )
    ),
    Case(
        "HTTP/2 preface",
        "RFC 9110, 2.5",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        505,
        "The version is judged first, for it says what the rest may mean.",
    ),
    Case(
        "version with an Arabic digit",
        "RFC 9112, 2.3",
        _line(b"GET / HTTP/1.\xd9\xa1"),
        400,
        "Digits are those of ASCII.",
    ),
    *(
        Case(f"version {version}", "RFC 9112, 2.3", _line(b"GET / " + version.encode()), 400, why)
        for version, why in (
            ("http/1.1", "The name of the protocol is case-sensitive."),
            ("Http/1.1", "The name of the protocol is case-sensitive."),
            ("HTTP/1.10", "Each number is one digit."),
            ("HTTP/1.01", "Each number is one digit."),
            ("HTTP/01.1", "Each number is one digit."),
            ("HTTP/11.1", "Each number is one digit."),
            ("HTTP/1.", "The second number is missing."),
            ("HTTP/.1", "The first number is missing."),
            ("HTTP/1", "The second number is missing."),
            ("HTTP/", "Both numbers are missing."),
            ("HTTP", "Both numbers are missing."),
            ("HTTP/11", "A dot separates the numbers."),
            ("HTTP/1,1", "A dot separates the numbers."),
            ("HTTP/1.1.1", "There are two numbers."),
            ("HTTP/1.x", "A letter is no digit."),
            ("HTTP/+1.1", "A number has no sign."),
            ("HTTP/-1.1", "A number has no sign."),
            ("HTTP/1 .1", "It has no white space."),
            ("HTTP /1.1", "It has no white space."),
            ("HTTP\\1.1", "A slash comes before the numbers."),
            ("HTTPS/1.1", "The protocol is called HTTP, with TLS too."),
            ("ICY/1.1", "This is another protocol."),
        )
    ),
)

TARGETS = (
    *(
        Case(f"target {what}", "RFC 9112, 3.2.1", _target(target), 200, why)
        for what, target, why in (
            ("with a query", b"/a?b=c", "A query may follow the path."),
            ("with an empty query", b"/?", "A query may be empty."),
            ("with question marks in the query", b"/a?b?c", "A query may have more of them."),
            ("with a path in the query", b"/?/a/b", "A query may have slashes."),
            ("with two slashes", b"//a//b", "Segments of a path may be empty."),
            ("with dots", b"/a/../../b/.", "They are for the resource to make sense of."),
            ("of all that a path may have", b"/-._~!$&'()*+,;=:@aZ09", "All of it is pchar."),
            ("percent-encoded", b"/%41%2f%2F%c3%A9?%00", "Two digits follow, in either case."),
            ("that looks like *", b"/*", "It is a path."),
            ("that looks like absolute-form", b"/http://h/", "It is a path."),
        )
    ),
    Case(
        "target with a space",
        "RFC 9112, 3.2",
        _target(b"/a b"),
        400,
        "No white space is allowed in it, and guessing is not safe.",
    ),
    Case(
        "target with a tab", "RFC 9112, 3.2", _target(b"/a\tb"), 400, "No white space is allowed."
    ),
    *_characters(
        "in a path",
        "RFC 3986, 3.3",
        (b"GET /a", b"b HTTP/1.1\r\nHost: h\r\n\r\n"),
        {**_punctuation('"<>[\\]^`{|}'), **_CONTROLS, **_NOT_ASCII},
        "It has to be percent-encoded.",
    ),
    *_characters(
        "in a query",
        "RFC 3986, 3.4",
        (b"GET /?a", b"b HTTP/1.1\r\nHost: h\r\n\r\n"),
        {**_punctuation('"<>[\\]^`{|}'), "NUL": b"\0", "DEL": b"\x7f", **_NOT_ASCII},
        "It has to be percent-encoded.",
    ),
    *(
        Case(f"target {what}", rfc, _target(target), 400, why)
        for what, rfc, target, why in (
            ("with a fragment", "RFC 9112, 3.2.1", b"/a#b", "A fragment is not sent."),
            ("with an empty fragment", "RFC 9112, 3.2.1", b"/#", "A fragment is not sent."),
            ("fragment alone", "RFC 9112, 3.2", b"#a", "A fragment is not sent."),
            ("with %zz", "RFC 3986, 2.1", b"/%zz", "These are no hexadecimal digits."),
            ("with %4g", "RFC 3986, 2.1", b"/%4g", "The second is no hexadecimal digit."),
            ("with % alone", "RFC 3986, 2.1", b"/a%", "Two digits are missing."),
            ("with % and one digit", "RFC 3986, 2.1", b"/a%4", "One digit is missing."),
            ("with %%", "RFC 3986, 2.1", b"/%%41", "The sign itself is encoded as %25."),
            ("with %zz in the query", "RFC 3986, 2.1", b"/?a=%zz", "These are no digits."),
            ("with %u0041", "RFC 3986, 2.1", b"/%u0041", "This is no encoding of URIs."),
            ("without a slash", "RFC 9112, 3.2.1", b"a/b", "A path begins with a slash."),
            ("of dots", "RFC 9112, 3.2.1", b"../a", "A path begins with a slash."),
            ("query alone", "RFC 9112, 3.2.1", b"?a=b", "A path comes before the query."),
            ("with a backslash first", "RFC 9112, 3.2.1", b"\\a", "A path begins with a slash."),
            ("authority", "RFC 9112, 3.2.3", b"h:80", "Only CONNECT has this form."),
            ("name of a host", "RFC 9112, 3.2.3", b"example.com", "It has none of the forms."),
            ("* with GET", "RFC 9112, 3.2.4", b"*", "Only OPTIONS has this form."),
            ("* and more", "RFC 9112, 3.2.4", b"*a", "It has none of the forms."),
            ("quoted", "RFC 9112, 3.2", b'"/"', "It has none of the forms."),
        )
    ),
    Case(
        "target * with OPTIONS",
        "RFC 9112, 3.2.4",
        _target(b"*", b"OPTIONS"),
        200,
        "It asks about the server as a whole.",
    ),
    Case(
        "target * with POST",
        "RFC 9112, 3.2.4",
        _target(b"*", b"POST"),
        400,
        "Only OPTIONS has this form.",
    ),
    Case(
        "target ** with OPTIONS",
        "RFC 9112, 3.2.4",
        _target(b"**", b"OPTIONS"),
        400,
        "It has none of the forms.",
    ),
    Case(
        "target authority with POST",
        "RFC 9112, 3.2.3",
        _target(b"h:80", b"POST"),
        400,
        "Only CONNECT has this form.",
    ),
)


def _absolute(target: bytes, host: bytes = b"h", method: bytes = b"GET") -> bytes:
    return _request(method + b" " + target + b" HTTP/1.1", b"Host: " + host)


ABSOLUTE_TARGETS = (
    *(
        Case(f"target absolute, {what}", "RFC 9112, 3.2.2", _absolute(target), 200, why)
        for what, target, why in (
            ("http", b"http://h/a?b=c", "A server must accept it, though it is meant for proxies."),
            ("https", b"https://h/a", "A proxy in front may have ended TLS."),
            ("scheme in upper case", b"HTTP://h/", "Schemes are not case-sensitive."),
            ("without a path", b"http://h", "An empty path is the same as /."),
            ("query without a path", b"http://h?a=b", "An empty path is the same as /."),
            ("with a port", b"http://h:8080/", "An authority may have a port."),
            ("with an empty port", b"http://h:/", "A port may be empty."),
            ("with an IPv6 address", b"http://[::1]:80/", "A host may be an address."),
        )
    ),
    Case(
        "target absolute with another Host",
        "RFC 9112, 3.2.2",
        _absolute(b"http://h/", b"other"),
        200,
        "A server must ignore Host in favour of the target's.",
    ),
    Case(
        "target absolute with an empty Host",
        "RFC 9112, 3.2.2",
        _absolute(b"http://h/", b""),
        200,
        "A server must ignore Host in favour of the target's.",
    ),
    Case(
        "target absolute with an invalid Host",
        "RFC 9112, 3.2",
        _absolute(b"http://h/", b"a b"),
        400,
        "Any request with an invalid Host is to be answered so.",
    ),
    Case(
        "target absolute without Host",
        "RFC 9112, 3.2",
        _request(b"GET http://h/ HTTP/1.1"),
        400,
        "In HTTP/1.1 the field is required with every form.",
    ),
    Case(
        "target absolute without Host in HTTP/1.0",
        "RFC 9112, 3.2.2",
        _request(b"GET http://h/ HTTP/1.0"),
        200,
        "In HTTP/1.0 the field is not required.",
    ),
    Case(
        "target absolute with OPTIONS and no path",
        "RFC 9112, 3.2.4",
        _absolute(b"http://h", method=b"OPTIONS"),
        200,
        "It is the * of the last proxy.",
    ),
    *(
        Case(f"target absolute, {what}", rfc, _absolute(target), 400, why)
        for what, rfc, target, why in (
            ("with user", "RFC 9110, 4.2.4", b"http://u@h/", "It is an error, and misleads."),
            ("with password", "RFC 9110, 4.2.4", b"http://u:p@h/", "It is an error, and misleads."),
            ("with an empty user", "RFC 9110, 4.2.4", b"http://@h/", "It is an error."),
            ("empty host", "RFC 9110, 4.2.1", b"http:///a", "A host must not be empty."),
            ("nothing after //", "RFC 9110, 4.2.1", b"http://", "A host must not be empty."),
            ("port alone", "RFC 9110, 4.2.1", b"http://:80/", "A host must not be empty."),
            ("empty host of https", "RFC 9110, 4.2.2", b"https:///a", "A host must not be empty."),
            ("one slash", "RFC 9110, 4.2.1", b"http:/a", "An authority is required."),
            ("no slash", "RFC 9110, 4.2.1", b"http:a", "An authority is required."),
            ("scheme ftp", "RFC 9110, 4.2", b"ftp://h/", "It is no resource of HTTP."),
            ("scheme ws", "RFC 9110, 4.2", b"ws://h/", "It is no resource of HTTP."),
            ("scheme mailto", "RFC 9110, 4.2", b"mailto:a@h", "It is no resource of HTTP."),
            ("no scheme", "RFC 9112, 3.2.2", b"://h/", "A URI begins with its scheme."),
            ("with a fragment", "RFC 9112, 3.2.2", b"http://h/#a", "A fragment is not sent."),
            ("fragment after the host", "RFC 9112, 3.2.2", b"http://h#a", "It is not sent."),
            ("port of letters", "RFC 3986, 3.2.3", b"http://h:x/", "A port has digits."),
            ("port too large", "RFC 3986, 3.2.3", b"http://h:65536/", "TCP has no such port."),
            ("bad host", "RFC 3986, 3.2.2", b"http://a<b/", "It may not be in a host."),
            ("bad percent in the host", "RFC 3986, 2.1", b"http://%zz/", "These are no digits."),
            ("bad IPv6 address", "RFC 3986, 3.2.2", b"http://[::1/", "The bracket stays open."),
            ("bad path", "RFC 3986, 3.3", b"http://h/<", "It has to be percent-encoded."),
            ("bad percent in the path", "RFC 3986, 2.1", b"http://h/%zz", "These are no digits."),
        )
    ),
)

FIELDS = (
    *(
        Case(f"field {what}", rfc, _field(field), 200, why)
        for what, rfc, field, why in (
            ("with an empty value", "RFC 9110, 5.5", b"X:", "A value may be empty."),
            ("with spaces alone", "RFC 9112, 5.1", b"X:   ", "White space is no part of a value."),
            ("without white space", "RFC 9112, 5", b"X:y", "The white space is optional."),
            (
                "with white space around",
                "RFC 9112, 5",
                b"X: \t y\t ",
                "It is no part of the value.",
            ),
            ("with white space inside", "RFC 9110, 5.5", b"X: a \tb", "A value may have both."),
            ("with colons in its value", "RFC 9110, 5.5", b"X: a:b::", "The first one separates."),
            ("with latin-1 in its value", "RFC 9110, 5.5", b"X: \xe9\xff", "It is obs-text."),
            ("with UTF-8 in its value", "RFC 9110, 5.5", b"X: \xc3\xa9", "It is obs-text."),
            (
                "named with signs",
                "RFC 9110, 5.6.2",
                b"!#$%&'*+-.^_`|~0aZ: y",
                "All may be in a token.",
            ),
            (
                "Upgrade",
                "RFC 9110, 7.8",
                b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA",
                "A server may ignore it.",
            ),
            (
                "TE",
                "RFC 9110, 10.1.4",
                b"Connection: TE\r\nTE: trailers, gzip;q=0.5",
                "It is about the response.",
            ),
        )
    ),
    Case(
        "field twice",
        "RFC 9110, 5.3",
        _field(b"X: a", b"X: b"),
        200,
        "Most fields may be lists of several lines.",
    ),
    *_characters(
        "in the value of a field",
        "RFC 9110, 5.5",
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a", b"b\r\n\r\n"),
        {**_CONTROLS, **_BARE_ENDS},
        "Controls are not allowed, and some of them are dangerous.",
    ),
    *_characters(
        "at the end of a value",
        "RFC 9110, 5.5",
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a", b"\r\n\r\n"),
        {"NUL": b"\0", "CR": b"\r", "vertical tab": b"\v"},
        "Only space and tab may follow a value.",
    ),
    *_characters(
        "at the beginning of a value",
        "RFC 9110, 5.5",
        (b"GET / HTTP/1.1\r\nHost: h\r\nX:", b"a\r\n\r\n"),
        {"NUL": b"\0", "vertical tab": b"\v", "form feed": b"\f", **_BARE_ENDS},
        "Only space and tab may come before a value.",
    ),
    *_characters(
        "in the name of a field",
        "RFC 9110, 5.1",
        (b"GET / HTTP/1.1\r\nHost: h\r\nX", b"Y: a\r\n\r\n"),
        {
            **_punctuation('"(),/;<=>?@[\\]{}'),
            "space": b" ",
            "tab": b"\t",
            **_CONTROLS,
            **_BARE_ENDS,
            **_NOT_ASCII,
        },
        "A name is a token.",
    ),
    *_characters(
        "before the colon",
        "RFC 9112, 5.1",
        (b"GET / HTTP/1.1\r\nHost: h\r\nX", b": a\r\n\r\n"),
        {"space": b" ", "tab": b"\t", "CR": b"\r", "LF": b"\n", "NUL": b"\0"},
        "A server must refuse white space between name and colon.",
    ),
    *_characters(
        "before the first field",
        "RFC 9112, 2.2",
        (b"GET / HTTP/1.1\r\n", b"Host: h\r\n\r\n"),
        {"space": b" ", "tab": b"\t", "CR": b"\r", "LF": b"\n", "NUL": b"\0"},
        "A recipient must refuse such a line, or drop it.",
    ),
    *(
        Case(f"field {what}", rfc, _field(*fields), 400, why)
        for what, rfc, fields, why in (
            ("without a name", "RFC 9112, 5", (b": a",), "A token has at least one character."),
            ("of a colon alone", "RFC 9112, 5", (b":",), "A token has at least one character."),
            ("without a colon", "RFC 9112, 5", (b"X",), "It is no field line."),
            ("of two words", "RFC 9112, 5", (b"X a",), "It is no field line."),
            ("with = for the colon", "RFC 9112, 5", (b"X=a",), "It is no field line."),
            ("folded with a space", "RFC 9112, 5.2", (b"X: a", b" b"), "Folding is obsolete."),
            ("folded with a tab", "RFC 9112, 5.2", (b"X: a", b"\tb"), "Folding is obsolete."),
            ("folded at its beginning", "RFC 9112, 5.2", (b"X:", b" a"), "Folding is obsolete."),
            ("folded to nothing", "RFC 9112, 5.2", (b"X: a", b" "), "Folding is obsolete."),
            ("folded with a colon", "RFC 9112, 5.2", (b"X: a", b" Y: b"), "Folding is obsolete."),
            ("folded before the end", "RFC 9112, 5.2", (b"X: a", b"\t"), "Folding is obsolete."),
        )
    ),
    Case(
        "white space line before the first field",
        "RFC 9112, 2.2",
        _request(b"GET / HTTP/1.1", b" X: a", b"Host: h"),
        400,
        "A recipient must refuse such a line, or drop it.",
    ),
    Case(
        "field line ends with LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n",
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "field line ends with CR",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\rX: a\r\n\r\n",
        400,
        "A CR without LF makes an element invalid.",
    ),
    Case(
        "field line ends with CR CR LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\r\r\nX: a\r\n\r\n",
        400,
        "A CR without LF makes an element invalid.",
    ),
    Case(
        "last field line ends with LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\n\r\n\r\n",
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "head ends with LF",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n\r\n\r\n",
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "head ends with CR",
        "RFC 9112, 2.2",
        b"GET / HTTP/1.1\r\nHost: h\r\n\rX: a\r\n\r\n",
        400,
        "A CR without LF makes an element invalid.",
    ),
)

LIMITS = (
    Case(
        "target too long",
        "RFC 9112, 3",
        _target(b"/" + b"a" * _TOO_MUCH),
        414,
        "The request line alone is over the bound.",
    ),
    Case(
        "query too long",
        "RFC 9112, 3",
        _target(b"/?" + b"a" * _TOO_MUCH),
        414,
        "The request line alone is over the bound.",
    ),
    Case(
        "target without end",
        "RFC 9112, 3",
        b"GET /" + b"a" * _TOO_MUCH,
        414,
        "There is no need to read on.",
    ),
    Case(
        "target of 8000 bytes",
        "RFC 9112, 3",
        _target(b"/" + b"a" * 8000),
        200,
        "Request lines of this length should be supported.",
    ),
    Case(
        "field too long",
        "RFC 6585, 5",
        _field(b"X: " + b"a" * _TOO_MUCH),
        431,
        "The head is over the bound, by its fields.",
    ),
    Case(
        "name of a field too long",
        "RFC 6585, 5",
        _field(b"a" * _TOO_MUCH + b": a"),
        431,
        "The head is over the bound, by its fields.",
    ),
    Case(
        "field without end",
        "RFC 6585, 5",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * _TOO_MUCH,
        431,
        "There is no need to read on.",
    ),
    Case(
        "field of spaces without end",
        "RFC 6585, 5",
        b"GET / HTTP/1.1\r\nHost: h\r\nX:" + b" " * _TOO_MUCH,
        431,
        "What is no part of the value counts as well.",
    ),
    Case(
        "fields together too long",
        "RFC 6585, 5",
        _field(*(b"X: " + b"a" * 1024 for _ in range(20))),
        431,
        "The head is over the bound, by its fields.",
    ),
    Case(
        "field of 8000 bytes",
        "RFC 9110, 5.4",
        _field(b"X: " + b"a" * 8000),
        200,
        "It is within the bound.",
    ),
    Case(
        "100 fields",
        "RFC 9110, 5.4",
        _field(*(b"X: a" for _ in range(99))),
        200,
        "It is the bound, with Host.",
    ),
    Case(
        "101 fields",
        "RFC 6585, 5",
        _field(*(b"X: a" for _ in range(100))),
        431,
        "It is one more than the bound.",
    ),
    Case(
        "1000 fields",
        "RFC 6585, 5",
        _field(*(b"X: a" for _ in range(999))),
        431,
        "It is over the bound.",
    ),
)

HOSTS = (
    *(
        Case(f"Host {what}", rfc, _host(value), 200, why)
        for what, rfc, value, why in (
            ("name", "RFC 9110, 7.2", b"example.com", "A host may be a name."),
            ("in upper case", "RFC 3986, 3.2.2", b"EXAMPLE.COM", "Hosts are not case-sensitive."),
            ("with a dot at the end", "RFC 3986, 3.2.2", b"example.com.", "It is a full name."),
            ("with a port", "RFC 9110, 7.2", b"example.com:8080", "A port may follow."),
            ("with port 65535", "RFC 3986, 3.2.3", b"h:65535", "It is the last port."),
            ("with an empty port", "RFC 3986, 3.2.3", b"h:", "A port may be empty."),
            ("IPv4 address", "RFC 3986, 3.2.2", b"127.0.0.1:80", "A host may be an address."),
            ("IPv6 address", "RFC 3986, 3.2.2", b"[::1]", "A host may be an address."),
            ("IPv6 with a port", "RFC 3986, 3.2.2", b"[2001:db8::A]:80", "A port may follow."),
            ("IPv6 with IPv4", "RFC 3986, 3.2.2", b"[::ffff:1.2.3.4]", "Its end may be IPv4."),
            ("with an underscore", "RFC 3986, 3.2.2", b"a_b", "A registered name may have one."),
            ("percent-encoded", "RFC 3986, 3.2.2", b"%c3%A9.example", "A name may be so."),
            (
                "empty",
                "RFC 9112, 3.2",
                b"",
                "A client sends it so if its URI has no authority.",
            ),
            ("with white space around", "RFC 9112, 5", b"\t h \t", "It is no part of the value."),
        )
    ),
    *(
        Case(f"Host {what}", rfc, _host(value), 400, why)
        for what, rfc, value, why in (
            ("with a space", "RFC 3986, 3.2.2", b"a b", "No white space is allowed."),
            ("with a tab", "RFC 3986, 3.2.2", b"a\tb", "No white space is allowed."),
            ("list", "RFC 9110, 7.2", b"a, b", "It is one host."),
            ("with a path", "RFC 9110, 7.2", b"h/a", "It has a host and a port, no path."),
            ("with a slash at the end", "RFC 9110, 7.2", b"h/", "It has a host and a port."),
            ("with a query", "RFC 9110, 7.2", b"h?a", "It has a host and a port, no query."),
            ("with a fragment", "RFC 9110, 7.2", b"h#a", "It has a host and a port."),
            ("with a scheme", "RFC 9110, 7.2", b"http://h", "It has a host and a port."),
            ("with user", "RFC 9110, 7.2", b"u@h", "It has a host and a port, no user."),
            ("with password", "RFC 9110, 7.2", b"u:p@h", "It has a host and a port, no user."),
            ("with a port of letters", "RFC 3986, 3.2.3", b"h:http", "A port has digits."),
            ("with port -1", "RFC 3986, 3.2.3", b"h:-1", "A port has no sign."),
            ("with port +80", "RFC 3986, 3.2.3", b"h:+80", "A port has no sign."),
            ("with port 65536", "RFC 3986, 3.2.3", b"h:65536", "TCP has no such port."),
            ("with a port of 5000 digits", "RFC 3986, 3.2.3", b"h:" + b"9" * 5000, "TCP has none."),
            ("with two ports", "RFC 3986, 3.2.3", b"h:80:80", "One port may follow."),
            ("with a space before the port", "RFC 3986, 3.2.3", b"h :80", "It has no white space."),
            ("with a space in the port", "RFC 3986, 3.2.3", b"h: 80", "It has no white space."),
            ("port alone", "RFC 9110, 4.2.1", b":80", "A port needs a host; refused by choice."),
            ("IPv6 without brackets", "RFC 3986, 3.2.2", b"::1", "Brackets are required."),
            ("IPv6 with one bracket", "RFC 3986, 3.2.2", b"[::1", "The bracket stays open."),
            ("IPv6 with the other bracket", "RFC 3986, 3.2.2", b"::1]", "No bracket opens."),
            ("IPv6 with more", "RFC 3986, 3.2.2", b"[::1]a", "Only a port may follow."),
            ("IPv6 with letters", "RFC 3986, 3.2.2", b"[::g]", "It is no address."),
            ("IPv6 too short", "RFC 3986, 3.2.2", b"[1:2:3]", "It is no address."),
            ("IPv6 too long", "RFC 3986, 3.2.2", b"[1:2:3:4:5:6:7:8:9]", "It is no address."),
            ("IPv6 with two gaps", "RFC 3986, 3.2.2", b"[1::2::3]", "It is no address."),
            ("IPv6 with a zone", "RFC 9110, 4.2.1", b"[fe80::1%25eth0]", "It is of no use here."),
            ("brackets alone", "RFC 3986, 3.2.2", b"[]", "It is no address."),
            ("IPv4 in brackets", "RFC 3986, 3.2.2", b"[127.0.0.1]", "Brackets are for IPv6."),
            ("with %zz", "RFC 3986, 2.1", b"h%zz", "These are no hexadecimal digits."),
            ("with % alone", "RFC 3986, 2.1", b"h%", "Two digits are missing."),
        )
    ),
    *_characters(
        "in Host",
        "RFC 3986, 3.2.2",
        (b"GET / HTTP/1.1\r\nHost: a", b"b\r\n\r\n"),
        {**_punctuation('"<>\\^`{|}'), **_CONTROLS, **_NOT_ASCII},
        "It may not be in a host.",
    ),
    Case(
        "Host missing",
        "RFC 9112, 3.2",
        _request(b"GET / HTTP/1.1"),
        400,
        "HTTP/1.1 requires it.",
    ),
    Case(
        "Host missing in HTTP/1.0",
        "RFC 9112, 3.2",
        _request(b"GET / HTTP/1.0"),
        200,
        "HTTP/1.0 does not require it.",
    ),
    Case("Host twice", "RFC 9112, 3.2", _host(b"a", b"b"), 400, "It is required once."),
    Case("Host twice the same", "RFC 9112, 3.2", _host(b"h", b"h"), 400, "It is required once."),
    Case("Host and an empty one", "RFC 9112, 3.2", _host(b"h", b""), 400, "It is required once."),
    Case(
        "Host twice in HTTP/1.0",
        "RFC 9112, 3.2",
        _request(b"GET / HTTP/1.0", b"Host: h", b"Host: h"),
        400,
        "This holds for every version.",
    ),
    Case(
        "Host twice in different case",
        "RFC 9112, 3.2",
        _request(b"GET / HTTP/1.1", b"Host: h", b"HOST: h"),
        400,
        "The names of fields are not case-sensitive.",
    ),
    Case(
        "Host invalid in HTTP/1.0",
        "RFC 9112, 3.2",
        _request(b"GET / HTTP/1.0", b"Host: a b"),
        400,
        "This holds for every version.",
    ),
    Case(
        "Host in lower case",
        "RFC 9110, 5.1",
        _request(b"GET / HTTP/1.1", b"host: h"),
        200,
        "The names of fields are not case-sensitive.",
    ),
    Case(
        "Host with a space before its colon",
        "RFC 9112, 5.1",
        _request(b"GET / HTTP/1.1", b"Host : h"),
        400,
        "A server must refuse white space between name and colon.",
    ),
)

LENGTHS = (
    Case("no body", "RFC 9112, 6.3", _post(body=b""), 200, "Without both fields its length is 0."),
    *(
        Case(f"Content-Length {what}", rfc, _length(value, body=body), 200, why)
        for what, rfc, value, body, why in (
            ("of the body", "RFC 9110, 8.6", b"5", b"hello", "It is the length of the body."),
            ("0", "RFC 9110, 8.6", b"0", b"", "A body may be empty."),
            ("00", "RFC 9110, 8.6", b"00", b"", "Leading zeros are digits."),
            ("005", "RFC 9110, 8.6", b"005", b"hello", "Leading zeros are digits."),
            (
                "with white space around",
                "RFC 9112, 5",
                b"\t 5 \t",
                b"hello",
                "It is no part of it.",
            ),
        )
    ),
    Case(
        "Content-Length with GET",
        "RFC 9110, 9.3.1",
        _request(b"GET / HTTP/1.1", b"Host: h", b"Content-Length: 5", body=b"hello"),
        200,
        "The body has no meaning, but has to be read.",
    ),
    Case(
        "Content-Length in HTTP/1.0",
        "RFC 9112, 6.3",
        _request(b"POST / HTTP/1.0", b"Content-Length: 5", body=b"hello"),
        200,
        "HTTP/1.0 has it too.",
    ),
    *(
        Case(f"Content-Length {what}", rfc, _length(value), 400, why)
        for what, rfc, value, why in (
            ("negative", "RFC 9110, 8.6", b"-5", "It has digits, and no sign."),
            ("minus zero", "RFC 9110, 8.6", b"-0", "It has digits, and no sign."),
            ("with a plus", "RFC 9110, 8.6", b"+5", "It has digits, and no sign."),
            ("hexadecimal", "RFC 9110, 8.6", b"0x5", "It has decimal digits."),
            ("of a letter", "RFC 9110, 8.6", b"a", "It has decimal digits."),
            ("with a letter", "RFC 9110, 8.6", b"5a", "It has decimal digits."),
            ("with a point", "RFC 9110, 8.6", b"5.0", "It has decimal digits."),
            ("with an exponent", "RFC 9110, 8.6", b"5e0", "It has decimal digits."),
            ("with an underscore", "RFC 9110, 8.6", b"0_5", "It has decimal digits."),
            ("empty", "RFC 9110, 8.6", b"", "It has at least one digit."),
            ("with a space inside", "RFC 9110, 8.6", b"0 5", "It has decimal digits."),
            ("with a tab inside", "RFC 9110, 8.6", b"5\t5", "It has decimal digits."),
            ("quoted", "RFC 9110, 8.6", b'"5"', "It has decimal digits."),
            ("with a parameter", "RFC 9110, 8.6", b"5;a", "It has no parameters."),
            ("with a unit", "RFC 9110, 8.6", b"5B", "It has decimal digits."),
            ("of Arabic digits", "RFC 9110, 8.6", b"\xd9\xa5", "Digits are those of ASCII."),
            ("of superscript digits", "RFC 9110, 8.6", b"\xb9", "Digits are those of ASCII."),
            ("with a no-break space", "RFC 9110, 8.6", b"\xa05", "It is no white space."),
            ("with a vertical tab", "RFC 9110, 8.6", b"\v5", "It is no white space."),
            ("with NUL", "RFC 9110, 8.6", b"5\0", "It has decimal digits."),
            ("with a CR inside", "RFC 9110, 8.6", b"5\r0", "A CR without LF is invalid."),
            ("listed twice", "RFC 9110, 8.6", b"5, 5", "A recipient may refuse it."),
            ("listed twice without space", "RFC 9110, 8.6", b"5,5", "A recipient may refuse it."),
            ("listed with another", "RFC 9110, 8.6", b"5, 6", "Which one holds is unknown."),
            ("with a comma", "RFC 9110, 8.6", b"5,", "A recipient may refuse a list."),
            ("with a comma first", "RFC 9110, 8.6", b",5", "A recipient may refuse a list."),
        )
    ),
    Case(
        "Content-Length twice the same",
        "RFC 9112, 6.3",
        _length(b"5", b"5"),
        400,
        "A recipient may take it for one, and need not.",
    ),
    Case(
        "Content-Length twice",
        "RFC 9112, 6.3",
        _length(b"5", b"6"),
        400,
        "Which one holds is unknown.",
    ),
    Case(
        "Content-Length twice with other zeros",
        "RFC 9112, 6.3",
        _length(b"5", b"05"),
        400,
        "Which one holds is unknown.",
    ),
    Case(
        "Content-Length and an empty one",
        "RFC 9112, 6.3",
        _length(b"5", b""),
        400,
        "It has at least one digit.",
    ),
    Case(
        "Content-Length twice in different case",
        "RFC 9110, 5.1",
        _post(b"Content-Length: 5", b"content-length: 6", body=b"hello\r\n\r\n"),
        400,
        "The names of fields are not case-sensitive.",
    ),
    Case(
        "Content-Length with a space before its colon",
        "RFC 9112, 5.1",
        _post(b"Content-Length : 5", body=b"hello\r\n\r\n"),
        400,
        "A server must refuse white space between name and colon.",
    ),
    Case(
        "Content-Length folded",
        "RFC 9112, 5.2",
        _post(b"Content-Length:", b" 5", body=b"hello\r\n\r\n"),
        400,
        "Folding is obsolete.",
    ),
    Case(
        "Content-Length of 20 digits",
        "RFC 9110, 8.6",
        _length(b"9" * 20),
        413,
        "It is well-formed, and more than can be counted here.",
    ),
    Case(
        "Content-Length of 20 digits and a letter",
        "RFC 9110, 8.6",
        _length(b"9" * 20 + b"a"),
        413,
        "It is refused before the letter.",
    ),
    Case(
        "Content-Length of 2 to the 64 and 5",
        "RFC 9110, 8.6",
        _length(str(2**64 + 5).encode("ascii")),
        413,
        "It must not overflow to 5.",
    ),
    Case(
        "Content-Length of 5000 digits",
        "RFC 9110, 8.6",
        _length(b"9" * 5000),
        413,
        "It is well-formed, and more than can be counted here.",
    ),
)

TRANSFER_CODINGS = (
    *(
        Case(f"Transfer-Encoding {what}", "RFC 9112, 7", _coding(value), 200, why)
        for what, value, why in (
            ("chunked", b"chunked", "Every recipient must know it."),
            ("Chunked", b"Chunked", "Codings are not case-sensitive."),
            ("CHUNKED", b"CHUNKED", "Codings are not case-sensitive."),
            ("chunked with white space around", b"\tchunked  ", "It is no part of the value."),
        )
    ),
    *(
        Case(f"Transfer-Encoding {what}", "RFC 9112, 6.1", _coding(*values), 501, why)
        for what, values, why in (
            ("gzip", (b"gzip",), "It is not understood here."),
            ("gzip, chunked", (b"gzip, chunked",), "It is not understood here."),
            ("gzip and chunked", (b"gzip", b"chunked"), "Two lines are one list."),
            ("deflate, gzip, chunked", (b"deflate, gzip, chunked",), "It is not understood here."),
            ("identity", (b"identity",), "It is no coding any more."),
            ("identity, chunked", (b"identity, chunked",), "It is no coding any more."),
            ("xchunked", (b"xchunked",), "It is another coding, which is not known."),
            ("chunkedx", (b"chunkedx",), "It is another coding, which is not known."),
            ("x-chunked", (b"x-chunked",), "It is another coding, which is not known."),
        )
    ),
    *(
        Case(f"Transfer-Encoding {what}", rfc, _coding(*values), 400, why)
        for what, rfc, values, why in (
            ("chunked, chunked", "RFC 9112, 6.1", (b"chunked, chunked",), "It is applied once."),
            ("chunked twice", "RFC 9112, 6.1", (b"chunked", b"chunked"), "It is applied once."),
            ("chunked, gzip", "RFC 9112, 6.3", (b"chunked, gzip",), "It has to be the last one."),
            ("chunked and gzip", "RFC 9112, 6.3", (b"chunked", b"gzip"), "It has to be the last."),
            ("chunked, identity", "RFC 9112, 6.3", (b"chunked, identity",), "It has to be last."),
            ("chunked and an empty one", "RFC 9112, 6.1", (b"chunked", b""), "It is ambiguous."),
            ("empty", "RFC 9112, 6.1", (b"",), "It names no coding."),
            ("comma", "RFC 9112, 6.1", (b",",), "It names no coding."),
            (
                "chunked after a comma",
                "RFC 9110, 5.6.1.2",
                (b", chunked",),
                "Empty elements must be ignored, but others read them in another way.",
            ),
            (
                "chunked before a comma",
                "RFC 9110, 5.6.1.2",
                (b"chunked,",),
                "Empty elements must be ignored, but others read them in another way.",
            ),
            ("chunked;q=1", "RFC 9112, 7.1", (b"chunked;q=1",), "It has no parameters."),
            ("chunked;", "RFC 9112, 7.1", (b"chunked;",), "It has no parameters."),
            ("quoted chunked", "RFC 9112, 7", (b'"chunked"',), "A coding is a token."),
            ("chunked gzip", "RFC 9112, 7", (b"chunked gzip",), "A comma separates codings."),
            ("chun ked", "RFC 9112, 7", (b"chun ked",), "A coding is a token."),
            ("chunked with NUL", "RFC 9110, 5.5", (b"chunked\0",), "It is not allowed."),
            ("chunked with vertical tab", "RFC 9110, 5.5", (b"\vchunked",), "It is not allowed."),
            ("chunked with form feed", "RFC 9110, 5.5", (b"chunked\f",), "It is not allowed."),
            ("chunked with CR", "RFC 9112, 2.2", (b"chunked\r",), "A CR without LF is invalid."),
            ("chunked with latin-1", "RFC 9112, 7", (b"chunked\xa0",), "A coding is a token."),
        )
    ),
    Case(
        "Transfer-Encoding in HTTP/1.0",
        "RFC 9112, 6.1",
        _request(
            b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"
        ),
        400,
        "Its framing must be treated as faulty.",
    ),
    Case(
        "Transfer-Encoding of HTTP/1.0, identity",
        "RFC 9112, 6.1",
        _request(b"POST / HTTP/1.0", b"Transfer-Encoding: identity"),
        400,
        "Its framing must be treated as faulty.",
    ),
    *(
        Case(
            f"Transfer-Encoding {what}",
            "RFC 9112, 6.3",
            _post(*fields, body=b"5\r\nhello\r\n0\r\n\r\n"),
            400,
            "A server may refuse both together, since it is an attempt at smuggling.",
        )
        for what, fields in (
            ("before Content-Length", (b"Transfer-Encoding: chunked", b"Content-Length: 15")),
            ("after Content-Length", (b"Content-Length: 15", b"Transfer-Encoding: chunked")),
            ("with Content-Length 0", (b"Content-Length: 0", b"Transfer-Encoding: chunked")),
            (
                "in lower case with Content-Length",
                (b"content-length: 5", b"transfer-encoding: chunked"),
            ),
            ("Chunked with Content-Length", (b"Content-Length: 5", b"Transfer-Encoding: Chunked")),
        )
    ),
    Case(
        "Transfer-Encoding with a space before its colon",
        "RFC 9112, 5.1",
        _post(b"Transfer-Encoding : chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        400,
        "A server must refuse white space between name and colon.",
    ),
    Case(
        "Transfer-Encoding folded",
        "RFC 9112, 5.2",
        _post(b"Transfer-Encoding:", b" chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        400,
        "Folding is obsolete.",
    ),
    Case(
        "Transfer-Encoding hidden in a fold",
        "RFC 9112, 5.2",
        _post(b"X: a", b" Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        400,
        "Folding is obsolete.",
    ),
    Case(
        "Transfer-Encoding after a bare CR",
        "RFC 9112, 2.2",
        _post(b"X: a\rTransfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        400,
        "A CR without LF makes an element invalid.",
    ),
    Case(
        "Transfer-Encoding after a bare LF",
        "RFC 9112, 2.2",
        _post(b"X: a\nTransfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        400,
        "A recipient may take LF for a line's end, and need not.",
    ),
    Case(
        "Transfer-Encoding of GET",
        "RFC 9112, 6.3",
        _request(
            b"GET / HTTP/1.1",
            b"Host: h",
            b"Transfer-Encoding: chunked",
            body=b"5\r\nhello\r\n0\r\n\r\n",
        ),
        200,
        "The body has no meaning, but has to be read.",
    ),
)

CHUNKS = (
    *(
        Case(f"chunked body {what}", "RFC 9112, 7.1", _chunked(body), 200, why)
        for what, body, why in (
            ("empty", b"0\r\n\r\n", "The last chunk may be the only one."),
            ("of two chunks", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "There may be many."),
            ("that ends with 000", b"5\r\nhello\r\n000\r\n\r\n", "The last one has zeros."),
            ("of CRLFs", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", "The data may be anything."),
            (
                "of what looks like its end",
                b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
                "It is data, by its size.",
            ),
        )
    ),
    *(
        Case(f"chunk size {what}", "RFC 9112, 7.1", _chunked(body + b"\r\n0\r\n\r\n"), 200, why)
        for what, body, why in (
            ("a", b"a\r\nhellohello", "It is hexadecimal."),
            ("A", b"A\r\nhellohello", "Hexadecimal digits may be in either case."),
            ("0005", b"0005\r\nhello", "Leading zeros are digits."),
            ("10", b"10\r\n0123456789abcdef", "It is sixteen."),
        )
    ),
    *(
        Case(f"chunk extension {what}", "RFC 9112, 7.1.1", _chunk(line), 200, why)
        for what, line, why in (
            ("name", b"5;a", "It must be ignored if it is not known."),
            ("name and value", b"5;a=b", "It must be ignored if it is not known."),
            ("quoted", b'5;a="b"', "A value may be quoted."),
            ("quoted with signs", b'5;a="b; c=\\"d\\"\t\\\\"', "They are part of the value."),
            ("twice", b"5;a=b;c", "There may be many."),
        )
    ),
    Case(
        "chunk extension of the last chunk",
        "RFC 9112, 7.1.1",
        _chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"),
        200,
        "The last chunk may have them as well.",
    ),
    *(
        Case(f"chunk size {what}", "RFC 9112, 7.1", _chunk(line), 400, why)
        for what, line, why in (
            ("negative", b"-5", "It has digits, and no sign."),
            ("with a plus", b"+5", "It has digits, and no sign."),
            ("with 0x", b"0x5", "It has hexadecimal digits alone."),
            ("with 0X", b"0X5", "It has hexadecimal digits alone."),
            ("with an underscore", b"0_5", "It has hexadecimal digits alone."),
            ("with h", b"5h", "It has hexadecimal digits alone."),
            ("of a letter", b"g", "It has hexadecimal digits alone."),
            ("with a point", b"5.0", "It has hexadecimal digits alone."),
            ("with a comma", b"5,", "It has hexadecimal digits alone."),
            ("with a colon", b"5:", "It has hexadecimal digits alone."),
            ("quoted", b'"5"', "It has hexadecimal digits alone."),
            ("empty", b"", "It has at least one digit."),
            ("missing before an extension", b";a=b", "It has at least one digit."),
            ("after a space", b" 5", "No white space comes before it."),
            ("after a tab", b"\t5", "No white space comes before it."),
            ("before a space", b"5 ", "White space may come before an extension only."),
            ("before a tab", b"5\t", "White space may come before an extension only."),
            ("with a space inside", b"0 5", "It has hexadecimal digits alone."),
            ("with NUL", b"5\0", "It has hexadecimal digits alone."),
            ("after NUL", b"\x005", "It has hexadecimal digits alone."),
            ("with vertical tab", b"5\v", "It is no white space."),
            ("with latin-1", b"\xb9", "Digits are those of ASCII."),
            ("of Arabic digits", b"\xd9\xa5", "Digits are those of ASCII."),
            ("before CR", b"5\r", "A CR without LF is invalid."),
        )
    ),
    *(
        Case(f"chunk size {what}", "RFC 9112, 7.1", _chunk(line), 413, why)
        for what, line, why in (
            ("of 17 digits", b"F" * 17, "It is well-formed, and over 64 bits."),
            ("2 to the 64", b"1" + b"0" * 16, "It must not overflow to 0."),
            ("2 to the 64 and 5", b"1" + b"0" * 15 + b"5", "It must not overflow to 5."),
            ("of 200 digits", b"9" * 200, "It is well-formed, and over 64 bits."),
            ("of 17 digits and a letter", b"F" * 17 + b"g", "It is refused before the letter."),
        )
    ),
    *(
        Case(f"chunk extension {what}", "RFC 9112, 7.1.1", _chunk(line), 400, why)
        for what, line, why in (
            ("with NUL", b"5;a=\0", "No controls are allowed."),
            ("with SOH", b"5;a=\1", "No controls are allowed."),
            ("with DEL", b"5;a=\x7f", "No controls are allowed."),
            ("with escape in its name", b"5;\x1b=a", "A name is a token."),
            ("with CR", b"5;a=\rb", "A CR without LF is invalid."),
            ("with LF", b"5;a=\nb", "An LF without CR ends no line."),
            ("with LF and a size", b"5;\n5", "An LF without CR ends no line."),
            ("with CR at its end", b"5;a\r", "A CR without LF is invalid."),
            ("with NUL in quotes", b'5;a="\0"', "A quoted string has no controls."),
            ("with LF in quotes", b'5;a="\n"', "A quoted string has no controls."),
            ("with CRLF in quotes", b'5;a="\r\n"', "A quoted string has no controls."),
            ("with an open quote", b'5;a="b', "The string does not end."),
            ("with text after the quotes", b'5;a="b"c', "Only a semicolon may follow."),
            ("without a name", b"5;=a", "A token has at least one character."),
            ("empty", b"5;", "A token has at least one character."),
            ("without a semicolon", b"5 a=b", "A semicolon comes before it."),
            ("without a value", b"5;a=", "A value has at least one character."),
            ("named with a bracket", b"5;[a]=b", "A name is a token."),
            ("of much", b"5;a=" + b"b" * _TOO_MUCH, "A server ought to limit their length."),
            ("of many", b"5" + b";a" * _TOO_MUCH, "A server ought to limit their length."),
        )
    ),
    *(
        Case(f"chunk {what}", rfc, _chunked(body), 400, why)
        for what, rfc, body, why in (
            ("size with LF", "RFC 9112, 2.2", b"5\nhello\r\n0\r\n\r\n", "A size ends with CRLF."),
            ("size with CR", "RFC 9112, 2.2", b"5\rhello\r\n0\r\n\r\n", "A size ends with CRLF."),
            ("data with LF", "RFC 9112, 2.2", b"5\r\nhello\n0\r\n\r\n", "Data ends with CRLF."),
            ("data with CR", "RFC 9112, 2.2", b"5\r\nhello\r0\r\n\r\n", "Data ends with CRLF."),
            (
                "data with CR CR",
                "RFC 9112, 2.2",
                b"5\r\nhello\r\r0\r\n\r\n",
                "Data ends with CRLF.",
            ),
            (
                "data with LF CR",
                "RFC 9112, 2.2",
                b"5\r\nhello\n\r0\r\n\r\n",
                "Data ends with CRLF.",
            ),
            ("without CRLF", "RFC 9112, 7.1", b"5\r\nhello0\r\n\r\n", "Data ends with CRLF."),
            ("too long", "RFC 9112, 7.1", b"5\r\nhello!\r\n0\r\n\r\n", "It has to have its size."),
            ("too short", "RFC 9112, 7.1", b"7\r\nhello\r\n0\r\n\r\n", "It has to have its size."),
            (
                "and an empty line",
                "RFC 9112, 7.1",
                b"5\r\nhello\r\n\r\n0\r\n\r\n",
                "A size has at least one digit.",
            ),
            (
                "of zero with data",
                "RFC 9112, 7.1",
                b"5\r\nhello\r\n0\r\nhello\r\n\r\n",
                "The last chunk has no data, and this is no trailer.",
            ),
            (
                "last with LF",
                "RFC 9112, 2.2",
                b"5\r\nhello\r\n0\n\r\n\r\n",
                "A size ends with CRLF.",
            ),
            (
                "last with LF LF",
                "RFC 9112, 2.2",
                b"5\r\nhello\r\n0\n\n\r\n\r\n",
                "A size ends with CRLF.",
            ),
            (
                "last and LF",
                "RFC 9112, 2.2",
                b"5\r\nhello\r\n0\r\n\n\r\n\r\n",
                "The body ends with CRLF.",
            ),
            (
                "last and CR",
                "RFC 9112, 2.2",
                b"5\r\nhello\r\n0\r\n\rX\r\n\r\n",
                "The body ends with CRLF.",
            ),
        )
    ),
)

TRAILERS = (
    *(
        Case(f"trailer {what}", "RFC 9112, 7.1.2", _trailer(*fields), 200, why)
        for what, fields, why in (
            ("field", (b"X: a",), "A trailer section may follow the last chunk."),
            ("fields", (b"X: a", b"Y:", b"X: b"), "There may be many."),
        )
    ),
    *(
        Case(f"trailer {what}", rfc, _trailer(*fields), 400, why)
        for what, rfc, fields, why in (
            ("folded", "RFC 9112, 5.2", (b"X: a", b" b"), "Folding is obsolete."),
            ("folded with a tab", "RFC 9112, 5.2", (b"X: a", b"\tb"), "Folding is obsolete."),
            ("after a space", "RFC 9112, 5.2", (b" X: a",), "Folding is obsolete."),
            ("with a space before its colon", "RFC 9112, 5.1", (b"X : a",), "It must be refused."),
            ("with a tab before its colon", "RFC 9112, 5.1", (b"X\t: a",), "It must be refused."),
            ("without a colon", "RFC 9112, 5", (b"X",), "It is no field line."),
            ("without a name", "RFC 9112, 5", (b": a",), "A token has at least one character."),
            ("with a bracket in its name", "RFC 9110, 5.1", (b"X[]: a",), "A name is a token."),
            ("with latin-1 in its name", "RFC 9110, 5.1", (b"\xe9: a",), "A name is a token."),
            ("with NUL in its name", "RFC 9110, 5.1", (b"X\0: a",), "A name is a token."),
            ("with NUL", "RFC 9110, 5.5", (b"X: a\0b",), "Controls are not allowed."),
            ("with escape", "RFC 9110, 5.5", (b"X: a\x1bb",), "Controls are not allowed."),
            ("with DEL", "RFC 9110, 5.5", (b"X: a\x7fb",), "Controls are not allowed."),
            ("with CR", "RFC 9112, 2.2", (b"X: a\rb",), "A CR without LF is invalid."),
            ("with LF", "RFC 9112, 2.2", (b"X: a\nY: b",), "An LF without CR ends no line."),
            ("with LF first", "RFC 9112, 2.2", (b"X:\nY: b",), "An LF without CR ends no line."),
            ("with CR at its end", "RFC 9112, 2.2", (b"X: a\r",), "A CR without LF is invalid."),
        )
    ),
    Case(
        "trailer too long",
        "RFC 6585, 5",
        _trailer(b"X: " + b"a" * _TOO_MUCH),
        431,
        "Trailers are as bounded as a head.",
    ),
    Case(
        "trailer name too long",
        "RFC 6585, 5",
        _trailer(b"a" * _TOO_MUCH + b": a"),
        431,
        "Trailers are as bounded as a head.",
    ),
    Case(
        "trailer without end",
        "RFC 6585, 5",
        _chunked(b"5\r\nhello\r\n0\r\nX: " + b"a" * _TOO_MUCH),
        431,
        "There is no need to read on.",
    ),
    Case(
        "trailers together too long",
        "RFC 6585, 5",
        _trailer(*(b"X: " + b"a" * 1024 for _ in range(20))),
        431,
        "Trailers are as bounded as a head.",
    ),
    Case(
        "200 trailers",
        "RFC 6585, 5",
        _trailer(*(b"X: a" for _ in range(200))),
        431,
        "Trailers are as bounded as a head.",
    ),
)


def _expecting(*values: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A request of which the values of Expect matter; its body does not wait."""
    expected = (b"Expect: " + value for value in values)
    return _request(
        b"POST / " + version, b"Host: h", *expected, b"Content-Length: 5", body=b"hello"
    )


EXPECTATIONS = (
    *(
        Case(f"Expect {what}", "RFC 9110, 10.1.1", request, 200, why)
        for what, request, why in (
            ("100-continue", _expecting(b"100-continue"), "The body need not wait for the 100."),
            ("100-Continue", _expecting(b"100-Continue"), "The value is not case-sensitive."),
            ("100-CONTINUE", _expecting(b"100-CONTINUE"), "The value is not case-sensitive."),
            (
                "100-continue of HTTP/1.0",
                _expecting(b"100-continue", version=b"HTTP/1.0"),
                "A server must ignore it there.",
            ),
            (
                "100-continue before chunks",
                _post(
                    b"Expect: 100-continue",
                    b"Transfer-Encoding: chunked",
                    body=b"5\r\nhello\r\n0\r\n\r\n",
                ),
                "It is the same with a chunked body.",
            ),
            (
                "100-continue without a body",
                _field(b"Expect: 100-continue"),
                "There is nothing to wait for.",
            ),
        )
    ),
    *(
        Case(f"Expect {what}", "RFC 9110, 10.1.1", _expecting(*values), 417, why)
        for what, values, why in (
            ("unknown", (b"x",), "It cannot be met."),
            ("200-ok", (b"200-ok",), "It cannot be met."),
            ("a little longer", (b"100-continued",), "It is another one, which cannot be met."),
            ("a little shorter", (b"100-continu",), "It is another one, which cannot be met."),
            ("with a value", (b"100-continue=1",), "It is another one, which cannot be met."),
            ("with another", (b"100-continue, x",), "One of them cannot be met."),
            ("and another", (b"100-continue", b"x"), "One of them cannot be met."),
            ("after another", (b"x", b"100-continue"), "One of them cannot be met."),
        )
    ),
)

CASES: tuple[Case, ...] = (
    *REQUEST_LINES,
    *METHODS,
    *VERSIONS,
    *TARGETS,
    *ABSOLUTE_TARGETS,
    *FIELDS,
    *LIMITS,
    *HOSTS,
    *LENGTHS,
    *TRANSFER_CODINGS,
    *CHUNKS,
    *TRAILERS,
    *EXPECTATIONS,
)
