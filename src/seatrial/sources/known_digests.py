"""The digests of batches that were ingested before.

A digest does not depend on the order of rows and columns, so to make one is to sort a batch and to write it as
text. Every ingest reads a source from its beginning, and nearly all of its periods are as they were. So beside the
digest of each batch stands one of the very bytes that its rows have in memory: if these are the same, so is that.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from seatrial.tables import digest_of
from seatrial.workspace import Workspace


class _Known(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str
    """SHA-256 of the rows as Arrow IPC, in their order."""
    digest: str


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    batches: dict[str, _Known]


class KnownDigests:
    """The digests of a model's batches.

    Args:
        workspace: Where they are written down, as ``digests/MODEL.json``.
        model: The model's name.
    """

    def __init__(self, workspace: Workspace, model: str) -> None:
        self._workspace = workspace
        self._key = f"digests/{model}.json"
        self._known = self._read()
        self._before = dict(self._known)

    def _read(self) -> dict[str, _Known]:
        content = self._workspace.get(self._key)
        try:
            return dict(_File.model_validate_json(content).batches) if content else {}
        except ValidationError:
            return {}  # Damaged, or of another version: all are made anew.

    def of(self, table: str, batch: str, rows: pl.DataFrame) -> str:
        """Return what :func:`seatrial.tables.digest_of` says of a batch's rows."""
        content = _content_digest(rows)
        known = self._known.get(f"{table}/{batch}")
        if known is None or known.content != content:
            known = _Known(content=content, digest=digest_of(rows))
            self._known[f"{table}/{batch}"] = known
        return known.digest

    def keep(self) -> None:
        """Write down what is known now.

        Raises:
            StoreError: if the store fails.
        """
        if self._known != self._before:
            self._workspace.put(self._key, _File(batches=self._known).model_dump_json().encode())


def _content_digest(rows: pl.DataFrame) -> str:
    file = BytesIO()
    rows.rechunk().write_ipc(file, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return hashlib.sha256(file.getbuffer()).hexdigest()
