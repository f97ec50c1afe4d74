"""Append the periods of a source to the raw tables, a batch a period."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import FileSource, PackageSource, Table
from seatrial.errors import SourceError, UsageError
from seatrial.model_code import load_model_code
from seatrial.sources.conform import NOT_A, PROBLEMS, conform
from seatrial.sources.files import read_raw
from seatrial.sources.known_digests import KnownDigests
from seatrial.sources.period import Period
from seatrial.table_facts import BatchResult
from seatrial.tables import Tables
from seatrial.workspace import Workspace

WHOLE = "all"
"""Name of the one batch of a table without a time."""
UNDATED = "undated"
"""Name of the batch of rows whose time is missing or cannot be read."""


def ingest(
    loaded: LoadedContract,
    workspace: Workspace,
    *,
    periods: list[str] | None = None,
    tables: list[str] | None = None,
    until: datetime | None = None,
    replace: bool = False,
) -> list[BatchResult]:
    """Append periods of the contract's sources to the raw tables.

    Args:
        loaded: The model's contract.
        workspace: Where the tables lie.
        periods: Names of periods for the tables that have a time; without it every month of the
            source that has ended by ``until``, in which a month that changed is written anew.
        tables: Names of tables; all of them without it.
        until: The instant of the run; now without it.
        replace: Whether a period whose rows have changed is written anew.

    Rows whose time is missing or cannot be read belong to no period. They are kept as the batch
    ``undated``, if they are no more than the table's share of rows that may go to quarantine.

    Returns:
        What was done, batch by batch.

    Raises:
        SourceError: if a source cannot be read or has no rows in a period; nothing was written.
        TableError: if a period is there already with other rows and ``replace`` is False.
        UsageError: if a table or period is unknown, or a period overlaps one that is there.
        StoreError: if the store failed; the batches before are written, and again adds nothing.
    """
    names = tables or list(loaded.contract.tables)
    if unknown := [name for name in names if name not in loaded.contract.tables]:
        raise UsageError(
            f"There is no table {unknown[0]!r} in the contract. It has: {', '.join(loaded.contract.tables)}."
        )
    wanted = [Period.parse(period) for period in dict.fromkeys(periods)] if periods is not None else None
    raw = Tables(workspace, loaded.contract.name, "raw")
    arrived: list[tuple[str, str, pl.DataFrame]] = []
    for name in dict.fromkeys(names):
        there = list(raw.batches(name))
        found = _batches(loaded, name, wanted, until or datetime.now(UTC), there)
        arrived.extend((name, batch, rows) for batch, rows in found)
    digests = KnownDigests(workspace, loaded.contract.name)
    written = [
        raw.write(
            name,
            rows,
            batch=batch,
            digest=digests.of(name, batch, rows),
            facts={"source": _described(loaded.contract.tables[name].source)},
            replace=replace or wanted is None or batch in (WHOLE, UNDATED),
        )
        for name, batch, rows in arrived
    ]
    digests.keep()
    return written


def _batches(
    loaded: LoadedContract, name: str, wanted: list[Period] | None, until: datetime, there: list[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the batches of a table's source: a name and its rows."""
    table, frame = loaded.contract.tables[name], read_source(loaded, name)
    if frame.height == 0:
        raise SourceError(f"Table {name!r}: the source has no rows.", remedy="Nothing was ingested.")
    if table.time is None:
        yield WHOLE, frame
        return
    undated = frame.filter(pl.col(table.time).is_null())
    if undated.height > table.quarantine_share * frame.height:
        raise _too_many_undated(frame, undated, name, table)
    spans = wanted if wanted is not None else _ended_months(frame, name, table.time, until)
    _refuse_overlaps(name, spans, there)
    for span in spans:
        rows = frame.filter(pl.col(table.time) >= span.start, pl.col(table.time) < span.end)
        if rows.height == 0:
            raise _no_rows(frame, name, table.time, span)
        yield span.name, rows
    if undated.height or UNDATED in there:
        yield UNDATED, undated


def _too_many_undated(frame: pl.DataFrame, undated: pl.DataFrame, name: str, table: Table) -> SourceError:
    start = f"{table.time}{NOT_A['time']}"
    texts = undated[PROBLEMS].explode().drop_nulls()
    example = next((text.removeprefix(start) for text in texts if text.startswith(start)), None)
    said = f"are no time that can be read, such as {example!r}" if example else "are missing"
    return SourceError(
        f"Table {name!r}: {undated.height:,} of {frame.height:,} values of {table.time!r} {said}; "
        f"at most a share of {table.quarantine_share:g} may be.",
        remedy="Write times as 2013-07-15T10:00:00Z, or turn them into times in prepare.py. "
        "Nothing was ingested.",
    )


def _described(source: FileSource | PackageSource) -> str:
    return f"{source.package}/{source.path}" if isinstance(source, PackageSource) else source.path


def _no_rows(frame: pl.DataFrame, name: str, time: str, span: Period) -> SourceError:
    first, last = frame[time].min(), frame[time].max()
    there = "It has no row with a time."
    if isinstance(first, datetime) and isinstance(last, datetime):
        there = f"It has rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}."
    return SourceError(f"Table {name!r}: the source has no rows in {span.name}. {there}")


def _ended_months(frame: pl.DataFrame, name: str, time: str, until: datetime) -> list[Period]:
    months = frame[time].drop_nulls().dt.strftime("%Y-%m").unique().sort().to_list()
    ended = [span for span in map(Period.parse, months) if span.end <= until]
    if not ended:
        raise SourceError(
            f"Table {name!r}: the source has no rows of a month that has ended by {until:%Y-%m-%d}.",
            remedy="Name a period yourself with --period, such as --period 2013-07-15.",
        )
    return ended


def _refuse_overlaps(name: str, spans: list[Period], there: list[str]) -> None:
    known = [Period.parse(batch) for batch in there if batch != UNDATED]
    for span in spans:
        for other in (*known, *spans):
            if other.name != span.name and span.start < other.end and other.start < span.end:
                raise UsageError(
                    f"Table {name!r}: the period {span.name} overlaps {other.name}, "
                    f"which would count rows twice."
                )


def read_source(loaded: LoadedContract, name: str) -> pl.DataFrame:
    """Read all rows of a table's source and make them of the contract's types.

    Args:
        loaded: The model's contract.
        name: Name of the table.

    Returns:
        A frame with the contract's columns and ``_problems``, a list of texts for each row that
        says which of its values could not be read.

    Raises:
        SourceError: if the source is not there, empty, or lacks a column.
    """
    table = loaded.contract.tables[name]
    try:
        frame = read_raw(table.source, loaded.folder)
        return conform(_prepared(frame, loaded, table.prepare) if table.prepare else frame, table)
    except SourceError as error:
        raise SourceError(f"Table {name!r}: {error.message}", remedy=error.remedy) from None


def _prepared(frame: pl.DataFrame, loaded: LoadedContract, function: str) -> pl.DataFrame:
    prepare = load_model_code(loaded.folder / "prepare.py", function)
    try:
        prepared = prepare(frame)
    except Exception as error:
        what = (str(error).splitlines() or [""])[0]
        raise SourceError(
            f"{function} in prepare.py failed: {type(error).__name__}: {what}.",
            remedy="Run with --debug to see where.",
        ) from error
    if not isinstance(prepared, pl.DataFrame):
        raise SourceError(f"{function} in prepare.py must return a polars DataFrame. Got {type(prepared)}.")
    return prepared
