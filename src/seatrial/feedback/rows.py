"""What a record of the log says, and the rows of the tables that it becomes.

A record holds what one request or several brought, column by column: a request of a thousand rows is
in one record, so its rows are all in the log or none is. Instants are microseconds since 1970.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

PREDICTIONS_TABLE = "predictions"
OUTCOMES_TABLE = "outcomes"
COMPARISONS_TABLE = "comparisons"
TABLES = (PREDICTIONS_TABLE, OUTCOMES_TABLE, COMPARISONS_TABLE)
_INSTANT = pl.Datetime("us", "UTC")
PREDICTIONS = pl.Schema(
    {
        "prediction_id": pl.String(),
        "request_id": pl.String(),
        "client": pl.String(),
        "served_at": _INSTANT,
        "latency_microseconds": pl.Int64(),
        "known_at": _INSTANT,
        "bundle": pl.String(),
        "key": pl.String(),
        "inputs": pl.String(),
        "features": pl.List(pl.Float32()),
        "probability": pl.Float64(),
        "flagged": pl.Boolean(),
    }
)
OUTCOMES = pl.Schema(
    {
        "prediction_id": pl.String(),
        "value": pl.Float64(),
        "occurred_at": _INSTANT,
        "received_at": _INSTANT,
    }
)
COMPARISONS = pl.Schema(
    {
        "prediction_id": pl.String(),
        "compared_at": _INSTANT,
        "stage": pl.Int64(),
        "bundle": pl.String(),
        "candidate": pl.String(),
        "probability": pl.Float64(),
        "candidate_probability": pl.Float64(),
        "flagged": pl.Boolean(),
        "candidate_flagged": pl.Boolean(),
        "microseconds": pl.Int64(),
        "candidate_microseconds": pl.Int64(),
        "error": pl.String(),
    }
)
STATISTICS = {
    PREDICTIONS_TABLE: ["prediction_id", "served_at", "known_at"],
    OUTCOMES_TABLE: ["prediction_id", "occurred_at", "received_at"],
    COMPARISONS_TABLE: ["prediction_id", "compared_at", "stage"],
}
"""The columns whose extremes a table's log may have: of others they would outlive what is erased."""


@dataclass(frozen=True)
class PredictionRecord:
    """What was answered to the n rows of one request, or of several that were answered together.

    Attributes:
        prediction_id: An id for each row.
        request_id: The client's own id of the request that each row came with.
        client: Who asked for each row, as far as is known.
        served_at: When it was answered, by the wall clock.
        latency_microseconds: Of each row: from its request's arrival until its record was made.
        known_at: The instant that each row is predicted at, where the model has one.
        bundle: Digest of the bundle that answered.
        key: Each row's key columns, a JSON list as text.
        inputs: Each row, a JSON object as text.
        features: The encoded rows, of shape (n_rows, n_features).
        probability: Of each row.
        flagged: Of each row.
    """

    prediction_id: list[str]
    request_id: list[str | None]
    client: list[str | None]
    served_at: int
    latency_microseconds: list[int]
    known_at: list[int | None]
    bundle: str
    key: list[str]
    inputs: list[str]
    features: NDArray[np.float32]
    probability: list[float]
    flagged: list[bool]

    def to_bytes(self) -> bytes:
        """Return the record's payload; a missing number (NaN) becomes null."""
        return orjson.dumps({"predictions": vars(self)}, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass(frozen=True)
class OutcomeRecord:
    """Outcomes that one request brought.

    Attributes:
        prediction_id: The prediction that each is the outcome of.
        value: 0.0 or 1.0 each.
        occurred_at: When each became known.
        received_at: When the request came, by the wall clock.
    """

    prediction_id: list[str]
    value: list[float]
    occurred_at: list[int]
    received_at: int

    def to_bytes(self) -> bytes:
        """Return the record's payload."""
        return orjson.dumps({"outcomes": vars(self)})


@dataclass(frozen=True)
class ComparisonRecord:
    """What a candidate of a roll-out said to n rows, beside what was answered.

    Attributes:
        prediction_id: The prediction that each row was answered with.
        compared_at: When, by the wall clock.
        stage: Number of the record that began the stage.
        bundle: Digest of the bundle that serves.
        candidate: Digest of the candidate.
        probability: What the bundle that serves answered; missing where the candidate answered alone.
        candidate_probability: What the candidate said; missing where it failed.
        flagged: Of each row, like ``probability``.
        candidate_flagged: Of each row, like ``candidate_probability``.
        microseconds: Processor time that the bundle that serves took for the rows computed together;
            missing where it was not measured.
        candidate_microseconds: The same of the candidate.
        error: Why the candidate failed; missing where it did not.
    """

    prediction_id: list[str]
    compared_at: int
    stage: int
    bundle: str
    candidate: str
    probability: list[float] | None
    candidate_probability: list[float] | None
    flagged: list[bool] | None
    candidate_flagged: list[bool] | None
    microseconds: int | None
    candidate_microseconds: int | None
    error: str | None

    def to_bytes(self) -> bytes:
        """Return the record's payload."""
        return orjson.dumps({"comparisons": vars(self)})


@dataclass(frozen=True)
class Rows:
    """The rows of some records.

    Attributes:
        predictions: With the columns of ``PREDICTIONS``.
        outcomes: With the columns of ``OUTCOMES``.
        comparisons: With the columns of ``COMPARISONS``.
        seals: What each finished segment says of the number of its records.
    """

    predictions: pl.DataFrame
    outcomes: pl.DataFrame
    comparisons: pl.DataFrame
    seals: list[int]

    def of(self, table: str) -> pl.DataFrame:
        """Return the rows of a table of ``TABLES``."""
        return {
            PREDICTIONS_TABLE: self.predictions,
            OUTCOMES_TABLE: self.outcomes,
            COMPARISONS_TABLE: self.comparisons,
        }[table]


def read_rows(payloads: Iterable[bytes]) -> Rows:
    """Return the rows of records, in their order.

    A kind of record that is not known here is left out: an older reader may meet a newer log.
    """
    columns: dict[str, dict[str, list[Any]]] = {kind: defaultdict(list) for kind in _SCHEMAS}
    seals: list[int] = []
    for payload in payloads:
        for kind, content in orjson.loads(payload).items():
            if kind == "sealed":
                seals.append(content)
            elif kind in columns:
                _extend(kind, columns[kind], content, len(content["prediction_id"]))
    frames = {kind: _frame(columns[kind], schema) for kind, schema in _SCHEMAS.items()}
    return Rows(**frames, seals=seals)


_SCHEMAS = {"predictions": PREDICTIONS, "outcomes": OUTCOMES, "comparisons": COMPARISONS}
_COLUMNS = {kind: list(schema) for kind, schema in _SCHEMAS.items()}


def _extend(kind: str, columns: dict[str, list[Any]], content: dict[str, Any], rows: int) -> None:
    # A column that an older log does not have is missing in its rows.
    for name in _COLUMNS[kind]:
        value = content.get(name)
        columns[name] += value if isinstance(value, list) else [value] * rows


def _frame(columns: dict[str, list[Any]], schema: pl.Schema) -> pl.DataFrame:
    if not columns:
        return schema.to_frame()
    plain = {name: pl.Int64 if kind == _INSTANT else kind for name, kind in schema.items()}
    frame = pl.DataFrame({name: columns[name] for name in schema}, schema=plain).cast(dict(schema))  # type: ignore[arg-type]
    if "features" in schema:
        # JSON has no NaN, so a missing number went into the log as null.
        frame = frame.with_columns(pl.col("features").list.eval(pl.element().fill_null(float("nan"))))
    return frame
