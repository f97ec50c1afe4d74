"""Ingest: from where the data are to the raw tables, a batch a period.

Everything that arrives is kept, in the ``raw`` layer, with the reasons why a value could not be
read beside it (``_problems``); whether a row may be learned from is the data tests' business.
What cannot be a batch at all (a missing column, a wrong separator, no rows) is refused before
anything is written.
"""

from __future__ import annotations

import glob
import importlib.metadata
import re
import zipfile
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Column, FileSource, PackageSource, Table
from seatrial.errors import SourceError, UsageError
from seatrial.model_code import load_model_code
from seatrial.tables import BatchResult, Tables, digest_of
from seatrial.workspace import Workspace

PROBLEMS = "_problems"
WHOLE = "all"
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
"""The polars type of each of the contract's column types."""


@dataclass(frozen=True)
class Period:
    """A span of time that a batch covers.

    Attributes:
        name: ``2013``, ``2013-07`` or ``2013-07-15``.
        start: Its first instant (included), UTC.
        end: The first instant after it (not included), UTC.
    """

    name: str
    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read a year, a month or a day.

        Raises:
            UsageError: if the text is none of them.
        """
        found = re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", text)
        try:
            if not found:
                raise ValueError
            year, month, day = int(found[1]), int(found[2] or 1), int(found[3] or 1)
            first = date(year, month, day)
        except ValueError:
            raise UsageError(
                f"A period must be a year, a month or a day, such as 2013-07. Got {text!r} instead."
            ) from None
        days = (
            1 if found[3] else monthrange(year, month)[1] if found[2] else (date(year + 1, 1, 1) - first).days
        )
        start = datetime(year, month, day, tzinfo=UTC)
        return cls(text, start, start + timedelta(days=days))


def read_package_file(package: str, path: str) -> bytes:
    """Return the bytes of a file that an installed distribution ships, without importing it.

    Args:
        package: Name of the distribution.
        path: Path of the file within it; a zip archive is opened and must hold one file.

    Raises:
        SourceError: if the distribution or the file is not there.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(
            f"The Python package {package!r} is not installed.", remedy=f"Install it: pip install {package}"
        ) from None
    found = next((file for file in files if str(file) == path), None)
    if found is None:
        raise SourceError(f"The Python package {package!r} has no file {path!r}.")
    content = Path(str(found.locate())).read_bytes()
    return _only_member(Path(str(found.locate()))) if path.endswith(".zip") else content


def _only_member(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise SourceError(f"The archive {path.name} must hold one file. It holds {len(names)}.")
        return archive.read(names[0])


def read_csv_text(content: bytes | Path, *, separator: str, null_values: list[str]) -> pl.DataFrame:
    """Read a CSV with every column as text, so that no value is guessed or lost.

    Raises:
        SourceError: if it is empty or not a CSV.
    """
    try:
        return pl.read_csv(
            content,
            separator=separator,
            null_values=null_values,
            infer_schema=False,
            truncate_ragged_lines=False,
        )
    except pl.exceptions.NoDataError:
        raise SourceError("The source is empty.", remedy="Check that it was written completely.") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise SourceError(f"The source is not a CSV: {str(error).splitlines()[0]}.") from error


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
        frame = _read_raw(table.source, loaded.folder)
        if table.prepare:
            frame = load_model_code(loaded.folder / "prepare.py", table.prepare)(frame)
        return conform(frame, table)
    except SourceError as error:
        raise SourceError(f"Table {name!r}: {error.message}", remedy=error.remedy) from None
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"Table {name!r}: {table.prepare or 'the source'} failed: {str(error).splitlines()[0]}."
        ) from error


def _read_raw(source: FileSource | PackageSource, folder: Path) -> pl.DataFrame:
    if isinstance(source, PackageSource):
        content = read_package_file(source.package, source.path)
        return read_csv_text(content, separator=source.separator, null_values=source.null_values)
    paths = [Path(path) for path in sorted(glob.glob(str(folder / source.path)))]
    if not paths:
        raise SourceError(
            f"There is no file {source.path!r} in {folder}.",
            remedy="Put it there, or change source.path in the contract.",
        )
    frames = []
    for path in paths:
        try:
            frames.append(_read_file(path, source))
        except SourceError as error:
            raise SourceError(f"{path.name}: {error.message}", remedy=error.remedy) from None
    try:
        return pl.concat(frames, how="diagonal")
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"The files of {source.path!r} do not fit together: {error}.") from error


def _read_file(path: Path, source: FileSource) -> pl.DataFrame:
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    if path.suffix == ".zip":
        return read_csv_text(_only_member(path), separator=source.separator, null_values=source.null_values)
    return read_csv_text(path, separator=source.separator, null_values=source.null_values)


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Give a frame the contract's columns and types.

    Args:
        frame: Rows as read; texts are parsed, other types cast.
        table: The table in the contract.

    Returns:
        The contract's columns in its order, and ``_problems``.

    Raises:
        SourceError: if a column is missing; the message says what may be wrong.
    """
    if missing := [column for column in table.columns if column not in frame.columns]:
        raise _missing_columns(frame, missing, table)
    columns: list[pl.Expr] = []
    problems: list[pl.Expr] = []
    for name, rule in table.columns.items():
        parsed = _parsed(frame.schema[name], name, rule)
        columns.append(parsed.alias(name))
        text = pl.format(
            "{}: not a {}: {}", pl.lit(name), pl.lit(rule.type), pl.col(name).cast(pl.String).str.slice(0, 40)
        )
        problems.append(pl.when(pl.col(name).is_not_null() & parsed.is_null()).then(text))
    return frame.select(*columns, pl.concat_list(problems).list.drop_nulls().alias(PROBLEMS))


def _missing_columns(frame: pl.DataFrame, missing: list[str], table: Table) -> SourceError:
    separator = getattr(table.source, "separator", ",")
    other = next((s for s in ";\t|,:" if s != separator and s in frame.columns[0]), None)
    if len(frame.columns) == 1 and other:
        return SourceError(
            f"The columns seem to be separated by {other!r}, not by {separator!r}.",
            remedy=f"Set source.separator to {other!r} in the contract.",
        )
    return SourceError(
        f"The source lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
        f"It has: {', '.join(frame.columns)}.",
        remedy="Correct the source, or the table's columns in the contract. Nothing was ingested.",
    )


def _parsed(dtype: pl.DataType, name: str, rule: Column) -> pl.Expr:
    column = pl.col(name)
    wanted = TYPES[rule.type]
    if dtype != pl.String or rule.type == "string":
        if rule.type == "time" and isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            return column.dt.replace_time_zone("UTC").dt.cast_time_unit("us")
        return column.cast(wanted, strict=False)
    text = column.str.strip_chars()
    if rule.type == "time":
        zoned = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False, format="%+")
        plain = [
            text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
            for form in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
        ]
        return pl.coalesce(zoned, *plain)
    if rule.type == "boolean":
        lower = text.str.to_lowercase()
        truth = pl.when(lower.is_in(["true", "1", "yes"])).then(True)
        return truth.when(lower.is_in(["false", "0", "no"])).then(False)
    if rule.type == "integer":
        return pl.coalesce(text.cast(pl.Int64, strict=False), _whole(text.cast(pl.Float64, strict=False)))
    return text.cast(pl.Float64, strict=False)


def _whole(number: pl.Expr) -> pl.Expr:
    return pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)


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

    Returns:
        What was done, batch by batch.

    Raises:
        SourceError: if a source cannot be read or has no rows in a period.
        TableError: if a period is there already with other rows and ``replace`` is False.
        UsageError: if a table or period is unknown, or a period overlaps one that is there.
    """
    names = tables or list(loaded.contract.tables)
    if unknown := [name for name in names if name not in loaded.contract.tables]:
        raise UsageError(
            f"There is no table {unknown[0]!r} in the contract. It has: {', '.join(loaded.contract.tables)}."
        )
    wanted = [Period.parse(period) for period in periods] if periods is not None else None
    raw = Tables(workspace, loaded.contract.name, "raw")
    results: list[BatchResult] = []
    for name in names:
        frame = read_source(loaded, name)
        time = loaded.contract.tables[name].time
        facts = {"source": _described(loaded.contract.tables[name].source)}
        if time is None:
            if frame.height == 0:
                raise SourceError(f"Table {name!r}: the source has no rows.", remedy="Nothing was ingested.")
            batch = {"batch": WHOLE, "digest": digest_of(frame)}
            results.append(raw.write(name, frame, **batch, facts=facts, replace=True))
            continue
        spans = wanted if wanted is not None else _ended_months(frame, name, time, until or datetime.now(UTC))
        _refuse_overlaps(name, spans, list(raw.batches(name)))
        for span in spans:
            rows = frame.filter(pl.col(time) >= span.start, pl.col(time) < span.end)
            if rows.height == 0:
                raise _no_rows(frame, name, time, span)
            batch = {"batch": span.name, "digest": digest_of(rows)}
            results.append(raw.write(name, rows, **batch, facts=facts, replace=replace or wanted is None))
    return results


def _described(source: FileSource | PackageSource) -> str:
    return f"{source.package}/{source.path}" if isinstance(source, PackageSource) else source.path


def _no_rows(frame: pl.DataFrame, name: str, time: str, span: Period) -> SourceError:
    first, last = frame[time].min(), frame[time].max()
    there = (
        f"It has rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}."
        if isinstance(first, datetime) and isinstance(last, datetime)
        else "It has no row with a time."
    )
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
    known = [Period.parse(batch) for batch in there]
    for span in spans:
        for other in (*known, *spans):
            if other.name != span.name and span.start < other.end and other.start < span.end:
                raise UsageError(
                    f"Table {name!r}: the period {span.name} overlaps {other.name}, "
                    f"which would count rows twice."
                )
