"""Evaluation: how good a model is on rows that it has never seen, and how sure that is.

Everything is computed from arrays: what was true and what was said. Who made the answers, a
candidate, a champion or a constant, makes no difference.
"""

from seatrial.evaluation.curves import (
    CalibrationBin,
    CostCurve,
    Curve,
    best_threshold,
    calibration_curve,
    cost_curve,
    precision_recall_points,
    roc_points,
    roc_thresholds,
    wilson_interval,
)
from seatrial.evaluation.intervals import Interval, bootstrap_intervals, paired_difference
from seatrial.evaluation.metrics import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    METRICS,
    break_even,
    classification_metrics,
    expected_calibration_error,
)
from seatrial.evaluation.result import (
    ChampionAnswers,
    ChampionFigures,
    ConfusionMatrix,
    ConstantFigures,
    Evaluation,
    evaluate,
)
from seatrial.evaluation.slices import SliceMetrics, slice_metrics

__all__ = [
    "HIGHER_IS_BETTER",
    "LOWER_IS_BETTER",
    "METRICS",
    "CalibrationBin",
    "ChampionAnswers",
    "ChampionFigures",
    "ConfusionMatrix",
    "ConstantFigures",
    "CostCurve",
    "Curve",
    "Evaluation",
    "Interval",
    "SliceMetrics",
    "best_threshold",
    "bootstrap_intervals",
    "break_even",
    "calibration_curve",
    "classification_metrics",
    "cost_curve",
    "evaluate",
    "expected_calibration_error",
    "paired_difference",
    "precision_recall_points",
    "roc_points",
    "roc_thresholds",
    "slice_metrics",
    "wilson_interval",
]
