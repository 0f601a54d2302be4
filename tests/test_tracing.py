"""What of a traceparent is understood, and what goes on to others (W3C Trace Context, level 1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.model import CallHead
from deferpost.tracing import Trace, parse_traceparent, trace_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
GOOD = f"00-{TRACE_ID}-{PARENT_ID}-01"


def head(*fields: tuple[bytes, bytes], id: str = "id-1") -> CallHead:
    """A call with these header fields."""
    return CallHead(id, "/", "POST", "/", b"", fields, ("192.0.2.1", 4711), None)


def test_a_traceparent_is_read() -> None:
    """The example of the recommendation is understood."""
    assert parse_traceparent(GOOD.encode()) == Trace(TRACE_ID, PARENT_ID, 1)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "nothing"),
        (GOOD.upper(), "capital letters"),
        (GOOD[:-1], "too short"),
        (GOOD + "0", "too long"),
        (GOOD + "-", "more than version 00 has"),
        (GOOD + "-00", "more than version 00 has"),
        ("ff" + GOOD[2:], "version ff"),
        ("0" + GOOD[2:], "half a version"),
        (f"00-{'0' * 32}-{PARENT_ID}-01", "a trace id of zeros"),
        (f"00-{TRACE_ID}-{'0' * 16}-01", "a parent id of zeros"),
        (f"00-{TRACE_ID}-{PARENT_ID}-1g", "flags that are no number"),
        (f"00-{TRACE_ID[:-1]}-{PARENT_ID}0-01", "a dash at another place"),
        (f"00_{TRACE_ID}-{PARENT_ID}-01", "no dash"),
        (GOOD + "\n", "a line end"),
        (GOOD.replace("0af", "\N{ARABIC-INDIC DIGIT ZERO}af"), "digits of another script"),
        (f"{GOOD},{GOOD}", "two"),
        ("01" + GOOD[2:] + "x", "a later version without a dash before the rest"),
    ],
    ids=lambda text: text.replace("\n", "-end") if len(text) < 50 else "value",
)
def test_what_is_not_valid_is_none(value: str, why: str) -> None:
    """What the grammar does not have is as if nothing had been sent."""
    assert parse_traceparent(value.encode()) is None


@pytest.mark.parametrize("rest", ["", "-", "-what the future brings"])
def test_a_later_version(rest: str) -> None:
    """Of a later version that part is read which this version has."""
    assert parse_traceparent(f"cc{GOOD[2:]}{rest}".encode()) == Trace(TRACE_ID, PARENT_ID, 1)


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f-]{50,60}", fullmatch=True))
def test_any_bytes(value: bytes) -> None:
    """Whatever a client sends is read as a good traceparent or as none."""
    trace = parse_traceparent(value)
    assert trace is None or value[3:52] == f"{trace.trace_id}-{trace.parent_id}".encode()


def test_what_goes_on() -> None:
    """The trace stays, the call becomes the parent, and the flags that have a meaning are kept."""
    for flags, kept in (("00", "00"), ("01", "01"), ("02", "02"), ("ff", "03")):
        trace = trace_of(head((b"TraceParent", f"00-{TRACE_ID}-{PARENT_ID}-{flags}".encode())))
        assert trace is not None
        version, trace_id, span_id, kept_flags = trace.traceparent.split("-")
        assert (version, trace_id, kept_flags) == ("00", TRACE_ID, kept)
        assert span_id != PARENT_ID
        assert parse_traceparent(trace.traceparent.encode()) is not None


def test_a_call_has_one_id_of_its_own() -> None:
    """The same call has the same id wherever it is asked, and another call has another."""
    field = (b"traceparent", GOOD.encode())
    first, again, other = (trace_of(head(field, id=id)) for id in ("a", "a", "b"))
    assert first == again
    assert first is not None
    assert other is not None
    assert first.span_id != other.span_id


def test_a_call_in_no_trace() -> None:
    """Without the field, with one that is wrong or with two, there is no trace."""
    good = (b"traceparent", GOOD.encode())
    assert trace_of(head()) is None
    assert trace_of(head((b"traceparent", b"1"))) is None
    assert trace_of(head(good, good)) is None
    assert trace_of(head((b"traceparent", b" " + GOOD.encode() + b"\t"))) is not None
