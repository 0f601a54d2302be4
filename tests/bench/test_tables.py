"""How figures are shown: tables, the page of the documentation, verdicts, and the JSON."""

from __future__ import annotations

from pathlib import Path

import docutils.core
import docutils.utils
import msgspec
import pytest

from bench.__main__ import main
from bench.page import page
from bench.results import Base, Machine, Measure, Panel, Results, Row, Table, read, write
from bench.tables import as_rst, as_text, cells
from bench.targets import verdicts


def row(server: str, *runs: float, case: str = "") -> Row:
    """A row with one measure."""
    ours = server.startswith("ours")
    return Row(server=server, label=f"the {server}", ours=ours, case=case, runs={"rate": runs})


def table(*rows: Row, name: str = "thread") -> Table:
    """A table of such rows."""
    return Table(
        name=name,
        title="A POST through a thread",
        setting="64 connections.",
        measures=(Measure(key="rate", heading="requests/s"),),
        bases=(Base(server="recipe", heading="to the recipe", measure="rate"),),
        panels=(Panel(measure="rate", title="POSTs", best="most"),),
        rows=rows,
    )


def results(*tables: Table) -> Results:
    """A run that came to these tables."""
    machine = Machine(
        date="2026-01-02",
        cpu="a CPU",
        cores=2,
        memory_gib=4,
        system="Linux 6.1",
        python="3.11.7",
        load_before=0.25,
        wrk=None,
        versions={"Twisted": "26.1"},
    )
    return Results(machine=machine, rounds=3, seconds=2.0, is_quick=False, tables=tables)


def test_a_table_shows_median_spread_and_ratio() -> None:
    """Each row has its median, its least and most, and its ratio to the base."""
    shown = cells(table(row("ours", 3000.0, 1000.0, 2000.0), row("recipe", 500.0, 500.0, 400.0)))
    assert shown == [
        ["server", "requests/s", "least to most", "to the recipe"],
        ["the ours", "2,000", "1,000 to 3,000", "4.00"],
        ["the recipe", "500", "400 to 500", "1.00"],
    ]


def test_one_round_has_no_spread() -> None:
    """After a single round there is no column that repeats the median."""
    assert cells(table(row("recipe", 500.0))) == [
        ["server", "requests/s", "to the recipe"],
        ["the recipe", "500", "1.00"],
    ]


def test_ratios_are_within_a_case() -> None:
    """A server is compared to what the base did in the same case."""
    shown = cells(
        table(
            row("ours", 2.0, case="idle"),
            row("recipe", 1.0, case="idle"),
            row("ours", 30.0, case="busy"),
            row("recipe", 10.0, case="busy"),
        )
    )
    assert [(line[0], line[-1]) for line in shown[1:]] == [
        ("idle", "2.00"),
        ("idle", "1.00"),
        ("busy", "3.00"),
        ("busy", "1.00"),
    ]


def test_what_was_not_measured_is_a_dash() -> None:
    """Without the base there is no ratio, and without runs no figure."""
    empty = Row(server="ours", label="ours", ours=True, runs={})
    assert cells(table(empty))[1] == ["ours", "-", "-"]
    assert cells(table(row("ours", 5.0)))[1] == ["the ours", "5", "-"]


def test_the_text_is_aligned() -> None:
    """Words stand to the left and figures to the right."""
    lines = as_text(table(row("ours", 3000.0), row("recipe", 500.0))).splitlines()
    assert lines[1].startswith("the ours  ")
    assert {
        line.index(figure) + len(figure)
        for line, figure in zip(lines, ("requests/s", "3,000", "500"), strict=True)
    } == {len("the recipe  requests/s")}


def test_the_page_is_good_restructuredtext() -> None:
    """The page is read without a complaint, and has the machine, the plot and the figures."""
    shown = page(
        msgspec.structs.replace(
            results(table(row("ours", 900.0, 800.0), row("recipe", 200.0, 300.0))),
            failures=("thread, Klein: it does not answer:\nits log",),
        )
    )
    document = docutils.core.publish_doctree(
        shown, settings_overrides={"report_level": 2, "halt_level": 2}
    )
    text = document.astext()
    assert "2026-01-02: a CPU, 2 cores, 4 GiB, Linux 6.1, Python 3.11.7" in text.replace("\n", " ")
    assert "800 to 900" in text
    assert "Klein: it does not answer" in text
    assert "figures/thread.svg" in shown
    assert as_rst(results(table(row("ours", 1.0))).tables[0]).count("==\n") >= 2


@pytest.mark.parametrize(("rate", "is_met"), [(4000.0, True), (3999.0, False)])
def test_a_target_is_met_or_not(rate: float, is_met: bool) -> None:
    """A run says of a target what it reached and whether that is enough."""
    found = verdicts(results(table(row("ours", rate), row("recipe", 1000.0))))
    assert [(each.reached, each.is_met) for each in found] == [("4.00 times", is_met)]


def test_what_was_not_measured_has_no_verdict() -> None:
    """A run of a part says nothing of the rest."""
    assert verdicts(results()) == []
    assert verdicts(results(table(row("ours", 5.0)))) == []


def test_a_run_that_was_kept_is_read_as_it_was(tmp_path: Path) -> None:
    """The JSON of a run gives the same run."""
    run = results(table(row("ours", 1.5, 2.5), row("recipe", 1.0, case="idle")))
    write(run, tmp_path / "kept" / "results.json")
    assert read(tmp_path / "kept" / "results.json") == run


def test_a_run_that_was_kept_is_shown_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tables and verdicts are printed, and nothing is measured."""
    kept = tmp_path / "results.json"
    write(results(table(row("ours", 1000.0), row("recipe", 500.0))), kept)
    none = str(tmp_path / "no-peers")
    assert main(["--from-json", str(kept), "--servers", "ours", "--peers", none]) == 0
    printed = capsys.readouterr().out
    assert "the recipe" in printed
    assert "NOT met  through a thread, 4 times the requests/s of the usual recipe" in printed


def test_the_documentation_never_shows_a_part() -> None:
    """The page is not written from some workloads or servers."""
    with pytest.raises(SystemExit):
        main(["--docs", "--only", "thread"])


def test_the_worst_mode_decides_for_large_bodies() -> None:
    """Of several ways to take a large body, the one that grows most is held against the target."""
    rows = [
        Row(server=name, label=name, ours=name != "recipe", case="up", runs={"main": (growth,)})
        for name, growth in (("ours", 1.0), ("ours-stream", 17.5), ("recipe", 90.0))
    ]
    found = verdicts(results(table(*rows, name="large")))
    assert [(each.reached, each.is_met) for each in found] == [("17.5 MiB (ours-stream)", False)]
