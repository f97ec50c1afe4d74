"""Data tests: from the raw tables to the valid ones, with the rest in quarantine.

The contract's rules become a pandera schema. A row that breaks one goes to the ``quarantine``
layer with the reasons, the others to the ``valid`` layer, from which alone features are made.
A batch of which too much is bad stops the run: nothing of it becomes valid. Each of the three
writes is one commit that names the batch it came from, so a run that is killed between them is
simply done again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Table, format_duration
from seatrial.sources import PROBLEMS, TYPES, Period
from seatrial.tables import BATCH_COLUMN, Tables, digest_of
from seatrial.verdicts import Outcome, Verdict, judge, worst
from seatrial.workspace import Workspace

REASONS = "_reasons"
_ROW = "_row"


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


def validate(loaded: LoadedContract, workspace: Workspace, *, as_of: datetime) -> list[BatchCheck]:
    """Test every batch of the raw tables and make what passes valid.

    Batches whose verdict fails stay out of the valid layer (an earlier valid content of the same
    batch stays as it is), and the caller stops the run. Tested batches are tested again: the
    rules may have changed, and it is cheap.

    Args:
        loaded: The model's contract.
        workspace: Where the tables lie.
        as_of: The instant of the run: later rows are from the future, and age is counted from it.

    Returns:
        A check for each batch of each table.

    Raises:
        TableError: if a table has not been ingested.
    """
    model = loaded.contract.name
    raw, valid = Tables(workspace, model, "raw"), Tables(workspace, model, "valid")
    quarantine = Tables(workspace, model, "quarantine")
    checks: list[BatchCheck] = []
    for name, table in loaded.contract.tables.items():
        raw.read(name)  # A table that was never ingested is an error, not a table without batches.
        batches = raw.batches(name)
        newest = max(batches, default="")
        for batch in batches:
            rows = raw.read(name, batch=batch).collect()
            reasons = row_problems(rows, table, as_of)
            check = _check(name, table, batch, rows, reasons, as_of, is_newest=batch == newest)
            checks.append(check)
            digest = _derived_digest(rows, table)
            facts = {"source": f"raw/{name}"}
            bad = rows.select(table.columns.keys()).with_row_index(_ROW).join(reasons, on=_ROW).drop(_ROW)
            if bad.height:
                quarantine.write(name, bad, batch=batch, digest=digest, facts=facts, replace=True)
            if check.outcome is not Outcome.FAIL:
                good = (
                    rows.select(table.columns.keys()).with_row_index(_ROW).join(reasons, on=_ROW, how="anti")
                )
                valid.write(name, good.drop(_ROW), batch=batch, digest=digest, facts=facts, replace=True)
    return checks


def _derived_digest(rows: pl.DataFrame, table: Table) -> str:
    rules = table.model_dump_json(include={"columns", "key", "time"})
    return hashlib.sha256(f"{digest_of(rows)}{rules}".encode()).hexdigest()


def row_problems(rows: pl.DataFrame, table: Table, as_of: datetime) -> pl.DataFrame:
    """Return the rows that break a rule of the contract.

    Args:
        rows: A batch of the raw layer.
        table: The table in the contract.
        as_of: Rows later than this are from the future.

    Returns:
        Columns ``_row`` (place in ``rows``) and ``_reasons`` (list of texts), one row for each
        broken row.
    """
    found = [_schema_problems(rows, table), _parse_problems(rows), _key_problems(rows, table)]
    if table.time:
        future = rows.with_row_index(_ROW).filter(pl.col(table.time) > as_of)
        found.append(future.select(_ROW, pl.lit(f"{table.time}: is in the future").alias(REASONS)))
    return (
        pl.concat(frame.select(pl.col(_ROW).cast(pl.UInt32), REASONS) for frame in found)
        .group_by(_ROW)
        .agg(pl.col(REASONS).unique().sort())
        .sort(_ROW)
    )


def _schema_problems(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Rows that break the pandera schema of the contract, and why."""
    import pandera.polars as pa  # A second to import, which only this step needs.

    schema = pa.DataFrameSchema(
        {
            name: pa.Column(TYPES[rule.type], _checks(pa, rule), nullable=not rule.required)
            for name, rule in table.columns.items()
        }
    )
    empty = pl.DataFrame(schema={_ROW: pl.UInt32, REASONS: pl.String})
    try:
        schema.validate(rows.select(table.columns.keys()), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases.filter(pl.col("index").is_not_null())
        what = pl.when(pl.col("check") == "not_nullable").then(pl.lit("is missing"))
        reason = pl.concat_str(
            pl.col("column"), pl.lit(": "), what.otherwise(pl.format("breaks {}", "check"))
        )
        return cases.select(pl.col("index").cast(pl.UInt32).alias(_ROW), reason.alias(REASONS))
    return empty


def _checks(pa: Any, rule: Any) -> list[Any]:
    checks = []
    if rule.minimum is not None:
        checks.append(pa.Check.ge(rule.minimum))
    if rule.maximum is not None:
        checks.append(pa.Check.le(rule.maximum))
    if rule.allowed is not None:
        checks.append(pa.Check.isin(rule.allowed))
    if rule.pattern is not None:
        checks.append(pa.Check.str_matches(rule.pattern))
    return checks


def _parse_problems(rows: pl.DataFrame) -> pl.DataFrame:
    if PROBLEMS not in rows.columns:
        return pl.DataFrame(schema={_ROW: pl.UInt32, REASONS: pl.String})
    broken = rows.with_row_index(_ROW).filter(pl.col(PROBLEMS).list.len() > 0)
    # The value itself is kept in the raw layer; as a reason it would make every row one of its own.
    text = pl.col(PROBLEMS).str.replace(r"^([^:]*: not an? [a-z]+|[^:]*: not a [a-z]+):.*$", "$1")
    return broken.select(_ROW, PROBLEMS).explode(PROBLEMS).select(_ROW, text.alias(REASONS))


def _key_problems(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    numbered = rows.with_row_index(_ROW)
    missing = numbered.filter(pl.any_horizontal(pl.col(table.key).is_null()))
    # Of rows that are alike the first is kept; rows that differ under one key are all set aside.
    content = pl.struct(sorted(table.columns))
    repeated = numbered.filter(pl.struct(table.key).is_duplicated())
    same = repeated.filter(content.n_unique().over(table.key) == 1, ~pl.col(_ROW).is_first_distinct())
    later = same.filter(
        pl.struct(table.key).is_first_distinct().not_() | (pl.col(_ROW) != pl.col(_ROW).min().over(table.key))
    )
    differing = repeated.filter(content.n_unique().over(table.key) > 1)
    name = ", ".join(table.key)
    return pl.concat(
        [
            missing.select(_ROW, pl.lit(f"{name}: the key is missing").alias(REASONS)),
            later.select(_ROW, pl.lit(f"{name}: the row is there twice").alias(REASONS)),
            differing.select(_ROW, pl.lit(f"{name}: other rows have the same key").alias(REASONS)),
        ]
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
        verdicts.append(_freshness(name, table, batch, rows, as_of))
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


def _freshness(name: str, table: Table, batch: str, rows: pl.DataFrame, as_of: datetime) -> Verdict:
    assert table.time is not None
    assert table.freshness is not None
    newest = rows[table.time].max()
    age = (as_of - newest).total_seconds() / 3600 if isinstance(newest, datetime) else None
    return judge(
        f"data.freshness.{name}",
        age,
        table.freshness.total_seconds() / 3600,
        better="lower",
        unit="hours",
        message=f"Age of the newest row of {name} (at most {format_duration(table.freshness)}).",
        evidence={"batch": batch, "newest": str(newest)},
    )


def profile(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Describe each column of a table.

    Args:
        rows: The table's rows.

    Returns:
        For each column its name, type, share of missing values and number of distinct ones; for
        numbers and times also minimum, quartiles, maximum and mean; for others the ten most
        frequent values with their counts. JSON-serializable.
    """
    return [_profile_column(rows[name]) for name in rows.columns if name not in (BATCH_COLUMN, PROBLEMS)]


def _profile_column(values: pl.Series) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "column": values.name,
        "type": str(values.dtype),
        "rows": len(values),
        "missing_share": values.null_count() / max(len(values), 1),
        "distinct": values.n_unique(),
    }
    present = values.drop_nulls()
    if len(present) and values.dtype.is_numeric():
        facts["mean"] = present.mean()
        facts["quantiles"] = [present.quantile(q, "nearest") for q in (0, 0.25, 0.5, 0.75, 1)]
        facts["histogram"] = _histogram(present)
    elif len(present) and values.dtype.is_temporal():
        facts["quantiles"] = [str(present.min()), str(present.max())]
    elif len(present):
        top = present.cast(pl.String).value_counts(sort=True).head(10)
        facts["top"] = [[value, count] for value, count in top.iter_rows()]
    return facts


def _histogram(values: pl.Series) -> dict[str, list[float]]:
    low, high = values.quantile(0.005), values.quantile(0.995)
    clipped = values.cast(pl.Float64).clip(low, high)
    bins = clipped.hist(bin_count=24)
    return {"edges": bins["breakpoint"].to_list(), "counts": bins["count"].to_list()}


def as_of_or_now(text: str) -> datetime:
    """Read the instant of a run: an ISO 8601 time or a period's end; now if the text is empty.

    Raises:
        UsageError: if it is neither.
    """
    if not text:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return Period.parse(text).end
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
