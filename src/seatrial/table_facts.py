"""What is said of tables, their versions and their batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TableVersion:
    """A table at one of its versions.

    Attributes:
        table: Name of the table.
        version: Delta version, counted from 1; 0 is the table without rows.
        rows: Number of rows.
        digest: SHA-256 of the rows' content, whatever their order and files.
    """

    table: str
    version: int
    rows: int
    digest: str


@dataclass(frozen=True)
class BatchResult:
    """What writing a batch did.

    Attributes:
        table: Name of the table.
        batch: The batch's name, a period such as ``2013-07`` or ``all``.
        status: ``added``, ``unchanged`` (the same rows were there), or ``replaced``.
        version: The table's version afterwards.
        rows: Rows of the batch.
        digest: SHA-256 of the batch's content.
    """

    table: str
    batch: str
    status: Literal["added", "unchanged", "replaced"]
    version: int
    rows: int
    digest: str


@dataclass(frozen=True)
class Compaction:
    """What putting a table's small files together did.

    Attributes:
        table: Name of the table.
        files_before: Data files of its newest version before.
        files_after: And afterwards.
        deleted_files: Data files deleted that only earlier versions had, or that no commit names.
    """

    table: str
    files_before: int
    files_after: int
    deleted_files: int


def versions_to_json(versions: list[TableVersion]) -> dict[str, dict[str, Any]]:
    """Return table versions as JSON-serializable facts, by the table's name."""
    return {version.table: asdict(version) for version in versions}
