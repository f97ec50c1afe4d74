"""How far a figure could be off, by the bootstrap.

The rows are drawn again with replacement, 200 times, and the figure's 2.5th and 97.5th percentiles
over the draws are its 95% interval (Efron, "Bootstrap methods: another look at the jackknife",
Annals of Statistics 7, 1979). A draw is a count for each row, and counts are weights, so no row is
copied or sorted anew. Two models are compared on the same draws, which takes the noise that they
share out of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, field_validator

from seatrial.contract.schema import Costs
from seatrial.evaluation.metrics import LOWER_IS_BETTER, Array, RankedRows, expected_calibration_error

REPEATS = 200
_CHUNK = 250_000  # Weights at a time: 2 MB, so that a draw is still in the cache when it is used.


class Interval(BaseModel):
    """A figure with its 95% interval; None where it is not defined.

    Attributes:
        value: The figure on the rows themselves.
        low: Lower end of the interval; never above ``value``.
        high: Upper end of the interval; never below ``value``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float | None = None
    high: float | None = None

    @field_validator("value", "low", "high")
    @classmethod
    def _defined(cls, value: float | None) -> float | None:
        """JSON has no NaN."""
        return None if value is None or not math.isfinite(value) else value

    @classmethod
    def of(cls, value: float, replicates: Array) -> Interval:
        """Return a figure's percentile interval.

        On few rows the replicates can lie to one side of the value; the interval then reaches to
        the value. Replicates that are not defined (one class was drawn) are left out.

        Args:
            value: The figure on the rows themselves.
            replicates: The figure on each draw, of shape (n_repeats,).
        """
        defined = replicates[np.isfinite(replicates)]
        if not math.isfinite(value) or not len(defined):
            return cls(value=value)
        low, high = np.percentile(defined, [2.5, 97.5])
        return cls(value=value, low=min(float(low), value), high=max(float(high), value))


def replicates(rows: RankedRows, *, seed: int, repeats: int = REPEATS) -> dict[str, Array]:
    """Return every figure on each draw, by name, of shape (n_repeats,).

    The draws depend on the seed and the number of rows only, so two models measured on the same
    rows are measured on the same draws.
    """
    if not len(rows):
        return rows.measure(np.ones((repeats, 0)))
    parts = [rows.measure(weights) for weights in _draws(len(rows), seed, repeats)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _draws(rows: int, seed: int, repeats: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // rows)
    for start in range(0, repeats, size):
        count = min(size, repeats - start)
        drawn = generator.integers(0, rows, size=(count, rows))
        drawn += np.arange(count)[:, np.newaxis] * rows
        counts = np.bincount(drawn.ravel(), minlength=count * rows)
        yield counts.reshape(count, rows).astype(np.float64)


def bootstrap_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    threshold: float,
    costs: Costs,
    seed: int,
    repeats: int = REPEATS,
) -> dict[str, Interval]:
    """Measure a model with 95% intervals.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: Answers of shape (n_rows,).
        threshold: Probability from which a row is flagged (inclusive).
        costs: What a mistake costs.
        seed: Seed of the draws.
        repeats: Number of draws.

    Returns:
        Every figure of :data:`seatrial.evaluation.METRICS`. The calibration error has a value
        only: it is a mean of absolute values, which every draw's own noise makes larger, so its
        percentiles would not surround it.
    """
    rows = RankedRows(labels, probabilities, threshold=threshold, costs=costs)
    return intervals_of(rows, replicates(rows, seed=seed, repeats=repeats)) | {
        "expected_calibration_error": Interval(value=expected_calibration_error(labels, probabilities))
    }


def intervals_of(rows: RankedRows, drawn: dict[str, Array]) -> dict[str, Interval]:
    """Return the intervals of the figures that :func:`replicates` drew."""
    values = rows.measure(np.ones((1, len(rows))))
    return {name: Interval.of(float(values[name][0]), drawn[name]) for name in values}


def paired_difference(
    labels: ArrayLike,
    challenger: ArrayLike,
    champion: ArrayLike,
    *,
    metric: str,
    thresholds: tuple[float, float],
    costs: Costs,
    seed: int,
    repeats: int = REPEATS,
) -> Interval:
    """Return by how much a challenger is better than the champion on the same rows and draws.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        challenger: The challenger's probabilities, of shape (n_rows,).
        champion: The champion's probabilities, of shape (n_rows,).
        metric: Name of the figure; not the calibration error, which has no replicates.
        thresholds: The challenger's threshold and the champion's.
        costs: What a mistake costs.
        seed: Seed of the draws.
        repeats: Number of draws.

    Returns:
        The difference; positive means that the challenger is better, also for figures of which
        less is better (Brier score, log loss, cost).

    Raises:
        KeyError: if there is no such metric.
    """
    pair = [
        RankedRows(labels, answers, threshold=threshold, costs=costs)
        for answers, threshold in zip((challenger, champion), thresholds, strict=True)
    ]
    drawn = [replicates(rows, seed=seed, repeats=repeats) for rows in pair]
    return difference_of(metric, (pair[0], pair[1]), (drawn[0], drawn[1]))


def difference_of(
    metric: str,
    pair: tuple[RankedRows, RankedRows],
    drawn: tuple[dict[str, Array], dict[str, Array]],
) -> Interval:
    """Return the paired difference of challenger and champion from draws that are at hand."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    values = [float(rows.measure(np.ones((1, len(rows))))[metric][0]) for rows in pair]
    return Interval.of(sign * (values[0] - values[1]), sign * (drawn[0][metric] - drawn[1][metric]))
