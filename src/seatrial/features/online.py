"""Compute features for one request, from an index in memory.

The index holds, for each key, the times at which something became known and the running totals up
to each, so a history costs two binary searches whatever its length. It is built from the same
tables as :mod:`seatrial.features.batch` reads, and it grows with each outcome that arrives, so a
flight that landed a minute ago already counts for the next request. Where every expression is one
that :mod:`seatrial.features.row_expressions` translates, a request is answered without polars.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from seatrial.errors import FeatureError
from seatrial.features.batch import KNOWN_AT, SEPARATOR, key_expression
from seatrial.features.definitions import Features, History, Latest, Lookup, Part
from seatrial.features.history_index import HistoryIndex
from seatrial.features.row_expressions import TIME, RowFunction, Unsure, row_function

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(instant: datetime) -> int:
    """Return an instant as whole microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


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


_Index = _OnlineLatest | _OnlineLookup
_PlainKeys = Callable[[Sequence[Sequence[Any]]], list[str | None]]


class OnlineFeatures:
    """The features of requests, one or a few rows at a time.

    Args:
        features: The model's definitions.
        tables: The tables that the definitions read, by name, as of now.
        inputs: The request's columns, each with its polars type.
        use: The features wanted, in their order; all of them without it.
        like: Features whose indexes are taken over where they are of the same parts and tables.
        unchanged: The tables that are the same as those of ``like``.

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
        like: OnlineFeatures | None = None,
        unchanged: Collection[str] = (),
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
        self.histories = [part for part in features.parts if isinstance(part, History)]
        others = [part for part in features.parts if not isinstance(part, History)]
        try:
            known = [index for index in like.indexes if index.part.table in unchanged] if like else []
            self.indexes: list[_Index] = [
                next((index for index in known if index.part == part), None)
                or _index(part, _table(part, tables))
                for part in others
            ]
            self.history_index = self._known_histories(like, unchanged) or self._make_histories(tables)
        except pl.exceptions.PolarsError as error:
            raise FeatureError(f"The features cannot be computed: {str(error).splitlines()[0]}.") from error
        self._joined: dict[str, Any] = {}
        for part in others:
            self._joined.update(_types(part, tables[part.table]))
        if self.history_index is not None:
            names = self.history_index.names
            self._joined.update(dict.fromkeys(names[: len(names) // 2], pl.Float64))
            self._joined.update(dict.fromkeys(names[len(names) // 2 :], pl.Int64))
        self._keys = [self._plain_keys(part) for part in others]
        self._history_keys = [self._plain_keys(part) for part in self.histories]
        self._plain = (
            None
            if None in (*self._keys, *self._history_keys)
            else _PlainRows.of(self._schema, self._joined, self._known_at, self._expressions)
        )

    def _known_histories(
        self, like: OnlineFeatures | None, unchanged: Collection[str]
    ) -> HistoryIndex | None:
        if like is None or like.history_index is None or like.histories != self.histories:
            return None
        if any(part.table not in unchanged for part in self.histories):
            return None
        return like.history_index.without_learned()

    def _make_histories(self, tables: dict[str, pl.LazyFrame]) -> HistoryIndex | None:
        if not self.histories:
            return None
        return HistoryIndex(self.histories, [_table(part, tables) for part in self.histories])

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
            if self._joined:
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
        plain = self._plain
        if plain is None:
            return None
        try:
            found = [plain.inputs(row) for row in rows]
            instants = [plain.known_at(values) for values in found]
            self._extend(found, rows, instants, None)
            return [plain.features(values) for values in found], instants
        except (Unsure, OverflowError):
            return None

    def _instants(self, frame: pl.DataFrame) -> list[int | None]:
        if self._known_at is None:
            return [None] * frame.height
        return frame.select(self._known_at).to_series().to_list()

    def _look_up(
        self, rows: Sequence[Sequence[Any]], frame: pl.DataFrame, instants: list[int | None]
    ) -> pl.DataFrame:
        found: list[list[Any]] = [[] for _ in rows]
        self._extend(found, rows, instants, frame)
        return pl.DataFrame(found, schema=self._joined, orient="row")

    def _extend(
        self,
        found: list[list[Any]],
        rows: Sequence[Sequence[Any]],
        instants: Sequence[int | None],
        frame: pl.DataFrame | None,
    ) -> None:
        """Append to each row's values what is joined to it.

        Args:
            found: The values so far, of each row.
            rows: The request's rows.
            instants: The instant that each is predicted at.
            frame: The rows as a frame, which makes the keys that plain Python cannot; None: there are none.
        """
        for index, make_keys in zip(self.indexes, self._keys, strict=True):
            keys = make_keys(rows) if make_keys else _keys(index.part, frame)
            for values, key, instant in zip(found, keys, instants, strict=True):
                values.extend(index.values(key, instant))
        if self.history_index is not None and rows:
            history_keys = [
                make_keys(rows) if make_keys else _keys(part, frame)
                for part, make_keys in zip(self.histories, self._history_keys, strict=True)
            ]
            for values, more in zip(found, self.history_index.look_up(history_keys, instants), strict=True):
                values.extend(more)

    def _plain_keys(self, part: Part) -> _PlainKeys | None:
        """What makes a part's keys of rows, if Python and polars write its types as the same text."""
        kinds = [self._schema[column] for column in part.by]
        if any(kind not in (pl.String, pl.Int64) for kind in kinds):
            return None
        names = self._schema.names()
        places = [names.index(column) for column in part.by]
        if len(places) == 1 and kinds == [pl.String]:
            (place,) = places
            return lambda rows: [row[place] for row in rows]
        return lambda rows: [_key_of([row[place] for place in places]) for row in rows]

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
        instants: dict[str, int] = {}
        for number, part in enumerate(self.histories):
            if part.table != table or self.history_index is None:
                continue
            at, value = row.get(part.time), row.get(part.value)
            key = _key_of([row.get(column) for column in part.by])
            if key is not None and at is not None and value is not None and not math.isnan(value):
                if part.time not in instants:
                    instants[part.time] = to_microseconds(at)
                self.history_index.add(number, key, instants[part.time], times * float(value), times)


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
    texts = [value if type(value) is str else _text_of(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return None if None in texts else SEPARATOR.join(texts)  # type: ignore[arg-type]


def _text_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = pl.select(pl.lit(value).cast(pl.String)).item()
    return None if text is None else str(text)


def _keys(part: Part, frame: pl.DataFrame | None) -> list[str | None]:
    """Return the key of each row of a frame."""
    assert frame is not None
    return frame.select(key_expression(part.by)).to_series().to_list()


def _table(part: Part, tables: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    if part.table not in tables:
        raise FeatureError(f"The features need the table {part.table!r}. Got: {', '.join(tables) or 'none'}.")
    return tables[part.table].select(sorted(part.needs)).collect()


def _index(part: Lookup | Latest, table: pl.DataFrame) -> _Index:
    return _OnlineLookup(part, table) if isinstance(part, Lookup) else _OnlineLatest(part, table)


def _types(part: Lookup | Latest, table: pl.LazyFrame) -> dict[str, Any]:
    schema = table.collect_schema()
    return {name: schema[column] for name, column in part.columns.items()}
