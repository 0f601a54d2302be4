"""The table of settings, and the options that derive from it."""

from __future__ import annotations

import re
from collections import Counter

from deferpost.defaults import KINDS, PoolSettings, Settings
from deferpost.keys import FLAGS, KEYS, TOP_KEYS, TOPICS


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
        assert flag.topic in TOPICS
    by_name = {flag.name: flag for flag in FLAGS}
    assert by_name["process-size"].help == "Process pool: how many calls run at once."
    assert [flag.name for flag in FLAGS if flag.repeated] == ["listen", "webhook-hosts"]
    assert "thread-kill-grace" not in by_name
    assert "thread-kind" not in by_name


def test_the_channel_can_be_set_by_options() -> None:
    """Each setting of the HTTP front has an option, with its default and a line of help."""
    by_name = {flag.name: flag for flag in FLAGS}
    http = [name for topic in TOPICS if topic.startswith("HTTP") for name in names_of(topic)]
    assert http[0] == "wire"
    assert len(http) == 13
    assert {by_name[name.replace("_", "-")].path for name in http} == {(name,) for name in http}
    assert by_name["wire"].metavar == "deferpost|stock"
    assert by_name["head-timeout"].default == "15s"
    assert by_name["max-connections-per-client"].default == "0"


def names_of(topic: str) -> list[str]:
    """The keys of a topic."""
    return [key.name for key in TOPICS[topic]]


def test_examples_in_messages_are_good_values() -> None:
    """What a message shows as an example of a size or a duration is taken."""
    for key in TOP_KEYS.values():
        _, _, examples = key.shape.expected.partition(", such as ")
        if key.shape.metavar in {"SIZE", "DURATION"}:
            assert examples
            for text in re.findall('"(.*?)"', examples):
                key.shape.read(text)
