"""What a client prefers, by ``Prefer`` (RFC 7240), and what it is told of that.

Decides only.  A preference is a wish: what is not known, or malformed, is passed over (section 2),
and of one that comes twice the first counts.  A client that says ``handling=strict`` (section 4.4)
wants to hear of its mistakes instead: then what is passed over is an error (:func:`check_strict`).
Section 2 has such preferences ignored in any case; that the client can ask for more is how others
who know ``handling=strict`` read it, too.

Time and memory grow with the size of the fields alone, and no more than :data:`MOST_PREFERENCES`
are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from deferpost.errors import HTTPError

__all__ = ["MOST_PREFERENCES", "Handling", "Prefer", "applied", "check_strict", "prefer_of"]

#: Preferences that are looked at; what follows them counts as malformed.
MOST_PREFERENCES = 50

#: Seconds that stand for any longer ``wait`` (RFC 9111, section 1.2.2, of delta-seconds).
_LONGEST_WAIT = 2**31

#: Characters of a preference that are shown to its sender.
_LONGEST_SHOWN = 40

#: Preferences that are named in an error.
_MOST_SHOWN = 5

Handling = Literal["strict", "lenient"]

# Possessive throughout, so that no text makes them try anything twice.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_PART = rf"({_TOKEN})(?:[ \t]*+=[ \t]*+({_TOKEN}|{_QUOTED})?)?"
_PARAMETERS = rf"(?:[ \t]*+;[ \t]*+(?:{_PART})?)*+"
_MEMBER = re.compile(rf"{_PART}{_PARAMETERS}[ \t]*+(?=,|\Z)")
_GAP = re.compile(r"[ \t,]*+")
#: As much as quotes allow to be one member, whatever it is; an open quote takes all the rest.
_ANYTHING = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_DIGITS = re.compile("[0-9]++")


class Prefer(msgspec.Struct, frozen=True, kw_only=True):
    """What a client prefers.

    :ivar respond_async: whether it would rather have an answer before the work is done.
    :ivar wait: seconds, whole ones, that it is ready to wait for the answer; None for no word.
    :ivar handling: what is to become of its mistakes; None for no word.
    :ivar unknown: names of preferences that are not known here, in lower case, each once.
    :ivar malformed: what could not be read, as it may be shown to the client.
    """

    respond_async: bool = False
    wait: float | None = None
    handling: Handling | None = None
    unknown: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


#: Of a request without the field.
_NOTHING = Prefer()


def prefer_of(values: Iterable[bytes]) -> Prefer:
    """Read ``Prefer``.

    :param values: of all the fields of that name, in order.  Empty members and parameters are
        allowed, as are spaces around an equals sign; a value may be quoted, and an empty one is
        none.  Parameters are read and mean nothing: no preference that is known here has any.
    """
    found = _Found()
    for value in values:
        if not found.read(value.decode("latin-1")):
            break
    return found.result()


def check_strict(prefer: Prefer) -> None:
    """Refuse what cannot be honoured, where the client wants that.

    :raises deferpost.errors.HTTPError: 400: it says ``handling=strict``, and something that is
        not known here or malformed.
    """
    if prefer.handling != "strict" or not (prefer.unknown or prefer.malformed):
        return
    problems = [
        f"{words} {_listed(names)}"
        for words, names in (
            ("these preferences are not known here:", prefer.unknown),
            ("these are malformed:", prefer.malformed),
        )
        if names
    ]
    raise HTTPError(
        400,
        f"Prefer has handling=strict, and {'; '.join(problems)}.",
        extensions={"reason": "preference_not_honoured"},
    )


def applied(
    prefer: Prefer, *, respond_async: bool = False, wait: bool = False, handling: bool = False
) -> str | None:
    """The value of ``Preference-Applied`` (RFC 7240, section 3).

    :param prefer: what the client prefers; what it did not ask for is not said.
    :param respond_async: whether that was honoured.
    :param wait: whether that was honoured.
    :param handling: whether that was honoured.
    :returns: None where there is nothing to say.
    """
    said = []
    if respond_async and prefer.respond_async:
        said.append("respond-async")
    if wait and prefer.wait is not None:
        said.append(f"wait={prefer.wait:.0f}")
    if handling and prefer.handling is not None:
        said.append(f"handling={prefer.handling}")
    return ", ".join(said) or None


class _Found:
    """What was found so far: the names with their values, and what is malformed."""

    __slots__ = ("_count", "_malformed", "_values")

    def __init__(self) -> None:
        self._count = 0
        self._values: dict[str, str] = {}
        self._malformed: list[str] = []

    def read(self, text: str) -> bool:
        """Read one field; whether more may be read."""
        at = 0
        while (at := _end(_GAP, text, at)) < len(text):
            if self._count == MOST_PREFERENCES:
                self._malformed.append(f"more than {MOST_PREFERENCES} preferences")
                return False
            self._count += 1
            member = _MEMBER.match(text, at)
            if member is None:
                end = _end(_ANYTHING, text, at)
                self._malformed.append(_shown(text[at:end]))
                at = end
            else:
                self._values.setdefault(member[1].lower(), _unquoted(member[2]))
                at = member.end()
        return True

    def result(self) -> Prefer:
        """What that says."""
        values = self._values
        if not values and not self._malformed:
            return _NOTHING
        respond_async = values.pop("respond-async", None)
        if respond_async:  # it has no value, so that this is anyone's guess
            self._wrong("respond-async", respond_async)
        wait = values.pop("wait", None)
        seconds = None if wait is None else _seconds(wait)
        if wait is not None and seconds is None:
            self._wrong("wait", wait)
        handling = values.pop("handling", None)
        known: Handling | None = None
        if handling is not None and handling.lower() == "strict":
            known = "strict"
        elif handling is not None and handling.lower() == "lenient":
            known = "lenient"
        elif handling is not None:
            self._wrong("handling", handling)
        return Prefer(
            respond_async=respond_async == "",
            wait=seconds,
            handling=known,
            unknown=tuple(map(_shown, values)),
            malformed=tuple(self._malformed),
        )

    def _wrong(self, name: str, value: str) -> None:
        self._malformed.append(_shown(f"{name}={value}" if value else name))


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where what matches here ends."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _unquoted(word: str | None) -> str:
    """The value that a word says; an empty one is none."""
    if word is None:
        return ""
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def _seconds(value: str) -> float | None:
    if not _DIGITS.fullmatch(value):
        return None
    digits = value.lstrip("0") or "0"
    return float(_LONGEST_WAIT if len(digits) > 10 else min(int(digits), _LONGEST_WAIT))


def _shown(text: str) -> str:
    """Text of a client as an error shows it: short, and without controls."""
    text = text.strip(" \t")
    if len(text) > _LONGEST_SHOWN:
        text = text[: _LONGEST_SHOWN - 1] + "…"
    return "".join(each if each.isprintable() else "?" for each in text)


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
