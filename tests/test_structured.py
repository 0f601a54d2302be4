"""Structured fields, as far as signatures, digests and keys need them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deferpost.structured import (
    InnerList,
    Item,
    Token,
    inner_list_text,
    item_text,
    parse_dictionary,
    parse_item,
)


def test_a_dictionary() -> None:
    """Items, inner lists and parameters are read as RFC 9651 writes them."""
    members = parse_dictionary(
        [
            b'a=1, b="x\\"\\\\y" ,\tc=:AAE=:;p;q=?0',
            b' d=("@method" tok/en;r=-7  );created=5, e, f=?1;g, *h=()',
        ]
    )
    assert members == {
        "a": Item(1),
        "b": Item('x"\\y'),
        "c": Item(b"\0\1", {"p": True, "q": False}),
        "d": InnerList((Item("@method"), Item(Token("tok/en"), {"r": -7})), {"created": 5}),
        "e": Item(True),
        "f": Item(True, {"g": True}),
        "*h": InnerList(()),
    }
    assert type(members["d"].items[1].value) is Token  # type: ignore[union-attr]
    assert parse_dictionary([]) == parse_dictionary([b" "]) == {}


@pytest.mark.parametrize(
    "text",
    [
        "a=",
        "a=1,",
        "a=1 b=2",
        "a=1;",
        "a=1, a=2",
        "a=1;p;p",
        "A=1",
        "=1",
        ",",
        "a=1.5",
        "a=1234567890123456",
        "a=@1",
        'a=%"x"',
        'a="',
        'a="\\n"',
        'a="é"',
        "a=:AAE:",
        "a=:AA",
        "a=:A===:",
        "a=?2",
        "a=(",
        'a=("x""y")',
        'a=("x","y")',
        "a=(())",
        "a=\x00",
    ],
)
def test_not_a_dictionary(text: str) -> None:
    """What is not one is refused, as is what is read only by goodwill."""
    with pytest.raises(ValueError, match=r"expected|twice"):
        parse_dictionary([text.encode("latin-1")])


KEYS = st.from_regex(r"[a-z*][a-z0-9_\-.*]{0,8}", fullmatch=True)
BARE = st.one_of(
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*", fullmatch=True).map(Token),
    st.binary(),
    st.booleans(),
)
PARAMETERS = st.dictionaries(KEYS, BARE, max_size=3)
ITEMS = st.builds(Item, BARE, PARAMETERS)
LISTS = st.builds(InnerList, st.lists(ITEMS, max_size=3).map(tuple), PARAMETERS)


@given(st.dictionaries(KEYS, ITEMS | LISTS, max_size=4))
def test_what_is_written_is_read(members: dict[str, Item | InnerList]) -> None:
    """Whatever can be written is read as the same again."""
    written = [
        f"{key}={item_text(value) if isinstance(value, Item) else inner_list_text(value)}"
        for key, value in members.items()
    ]
    assert parse_dictionary([text.encode() for text in written]) == members
    assert list(parse_dictionary([" ,\t ".join(written).encode()])) == list(members)


@given(st.binary(max_size=200))
@example(b'sig=("@method";' * 10)
@example(b"a=:" + base64.b64encode(bytes(300)) + b":")
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a dictionary or an error of the one kind, never another."""
    try:
        members = parse_dictionary([data])
    except ValueError:
        return
    for value in members.values():
        text = item_text(value) if isinstance(value, Item) else inner_list_text(value)
        assert text.isascii()


@pytest.mark.parametrize("value", ["é", "\n", 10**15, -(10**15)])
def test_what_cannot_be_written(value: str | int) -> None:
    """A value that no field can hold is refused."""
    with pytest.raises(ValueError, match=r"characters of ASCII|more than 15 digits"):
        item_text(Item(value))


@pytest.mark.parametrize(
    ("lines", "item"),
    [
        ([b'"a b"'], Item("a b")),
        ([b"  tok;q=1 "], Item(Token("tok"), {"q": 1})),
        ([b'"a', b'b"'], Item("a, b")),  # RFC 9651, section 4.2: lines are one value
        ([b":AAE=:"], Item(b"\0\1")),
    ],
)
def test_an_item(lines: list[bytes], item: Item) -> None:
    """A field that is one item is read with its parameters."""
    assert parse_item(lines) == item


@pytest.mark.parametrize("lines", [[], [b""], [b'"a", "b"'], [b"a", b"a"], [b"(a)"], [b"a b"]])
def test_not_an_item(lines: list[bytes]) -> None:
    """What is no item, or more than one, is refused."""
    with pytest.raises(ValueError, match="expected"):
        parse_item(lines)
