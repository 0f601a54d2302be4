"""What a handler may put into a response: which header fields, and which text.

Decides only; whoever takes a handler's words in asks here first.
"""

from __future__ import annotations

import re

__all__ = ["FRAMING", "check_field", "field_bytes", "printable"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.1
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110, section 5.5

#: Fields that frame the message or the connection: the server's alone (RFC 9110, section 7.6.1).
FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_field(name: str, value: str) -> None:
    """Check a header field that a handler wants to send.

    :raises ValueError: HTTP does not permit it, or it is for the server to decide.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value of the header field {name} has control characters")
    if name.lower() in FRAMING:
        raise ValueError(f"a handler cannot set {name}: it is for the server to decide")


def field_bytes(value: str) -> bytes:
    """The value of a header field as it is sent: ISO-8859-1, or UTF-8 where that is not enough."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace")


def printable(text: object) -> str:
    """Something as text that UTF-8 can express: lone surrogates are escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
