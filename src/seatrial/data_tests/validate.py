"""Test every batch of the raw tables, and make what passes valid."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Table, format_duration
from seatrial.data_tests.rules import REASONS, ROW, row_problems
from seatrial.errors import TableError
from seatrial.sources import TYPES, UNDATED
from seatrial.tables import Tables, digest_of
from seatrial.verdicts import Outcome, Verdict, judge, worst
from seatrial.workspace import Workspace


@dataclass(frozen=True)
class BatchCheck:
    """What the data tests found in one batch.

    Attributes:
        table: Name of the table.
        batch: The batch's name.
        rows: Rows that arrived.
        quarantined: Rows that broke a rule.
        reasons: Rows by reason, the most frequent first; a row may have several.
        verdicts: The batch's verdicts.
    """

    table: str
    batch: str
    rows: int
    quarantined: int
    reasons: dict[str, int]
    verdicts: list[Verdict]

    @property
    def outcome(self) -> Outcome:
        """The worst of the verdicts."""
        return worst(self.verdicts)


def validate(
    loaded: LoadedContract, workspace: Workspace, *, as_of: datetime, tables: Collection[str] | None = None
) -> list[BatchCheck]:
    """Test every batch of the raw tables and make what passes valid.

    Batches whose verdict fails stay out of the valid layer (an earlier valid content of the same
    batch stays as it is), and the caller stops the run. Tested batches are tested again: the
    rules may have changed, and it is cheap.

    Args:
        loaded: The model's contract.
        workspace: Where the tables lie.
        as_of: The instant of the run: later rows are from the future, and age is counted from it.
        tables: Names of the contract's tables that are tested; all of them without it.

    Returns:
        A check for each batch of each table.

    Raises:
        TableError: if a table has not been ingested.
    """
    layers = _Layers.of(workspace, loaded.contract.name)
    return [
        check
        for name, table in loaded.contract.tables.items()
        if tables is None or name in tables
        for check in _validate_table(layers, name, table, as_of)
    ]


@dataclass(frozen=True)
class _Layers:
    raw: Tables
    valid: Tables
    quarantine: Tables

    @classmethod
    def of(cls, workspace: Workspace, model: str) -> _Layers:
        return cls(*(Tables(workspace, model, layer) for layer in ("raw", "valid", "quarantine")))

    def set_aside(self, name: str, batch: str, rows: pl.DataFrame) -> None:
        """Let the quarantine hold these rows of the batch, and no others of an earlier run."""
        if rows.height or batch in self.quarantine.batches(name):
            _write(self.quarantine, name, batch, rows)


def _write(layer: Tables, name: str, batch: str, rows: pl.DataFrame) -> None:
    layer.write(
        name, rows, batch=batch, digest=digest_of(rows), facts={"source": f"raw/{name}"}, replace=True
    )


def _validate_table(layers: _Layers, name: str, table: Table, as_of: datetime) -> Iterator[BatchCheck]:
    layers.raw.read(name)  # A table that was never ingested is an error, not a table without batches.
    rows_of_batches = layers.raw.batches(name)
    periods = [batch for batch in rows_of_batches if batch != UNDATED]
    earlier = pl.DataFrame(schema={key: TYPES[table.columns[key].type] for key in table.key})
    for batch in periods:
        rows = layers.raw.read(name, batch=batch).collect()
        _refuse_other_columns(rows, name, table)
        numbered = rows.select(table.columns.keys()).with_row_index(ROW)
        problems = row_problems(rows, table, as_of, earlier)
        check = _check(name, table, batch, rows, problems, as_of, is_newest=batch == periods[-1])
        layers.set_aside(name, batch, numbered.join(problems, on=ROW, maintain_order="left").drop(ROW))
        good = numbered.join(problems, on=ROW, how="anti", maintain_order="left").drop(ROW)
        if check.outcome is not Outcome.FAIL:
            _write(layers.valid, name, batch, good)
        earlier = earlier.vstack(good.select(table.key))
        yield check
    yield from _validate_undated(layers, name, table, rows_of_batches)


def _validate_undated(
    layers: _Layers, name: str, table: Table, rows_of_batches: dict[str, int]
) -> Iterator[BatchCheck]:
    """Set the rows aside that belong to no period, and judge their share of all."""
    rows = layers.raw.read(name, batch=UNDATED).collect()
    reason = f"{table.time}: the row belongs to no period"
    reasons = pl.lit([reason], pl.List(pl.String)).alias(REASONS)
    layers.set_aside(name, UNDATED, rows.select(*table.columns.keys(), reasons))
    if rows.height == 0:
        return
    verdict = judge(
        f"data.undated.{name}",
        rows.height / sum(rows_of_batches.values()),
        table.quarantine_share,
        better="lower",
        message=f"Share of rows of {name} whose {table.time} is missing or cannot be read.",
        evidence={"batch": UNDATED, "rows": rows.height},
    )
    yield BatchCheck(name, UNDATED, rows.height, rows.height, {reason: rows.height}, [verdict])


def _refuse_other_columns(rows: pl.DataFrame, name: str, table: Table) -> None:
    for column, rule in table.columns.items():
        if rows.schema.get(column) != TYPES[rule.type]:
            raise TableError(
                f"The column {column!r} of the raw table {name!r} must be of type {rule.type}. "
                f"It is {rows.schema.get(column) or 'not there'}: the contract has changed since.",
                remedy="Ingest the data again: seatrial data ingest MODEL",
            )


def _check(
    name: str,
    table: Table,
    batch: str,
    rows: pl.DataFrame,
    reasons: pl.DataFrame,
    as_of: datetime,
    *,
    is_newest: bool,
) -> BatchCheck:
    counts = reasons.explode(REASONS)[REASONS].value_counts(sort=True) if reasons.height else None
    by_reason = dict(counts.iter_rows()) if counts is not None else {}
    where = f"{name} {batch}"
    verdicts = [
        judge(
            f"data.quarantine.{name}",
            reasons.height / rows.height if rows.height else None,
            table.quarantine_share,
            better="lower",
            message=f"Share of rows of {where} that broke a rule.",
            evidence={"batch": batch, "rows": rows.height, "reasons": by_reason},
        ),
        judge(
            f"data.rows.{name}",
            rows.height,
            table.minimum_rows,
            better="higher",
            message=f"Rows of {where}.",
            evidence={"batch": batch},
        ),
        *_missing_verdicts(name, table, batch, rows),
    ]
    if is_newest and table.time and table.freshness:
        verdicts.append(_freshness(name, batch, rows[table.time], table.freshness, as_of))
    return BatchCheck(name, batch, rows.height, reasons.height, by_reason, verdicts)


def _missing_verdicts(name: str, table: Table, batch: str, rows: pl.DataFrame) -> list[Verdict]:
    shares = rows.select(pl.col(table.columns.keys()).null_count() / pl.len()).row(0, named=True)
    return [
        judge(
            f"data.missing.{name}.{column}",
            shares[column],
            rule.missing_share,
            better="lower",
            message=f"Share of missing values of {column} in {name} {batch}.",
            evidence={"batch": batch},
        )
        for column, rule in table.columns.items()
        if rule.missing_share < 1
    ]


def _freshness(name: str, batch: str, times: pl.Series, limit: timedelta, as_of: datetime) -> Verdict:
    newest = times.max()
    age = (as_of - newest).total_seconds() / 3600 if isinstance(newest, datetime) else None
    return judge(
        f"data.freshness.{name}",
        age,
        limit.total_seconds() / 3600,
        better="lower",
        unit="hours",
        message=f"Age of the newest row of {name} (at most {format_duration(limit)}).",
        evidence={"batch": batch, "newest": str(newest)},
    )
