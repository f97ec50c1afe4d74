"""All that an evaluation found, as one closed record that travels as JSON.

A model is never shown alone: the same rows are answered by a constant (the share of positives in
training), which is what doing nothing clever achieves, and by the champion, if one serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Costs
from seatrial.evaluation.curves import (
    CalibrationBin,
    CostCurve,
    Curve,
    calibration_curve,
    cost_curve,
    precision_recall_points,
    roc_points,
)
from seatrial.evaluation.intervals import REPEATS, Interval, difference_of, intervals_of, replicates
from seatrial.evaluation.metrics import (
    METRICS,
    Array,
    RankedRows,
    break_even,
    expected_calibration_error,
)
from seatrial.evaluation.slices import SliceMetrics, slice_metrics

COMPARED = ("roc_auc", "average_precision", "brier_score", "log_loss", "cost_per_row")
"""Figures in which two models are compared."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConfusionMatrix(_Closed):
    """Rows by what was said and what came."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


class ConstantFigures(_Closed):
    """What the constant answer achieves on the same rows.

    Attributes:
        probability: The constant: the share of positives in training.
        metrics: Its figures; it flags every row or none, whichever its costs ask for.
    """

    probability: float
    metrics: dict[str, Interval]


class ChampionFigures(_Closed):
    """What the model that serves now achieves on the same rows.

    Attributes:
        digest: Digest of its bundle.
        threshold: Its threshold.
        metrics: Its figures.
        differences: By how much the challenger is better (positive), on the same draws.
        roc: Its ROC curve.
        precision_recall: Its precision-recall curve.
    """

    digest: str
    threshold: float
    metrics: dict[str, Interval]
    differences: dict[str, Interval]
    roc: Curve
    precision_recall: Curve


class Evaluation(_Closed):
    """What an evaluation found.

    Attributes:
        rows: Number of rows.
        start: When the first row happened, as text; its place where the data have no time.
        end: When the last row happened, as text.
        costs: What a mistake costs.
        threshold: Probability from which a row is flagged (inclusive).
        metrics: The model's figures, with intervals.
        confusion: Rows by what was said and what came.
        constant: Figures of the constant answer.
        champion: Figures of the champion; None where nothing serves.
        slices: Quality by slice.
        roc: The ROC curve.
        precision_recall: The precision-recall curve.
        calibration: What was said and what came.
        cost: Cost by threshold.
    """

    rows: int
    start: str
    end: str
    costs: Costs
    threshold: float
    metrics: dict[str, Interval]
    confusion: ConfusionMatrix
    constant: ConstantFigures
    champion: ChampionFigures | None = None
    slices: list[SliceMetrics] = []
    roc: Curve
    precision_recall: Curve
    calibration: list[CalibrationBin]
    cost: CostCurve

    def metrics_json(self) -> dict[str, Any]:
        """Return what a bundle's ``metrics.json`` says: figures by name under ``test``."""
        return {
            "test": {name: interval.model_dump() for name, interval in self.metrics.items()},
            "constant": {name: interval.model_dump() for name, interval in self.constant.metrics.items()},
            "rows": self.rows,
            "start": self.start,
            "end": self.end,
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class ChampionAnswers:
    """What the champion says about the rows.

    Attributes:
        digest: Digest of its bundle.
        probabilities: Its answers, of shape (n_rows,).
        threshold: Its threshold.
    """

    digest: str
    probabilities: Array
    threshold: float


@dataclass(frozen=True)
class _Measured:
    """A model on the rows: its figures with intervals, and the draws for comparisons."""

    rows: RankedRows
    draws: dict[str, Array]
    metrics: dict[str, Interval]

    @classmethod
    def of(
        cls, labels: Array, answers: Array, *, threshold: float, costs: Costs, seed: int, repeats: int
    ) -> _Measured:
        rows = RankedRows(labels, answers, threshold=threshold, costs=costs)
        draws = replicates(rows, seed=seed, repeats=repeats)
        found = intervals_of(rows, draws) | {
            "expected_calibration_error": Interval(value=expected_calibration_error(labels, answers))
        }
        return cls(rows, draws, {name: found[name] for name in METRICS})


def evaluate(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    threshold: float,
    costs: Costs,
    training_base_rate: float,
    period: tuple[str, str],
    seed: int,
    slices: dict[str, pl.Series] | None = None,
    minimum_slice_rows: int = 1,
    champion: ChampionAnswers | None = None,
    repeats: int = REPEATS,
) -> Evaluation:
    """Evaluate a model's answers to rows whose truth is known.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: The model's answers, of shape (n_rows,).
        threshold: Probability from which a row is flagged (inclusive), chosen on other rows.
        costs: What a mistake costs.
        training_base_rate: Share of positives in training.
        period: When the first row happened, and the last, as texts.
        seed: Seed of the bootstrap's draws.
        slices: By name, a value for each row, of shape (n_rows,).
        minimum_slice_rows: Fewest rows (inclusive) by which a slice is judged.
        champion: What the champion says about the same rows.
        repeats: Number of the bootstrap's draws.
    """
    truth = np.asarray(labels, dtype=np.float64)
    answers = np.asarray(probabilities, dtype=np.float64)
    same: dict[str, Any] = {"costs": costs, "seed": seed, "repeats": repeats}
    model = _Measured.of(truth, answers, threshold=threshold, **same)
    constant = np.full(len(truth), training_base_rate)
    idle = _Measured.of(truth, constant, threshold=break_even(costs), **same)
    return Evaluation(
        rows=len(truth),
        start=period[0],
        end=period[1],
        costs=costs,
        threshold=threshold,
        metrics=model.metrics,
        confusion=_confusion(truth, answers >= threshold),
        constant=ConstantFigures(probability=training_base_rate, metrics=idle.metrics),
        champion=_champion(truth, model, champion, same) if champion else None,
        slices=slice_metrics(
            truth, answers, slices or {}, minimum_rows=minimum_slice_rows, threshold=threshold, **same
        ),
        roc=roc_points(truth, answers),
        precision_recall=precision_recall_points(truth, answers),
        calibration=calibration_curve(truth, answers),
        cost=cost_curve(truth, answers, costs),
    )


def _champion(
    truth: Array, model: _Measured, champion: ChampionAnswers, same: dict[str, Any]
) -> ChampionFigures:
    answers = np.asarray(champion.probabilities, dtype=np.float64)
    measured = _Measured.of(truth, answers, threshold=champion.threshold, **same)
    pair, draws = (model.rows, measured.rows), (model.draws, measured.draws)
    return ChampionFigures(
        digest=champion.digest,
        threshold=champion.threshold,
        metrics=measured.metrics,
        differences={name: difference_of(name, pair, draws) for name in COMPARED},
        roc=roc_points(truth, answers),
        precision_recall=precision_recall_points(truth, answers),
    )


def _confusion(truth: Array, flagged: np.ndarray[Any, np.dtype[np.bool_]]) -> ConfusionMatrix:
    positive = truth > 0
    return ConfusionMatrix(
        true_positives=int((positive & flagged).sum()),
        false_positives=int((~positive & flagged).sum()),
        false_negatives=int((positive & ~flagged).sum()),
        true_negatives=int((~positive & ~flagged).sum()),
    )
