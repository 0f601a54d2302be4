"""Structured fields (RFC 9651), as far as signatures, digests and keys need them.

This module decides what a dictionary says, or a field of one item: items and inner lists with
parameters, of integers, strings, tokens, byte sequences and booleans.  It is stricter than it has
to be: a decimal, a date, a display string, a key that comes twice and base64 without its padding
are errors here, too.  It never guesses.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

__all__ = [
    "Bare",
    "InnerList",
    "Item",
    "Token",
    "inner_list_text",
    "item_text",
    "parse_dictionary",
    "parse_item",
]


class Token(str):
    """A token, which is written without quotes."""

    __slots__ = ()


#: An item without its parameters: an integer, a string, a token, bytes or a boolean.
Bare: TypeAlias = int | str | Token | bytes | bool


class Item(msgspec.Struct, frozen=True):
    """A value and its parameters, in order."""

    value: Bare
    parameters: Mapping[str, Bare] = {}


class InnerList(msgspec.Struct, frozen=True):
    """Items in parentheses, and the parameters of the whole."""

    items: tuple[Item, ...]
    parameters: Mapping[str, Bare] = {}


_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_INTEGER = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_SPACES = re.compile(" *")
_BLANKS = re.compile("[ \t]*")


class _Reader:
    """A field's text, and how far it was read."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what matches here, if anything does."""
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def take_one(self, character: str) -> bool:
        """Read one character, if it is here."""
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self.at == len(self.text)

    def wrong(self, expected: str) -> ValueError:
        """The error for something else than what is to be here."""
        return ValueError(f"{expected} is expected at character {self.at + 1}")

    # From here on as RFC 9651, section 4.2, has it.

    def key(self) -> str:
        found = self.take(_KEY)
        if found is None:
            raise self.wrong("a key")
        return found[0]

    def bare(self) -> Bare:
        if (found := self.take(_STRING)) is not None:
            return re.sub(r"\\(.)", r"\1", found[1])
        if (found := self.take(_INTEGER)) is not None:
            return int(found[0])
        if (found := self.take(_BYTES)) is not None:
            try:
                return base64.b64decode(found[1], validate=True)
            except binascii.Error:
                raise self.wrong("base64 before the place that") from None
        if (found := self.take(_BOOLEAN)) is not None:
            return found[1] == "1"
        if (found := self.take(_TOKEN)) is not None:
            return Token(found[0])
        raise self.wrong("a value")

    def parameters(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.take_one(";"):
            self.take(_SPACES)
            key = self.key()
            if key in found:
                raise ValueError(f"the parameter {key} comes twice")
            found[key] = self.bare() if self.take_one("=") else True
        return found

    def item(self) -> Item:
        return Item(self.bare(), self.parameters())

    def member(self) -> Item | InnerList:
        if not self.take_one("("):
            return self.item()
        items: list[Item] = []
        while True:
            spaced = bool(self.take(_SPACES)[0])  # type: ignore[index]  # it matches nothing, too
            if self.take_one(")"):
                return InnerList(tuple(items), self.parameters())
            if items and not spaced:
                raise self.wrong("a space or a closing parenthesis")
            items.append(self.item())


def parse_dictionary(lines: Iterable[bytes]) -> dict[str, Item | InnerList]:
    """Read a dictionary.

    :param lines: the values of all fields of that name, in order.
    :returns: the members in order; empty where no line says anything.
    :raises ValueError: they are not one.
    """
    text = ", ".join(line.decode("latin-1").strip(" \t") for line in lines)
    reader = _Reader(text.strip(" "))
    members: dict[str, Item | InnerList] = {}
    while not reader.ended:
        key = reader.key()
        if key in members:
            raise ValueError(f"the key {key} comes twice")
        if reader.take_one("="):
            members[key] = reader.member()
        else:
            members[key] = Item(True, reader.parameters())
        reader.take(_BLANKS)
        if reader.ended:
            break
        if not reader.take_one(","):
            raise reader.wrong("a comma")
        reader.take(_BLANKS)
        if reader.ended:
            raise reader.wrong("a member after the comma")
    return members


def parse_item(lines: Iterable[bytes]) -> Item:
    """Read a field that is one item.

    :param lines: the values of all fields of that name, in order.
    :raises ValueError: they are not one.
    """
    text = ", ".join(line.decode("latin-1").strip(" \t") for line in lines)
    reader = _Reader(text.strip(" "))
    found = reader.item()
    if not reader.ended:
        raise reader.wrong("the end")
    return found


def _bare_text(value: Bare) -> str:
    if isinstance(value, bool):
        return f"?{value:d}"
    if isinstance(value, int):
        if abs(value) >= 10**15:
            raise ValueError(f"{value} has more than 15 digits")
        return str(value)
    if isinstance(value, bytes):
        return f":{base64.b64encode(value).decode('ascii')}:"
    if isinstance(value, Token):
        return value
    if not re.fullmatch("[ -~]*", value):
        raise ValueError("a string has characters of ASCII alone, and no controls")
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'


def _parameters_text(parameters: Mapping[str, Bare]) -> str:
    return "".join(
        f";{key}" if value is True else f";{key}={_bare_text(value)}"
        for key, value in parameters.items()
    )


def item_text(item: Item) -> str:
    """An item as it is written in a field.

    :raises ValueError: it cannot be written.
    """
    return _bare_text(item.value) + _parameters_text(item.parameters)


def inner_list_text(members: InnerList) -> str:
    """An inner list as it is written in a field.

    :raises ValueError: it cannot be written.
    """
    return f"({' '.join(map(item_text, members.items))}){_parameters_text(members.parameters)}"
