"""Quality by slice: a good average can hide a group for which the model is useless.

Slices with too few rows are measured and shown, but not judged: the worst of many small groups is
bad by chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Costs
from seatrial.evaluation.intervals import REPEATS, Interval, intervals_of, replicates
from seatrial.evaluation.metrics import RankedRows

SHOWN_VALUES = 40
"""Values of a slice that are shown by themselves, beside all those that are judged."""

QUARTILES_ABOVE = 30
"""A number with more distinct values than this is cut at its quartiles."""

MISSING = "(missing)"
SLICE_METRICS = ("base_rate", "roc_auc", "average_precision", "brier_score", "cost_per_row")


@dataclass(frozen=True)
class _Group:
    """The rows (their places) that share a value."""

    value: str
    places: NDArray[np.intp]


class SliceMetrics(BaseModel):
    """How good a model is on the rows that share a value.

    Attributes:
        slice: Name of the input or feature.
        value: The shared value as text, or a range for numbers of many values.
        rows: Number of rows.
        judged: Whether they are enough to judge by.
        metrics: Base rate, ROC AUC, average precision, Brier score and cost per row, with
            intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slice: str
    value: str
    rows: int
    judged: bool
    metrics: dict[str, Interval]


def slice_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    slices: dict[str, pl.Series],
    *,
    minimum_rows: int,
    threshold: float,
    costs: Costs,
    seed: int = 0,
    repeats: int = REPEATS,
) -> list[SliceMetrics]:
    """Measure a model on each value of each slice.

    Args:
        labels: Truth of shape (n_rows,), boolean or 0 and 1.
        probabilities: Answers of shape (n_rows,).
        slices: By name, a value for each row, of shape (n_rows,).
        minimum_rows: Fewest rows (inclusive) by which a value is judged.
        threshold: Probability from which a row is flagged (inclusive).
        costs: What a mistake costs.
        seed: Seed of the intervals' draws.
        repeats: Number of draws.

    Returns:
        The slices in their order, within each its values in their order; of many small values
        those beyond the 40 most frequent are measured (and judged) together, as "(12 rarer values)".
    """
    truth = np.asarray(labels, dtype=np.float64)
    answers = np.asarray(probabilities, dtype=np.float64)
    measured = []
    for name, values in slices.items():
        for group in _groups(values, minimum_rows):
            rows = RankedRows(truth[group.places], answers[group.places], threshold=threshold, costs=costs)
            found = intervals_of(rows, replicates(rows, seed=seed, repeats=repeats))
            measured.append(
                SliceMetrics(
                    slice=name,
                    value=group.value,
                    rows=len(rows),
                    judged=len(rows) >= minimum_rows,
                    metrics={metric: found[metric] for metric in SLICE_METRICS},
                )
            )
    return measured


def _groups(values: pl.Series, minimum_rows: int) -> list[_Group]:
    """Return the groups of a slice in the order of their values, the missing and the pooled last."""
    values = values.fill_nan(None) if values.dtype.is_float() else values
    keys = _quartiles(values) if values.dtype.is_numeric() and values.n_unique() > QUARTILES_ABOVE else values
    frame = pl.DataFrame({"key": keys, "value": values}).with_row_index("place")
    found = (
        frame.group_by("key")
        .agg("place", rows=pl.len(), low=pl.col("value").min(), high=pl.col("value").max())
        .sort("key", nulls_last=True)
        .with_columns(rank=pl.col("rows").rank("ordinal", descending=True))
    )
    kept = found.filter((pl.col("rank") <= SHOWN_VALUES) | (pl.col("rows") >= minimum_rows))
    groups = [
        _Group(_shown(row["key"], row["low"], row["high"]), np.asarray(row["place"], dtype=np.intp))
        for row in kept.iter_rows(named=True)
    ]
    rest = found.join(kept, on="key", how="anti", nulls_equal=True)
    if rest.height:
        places = rest["place"].explode().to_numpy().astype(np.intp)
        groups.append(_Group(f"({rest.height} rarer values)", places))
    return groups


def _quartiles(values: pl.Series) -> pl.Series:
    """Return the quarter of each number, 0 to 3; equal numbers are in the same one."""
    first, second, third = (values.quantile(share, "nearest") for share in (0.25, 0.5, 0.75))
    above = [(values > edge).cast(pl.Int8) for edge in (first, second, third)]
    return above[0] + above[1] + above[2]


def _shown(key: object, low: object, high: object) -> str:
    if key is None:
        return MISSING
    if isinstance(key, bool):
        return str(key).lower()
    return f"{low:g} to {high:g}" if low != high else str(low)
