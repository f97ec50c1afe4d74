"""Draw what was measured."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from contenders import CONTENDERS, ECHO
from matplotlib.axes import Axes
from summary import CONNECTIONS, ROWS, Cell

_WHOLE = 100
OURS, LIMIT, OTHERS = "#1b6ca8", "#d9822b", "#b8bfc6"


def draw(cells: dict[str, Cell], path: Path) -> None:
    """Draw throughput and 99th percentile at 16 connections with single rows, on logarithmic scales, as a small SVG."""
    found = {
        cell.contender: cell
        for cell in cells.values()
        if (cell.connections, cell.rows) == (CONNECTIONS, ROWS)
    }
    shown = [contender for contender in CONTENDERS if contender.key in found]
    if not shown:
        return
    colours = [
        LIMIT if contender.key == ECHO else OURS if contender.key.startswith("ours") else OTHERS
        for contender in shown
    ]
    names = [contender.name for contender in shown]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.36 * len(shown) + 1.0), sharey=True)
    throughput = [found[contender.key].median("throughput") for contender in shown]
    p99 = [1000 * found[contender.key].median("p99") for contender in shown]
    _bars(axes[0], "requests a second", names, throughput, colours)
    _bars(axes[1], "99th percentile, milliseconds", names, p99, colours)
    axes[0].invert_yaxis()  # the other one shares it
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": "serving", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bars(axis: Axes, title: str, names: list[str], values: list[float], colours: list[str]) -> None:
    axis.barh(names, values, color=colours)
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 3, max(values) * 5)
    axis.xaxis.set_visible(False)
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    for place, value in enumerate(values):
        axis.text(
            value * 1.1,
            place,
            f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}",
            va="center",
            fontsize=9,
        )
