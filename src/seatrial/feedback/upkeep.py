"""Keep the feedback tables small, and no longer than they should be: compact, retain, erase.

All three may run beside servers. What they do to a table is a commit that is made anew when a
shipper's came before it; files are deleted only if a commit has left them behind, or if nobody
committed them for an hour, so nothing that a shipper is about to commit goes.

Erasing reaches segments by way of the tables: a log that no server has is shipped first, and a server
is waited for until it has shipped what it had. So nobody but its writer ever touches a segment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from seatrial.contract.schema import Contract
from seatrial.errors import FeedbackError, UsageError
from seatrial.feedback.concealing import Concealer, open_concealer
from seatrial.feedback.ids import first_id_at, is_id
from seatrial.feedback.joining import read_outcomes, read_recorded
from seatrial.feedback.log import DAMAGED, FeedbackLog, FolderInUseError
from seatrial.feedback.rows import COMPARISONS_TABLE, OUTCOMES_TABLE, PREDICTIONS_TABLE, STATISTICS, TABLES
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.table_facts import Compaction
from seatrial.tables import UNCOMMITTED_HOURS
from seatrial.workspace import Workspace

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Deleted:
    """What was deleted.

    Attributes:
        predictions: Rows of the table ``predictions``.
        outcomes: Rows of the table ``outcomes``.
        files: Data files, which earlier versions of the tables had.
        damaged_segments: Damaged segments of the logs: what is in them cannot be told apart.
    """

    predictions: int
    outcomes: int
    files: int = 0
    damaged_segments: int = 0


def compact(workspace: Workspace, contract: Contract) -> list[Compaction]:
    """Put the small files of the feedback tables together, and delete those of old versions.

    Raises:
        TableError: if a table is damaged, or others keep changing it.
        StoreError: if the store failed.
    """
    tables = feedback_tables(workspace, contract.name)
    return [tables.compact(table, keep=contract.feedback.versions) for table in TABLES]


def retain(workspace: Workspace, contract: Contract, *, now: datetime) -> Deleted:
    """Delete predictions that were answered longer ago than the contract keeps them, and their outcomes.

    A contract without a limit keeps them for good: nothing is deleted. An outcome goes with its prediction, also
    where that was never there; one of an id that was made up, of a time to come, goes when it arrived as long ago.

    Args:
        workspace: Where the tables lie.
        contract: The model's contract.
        now: The instant to count from, UTC.

    Raises:
        TableError: if a table is damaged, or others keep changing it.
        StoreError: if the store failed.
    """
    retention = contract.feedback.retention
    if retention is None:
        return Deleted(0, 0)
    limit = now - retention
    tables, facts = feedback_tables(workspace, contract.name), {"source": "retain"}
    older = f"prediction_id < '{first_id_at(limit)}'"
    arrived = limit.astimezone(UTC).isoformat()
    made_up = f"prediction_id >= '{first_id_at(now)}' AND received_at < '{arrived}'"
    predictions = tables.delete(PREDICTIONS_TABLE, older, facts=facts)
    tables.delete(COMPARISONS_TABLE, older, facts=facts)
    outcomes = tables.delete(OUTCOMES_TABLE, f"{older} OR ({made_up})", facts=facts)
    hours = max(round(contract.feedback.versions / timedelta(hours=1)), UNCOMMITTED_HOURS)
    files = sum(tables.vacuum(table, hours=hours, uncommitted=True) for table in TABLES)
    return Deleted(predictions, outcomes, files)


def find_subject(
    workspace: Workspace, contract: Contract, concealer: Concealer | None, field: str, value: str
) -> set[str]:
    """Return the ids of the recorded predictions whose request had a value in a field.

    Args:
        workspace: Where the tables lie.
        contract: The model's contract.
        concealer: Conceals the model's private fields; None: it has none.
        field: One of the inputs.
        value: Its value as text: a number, true or false, an ISO 8601 time.

    Raises:
        UsageError: if the model has no such input, drops it, or the value is none of its type.
        TableError: if a table is damaged.
        StoreError: if the store failed.
    """
    forms = [_typed(contract, field, value)]
    if concealer is not None and field in concealer.treatments:
        if concealer.treatments[field] == "drop":
            raise UsageError(
                f"{field} is dropped before it is recorded: no record has it.",
                remedy="Erase by another field, or by --prediction.",
            )
        forms.append(concealer.hash(field, forms[0]))
    name = orjson.dumps(field).decode()
    # Records have each value as it is here: within a text of theirs every quote has a backslash.
    texts = [f"{name}:{orjson.dumps(form).decode()}{end}" for form in forms for end in ",}"]
    holds = pl.any_horizontal(pl.col("inputs").str.contains(text, literal=True) for text in texts)
    found = read_recorded(workspace, contract.name).filter(holds).select("prediction_id").collect()
    return set(found["prediction_id"])


def _typed(contract: Contract, field: str, value: str) -> Any:
    columns = contract.tables[contract.prediction.table].columns
    if field not in contract.prediction.inputs:
        raise UsageError(
            f"A request has no field {field!r}.", remedy=f"It has: {', '.join(contract.prediction.inputs)}."
        )
    kind = columns[field].type
    try:
        if kind == "integer":
            return int(value)
        if kind == "number":
            return float(value)
        if kind == "boolean":
            return {"true": True, "false": False}[value.lower()]
        if kind == "time":
            instant = datetime.fromisoformat(value)
            return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, KeyError):
        raise UsageError(f"{field} is of type {kind}. Got {value!r} instead.") from None
    return value


def find_predictions(
    workspace: Workspace, contract: Contract, subjects: Iterable[tuple[str, str]], ids: Iterable[str]
) -> set[str]:
    """Return the ids of the predictions that are named by a field's value, or themselves.

    Args:
        workspace: Where the tables lie.
        contract: The model's contract.
        subjects: Fields with their values, as :func:`find_subject` takes them.
        ids: Ids of predictions.

    Raises:
        UsageError: as :func:`find_subject` does, and if an id is none.
        TableError: if a table is damaged.
        StoreError: if the store failed, or the key of the private fields cannot be used.
    """
    found = set(ids)
    if wrong := sorted(name for name in found if not is_id(name)):
        raise UsageError(f"A prediction's id is a UUID of version 7. Got {wrong[0]!r} instead.")
    concealer = open_concealer(workspace, contract)
    for field, value in subjects:
        found |= find_subject(workspace, contract, concealer, field, value)
    return found


def empty_logs(workspace: Workspace, model: str, folders: Iterable[Path], *, wait: float) -> int:
    """See to it that all that logs hold now is in the tables, and delete their damaged segments.

    Args:
        workspace: Where the tables lie.
        model: The model's name.
        folders: The logs; one that is not there is left out.
        wait: Seconds to wait for the server that has a log.

    Returns:
        How many damaged segments were deleted.

    Raises:
        FeedbackError: if a server has not shipped in time, or a log cannot be used.
        TableError: if a table cannot be used.
        StoreError: if the store failed.
    """
    damaged = 0
    for folder in folders:
        if folder.is_dir():
            _empty(workspace, model, folder, wait)
            for path in folder.glob(f"*{DAMAGED}"):
                path.unlink()
                damaged += 1
    return damaged


def _empty(workspace: Workspace, model: str, folder: Path, wait: float) -> None:
    waiting = list(folder.glob("*.segment"))
    deadline = time.monotonic() + wait
    while True:
        try:
            log = FeedbackLog(folder)
        except FolderInUseError:
            waiting = [path for path in waiting if path.exists()]
            if not waiting:
                return
            if time.monotonic() >= deadline:
                raise FeedbackError(
                    f"The server that has {folder} has not shipped {len(waiting)} of its segments yet.",
                    remedy="See to it that it can write the tables, then run the command again. Nothing was erased.",
                ) from None
            time.sleep(_LOOK_SECONDS)
            continue
        try:
            ship(log, feedback_tables(workspace, model))
        finally:
            log.close()
        return


def erase(workspace: Workspace, model: str, ids: set[str]) -> Deleted:
    """Delete predictions and their outcomes from the tables, and from all earlier versions of them.

    Args:
        workspace: Where the tables lie.
        model: The model's name.
        ids: The predictions; those that are not there are left out.

    Raises:
        TableError: if a table is damaged, or others keep changing it.
        StoreError: if the store failed; run it again, and it goes on.
    """
    tables, facts = feedback_tables(workspace, model), {"source": "erase"}
    rows = pl.DataFrame({"prediction_id": sorted(ids)}, schema={"prediction_id": pl.String})
    counts = []
    files = 0
    for table in TABLES:
        tables.keep_statistics_of(table, STATISTICS[table])
        counts.append(tables.delete(table, rows, facts=facts))
        # Also if nothing was deleted now: a run before this one may have been killed in between.
        files += tables.vacuum(table, hours=0, uncommitted=False)
        files += tables.vacuum(table, hours=UNCOMMITTED_HOURS, uncommitted=True)
    return Deleted(counts[0], counts[1], files)


def count_rows(workspace: Workspace, model: str, ids: set[str]) -> Deleted:
    """Return what :func:`erase` would delete of the newest versions.

    Raises:
        TableError: if a table is damaged.
        StoreError: if the store failed.
    """
    known = pl.col("prediction_id").is_in(sorted(ids))
    counts = [
        int(frame.filter(known).select(pl.len()).collect().item())
        for frame in (read_recorded(workspace, model), read_outcomes(workspace, model))
    ]
    return Deleted(counts[0], counts[1])
