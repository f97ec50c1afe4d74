"""Compute features for one request, from an index in memory.

The index holds, for each key, the times at which something became known and the running totals up
to each, so a history costs two binary searches whatever its length. It is built from the same
tables as :mod:`seatrial.features.batch` reads, and it grows with each outcome that arrives, so a
flight that landed a minute ago already counts for the next request. Where every expression is one
that :mod:`seatrial.features.row_expressions` translates, a request is answered without polars.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.batch import KNOWN_AT, SEPARATOR, key_expression, running_totals
from seatrial.features.definitions import Features, History, Latest, Lookup, Part
from seatrial.features.row_expressions import TIME, RowFunction, Unsure, row_function

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

    def add(self, at: int, value: float, times: int) -> None:
        """Count one more value, or one less; a late one is put in its place."""
        place = bisect_left(self.times, at)
        if place == len(self.times) or self.times[place] != at:
            before = place - 1
            self.times.insert(place, at)
            self.counts.insert(place, self.counts[before] if place else 0)
            self.sums.insert(place, self.sums[before] if place else 0.0)
        self.counts[place:] = [count + times for count in self.counts[place:]]
        self.sums[place:] = [total + value for total in self.sums[place:]]

    def until(self, at: int) -> tuple[int, float]:
        """Return count and sum of all values at or before ``at``."""
        place = bisect_right(self.times, at) - 1
        return (self.counts[place], self.sums[place]) if place >= 0 else (0, 0.0)


class _OnlineHistory:
    def __init__(self, part: History, table: pl.DataFrame) -> None:
        self.part = part
        self._lengths = [length // _MICROSECOND for length in part.lengths]
        self._totals: dict[str, _Totals] = {}
        # What was learned is kept apart: a late outcome moves all that is after it, and the tables
        # hold years of it, what was learned since they were read a month perhaps.
        self._learned: dict[str, _Totals] = {}
        grouped = (
            running_totals(part, table)
            .with_columns(pl.col("_at").dt.epoch("us"))
            .group_by("_key", maintain_order=True)
            .agg("_at", "_n", "_sum")
        )
        for key, times, counts, sums in grouped.iter_rows():
            self._totals[key] = _Totals(times, counts, sums)

    def add(self, key: str, at: int, value: float, times: int) -> None:
        self._learned.setdefault(key, _Totals()).add(at, value, times)

    def values(self, key: str | None, at: int | None) -> list[Any]:
        if key is None or at is None:
            return [None, 0] * len(self._lengths)
        known: _Totals | _Both | None
        known, learned = self._totals.get(key), self._learned.get(key)
        if learned is not None:
            known = _Both(known or _Totals(), learned)
        if known is None:
            return [None, 0] * len(self._lengths)
        n_end, sum_end = known.until(at)
        values: list[Any] = []
        for length in self._lengths:
            n_start, sum_start = known.until(at - length)
            count = n_end - n_start
            values += ((sum_end - sum_start) / count if count > 0 else None, count)
        return values


@dataclass
class _Both:
    tables: _Totals
    learned: _Totals

    def until(self, at: int) -> tuple[int, float]:
        count, total = self.tables.until(at)
        more, more_total = self.learned.until(at)
        return count + more, total + more_total


class _OnlineLatest:
    def __init__(self, part: Latest, table: pl.DataFrame) -> None:
        self.part = part
        self._tolerance = part.tolerance // _MICROSECOND if part.tolerance else None
        self._missing = [None] * len(part.columns)
        grouped = (
            table.select(
                key_expression(part.by).alias("_key"),
                pl.col(part.time).dt.epoch("us").alias("_at"),
                pl.struct(pl.col(column).alias(name) for name, column in part.columns.items()).alias(
                    "_values"
                ),
            )
            .drop_nulls(["_key", "_at"])
            .sort("_at", maintain_order=True)
            .group_by("_key", maintain_order=True)
            .agg("_at", "_values")
        )
        self._rows: dict[str, tuple[list[int], list[list[Any]]]] = {
            key: (times, [list(row.values()) for row in rows]) for key, times, rows in grouped.iter_rows()
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
        columns = {name: pl.col(column) for name, column in part.columns.items()}
        frame = right.select(key_expression(part.by).alias("_key"), **columns)
        self._rows = {row[0]: list(row[1:]) for row in frame.iter_rows() if row[0] is not None}

    def values(self, key: str | None, at: int | None) -> list[Any]:  # noqa: ARG002 -- like the others
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
        FeatureError: if a table or a column that the definitions read is not there.
    """

    def __init__(
        self,
        features: Features,
        tables: dict[str, pl.LazyFrame],
        inputs: Mapping[str, pl.DataType | type[pl.DataType]],
        *,
        use: list[str] | None = None,
    ) -> None:
        self._schema = pl.Schema(inputs)
        made = features.expressions
        self._expressions = [
            made[name].alias(name) if name in made else pl.col(name)
            for name in (features.all_names if use is None else use)
        ]
        self._known_at = (
            None if features.known_at is None else features.known_at.dt.epoch("us").alias(KNOWN_AT)
        )
        try:
            self._indexes = [_index(part, tables) for part in features.parts]
        except pl.exceptions.PolarsError as error:
            raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error
        self._joined: dict[str, Any] = {}
        for part in features.parts:
            self._joined.update(_types(part, tables[part.table]))
        self._places = [self._key_places(part) for part in features.parts]
        self._plain = _PlainRows.of(self._schema, self._joined, self._known_at, self._expressions)

    def compute(self, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
        """Compute the features of a request.

        Args:
            rows: The request's rows, each with a value for every input, in the inputs' order.

        Returns:
            A frame of shape (n_rows, n_features).

        Raises:
            FeatureError: if an expression cannot be computed for these values.
        """
        return self.compute_at(rows)[0]

    def compute_at(self, rows: Sequence[Sequence[Any]]) -> tuple[pl.DataFrame, list[int | None]]:
        """Compute the features of a request, and the instant that each row is predicted at.

        Args:
            rows: The request's rows, each with a value for every input, in the inputs' order.

        Returns:
            A frame of shape (n_rows, n_features), and each row's ``known_at`` in microseconds
            since 1970, missing where the model has none.

        Raises:
            FeatureError: if an expression cannot be computed for these values.
        """
        try:
            frame = pl.DataFrame(rows, schema=self._schema, orient="row", strict=True)
            instants = self._instants(frame)
            if self._indexes:
                frame = frame.hstack(self._look_up(rows, frame, instants))
            features = frame.select(self._expressions)
        except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
            raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error
        return features, instants

    def compute_plain(
        self, rows: Sequence[Sequence[Any]]
    ) -> tuple[list[Sequence[Any]], list[int | None]] | None:
        """Compute what :meth:`compute_at` does, for a few rows and without polars.

        Args:
            rows: The request's rows, each with a value for every input, in the inputs' order.

        Returns:
            Each row's features, and each row's ``known_at``; None if polars has to compute them.
        """
        if self._plain is None or None in self._places:
            return None
        found: list[Sequence[Any]] = []
        instants: list[int | None] = []
        try:
            for row in rows:
                values = self._plain.inputs(row)
                instant = self._plain.known_at(values)
                for index, places in zip(self._indexes, self._places, strict=True):
                    values += index.values(_key_at(row, places), instant)
                found.append(self._plain.features(values))
                instants.append(instant)
        except (Unsure, OverflowError):
            return None
        return found, instants

    def _instants(self, frame: pl.DataFrame) -> list[int | None]:
        if self._known_at is None:
            return [None] * frame.height
        return frame.select(self._known_at).to_series().to_list()

    def _look_up(
        self, rows: Sequence[Sequence[Any]], frame: pl.DataFrame, instants: list[int | None]
    ) -> pl.DataFrame:
        keys = [
            [_key_of([row[place] for place in places]) for row in rows]
            if places is not None
            else frame.select(key_expression(index.part.by)).to_series().to_list()
            for index, places in zip(self._indexes, self._places, strict=True)
        ]
        found = [
            [
                value
                for key, index in zip(row_keys, self._indexes, strict=True)
                for value in index.values(key, instant)
            ]
            for instant, *row_keys in zip(instants, *keys, strict=True)
        ]
        return pl.DataFrame(found, schema=self._joined, orient="row")

    def _key_places(self, part: Part) -> list[int] | None:
        """Where a part's key is in a row, if Python and polars write its types as the same text."""
        if any(self._schema[column] not in (pl.String, pl.Int64) for column in part.by):
            return None
        names = self._schema.names()
        return [names.index(column) for column in part.by]

    def learn(self, table: str, row: dict[str, Any]) -> None:
        """Let a row that has just become known count for the histories over its table.

        Args:
            table: Name of the table.
            row: The row's columns; those that a history does not need are ignored, and a history
                whose key, time or value is missing is left as it is.
        """
        self._count(table, row, 1)

    def forget(self, table: str, row: dict[str, Any]) -> None:
        """Take back what :meth:`learn` did with this very row, because it turned out to be wrong."""
        self._count(table, row, -1)

    def _count(self, table: str, row: dict[str, Any], times: int) -> None:
        for index in self._indexes:
            part = index.part
            if not isinstance(index, _OnlineHistory) or part.table != table:
                continue
            at, value = row.get(index.part.time), row.get(index.part.value)
            key = _key_of([row.get(column) for column in part.by])
            if key is not None and at is not None and value is not None and not math.isnan(value):
                index.add(key, to_microseconds(at), times * float(value), times)


@dataclass(frozen=True)
class _PlainRows:
    """What computes the features of a row without polars.

    Attributes:
        known_at: Of the request's values.
        made: The expressions that are more than a column, of the request's values and the joined ones.
        chosen: Takes the features from all of these values.
        input_times: Where the request's values are instants.
        joined_times: Where the joined values are.
    """

    known_at: RowFunction
    made: list[RowFunction]
    chosen: Callable[[list[Any]], Any]
    input_times: list[int]
    joined_times: list[int]
    one: bool

    @classmethod
    def of(
        cls, inputs: pl.Schema, joined: dict[str, Any], known_at: pl.Expr | None, expressions: list[pl.Expr]
    ) -> _PlainRows | None:
        """Translate a model's expressions; return None if polars has to compute one of them."""
        columns = pl.Schema({**inputs, **joined})
        names = columns.names()
        instant = (lambda _: None) if known_at is None else row_function(known_at, inputs)
        places: list[int] = []
        made: list[RowFunction] = []
        for expression in expressions:
            if expression.meta.is_column() and expression.meta.output_name() in columns:
                places.append(names.index(expression.meta.output_name()))
                continue
            function = row_function(expression, columns)
            if function is None:
                return None
            places.append(len(names) + len(made))
            made.append(function)
        if instant is None:
            return None
        times = [place for place, kind in enumerate(columns.dtypes()) if kind == TIME]
        return cls(
            instant,
            made,
            operator.itemgetter(*places),
            [place for place in times if place < len(inputs)],
            [place for place in times if place >= len(inputs)],
            one=len(places) == 1,
        )

    def inputs(self, row: Sequence[Any]) -> list[Any]:
        """Return a request's values as expressions take them."""
        return _in_microseconds(list(row), self.input_times)

    def features(self, values: list[Any]) -> Sequence[Any]:
        """Return the features made of a request's values, followed by the joined ones."""
        _in_microseconds(values, self.joined_times)
        values += [function(values) for function in self.made]
        return (self.chosen(values),) if self.one else self.chosen(values)


def _in_microseconds(values: list[Any], places: list[int]) -> list[Any]:
    for place in places:
        if values[place] is not None:
            values[place] = to_microseconds(values[place])
    return values


def _key_of(values: list[Any]) -> str | None:
    """The same text as ``key_expression`` makes of columns, of plain values."""
    texts = [_text_of(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return None if None in texts else SEPARATOR.join(texts)  # type: ignore[arg-type]


def _key_at(row: Sequence[Any], places: list[int] | None) -> str | None:
    assert places is not None
    if len(places) == 1 and isinstance(value := row[places[0]], str):
        return value
    return _key_of([row[place] for place in places])


def _text_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = pl.select(pl.lit(value).cast(pl.String)).item()
    return None if text is None else str(text)


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
        return dict(zip(part.names, itertools.cycle([pl.Float64, pl.Int64]), strict=False))
    schema = table.collect_schema()
    return {name: schema[column] for name, column in part.columns.items()}
