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
from datetime import UTC, datetime, timedelta
from functools import reduce

import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.batch import compute_features
from seatrial.features.definitions import Features, History, Latest, Part

_EVER = datetime(1, 1, 1, tzinfo=UTC)


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
    month = features.known_at.dt.cast_time_unit("us").dt.truncate("1mo")
    try:
        for start, first, last, count in _months(rows, month).iter_rows():
            of_month = _rows_of_month(rows, month, start, first, last, count)
            read = _read_tables(features, tables, start)
            yield MonthOfFeatures(
                month=None if start is None else f"{start:%Y-%m}",
                rows=of_month,
                features=compute_features(features, of_month, read, use=use),
            )
    except pl.exceptions.PolarsError as error:
        raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error


def _months(rows: pl.LazyFrame, month: pl.Expr) -> pl.DataFrame:
    """Return each month with the places of its first and last row, and how many rows it has."""
    places = pl.col("place")
    return (
        rows.select(month.alias("month"))
        .with_row_index("place")
        .group_by("month")
        .agg(places.min().alias("first"), places.max().alias("last"), pl.len())
        .sort("month", nulls_last=True)
        .collect(engine="streaming")
    )


def _rows_of_month(
    rows: pl.LazyFrame, month: pl.Expr, start: datetime | None, first: int, last: int, count: int
) -> pl.DataFrame:
    """Return the rows of one month; where rows are stored in the order of time, nothing else is read."""
    in_month = month.is_null() if start is None else month == start
    found = rows.slice(first, last - first + 1).filter(in_month).collect(engine="streaming")
    if found.height == count:
        return found
    # The scan gave its rows in another order than before, so the places were of no use.
    return rows.filter(in_month).collect(engine="streaming")


def _read_tables(
    features: Features, tables: dict[str, pl.LazyFrame], start: datetime | None
) -> dict[str, pl.LazyFrame]:
    """Return what the predictions of the month from ``start`` may look at, read once for all parts."""
    read: dict[str, pl.LazyFrame] = {}
    for name, columns in features.tables.items():
        if name not in tables:
            continue  # whether it is needed at all is said where it is used
        parts = [part for part in features.parts if part.table == name]
        chosen = tables[name].select(sorted(columns)).filter(_looked_at(parts, start))
        read[name] = chosen.collect(engine="streaming").lazy()
    return read


def _looked_at(parts: list[Part], start: datetime | None) -> pl.Expr:
    """Return which rows of a table its parts may look at in the month from ``start``.

    Plain bounds on a column let the scan skip the files and row groups that are outside of them.
    """
    timed = [part for part in parts if isinstance(part, Latest | History)]
    if len(timed) < len(parts):
        return pl.lit(True)
    if start is None:
        return pl.lit(False)  # without an instant nothing was known
    bounds: dict[str, datetime] = {}
    for part in timed:
        back = _look_back(part)
        earliest = start - back if back else _EVER
        bounds[part.time] = min(earliest, bounds.get(part.time, earliest))
    end = _next_month(start)
    seen = [(pl.col(time) >= earliest) & (pl.col(time) < end) for time, earliest in bounds.items()]
    return reduce(lambda one, other: one | other, seen)


def _look_back(part: Latest | History) -> timedelta | None:
    return part.tolerance if isinstance(part, Latest) else max(part.lengths)


def _next_month(start: datetime) -> datetime:
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
