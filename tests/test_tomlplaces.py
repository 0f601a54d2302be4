"""Where keys are defined in a TOML text."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deferpost.tomlplaces import MAX_LINES, line_of_keys


def test_tables_and_leaves_have_the_line_that_defines_them() -> None:
    """A key is at its own line, and a table at the line of its header."""
    text = "a = 1\n\n[t]\nb = 2\n\n[t.u]\nc = 3\n"
    assert line_of_keys(text) == {
        ("a",): 1,
        ("t",): 3,
        ("t", "b"): 4,
        ("t", "u"): 6,
        ("t", "u", "c"): 7,
    }


def test_comments_and_blank_lines_before_a_key_are_not_its_place() -> None:
    """Comments and blank lines define nothing, wherever they stand."""
    text = "# a = 0\n\n  # more\n\t\na = 1 # b = 2\n# end"
    assert line_of_keys(text) == {("a",): 5}


def test_an_empty_table_has_a_line() -> None:
    """A header defines its table even if nothing follows."""
    assert line_of_keys("[one]\n  [two]") == {("one",): 1, ("two",): 2}


def test_the_first_definition_counts() -> None:
    """A table that a subtable's header implies is where it is implied."""
    assert line_of_keys("[a.b]\n[a]\nc = 1") == {("a",): 1, ("a", "b"): 1, ("a", "c"): 3}


def test_a_key_below_a_later_header_belongs_to_that_table() -> None:
    """The same name in two tables has two places."""
    found = line_of_keys("[a]\nsize = 1\n[b]\nsize = 2")
    assert (found["a", "size"], found["b", "size"]) == (2, 4)


def test_dotted_keys_define_each_table_on_their_way() -> None:
    """A dotted key is found with all of its parents."""
    assert line_of_keys("[t]\nx.y = 1\nx.z = 2") == {
        ("t",): 1,
        ("t", "x"): 2,
        ("t", "x", "y"): 2,
        ("t", "x", "z"): 3,
    }


def test_keys_of_an_inline_table_share_its_line() -> None:
    """What an inline table defines is at the line of the table."""
    assert line_of_keys("\nt = { a = 1, b.c = 2 }") == {
        ("t",): 2,
        ("t", "a"): 2,
        ("t", "b"): 2,
        ("t", "b", "c"): 2,
    }


def test_quoted_keys_are_taken_as_they_mean() -> None:
    """Quotes and dots inside quotes do not split a key, nor do odd line separators."""
    assert line_of_keys('["a.b"]\n"c\u2028d" = 1\ne = 2') == {
        ("a.b",): 1,
        ("a.b", "c\u2028d"): 2,
        ("a.b", "e"): 3,
    }


def test_a_multi_line_string_is_one_statement() -> None:
    """Lines inside a string are text, even if they look like keys, tables or comments."""
    text = 'a = """\n# no comment\n[no.table]\nb = 1\n"""\nc = 2'
    assert line_of_keys(text) == {("a",): 1, ("c",): 6}


def test_a_multi_line_array_is_one_statement() -> None:
    """An array over several lines is at its first line, comments inside included."""
    text = "a = [\n  # comment ]\n  1,\n\n  [2],\n]\nb = 1"
    assert line_of_keys(text) == {("a",): 1, ("b",): 7}


def test_arrays_of_tables_are_placed_by_name() -> None:
    """The tables of an array share its name, and the first of them counts."""
    text = "[[t]]\na = 1\n[[t]]\na = 2\nb = 3"
    assert line_of_keys(text) == {("t",): 1, ("t", "a"): 2, ("t", "b"): 5}


def test_windows_line_ends_change_nothing() -> None:
    """The places are the same with CRLF line ends."""
    text = '# note\n\n[t]\na = """\nx\n"""\nb = [\n1]\n'
    assert line_of_keys(text.replace("\n", "\r\n")) == line_of_keys(text)


def test_a_faulty_statement_hides_what_follows() -> None:
    """Keys up to a statement that does not parse are still found."""
    assert line_of_keys("a = 1\nb =\nc = 3") == {("a",): 1}


def test_an_enormous_number_is_a_faulty_statement() -> None:
    """What Python refuses to read as a number is no crash."""
    assert line_of_keys(f"a = 1\nb = {'9' * 5000}") == {("a",): 1}


def test_a_long_text_is_not_looked_at() -> None:
    """A text over the limit has no places, and one at the limit has."""
    assert line_of_keys("\n" * (MAX_LINES - 1) + "a = 1") == {("a",): MAX_LINES}
    assert line_of_keys("\n" * MAX_LINES + "a = 1") == {}


def _all_paths(content: dict[str, Any], *above: str) -> set[tuple[str, ...]]:
    paths = set()
    for key, value in content.items():
        paths.add((*above, key))
        if isinstance(value, list) and isinstance(value[0], dict):
            paths |= _all_paths(value[0], *above, key)
        if isinstance(value, dict):
            paths |= _all_paths(value, *above, key)
    return paths


STATEMENTS = st.sampled_from(
    [
        "",
        "# c",
        "k{} = 1",
        "k{} = [\n# c\n1,\n]",
        'k{} = """\nk = 1\n\n"""',
        "k{}.x.y = 1",
        "k{} = {{ x = 1 }}",
        "'quoted {}' = ''",
        "[t{}]",
        "[t{}.u]",
        "[[a{}]]",
    ]
)


@given(st.lists(STATEMENTS), st.sampled_from(["\n", "\r\n"]))
def test_every_key_has_the_line_where_it_is_written(statements: list[str], end: str) -> None:
    """Whatever the statements, all keys of the text are found, in lines that name them."""
    text = "\n".join(statement.format(n) for n, statement in enumerate(statements))
    text = text.replace("\n", end)
    found = line_of_keys(text)
    assert set(found) == _all_paths(tomllib.loads(text))
    lines = text.split("\n")
    assert all(path[-1] in lines[line - 1] for path, line in found.items())
