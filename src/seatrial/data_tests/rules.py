"""The contract's rules, row by row: which rows break one, and why.

Types, bounds, texts and missing values become a pandera schema; keys, times from the future and
values that could not be read are looked at here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from seatrial.contract.schema import Column, Table
from seatrial.sources import PROBLEMS, TYPES

REASONS = "_reasons"
ROW = "_row"


def row_problems(
    rows: pl.DataFrame, table: Table, as_of: datetime, earlier: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return the rows that break a rule of the contract.

    Args:
        rows: A batch of the raw layer.
        table: The table in the contract.
        as_of: Rows later than this are from the future.
        earlier: The keys of the valid rows of earlier batches; none without it.

    Returns:
        Columns ``_row`` (place in ``rows``) and ``_reasons`` (list of texts), one row for each
        broken row.
    """
    numbered = rows.with_row_index(ROW)
    found = [
        _schema_problems(rows, table),
        _parse_problems(numbered),
        _key_problems(numbered, table),
        _repeated_problems(numbered, table, earlier),
    ]
    if table.time:
        future = numbered.filter(pl.col(table.time) > as_of + table.ahead)
        found.append(_reasons(future, f"{table.time}: is in the future"))
    return pl.concat(found).group_by(ROW).agg(pl.col(REASONS).unique().sort()).sort(ROW)


def _reasons(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    return rows.select(ROW, pl.lit(reason).alias(REASONS))


def _schema_problems(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows that break the pandera schema of the contract, and why."""
    import pandera.polars as pa  # A second to import, which only this step needs.

    schema = pa.DataFrameSchema(
        {
            name: pa.Column(TYPES[rule.type], _checks(pa, rule), nullable=not rule.required)
            for name, rule in table.columns.items()
        }
    )
    try:
        schema.validate(rows.select(table.columns.keys()), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
        reason = pl.col("check").replace("not_nullable", "is missing")
        return cases.select(
            pl.col("index").cast(pl.UInt32).alias(ROW),
            pl.concat_str("column", pl.lit(": "), reason).alias(REASONS),
        )
    return pl.DataFrame(schema={ROW: pl.UInt32, REASONS: pl.String})


def _checks(pa: Any, rule: Column) -> list[Any]:
    checks = []
    if rule.minimum is not None:
        checks.append(pa.Check.ge(rule.minimum, error=f"is below {rule.minimum:g}"))
    if rule.maximum is not None:
        checks.append(pa.Check.le(rule.maximum, error=f"is above {rule.maximum:g}"))
    if rule.allowed is not None:
        checks.append(pa.Check.isin(rule.allowed, error="is not among the allowed texts"))
    if rule.pattern is not None:
        checks.append(pa.Check.str_matches(rule.pattern, error=f"does not match {rule.pattern}"))
    return checks


def _parse_problems(numbered: pl.DataFrame) -> pl.DataFrame:
    broken = numbered.select(ROW, pl.col(PROBLEMS).alias(REASONS)).explode(REASONS).drop_nulls()
    # The value itself is kept in the raw layer; as a reason it would make every row one of its own.
    return broken.with_columns(pl.col(REASONS).str.replace(r"(?s)^(.*?), but .*$", "$1"))


def _key_problems(numbered: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Of rows that are alike the first is kept; rows that differ under one key are all set aside."""
    key, name = pl.struct(table.key), ", ".join(table.key)
    without = pl.any_horizontal(pl.col(table.key).is_null())
    same_key = numbered.filter(~without & key.is_duplicated())
    alike = pl.struct(table.columns.keys()).n_unique().over(table.key) == 1
    later = pl.col(ROW) > pl.col(ROW).min().over(table.key)
    return pl.concat(
        [
            _reasons(numbered.filter(without), f"{name}: the key is missing"),
            _reasons(same_key.filter(alike & later), f"{name}: the row is there twice"),
            _reasons(same_key.filter(~alike), f"{name}: other rows have the same key"),
        ]
    )


def _repeated_problems(numbered: pl.DataFrame, table: Table, earlier: pl.DataFrame | None) -> pl.DataFrame:
    repeated = numbered.clear() if earlier is None else numbered.join(earlier, on=table.key, how="semi")
    return _reasons(repeated, f"{', '.join(table.key)}: an earlier period has a row with the same key")
