"""Durations, sizes and values as people write them and are shown them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deferpost.units import format_duration, format_size, parse_duration, parse_size, shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1m30s", 90),
        ("1d2h3m4s5ms", 93784.005),
        ("1.5h", 5400),
        ("1m 30s", 90),
        ("30 s", 30),
        (" 30 ", 30),
        ("0.5", 0.5),
        (0, 0),
        (7, 7),
        (0.1, 0.1),
    ],
)
def test_durations_are_read(value: object, seconds: float) -> None:
    """A duration is a number of seconds or a text with units."""
    result = parse_duration(value)
    assert result == seconds
    assert type(result) is float


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "5M",
        "5 m m",
        "30s1m",
        "-1s",
        "-1",
        "nan",
        "1e3",
        "1_0",
        "٣s",
        pytest.param("9" * 399, id="not-finite"),
        pytest.param("9" * 5000, id="too-long"),
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        pytest.param(10**400, id="no-float"),
        True,
        None,
        [30],
        b"30s",
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    """Anything else raises one line that shows good examples."""
    with pytest.raises(ValueError, match=r'^.* is not a duration: .*"30s".*"1m30s".*$') as caught:
        parse_duration(value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.0005, "0.5ms"),
        (1.5, "1.5s"),
        (90, "1m30s"),
        (90.1, "1m30.1s"),
        (300, "5m"),
        (3600, "1h"),
        (129600, "1d12h"),
    ],
)
def test_durations_are_written_in_the_largest_units(seconds: float, text: str) -> None:
    """A duration is written as a person would."""
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
def test_every_duration_reads_back_exactly(seconds: float) -> None:
    """Writing and reading a duration gives the same number, to the last bit."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("4MB", 4_000_000),
        ("64KiB", 65_536),
        ("1kB", 1000),
        ("1KB", 1000),
        ("2GB", 2 * 10**9),
        ("2TB", 2 * 10**12),
        ("1MiB", 2**20),
        ("1GiB", 2**30),
        ("1TiB", 2**40),
        ("1.5KiB", 1536),
        ("7B", 7),
        (" 4 MB ", 4_000_000),
        ("4096", 4096),
        (0, 0),
        (4096, 4096),
        (1e6, 1_000_000),
    ],
)
def test_sizes_are_read(value: object, size: int) -> None:
    """A size is a number of bytes or a text with a unit."""
    result = parse_size(value)
    assert result == size
    assert type(result) is int


@pytest.mark.parametrize(
    "value",
    [
        "",
        "big",
        "4mb",
        "4XB",
        "MB",
        "-1",
        "0.1KiB",
        "1e3",
        pytest.param("9" * 401, id="too-long"),
        -1,
        0.5,
        float("nan"),
        float("inf"),
        False,
        None,
        {},
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    """Anything else raises one line that shows good examples."""
    with pytest.raises(ValueError, match=r'^.* is not a size: .*"4MB".*"64KiB".*$') as caught:
        parse_size(value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1500, "1500B"),
        (4_000_000, "4MB"),
        (16 * 2**20, "16MiB"),
        (2**40, "1TiB"),
    ],
)
def test_sizes_are_written_briefly(size: int, text: str) -> None:
    """A size is written with the unit that makes it short, and never rounded."""
    assert format_size(size) == text


@given(
    st.integers(min_value=0)
    | st.builds(
        lambda base, power, count: count * base**power,
        st.sampled_from([1000, 1024]),
        st.integers(0, 5),
        st.integers(0, 5000),
    )
)
def test_every_size_reads_back_exactly(size: int) -> None:
    """Writing and reading a size gives the same number."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("a\nb", r"'a\nb'"),
        ("x" * 100, "'" + "x" * 58 + "…"),
        ([int("f" * 5000, 16)], "the given value"),
    ],
)
def test_values_are_shown_on_one_short_line(value: object, text: str) -> None:
    """An error message shows what was given without being flooded by it."""
    assert shown(value) == text
