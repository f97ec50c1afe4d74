"""Give rows the contract's columns and types, and say of each value that does not fit why.

Values are parsed, never bent: 3.7 is no integer, 2 is no boolean, and a plain number is no time.
"""

from __future__ import annotations

import polars as pl

from seatrial.contract.schema import ColumnType, Table
from seatrial.errors import SourceError

PROBLEMS = "_problems"
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
"""The polars type of each of the contract's column types."""
NOT_A = {
    "string": ": is not a text, but ",
    "integer": ": is not an integer, but ",
    "number": ": is not a number, but ",
    "boolean": ": is not a boolean, but ",
    "time": ": is not a time, but ",
}
"""What stands between a column's name and the value in a text of ``_problems``."""
TIME_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)
"""Times without a zone, which are taken as UTC; those with one are read by ISO 8601."""
SHOWN_CHARACTERS = 40


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Give a frame the contract's columns and types.

    Values are parsed, never bent: 3.7 is no integer, 2 is no boolean, and a plain number is no
    time. What cannot be read becomes missing, with a text in ``_problems`` that says what was there.

    Args:
        frame: Rows as read, of texts or of any type.
        table: The table in the contract.

    Returns:
        The contract's columns in its order, and ``_problems``.

    Raises:
        SourceError: if a column is missing; the message says what may be wrong.
    """
    if missing := [column for column in table.columns if column not in frame.columns]:
        raise _missing_columns(frame, missing, table)
    columns: list[pl.Expr] = []
    problems: list[pl.Expr] = []
    for name, rule in table.columns.items():
        # A number that is NaN is a number that is missing.
        there = pl.col(name).fill_nan(None) if frame.schema[name].is_float() else pl.col(name)
        parsed = parsed_as(rule.type, frame.schema[name], there)
        columns.append(parsed.alias(name))
        text = pl.format(f"{{}}{NOT_A[rule.type]}{{}}", pl.lit(name), _shown(frame.schema[name], there))
        problems.append(pl.when(there.is_not_null() & parsed.is_null()).then(text))
    return frame.select(*columns, pl.concat_list(problems).list.drop_nulls().alias(PROBLEMS))


def _shown(dtype: pl.DataType, column: pl.Expr) -> pl.Expr:
    """The beginning of a value, as a text."""
    if dtype.is_nested() or isinstance(dtype, (pl.Binary, pl.Object)):
        return pl.lit(f"a {dtype.base_type()}".lower())
    return column.cast(pl.String).str.slice(0, SHOWN_CHARACTERS)


def _missing_columns(frame: pl.DataFrame, missing: list[str], table: Table) -> SourceError:
    separator = getattr(table.source, "separator", ",")
    other = next((s for s in ";\t|,:" if s != separator and s in frame.columns[0]), None)
    if len(frame.columns) == 1 and other:
        return SourceError(
            f"The columns seem to be separated by {other!r}, not by {separator!r}.",
            remedy=f"Set source.separator to {other!r} in the contract.",
        )
    return SourceError(
        f"The source lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
        f"It has: {', '.join(frame.columns)}.",
        remedy="Correct the source, or the table's columns in the contract. Nothing was ingested.",
    )


def parsed_as(wanted: ColumnType, dtype: pl.DataType, column: pl.Expr) -> pl.Expr:
    """Return an expression that reads a column's values as one of the contract's types.

    Args:
        wanted: The contract's type.
        dtype: The column's polars type.
        column: The column.

    Returns:
        The values; missing where they are not of the type.
    """
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return _from_text(wanted, column.cast(pl.String))
    if wanted == "time":
        return _time_from(dtype, column)
    if dtype.is_nested() or isinstance(dtype, (pl.Binary, pl.Object)):
        return pl.lit(None, TYPES[wanted])
    if wanted == "string":
        return column.cast(pl.String, strict=False)
    return _from_number(wanted, dtype, column)


def _from_number(wanted: ColumnType, dtype: pl.DataType, column: pl.Expr) -> pl.Expr:
    if not (dtype.is_numeric() or dtype == pl.Boolean):
        return pl.lit(None, TYPES[wanted])
    if wanted == "boolean":
        return pl.when(column == 1).then(True).when(column == 0).then(False)
    if wanted == "integer" and (dtype.is_integer() or dtype == pl.Boolean):
        return column.cast(pl.Int64, strict=False)
    number = column.cast(pl.Float64, strict=False)
    return _whole(number) if wanted == "integer" else _finite(number)


def _from_text(wanted: ColumnType, column: pl.Expr) -> pl.Expr:
    text = column.str.strip_chars()
    match wanted:
        case "string":
            return column
        case "time":
            zoned = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False, format="%+")
            plain = [
                text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
                for form in TIME_FORMATS
            ]
            return pl.coalesce(zoned, *plain)
        case "boolean":
            lower = text.str.to_lowercase()
            truth = pl.when(lower.is_in(["true", "1", "yes"])).then(True)
            return truth.when(lower.is_in(["false", "0", "no"])).then(False)
        case "integer":
            return pl.coalesce(text.cast(pl.Int64, strict=False), _whole(text.cast(pl.Float64, strict=False)))
        case "number":
            return _finite(text.cast(pl.Float64, strict=False))


def _time_from(dtype: pl.DataType, column: pl.Expr) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        zoned = column.dt.replace_time_zone("UTC") if dtype.time_zone is None else column
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.lit(None, TYPES["time"])


def _whole(number: pl.Expr) -> pl.Expr:
    return pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)
