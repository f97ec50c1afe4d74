"""Compute features for whole tables, with polars.

Histories are running totals per key, read at both ends of each window by an as-of join: two
look-ups a row and a window, however many rows the window holds.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.definitions import Features, History, Latest, Lookup, Part

KNOWN_AT = "_known_at"
_KEY = "_key"
_AT = "_at"
SEPARATOR = "\x1f"


def compute_features(
    features: Features,
    rows: pl.DataFrame,
    tables: dict[str, pl.LazyFrame],
    *,
    use: list[str] | None = None,
) -> pl.DataFrame:
    """Compute features for ``rows``.

    Args:
        features: The model's definitions.
        rows: The requests: a column for each of the contract's inputs, of shape (n_rows, n_inputs).
        tables: The tables that the definitions read, by name.
        use: The features wanted, in their order; all of them without it.

    Returns:
        A frame with the features' columns, of shape (n_rows, n_features), in the rows' order.

    Raises:
        FeatureError: if a table or a column is missing or an expression cannot be computed.
    """
    wanted = features.all_names if use is None else use
    expressions = [made.alias(name) for name, made in features.expressions.items() if name in wanted]
    needed = {*wanted, *(root for made in expressions for root in made.meta.root_names())}
    try:
        frame, order = _in_time(features, rows)
        parts = [part for part in features.parts if not needed.isdisjoint(part.names)]
        made = [_make(part, frame, _table(part, tables), order) for part in parts]
        # What nobody needs is left behind: to bring a column beside the others may copy it.
        own = frame.select(column for column in frame.columns if column in needed)
        beside = [found for found in (own, *made) if found.width] or [frame]
        return pl.concat(beside, how="horizontal").with_columns(expressions).select(wanted)
    except pl.exceptions.PolarsError as error:
        raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error


def _in_time(features: Features, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
    """Return the rows with their instants, and their places in the order of time; None: they are in it."""
    if features.known_at is None:
        return rows, None
    frame = rows.with_columns(features.known_at.dt.cast_time_unit("us").alias(KNOWN_AT))
    instants = frame[KNOWN_AT]
    return frame, None if instants.is_sorted(nulls_last=True) else instants.arg_sort(nulls_last=True)


def _table(part: Part, tables: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    if part.table not in tables:
        raise FeatureError(f"The features need the table {part.table!r}. Got: {', '.join(tables) or 'none'}.")
    return tables[part.table].select(sorted(part.needs)).collect()


def key_expression(by: tuple[str, ...]) -> pl.Expr:
    """One text for the columns ``by``, missing where any of them is; an as-of join by it is the faster."""
    if len(by) == 1:
        return pl.col(by[0]).cast(pl.String)
    return pl.concat_str([pl.col(column).cast(pl.String) for column in by], separator=SEPARATOR)


def _make(part: Part, frame: pl.DataFrame, table: pl.DataFrame, order: pl.Series | None) -> pl.DataFrame:
    """Return the features of one part, of shape (n_rows, n_names), in the frame's order."""
    if isinstance(part, Lookup):
        return _make_lookup(part, frame, table)
    # Only two columns are brought into the order of time, and only what was made goes back.
    keyed = frame.select(KNOWN_AT, key_expression(part.by).alias(_KEY))
    if order is None:
        return _make_timed(part, keyed, table)
    back = np.empty(len(order), dtype=np.uint32)
    back[order.to_numpy()] = np.arange(len(order), dtype=np.uint32)
    return _make_timed(part, keyed[order], table)[back]


def _make_timed(part: Latest | History, keyed: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Return the features of one part for keys in the order of their time."""
    return _make_latest(part, keyed, table) if isinstance(part, Latest) else _make_history(part, keyed, table)


def _make_lookup(part: Lookup, frame: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    right = table.unique(part.by, keep="last", maintain_order=True).select(
        *part.by, **{name: pl.col(column) for name, column in part.columns.items()}
    )
    return (
        frame.select(part.by)
        .join(right, on=list(part.by), how="left", maintain_order="left")
        .select(part.names)
    )


def _make_latest(part: Latest, keyed: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    right = (
        table.select(
            key_expression(part.by).alias(_KEY),
            pl.col(part.time).dt.cast_time_unit("us").alias(_AT),
            **{name: pl.col(column) for name, column in part.columns.items()},
        )
        .drop_nulls([_KEY, _AT])
        .sort(_AT, maintain_order=True)
    )
    return _asof(keyed, right, part.tolerance).select(part.names)


def _asof(left: pl.DataFrame, right: pl.DataFrame, tolerance: timedelta | None = None) -> pl.DataFrame:
    # Both sides are sorted by time as a whole, so within a key too; polars cannot know that.
    return left.join_asof(
        right,
        left_on=KNOWN_AT,
        right_on=_AT,
        by=_KEY,
        strategy="backward",
        tolerance=tolerance,
        check_sortedness=False,
    )


def running_totals(part: History, table: pl.DataFrame) -> pl.DataFrame:
    """Return the running count and sum of a history's value, by key and time.

    Returns:
        Columns ``_key``, ``_at`` (microseconds), ``_n`` and ``_sum``, one row for each value, sorted by
        time; of the rows of a key at one instant only the last has the totals that include the
        instant, and it is the one that an as-of join takes.
    """
    return (
        table.select(
            key_expression(part.by).alias(_KEY),
            pl.col(part.time).dt.cast_time_unit("us").alias(_AT),
            # One NaN would make every later total NaN.
            pl.col(part.value).cast(pl.Float64).fill_nan(None).alias("_sum"),
            pl.lit(1, pl.Int64).alias("_n"),
        )
        .drop_nulls()
        .sort(_AT, maintain_order=True)
        .with_columns(pl.col("_n", "_sum").cum_sum().over(_KEY))
    )


def _make_history(part: History, keyed: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    totals = running_totals(part, table)
    at_end = _asof(keyed, totals).select(n_end="_n", sum_end="_sum")
    made = []
    for window, length in zip(part.windows, part.lengths, strict=True):
        start = keyed.with_columns(pl.col(KNOWN_AT) - length)
        at_start = _asof(start, totals).select(n_start="_n", sum_start="_sum")
        count = pl.col("n_end").fill_null(0) - pl.col("n_start").fill_null(0)
        total = pl.col("sum_end").fill_null(0.0) - pl.col("sum_start").fill_null(0.0)
        made.append(
            pl.concat([at_end, at_start], how="horizontal").select(
                pl.when(count > 0).then(total / count).alias(f"{part.name}_share_{window}"),
                count.alias(f"{part.name}_count_{window}"),
            )
        )
    return pl.concat(made, how="horizontal")
