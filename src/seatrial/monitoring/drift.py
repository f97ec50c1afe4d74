"""How far live rows have moved from the training rows, feature by feature.

Two distances, each the field's own. The Kolmogorov-Smirnov distance (Kolmogorov 1933, "Sulla
determinazione empirica di una legge di distribuzione"; Smirnov 1948, "Table for estimating the
goodness of fit of empirical distributions") is the largest gap between two distribution
functions. The population stability index (Siddiqi 2006, "Credit Risk Scorecards"; statistics in
Yurdakul 2018, "Statistical Properties of Population Stability Index") is the symmetric relative
entropy of two histograms.

Both are above zero for rows of the very same distribution, the more so the fewer rows and the
more bins there are. A column has therefore drifted only where a distance is beyond the contract's
bound *and* beyond what chance alone does once in a thousand times.

The current rows are sorted once for each number, in threads; that answers every knot of the
baseline from both sides, so ties are exact, and is as fast as putting each row in its bin.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Monitoring
from seatrial.errors import FeatureError
from seatrial.monitoring.baseline import (
    Baseline,
    CategoryBaseline,
    NumberBaseline,
    category_counts,
    sorted_values,
)

PSI_BINS = 10
SMALLEST_SHARE = 1e-4
"""Share that an empty bin counts as; the index would be infinite without it."""

EXPECTED_ROWS = 20
"""Categories of which fewer current rows are expected share a bin. The rule of five that is usual for
chi-squared (Cochran 1954) is too few for logarithms: of 100 categories on 500 rows the index is then
beyond its chance level 12 times in a thousand instead of once."""

_KS_CHANCE = 1.949
"""Kolmogorov's distribution exceeds it with a probability of 0.001."""

_NORMAL_CHANCE = 3.090
"""The standard normal distribution exceeds it with a probability of 0.001."""


class ColumnDrift(BaseModel):
    """How far one column has moved.

    Attributes:
        name: The feature's name, or ``prediction``.
        kind: ``number`` or ``category``.
        rows: Current rows that were compared, missing values included.
        psi: Population stability index; 0 means the same histogram.
        psi_chance: Index that chance alone exceeds once in a thousand times.
        ks: Kolmogorov-Smirnov distance at the baseline's knots, from 0 to 1, at most 0.01 below the
            exact one; None for a category, or where one side has no value.
        ks_chance: Distance that chance alone exceeds once in a thousand times.
        missing_share: Share of current rows that lack a value.
        missing_rise: By how much that is more than in the training rows; negative if it is less.
        unseen_share: Share of current rows with a category that is not known; 0 for a number.
        unseen_rise: By how much that is more than in the training rows, of which some have a category that is
            not known where a feature has more categories than are kept.
        outside_share: Share of current rows beyond the smallest or the largest value of the training rows; 0
            for a category.
        drifted: Whether the column has drifted by the contract's bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["number", "category"]
    rows: int
    psi: float
    psi_chance: float
    ks: float | None = None
    ks_chance: float | None = None
    missing_share: float
    missing_rise: float
    unseen_share: float = 0.0
    unseen_rise: float = 0.0
    outside_share: float = 0.0
    drifted: bool


class Drift(BaseModel):
    """How far the rows of a window have moved from a baseline.

    Attributes:
        columns: One entry a feature, in the order of the matrix's columns.
        prediction: The same of the predicted probability.
        outlier_share: Share of rows of which at least one number is outside of the training rows' range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[ColumnDrift, ...]
    prediction: ColumnDrift
    outlier_share: float


def compare(
    baseline: Baseline,
    matrix: NDArray[np.float32],
    probabilities: NDArray[np.float64],
    rules: Monitoring,
    *,
    threads: int | None = None,
) -> Drift:
    """Compare current rows with a baseline; their order does not matter.

    Args:
        baseline: What the bundle keeps of its training rows.
        matrix: The current rows, encoded, of shape (n_rows, n_features).
        probabilities: What the model said of them, of shape (n_rows,).
        rules: The contract's ``monitoring``.
        threads: Columns compared at a time; as many as there are cores without it.

    Returns:
        The distances of each feature and of the prediction.

    Raises:
        FeatureError: if there is no row, or the rows do not have the baseline's features.
    """
    n_rows, n_features = matrix.shape
    if n_rows == 0 or n_features != len(baseline.features) or len(probabilities) != n_rows:
        raise FeatureError(
            f"The baseline compares rows of {len(baseline.features)} features, each with a probability. "
            f"Got a matrix of shape {matrix.shape} and {len(probabilities)} probabilities."
        )

    def one(place: int) -> tuple[ColumnDrift, NDArray[np.bool_] | None]:
        known = baseline.features[place]
        column = np.ascontiguousarray(matrix[:, place])
        if isinstance(known, CategoryBaseline):
            return compare_category(known, column, rules), None
        found = compare_number(known, column, rules)
        return found, _outside(known, column) if found.outside_share else None

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        prediction = pool.submit(compare_number, baseline.prediction, probabilities.astype(np.float32), rules)
        columns = list(pool.map(one, range(n_features)))
    outliers = np.zeros(n_rows, dtype=bool)
    for _, outside in columns:
        if outside is not None:
            outliers |= outside
    return Drift(
        columns=tuple(found for found, _ in columns),
        prediction=prediction.result(),
        outlier_share=float(np.mean(outliers)),
    )


def compare_number(known: NumberBaseline, column: NDArray[np.float32], rules: Monitoring) -> ColumnDrift:
    """Compare a number with its baseline.

    Args:
        known: Its baseline.
        column: Its current values, of shape (n_rows,), n_rows > 0; NaN is missing.
        rules: The contract's ``monitoring``.
    """
    ordered = sorted_values(column)
    knots = np.asarray(known.values, dtype=np.float32)
    below = np.searchsorted(ordered, knots, side="left")
    up_to = np.searchsorted(ordered, knots, side="right")
    missing = len(column) - len(ordered)
    reference_bins, current_bins = _number_bins(known, below, up_to, len(ordered))
    psi, psi_chance = _stability(np.append(reference_bins, known.missing), np.append(current_bins, missing))
    ks, ks_chance = _ks_distance(known, below, up_to, len(ordered))
    outside = int(below[0] + len(ordered) - up_to[-1]) if len(knots) else len(ordered)
    missing_share = missing / len(column)
    return ColumnDrift(
        name=known.name,
        kind="number",
        rows=len(column),
        psi=psi,
        psi_chance=psi_chance,
        ks=ks,
        ks_chance=ks_chance,
        missing_share=missing_share,
        missing_rise=missing_share - known.missing_share,
        outside_share=outside / len(column),
        drifted=_beyond(psi, rules.psi, psi_chance) or _beyond(ks, rules.ks, ks_chance),
    )


def compare_category(known: CategoryBaseline, codes: NDArray[np.float32], rules: Monitoring) -> ColumnDrift:
    """Compare a category with its baseline.

    Args:
        known: Its baseline.
        codes: Its current codes, of shape (n_rows,), n_rows > 0.
        rules: The contract's ``monitoring``.

    Raises:
        FeatureError: if a code is not of the baseline's categories.
    """
    current = category_counts(codes, len(known.categories))
    reference = np.array([known.missing, known.unseen, *known.counts], dtype=np.int64)
    psi, psi_chance = _stability(*_category_bins(reference, current))
    missing_share = float(current[0]) / len(codes)
    return ColumnDrift(
        name=known.name,
        kind="category",
        rows=len(codes),
        psi=psi,
        psi_chance=psi_chance,
        missing_share=missing_share,
        missing_rise=missing_share - known.missing_share,
        unseen_share=float(current[1]) / len(codes),
        unseen_rise=float(current[1]) / len(codes) - known.unseen_share,
        drifted=_beyond(psi, rules.psi, psi_chance),
    )


def _outside(known: NumberBaseline, column: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which values are beyond all of the training rows; a missing one is not."""
    low, high = (known.values[0], known.values[-1]) if known.values else (np.inf, -np.inf)
    outside: NDArray[np.bool_] = (column < np.float32(low)) | (column > np.float32(high))
    return outside


def _beyond(distance: float | None, bound: float, chance: float | None) -> bool:
    return distance is not None and chance is not None and distance >= bound and distance > chance


def _ks_distance(
    known: NumberBaseline, below: NDArray[np.int64], up_to: NDArray[np.int64], n_current: int
) -> tuple[float | None, float | None]:
    """Return the distance at the knots, approached from either side, and what chance does."""
    if n_current == 0 or known.rows == 0:
        return None, None
    before = np.abs(np.asarray(known.below) / known.rows - below / n_current)
    after = np.abs(np.asarray(known.up_to) / known.rows - up_to / n_current)
    chance = _KS_CHANCE * float(np.sqrt(1 / known.rows + 1 / n_current))
    return float(max(before.max(), after.max())), min(chance, 1.0)


def _number_bins(
    known: NumberBaseline, below: NDArray[np.int64], up_to: NDArray[np.int64], n_current: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of both sides in the bins between every tenth percentile."""
    if len(known.values) == 1:  # a constant has no percentiles to bin by: less, the same, more
        return np.array([0, known.rows, 0]), np.diff([0, below[0], up_to[0], n_current])
    reference = np.asarray(known.up_to, dtype=np.int64)
    # A knot ends a bin where the reference's count reaches another tenth; a tie may reach several at once.
    tenths = reference * PSI_BINS // max(known.rows, 1)
    ends = np.flatnonzero(np.diff(tenths, prepend=0))[:-1]
    reference_bins = np.diff(reference[ends], prepend=0, append=known.rows)
    return reference_bins, np.diff(up_to[ends], prepend=0, append=n_current)


def _category_bins(
    reference: NDArray[np.int64], current: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of both sides by category; the rare ones share a bin, missing and unseen do not."""
    expected = reference * (current.sum() / max(reference.sum(), 1))
    rare = expected < EXPECTED_ROWS
    rare[:2] = False
    return (
        np.append(reference[~rare], reference[rare].sum()),
        np.append(current[~rare], current[rare].sum()),
    )


def _stability(reference: NDArray[np.int64], current: NDArray[np.int64]) -> tuple[float, float]:
    """Return the population stability index of two histograms, and what chance does.

    For rows of one distribution the index is near to chi-squared with one degree of freedom less
    than there are bins, times ``1 / n + 1 / m`` (Yurdakul 2018); its quantile is taken by Wilson
    and Hilferty (1931).
    """
    n_reference, n_current = int(reference.sum()), int(current.sum())
    p = np.maximum(reference / n_reference, SMALLEST_SHARE)
    q = np.maximum(current / n_current, SMALLEST_SHARE)
    index = float(np.sum((q - p) * np.log(q / p)))
    freedom = int(np.count_nonzero(reference + current)) - 1
    if freedom < 1:
        return index, 0.0
    part = 2 / (9 * freedom)
    quantile = freedom * (1 - part + _NORMAL_CHANCE * part**0.5) ** 3
    return index, float(quantile * (1 / n_reference + 1 / n_current))
