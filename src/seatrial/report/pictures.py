"""The report's pictures: matplotlib's, as SVG within the page.

Texts stay texts, the same facts give the same bytes (no date, ids from a fixed salt), and colours
are the style sheet's variables, so a picture follows the page into the dark and onto paper.
Names come from users' data: they are never read as mathematics and are cut to a length.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup, escape

from seatrial.evaluation import Evaluation, SliceMetrics
from seatrial.monitoring import Drift
from seatrial.report.formatting import decimals, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "#1b2430": "ink",
    "#566273": "muted",
    "#dfe4ea": "rule",
    "#1d5fa6": "model",
    "#b4530a": "champion",
    "#6f7b8a": "idle",
    "#b3261e": "fail",
    "#fefefe": "paper",
}
"""Colours as matplotlib draws them, and the style sheet's variables that take their places."""

INK, MUTED, RULE, MODEL, CHAMPION, IDLE, FAIL, PAPER = COLOURS
HALF, THIRD, WHOLE = 5.55, 3.72, 11.3
"""Widths in inches: two, three and one picture beside each other at 1200 pixels."""

MAXIMUM_BARS = 24
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "seatrial",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.8,
}


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw in our style, whatever the user's settings; letters without a glyph are the browser's affair."""
    import matplotlib as mpl

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", message="Glyph")
        fonts.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts.setLevel(level)


def _picture(title: str, width: float, height: float, draw: Callable[[Figure], None]) -> Markup:
    """Return an SVG element with a title that a screen reader reads."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _drawing():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _embedded(out.getvalue(), title)


def _embedded(svg: str, title: str) -> Markup:
    """Make a stand-alone SVG a part of the page: no prologue, no group ids, the page's colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    for colour, name in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))  # noqa: S704 -- matplotlib escapes texts


def _limits(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _named(name: str, evaluation: Evaluation, metric: str, whose: str) -> str:
    metrics = (
        evaluation.champion.metrics if whose == "champion" and evaluation.champion else evaluation.metrics
    )
    return f"{name} ({decimals(metrics[metric].value)})"


def roc_picture(evaluation: Evaluation) -> Markup:
    """Draw the ROC curve, with the champion's and the constant answer's."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _limits(axes, "ROC curve", "Negatives flagged", "Positives flagged")
        axes.plot([0, 1], [0, 1], color=IDLE, linestyle=":", label="Constant answer (0.500)")
        if evaluation.champion:
            roc = evaluation.champion.roc
            label = _named("Champion", evaluation, "roc_auc", "champion")
            axes.plot(roc.x, roc.y, color=CHAMPION, linestyle="--", label=label)
        label = _named("This model", evaluation, "roc_auc", "model")
        axes.plot(evaluation.roc.x, evaluation.roc.y, color=MODEL, label=label)
        _reversed_legend(axes, "lower right")

    return _picture("ROC curve", HALF, 3.9, draw)


def precision_recall_picture(evaluation: Evaluation) -> Markup:
    """Draw the precision-recall curve, with the champion's and the base rate."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _limits(axes, "Precision and recall", "Positives flagged (recall)", "Flagged that are positive")
        rate = evaluation.metrics["base_rate"].value or 0.0
        axes.axhline(rate, color=IDLE, linestyle=":", label=f"Constant answer ({decimals(rate)})")
        if evaluation.champion:
            curve = evaluation.champion.precision_recall
            label = _named("Champion", evaluation, "average_precision", "champion")
            axes.plot(curve.x, curve.y, color=CHAMPION, linestyle="--", label=label)
        curve = evaluation.precision_recall
        label = _named("This model", evaluation, "average_precision", "model")
        axes.plot(curve.x, curve.y, color=MODEL, label=label)
        _reversed_legend(axes, "upper right")

    return _picture("Precision and recall", HALF, 3.9, draw)


def _reversed_legend(axes: Axes, place: Literal["upper right", "lower right"]) -> None:
    """This model is drawn last, over the others, and named first."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc=place)


def calibration_picture(evaluation: Evaluation) -> Markup:
    """Draw what was said against what came, a point a bin, with its interval and its number of rows."""

    def draw(figure: Figure) -> None:
        bins = evaluation.calibration
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[4, 1])
        upper.plot([0, 1], [0, 1], color=IDLE, linestyle=":", label="As it should be")
        x = [point.predicted for point in bins]
        y = [point.observed for point in bins]
        reach = [[p.observed - p.low for p in bins], [p.high - p.observed for p in bins]]
        upper.errorbar(
            x, y, yerr=reach, color=MODEL, fmt="o-", markersize=4, linewidth=1.2, label="This model"
        )
        largest = max([*x, *(point.high for point in bins), 0.1]) * 1.05
        upper.set(title="Calibration", ylabel="Positives", xlim=(0, largest), ylim=(0, largest))
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        upper.legend(loc="upper left")
        lower.vlines(x, 0, [point.rows for point in bins], color=MODEL, linewidth=4)
        lower.set(xlabel="Predicted probability", ylabel="Rows", ylim=(0, None))
        lower.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        lower.yaxis.set_major_locator(_few_ticks())
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return _picture("Calibration", HALF, 3.9, draw)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(2, integer=True)


def cost_picture(evaluation: Evaluation) -> Markup:
    """Draw the cost of a row by threshold, with the threshold in use and the cost of doing nothing."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        cost, used = evaluation.cost, evaluation.threshold
        idle = min(cost.flag_none, cost.flag_all)
        how = "flag none" if cost.flag_none <= cost.flag_all else "flag all"
        now = evaluation.metrics["cost_per_row"].value
        axes.plot(cost.thresholds, cost.cost_per_row, color=MODEL, label="This model")
        axes.axhline(
            idle, color=IDLE, linestyle=":", label=f"Doing nothing, that is {how} ({decimals(idle)})"
        )
        if now is not None:
            axes.plot([used, used], [0, now], color=INK, linewidth=1)
            axes.plot(
                [used], [now], "o", color=INK, label=f"Threshold in use {decimals(used)} ({decimals(now)})"
            )
        axes.set(title="Cost by threshold", xlabel="Threshold", ylabel="Cost per row")
        axes.set_ylim(0, max([*cost.cost_per_row, idle]) * 1.22 or 1)
        axes.legend(loc="upper left")

    return _picture("Cost by threshold", HALF, 3.9, draw)


def slice_limits(slices: list[SliceMetrics], overall: float | None) -> tuple[float, float]:
    """Return one range of ROC AUC for all slices: that of the judged ones, so that they can be compared."""
    judged = [one.metrics["roc_auc"] for one in slices if one.judged] or [
        one.metrics["roc_auc"] for one in slices
    ]
    ends = [end for area in judged for end in (area.low, area.value, area.high) if end is not None]
    ends += [] if overall is None else [overall]
    if not ends:
        return 0.0, 1.0
    margin = max(0.08 * (max(ends) - min(ends)), 0.01)
    return min(ends) - margin, max(ends) + margin


def slice_picture(slices: list[SliceMetrics], overall: float | None, limits: tuple[float, float]) -> Markup:
    """Draw the ROC AUC of each value of one slice with its interval; hollow where it is not judged.

    A point outside of ``limits`` is told at the edge.
    """
    name = short(slices[0].slice, 30)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if overall is not None:
            axes.axvline(overall, color=IDLE, linestyle=":")
        for place, one in enumerate(slices):
            _slice_point(axes, place, one, limits)
        labels = [f"{short(one.value, 18)}  ({one.rows:,})" for one in slices]
        axes.set_yticks(range(len(slices)), labels)
        axes.set(xlim=limits, ylim=(len(slices) - 0.4, -0.6), title=name, xlabel="ROC AUC")
        axes.grid(visible=False, axis="y")

    return _picture(f"ROC AUC by {name}", THIRD, 0.85 + 0.2 * len(slices), draw)


def _slice_point(axes: Axes, place: int, one: SliceMetrics, limits: tuple[float, float]) -> None:
    area = one.metrics["roc_auc"]
    if area.value is None:
        axes.annotate(
            "not defined",
            (limits[0], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
        )
        return
    if limits[0] <= area.value <= limits[1]:
        if area.low is not None and area.high is not None:
            axes.plot([area.low, area.high], [place, place], color=MODEL, linewidth=1.2)
        axes.plot(
            [area.value],
            [place],
            "o",
            color=MODEL,
            markerfacecolor=MODEL if one.judged else PAPER,
            markersize=4.5,
        )
        return
    left = area.value < limits[0]
    said = f"◂ {decimals(area.value)}" if left else f"{decimals(area.value)} ▸"
    at, offset, side = (limits[0], 4, "left") if left else (limits[1], -4, "right")
    axes.annotate(
        said, (at, place), xytext=(offset, 0), textcoords="offset points", va="center", ha=side, color=MUTED
    )


def drift_picture(drift: Drift, bound: float | None) -> Markup:
    """Draw the population stability index of the prediction and of the features that moved most.

    Bars are cut at six times the contract's bound, or one large drift would hide all others.
    """
    moved = sorted(drift.columns, key=lambda column: -column.psi)[:MAXIMUM_BARS]
    shown = [drift.prediction, *moved]
    largest = max(column.psi for column in shown)
    cut = min(largest, 6 * bound) if bound else largest

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, column in enumerate(shown):
            colour = FAIL if column.drifted else MODEL
            length = min(column.psi, cut)
            axes.barh(place, length, color=colour, height=0.62)
            said = f"{decimals(column.psi)}{'  drifted' if column.drifted else ''}"
            at = max(length, bound or 0)
            axes.annotate(
                said, (at, place), xytext=(5, 0), textcoords="offset points", va="center", color=colour
            )
        if bound is not None:
            axes.axvline(bound, color=INK, linewidth=1, linestyle="--", label=f"Bound ({bound:g})")
            axes.legend(loc="lower right")
        axes.set_yticks(range(len(shown)), [short(column.name, 34) for column in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="Population stability index")
        axes.set_xlim(0, max(cut, bound or 0.0, 1e-3) * 1.14)
        axes.grid(visible=False, axis="y")

    return _picture("Drift by feature", WHOLE, 0.6 + 0.2 * len(shown), draw)
