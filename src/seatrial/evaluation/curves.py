"""What a person looks at: curves, thinned to what a picture needs.

Each function sorts the rows once and returns at most 200 points, so that they travel in JSON.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Costs
from seatrial.evaluation.metrics import Array, break_even, calibration_bins, last_of_ties

MAXIMUM_POINTS = 200
_DIGITS = 6
_NORMAL_95 = 1.959963984540054


class Curve(BaseModel):
    """Points of a curve: two lists of the same length, at most 200 long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: list[float]
    y: list[float]


class CostCurve(BaseModel):
    """Cost of a row by threshold.

    Attributes:
        thresholds: Thresholds from the lowest probability to the highest.
        cost_per_row: Mean cost of a row at each.
        flag_none: Mean cost of a row when no row is flagged.
        flag_all: Mean cost of a row when every row is flagged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: list[float]
    cost_per_row: list[float]
    flag_none: float
    flag_all: float


class CalibrationBin(BaseModel):
    """Rows with about the same probability.

    Attributes:
        predicted: Their mean probability.
        observed: Their share of positives.
        low: Lower end of that share's 95% interval.
        high: Upper end of it.
        rows: Their number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


def _finite(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array]:
    """Return labels and probabilities; no rows at all if a probability is not finite."""
    truth = np.asarray(labels, dtype=np.float64)
    answers = np.asarray(probabilities, dtype=np.float64)
    return (truth, answers) if np.isfinite(answers).all() else (truth[:0], answers[:0])


def _steps(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array, Array]:
    """Return true and false positives and the lowest flagged probability, after each step.

    Step 0 flags no row (its probability is infinite), the last one all.
    """
    truth, answers = _finite(labels, probabilities)
    order = np.argsort(-answers, kind="stable")
    truth, answers = truth[order], answers[order]
    ends = last_of_ties(answers)
    caught = np.append(0.0, np.cumsum(truth)[ends])
    alarms = np.append(0.0, np.cumsum(1 - truth)[ends])
    return caught, alarms, np.append(np.inf, answers[ends])


def _thinned(along: Array) -> NDArray[np.intp]:
    """Return at most 200 places, evenly spaced along a rising quantity, both ends included."""
    if len(along) <= MAXIMUM_POINTS:
        return np.arange(len(along))
    wanted = np.linspace(along[0], along[-1], MAXIMUM_POINTS)
    return np.unique(np.append(np.searchsorted(along, wanted[:-1]), len(along) - 1))


def _listed(values: Array) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]


def roc_points(labels: ArrayLike, probabilities: ArrayLike) -> Curve:
    """Return the ROC curve: x the share of negatives flagged, y the share of positives flagged.

    Empty where all rows are of one class.
    """
    caught, alarms, _ = _steps(labels, probabilities)
    if not caught[-1] or not alarms[-1]:
        return Curve(x=[], y=[])
    x, y = alarms / alarms[-1], caught / caught[-1]
    keep = _thinned(x + y)
    return Curve(x=_listed(x[keep]), y=_listed(y[keep]))


def roc_thresholds(labels: ArrayLike, probabilities: ArrayLike) -> list[float]:
    """Return the probability at each point of :func:`roc_points`; the first point, which flags no row, has 1."""
    caught, alarms, lowest = _steps(labels, probabilities)
    if caught[-1] == 0 or alarms[-1] == 0:
        return []
    keep = _thinned(alarms / alarms[-1] + caught / caught[-1])
    return _listed(np.minimum(lowest[keep], 1.0))


def precision_recall_points(labels: ArrayLike, probabilities: ArrayLike) -> Curve:
    """Return the precision-recall curve: x recall, y precision. Empty where all rows are of one class."""
    caught, alarms, _ = _steps(labels, probabilities)
    if not caught[-1] or not alarms[-1]:
        return Curve(x=[], y=[])
    recall = (caught / caught[-1])[1:]
    precision = caught[1:] / (caught + alarms)[1:]
    keep = _thinned(recall)
    return Curve(x=_listed(recall[keep]), y=_listed(precision[keep]))


def calibration_curve(labels: ArrayLike, probabilities: ArrayLike) -> list[CalibrationBin]:
    """Return what was said and what came, in 15 bins of equal mass, lowest first.

    The interval of a share is Wilson's ("Probable inference", JASA 22, 1927).
    """
    truth, answers = _finite(labels, probabilities)
    places = calibration_bins(answers)
    bins = []
    for place in np.unique(places):
        inside = places == place
        rows, observed = int(inside.sum()), float(truth[inside].mean())
        low, high = wilson_interval(observed, rows)
        bins.append(
            CalibrationBin(
                predicted=float(answers[inside].mean()), observed=observed, low=low, high=high, rows=rows
            )
        )
    return bins


def wilson_interval(share: float, rows: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share that was observed on ``rows`` rows."""
    square = _NORMAL_95**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    reach = _NORMAL_95 / (1 + square / rows) * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


def best_threshold(labels: ArrayLike, probabilities: ArrayLike, costs: Costs) -> float:
    """Return the threshold with the lowest cost on these rows.

    Of several steps with that cost the middle one is taken, and of the thresholds that flag the
    same rows the one half-way to the next probability, so that a little noise flags the same.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: Answers of shape (n_rows,).
        costs: What a mistake costs.

    Returns:
        The threshold (inclusive). Above 1 if flagging no row is cheapest and a probability is 1;
        the break-even probability without rows, or with a probability that is not
        finite.
    """
    caught, alarms, lowest = _steps(labels, probabilities)
    if len(lowest) == 1:
        return break_even(costs)
    cost = costs.missed * (caught[-1] - caught) + costs.false_alarm * alarms
    best = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    step = int(best[len(best) // 2])
    flagged = min(float(lowest[step]), 1.0)
    left = float(lowest[step + 1]) if step + 1 < len(lowest) else 0.0
    middle = (flagged + left) / 2
    if middle > left or step + 1 == len(lowest):
        return middle
    return flagged if step else float(np.nextafter(left, np.inf))


def cost_curve(labels: ArrayLike, probabilities: ArrayLike, costs: Costs) -> CostCurve:
    """Return the mean cost of a row at up to 200 thresholds between the lowest and highest probability."""
    caught, alarms, lowest = _steps(labels, probabilities)
    rows = max(float(caught[-1] + alarms[-1]), 1.0)
    cost = (costs.missed * (caught[-1] - caught) + costs.false_alarm * alarms) / rows
    ends = (float(lowest[-1]), float(lowest[1])) if len(lowest) > 1 else (0.0, 0.0)
    thresholds = np.linspace(*ends, MAXIMUM_POINTS if ends[0] < ends[1] else 1)
    # The last step whose lowest flagged probability is at least the threshold.
    steps = np.searchsorted(-lowest, -thresholds, side="right") - 1
    return CostCurve(
        thresholds=_listed(thresholds),
        cost_per_row=_listed(cost[steps]),
        flag_none=float(costs.missed * caught[-1] / rows),
        flag_all=float(costs.false_alarm * alarms[-1] / rows),
    )
