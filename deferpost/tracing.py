"""The trace that a call belongs to, as its client says (W3C Trace Context, level 1).

Decides what a ``traceparent`` says and what goes on to others in its place.  It records nothing:
spans are for the tracing library of whoever wants them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from deferpost.model import CallHead

__all__ = ["Trace", "parse_traceparent", "trace_of"]

#: Section 3.2.2: lower case only, version ff is none; a later version may have more after a dash.
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

#: The flags that are passed on: sampled (level 1), and that the trace id is random (level 2, which
#: has it kept with the id).  Section 3.2.2.5: what is reserved is set to zero.
_KNOWN_FLAGS = 0x03


class Trace(msgspec.Struct, frozen=True):
    """The place of a call in a trace.

    :ivar trace_id: of the whole trace, 32 hexadecimal digits.
    :ivar parent_id: of the client's span, 16 hexadecimal digits.
    :ivar flags: 0 to 255.
    :ivar span_id: of the call itself; empty until :func:`trace_of` has given it one.
    """

    trace_id: str
    parent_id: str
    flags: int
    span_id: str = ""

    @property
    def traceparent(self) -> str:
        """What the call sends along where it is a client itself."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & _KNOWN_FLAGS:02x}"


def parse_traceparent(value: bytes) -> Trace | None:
    """Read a ``traceparent``; None where it is not valid (section 3.2.2).

    :param value: of the field, without white space around it.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == b"00" and more is not None:
        return None
    if not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return Trace(trace_id.decode(), parent_id.decode(), int(flags, 16))


def trace_of(head: CallHead) -> Trace | None:
    """The place of a call in a trace, with an id for its own span; None where it is in none.

    The same call has the same id wherever it is asked for, in the daemon and in its workers.

    :param head: the call without its body.
    """
    value = _only(value for name, value in head.headers if name.lower() == b"traceparent")
    trace = None if value is None else parse_traceparent(value.strip(b" \t"))
    if trace is None:
        return None
    seed = repr((head.id, head.client, trace.trace_id, trace.parent_id)).encode()
    span_id = hashlib.blake2b(seed, digest_size=8).hexdigest()
    return msgspec.structs.replace(trace, span_id=span_id)


def _only(values: Iterable[bytes]) -> bytes | None:
    """The one value; None where there is none or are several (section 3.2.1: it is one field)."""
    found = list(values)
    return found[0] if len(found) == 1 else None
