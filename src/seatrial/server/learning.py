"""Outcomes that count for the histories before the tables have them.

An outcome that arrives is learned at once, so the next request's history counts it. Months later,
or minutes, the same row comes by way of ingest and data tests. Here the rows are kept by their key
until a model is made from tables that hold them, so each counts once in any model.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from seatrial.bundle import BundleSchema
from seatrial.feedback.recent import Recent
from seatrial.server.model import Change, ServedModel
from seatrial.server.requests import read_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def labelled_row(schema: BundleSchema, recent: Recent) -> dict[str, Any]:
    """Return a prediction's row with its outcome, as the table will have it."""
    row: dict[str, Any] = orjson.loads(recent.inputs)
    for column in schema.inputs:
        if column.type == "time":
            row[column.name] = read_time(row.get(column.name))
    row[schema.label] = recent.value
    if schema.label_time is not None:
        row[schema.label_time] = _EPOCH + timedelta(microseconds=recent.occurred_at)
    return row


class Learned:
    """The rows that were learned and are in no table yet, by their key."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._since: list[tuple[str, Change]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, model: ServedModel, recents: list[Recent]) -> list[Change]:
        """Let predictions whose outcome has just become known, or changed, count in ``model``.

        Returns:
            The rows, for a candidate beside it.
        """
        changes: list[tuple[str, Change]] = []
        for recent in recents:
            change = Change(self._rows.get(recent.key), labelled_row(model.schema, recent))
            self._rows[recent.key] = change.new
            changes.append((recent.key, change))
        self._count(model, changes)
        if self._since is not None:
            self._since += changes
        return [change for _, change in changes]

    def snapshot(self) -> list[Change]:
        """Return all rows, for a model that is being made; what comes later is for :meth:`catch_up`.

        For one that is made beside the model that answers, it is for :meth:`since`.
        """
        self._since = []
        return [Change(None, row) for row in self._rows.values()]

    def give_up(self) -> None:
        """Forget about the last :meth:`snapshot`: no model came of it."""
        self._since = None

    def since(self) -> list[Change]:
        """Return what came since :meth:`snapshot`."""
        found = [change for _, change in self._since or []]
        self._since = None
        return found

    def catch_up(self, model: ServedModel) -> None:
        """Let what came since :meth:`snapshot` count in the model that was made from it.

        What the model's tables know is forgotten here: they have it from now on.
        """
        self._count(model, self._since or [])
        self._since = None
        keys = list(self._rows)
        known = model.knows([self._rows[key] for key in keys])
        for key, is_known in zip(keys, known, strict=True):
            if is_known:
                del self._rows[key]

    def _count(self, model: ServedModel, changes: list[tuple[str, Change]]) -> None:
        for (key, _), counts in zip(changes, model.count([c for _, c in changes]), strict=True):
            if not counts:
                self._rows.pop(key, None)
