"""Join outcomes to predictions, by the prediction's id.

Both tables are histories: rows are only ever added. A prediction counts once by its id. Of several
outcomes of one prediction the last by ``occurred_at``, then by ``received_at``, wins; the others
stay, so that a join as of an earlier instant can be made again (threats: F9).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from seatrial.contract.schema import Contract
from seatrial.feedback.rows import (
    COMPARISONS,
    COMPARISONS_TABLE,
    OUTCOMES,
    OUTCOMES_TABLE,
    PREDICTIONS,
    PREDICTIONS_TABLE,
)
from seatrial.feedback.shipping import feedback_tables
from seatrial.sources import TYPES
from seatrial.workspace import Workspace


@dataclass(frozen=True)
class OutcomeCounts:
    """How outcomes and predictions fit together.

    Attributes:
        predictions: Distinct predictions.
        outcomes: Outcomes that arrived.
        joined: Predictions that have an outcome.
        conflicts: Predictions whose outcomes have different values.
        unknown: Ids with an outcome, but without a prediction.
    """

    predictions: int
    outcomes: int
    joined: int
    conflicts: int
    unknown: int


def read_predictions(
    workspace: Workspace, model: str, *, start: datetime | None = None, end: datetime | None = None
) -> pl.DataFrame:
    """Return what was predicted, each id once.

    Args:
        workspace: Where the tables lie.
        model: The model's name.
        start: Only rows predicted at this instant or later, UTC.
        end: Only rows predicted before this instant, UTC.

    Returns:
        The columns of the table ``predictions``, sorted by id, which is by the time of the answer.
        A row's instant is ``known_at``, and ``served_at`` where the model has no time. No rows
        where nothing was predicted yet.
    """
    frame = read_recorded(workspace, model)
    instant = pl.coalesce("known_at", "served_at")
    if start is not None:
        frame = frame.filter(instant >= start)
    if end is not None:
        frame = frame.filter(instant < end)
    return frame.unique("prediction_id", keep="any").sort("prediction_id").collect()


def read_recorded(workspace: Workspace, model: str) -> pl.LazyFrame:
    """Return every prediction as it was recorded, lazily; one that was shipped twice is there twice."""
    return _read(workspace, model, PREDICTIONS_TABLE, PREDICTIONS)


def read_outcomes(workspace: Workspace, model: str) -> pl.LazyFrame:
    """Return every outcome as it arrived."""
    return _read(workspace, model, OUTCOMES_TABLE, OUTCOMES)


def read_comparisons(workspace: Workspace, model: str) -> pl.LazyFrame:
    """Return what candidates of roll-outs said, as it was recorded; one that was shipped twice is there twice."""
    return _read(workspace, model, COMPARISONS_TABLE, COMPARISONS)


def winning_outcomes(outcomes: pl.LazyFrame) -> pl.LazyFrame:
    """Return one outcome for each prediction: the last by ``occurred_at``, then ``received_at``.

    Of outcomes that are alike in both, the greater value wins, so that the answer does not depend
    on the rows' order.
    """
    return outcomes.sort("occurred_at", "received_at", "value").unique(
        "prediction_id", keep="last", maintain_order=True
    )


def join_outcomes(
    workspace: Workspace, model: str, *, start: datetime | None = None, end: datetime | None = None
) -> pl.DataFrame:
    """Return predictions with the outcomes that are known.

    Args:
        workspace: Where the tables lie.
        model: The model's name.
        start: Only rows predicted at this instant or later, UTC.
        end: Only rows predicted before this instant, UTC.

    Returns:
        What :func:`read_predictions` returns, with the columns ``outcome`` (1.0 or 0.0) and
        ``outcome_at``, both missing where there is no outcome.
    """
    winners = winning_outcomes(read_outcomes(workspace, model)).select(
        "prediction_id", outcome="value", outcome_at="occurred_at"
    )
    predictions = read_predictions(workspace, model, start=start, end=end)
    return predictions.join(winners.collect(), on="prediction_id", how="left", maintain_order="left")


def labelled_data(
    workspace: Workspace,
    contract: Contract,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    history: bool = False,
) -> pl.DataFrame:
    """Return the predictions that have an outcome as data: a column for each input of the request.

    Args:
        workspace: Where the tables lie.
        contract: The model's contract, which says the inputs' types.
        start: Only rows predicted at this instant or later, UTC.
        end: Only rows predicted before this instant, UTC.
        history: Whether to return a row for each outcome that arrived, and not for the one that counts alone.

    Returns:
        ``prediction_id``, ``known_at``, ``served_at``, ``bundle``, ``probability``, ``flagged``, ``outcome``,
        ``outcome_at``, with ``history`` also ``received_at`` and whether it ``counts``, and the inputs as
        ``inputs.NAME``: of the contract's types, or text where the field is private. Sorted by id, then as
        :func:`winning_outcomes` ranks.
    """
    outcomes = read_outcomes(workspace, contract.name).sort("occurred_at", "received_at", "value")
    ranked = outcomes.select(
        "prediction_id",
        "received_at",
        outcome="value",
        outcome_at="occurred_at",
        counts=pl.col("prediction_id").is_last_distinct(),
    ).collect()
    predictions = read_predictions(workspace, contract.name, start=start, end=end)
    kept = ["prediction_id", "known_at", "served_at", "bundle", "probability", "flagged", "inputs"]
    joined = predictions.select(kept).join(ranked, on="prediction_id", maintain_order="left_right")
    if not history:
        joined = joined.filter("counts").drop("counts", "received_at")
    return joined.drop("inputs").hstack(_inputs(joined["inputs"], contract))


def _inputs(texts: pl.Series, contract: Contract) -> pl.DataFrame:
    columns = contract.tables[contract.prediction.table].columns
    # Of an earlier bundle a field may have been private, or not yet.
    rows: list[dict[str, Any]] = [orjson.loads(text) for text in texts]
    found: dict[str, pl.Series] = {}
    for name in contract.prediction.inputs:
        values = [row.get(name) for row in rows]
        kind = TYPES[columns[name].type]
        if columns[name].private or any(isinstance(value, str) for value in values):
            text = pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
            is_time = columns[name].type == "time" and not columns[name].private
            found[f"inputs.{name}"] = (
                text.str.to_datetime(time_zone="UTC", time_unit="us") if is_time else text
            )
        else:
            found[f"inputs.{name}"] = pl.Series(values, dtype=kind, strict=False)
    return pl.DataFrame(found)


def count_outcomes(workspace: Workspace, model: str) -> OutcomeCounts:
    """Count how outcomes and predictions fit together, over all of the tables."""
    ids = read_recorded(workspace, model).select("prediction_id").unique().collect()
    outcomes = read_outcomes(workspace, model).collect()
    values = outcomes.group_by("prediction_id").agg(pl.col("value").n_unique())
    known = values.join(ids, on="prediction_id", how="semi")
    return OutcomeCounts(
        predictions=ids.height,
        outcomes=outcomes.height,
        joined=known.height,
        conflicts=known.filter(pl.col("value") > 1).height,
        unknown=values.height - known.height,
    )


def _read(workspace: Workspace, model: str, table: str, schema: pl.Schema) -> pl.LazyFrame:
    tables = feedback_tables(workspace, model)
    if tables.open(table) is None:
        return schema.to_frame(eager=False)
    found = tables.read(table)
    # A table that an earlier version began has not all of the columns until the next commit.
    there = found.collect_schema()
    absent = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in there]
    return found.with_columns(absent).select(list(schema)) if absent else found.select(list(schema))
