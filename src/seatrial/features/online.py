"""Compute features for one request, from an index in memory.

The index holds, for each key, the times at which something became known and the running totals up
to each, so a history costs two binary searches whatever its length. It is built from the same
tables as :mod:`seatrial.features.batch` reads, and it grows with each outcome that arrives, so a
flight that landed a minute ago already counts for the next request.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.batch import KNOWN_AT, key_expression, running_totals
from seatrial.features.definitions import Features, History, Latest, Lookup, Part

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(instant: datetime) -> int:
    """Return an instant as whole microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


@dataclass
class _Totals:
    times: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def add(self, at: int, value: float) -> None:
        """Count one more value; a late one is put in its place."""
        place = bisect_left(self.times, at)
        if place == len(self.times) or self.times[place] != at:
            before = place - 1
            self.times.insert(place, at)
            self.counts.insert(place, self.counts[before] if place else 0)
            self.sums.insert(place, self.sums[before] if place else 0.0)
        for later in range(place, len(self.times)):
            self.counts[later] += 1
            self.sums[later] += value

    def until(self, at: int) -> tuple[int, float]:
        """Return count and sum of all values at or before ``at``."""
        place = bisect_right(self.times, at) - 1
        return (self.counts[place], self.sums[place]) if place >= 0 else (0, 0.0)


class _OnlineHistory:
    def __init__(self, part: History, table: pl.DataFrame) -> None:
        self.part = part
        self._lengths = [length // _MICROSECOND for length in part.lengths]
        self._totals: dict[str, _Totals] = {}
        grouped = (
            running_totals(part, table)
            .with_columns(pl.col("_at").dt.epoch("us"))
            .group_by("_key", maintain_order=True)
            .agg("_at", "_n", "_sum")
        )
        for key, times, counts, sums in grouped.iter_rows():
            self._totals[key] = _Totals(times, counts, sums)

    def add(self, key: str, at: int, value: float) -> None:
        self._totals.setdefault(key, _Totals()).add(at, value)

    def values(self, key: str | None, at: int | None) -> list[Any]:
        totals = self._totals.get(key) if key is not None else None
        found: list[Any] = []
        for length in self._lengths:
            if totals is None or at is None:
                found += [None, 0]
                continue
            n_end, sum_end = totals.until(at)
            n_start, sum_start = totals.until(at - length)
            count = n_end - n_start
            found += [(sum_end - sum_start) / count if count > 0 else None, count]
        return found


class _OnlineLatest:
    def __init__(self, part: Latest, table: pl.DataFrame) -> None:
        self.part = part
        self._tolerance = part.tolerance // _MICROSECOND if part.tolerance else None
        self._missing = [None] * len(part.columns)
        columns = list(part.columns.values())
        grouped = (
            table.select(
                key_expression(part.by).alias("_key"),
                pl.col(part.time).dt.epoch("us").alias("_at"),
                pl.struct(columns).alias("_values"),
            )
            .drop_nulls(["_key", "_at"])
            .sort("_at", maintain_order=True)
            .group_by("_key", maintain_order=True)
            .agg("_at", "_values")
        )
        self._rows: dict[str, tuple[list[int], list[list[Any]]]] = {
            key: (times, [[row[column] for column in columns] for row in rows])
            for key, times, rows in grouped.iter_rows()
        }

    def values(self, key: str | None, at: int | None) -> list[Any]:
        times, rows = self._rows.get(key, ([], [])) if key is not None else ([], [])
        place = bisect_right(times, at) - 1 if at is not None else -1
        if place < 0 or at is None:
            return self._missing
        if self._tolerance is not None and at - times[place] > self._tolerance:
            return self._missing
        return rows[place]


class _OnlineLookup:
    def __init__(self, part: Lookup, table: pl.DataFrame) -> None:
        self.part = part
        self._missing = [None] * len(part.columns)
        right = table.unique(part.by, keep="last", maintain_order=True)
        frame = right.select(key_expression(part.by).alias("_key"), *part.columns.values())
        self._rows = {row[0]: list(row[1:]) for row in frame.iter_rows() if row[0] is not None}

    def values(self, key: str | None, at: int | None) -> list[Any]:
        return self._rows.get(key, self._missing) if key is not None else self._missing


_Index = _OnlineHistory | _OnlineLatest | _OnlineLookup


class OnlineFeatures:
    """The features of requests, one or a few rows at a time.

    Args:
        features: The model's definitions.
        tables: The tables that the definitions read, by name, as of now.
        inputs: The request's columns, each with its polars type.
        use: The features wanted, in their order; all of them without it.

    Raises:
        FeatureError: if a table that the definitions read is not given.
    """

    def __init__(
        self,
        features: Features,
        tables: dict[str, pl.LazyFrame],
        inputs: dict[str, pl.DataType | type[pl.DataType]],
        *,
        use: list[str] | None = None,
    ) -> None:
        self._features = features
        self._schema = pl.Schema(inputs)
        self._use = features.all_names if use is None else use
        self._indexes = [_index(part, tables) for part in features.parts]
        self._joined: dict[str, Any] = {}
        for part in features.parts:
            self._joined.update(_types(part, tables[part.table]))
        self._keys = [
            key_expression(part.by).alias(f"_key_{place}") for place, part in enumerate(features.parts)
        ]

    def compute(self, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
        """Compute the features of a request.

        Args:
            rows: The request's rows, each with a value for every input, in the inputs' order.

        Returns:
            A frame of shape (n_rows, n_features).

        Raises:
            FeatureError: if an expression cannot be computed for these values.
        """
        try:
            frame = pl.DataFrame(rows, schema=self._schema, orient="row", strict=True)
            if self._indexes:
                frame = frame.hstack(self._look_up(frame))
            return frame.select(
                self._features.expressions[name].alias(name)
                if name in self._features.expressions
                else pl.col(name)
                for name in self._use
            )
        except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
            raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error

    def _look_up(self, frame: pl.DataFrame) -> pl.DataFrame:
        known_at = self._features.known_at
        at = pl.lit(None, pl.Int64) if known_at is None else known_at.dt.epoch("us")
        keyed = frame.select(at.alias(KNOWN_AT), *self._keys)
        found = [
            [
                value
                for key, index in zip(row[1:], self._indexes, strict=True)
                for value in index.values(key, row[0])
            ]
            for row in keyed.iter_rows()
        ]
        return pl.DataFrame(found, schema=self._joined, orient="row")

    def learn(self, table: str, row: dict[str, Any]) -> None:
        """Let a row that has just become known count for the histories over its table.

        Args:
            table: Name of the table.
            row: The row's columns; those that a history does not need are ignored, and a history
                whose key, time or value is missing is left as it is.
        """
        for index in self._indexes:
            part = index.part
            if not isinstance(index, _OnlineHistory) or part.table != table:
                continue
            needed = [row.get(column) for column in (*part.by, index.part.time, index.part.value)]
            if any(value is None for value in needed):
                continue
            key = pl.select(key_expression_of(needed[: len(part.by)])).item()
            index.add(key, to_microseconds(needed[-2]), float(needed[-1]))


def key_expression_of(values: list[Any]) -> pl.Expr:
    """The same text as ``key_expression`` makes of columns, of plain values."""
    texts = [pl.lit(value).cast(pl.String) for value in values]
    return texts[0] if len(texts) == 1 else pl.concat_str(texts, separator="\x1f")


def _index(part: Part, tables: dict[str, pl.LazyFrame]) -> _Index:
    if part.table not in tables:
        raise FeatureError(f"The features need the table {part.table!r}. Got: {', '.join(tables) or 'none'}.")
    table = tables[part.table].select(sorted(part.needs)).collect()
    match part:
        case Lookup():
            return _OnlineLookup(part, table)
        case Latest():
            return _OnlineLatest(part, table)
        case History():
            return _OnlineHistory(part, table)


def _types(part: Part, table: pl.LazyFrame) -> dict[str, Any]:
    if isinstance(part, History):
        return {name: pl.Float64 if "_share_" in name else pl.Int64 for name in part.names}
    schema = table.collect_schema()
    return {name: schema[column] for name, column in part.columns.items()}
