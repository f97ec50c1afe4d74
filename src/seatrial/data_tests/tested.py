"""What was tested before: an immutable batch, tested by the same rules, has the same verdicts.

The rules are the contract's and this package's own code, and one of them looks at the keys of earlier
batches. So a batch is named by a chain of digests: of the rules, and of the content of every batch up to
itself. Whatever of it changes, the batch and all after it are tested anew. That is so too where what the
test wrote is not there any more, where it failed, and where the instant of the run decides: a row that was
from the future may be none by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from seatrial.contract.schema import Table
from seatrial.tables import Tables
from seatrial.verdicts import Outcome, Verdict, worst
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


@dataclass(frozen=True)
class Layers:
    """Where batches come from, and where their rows go."""

    raw: Tables
    valid: Tables
    quarantine: Tables

    @classmethod
    def of(cls, workspace: Workspace, model: str) -> Layers:
        """Return the layers of a model."""
        return cls(*(Tables(workspace, model, layer) for layer in ("raw", "valid", "quarantine")))


class PassedBatch(BaseModel):
    """A batch that passed.

    Attributes:
        chain: Digest of the rules and of the content of every batch up to this one.
        valid: What stands for the rows that became valid.
        quarantine: What stands for those that were set aside; None if there never were any.
        newest: The latest time of its rows; None if they have none.
        check: What was found, but for the batch's age.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: str
    valid: int | None
    quarantine: int | None
    newest: datetime | None
    check: BatchCheck


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    batches: dict[str, PassedBatch]


class PassedBatches:
    """The batches of one table that passed before, by what they were tested.

    Args:
        workspace: Where it is written down, as ``tested/MODEL/TABLE.json``.
        model: The model's name.
        name: Name of the table.
        table: The table in the contract.
        batches: Names of the batches that are there now, in their order.
    """

    def __init__(
        self, workspace: Workspace, model: str, name: str, table: Table, batches: Collection[str]
    ) -> None:
        self._workspace = workspace
        self._key = f"tested/{model}/{name}.json"
        self._name = name
        self._ahead = table.ahead
        self._layers = Layers.of(workspace, model)
        self._chains = _chains(table, batches, self._layers.raw.contents(name, batches))
        self._passed = self._read()
        self._new: dict[str, tuple[datetime | None, BatchCheck]] = {}
        self._valid = self._layers.valid.contents(name, batches)
        self._quarantine = self._layers.quarantine.contents(name, batches)

    def _read(self) -> dict[str, PassedBatch]:
        content = self._workspace.get(self._key)
        try:
            return _File.model_validate_json(content).batches if content else {}
        except ValidationError:
            return {}  # Damaged, or of another version: all is tested anew.

    def find(self, batch: str, as_of: datetime) -> PassedBatch | None:
        """Return what was found in a batch, if a test at ``as_of`` would find the same."""
        known = self._passed.get(batch)
        if known is None or known.chain != self._chains.get(batch) or self._is_ahead(known.newest, as_of):
            return None
        there = (self._valid.get(batch), self._quarantine.get(batch))
        return known if there == (known.valid, known.quarantine) else None

    def add(self, batch: str, newest: datetime | None, check: BatchCheck, as_of: datetime) -> None:
        """Note what was found in a batch, where it is worth keeping."""
        passed = check.outcome is not Outcome.FAIL and not self._is_ahead(newest, as_of)
        if passed and batch in self._chains:
            self._new[batch] = newest, check

    def _is_ahead(self, newest: datetime | None, as_of: datetime) -> bool:
        return newest is not None and newest > as_of + self._ahead

    def keep(self) -> None:
        """Write down what was noted, now that its rows are in their layers.

        Raises:
            StoreError: if the store failed; then these batches are tested again.
        """
        if not self._new:
            return
        valid = self._layers.valid.contents(self._name, self._new)
        quarantine = self._layers.quarantine.contents(self._name, self._new)
        made = {
            batch: PassedBatch(
                chain=self._chains[batch],
                valid=valid.get(batch),
                quarantine=quarantine.get(batch),
                newest=newest,
                check=check,
            )
            for batch, (newest, check) in self._new.items()
        }
        content = _File(batches=self._passed | made).model_dump_json(indent=2)
        self._workspace.put(self._key, content.encode())


def _chains(table: Table, batches: Collection[str], contents: dict[str, int]) -> dict[str, str]:
    """Return the chain of each batch by its name, up to the first whose content nothing stands for."""
    chains: dict[str, str] = {}
    last = f"{_code_digest()} {table.model_dump_json()}"
    for batch in batches:
        if batch not in contents:
            break
        last = hashlib.sha256(f"{last} {batch} {contents[batch]}".encode()).hexdigest()
        chains[batch] = last
    return chains


@cache
def _code_digest() -> str:
    """SHA-256 of this package's own files: rules are code, too."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
