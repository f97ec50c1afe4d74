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
STATISTICS = {
    PREDICTIONS_TABLE: ["prediction_id", "served_at", "known_at"],
    OUTCOMES_TABLE: ["prediction_id", "occurred_at", "received_at"],
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
class Rows:
    """The rows of some records.

    Attributes:
        predictions: With the columns of ``PREDICTIONS``.
        outcomes: With the columns of ``OUTCOMES``.
        seals: What each finished segment says of the number of its records.
    """

    predictions: pl.DataFrame
    outcomes: pl.DataFrame
    seals: list[int]


def read_rows(payloads: Iterable[bytes]) -> Rows:
    """Return the rows of records, in their order.

    A kind of record that is not known here is left out: an older reader may meet a newer log.
    """
    columns: dict[str, dict[str, list[Any]]] = {
        "predictions": defaultdict(list),
        "outcomes": defaultdict(list),
    }
    seals: list[int] = []
    for payload in payloads:
        for kind, content in orjson.loads(payload).items():
            if kind == "sealed":
                seals.append(content)
            elif kind in columns:
                _extend(kind, columns[kind], content, len(content["prediction_id"]))
    return Rows(_frame(columns["predictions"], PREDICTIONS), _frame(columns["outcomes"], OUTCOMES), seals)


_COLUMNS = {"predictions": list(PREDICTIONS), "outcomes": list(OUTCOMES)}


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
