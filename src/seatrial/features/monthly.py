"""Compute features month by month, where the tables are larger than the memory.

A prediction looks back as far as the longest window of the definitions and no further. So the
features of a month need that month's rows, and of each table the rows from the longest window
before the month to its end: the tables are scanned lazily, and what is in memory is a month and
its look-back, however long the history is. The answers are those of
:func:`seatrial.features.batch.compute_features` on everything at once; a mean of values that are
not whole numbers may differ in its last digits, because its running total starts later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.batch import compute_features
from seatrial.features.definitions import Features, History, Latest, Part


@dataclass(frozen=True)
class MonthOfFeatures:
    """The features of the predictions of one month.

    Attributes:
        month: The month of ``known_at``, such as ``2013-07``, UTC; None for the rows without an
            instant, which come last.
        rows: The requests, as they were given.
        features: Their features, of shape (n_rows, n_features), in the rows' order.
    """

    month: str | None
    rows: pl.DataFrame
    features: pl.DataFrame


def compute_monthly(
    features: Features,
    rows: pl.LazyFrame,
    tables: dict[str, pl.LazyFrame],
    *,
    use: list[str] | None = None,
) -> Iterator[MonthOfFeatures]:
    """Compute features for ``rows``, one month after the other.

    Args:
        features: The model's definitions; they must have a ``known_at``.
        rows: The requests, scanned from files or a table, in any order.
        tables: The tables that the definitions read, by name, scanned likewise. A table of which
            a part needs all earlier rows (a lookup, or a latest row without ``within``) is read up
            to the month's end each time.
        use: The features wanted, in their order; all of them without it.

    Yields:
        Each month that has rows, in order.

    Raises:
        FeatureError: if the definitions have no ``known_at``, a table or a column is missing, or an
            expression cannot be computed.
    """
    if features.known_at is None:
        raise FeatureError("Features can be computed by month only where known_at is given.")
    known_at = features.known_at.dt.cast_time_unit("us")
    try:
        months = rows.select(known_at.dt.truncate("1mo").alias("month")).unique().collect(engine="streaming")
        for (start,) in months.sort("month", nulls_last=True).iter_rows():
            in_month = known_at.is_null() if start is None else known_at.dt.truncate("1mo") == start
            of_month = rows.filter(in_month).collect(engine="streaming")
            read = _read_tables(features, tables, start)
            yield MonthOfFeatures(
                month=None if start is None else f"{start:%Y-%m}",
                rows=of_month,
                features=compute_features(features, of_month, read, use=use),
            )
    except pl.exceptions.PolarsError as error:
        raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error


def _read_tables(
    features: Features, tables: dict[str, pl.LazyFrame], start: datetime | None
) -> dict[str, pl.LazyFrame]:
    """Return what the predictions of the month from ``start`` may look at, read once for all parts."""
    read: dict[str, pl.LazyFrame] = {}
    for name, columns in features.tables.items():
        if name not in tables:
            continue  # whether it is needed at all is said where it is used
        seen = [_looked_at(part, start) for part in features.parts if part.table == name]
        chosen = tables[name].filter(pl.any_horizontal(seen)).select(sorted(columns))
        read[name] = chosen.collect(engine="streaming").lazy()
    return read


def _looked_at(part: Part, start: datetime | None) -> pl.Expr:
    """Return which rows of its table a part may look at for predictions of the month from ``start``."""
    if not isinstance(part, Latest | History):
        return pl.lit(True)
    if start is None:
        return pl.lit(False)  # without an instant nothing was known
    time = pl.col(part.time)
    before_end = time < pl.lit(start).dt.offset_by("1mo")
    back = _look_back(part)
    return before_end if back is None else before_end & (time >= start - back)


def _look_back(part: Latest | History) -> timedelta | None:
    return part.tolerance if isinstance(part, Latest) else max(part.lengths)
