"""Tables with versions: Delta Lake on a local disk or on S3.

Rows arrive in batches, a batch a period (a month, say). A batch is one Delta commit that also
carries a Delta application transaction, ``batch:PERIOD`` with the first 60 bits of the batch's
digest as its version. So the same batch twice adds nothing, a changed batch is noticed, two
writers of one batch cannot both win, and a writer that is killed has committed or has not
(Delta protocol, "Transaction Identifiers"; threats: F5, D5).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote

import orjson
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from seatrial.durable_files import sync_files
from seatrial.errors import TableError
from seatrial.table_errors import TableChangedError, table_errors
from seatrial.table_facts import BatchResult, Compaction, TableVersion
from seatrial.workspace import Workspace

Result = TypeVar("Result")
BATCH_COLUMN = "_batch"
_STATISTICS = "delta.dataSkippingStatsColumns"
LOG = "_delta_log"
FIRST_COMMIT = f"{LOG}/{0:020}.json"
ATTEMPTS = 10
UNCOMMITTED_HOURS = 1
"""Age from which a file that no commit names was left by a writer that is gone."""
COMPACT_EVERY = 100
"""Commits of a stream after which a table's small files are put together."""


def digest_of(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's content, independent of the order of rows and columns."""
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    flat = frame.with_columns(pl.col(lists).list.join("\x1f")) if lists else frame
    columns = sorted(flat.columns)
    ordered = flat.select(columns).sort(columns, nulls_last=True)
    # Texts are quoted and what is missing is not, so no text can pass for a missing value.
    return hashlib.sha256(ordered.write_csv(quote_style="non_numeric").encode()).hexdigest()


class Tables:
    """The tables of one model in a workspace.

    Args:
        workspace: Where they lie.
        model: The model's name.
        layer: ``raw`` (as ingested), ``valid`` (passed the data tests), ``quarantine``, or
            ``feedback``.
    """

    def __init__(self, workspace: Workspace, model: str, layer: str) -> None:
        self._workspace = workspace
        self._prefix = f"tables/{model}/{layer}"

    def uri(self, name: str) -> str:
        """Return the table's address, for any engine that reads Delta Lake."""
        return self._workspace.uri(f"{self._prefix}/{name}")

    def _table(self, name: str, version: int | None = None) -> DeltaTable:
        own = self._workspace.access.variables
        return DeltaTable(self.uri(name), version=version, storage_options=own or None)

    def open(self, name: str, version: int | None = None) -> DeltaTable | None:
        """Open a table, or return None where it does not exist or nothing was written to it yet.

        Raises:
            TableError: if the table has no such version or is damaged.
            StoreError: if the store failed.
        """
        with table_errors(self._workspace, name):
            try:
                newest = self._table(name)
            except TableNotFoundError:
                return None
            if newest.version() == 0 and version is None:
                return None  # It was made, and nothing is in it yet.
            if version is None or version == newest.version():
                return newest
            if not 0 <= version < newest.version():
                raise TableError(
                    f"The table {name!r} has no version {version}: its newest is {newest.version()}."
                )
            return self._table(name, version)

    def read(
        self, name: str, version: int | None = None, *, batch: str | Collection[str] | None = None
    ) -> pl.LazyFrame:
        """Return a table's rows lazily, without the batch column.

        Args:
            name: Name of the table.
            version: Delta version; the newest without it.
            batch: Only this batch's rows, or those of several.

        Raises:
            TableError: if there is no such table or version.
            StoreError: if the store failed.
        """
        table = self.open(name, version)
        if table is None:
            raise TableError(
                f"There is no table {name!r} in {self._workspace.uri(self._prefix)}.",
                remedy="Ingest its data first: seatrial data ingest MODEL",
            )
        frame = pl.scan_delta(table)
        if batch is not None:
            names = [batch] if isinstance(batch, str) else list(batch)
            frame = frame.filter(pl.col(BATCH_COLUMN).is_in(names))
        return frame.drop(BATCH_COLUMN, strict=False)

    def batches(self, name: str) -> dict[str, int]:
        """Return the rows of each batch in the table, by the batch's name.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return {}
        with table_errors(self._workspace, name):
            counts = pl.scan_delta(table).group_by(BATCH_COLUMN).len().collect().sort(BATCH_COLUMN)
        return {str(batch): int(rows) for batch, rows in counts.iter_rows()}

    def contents(self, name: str, batches: Iterable[str]) -> dict[str, int]:
        """Return what stands for the content of batches: the first 60 bits of the digests they were written with.

        Args:
            name: Name of the table.
            batches: Names of batches; those that the table does not have are left out.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return {}
        found = {batch: table.transaction_version(f"batch:{batch}") for batch in batches}
        return {batch: number for batch, number in found.items() if number is not None}

    def write(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        batch: str,
        digest: str,
        facts: dict[str, str],
        replace: bool = False,
    ) -> BatchResult:
        """Write a batch in one commit; the same batch again adds nothing.

        A commit that somebody else's came before is made again, from another look at the table, so
        two writers of the same batch both find it there, once.

        Args:
            name: Name of the table.
            frame: The batch's rows.
            batch: The batch's name.
            digest: SHA-256 that names the batch's content (or what it was derived from).
            facts: What the commit shall say of itself, such as its source.
            replace: Whether a batch of other content may take this one's place.

        Raises:
            TableError: if the batch is there with other content and ``replace`` is False, a column's
                type is not the table's, or others keep changing the table.
            StoreError: if the store failed; nothing was written.
        """
        for _ in range(ATTEMPTS - 1):
            with suppress(TableChangedError):
                return self._write_once(name, frame, batch, digest, facts, replace=replace)
        return self._write_once(name, frame, batch, digest, facts, replace=replace)

    def _write_once(
        self, name: str, frame: pl.DataFrame, batch: str, digest: str, facts: dict[str, str], *, replace: bool
    ) -> BatchResult:
        table = self.open(name)
        known = table.transaction_version(f"batch:{batch}") if table else None
        if table is not None and known == _as_number(digest):
            self._keep(name, 0)  # Who committed it may have been killed before doing so.
            return BatchResult(name, batch, "unchanged", table.version(), frame.height, digest)
        if known is not None and not replace:
            raise TableError(
                f"The batch {batch} of table {name!r} is there already with other content (its new digest is "
                f"{digest[:12]}).",
                remedy="If the source was corrected, write it anew with --replace; "
                "earlier versions stay readable.",
            )
        if table is not None:
            _refuse_other_types(name, frame, table)
        before = table.version() if table is not None else 0
        self._commit(name, table, frame, batch, digest, facts, overwrite=known is not None)
        self._keep(name, before)
        after = self.open(name)
        status: Literal["added", "replaced"] = "added" if known is None else "replaced"
        return BatchResult(name, batch, status, after.version() if after else 0, frame.height, digest)

    def _commit(
        self,
        name: str,
        table: DeltaTable | None,
        frame: pl.DataFrame,
        batch: str,
        digest: str,
        facts: dict[str, str],
        *,
        overwrite: bool,
    ) -> None:
        said = {"batch": batch, "digest": digest, "rows": str(frame.height), **facts}
        properties = CommitProperties(
            custom_metadata={key: str(value) for key, value in said.items()},
            app_transactions=[Transaction(f"batch:{batch}", _as_number(digest))],
        )
        rows = frame.with_columns(pl.lit(batch).alias(BATCH_COLUMN))
        with table_errors(self._workspace, name):
            target = table if table is not None else self._make(name, rows, [BATCH_COLUMN])
            if overwrite:
                write_deltalake(
                    target,
                    rows,
                    mode="overwrite",
                    predicate=f"{BATCH_COLUMN} = '{batch}'",
                    schema_mode="merge",
                    commit_properties=properties,
                )
            else:
                write_deltalake(
                    target, rows, mode="append", schema_mode="merge", commit_properties=properties
                )

    def compact(self, name: str, *, keep: timedelta) -> Compaction:
        """Put a table's small files together, and delete what only versions before ``keep`` need.

        Others may write at the same time; who reads a version that is older than ``keep`` may not.

        Args:
            name: Name of the table.
            keep: For how long an earlier version stays readable.

        Raises:
            TableError: if the table is damaged, or others keep changing it.
            StoreError: if the store failed; the table is as it was.
        """
        table = self.open(name)
        if table is None:
            return Compaction(name, 0, 0, 0)
        before = len(table.file_uris())

        def put_together(table: DeltaTable) -> int:
            table.optimize.compact()
            table.create_checkpoint()
            return len(table.file_uris())

        after = self._changed(name, put_together)
        hours = max(round(keep / timedelta(hours=1)), UNCOMMITTED_HOURS)
        return Compaction(name, before, after, self.vacuum(name, hours=hours, uncommitted=True))

    def delete(self, name: str, rows: pl.DataFrame | str, *, facts: dict[str, str]) -> int:
        """Delete rows in one commit; return how many. Earlier versions have them until :meth:`vacuum`.

        Args:
            name: Name of the table.
            rows: Which: a column of values, or a condition in SQL.
            facts: What the commit shall say of itself.

        Raises:
            TableError: if the table is damaged, or others keep changing it.
            StoreError: if the store failed; nothing was deleted.
        """
        if self.open(name) is None or (isinstance(rows, pl.DataFrame) and rows.is_empty()):
            return 0
        properties = CommitProperties(custom_metadata=facts)

        def delete(table: DeltaTable) -> int:
            if isinstance(rows, str):
                return int(table.delete(rows, commit_properties=properties)["num_deleted_rows"])
            (column,) = rows.columns
            merger = table.merge(
                rows,
                f"t.{column} = s.{column}",
                source_alias="s",
                target_alias="t",
                commit_properties=properties,
            )
            return int(merger.when_matched_delete().execute()["num_target_rows_deleted"])

        return self._changed(name, delete)

    def vacuum(self, name: str, *, hours: int, uncommitted: bool) -> int:
        """Delete data files that the newest version does not have; return how many.

        Args:
            name: Name of the table.
            hours: How long ago a version must have left a file behind.
            uncommitted: Whether also files that no commit names are deleted, from that age on. It must be
                ``UNCOMMITTED_HOURS`` at least then: a younger one may be about to be committed.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return 0
        with table_errors(self._workspace, name):
            doomed = set(table.vacuum(hours, enforce_retention_duration=False, full=uncommitted))
            # What commits have left behind is named for good, also when it was deleted long ago.
            prefix = f"{self._prefix}/{name}"
            doomed &= {key.removeprefix(f"{prefix}/") for key in self._workspace.list(prefix)}
            if doomed:  # Each vacuum is two commits, also of nothing.
                table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=uncommitted)
        return len(doomed)

    def keep_statistics_of(self, name: str, columns: list[str]) -> None:
        """Let the table's log have the smallest and largest values of these columns alone, from now on.

        Raises:
            TableError: if the table is damaged, or others keep changing it.
            StoreError: if the store failed.
        """
        table = self.open(name)
        wanted = ",".join(columns)
        if table is not None and table.metadata().configuration.get(_STATISTICS) != wanted:
            self._changed(name, lambda table: table.alter.set_table_properties({_STATISTICS: wanted}))

    def _changed(self, name: str, change: Callable[[DeltaTable], Result]) -> Result:
        """Change a table, and again from another look at it if somebody else's commit came before."""
        for attempt in range(ATTEMPTS):
            table = self.open(name)
            assert table is not None
            try:
                before = table.version()
                with table_errors(self._workspace, name):
                    changed = change(table)
                self._keep(name, before)
            except TableChangedError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return changed
        raise AssertionError

    def _keep(self, name: str, before: int) -> None:
        """Ask the disk of a local workspace to keep what was committed after version ``before``: deltalake does not."""
        if not self._workspace.is_local:
            return
        folder = self._workspace.folder / self._prefix / name
        logs = [log for log in (folder / LOG).glob("*.json") if log.stem.isdigit() and int(log.stem) > before]
        short_cuts = [
            *(log.with_suffix(".checkpoint.parquet") for log in logs),
            folder / LOG / "_last_checkpoint",
        ]
        with self._workspace.errors(f"keeping the table {name}"):
            data = [file for log in logs for file in _added(folder, log)]
            sync_files(folder, [*data, *logs, *short_cuts])

    def _make(
        self, name: str, rows: pl.DataFrame, partitions: list[str], statistics: list[str] | None = None
    ) -> DeltaTable:
        """Make a table with no rows, at version 0; if somebody else makes it too, there is one.

        delta-rs lets two writers who both make a table both write their rows, whatever their
        transactions say. So its first commit, which only names the columns, is made elsewhere and
        put in its place by a write that one of them wins.
        """
        with tempfile.TemporaryDirectory() as elsewhere:
            configuration = None if statistics is None else {_STATISTICS: ",".join(statistics)}
            write_deltalake(elsewhere, rows.clear(), partition_by=partitions, configuration=configuration)
            first = Path(elsewhere, FIRST_COMMIT).read_bytes()
        self._workspace.create(f"{self._prefix}/{name}/{FIRST_COMMIT}", first)
        # At version 0: what somebody else has committed since is looked at by the commit.
        return self._table(name, 0)

    def positions(self, name: str, streams: Collection[str]) -> dict[str, int]:
        """Return how far each stream was appended to the table; 0 if it never was.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return dict.fromkeys(streams, 0)
        return {stream: table.transaction_version(stream) or 0 for stream in streams}

    def append(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        positions: Mapping[str, int],
        facts: dict[str, str],
        statistics: list[str] | None = None,
    ) -> bool:
        """Append rows of streams in one commit, which also records how far each stream has come.

        So a writer that was killed between the commit and its own bookkeeping may append again,
        and the rows still count once (threats: F5).

        Args:
            name: Name of the table.
            frame: The rows, without a batch column.
            positions: How far each stream comes with these rows, counted from 1, by its name. A stream is one
                opening of a log, say.
            facts: What the commit shall say of itself.
            statistics: Where the table is made by this: the columns whose smallest and largest values its log
                may have; None: of all.

        Returns:
            Whether it was written; False if the streams had come that far already.

        Raises:
            TableError: if somebody else changed the table at the same moment, or some of the streams had come that
                far and others had not; nothing was written.
            StoreError: if the store failed; nothing was written.
        """
        table = self.open(name)
        there = {
            stream
            for stream, position in positions.items()
            if table is not None and (table.transaction_version(stream) or 0) >= position
        }
        if there == positions.keys():
            self._keep(name, 0)  # Who committed it may have been killed before doing so.
            return False
        if there:
            raise TableError(
                f"The table {name} has some of the rows already: those of {', '.join(sorted(there))}."
            )
        before = table.version() if table is not None else 0
        properties = CommitProperties(
            custom_metadata={"rows": str(frame.height), **facts},
            app_transactions=[Transaction(stream, position) for stream, position in positions.items()],
        )
        with table_errors(self._workspace, name):
            target = table if table is not None else self._make(name, frame, [], statistics)
            write_deltalake(target, frame, mode="append", schema_mode="merge", commit_properties=properties)
            if table is not None and table.version() % COMPACT_EVERY == 0:
                # Many small files make reading and appending slow; readers of older versions are
                # not disturbed, as the small files stay.
                table.optimize.compact()
                table.create_checkpoint()
        self._keep(name, before)
        return True

    def floor_of_greatest(self, name: str, column: str, rows: int) -> Any | None:
        """Return a value that so many rows at least are not below, judged by the table's log alone.

        Whoever wants the greatest values of a column filters by it, and then most files of a long history need not
        be opened.

        Args:
            name: Name of the table.
            column: A column that the table keeps statistics of.
            rows: How many of the greatest values are wanted.

        Returns:
            The value; None where all rows are needed, or the log cannot tell.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return None
        with table_errors(self._workspace, name):
            files = pl.DataFrame(table.get_add_actions(flatten=True))
        least = f"min.{column}"
        if least not in files.columns or files[least].null_count():
            return None
        newest = files.sort(least, descending=True).filter(pl.col("num_records").cum_sum() >= rows)
        return newest[least].item(0) if newest.height else None

    def version(self, name: str, version: int | None = None) -> TableVersion:
        """Return the table's version with its rows counted and digested.

        Raises:
            TableError: if there is no such table or version.
            StoreError: if the store failed.
        """
        if version is None and (newest := self.open(name)) is not None:
            version = newest.version()
        with table_errors(self._workspace, name):
            frame = self.read(name, version).collect()
        return TableVersion(name, version or 0, frame.height, digest_of(frame))

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the table's commits, newest first: version, time, operation and its facts.

        Raises:
            TableError: if the table is damaged.
            StoreError: if the store failed.
        """
        table = self.open(name)
        if table is None:
            return []
        shown = ("batch", "digest", "rows", "source")
        return [
            {
                "version": commit["version"],
                "time": datetime.fromtimestamp(commit["timestamp"] / 1000, UTC).isoformat(timespec="seconds"),
                "operation": commit["operation"],
                **{key: commit[key] for key in shown if key in commit},
            }
            for commit in table.history()
            if commit["version"] > 0
        ]


def _added(folder: Path, log: Path) -> list[Path]:
    """Return the data files that a commit added (Delta protocol, "Add File"); none if its log was cleaned up."""
    with suppress(FileNotFoundError):
        actions = [orjson.loads(line) for line in log.read_bytes().splitlines()]
        return [folder / unquote(action["add"]["path"]) for action in actions if "add" in action]
    return []


def _refuse_other_types(name: str, frame: pl.DataFrame, table: DeltaTable) -> None:
    """Delta Lake would cast a batch to the table's types, and 5.5 to 5 without a word."""
    there = pl.scan_delta(table).collect_schema()
    for column, kind in frame.schema.items():
        if column in there and _kind(kind) != _kind(there[column]):
            raise TableError(
                f"The column {column!r} is {there[column]} in the table {name!r}, and {kind} in the batch.",
                remedy=f"Give the column another name, or remove {table.table_uri} and make it anew.",
            )


def _kind(kind: pl.DataType) -> object:
    return "integer" if kind.is_integer() else "float" if kind.is_float() else kind.base_type()


def _as_number(digest: str) -> int:
    return int(digest[:15], 16)
