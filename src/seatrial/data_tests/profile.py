"""A profile of a table: what its columns look like, for people and for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from seatrial.contract.schema import RESERVED

BINS = 24


def profile(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Describe each column of a table.

    Args:
        rows: The table's rows.

    Returns:
        For each column its name, type, share of missing values and number of distinct ones; for
        numbers and times also minimum, quartiles, maximum and mean, and for numbers a histogram;
        for others the ten most frequent values with their counts. JSON-serializable.
    """
    return [_profile_column(rows[name]) for name in rows.columns if name not in RESERVED]


def _profile_column(values: pl.Series) -> dict[str, Any]:
    present = values.drop_nulls()
    if values.dtype.is_float():
        present = present.filter(present.is_finite())
    facts: dict[str, Any] = {
        "column": values.name,
        "type": str(values.dtype),
        "rows": len(values),
        "missing_share": 1 - len(present) / len(values) if len(values) else 0.0,
        "distinct": present.n_unique(),
    }
    if len(present) and values.dtype.is_numeric():
        facts["mean"] = present.mean()
        facts["quantiles"] = [present.quantile(q, "nearest") for q in (0, 0.25, 0.5, 0.75, 1)]
        facts["histogram"] = _histogram(present)
    elif len(present) and values.dtype.is_temporal():
        facts["quantiles"] = [str(present.min()), str(present.max())]
    elif len(present):
        top = present.cast(pl.String).value_counts(sort=True).head(10)
        facts["top"] = [[value, count] for value, count in top.iter_rows()]
    return facts


def _histogram(values: pl.Series) -> dict[str, list[float]]:
    """Count values in bins of equal width, without the outermost half per cent at each end.

    Returns:
        ``edges`` (one more than bins) and ``counts``: 24 bins, or one where the values are too
        close to each other, or too far apart, for more.
    """
    numbers = values.cast(pl.Float64)
    clipped = numbers.clip(numbers.quantile(0.005, "nearest"), numbers.quantile(0.995, "nearest")).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.linspace(clipped.min(), clipped.max(), BINS + 1)
    if not np.all(edges[:-1] < edges[1:]):
        edges = np.array([clipped.min(), clipped.max()])
    counts, _ = np.histogram(clipped, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
