"""Read what a source holds, as it stands there: no value is guessed and none is lost."""

from __future__ import annotations

import collections
import csv
import glob
import importlib.metadata
import io
import zipfile
from pathlib import Path

import polars as pl

from seatrial.contract.schema import FileSource, PackageSource
from seatrial.errors import SourceError

PEEKED_BYTES = 4096


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
    place = Path(str(found.locate()))
    return _only_member(place) if place.suffix == ".zip" else place.read_bytes()


def _only_member(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise SourceError(f"The archive {path.name} must hold one file. It holds {len(names)}.")
        return archive.read(names[0])


def read_csv_text(content: bytes | Path, *, separator: str, null_values: list[str]) -> pl.DataFrame:
    """Read a CSV with every column as text, so that no value is guessed or lost.

    Args:
        content: The file's bytes, or its path; UTF-8, with a line of names.
        separator: What stands between two values.
        null_values: Texts that mean missing.

    Returns:
        The file's rows; lines with nothing on them are left out.

    Raises:
        SourceError: if it is empty, not UTF-8, no CSV, or two of its columns have the same name.
    """
    _refuse_binary(content)
    try:
        frame = pl.read_csv(
            content, separator=separator, null_values=null_values, infer_schema=False, glob=False
        )
    except pl.exceptions.NoDataError:
        raise SourceError("The source is empty.", remedy="Check that it was written completely.") from None
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"The source is not a CSV in UTF-8: {_first_line(error)}.",
            remedy="Check its separator, its quotes, and that it was written completely.",
        ) from error
    _refuse_cut_off(content, separator, frame.width)
    if twice := [name for name in frame.columns if f"{name}_duplicated_0" in frame.columns]:
        raise SourceError(f"Two columns of the source are called {twice[0]!r}.")
    return frame.filter(~pl.all_horizontal(pl.all().is_null())) if frame.width > 1 else frame


def _refuse_cut_off(content: bytes | Path, separator: str, width: int) -> None:
    """Refuse a file that ends in the middle of a line; polars would take the rest of it for missing.

    A last line with all of its values may lack its end: many files are written so (threats: D4).
    """
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        if file.read(1) in b"\r\n":
            return
        file.seek(0)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            last: list[str] = collections.deque(csv.reader(text, delimiter=separator), maxlen=1)[0]
        except csv.Error:  # A longer value than Python's own reader takes; polars has read it.
            return
    if len(last) < width:
        raise SourceError(
            f"The source ends in the middle of a line: the last one has {len(last)} of {width} values.",
            remedy="Wait until it is written completely, and try again.",
        )


def _refuse_binary(content: bytes | Path) -> None:
    if isinstance(content, Path):
        with content.open("rb") as file:
            start = file.read(PEEKED_BYTES)
    else:
        start = content[:PEEKED_BYTES]
    if b"\0" in start:
        raise SourceError(
            "The source is not a CSV in UTF-8: it has zero bytes.",
            remedy="If it is a text in UTF-16, save it as UTF-8.",
        )


def read_raw(source: FileSource | PackageSource, folder: Path) -> pl.DataFrame:
    """Read all rows of a source, of whatever types they are there.

    Args:
        source: The source in the contract.
        folder: Folder that its path is relative to.

    Raises:
        SourceError: if it is not there, empty, or cannot be read.
    """
    if isinstance(source, PackageSource):
        content = read_package_file(source.package, source.path)
        return read_csv_text(content, separator=source.separator, null_values=source.null_values)
    frames = []
    for path in _files(source.path, folder):
        try:
            frames.append(_read_file(path, source))
        except SourceError as error:
            raise SourceError(f"{path.name}: {error.message}", remedy=error.remedy) from None
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"The files of {source.path!r} do not fit together: {_first_line(error)}."
        ) from error


def _files(path: str, folder: Path) -> list[Path]:
    """Return the file of that very name, or else those that the glob matches, in the order of names."""
    if (folder / path).is_file():
        return [folder / path]
    # pathlib's glob takes no absolute pattern, and a model's data may lie anywhere.
    found = sorted(glob.glob(path, root_dir=folder))  # noqa: PTH207
    if files := [folder / name for name in found if (folder / name).is_file()]:
        return files
    raise SourceError(
        f"There is no file {path!r} in {folder}.",
        remedy="Put it there, or change source.path in the contract.",
    )


def _read_file(path: Path, source: FileSource) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        content = _only_member(path) if path.suffix == ".zip" else path
        return read_csv_text(content, separator=source.separator, null_values=source.null_values)
    except (OSError, zipfile.BadZipFile, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise SourceError(f"The file cannot be read: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
