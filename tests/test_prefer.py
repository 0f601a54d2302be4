"""What clients prefer, and what they are told of that (RFC 7240)."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import HTTPError
from deferpost.prefer import MOST_PREFERENCES, Prefer, applied, check_strict, prefer_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Prefer()),
        ([b""], Prefer()),
        ([b" , ,\t"], Prefer()),  # RFC 9110, section 5.6.1: empty members
        ([b"respond-async"], Prefer(respond_async=True)),  # section 4.1
        ([b"respond-async, wait=10"], Prefer(respond_async=True, wait=10.0)),  # section 4.3
        ([b"respond-async", b"wait=10"], Prefer(respond_async=True, wait=10.0)),  # section 2
        ([b"Respond-ASYNC, WAIT=10"], Prefer(respond_async=True, wait=10.0)),
        ([b"wait \t=  10 , respond-async "], Prefer(respond_async=True, wait=10.0)),  # BWS
        ([b'wait="10"'], Prefer(wait=10.0)),
        ([b'wait="1\\0"'], Prefer(wait=10.0)),
        ([b"wait=0"], Prefer(wait=0.0)),
        ([b"wait=007"], Prefer(wait=7.0)),
        ([b"wait=99999999999999999999"], Prefer(wait=2.0**31)),
        ([b"wait=" + b"9" * 9999], Prefer(wait=2.0**31)),
        ([b"wait=" + b"0" * 9999 + b"5"], Prefer(wait=5.0)),
        # The first of a repeated preference counts, readable or not (section 2).
        ([b"wait=1, wait=2"], Prefer(wait=1.0)),
        ([b"wait=1", b"WAIT=2"], Prefer(wait=1.0)),
        ([b"wait=soon, wait=2"], Prefer(malformed=("wait=soon",))),
        ([b"handling=strict, handling=lenient"], Prefer(handling="strict")),
        # An empty value is none (section 2).
        ([b'respond-async=""'], Prefer(respond_async=True)),
        ([b"respond-async="], Prefer(respond_async=True)),
        ([b"wait"], Prefer(malformed=("wait",))),
        ([b'wait=""'], Prefer(malformed=("wait",))),
        # Parameters (section 2).
        ([b'respond-async;a;b=1; c = "d;," ;;e=, wait=3'], Prefer(respond_async=True, wait=3.0)),
        ([b"wait=5; respond-async"], Prefer(wait=5.0)),
        # Section 4.4.
        ([b"handling=lenient"], Prefer(handling="lenient")),
        ([b'Handling="Strict"'], Prefer(handling="strict")),
        ([b"handling"], Prefer(malformed=("handling",))),
        ([b"handling=loose"], Prefer(malformed=("handling=loose",))),
        # What is not known (section 2).
        ([b"return=minimal, Return=x"], Prefer(unknown=("return",))),
        ([b"foo, Bar;wait=5, wait=2"], Prefer(wait=2.0, unknown=("foo", "bar"))),
        ([b'foo="a, wait=9", wait=2'], Prefer(wait=2.0, unknown=("foo",))),
        ([b'foo="\\", wait=9", wait=2'], Prefer(wait=2.0, unknown=("foo",))),
        # What is malformed ends where its member does.
        ([b"wait=-1"], Prefer(malformed=("wait=-1",))),
        ([b"wait=1.5"], Prefer(malformed=("wait=1.5",))),
        ([b"respond-async=no"], Prefer(malformed=("respond-async=no",))),
        ([b"wait 5, respond-async"], Prefer(respond_async=True, malformed=("wait 5",))),
        ([b"=5, wait=2"], Prefer(wait=2.0, malformed=("=5",))),
        ([b";wait=5, wait=2"], Prefer(wait=2.0, malformed=(";wait=5",))),
        ([b"a=@b, wait=2"], Prefer(wait=2.0, malformed=("a=@b",))),
        ([b'a="b"c"d,e", wait=2'], Prefer(wait=2.0, malformed=('a="b"c"d,e"',))),
        ([b'"x", wait=2'], Prefer(wait=2.0, malformed=('"x"',))),
        # A quote that stays open takes the rest of its field, and nothing of the next.
        ([b'a="b, wait=1', b"wait=2"], Prefer(wait=2.0, malformed=('a="b, wait=1',))),
        ([b'a="b\\', b"wait=2"], Prefer(wait=2.0, malformed=('a="b\\',))),
        ([b"\xe4, wait=2"], Prefer(wait=2.0, malformed=("ä",))),
        ([b"a\0b"], Prefer(malformed=("a?b",))),
        ([b"@" * 100], Prefer(malformed=("@" * 39 + "…",))),
    ],
)
def test_what_is_read(values: list[bytes], expected: Prefer) -> None:
    """A field is read as RFC 7240 and RFC 9110 write it."""
    assert prefer_of(values) == expected


def test_most_preferences() -> None:
    """What is behind the fiftieth preference is not looked at, in whatever field it stands."""
    many = [b"x%d" % number for number in range(MOST_PREFERENCES - 1)]
    assert prefer_of([b", ".join([*many, b"wait=1"])]).wait == 1.0
    assert prefer_of([b", ".join([*many, b"wait=1"])]).malformed == ()
    for fields in ([b", ".join([*many, b"x", b"wait=1"])], [*many, b"x", b"wait=1"]):
        prefer = prefer_of(fields)
        assert prefer.wait is None
        assert prefer.malformed == ("more than 50 preferences",)


@pytest.mark.alone
@pytest.mark.parametrize(
    "piece", [b'"', b"a=", b"a;", b"a=b;", b'a="', b"\\", b'"\\', b" ", b" ;", b"a =", b",", b"a"]
)
def test_time_grows_with_the_size(piece: bytes) -> None:
    """No text takes more than its size in time."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece)) + b"\x01"
        started = time.perf_counter()
        prefer_of([text])
        return time.perf_counter() - started

    small = min(seconds(20_000) for _ in range(3))
    large = min(seconds(400_000) for _ in range(3))
    assert large < 0.001 + 100 * small  # 20 for linear, 400 for quadratic


PIECES = st.lists(
    st.sampled_from(["respond-async", "wait", "handling", "10", "strict", "a", *'= \t;,"\\@é\0']),
    max_size=30,
).map(lambda pieces: "".join(pieces).encode("latin-1"))


@given(st.lists(st.binary(max_size=100) | PIECES, max_size=5))
def test_any_bytes(values: list[bytes]) -> None:
    """Whatever a client sends is read without an error, and what is shown of it is short."""
    prefer = prefer_of(values)
    for text in (*prefer.unknown, *prefer.malformed):
        assert 0 < len(text) <= 40
        assert text.isprintable()
    assert len(prefer.unknown) + len(prefer.malformed) <= MOST_PREFERENCES + 1
    if prefer.handling != "strict" or not (prefer.unknown or prefer.malformed):
        check_strict(prefer)
    else:
        with pytest.raises(HTTPError) as caught:
            check_strict(prefer)
        assert len(caught.value.detail) < 700


TOKENS = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,8}", fullmatch=True)
QUOTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
NAMES = st.sampled_from(["respond-async", "Wait", "wait", "handling", "HANDLING"]) | TOKENS
VALUES = st.sampled_from(["", "10", '"5"', "strict", "lenient"]) | TOKENS | QUOTED
PART = st.builds(lambda name, mark, value: name + mark + value, NAMES, st.just("="), VALUES) | NAMES
MEMBER = st.lists(PART, min_size=1, max_size=3).map("; ".join)


@given(st.lists(MEMBER, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_one_field_or_several(members: list[str], cuts: list[bool]) -> None:
    """A list means the same in one field as in several, and well-formed members are read."""
    fields: list[list[str]] = [[]]
    for member, cut in zip(members, cuts, strict=False):
        if cut:
            fields.append([])
        fields[-1].append(member)
    whole = prefer_of([", ".join(members).encode()])
    assert prefer_of([" ,\t".join(field).encode() for field in fields]) == whole
    names = {member.partition(";")[0].partition("=")[0].lower() for member in members}
    assert set(whole.unknown) == names - {"respond-async", "wait", "handling"}
    assert {each.partition("=")[0].lower() for each in whole.malformed} <= names


@given(st.permutations(["respond-async", "wait=7", "handling=strict", "foo"]))
def test_any_order(members: list[str]) -> None:
    """Different preferences mean the same in any order."""
    assert prefer_of([",".join(members).encode()]) == Prefer(
        respond_async=True, wait=7.0, handling="strict", unknown=("foo",)
    )


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (
            b"handling=strict, respond-async, return=minimal",
            "Prefer has handling=strict, and these preferences are not known here: return.",
        ),
        (
            b"wait=soon, handling=strict",
            "Prefer has handling=strict, and these are malformed: wait=soon.",
        ),
        (
            b"a, b, c, d, e, f, g, @, handling=strict",
            "Prefer has handling=strict, and these preferences are not known here: "
            "a, b, c, d, e and 2 more; these are malformed: @.",
        ),
    ],
)
def test_strict(value: bytes, detail: str) -> None:
    """A client that wants to hear of its mistakes is told all of them."""
    with pytest.raises(HTTPError) as caught:
        check_strict(prefer_of([value]))
    assert caught.value.status == 400
    assert caught.value.detail == detail
    assert caught.value.extensions == {"reason": "preference_not_honoured"}


@pytest.mark.parametrize(
    "value", [b"", b"foo, @", b"handling=lenient, foo, wait=x", b"handling=strict, wait=5"]
)
def test_not_strict(value: bytes) -> None:
    """Nobody else is refused for what is passed over, nor is who made no mistake."""
    check_strict(prefer_of([value]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", None),
        (b"foo", None),
        (b"respond-async", "respond-async"),
        (b"wait=007, respond-async", "respond-async, wait=7"),
        (b"handling=STRICT, wait=99999999999", "wait=2147483648, handling=strict"),
    ],
)
def test_applied(value: bytes, said: str | None) -> None:
    """A client is told what was honoured of what it asked for, in a form that it could send."""
    prefer = prefer_of([value])
    assert applied(prefer, respond_async=True, wait=True, handling=True) == said
    assert applied(prefer) is None


def test_applied_in_part() -> None:
    """What was not honoured is not said."""
    prefer = prefer_of([b"respond-async, wait=5, handling=lenient"])
    names = ["respond_async", "wait", "handling"]
    texts = ["respond-async", "wait=5", "handling=lenient"]
    for flags in itertools.product([False, True], repeat=3):
        said = [text for text, flag in zip(texts, flags, strict=True) if flag]
        expected = ", ".join(said) or None
        assert applied(prefer, **dict(zip(names, flags, strict=True))) == expected
