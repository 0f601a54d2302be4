"""Requests by which clients have got a second one past a proxy, each with its answer here.

They are known from what was published about proxies and servers that read the same bytes in two
ways: a length for one of them and chunks for the other, a coding that only one of them sees, a line
that ends for one of them alone.  As with the others (:mod:`tests.wire.cases`) a request that is
refused comes with all that it takes.  Most of them bring along what would be the smuggled request,
of the path :data:`HIDDEN`, which must never be answered.
"""

from __future__ import annotations

from tests.wire.cases import Case

__all__ = ["HIDDEN", "SMUGGLING"]

HIDDEN = b"/hidden"

_HIDDEN = b"GET " + HIDDEN + b" HTTP/1.1\r\nHost: h\r\n\r\n"
_NO_CHUNKS = b"0\r\n\r\n"


def _post(*fields: bytes, body: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: h", *fields, b"", body])


def _get(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: h", *fields, b"", b""])


def _two_ways(*fields: bytes) -> bytes:
    """Has no body for those who see chunks, and a second request for those who see none."""
    return _post(*fields, body=_NO_CHUNKS + _HIDDEN)


def _within(*fields: bytes) -> bytes:
    """The second request is the body for those who see its length."""
    return _post(b"Content-Length: %d" % len(_HIDDEN), *fields, body=_HIDDEN)


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


LENGTH_AND_CODING = (
    *(
        Case(
            f"CL.TE: {what}",
            "RFC 9112, 6.3",
            _two_ways(b"Content-Length: 39", *fields),
            400,
            "A length and a coding together are an attempt at smuggling.",
        )
        for what, fields in (
            ("both", (b"Transfer-Encoding: chunked",)),
            ("identity", (b"Transfer-Encoding: identity",)),
            ("coding in capitals", (b"TRANSFER-ENCODING: CHUNKED",)),
            ("an empty coding", (b"Transfer-Encoding:",)),
            ("both, dropped by Connection", (b"Transfer-Encoding: chunked", b"Connection: te")),
        )
    ),
    Case(
        "TE.CL: both",
        "RFC 9112, 6.3",
        _post(
            b"Transfer-Encoding: chunked",
            b"Content-Length: 4",
            body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(_HIDDEN), _HIDDEN),
        ),
        400,
        "A length and a coding together are an attempt at smuggling.",
    ),
    Case(
        "TE.CL: in HTTP/1.0",
        "RFC 9112, 6.1",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
        + _NO_CHUNKS
        + _HIDDEN,
        400,
        "HTTP/1.0 has no codings, and both together are an attempt at smuggling.",
    ),
    Case(
        "CL.0: a body with GET",
        "RFC 9110, 9.3.1",
        _get(b"Content-Length: %d" % len(_HIDDEN)) + _HIDDEN,
        200,
        "It is read as the body that it is, and never as a request.",
    ),
    Case(
        "CL.0: a body with HEAD",
        "RFC 9110, 9.3.2",
        _get(b"Content-Length: %d" % len(_HIDDEN), line=b"HEAD / HTTP/1.1") + _HIDDEN,
        200,
        "It is read as the body that it is, and never as a request.",
    ),
    Case(
        "TE.0: chunks with OPTIONS",
        "RFC 9112, 6.3",
        _get(b"Transfer-Encoding: chunked", line=b"OPTIONS / HTTP/1.1")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(_HIDDEN), _HIDDEN),
        200,
        "They are read as the body that they are, and never as a request.",
    ),
)

_NO_SPACE = "It is no white space, and not allowed in a value."
_NO_NAME = "It may not be in a name, which is a token."
_NO_CODING = "What is left is no name of a coding."
_FOLD = "Folding is obsolete, and some read it as a line of its own."
_NO_LINE_END = "It ends no line, but others take it for an end."

#: In each, some see chunks and others see none.
OBFUSCATED = tuple(
    Case(f"TE.TE: {what}", rfc, _two_ways(*line.split(b"|")), status, why)
    for what, rfc, line, status, why in (
        ("after a vertical tab", "RFC 9110, 5.5", b"Transfer-Encoding:\vchunked", 400, _NO_SPACE),
        ("after a form feed", "RFC 9110, 5.5", b"Transfer-Encoding:\fchunked", 400, _NO_SPACE),
        ("after NUL", "RFC 9110, 5.5", b"Transfer-Encoding:\0chunked", 400, _NO_SPACE),
        ("after 0xA0", "RFC 9112, 7", b"Transfer-Encoding:\xa0chunked", 400, _NO_CODING),
        ("after 0x85", "RFC 9112, 7", b"Transfer-Encoding:\x85chunked", 400, _NO_CODING),
        ("after CR", "RFC 9112, 2.2", b"Transfer-Encoding:\rchunked", 400, _NO_LINE_END),
        ("after LF", "RFC 9112, 2.2", b"Transfer-Encoding:\nchunked", 400, _NO_LINE_END),
        ("before vertical tab", "RFC 9110, 5.5", b"Transfer-Encoding: chunked\v", 400, _NO_SPACE),
        ("before DEL", "RFC 9110, 5.5", b"Transfer-Encoding: chunked\x7f", 400, _NO_SPACE),
        (
            "before a tab",
            "RFC 9112, 5",
            b"Transfer-Encoding: chunked\t",
            400,
            "White space that is no part of the value, but others take it for one.",
        ),
        ("before CR", "RFC 9112, 2.2", b"Transfer-Encoding: chunked\r", 400, _NO_LINE_END),
        ("tab before colon", "RFC 9112, 5.1", b"Transfer-Encoding\t: chunked", 400, _NO_NAME),
        ("VT before colon", "RFC 9110, 5.1", b"Transfer-Encoding\v: chunked", 400, _NO_NAME),
        ("NUL before colon", "RFC 9110, 5.1", b"Transfer-Encoding\0: chunked", 400, _NO_NAME),
        ("CR before colon", "RFC 9110, 5.1", b"Transfer-Encoding\r: chunked", 400, _NO_NAME),
        ("LF before colon", "RFC 9110, 5.1", b"Transfer-Encoding\n: chunked", 400, _NO_NAME),
        ("two colons", "RFC 9112, 7", b"Transfer-Encoding:: chunked", 400, _NO_CODING),
        ("behind a space", "RFC 9112, 5.2", b" Transfer-Encoding: chunked", 400, _FOLD),
        ("behind a tab", "RFC 9112, 5.2", b"\tTransfer-Encoding: chunked", 400, _FOLD),
        ("behind a vertical tab", "RFC 9110, 5.1", b"\vTransfer-Encoding: chunked", 400, _NO_NAME),
        ("behind NUL", "RFC 9110, 5.1", b"\0Transfer-Encoding: chunked", 400, _NO_NAME),
        ("behind 0xFF", "RFC 9110, 5.1", b"\xffTransfer-Encoding: chunked", 400, _NO_NAME),
        ("behind CR", "RFC 9112, 2.2", b"\rTransfer-Encoding: chunked", 400, _NO_LINE_END),
        ("in a fold with a tab", "RFC 9112, 5.2", b"Transfer-Encoding:|\tchunked", 400, _FOLD),
        ("before a fold", "RFC 9112, 5.2", b"Transfer-Encoding: chunked| x", 400, _FOLD),
        ("in a value, after LF", "RFC 9112, 2.2", b"X: x\nTransfer-Encoding: chunked", 400, _FOLD),
        ("in a value, LF CR", "RFC 9112, 2.2", b"X: x\n\rTransfer-Encoding: chunked", 400, _FOLD),
        ("in a name, after CR", "RFC 9112, 2.2", b"X\rTransfer-Encoding: chunked", 400, _NO_NAME),
        ("in brackets", "RFC 9112, 7", b"Transfer-Encoding: [chunked]", 400, _NO_CODING),
        ("in double quotes", "RFC 9112, 7", b'Transfer-Encoding: "chunked"', 400, _NO_CODING),
        ("with a comment", "RFC 9112, 7", b"Transfer-Encoding: chunked (x)", 400, _NO_CODING),
        ("with a weight", "RFC 9112, 7.1", b"Transfer-Encoding: chunked;q=0.1", 400, _NO_CODING),
        ("with a slash", "RFC 9112, 7", b"Transfer-Encoding: chunked/1", 400, _NO_CODING),
        ("= for the colon", "RFC 9112, 5", b"Transfer-Encoding=chunked", 400, "It has no colon."),
        ("no colon", "RFC 9112, 5", b"Transfer-Encoding chunked", 400, "It has no colon."),
        ("cow", "RFC 9112, 6.1", b"Transfer-Encoding: cow", 501, "It is not understood here."),
        ("chunk", "RFC 9112, 6.1", b"Transfer-Encoding: chunk", 501, "It is another coding."),
        (
            "'chunked'",
            "RFC 9112, 6.1",
            b"Transfer-Encoding: 'chunked'",
            501,
            "It is another coding.",
        ),
        (
            "x, chunked",
            "RFC 9112, 6.1",
            b"Transfer-Encoding: x, chunked",
            501,
            "It is not understood, as x is unknown.",
        ),
        (
            "x and chunked",
            "RFC 9112, 6.1",
            b"Transfer-Encoding: x|Transfer-Encoding: chunked",
            501,
            "Two lines are one list, and x is not understood here.",
        ),
        (
            "chunked and cow",
            "RFC 9112, 6.3",
            b"Transfer-Encoding: chunked|Transfer-encoding: cow",
            400,
            "Two lines are one list, in which chunked has to be the last.",
        ),
        (
            "chunked and identity",
            "RFC 9112, 6.3",
            b"Transfer-Encoding: chunked|transfer-encoding: identity",
            400,
            "Two lines are one list, in which chunked has to be the last.",
        ),
        (
            "chunked and chunked",
            "RFC 9112, 6.1",
            b"Transfer-Encoding: chunked|TRANSFER-ENCODING: chunked",
            400,
            "Two lines are one list, in which chunked may be once.",
        ),
        (
            "chunked,,chunked",
            "RFC 9112, 6.1",
            b"Transfer-Encoding: chunked,,chunked",
            400,
            "It may be once in a list.",
        ),
    )
)

#: What only looks like a coding is none.
LOOKALIKES = tuple(
    Case(
        f"no coding: {line.decode()}",
        "RFC 9110, 5.1",
        _within(line),
        200,
        "It is another field, and the length holds.",
    )
    for line in (
        b"Transfer_Encoding: chunked",
        b"X-Transfer-Encoding: chunked",
        b"Transfer-Encodin: chunked",
        b"Content-Encoding: chunked",
        b"TE: chunked",
        b"X: Transfer-Encoding: chunked",
    )
)

CHUNKS = tuple(
    Case(f"chunks: {what}", rfc, _chunked(body), 400, why)
    for what, rfc, body, why in (
        (
            "LF in an extension (TERM.EXT)",
            "RFC 9112, 7.1.1",
            b"5;x\nhello\r\n24\r\n0\r\n\r\n" + _HIDDEN + b"\r\n0\r\n\r\n",
            "An LF without CR ends no line, but others take it for an end.",
        ),
        (
            "CR in an extension",
            "RFC 9112, 7.1.1",
            b"5;x\rhello\r\n0\r\n\r\n" + _HIDDEN,
            "A CR without LF ends no line, but others take it for an end.",
        ),
        (
            "size that ends with LF (TERM.SIZE)",
            "RFC 9112, 2.2",
            b"5\nhello\r\n0\r\n\r\n" + _HIDDEN,
            "A size ends with CRLF.",
        ),
        (
            "two bytes that are not CRLF (SPILL)",
            "RFC 9112, 7.1",
            b"5\r\nhelloXX0\r\n\r\n" + _HIDDEN,
            "Others skip two bytes behind the data, whatever they are.",
        ),
        (
            "one LF behind the data (ONE.TWO)",
            "RFC 9112, 7.1",
            b"5\r\nhello\n0\r\n\r\n" + _HIDDEN,
            "Others skip one byte or two behind the data.",
        ),
        (
            "data one byte too short",
            "RFC 9112, 7.1",
            b"6\r\nhello\r\n0\r\n\r\n" + _HIDDEN,
            "The data has to end where its size says.",
        ),
        (
            "a space before an extension",
            "RFC 9112, 7.1.1",
            b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
            "Such white space should be parsed, but others read it in another way.",
        ),
        (
            "spaces within an extension",
            "RFC 9112, 7.1.1",
            b"5;a = b\r\nhello\r\n0\r\n\r\n",
            "Such white space should be parsed, but others read it in another way.",
        ),
        (
            "a space behind an extension",
            "RFC 9112, 7.1.1",
            b"5;a \r\nhello\r\n0\r\n\r\n",
            "No white space may end the line.",
        ),
        (
            "an open quote in an extension",
            "RFC 9112, 7.1.1",
            b'5;a="\r\nhello\r\n0\r\n\r\n',
            "The string does not end, and others read on to its end.",
        ),
        (
            "a second size in an extension",
            "RFC 9112, 7.1.1",
            b"5;;5\r\nhello\r\n0\r\n\r\n",
            "A semicolon comes before a name.",
        ),
        (
            "digits behind spaces",
            "RFC 9112, 7.1",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            "A size has no white space in it.",
        ),
        (
            "a size before LF CR",
            "RFC 9112, 7.1",
            b"5\n\rhello\r\n0\r\n\r\n",
            "A size ends with CRLF.",
        ),
        (
            "the last one ends with CR CR LF",
            "RFC 9112, 2.2",
            b"5\r\nhello\r\n0\r\r\n\r\n",
            "A CR without LF is invalid.",
        ),
        (
            "the last one is 0x0",
            "RFC 9112, 7.1",
            b"5\r\nhello\r\n0x0\r\n\r\n",
            "It has hexadecimal digits alone.",
        ),
        (
            "a trailer that ends with LF",
            "RFC 9112, 2.2",
            b"0\r\nX: a\n\r\n" + _HIDDEN,
            "An LF without CR ends no line, but others take it for an end.",
        ),
        (
            "a trailer Content-Length",
            "RFC 9110, 6.5.1",
            b"0\r\nContent-Length: 5\r\n\r\n" + _HIDDEN,
            "A field about the framing must not be a trailer.",
        ),
        (
            "a trailer Transfer-Encoding",
            "RFC 9110, 6.5.1",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + _HIDDEN,
            "A field about the framing must not be a trailer.",
        ),
        (
            "a request line for a trailer",
            "RFC 9112, 7.1.2",
            b"0\r\n" + _HIDDEN,
            "The chunks have not ended, and this is no field.",
        ),
    )
)

TRAILERS = tuple(
    Case(
        f"chunks: a trailer {line.decode()}",
        "RFC 9110, 6.5.1",
        _chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"),
        200,
        "It is dropped, and means nothing to this request or to the next.",
    )
    for line in (
        b"Host: other",
        b"Host: a b",
        b"Connection: close",
        b"Proxy-Connection: close",
        b"Expect: 100-continue",
        b"X-Request-ID: other",
        b"Authorization: Basic YTpi",
    )
)

LENGTHS = tuple(
    Case(f"CL.CL: {what}", "RFC 9112, 6.3", _two_ways(*fields), 400, why)
    for what, fields, why in (
        ("two", (b"Content-Length: 5", b"Content-Length: 0"), "Which one holds is unknown."),
        (
            "two in different case",
            (b"content-length: 5", b"CONTENT-LENGTH: 38"),
            "The names of fields are not case-sensitive.",
        ),
        ("a list", (b"Content-Length: 5, 38",), "Which one holds is unknown."),
        ("a list of the same", (b"Content-Length: 5, 5",), "A recipient may refuse it."),
        ("behind a vertical tab", (b"Content-Length:\v5",), _NO_SPACE),
        ("before a vertical tab", (b"Content-Length: 5\v",), _NO_SPACE),
        ("before a tab and a digit", (b"Content-Length: 5\t0",), "It has decimal digits."),
        ("in a fold", (b"Content-Length: 5", b" 0"), _FOLD),
        ("tab before colon", (b"Content-Length\t: 5",), _NO_NAME),
        ("CR before colon", (b"Content-Length\r: 5",), _NO_NAME),
        ("behind NUL", (b"\0Content-Length: 5",), _NO_NAME),
        ("in a value, after LF", (b"X: x\nContent-Length: 5",), _NO_LINE_END),
        ("in a value, after CR", (b"X: x\rContent-Length: 5",), _NO_LINE_END),
        ("octal", (b"Content-Length: 0o5",), "It has decimal digits."),
        ("with a plus", (b"Content-Length: +5",), "It has digits, and no sign."),
        ("with an underscore", (b"Content-Length: 3_8",), "It has decimal digits."),
        ("of wide digits", (b"Content-Length: \xef\xbc\x95",), "Digits are those of ASCII."),
    )
)

LINES = (
    *(
        Case(f"line: {what}", rfc, line + b"Host: h\r\n\r\n" + _HIDDEN, 400, why)
        for what, rfc, line, why in (
            (
                "a second one behind LF",
                "RFC 9112, 2.2",
                b"GET / HTTP/1.1\nGET /hidden HTTP/1.1\r\n",
                _NO_LINE_END,
            ),
            (
                "a field behind LF",
                "RFC 9112, 2.2",
                b"GET / HTTP/1.1\nX: y\r\n",
                _NO_LINE_END,
            ),
            ("two targets", "RFC 9112, 3", b"GET / /hidden HTTP/1.1\r\n", "It has one target."),
            (
                "two versions",
                "RFC 9112, 3",
                b"GET / HTTP/1.1 HTTP/1.0\r\n",
                "It ends with its version.",
            ),
            (
                "a request in the target",
                "RFC 9112, 3.2",
                b"GET /%20HTTP/1.1\r\nX: \0 HTTP/1.1\r\n",
                "It ends with its version.",
            ),
            ("tabs", "RFC 9112, 3", b"GET\t/\tHTTP/1.1\r\n", "One SP separates."),
            ("form feeds", "RFC 9112, 3", b"GET\f/\fHTTP/1.1\r\n", "One SP separates."),
            ("vertical tabs", "RFC 9112, 3", b"GET\v/\vHTTP/1.1\r\n", "One SP separates."),
            ("CRs", "RFC 9112, 3", b"GET\r/\rHTTP/1.1\r\n", "One SP separates."),
            ("no-break spaces", "RFC 9112, 3", b"GET\xa0/\xa0HTTP/1.1\r\n", "One SP separates."),
            ("NUL in the target", "RFC 9112, 3.2", b"GET /\0 HTTP/1.1\r\n", "It is no pchar."),
            ("a colon", "RFC 9112, 3", b"GET / HTTP/1.1:\r\n", "It ends with its version."),
            ("a fold", "RFC 9112, 2.2", b"GET /\r\n HTTP/1.1\r\n", "It is one line."),
        )
    ),
    Case(
        "line: many empty ones before it, then LF",
        "RFC 9112, 2.2",
        b"\r\n\n" + _get(),
        400,
        "One empty line is let pass, and it ends with CRLF.",
    ),
    Case(
        "line: method override",
        "RFC 9110, 9.1",
        _get(b"X-HTTP-Method-Override: POST", b"X-Method: DELETE"),
        200,
        "No field changes the method.",
    ),
)

HOSTS = tuple(
    Case(f"host: {what}", rfc, _post(*fields, body=_HIDDEN), 400, why)
    for what, rfc, fields, why in (
        ("a second one", "RFC 9112, 3.2", (b"Host: other",), "It is required once."),
        ("a second one in a fold", "RFC 9112, 5.2", (b" Host: other",), _FOLD),
        ("a second one behind LF", "RFC 9112, 2.2", (b"X: y\nHost: other",), _NO_LINE_END),
        ("a second, empty one", "RFC 9112, 3.2", (b"hOST:",), "It is required once."),
        ("a second with a space", "RFC 9112, 5.1", (b"Host : other",), _NO_NAME),
        ("a second one after NUL", "RFC 9110, 5.1", (b"\0Host: other",), _NO_NAME),
    )
)

HOST_FIELDS = (
    Case(
        "host: of the target, against the field",
        "RFC 9112, 3.2.2",
        _get(line=b"GET http://internal/a HTTP/1.1"),
        200,
        "The target's host takes the place of the field's.",
    ),
    Case(
        "host: of the target, against two fields",
        "RFC 9112, 3.2",
        _get(b"Host: b", line=b"GET http://h/ HTTP/1.1"),
        400,
        "It is required once, with every form of target.",
    ),
    Case(
        "host: other fields",
        "RFC 9110, 7.2",
        _get(b"X-Forwarded-Host: other", b"X-Host: other", b"Forwarded: host=other"),
        200,
        "They are for whoever trusts the proxy in front.",
    ),
)

CONNECTIONS = tuple(
    Case(f"connection: {what}", "RFC 9110, 7.6.1", _get(*fields), 200, why)
    for what, fields, why in (
        ("content-length", (b"Connection: content-length",), "It removes nothing here."),
        ("host", (b"Connection: close, host",), "It removes nothing here, Host least of all."),
        ("close, keep-alive", (b"Connection: close, keep-alive",), "The stricter one holds."),
        (
            "keep-alive and close",
            (b"Connection: keep-alive", b"Connection: close"),
            "Two lines are one list, of which the stricter one holds.",
        ),
        ("empty elements", (b"Connection: ,, close ,",), "Empty elements are ignored."),
        ("closed", (b"Connection: closed",), "It is another option, which is not known."),
        ("Proxy-Connection", (b"Proxy-Connection: close",), "It is no field of HTTP."),
        (
            "upgrade to h2c",
            (b"Connection: Upgrade", b"Upgrade: h2c"),
            "A server may ignore it, so the next request is one of HTTP/1.1.",
        ),
        (
            "upgrade to WebSocket",
            (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 1"),
            "A server may ignore it, so the next request is one of HTTP/1.1.",
        ),
    )
)

UPGRADES = (
    Case(
        "connection: upgrade with a length",
        "RFC 9110, 7.8",
        _within(b"Connection: Upgrade", b"Upgrade: h2c"),
        200,
        "The body is one of the request, and not of the other protocol.",
    ),
    Case(
        "connection: upgrade with chunks",
        "RFC 9110, 7.8",
        _post(
            b"Connection: Upgrade",
            b"Upgrade: h2c",
            b"Transfer-Encoding: chunked",
            body=b"5\r\nhello\r\n0\r\n\r\n",
        ),
        200,
        "The body is one of the request, and not of the other protocol.",
    ),
    Case(
        "connection: upgrade with bad chunks",
        "RFC 9112, 7.1",
        _post(
            b"Connection: Upgrade",
            b"Upgrade: h2c",
            b"Transfer-Encoding: chunked",
            body=b"5\r\nhelloXX0\r\n\r\n" + _HIDDEN,
        ),
        400,
        "Data ends with CRLF, with an upgrade as without.",
    ),
    Case(
        "connection: upgrade with a length and a coding",
        "RFC 9112, 6.3",
        _two_ways(
            b"Connection: Upgrade",
            b"Upgrade: h2c",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
        ),
        400,
        "A length and a coding together are an attempt at smuggling.",
    ),
    Case(
        "connection: expectation with a second request",
        "RFC 9110, 10.1.1",
        _within(b"Expect: 100-continue"),
        200,
        "The body need not wait for the 100, and is one.",
    ),
    Case(
        "connection: unknown expectation with a second request",
        "RFC 9110, 10.1.1",
        _within(b"Expect: 100-continue, x"),
        417,
        "Nobody knows whether the body comes, so the connection ends.",
    ),
)

SMUGGLING: tuple[Case, ...] = (
    *LENGTH_AND_CODING,
    *OBFUSCATED,
    *LOOKALIKES,
    *LENGTHS,
    *CHUNKS,
    *TRAILERS,
    *LINES,
    *HOSTS,
    *HOST_FIELDS,
    *CONNECTIONS,
    *UPGRADES,
)
