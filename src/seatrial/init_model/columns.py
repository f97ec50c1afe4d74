"""What the values of each column are, as far as they all agree on it.

A type is one only if every value can be read as it by the function that ingest reads them with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from seatrial.contract.schema import ColumnType
from seatrial.sources import parsed_as

_LEADING_ZERO = r"^[+-]?0[0-9]"
_DECIMAL_COMMA = r"^\s*[+-]?[0-9]+(,[0-9]+)?\s*$"
_ID_NAME = re.compile(r"((^|[^a-zA-Z])(?i:id|key|uuid|guid|nr|no|number|code|index)|[a-z](Id|ID|Key))$")
TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True, eq=False)
class FoundColumn:
    """A column of the file.

    Attributes:
        name: Its name.
        type: The type that all of its values have; None where a contract has no such type.
        values: Its values as that type.
        texts: Its values as texts.
        decimal_comma: Whether its numbers are written as ``3,14``.
    """

    name: str
    type: ColumnType | None
    values: pl.Series
    texts: pl.Series
    decimal_comma: bool = False

    @property
    def missing(self) -> int:
        """Number of missing values."""
        return self.values.null_count()

    @property
    def distinct(self) -> int:
        """Number of different values, without the missing one."""
        return self.values.drop_nulls().n_unique()

    @property
    def is_unique(self) -> bool:
        """Whether no value is missing and no two are the same."""
        return self.missing == 0 and self.distinct == self.values.len()

    @property
    def looks_like_id(self) -> bool:
        """Whether the name says that the values are names of things, not amounts."""
        return _ID_NAME.search(self.name.strip()) is not None

    @property
    def two_values(self) -> list[str]:
        """Its two different values as texts, sorted; no values where there are not exactly two."""
        if self.distinct != 2:  # noqa: PLR2004 -- a label has two classes
            return []
        return sorted(set(self.texts.drop_nulls().str.strip_chars()))

    def bounds(self) -> tuple[Any, Any]:
        """Return the smallest and the largest value."""
        return self.values.min(), self.values.max()


def find_columns(frame: pl.DataFrame) -> list[FoundColumn]:
    """Return the columns of a file, each with the type that all of its values have."""
    return [_found(column) for column in frame.get_columns()]


def _found(column: pl.Series) -> FoundColumn:
    plain = column.alias("v")
    if plain.dtype in TEXT_TYPES:
        return _found_texts(column.name, plain.cast(pl.String))
    wanted = _type_of(plain.dtype)
    if wanted is None:
        return FoundColumn(column.name, None, plain.is_null(), plain.is_null().cast(pl.String))
    if plain.dtype.is_float():
        plain = plain.fill_nan(None)
        if _fits(plain, "integer"):
            wanted = "integer"
    return FoundColumn(column.name, wanted, _read(plain, wanted), plain.cast(pl.String))


def _type_of(dtype: pl.DataType) -> ColumnType | None:
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return "time"
    return None


def _found_texts(name: str, texts: pl.Series) -> FoundColumn:
    types: tuple[ColumnType, ...] = ("integer", "number", "boolean", "time")
    stripped = texts.str.strip_chars()
    # A postal code or an article's number is a name that is written in digits.
    types = types[2:] if stripped.str.contains(_LEADING_ZERO).any() else types
    if texts.null_count() == texts.len():
        types = ()
    for wanted in types:
        if _fits(texts, wanted):
            return FoundColumn(name, wanted, _read(texts, wanted), texts)
    if types and stripped.drop_nulls().str.contains(_DECIMAL_COMMA).all():
        points = stripped.str.replace(",", ".", literal=True)
        return FoundColumn(name, "number", _read(points, "number"), texts, decimal_comma=True)
    return FoundColumn(name, "string", texts, texts)


def _fits(values: pl.Series, wanted: ColumnType) -> bool:
    return _read(values, wanted).null_count() == values.null_count()


def _read(values: pl.Series, wanted: ColumnType) -> pl.Series:
    return values.to_frame("v").select(parsed_as(wanted, values.dtype, pl.col("v"))).to_series()
