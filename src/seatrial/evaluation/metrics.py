"""The figures of a model that answers with probabilities.

The rows are sorted by probability once. Under any weights of the rows every figure is then a few
running sums, so the value of a metric and each of its bootstrap replicates come from the same
lines, and thousands of replicates cost what one call for each would (see
:mod:`seatrial.evaluation.intervals`). Rows with the same probability are one step of a curve, as
in scikit-learn, with which the values agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seatrial.contract.schema import Costs

Array = NDArray[np.float64]

CALIBRATION_BINS = 15
METRICS = (
    "roc_auc",
    "average_precision",
    "brier_score",
    "log_loss",
    "expected_calibration_error",
    "cost_per_row",
    "cost_ratio",
    "base_rate",
    "flagged_share",
    "precision",
    "recall",
)
"""Every figure, in the order in which a report shows them."""

HIGHER_IS_BETTER = frozenset({"roc_auc", "average_precision"})
LOWER_IS_BETTER = frozenset(
    {"brier_score", "log_loss", "expected_calibration_error", "cost_per_row", "cost_ratio"}
)


def break_even(costs: Costs) -> float:
    """Return the probability from which flagging a row is the cheaper mistake to risk.

    Elkan, "The foundations of cost-sensitive learning" (IJCAI 2001), section 2.
    """
    return costs.false_alarm / (costs.false_alarm + costs.missed)


class RankedRows:
    """Rows in the order of their probability, ready to be measured under any weights.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: Answers of shape (n_rows,).
        threshold: Probability from which a row is flagged (inclusive).
        costs: What a mistake costs.

    Attributes:
        measurable: Whether there are rows and every probability is finite; if not, every figure
            is NaN.
    """

    def __init__(
        self, labels: ArrayLike, probabilities: ArrayLike, *, threshold: float, costs: Costs
    ) -> None:
        truth = np.asarray(labels, dtype=np.float64)
        answers = np.asarray(probabilities, dtype=np.float64)
        self.measurable = bool(len(answers)) and bool(np.isfinite(answers).all())
        self.costs = costs
        self.order = np.argsort(-answers, kind="stable")
        self.labels: Array = truth[self.order]
        self.probabilities: Array = answers[self.order]
        self.ends = last_of_ties(self.probabilities)
        self.flagged = int(np.count_nonzero(answers >= threshold))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def measure(self, weights: Array) -> dict[str, Array]:
        """Return every figure but the calibration error, under each set of weights.

        Args:
            weights: Weights of shape (n_sets, n_rows), not negative, in the order in which the
                rows were given.

        Returns:
            By name, values of shape (n_sets,); NaN where a figure is not defined.
        """
        if not self.measurable:
            names = [name for name in METRICS if name != "expected_calibration_error"]
            return {name: np.full(len(weights), np.nan) for name in names}
        ranked = weights[:, self.order]
        found = np.cumsum(ranked * self.labels, axis=1)
        seen = np.cumsum(ranked, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                **_ranking(found[:, self.ends], seen[:, self.ends]),
                **self._losses(ranked, seen[:, -1]),
                **self._decisions(found, seen),
            }

    def _losses(self, ranked: Array, total: Array) -> dict[str, Array]:
        """Return the mean losses of the probabilities themselves."""
        smallest = np.finfo(np.float64).eps
        safe = np.clip(self.probabilities, smallest, 1 - smallest)
        squared = (self.probabilities - self.labels) ** 2
        surprise = -np.where(self.labels > 0, np.log(safe), np.log1p(-safe))
        return {"brier_score": ranked @ squared / total, "log_loss": ranked @ surprise / total}

    def _decisions(self, found: Array, seen: Array) -> dict[str, Array]:
        """Return what flagging at the threshold does; the flagged rows are the first ones."""
        positives, total = found[:, -1], seen[:, -1]
        none = np.zeros(len(found))
        caught = found[:, self.flagged - 1] if self.flagged else none
        flagged = seen[:, self.flagged - 1] if self.flagged else none
        cost = self.costs.missed * (positives - caught) + self.costs.false_alarm * (flagged - caught)
        idle = np.minimum(self.costs.missed * positives, self.costs.false_alarm * (total - positives))
        return {
            "cost_per_row": cost / total,
            "cost_ratio": np.where(idle > 0, cost / idle, np.nan),
            "base_rate": positives / total,
            "flagged_share": flagged / total,
            "precision": caught / flagged,
            "recall": caught / positives,
        }


def last_of_ties(ordered: Array) -> NDArray[np.intp]:
    """Return the place of the last row of each run of equal values."""
    if not len(ordered):
        return np.zeros(0, dtype=np.intp)
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


def _ranking(found: Array, seen: Array) -> dict[str, Array]:
    """Return the areas under the two curves.

    Args:
        found: Weight of the positives down to each step, of shape (n_sets, n_steps).
        seen: Weight of all rows down to each step, of the same shape.
    """
    positives = found[:, -1]
    negatives = seen[:, -1] - positives
    gained = np.diff(found, axis=1, prepend=0.0)
    passed = np.diff(seen - found, axis=1, prepend=0.0)
    area = np.einsum("ij,ij->i", passed, found - gained / 2)
    precision = found / np.maximum(seen, np.finfo(np.float64).tiny)
    both = (positives > 0) & (negatives > 0)
    return {
        "roc_auc": np.where(both, area / (positives * negatives), np.nan),
        "average_precision": np.where(both, np.einsum("ij,ij->i", gained, precision) / positives, np.nan),
    }


def calibration_bins(probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> NDArray[np.intp]:
    """Return the bin of each row when the rows are divided by probability into equal numbers.

    Rows of the same probability share a bin, by the middle of their ranks, so that the bins do
    not depend on the order of the rows; a constant answer fills one bin only.
    """
    answers = np.asarray(probabilities, dtype=np.float64)
    _, place, counts = np.unique(answers, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.minimum((middle / max(len(answers), 1) * bins).astype(np.intp), bins - 1)[place]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean distance between what was said and what came, over 15 equal-mass bins.

    Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning" (AAAI 2015); 15 bins as in Guo et al., "On calibration of modern neural networks"
    (ICML 2017), of equal mass as in Nixon et al., "Measuring calibration in deep learning"
    (CVPR workshops 2019), because probabilities of rare events crowd into few equal-width bins.
    """
    truth = np.asarray(labels, dtype=np.float64)
    answers = np.asarray(probabilities, dtype=np.float64)
    if not len(answers) or not np.isfinite(answers).all():
        return float("nan")
    gaps = np.bincount(calibration_bins(answers), weights=answers - truth)
    return float(np.abs(gaps).sum() / len(answers))


def classification_metrics(
    labels: ArrayLike, probabilities: ArrayLike, *, threshold: float, costs: Costs
) -> dict[str, float]:
    """Measure a model on rows whose truth is known.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: Answers of shape (n_rows,).
        threshold: Probability from which a row is flagged (inclusive).
        costs: What a mistake costs.

    Returns:
        Every figure of :data:`METRICS`. A figure that is not defined is NaN: all of them without
        rows or with a probability that is not finite, the areas under the curves and the cost
        ratio where all rows are of one class, precision where none is flagged. ``cost_ratio`` is
        the cost against the cheaper of flagging no row and flagging every row.
    """
    rows = RankedRows(labels, probabilities, threshold=threshold, costs=costs)
    values = {name: float(value[0]) for name, value in rows.measure(np.ones((1, len(rows)))).items()}
    values["expected_calibration_error"] = expected_calibration_error(labels, probabilities)
    return {name: values[name] for name in METRICS}
