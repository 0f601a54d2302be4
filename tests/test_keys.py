"""The table of settings, and the options that derive from it."""

from __future__ import annotations

import re
from collections import Counter

from deferpost.defaults import KINDS, PoolSettings, Settings
from deferpost.keys import FLAGS, KEYS


def test_the_table_describes_exactly_the_settings() -> None:
    """Each field has a row, and each row a field, for every kind of pool."""
    fields = set(Settings.__struct_fields__) - {"pools"}
    assert Counter(key.name for key in KEYS if not key.kinds) == Counter(fields)
    assert {key.name for key in KEYS if key.kinds} == set(PoolSettings.__struct_fields__)
    for kind in KINDS:
        names = Counter(key.name for key in KEYS if kind in key.kinds)
        assert set(names.values()) == {1}


def test_options_are_told_in_full() -> None:
    """Each option has its own name, a metavar and a line of help."""
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    for flag in FLAGS:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", flag.name)
        assert flag.metavar
        assert flag.help.endswith(".")
    by_name = {flag.name: flag for flag in FLAGS}
    assert by_name["process-size"].help == "Process pool: how many calls run at once."
    assert [flag.name for flag in FLAGS if flag.repeated] == ["listen"]
    assert "thread-kill-grace" not in by_name
    assert "thread-kind" not in by_name
