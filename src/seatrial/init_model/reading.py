"""Read a data file as a contract will, and find out what a contract must say so that it can be read."""

from __future__ import annotations

import csv
import io
import zipfile
from contextlib import suppress
from itertools import islice
from pathlib import Path

import polars as pl

from seatrial.contract.schema import NULL_VALUES, FileSource
from seatrial.errors import SourceError, UsageError
from seatrial.sources import read_raw

SEPARATORS = (",", ";", "\t", "|")
SNIFFED_BYTES = 65_536
SNIFFED_LINES = 50
MISSING_TEXTS = ("N/A", "n/a", "NULL", "None", "nan", "NaT", "?", "-", " ")
"""Texts that people write for a missing value, beside those that a contract takes as missing anyway."""
LONGEST_NAME = 200


def read_data(path: Path) -> tuple[pl.DataFrame, FileSource]:
    """Read a CSV (also zipped) or Parquet file.

    Args:
        path: The file.

    Returns:
        Its rows (of a CSV all texts), and the source as the contract will describe it, whose path
        is the one given.

    Raises:
        UsageError: if there is no such file.
        SourceError: if it is empty, cannot be read, or has only one column.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(
            f"The data file {path} {what}.", remedy="Give a CSV or Parquet file with --data FILE."
        )
    separator = "," if path.suffix == ".parquet" else find_separator(_start(path))
    source = FileSource(kind="file", path=path.name, separator=separator, null_values=NULL_VALUES)
    frame = read_raw(source, path.parent)
    missing = _missing_texts(frame)
    if missing:
        source = source.model_copy(update={"null_values": [*NULL_VALUES, *missing]})
        frame = read_raw(source, path.parent)
    _refuse_hopeless(path, frame)
    return frame, source


def _start(path: Path) -> str:
    content = b""
    with suppress(OSError, zipfile.BadZipFile, IndexError):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
                content = file.read(SNIFFED_BYTES)
        else:
            with path.open("rb") as file:
                content = file.read(SNIFFED_BYTES)
    return content.decode("utf-8-sig", errors="replace")


def find_separator(start: str) -> str:
    """Return the separator of a CSV: the one that divides its first lines into most, equally many, values.

    Args:
        start: The beginning of the file; its last line may be cut off.
    """

    def width(separator: str) -> int:
        with suppress(csv.Error):
            lines = islice(csv.reader(io.StringIO(start, newline=""), delimiter=separator), SNIFFED_LINES)
            widths = [len(line) for line in lines if line]
            whole = widths[:-1] or widths
            return widths[0] if widths and len(set(whole)) == 1 else 0
        return 0

    return max(SEPARATORS, key=width)


def _missing_texts(frame: pl.DataFrame) -> list[str]:
    """Texts that stand for a missing value in columns whose other values are all numbers."""
    found: set[str] = set()
    for column in frame.get_columns():
        if column.dtype != pl.String:
            continue
        values = column.drop_nulls().unique()
        stand_in = values.is_in(MISSING_TEXTS)
        if not stand_in.any():
            continue
        others = values.filter(~stand_in).str.strip_chars()
        if others.len() and others.cast(pl.Float64, strict=False).is_not_null().all():
            found.update(values.filter(stand_in))
    return [text for text in MISSING_TEXTS if text in found]


def _refuse_hopeless(path: Path, frame: pl.DataFrame) -> None:
    if frame.height == 0:
        raise SourceError(
            f"The data file {path} has no rows.",
            remedy="Check that it was written completely, and that each quote in it is closed.",
        )
    if frame.width == 1:
        raise SourceError(
            f"The data file {path} has only one column, {frame.columns[0][:LONGEST_NAME]!r}.",
            remedy="Its values must be separated by a comma, a semicolon, a tab or |.",
        )
    if long := next((name for name in frame.columns if len(name) > LONGEST_NAME), None):
        raise SourceError(
            f"A column's name in {path} must have at most {LONGEST_NAME} characters. "
            f"Got one of {len(long):,}, which begins with {long[:40]!r}.",
            remedy="The first line of a CSV must hold the columns' names.",
        )
