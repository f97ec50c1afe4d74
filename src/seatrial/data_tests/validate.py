"""Test every batch of the raw tables, and make what passes valid."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Table, format_duration
from seatrial.data_tests.rules import REASONS, ROW, row_problems
from seatrial.data_tests.tested import BatchCheck, Layers, PassedBatches
from seatrial.errors import TableError
from seatrial.sources import TYPES, UNDATED
from seatrial.tables import Tables, digest_of
from seatrial.verdicts import Outcome, Verdict, judge
from seatrial.workspace import Workspace


def validate(
    loaded: LoadedContract, workspace: Workspace, *, as_of: datetime, tables: Collection[str] | None = None
) -> list[BatchCheck]:
    """Test every batch of the raw tables and make what passes valid.

    Batches whose verdict fails stay out of the valid layer (an earlier valid content of the same
    batch stays as it is), and the caller stops the run. A batch that passed before is tested again
    only if something has changed that its verdicts rest on (:mod:`seatrial.data_tests.tested`).

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
    return [
        check
        for name, table in loaded.contract.tables.items()
        if tables is None or name in tables
        for check in _validate_table(workspace, loaded.contract.name, name, table, as_of)
    ]


def _set_aside(layers: Layers, name: str, batch: str, rows: pl.DataFrame) -> None:
    """Let the quarantine hold these rows of the batch, and no others of an earlier run."""
    if rows.height or batch in layers.quarantine.contents(name, [batch]):
        _write(layers.quarantine, name, batch, rows)


def _write(layer: Tables, name: str, batch: str, rows: pl.DataFrame) -> None:
    layer.write(
        name, rows, batch=batch, digest=digest_of(rows), facts={"source": f"raw/{name}"}, replace=True
    )


class _EarlierKeys:
    """The keys of the rows of earlier batches that broke no rule."""

    def __init__(self, valid: Tables, name: str, table: Table) -> None:
        self._valid = valid
        self._name = name
        self._columns = table.key
        self._known = pl.DataFrame(schema={key: TYPES[table.columns[key].type] for key in table.key})
        self._stored: list[str] = []

    def add(self, rows: pl.DataFrame) -> None:
        self._known = self._known.vstack(rows.select(self._columns))

    def add_stored(self, batch: str) -> None:
        """Add those of a batch whose rows are in the valid layer; they are read once they are needed."""
        self._stored.append(batch)

    def collect(self) -> pl.DataFrame:
        if self._stored:
            self.add(self._valid.read(self._name, batch=self._stored).select(self._columns).collect())
            self._stored = []
        return self._known


def _validate_table(
    workspace: Workspace, model: str, name: str, table: Table, as_of: datetime
) -> Iterator[BatchCheck]:
    layers = Layers.of(workspace, model)
    layers.raw.read(name)  # A table that was never ingested is an error, not a table without batches.
    rows_of_batches = layers.raw.batches(name)
    periods = [batch for batch in rows_of_batches if batch != UNDATED]
    tested = PassedBatches(workspace, model, name, table, periods)
    earlier = _EarlierKeys(layers.valid, name, table)
    for batch in periods:
        if (known := tested.find(batch, as_of)) is not None:
            earlier.add_stored(batch)
            check, newest = known.check, known.newest
        else:
            check, newest = _test_batch(layers, name, table, batch, as_of, earlier)
            tested.add(batch, newest, check, as_of)
        if batch == periods[-1] and table.time and table.freshness:
            age = _freshness(name, batch, newest, table.freshness, as_of)
            check = replace(check, verdicts=[*check.verdicts, age])
        yield check
    tested.keep()
    yield from _validate_undated(layers, name, table, rows_of_batches)


def _test_batch(
    layers: Layers, name: str, table: Table, batch: str, as_of: datetime, earlier: _EarlierKeys
) -> tuple[BatchCheck, datetime | None]:
    """Test a batch and write its rows where they belong; return what was found, and its newest time."""
    rows = layers.raw.read(name, batch=batch).collect()
    _refuse_other_columns(rows, name, table)
    numbered = rows.select(table.columns.keys()).with_row_index(ROW)
    problems = row_problems(rows, table, as_of, earlier.collect())
    check = _check(name, table, batch, rows, problems)
    _set_aside(layers, name, batch, numbered.join(problems, on=ROW, maintain_order="left").drop(ROW))
    good = numbered.join(problems, on=ROW, how="anti", maintain_order="left").drop(ROW)
    if check.outcome is not Outcome.FAIL:
        _write(layers.valid, name, batch, good)
    earlier.add(good)
    newest = rows[table.time].max() if table.time else None
    return check, newest if isinstance(newest, datetime) else None


def _validate_undated(
    layers: Layers, name: str, table: Table, rows_of_batches: dict[str, int]
) -> Iterator[BatchCheck]:
    """Set the rows aside that belong to no period, and judge their share of all."""
    rows = layers.raw.read(name, batch=UNDATED).collect()
    reason = f"{table.time}: the row belongs to no period"
    reasons = pl.lit([reason], pl.List(pl.String)).alias(REASONS)
    _set_aside(layers, name, UNDATED, rows.select(*table.columns.keys(), reasons))
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


def _check(name: str, table: Table, batch: str, rows: pl.DataFrame, reasons: pl.DataFrame) -> BatchCheck:
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


def _freshness(name: str, batch: str, newest: datetime | None, limit: timedelta, as_of: datetime) -> Verdict:
    age = None if newest is None else (as_of - newest).total_seconds() / 3600
    return judge(
        f"data.freshness.{name}",
        age,
        limit.total_seconds() / 3600,
        better="lower",
        unit="hours",
        message=f"Age of the newest row of {name} (at most {format_duration(limit)}).",
        evidence={"batch": batch, "newest": str(newest)},
    )
