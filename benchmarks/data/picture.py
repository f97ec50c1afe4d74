"""Draw what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from contenders import Seen
from matplotlib.axes import Axes

OURS, OTHERS = "#1b6ca8", "#b8bfc6"
PEERS = ("#d9822b", "#5f8a3c")


@dataclass(frozen=True)
class Curve:
    """How a contender grows.

    Attributes:
        name: The contender.
        sizes: Rows.
        seconds: Median at each size.
        peak_mib: Most memory of its process at each size, inputs included.
    """

    name: str
    sizes: list[int]
    seconds: list[float]
    peak_mib: list[float]


def draw_bars(comparisons: dict[str, list[Seen]], loop: dict[str, float], path: Path) -> None:
    """Draw a panel a comparison, on logarithmic scales, ours in colour, and the loop's shares.

    Args:
        comparisons: What was seen, by title; ours first.
        loop: Seconds of each stage, from ingest to served.
        path: Where the picture goes.
    """
    panels = len(comparisons) + 1
    figure, axes = plt.subplots(panels, 1, figsize=(9, 1.75 * panels + 0.4), squeeze=False)
    for axis, (title, seen) in zip(axes[:, 0], comparisons.items(), strict=False):
        _draw_comparison(axis, title, seen)
    _draw_loop(axes[-1, 0], loop)
    figure.text(
        0.01,
        0.005,
        "Logarithmic bars. One run on a shared machine: take the ratios, not the seconds.",
        fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_comparison(axis: Axes, title: str, seen: list[Seen]) -> None:
    names = [one.contender.name for one in seen]
    medians = [one.median for one in seen]
    colours = [OURS if "ours/" in one.contender.script else OTHERS for one in seen]
    axis.barh(names, medians, color=colours)
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 3, max(medians) * 6)
    axis.invert_yaxis()
    axis.xaxis.set_visible(False)  # each bar says its time
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    for place, median in enumerate(medians):
        times = "" if place == 0 else f"  ({median / medians[0]:.3g} times)"
        axis.text(median * 1.1, place, f"{median:.3g} s{times}", va="center", fontsize=9)


def _draw_loop(axis: Axes, loop: dict[str, float]) -> None:
    left, whole = 0.0, sum(loop.values())
    for place, (stage, took) in enumerate(loop.items()):
        axis.barh(
            ["loop"],
            [took],
            left=left,
            color=plt.get_cmap("tab20")(place % 20),
            label=f"{stage} {took / whole:.0%}",
        )
        left += took
    axis.set_title(f"from ingest to served: {whole:.0f} s", loc="left", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(ncol=6, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.35), frameon=False)


def draw_growth(growths: dict[str, list[Curve]], path: Path) -> None:
    """Draw time above and memory below, a column a kind of work, as a small SVG.

    Args:
        growths: The curves, by title; ours are named Seatrial.
        path: Where the picture goes.
    """
    figure, axes = plt.subplots(2, len(growths), figsize=(4.2 * len(growths), 6.4), squeeze=False)
    for column, (title, curves) in enumerate(growths.items()):
        colours = iter(PEERS)
        for curve in curves:
            colour = OURS if curve.name.startswith("Seatrial") else next(colours)
            style = {"color": colour, "marker": "o", "linestyle": "--" if "month" in curve.name else "-"}
            axes[0, column].loglog(curve.sizes, curve.seconds, label=curve.name, **style)
            axes[1, column].loglog(curve.sizes, curve.peak_mib, label=curve.name, **style)
        axes[0, column].set_title(title, fontsize=10)
        axes[0, column].legend(fontsize=8, frameon=False, loc="upper left")
        axes[1, column].set_xlabel("rows")
        for axis in axes[:, column]:
            axis.minorticks_off()
            axis.grid(visible=True, linewidth=0.4, color="#dddddd")
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MiB")
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
