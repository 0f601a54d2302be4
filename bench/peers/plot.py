"""Draws the figures of a run: ``python -m bench.peers.plot RESULTS FOLDER`` with the peers' Python.

One SVG and one PNG for each workload, from the JSON of the run: horizontal bars, the best on top,
medians with a line from the least to the most; ours in a colour, the others grey.
"""

# It is not in the environment that mypy looks at.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

#: A row of the table with its runs.
Bar = tuple[dict[str, Any], list[float]]

_OURS, _OTHERS, _LINE, _TEXT = "#c2410c", "#b8bec7", "#374151", "#1f2937"
_WIDTH, _ROW, _PANEL = 7.6, 0.34, 0.62


def main() -> None:
    """Draw all tables."""
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    pyplot.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "svg.hashsalt": "deferpost",  # else each drawing has other names inside
            "text.color": _TEXT,
            "xtick.color": _TEXT,
            "ytick.color": _TEXT,
        }
    )
    for table in results["tables"]:
        draw(table, results["machine"], folder)


def draw(table: dict[str, Any], machine: dict[str, Any], folder: Path) -> None:
    """Draw one table."""
    panels = [(panel, bars_of(table, panel)) for panel in table["panels"]]
    panels = [(panel, bars) for panel, bars in panels if bars]
    if not panels:
        return
    heights = [_PANEL + _ROW * len(bars) for _, bars in panels]
    height = sum(heights) + 0.3
    figure, axes = pyplot.subplots(
        len(panels),
        1,
        figsize=(_WIDTH, height),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    measures = {each["key"]: each for each in table["measures"]}
    for (panel, bars), (axis,) in zip(panels, axes, strict=True):
        draw_panel(axis, panel, bars, measures[panel["measure"]]["decimals"])
    note = f"{machine['date']}, {machine['cpu']}, {machine['cores']} CPUs; median, least to most"
    figure.text(0.995, 0.06 / height, note, ha="right", va="bottom", fontsize=7, color="#6b7280")
    figure.tight_layout(rect=(0, 0.2 / height, 1, 1), h_pad=1.2)
    figure.savefig(folder / f"{table['name']}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{table['name']}.png", dpi=144)
    pyplot.close(figure)


def bars_of(
    table: dict[str, Any], panel: dict[str, Any]
) -> list[tuple[dict[str, Any], list[float]]]:
    """The rows of a panel with their runs, the best first."""
    measure, case = panel["measure"], panel.get("case", "")
    found = [
        (row, row["runs"][measure])
        for row in table["rows"]
        if row.get("case", "") == case and row["runs"].get(measure)
    ]
    found.sort(key=lambda each: statistics.median(each[1]), reverse=panel["best"] == "most")
    return found


def draw_panel(
    axis: Any,
    panel: dict[str, Any],
    bars: list[Bar],
    decimals: int,
) -> None:
    """Draw one panel."""
    bound = panel["bound"]
    most = max(bound or 0.0, *(max(runs) for _, runs in bars)) or 1.0
    if bound is not None:
        axis.axvline(bound, color=_LINE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axis.annotate(
            f"target {bound:g}",
            (bound, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -9),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=_LINE,
        )
    for place, (row, runs) in enumerate(bars):
        median = statistics.median(runs)
        axis.barh(place, median, 0.68, color=_OURS if row["ours"] else _OTHERS)
        if max(runs) > min(runs):
            axis.plot([min(runs), max(runs)], [place, place], color=_LINE, linewidth=1)
            for end in (min(runs), max(runs)):
                axis.plot([end, end], [place - 0.13, place + 0.13], color=_LINE, linewidth=1)
        axis.annotate(
            f"{median:,.{decimals}f}",
            (max(median, *runs, 0.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold" if row["ours"] else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )
    axis.set_yticks(range(len(bars)), [row["label"] for row, _ in bars])
    for label, (row, _) in zip(axis.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if row["ours"] else "normal")
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, most * 1.13)
    axis.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
    axis.tick_params(length=0)
    axis.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color("#9ca3af")


if __name__ == "__main__":
    main()
