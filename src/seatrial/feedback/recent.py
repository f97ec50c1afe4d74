"""The predictions that an outcome may still be expected for, in memory.

So that an answer to an outcome can say whether its prediction is known, and whether the outcome is
new; the tables hold every prediction, this index only the newest ones.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import polars as pl

from seatrial.feedback.joining import read_outcomes, winning_outcomes
from seatrial.feedback.log import FeedbackLog
from seatrial.feedback.rows import PREDICTIONS_TABLE, Rows, read_rows
from seatrial.feedback.segments import scan
from seatrial.feedback.shipping import feedback_tables
from seatrial.workspace import Workspace

CAPACITY = 100_000

Status = Literal["accepted", "repeated", "changed"]


@dataclass(slots=True)
class Recent:
    """A prediction and the outcome of it that counts so far.

    Attributes:
        key: The row's key columns, a JSON list as text.
        inputs: The row, a JSON object as text.
        value: The outcome, 1.0 or 0.0; None while there is none.
        occurred_at: When it became known, in microseconds since 1970.
        received_at: When it arrived.
    """

    key: str
    inputs: str
    value: float | None = None
    occurred_at: int = 0
    received_at: int = 0

    def settle(self, value: float, occurred_at: int, received_at: int) -> Status:
        """Take in an outcome: the last by ``occurred_at``, then ``received_at``, counts.

        Returns:
            ``accepted`` for the first, ``repeated`` for the same value again, else ``changed``.
        """
        before = self.value
        if before is None or (occurred_at, received_at) >= (self.occurred_at, self.received_at):
            self.value, self.occurred_at, self.received_at = value, occurred_at, received_at
        if before is None:
            return "accepted"
        return "repeated" if before == value else "changed"


class RecentPredictions:
    """The newest predictions by their id.

    Args:
        capacity: Most predictions that are kept; the oldest go first.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._known: dict[str, Recent] = {}
        # The oldest key of a dictionary that has lost many is found by passing all of their places.
        self._by_age: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, prediction_id: str, key: str, inputs: str) -> None:
        """Take in a prediction; one that is known already keeps its outcome."""
        if prediction_id not in self._known:
            self._known[prediction_id] = Recent(key, inputs)
            self._by_age.append(prediction_id)
            if len(self._by_age) > self._capacity:
                del self._known[self._by_age.popleft()]

    def get(self, prediction_id: str) -> Recent | None:
        """Return a prediction, or None if it is not among the newest."""
        return self._known.get(prediction_id)

    def settled(self) -> list[Recent]:
        """Return the predictions that have an outcome, in the order in which it became known."""
        return sorted((r for r in self._known.values() if r.value is not None), key=lambda r: r.occurred_at)

    def restore(self, workspace: Workspace, model: str, log: FeedbackLog) -> None:
        """Take in what the tables and the log's finished segments hold of the newest predictions.

        However long the history and the log's backlog are, only their newest part is read.

        Raises:
            TableError: if a table cannot be read.
            StoreError: if the store fails.
        """
        tables = feedback_tables(workspace, model)
        if tables.open(PREDICTIONS_TABLE) is not None:
            shipped = tables.read(PREDICTIONS_TABLE).select("prediction_id", "key", "inputs")
            outcomes = read_outcomes(workspace, model)
            floor = tables.floor_of_greatest(PREDICTIONS_TABLE, "prediction_id", self._capacity)
            if floor is not None:
                shipped, outcomes = (
                    frame.filter(pl.col("prediction_id") >= floor) for frame in (shipped, outcomes)
                )
            self._take_in(
                shipped.top_k(self._capacity, by="prediction_id").collect(),
                winning_outcomes(outcomes).collect(),
            )
        for rows in self._waiting(log):
            self._take_in(rows.predictions, rows.outcomes)

    def _waiting(self, log: FeedbackLog) -> list[Rows]:
        """Return the newest segments' rows, oldest first: an outcome never comes before its prediction."""
        found: list[Rows] = []
        for segment in reversed(log.segments()):
            if sum(rows.predictions.height for rows in found) >= self._capacity:
                break
            found.append(read_rows(scan(segment.path.read_bytes()).payloads))
        return found[::-1]

    def _take_in(self, predictions: pl.DataFrame, outcomes: pl.DataFrame) -> None:
        for row in predictions.select("prediction_id", "key", "inputs").sort("prediction_id").iter_rows():
            self.add(*row)
        instants = pl.col("occurred_at", "received_at").dt.epoch("us")
        for name, *outcome in outcomes.select("prediction_id", "value", instants).iter_rows():
            if (recent := self.get(name)) is not None:
                recent.settle(*outcome)
