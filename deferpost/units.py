"""Durations and sizes as people write them: ``"1m30s"``, ``"64KiB"``.

Each pair of functions is exact: what ``format_…`` writes, ``parse_…`` reads back to the same
number.  Ranges are the caller's business.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size", "shown"]

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MILLISECOND = Fraction(1, 1000)

_BYTES = {
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "kB": 10**3,
    "B": 1,
}

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile(" ?".join(rf"(?:({_NUMBER}) ?{unit})?" for unit in [*_SECONDS, "ms"]))
_SECONDS_ALONE = re.compile(_NUMBER)
_SIZE = re.compile(rf"({_NUMBER}) ?({'|'.join([*_BYTES, 'KB'])})?")

# Any float fits in this many characters without an exponent, and Python reads integers of this
# length without complaint (it refuses those over 4300 digits).
_LONGEST_TEXT = 400

# A value is shown to the operator in at most this many characters.
_LONGEST_SHOWN = 60


def shown(value: object) -> str:
    """Return a value as an error message shows it: on one line and not too long."""
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep table
        return "the given value"
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def parse_duration(value: object) -> float:
    """Read a duration.

    :param value: a number of seconds, or a text such as ``"250ms"``, ``"30s"``, ``"5m"``,
        ``"2h"``, ``"1d"``, ``"1m30s"`` or ``"30"``.
    :returns: seconds, finite and not negative.
    :raises ValueError: anything else, with a sentence that shows good examples.
    """
    try:
        if isinstance(value, str):
            return float(_seconds(value.strip()))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = float(value)
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f'{shown(value)} is not a duration: write for example "250ms", "30s", "5m" or "1m30s", '
        "or a number of seconds"
    )


def _seconds(text: str) -> Fraction:
    if not text or len(text) > _LONGEST_TEXT:
        raise ValueError(text)
    if _SECONDS_ALONE.fullmatch(text):
        return Fraction(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    numbers = [Fraction(number or "0") for number in match.groups()]
    factors: list[int | Fraction] = [*_SECONDS.values(), _MILLISECOND]
    products = (number * factor for number, factor in zip(numbers, factors, strict=True))
    return sum(products, Fraction(0))


def format_duration(seconds: float) -> str:
    """Write a duration so that :func:`parse_duration` reads back exactly the same number.

    :param seconds: finite and not negative.
    """
    digits, _, decimals = f"{Decimal(repr(float(seconds))):f}".partition(".")
    whole = int(digits)
    decimals = decimals.rstrip("0")
    if not whole and decimals:
        thousandths = decimals[:3].ljust(3, "0")
        return f"{_decimal(int(thousandths), decimals[3:])}ms"
    parts = []
    for unit in ("d", "h", "m"):
        count, whole = divmod(whole, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if whole or decimals or not parts:
        parts.append(f"{_decimal(whole, decimals)}s")
    return "".join(parts)


def _decimal(whole: int, decimals: str) -> str:
    return f"{whole}.{decimals}" if decimals else str(whole)


def parse_size(value: object) -> int:
    """Read a size.

    :param value: a whole number of bytes, or a text such as ``"4MB"`` (powers of 1000),
        ``"64KiB"`` (powers of 1024) or ``"4096"``.
    :returns: bytes, not negative.
    :raises ValueError: anything else, with a sentence that shows good examples.
    """
    try:
        if isinstance(value, str):
            return _whole(_bytes(value.strip()))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _whole(Fraction(value))
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f'{shown(value)} is not a size: write for example "4MB", "64KiB" or "512B", '
        "or a whole number of bytes"
    )


def _bytes(text: str) -> Fraction:
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > _LONGEST_TEXT:
        raise ValueError(text)
    number, unit = match.groups()
    return Fraction(number) * (1000 if unit == "KB" else _BYTES[unit or "B"])


def _whole(size: Fraction) -> int:
    if size < 0 or size.denominator != 1:
        raise ValueError(size)
    return size.numerator


def format_size(size: int) -> str:
    """Write a size so that :func:`parse_size` reads back exactly the same number.

    :param size: bytes, not negative.
    """
    exact = [f"{size // factor}{unit}" for unit, factor in _BYTES.items() if size % factor == 0]
    return min(exact, key=len) if size else "0B"
